# What was granted is taken back while gateways misbehave and scheduler, courier, gateways and postmaster die by kill -9:
# in the end every gateway has what it had before. An operator decides what is in doubt where the policy is hold, by what
# the gateway has applied.
#
# QUOTA_MANAGER_KILLS says how often (10; 100 in long runs); QUOTA_MANAGER_SEED repeats a choice of victims, faults
# and moments, as far as these alone decide. One run is of 10,000 users.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use List::Util qw(shuffle);
use PostgreSQL::Test::Utils;
use QuotaTest::Audit;
use QuotaTest::CrashPoints qw(crash_cluster crash_points arm await_hit);
use QuotaTest::Delivery qw(add_gateway);
use QuotaTest::Mock;
use QuotaTest::Seed;
use QuotaTest::Wait qw(wait_until wait_for becomes_true);
use QuotaTest::Workers;
use Test::More;
use Time::HiRes qw(time usleep);

my $kills = $ENV{QUOTA_MANAGER_KILLS} // ($ENV{QUOTA_MANAGER_LONG} ? 100 : 10);
QuotaTest::Seed::start(170);
my $users = 40;
my $many = 10_000;


my $node = crash_cluster('reversal_faults', <<'CONF');
quota_manager.claim_batch = 32
quota_manager.retry_base = 10ms
quota_manager.retry_max = 100ms
quota_manager.max_attempts = 1000000
quota_manager.linger = 500ms
max_wal_size = 4GB
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
		@column{ 'sole_writer', 'max_usage_rate', 'doubt_policy_since' } = ('true', 0, '-infinity')
		  if $policy eq 'reconcile';
		add_gateway($node, $gateway, $mock, %column);
		$node->safe_psql('postgres', "INSERT INTO quota_manager.quota_model VALUES ('$gateway', '$gateway')");
	}
}
QuotaTest::Workers::users($node, 'postgres', $users);

my @gateways = sort keys %mock;
my $audit = QuotaTest::Audit->new($node, %mock);
my $installation;

