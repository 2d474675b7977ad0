# Ten thousand grants while gateways, sessions and operators get in the way all the time and no process is ever killed: a
# restart would cure what is forgotten. No grant that is due at a gateway that works is left untouched for longer than the
# bound that docs/delivery.md states, nothing is applied twice, and no error shows in the log.
#
# QUOTA_MANAGER_SOAK_SECONDS: for how long at least (600 in long runs); QUOTA_MANAGER_SEED repeats a choice.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Utils;
use QuotaTest::Audit;
use QuotaTest::Delivery qw(add_gateway begin_session ask_session end_session log_part);
use QuotaTest::Mock;
use QuotaTest::Seed;
use QuotaTest::Wait qw(becomes_true);
use QuotaTest::Workers;
use Test::More;
use Time::HiRes qw(time usleep);

my $seconds = $ENV{QUOTA_MANAGER_SOAK_SECONDS} // ($ENV{QUOTA_MANAGER_LONG} ? 600 : 0);
QuotaTest::Seed::start(83);
my $users = 50;
my $grants = 10_000;

# What docs/delivery.md promises, and what a busy machine may add to the moment at which this test reads.
my $bound = 10;
my $slack = 5;


my $node = QuotaTest::Workers::cluster('soak', preload => 1, settings => <<'CONF');
quota_manager.lint_on_write = off
quota_manager.claim_batch = 16
quota_manager.retry_base = 10ms
quota_manager.retry_max = 500ms
quota_manager.max_attempts = 1000000
quota_manager.linger = 1s
CONF
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
			dialect => $dialect, key => 'key', lifetime => 7200, journal => $node->basedir . "/$gateway.journal");
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
my $monitor = begin_session($node);
my $locker = begin_session($node);
my $operator = begin_session($node);

ok(becomes_true($node, q{SELECT count(pid) = 3 FROM quota_manager.worker_status}), 'the workers run');
my $from = -s $node->logfile;
my $pids = worker_pids();

# What gets in the way. Each ends what it began, so that what is due must go on.
my %mischief = (
	fault => sub {
		my $mock = $mock{ $gateways[ rand @gateways ] };
		my @kinds = (
			{ kind => 'status', status => 429 },
			{ kind => 'status', status => 429, retry_after => 1 },
			{ kind => 'reset' },
			{ kind => 'apply_reset' },
			{ kind => 'close' },
			{ kind => 'apply_close' },
			{ kind => 'status', status => 503 },
			{ kind => 'apply_html' },
			{ kind => 'hang' },
			{ kind => 'slow', delay_ms => 200 },
			{ kind => 'status', status => 403, match => 'query' },
			{ kind => 'close', match => 'query' });

		$mock->fault(match => 'grant', count => 1 + int(rand 6), %{ $kinds[ rand @kinds ] });
	},
	calm => sub {
		$mock{ $gateways[ rand @gateways ] }->clear_faults;
	},
	down => sub {
		my $mock = $mock{ $gateways[ rand @gateways ] };

		$mock->stop('KILL');
		usleep(int(rand 600_000));
		$mock->start_again;
	},
	lock => sub {
		my $table = (qw(quota_execute quota_run quota_gateway user_balance quota_installation))[ rand 5 ];
		my $mode = ('SHARE', 'ACCESS EXCLUSIVE')[ rand 2 ];

		ask_session($locker, "BEGIN; SET LOCAL lock_timeout = '2s'; LOCK TABLE quota_manager.$table IN $mode MODE");
		# longer than a sender waits for it
		usleep(300_000 + int(rand 600_000));
		ask_session($locker, 'COMMIT');
	},
	edit_gateway => sub {
		my $gateway = $gateways[ rand @gateways ];
		my $rate = (40, 200, 'NULL', 'NULL')[ rand 4 ];
		my $connections = 1 + int(rand 12);

		ask_session($operator, "UPDATE quota_manager.quota_gateway SET rate_limit = $rate, max_connections = $connections WHERE name = '$gateway'");
	},
	edit_key => sub {
		my $gateway = $gateways[ rand @gateways ];

		ask_session($operator, "UPDATE quota_manager.quota_credential SET secret = 'wrong' WHERE name = '$gateway'");
		usleep(int(rand 1_500_000));
		ask_session($operator, "UPDATE quota_manager.quota_credential SET secret = 'key' WHERE name = '$gateway'");
	},
	edit_strategies => sub {
		ask_session($operator, q{UPDATE quota_manager.quota_strategy SET title = title || '.' WHERE id % 7 = 0});
	},
	retry => sub {
		ask_session($operator, q{
			SELECT quota_manager.retry(array_agg(e.id), 'soak') FROM (SELECT id FROM quota_manager.quota_execute
				WHERE status = 'pending' AND next_attempt_time > clock_timestamp() LIMIT 5) e});
	},
	vacuum => sub {
		ask_session($operator, 'VACUUM ANALYZE quota_manager.quota_execute, quota_manager.quota_run');
	},
	reload => sub {
		ask_session($operator, 'SELECT pg_reload_conf()');
	},);
