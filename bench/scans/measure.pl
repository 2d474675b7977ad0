# Measures scans beside what somebody would write by hand; started by bench/scan, as the user who owns the cluster.
#
#   measure.pl WORK [--rounds N] [--ids serial|uuid] [MEASURE [USERS]...]...
#
# WORK holds the running cluster's socket and the built loop client, and gets scan.csv.
use strict;
use warnings;
use File::Basename;
use List::Util qw(max min sum);
use Time::HiRes qw(clock_gettime sleep time CLOCK_MONOTONIC);

my $here = dirname(__FILE__);
my $work = shift @ARGV // die "usage: measure.pl WORK ...\n";
my ($rounds, $ids, $quick) = (undef, 'serial', 0);
my $superuser = getpwuid($<);

# A connection that is kept, by a psql that reads from a pipe.
package Session;

use IPC::Open2;

sub new
{
	my ($class, $database, $role) = @_;
	my $self = bless {}, $class;

	open my $saved, '>&', \*STDERR or die;
	open STDERR, '>>', "$work/psql.err" or die;
	$self->{process} = open2($self->{out}, $self->{in}, 'psql', '-X', '-q', '-At', '-v', 'ON_ERROR_STOP=1',
		'-h', $work, '-U', $role, '-d', $database);
	open STDERR, '>&', $saved or die;
	$self->{in}->autoflush(1);
	# What somebody who knows would set by hand: compiling costs more than it saves.
	$self->query('SET jit = off; SET client_min_messages = warning');
	$self->{backend} = $self->query('SELECT pg_backend_pid()');
	return $self;
}

# Sends statements without waiting for them.
sub start
{
	my ($self, $sql) = @_;

	$self->{sent} = $sql;
	print { $self->{in} } "$sql;\n\\echo == done\n";
}

# Waits for what was sent, and returns what it printed.  The callback is called every few milliseconds.
sub finish
{
	my ($self, $callback) = @_;
	my $result = '';
	my $bits = '';

	vec($bits, fileno($self->{out}), 1) = 1;
	while ($callback && !select(my $ready = $bits, undef, undef, 0.005)) { $callback->() }
	while (my $line = readline $self->{out})
	{
		if ($line eq "== done\n") { chomp $result; return $result }
		$result .= $line;
	}
	die "psql gave up on " . substr($self->{sent}, 0, 300) . "\n" . `tail -5 $work/psql.err`;
}

sub query
{
	my ($self, $sql) = @_;

	$self->start($sql);
	return $self->finish;
}

# Runs statements and returns the milliseconds that they took; what they printed is in {result}.
sub time
{
	my ($self, $sql) = @_;
	my $start = main::clock_gettime(main::CLOCK_MONOTONIC);

	$self->{result} = $self->query($sql);
	return (main::clock_gettime(main::CLOCK_MONOTONIC) - $start) * 1000;
}

sub close
{
	my $self = shift;

	close $self->{in};
	close $self->{out};
	waitpid $self->{process}, 0;
}

package main;

# ---- figures ----

my @figures;

sub record
{
	my %figure = @_;

	push @figures, \%figure;
}

