# The library not preloaded: start_workers(), stop_workers(), CALL tick().

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Utils;
use QuotaTest::Workers;
use Test::More;

my $gateway = QuotaTest::Workers::gateway();
my $node = QuotaTest::Workers::cluster('not_preloaded', role => 0, settings => "max_worker_processes = 4\nrestart_after_crash = on\n");
my $error;

# What start_workers() says when something is missing.
sub start_error
{
	my ($stdout, $stderr);

	$node->psql('postgres', 'SELECT quota_manager.start_workers()', stdout => \$stdout, stderr => \$stderr);
	return $stderr;
}

$node->safe_psql('postgres', 'CREATE EXTENSION quota_manager');
like(start_error(), qr/role "quota_worker" of quota_manager.worker_role does not exist.*\n.*HINT: .*CREATE ROLE/, 'no role');
$node->safe_psql('postgres', 'CREATE ROLE quota_worker');
like(start_error(), qr/not permitted to log in.*\n.*HINT: .*ALTER ROLE quota_worker LOGIN/, 'a role that cannot log in');
$node->safe_psql('postgres', 'ALTER ROLE quota_worker LOGIN SUPERUSER');
like(start_error(), qr/is a superuser/, 'a superuser');
$node->safe_psql('postgres', 'ALTER ROLE quota_worker NOSUPERUSER');
$node->safe_psql('postgres', 'DROP EXTENSION quota_manager');

QuotaTest::Workers::database($node, 'postgres', $gateway);
QuotaTest::Workers::users($node, 'postgres', 5);
QuotaTest::Workers::strategy($node, 'postgres', name => 'first');

subtest 'by hand: the same code' => sub {
	is($node->safe_psql('postgres', 'CALL quota_manager.tick()'), '1|5', 'tick() runs what is due and counts');
	is($node->safe_psql('postgres', 'CALL quota_manager.tick()'), '0|0', 'and nothing before it is due again');
	is($node->safe_psql('postgres', q{SELECT string_agg(DISTINCT status, ',') FROM quota_manager.quota_execute}), 'pending', 'it delivers nothing');
	(undef, undef, $error) = $node->psql('postgres', 'BEGIN; CALL quota_manager.tick(); COMMIT');
	like($error, qr/tick\(\) cannot run inside a transaction block.*HINT: .*CALL quota_manager.tick\(\)/s, 'not in a transaction block');
	$gateway->ask('balance', { user => 'user3', quota => 100 });
	QuotaTest::Workers::strategy($node, 'postgres', name => 'refill', condition => 'quota-le("m", 10)');
	is($node->safe_psql('postgres', 'CALL quota_manager.tick()'), '1|0', 'no balance counts of who has something open');
	$node->safe_psql('postgres', 'SELECT quota_internal.end_back_offs()');
};

subtest 'started in a transaction, they come when it has committed' => sub {
	is(QuotaTest::Workers::worker($node, 'postgres', 'launcher'), 0, 'nothing runs by itself');
	$node->safe_psql('postgres', 'SELECT quota_manager.stop_workers()');
	$node->safe_psql('postgres', 'SELECT quota_manager.start_workers()');
	QuotaTest::Workers::await_grants($node, 'postgres', 'first', 5);
	QuotaTest::Workers::await_grants($node, 'postgres', 'refill', 4);
	pass('start_workers(): what was pending is delivered');
	QuotaTest::Workers::strategy($node, 'postgres', name => 'second');
	QuotaTest::Workers::await_grants($node, 'postgres', 'second', 5);
	pass('what is written is granted and delivered');
};

# Starting twice changes nothing; slots that are left over are given back.
my $launcher = QuotaTest::Workers::worker($node, 'postgres', 'launcher');
my $courier = QuotaTest::Workers::worker($node, 'postgres', 'courier');
$node->safe_psql('postgres', 'CREATE DATABASE other');
$node->safe_psql('other', q{CREATE EXTENSION quota_manager});
my ($stdout, $stderr);
$node->psql('other', 'SELECT quota_manager.start_workers()', stdout => \$stdout, stderr => \$stderr);
like($stderr, qr/could not start the workers of database "other".*HINT: .*max_worker_processes/s, 'no slot is left');

subtest 'killed by an administrator, they come back; so does their launcher' => sub {
	$node->safe_psql('postgres', "SELECT pg_terminate_backend($courier)");
	$courier = QuotaTest::Workers::await_worker($node, 'postgres', 'courier', $courier);
	pass('the courier comes back');
	$node->safe_psql('postgres', "SELECT pg_terminate_backend($launcher)");
	$launcher = QuotaTest::Workers::await_worker($node, 'postgres', 'launcher', $launcher);
	QuotaTest::Workers::await_worker($node, 'postgres', 'courier', $courier);
	pass('the launcher comes back, and what it starts');
};

subtest 'after a crash, too' => sub {
	$courier = QuotaTest::Workers::worker($node, 'postgres', 'courier');
	kill KILL => $courier;
	$node->wait_for_log(qr/terminated by signal 9/);
	QuotaTest::Workers::await_worker($node, 'postgres', 'courier', $courier);
	pass('they come back after a crash');

	$node->safe_psql('postgres', 'SELECT quota_manager.stop_workers()');
	QuotaTest::Workers::await($node, 'postgres', q{SELECT count(*) = 0 FROM quota_manager.worker_status WHERE pid IS NOT NULL});
	pass('stop_workers() ends all three');
	$node->safe_psql('postgres', 'SELECT quota_manager.start_workers()');
	QuotaTest::Workers::await_worker($node, 'postgres', 'courier');
	pass('and they can be started again');
};

subtest 'a dropped database or extension leaves nobody behind' => sub {
	$launcher = QuotaTest::Workers::worker($node, 'postgres', 'launcher');
	$node->safe_psql('postgres', 'DROP EXTENSION quota_manager');
	QuotaTest::Workers::seconds_to_end($launcher, time);
	is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'quota_manager%'}), '0', 'DROP EXTENSION ends them');
	is(QuotaTest::Workers::log_count($node, qr/PANIC|terminated by signal (?!9)/), 0, 'no crash is in the log');
};

$node->stop;
done_testing();