my @mischief = ((('fault') x 8), (('down') x 2), (('lock') x 2), 'calm', 'edit_gateway', 'edit_key', 'edit_strategies', 'retry', 'vacuum', 'reload');

# Per gateway that is open and not kept to a rate: the oldest grant that is due, and when it was last touched. Whoever
# cannot have it at this moment, because of an answer that its user waits for, is not due.
my $oldest_due = q{
	SELECT g.name, d.id || '/' || d.claim_number || '/' || d.update_time
	FROM quota_manager.quota_gateway g CROSS JOIN LATERAL (
		SELECT e.id, e.claim_number, e.update_time FROM quota_manager.quota_run r
		JOIN quota_manager.quota_execute e ON e.run_id = r.id AND e.id BETWEEN r.first_grant_id AND r.last_grant_id
		WHERE r.undelivered AND e.gateway = g.name AND e.status = 'pending' AND e.next_attempt_time <= clock_timestamp()
			AND NOT EXISTS (SELECT 1 FROM quota_manager.quota_execute o
				WHERE o.user_id = e.user_id AND o.gateway = e.gateway AND o.status IN ('processing', 'in_doubt'))
		ORDER BY e.id LIMIT 1) d
	WHERE g.state = 'open'};
my (%seen, %since, @left, $longest);

# Finds grants that nobody touches.
sub watch
{
	my %now = map { split /\|/, $_, 2 } split /\n/, ask_session($monitor, $oldest_due);

	foreach my $gateway (@gateways)
	{
		my $due = $now{$gateway};

		if (!defined $due || ($seen{$gateway} // '') ne $due)
		{
			$seen{$gateway} = $due;
			$since{$gateway} = time;
			next;
		}
		my $for = time - $since{$gateway};

		$longest = $for if $for > ($longest // 0);
		next if $for < $bound + $slack;
		push @left, sprintf('%s: grant %s for %.1f s', $gateway, $due, $for);
		$since{$gateway} = time;
	}
	return;
}

# Who the workers are.
sub worker_pids
{
	return $node->safe_psql('postgres', q{
		SELECT string_agg(kind || ' ' || pid, ', ' ORDER BY kind) FROM quota_manager.worker_status WHERE pid IS NOT NULL});
}

my $strategies = 0;
my $end = time + $seconds;
my %done;
while ($strategies * $users < $grants || time < $end)
{
	my $what = $mischief[ rand @mischief ];

	# about as many as are delivered meanwhile
	my $open = ask_session($monitor, q{SELECT count(*) FROM quota_manager.quota_run WHERE undelivered});
	if ($open < 24)
	{
		my $model = $gateways[ $strategies % @gateways ];

		$strategies++;
		ask_session($operator, "INSERT INTO quota_manager.quota_strategy (name, type, amount, model, condition)
			VALUES ('$strategies', 'single', 1 + $strategies % 7, '$model', 'true()')");
		next if rand() < 0.5;
	}
	$mischief{$what}->();
	$done{$what}++;
	watch();
}
note join ', ', map { "$_ $done{$_}" } sort keys %done;

subtest 'when all is well again, everything comes to an end soon' => sub {
	ask_session($operator, 'UPDATE quota_manager.quota_gateway SET rate_limit = NULL, max_connections = 8');
	$_->clear_faults foreach values %mock;
	my $all = $strategies * $users;
	my $calm = time;
	ok(becomes_true($node, qq{
			SELECT count(*) = $all AND NOT EXISTS (SELECT 1 FROM quota_manager.quota_run r WHERE r.undelivered)
			FROM quota_manager.quota_execute e
			WHERE e.status NOT IN ('pending', 'processing') AND NOT (e.status = 'in_doubt' AND e.next_attempt_time < 'infinity')}),
		"all $all grants come to an end");
	note sprintf 'after %.1f s', time - $calm;
	note sprintf 'the oldest grant that was due was not touched for %.1f s at most', $longest // 0;
	is_deeply(\@left, [], 'none that was due was left untouched');
	is_deeply([ $audit->all_problems ], [], 'completed is applied once, applied is completed or in doubt');
	is_deeply([ $audit->open ], [], 'nothing is pending, processing or failed');
	is(worker_pids(), $pids, 'no worker was started again');
	my $log = log_part($node, $from);
	# the scheduler meets the locks of this test, too, and tries again
	$log =~ s/^.*ERROR:  canceling statement due to lock timeout.*\n//mg;
	# and a grant that is to be retried may have been sent meanwhile
	$log =~ s/^.*WARNING:  \d+ of \d+ grants were left as they are.*\n//mg;
	is(join("\n", $log =~ /^.*(?:PANIC|FATAL|ERROR|WARNING|terminated by signal|their sender ended).*$/mg), '', 'no error is in the log');
};

end_session($_) foreach $monitor, $locker, $operator;
$node->stop;
done_testing();
