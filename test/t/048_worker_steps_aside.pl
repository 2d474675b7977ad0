# Commands that want nobody connected to a database: workers step aside, whether or not the session knows the library,
# while gateways hang and scans last, and are back afterwards.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use IPC::Run ();
use PostgreSQL::Test::Utils;
use QuotaTest::Workers;
use Test::More;
use Time::HiRes qw(time);

# A mock that answers, one that is to hang.
my $gateway = QuotaTest::Workers::gateway();
my $hanging = QuotaTest::Workers::gateway();
$hanging->fault('hang');

# Writes a strategy and lets it be noticed: workers sleep for long here.
sub write_strategy
{
	my ($node, $name, %column) = @_;

	QuotaTest::Workers::strategy($node, $name, %column);
	$node->safe_psql('postgres', 'SELECT pg_reload_conf()');
	return;
}

# Waits until the scheduler of a database is in a scan that does not end.
sub await_scan
{
	my ($node, $name) = @_;

	QuotaTest::Workers::await($node, $name,
		qq{SELECT count(*) = 1 FROM pg_stat_activity WHERE datname = '$name' AND backend_type = 'quota_manager scheduler' AND wait_event_type = 'Lock'});
	return;
}

# Makes a database whose workers are busy in some way; returns when they are.
sub busy_database
{
	my ($node, $name, $how) = @_;

	$node->safe_psql('postgres', "CREATE DATABASE $name");
	QuotaTest::Workers::database($node, $name, $how eq 'idle' || $how eq 'scan' ? $gateway : $hanging);
	QuotaTest::Workers::users($node, $name, 3);
	$node->safe_psql($name, 'SELECT quota_manager.start_workers()');
	QuotaTest::Workers::await_worker($node, $name, 'courier');
	if ($how eq 'courier')
	{
		write_strategy($node, $name, name => 'hangs');
		QuotaTest::Workers::await($node, $name, q{SELECT count(*) > 0 FROM quota_manager.quota_execute WHERE status = 'processing'});
	}
	if ($how eq 'balances')
	{
		write_strategy($node, $name, name => 'asks', condition => 'quota-le("m", 10)');
		QuotaTest::Workers::await($node, $name,
			qq{SELECT count(*) = 1 FROM pg_stat_activity WHERE datname = '$name' AND backend_type = 'quota_manager scheduler' AND query LIKE 'reading balances%' AND xact_start IS NULL});
	}
	if ($how eq 'scan')
	{
		# who scans reads a table of the whole cluster that another session has locked
		$node->safe_psql($name, q{
			CREATE FUNCTION quota_condition.lasts(s quota_manager.subject) RETURNS boolean LANGUAGE plpgsql STABLE PARALLEL SAFE AS
				'BEGIN RETURN EXISTS (SELECT FROM pg_catalog.pg_shdescription) OR true; END';
			GRANT EXECUTE ON FUNCTION quota_condition.lasts TO quota_worker});
		write_strategy($node, $name, name => 'lasts', condition => 'lasts()');
		await_scan($node, $name);
	}
	return;
}

# Workers serve a database again, in new processes.
sub served_again
{
	my ($node, $name, $strategy) = @_;

	QuotaTest::Workers::await_worker($node, $name, 'courier');
	write_strategy($node, $name, name => $strategy);
	QuotaTest::Workers::await($node, $name,
		qq{SELECT count(*) = 3 FROM quota_manager.quota_execute e JOIN quota_manager.quota_strategy s ON s.id = e.strategy_id WHERE s.name = '$strategy'});
	return;
}

# Runs a command; how many seconds it took.
sub seconds
{
	my ($node, $command, %option) = @_;
	my $since = time;

	$node->safe_psql('postgres', $command, %option);
	return time - $since;
}

