
# retain() deletes what is old, and nothing that anybody is owed: nobody is paid twice, balances still add up, and a call
# that is killed is called again.
#
# QUOTA_MANAGER_RETAIN_ROUNDS says how many random histories there are (5; 60 in long runs); QUOTA_MANAGER_SEED
# repeats them.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Utils;
use QuotaTest::Delivery qw(delivery_node add_gateway deliver_all begin_call end_call kill_call);
use QuotaTest::Mock;
use QuotaTest::Seed;
use QuotaTest::Wait qw(wait_until);
use Test::More;

my $rounds = $ENV{QUOTA_MANAGER_RETAIN_ROUNDS} // ($ENV{QUOTA_MANAGER_LONG} ? 60 : 5);
QuotaTest::Seed::start(176);


my $node = delivery_node('retain', <<'CONF');
restart_after_crash = on
timezone = 'UTC'
datestyle = 'ISO'
autovacuum = off
CONF

sub sql
{
	my ($query, $database) = @_;

	return $node->safe_psql($database // 'postgres', $query);
}

sub one { return $_[ rand @_ ] }

# A database whose grants are noted when they are made, so that it shows what was ever paid.
my $ledger = <<'SQL';
CREATE SCHEMA ledger;
CREATE TABLE ledger.paid (strategy_id integer, user_id text, scheduled_time timestamptz, revision integer);
CREATE FUNCTION ledger.note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO ledger.paid VALUES (NEW.strategy_id, NEW.user_id, NEW.scheduled_time, NEW.revision);
	RETURN NULL;
END
$$;
CREATE TRIGGER note AFTER INSERT ON quota_manager.quota_execute FOR EACH ROW EXECUTE FUNCTION ledger.note();
SQL
my $add_up = <<'SQL';
SELECT strategy_id, user_id, count(*) FROM ledger.paid GROUP BY 1, 2 ORDER BY 1, 2
SQL
my $paid = 'SELECT strategy_id, user_id, scheduled_time FROM ledger.paid';
my $owed = q{ UNION SELECT r.strategy_id, u.id, r.scheduled_time FROM quota_manager.quota_run r, quota_manager.user_info u
	WHERE r.scheduled_time IS NOT NULL AND r.state <> 'skipped' AND (r.state <> 'done' OR r.capped > 0)};
my $still_known = <<'SQL';
SELECT strategy_id, user_id, sum(n) FROM (
	SELECT strategy_id, user_id, 1 AS n FROM quota_manager.quota_execute
	UNION ALL SELECT strategy_id, user_id, grants FROM quota_manager.pruned_grant) k GROUP BY 1, 2 ORDER BY 1, 2
SQL

# A random history: the clock moves on, and back now and then if it may; strategies are scanned and edited; one of the two databases
# is pruned in between.
sub history
{
	my ($may_go_back) = @_;
	my $clock = 1_750_000_000 + int(rand(86400 * 365));
	my @all = ("SET timezone = 'UTC'");
	my (@kept, @pruned);
	my @strategies = map { "s$_" } 1 .. 5;

	my $both = sub { push @kept, @_; push @pruned, @_; return };
	$both->("SET quota_manager.schedule_clock = '" . gmtime_text($clock) . "'");
	foreach my $name (@strategies)
	{
		my $single = rand() < 0.15;
		my $catch_up = one('all', 'all', 'latest', 'none');
		my %row = (
			name => "'$name'",
			type => $single ? "'single'" : "'periodic'",
			amount => 1 + int(rand(9)),
			model => "'m'",
			enabled => 'true',
			condition => "'" . one('true()', 'is-vip(1)', 'or(is-vip(1), quota-le("m", 5))', 'quota-le("m", 5)') . "'",
			catch_up => "'$catch_up'",
			catch_up_window => $catch_up eq 'none' ? 'NULL' : one('NULL', "'1 day'", "'20 days'", "'60 days'"),
			catch_up_max => one(1, 3, 20, 100),
			max_exec_per_user => rand() < 0.15 ? 1 + int(rand(20)) : 'NULL');
		$row{periodic_expr} = "'" . one('0 */6 * * *', '30 */4 * * *', '0 8 * * *', '15 9 1 * *', '0 0 * * 1') . "'" if !$single;
		@row{qw(condition catch_up catch_up_window catch_up_max max_exec_per_user)} = (q{'true()'}, q{'all'}, q{'60 days'}, 100, 'NULL') if $name eq 's1';
		@row{qw(type periodic_expr)} = (q{'periodic'}, q{'0 */6 * * *'}) if $name eq 's1';
		my @columns = sort keys %row;
		$both->('INSERT INTO quota_manager.quota_strategy (' . join(', ', @columns) . ') VALUES (' . join(', ', @row{@columns}) . ')');
	}
	foreach (1 .. 40)
	{
		my $what = rand();

		$clock += $what < 0.9 || !$may_go_back ? int(rand(one(3600, 86400, 86400 * 20))) : -int(rand(86400 * 40));
		$both->("SET quota_manager.schedule_clock = '" . gmtime_text($clock) . "'");
		# Settled long ago: how long something is kept is up to the schedule clock alone.
		$both->('SELECT count(*) FROM quota_manager.scan()',
			q{UPDATE quota_manager.quota_execute SET status = (ARRAY['completed', 'completed', 'failed', 'completed'])[1 + id % 4],
				create_time = '2000-01-01', update_time = '2000-01-01' WHERE status = 'pending' AND id % 7 > 0},
			q{UPDATE quota_manager.quota_run SET start_time = '2000-01-01', finish_time = '2000-01-01'},
			'SELECT quota_internal.recount_grants()');
		my $edited = one(@strategies);
		$what = rand();
		if ($what < 0.1) { $both->("UPDATE quota_manager.quota_strategy SET enabled = NOT enabled WHERE name = '$edited'"); }
		elsif ($what < 0.15) { $both->("UPDATE quota_manager.quota_strategy SET periodic_expr = '5 */8 * * *' WHERE name = '$edited' AND type = 'periodic'"); }
		elsif ($what < 0.3)
		{
			$both->("INSERT INTO quota_manager.user_balance AS b (user_id, gateway, balance, read_time) SELECT id, 'g', 3, quota_internal.balance_clock()
				FROM quota_manager.user_info ON CONFLICT (user_id, gateway) DO UPDATE SET balance = 3, read_time = excluded.read_time");
		}
		elsif ($what < 0.4) { $both->("SELECT quota_manager.restart_schedule(name) FROM quota_manager.quota_strategy WHERE name = '$edited' AND type = 'periodic'"); }
		push @pruned, sprintf "CALL quota_manager.retain('%d days', batch => %d)", one(1, 2, 5, 30, 60), one(1, 3, 20, 1000) if rand() < 0.6;
	}
	return (join(";\n", @all, @kept, ''), join(";\n", @all, @pruned, ''));
}

sub gmtime_text
{
	my @t = gmtime $_[0];

	return sprintf '%d-%02d-%02d %02d:%02d:%02d+00', $t[5] + 1900, $t[4] + 1, @t[ 3, 2, 1, 0 ];
}

subtest 'a random history pays the same, pruned or not' => sub {
	my ($deleted, $folded) = (0, 0);

	foreach my $database ('kept_model', 'pruned_model')
	{
		sql("CREATE DATABASE $database");
		sql('CREATE EXTENSION quota_manager; ' . $ledger . q{
			INSERT INTO quota_manager.quota_gateway (name, dialect, base_url, is_default) VALUES ('g', 'zgsm', 'http://127.0.0.1:9', true);
			INSERT INTO quota_manager.user_info (id, vip) SELECT 'u' || i, i % 2 FROM generate_series(1, 6) i;}, $database);
	}
	foreach my $round (1 .. $rounds)
	{
		my $goes_back = $round % 2 == 0;
		my ($kept, $pruned) = history($goes_back);

		foreach (['kept', $kept], ['pruned', $pruned])
		{
			my ($name, $script) = @$_;

			sql("DROP DATABASE IF EXISTS $name WITH (FORCE)");
			sql("CREATE DATABASE $name TEMPLATE ${name}_model");
			sql("SELECT quota_internal.note_identity()", $name);
			sql($script, $name);
		}
		my $ok = is(sql('SELECT strategy_id, user_id, scheduled_time, count(*) FROM ledger.paid GROUP BY 1, 2, 3 HAVING count(*) > 1 LIMIT 5', 'pruned'), '',
			"$round: nobody is paid twice");
		# A run that failed or is incomplete is ended with its grants: where the clock goes back, it would be tried again,
		# and what it grants then would make others wait for balances or reach their caps. What is paid in its stead is
		# owed: of a firing that has not paid all whom it found.
		my %kept = map { $_ => 1 } split /\n/, sql($paid . ($goes_back ? $owed : ''), 'kept');
		my @paid = split /\n/, sql($paid, 'pruned');

		$ok = is(join(' ', grep { !$kept{$_} } @paid), '', "$round: nothing is paid that is not paid without retain()") && $ok;
		$ok = is(scalar @paid, scalar keys %kept, "$round: and all of it is paid") && $ok if !$goes_back;
		$ok = is(sql($still_known, 'pruned'), sql($add_up, 'pruned'), "$round: all of it is still known") && $ok;
		$ok = is(sql("SELECT count(*) FROM ledger.paid p WHERE scheduled_time = '-infinity' AND NOT EXISTS (SELECT FROM quota_manager.quota_execute e
			WHERE (e.strategy_id, e.user_id, e.scheduled_time) = (p.strategy_id, p.user_id, p.scheduled_time))", 'pruned'), 0, "$round: no proof of a single strategy is gone") && $ok;
		# Where the clock goes back, restart_schedule() takes back what was recorded as skipped; what was pruned is counted for good.
		is(sql('SELECT skipped_firings_total FROM quota_manager.metrics WHERE gateway IS NULL', 'pruned'),
			sql('SELECT skipped_firings_total FROM quota_manager.metrics WHERE gateway IS NULL', 'kept'), "$round: skipped firings are counted on")
		  or $ok = 0
		  if !$goes_back;
		is(sql('SELECT * FROM quota_internal.check_counts()', 'pruned'), '', "$round: counts are right") or $ok = 0;
		append_to_file("$PostgreSQL::Test::Utils::log_path/retain_$round.sql", $pruned) if !$ok;
		$deleted += sql('SELECT coalesce(sum(grants), 0) FROM quota_manager.pruned_run', 'pruned');
		$folded += sql('SELECT coalesce(sum(runs), 0) FROM quota_manager.pruned_run', 'pruned');
	}
	note "$deleted grants and $folded runs were deleted";
	cmp_ok($deleted, '>', 50 * $rounds, 'grants were deleted');
	cmp_ok($folded, '>=', $rounds, 'runs were deleted');
};

# Old runs and grants of a strategy, hour by hour back from three days ago; all of them completed.
sub make_old
{
	my ($name, %with) = @_;
	my $runs = $with{runs} // 200;
	my $users = $with{users} // 10;
	my $type = $with{type} // 'periodic';

	sql(sprintf q{
		INSERT INTO quota_manager.quota_strategy (name, type, amount, model, enabled, condition, periodic_expr, max_exec_per_user)
			VALUES ('%1$s', '%2$s', 5, 'm', false, 'true()', %3$s, %4$s);
		INSERT INTO quota_manager.quota_run (strategy_id, strategy_version, scheduled_time, state, matched, granted, start_time, finish_time, first_grant_id, last_grant_id)
			SELECT s.id, 1, CASE s.type WHEN 'periodic' THEN t.at END, 'done', %6$s, %6$s, t.at, t.at, i * 100000 + s.id * 100000000::bigint, i * 100000 + %6$s - 1 + s.id * 100000000::bigint
			FROM quota_manager.quota_strategy s, generate_series(1, %5$s) i, LATERAL (SELECT date_trunc('hour', now()) - interval '3 days' - i * interval '1 hour') t (at)
			WHERE s.name = '%1$s' ORDER BY t.at;
		INSERT INTO quota_manager.quota_execute (id, strategy_id, user_id, scheduled_time, run_id, create_time, update_time, strategy_version, status, amount, model, gateway, batch_number)
			SELECT r.first_grant_id + u - 1, s.id, 'u' || u || CASE s.type WHEN 'single' THEN 'r' || r.id ELSE '' END, coalesce(r.scheduled_time, '-infinity'), r.id, r.start_time, r.start_time, 1, 'completed', 5, 'm', 'g', ''
			FROM quota_manager.quota_run r JOIN quota_manager.quota_strategy s ON s.id = r.strategy_id, generate_series(1, %6$s) u WHERE s.name = '%1$s'},
		$name, $type, $type eq 'periodic' ? q{'0 * * * *'} : 'NULL', $with{cap} // 'NULL', $runs, $users);
	return;
}

sub grants { return sql("SELECT count(*) FROM quota_manager.quota_execute e JOIN quota_manager.quota_strategy s ON s.id = e.strategy_id WHERE s.name = '$_[0]'"); }

sql(q{INSERT INTO quota_manager.quota_gateway (name, dialect, base_url, is_default) VALUES ('g', 'zgsm', 'http://127.0.0.1:9', true)});
my $of = q{(SELECT s.id FROM quota_manager.quota_strategy s WHERE s.name = '%s')};

subtest 'what is kept' => sub {
	make_old('plain');
	make_old('capped', cap => 1000);
	make_old('single', type => 'single');
	sql(sprintf qq{
		-- Of the oldest run, user by user.
		CREATE TABLE quota_test.oldest AS SELECT e.* FROM quota_manager.quota_execute e
			WHERE strategy_id = $of AND scheduled_time = (SELECT min(r.scheduled_time) FROM quota_manager.quota_run r WHERE r.strategy_id = e.strategy_id);
		UPDATE quota_manager.quota_execute SET status = 'pending' WHERE id = (SELECT id FROM quota_test.oldest WHERE user_id = 'u1');
		UPDATE quota_manager.quota_execute SET status = 'processing' WHERE id = (SELECT id FROM quota_test.oldest WHERE user_id = 'u2');
		UPDATE quota_manager.quota_execute SET status = 'in_doubt' WHERE id = (SELECT id FROM quota_test.oldest WHERE user_id = 'u3');
		UPDATE quota_manager.quota_execute SET update_time = now() WHERE id = (SELECT id FROM quota_test.oldest WHERE user_id = 'u4');
		UPDATE quota_manager.quota_execute SET status = 'failed' WHERE id = (SELECT id FROM quota_test.oldest WHERE user_id = 'u5');
		UPDATE quota_manager.quota_execute SET status = 'cancelled' WHERE id = (SELECT id FROM quota_test.oldest WHERE user_id = 'u6');
		-- Reversals, one of them not settled.
		INSERT INTO quota_manager.quota_execute (strategy_id, user_id, scheduled_time, revision, run_id, create_time, update_time, strategy_version, status, amount, model, gateway, batch_number)
			SELECT strategy_id, user_id, scheduled_time, 1, NULL, create_time, update_time, 1, CASE user_id WHEN 'u7' THEN 'pending' ELSE 'completed' END, -amount, model, gateway, ''
			FROM quota_test.oldest WHERE user_id IN ('u7', 'u8');
		-- Refreshes by hand: one may have overtaken the grant, one came long after it.
		INSERT INTO quota_manager.gateway_call (call_time, role, action, gateway, user_id, amount, outcome)
			SELECT create_time + CASE user_id WHEN 'u9' THEN interval '1 s' ELSE interval '1 day' END, 'r', 'refresh', 'g', user_id, 100, 'applied'
			FROM quota_test.oldest WHERE user_id IN ('u9', 'u10');
		SELECT quota_internal.recount_grants()}, 'plain');
	like(sql(q{SELECT strategy, action, grants, runs, reason FROM quota_manager.retain_preview('2 days')}),
		qr/^capped\|keep\|2000\|200\|max_exec_per_user counts its grants\nplain\|delete\|2000\|200\|\nsingle\|keep\|2000\|200\|single: its grants/, 'a preview says so');
	my ($deleted, $runs, $kept) = split /\|/, sql(q{CALL quota_manager.retain('2 days', batch => 37)});
	is(grants('single'), 2000, 'proof of single strategies');
	is(grants('capped'), 2000, 'what max_exec_per_user counts');
	is(sql(sprintf qq{SELECT string_agg(e.user_id || ' ' || e.revision || ' ' || status, ', ' ORDER BY user_id, revision) FROM quota_manager.quota_execute e WHERE strategy_id = $of}, 'plain'),
		'u1 0 pending, u2 0 processing, u3 0 in_doubt, u4 0 completed, u7 0 completed, u7 1 pending, u9 0 completed', 'what is open, was settled lately, or may still change');
	is("$deleted $runs $kept", (2002 - 7) . ' 169 7', 'it says how many');
	is(sql(sprintf qq{SELECT count(*), count(*) FILTER (WHERE first_grant_id IS NULL) FROM quota_manager.quota_run WHERE strategy_id = $of}, 'plain'), '32|31',
		'the last thirty runs are kept without their grants, and others as one row');
	is(sql(sprintf qq{SELECT user_id, grants, completed, amount, standing, standing_amount FROM quota_manager.pruned_grant WHERE strategy_id = $of
		AND user_id IN ('u4', 'u5', 'u6', 'u8', 'u10') ORDER BY user_id}, 'plain'),
		"u10|200|200|1000|176|880\nu4|199|199|995|199|995\nu5|200|199|995|199|995\nu6|199|199|995|199|995\nu8|200|201|995|201|995", 'what was deleted is added up');
	like(sql(q{CALL quota_manager.retain('2 days')}), qr/^0\|0\|7\|/, 'a second call finds nothing more');
	sql(q{UPDATE quota_manager.quota_execute SET status = 'completed', update_time = create_time});
	is(sql(q{CALL quota_manager.retain('2 days')}) =~ /^6\|0\|1\|/, 1, 'until they are settled');
};

subtest 'who may, and what is refused' => sub {
	sql(q{CREATE ROLE admin LOGIN; CREATE ROLE operator LOGIN; SELECT quota_manager.grant_access('admin', 'admin'), quota_manager.grant_access('operator', 'operator')});
	my ($status, $out, $err) = $node->psql('postgres', q{SET ROLE operator; CALL quota_manager.retain('10 years')});
	like($err, qr/permission denied for procedure retain/, 'an operator must not');
	is(sql(q{SET ROLE admin; CALL quota_manager.retain('10 years')}) =~ /^0\|0\|0\|/, 1, 'an administrator may');
	like(sql(q{SET ROLE operator; SELECT count(*) FROM quota_manager.retain_preview('2 days')}), qr/^[1-9]/, 'and everybody may see what it would do');
	foreach (
		[ q{CALL quota_manager.retain(NULL)}, qr/how long runs and grants are kept must be given/ ],
		[ q{CALL quota_manager.retain('1 hour')}, qr/are kept for at least a day, not for 01:00:00/ ],
		[ q{CALL quota_manager.retain('-1 year')}, qr/are kept for at least a day/ ],
		[ q{CALL quota_manager.retain('1 year', 'none such')}, qr/strategy "none such" does not exist/ ],
		[ q{CALL quota_manager.retain('1 year', batch => 0)}, qr/a batch has from 1 to 100000 grants, not 0/ ],
		[ q{BEGIN; CALL quota_manager.retain('1 year')}, qr/retain\(\) cannot run inside a transaction block/ ],
		[ q{SET default_transaction_read_only = on; CALL quota_manager.retain('1 year')}, qr/where transactions are read-only/ ],
		[ q{UPDATE quota_manager.quota_strategy SET max_exec_per_user = 3 WHERE name = 'plain'}, qr/retain\(\) has deleted grants of it/ ],
		[ q{DELETE FROM quota_manager.quota_strategy WHERE name = 'plain'}, qr/strategy "plain" has grants and cannot be deleted/ ],
		[ q{BEGIN; UPDATE quota_manager.quota_strategy SET state = 'paused' WHERE name = 'plain'; UPDATE quota_manager.quota_strategy SET state = 'draft' WHERE name = 'plain'}, qr/strategy "plain" has grants and cannot be a draft again/ ],
		[ q{BEGIN; SET LOCAL quota_manager.delete_proof = on; DELETE FROM quota_manager.quota_execute; TRUNCATE quota_manager.quota_strategy}, qr/strategies with grants cannot be removed/ ])
	{
		($status, $out, $err) = $node->psql('postgres', $_->[0]);
		like($err, $_->[1], $_->[0]);
	}
};

subtest 'what is usual stays known' => sub {
	make_old('rare', runs => 150);
	# Only the oldest forty granted anything.
	sql(sprintf qq{UPDATE quota_manager.quota_run r SET granted = 0, first_grant_id = NULL, last_grant_id = NULL WHERE strategy_id = $of AND id NOT IN
			(SELECT o.id FROM quota_manager.quota_run o WHERE o.strategy_id = r.strategy_id ORDER BY scheduled_time LIMIT 40);
		DELETE FROM quota_manager.quota_execute e WHERE strategy_id = $of AND NOT EXISTS (SELECT FROM quota_manager.quota_run r WHERE r.id = e.run_id AND r.first_grant_id IS NOT NULL)}, 'rare', 'rare');
	my $usual = sql(sprintf qq{SELECT usual FROM quota_internal.surge_limit($of, 0)}, 'rare');
	isnt($usual, '', 'the breaker knows what is usual');
	like(sql(q{CALL quota_manager.retain('2 days', 'rare')}), qr/^400\|/, 'grants are deleted');
	is(sql(sprintf qq{SELECT usual FROM quota_internal.surge_limit($of, 0)}, 'rare'), $usual, 'and it still does');
};

subtest 'proof is not deleted by hand' => sub {
	my ($status, $out, $err) = $node->psql('postgres', 'SET quota_manager.delete_proof = off; DELETE FROM quota_manager.quota_execute');
	like($err, qr/ERROR:  grants of single strategies cannot be deleted: their users would be paid again\nDETAIL:  Among them are 2000 of strategy "single"\.\nHINT:  .*delete_proof/, 'refused');
	is(grants('single'), 2000, 'nothing is gone');
	sql("BEGIN; SET LOCAL quota_manager.delete_proof = on; DELETE FROM quota_manager.quota_execute; ROLLBACK");
	sql("BEGIN; SET LOCAL quota_manager.delete_proof = off; UPDATE quota_manager.quota_strategy SET archived = true WHERE name = 'single'; DELETE FROM quota_manager.quota_execute; ROLLBACK");
	pass('but where it is said to be meant, or the strategy is archived');
};

# What the tests below prune: 40 runs of 500 users.
my $total = 20_000;

# How much is known of it, deleted or not.
sub known
{
	return sql(sprintf qq{SELECT (SELECT count(*) FROM quota_manager.quota_execute WHERE strategy_id = $of) + (SELECT coalesce(sum(grants), 0) FROM quota_manager.pruned_grant WHERE strategy_id = $of)},
		$_[0], $_[0]);
}

subtest 'a call that is killed is called again' => sub {
	make_old('killed', runs => 40, users => 500);
	foreach my $left (15000, 10000)
	{
		my $call = begin_call($node, "SET application_name = 'pruning'", q{CALL quota_manager.retain('2 days', 'killed', 50)});
		wait_until($node, sprintf qq{SELECT count(*) <= $left FROM quota_manager.quota_execute WHERE strategy_id = $of}, 'killed');
		kill_call($node, $call, 'pruning');
		cmp_ok(grants('killed'), '>', 0, 'it was in the middle of it');
		is(known('killed'), $total, 'what is gone is added up');
	}
	my $call = begin_call($node, "SET application_name = 'pruning'", q{CALL quota_manager.retain('2 days', 'killed', 50)});
	wait_until($node, sprintf qq{SELECT count(*) <= 5000 FROM quota_manager.quota_execute WHERE strategy_id = $of}, 'killed');
	sql(q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = 'pruning'});
	like((end_call($call))[1], qr/canceling statement/, 'it can be cancelled');
	is(known('killed'), $total, 'what is gone is added up');
	sql(q{CALL quota_manager.retain('2 days', 'killed')});
	is(grants('killed'), 0, 'the next call ends it');
	is(known('killed'), $total, 'all is added up');
	is(sql(sprintf qq{SELECT sum(amount) FROM quota_manager.pruned_grant WHERE strategy_id = $of}, 'killed'), 5 * $total, 'amounts too');
};

subtest 'locks and work of a transaction are bounded' => sub {
	my (@locks, @others);

	sql(q{CREATE TABLE quota_test.deletion (xid bigint, rows bigint, locks bigint, others bigint);
		CREATE FUNCTION quota_test.note_deletion() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN
			INSERT INTO quota_test.deletion SELECT txid_current(), (SELECT count(*) FROM gone), count(*), count(*) FILTER (WHERE locktype <> 'relation') FROM pg_locks WHERE pid = pg_backend_pid();
			RETURN NULL;
		END $$;
		CREATE TRIGGER note_deletion AFTER DELETE ON quota_manager.quota_execute REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION quota_test.note_deletion()});
	foreach my $batch (200, 2000)
	{
		make_old("bounded $batch", runs => 40, users => 500);
		sql('TRUNCATE quota_test.deletion');
		sql("CALL quota_manager.retain('2 days', 'bounded $batch', $batch)");
		is(sql('SELECT sum(rows) FROM quota_test.deletion'), $total, "$batch: all is deleted");
		is(sql("SELECT max(n) <= $batch FROM (SELECT sum(rows) AS n FROM quota_test.deletion GROUP BY xid) d"), 't', 'no transaction deletes more than a batch');
		push @locks, sql('SELECT max(locks) FROM quota_test.deletion');
		push @others, sql('SELECT max(others) FROM quota_test.deletion');
	}
	cmp_ok($locks[1], '<=', $locks[0], "not more locks for a larger batch: @locks");
	cmp_ok($others[0], '<', 10, "nearly all of them are of tables and indexes, each once: all but $others[0]");
	cmp_ok($locks[0] - $others[0], '<', 60, 'which are few');
	sql('DROP TRIGGER note_deletion ON quota_manager.quota_execute');
};

subtest 'beside scans, decisions, edits and another call' => sub {
	make_old('beside', runs => 40, users => 500);
	sql(sprintf qq{INSERT INTO quota_manager.user_info (id) SELECT 'v' || i FROM generate_series(1, 50) i;
		UPDATE quota_manager.quota_execute SET status = 'failed' WHERE strategy_id = $of AND id %% 10 = 0;
		SELECT quota_internal.recount_grants();
		INSERT INTO quota_manager.quota_strategy (name, type, amount, model, enabled, condition, periodic_expr, catch_up, catch_up_window) VALUES ('busy', 'periodic', 5, 'm', true, 'true()', '* * * * *', 'all', '1 hour')}, 'beside');
	my @calls = map { begin_call($node, q{CALL quota_manager.retain('2 days', batch => 100)}) } 1 .. 2;
	push @calls, begin_call($node, map { sprintf q{SELECT set_config('quota_manager.schedule_clock', to_char(now() AT TIME ZONE 'UTC' + %1$d * interval '1 min', 'YYYY-MM-DD HH24:MI:SS+00'), false);
		SELECT count(*) FROM quota_manager.scan('busy'); UPDATE quota_manager.quota_strategy SET title = '%1$d' WHERE name = 'beside'}, $_ } 1 .. 20);
	push @calls, begin_call($node, map { sprintf q{SELECT quota_manager.cancel(ARRAY(SELECT id FROM quota_manager.quota_execute WHERE status = 'pending' LIMIT 5));
		SELECT quota_manager.retry(ARRAY(SELECT id FROM quota_manager.quota_execute e WHERE e.status = 'failed' AND e.id %% 20 = %d LIMIT 20))}, 10 * ($_ % 2) } 1 .. 20);
	foreach my $call (@calls)
	{
		my ($out, $err) = end_call($call);

		$err =~ s/^(?:NOTICE|WARNING|DETAIL|HINT|psql).*\n//mg;
		is($err, '', 'no error');
	}
	is(known('beside'), $total, 'nothing is lost or counted twice');
	is(sql(q{SELECT count(*) FROM quota_manager.quota_execute e JOIN quota_manager.quota_strategy s ON s.id = e.strategy_id WHERE s.name = 'beside' AND e.status NOT IN ('pending')
		AND e.update_time < now() - interval '2 days'}), 0, 'all that was not retried is gone') if sql(q{CALL quota_manager.retain('2 days')});
	is(sql('SELECT * FROM quota_internal.check_counts()'), '', 'counts are right');
	cmp_ok(grants('busy'), '>', 0, 'the scan was not held up');

	# Who has the strategy's row is not waited for.
	make_old('edited', runs => 2, users => 2);
	my $session = QuotaTest::Delivery::begin_session($node);
	QuotaTest::Delivery::ask_session($session, q{BEGIN});
	QuotaTest::Delivery::ask_session($session, q{UPDATE quota_manager.quota_strategy SET title = 'x' WHERE name = 'edited'});
	my ($status, $out, $err) = $node->psql('postgres', q{CALL quota_manager.retain('2 days', 'edited')});
	like($err, qr/NOTICE:  strategy \d+ is left out: another transaction edits it/, 'a strategy that is being edited is left out');
	QuotaTest::Delivery::ask_session($session, q{COMMIT});
	QuotaTest::Delivery::end_session($session);
	like(sql(q{CALL quota_manager.retain('2 days', 'edited')}), qr/^4\|/, 'and pruned by the next call');
};

foreach my $dialect ('higress', 'zgsm')
{
	subtest "$dialect: an audit adds up what was deleted" => sub {
		my $mock = QuotaTest::Mock->start(dialect => $dialect, key => 'key');
		my $gateway = "audited-$dialect";
		my $audit = sub { return sql("SELECT user_id, granted_least, granted_most, difference, finding FROM quota_manager.audit_balances('$gateway')") };

		add_gateway($node, $gateway, $mock, sole_writer => 'true', request_timeout => '1 s');
		sql("INSERT INTO quota_manager.quota_model VALUES ('$gateway', '$gateway');
			SET quota_manager.schedule_clock = '2025-01-01 00:30:00+00';
			INSERT INTO quota_manager.quota_strategy (name, type, amount, model, enabled, condition, periodic_expr, catch_up, catch_up_window)
				VALUES ('$gateway', 'periodic', 7, '$gateway', true, 'true()', '0 1 * * *', 'all', '100 days')");
		sql("SET quota_manager.schedule_clock = '2025-01-${_} 01:30:00+00'; SELECT count(*) FROM quota_manager.scan('$gateway')") foreach '01', '02', '03', '04';
		ok(deliver_all($node, $gateway), 'delivered');
		is($audit->(), '', 'all is as it was granted');
		# What was used at one of them, and set anew at another; then granted again.
		sql("SELECT quota_manager.gateway_refresh('v1', 100, '$gateway')");
		$mock->set_balance('v2', quota => 1000);
		my $before = $audit->();
		is($before, 'v2|28|28|972|more than was granted', 'what others wrote shows');
		sql("SET session_replication_role = replica; UPDATE quota_manager.quota_execute SET create_time = create_time - interval '10 days', update_time = update_time - interval '10 days' WHERE gateway = '$gateway';
			UPDATE quota_manager.gateway_call SET call_time = call_time - interval '9 days' WHERE gateway = '$gateway';
			UPDATE quota_manager.quota_run SET finish_time = finish_time - interval '10 days', start_time = start_time - interval '10 days'");
		sql("SET quota_manager.schedule_clock = '2025-01-05 01:30:00+00'; SELECT count(*) FROM quota_manager.scan('$gateway')");
		ok(deliver_all($node, $gateway), 'delivered');
		is($audit->(), 'v2|35|35|972|more than was granted', 'before');
		sql("SET quota_manager.schedule_clock = '2025-03-01 01:30:00+00'; CALL quota_manager.retain('2 days', '$gateway')");
		is(sql("SELECT count(*) FROM quota_manager.quota_execute WHERE gateway = '$gateway'"), 50, 'four of five grants of each user are gone');
		is($audit->(), 'v2|35|35|972|more than was granted', 'the same as before');
		sql("UPDATE quota_manager.quota_execute SET create_time = create_time - interval '8 days', update_time = update_time - interval '8 days' WHERE gateway = '$gateway';
			UPDATE quota_manager.quota_run SET finish_time = finish_time - interval '8 days', start_time = start_time - interval '8 days';
			SET quota_manager.schedule_clock = '2025-03-01 01:30:00+00'; CALL quota_manager.retain('2 days', '$gateway')");
		is(sql("SELECT count(*) FROM quota_manager.quota_execute WHERE gateway = '$gateway'"), 0, 'all are gone');
		is($audit->(), 'v2|35|35|972|more than was granted', 'the same as before');
		$mock->set_balance('v3', quota => 0);
		like($audit->(), qr/v3\|35\|35\|-35\|less than was granted/, 'what is missing shows') if $dialect eq 'zgsm';
	};
}

$node->stop;
done_testing();
