
# The view metrics, its text for Prometheus, and since when a gateway is in its state.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Utils;
use QuotaTest::Delivery qw(delivery_node add_gateway grant deliver);
use QuotaTest::Mock;
use QuotaTest::Workers;
use Test::More;

my $node = delivery_node('metrics', "quota_manager.retry_base = 1ms\nquota_manager.retry_max = 5ms\n");
my $mock = QuotaTest::Mock->start(dialect => 'higress', key => 'key');
my $since = 'SELECT state_since FROM quota_manager.quota_gateway WHERE name = ';

sub sql { return $node->safe_psql('postgres', $_[0]); }

# One figure; of a gateway, or of the database.
sub figure
{
	my ($column, $gateway) = @_;

	return sql("SELECT $column FROM quota_manager.metrics WHERE gateway " . (defined $gateway ? "= '$gateway'" : 'IS NULL'));
}

# The samples of a text in Prometheus's format, by their names and labels; dies where it is none.
sub samples
{
	my ($text) = @_;
	my (%sample, %type, $last);

	$text =~ /\n\z/ or die 'the text does not end with a newline';
	foreach my $line (split /\n/, $text)
	{
		if ($line =~ /^# HELP ([a-zA-Z_:][a-zA-Z0-9_:]*) (?:[^\\]|\\\\|\\n)+$/)
		{
			$last = $1;
			!exists $type{$last} or die "two families of $last";
			$type{$last} = undef;
		}
		elsif ($line =~ /^# TYPE (\S+) (gauge|counter)$/ && $1 eq $last) { $type{$1} = $2; }
		elsif ($line =~ /^((\w+)(?:\{gateway="(?:[^\\"]|\\\\|\\"|\\n)*"\})?) (-?[0-9.]+(?:e[+-]?[0-9]+)?)$/ && $2 eq $last && defined $type{$2})
		{
			!exists $sample{$1} or die "$1 comes twice";
			$sample{$1} = $3;
		}
		else { die "no line of the format: $line"; }
	}
	return (\%sample, \%type);
}

my ($code, $error);
subtest 'since when' => sub {
	add_gateway($node, 'g', $mock);
	my $first = sql("$since 'g'");
	is(sql("SELECT state_since = create_time OR state_since - create_time < interval '1 s' FROM quota_manager.quota_gateway"), 't', 'a new gateway is open since it was written');
	grant($node, 'g', 2.5 * 2, 'a', 'b', 'c');
	deliver($node);
	is(sql("$since 'g'"), $first, 'deliveries that meet no trouble leave it so');
	$mock->kill9;
	grant($node, 'g', 1, 'd');
	deliver($node);
	my $closed = sql("$since 'g'");
	is(figure('gateway_open, gateway_closed + gateway_misconfigured', 'g'), '0|1', 'it is closed');
	cmp_ok($closed, 'gt', $first, 'since now');
	deliver($node);
	sql(q{UPDATE quota_manager.quota_gateway SET request_timeout = '29 s'});
	is(sql("$since 'g'"), $closed, 'another failed delivery and an edit leave it so');
	$node->restart;
	deliver($node);
	is(sql("$since 'g'"), $closed, 'also a restart');
	$mock->start_again;
	foreach (1 .. 100)
	{
		deliver($node);
		last if figure('gateway_open', 'g');
	}
	is(figure('gateway_open', 'g'), 1, 'it is open again');
	cmp_ok(sql("$since 'g'"), 'gt', $closed, 'since it is');
	is(sql(q{SELECT gateway_state_seconds BETWEEN 0 AND 600 FROM quota_manager.metrics WHERE gateway = 'g'}), 't', 'the view says for how long');
	sql(q{CREATE ROLE site LOGIN; SELECT quota_manager.grant_access('site', 'admin'); GRANT UPDATE ON quota_manager.quota_gateway TO site});
	($code, undef, $error) = $node->psql('postgres', q{SET ROLE site; UPDATE quota_manager.quota_gateway SET state_since = '2000-01-01'});
	like($error, qr/the state of gateway "g" is written by deliveries alone/, 'nobody writes it by hand');
};

subtest 'figures against the grants' => sub {
	my $awkward = q(a "quoted" \\ gateway);
	sql("INSERT INTO quota_manager.quota_gateway (name, dialect, base_url) VALUES ('$awkward', 'higress', 'http://127.0.0.1:1')");
	$mock->fault($mock->own_refusal('no'), match => 'delta', count => 2);
	grant($node, 'g', 1, 'f1', 'f2');
	deliver($node);
	$mock->clear_faults;
	grant($node, $awkward, 1, 'p1', 'p2');
	grant($node, 'nowhere', 1, 'n1');
	is(figure('pending_grants, processing_grants', $awkward), '2|0', 'what waits');
	is(figure('pending_grants, gateway_open', 'nowhere'), '1|', 'also at a gateway that is not there');
	foreach my $status ('failed', 'in_doubt')
	{
		is(sql("SELECT sum(${status}_grants) FROM quota_manager.metrics"), sql("SELECT count(*) FROM quota_manager.quota_execute WHERE status = '$status'"), "how many are $status");
	}
	is(figure('failures_total', 'g'), 2, 'how many have failed');
	is(sql('SELECT sum(completed_grants_total), sum(completed_amount_total) FROM quota_manager.metrics'),
		sql("SELECT count(*), sum(amount) FROM quota_manager.quota_execute WHERE status = 'completed'"), 'how many were completed, and how much');
	is(sql("SELECT oldest_pending_seconds BETWEEN extract(epoch FROM clock_timestamp() - d.oldest_pending) - 1 AND extract(epoch FROM clock_timestamp() - d.oldest_pending) + 1
		FROM quota_manager.metrics m JOIN quota_manager.delivery_status d USING (gateway) WHERE m.pending_grants > 0 AND d.state IS NOT NULL"), 't', 'for how long the oldest waits');
	is(figure('oldest_pending_seconds', 'g'), 0, 'nothing waits');
	is(figure('launcher_running, schedulers_running, couriers_running, copy_suspended, strategies_in_use, due_firings, failed_runs, skipped_firings_total'),
		'0|0|0|0|0|0|0|0', 'no worker runs, nothing is due');
	sql(q{INSERT INTO quota_manager.user_info (id) VALUES ('u');
		INSERT INTO quota_manager.quota_model VALUES ('m', 'g');
		INSERT INTO quota_manager.quota_strategy (name, type, amount, model, condition) VALUES ('due', 'single', 1, 'm', 'true()');
		INSERT INTO quota_manager.quota_strategy (name, type, periodic_expr, amount, model, condition) VALUES ('late', 'periodic', '* * * * *', 1, 'm', 'false()')});
	sql(q{SET quota_manager.schedule_clock = '2040-01-01 00:00:01+00'; SELECT count(*) FROM quota_manager.scan()});
	cmp_ok(figure('skipped_firings_total'), '>', 0, 'firings that were not run');
	is(figure('skipped_firings_total'), sql(q{SELECT sum(occurrences) FROM quota_manager.quota_run WHERE state = 'skipped'}), 'are counted');
};

my ($sample, $type);
subtest 'the text' => sub {
	($sample, $type) = samples(sql('SELECT quota_internal.metrics_text()') . "\n");
	is($sample->{'quota_manager_failures_total{gateway="g"}'}, 2, 'the text has the figures');
	is($sample->{'quota_manager_pending_grants{gateway="a \"quoted\" \\\\ gateway"}'}, 2, 'labels are escaped');
	is($sample->{quota_manager_launcher_running}, 0, 'what is about the database has no label');
	is($type->{quota_manager_failures_total}, 'counter', 'what grows is a counter');
	is($type->{quota_manager_failed_grants}, 'gauge', 'all else a gauge');
	is(join(' ', sort keys %$type), join(' ', sort split /\n/, sql(q{SELECT 'quota_manager_' || attname FROM pg_attribute
		WHERE attrelid = 'quota_manager.metrics'::regclass AND attnum > 1})), 'each column is a family');
	is(sql(q{SELECT right(quota_internal.metrics_text(), 1) = E'\n'}), 't', 'it ends with a newline');
	sql('BEGIN READ ONLY; SELECT quota_internal.metrics_text(); COMMIT');
	pass('it can be read in a read-only transaction');
};

subtest 'who may read it' => sub {
	sql(q{CREATE ROLE viewer LOGIN; SELECT quota_manager.grant_access('viewer', 'viewer');
		CREATE ROLE monitor LOGIN IN ROLE pg_monitor; CREATE ROLE nobody LOGIN});
	foreach my $role ('viewer', 'monitor')
	{
		is(sql("SET ROLE $role; SELECT count(*) FROM quota_manager.metrics"), 4, "$role reads the view");
		isnt(sql("SET ROLE $role; SELECT quota_internal.metrics_text()"), '', 'and the text');
	}
	($code, undef, $error) = $node->psql('postgres', 'SET ROLE monitor; SELECT * FROM quota_manager.quota_execute');
	like($error, qr/permission denied for table quota_execute/, 'who monitors sees no grants');
	($code, undef, $error) = $node->psql('postgres', 'SET ROLE nobody; SELECT * FROM quota_manager.metrics');
	like($error, qr/permission denied/, 'others see nothing');
};
$node->stop;

# With workers.
my $served = QuotaTest::Workers::cluster('metrics_workers', preload => 1);
QuotaTest::Workers::database($served, 'postgres', { url => $mock->url, key => 'key' });
QuotaTest::Workers::await($served, 'postgres', q{SELECT launcher_running = 1 AND schedulers_running = 1 AND launcher_tick_seconds < 60 AND scheduler_tick_seconds < 60
	FROM quota_manager.metrics WHERE gateway IS NULL});
pass('launcher and scheduler are seen');
$served->stop;

done_testing();
