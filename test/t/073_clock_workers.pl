# The wall clock is set back and ahead, by an hour and by ten years, under running workers: what they wait for comes when
# it would have come.  Before the clock is set, something is waited for each time: the next poll of single strategies, a
# retry, the time slice of another database, the list of databases.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Utils;
use QuotaTest::Clock;
use QuotaTest::Workers;
use Test::More;

my $gateway = QuotaTest::Workers::gateway();
my $hour = 3600;
my $years = 10 * 365 * 24 * $hour;
my @steps = (
	[ 'back by an hour', -$hour ],
	[ 'ahead by an hour', $hour ],
	[ 'back by ten years', -$years ],
	[ 'ahead by ten years', $years ]);
my $workers = q{SELECT count(*) FROM pg_stat_activity WHERE backend_type ~ '^quota_manager (scheduler|courier)'};
my $clock;
my $node;

# One pair of slots for two databases.
start('time_slices', preload => 1, settings => 'quota_manager.max_workers = 2');
$node->safe_psql('postgres', 'CREATE DATABASE other');
foreach my $database (qw(postgres other))
{
	QuotaTest::Workers::database($node, $database, $gateway);
	QuotaTest::Workers::users($node, $database, 2);
	QuotaTest::Workers::strategy($node, $database, name => 'all');
}
QuotaTest::Workers::await_grants($node, $_, 'all', 2) foreach qw(postgres other);
my $known = 2;
foreach my $step (@steps)
{
	$clock->advance($step->[1]);
	foreach my $database (qw(postgres other))
	{
		QuotaTest::Workers::strategy($node, $database, name => "after $step->[0]");
		QuotaTest::Workers::await_grants($node, $database, "after $step->[0]", $known);
	}
	$known++;
	# nobody tells the workers of a new user
	$node->safe_psql($_, "INSERT INTO quota_manager.user_info (id) VALUES ('$step->[0]')") foreach qw(postgres other);
	foreach my $database (qw(postgres other))
	{
		QuotaTest::Workers::await($node, $database, qq{
			SELECT count(*) = 1 FROM quota_manager.quota_execute e JOIN quota_manager.quota_strategy s ON s.id = e.strategy_id
			WHERE s.name = 'all' AND e.user_id = '$step->[0]' AND e.status = 'completed'});
	}
	pass("time slices: $step->[0], both databases have theirs");
}
$node->stop;

# Slots for each.
start('slots', preload => 1);
QuotaTest::Workers::database($node, 'postgres', $gateway);
QuotaTest::Workers::users($node, 'postgres', 2);
$node->safe_psql('postgres', q{
	CREATE FUNCTION quota_condition.ready(s quota_manager.subject) RETURNS boolean LANGUAGE plpgsql STABLE PARALLEL SAFE AS 'BEGIN RETURN 1 / 0 = 1; END';
	GRANT EXECUTE ON FUNCTION quota_condition.ready TO quota_worker});
