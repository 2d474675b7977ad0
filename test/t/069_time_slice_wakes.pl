# Two databases for one pair of worker slots: what is committed while a time slice ends is not overlooked, and a database
# that waits for a lock keeps the slots from no other.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use POSIX ();
use PostgreSQL::Test::Utils;
use QuotaTest::Workers;
use Test::More;
use Time::HiRes qw(time);

my $gateway = QuotaTest::Workers::gateway();
my $node = QuotaTest::Workers::cluster('time_slice_wakes', preload => 1, settings => "quota_manager.max_workers = 2\n");

$node->safe_psql('postgres', 'CREATE DATABASE other');
foreach my $database ('postgres', 'other')
{
	QuotaTest::Workers::database($node, $database, $gateway);
	QuotaTest::Workers::users($node, $database, 1);
}

# Processes of a database, seen from another one's session, as they are by the list of all.
sub processes
{
	my ($database, $condition) = @_;

	return "(SELECT count(*) FROM pg_stat_activity WHERE datname = '$database' AND backend_type LIKE 'quota_manager %' AND $condition)";
}

sub pid
{
	my ($database, $kind) = @_;

	return $node->safe_psql('postgres', "SELECT coalesce(max(pid), 0) FROM pg_stat_activity WHERE datname = '$database' AND backend_type = 'quota_manager $kind'");
}

my $number = 0;

sub insert
{
	my ($name) = @_;

	return "INSERT INTO quota_manager.quota_strategy (name, type, amount, model, condition) VALUES ('$name', 'single', 1, 'm', 'true()')";
}

# Seconds until a strategy that was just written has been run and delivered. Without a call a database has its next time slice
# five seconds after its last one.
sub seconds_to_grant
{
	my ($database, $name) = @_;
	my $since = time;

	QuotaTest::Workers::await_grants($node, $database, $name, 1);
	return time - $since;
}

# The best of a few tries, since the machine may be busy.
sub is_soon
{
	my ($what, $try) = @_;
	my $best;

	foreach (1 .. 3)
	{
		my $seconds = $try->();

		$best = $seconds if !defined $best || $seconds < $best;
		last if $best < 3.5;
	}
	cmp_ok($best, '<', 3.5, sprintf '%s (%.1f s)', $what, $best);
	return;
}

# Written while the scheduler runs, committed when it has gone.
is_soon('what is committed after the time slice in which it was written gives its database another one', sub {
	my $session = $node->background_psql('postgres');
	my $name = 'late' . ++$number;

	QuotaTest::Workers::await($node, 'postgres', processes('postgres', q{backend_type LIKE '%scheduler' AND state = 'idle'}) . ' = 1');
	$session->query_safe('BEGIN; ' . insert($name));
	# it has had its time slice, and another database has its own
	QuotaTest::Workers::await($node, 'postgres', processes('other', q{backend_type LIKE '%courier'}) . ' = 1');
	$session->query_safe('COMMIT');
	my $seconds = seconds_to_grant('postgres', $name);
	$session->quit;
	return $seconds;
});

# Committed while the scheduler waits for its courier to end, and reads nothing any more.
is_soon('what is committed while a time slice ends gives its database another one', sub {
	my $name = 'leaving' . ++$number;
	my $courier;

	QuotaTest::Workers::await($node, 'postgres', processes('postgres', q{state = 'idle' AND backend_type LIKE '%courier' AND backend_start < clock_timestamp() - interval '2 s'}) . ' = 1');
	$courier = pid('postgres', 'courier') || return 99;
	kill STOP => $courier;
	QuotaTest::Workers::await($node, 'postgres', processes('postgres', q{query = 'making room for another database'}) . ' = 1');
	$node->safe_psql('postgres', insert($name));
	kill CONT => $courier;
	return seconds_to_grant('postgres', $name);
});

my ($locker, $name);
subtest 'somebody keeps a strategy, and then a table, locked, for as long as they like' => sub {
	$locker = $node->background_psql('postgres');
	$locker->query_safe('BEGIN; LOCK TABLE quota_manager.user_info');
	$node->safe_psql('postgres', insert('locked'));
	QuotaTest::Workers::await($node, 'postgres', processes('postgres', q{wait_event_type = 'Lock'}) . ' = 1');
	$name = 'served' . ++$number;
	$node->safe_psql('other', insert($name));
	cmp_ok(seconds_to_grant('other', $name), '<', 40, 'a scan that waits for a lock keeps no other database from its time slice');
	$locker->query_safe('ROLLBACK');
	seconds_to_grant('postgres', 'locked');
	pass('it is done when the lock is gone');
	$locker->query_safe('BEGIN; LOCK TABLE quota_manager.quota_strategy');
	QuotaTest::Workers::await($node, 'postgres', processes('postgres', q{wait_event_type = 'Lock'}) . ' = 1');
	$name = 'served' . ++$number;
	$node->safe_psql('other', insert($name));
	cmp_ok(seconds_to_grant('other', $name), '<', 40, 'a locked table keeps no other database from its time slice');
	$node->wait_for_log(qr/database "postgres" has waited for a lock/);
	$locker->query_safe('ROLLBACK');
	$locker->quit;
	$name = 'served' . ++$number;
	$node->safe_psql('postgres', insert($name));
	seconds_to_grant('postgres', $name);
	pass('it is served when the lock is gone');
};

# Who calls the launcher all the time keeps it from little.
sub processor_seconds
{
	my ($pid) = @_;
	my @stat = split / /, slurp_file("/proc/$pid/stat");

	return ($stat[13] + $stat[14]) / POSIX::sysconf(POSIX::_SC_CLK_TCK());
}
my $launcher = QuotaTest::Workers::worker($node, 'postgres', 'launcher');
my $before = processor_seconds($launcher);
$node->safe_psql('postgres', q{DO $$
	DECLARE since CONSTANT timestamptz := clock_timestamp();
	BEGIN
		WHILE clock_timestamp() < since + interval '3 s' LOOP
			PERFORM quota_manager.wake_workers();
			COMMIT;
		END LOOP;
	END $$});
my $used = processor_seconds($launcher) - $before;
cmp_ok($used, '<', 0.6, sprintf 'three seconds of calls cost the launcher little (%.2f s)', $used);
$name = 'served' . ++$number;
$node->safe_psql('other', insert($name));
seconds_to_grant('other', $name);
pass('it goes on');

is(QuotaTest::Workers::log_count($node, qr/PANIC|terminated by signal/), 0, 'no crash is in the log');
$node->stop;
done_testing();
