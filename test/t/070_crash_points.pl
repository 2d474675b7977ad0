# Scheduler and courier die by kill -9 at every named place, once per dialect, while a strategy grants to
# hundreds of users. After each recovery the gateway's list of changes is compared with the grants.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Utils;
use QuotaTest::Audit;
use QuotaTest::CrashPoints qw(crash_cluster crash_points arm await_hit release);
use QuotaTest::Delivery qw(add_gateway statuses);
use QuotaTest::Mock;
use QuotaTest::Wait qw(becomes_true wait_for);
use QuotaTest::Workers;
use Test::More;
use Time::HiRes qw(time);

my $users = 200;
my $batch = 32;
my @dialects = ('higress', 'zgsm');
my @policies = ('hold', 'resend', 'reconcile');

# How many grants may be in doubt afterwards where an operator decides: those whose claim was committed, and whose
# settlement was not. A courier claims while less than a batch is unsent, so it holds two batches and what is in
# flight at most.
my $none = [ 0, 0 ];
my $any = [ 0, 2 * $batch + 16 ];
my $some = [ 1, 2 * $batch + 16 ];

# What leads to a place: nothing but a strategy that is written, unless more is said here. Where a policy is named the
# place is met with no other.
my $asks = 'quota-le("MODEL", 1000000000)';
my %scenario = (
	balance_read => { doubt => $none, skip => 50, condition => $asks },
	balances_writing => { doubt => $none, condition => $asks },
	balances_written => { doubt => $none, skip => 1, condition => $asks },
	scan_starting => { doubt => $none },
	scan_admitting => { doubt => $none, skip => 100 },
	scan_granted => { doubt => $none },
	scan_committing => { doubt => $none },
	scan_committed => { doubt => $any },
	lock_taken => { doubt => $none },
	orphans_settled => { doubt => $some, gateway => \&hangs, courier => 'KILL' },
	claim_starting => { doubt => $none },
	claim_made => { doubt => $none },
	claim_committed => { doubt => [ $batch, $batch ] },
	grant_resending => { policy => 'resend', skip => 1, gateway => \&loses_answers },
	grant_sent => { doubt => $some, skip => 40 },
	answer_taken => { doubt => $some, skip => 100 },
	before_read => { policy => 'reconcile', skip => 20 },
	before_recording => { policy => 'reconcile', skip => 1 },
	before_recorded => { policy => 'reconcile', skip => 1 },
	evidence_read => { policy => 'reconcile', skip => 1, gateway => \&loses_answers },
	settle_starting => { doubt => $some, skip => 1 },
	settle_made => { doubt => $some, skip => 1 },
	settle_committed => { doubt => $any, skip => 1 },
	run_closing => { doubt => $none },
	state_saved => { doubt => $some, gateway => \&wants_a_pause },
	health_check_sent => { doubt => $none, gateway => \&wants_a_pause },
	health_check_answered => { doubt => $none, gateway => \&wants_a_pause },
	winding_down => { doubt => $some, gateway => \&hangs, courier => 'TERM' },
	wound_down => { doubt => $some, gateway => \&hangs, courier => 'TERM' },);

# Answers some, applies three without a word, and leaves three alone.
sub hangs
{
	my ($mock) = @_;

	$mock->fault(kind => 'slow', match => 'write', count => 50);
	$mock->fault(kind => 'apply_hang', match => 'grant', count => 3);
	$mock->fault(kind => 'hang', match => 'grant', count => 3);
	return 56;
}

# Applies one and leaves one alone, and breaks off either time.
sub loses_answers
{
	my ($mock) = @_;

	$mock->fault(kind => 'apply_close', match => 'grant', count => 1);
	$mock->fault(kind => 'close', match => 'grant', count => 1);
	return 2;
}

# Refuses once, for the moment.
sub wants_a_pause
{
	my ($mock) = @_;

	$mock->fault(kind => 'status', status => 429, match => 'grant', count => 1);
	return 1;
}

my $node = crash_cluster('crash_points', <<"CONF");
quota_manager.claim_batch = $batch
quota_manager.retry_base = 10ms
quota_manager.retry_max = 100ms
quota_manager.linger = 500ms
CONF

# A gateway for each dialect and policy, by name. With resend it applies a key once; with reconcile nobody else writes
# there, and nobody uses what is there.
my %mock;

