
# Ceilings against an oracle: whatever strategies, ceilings, users and scans there are, a run grants exactly the first
# users that fit, or nothing; concurrent scans never grant more; what was counted is what was granted, after crashes and
# in a restored dump too.
#
# QUOTA_MANAGER_LONG=1: ten times as many rounds.  QUOTA_MANAGER_SEED: another seed.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use List::Util qw(min sum0 shuffle);
use PostgreSQL::Test::Utils;
use QuotaTest::CrashPoints qw(crash_cluster arm await_hit);
use QuotaTest::Delivery qw(begin_call end_call);
use QuotaTest::ScanNode qw(scan_node);
use QuotaTest::Seed;
use QuotaTest::Wait qw(wait_until);
use Test::More;
use Time::HiRes qw(time);

my $rounds = $ENV{QUOTA_MANAGER_LONG} ? 300 : 30;
QuotaTest::Seed::start(165);
my $node = scan_node('ceilings', "quota_manager.surge_factor = 0\n");

sub sql { return $node->safe_psql('postgres', join ";\n", @_); }
sub pick { return $_[ rand @_ ]; }
sub rows { return map { [ split /\|/, $_, -1 ] } split /\n/, sql(@_); }

sub clear
{
	sql('TRUNCATE quota_manager.quota_execute, quota_manager.quota_run, quota_manager.quota_ceiling, quota_manager.user_balance',
		'DELETE FROM quota_manager.quota_strategy', 'DELETE FROM quota_manager.user_info',
		'DELETE FROM quota_manager.quota_model', 'DELETE FROM quota_manager.quota_gateway');
	return;
}

# What was counted, and what should have been by the grants of the clocks that they were made at.
sub usage
{
	return sql(q{SELECT string_agg(concat_ws(' ', u.ceiling_id, nullif(u.period_start, '-infinity'), u.grants, trim_scale(u.amount)), ', ' ORDER BY u.ceiling_id, u.period_start)
		FROM quota_manager.quota_ceiling_usage u WHERE u.grants > 0});
}

# The days of the model are those of UTC; its clock is in hours.
sub clock { return sprintf '2026-05-%02d %02d:00:00+00', 1 + int($_[0] / 24), $_[0] % 24; }
sub day { return sprintf '2026-05-%02d 00:00:00+00', 1 + int($_[0] / 24); }

