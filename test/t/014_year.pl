# A year of virtual time: strategies with random schedules, downtimes, crashes, edits and failures. What
# quota_run and quota_execute show at the end, and now and then before, is what a simulation says that was
# written from the documentation alone.
#
# QUOTA_MANAGER_LONG=1  100 strategies for a year, for each of several seeds; otherwise 30 for three months
# QUOTA_MANAGER_SEED    another seed than the usual ones

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use IPC::Run ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use QuotaTest::FiringSimulation qw(position_after);
use QuotaTest::RandomStrategies qw(pick between time_text insert_sql update_sql users_of);
use QuotaTest::RunComparison qw(found_rows compare_runs account_for_firings);
use QuotaTest::Wait qw(wait_until);
use QuotaTest::Workers;
use Test::More;
use Time::Local qw(timegm);

my $long = $ENV{QUOTA_MANAGER_LONG};
my @seeds = $ENV{QUOTA_MANAGER_SEED} || ($long ? (20_111_230, 20_120_229, 42) : 20_111_230);

# From the spring of the southern hemisphere on: into the three months fall changes of the clock in all of these
# zones but the last two, a date that Apia leaves out, and into the year a leap day.
my $begin = timegm(0, 0, 12, 24, 8, 2011) * 1_000_000;
my $days = $long ? 366 : 103;
my $end = $begin + $days * 86_400 * 1_000_000;
my $strategies = $long ? 100 : 30;
my $steps = $long ? 2_000 : 260;
my @zones = (
	qw(Europe/Berlin America/Sao_Paulo Australia/Lord_Howe Pacific/Apia UTC),
	$long ? qw(America/New_York America/Santiago Asia/Kathmandu Asia/Tehran Africa/Casablanca Pacific/Chatham) : ());

my $second = 1_000_000;
my $hour = 3600 * $second;

# A seed's own: the node, the time, the simulation, what is still to be told to the server, and all that was.
my ($node, $now, $random, $simulation, @script, @history, %count);

sub sql
{
	my ($text, $strategy) = @_;

	push @script, $text;
	push @history, [ $strategy, $text ];
	return;
}

# Tells the server.
sub flush
{
	$node->safe_psql('postgres', join "\n", 'SET client_min_messages = error;', @script) if @script;
	@script = ();
	return;
}

sub say_time
{
	sql(sprintf q(SET quota_manager.schedule_clock = '%s';), time_text($now));
	return;
}

