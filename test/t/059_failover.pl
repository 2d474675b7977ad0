# Primaries are killed at several moments; the standby takes over within five seconds, and every firing is accounted
# for once.  Each primary but the first is a standby that was promoted, so there is a way back too.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use QuotaTest::Wait qw(wait_until wait_for);
use QuotaTest::Workers;
use Test::More;
use Time::HiRes qw(time);

my $gateway = QuotaTest::Workers::gateway();
my $day = '2025-07-01';
my $users = 100;
my $servers = 0;
my @seconds;

# Every firing since the strategies were made, how often it is accounted for, and how.
my $accounts = q{
	SELECT s.name, s.catch_up, f.at, count(r.id) AS times, string_agg(concat_ws(' ', r.state, r.reason), ', ') AS how
	FROM quota_manager.quota_strategy s
	CROSS JOIN quota_manager.firings(s.periodic_expr, s.schedule_since, quota_manager.schedule_now(), s.time_zone) f (at)
	LEFT JOIN quota_manager.quota_run r ON r.strategy_id = s.id AND f.at BETWEEN r.scheduled_time AND coalesce(r.last_scheduled_time, r.scheduled_time)
	WHERE s.type = 'periodic' GROUP BY s.id, f.at};
# Those that were accounted for twice, or, of a strategy that runs all, not.
my $amiss = "SELECT * FROM ($accounts) a WHERE times > 1 OR times = 0";

my $primary = QuotaTest::Workers::cluster('server0', preload => 1, streaming => 1,
	settings => "timezone = 'UTC'\nquota_manager.schedule_clock = '$day 07:55:00+00'");
QuotaTest::Workers::database($primary, 'postgres', $gateway);
QuotaTest::Workers::users($primary, 'postgres', $users);
QuotaTest::Workers::strategy($primary, 'postgres', name => 'all', amount => 1, type => 'periodic', periodic_expr => '*/10 * * * *', catch_up => 'all');
QuotaTest::Workers::strategy($primary, 'postgres', name => 'latest', amount => 100, type => 'periodic', periodic_expr => '*/10 * * * *');
QuotaTest::Workers::strategy($primary, 'postgres', name => 'once', amount => 10000);
clock($primary, '08:00:30');
QuotaTest::Workers::await_grants($primary, 'postgres', $_, $users) foreach qw(all latest once);

my $standby;
subtest 'asynchronous replication, hold' => sub {
	$standby = standby();
	is($standby->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'quota_manager%'}), '0', 'nothing runs on a standby');
	$primary->wait_for_catchup($standby);
	clock($standby, '08:30:30');
	QuotaTest::Workers::end_postmaster($primary);
	take_over('hold, firings were missed', run_is('all', '08:30') . ' AND ' . run_is('latest', '08:30'));
	is(history('08:00', '08:30'), <<'OUT', 'they are made up, in doubt');
all 08:00:00 done
all 08:10:00 done granted in doubt
all 08:20:00 done granted in doubt
all 08:30:00 done granted in doubt
latest 08:00:00 done
latest 08:30:00 done granted in doubt
OUT

	$standby = standby();
	$primary->wait_for_catchup($standby);
	$standby->stop;
	clock($primary, '08:40:30');
	QuotaTest::Workers::await_grants($primary, 'postgres', $_, 2 * $users) foreach qw(all latest);
	QuotaTest::Workers::end_postmaster($primary);
	$standby->append_conf('postgresql.conf', "quota_manager.schedule_clock = '$day 08:40:30+00'");
	$standby->start;
	take_over('hold, a firing was run that the standby did not hear of', run_is('all', '08:40') . ' AND ' . run_is('latest', '08:40'));
	is(history('08:40', '08:40'), "all 08:40:00 done granted in doubt\nlatest 08:40:00 done granted in doubt\n", 'it is run once more, in doubt');
	is(paid(), join(' ', '1 x 2', '100 x 2', '10000 x 1'), 'nobody was paid twice');

	$standby = standby();
	clock($primary, '08:50:30');
	QuotaTest::Workers::await_grants($primary, 'postgres', $_, 2 * $users) foreach qw(all latest);
	$primary->wait_for_catchup($standby);
	QuotaTest::Workers::end_postmaster($primary);
	clock($standby, '08:50:31');
	take_over('hold, all was run, until the next is delivered',
		run_is('all', '09:00') . ' AND ' . run_is('latest', '09:00') . ' AND ' . delivered(2 * $users), sub { await_promotion($standby); clock($standby, '09:00:30') });
	is(history('08:50', '09:00'), "all 08:50:00 done\nall 09:00:00 done\nlatest 08:50:00 done\nlatest 09:00:00 done\n", 'and nothing again');
	is(paid(), join(' ', '1 x 4', '100 x 4', '10000 x 1'), 'nobody was paid twice');
};