# One run of the model; returns its state, how many it grants and leaves out, and whether those are owed: no ceiling of a
# run alone has cut it.
sub model_run
{
	my ($model, $strategy, $hour) = @_;
	my @over;
	my @under = grep { !defined $_->{strategy} || $_->{strategy} == $strategy->{id} } @{ $model->{ceilings} };
	my $key = sub { $_[0]{period} eq 'total' ? "$_[0]{id}" : "$_[0]{id} " . day($hour) };
	my $left = sub {
		my ($ceiling, $what) = @_;

		return defined $ceiling->{$what} ? $ceiling->{$what} - ($ceiling->{period} eq 'run' ? 0 : $model->{used}{ $key->($ceiling) }{$what} // 0) : 9**15;
	};
	my (@granted, @cut_by, $amount);

	$amount = 0;
	foreach my $user (sort keys %{ $model->{users} })
	{
		next if $model->{users}{$user} < $strategy->{vip} || $strategy->{has}{$user};
		my $grant = $strategy->{allowance} eq 'add' ? $strategy->{amount} : $strategy->{amount} - $strategy->{balance}{$user};
		$grant = 0 if $strategy->{allowance} eq 'top_up' && $grant < 0;
		next if $grant == 0;
		@cut_by = grep { $_->{excess} eq 'cut' && ($left->($_, 'grants') < @granted + 1 || $left->($_, 'amount') < $amount + abs $grant) } @under if !@over;
		push @over, $user if @cut_by;
		next if @over;
		push @granted, [ $user, $grant ];
		$amount += abs $grant;
	}
	return ('failed')
	  if grep { $_->{excess} eq 'refuse' && ($left->($_, 'grants') < @granted || $left->($_, 'amount') < $amount) } @under;
	$strategy->{has}{ $_->[0] } = $_->[1] foreach @granted;
	foreach my $ceiling (@granted ? grep { $_->{period} ne 'run' } @under : ())
	{
		$model->{used}{ $key->($ceiling) }{grants} += @granted;
		$model->{used}{ $key->($ceiling) }{amount} += $amount;
	}
	return ('granted', scalar(@granted), scalar(@over), @over && !grep { $_->{period} eq 'run' } @cut_by);
}

# A world of users, strategies and ceilings, in the database and in the model.
sub build
{
	my %model = (used => {});

	clear();
	$model{users}{ pick('a', 'B', 'é', '_', 'user', '中') . int rand 1000 } = int rand 4 foreach 1 .. 5 + rand 30;
	sql('INSERT INTO quota_manager.user_info (id, vip) VALUES ' . join ', ', map { "('$_', $model{users}{$_})" } sort keys %{ $model{users} });
	foreach my $id (1 .. 1 + rand 4)
	{
		my %strategy = (id => $id, vip => int rand 3, allowance => pick('add', 'add', 'top_up', 'exact'), has => {});

		# In halves, which floating point computes exactly.
		$strategy{amount} = (1 + int rand 40) / 2;
		$strategy{amount} *= -1 if $strategy{allowance} eq 'add' && rand() < 0.3;
		sql(qq{INSERT INTO quota_manager.quota_gateway (name, dialect, base_url) VALUES ('g$id', 'zgsm', 'http://127.0.0.1:1')},
			qq{INSERT INTO quota_manager.quota_model VALUES ('m$id', 'g$id')},
			qq{INSERT INTO quota_manager.quota_strategy (id, name, type, amount, model, condition, allowance)
				VALUES ($id, 's$id', 'single', $strategy{amount}, 'm$id', 'is-vip($strategy{vip})', '$strategy{allowance}')});
		push @{ $model{strategies} }, \%strategy;
	}
	foreach my $id (1 .. 1 + rand 4)
	{
		my %ceiling = (id => $id, period => pick('run', 'day', 'total'), excess => pick('refuse', 'cut', 'cut'));

		$ceiling{strategy} = 1 + int rand @{ $model{strategies} } if rand() < 0.5;
		$ceiling{grants} = int rand 40 if rand() < 0.6;
		$ceiling{amount} = (int rand 400) / 2 if !defined $ceiling{grants} || rand() < 0.3;
		sql(sprintf 'INSERT INTO quota_manager.quota_ceiling (id, strategy_id, period, max_grants, max_amount, on_excess) VALUES (%d, %s, %s)', $id,
			$ceiling{strategy} // 'NULL', join ', ', "'$ceiling{period}'", $ceiling{grants} // 'NULL', $ceiling{amount} // 'NULL', "'$ceiling{excess}'");
		push @{ $model{ceilings} }, \%ceiling;
	}
	return \%model;
}

# All balances are known before each scan.
sub set_balances
{
	my ($model) = @_;

	foreach my $strategy (grep { $_->{allowance} ne 'add' } @{ $model->{strategies} })
	{
		$strategy->{balance}{$_} = (int(rand 60) - 10) / 2 foreach keys %{ $model->{users} };
		sql(qq{DELETE FROM quota_manager.user_balance WHERE gateway = 'g$strategy->{id}'},
			'INSERT INTO quota_manager.user_balance (user_id, gateway, balance) VALUES '
			  . join ', ', map { "('$_', 'g$strategy->{id}', $strategy->{balance}{$_})" } sort keys %{ $model->{users} });
	}
	return;
}

subtest 'a run grants the first that fit, or nothing' => sub {
	my %seen;

	foreach my $round (1 .. $rounds)
	{
		my $model = build();
		my $hour = 0;
		my $differs;

		foreach my $step (1 .. 6)
		{
			my ($expected, $got) = ('', '');
			my @owing;
			my $chosen = rand() < 0.7 ? undef : pick(@{ $model->{strategies} });

			$hour += int rand 14;
			$model->{users}{"new$round$step"} = 3;
			sql("INSERT INTO quota_manager.user_info (id, vip) VALUES ('new$round$step', 3)");
			set_balances($model);
			foreach my $strategy ($chosen // @{ $model->{strategies} })
			{
				my ($state, $granted, $over, $owes) = model_run($model, $strategy, $hour);

				push @owing, $strategy->{id} if $owes;
				$expected .= sprintf "s%d %s %d %d\n", $strategy->{id}, $state, $granted // 0, $over // 0;
				$seen{ $state eq 'failed' ? 'refused' : $over ? 'cut' : 'whole' }++;
			}
			foreach my $run (rows(sprintf q{SET quota_manager.schedule_clock = '%s'; SELECT strategy, error IS NOT NULL, granted, coalesce(substring(note FROM 'over a ceiling: (\d+)')::integer, 0) FROM quota_manager.scan(%s)},
					clock($hour), $chosen ? "'s$chosen->{id}'" : ''))
			{
				$got .= sprintf "%s %s %d %d\n", $run->[0], $run->[1] eq 't' ? 'failed' : 'granted', $run->[2], $run->[3];
			}
			$expected .= join ', ', map { my $s = $_; map { "$s->{id} $_ $s->{has}{$_}" } sort keys %{ $s->{has} } } @{ $model->{strategies} };
			$got .= sql(q{SELECT coalesce(string_agg(concat_ws(' ', strategy_id, user_id, trim_scale(amount)), ', ' ORDER BY strategy_id, user_id COLLATE "C"), '') FROM quota_manager.quota_execute});
			$expected .= "\n" . join ', ', map { "$_ $model->{used}{$_}{grants} $model->{used}{$_}{amount}" } sort grep { $model->{used}{$_}{grants} } keys %{ $model->{used} };
			$got .= "\n" . usage();
			# What is owed is tried again.
			$expected .= "\n" . join ' ', map { "$_ incomplete" } @owing;
			$got .= "\n" . join ' ', map { "$_ " . sql("SELECT state FROM quota_manager.quota_run WHERE strategy_id = $_ ORDER BY id DESC LIMIT 1") } @owing;
			$seen{owing} += @owing;
			next if $expected eq $got;
			$differs = 1;
			is($got, $expected, "round $round, step $step");
			last;
		}
		last if $differs;
	}
	ok($seen{refused} && $seen{cut} && $seen{whole} && $seen{owing}, 'runs were refused, cut (owing something) and left whole: ' . join ', ', map { "$_ $seen{$_}" } sort keys %seen);
};

subtest 'more than its amount is taken away' => sub {
	clear();
	sql(q{INSERT INTO quota_manager.quota_gateway (name, dialect, base_url, is_default) VALUES ('g', 'zgsm', 'http://127.0.0.1:1', true)},
		q{INSERT INTO quota_manager.user_info (id) VALUES ('a'), ('b')},
		q{INSERT INTO quota_manager.user_balance (user_id, gateway, balance) VALUES ('a', 'g', 17), ('b', 'g', 17)},
		q{INSERT INTO quota_manager.quota_strategy (id, name, type, amount, model, condition, allowance) VALUES (1, 's1', 'single', 1, 'm', 'true()', 'exact')},
		q{INSERT INTO quota_manager.quota_ceiling (id, period, max_amount, on_excess) VALUES (1, 'day', 25, 'cut')});
	like(sql(q{SELECT note FROM quota_manager.preview('s1') WHERE reason = 'over a ceiling'}), qr/ceiling 1, /, 'a preview names the ceiling');
	is(sql(q{SET quota_manager.schedule_clock = '2026-05-01 08:00:00+00'; SELECT granted, note ~ 'ceiling 1, ' FROM quota_manager.scan('s1')}), '1|t', 'and the scan');
	is(sql('SELECT state FROM quota_manager.quota_run WHERE strategy_id = 1'), 'incomplete', 'the other one is owed it');
	is(sql(q{SET quota_manager.schedule_clock = '2026-05-02 08:00:00+00'; SELECT granted FROM quota_manager.scan('s1')}), 1, 'and gets it the next day');
	is(sql('SELECT state FROM quota_manager.quota_run WHERE strategy_id = 1 ORDER BY id DESC LIMIT 1'), 'done', 'then the run is done');
};

subtest 'concurrent scans hold a ceiling to the last unit' => sub {
	my $users = 300;
	my $limit = 1000;

	clear();
	sql(q{INSERT INTO quota_manager.quota_gateway (name, dialect, base_url, is_default) VALUES ('g', 'higress', 'http://127.0.0.1:1', true)},
		"INSERT INTO quota_manager.user_info (id) SELECT 'u' || i FROM generate_series(1, $users) i",
		q{INSERT INTO quota_manager.quota_strategy (name, type, amount, model, condition) SELECT 's' || i, 'single', i, 'm', 'true()' FROM generate_series(1, 6) i},
		"INSERT INTO quota_manager.quota_ceiling (period, max_grants, on_excess) VALUES ('total', $limit, 'cut')",
		q{INSERT INTO quota_manager.quota_ceiling (period, max_amount) VALUES ('day', 5000)});
	end_call($_) foreach map { begin_call($node, "SELECT count(*) FROM quota_manager.scan('s$_')") } shuffle(1 .. 6);
	my ($grants, $amount, $prefix) = split /\|/, sql(q{
		SELECT count(*), sum(abs(amount)), (SELECT bool_and(g.last < coalesce(l.first, 'v')) FROM (SELECT strategy_id, max(user_id) AS last FROM quota_manager.quota_execute GROUP BY 1) g
			LEFT JOIN LATERAL (SELECT min(u.id COLLATE "C") AS first FROM quota_manager.user_info u
				WHERE NOT EXISTS (SELECT FROM quota_manager.quota_execute x WHERE x.strategy_id = g.strategy_id AND x.user_id = u.id)) l ON true)
		FROM quota_manager.quota_execute});
	cmp_ok($grants, '<=', $limit, "grants: $grants of $limit");
	cmp_ok($amount, '<=', 5000, "amount: $amount of 5000");
	is($prefix, 't', 'each strategy granted to the first of its users');
	is(sql('SELECT DISTINCT u.grants, u.amount FROM quota_manager.quota_ceiling_usage u'), "$grants|$amount", 'what was counted is what was granted');
	is(sql(q{SELECT count(*) FROM quota_manager.quota_run WHERE state = 'failed' AND reason NOT LIKE 'refused by ceiling %'}), 0, 'nothing else failed');
};

subtest 'a dump keeps what was counted' => sub {
	my $dump = "$PostgreSQL::Test::Utils::tmp_check/ceilings.sql";
	my ($before, $status) = (usage(), sql('SELECT ceiling_id, status FROM quota_manager.ceiling_status ORDER BY 1'));

	sql('CREATE DATABASE copy');
	$node->command_ok([ 'pg_dump', '--file', $dump, $node->connstr('postgres') ], 'pg_dump');
	$node->command_ok([ 'psql', '-qX', '-v', 'ON_ERROR_STOP=1', '-f', $dump, '-d', $node->connstr('copy') ], 'restore');
	is($node->safe_psql('copy', q{SELECT string_agg(concat_ws(' ', u.ceiling_id, nullif(u.period_start, '-infinity'), u.grants, trim_scale(u.amount)), ', ' ORDER BY u.ceiling_id, u.period_start)
		FROM quota_manager.quota_ceiling_usage u WHERE u.grants > 0}), $before, 'the same was counted');
	is($node->safe_psql('copy', 'SELECT ceiling_id, status FROM quota_manager.ceiling_status ORDER BY 1'), $status, 'as much is left');
};
$node->stop;

subtest 'a crash leaves what was counted and grants in step' => sub {
	my $crashing = crash_cluster('ceilings_crash', "quota_manager.surge_factor = 0\n");

	$crashing->safe_psql('postgres', q{
		CREATE EXTENSION quota_manager;
		INSERT INTO quota_manager.quota_gateway (name, dialect, base_url, is_default) VALUES ('g', 'higress', 'http://127.0.0.1:1', true);
		INSERT INTO quota_manager.user_info (id) SELECT 'u' || i FROM generate_series(1, 3000) i;
		INSERT INTO quota_manager.quota_ceiling (period, max_grants, on_excess) VALUES ('total', 5000, 'cut');
		INSERT INTO quota_manager.quota_strategy (name, type, amount, model, condition, state) SELECT 's' || i, 'single', i, 'm', 'true()', 'active' FROM generate_series(1, 3) i});
	my $in_step = q{SELECT (SELECT count(*) FROM quota_manager.quota_execute) = coalesce(max(u.grants), 0)
		AND (SELECT coalesce(sum(e.amount), 0) FROM quota_manager.quota_execute e) = coalesce(max(u.amount), 0) AND coalesce(max(u.grants), 0) <= 5000
		FROM quota_manager.quota_ceiling_usage u};
	my $hits = 0;
	foreach my $point ('scan_admitting', 'scan_granted', 'scan_committing', 'scan_committed')
	{
		foreach my $strategy (1 .. 3)
		{
			my $log = -s $crashing->logfile;

			arm($crashing, $point, skip => $point eq 'scan_admitting' ? 1500 : 0);
			$crashing->psql('postgres', $point =~ /commit/ ? 'CALL quota_manager.tick()' : "SELECT * FROM quota_manager.scan('s$strategy')");
			if (await_hit($crashing, $point, 1))
			{
				$hits++;
				$crashing->wait_for_log(qr/all server processes terminated; reinitializing/, $log);
				wait_until($crashing, 'SELECT true');
			}
			is($crashing->safe_psql('postgres', $in_step), 't', "$point, strategy $strategy");
		}
	}
	cmp_ok($hits, '>=', 8, "it crashed $hits times");
	$crashing->safe_psql('postgres', $_) foreach 'ALTER SYSTEM RESET quota_manager.crash_point', 'SELECT pg_reload_conf()';
	wait_until($crashing, 'SHOW quota_manager.crash_point', result => '');
	$crashing->safe_psql('postgres', 'SELECT * FROM quota_manager.scan()');
	is($crashing->safe_psql('postgres', $in_step), 't', 'in the end');
	is($crashing->safe_psql('postgres', 'SELECT count(*) FROM quota_manager.quota_execute'), 5000, 'to the last unit');
	$crashing->stop;
};

done_testing();
