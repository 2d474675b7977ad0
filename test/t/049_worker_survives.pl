# What goes missing while workers run: tables, rights, roles, room, the right version of the extension. It is said once,
# nothing is tried in a loop, and the work goes on by itself when it is mended.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Utils;
use QuotaTest::Workers;
use Test::More;

my $gateway = QuotaTest::Workers::gateway();
my $node = QuotaTest::Workers::cluster('survives', preload => 1, settings => "log_min_messages = debug1\nmax_worker_processes = 8\n");
my $version = $node->safe_psql('postgres', q{SELECT default_version FROM pg_available_extensions WHERE name = 'quota_manager'});
my $users = 3;
my $strategies = 0;

QuotaTest::Workers::database($node, 'postgres', $gateway);
QuotaTest::Workers::users($node, 'postgres', $users);

# Everything works: a new strategy is granted and delivered.
sub works
{
	my ($name) = @_;
	my $strategy = 's' . ++$strategies;

	QuotaTest::Workers::strategy($node, 'postgres', name => $strategy);
	QuotaTest::Workers::await_grants($node, 'postgres', $strategy, $users);
	pass($name);
	return;
}

sub length_of_log
{
	return length slurp_file($node->logfile);
}

# How often a pattern occurs in the log from a position on.
sub count_since
{
	my ($since, $pattern) = @_;
	my $log = substr slurp_file($node->logfile), $since;

	return scalar(() = $log =~ /$pattern/g);
}

# What the launcher, or a worker, says of itself.
sub await_state
{
	my ($kind, $pattern) = @_;

	QuotaTest::Workers::await($node, 'postgres',
		"SELECT query ~ '$pattern' FROM pg_stat_activity WHERE backend_type = 'quota_manager $kind'");
	return;
}

my $start = qr/starting background worker process "quota_manager (?:scheduler|courier)/;

works('it works');

my $mark;
subtest 'tables, and the schema' => sub {
	foreach my $table (qw(quota_run quota_execute quota_gateway quota_strategy))
	{
		my $mark = length_of_log();
		my $scheduler = QuotaTest::Workers::worker($node, 'postgres', 'scheduler');

		$node->safe_psql('postgres', "ALTER TABLE quota_manager.$table RENAME TO away");
		QuotaTest::Workers::strategy($node, 'postgres', name => "without $table") if $table =~ /run|execute/;
		$node->wait_for_log(qr/quota_manager does not run in database "postgres": table quota_manager.$table is missing.*\n.*HINT: .*Rename it back/, $mark);
		await_state('scheduler', "waiting: table quota_manager.$table is missing");
		$node->safe_psql('postgres', "ALTER TABLE quota_manager.away RENAME TO $table");
		works("$table was missing for a while");
		is(QuotaTest::Workers::worker($node, 'postgres', 'scheduler'), $scheduler, "$table: in the same process");
		is(count_since($mark, qr/table quota_manager.$table is missing\n/), 1, "$table: said once");
		cmp_ok(count_since($mark, $start), '<=', 4, "$table: no process is started again and again");
		cmp_ok(count_since($mark, qr/ERROR: /), '<=', 4, "$table: nor an error repeated");
	}
	$mark = length_of_log();
	$node->safe_psql('postgres', 'ALTER SCHEMA quota_manager RENAME TO away');
	$node->wait_for_log(qr/quota_manager does not run in database "postgres": schema quota_manager is missing/, $mark);
	$node->safe_psql('postgres', 'ALTER SCHEMA away RENAME TO quota_manager');
	works('the schema was missing for a while');
};

subtest 'another version of the extension' => sub {
	$mark = length_of_log();
	$node->safe_psql('postgres', q{UPDATE pg_extension SET extversion = '0.9' WHERE extname = 'quota_manager'});
	my $text = qr/extension quota_manager in database "postgres" is at version 0.9, the library is \Q$version\E/;
	$node->wait_for_log($text, $mark);
	QuotaTest::Workers::await($node, 'postgres', q{SELECT count(pid) = 0 FROM quota_manager.worker_status WHERE kind <> 'launcher'});
	foreach my $call ('CALL quota_manager.tick()', 'CALL quota_manager.deliver()', 'SELECT quota_manager.start_workers()')
	{
		my (undef, undef, $error) = $node->psql('postgres', $call);

		like($error, qr/$text.*\n.*HINT: .*ALTER EXTENSION quota_manager UPDATE/, "$call refuses another version");
	}
	$node->safe_psql('postgres', 'SELECT quota_manager.wake_workers()');
	$node->wait_for_log(qr/starting background worker process "quota_manager scheduler postgres"/, length_of_log() - 200);
	is(count_since($mark, qr/WARNING:  $text/), 1, 'another version is reported once');
	$node->safe_psql('postgres', qq{
		UPDATE pg_extension SET extversion = '$version' WHERE extname = 'quota_manager';
		SELECT quota_manager.wake_workers()});
	works('the version fits again');
};

subtest 'rights, in this database only' => sub {
	$mark = length_of_log();
	$node->safe_psql('postgres', 'REVOKE ALL ON ALL TABLES IN SCHEMA quota_manager FROM quota_worker');
	$node->wait_for_log(qr/role "quota_worker" may not run quota_manager in database "postgres".*\n.*lacks the privilege .*\n.*HINT: .*grant_access/, $mark);
	$node->safe_psql('postgres', q{SELECT quota_manager.grant_access('quota_worker', 'worker')});
	works('rights were taken for a while');
	$mark = length_of_log();
	$node->safe_psql('postgres', 'REVOKE SELECT ON quota_manager.quota_gateway FROM quota_worker');
	$node->wait_for_log(qr/lacks the privilege SELECT on table quota_manager.quota_gateway/, $mark);
	$node->safe_psql('postgres', q{SELECT quota_manager.grant_access('quota_worker', 'worker')});
	works('the right to read gateways was taken for a while');
};

