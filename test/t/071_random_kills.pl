# Postmaster, workers and gateways die by kill -9 at random moments, while strategies grant and gateways misbehave.
# Six gateways are at work at once: each dialect under each policy for lost answers. After every recovery what they
# applied is compared with the grants.
#
# QUOTA_MANAGER_KILLS says how often (18; 300 in long runs); QUOTA_MANAGER_SEED repeats a choice of victims, faults
# and moments, as far as these alone decide.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use List::Util qw(shuffle);
use PostgreSQL::Test::Utils;
use QuotaTest::Audit;
use QuotaTest::Delivery qw(add_gateway);
use QuotaTest::Mock;
use QuotaTest::Seed;
use QuotaTest::Wait qw(wait_until becomes_true);
use QuotaTest::Workers;
use Test::More;
use Time::HiRes qw(time usleep);

my $kills = $ENV{QUOTA_MANAGER_KILLS} // ($ENV{QUOTA_MANAGER_LONG} ? 300 : 18);
QuotaTest::Seed::start(71);
my $users = 40;

# As often as they stand here.
my @victims = (('courier') x 4, ('gateway') x 3, ('scheduler') x 2, ('postmaster') x 2, 'launcher');

# What a gateway does instead of answering as it should. Nothing of it may have a grant fail.
my @faults = (
	{ kind => 'close' },
	{ kind => 'apply_close' },
	{ kind => 'reset' },
	{ kind => 'apply_reset' },
	{ kind => 'status' },
	{ kind => 'apply_status', status => 500 },
	{ kind => 'apply_html' },
	{ kind => 'apply_cut_off' },
	{ kind => 'half_header' },
	{ kind => 'hang' },
	{ kind => 'apply_hang' },
	{ kind => 'apply_late', delay_ms => 200 },
	{ kind => 'status', status => 429 },
	{ kind => 'close', match => 'query' },);


my $node = QuotaTest::Workers::cluster('random_kills', preload => 1, settings => <<'CONF');
restart_after_crash = on
max_parallel_workers_per_gather = 2
quota_manager.claim_batch = 16
quota_manager.retry_base = 10ms
quota_manager.retry_max = 100ms
quota_manager.max_attempts = 1000000
quota_manager.linger = 1s
CONF

# A gateway for each dialect and policy, by name. With resend it applies a key once; with reconcile nobody else writes
# there, and nobody uses what is there.
my %mock;

$node->safe_psql('postgres', <<'SQL');
CREATE EXTENSION quota_manager;
SELECT quota_manager.grant_access('quota_worker', 'worker');
SQL
foreach my $dialect ('higress', 'zgsm')
{
	foreach my $policy ('hold', 'resend', 'reconcile')
	{
		my $gateway = "$dialect-$policy";
		my $mock = $mock{$gateway} = QuotaTest::Mock->start(
			dialect => $dialect,
			key => 'key',
			lifetime => 7200,
			journal => $node->basedir . "/$gateway.journal");
		my %column = (doubt_policy => $policy, request_timeout => '500 ms', max_connections => 8);

		$mock->honour_idempotency(1) if $policy eq 'resend';
		@column{ 'sole_writer', 'max_usage_rate' } = ('true', 0) if $policy eq 'reconcile';
		add_gateway($node, $gateway, $mock, %column);
		$node->safe_psql('postgres', "INSERT INTO quota_manager.quota_model VALUES ('$gateway', '$gateway')");
	}
}
QuotaTest::Workers::users($node, 'postgres', $users);

my $audit = QuotaTest::Audit->new($node, %mock);
my @gateways = sort keys %mock;

# Has a gateway misbehave now and then in two ways, and be slow otherwise.
sub disturb
{
	my ($mock) = @_;

	$mock->clear_faults;
	foreach (1 .. 2)
	{
		$mock->fault(match => 'grant', count => 0, probability => 0.05, seed => 1 + int(rand 1_000_000_000),
			%{ $faults[ rand @faults ] });
	}
	$mock->fault(kind => 'slow', match => 'grant', count => 0, delay_ms => 1 + int(rand 10));
	return;
}

# Grants to everybody at every gateway once more. Strategies that have granted to everybody are out of the way.
sub grant_once_more
{
	my ($number) = @_;

	$node->safe_psql('postgres', qq{
		UPDATE quota_manager.quota_strategy s SET state = 'archived'
			WHERE s.state = 'active' AND $users = (SELECT count(*) FROM quota_manager.quota_execute e WHERE e.strategy_id = s.id);
		INSERT INTO quota_manager.quota_strategy (name, type, amount, model, condition)
			SELECT $number || ' ' || m.model, 'single', $number % 7 + 1, m.model, 'true()' FROM quota_manager.quota_model m});
	return;
}

