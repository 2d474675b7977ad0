# What is paused is not run, by whomever, and comes after the pause as catch_up says; pauses outlive restarts and dumps.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Utils;
use QuotaTest::Mock;
use QuotaTest::PgCron;
use QuotaTest::ScanNode qw(contents sequences);
use QuotaTest::Wait qw(wait_until);
use QuotaTest::Workers;
use Test::More;

my $gateway = QuotaTest::Workers::gateway();
my $node = QuotaTest::Workers::cluster('brakes', preload => 1,
	settings => "timezone = 'UTC'\nquota_manager.workers = off\nquota_manager.poll_interval = 60s\nquota_manager.scan_interval = 1s");

QuotaTest::Workers::database($node, 'postgres', $gateway);

sub sql
{
	my ($statements, $database) = @_;

	return $node->safe_psql($database // 'postgres', $statements);
}

# What a statement says beside its result.
sub said
{
	my ($statement) = @_;
	my ($code, $out, $err) = $node->psql('postgres', $statement);

	is($code, 0, $statement);
	return $err;
}

# How many grants the strategies whose names begin so have.
sub grants
{
	my ($prefix) = @_;

	return sql("SELECT count(*) FROM quota_manager.quota_execute e JOIN quota_manager.quota_strategy s ON s.id = e.strategy_id WHERE s.name LIKE '$prefix%'");
}

my $at_eight = q{SET quota_manager.schedule_clock = '2025-07-01 08:00:00+00'};
my $at_noon = q{SET quota_manager.schedule_clock = '2025-07-01 11:30:00+00'};

sub periodic
{
	my ($prefix) = @_;

	sql(qq{$at_eight; INSERT INTO quota_manager.quota_strategy (name, type, amount, model, periodic_expr, condition, catch_up)
		SELECT '$prefix ' || c, 'periodic', 1, 'm', '0 * * * *', 'match-user("user1")', c FROM unnest(ARRAY['none', 'latest', 'all']) c});
	return;
}

my $runs = q{SELECT string_agg(format('%s %s %s', split_part(s.name, ' ', 2), to_char(r.scheduled_time, 'HH24') || '-' || to_char(r.last_scheduled_time, 'HH24'), r.state), ', ' ORDER BY s.name COLLATE "C", r.scheduled_time)
	FROM (SELECT u.strategy_id, u.state, u.scheduled_time, coalesce(u.last_scheduled_time, u.scheduled_time) AS last_scheduled_time FROM quota_manager.quota_run u) r
	JOIN quota_manager.quota_strategy s ON s.id = r.strategy_id WHERE s.name LIKE };
my $caught_up = 'all 09-09 done, all 10-10 done, all 11-11 done, latest 09-10 skipped, latest 11-11 done, none 09-11 skipped';

QuotaTest::Workers::users($node, 'postgres', 3);

subtest 'scan() and tick() while everything is paused' => sub {
	periodic('tick');
	QuotaTest::Workers::strategy($node, 'postgres', name => 'tick gift');
	sql(q{SELECT quota_manager.pause_all('stop')});
	like(said("$at_noon; SELECT count(*) FROM quota_manager.scan()"), qr/NOTICE:  everything is paused since .* by \w+: stop/, 'scan() says so');
	is(sql("$at_noon; CALL quota_manager.tick()"), '0|0', 'tick() runs nothing');
	like(sql("$at_noon; SELECT note FROM quota_manager.scan('tick all')"), qr/^everything is paused since .* by \w+: stop$/, 'scan(name) says so');
	is(sql("$at_noon; SELECT string_agg(DISTINCT state, ' ') FROM quota_manager.strategy_due"), 'paused', 'strategy_due as well');
	is(sql("SELECT count(*) FROM quota_manager.quota_run"), 0, 'nothing is recorded');
	sql('SELECT quota_manager.unpause_all()');
	sql("$at_noon; CALL quota_manager.tick()") foreach 1 .. 3;
	is(sql("$runs 'tick %' AND s.type = 'periodic'"), $caught_up, 'what was missed follows catch_up');
	is(grants('tick gift'), 3, 'and a single strategy is run');
};

subtest 'the same of a strategy that the breaker has stopped' => sub {
	periodic('breaker');
	sql(q{INSERT INTO quota_manager.quota_pause (scope, strategy_id, cause) SELECT 'strategy', id, 'breaker' FROM quota_manager.quota_strategy WHERE name LIKE 'breaker %'});
	sql("$at_noon; CALL quota_manager.tick()");
	is(grants('breaker'), 0, 'it grants nothing');
	sql(q{SELECT quota_manager.unpause_strategy(name) FROM quota_manager.quota_strategy WHERE name LIKE 'breaker %'});
	sql("$at_noon; CALL quota_manager.tick()") foreach 1 .. 3;
	is(sql("$runs 'breaker %'"), $caught_up, 'what was missed follows catch_up');
};

subtest 'a paused strategy skips what falls due' => sub {
	periodic('paused');
	sql("$at_eight; SELECT quota_manager.pause_strategy(name) FROM quota_manager.quota_strategy WHERE name LIKE 'paused %'");
	sql("$at_noon; SELECT count(*) FROM quota_manager.scan()");
	sql("$at_noon; SELECT quota_manager.unpause_strategy(name) FROM quota_manager.quota_strategy WHERE name LIKE 'paused %'");
	sql("$at_noon; CALL quota_manager.tick()");
	is(sql("$runs 'paused %'"), 'all 09-11 skipped, latest 09-11 skipped, none 09-11 skipped', 'as one that is disabled');
	sql(q{UPDATE quota_manager.quota_strategy SET archived = true});
	sql('CALL quota_manager.deliver()');
};

subtest 'a paused gateway is asked for no balances' => sub {
	my $mock = QuotaTest::Mock->start(dialect => 'higress');

	sql(sprintf q{INSERT INTO quota_manager.quota_gateway (name, dialect, base_url) VALUES ('asked', 'higress', '%s');
		INSERT INTO quota_manager.quota_model VALUES ('asked', 'asked');
		INSERT INTO quota_manager.quota_strategy (name, type, amount, model, condition) VALUES ('poor', 'single', 1, 'asked', 'quota-le("asked", 10)');
		SELECT quota_manager.pause_gateway('asked', 'maintenance')}, $mock->url);
	sql('CALL quota_manager.tick()');
	is($mock->stats->{requests}, 0, 'tick() asks for nothing');
	is(sql("SELECT r.state || ' ' || r.unknown_balance FROM quota_manager.quota_run r JOIN quota_manager.quota_strategy s ON s.id = r.strategy_id WHERE s.name = 'poor' ORDER BY r.id DESC LIMIT 1"),
		'incomplete 3', 'the run lacks balances');
	like(said("SELECT quota_manager.gateway_query('user1', 'asked')"), qr/NOTICE:  gateway "asked" is paused since .*: maintenance/, 'by hand it can be asked');
	like(said("SELECT quota_manager.gateway_delta('user1', 1, 'by hand', 'asked')"), qr/NOTICE:  gateway "asked" is paused/, 'and changed');
	my $by_hand = $mock->stats->{requests};
	sql('CALL quota_manager.tick()');
	is($mock->stats->{requests}, $by_hand, 'still nothing else is asked for');
	sql("SELECT quota_manager.unpause_gateway('asked')");
	sql('CALL quota_manager.tick()');
	is(grants('poor'), 3, 'after the pause it is run at once');
	sql("SELECT quota_manager.pause_gateway('asked')");
	is(sql('CALL quota_manager.deliver()'), '0|0|0|0', 'and is not delivered while it is paused');
	sql("SELECT quota_manager.unpause_gateway('asked')");
	is(sql('CALL quota_manager.deliver()'), '3|0|0|0', 'but afterwards');
	sql(q{UPDATE quota_manager.quota_strategy SET archived = true});
	sql(q{CALL quota_manager.deliver()});
};

subtest 'pg_dump keeps pauses' => sub {
	my $dump = $node->backup_dir . '/brakes.dump';

	QuotaTest::Workers::strategy($node, 'postgres', name => 'dumped');
	sql(q{SELECT count(*) FROM quota_manager.scan('dumped'); SELECT quota_manager.pause_strategy('dumped', E'odd\n"note"'), quota_manager.pause_gateway('gateway'), quota_manager.pause_all(),
		quota_manager.unpause_all('over')});
	mkdir $node->backup_dir;
	command_ok([ 'pg_dump', '--format=directory', '--file', $dump, $node->connstr('postgres') ], 'pg_dump');
	sql('CREATE DATABASE restored');
	command_ok([ 'pg_restore', '--jobs=3', '--dbname', $node->connstr('restored'), $dump ], 'pg_restore, with several jobs');
	is_deeply(contents($node, 'restored'), contents($node, 'postgres'), 'every row is as it was');
	is(sequences($node, 'restored'), sequences($node, 'postgres'), 'and every sequence');
	sql(q{SELECT quota_manager.resume('unchanged_since_dump')}, 'restored');
	my $before = $gateway->ask('stats') =~ /"applied": ?(\d+)/ ? $1 : die;
	is(sql('CALL quota_manager.deliver()', 'restored'), '0|0|0|0', 'what was paused is so');
	is($gateway->ask('stats') =~ /"applied": ?(\d+)/ ? $1 : die, $before, 'nothing is sent');
	is(sql("SELECT string_agg(what, ', ' ORDER BY what) FROM quota_manager.pauses WHERE until IS NULL", 'restored'), 'gateway "gateway", strategy "dumped"', 'and shown');
	sql(q{SELECT quota_manager.unpause_gateway('gateway'), quota_manager.unpause_strategy('dumped'), quota_manager.pause_all(), quota_manager.unpause_all()}, 'restored');
	is(sql('CALL quota_manager.deliver()', 'restored'), '3|0|0|0', 'it can go on');
	sql('DROP DATABASE restored');
	sql(q{SELECT quota_manager.unpause_gateway('gateway'); SELECT quota_manager.cancel(array_agg(id)) FROM quota_manager.quota_execute WHERE status = 'pending';
		UPDATE quota_manager.quota_strategy SET archived = true});
};

# From here on the workers work.
sql('ALTER SYSTEM SET quota_manager.workers = on');
sql('SELECT pg_reload_conf()');

# Both have ended a poll that began after now.
sub await_polls
{
	my $since = sql('SELECT clock_timestamp()');

	sql('SELECT quota_manager.wake_workers(); UPDATE quota_manager.quota_strategy SET title = title; UPDATE quota_manager.quota_gateway SET max_connections = max_connections');
	QuotaTest::Workers::await($node, 'postgres', "SELECT count(*) = 2 FROM quota_manager.worker_status WHERE kind <> 'launcher' AND state = 'idle' AND last_tick > '$since'");
	return;
}

subtest 'workers' => sub {
	QuotaTest::Workers::await_worker($node, 'postgres', 'courier');
	sql(q{SELECT quota_manager.pause_all('stop')});
	QuotaTest::Workers::strategy($node, 'postgres', name => 'worker');
	await_polls();
	is(grants('worker'), 0, 'they run nothing');
	is(sql("SELECT string_agg(kind, ' ' ORDER BY kind) FROM quota_manager.worker_status WHERE paused_why = 'stop'"), 'courier scheduler', 'worker_status says so');
	$node->restart;
	QuotaTest::Workers::await_worker($node, 'postgres', 'scheduler');
	await_polls();
	is(grants('worker'), 0, 'nor after a restart');
	sql('SELECT quota_manager.unpause_all()');
	# They sleep for a minute otherwise.
	QuotaTest::Workers::await_grants($node, 'postgres', 'worker', 3);
	pass('they are woken when it ends');
};

subtest 'what a worker runs is broken off' => sub {
	my $holder = $node->background_psql('postgres');

	$holder->query_safe('SELECT pg_advisory_lock(164)');
	sql(q{CREATE FUNCTION quota_condition.takes_its_time(s quota_manager.subject) RETURNS boolean LANGUAGE plpgsql STABLE PARALLEL SAFE
			AS 'BEGIN PERFORM pg_catalog.pg_advisory_xact_lock_shared(164); RETURN true; END';
		GRANT EXECUTE ON FUNCTION quota_condition.takes_its_time TO quota_worker});
	QuotaTest::Workers::strategy($node, 'postgres', name => 'slow', condition => 'takes-its-time()');
	my $waits = q{SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'advisory' AND backend_type = 'quota_manager scheduler'};
	wait_until($node, $waits);
	sql('SELECT quota_manager.pause_all()');
	wait_until($node, $waits =~ s/= 1/= 0/r);
	await_polls();
	is(grants('slow'), 0, 'it has granted nothing');
	is(sql($waits), 'f', 'and is not begun again');
	sql(q{UPDATE quota_manager.quota_strategy SET state = 'archived' WHERE name = 'slow'; SELECT quota_manager.unpause_all()});
	$holder->quit;
};

subtest 'a worker has a rest while what is pending is paused' => sub {
	sql(q{UPDATE quota_manager.quota_strategy SET state = 'archived'});
	QuotaTest::Workers::strategy($node, 'postgres', name => 'rest');
	QuotaTest::Workers::await_grants($node, 'postgres', 'rest', 3);
	sql(q{SELECT quota_manager.pause_gateway('gateway'); INSERT INTO quota_manager.user_info (id) SELECT 'more' || n FROM generate_series(1, 100) n; SELECT count(*) FROM quota_manager.scan('rest')});
	await_polls();
	is(sql(q{SELECT pending || ' ' || processing FROM quota_manager.delivery_status WHERE gateway = 'gateway'}), '100 0', 'grants wait');
	my $polls = q{SELECT last_tick FROM quota_manager.worker_status WHERE kind = 'courier'};
	# It looks again a second after it wrote.
	sql(q{CREATE TABLE public.noise (n integer)});
	wait_until($node, "SELECT clock_timestamp() - last_tick > interval '3 s' FROM quota_manager.worker_status WHERE kind = 'courier'");
	my $last = sql($polls);
	# Each of these commits is a moment in which it could poll.
	sql("INSERT INTO public.noise VALUES ($_)") foreach 1 .. 20;
	is(sql($polls), $last, 'and it sleeps');
	sql(q{SELECT quota_manager.unpause_gateway('gateway')});
	QuotaTest::Workers::await_grants($node, 'postgres', 'rest', 103);
	pass('until they are sent');
};
$node->stop;

SKIP:
{
	skip 'pg_cron is not installed', 1 unless QuotaTest::PgCron::is_available();
	subtest 'pg_cron' => sub {
		my $cron = QuotaTest::PgCron->start('cron',
			clock => '2026-12-31 23:50:10',
			libraries => ['quota_manager'],
			settings => "quota_manager.workers = off\nquota_manager.scan_interval = 1s\nmax_worker_processes = 20");

		$node = $cron->node;
		QuotaTest::Workers::database($node, 'postgres', $gateway);
		QuotaTest::Workers::users($node, 'postgres', 3);
		sql('SELECT quota_manager.schedule_jobs()');
		QuotaTest::Workers::strategy($node, 'postgres', name => 'cron gift');
		QuotaTest::Workers::strategy($node, 'postgres', name => 'cron all', type => 'periodic', periodic_expr => '* * * * *', catch_up => 'all');
		sql('SELECT quota_manager.pause_all()');
		$cron->next_minute foreach 1 .. 3;
		is(grants('cron'), 0, 'its jobs run nothing');
		is(sql(q{SELECT count(*) FROM cron.job_run_details WHERE command ~ 'CALL' AND status <> 'succeeded'}), 0, 'and do not fail');
		sql('SELECT quota_manager.unpause_all()');
		$cron->next_minute foreach 1 .. 3;
		is(grants('cron gift'), 3, 'afterwards they do');
		cmp_ok(grants('cron all'), '>=', 9, 'with the firings that were missed');
		sql(q{SELECT quota_manager.pause_gateway('gateway')});
		my $sent = sql(q{SELECT count(*) FROM quota_manager.quota_execute WHERE status = 'completed'});
		$cron->next_minute foreach 1 .. 2;
		cmp_ok(sql(q{SELECT count(*) FROM quota_manager.quota_execute WHERE status = 'pending'}), '>', 0, 'what is granted for a paused gateway');
		is(sql(q{SELECT count(*) FROM quota_manager.quota_execute WHERE status = 'completed'}), $sent, 'is not sent');
		sql(q{SELECT quota_manager.unpause_gateway('gateway')});
		$cron->next_minute foreach 1 .. 2;
		cmp_ok(sql(q{SELECT count(*) FROM quota_manager.quota_execute WHERE status = 'completed'}), '>', $sent, 'until it goes on');
		$node->stop;
	};
}

done_testing();
