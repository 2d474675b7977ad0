# Databases, extensions and roles that come and go while workers run.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Utils;
use QuotaTest::Workers;
use Test::More;

my $gateway = QuotaTest::Workers::gateway();
my $node = QuotaTest::Workers::cluster('databases', preload => 1, role => 0);

subtest 'without the role nothing runs; it is said once' => sub {
	$node->wait_for_log(qr/quota_manager workers do not run: role "quota_worker" of quota_manager.worker_role does not exist/);
	QuotaTest::Workers::set($node, 'quota_manager.poll_interval', '90ms');
	$node->safe_psql('postgres', 'SELECT pg_reload_conf()') foreach 1 .. 3;
	is(QuotaTest::Workers::log_count($node, qr/workers do not run/), 1, 'a missing role is reported once');
	is(QuotaTest::Workers::log_count($node, qr/quota_manager launcher" .*exited/), 0, 'without restarts');
	$node->safe_psql('postgres', 'CREATE ROLE quota_worker LOGIN');
};

# A role without rights is told from a database without the extension.
$node->safe_psql('postgres', 'CREATE EXTENSION quota_manager');
$node->wait_for_log(qr/role "quota_worker" may not run quota_manager in database "postgres"/);
$node->safe_psql('postgres', 'DROP EXTENSION quota_manager');
pass('missing rights are reported');

# Two databases at a time.
$node->safe_psql('postgres', "CREATE DATABASE $_") foreach qw(one two);
foreach my $database (qw(one two))
{
	QuotaTest::Workers::database($node, $database, $gateway);
	QuotaTest::Workers::users($node, $database, 4);
	QuotaTest::Workers::strategy($node, $database, name => 'once');
}
$node->safe_psql('postgres', 'SELECT pg_reload_conf()');
QuotaTest::Workers::await_grants($node, $_, 'once', 4) foreach qw(one two);
pass('each database is served');

my ($scheduler, $courier);
subtest 'DROP EXTENSION does not wait for workers, and CREATE EXTENSION brings them back' => sub {
	$scheduler = QuotaTest::Workers::worker($node, 'one', 'scheduler');
	$courier = QuotaTest::Workers::worker($node, 'one', 'courier');
	$node->safe_psql('one', "SET statement_timeout = '10s'; DROP EXTENSION quota_manager");
	QuotaTest::Workers::seconds_to_end($scheduler, time);
	QuotaTest::Workers::seconds_to_end($courier, time);
	pass('the workers of a dropped extension end');
	QuotaTest::Workers::database($node, 'one', $gateway);
	QuotaTest::Workers::users($node, 'one', 4);
	QuotaTest::Workers::strategy($node, 'one', name => 'once again');
	$node->safe_psql('postgres', 'SELECT pg_reload_conf()');
	QuotaTest::Workers::await_grants($node, 'one', 'once again', 4);
	pass('and come back when it is created again');
};

# A drop that is rolled back interrupts nothing.
my $dropper = $node->background_psql('one');
$courier = QuotaTest::Workers::await_worker($node, 'one', 'courier');
$dropper->query_safe('BEGIN; DROP EXTENSION quota_manager');
QuotaTest::Workers::await($node, 'postgres', "SELECT count(*) = 1 FROM pg_stat_activity WHERE pid = $courier AND wait_event_type = 'Lock'");
$dropper->query_safe('ROLLBACK');
$dropper->quit;
QuotaTest::Workers::strategy($node, 'one', name => 'third');
QuotaTest::Workers::await_grants($node, 'one', 'third', 4);
is(QuotaTest::Workers::worker($node, 'one', 'courier'), $courier, 'a drop that is rolled back is waited for');

subtest 'a missing table is survived: by the scheduler in its process, by the courier in a new one; neither tries too often' => sub {
	$scheduler = QuotaTest::Workers::worker($node, 'one', 'scheduler');
	$node->safe_psql('one', 'ALTER TABLE quota_manager.quota_run RENAME TO quota_run_away');
	QuotaTest::Workers::strategy($node, 'one', name => 'fourth');
	$node->wait_for_log(qr/relation "quota_manager.quota_run" does not exist.*\n.*QUERY:  WITH d AS MATERIALIZED/);
	$node->wait_for_log(qr/relation "quota_manager.quota_run" does not exist.*\n.*QUERY:  SELECT EXISTS \(SELECT 1 FROM quota_manager\.quota_run/);
	$node->safe_psql('one', 'ALTER TABLE quota_manager.quota_run_away RENAME TO quota_run');
	$node->safe_psql('postgres', 'SELECT pg_reload_conf()');
	QuotaTest::Workers::await_grants($node, 'one', 'fourth', 4);
	is(QuotaTest::Workers::worker($node, 'one', 'scheduler'), $scheduler, 'a missing table is survived');
	cmp_ok(QuotaTest::Workers::log_count($node, qr/"quota_manager.quota_run" does not exist/), '<', 10, 'without a loop');
};

subtest 'databases are dropped and renamed' => sub {
	$node->safe_psql('postgres', 'DROP DATABASE two WITH (FORCE)');
	pass('a database can be dropped by force');
	$node->safe_psql('one', 'SELECT quota_manager.stop_workers()');
	QuotaTest::Workers::await($node, 'one', q{SELECT count(*) = 0 FROM quota_manager.worker_status WHERE kind <> 'launcher' AND pid IS NOT NULL});
	$node->safe_psql('postgres', 'ALTER DATABASE one RENAME TO uno');
	$node->safe_psql('uno', 'SELECT quota_manager.start_workers()');
	QuotaTest::Workers::await_worker($node, 'uno', 'courier');
	pass('and renamed when its workers are stopped');
};

subtest 'the role is dropped' => sub {
	$node->safe_psql('uno', 'DROP OWNED BY quota_worker; DROP ROLE quota_worker');
	QuotaTest::Workers::await($node, 'postgres', q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type ~ '^quota_manager (scheduler|courier)'});
	pass('the workers of a dropped role end');
	$node->safe_psql('uno', q{CREATE ROLE quota_worker LOGIN; SELECT quota_manager.grant_access('quota_worker', 'worker')});
	QuotaTest::Workers::await_worker($node, 'uno', 'courier');
	pass('and come back with it');
	is(QuotaTest::Workers::log_count($node, qr/PANIC|terminated by signal/), 0, 'no crash is in the log');
};

# One pair of slots for two databases: logged once, and both are served.
$node->append_conf('postgresql.conf', "quota_manager.max_workers = 2\n");
$node->safe_psql('postgres', 'CREATE DATABASE three');
QuotaTest::Workers::database($node, 'three', $gateway);
$node->restart;
$node->wait_for_log(qr/2 databases share 1 quota_manager worker slots in time slices.*\n.*HINT: .*quota_manager.max_workers to 4 or more/);
QuotaTest::Workers::users($node, 'three', 4);
QuotaTest::Workers::strategy($node, $_, name => 'in time slices') foreach qw(uno three);
QuotaTest::Workers::await_grants($node, $_, 'in time slices', 4) foreach qw(uno three);
is(QuotaTest::Workers::log_count($node, qr/databases share/), 1, 'databases that share slots are reported once');

$node->stop;
done_testing();
