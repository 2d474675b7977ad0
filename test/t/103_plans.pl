
# Every statement of ours is planned the same way whatever ANALYZE found in tables that grow by millions, and reads no
# more of them than it has to do with.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use JSON::PP;
use PostgreSQL::Test::Utils;
use QuotaTest::Delivery qw(delivery_node log_part);
use QuotaTest::Mock;
use QuotaTest::Wait qw(becomes_true);
use Test::More;

use constant USERS => 1500;

# Tables whose size the planner must not ask for.
my $pinned = qr/^(quota_execute|quota_run|grant_decision|user_balance|quota_reversal_item)$/;

# What reads a whole table because it is about all of it: resume() counts all grants, twice, begin_doubt() asks for the last
# run and drops all balances; the balances of all users are aggregated; gateways are deleted and changed by hand.
my $whole = qr/count\(\*\) FILTER \(WHERE e\.status = 'pending'\)|e\.status IN \('failed', 'in_doubt'\)|e\.status IN \('pending', 'processing'\) GROUP BY|max\(r\.finish_time\)|DELETE FROM quota_manager\.user_balance$/;

# Indexes that hold few rows of their tables.
my $partial = qr/^(quota_run_(undelivered|unfinished)|quota_reversal_item_waits)$/;

my $node = delivery_node('plans', <<'CONF');
autovacuum = off
timezone = 'UTC'
session_preload_libraries = 'auto_explain'
auto_explain.log_min_duration = 0
auto_explain.log_analyze = on
auto_explain.log_timing = off
auto_explain.log_buffers = on
auto_explain.log_nested_statements = on
auto_explain.log_format = json
log_line_prefix = '%d '
log_min_duration_statement = -1
max_parallel_workers_per_gather = 0
quota_manager.retry_base = 1ms
quota_manager.retry_max = 2ms
quota_manager.linger = 1ms
CONF
my %mock = map { $_ => QuotaTest::Mock->start(dialect => $_ eq 'hold' ? 'higress' : 'zgsm', key => 'key') }
  qw(hold resend reconcile);

# A database with users, and with tables of grants as ANALYZE has not seen them, saw them empty, or saw a few rows.
sub make_database
{
	my ($database) = @_;
	my $users = USERS;

	$node->safe_psql('postgres', "CREATE DATABASE $database TEMPLATE template0 ENCODING 'UTF8'");
	$node->safe_psql($database, 'CREATE EXTENSION quota_manager');
	foreach my $gateway (sort keys %mock)
	{
		my $dialect = $mock{$gateway}{dialect};
		my $url = $mock{$gateway}->url;

		$node->safe_psql($database, qq{
			INSERT INTO quota_manager.quota_credential VALUES ('$gateway', 'key');
			INSERT INTO quota_manager.quota_gateway (name, dialect, base_url, credential, doubt_policy, sole_writer)
				VALUES ('$gateway', '$dialect', '$url', 'row:$gateway', '$gateway', true);
			INSERT INTO quota_manager.quota_model VALUES ('model-$gateway', '$gateway')});
	}
	$node->safe_psql($database, qq{
		INSERT INTO quota_manager.user_info (id, vip, org)
			SELECT 'user' || n, n % 10, 'org' || n % 50 FROM generate_series(1, $users) n});
	# What is not pinned is known alike everywhere.
	$node->safe_psql($database, "VACUUM ANALYZE quota_manager.$_")
	  foreach grep { !/$pinned/ } split /\n/, $node->safe_psql($database,
		q{SELECT relname FROM pg_class WHERE relnamespace = 'quota_manager'::regnamespace AND relkind = 'r'});
	return if $database eq 'never';
	$node->safe_psql($database, q{
		WITH run AS (INSERT INTO quota_manager.quota_run (strategy_id, scheduled_time, state, start_time, finish_time)
			SELECT 1000 + n, '2024-01-01', 'done', now(), now() FROM generate_series(1, 3) n RETURNING id, strategy_id)
		INSERT INTO quota_manager.quota_execute (strategy_id, user_id, scheduled_time, run_id, strategy_version, status,
				amount, model, gateway, batch_number)
			SELECT r.strategy_id, 'user' || n, '2024-01-01', r.id, 1, 'completed', 1, 'model-hold', 'hold', ''
			FROM run r, generate_series(1, 3) n;
		INSERT INTO quota_manager.user_balance VALUES ('nobody', 'hold', 1)}) if $database eq 'small';
	$node->safe_psql($database, 'VACUUM ANALYZE');
	return;
}

