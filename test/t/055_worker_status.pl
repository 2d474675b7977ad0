# What worker_status tells: workers that run and that do not, what waits for them, what went wrong last; and that
# statistics show what they write.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use QuotaTest::Workers;
use Test::More;

my $gateway = QuotaTest::Workers::gateway();
my $node = QuotaTest::Workers::cluster('worker_status',
	preload => 1,
	settings => <<'CONF');
quota_manager.workers = off
quota_manager.schedule_clock = '2025-06-30 07:30:00+00'
quota_manager.scan_interval = 1h
autovacuum = off
CONF

QuotaTest::Workers::database($node, 'postgres', $gateway);
QuotaTest::Workers::users($node, 'postgres', 20);
$node->safe_psql('postgres', q{CREATE ROLE onlooker LOGIN; SELECT quota_manager.grant_access('onlooker', 'viewer')});

sub sql
{
	return $node->safe_psql('postgres', shift);
}

# What a viewer sees of a kind of worker.
sub status
{
	my ($kind, $columns) = @_;

	return $node->safe_psql('postgres', "SELECT $columns FROM quota_manager.worker_status WHERE kind = '$kind'",
		connstr => $node->connstr('postgres') . ' user=onlooker');
}

sub await
{
	my ($condition) = @_;

	QuotaTest::Workers::await($node, 'postgres', $condition);
	return;
}

subtest 'nothing runs: there is a row for each kind all the same, and what waits' => sub {
	is(status('launcher', 'pid > 0, queue_depth, oldest_age, last_error'), 't|||', 'the launcher has no queue');
	is(status('scheduler', 'pid, role, state, activity, started, last_tick, queue_depth, oldest_age, last_error, last_error_time'),
		'||not running||||0|||', 'a scheduler that does not run has a row');
	is(status('courier', 'pid, role, state, activity, started, last_tick, queue_depth, oldest_age, last_error, last_error_time'),
		'||not running||||0|||', 'so has a courier');

	QuotaTest::Workers::strategy($node, 'postgres', name => 'daily', type => 'periodic', periodic_expr => '0 8 * * *');
	QuotaTest::Workers::strategy($node, 'postgres', name => 'off', type => 'periodic', periodic_expr => '0 8 * * *', enabled => 'false');
	is(status('scheduler', 'queue_depth, oldest_age'), '0|', 'nothing is due before its time');
	QuotaTest::Workers::set($node, 'quota_manager.schedule_clock', '2025-06-30 09:30:00+00');
	await(q{SELECT quota_manager.schedule_now() = '2025-06-30 09:30:00+00'});
	is(status('scheduler', 'queue_depth, oldest_age'), '1|01:30:00', 'a firing that was not run waits, by the schedule clock');
	QuotaTest::Workers::strategy($node, 'postgres', name => 'once');
	QuotaTest::Workers::strategy($node, 'postgres', name => 'later', valid_from => '2026-01-01 00:00:00+00');
	is(status('scheduler', 'queue_depth, oldest_age'), '2|01:30:00', 'so does a single strategy that is new');
};

# CALL tick() does the work and leaves what went wrong.
sql(q{CREATE FUNCTION quota_condition.gone(s quota_manager.subject) RETURNS boolean IMMUTABLE PARALLEL SAFE RETURN true});
QuotaTest::Workers::strategy($node, 'postgres', name => 'broken', condition => 'gone()');
sql(q{DROP FUNCTION quota_condition.gone});
my $session = $node->background_psql('postgres', on_error_stop => 0);

