# Twenty databases at the default number of places take turns, while some of them are broken, dropped, renamed or copied.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Utils;
use QuotaTest::Workers;
use Test::More;
use Time::HiRes qw(time);

my $gateway = QuotaTest::Workers::gateway();
my $node = QuotaTest::Workers::cluster('turns', preload => 1, settings => "log_min_messages = debug1\nlog_line_prefix = '%m [%p] '\n");

is($node->safe_psql('postgres', 'SHOW quota_manager.max_workers'), '8', 'the default leaves room for four databases at a time');

# Eighteen more make twenty with "postgres" and "nothing", in which the extension is not.
my @served = ('postgres', map { "db$_" } 1 .. 18);
my $users = 5;

QuotaTest::Workers::database($node, 'postgres', $gateway);
$node->safe_psql('postgres', 'CREATE DATABASE nothing');
foreach my $database (@served[ 1 .. 18 ])
{
	# a copy of a database where nothing was ever run or sent is as good as a new one
	$node->safe_psql('postgres', "CREATE DATABASE $database");
	QuotaTest::Workers::database($node, $database, $gateway);
}
foreach my $database (@served)
{
	QuotaTest::Workers::users($node, $database, $users);
	QuotaTest::Workers::strategy($node, $database, name => 'first');
}

# Waits for the grants of a strategy in all these databases; the longest time in seconds that it took.
sub await_all
{
	my ($strategy, @databases) = @_;
	my $since = time;

	QuotaTest::Workers::await_grants($node, $_, $strategy, $users) foreach @databases;
	return time - $since;
}

sub line_of_log
{
	return length slurp_file($node->logfile);
}

# How often workers were started since a place in the log.
sub starts
{
	my ($since) = @_;
	my $log = substr slurp_file($node->logfile), $since;

	return scalar(() = $log =~ /starting background worker process "quota_manager (?:scheduler|courier)/g);
}

note sprintf 'all were served after %.1f s', await_all('first', @served);
pass('all databases are served');
$node->wait_for_log(qr/\d+ databases take turns in 4 places for quota_manager workers/);

# Nothing is due: databases are visited, without haste.
my $mark = line_of_log();
my $since = time;
my $second = await_all_with_new('second');

# Writes a strategy into every database and waits for what it grants.
sub await_all_with_new
{
	my ($strategy, @databases) = @_;

	@databases = @served unless @databases;
	QuotaTest::Workers::strategy($node, $_, name => $strategy) foreach @databases;
	return await_all($strategy, @databases);
}

cmp_ok($second, '<', 60, sprintf 'what is written while a database has no workers is granted within its next turn (%.1f s)', $second);
my $rate = starts($mark) / (time - $since);
cmp_ok($rate, '<', 9, sprintf 'and no more than four turns a second are begun (%.1f processes a second)', $rate);
is($node->safe_psql('postgres', q{SELECT query ~ '^\d+ databases take turns in 4 places$' FROM pg_stat_activity WHERE backend_type = 'quota_manager launcher'}),
	't', 'pg_stat_activity shows that they take turns');

# Broken, dropped, renamed, copied.
$node->safe_psql('db1', 'REVOKE ALL ON quota_manager.quota_run FROM quota_worker');
$node->safe_psql('postgres', 'DROP DATABASE db2');
pass('a database is dropped while workers run');
$node->safe_psql('postgres', 'ALTER DATABASE db3 RENAME TO renamed');
pass('a database is renamed while workers run');
$node->safe_psql('postgres', 'CREATE DATABASE copy TEMPLATE db4');
pass('a database is copied while workers run');
my @left = ('postgres', 'renamed', map { "db$_" } 4 .. 18);
await_all_with_new('third', @left);
pass('all others are served');
$node->wait_for_log(qr/role "quota_worker" may not run quota_manager in database "db1".*\n.*DETAIL:  It lacks the privilege \w+ on table quota_manager.quota_run/);
is(QuotaTest::Workers::log_count($node, qr/role "quota_worker" may not run quota_manager in database "db1"/), 1, 'the broken one is reported once');
QuotaTest::Workers::await($node, 'copy', q{SELECT count(*) = 0 FROM quota_manager.quota_execute WHERE status <> 'completed'});
$node->wait_for_log(qr/database "copy" is a copy: nothing is scanned/);

# Calls reach the launcher: a database that waits for its turn, or for a mended right, has it soon.
QuotaTest::Workers::strategy($node, 'db1', name => 'third');
$node->safe_psql('db1', q{SELECT quota_manager.grant_access('quota_worker', 'worker')});
await_all('third', 'db1');
pass('rights that are granted again are noticed');

# A restart brings all of them back.
push @left, 'db1';
$node->restart;
await_all_with_new('fourth', @left);
pass('after a restart of the cluster all are served again');

# Each grant was sent once.
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
is($completed, $users * (4 * @left), 'every grant of every database is completed');
is(scalar(keys %keys), $completed + 2 * $users, 'and was applied, as were those of the database that was dropped');
is(QuotaTest::Workers::log_count($node, qr/PANIC|FATAL:  (?!the database system|terminating)|terminated by signal/), 0, 'no crash, and no attempt to connect to what is gone')
  or diag(join "\n", slurp_file($node->logfile) =~ /.*(?:PANIC|FATAL:|terminated by signal).*/g);

$node->stop;
done_testing();