# The pids of postmaster and workers, once all of them run.
sub pids
{
	my ($courier_before) = @_;
	my %pid;

	wait_until($node, qq{
		SELECT count(DISTINCT backend_type) = 3 AND bool_and(pid <> $courier_before) FROM pg_stat_activity
		WHERE backend_type LIKE 'quota_manager %'});
	%pid = map { split /\|/ } split /\n/, $node->safe_psql('postgres', q{
		SELECT substr(backend_type, 15), pid FROM pg_stat_activity WHERE backend_type LIKE 'quota_manager %'});
	$pid{postmaster} = (split /\n/, slurp_file($node->data_dir . '/postmaster.pid'))[0];
	return %pid;
}

my %killed = map { $_ => 0 } @victims;
my ($longest, $orphaned) = (0, 0);
my %pid = pids(0);
# each of them once, and then whoever it is
my @order = shuffle(sort keys %killed);
foreach my $number (1 .. $kills)
{
	my $victim = shift(@order) // $victims[ rand @victims ];
	my $gateway = $gateways[ rand @gateways ];
	my $moment = int(rand 300_000);
	my $died;

	disturb($_) foreach map { $mock{$_} } @gateways;
	grant_once_more($number);
	# this is no wait for something, but the moment that chance has chosen
	usleep($moment);

	$died = time;
	if ($victim eq 'gateway')
	{
		$mock{$gateway}->kill9;
		usleep(int(rand 300_000));
		$mock{$gateway}->start_again;
		%pid = pids(0);
	}
	elsif ($victim eq 'postmaster')
	{
		my $took = QuotaTest::Workers::kill_postmaster($node);

		$orphaned = $took if $took > $orphaned;
		%pid = pids($pid{courier});
	}
	else
	{
		kill('KILL', $pid{$victim}) == 1 or die "there is no $victim";
		%pid = pids($pid{courier});
	}
	$killed{$victim}++;
	$longest = time - $died if time - $died > $longest;
	is_deeply([ $audit->problems ], [], sprintf 'kill %d, %s after %d ms: completed is applied once, applied is in a state that says so',
		$number, $victim eq 'gateway' ? $gateway : $victim, $moment / 1000);
}

subtest 'when all is well again, everything comes to an end' => sub {
	$_->clear_faults foreach values %mock;
	my $all = $kills * $users * @gateways;
	ok( becomes_true($node, qq{
			SELECT count(*) = $all AND NOT EXISTS (SELECT FROM quota_manager.quota_run r WHERE r.undelivered)
			FROM quota_manager.quota_execute e
			WHERE e.status NOT IN ('pending', 'processing') AND NOT (e.status = 'in_doubt' AND e.next_attempt_time < 'infinity')}),
		'everything comes to an end');
	is_deeply([ $audit->all_problems ], [], 'in the end: completed is applied once, applied is completed or in doubt');
	is_deeply([ $audit->open ], [], 'in the end: nothing is pending, processing or failed');
	is( $node->safe_psql('postgres', q{
			SELECT count(*) FROM quota_manager.quota_strategy s CROSS JOIN quota_manager.user_info u
			WHERE (SELECT count(*) FROM quota_manager.quota_execute e
				WHERE e.strategy_id = s.id AND e.user_id = u.id AND e.model = s.model AND e.amount = s.amount) <> 1}),
		0, 'everybody has one grant of every strategy');

	note "$kills kills: " . join ', ', map { "$_ $killed{$_}" } sort keys %killed;
	note sprintf 'back after %.1f s at most; no process outlived its postmaster for longer than %.1f s', $longest, $orphaned;
	foreach my $gateway (@gateways)
	{
		my %figure = $audit->figures($gateway);

		note "$gateway: " . join ', ', map { "$figure{$_} $_" } 'grants', 'completed', 'in_doubt', 'applied';
		next if $gateway =~ /hold/;
		is($figure{in_doubt}, 0, "$gateway: nothing is left in doubt")
		  or diag $node->safe_psql('postgres', qq{
			SELECT * FROM quota_manager.quota_execute WHERE gateway = '$gateway' AND status = 'in_doubt'});
	}
};

$node->stop;
done_testing();