# What is in doubt is decided: nothing of it had been paid, but what the standby did not hear of.
$primary->safe_psql('postgres', q{
	SELECT quota_manager.resolve(array_agg(id), scheduled_time = '2025-07-01 08:40:00+00') FROM quota_manager.quota_execute
	WHERE status = 'in_doubt' GROUP BY scheduled_time = '2025-07-01 08:40:00+00'});
QuotaTest::Workers::await($primary, 'postgres', settled());
is(paid(), join(' ', '1 x 7', '100 x 5', '10000 x 1'), 'what was in doubt and not paid is paid');

subtest 'synchronous replication, continue' => sub {
	$primary->append_conf('postgresql.conf', "quota_manager.after_promotion = 'continue'");
	$standby = standby('synchronous');
	clock($standby, '09:30:30');
	QuotaTest::Workers::end_postmaster($primary);
	take_over('continue, firings were missed, until they are delivered', settled() . ' AND ' . run_is('all', '09:30') . ' AND ' . run_is('latest', '09:30'));
	is(history('09:10', '09:30'), "all 09:10:00 done\nall 09:20:00 done\nall 09:30:00 done\nlatest 09:30:00 done\n", 'they are made up');
	is(paid(), join(' ', '1 x 10', '100 x 6', '10000 x 1'), 'and paid once');
};

my $in_doubt;
subtest 'killed while firings are run and delivered: just when they are due, and in the middle; in a long run anywhere' => sub {
	my $minute = 40;
	my ($all, $latest) = (10, 6);
	$in_doubt = 0;
	my @moments = (0, $users);
	push @moments, 1, 2 * $users - 1, map { int(rand(2 * $users)) } 1 .. 12 if $ENV{QUOTA_MANAGER_LONG};
	foreach my $moment (@moments)
	{
		my $time = sprintf '%02d:%02d', 9 + int($minute / 60), $minute % 60;
		my $before = $gateway->applied;

		$standby = standby('synchronous');
		clock($standby, "$time:30");
		$gateway->fault('slow', match => 'grant', delay_ms => 50);
		clock($primary, "$time:30");
		wait_for("$moment deliveries", sub { ($_ = $gateway->applied - $before) >= $moment });
		QuotaTest::Workers::end_postmaster($primary);
		$gateway->mend;
		take_over("continue, killed after $moment of @{[ 2 * $users ]} deliveries", open_is(0) . ' AND ' . run_is('all', $time) . ' AND ' . run_is('latest', $time));
		$in_doubt += decide_by_gateway($before);
		QuotaTest::Workers::await($primary, 'postgres', settled());
		is(paid(), join(' ', '1 x ' . ++$all, '100 x ' . ++$latest, '10000 x 1'), 'each is paid once');
		is(history($time, $time), "all $time:00 done\nlatest $time:00 done\n", 'each is run once');
		$minute += 10;
	}
	cmp_ok($in_doubt, '>', 0, "$in_doubt requests were in flight when their servers were killed");
	my %times;
	$times{ $_->{idempotency_key} }++ foreach $gateway->applied;
	is(scalar(grep { $_ > 1 } values %times), 0, 'no request was sent twice');
	note(sprintf 'seconds from promotion until it is done: %s', join ', ', map { sprintf '%.2f', $_ } @seconds);
};

$primary->stop;
done_testing();

# A running standby of the primary.  synchronous: the primary waits for it from now on; it will wait for nobody.
sub standby
{
	my ($synchronous) = @_;
	my $node = PostgreSQL::Test::Cluster->new('server' . ++$servers);

	$primary->backup("backup$servers");
	$node->init_from_backup($primary, "backup$servers", has_streaming => 1);
	$node->start;
	if ($synchronous)
	{
		$primary->append_conf('postgresql.conf', "synchronous_standby_names = '*'");
		$primary->reload;
		wait_until($primary, q{SELECT count(*) = 1 FROM pg_stat_replication WHERE sync_state = 'sync'});
	}
	return $node;
}

