
# Many scans at once: each user is granted once, and max_exec_per_user is never
# exceeded, whoever else edits strategies and writes grants meanwhile.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use IPC::Run ();
use PostgreSQL::Test::Utils;
use QuotaTest::ScanNode qw(scan_node add_gateway);
use QuotaTest::Wait qw(wait_until);
use Test::More;

my $scanners = 8;
my $users = 2000;

my $node = scan_node('races', "max_connections = 50\n");
add_gateway($node, 'postgres');
$node->safe_psql('postgres', qq{
INSERT INTO quota_manager.user_info (id, vip) SELECT 'u' || i, i % 4 FROM generate_series(1, $users) i});

my @answers;
subtest 'once for each user, however many ask at once' => sub {
	$node->safe_psql('postgres', <<'SQL');
INSERT INTO quota_manager.quota_strategy (name, type, amount, model, condition) VALUES
	('single-1', 'single', 5, 'm', 'true()'), ('single-2', 'single', 5, 'm', 'is-vip(2)'), ('single-3', 'single', 5, 'm', 'is-vip(1)');
SQL
	@answers = at_once(
		map { "SELECT sum(granted), bool_or(error IS NOT NULL) FROM quota_manager.scan()" } 1 .. $scanners);
	is(sum(map { (split /\|/)[0] } @answers), $users * 2.25, 'single: each grant is reported by one scan');
	is(scalar(grep { !/\|f$/ } @answers), 0, 'single: no scan failed');
	is(grants(), $users * 2.25, 'single: each user is granted once');
	is($node->safe_psql('postgres', 'SELECT sum(granted) FROM quota_manager.quota_run'), $users * 2.25, 'single: the runs say so');
};

subtest 'one firing, eight scans' => sub {
	periodic('hourly', 'NULL', 'latest');
	@answers = at_once(map { scan_at('09:00:00') } 1 .. $scanners);
	is(grants('hourly'), $users, 'periodic: each user is granted once per firing');
	is(sum(@answers), $users, 'periodic: by one scan');
	is( $node->safe_psql('postgres', q{SELECT count(*) FROM quota_manager.quota_run r JOIN quota_manager.quota_strategy s ON s.id = r.strategy_id WHERE s.name = 'hourly'}),
		1, 'periodic: one run');
};

subtest 'eight firings, each scanned by somebody at the same time, and a cap of one' => sub {
	# No key conflicts here: only the lock keeps one from granting what another counts.
	periodic('capped', 1, 'latest');
	foreach my $day (1 .. 5)
	{
		$node->safe_psql('postgres', 'TRUNCATE quota_manager.quota_execute');
		at_once(map { scan_at(sprintf('%02d:00:00', 8 + $_), $day) } 1 .. $scanners);
		cmp_ok(most('capped'), '<=', 1, "cap: not exceeded on day $day");
	}
	at_once(scan_at('09:00:00', $_)) foreach 6 .. 7;
	is(most('capped'), 1, 'cap: reached and not exceeded');
	is(grants('capped'), $users, 'cap: reached by everybody');
};

# The same while the cap is raised and lowered and the strategy is disabled and
# enabled.
periodic('restless', 2, 'latest');
foreach my $round (1 .. 5)
{
	my $minute = sprintf('%02d', $round * 10);
	at_once(
		(map { scan_at("09:$minute:0$_") } 0 .. 5),
		q{UPDATE quota_manager.quota_strategy SET max_exec_per_user = 1 WHERE name = 'restless'},
		q{SET quota_manager.schedule_clock = '2025-07-01 08:00:00+00';
			UPDATE quota_manager.quota_strategy SET enabled = false WHERE name = 'restless';
			UPDATE quota_manager.quota_strategy SET enabled = true, max_exec_per_user = 2 WHERE name = 'restless'},
		q{UPDATE quota_manager.user_info SET vip = vip + 1 WHERE id LIKE 'u1%'});
}
# Whichever of the two edits was the last.
$node->safe_psql('postgres', q{UPDATE quota_manager.quota_strategy SET max_exec_per_user = 2 WHERE name = 'restless'});
at_once(scan_at('10:00:00'), scan_at('10:00:01'), scan_at('10:00:02'));
at_once(scan_at('10:00:03'));
at_once(scan_at('10:00:04'));
is(most('restless'), 2, 'cap: not exceeded while the strategy is edited');

