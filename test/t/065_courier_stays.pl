
# A courier that stays: it waits without working where it can do nothing, and
# does not trust what it knew when another sender came between.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use POSIX ();
use PostgreSQL::Test::Utils;
use QuotaTest::Delivery qw(delivery_node add_gateway grant deliver statuses delivered_once);
use QuotaTest::Mock;
use QuotaTest::Wait qw(wait_until becomes_true);
use Test::More;
use Time::HiRes qw(time);

my $node = delivery_node('courier_stays', <<'CONF');
shared_preload_libraries = 'quota_manager'
quota_manager.worker_role = 'quota_worker'
quota_manager.poll_interval = 100ms
quota_manager.retry_base = 1ms
quota_manager.retry_max = 2ms
quota_manager.linger = 300ms
CONF
my $mock = QuotaTest::Mock->start(dialect => 'zgsm', key => 'key');

add_gateway($node, 'gateway', $mock, doubt_policy => 'reconcile', sole_writer => 'true');

sub courier_pid
{
	return $node->safe_psql('postgres', q{SELECT coalesce(max(pid), 0) FROM pg_stat_activity WHERE backend_type ~ 'quota_manager courier'});
}

# Seconds of processor time that a process has used.
sub processor_time
{
	my ($pid) = @_;
	my $stat = PostgreSQL::Test::Utils::slurp_file("/proc/$pid/stat");

	$stat =~ s/^.*\) //s;
	my @fields = split / /, $stat;
	return ($fields[11] + $fields[12]) / POSIX::sysconf(POSIX::_SC_CLK_TCK());
}

# The share of the time that the courier works, while nothing happens.
sub courier_load
{
	my $pid = courier_pid();
	my $begin = time;
	my $used = processor_time($pid);

	wait_until($node, "SELECT clock_timestamp() > to_timestamp($begin) + '2 s'");
	return (processor_time($pid) - $used) / (time - $begin);
}

my $recording;
subtest 'another transaction is recording that this database is the one that grants' => sub {
	$recording = $node->background_psql('postgres');
	$recording->query_safe('BEGIN; SELECT quota_internal.check_identity(true)');
	grant($node, 'gateway', 4, 'user1');
	$node->safe_psql('postgres', q{CREATE ROLE quota_worker LOGIN;
		SELECT quota_manager.grant_access('quota_worker', 'worker')});
	$node->wait_for_log(qr/deliveries wait for another session/);
	cmp_ok(courier_load(), '<', 0.3, 'a courier that waits for another session sleeps');
	$recording->query_safe('COMMIT');
	$recording->quit;
	wait_until($node, q{SELECT count(*) = 0 FROM quota_manager.quota_execute WHERE status <> 'completed'});
	is(delivered_once($node, 'gateway', $mock, 'then'), 1, 'and then it delivers');
};

sub state_of
{
	my ($gateway) = @_;

	return $node->safe_psql('postgres', "SELECT state FROM quota_manager.quota_gateway WHERE name = '$gateway'");
}

subtest 'another sender (of the lock "qmgw") has met trouble meanwhile: its gateway is tried first, and is then open again' => sub {
	ok(becomes_true($node, q{SELECT count(*) = 0 FROM pg_locks WHERE locktype = 'advisory' AND classid = x'716d6777'::int::oid}),
		'a sender with nothing to do gives up its lock');
	$node->safe_psql('postgres', q{UPDATE quota_manager.quota_gateway SET state = 'closed', state_reason = 'another sender met trouble'});
	grant($node, 'gateway', 4, 'user2');
	wait_until($node, q{SELECT count(*) = 0 FROM quota_manager.quota_execute WHERE status <> 'completed'});
	ok(becomes_true($node, q{SELECT state = 'open' AND state_reason IS NULL FROM quota_manager.quota_gateway}),
		'what another sender wrote of the gateway does not stay');
};

# The gateway is moved by a transaction that ends later: what was read meanwhile was read at the old place.
my $other_mock = QuotaTest::Mock->start(dialect => 'zgsm', key => 'key');
my $moving = $node->background_psql('postgres');

$node->append_conf('postgresql.conf', 'quota_manager.linger = 3s');
$node->reload;
$other_mock->set_balance('mover', quota => 4);
$mock->fault(kind => 'close', match => 'grant', user => 'mover');
$moving->query_safe('BEGIN');
$moving->query_safe(sprintf q{UPDATE quota_manager.quota_gateway SET base_url = '%s'}, $other_mock->url);
grant($node, 'gateway', 4, 'mover');
wait_until($node, q{SELECT status = 'in_doubt' AND balance_before = 0 FROM quota_manager.quota_execute WHERE user_id = 'mover'});
$moving->query_safe('COMMIT');
$moving->quit;
wait_until($node, q{SELECT NOT (next_attempt_time < 'infinity' AND status = 'in_doubt') FROM quota_manager.quota_execute WHERE user_id = 'mover'});
is( $node->safe_psql('postgres', q{SELECT status, last_error ~ 'cannot be reconciled' FROM quota_manager.quota_execute WHERE user_id = 'mover'}),
	'in_doubt|t', 'a reading from before the gateway was moved proves nothing');

my $third_mock;
subtest 'refused, a grant waits for a query to tell what that means; the key is lost before it can be sent' => sub {
	$third_mock = QuotaTest::Mock->start(dialect => 'zgsm', key => 'key');
	add_gateway($node, 'third', $third_mock);
	$third_mock->fault(kind => 'status', status => 401, match => 'grant', delay_ms => 2500);
	grant($node, 'third', 4, 'blocked');
	wait_until($node, q{SELECT status = 'processing' FROM quota_manager.quota_execute WHERE user_id = 'blocked'});
	$node->safe_psql('postgres', q{DELETE FROM quota_manager.quota_credential WHERE name = 'third'});
	wait_until($node, q{SELECT state = 'misconfigured' FROM quota_manager.quota_gateway WHERE name = 'third'});
	ok(becomes_true($node, q{SELECT status = 'pending' FROM quota_manager.quota_execute WHERE user_id = 'blocked'}),
		'what was refused is pending again where no query can be sent');
	cmp_ok(courier_load(), '<', 0.3, 'a courier with a gateway without its key sleeps');
	$node->safe_psql('postgres', q{INSERT INTO quota_manager.quota_credential VALUES ('third', 'key')});
	wait_until($node, q{SELECT status = 'completed' FROM quota_manager.quota_execute WHERE user_id = 'blocked'});
	is(delivered_once($node, 'third', $third_mock, 'with the key'), 1, 'with the key it is delivered');
};

$node->stop;
$mock->stop;
done_testing();
