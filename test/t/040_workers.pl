# The library preloaded: what is written is granted and delivered by itself.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Utils;
use QuotaTest::Workers;
use Test::More;

my $gateway = QuotaTest::Workers::gateway();
my $node = QuotaTest::Workers::cluster('preloaded',
	preload => 1,
	settings => "quota_manager.schedule_clock = '2025-06-30 07:30:00+00'");

QuotaTest::Workers::database($node, 'postgres', $gateway);
QuotaTest::Workers::users($node, 'postgres', 20);

subtest 'both kinds of strategies; the scan interval is an hour, so a single strategy is seen because it is new' => sub {
	QuotaTest::Workers::strategy($node, 'postgres', name => 'once', amount => 20);
	QuotaTest::Workers::await_grants($node, 'postgres', 'once', 20);
	pass('a single strategy is granted and delivered when it is written');

	QuotaTest::Workers::strategy(
		$node, 'postgres',
		name => 'daily',
		type => 'periodic',
		periodic_expr => '0 8 * * *');
	QuotaTest::Workers::strategy(
		$node, 'postgres',
		name => 'broken',
		condition => 'true()');
	QuotaTest::Workers::await_grants($node, 'postgres', 'broken', 20);
	is($node->safe_psql('postgres', q{SELECT count(*) FROM quota_manager.quota_execute e
		JOIN quota_manager.quota_strategy s ON s.id = e.strategy_id WHERE s.name = 'daily'}),
		'0', 'a periodic one waits for its time');
};

subtest 'a strategy that cannot be scanned does not hold the others up' => sub {
	$node->safe_psql('postgres', q{
		CREATE FUNCTION quota_condition.gone(s quota_manager.subject) RETURNS boolean IMMUTABLE PARALLEL SAFE RETURN true;
		GRANT EXECUTE ON FUNCTION quota_condition.gone TO quota_worker;
		UPDATE quota_manager.quota_strategy SET condition = 'gone()' WHERE name = 'broken';
		DROP FUNCTION quota_condition.gone});

	QuotaTest::Workers::set($node, 'quota_manager.schedule_clock', '2025-06-30 08:00:00+00');
	QuotaTest::Workers::await_grants($node, 'postgres', 'daily', 20);
	pass('the pinned clock moves it');
	QuotaTest::Workers::set($node, 'quota_manager.schedule_clock', '2025-07-01 08:00:00+00');
	QuotaTest::Workers::await_grants($node, 'postgres', 'daily', 40);
	pass('and moves it again');
	$node->wait_for_log(qr/strategy "broken" failed: /);
	pass('a broken strategy is reported');
};

# Only users who are new get what is given once, when the interval is over.
$node->safe_psql('postgres', "INSERT INTO quota_manager.user_info (id) VALUES ('late')");
QuotaTest::Workers::set($node, 'quota_manager.scan_interval', '1s');
QuotaTest::Workers::await_grants($node, 'postgres', 'once', 21);
pass('single strategies are read again after scan_interval');

# Balances are read where a condition asks for one.
$gateway->ask('balance', { user => 'user1', quota => 500 });
QuotaTest::Workers::strategy(
	$node, 'postgres',
	name => 'refill',
	amount => 1,
	condition => 'quota-le("m", 100)');
QuotaTest::Workers::await_grants($node, 'postgres', 'refill', 20);
is($node->safe_psql('postgres', q{SELECT count(*) FROM quota_manager.quota_execute e
	JOIN quota_manager.quota_strategy s ON s.id = e.strategy_id WHERE s.name = 'refill' AND e.user_id = 'user1'}),
	'0', 'balances are read before the scan');

subtest 'what the gateway applied is what was completed, each grant once' => sub {
	my @applied = $gateway->applied;
	my %keys = map { $_->{idempotency_key} => 1 } @applied;
	is(scalar(@applied), 20 + 40 + 20 + 1 + 20, 'the gateway applied every grant');
	is(scalar(keys %keys), scalar(@applied), 'and none twice');
	is($node->safe_psql('postgres', q{SELECT count(*) FROM quota_manager.quota_execute WHERE status <> 'completed'}),
		'0', 'nothing is left');
};

subtest 'everyone may see the workers' => sub {
	$node->safe_psql('postgres', q{CREATE ROLE onlooker LOGIN; SELECT quota_manager.grant_access('onlooker', 'viewer')});
	is($node->safe_psql('postgres', 'SELECT string_agg(kind, $$,$$ ORDER BY kind), bool_and(activity IS NOT NULL) FROM quota_manager.worker_status WHERE pid IS NOT NULL',
			connstr => $node->connstr('postgres') . ' user=onlooker'),
		'courier,launcher,scheduler|t', 'worker_status shows the workers to a viewer');
	is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity
			WHERE backend_type LIKE 'quota_manager %' AND state = 'active' AND backend_xmin IS NOT NULL AND xact_start < now() - interval '1 min'}),
		'0', 'no transaction is held open');
	is(QuotaTest::Workers::log_count($node, qr/ERROR|PANIC|terminated by signal/), 0, 'no error is in the log')
	  or diag(slurp_file($node->logfile));
};

subtest 'stopped, they stay down; started, they come back' => sub {
	$node->safe_psql('postgres', 'SELECT quota_manager.stop_workers()');
	QuotaTest::Workers::await($node, 'postgres', q{SELECT count(*) = 0 FROM quota_manager.worker_status WHERE kind <> 'launcher' AND pid IS NOT NULL});
	pass('stop_workers() ends them');
	$node->restart;
	$node->wait_for_log(qr/quota_manager workers of database "postgres" are stopped/);
	is(QuotaTest::Workers::worker($node, 'postgres', 'courier'), 0, 'also after a restart');
	$node->safe_psql('postgres', 'BEGIN; SELECT quota_manager.start_workers(); ROLLBACK');
	$node->safe_psql('postgres', 'SELECT quota_manager.start_workers()');
	QuotaTest::Workers::await_worker($node, 'postgres', 'courier');
	pass('start_workers() brings them back');

	QuotaTest::Workers::set($node, 'quota_manager.workers', 'off');
	QuotaTest::Workers::await($node, 'postgres', q{SELECT count(*) = 0 FROM quota_manager.worker_status WHERE kind <> 'launcher' AND pid IS NOT NULL});
	QuotaTest::Workers::set($node, 'quota_manager.workers', 'on');
	QuotaTest::Workers::await_worker($node, 'postgres', 'courier');
	pass('quota_manager.workers switches them off and on');
};

$node->stop;
done_testing();
