
# The files in examples/monitoring name what the view has, and each alert fires when it should.  Of YAML, Perl's own reader
# knows enough; Python's is asked too where it is installed, and so is promtool.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use CPAN::Meta::YAML;
use JSON::PP;
use PostgreSQL::Test::Utils;
use QuotaTest::Delivery qw(delivery_node add_gateway grant deliver);
use QuotaTest::Mock;
use QuotaTest::Wait qw(becomes_true);
use QuotaTest::Workers;
use Test::More;

my $folder = "$FindBin::RealBin/../../examples/monitoring";
my $node = delivery_node('examples', "quota_manager.retry_base = 1ms\nquota_manager.retry_max = 5ms\n");
my %help = map { split /\t/, $_, 2 } split /\n/, $node->safe_psql('postgres', q{SELECT 'quota_manager_' || attname || E'\t' || col_description(attrelid, attnum)
	FROM pg_attribute WHERE attrelid = 'quota_manager.metrics'::regclass AND attnum > 1});
my %type = map { $_ => /_total$/ ? 'counter' : 'gauge' } keys %help;

sub contents { return slurp_file("$folder/$_[0]"); }

# The first document of a YAML file.
sub yaml
{
	my ($file) = @_;
	my $yaml = CPAN::Meta::YAML->read_string(contents($file)) or die "$file: " . CPAN::Meta::YAML->errstr;

	return $yaml->[0];
}

# The metrics that an expression names; dies at what is not one of ours.
sub metrics_of
{
	my ($expr) = @_;
	my @found = $expr =~ /\b(quota_manager_\w+)/g;

	return @found;
}

