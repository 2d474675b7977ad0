# schedule_jobs() and unschedule_jobs(): what is missing is said with what to do about it; other databases; other roles.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Utils;
use QuotaTest::PgCron;
use QuotaTest::Workers;
use Test::More;

plan skip_all => 'pg_cron is not installed' unless QuotaTest::PgCron::is_available();

my $gateway = QuotaTest::Workers::gateway();
my $node = QuotaTest::Workers::cluster('jobs', role => 0);
my $jobs = q{SELECT jobname, database, username FROM cron.job ORDER BY jobname, username};
my $schedule = 'SELECT count(*) FROM quota_manager.schedule_jobs()';
my $unschedule = 'SELECT quota_manager.unschedule_jobs()';

$node->safe_psql('postgres', 'CREATE EXTENSION quota_manager');
refused('postgres', $schedule, qr/pg_cron is not to be found in database "postgres".*HINT:  .*shared_preload_libraries.*cron\.database_name/s, 'no pg_cron');
refused('postgres', $unschedule, qr/pg_cron is not to be found/, 'no pg_cron to unschedule');

$node->append_conf('postgresql.conf', "shared_preload_libraries = 'pg_cron'\ncron.use_background_workers = on");
$node->restart;
refused('postgres', $schedule, qr/extension pg_cron is not installed in database "postgres".*HINT:  Call CREATE EXTENSION pg_cron/s, 'not created');
$node->safe_psql('postgres', 'CREATE EXTENSION pg_cron');

# The role.
refused('postgres', $schedule, qr/role "quota_worker" does not exist.*HINT:  .*CREATE ROLE/s, 'no role');
$node->safe_psql('postgres', 'CREATE ROLE quota_worker SUPERUSER');
refused('postgres', $schedule, qr/role "quota_worker": it is a superuser.*HINT:  .*grant_access/s, 'a superuser');
$node->safe_psql('postgres', 'ALTER ROLE quota_worker NOSUPERUSER');
refused('postgres', $schedule, qr/not permitted to log in.*HINT:  .*ALTER ROLE quota_worker LOGIN/s, 'a role that cannot log in');
$node->safe_psql('postgres', 'ALTER ROLE quota_worker LOGIN');
refused('postgres', $schedule, qr/"quota_worker" may not run quota_manager in database "postgres".*HINT:  Call quota_manager.grant_access\('quota_worker', 'worker'\)/s, 'a role without rights');
$node->safe_psql('postgres', q{
	SELECT quota_manager.grant_access('quota_worker', 'worker');
	REVOKE CONNECT ON DATABASE postgres FROM PUBLIC});
refused('postgres', $schedule, qr/may not connect to database "postgres".*HINT:  .*CONNECT/s, 'a role that may not connect');
$node->safe_psql('postgres', 'GRANT CONNECT ON DATABASE postgres TO PUBLIC');
refused('postgres', q{SELECT quota_manager.schedule_jobs('nowhere')}, qr/there is no database "nowhere"/, 'no such database');
is($node->safe_psql('postgres', 'SELECT count(*) FROM cron.job'), 0, 'nothing was scheduled by what was refused');
is($node->safe_psql('postgres', $schedule), 2, 'and then it is');

# Runs that fail are told of, and what to do.
warns(undef, 'nothing to warn of by background workers');
$node->safe_psql('postgres', q{
	INSERT INTO cron.job_run_details (runid, jobid, database, username, command, status, return_message, start_time)
		SELECT 1000000 + jobid, jobid, database, username, command, 'failed', 'connection failed', now() FROM cron.job});
warns(qr/last run of a job .* failed: connection failed.*HINT:  See cron\.job_run_details/s, 'a run that failed');
$node->append_conf('postgresql.conf', 'cron.use_background_workers = off');
$node->restart;
warns(qr/failed: connection failed.*HINT:  Set cron\.use_background_workers = on.*"quota_worker".*pg_hba\.conf/s, 'a run that failed to connect');
$node->safe_psql('postgres', 'DELETE FROM cron.job_run_details');
warns(qr/pg_cron connects to .*asks role "quota_worker" for a password.*HINT:  Set cron\.use_background_workers = on/s, 'connections that nobody has tried');
$node->safe_psql('postgres', q{
	INSERT INTO cron.job_run_details (runid, jobid, database, username, command, status, return_message, start_time)
		SELECT 2000000 + jobid, jobid, database, username, command, 'succeeded', 'CALL', now() FROM cron.job});