# Times of a strategy at which something begins or ends to be so: its next firing, most of all; when one gets too old
# to be run; when its validity begins and ends.
sub turning_points
{
	my ($columns, $after) = @_;
	my @points = @{$columns}{qw(valid_from valid_until)};

	if ($columns->{type} eq 'periodic')
	{
		my $firings = $random->firings(@{$columns}{qw(periodic_expr time_zone)});
		my $next = position_after($firings, $after);

		push @points, ($firings->[$next]) x 4 if $next < @$firings;
		push @points, $firings->[ $next - 1 ] + ($columns->{catch_up_window} // 24 * $hour) if $next > 0;
		push @points, $firings->[ $next - 1 ] + 120 * $second if $next > 0;
	}
	return grep { $_ > $after } @points;
}

# The next time at which something happens: often at such a point or close to it, sometimes after days of downtime.
sub next_time
{
	my ($left) = @_;
	my $mean = ($end - $now) / ($left + 1);
	my $time = $now + 1 + int(-log(1 - rand) * $mean * pick(0.001, 0.1, 0.5, 0.5, 1, 1, 1, 2, 8));

	if (rand() < 0.7)
	{
		my @points = grep { $_ < $now + 4 * $mean } turning_points($simulation->columns(pick($simulation->names)), pick($now, $time));
		my $near = @points ? pick(@points) + pick(-$second, -1, 0, 0, 0, 0, 1, $second, 59 * $second) : $now;

		$time = $near if $near > $now;
	}
	return $time < $end ? $time : $end;
}

sub create
{
	my ($name) = @_;
	my %columns = $random->strategy($name, $now);

	$columns{model} = 'm1', set_broken('m1', 0) if $simulation->{broken}{ $columns{model} };
	sql(insert_sql(%columns), $name);
	$simulation->create($now, %columns);
	return;
}

# An edit of some strategy, often of one whose last run failed; sometimes it is switched off and on again.
sub edit
{
	my @unfinished = grep { $simulation->is_unfinished($_) } $simulation->names;
	my $name = pick(@unfinished && rand() < 0.3 ? @unfinished : $simulation->names);

	return edit_one($name, $random->edit($simulation->columns($name), $now)) if rand() < 0.85;
	edit_one($name, enabled => 0);
	edit_one($name, enabled => 1);
	return;
}

# One that is refused changes nothing.
sub edit_one
{
	my ($name, %change) = @_;

	return if !%change;
	if ($simulation->refused($name, %change))
	{
		sql(sprintf(<<'SQL', update_sql($name, %change)), $name);
DO $do$ BEGIN
	%s
	RAISE 'was not refused';
EXCEPTION WHEN invalid_parameter_value THEN NULL;
END $do$;
SQL
		$count{refused}++;
		return;
	}
	sql(update_sql($name, %change), $name);
	$simulation->edit($now, $name, %change);
	$count{edits}++;
	return;
}

sub set_broken
{
	my ($model, $broken) = @_;

	sql($broken
		? "DELETE FROM quota_manager.quota_model WHERE model = '$model';"
		: "INSERT INTO quota_manager.quota_model VALUES ('$model', 'gateway') ON CONFLICT DO NOTHING;");
	$simulation->set_broken($model, $broken);
	return;
}

# What the users have at a gateway is asked for and answered, or it is too old. It counts only where nothing is open,
# so what was granted there has been delivered by then.
sub set_balances_known
{
	my ($gateway, $known) = @_;

	sql($known
		? "UPDATE quota_manager.quota_execute SET status = 'completed' WHERE status <> 'completed' AND gateway = '$gateway';
			INSERT INTO quota_manager.user_balance VALUES ('u1', '$gateway', 5), ('u2', '$gateway', 50), ('u3', '$gateway', 5)
			ON CONFLICT (user_id, gateway) DO UPDATE SET balance = excluded.balance, read_time = excluded.read_time, token = NULL;"
		: "DELETE FROM quota_manager.user_balance WHERE gateway = '$gateway';");
	$simulation->set_balances_known($gateway, $known ? qw(u1 u2 u3) : ());
	return;
}

# A random change of what there is. Models and balances come back more readily than they go; balances at the given
# gateways only, whatever is said of the others.
sub change
{
	my (@readable) = @_;
	my $what = rand;

	if ($what < 0.7) { edit() }
	elsif ($what < 0.75 && $simulation->names < 1.25 * $strategies) { create('s' . (1000 + $simulation->names)) }
	elsif ($what < 0.85)
	{
		my $gateway = pick('gateway', 'elsewhere');
		set_balances_known($gateway, rand() < 0.7 && scalar(grep { $_ eq $gateway } @readable));
	}
	else { set_broken('m' . between(1, $QuotaTest::RandomStrategies::models), rand() < 0.25) }
	return;
}

# Steps in which a session scans or ticks by itself, with changes before and after. A tick takes first what has been
# due for longest, by the real time: no balance may depend on what it does before.
sub steps_by_session
{
	my ($left, $number, $how) = @_;
	my @readable = ('elsewhere', $how eq 'scan' ? 'gateway' : ());

	set_balances_known('gateway', 0) if $how eq 'tick';
	foreach my $step (1 .. $number)
	{
		$now = next_time($left - $step);
		say_time();
		sql(sprintf q(SET timezone = '%s';), pick(@zones)) if rand() < 0.1;
		while (rand() < 0.25) { change(@readable) }
		my $scan = rand;
		if ($scan < 0.08)
		{
			my $name = pick($simulation->names);
			sql("SELECT count(*) FROM quota_manager.scan('$name');", $name);
			$simulation->scan($now, $name);
		}
		elsif ($scan < 0.93)
		{
			sql($how eq 'tick' ? 'SELECT quota_internal.end_back_offs(); CALL quota_manager.tick();' : 'SELECT count(*) FROM quota_manager.scan();');
			$how eq 'tick' ? $simulation->tick($now) : $simulation->scan($now);
		}
		while (rand() < 0.1) { change(@readable) }
		$count{$how}++;
	}
	flush();
	return;
}

sub set_for_all
{
	my ($name, $value) = @_;

	$node->safe_psql('postgres', "ALTER SYSTEM SET $name = '$value'; SELECT pg_reload_conf();");
	return;
}

# Stops the server in one of many ways and starts it again.
sub restart
{
	my $way = pick('fast', 'immediate', 'kill');

	$count{$way}++;
	if ($way eq 'kill') { QuotaTest::Workers::kill_postmaster($node) }
	else { $node->stop($way); $node->start }
	return;
}

# Waits until the workers have done all that the simulation says of strategies that are in use and valid; others they
# need not have looked at yet, which makes no difference to what they record.
sub await_workers
{
	my @names = grep {
		my $columns = $simulation->columns($_);
		     $columns->{type} eq 'periodic' && $columns->{enabled} && !$columns->{archived}
		  && $columns->{valid_from} <= $now && $now < $columns->{valid_until}
	} $simulation->names;
	my $expected = join ',', map {
		my $name = $_;
		my %sum = (firings => 0, done => 0, incomplete => 0, failed => 0, skipped => 0);
		foreach my $row ($simulation->rows($name))
		{
			$sum{firings} += $row->{count};
			$sum{ $row->{state} }++;
		}
		join ' ', $name, @sum{qw(firings done incomplete failed skipped)}
	} @names;
	my $list = join ', ', map { "'$_'" } @names;

	wait_until($node, <<"SQL", result => $expected);
SELECT string_agg(concat_ws(' ', s.name, coalesce(firings, 0), coalesce(done, 0), coalesce(incomplete, 0), coalesce(failed, 0), coalesce(skipped, 0)), ',' ORDER BY s.name COLLATE "C")
FROM quota_manager.quota_strategy s LEFT JOIN
	(SELECT strategy_id, sum(occurrences) AS firings, count(*) FILTER (WHERE state = 'done') AS done, count(*) FILTER (WHERE state = 'incomplete') AS incomplete,
		count(*) FILTER (WHERE state = 'failed') AS failed, count(*) FILTER (WHERE state = 'skipped') AS skipped
	FROM quota_manager.quota_run WHERE scheduled_time IS NOT NULL GROUP BY strategy_id) r ON r.strategy_id = s.id
WHERE s.name IN ($list)
SQL
	return;
}

# Steps in which the workers do it; nothing else happens before they are done, but that the server crashes. A reload of
# their settings ends all back-offs. Nobody reads balances for them, and it is not told which strategy they run first.
sub steps_by_workers
{
	my ($left, $number) = @_;

	set_balances_known($_, 0) foreach 'gateway', 'elsewhere';
	flush();
	set_for_all('quota_manager.schedule_clock', time_text($now));
	set_for_all('quota_manager.workers', 'on');
	# what was edited after the last scan, or left over by one that was broken off
	$simulation->tick($now);
	await_workers();
	foreach my $step (1 .. $number)
	{
		$now = next_time($left - $step);
		set_for_all('quota_manager.schedule_clock', time_text($now));
		push @history, [ undef, sprintf q(SET quota_manager.schedule_clock = '%s'; SELECT quota_internal.end_back_offs(); CALL quota_manager.tick(); -- workers), time_text($now) ];
		restart() if rand() < ($long ? 0.05 : 0.1);
		$simulation->tick($now);
		await_workers();
		if (rand() < 0.3)
		{
			say_time();
			change();
			flush();
			set_for_all('quota_manager.schedule_clock', time_text($now));
			$simulation->tick($now);
			await_workers();
		}
		$count{workers}++;
	}
	set_for_all('quota_manager.workers', 'off');
	wait_until($node, 'SELECT count(pid) = 0 FROM quota_manager.worker_status WHERE kind <> $$launcher$$');
	say_time();
	sql('SELECT count(*) FROM quota_manager.scan();');
	$simulation->scan($now);
	flush();
	return;
}

# A step in which the server crashes in the middle of a scan: where it waits for an edit of some strategy, or when it
# is done with it. How far it came is seen afterwards, and then nothing runs for a while.
sub crash_in_scan
{
	my ($left) = @_;

	$now = next_time($left);
	set_balances_known('gateway', 0);
	flush();
	my $clock = sprintf q(SET quota_manager.schedule_clock = '%s'), time_text($now);
	my @scan = pick([ 'SELECT quota_internal.end_back_offs()', 'CALL quota_manager.tick()' ], ['SELECT count(*) FROM quota_manager.scan()']);
	my @names = grep { !$simulation->refused($_) } $simulation->names;
	my @due = grep { $simulation->is_due($_, $now) } @names;
	my $name = pick(@due ? @due : @names);
	my ($out, $err) = ('', '');

	# no session: that would have to be ended before the server is started again
	$node->safe_psql('postgres', <<"SQL");
BEGIN;
UPDATE quota_manager.quota_strategy SET title = title WHERE name = '$name';
PREPARE TRANSACTION 'edit';
SQL
	my $scanner = IPC::Run::start(
		[ 'psql', '-XAtq', '-d', $node->connstr('postgres'), map { ('-c', $_) } $clock, @scan, 'CREATE TABLE scanned ()' ],
		'<', '/dev/null', '>', \$out, '2>', \$err);
	wait_until($node, q(SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted) OR to_regclass('scanned') IS NOT NULL));
	if (rand() < 0.5) { QuotaTest::Workers::kill_postmaster($node) }
	else { $node->stop('immediate'); $node->start }
	# however it ends
	$scanner->finish;
	my $scanned = $node->safe_psql('postgres', q(SELECT to_regclass('scanned') IS NOT NULL; ROLLBACK PREPARED 'edit'; DROP TABLE IF EXISTS scanned;));
	$count{ $scanned eq 't' ? 'crashes after scans' : 'crashes in scans' }++;
	push @history, [ undef, join "; ", $clock, @scan, "-- crashes" ];

	my %once = map { $_ => 1 } split /\n/, $node->safe_psql('postgres', <<'SQL');
SELECT DISTINCT s.name FROM quota_manager.quota_execute e JOIN quota_manager.quota_strategy s ON s.id = e.strategy_id WHERE e.scheduled_time = '-infinity'
SQL
	my $found = found_rows($node);
	foreach my $name ($simulation->names)
	{
		my ($occurrences, %states) = (0);

		foreach my $row (split /\n/, $found->{$name} // '')
		{
			my ($first, undef, $firings, $state) = split / /, $row;

			$occurrences += $firings;
			$states{$first} = $state;
		}
		$simulation->scan_broken_off($now, $name, $occurrences, \%states, $once{$name});
	}
	compare('after a crash');
	return;
}

sub compare
{
	my ($when) = @_;

	compare_runs($node, $simulation, \@history, "$when: runs and grants as simulated, " . time_text($now));
	return;
}

sub walk
{
	my ($seed) = @_;

	srand $seed;
	note("seed $seed");
	%count = ();
	@history = ();
	$node = QuotaTest::Workers::cluster("year$seed", preload => 1, settings => <<'EOC');
fsync = off
autovacuum_naptime = 5s
max_wal_size = 4GB
log_min_messages = error
log_statement = none
max_prepared_transactions = 1
quota_manager.workers = off
quota_manager.balance_max_age = 1d
EOC
	QuotaTest::Workers::database($node, 'postgres', { url => 'http://127.0.0.1:9' });

	$now = $begin;
	$random = QuotaTest::RandomStrategies->new($begin - 86_400 * $second, $end + 86_400 * $second, @zones);
	$simulation = QuotaTest::FiringSimulation->new(
		firings => sub { return $random->firings(@_) },
		users => \&users_of,
		pays_at => 'gateway');
	sql(q(INSERT INTO quota_manager.user_info (id, vip) VALUES ('u1', 0), ('u2', 1), ('u3', 2);));
	sql(q(UPDATE quota_manager.quota_gateway SET is_default = false;));
	sql(q(INSERT INTO quota_manager.quota_gateway (name, dialect, base_url) VALUES ('elsewhere', 'higress', 'http://127.0.0.1:9');));
	sql(q(INSERT INTO quota_manager.quota_model VALUES ('paid', 'gateway'), ('elsewhere', 'elsewhere');));
	set_broken("m$_", 0) foreach 1 .. $QuotaTest::RandomStrategies::models;
	set_balances_known($_, 1) foreach 'gateway', 'elsewhere';
	say_time();
	create('s' . (1000 + $_)) foreach 0 .. $strategies - 1;

	my $left = $steps;
	my $checks = 0;
	while ($left > 0)
	{
		my $how = pick('scan', 'scan', 'scan', 'tick', 'workers', 'crash');
		my $number = $how eq 'crash' ? 1 : between(1, $how eq 'workers' ? 12 : 60);

		$number = $left if $number > $left;
		flush();
		if ($how eq 'workers') { steps_by_workers($left, $number) }
		elsif ($how eq 'crash') { crash_in_scan($left) }
		else { steps_by_session($left, $number, $how) }
		$left -= $number;
		restart() if rand() < 0.15;
		compare("after $how") if $how ne 'crash' && $checks++ % ($long ? 5 : 3) == 0;
	}
	$now = $end;
	say_time();
	sql('SELECT count(*) FROM quota_manager.scan();');
	flush();
	$simulation->scan($now);
	compare('at the end');
	my ($firings, $runs, $stretches) = account_for_firings($node, $simulation, $now);
	cmp_ok($runs, '>', $steps / 4, 'enough of them were run');
	cmp_ok($stretches, '>', $steps / 4, 'and enough were not');
	note("$firings firings: $runs run, the others in $stretches rows; quota_run has ",
		$node->safe_psql('postgres', q(SELECT pg_size_pretty(pg_total_relation_size('quota_manager.quota_run')))));
	note(join ', ', map { "$count{$_} $_" } sort keys %count);
	$node->stop;
	return;
}

foreach my $seed (@seeds)
{
	subtest("seed $seed" => sub { walk($seed) });
}

done_testing();