sub await_statistics
{
	my ($inserted, $updated, $what) = @_;

	await("SELECT n_tup_ins = $inserted AND n_tup_upd >= $updated AND n_mod_since_analyze >= $inserted + $updated
		FROM pg_stat_user_tables WHERE relid = 'quota_manager.quota_execute'::regclass");
	pass("statistics show $what");
	return;
}
$session->query('CALL quota_manager.tick()');
is(status('scheduler', 'queue_depth, state'), '0|not running', 'tick() runs what waits; what failed is not due before its back-off is over');
is(sql(q{SELECT state, tries FROM quota_manager.strategy_due WHERE name = 'broken'}), 'waiting|1', 'but waits');
like(status('scheduler', 'last_error'), qr/^strategy "broken" failed: .*gone/, 'and leaves what failed');
is(status('scheduler', q{last_error_time BETWEEN now() - interval '1 min' AND clock_timestamp()}), 't', 'and when');
is(status('courier', q{queue_depth, oldest_age BETWEEN '0' AND '1 min', last_error}), '40|t|', 'grants wait for the courier');

subtest 'a single strategy waits again when its scan_interval is over, a broken one after its back-off' => sub {
	sql(q{SELECT quota_internal.end_back_offs()});
	is(status('scheduler', 'queue_depth'), '2', 'what failed is due when its back-off is ended, and the single ones when their interval is');
	$session->query('CALL quota_manager.tick()');
	sql(q{UPDATE quota_manager.quota_run SET finish_time = finish_time - interval '3 h' WHERE scheduled_time IS NULL AND state = 'done'});
	is(status('scheduler', q{queue_depth, oldest_age BETWEEN '2 h' AND '2 h 1 min'}), '1|t', 'single strategies wait again after scan_interval');
	$session->query('CALL quota_manager.tick()');
	is(status('scheduler', 'queue_depth'), '0', 'until they are run');
};

my $url;
subtest 'CALL deliver() meets a gateway that is down, and grants that are not for it' => sub {
	$url = sql(q{SELECT base_url FROM quota_manager.quota_gateway});
	sql(q{UPDATE quota_manager.quota_gateway SET base_url = 'http://127.0.0.1:1'});
	$session->query('CALL quota_manager.deliver()');
	like(status('courier', 'last_error'), qr/^gateway "gateway" is closed: /, 'deliver() leaves which gateway failed');
	is(status('courier', 'queue_depth, state'), '40|not running', 'its grants wait');
	sql(q{UPDATE quota_manager.quota_execute SET status = 'in_doubt', next_attempt_time = 'infinity' WHERE user_id = 'user1';
		UPDATE quota_manager.quota_execute SET status = 'in_doubt' WHERE user_id = 'user2';
		UPDATE quota_manager.quota_execute SET status = 'failed' WHERE user_id = 'user3'});
	is(status('courier', 'queue_depth'), '36', 'what an operator must decide about does not wait');
	sql(q{UPDATE quota_manager.quota_execute SET status = 'pending', next_attempt_time = '-infinity' WHERE user_id IN ('user1', 'user2', 'user3')});
};

subtest 'that it cannot be written does not matter' => sub {
	sql(q{ALTER TABLE quota_manager.quota_worker RENAME TO quota_worker_away});
	sql(q{SELECT quota_internal.end_back_offs()});
	is($session->query('CALL quota_manager.tick()'), '2|0', 'tick() works without the table of errors');
	# A session that has shown its statistics less than a second ago shows the next ones when it has been idle for ten.
	my $flushed = sql('SELECT clock_timestamp()');
	await("SELECT clock_timestamp() > '$flushed'::timestamptz + interval '1100 ms'");
	sql(qq{UPDATE quota_manager.quota_gateway SET base_url = '$url', state = 'open', next_probe_time = NULL});
	$session->query('CALL quota_manager.deliver()');
	sql(q{ALTER TABLE quota_manager.quota_worker_away RENAME TO quota_worker});
	is(status('courier', 'queue_depth, oldest_age'), '0|', 'deliver() does, too: nothing waits');
	await_statistics(40, 80, 'what tick() and deliver() wrote while the session is open');
};
$session->quit;

subtest 'workers run' => sub {
	# What went wrong before a restart is still there as long as it is wrong.
	my $error_time = status('scheduler', 'last_error_time');
	sql(q{ALTER SYSTEM SET quota_manager.workers = on});
	$node->restart;
	QuotaTest::Workers::await_worker($node, 'postgres', 'courier');
	await(q{SELECT bool_and(state = 'idle') FROM quota_manager.worker_status});
	isnt($error_time, '', 'what went wrong is remembered');
	await(q{SELECT last_error ~ '^strategy "broken" failed: ' AND last_error_time >= '} . $error_time . q{' FROM quota_manager.worker_status WHERE kind = 'scheduler'});
	pass('also over a restart');
	sql(q{UPDATE quota_manager.quota_strategy SET enabled = false WHERE name = 'broken'});
	await(q{SELECT last_error IS NULL AND last_error_time IS NULL FROM quota_manager.worker_status WHERE kind = 'scheduler'});
	pass('and forgotten when it is over');
	like(status('courier', 'last_error'), qr/^gateway "gateway" is closed: /, 'also of the courier');
	is($node->safe_psql('postgres', q{SELECT string_agg(concat_ws(' ', kind, role, pid > 0, queue_depth), ',' ORDER BY kind) FROM quota_manager.worker_status},
			connstr => $node->connstr('postgres') . ' user=onlooker'),
		'courier quota_worker t 0,launcher t,scheduler quota_worker t 0', 'a viewer sees all of it');
	await(q{SELECT activity = '1 database is served' FROM quota_manager.worker_status WHERE kind = 'launcher'});
	pass('the launcher counts a database as served from its first time slice on');
	foreach my $kind (qw(launcher scheduler courier))
	{
		my $tick = status($kind, 'last_tick');

		await("SELECT last_tick > '$tick'::timestamptz + interval '1 s' FROM quota_manager.worker_status WHERE kind = '$kind'");
		pass("the last tick of an idle $kind advances");
	}
};

subtest 'no transaction writes anything while they are idle' => sub {
	my $next = sql(q{SELECT pg_snapshot_xmax(pg_current_snapshot())});
	my $tick = status('courier', 'last_tick');
	await("SELECT bool_and(last_tick > '$tick'::timestamptz + interval '1 s') FROM quota_manager.worker_status WHERE kind <> 'launcher'");
	is(sql(q{SELECT pg_snapshot_xmax(pg_current_snapshot())}), $next, 'and nothing is written meanwhile');

	QuotaTest::Workers::strategy($node, 'postgres', name => 'twice');
	QuotaTest::Workers::await_grants($node, 'postgres', 'twice', 20);
	await(q{SELECT bool_and(state = 'idle') FROM quota_manager.worker_status});
	# Statistics do not outlive the restart of a server that was stopped in a hurry, so what is new is counted.
	await("SELECT n_tup_ins >= 20 AND n_tup_upd >= 40 AND n_mod_since_analyze >= 60 FROM pg_stat_user_tables WHERE relid = 'quota_manager.quota_execute'::regclass");
	pass('statistics show what the workers wrote while they are idle');
};

subtest 'a strategy that fails, an error of the database, and a gateway that fails' => sub {
	sql(q{BEGIN;
		CREATE FUNCTION quota_condition.gone(s quota_manager.subject) RETURNS boolean IMMUTABLE PARALLEL SAFE RETURN true;
		INSERT INTO quota_manager.quota_strategy (name, type, amount, model, condition) VALUES ('broken too', 'single', 5, 'm', 'gone()');
		DROP FUNCTION quota_condition.gone;
		COMMIT});
	await(q{SELECT last_error ~ '^strategy "broken too" failed: ' FROM quota_manager.worker_status WHERE kind = 'scheduler'});
	pass('a strategy that fails is an error of the scheduler');
	sql(q{DELETE FROM quota_manager.quota_strategy WHERE name = 'broken too'});

	sql(q{ALTER TABLE quota_manager.user_info RENAME TO user_info_away});
	sql(q{ALTER TABLE quota_manager.quota_run RENAME TO quota_run_away});
	await(q{SELECT last_error ~ 'quota_run" does not exist' FROM quota_manager.quota_worker WHERE kind = 'courier'});
	QuotaTest::Workers::set($node, 'quota_manager.scan_interval', '59min');
	await(q{SELECT last_error ~ 'quota_run" does not exist' FROM quota_manager.quota_worker WHERE kind = 'scheduler'});
	sql(q{ALTER TABLE quota_manager.quota_run_away RENAME TO quota_run});
	sql(q{ALTER TABLE quota_manager.user_info_away RENAME TO user_info});
	pass('an error that ends a worker, or that it survives, is remembered');
	sql(q{SELECT pg_reload_conf()});
	QuotaTest::Workers::await_worker($node, 'postgres', 'courier');

	$gateway->fault('status', match => 'any');
	QuotaTest::Workers::strategy($node, 'postgres', name => 'to a gateway that fails');
	await(q{SELECT last_error ~ '^gateway "gateway" is closed: ' AND queue_depth > 0 AND oldest_age > '0'
		FROM quota_manager.worker_status WHERE kind = 'courier'});
	pass('a gateway that fails is an error of the courier');
	is(QuotaTest::Workers::log_count($node, qr/PANIC|terminated by signal/), 0, 'no crash is in the log');
};

$node->stop;
done_testing();