$node->safe_psql('postgres', <<'SQL');
CREATE EXTENSION quota_manager;
SELECT quota_manager.grant_access('quota_worker', 'worker');
SQL
foreach my $dialect (@dialects)
{
	foreach my $policy (@policies)
	{
		my $gateway = "$dialect-$policy";
		my $mock = $mock{$gateway} = QuotaTest::Mock->start(dialect => $dialect, key => 'key');
		my %column = (doubt_policy => $policy);

		$mock->honour_idempotency(1) if $policy eq 'resend';
		@column{ 'sole_writer', 'max_usage_rate', 'doubt_policy_since' } = ('true', 0, '-infinity')
		  if $policy eq 'reconcile';
		add_gateway($node, $gateway, $mock, %column);
		$node->safe_psql('postgres', "INSERT INTO quota_manager.quota_model VALUES ('$gateway', '$gateway')");
	}
}
QuotaTest::Workers::users($node, 'postgres', $users);

my $audit = QuotaTest::Audit->new($node, %mock);

# Arms a place that only the next strategy meets: the ones before are archived first, since the reload that arms it
# has the scheduler scan again what is active.
sub arm_for_next
{
	my ($point, %option) = @_;

	$node->safe_psql('postgres', q{UPDATE quota_manager.quota_strategy SET state = 'archived' WHERE state = 'active'});
	arm($node, $point, %option);
	return;
}

# Writes a strategy that grants to everybody at a gateway. That there is a cap has every user counted.
sub write_strategy
{
	my ($name, $gateway, $condition) = @_;

	$condition //= 'true()';
	$condition =~ s/MODEL/$gateway/;
	my $written = eval {
		QuotaTest::Workers::strategy($node, 'postgres',
			name => $name,
			model => $gateway,
			condition => $condition,
			max_exec_per_user => 1);
		1;
	};

	return if $written;
	my $error = $@;

	# The crash that its commit causes can cut off whoever waits for the answer: then it is there nevertheless.
	becomes_true($node, "SELECT count(*) = 1 FROM quota_manager.quota_strategy WHERE name = '$name'") or die $error;
	return;
}

# Waits until everybody has the grant of a strategy and the courier has no more to do.
sub await_end
{
	my ($name) = @_;

	becomes_true($node, qq{
		SELECT count(*) = $users AND NOT EXISTS (SELECT FROM quota_manager.quota_run r WHERE r.undelivered)
		FROM quota_manager.quota_execute e JOIN quota_manager.quota_strategy s ON s.id = e.strategy_id
		WHERE s.name = '$name' AND e.status NOT IN ('pending', 'processing')
			AND NOT (e.status = 'in_doubt' AND e.next_attempt_time < 'infinity')})
	  or die "$name does not come to an end:\n" . $node->safe_psql('postgres', q{
		SELECT e.* FROM quota_manager.quota_execute e WHERE e.status <> 'completed' AND e.next_attempt_time < 'infinity'
			ORDER BY e.id LIMIT 10;
		SELECT g.* FROM quota_manager.quota_gateway g; SELECT clock_timestamp()});
	return;
}

# Grants in doubt of a gateway.
sub in_doubt
{
	my ($gateway) = @_;

	return $node->safe_psql('postgres',
		"SELECT count(*) FROM quota_manager.quota_execute WHERE status = 'in_doubt' AND gateway = '$gateway'");
}

# Dies at a place, recovers, and audits.
sub try_point
{
	my ($point, $gateway, $operator_decides) = @_;
	my $scenario = $scenario{$point};
	my ($least, $most) = $operator_decides ? @{ $scenario->{doubt} } : (0, 0);
	my $name = "$gateway, $point";
	my $mock = $mock{$gateway};
	my $doubt = in_doubt($gateway);
	my $met = $mock->stats->{faults};

	arm_for_next($point, skip => $scenario->{skip});
	$met += $scenario->{gateway}->($mock) if $scenario->{gateway};
	write_strategy($name, $gateway, $scenario->{condition});
	if ($scenario->{courier})
	{
		wait_for("$met faults are met", sub { ($_ = $mock->stats->{faults}) >= $met });
		kill $scenario->{courier}, QuotaTest::Workers::worker($node, 'postgres', 'courier');
	}
	ok(await_hit($node, $point, 30), "$name: it was hit");
	$mock->clear_faults;
	await_end($name);

	is_deeply([ $audit->problems ], [],
		"$name: completed is applied once, applied is completed or in doubt");
	is_deeply([ $audit->open ], [], "$name: everything has come to an end");
	$doubt = in_doubt($gateway) - $doubt;
	ok($doubt >= $least && $doubt <= $most, "$name: $doubt in doubt of $least to $most");
	return;
}

