
# A courier that stays: it waits without working where it can do nothing, and
# does not trust what it knew when another sender came between.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use POSIX ();
use PostgreSQL::Test::Utils;
use QuotaTest::Delivery qw(delivery_node add_gateway grant deliver statuses delivered_once wait_until);
use QuotaTest::Mock;
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

# Another transaction is noting that this database is the one that grants.
my $noting = $node->background_psql('postgres');
$noting->query_safe('BEGIN; SELECT quota_manager.check_identity(true)');
grant($node, 'gateway', 4, 'user1');
$node->safe_psql('postgres', q{CREATE ROLE quota_worker LOGIN;
	SELECT quota_manager.grant_access('quota_worker', 'worker')});
$node->wait_for_log(qr/deliveries wait for another session/);
cmp_ok(courier_load(), '<', 0.3, 'a courier that waits for another session sleeps');
$noting->query_safe('COMMIT');
$noting->quit;
wait_until($node, q{SELECT count(*) = 0 FROM quota_manager.quota_execute WHERE status <> 'completed'});
is(delivered_once($node, 'gateway', $mock, 'then'), 1, 'and then it delivers');

$node->stop;
$mock->stop;
done_testing();