# What a gateway has applied of each grant, by id, and of each user in total.
sub applied_at
{
	my ($gateway) = @_;
	my (%grant, %user);

	$installation //= $node->safe_psql('postgres', 'SELECT id FROM quota_manager.quota_installation');
	foreach my $change ($mock{$gateway}->applied)
	{
		$grant{$1} = 1 if ($change->{idempotency_key} // '') =~ /^\Q$installation\E-(\d+)$/;
		$user{ $change->{user} } += $change->{amount};
	}
	return (\%grant, \%user);
}

# Users who have more or less than nothing at a gateway.
sub left_at
{
	my ($gateway) = @_;
	my (undef, $user) = applied_at($gateway);

	return grep { $user->{$_} != 0 } sort keys %$user;
}

# A call that a crash may have cut off is repeated: it does what is left to be done.
sub insist
{
	my ($sql) = @_;
	my $out;

	wait_for("$sql succeeds", sub {
		# psql may be gone before it has read the statement.
		my ($code, $answer, $err) = eval { $node->psql('postgres', $sql) };

		return 0 if !defined $code;
		die $err if $code != 0 && $err !~ /connection|server|terminat|starting up|recovery mode|No such file/i;
		$out = $answer;
		return $code == 0;
	});
	return $out;
}

# Decides about what is left to an operator, by what the gateways have applied.
sub decide
{
	foreach my $gateway (@gateways)
	{
		my @ids = split /\n/, $node->safe_psql('postgres', qq{
			SELECT id FROM quota_manager.quota_execute
			WHERE gateway = '$gateway' AND status = 'in_doubt' AND next_attempt_time = 'infinity'});
		my ($applied) = @ids ? applied_at($gateway) : ({});

		foreach my $case ([ 'true', grep { $applied->{$_} } @ids ], [ 'false', grep { !$applied->{$_} } @ids ])
		{
			my ($is_applied, @list) = @$case;

			insist(sprintf q{SELECT quota_manager.resolve(ARRAY[%s]::bigint[], %s, 'by what the gateway has')}, join(',', @list), $is_applied) if @list;
		}
	}
	return;
}

# Waits until everything has come to an end, reversals included, and decides on the way.
sub await_end
{
	my ($name) = @_;
	my $end = time + 180;

	while (1)
	{
		my $open = insist(q{
			SELECT (SELECT count(*) FROM quota_manager.quota_execute WHERE status IN ('pending', 'processing', 'in_doubt'))
				+ (SELECT count(*) FROM quota_manager.quota_reversal_item WHERE outcome = 'waits')
				+ (SELECT count(*) FROM quota_manager.quota_run WHERE undelivered)});

		last if $open == 0;
		die "$name does not come to an end:\n" . $node->safe_psql('postgres', q{
			SELECT e.* FROM quota_manager.quota_execute e WHERE e.status NOT IN ('completed', 'cancelled') ORDER BY e.id LIMIT 10;
			SELECT i.*, e.status FROM quota_manager.quota_reversal_item i LEFT JOIN quota_manager.quota_execute e ON e.id = i.grant_id WHERE i.outcome = 'waits' LIMIT 10;
			SELECT g.* FROM quota_manager.quota_gateway g}) if time > $end;
		decide();
		usleep(50_000);
	}
	return;
}

# Writes a strategy that grants to everybody at a gateway; an earlier one is out of the way.
sub write_strategy
{
	my ($name, $gateway, $amount) = @_;

	insist(qq{INSERT INTO quota_manager.quota_strategy (name, type, amount, model, condition)
		VALUES ('$name', 'single', $amount, '$gateway', 'true()') ON CONFLICT (name) DO NOTHING});
	return;
}

# Everything is as it was before anything was granted, and the books say so too.
sub check_all
{
	my ($name, @which) = @_;

	is_deeply([ $audit->problems ], [], "$name: completed is applied once, applied is in a state that says so");
	is_deeply([ map { my $gateway = $_; map { "$gateway $_" } left_at($gateway) } @which ], [], "$name: the gateways have what they had before");
	is($node->safe_psql('postgres', q{
			SELECT count(*) FROM (SELECT FROM quota_manager.quota_execute WHERE status = 'completed'
				GROUP BY strategy_id, user_id, scheduled_time HAVING sum(amount) <> 0) x}), 0, "$name: what is completed adds up to nothing");
	is($node->safe_psql('postgres', q{SELECT * FROM quota_internal.check_counts()}), '', "$name: the counts are right");
	is($node->safe_psql('postgres', q{SELECT count(*) FROM quota_manager.quota_execute WHERE status = 'failed'}), 0, "$name: nothing has failed");
	return;
}

# Where a process dies while what a run has granted is taken back, once with each policy that meets the place.
my %place = (
	lock_taken => ['hold'],
	claim_starting => ['hold'],
	claim_made => ['resend'],
	claim_committed => [ 'hold', 'resend', 'reconcile' ],
	grant_sent => [ 'hold', 'resend', 'reconcile' ],
	answer_taken => [ 'hold', 'resend', 'reconcile' ],
	before_read => ['reconcile'],
	before_recording => ['reconcile'],
	before_recorded => ['reconcile'],
	settle_starting => [ 'hold', 'resend', 'reconcile' ],
	settle_made => [ 'hold', 'resend', 'reconcile' ],
	settle_committed => [ 'hold', 'resend', 'reconcile' ],
	run_closing => ['hold'],);

subtest 'the courier dies at any place while a run is taken back' => sub {
	my $number = 0;

	foreach my $point (grep { $place{$_} } crash_points($node))
	{
		foreach my $policy (@{ $place{$point} })
		{
			my $gateway = ($number++ % 2 ? 'zgsm' : 'higress') . "-$policy";
			my $name = "$gateway, $point";

			write_strategy($name, $gateway, $number % 7 + 1);
			wait_until($node, qq{SELECT count(*) = $users FROM quota_manager.quota_execute e JOIN quota_manager.quota_strategy s ON s.id = e.strategy_id
				WHERE s.name = '$name' AND e.status NOT IN ('pending', 'processing')});
			await_end($name);
			arm($node, $point);
			# A call whose answer was cut off has done it, or the one after it does.
			is(insist("SELECT sum(grants) FROM quota_manager.reverse_strategy('$name', 'a test') WHERE outcome LIKE '%taken back%'"),
				$users, "$name: taken back");
			ok(await_hit($node, $point, 30), "$name: it was hit");
			await_end($name);
			check_all($name, $gateway);
		}
	}
};

subtest 'the scheduler dies while it goes on with a reversal that had to wait' => sub {
	foreach my $point (grep { /^reversal_/ } crash_points($node))
	{
		foreach my $gateway ('higress-resend', 'zgsm-reconcile')
		{
			my $name = "$gateway, $point";
			my $mock = $mock{$gateway};
			my $met = $mock->stats->{faults};

			arm($node, $point);
			$mock->fault(kind => 'apply_hang', match => 'grant', count => 2);
			$mock->fault(kind => 'hang', match => 'grant', count => 2);
			write_strategy($name, $gateway, 3);
			wait_for('requests hang', sub { $mock->stats->{faults} >= $met + 4 });
			like(insist("SELECT string_agg(outcome, ', ') FROM quota_manager.reverse_strategy('$name', 'a test')"), qr/waits: /, "$name: some must wait");
			ok(await_hit($node, $point, 30), "$name: it was hit");
			$mock->clear_faults;
			await_end($name);
			check_all($name, $gateway);
		}
	}
	QuotaTest::Workers::set($node, 'quota_manager.crash_point', '');
};

# What a gateway does instead of answering as it should. Nothing of it may have a grant fail.
my @faults = (
	{ kind => 'close' }, { kind => 'apply_close' }, { kind => 'reset' }, { kind => 'apply_reset' }, { kind => 'status' },
	{ kind => 'apply_status', status => 500 }, { kind => 'apply_html' }, { kind => 'apply_cut_off' }, { kind => 'half_header' },
	{ kind => 'hang' }, { kind => 'apply_hang' }, { kind => 'apply_late', delay_ms => 200 }, { kind => 'status', status => 429 },);

# Has a gateway misbehave now and then in two ways, and be slow otherwise.
sub disturb
{
	my ($mock, $probability) = @_;

	$mock->clear_faults;
	foreach (1 .. 2)
	{
		$mock->fault(match => 'grant', count => 0, probability => $probability, seed => 1 + int(rand 1_000_000_000), %{ $faults[ rand @faults ] });
	}
	return;
}

# Kills one of them, and waits until it is back.
sub kill_one
{
	my ($victim) = @_;

	if ($victim eq 'gateway')
	{
		my $mock = $mock{ $gateways[ rand @gateways ] };

		$mock->kill9;
		usleep(int(rand 200_000));
		$mock->start_again;
	}
	elsif ($victim eq 'postmaster')
	{
		QuotaTest::Workers::kill_postmaster($node);
	}
	else
	{
		my $pid = QuotaTest::Workers::await_worker($node, 'postgres', $victim);

		kill 'KILL', $pid;
		# every session ends with it
		wait_for("the $victim is back", sub { (eval { QuotaTest::Workers::worker($node, 'postgres', $victim) } // 0) !~ /^(?:0|$pid)$/ });
	}
	return;
}

subtest 'all of them die at random moments, in the middle of deliveries and reversals' => sub {
	my @victims = shuffle('courier', 'scheduler', 'gateway', 'postmaster');

	foreach my $number (1 .. $kills)
	{
		my $victim = shift(@victims) // (('courier') x 4, ('gateway') x 3, ('scheduler') x 3, ('postmaster') x 2)[ rand 12 ];

		disturb($_, 0.05) foreach values %mock;
		write_strategy("$number $_", $_, $number % 7 + 1) foreach @gateways;
		# these are no waits for something, but the moments that chance has chosen
		usleep(int(rand 300_000));
		kill_one($victim) if $number % 2;
		usleep(int(rand 200_000));
		insist("SELECT outcome, grants FROM quota_manager.reverse_strategy('$number $_', 'a test')") foreach @gateways;
		usleep(int(rand 200_000));
		kill_one($victim) if $number % 2 == 0;
		is_deeply([ $audit->problems ], [], "kill $number, $victim: completed is applied once, applied is in a state that says so");
	}
	$_->clear_faults foreach values %mock;
	await_end('all');
	# What was granted after the reversal, since the scheduler had been dead before.
	$node->safe_psql('postgres', q{
		SELECT quota_manager.pause_all('no more grants');
		SELECT count(r.*) FROM quota_manager.quota_strategy s CROSS JOIN LATERAL quota_manager.reverse_strategy(s.name, 'the rest') r;
		SELECT quota_manager.unpause_all('on')});
	await_end('the rest');
	check_all('in the end', @gateways);
	is_deeply([ $audit->all_problems ], [], 'in the end: completed is applied once, applied is in a state that says so');
};

subtest 'a run of 10,000' => sub {
	my $begin = time;

	$node->safe_psql('postgres', "INSERT INTO quota_manager.user_info (id, vip) SELECT 'many' || n, 9 FROM generate_series(1, $many) n");
	foreach my $gateway ($ENV{QUOTA_MANAGER_LONG} ? @gateways : 'higress-resend')
	{
		my $mock = $mock{$gateway};
		my $name = "many at $gateway";
		my $run;

		# The earlier strategies grant nothing to the new users.
		$node->safe_psql('postgres', qq{
			UPDATE quota_manager.quota_strategy SET state = 'archived' WHERE state <> 'archived';
			INSERT INTO quota_manager.quota_strategy (name, type, amount, model, condition) VALUES ('$name', 'single', 5, '$gateway', 'is-vip(9)')});
		disturb($mock, 0.002);
		wait_until($node, qq{SELECT count(*) = 1 FROM quota_manager.quota_run r JOIN quota_manager.quota_strategy s ON s.id = r.strategy_id WHERE s.name = '$name' AND r.granted = $many});
		$run = $node->safe_psql('postgres', qq{SELECT r.id FROM quota_manager.quota_run r JOIN quota_manager.quota_strategy s ON s.id = r.strategy_id
			WHERE s.name = '$name' AND r.granted = $many});
		wait_for('half of it is delivered', sub { insist("SELECT count(*) FROM quota_manager.quota_execute WHERE run_id = $run AND status = 'completed'") > $many * 0.5 });
		my $start = time;
		my $outcome = insist("SELECT string_agg(outcome || ' ' || grants, ', ') FROM quota_manager.reverse_run($run, 'a test')");
		note sprintf '%s: reversed in %.2f s: %s', $gateway, time - $start, $outcome;
		foreach my $victim ('courier', 'scheduler', 'postmaster')
		{
			usleep(int(rand 1_000_000));
			kill_one($victim);
			disturb($mock, 0.002);
		}
		$mock->clear_faults;
		await_end($name);
		check_all($name, $gateway);
		is($node->safe_psql('postgres', "SELECT cancelled + taken_back + others, waits, taken_back - delivered FROM quota_manager.reversal_status WHERE reversed_run_id = $run"),
			"$many|0|0", "$name: each grant has its item");
	}
	note sprintf '%.1f s', time - $begin;
};

$node->stop;
done_testing();
