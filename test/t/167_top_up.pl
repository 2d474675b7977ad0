
# Users are filled up to exactly the amount, and never past it, while processes die by kill -9 at named places, gateways
# lose answers and refuse, and users chat: single, and again at the next firing.
#
# QUOTA_MANAGER_USERS says how many users there are at each gateway (1500; 5000 in long runs).

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Utils;
use QuotaTest::Audit;
use QuotaTest::CrashPoints qw(crash_cluster arm await_hit);
use QuotaTest::Delivery qw(add_gateway);
use QuotaTest::Mock;
use QuotaTest::Seed;
use QuotaTest::Wait qw(happens wait_until);
use QuotaTest::Workers;
use Test::More;
use Time::HiRes qw(time);

my $count = $ENV{QUOTA_MANAGER_USERS} // ($ENV{QUOTA_MANAGER_LONG} ? 5000 : 1500);
my $amount = 1000;
QuotaTest::Seed::start(167);


my $node = crash_cluster('top_up', <<'CONF');
quota_manager.retry_base = 10ms
quota_manager.retry_max = 100ms
quota_manager.max_attempts = 1000000
quota_manager.linger = 500ms
quota_manager.schedule_clock = '2026-02-01 07:59:00+00'
CONF

# One that applies a key once, and one whose totals prove what was applied.
my %mock = (
	resend => QuotaTest::Mock->start(dialect => 'higress', key => 'key'),
	reconcile => QuotaTest::Mock->start(dialect => 'zgsm', key => 'key'));
$mock{resend}->honour_idempotency(1);

$node->safe_psql('postgres', q{CREATE EXTENSION quota_manager; SELECT quota_manager.grant_access('quota_worker', 'worker')});
add_gateway($node, 'resend', $mock{resend}, doubt_policy => 'resend', request_timeout => '500 ms');
add_gateway($node, 'reconcile', $mock{reconcile}, doubt_policy => 'reconcile', sole_writer => 'true', request_timeout => '500 ms');
$node->safe_psql('postgres', qq{
	INSERT INTO quota_manager.quota_model VALUES ('resend', 'resend'), ('reconcile', 'reconcile');
	INSERT INTO quota_manager.user_info (id, org) SELECT g || i, g FROM generate_series(1, $count) i, unnest(ARRAY['resend', 'reconcile']) g});

# By user: what the user had, what was used then, and (of those who chat) later.
my (%had, %used, %chats);
my $step = 0;
foreach my $gateway (sort keys %mock)
{
	foreach my $number (1 .. $count)
	{
		my $user = "$gateway$number";

		# Some have it already, or more; some have nothing yet, and are unknown to the gateway.
		my $quota = $number % 50 == 0 ? $amount + int rand 500 : $number % 3 == 0 ? 0 : int rand $amount;
		$mock{$gateway}->set_balance($user, quota => $quota, used => 0) if $quota > 0;
		$had{$user} = $quota;
		$used{$user} = [0];
		# What is used at higress is taken from what it adds to, which the mock cannot do beside a delta.
		$chats{$gateway}{$user} = 1 if $number % 25 == 1 && $gateway eq 'reconcile';
	}
}

my @faults = (
	{ kind => 'close' }, { kind => 'apply_close' }, { kind => 'apply_reset' }, { kind => 'apply_status', status => 500 }, { kind => 'half_header' },
	{ kind => 'apply_hang' }, { kind => 'apply_late', delay_ms => 200 }, { kind => 'status', status => 429 });

# Has the gateways misbehave now and then.
sub disturb
{
	foreach my $mock (values %mock)
	{
		$mock->clear_faults;
		$mock->fault(match => 'grant', count => 0, probability => 0.01, seed => 1 + int(rand 1_000_000_000), %{ $faults[ rand @faults ] }) foreach 1 .. 2;
		$mock->fault(kind => 'close', match => 'query', count => 0, probability => 0.005, seed => 1 + int(rand 1_000_000_000));
	}
	return;
}

# Some of those who chat use something.
sub chat
{
	foreach my $gateway (sort keys %mock)
	{
		foreach my $user (keys %{ $chats{$gateway} })
		{
			next if rand() < 0.5;
			push @{ $used{$user} }, $used{$user}[-1] + 1 + int rand 3;
			$mock{$gateway}->set_balance($user, used => $used{$user}[-1]);
		}
	}
	return;
}

# Everything is granted and delivered of a firing.
sub settled
{
	my ($firing) = @_;

	# The server may be starting.
	my ($code, $out) = $node->psql('postgres', qq{
		SELECT count(*) = 2 AND NOT EXISTS (SELECT FROM quota_manager.quota_execute e WHERE e.status <> 'completed')
		FROM quota_manager.quota_run r WHERE r.scheduled_time = '$firing' AND r.state = 'done'});
	return $code == 0 && $out eq 't';
}