warns(undef, 'connections that are known to work');
$node->safe_psql('postgres', 'DELETE FROM cron.job_run_details');
$node->append_conf('postgresql.conf', 'cron.use_background_workers = on');
$node->restart;

# Whoever is no superuser runs jobs as himself, and takes rights for that.
$node->safe_psql('postgres', q{
	CREATE ROLE boss LOGIN;
	CREATE ROLE "Odd ""role""" LOGIN;
	SELECT quota_manager.grant_access('boss', 'admin')});
refused('postgres', "SET ROLE boss; $schedule", qr/role "boss" cannot schedule jobs for role "quota_worker".*HINT:  Only a superuser/s, 'for another role');
refused('postgres', q{SET ROLE boss; SELECT quota_manager.schedule_jobs(role => 'boss')},
	qr/role "boss" has no right on schema cron of pg_cron.*HINT:  GRANT USAGE ON SCHEMA cron TO boss/s, 'no right on schema cron');
refused('postgres', "SET ROLE boss; $unschedule", qr/no right on schema cron/, 'no right to unschedule');
refused('postgres', qq{SET ROLE "Odd ""role"""; $schedule}, qr/permission denied for/, 'nobody else may call it');
$node->safe_psql('postgres', 'GRANT USAGE ON SCHEMA cron TO boss');
is($node->safe_psql('postgres', q{SET ROLE boss; SELECT count(*) FROM quota_manager.schedule_jobs(role => 'boss')}), 2, 'as himself');
is($node->safe_psql('postgres', $jobs), <<'OUT' =~ s/\n\z//r, 'beside those of another role, which he does not see');
quota_manager deliver postgres|postgres|boss
quota_manager deliver postgres|postgres|quota_worker
quota_manager tick postgres|postgres|boss
quota_manager tick postgres|postgres|quota_worker
OUT
is($node->safe_psql('postgres', "SET ROLE boss; $unschedule"), 2, 'and removes his own');
$node->safe_psql('postgres', q{SET ROLE boss; SELECT quota_manager.schedule_jobs(role => 'boss')});
$node->safe_psql('postgres', $schedule);
is($node->safe_psql('postgres', $jobs), <<'OUT' =~ s/\n\z//r, 'a superuser has them run as one role only');
quota_manager deliver postgres|postgres|quota_worker
quota_manager tick postgres|postgres|quota_worker
OUT
$node->safe_psql('postgres', q{
	SELECT quota_manager.grant_access('"Odd ""role"""', 'worker');
	SELECT quota_manager.schedule_jobs(role => '"Odd ""role"""')});
is($node->safe_psql('postgres', 'SELECT DISTINCT username FROM cron.job'), 'Odd "role"', 'another role, in its stead');

# Another database: from the one of pg_cron, by this extension or without it.
my $odd = q{it's "odd"; \ --};
my $long = 'x' x 62 . 'y';
my $quoted = $odd =~ s/"/""/gr;
$node->safe_psql('postgres', qq{CREATE DATABASE "$quoted"});
$node->safe_psql('postgres', "CREATE DATABASE $long");
QuotaTest::Workers::database($node, $odd, $gateway);
refused('postgres', q{SET ROLE boss; SELECT quota_manager.schedule_jobs('template1', 'boss')},
	qr/may not schedule jobs in another database.*HINT:  GRANT EXECUTE ON FUNCTION cron.schedule_in_database TO boss/s, 'in another database');
my $hint = refused($odd, $schedule, qr/pg_cron is not in database "\Q$odd\E" but in "postgres".*HINT:  In database "postgres" run: (.*;)\n/s, 'from another database');
$node->safe_psql('postgres', $hint);
my $in_odd = "$odd|quota_worker";
is($node->safe_psql('postgres', qq{SELECT command, database, username FROM cron.job WHERE database <> 'postgres' ORDER BY 1}),
	"CALL quota_manager.deliver()|$in_odd\nCALL quota_manager.tick()|$in_odd", 'what the hint says schedules them');
my $name = $odd =~ s/'/''/gr;
my $ids = $node->safe_psql('postgres', 'SELECT jobid FROM cron.job ORDER BY 1');
is($node->safe_psql('postgres', "SELECT count(*) FROM quota_manager.schedule_jobs('$name')"), 2, 'and so does schedule_jobs()');
is($node->safe_psql('postgres', 'SELECT jobid FROM cron.job ORDER BY 1'), $ids, 'the same ones');
$node->safe_psql('postgres', "SELECT quota_manager.schedule_jobs('$long')");
is($node->safe_psql('postgres', "SELECT count(*), count(DISTINCT jobname), max(octet_length(jobname::text)) <= 63 FROM cron.job"), '6|6|t', 'a long name is not cut');
$hint = refused($odd, $unschedule, qr/HINT:  In database "postgres" run: (.*;)\n/s, 'to unschedule from another database');
is($node->safe_psql('postgres', $hint), "t\nt", 'what the hint says unschedules them');
$node->safe_psql('postgres', "SELECT quota_manager.schedule_jobs('$name')");
$node->safe_psql('postgres', "DROP DATABASE $long");
is($node->safe_psql('postgres', "SELECT quota_manager.unschedule_jobs('$long')"), 2, 'of a database that is gone');
is($node->safe_psql('postgres', "SELECT quota_manager.unschedule_jobs('$name')"), 2, 'of one that is there');
is($node->safe_psql('postgres', 'SELECT DISTINCT database FROM cron.job'), 'postgres', 'and of no other');

# A dump of pg_cron's database has its jobs. Where it is restored they run, and find that they are in a copy.
$node->safe_psql('postgres', q{UPDATE quota_manager.quota_installation SET system_identifier = 1, database_oid = 1, timeline = 1;
	INSERT INTO quota_manager.quota_installation (system_identifier, database_oid, timeline) VALUES (1, 1, 1) ON CONFLICT DO NOTHING});
my $jobs_before = $node->safe_psql('postgres', $jobs);
my $dump = $node->basedir . '/dump.sql';
command_ok([ 'pg_dump', '--no-acl', '--file', $dump, $node->connstr('postgres') ], 'dumped');
my $other = QuotaTest::Workers::cluster('restored', settings => "shared_preload_libraries = 'pg_cron'\ncron.use_background_workers = on");
command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-f', $dump, $other->connstr('postgres') ], 'restored');
is($other->safe_psql('postgres', $jobs), $jobs_before, 'the jobs are there');
(undef, undef, my $copied) = $other->psql('postgres', 'CALL quota_manager.tick()');
like($copied, qr/this database is a copy/, 'and what they call stands still');
$other->safe_psql('postgres', q{SELECT quota_manager.grant_access('quota_worker', 'worker'); SELECT quota_manager.schedule_jobs()});
is($other->safe_psql('postgres', 'SELECT count(*), count(DISTINCT nodeport), min(nodeport) FROM cron.job'), '2|1|' . $other->port, 'scheduling them again brings them to this server');
$other->stop;

# The extension does not depend on pg_cron, nor the other way round; jobs outlive it.
$node->safe_psql('postgres', 'DROP EXTENSION quota_manager');
is($node->safe_psql('postgres', 'SELECT count(*) FROM cron.job'), 2, 'without the extension the jobs are still there');
$node->safe_psql('postgres', 'CREATE EXTENSION quota_manager');
is($node->safe_psql('postgres', $unschedule), 2, 'and can be removed');
$node->safe_psql('postgres', 'DROP EXTENSION pg_cron');

$node->stop;
done_testing();

# Calls what is to be refused with an error that matches; returns what the pattern captures.
sub refused
{
	my ($database, $call, $pattern, $what) = @_;
	my (undef, undef, $error) = $node->psql($database, $call);

	like("$error\n", $pattern, "refused: $what");
	return "$error\n" =~ $pattern ? $1 : undef;
}

# Checks what schedule_jobs() warns of; undef: nothing.
sub warns
{
	my ($pattern, $name) = @_;
	my ($code, $out, $err) = $node->psql('postgres', $schedule);

	is($code, 0, "$name: jobs are scheduled");
	defined $pattern ? like($err, $pattern, "$name: warned of") : is($err, '', "$name: no warning");
	return;
}
