
# Couriers do not grow: neither a worker nor a CALL deliver() over many
# deliveries, nor the files that a worker has open over many restarts of its
# gateway.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use List::Util qw(max min);
use PostgreSQL::Test::Utils;
use QuotaTest::Delivery qw(delivery_node start_workers add_gateway begin_call end_call begin_session ask_session end_session);
use QuotaTest::Mock;
use QuotaTest::Wait qw(wait_until wait_for);
use QuotaTest::Workers;
use Test::More;
use Time::HiRes qw(time);

my $deliveries = $ENV{QUOTA_MANAGER_LONG} ? 500_000 : 30_000;
my $restarts = $ENV{QUOTA_MANAGER_LONG} ? 1_000 : 30;
my $calls = $ENV{QUOTA_MANAGER_LONG} ? 1_000 : 60;

# How much private memory may grow between the first sample and the last, in KiB.
my $growth = 1024;

plan skip_all => 'needs /proc/PID/smaps_rollup' unless -r '/proc/self/smaps_rollup';

my $node = delivery_node('endurance', <<'CONF');
shared_preload_libraries = 'quota_manager'
fsync = off
checkpoint_timeout = 1h
max_wal_size = 8GB
quota_manager.retry_base = 1ms
quota_manager.retry_max = 1ms
CONF

# KiB that a process has for itself: not shared buffers, which it comes to touch.
sub memory_of
{
	my ($pid) = @_;

	return slurp_file("/proc/$pid/smaps_rollup") =~ /^Anonymous:\s*(\d+) kB/m ? $1 : die "cannot read the memory of $pid";
}