foreach my $preload (1, 0)
{
	my $case = $preload ? 'preloaded' : 'not preloaded';
	# what the hook makes fast, and what the launcher's look does within its second
	my $limit = $preload ? 3 : 4.5;
	my $node = QuotaTest::Workers::cluster("aside$preload", preload => $preload,
		settings => "max_worker_processes = 24\nquota_manager.max_workers = 20\n" x $preload . "max_worker_processes = 24\nquota_manager.poll_interval = 20s\n");
	my $tablespace = PostgreSQL::Test::Utils::tempdir_short();

	$node->safe_psql('postgres', "CREATE TABLESPACE elsewhere LOCATION '$tablespace'");
	my $locker = $node->background_psql('postgres');
	my @ways = $ENV{QUOTA_MANAGER_LONG} ? qw(idle courier balances scan) : $preload ? qw(courier scan) : qw(balances scan);
	foreach my $how (@ways)
	{
		my $name = "db_$how";
		my $back = sub {
			my ($database, $strategy) = @_;
			return $how eq 'scan' ? await_scan($node, $database) : served_again($node, $database, $strategy);
		};
		my $took;

		$locker->query_safe('BEGIN; LOCK TABLE pg_catalog.pg_shdescription') if $how eq 'scan';
		busy_database($node, $name, $how);
		$took = seconds($node, "CREATE DATABASE copy_$how TEMPLATE $name");
		cmp_ok($took, '<', $limit, sprintf "$case, $how: copied in %.2f s", $took);
		$back->($name, 'copied');
		$took = seconds($node, "ALTER DATABASE $name RENAME TO new_$how");
		cmp_ok($took, '<', $limit, sprintf "$case, $how: renamed in %.2f s", $took);
		$back->("new_$how", 'renamed');
		$took = seconds($node, "ALTER DATABASE new_$how SET TABLESPACE elsewhere");
		cmp_ok($took, '<', $limit, sprintf "$case, $how: moved in %.2f s", $took);
		$back->("new_$how", 'moved');
		# comments on the database are dropped with it
		$locker->query_safe('COMMIT') if $how eq 'scan';
		$took = seconds($node, "DROP DATABASE new_$how");
		cmp_ok($took, '<', $limit, sprintf "$case, $how: dropped in %.2f s", $took);
	}
	$locker->quit;

	my ($courier, $stranger);
	subtest "$preload: by force, and by whoever owns the database and is not of the workers' role" => sub {
		busy_database($node, 'forced', 'idle');
		$node->safe_psql('postgres', 'DROP DATABASE forced WITH (FORCE)');
		pass("$case: dropped by force");
		busy_database($node, 'owned', 'idle');
		$node->safe_psql('postgres', 'CREATE ROLE owner LOGIN; CREATE ROLE stranger LOGIN CREATEDB; ALTER DATABASE owned OWNER TO owner');
		$courier = QuotaTest::Workers::worker($node, 'owned', 'courier');
		$stranger = $node->connstr('postgres') . ' user=stranger';
		foreach my $command ('DROP DATABASE owned', 'ALTER DATABASE owned RENAME TO mine', 'CREATE DATABASE mine TEMPLATE owned', 'ALTER DATABASE owned SET TABLESPACE elsewhere')
		{
			my (undef, undef, $error) = $node->psql('postgres', $command, connstr => $stranger);
			like($error, qr/must be owner|permission denied/, "$case: a stranger may not: $command");
		}
		is(QuotaTest::Workers::worker($node, 'owned', 'courier'), $courier, "$case: and does not interrupt workers");
	};

	# Not even if it is tried all the time: PostgreSQL locks the database before it looks who asks.
	my @pests;
	foreach my $command ('DROP DATABASE owned;', 'ALTER DATABASE owned RENAME TO mine;')
	{
		my $pest = IPC::Run::start([ 'psql', '-XAtq', '-d', $stranger ], '<', \(join "\n", ($command) x ($ENV{QUOTA_MANAGER_LONG} ? 40_000 : 15_000)), '>', '/dev/null', '2>', '/dev/null');
		push @pests, $pest;
	}
	$_->finish foreach @pests;
	is(QuotaTest::Workers::worker($node, 'owned', 'courier'), $courier, "$case: nor if it tries ever again");

	my ($guest, $error);
	subtest "$preload: a command that fails, or is cancelled, or rolled back, brings them back" => sub {
		$guest = $node->background_psql('owned');
		$guest->query_safe('SELECT 1');
		(undef, undef, $error) = $node->psql('postgres', 'DROP DATABASE owned');
		like($error, qr/database "owned" is being accessed by other users.*\n.*There is 1 other session/, "$case: only the guest is in the way");
		served_again($node, 'owned', 'failed');
		$guest->quit;
		$node->safe_psql('postgres', 'BEGIN; ALTER DATABASE owned RENAME TO other; ROLLBACK');
		served_again($node, 'owned', 'rolled_back');
		$node->safe_psql('postgres', 'DROP DATABASE owned', connstr => $node->connstr('postgres') . ' user=owner');
		pass("$case: dropped by its owner");
	};

	subtest "$preload: where the launcher sees nothing of it the command itself ends workers: also of the database that is copied if none is named" => sub {
		if ($preload)
		{
			$node->safe_psql('postgres', 'ALTER DATABASE template1 IS_TEMPLATE false');
			QuotaTest::Workers::database($node, 'template1', $gateway);
			$node->safe_psql('template1', 'SELECT quota_manager.start_workers()');
			QuotaTest::Workers::await_worker($node, 'template1', 'courier');
			my $launcher = QuotaTest::Workers::worker($node, 'template1', 'launcher');
			kill STOP => $launcher;
			(undef, undef, $error) = $node->psql('postgres', 'CREATE DATABASE plain');
			kill CONT => $launcher;
			is($error, '', "$case: template1 is copied, although it is no template");
			$node->safe_psql('template1', 'DROP EXTENSION quota_manager CASCADE');

			# A command that waited for another one goes by the names that there are then, and locks nothing else.
			$node->safe_psql('postgres', "CREATE DATABASE $_") foreach 'first', 'second';
			my $renamer = $node->background_psql('postgres');
			my $waiter = $node->background_psql('postgres');
			$renamer->query_safe('BEGIN; ALTER DATABASE first RENAME TO third; ALTER DATABASE second RENAME TO first');
			$waiter->query_safe('BEGIN');
			$waiter->query_until(qr/^$/, "ALTER DATABASE first RENAME TO fourth;\n");
			QuotaTest::Workers::await($node, 'postgres', q{SELECT count(*) = 1 FROM pg_stat_activity WHERE query LIKE 'ALTER DATABASE first RENAME TO fourth%' AND wait_event_type = 'Lock'});
			$renamer->query_safe('COMMIT');
			is($waiter->query_safe(q{SELECT d.datname FROM pg_locks l JOIN pg_database d ON d.oid = l.objid
				WHERE l.classid = 'pg_database'::regclass AND l.mode = 'AccessExclusiveLock' AND l.granted}), 'fourth', "$case: only the database that is renamed is locked");
			$waiter->query_safe('ROLLBACK');
			$waiter->quit;
			$renamer->quit;
		}

		is(QuotaTest::Workers::log_count($node, qr/PANIC|terminated by signal|database "\w+" does not exist/), 0, "$case: no crash, and no attempt to serve what is gone")
		  or diag(join "\n", slurp_file($node->logfile) =~ /.*(?:PANIC|terminated by signal|does not exist).*/g);
	};
	$node->stop;
}
done_testing();
