# Strategies are run and grants delivered by the real pg_cron alone, with jobs that schedule_jobs() made.

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
my $cron = QuotaTest::PgCron->start('pg_cron',
	clock => '2026-12-31 23:58:10',
	libraries => ['quota_manager'],
	settings => "quota_manager.workers = off\nquota_manager.scan_interval = 1s\nmax_worker_processes = 20");
my $node = $cron->node;
my $jobs = q{SELECT jobname, schedule, command, database, username, active FROM cron.job ORDER BY jobname};

QuotaTest::Workers::database($node, 'postgres', $gateway);
QuotaTest::Workers::users($node, 'postgres', 3);

# Scheduling.
is($node->safe_psql('postgres', 'SELECT job_name FROM quota_manager.schedule_jobs()'),
	"quota_manager tick postgres\nquota_manager deliver postgres", 'schedule_jobs() names its jobs');
my $two = <<'OUT' =~ s/\n\z//r;
quota_manager deliver postgres|* * * * *|CALL quota_manager.deliver()|postgres|quota_worker|t
quota_manager tick postgres|* * * * *|CALL quota_manager.tick()|postgres|quota_worker|t
OUT
is($node->safe_psql('postgres', $jobs), $two, 'they run each minute, as the role of the workers');
my $ids = $node->safe_psql('postgres', 'SELECT jobid FROM cron.job ORDER BY jobid');
$node->safe_psql('postgres', 'SELECT quota_manager.schedule_jobs()');
is($node->safe_psql('postgres', 'SELECT jobid FROM cron.job ORDER BY jobid'), $ids, 'scheduling again changes nothing');
$node->safe_psql('postgres', q{
	UPDATE cron.job SET active = false WHERE jobname ~ 'tick';
	UPDATE cron.job SET command = 'SELECT 1', schedule = '0 0 1 1 *', username = 'postgres' WHERE jobname ~ 'deliver';
	SELECT quota_manager.schedule_jobs(role => 'quota_worker')});
is($node->safe_psql('postgres', $jobs), $two, 'and mends what was changed');

# A job of somebody else, by which is seen that a minute has passed.
$node->safe_psql('postgres', q{SELECT cron.schedule('quota_manager of somebody', '* * * * *', 'SELECT 1')});

# Across the end of the year: single, periodic, and what is granted comes to the gateway at the next minute.
QuotaTest::Workers::strategy($node, 'postgres', name => 'once', amount => 1000);
QuotaTest::Workers::strategy($node, 'postgres', name => 'minutely', amount => 1, type => 'periodic', periodic_expr => '* * * * *', catch_up => 'all');
QuotaTest::Workers::strategy($node, 'postgres', name => 'new-year', amount => 50, type => 'periodic', periodic_expr => '@yearly');
$cron->next_minute foreach 1 .. 4;
is($node->safe_psql('postgres', q{SELECT DISTINCT status || ' ' || return_message FROM cron.job_run_details WHERE command ~ 'CALL' AND status <> 'succeeded'}),
	'', 'no run of a job failed');
my $runs = q{
	SELECT s.name, r.scheduled_time::timestamp, r.state, r.granted FROM quota_manager.quota_run r
	JOIN quota_manager.quota_strategy s ON s.id = r.strategy_id WHERE r.granted > 0 OR r.scheduled_time IS NOT NULL ORDER BY s.name, r.scheduled_time, r.id};