subtest 'somebody writes grants around the lock: a grant is there once, and the scan copes or says what it met' => sub {
	$node->safe_psql('postgres', <<'SQL');
UPDATE quota_manager.quota_strategy SET enabled = false;
INSERT INTO quota_manager.quota_strategy (id, name, type, amount, model, condition) VALUES (9000, 'around', 'single', 5, 'm', 'true()');
SQL
	my $intruder = <<"SQL";
INSERT INTO quota_manager.quota_execute (strategy_id, user_id, scheduled_time, run_id, strategy_version, amount, model, gateway, batch_number, status)
SELECT 9000, 'u' || i, '-infinity', NULL, 1, 5, 'm', 'gateway', 'intruder', 'completed' FROM generate_series(1, $users, 50) i
ON CONFLICT DO NOTHING
SQL
	at_once((map { "SELECT count(*) FROM quota_manager.scan()" } 1 .. 4), $intruder, $intruder,
		"SELECT imported FROM quota_manager.import_grants(\$\$SELECT 'around', 'u' || i, now() FROM generate_series(1, $users, 70) i\$\$)");
	at_once("SELECT count(*) FROM quota_manager.scan()");
	is(grants('around'), $users, 'around the lock: everybody once');
	is( $node->safe_psql('postgres', q{
			SELECT count(*) FROM quota_manager.quota_execute e WHERE e.status = 'pending'
				AND NOT EXISTS (SELECT FROM quota_manager.quota_run r WHERE r.id = e.run_id AND r.undelivered AND e.id BETWEEN r.first_grant_id AND r.last_grant_id)}),
		0, 'every grant to be delivered is found by its run');
};

$node->stop;
done_testing();

# A periodic strategy, alone enabled, whose firings after eight o'clock are due.
sub periodic
{
	my ($name, $cap, $catch_up) = @_;
	my $schedule = $name eq 'restless' ? '* * * * * *' : '0 * * * *';

	$node->safe_psql('postgres', qq{
		UPDATE quota_manager.quota_strategy SET enabled = false;
		SET quota_manager.schedule_clock = '2025-07-01 08:00:00+00';
		INSERT INTO quota_manager.quota_strategy (name, type, amount, model, periodic_expr, condition, max_exec_per_user, catch_up)
			VALUES ('$name', 'periodic', 5, 'm', '$schedule', 'true()', $cap, '$catch_up')});
	return;
}

sub scan_at
{
	my ($time, $day) = @_;

	$day //= 1;
	return "SET quota_manager.schedule_clock = '2025-07-0$day $time+00'; SELECT coalesce(sum(granted), 0) FROM quota_manager.scan()";
}

# Runs statements in sessions of their own at the same time: all wait for a lock
# until the last is there.  Returns what they print.
sub at_once
{
	my @statements = @_;
	my ($barrier_in, $barrier_out) = ("SELECT pg_advisory_lock(77) IS NULL;\n", '');
	my @psql = ('psql', '-X', '-A', '-t', '-q', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('postgres'));
	my $timer = IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default);
	my $barrier = IPC::Run::start(\@psql, \$barrier_in, \$barrier_out, $timer);
	my @sessions;

	$barrier->pump until $barrier_out =~ /f\n/;
	foreach my $statement (@statements)
	{
		my @commands = map { ('-c', $_) } "DO 'BEGIN PERFORM pg_advisory_lock_shared(77); END'", split(/;\s*/, $statement);
		my $session = { out => '', err => '' };

		$session->{run} = IPC::Run::start([ @psql, @commands ], \'', \$session->{out}, \$session->{err}, $timer);
		push @sessions, $session;
	}
	wait_until($node,
		"SELECT count(*) = @{[ scalar @statements ]} FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND objid = 77");
	$barrier->finish;
	foreach my $session (@sessions)
	{
		$session->{run}->finish;
		# A deadlock with somebody who holds the strategy and wants a grant is an honest answer.
		BAIL_OUT($session->{err}) if $session->{err} =~ /ERROR/ && $session->{err} !~ /deadlock detected/;
		chomp($session->{out});
	}
	return map { $_->{out} } @sessions;
}

# Grants, of a strategy or in all.
sub grants
{
	my ($name) = @_;
	my $where = $name ? "WHERE strategy_id = (SELECT id FROM quota_manager.quota_strategy WHERE name = '$name')" : '';

	return $node->safe_psql('postgres', "SELECT count(*) FROM quota_manager.quota_execute $where");
}

# The most grants that a user has from a strategy.
sub most
{
	my ($name) = @_;

	return $node->safe_psql('postgres', qq{
		SELECT max(grants) FROM (SELECT count(*) AS grants FROM quota_manager.quota_execute
			WHERE status <> 'cancelled' AND strategy_id = (SELECT id FROM quota_manager.quota_strategy WHERE name = '$name') GROUP BY user_id) per_user});
}

sub sum
{
	my $total = 0;
	$total += $_ || 0 foreach @_;
	return $total;
}