# Pins the clock of a server.
sub clock
{
	my ($node, $time) = @_;

	$node->append_conf('postgresql.conf', "quota_manager.schedule_clock = '$day $time+00'");
	$node->reload;
	return;
}

# Promotes the standby, which is the primary from then on, does what else is to be done, and checks that the condition
# holds within five seconds of the beginning, no firing being lost or run twice.
sub take_over
{
	my ($what, $condition, $then) = @_;
	my $since = time;
	my $took;

	$standby->promote;
	$then->() if $then;
	wait_until($standby, "SELECT coalesce(($condition), false)");
	$took = time - $since;
	push @seconds, $took;
	cmp_ok($took, '<', 5, sprintf '%s: %.2f s', $what, $took);
	is($standby->safe_psql('postgres', $amiss), '', 'no firing is lost, and none accounted for twice');
	$primary = $standby;
	return;
}

# Waits until it was noticed that a server was promoted: what falls due before that may have run elsewhere.
sub await_promotion
{
	my ($node) = @_;

	QuotaTest::Workers::await($node, 'postgres',
		'SELECT i.timeline = p.timeline FROM quota_manager.quota_installation i, quota_internal.present_identity() p');
	return;
}

# What became of the firings from one time to another, skipped ones apart.
sub history
{
	my ($from, $to) = @_;

	return $primary->safe_psql('postgres', qq{
		SELECT concat_ws(' ', name, at::time, how) FROM ($accounts) a
		WHERE at BETWEEN '$day $from' AND '$day $to' AND how <> '' AND how NOT LIKE 'skipped%' ORDER BY name, at}) . "\n";
}

# That a firing was run.
sub run_is
{
	my ($strategy, $time) = @_;

	return "(SELECT count(*) = 1 FROM ($accounts) a WHERE name = '$strategy' AND at = '$day $time' AND how ~ '^done')";
}

# That so many of the last firing's grants are delivered.
sub delivered
{
	my ($count) = @_;

	return "(SELECT count(*) = $count FROM quota_manager.quota_execute e WHERE e.status = 'completed'
		AND e.scheduled_time = (SELECT max(l.scheduled_time) FROM quota_manager.quota_execute l))";
}

# That so many grants are pending or being sent.
sub open_is
{
	my ($count) = @_;

	return "(SELECT count(*) = $count FROM quota_manager.quota_execute e WHERE e.status IN ('pending', 'processing'))";
}

# That all grants are delivered.
sub settled
{
	return q{(SELECT bool_and(e.status = 'completed') FROM quota_manager.quota_execute e)};
}

# Decides what is in doubt as the gateway knows it, which must agree with what is said to be completed; returns how
# many grants there were.
sub decide_by_gateway
{
	my ($before) = @_;
	my @applied = $gateway->applied;
	my $ids = join ',', 0, map { $_->{idempotency_key} =~ /-(\d+)$/ } @applied[ $before .. $#applied ];

	my $in_doubt = $primary->safe_psql('postgres', q{SELECT count(*) FROM quota_manager.quota_execute WHERE status = 'in_doubt'});

	is($primary->safe_psql('postgres', qq{
			SELECT count(*) FROM quota_manager.quota_execute
			WHERE id > (SELECT max(id) - 2 * $users FROM quota_manager.quota_execute) AND status = 'completed' AND id <> ALL (ARRAY[$ids])}),
		0, 'what is said to be completed was applied');
	$primary->safe_psql('postgres', qq{
		SELECT quota_manager.resolve(array_agg(id), id = ANY (ARRAY[$ids])) FROM quota_manager.quota_execute
		WHERE status = 'in_doubt' GROUP BY id = ANY (ARRAY[$ids])});
	return $in_doubt;
}

# How often each amount was paid, which is to be the same for all users.
sub paid
{
	my %paid;
	my %seen;

	$paid{ $_->{user} }{ $_->{amount} }++ foreach $gateway->applied;
	foreach my $user (keys %paid)
	{
		my $amounts = $paid{$user};

		$seen{ join ' ', map { "$_ x $amounts->{$_}" } sort { $a <=> $b } keys %$amounts }++;
	}
	return join ', or ', sort keys %seen;
}