# Open files of a process, by kind: PostgreSQL keeps files of tables open and closes them as it needs to, and libcurl
# wakes itself by a pair of sockets in each session, or by one or two event counters from 8.12 on.
sub files_of
{
	my ($pid) = @_;
	my $data = $node->data_dir;
	my %count = (sockets => 0, tables => 0, events => 0, others => 0);

	foreach my $file (glob "/proc/$pid/fd/*")
	{
		my $target = readlink $file // next;

		$count{ $target =~ /^socket:/ ? 'sockets' : $target =~ /eventfd/ ? 'events' : $target =~ /^\Q$data\E\// ? 'tables' : 'others' }++;
	}
	return %count;
}

# Writes so many grants, of users of their own. The gateway will refuse some of
# them, and lose the answers to others.
my $batch = 0;

sub write_grants
{
	my ($mock, $gateway, $count, $refused, $lost) = @_;

	$batch++;
	$mock->fault($mock->own_refusal('no ' x 100), match => 'grant', user => "user-$batch-$_") foreach 1 .. $refused;
	$mock->fault(kind => 'apply_close', match => 'grant', user => "user-$batch-$_") foreach $count - $lost + 1 .. $count;
	$node->safe_psql('postgres', qq{
		SELECT quota_test.make_grants('$gateway', 1, array_agg('user-$batch-' || n ORDER BY n)) FROM generate_series(1, $count) n});
	return;
}

# Waits until nothing is left to be done. (The grants are too many to be
# read each time.)
sub await_delivery
{
	wait_until($node, q{SELECT count(*) = 0 FROM quota_manager.quota_run WHERE undelivered});
	return;
}

# Checks a series of sizes, which go up and down with the work that is being done:
# what they come down to is no larger at the end than at the beginning.
sub is_flat
{
	my ($name, @series) = @_;
	my $third = int(@series / 3);
	my $before = min(@series[ 0 .. $third - 1 ]);
	my $after = min(@series[ -$third .. -1 ]);
	my $every = int(@series / 20) || 1;

	note "$name, KiB: @series[ grep { $_ % $every == 0 } 0 .. $#series ]";
	cmp_ok($after - $before, '<', $growth, sprintf '%s: %+d KiB over %d samples', $name, $after - $before, scalar(@series));
	return;
}

# A worker. What it needs depends on how much waits, so it is looked at after
# batches of one size. The first is warming up.
my $mock = QuotaTest::Mock->start(dialect => 'higress', key => 'secret');
add_gateway($node, 'worked', $mock);
start_workers($node);
my $courier = QuotaTest::Workers::await_worker($node, 'postgres', 'courier');
my $size = 5_000;
my $steps = $deliveries / $size;
my @series;
my $started = time;
foreach my $step (0 .. $steps)
{
	write_grants($mock, 'worked', $size, 20, 2);
	await_delivery();
	push @series, memory_of($courier) if $step > 0;
}
note sprintf 'worker: %d deliveries, %d a second', $deliveries, ($deliveries + $size) / (time - $started);
is(QuotaTest::Workers::worker($node, 'postgres', 'courier'), $courier, 'worker: it is one process');
is_flat('worker, private memory', @series);
is( $node->safe_psql('postgres', q{
		SELECT string_agg(status || ' ' || n, ', ' ORDER BY status) FROM (SELECT status, count(*) AS n
		FROM quota_manager.quota_execute WHERE gateway = 'worked' GROUP BY status) x}),
	sprintf('completed %d, failed %d, in_doubt %d', $deliveries + $size - 22 * ($steps + 1), 20 * ($steps + 1), 2 * ($steps + 1)),
	'worker: it delivered, met refusals, and lost answers');

# Restarts of its gateway. Some come while it is not used, some in the middle
# of a request, and some grants find nobody there.
my $restarted = QuotaTest::Mock->start(dialect => 'zgsm');
add_gateway($node, 'restarted', $restarted, max_connections => 4);
my %before = files_of($courier);
my ($doubtful, $most, $sent) = (0, 0, 0);
foreach my $round (1 .. $restarts)
{
	my $kind = $round % 10;

	if ($kind == 0)
	{
		$restarted->fault(kind => 'apply_hang', match => 'delta', count => 1);
		write_grants($restarted, 'restarted', 1, 0, 0);
		wait_for('the fault is met', sub { ($_ = $restarted->stats->{faults}) == 1 });
		$doubtful++;
	}
	$restarted->stop;
	write_grants($restarted, 'restarted', 5, 0, 0) if $kind == 5;
	$restarted->restart;
	write_grants($restarted, 'restarted', 5, 0, 0) if $kind != 5;
	$sent += 5;
	await_delivery();
	my %now = files_of($courier);
	$most = max($most, $now{sockets} - $before{sockets});
}
my %after = files_of($courier);
note "files: sockets $before{sockets}, others $before{others} before; $after{sockets} and $after{others} after $restarts restarts; at most $most sockets more";
# Those of the second session are libcurl's.
cmp_ok($most, '<=', 4 + 2, 'restarts: a worker has no more connections open than its gateway allows');
cmp_ok($after{events}, '<=', $before{events} + 2, 'restarts: nor more event counters than a session has');
cmp_ok($after{others}, '<=', $before{others}, 'restarts: and no other files');
is(QuotaTest::Workers::worker($node, 'postgres', 'courier'), $courier, 'restarts: it is one process');
is( $node->safe_psql('postgres', q{
		SELECT count(*) FILTER (WHERE status = 'in_doubt'), count(*) FILTER (WHERE status = 'completed')
		FROM quota_manager.quota_execute WHERE gateway = 'restarted'}),
	"$doubtful|$sent", 'restarts: what was in flight is in doubt, nothing else');

# One CALL deliver() that lasts. The worker is out of the way.
QuotaTest::Workers::set($node, 'quota_manager.workers', 'off');
wait_until($node, q{SELECT count(*) = 0 FROM quota_manager.worker_status WHERE kind = 'courier' AND pid IS NOT NULL});
my $called = QuotaTest::Mock->start(dialect => 'zgsm', key => 'secret');
add_gateway($node, 'called', $called);
write_grants($called, 'called', $deliveries / 20, 10, 0) foreach 1 .. 20;
my $call = begin_call($node, "SET application_name = 'caller'", 'CALL quota_manager.deliver()');
wait_until($node, q{SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name = 'caller' AND wait_event_type = 'Extension'});
my $caller = $node->safe_psql('postgres', q{SELECT pid FROM pg_stat_activity WHERE application_name = 'caller'});
@series = ();
foreach my $part (1 .. 90)
{
	wait_for("$part percent are delivered", sub { ($_ = $called->stats->{applied}) >= $deliveries * $part / 100 });
	push @series, memory_of($caller);
}
my ($out, $err) = end_call($call);
is($out, sprintf("%d|200|0|0\n", $deliveries - 200), 'CALL: all is delivered');
is_flat('CALL, private memory', @series);

# Many calls in one session. (A background_psql would tell of each of them.)
my @files;
my $session = begin_session($node);
$caller = ask_session($session, 'SELECT pg_backend_pid()');
@series = ();
foreach my $round (1 .. $calls)
{
	write_grants($called, 'called', 20, 1, $round % 5 == 0 ? 1 : 0);
	ask_session($session, 'CALL quota_manager.deliver()');
	next if $round < $calls / 10;
	push @series, memory_of($caller);
	my %now = files_of($caller);
	push @files, $now{sockets};
}
end_session($session);
is_flat('many calls, private memory', @series);
cmp_ok(max(@files), '<=', min(@files), 'many calls: none leaves a connection behind');

$node->stop;
done_testing();