sub median
{
	my @sorted = sort { $a <=> $b } @_;

	return undef if !@sorted;
	return @sorted % 2 ? $sorted[$#sorted / 2] : ($sorted[@sorted / 2 - 1] + $sorted[@sorted / 2]) / 2;
}

# The values of a way in this measure by round.
sub values_of
{
	my ($measure, $users, $way) = @_;

	return map { $_->{round} => $_->{value} }
		grep { $_->{measure} eq $measure && $_->{users} == $users && $_->{way} eq $way } @figures;
}

# Prints the median of each way of a measure.
sub print_ways
{
	my ($measure, $users, $unit) = @_;
	my @ways;

	for my $figure (grep { $_->{measure} eq $measure && $_->{users} == $users } @figures)
	{
		push @ways, $figure->{way} if !grep { $_ eq $figure->{way} } @ways;
	}
	for my $way (@ways)
	{
		my %of = values_of($measure, $users, $way);
		my ($grants) = map { $_->{grants} // () } grep { $_->{measure} eq $measure && $_->{users} == $users && $_->{way} eq $way } @figures;

		printf "  %-44s %10.2f %s  (%.2f to %.2f)%s\n", $way, median(values %of), $unit, min(values %of), max(values %of),
			defined $grants ? ", $grants grants" : '';
	}
}

# Prints how one way compares with another: the median of the ratios of each round.
sub print_ratio
{
	my ($measure, $users, $way, $other, $aim, $is_at_least) = @_;
	my %of = values_of($measure, $users, $way);
	my %by = values_of($measure, $users, $other);
	my $ratio = median(map { $of{$_} / $by{$_} } grep { exists $by{$_} } keys %of);
	my $verdict = '';

	return if !defined $ratio;
	$verdict = sprintf ', aim at %s %s: %s', $is_at_least ? ('least', $aim) : ('most', $aim),
		($is_at_least ? $ratio >= $aim : $ratio <= $aim) ? 'met' : 'MISSED' if defined $aim;
	printf "  %s / %s = %.3f%s\n", $way, $other, $ratio, $verdict;
	record(measure => "$measure: ratio", users => $users, way => "$way / $other", round => 0, value => $ratio, unit => '', aim => $aim);
}

# Prints whether the median of a way is below what was aimed at.
sub print_aim
{
	my ($measure, $users, $way, $aim, $unit) = @_;
	my %of = values_of($measure, $users, $way);

	printf "  %s: %.3f %s, aim at most %s: %s\n", $way, median(values %of), $unit, $aim, median(values %of) <= $aim ? 'met' : 'MISSED';
}

# ---- the database ----

my ($control, $scans, $hand, $database, %made);

# The statement that is measured, and a check of what it says: psql prints granted|errors|first error.
my $scan = 'SELECT coalesce(sum(s.granted), 0), count(s.error), min(s.error) FROM quota_manager.scan() s';

sub check_scan
{
	my $result = shift;

	die "the scan failed: $result\n" if $result !~ /^\d+\|0\|$/;
}

# Makes the users, unless there are so many already, and connects.
sub use_users
{
	my $users = shift;

	$_ && $_->close for $control, $scans, $hand;
	$database = "bench_$users";
	if (!$made{$users}++)
	{
		my $start = time;

		$control = Session->new('postgres', $superuser);
		$control->query("CREATE DATABASE $database");
		$control->query('CREATE ROLE bench_scanner LOGIN') if !$control->query("SELECT 1 FROM pg_roles WHERE rolname = 'bench_scanner'");
		$control->close;
		$control = Session->new($database, $superuser);
		$control->query('CREATE EXTENSION quota_manager');
		$control->query("SELECT quota_manager.grant_access('bench_scanner', 'worker')");
		$control->query("INSERT INTO quota_manager.quota_gateway (name, dialect, base_url, is_default)
			VALUES ('bench', 'zgsm', 'http://127.0.0.1:1', true)");
		system('psql', '-X', '-q', '-h', $work, '-U', $superuser, '-d', $database, '-v', 'ON_ERROR_STOP=1',
			'-v', "users=$users", '-v', "ids=$ids", '-f', "$here/users.sql", '-f', "$here/strategies.sql") == 0 or die "no users\n";
		$control->close;
		printf "%d users made in %.0f s\n", $users, time - $start;
	}
	# Each way has its own connection, as each would.  Scans run as a role that may only do that.
	$control = Session->new($database, $superuser);
	$scans = Session->new($database, 'bench_scanner');
	$hand = Session->new($database, $superuser);
}

# Empties what scans have written: every table of the extension but those that people fill.
sub forget_grants
{
	my $tables = $control->query("SELECT string_agg(c.oid::regclass::text, ', ') FROM pg_depend d
		JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'quota_manager'
		JOIN pg_class c ON c.oid = d.objid
		WHERE d.refclassid = 'pg_extension'::regclass AND d.classid = 'pg_class'::regclass AND d.deptype = 'e' AND c.relkind = 'r'
			AND c.relname NOT IN ('user_info', 'quota_strategy', 'quota_gateway', 'quota_model', 'quota_credential', 'quota_installation', 'quota_worker')");

	$control->query("TRUNCATE $tables; TRUNCATE plain_grant, plain_grant_two_keys, loop_grant");
}

# The strategies of a set, and only they.
sub load_strategies
{
	my $set = shift;

	forget_grants();
	$control->query('DELETE FROM quota_manager.quota_strategy');
	$control->query("INSERT INTO quota_manager.quota_strategy (id, name, type, amount, model, condition, enabled)
		SELECT id, 'bench ' || id, 'single', 1, 'm', condition::quota_manager.condition, false FROM bench_strategy WHERE set = '$set' ORDER BY id");
	$control->query(q{INSERT INTO quota_manager.quota_strategy (id, name, type, amount, model, condition, enabled)
		VALUES (100000, 'warm up', 'single', 1, 'm', 'match-user("user1")', false)});
}

sub enable
{
	my $where = shift;

	$control->query("UPDATE quota_manager.quota_strategy SET enabled = ($where) WHERE enabled <> ($where)");
}

# The names of the ways, and the table that each writes.
my %table = (
	'scan()' => 'quota_manager.quota_execute',
	'by hand, plain table' => 'plain_grant',
	'by hand, plain table with a key on id' => 'plain_grant_two_keys',
	'by hand, into quota_execute' => 'quota_manager.quota_execute');

# What is written by hand into quota_execute: the columns that it has.
sub own_columns
{
	my $strategy = shift;
	my @columns = (strategy_id => $strategy, user_id => 'u.id', scheduled_time => "'-infinity'", run_id => 1, strategy_version => 1, amount => 1,
		model => "'m'", gateway => "'bench'", batch_number => "'20250701080000'", create_time => 'now()', update_time => 'now()');
	my %present = map { $_ => 1 } split /\n/,
		$control->query("SELECT attname FROM pg_attribute WHERE attrelid = 'quota_manager.quota_execute'::regclass AND attnum > 0 AND NOT attisdropped");
	my (@names, @values);

	while (my ($name, $value) = splice @columns, 0, 2)
	{
		next if !$present{$name};
		push @names, $name;
		push @values, $value;
	}
	return (join(', ', @names), join(', ', @values));
}

# One statement by hand for a strategy.
sub by_hand
{
	my ($table, $id, $predicate) = @_;
	my ($names, $values, $key) = ('strategy_id, user_id, amount', "$id, u.id, 1", '');

	if ($table eq 'quota_manager.quota_execute')
	{
		($names, $values) = own_columns($id);
		$key = " AND g.scheduled_time = '-infinity' AND g.revision = 0";
	}
	return "INSERT INTO $table ($names) SELECT $values FROM quota_manager.user_info u WHERE ($predicate)"
		. " AND NOT EXISTS (SELECT 1 FROM $table g WHERE g.strategy_id = $id AND g.user_id = u.id$key)";
}

# What is measured of a way over a set of strategies; by hand it is one statement per strategy.
sub work_of
{
	my ($way, $set) = @_;
	my @statements;

	return $scan if $way eq 'scan()';
	for my $id (split /\n/, $control->query("SELECT id FROM bench_strategy WHERE set = '$set' ORDER BY id"))
	{
		push @statements, by_hand($table{$way}, $id, $control->query("SELECT predicate FROM bench_strategy WHERE set = '$set' AND id = $id"));
	}
	return join(";\n", 'BEGIN', @statements, 'COMMIT');
}

sub session_of
{
	return $_[0] eq 'scan()' ? $scans : $hand;
}

# Runs the work of a way, timed.
sub measure_way
{
	my ($way, $work) = @_;
	my $session = session_of($way);

	$control->query('CHECKPOINT');
	my $elapsed = $session->time($work);

	check_scan($session->{result}) if $way eq 'scan()';
	return $elapsed;
}

# Before a first scan: nothing is granted, and the session has done the like before.
sub make_new
{
	my $way = shift;

	forget_grants();
	if ($way eq 'scan()')
	{
		enable('id = 100000');
		check_scan($scans->query($scan));
		enable('id < 100000');
	}
	else
	{
		$hand->query(by_hand($table{$way}, 100000, q{u.id = 'user1'}));
	}
}

# How many grants a way has written, beside the one that warmed it up.
sub count_grants
{
	my $way = shift;

	return $control->query("SELECT count(*) FROM $table{$way} WHERE strategy_id < 100000");
}

# Dies unless all ways have written as many grants.
sub same_grants
{
	my ($expected, $count, $way) = @_;

	$$expected //= $count;
	die "$way wrote $count grants, not $$expected\n" if $$expected != $count;
}

# Users who would still be granted something by hand after scans: none may be.
sub check_nobody_is_missing
{
	my $set = shift;
	my $missing = 0;

	for my $id (split /\n/, $control->query("SELECT id FROM bench_strategy WHERE set = '$set' ORDER BY id"))
	{
		my $predicate = $control->query("SELECT predicate FROM bench_strategy WHERE set = '$set' AND id = $id");

		$missing += $control->query("SELECT count(*) FROM quota_manager.user_info u WHERE ($predicate) AND NOT EXISTS
			(SELECT 1 FROM quota_manager.quota_execute g WHERE g.strategy_id = $id AND g.user_id = u.id)");
	}
	die "$missing grants are missing\n" if $missing;
}

# An edit of each strategy: what was found before does not count, and all users are looked at.
sub edit_strategies
{
	$control->query("UPDATE quota_manager.quota_strategy SET title = title || '.' WHERE enabled");
}

# The ways, who comes first changing from round to round.
sub rotate
{
	my ($round, @ways) = @_;

	push @ways, shift @ways for 1 .. $round % @ways;
	return @ways;
}

# ---- the measures ----

# A first scan of 20 mixed strategies.
sub measure_first
{
	my $users = shift;
	my @ways = ('scan()', 'by hand, plain table', 'by hand, plain table with a key on id', 'by hand, into quota_execute');
	my %work_of;
	my $expected;

	load_strategies('mixed');
	$work_of{$_} = work_of($_, 'mixed') for @ways;
	for my $round (1 .. $rounds)
	{
		for my $way (rotate($round, @ways))
		{
			make_new($way);
			my $from = $control->query('CHECKPOINT; SELECT pg_current_wal_insert_lsn()');
			my $elapsed = measure_way($way, $work_of{$way});
			my $wal = $control->query("SELECT pg_current_wal_insert_lsn() - '$from'");
			my $grants = count_grants($way);

			same_grants(\$expected, $grants, $way);
			record(measure => 'first, WAL', users => $users, way => $way, round => $round, value => $wal / $grants, unit => 'bytes');
			record(measure => 'first, size', users => $users, way => $way, round => $round, unit => 'bytes',
				value => $control->query("SELECT pg_total_relation_size('$table{$way}')") / $grants);
			record(measure => 'first', users => $users, way => $way, round => $round, value => $elapsed, unit => 'ms', grants => $grants);
		}
	}
	print_ways('first', $users, 'ms');
	print_ratio('first', $users, 'scan()', 'by hand, plain table', 0.95);
	print_ratio('first', $users, 'scan()', 'by hand, plain table with a key on id');
	print_ratio('first', $users, 'scan()', 'by hand, into quota_execute', 0.8);
	for my $what ('WAL', 'size')
	{
		print $what eq 'WAL' ? " WAL per grant:\n" : " table and indexes per grant:\n";
		print_ways("first, $what", $users, 'bytes');
	}
}

# 200 strategies: a first scan, and one with nothing new to grant, of all users and of what changed.
sub measure_many
{
	my ($measure, $users, $first_aim, $again_aim) = @_;
	my @ways = ('scan()', 'by hand, plain table', 'by hand, into quota_execute');
	my %work_of;
	my $expected;

	load_strategies($measure);
	$work_of{$_} = work_of($_, $measure) for @ways;
	for my $round (1 .. $rounds)
	{
		for my $way (rotate($round, @ways))
		{
			make_new($way);
			my $elapsed = measure_way($way, $work_of{$way});
			my $grants = count_grants($way);

			same_grants(\$expected, $grants, $way);
			record(measure => "$measure, first", users => $users, way => $way, round => $round, value => $elapsed, unit => 'ms', grants => $grants);
			# As autovacuum would have done it.
			$control->query("ANALYZE $table{$way}");
			if ($way eq 'scan()')
			{
				$elapsed = measure_way($way, $work_of{$way});
				record(measure => "$measure, nothing new", users => $users, way => 'scan(), nothing edited', round => $round, value => $elapsed, unit => 'ms');
				edit_strategies();
			}
			$elapsed = measure_way($way, $work_of{$way});
			record(measure => "$measure, nothing new", users => $users, way => $way, round => $round, value => $elapsed, unit => 'ms');
			same_grants(\$expected, count_grants($way), "$way, the second time,");
		}
	}
	for my $stage ('first', 'nothing new')
	{
		my $aim = $stage eq 'first' ? $first_aim : $again_aim;

		print " $stage:\n";
		print_ways("$measure, $stage", $users, 'ms');
		print_ratio("$measure, $stage", $users, 'scan()', 'by hand, plain table', $aim);
		print_ratio("$measure, $stage", $users, 'scan()', 'by hand, into quota_execute', $aim);
	}
}

sub measure_selective { measure_many('selective', $_[0], 1.1, 1.1) }
sub measure_noindex { measure_many('noindex', $_[0], undef, 0.4) }
sub measure_shared { measure_many('shared', $_[0], undef, 0.15) }

# What a strategy costs that matches nobody: alone, and each of a hundred more.
sub measure_fixed
{
	my $users = shift;
	my $repeated = 50;
	my $statement = by_hand('plain_grant', 1, "u.id = 'nobody 1'");

	forget_grants();
	$control->query('DELETE FROM quota_manager.quota_strategy');
	$control->query("INSERT INTO quota_manager.quota_strategy (id, name, type, amount, model, condition, enabled)
		SELECT n, 'bench ' || n, 'single', 1, 'm', format('match-user(\"nobody %s\")', n)::quota_manager.condition, false FROM generate_series(1, 101) n");
	# To wait for the disk is not what is measured.
	$_->query('SET synchronous_commit = off') for $scans, $hand;
	for my $round (0 .. $rounds)
	{
		enable('id = 1');
		check_scan($scans->query($scan)) for 1 .. 3;
		my $none = $scans->time(join ";\n", ('SELECT 1') x $repeated) / $repeated;
		my $one = $scans->time(join ";\n", ($scan) x $repeated) / $repeated;
		my $by_hand = $hand->time(join ";\n", ($statement) x $repeated) / $repeated;
		enable('id <= 101');
		check_scan($scans->query($scan)) for 1 .. 3;
		my $hundred = $scans->time(join ";\n", ($scan) x ($repeated / 5)) / ($repeated / 5);
		edit_strategies();
		my $hundred_edited = $scans->time($scan);

		# The first is for warming up.
		next if $round == 0;
		record(measure => 'fixed', users => $users, way => 'a statement that does nothing', round => $round, value => $none, unit => 'ms');
		record(measure => 'fixed', users => $users, way => 'scan() of one', round => $round, value => $one, unit => 'ms');
		record(measure => 'fixed', users => $users, way => 'each of a hundred more', round => $round, value => ($hundred - $one) / 100, unit => 'ms');
		record(measure => 'fixed', users => $users, way => 'each of a hundred more, edited', round => $round, value => ($hundred_edited - $one) / 100, unit => 'ms');
		record(measure => 'fixed', users => $users, way => 'by hand, plain table', round => $round, value => $by_hand, unit => 'ms');
	}
	print_ways('fixed', $users, 'ms');
	print_aim('fixed', $users, 'scan() of one', 0.2, 'ms');
	print_aim('fixed', $users, 'each of a hundred more', 0.2, 'ms');
}

# Changes one user in a thousand, others in each round.
sub change_users
{
	my $salt = shift;

	return $control->query("WITH changed AS (UPDATE quota_manager.user_info SET vip = (coalesce(vip, 0) + 1) % 7, access_time = timestamptz '2025-11-30 12:00:00+00'
		WHERE abs(hashtext(id || $salt)::bigint) % 1000 = 0 RETURNING 1) SELECT count(*) FROM changed");
}

# A scan after one user in a thousand changed, and one of all users, of 20 mixed strategies.
sub measure_rescan
{
	my $users = shift;
	my $by_hand;

	load_strategies('mixed');
	$by_hand = work_of('by hand, plain table', 'mixed');
	make_new('scan()');
	measure_way('scan()', $scan);
	$hand->query($by_hand);
	$control->query("ANALYZE quota_manager.quota_execute; ANALYZE plain_grant");
	for my $round (1 .. $rounds)
	{
		for my $way (rotate($round, 'changed', 'all'))
		{
			my $changed = change_users($round * 2 + ($way eq 'all'));

			edit_strategies() if $way eq 'all';
			my $elapsed = measure_way('scan()', $scan);
			my ($granted) = $scans->{result} =~ /^(\d+)/;

			record(measure => 'rescan', users => $users, way => $way eq 'all' ? 'scan() of all users' : 'scan() after 0.1 % changed', round => $round,
				value => $elapsed, unit => 'ms', grants => $granted);
			check_nobody_is_missing('mixed');
		}
		record(measure => 'rescan', users => $users, way => 'by hand, plain table', round => $round,
			value => measure_way('by hand, plain table', $by_hand), unit => 'ms');
	}
	same_grants(\(my $expected = count_grants('by hand, plain table')), $control->query(
		"SELECT count(*) FROM quota_manager.quota_execute WHERE strategy_id < 100000"), 'scan()');
	print_ways('rescan', $users, 'ms');
	print_ratio('rescan', $users, 'scan() after 0.1 % changed', 'scan() of all users', 0.03);
	print_ratio('rescan', $users, 'scan() of all users', 'by hand, plain table');
}

# One new strategy that few users meet.
sub measure_one
{
	my $users = shift;
	my @kinds = (
		['three named users', 'match-user("user5", "user50", "user500")', q{u.id IN ('user5', 'user50', 'user500')}],
		['an organisation', 'belong-to("org60")', q{u.org = 'org60'}],
		['two organisations, VIP', 'and(belong-to("org20", "org21"), is-vip(1))', q{u.org IN ('org20', 'org21') AND u.vip >= 1}],
		['a project', 'github-star("project/100")', q{quota_manager.star_list(u.github_star) @> '{project/100}'}],
		['the first who registered', 'register-before("2020-12-29 00:00:00")', q{u.register_time < '2020-12-29 00:00:00+00'}]);
	my $id = 0;

	forget_grants();
	$control->query('DELETE FROM quota_manager.quota_strategy');
	for my $round (0 .. $rounds)
	{
		for my $kind (@kinds)
		{
			my ($name, $condition, $predicate) = @$kind;
			my %elapsed;
			my $granted;

			$id++;
			$control->query("UPDATE quota_manager.quota_strategy SET enabled = false WHERE enabled;
				INSERT INTO quota_manager.quota_strategy (id, name, type, amount, model, condition) VALUES ($id, 'bench $id', 'single', 1, 'm', '$condition')");
			for my $way (rotate($round, 'scan()', 'by hand, plain table'))
			{
				$elapsed{$way} = measure_way($way, $way eq 'scan()' ? $scan : by_hand('plain_grant', $id, $predicate));
				$granted = $control->query("SELECT count(*) FROM $table{$way} WHERE strategy_id = $id") if !defined $granted;
				same_grants(\$granted, $control->query("SELECT count(*) FROM $table{$way} WHERE strategy_id = $id"), $way);
			}
			# The first is for warming up.
			next if $round == 0;
			record(measure => 'one', users => $users, way => "scan(), $name", round => $round, value => $elapsed{'scan()'}, unit => 'ms', grants => $granted);
			record(measure => 'one', users => $users, way => "by hand, $name", round => $round, value => $elapsed{'by hand, plain table'}, unit => 'ms', grants => $granted);
		}
	}
	print_ways('one', $users, 'ms');
	print_aim('one', $users, "scan(), $_->[0]", 10, 'ms') for @kinds;
	print_ratio('one', $users, "scan(), $_->[0]", "by hand, $_->[0]") for @kinds;
}

# 20 mixed strategies beside a program that asks for each user with prepared statements.
sub measure_loop
{
	my $users = shift;
	my $expected;
	my $last = 0;

	load_strategies('mixed');
	for my $round (1 .. $rounds)
	{
		make_new('scan()');
		my $elapsed = measure_way('scan()', $scan);

		same_grants(\$expected, count_grants('scan()'), 'scan()');
		record(measure => 'loop', users => $users, way => 'scan(), first', round => $round, value => $elapsed, unit => 'ms', grants => $expected);
		record(measure => 'loop', users => $users, way => 'scan(), nothing new', round => $round, value => measure_way('scan()', $scan), unit => 'ms');
		edit_strategies();
		record(measure => 'loop', users => $users, way => 'scan(), nothing new, edited', round => $round, value => measure_way('scan()', $scan), unit => 'ms');
		for my $commit ('once', 'each')
		{
			for my $stage ('first', 'nothing new')
			{
				my ($asked, $granted, $seconds) = split ' ', `$work/loop "host=$work user=$superuser dbname=$database" mixed $commit`;

				die "the loop failed\n" if $?;
				die "the loop wrote $granted grants, not $expected\n" if $granted != ($stage eq 'first' ? $expected : 0);
				record(measure => 'loop', users => $users, way => "loop, $stage" . ($commit eq 'once' ? ', one transaction' : ''), round => $round,
					value => $seconds * 1000, unit => 'ms', grants => $granted) if $stage eq 'first' || $commit eq 'once';
			}
			$control->query('TRUNCATE loop_grant');
		}
	}
	print_ways('loop', $users, 'ms');
	print_ratio('loop', $users, 'loop, first', 'scan(), first', 600, 1);
	print_ratio('loop', $users, 'loop, first, one transaction', 'scan(), first');
	print_ratio('loop', $users, 'loop, nothing new, one transaction', 'scan(), nothing new, edited');
	print_ratio('loop', $users, 'loop, nothing new, one transaction', 'scan(), nothing new');
}

# What a process has of its own, in megabytes: memory that it shares with others is not counted.
sub own_memory
{
	my $sum = 0;

	for my $pid (@_)
	{
		open my $status, '<', "/proc/$pid/status" or next;
		/^RssAnon:\s+(\d+)/ and $sum += $1 for <$status>;
		close $status;
	}
	return $sum / 1024;
}

# The processes that work for a backend.
sub workers_of
{
	my $backend = shift;
	my @workers;

	for my $file (glob '/proc/[0-9]*/cmdline')
	{
		open my $line, '<', $file or next;
		my ($pid) = $file =~ /(\d+)/;
		my $text = <$line> // '';

		push @workers, $pid if $text =~ /parallel worker for PID $backend\b/;
	}
	return @workers;
}

# Runs statements and returns by how many megabytes the session and its workers grew meanwhile, at most.
sub growth_of
{
	my ($session, $sql) = @_;
	my $before = own_memory($session->{backend});
	my ($highest, $ticks, @workers) = ($before, 0);

	$session->start($sql);
	my $result = $session->finish(sub {
		@workers = workers_of($session->{backend}) if $ticks++ % 20 == 0;
		$highest = max($highest, own_memory($session->{backend}, @workers));
	});
	return ($highest - $before, $result);
}

# Memory of scans of 200 strategies, some of which grant to many.
sub measure_memory
{
	my $users = shift;

	load_strategies('memory');
	for my $work_mem ('4MB', '64MB')
	{
		for my $round (1 .. max(1, $rounds / 2))
		{
			for my $way ('scan()', 'by hand, plain table')
			{
				make_new($way);
				my $session = session_of($way);
				my $statements = work_of($way, 'memory');

				$session->query("SET work_mem = '$work_mem'");
				for my $stage ('first', 'nothing new')
				{
					my ($growth, $result) = growth_of($session, $statements);

					check_scan($result) if $way eq 'scan()';
					record(measure => 'memory', users => $users, way => "$way, $stage, work_mem $work_mem", round => $round, value => $growth, unit => 'MB',
						grants => count_grants($way));
					edit_strategies();
				}
				# What it has kept is not counted to the next.
				$_->close for $scans, $hand;
				$scans = Session->new($database, 'bench_scanner');
				$hand = Session->new($database, $superuser);
			}
		}
	}
	print_ways('memory', $users, 'MB');
}

# Milliseconds that 99 in 100 transactions of pgbench stay below, of those that ended between two times.
sub percentile
{
	my ($prefix, $from, $to) = @_;
	my @latencies;

	for my $file (glob "$prefix.*")
	{
		open my $log, '<', $file or die;
		while (<$log>)
		{
			my @field = split ' ';
			my $ended = $field[4] + $field[5] / 1e6;

			# Without the time that pgbench itself was late.
			push @latencies, ($field[2] - $field[6]) / 1000 if $ended >= $from && $ended <= $to;
		}
		close $log;
		unlink $file;
	}
	@latencies = sort { $a <=> $b } @latencies;
	return @latencies ? $latencies[int(0.99 * $#latencies)] : 0;
}

# Runs work while pgbench commits at a fixed rate in another database; returns its 99th percentile and the seconds of the work.
sub beside_pgbench
{
	my ($seconds, $job) = @_;
	my $process = fork // die;

	if (!$process)
	{
		chdir $work;
		open STDOUT, '>', "$work/pgbench.out";
		open STDERR, '>&', \*STDOUT;
		exec 'pgbench', '-n', '-c', 4, '-R', 200, '-T', $seconds, '--log', '--log-prefix', "$work/latency", '-h', $work, '-U', $superuser, 'foreground';
	}
	sleep 1;
	my $from = time;

	$job->();
	my $to = time;

	waitpid $process, 0;
	die "pgbench failed: " . `cat $work/pgbench.out` if $?;
	return (percentile("$work/latency", $from, min($to, $from + $seconds - 1)), $to - $from);
}

# How others fare beside a first scan of 20 mixed strategies, and beside the same by hand.
sub measure_foreground
{
	my $users = shift;
	my @ways = ('scan()', 'by hand, plain table', 'by hand, into quota_execute');
	my (%work_of, %seconds);

	load_strategies('mixed');
	if (!$made{foreground}++)
	{
		$control->query('CREATE DATABASE foreground');
		system("pgbench -i -q -s 10 -h $work -U $superuser foreground >$work/pgbench.out 2>&1") == 0 or die "no foreground\n";
	}
	for my $way (@ways)
	{
		$work_of{$way} = work_of($way, 'mixed');
		make_new($way);
		$seconds{$way} = int(measure_way($way, $work_of{$way}) / 1000 * 2 + 3);
	}
	for my $round (1 .. $rounds)
	{
		my ($idle) = beside_pgbench(5, sub { sleep 3 });

		record(measure => 'foreground', users => $users, way => 'p99 beside nothing', round => $round, value => $idle, unit => 'ms');
		for my $way (rotate($round, @ways))
		{
			make_new($way);
			$control->query('CHECKPOINT');
			my ($p99, $took) = beside_pgbench($seconds{$way}, sub { my $result = session_of($way)->query($work_of{$way}); check_scan($result) if $way eq 'scan()' });

			record(measure => 'foreground', users => $users, way => "p99 beside $way", round => $round, value => $p99, unit => 'ms');
			record(measure => 'foreground, duration', users => $users, way => $way, round => $round, value => $took * 1000, unit => 'ms');
		}
	}
	print_ways('foreground', $users, 'ms');
	print_ways('foreground, duration', $users, 'ms');
	print_ratio('foreground', $users, 'p99 beside scan()', 'p99 beside by hand, plain table', 1.1);
	print_ratio('foreground', $users, 'p99 beside scan()', 'p99 beside by hand, into quota_execute');
}

# A scan of all users right after the first, when nothing knows how many grants there are, and after ANALYZE.
sub measure_stale
{
	my $users = shift;

	load_strategies('mixed');
	for my $round (1 .. $rounds)
	{
		make_new('scan()');
		$control->query("DELETE FROM pg_statistic WHERE starelid = 'quota_manager.quota_execute'::regclass");
		measure_way('scan()', $scan);
		for my $state ('never analysed', 'analysed')
		{
			$control->query('ANALYZE quota_manager.quota_execute') if $state eq 'analysed';
			record(measure => 'stale', users => $users, way => "scan() of what changed, $state", round => $round, value => measure_way('scan()', $scan), unit => 'ms');
			edit_strategies();
			record(measure => 'stale', users => $users, way => "scan() of all users, $state", round => $round, value => measure_way('scan()', $scan), unit => 'ms');
		}
	}
	print_ways('stale', $users, 'ms');
	print_ratio('stale', $users, "scan() of $_, never analysed", "scan() of $_, analysed", 1.1) for 'all users', 'what changed';
}

# ---- what is asked for ----

my @measures = (
	[first => 'a first scan of 20 mixed strategies', \&measure_first, 200000, 1000000],
	[selective => '200 strategies that an index serves', \&measure_selective, 1000000],
	[noindex => '200 strategies that no index serves', \&measure_noindex, 1000000],
	[shared => '200 strategies over 40 calls', \&measure_shared, 1000000],
	[fixed => 'the cost of a strategy that matches nobody', \&measure_fixed, 10000],
	[rescan => 'a scan after 0.1 % of the users changed', \&measure_rescan, 1000000],
	[one => 'one new strategy that few users meet', \&measure_one, 1000000],
	[loop => '20 mixed strategies against a loop over users', \&measure_loop, 10000],
	[memory => 'memory of scans of 200 strategies', \&measure_memory, 100000, 1000000],
	[foreground => 'pgbench beside a first scan', \&measure_foreground, 1000000],
	[stale => 'a scan of grants that were never analysed', \&measure_stale, 1000000]);
my @asked;

sub usage
{
	print "bench/scan [--rounds N] [--ids serial|uuid] [--out FOLDER] [MEASURE [USERS]...]...\n";
	printf "  %-12s %s (%s users)\n", $_->[0], $_->[1], join ', ', @$_[3 .. $#$_] for @measures;
	print "  all          each of them; quick: each with 2,000 users and one round\n";
	exit 1;
}

while (defined(my $argument = shift @ARGV))
{
	if ($argument eq '--rounds') { $rounds = shift @ARGV }
	elsif ($argument eq '--ids') { $ids = shift @ARGV }
	elsif ($argument eq 'all') { push @asked, map { { measure => $_, users => [] } } @measures }
	elsif ($argument eq 'quick') { $rounds //= 1; push @asked, map { { measure => $_, users => [2000] } } @measures }
	elsif ($argument =~ /^\d+$/ && @asked) { push @{ $asked[-1]{users} }, $argument }
	elsif (my ($measure) = grep { $_->[0] eq $argument } @measures) { push @asked, { measure => $measure, users => [] } }
	else { usage() }
}
usage() if !@asked || $ids !~ /^(serial|uuid)$/;
$rounds //= 5;
$| = 1;

for my $asked (@asked)
{
	my ($name, $title, $function, @users) = @{ $asked->{measure} };

	for my $users (@{ $asked->{users} } ? @{ $asked->{users} } : @users)
	{
		use_users($users);
		print "$name: $title, $users users\n";
		$function->($users);
	}
}
$_->close for $control, $scans, $hand;

# All figures, and medians as the plot wants them: first scans by number of users, a block per way, and ratios.
open my $csv, '>', "$work/scan.csv" or die;
print $csv "measure,users,way,round,value,unit,grants,aim\n";
print $csv join(',', map { my $text = $_ // ''; $text =~ /[,"]/ ? "\"$text\"" : $text } @$_{qw(measure users way round value unit grants aim)}), "\n" for @figures;
close $csv;

my (%growth, @ratios);

for my $figure (@figures)
{
	push @{ $growth{ $figure->{way} }{ $figure->{users} } }, $figure->{value} / 1000 if $figure->{measure} eq 'first';
	push @ratios, sprintf("\"%s, %d: %s\" %g %s", $figure->{measure} =~ s/: ratio//r, $figure->{users}, $figure->{way}, $figure->{value}, $figure->{aim})
		if defined $figure->{aim};
}
open my $plot, '>', "$work/growth.dat" or die;
for my $way (sort keys %growth)
{
	print $plot "\"$way\"\n";
	print $plot "$_ ", median(@{ $growth{$way}{$_} }), "\n" for sort { $a <=> $b } keys %{ $growth{$way} };
	print $plot "\n\n";
}
close $plot;
open $plot, '>', "$work/ratios.dat" or die;
print $plot "$_\n" for @ratios;
close $plot;