QuotaTest::Workers::strategy($node, 'postgres', name => 'all');
QuotaTest::Workers::await_grants($node, 'postgres', 'all', 2);
my $count = 2;
foreach my $step (@steps)
{
	my ($what, $seconds) = @$step;

	# What failed is tried again, after five seconds at first.
	failing('1 / 0 = 1');
	QuotaTest::Workers::strategy($node, 'postgres', name => "retry $what", condition => 'ready()');
	$node->wait_for_log(qr/strategy "retry $what" failed/);
	$clock->advance($seconds);
	failing('true');
	QuotaTest::Workers::await_grants($node, 'postgres', "retry $what", $count);
	pass("$what: a strategy that failed is tried again");

	# A new user is found by polling.
	$node->safe_psql('postgres', "INSERT INTO quota_manager.user_info (id) VALUES ('$what')");
	QuotaTest::Workers::await_grants($node, 'postgres', 'all', ++$count);
	pass("$what: single strategies are read");

	subtest "$step: those that end are started again" => sub {
		foreach my $kind (qw(courier scheduler))
		{
			my $pid = QuotaTest::Workers::await_worker($node, 'postgres', $kind);

			$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
			QuotaTest::Workers::await_worker($node, 'postgres', $kind, $pid);
			pass("$what: a $kind that ended is started again");
		}
		# Also one that is to wait for that when the clock is set.
		my $courier = QuotaTest::Workers::await_worker($node, 'postgres', 'courier');
		$node->safe_psql('postgres', "SELECT pg_terminate_backend($courier)");
		QuotaTest::Workers::seconds_to_end($courier, time);
		$clock->advance(-$seconds);
		QuotaTest::Workers::await_worker($node, 'postgres', 'courier', $courier);
		pass("$what, and the other way: a courier that waits to be started again is");
	};

	# The role is checked each second.
	$node->safe_psql('postgres', 'ALTER ROLE quota_worker NOLOGIN');
	QuotaTest::Workers::await($node, 'postgres', "($workers) = 0");
	$clock->advance($seconds);
	$node->safe_psql('postgres', 'ALTER ROLE quota_worker LOGIN');
	QuotaTest::Workers::await_worker($node, 'postgres', 'courier');
	pass("$what: a change of the role is seen");

	subtest "$step: a new extension, of which somebody tells, and the reload of settings" => sub {
		my $database = "db$seconds" =~ s/-/m/r;
		$node->safe_psql('postgres', "CREATE DATABASE $database");
		QuotaTest::Workers::database($node, $database, $gateway);
		QuotaTest::Workers::users($node, $database, 2);
		QuotaTest::Workers::strategy($node, $database, name => 'new');
		QuotaTest::Workers::await_grants($node, $database, 'new', 2);
		pass("$what: a new extension is seen");
		$node->safe_psql('postgres', "DROP DATABASE $database WITH (FORCE)");
		pass("$what: workers step aside");
		QuotaTest::Workers::set($node, 'quota_manager.workers', 'off');
		QuotaTest::Workers::await($node, 'postgres', "($workers) = 0");
		QuotaTest::Workers::set($node, 'quota_manager.workers', 'on');
		QuotaTest::Workers::await_worker($node, 'postgres', 'courier');
		pass("$what: a reload starts them");
	};
}
$node->stop;

# start_workers().
start('own');
QuotaTest::Workers::database($node, 'postgres', $gateway);
QuotaTest::Workers::users($node, 'postgres', 2);
foreach my $step (@steps)
{
	$node->safe_psql('postgres', 'SELECT quota_manager.start_workers()');
	QuotaTest::Workers::await_worker($node, 'postgres', 'courier');
	$clock->advance($step->[1]);
	$node->safe_psql('postgres', 'SELECT quota_manager.stop_workers()');
	QuotaTest::Workers::await($node, 'postgres', "($workers) = 0");
	$node->safe_psql('postgres', 'SELECT quota_manager.start_workers()');
	QuotaTest::Workers::strategy($node, 'postgres', name => "own $step->[0]");
	QuotaTest::Workers::await_grants($node, 'postgres', "own $step->[0]", 2);
	pass("start_workers(): $step->[0]");
	$node->safe_psql('postgres', 'SELECT quota_manager.stop_workers()');
	QuotaTest::Workers::await($node, 'postgres', q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type ~ '^quota_manager'});
}
$node->stop;
done_testing();

# A server with a clock of its own, that reads single strategies each second.
sub start
{
	my ($name, %option) = @_;

	$option{settings} .= "\nquota_manager.scan_interval = 1s\n";
	$clock = QuotaTest::Clock->new('2026-06-01 08:00:00');
	$node = $clock->with(sub { QuotaTest::Workers::cluster($name, %option) });
	return;
}

# What the condition ready() does from now on.
sub failing
{
	my ($expression) = @_;

	$node->safe_psql('postgres', qq{
		CREATE OR REPLACE FUNCTION quota_condition.ready(s quota_manager.subject) RETURNS boolean LANGUAGE plpgsql STABLE PARALLEL SAFE
			AS 'BEGIN RETURN $expression; END'});
	return;
}