my @points = crash_points($node);
# Those of reversals are in 170_reversal_faults.pl, those of bulk calls in 161_bulk_calls.pl.
@points = grep { !/^(?:reversal|bulk)_/ } @points;
is_deeply([ sort keys %scenario ], [ sort @points ], 'there is a scenario for every place');

my ($status, $out, $err) = $node->psql('postgres', "ALTER SYSTEM SET quota_manager.crash_point = 'nowhere'");
like($err, qr/invalid value for parameter "quota_manager.crash_point"/, 'a place that is none is refused');

# Each place once per dialect; in long runs once per policy too.
my $places = 0;
my $start = time;
foreach my $dialect (@dialects)
{
	foreach my $point (@points)
	{
		my $only = $scenario{$point}{policy};
		my @met = $only ? ($only) : $ENV{QUOTA_MANAGER_LONG} ? @policies : ('hold');

		foreach my $policy (@met)
		{
			try_point($point, "$dialect-$policy", $policy eq 'hold');
			$places++;
		}
	}
}
note sprintf '%d times dead in %.1f s', $places, time - $start;

my ($mock, $doubt);
subtest 'it can stand still as well, so that others can read' => sub {
	# A claim is on disk before anything is sent, and while requests are under way nothing is held.
	$mock = $mock{'zgsm-hold'};
	my $applied = $mock->stats->{applied};
	$doubt = in_doubt('zgsm-hold');
	arm_for_next('claim_committed', action => 'stall');
	write_strategy('claimed', 'zgsm-hold');
	ok(await_hit($node, 'claim_committed', 30), 'stalled after a claim');
	is( $node->safe_psql('postgres', q{
			SELECT count(*) FROM quota_manager.quota_execute WHERE status = 'processing'}),
		$batch, 'the claim is committed');
	is($mock->stats->{applied}, $applied, 'and nothing was sent');
	is( $node->safe_psql('postgres', q{
			SELECT coalesce(xact_start::text, 'none'), coalesce(backend_xmin::text, 'none'),
				(SELECT count(*) FROM pg_locks l WHERE l.pid = a.pid AND l.locktype <> 'advisory')
			FROM pg_stat_activity a WHERE backend_type = 'quota_manager courier'}),
		'none|none|0', 'the courier has no transaction, no snapshot and no lock but its own');
	release($node, 'claim_committed');
	await_end('claimed');

	arm_for_next('scan_committing', action => 'stall');
	write_strategy('scanned', 'zgsm-hold');
	ok(await_hit($node, 'scan_committing', 30), 'stalled before the commit of a scan');
	is( $node->safe_psql('postgres', q{
			SELECT count(*) FROM quota_manager.quota_execute e JOIN quota_manager.quota_strategy s ON s.id = e.strategy_id
			WHERE s.name = 'scanned'}),
		0, 'nobody sees its grants');
	release($node, 'scan_committing');
	await_end('scanned');
	is($mock->stats->{applied}, $applied + 2 * $users, 'what stood still went on');
	is(in_doubt('zgsm-hold'), $doubt, 'and left no doubt');

	is_deeply([ $audit->all_problems ], [], 'in the end: completed is applied once, applied is completed or in doubt');
	is_deeply([ $audit->open ], [], 'in the end: everything has come to an end');
	is( $node->safe_psql('postgres', q{
			SELECT count(*) FROM quota_manager.quota_strategy s CROSS JOIN quota_manager.user_info u
			WHERE (SELECT count(*) FROM quota_manager.quota_execute e
				WHERE e.strategy_id = s.id AND e.user_id = u.id) <> 1}),
		0, 'everybody has one grant of every strategy');
	foreach my $gateway (sort keys %mock)
	{
		my %figure = $audit->figures($gateway);

		note "$gateway: " . join ', ', map { "$figure{$_} $_" } 'grants', 'completed', 'in_doubt', 'applied';
	}
};

$node->stop;
done_testing();