# Has each statement of ours run.
sub work
{
	my ($database) = @_;
	my $clock = "SET quota_manager.schedule_clock = '2030-01-01 %s+00';";
	my $scan = 'SELECT * FROM quota_manager.scan();';
	my $deliver = 'CALL quota_manager.deliver();';
	my $ask = sub { return $node->safe_psql($database, sprintf($clock, $_[0]) . $_[1]) };

	$ask->('07:00:00', q{
		INSERT INTO quota_manager.quota_strategy (name, type, periodic_expr, amount, model, condition, max_exec_per_user) VALUES
			('all', 'single', NULL, 1, 'model-hold', 'true()', NULL),
			('some', 'single', NULL, 1, 'model-resend', 'belong-to("org7")', NULL),
			('one', 'single', NULL, 1, 'model-reconcile', 'match-user("user7", "user8")', NULL),
			('capped', 'single', NULL, 1, 'model-reconcile', 'is-vip(5)', 1),
			('poor', 'single', NULL, 1, 'model-resend', 'and(is-vip(8), quota-le("model-resend", 100))', 2),
			('daily', 'periodic', '0 8 * * *', 1, 'model-hold', 'is-vip(2)', NULL),
			('daily few', 'periodic', '0 8 * * *', 1, 'model-reconcile', 'belong-to("org8", "org9")', 3),
			('daily poor', 'periodic', '0 8 * * *', 1, 'model-resend', 'and(is-vip(8), quota-le("model-resend", 100))', NULL)});
	foreach my $time ('07:00:00', '08:00:01')
	{
		$ask->($time, $scan);
		# Undecided, read and run again: the retried firings, too.
		$ask->($time, 'CALL quota_manager.tick()');
	}
	foreach my $gateway (sort keys %mock)
	{
		$mock{$gateway}->fault(kind => 'apply_close', match => 'delta', count => 3);
		$mock{$gateway}->fault(kind => 'status', match => 'delta', count => 3, status => 429);
	}
	$ask->('08:00:02', $deliver) foreach 1 .. 3;
	$_->clear_faults foreach values %mock;
	$ask->('08:00:02', $deliver) foreach 1 .. 8;
	$ask->('08:00:02', $scan);
	$ask->('08:00:02', 'TABLE quota_manager.worker_status; TABLE quota_manager.delivery_status');

	# Decisions: of one and of many, in sessions that have not used the library yet.
	$ask->('08:00:02', q{UPDATE quota_manager.quota_strategy SET enabled = false WHERE type = 'periodic';
		INSERT INTO quota_manager.quota_strategy (name, type, amount, model, condition) VALUES
			('more', 'single', 1, 'model-hold', 'is-vip(3)')});
	$ask->('08:00:02', q{SELECT * FROM quota_manager.scan('more')});
	my $pending = q{ARRAY(SELECT id FROM quota_manager.quota_execute WHERE status = 'pending' ORDER BY id LIMIT 10)};
	my @ids = split /\n/, $node->safe_psql($database, "SELECT unnest($pending)");
	$node->safe_psql($database, "SELECT quota_manager.cancel($ids[0])");
	$node->safe_psql($database, "SELECT quota_manager.cancel(ARRAY[$ids[1], $ids[2]])");
	$node->safe_psql($database, "SELECT quota_manager.retry(ARRAY[$ids[3], $ids[4]])");
	$ask->('08:00:02', $deliver);

	# Reversals of grants in several states, gone on with, undone and previewed.
	$ask->('08:00:02', q{UPDATE quota_manager.quota_execute SET status = 'in_doubt', next_attempt_time = 'infinity'
			WHERE id IN (SELECT id FROM quota_manager.quota_execute WHERE status = 'completed' AND strategy_id = (SELECT id FROM quota_manager.quota_strategy WHERE name = 'more') LIMIT 4) /* of this test */;
		SELECT quota_internal.recount_grants() /* of this test */});
	$ask->('08:00:02', q{SELECT * FROM quota_manager.preview_reversal(strategy => 'more')});
	$ask->('08:00:02', q{SELECT * FROM quota_manager.reverse_strategy('more', 'a test')});
	$ask->('08:00:02', q{SELECT quota_manager.resolve(id, true) FROM quota_manager.quota_execute WHERE status = 'in_doubt' AND run_id IN (SELECT id FROM quota_manager.quota_run
		WHERE strategy_id = (SELECT id FROM quota_manager.quota_strategy WHERE name = 'more')) /* of this test */});
	$ask->('08:00:02', 'CALL quota_manager.tick()');
	$ask->('08:00:02', $deliver);
	$ask->('08:00:02', q{SELECT * FROM quota_manager.preview_reversal(reversal_id => 1)});
	$ask->('08:00:02', q{SELECT * FROM quota_manager.undo_reversal(1, 'a test')});
	$ask->('08:00:02', q{SELECT * FROM quota_manager.reverse_grants(ARRAY(SELECT id FROM quota_manager.quota_execute WHERE revision = 2 LIMIT 5), 'a test') /* of this test */});
	$ask->('08:00:02', 'TABLE quota_manager.reversal_status');

	# A strategy with grants is not deleted; another life of the database is doubted.
	$node->psql($database, q{DELETE FROM quota_manager.quota_strategy WHERE name = 'all'});
	$ask->('08:00:02', q{SELECT * FROM quota_manager.scan('more');
		UPDATE quota_manager.quota_run SET undelivered = true WHERE granted > 0;
		UPDATE quota_manager.quota_installation SET system_identifier = 1;
		SELECT * FROM quota_manager.resume('may_have_run')});
	$ask->('08:00:03', $scan);
	return;
}

