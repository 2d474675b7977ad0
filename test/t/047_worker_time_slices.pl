# Twenty databases at the default number of worker slots get time slices, while some of them are broken, dropped, renamed or copied.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Utils;
use QuotaTest::Workers;
use Test::More;
use Time::HiRes qw(time);

my $gateway = QuotaTest::Workers::gateway();
my $node = QuotaTest::Workers::cluster('time_slices', preload => 1, settings => "log_min_messages = debug1\nquota_manager.workers = off\n");

is($node->safe_psql('postgres', 'SHOW quota_manager.max_workers'), '8', 'the default leaves room for four databases at a time');

# Eighteen more make twenty with "postgres" and "nothing", in which the extension is not. A copy of a database where
# nothing was ever run is as good as a new one.
my @served = ('postgres', map { "db$_" } 1 .. 18);
my $users = 5;

$node->safe_psql('postgres', 'CREATE DATABASE nothing');
QuotaTest::Workers::database($node, 'postgres', $gateway);
QuotaTest::Workers::users($node, 'postgres', $users);
QuotaTest::Workers::strategy($node, 'postgres', name => 'first');
foreach my $database (@served[ 1 .. 18 ])
{
	$node->safe_psql('template1', "CREATE DATABASE $database TEMPLATE postgres");
	$node->safe_psql($database, 'UPDATE quota_manager.quota_installation SET id = gen_random_uuid()');
}

# Waits for the grants of a strategy in all these databases; the longest time in seconds that it took.
sub await_all
{
	my ($strategy, @databases) = @_;
	my $since = time;

	QuotaTest::Workers::await_grants($node, $_, $strategy, $users) foreach @databases;
	return time - $since;
}

# How often workers were started since a place in the log.
sub starts
{
	my ($since) = @_;
	my $log = substr slurp_file($node->logfile), $since;

	return scalar(() = $log =~ /starting background worker process "quota_manager (?:scheduler|courier)/g);
}

# Writes a strategy into databases and waits for what it grants.
sub await_all_with_new
{
	my ($strategy, @databases) = @_;

	QuotaTest::Workers::strategy($node, $_, name => $strategy) foreach @databases;
	return await_all($strategy, @databases);
}

QuotaTest::Workers::set($node, 'quota_manager.workers', 'on');
my $took = await_all('first', @served);
cmp_ok($took, '<', 60, sprintf 'all databases are served (%.1f s)', $took);
$node->wait_for_log(qr/\d+ databases share 4 quota_manager worker slots in time slices/);
QuotaTest::Workers::await($node, 'postgres',
	q{SELECT query = '19 databases share 4 worker slots' FROM pg_stat_activity WHERE backend_type = 'quota_manager launcher'});
pass('pg_stat_activity shows that they share the slots');
is(QuotaTest::Workers::log_count($node, qr/LOG:  \d+ databases share/), 1, 'the log says it once');

my ($since, @left);
subtest 'broken, dropped, renamed, copied' => sub {
	my $mark = length slurp_file($node->logfile);
	$since = time;
	$node->safe_psql('db1', 'REVOKE ALL ON quota_manager.quota_run FROM quota_worker');
	$node->safe_psql('postgres', 'DROP DATABASE db2');
	pass('a database is dropped while workers run');
	$node->safe_psql('postgres', 'ALTER DATABASE db3 RENAME TO renamed');
	pass('a database is renamed while workers run');
	$node->safe_psql('postgres', 'CREATE DATABASE copy TEMPLATE db4');
	pass('a database is copied while workers run');
	@left = ('postgres', 'renamed', map { "db$_" } 4 .. 18);
	$took = await_all_with_new('second', @left);
	cmp_ok($took, '<', 60, sprintf 'all others are served within their next time slice (%.1f s)', $took);
	my $seconds = time - $since;
	my $starts = starts($mark);
	# four slots, two processes each, a second at least; besides, four time slices were broken off by what was done here
	cmp_ok($starts, '<=', 8 * ($seconds + 1) + 8, sprintf 'no more than four time slices a second are begun (%d processes in %.1f s)', $starts, $seconds);
	$node->wait_for_log(qr/role "quota_worker" may not run quota_manager in database "db1".*\n.*DETAIL:  It lacks the privilege \w+ on table quota_manager.quota_run/);
	is(QuotaTest::Workers::log_count($node, qr/lacks the privilege \w+ on table quota_manager.quota_run/), 1, 'the broken one is reported once');
	QuotaTest::Workers::await($node, 'copy', q{SELECT count(*) = 0 FROM quota_manager.quota_execute WHERE status <> 'completed'});
	$node->wait_for_log(qr/database "copy" is a copy: nothing is scanned/);
};

# Calls reach the launcher: a database that waits for its time slice, or for a mended right, has it soon.
QuotaTest::Workers::strategy($node, 'db1', name => 'second');
$node->safe_psql('db1', q{SELECT quota_manager.grant_access('quota_worker', 'worker')});
await_all('second', 'db1');
pass('rights that are granted again are noticed');

# A restart brings all of them back.
push @left, 'db1';
$node->restart;
await_all_with_new('third', @left);
pass('after a restart of the cluster all are served again');

subtest 'each grant was sent once' => sub {
	my %keys;
	$keys{ $_->{idempotency_key} }++ foreach $gateway->applied;
	is(scalar(grep { $_ > 1 } values %keys), 0, 'no grant was sent twice');
	my $completed = 0;
	foreach my $database (@left)
	{
		my ($open, $done) = split /\|/, $node->safe_psql($database,
			q{SELECT count(*) FILTER (WHERE status <> 'completed'), count(*) FILTER (WHERE status = 'completed') FROM quota_manager.quota_execute});
		is($open, 0, "$database: nothing is left, nothing in doubt") if $open;
		$completed += $done;
	}
	is($completed, $users * 3 * @left, 'every grant of every database is completed');
	is(scalar(keys %keys), $completed + $users, 'and was applied, as were those of the database that was dropped');
	is(QuotaTest::Workers::log_count($node, qr/PANIC|FATAL:  (?!the database system|terminating)|terminated by signal/), 0, 'no crash, and no attempt to connect to what is gone')
	  or diag(join "\n", slurp_file($node->logfile) =~ /.*(?:PANIC|FATAL:|terminated by signal).*/g);
};

$node->stop;
done_testing();