is($node->safe_psql('postgres', $runs), <<'OUT' =~ s/\n\z//r, 'each firing is run once, and each strategy');
minutely|2026-12-31 23:59:00|done|3
minutely|2027-01-01 00:00:00|done|3
minutely|2027-01-01 00:01:00|done|3
minutely|2027-01-01 00:02:00|done|3
new-year|2027-01-01 00:00:00|done|3
once||done|3
OUT
like(paid(), qr/^(user\d: (1 ){3,4}50 1000(, )?){3}$/, 'and what it granted is delivered');

# The clock is set back by an hour: pg_cron waits until it has caught up, and whoever else ticks does nothing twice.
my $before = $node->safe_psql('postgres', $runs);
$cron->clock->advance(-3600);
$node->safe_psql('postgres', 'CALL quota_manager.tick()');
is($node->safe_psql('postgres', $runs), $before, 'a clock that was set back runs no firing again');
$node->safe_psql('postgres', 'CALL quota_manager.deliver()');
is(paid(), join(', ', map { "user$_: 1 1 1 1 50 1000" } 1 .. 3), 'and delivers what is pending once');
$cron->clock->advance(3600);
$cron->next_minute;
is($node->safe_psql('postgres', $runs), $before =~ s/(?=new-year)/minutely|2027-01-01 00:03:00|done|3\n/r, 'it goes on where it stood');

# Workers and jobs at the same time, at the same firings.
$node->safe_psql('postgres', q{INSERT INTO quota_manager.user_info (id, vip) SELECT 'more' || n, 2 FROM generate_series(1, 300) n});
QuotaTest::Workers::strategy($node, 'postgres', name => "both$_", amount => 7, type => 'periodic', periodic_expr => '* * * * *',
	condition => 'is-vip(2)', catch_up => 'all') foreach 1 .. 3;
QuotaTest::Workers::set($node, 'quota_manager.workers', 'on');
QuotaTest::Workers::await_worker($node, 'postgres', $_) foreach qw(scheduler courier);
foreach (1 .. 3)
{
	$cron->next_minute;
	# an answer that is awaited while the clock jumps would come too late
	QuotaTest::Workers::await($node, 'postgres', q{SELECT count(*) = 0 FROM quota_manager.quota_execute WHERE status <> 'completed'});
}
is($node->safe_psql('postgres', q{
		SELECT count(*), count(DISTINCT (r.strategy_id, r.scheduled_time)), sum(r.granted) FROM quota_manager.quota_run r
		JOIN quota_manager.quota_strategy s ON s.id = r.strategy_id WHERE s.name ~ 'both'}), '9|9|2700', 'workers and jobs together: each firing is run once');

# The same when the clock is set back: the workers look, and find nothing to be run again.
$before = $node->safe_psql('postgres', $runs);
$cron->clock->advance(-3600);
QuotaTest::Workers::strategy($node, 'postgres', name => 'set-back', amount => 3);
QuotaTest::Workers::await_grants($node, 'postgres', 'set-back', 303);
is($node->safe_psql('postgres', $runs), "$before\nset-back||done|303", 'a clock that is set back under the workers runs no firing again');
$cron->clock->advance(3600);
$cron->next_minute;
QuotaTest::Workers::await($node, 'postgres', q{SELECT count(*) = 0 FROM quota_manager.quota_execute WHERE status <> 'completed'});
is($node->safe_psql('postgres', q{
		SELECT count(*), count(DISTINCT (r.strategy_id, r.scheduled_time)), sum(r.granted) FROM quota_manager.quota_run r
		JOIN quota_manager.quota_strategy s ON s.id = r.strategy_id WHERE s.name ~ 'both'}), '12|12|3600', 'and they go on where they stood');

my %times;
$times{ $_->{idempotency_key} }++ foreach $gateway->applied;
is(scalar(grep { $_ > 1 } values %times), 0, 'nothing is delivered twice');
is(scalar(keys %times), $node->safe_psql('postgres', q{SELECT count(*) FROM quota_manager.quota_execute WHERE status = 'completed'}), 'nor left out');

# Removing them, and nothing else; with that it stops.
QuotaTest::Workers::set($node, 'quota_manager.workers', 'off');
QuotaTest::Workers::await($node, 'postgres', q{SELECT count(pid) = 0 FROM quota_manager.worker_status WHERE kind <> 'launcher'});
is($node->safe_psql('postgres', 'SELECT quota_manager.unschedule_jobs()'), '2', 'unschedule_jobs() counts what it removes');
is($node->safe_psql('postgres', 'SELECT jobname FROM cron.job'), 'quota_manager of somebody', 'it leaves what is not ours');
$before = $node->safe_psql('postgres', $runs);
$cron->next_minute foreach 1 .. 2;
is($node->safe_psql('postgres', $runs), $before, 'nothing is run any more');
my ($result, $output, $error) = $node->psql('postgres', 'SELECT quota_manager.unschedule_jobs()');
is("$output $error", "0 psql:<stdin>:1: NOTICE:  there are no jobs of quota_manager for database \"postgres\" that role \"@{[ $node->safe_psql('postgres', 'SELECT current_user') ]}\" can see",
	'there is nothing left to remove');

$node->stop;
done_testing();

# What each user was paid at the gateway.
sub paid
{
	my %paid;

	push @{ $paid{ $_->{user} } }, $_->{amount} foreach $gateway->applied;
	return join ', ', map { "$_: " . join(' ', sort { $a <=> $b } @{ $paid{$_} }) } sort keys %paid;
}