# A plan without its numbers: nodes, the relations and indexes that they read.
sub shape
{
	my ($plan) = @_;
	my @children = map { shape($_) } @{ $plan->{Plans} // [] };

	# Constants and parameters are numbers, too.
	$plan->{'Index Cond'} =~ s/'[^']*'(::[a-z ]+(\[\])?)?|NULL::[a-z ]+(\[\])?|\$\d+/?/g if $plan->{'Index Cond'};
	return join(' ', map { $plan->{$_} // () } 'Node Type', 'Join Type', 'Strategy', 'Scan Direction', 'Relation Name',
		'Index Name', 'Index Cond')
	  . (@children ? ' (' . join(', ', @children) . ')' : '');
}

# What is wrong with a plan.
sub faults
{
	my ($plan) = @_;
	my @faults = map { faults($_) } @{ $plan->{Plans} // [] };
	my $type = $plan->{'Node Type'};
	my $relation = $plan->{'Relation Name'} // '';

	push @faults, "reads all of $relation" if $type eq 'Seq Scan' && $relation =~ $pinned && $relation ne 'user_balance';
	push @faults, "reads all of $plan->{'Index Name'}"
	  if $type =~ /^Index/ && $relation =~ $pinned && !$plan->{'Index Cond'} && $plan->{'Index Name'} !~ $partial
	  && $relation ne 'user_balance';
	push @faults, "drops $plan->{'Rows Removed by Join Filter'} pairs of rows in a join"
	  if ($plan->{'Rows Removed by Join Filter'} // 0) > USERS;
	return @faults;
}

# How many rows a statement has to do with: what it returns or changes, and what it reads of other tables.
sub rows
{
	my ($plan, $top) = @_;
	my $is_own = ($plan->{'Relation Name'} // '') =~ $pinned && $plan->{'Node Type'} ne 'ModifyTable';
	my $rows = $is_own && !$top ? 0 : $plan->{'Actual Rows'};

	$rows += $plan->{'Rows Removed by Filter'} // 0 if !$is_own;

	$rows += rows($_, $plan->{'Node Type'} eq 'ModifyTable') foreach @{ $plan->{Plans} // [] };
	return $rows;
}

# How many grants it looked at that were in the range of ids of a run, and not of those that were looked for.
sub passed
{
	my ($plan) = @_;
	my $passed = ($plan->{'Index Name'} // '') eq 'quota_execute_id' ? $plan->{'Rows Removed by Filter'} // 0 : 0;

	$passed += passed($_) foreach @{ $plan->{Plans} // [] };
	return $passed;
}

# The plans of what a database has run: query => { shape => plan with its query }.
sub plans
{
	my ($database, $log) = @_;
	my %plans;

	while ($log =~ /^$database LOG:  duration: [\d.]+ ms  plan:\n((?:\t.*\n)+)/mg)
	{
		my $json = $1;
		# most are of no interest, and to read a plan takes long
		my ($text) = $json =~ /"Query Text": ("(?:[^"\\]|\\.)*")/ or die "no query: $json";
		my $query = decode_json("[$text]")->[0] =~ s/\s+/ /gr;

		next if $query !~ /quota_execute|quota_run|user_balance|grant_decision|known_balance|quota_reversal_item/;
		# What this test asks for itself, and what counts the buffers of others.
		next if $query =~ /of this test|(quota_manager\.scan|quota_internal\.(run_due|order_reversal))\(|^ ?(SET|SELECT unnest|SELECT ARRAY)|TABLE quota_manager|SET undelivered = true WHERE granted > 0/;
		my $report = decode_json($json);

		$plans{$query}{ shape($report->{Plan}) } //= $report->{Plan};
		my ($kept) = $plans{$query}{ shape($report->{Plan}) };
		my $buffers = $report->{Plan}{'Shared Hit Blocks'} + $report->{Plan}{'Shared Read Blocks'};
		# They lie side by side, at least four on a page.
		my $excess = $buffers - 150 - 20 * rows($report->{Plan}, 1) - passed($report->{Plan}) / 4;

		$kept->{excess} = "$buffers buffers for " . rows($report->{Plan}, 1) . ' rows' if $excess > 0;
	}
	return \%plans;
}

my %plans;
foreach my $database ('never', 'empty', 'small')
{
	make_database($database);
	my $start = -s $node->logfile;
	work($database);
	$_->reset foreach values %mock;
	$plans{$database} = plans($database, log_part($node, $start));
	cmp_ok(scalar(keys %{ $plans{$database} }), '>', 25, "$database: statements were seen");
}

# The same by workers, which have statements of their own. The log does not tell their databases: one plan serves all.
$node->append_conf('postgresql.conf', <<'CONF');
shared_preload_libraries = 'quota_manager, auto_explain'
session_preload_libraries = ''
quota_manager.worker_role = 'quota_worker'
quota_manager.max_workers = 3
quota_manager.poll_interval = '100ms'
CONF
$node->restart;
my $from = -s $node->logfile;
$node->safe_psql('postgres', 'CREATE ROLE quota_worker LOGIN');
foreach my $database (sort keys %plans)
{
	$node->safe_psql($database, q{SELECT quota_manager.grant_access('quota_worker', 'worker');
		UPDATE quota_manager.quota_strategy SET state = 'archived';
		INSERT INTO quota_manager.quota_strategy (name, type, amount, model, condition) VALUES
			('by workers', 'single', 1, 'model-hold', 'is-vip(4)')});
	ok(becomes_true($node, q{
			SELECT count(*) > 0 AND bool_and(e.status = 'completed') AND NOT EXISTS (SELECT FROM quota_manager.quota_run r WHERE r.undelivered)
			FROM quota_manager.quota_execute e JOIN quota_manager.quota_strategy s ON s.id = e.strategy_id
			WHERE s.name = 'by workers' -- of this test
		}, database => $database), "$database: workers grant and deliver");
}
$plans{workers} = plans('', log_part($node, $from));
cmp_ok(scalar(grep { !$plans{never}{$_} } keys %{ $plans{workers} }), '>', 0, 'workers: statements of their own were seen');

my %queries = map { $_ => 1 } map { keys %$_ } values %plans;
foreach my $query (sort keys %queries)
{
	my $name = length($query) > 150 ? substr($query, 0, 147) . '...' : $query;

	subtest $name => sub {
		my %shapes = map { $_ => join("\n", sort keys %{ $plans{$_}{$query} // {} }) } keys %plans;

		foreach my $database ('empty', 'small')
		{
			is($shapes{$database}, $shapes{never}, "$database: planned as where it was never analysed")
			  if $shapes{$database} ne '' && $shapes{never} ne '';
		}
		is(scalar(split /\n/, $shapes{workers}), 1, 'workers: planned the same way in all databases')
		  if $shapes{workers} ne '' && $shapes{never} eq '';
		foreach my $database (sort keys %plans)
		{
			my @plans = values %{ $plans{$database}{$query} // {} };

			is(join(', ', map { faults($_) } @plans), '', "$database: reads what it needs") if $query !~ $whole;
			# By the key, for each of a list of users that have something or not.
			is(join(', ', map { $_->{excess} // () } @plans), '', "$database: and little of it") if $query !~ /$whole|user_id = ANY/;
		}
	};
}

$node->stop;
done_testing();