subtest 'the role' => sub {
	$mark = length_of_log();
	foreach my $case (
		[ 'DROP OWNED BY quota_worker; DROP ROLE quota_worker', 'does not exist', q{CREATE ROLE quota_worker LOGIN; SELECT quota_manager.grant_access('quota_worker', 'worker')} ],
		[ 'ALTER ROLE quota_worker RENAME TO someone', 'does not exist', 'ALTER ROLE someone RENAME TO quota_worker' ],
		[ 'ALTER ROLE quota_worker SUPERUSER', 'is a superuser', 'ALTER ROLE quota_worker NOSUPERUSER' ],
		[ 'ALTER ROLE quota_worker NOLOGIN', 'is not permitted to log in', 'ALTER ROLE quota_worker LOGIN' ])
	{
		my ($break, $reason, $mend) = @$case;

		$mark = length_of_log();
		$node->safe_psql('postgres', $break);
		$node->wait_for_log(qr/quota_manager workers do not run: role "quota_worker" of quota_manager.worker_role $reason.*\n.*HINT: /, $mark);
		await_state('launcher', "^waiting: role \"quota_worker\" of quota_manager.worker_role $reason\$");
		$node->safe_psql('postgres', $mend);
		works("after $break");
		is(count_since($mark, qr/workers do not run:/), 1, 'said once');
		cmp_ok(count_since($mark, $start), '<=', 6, 'without a loop');
	}
	$mark = length_of_log();
	$node->safe_psql('postgres', 'REVOKE CONNECT ON DATABASE postgres FROM PUBLIC');
	$node->wait_for_log(qr/role "quota_worker" may not connect to database "postgres"/, $mark);
	QuotaTest::Workers::await($node, 'postgres', q{SELECT count(pid) = 0 FROM quota_manager.worker_status WHERE kind <> 'launcher'});
	$node->safe_psql('postgres', 'GRANT CONNECT ON DATABASE postgres TO PUBLIC');
	works('the right to connect was taken for a while');
};

subtest 'a database that nobody can connect to' => sub {
	$node->safe_psql('postgres', 'CREATE DATABASE unreachable');
	my $file = $node->data_dir . '/base/' . $node->safe_psql('postgres', q{SELECT oid FROM pg_database WHERE datname = 'unreachable'}) . '/PG_VERSION';
	$mark = length_of_log();
	rename $file, "$file.away" or die "cannot rename $file: $!";
	$node->safe_psql('postgres', 'SELECT pg_reload_conf()') foreach 1 .. 3;
	$node->wait_for_log(qr/quota_manager could not connect to database "unreachable" as role "quota_worker".*\n.*HINT: .*tried again/, $mark);
	works('a database that cannot be connected to does not disturb the others');
	is(count_since($mark, qr/could not connect to database "unreachable"/), 1, 'and is reported once');
	rename "$file.away", $file or die "cannot rename $file: $!";
	$node->safe_psql('postgres', 'DROP DATABASE unreachable');
};

# The extension, dropped and created again.
$node->safe_psql('postgres', 'DROP EXTENSION quota_manager CASCADE');
QuotaTest::Workers::database($node, 'postgres', $gateway);
QuotaTest::Workers::users($node, 'postgres', $users);
works('the extension is another one');

subtest 'room for a scheduler and no courier: strategies are run, and grants delivered when there is room' => sub {
	# Of the server's own workers one takes a slot.
	$node->append_conf('postgresql.conf', "max_worker_processes = 3\n");
	$node->restart;
	QuotaTest::Workers::strategy($node, 'postgres', name => 'alone');
	QuotaTest::Workers::await($node, 'postgres', q{SELECT count(*) = 3 FROM quota_manager.quota_execute e JOIN quota_manager.quota_strategy s ON s.id = e.strategy_id WHERE s.name = 'alone'});
	$node->wait_for_log(qr/could not start a quota_manager courier for database "postgres".*\n.*All slots for background workers are in use. Strategies are run, grants wait/);
	is($node->safe_psql('postgres', q{SELECT count(*) FROM quota_manager.quota_execute WHERE status = 'pending'}), '3', 'a scheduler alone runs strategies');
	$node->append_conf('postgresql.conf', "max_worker_processes = 4\n");
	$node->restart;
	QuotaTest::Workers::await_grants($node, 'postgres', 'alone', $users);
	pass('and they are delivered when there is room');
};

subtest 'two databases and room for one: both have their time slice with a courier' => sub {
	$node->safe_psql('postgres', 'CREATE DATABASE other');
	QuotaTest::Workers::database($node, 'other', $gateway);
	QuotaTest::Workers::users($node, 'other', $users);
	$mark = length_of_log();
	foreach my $name (qw(one two))
	{
		QuotaTest::Workers::strategy($node, $_, name => $name) foreach qw(postgres other);
		QuotaTest::Workers::await_grants($node, $_, $name, $users) foreach qw(postgres other);
	}
	pass('databases share the slots where max_worker_processes leaves enough for one');
	cmp_ok(count_since($mark, qr/could not start a quota_manager/), '<=', 1, 'and that is said once');
	is(QuotaTest::Workers::log_count($node, qr/PANIC|terminated by signal/), 0, 'no crash is in the log');
};

$node->stop;
done_testing();