# What was delivered from here on is what was lacking, once per user.
sub check_changes
{
	my ($name, $seen, %before) = @_;
	my @wrong;
	my %filled;

	foreach my $gateway (sort keys %mock)
	{
		foreach my $change ($mock{$gateway}->applied(from => $seen->{$gateway} + 1))
		{
			my $user = $change->{user};

			$seen->{$gateway} = $change->{seq};
			push @wrong, "$user was filled up twice" if $filled{$user}++;
			# Whatever the user had used when the balance was read, it was brought to the amount.
			push @wrong, "$user: $change->{amount} to $change->{balance_after}"
			  if $change->{amount} <= 0 || !grep { $change->{balance_after} - $_ == $amount } @{ $used{$user} };
		}
	}
	foreach my $user (sort keys %had)
	{
		my ($gateway) = $user =~ /^(\D+)/;
		my $balance = $mock{$gateway}->balance($user);
		my $most = $before{$user} > $amount ? $before{$user} : $amount;

		push @wrong, "$user has $balance" if $chats{$gateway}{$user} ? $balance > $most : $balance != $most;
	}
	is_deeply([ @wrong > 10 ? @wrong[ 0 .. 9 ] : @wrong ], [], $name);
	return scalar keys %filled;
}

my %seen = map { $_ => 0 } keys %mock;
my $audit = QuotaTest::Audit->new($node, %mock);

disturb();
foreach my $gateway (sort keys %mock)
{
	$node->safe_psql('postgres', qq{
		INSERT INTO quota_manager.quota_strategy (name, type, periodic_expr, amount, allowance, model, condition)
		VALUES ('$gateway', 'periodic', '0 * * * *', $amount, 'top_up', '$gateway', 'belong-to("$gateway")')});
}
foreach my $firing ('2026-02-01 08:00:00+00', '2026-02-01 09:00:00+00')
{
	subtest "the firing at $firing" => sub {
		my %before = map { my ($gateway) = /^(\D+)/; $_ => $mock{$gateway}->balance($_) } keys %had;
		my $hits = 0;
		my $began = time;

		QuotaTest::Workers::set($node, 'quota_manager.schedule_clock', $firing);
		foreach my $point ([ 'balance_read', 200 ], [ 'balances_written', 2 ], [ 'scan_admitting', 100 ], 'scan_committing', 'claim_committed',
			[ 'grant_sent', 300 ], [ 'answer_taken', 200 ], [ 'settle_made', 1 ], 'settle_committed')
		{
			my ($name, $skip) = ref $point ? @$point : ($point, 0);

			last if settled($firing);
			arm($node, $name, skip => $skip);
			for (1 .. 50)
			{
				chat();
				last if await_hit($node, $name, 0.2) || settled($firing);
			}
			$hits++ if await_hit($node, $name, 0);
			wait_until($node, 'SELECT true');
			is_deeply([ $audit->problems ], [], "$name: completed is applied once");
			disturb();
		}
		QuotaTest::Workers::set($node, 'quota_manager.crash_point', '');
		$_->clear_faults foreach values %mock;
		until (settled($firing) || time - $began > 150)
		{
			chat();
			wait_until($node, 'SELECT true');
			last if happens(sub { settled($firing) }, 0.3);
		}
		ok(settled($firing), 'everything comes to an end') or diag $node->safe_psql('postgres', 'SELECT * FROM quota_manager.quota_run; SELECT status, count(*) FROM quota_manager.quota_execute GROUP BY 1');
		is_deeply([ $audit->all_problems ], [], 'completed is applied once, applied is completed');
		my $filled = check_changes('each has exactly the amount, or less what was used meanwhile', \%seen, %before);
		cmp_ok($hits, '>=', 3, "$hits processes died");
		note sprintf '%d of %d users were filled up in %.1f s', $filled, scalar keys %had, time - $began;
		# Until the next firing everybody uses something.
		foreach my $user (sort keys %had)
		{
			my ($gateway, $number) = $user =~ /^(\D+)(\d+)/;

			next if $number % 4;
			my $uses = 1 + int rand 900;
			if ($gateway eq 'resend')
			{
				$mock{$gateway}->set_balance($user, quota => $mock{$gateway}->balance($user) - $uses);
				next;
			}
			push @{ $used{$user} }, $used{$user}[-1] + $uses;
			$mock{$gateway}->set_balance($user, used => $used{$user}[-1]);
		}
		# As if more than balance_max_age passed.
		$node->safe_psql('postgres', q{UPDATE quota_manager.user_balance SET read_time = read_time - interval '1 hour'});
	};
}
$node->stop;
done_testing();