my (%query, %seen);
subtest 'sql_exporter' => sub {
	my $collector = yaml('quota_manager.collector.yml');
	%query = map { $_->{query_name} => $_->{query} } @{ $collector->{queries} };
	is($collector->{collector_name}, 'quota_manager', 'the collector has a name');
	foreach my $metric (@{ $collector->{metrics} })
	{
		my $name = $metric->{metric_name};

		$seen{$name}++;
		is_deeply([ $metric->{type}, $metric->{help}, "quota_manager_$metric->{values}[0]", $metric->{key_labels} // [] ],
			[ $type{$name}, $help{$name}, $name, $metric->{query_ref} =~ /gateways$/ ? ['gateway'] : [] ], "sql_exporter: $name");
		like($query{ $metric->{query_ref} }, qr/\b\Q$metric->{values}[0]\E\b/, 'its query has it');
	}
	is_deeply([ sort keys %seen ], [ sort keys %help ], 'sql_exporter: all figures');
};

my $queries;
subtest 'postgres_exporter' => sub {
	$queries = yaml('postgres_exporter.queries.yml');
	%seen = ();
	foreach my $key (sort keys %$queries)
	{
		foreach my $entry (@{ $queries->{$key}{metrics} })
		{
			my ($column) = keys %$entry;
			my $name = "${key}_$column";

			next if $entry->{$column}{usage} eq 'LABEL';
			$seen{$name}++;
			is_deeply([ $entry->{$column}{usage}, $entry->{$column}{description} ], [ uc($type{$name} // ''), $help{$name} ], "postgres_exporter: $name");
		}
	}
	is_deeply([ sort keys %seen ], [ sort keys %help ], 'postgres_exporter: all figures');
};

subtest 'the queries run, as a member of pg_monitor, and have as many columns as they are said to have' => sub {
	$node->safe_psql('postgres', 'CREATE ROLE monitor LOGIN IN ROLE pg_monitor');
	foreach my $query (values %query, map { $_->{query} } values %$queries)
	{
		isnt($node->safe_psql('postgres', "SET ROLE monitor; SELECT count(*) FROM ($query) q"), '', 'the query runs');
	}
	foreach my $key (keys %$queries)
	{
		my $listed = join ' ', sort map { keys %$_ } @{ $queries->{$key}{metrics} };

		$node->safe_psql('postgres', "CREATE VIEW quota_test.as_$key AS $queries->{$key}{query}");
		is($node->safe_psql('postgres', qq{SELECT string_agg(attname, ' ' ORDER BY attname COLLATE "C") FROM pg_attribute WHERE attrelid = 'quota_test.as_$key'::regclass}),
			$listed, "postgres_exporter: the columns of $key");
	}
};

subtest 'the dashboard, against the JSON model' => sub {
	my $dashboard = decode_json(contents('grafana-dashboard.json'));
	my %id;
	ok(exists $dashboard->{$_}, "the dashboard has $_")
	  foreach qw(uid title panels templating schemaVersion time timepicker refresh annotations links version tags timezone editable graphTooltip);
	ok(!defined $dashboard->{id}, 'its number is left to Grafana');
	is(scalar(grep { $_->{type} eq 'datasource' && $_->{name} eq 'datasource' && $_->{query} eq 'prometheus' } @{ $dashboard->{templating}{list} }), 1, 'the data source is a variable');
	%seen = ();
	my %place;
	foreach my $panel (@{ $dashboard->{panels} })
	{
		my ($x, $y, $w, $h) = @{ $panel->{gridPos} }{qw(x y w h)};
		my @bad;

		push @bad, 'its id is used twice' if $id{ $panel->{id} }++;
		push @bad, 'it lies outside' if $x < 0 || $x + $w > 24 || $w < 1 || $h < 1;
		foreach my $column ($x .. $x + $w - 1)
		{
			push @bad, 'it covers another one' if grep { $place{$_}{$column}++ } $y .. $y + $h - 1;
		}
		push @bad, "its type is $panel->{type}" if $panel->{type} !~ /^(?:row|stat|timeseries)$/;
		foreach my $target (@{ $panel->{targets} // [] })
		{
			push @bad, 'no data source' if $target->{datasource}{uid} ne '${datasource}' || $target->{datasource}{type} ne 'prometheus' || !$target->{refId};
			push @bad, "no metric of ours: $target->{expr}" if !metrics_of($target->{expr});
			push @bad, 'its parentheses' if ($target->{expr} =~ tr/(//) != ($target->{expr} =~ tr/)//) || ($target->{expr} =~ tr/{//) != ($target->{expr} =~ tr/}//);
			foreach my $name (metrics_of($target->{expr}))
			{
				$seen{$name}++;
				push @bad, "$name is unknown" if !$help{$name};
				push @bad, "$name is a counter without a rate" if ($type{$name} // '') eq 'counter' && $target->{expr} !~ /(?:rate|increase)\(\Q$name\E/;
			}
		}
		push @bad, 'no target' if $panel->{type} ne 'row' && !@{ $panel->{targets} // [] };
		is(join('; ', @bad), '', "panel \"$panel->{title}\"");
	}
	foreach my $variable (@{ $dashboard->{templating}{list} })
	{
		ok(!grep({ !$help{$_} } metrics_of($variable->{definition} // '')), "variable $variable->{name}");
	}
	is_deeply([ sort keys %seen ], [ sort keys %help ], 'each figure is shown in some panel');
};

my (%rule, %fired);
subtest 'the alert rules' => sub {
	my $groups = yaml('alerts.yml')->{groups};
	%rule = map { $_->{alert} => $_ } map { @{ $_->{rules} } } @$groups;
	foreach my $name (sort keys %rule)
	{
		my $rule = $rule{$name};

		like($rule->{for}, qr/^\d+m$/, "$name: how long");
		like($rule->{labels}{severity}, qr/^(?:warning|critical)$/, 'its severity');
		ok($rule->{annotations}{summary} && $rule->{annotations}{description}, 'what to say');
		is(join(' ', grep { !$help{$_} } metrics_of($rule->{expr})), '', "names what there is: $rule->{expr}");
	}
};

# The samples of a database.
sub samples
{
	my ($server) = @_;

	return { $server->safe_psql('postgres', 'SELECT quota_internal.metrics_text()') =~ /^(quota_manager_[^ ]+) (\S+)$/gm };
}

# Whether a rule fires by these samples, of a gateway or of the database.  Knows the kinds of expressions that there are;
# what held for some time is taken to be as it is now.
sub fires
{
	my ($rule, $samples, $gateway) = @_;
	my $label = defined $gateway ? "{gateway=\"$gateway\"}" : '';

	foreach my $term (split / and /, $rule->{expr})
	{
		if ($term =~ /^absent\((\w+)\)$/)
		{
			return 0 if exists $samples->{$1};
			next;
		}
		my ($name, $comparison, $number) = $term =~ /^(?:max_over_time\()?(\w+)(?:\[\d+m\]\))? (==|>) (\d+)$/ or die "cannot read: $term";
		my $value = $samples->{"$name$label"};

		return 0 if !defined $value || !($comparison eq '==' ? $value == $number : $value > $number);
	}
	return 1;
}

sub firing
{
	my ($server, $gateway) = @_;
	my $samples = samples($server);
	my @names = grep { fires($rule{$_}, $samples, $gateway) } sort keys %rule;

	$fired{$_}++ foreach @names;
	return join ' ', @names;
}

my $mock;
subtest 'with workers and an open gateway nothing fires; each trouble has its alert' => sub {
	$mock = QuotaTest::Mock->start(dialect => 'higress', key => 'key');
	add_gateway($node, 'g', $mock, is_default => 'true');
	is(firing($node, 'g'), '', 'nothing about a gateway that is open');
	$mock->fault($mock->own_refusal('no'), match => 'delta', count => 1);
	grant($node, 'g', 1, 'refused');
	deliver($node);
	is(firing($node, 'g'), 'QuotaManagerGrantsFailed', 'a grant fails');
	$mock->clear_faults;
	$node->safe_psql('postgres', 'SELECT quota_manager.retry(array_agg(grant_id)) FROM quota_manager.troubled_grant');
	deliver($node);
	is(firing($node, 'g'), '', 'and is delivered after all');
	$mock->fault(kind => 'apply_close', match => 'delta', count => 1);
	grant($node, 'g', 1, 'lost');
	deliver($node);
	like(firing($node, 'g'), qr/QuotaManagerGrantsInDoubt/, 'an answer is lost');
	$node->safe_psql('postgres', 'SELECT quota_manager.resolve(array_agg(grant_id), true) FROM quota_manager.troubled_grant');
	$mock->clear_faults;
	$mock->kill9;
	grant($node, 'g', 1, 'late');
	deliver($node);
	is(firing($node, 'g'), 'QuotaManagerGatewayNotOpenForLong', 'the gateway is down');
	# The time that passes is what the rows say.
	$node->safe_psql('postgres', q{ALTER TABLE quota_manager.quota_gateway DISABLE TRIGGER USER;
		UPDATE quota_manager.quota_gateway SET state_since = state_since - interval '6 min';
		UPDATE quota_manager.quota_run SET start_time = start_time - interval '11 min' WHERE undelivered;
		ALTER TABLE quota_manager.quota_gateway ENABLE TRIGGER USER});
	is(firing($node, 'g'), 'QuotaManagerGatewayNotOpen QuotaManagerGatewayNotOpenForLong QuotaManagerPendingForLong', 'and stays so');
	$mock->start_again;
	$mock->set_key('another');
	foreach (1 .. 50)
	{
		deliver($node);
		last if firing($node, 'g') =~ /Misconfigured/;
	}
	like(firing($node, 'g'), qr/QuotaManagerGatewayMisconfigured/, 'it refuses our key');
	$node->safe_psql('postgres', q{INSERT INTO quota_manager.bulk_call (key, user_id, value, reason, gateway, state) VALUES ('k', 'u', 1, 'r', 'g', 'in_doubt')});
	like(firing($node, 'g'), qr/QuotaManagerBulkChangesInDoubt/, 'a change by hand is in doubt');
	$node->safe_psql('postgres', q{SELECT quota_manager.resolve_bulk('k', NULL, true)});
	unlike(firing($node, 'g'), qr/QuotaManagerBulkChangesInDoubt/, 'and is so no more');
	$node->safe_psql('postgres', q{INSERT INTO quota_manager.balance_suspension (gateway, reason) VALUES ('g', 'test')});
	like(firing($node, 'g'), qr/QuotaManagerBalancesSuspended/, 'balances are suspended');
	$node->safe_psql('postgres', q{SELECT quota_manager.pause_gateway('g')});
	unlike(firing($node, 'g'), qr/Paused/, 'the gateway was paused just now');
	$node->safe_psql('postgres', q{UPDATE quota_manager.quota_pause SET since = since - interval '25 hours'});
	like(firing($node, 'g'), qr/QuotaManagerGatewayPaused/, 'and a day ago');
	$node->safe_psql('postgres', q{SELECT quota_manager.unpause_gateway('g')});
	unlike(firing($node, 'g'), qr/Paused/, 'and is so no more');
};

subtest 'about the database' => sub {
	like(firing($node), qr/^QuotaManagerLauncherGone$/, 'no launcher runs');
	$node->safe_psql('postgres', q{INSERT INTO quota_manager.user_info (id) VALUES ('u');
		INSERT INTO quota_manager.quota_strategy (name, type, periodic_expr, time_zone, amount, model, condition) VALUES ('late', 'periodic', '* * * * *', 'UTC', 1, 'm', 'true()')});
	$node->append_conf('postgresql.conf', sprintf("quota_manager.schedule_clock = '%s'", $node->safe_psql('postgres', q{SELECT now() + interval '10 min'})));
	$node->reload;
	ok(becomes_true($node, q{SELECT quota_manager.schedule_now() > now() + interval '9 min'}), 'time passes');
	$node->safe_psql('postgres', q{UPDATE quota_manager.quota_strategy SET catch_up = 'all', catch_up_max = 100});
	like(firing($node), qr/QuotaManagerFiringsOverdue/, 'firings are overdue');
	$node->safe_psql('postgres', q{ALTER TABLE quota_manager.user_info RENAME TO gone; SELECT count(*) FROM quota_manager.scan()});
	like(firing($node), qr/QuotaManagerStrategiesFailing/, 'a strategy fails');
	$node->safe_psql('postgres', q{ALTER TABLE quota_manager.gone RENAME TO user_info});
	$node->safe_psql('postgres', q{SELECT count(*) FROM quota_manager.scan(); UPDATE quota_manager.quota_installation SET system_identifier = 1});
	like(firing($node), qr/QuotaManagerCopySuspended/, 'the database is a copy');
	$node->safe_psql('postgres', q{INSERT INTO quota_manager.quota_pause (scope, strategy_id, cause) SELECT 'strategy', id, 'breaker' FROM quota_manager.quota_strategy});
	like(firing($node), qr/QuotaManagerStrategyStopped/, 'the breaker has stopped a strategy');
	$node->safe_psql('postgres', q{INSERT INTO quota_manager.quota_pause (scope, since) VALUES ('everything', now() - interval '25 hours')});
	like(firing($node), qr/QuotaManagerEverythingPaused/, 'everything has been paused for a day');
	like(firing($node, 'g'), qr/QuotaManagerGatewayPaused/, 'the gateway, too');
	ok(fires($rule{QuotaManagerGone}, {}), 'no figures come');
	$fired{QuotaManagerGone}++;
};
$node->stop;

my $served;
subtest 'workers that come and go' => sub {
	$served = QuotaTest::Workers::cluster('examples_workers', preload => 1);
	QuotaTest::Workers::database($served, 'postgres', { url => 'http://127.0.0.1:1' });
	QuotaTest::Workers::await($served, 'postgres', 'SELECT launcher_running = 1 AND schedulers_running = 1 FROM quota_manager.metrics WHERE gateway IS NULL');
	is(firing($served), '', 'nothing while workers run');
	foreach my $worker ('scheduler', 'launcher')
	{
		my $pid = QuotaTest::Workers::worker($served, 'postgres', $worker);

		# It hangs: how long ago its last poll was grows, and passes the limit in time.
		kill STOP => $pid;
		QuotaTest::Workers::await($served, 'postgres', "SELECT ${worker}_tick_seconds > 3 FROM quota_manager.metrics WHERE gateway IS NULL");
		my $later = samples($served);
		kill CONT => $pid;
		my $name = "quota_manager_${worker}_tick_seconds";
		my ($alert) = grep { $rule{$_}{expr} =~ /^\Q$name\E / } keys %rule;
		my ($limit) = $rule{$alert}{expr} =~ /(\d+)$/;

		cmp_ok($later->{$name}, '>', 3, "$worker: its last poll was long ago");
		ok(fires($rule{$alert}, { %$later, $name => $later->{$name} + $limit }), "$alert: it hangs");
		$fired{$alert}++;
	}
	$served->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM quota_manager.worker_status WHERE kind = 'launcher'});
	QuotaTest::Workers::await($served, 'postgres', 'SELECT launcher_running = 0 FROM quota_manager.metrics WHERE gateway IS NULL');
	like(firing($served), qr/QuotaManagerLauncherGone/, 'the launcher was ended');
	$served->stop;
	is_deeply([ sort keys %fired ], [ sort keys %rule ], 'each alert was seen to fire');
};

# Other readers.
SKIP:
{
	skip 'python3 has no yaml', 1 if system('python3 -c "import yaml" 2>/dev/null') != 0;
	command_ok([ 'python3', '-c', 'import sys, yaml; [yaml.safe_load(open(f)) for f in sys.argv[1:]]', glob("$folder/*.yml") ], 'Python reads the files');
}
SKIP:
{
	skip 'there is no promtool', 1 if system('promtool --version >/dev/null 2>&1') != 0;
	command_ok([ 'promtool', 'check', 'rules', "$folder/alerts.yml" ], 'promtool reads the rules');
}

done_testing();
