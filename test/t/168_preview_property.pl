
# A preview says what the scan after it does: for random strategies, users, states, allowances, caps, ceilings, balances and
# user sources, the same users get the same amounts, and the others have the same reasons.  A preview of an edit says what a
# preview says once it is edited.
#
# QUOTA_MANAGER_LONG=1: ten times as many rounds.  QUOTA_MANAGER_SEED: another seed.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PostgreSQL::Test::Utils;
use QuotaTest::RandomConditions qw(pick condition);
use QuotaTest::ScanNode qw(scan_node);
use QuotaTest::Seed;
use POSIX qw(strftime);
use Test::More;
use Time::HiRes qw(time);

my $rounds = $ENV{QUOTA_MANAGER_LONG} ? 4000 : 300;
my $seed = QuotaTest::Seed::start(168);
my $node = scan_node('preview', <<'CONF');
quota_manager.balance_max_age = '10 h'
quota_manager.surge_factor = 3
quota_manager.surge_minimum = 12
CONF

sub sql { return $node->safe_psql('postgres', join ";\n", @_); }

sql(<<'SQL');
CREATE ROLE scanner;
SELECT quota_manager.grant_access('scanner', 'operator');
INSERT INTO quota_manager.quota_gateway (name, dialect, base_url, is_default, guard_balances) VALUES
	('a', 'zgsm', 'http://127.0.0.1:9', true, false), ('b', 'higress', 'http://127.0.0.1:9', false, false);
INSERT INTO quota_manager.quota_model VALUES ('a', 'a'), ('b', 'b');
CREATE SCHEMA site;
CREATE TABLE site.people (uid text PRIMARY KEY, level integer, team text);
CREATE VIEW site.subjects AS SELECT uid AS id, level AS vip, team AS org FROM site.people;
GRANT USAGE ON SCHEMA site TO scanner;
GRANT SELECT ON site.subjects TO scanner;
INSERT INTO quota_manager.user_info (id, vip, org) SELECT 'u' || n, n % 4, 'org' || n % 3 FROM generate_series(1, 25) n;
INSERT INTO site.people SELECT 'p' || n, n % 4, 'org' || n % 3 FROM generate_series(1, 25) n;
CREATE SCHEMA test;
GRANT USAGE, CREATE ON SCHEMA test TO scanner;
-- What preview() and preview_users() say, without what they say of the strategy's state.
CREATE FUNCTION test.said(name text, changes jsonb DEFAULT NULL) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	RETURN (SELECT coalesce(jsonb_object_agg(p.reason, jsonb_build_array(p.users, trim_scale(p.amount))) FILTER (WHERE p.users > 0), '{}')
			FROM quota_manager.preview(name, changes => changes) p)
		|| jsonb_build_object('users', (SELECT coalesce(jsonb_agg(u.user_id || '=' || trim_scale(u.amount) ORDER BY u.user_id COLLATE "C"), '[]')
			FROM quota_manager.preview_users(name, changes => changes, n => 1000) u),
			'over', (SELECT coalesce(jsonb_agg(u.user_id || '=' || trim_scale(u.amount) ORDER BY u.user_id COLLATE "C"), '[]')
			FROM quota_manager.preview_users(name, changes => changes, reason => 'over a ceiling', n => 1000) u));
EXCEPTION WHEN data_exception OR object_not_in_prerequisite_state THEN
	RETURN jsonb_build_object('error', SQLERRM);
END
$$;
-- What differs between a preview and the scan after it; idle: the strategy did not run; '': nothing.
CREATE FUNCTION test.compare(name text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	asked CONSTANT quota_manager.quota_strategy := (SELECT s FROM quota_manager.quota_strategy s WHERE s.name = compare.name);
	said CONSTANT jsonb := test.said(name);
	last CONSTANT bigint := (SELECT coalesce(max(e.id), 0) FROM quota_manager.quota_execute e);
	scanned record;
	run quota_manager.quota_run;
	did jsonb;
BEGIN
	FOR scanned IN SELECT s.* FROM quota_manager.scan(name) s LOOP
		SELECT r.* INTO run FROM quota_manager.quota_run r
			WHERE r.strategy_id = asked.id AND r.scheduled_time IS NOT DISTINCT FROM scanned.scheduled_time ORDER BY r.id DESC LIMIT 1;
		EXIT;
	END LOOP;
	IF scanned.strategy IS NULL OR scanned.note ~ '^(not due|not valid|archived|disabled|draft|paused|left out|the breaker stopped it)' OR run.id IS NULL
		OR asked.type = 'periodic' AND scanned.scheduled_time IS NULL OR asked.state <> 'active' THEN
		RETURN 'idle: ' || coalesce(substring(scanned.note FROM '^[a-z ]+'), 'nothing ran');
	END IF;
	IF said ? 'error' THEN
		RETURN CASE WHEN scanned.error LIKE (said ->> 'error') || '%' THEN '' ELSE format('said %s, did %s', said, scanned) END;
	END IF;
	did := (SELECT jsonb_object_agg(v.reason, v.users) FILTER (WHERE v.users > 0) FROM (VALUES ('granted', scanned.granted), ('already granted', scanned.already_granted),
		('capped', scanned.capped), ('sufficient', run.sufficient), ('over a ceiling', run.over_ceiling), ('balance unknown', scanned.unknown_balance)) v (reason, users));
	IF coalesce(did, '{}') <> (SELECT coalesce(jsonb_object_agg(s.key, s.value -> 0), '{}') FROM jsonb_each(said) s WHERE s.key NOT IN ('users', 'over', 'stopped by the breaker')) THEN
		RETURN format('said %s, did %s (%s, %s)', said, did, scanned, run);
	END IF;
	did := (SELECT coalesce(jsonb_agg(e.user_id || '=' || trim_scale(e.amount) ORDER BY e.user_id COLLATE "C"), '[]') FROM quota_manager.quota_execute e
		WHERE e.id > last AND e.strategy_id = asked.id AND e.scheduled_time = coalesce(scanned.scheduled_time, '-infinity'));
	IF did <> said -> 'users' THEN
		RETURN format('said %s, granted %s', said, did);
	END IF;
	IF (SELECT coalesce(sum(split_part(u, '=', 2)::numeric), 0) FROM jsonb_array_elements_text(did) u) <> coalesce((said -> 'granted' ->> 1)::numeric, 0) THEN
		RETURN format('said an amount of %s, granted %s', said, did);
	END IF;
	RETURN CASE WHEN said ? 'stopped by the breaker' AND run.state <> 'failed' THEN 'the breaker did not stop it' ELSE '' END;
END
$$;
-- What differs between a preview of an edit and one after it.
CREATE FUNCTION test.edit(name text, changes jsonb) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	said CONSTANT jsonb := test.said(name, changes);
	problem text;
	after jsonb;
BEGIN
	BEGIN
		EXECUTE (SELECT format('UPDATE quota_manager.quota_strategy SET %s WHERE name = %L', string_agg(format('%I = %L', c.key, c.value), ', '), name) FROM jsonb_each_text(changes) c);
	EXCEPTION WHEN OTHERS THEN
		problem := SQLERRM;
	END;
	after := CASE WHEN problem IS NULL THEN test.said(name) ELSE jsonb_build_object('error', problem) END;
	RETURN CASE WHEN said = after THEN '' ELSE format('%s: said %s, then %s', changes, said, after) END;
END
$$;
SQL

my $strategies = 0;

sub add_strategy
{
	my $name = 's' . ++$strategies;
	my $periodic = rand() < 0.5;

	return sprintf q{INSERT INTO quota_manager.quota_strategy (name, type, amount, model, condition, periodic_expr, max_exec_per_user, allowance, state, catch_up)
		VALUES ('%s', '%s', %d, '%s', $c$%s$c$, %s, %s, '%s', '%s', '%s')},
	  $name, $periodic ? 'periodic' : 'single', 1 + rand 15, pick('a', 'b', 'other'), condition(2), $periodic ? "'0 */4 * * *'" : 'NULL',
	  rand() < 0.4 ? 1 + int rand 2 : 'NULL', pick('add', 'add', 'top_up', 'exact'), pick(('active') x 8, 'draft', 'paused'), pick('latest', 'all');
}

# Something that may change what strategies grant.
sub change
{
	my $name = 's' . (1 + int rand $strategies);
	my $user = pick('u', 'p') . (1 + int rand 30);

	return $strategies < 40 && rand() < 0.1 ? add_strategy() : pick(
		sprintf(q{UPDATE quota_manager.user_info SET vip = %d WHERE id = '%s'}, rand 4, $user),
		sprintf(q{UPDATE site.people SET level = %d WHERE uid = '%s'}, rand 4, $user),
		sprintf(q{INSERT INTO quota_manager.user_info (id, vip, org) VALUES ('u%d', %d, 'org1') ON CONFLICT (id) DO NOTHING}, 1 + rand 30, rand 4),
		(sprintf q{INSERT INTO quota_manager.user_balance (user_id, gateway, balance) SELECT i, '%s', %d FROM (SELECT id FROM quota_manager.user_info UNION ALL SELECT uid FROM site.people) x (i) WHERE random() < 0.6
			ON CONFLICT (user_id, gateway) DO UPDATE SET balance = excluded.balance, read_time = clock_timestamp()}, pick('a', 'b'), rand 20) x 3,
		q{UPDATE quota_manager.quota_execute SET status = 'cancelled' WHERE status = 'pending' AND id % 7 = 0},
		(sprintf q{INSERT INTO quota_manager.quota_ceiling (strategy_id, period, max_grants, max_amount, on_excess) VALUES (%s, '%s', %s, '%s')},
			pick('NULL', "(SELECT id FROM quota_manager.quota_strategy WHERE name = '$name')"), pick('run', 'day', 'total'),
			pick((sprintf '%d, NULL', rand 40), (sprintf 'NULL, %d', rand 200), (sprintf '%d, %d', rand 40, rand 300)), pick('refuse', 'cut')) x 2,
		q{DELETE FROM quota_manager.quota_ceiling WHERE random() < 0.7},
		qq{UPDATE quota_manager.quota_strategy SET state = 'paused' WHERE name = '$name' AND state = 'active'},
		q{UPDATE quota_manager.quota_strategy SET state = 'active' WHERE state <> 'active'},
		qq{SELECT quota_manager.unpause_strategy(p.name, 'test') FROM (SELECT DISTINCT s.name FROM quota_manager.quota_pause q JOIN quota_manager.quota_strategy s ON s.id = q.strategy_id
			WHERE q.end_time IS NULL AND q.cause = 'breaker') p},
		'SELECT FROM quota_manager.set_user_source(' . pick(q{'site.subjects'}, 'NULL') . ')');
}

sub edit
{
	my %changes = map { @$_ } grep { rand() < 0.5 } [ condition => condition(2) ], [ amount => pick(int(rand 20), 2.5) ], [ model => pick('a', 'b') ],
	  [ allowance => pick('add', 'top_up', 'exact') ], [ max_exec_per_user => 1 + int rand 4 ], [ valid_until => pick('infinity', '2030-01-01') ];

	return %changes ? '{' . join(', ', map { my $value = $changes{$_} =~ s/"/\\"/gr; qq{"$_": "$value"} } sort keys %changes) . '}' : undef;
}

my $clock = 1_750_000_000;
sub pinned { return strftime("SET quota_manager.schedule_clock = '%Y-%m-%d %H:%M:%S+00'", gmtime $_[0]); }
sql(pinned($clock), map { add_strategy() } 1 .. 12);
my (%seen, @wrong);

foreach my $round (1 .. $rounds)
{
	my $name = 's' . (1 + int rand $strategies);
	my $changes = rand() < 0.3 ? edit() : undef;
	my @changed = map { change() } 0 .. rand 3;
	my @said;

	$clock += int rand 8 * 3600;
	# parallel workers, which are started for few users as well, take most of the time
	my $parallel = 'SET max_parallel_workers_per_gather = ' . (rand() < 0.2 ? 2 : 0);
	@said = split /\n/, sql('SET client_min_messages = error', $parallel, pinned($clock), @changed, 'SET ROLE scanner', 'SET quota_manager.incremental_scans = off',
		defined $changes ? "SELECT 'edit ' || test.edit('$name', \$c\$$changes\$c\$)" : (), "SELECT 'scan ' || test.compare('$name')");
	foreach my $answer (grep { /^(?:edit|scan) / } @said)
	{
		$seen{$1}++ if $answer =~ /^(edit|scan idle: .*|scan) ?/;
		push @wrong, "round $round, $name: $answer" if $answer !~ /^(?:edit $|scan $|scan idle)/;
	}
	last if @wrong > 4;
}
is_deeply(\@wrong, [], "$rounds rounds: a preview says what the scan does, and what an edit changes") or diag("QUOTA_MANAGER_SEED=$seed");
note(join ', ', map { "$_: $seen{$_}" } sort keys %seen);
note(sql(q{SELECT string_agg(format('%s of %s', r.n, r.state), ', ') FROM (SELECT state, count(*) n FROM quota_manager.quota_run GROUP BY state) r}));
note(sql(q{SELECT format('%s runs with over_ceiling, %s with sufficient, %s capped, %s unknown, %s stopped by the breaker', count(*) FILTER (WHERE over_ceiling > 0), count(*) FILTER (WHERE sufficient > 0),
	count(*) FILTER (WHERE capped > 0), count(*) FILTER (WHERE unknown_balance > 0), (SELECT count(*) FROM quota_manager.quota_pause WHERE cause = 'breaker')) FROM quota_manager.quota_run}));
cmp_ok($seen{scan} // 0, '>', $rounds * 0.4, 'many of them ran');
foreach my $kind ('over_ceiling', 'sufficient', 'capped', 'unknown_balance', 'granted', 'already_granted')
{
	cmp_ok(sql("SELECT count(*) FROM quota_manager.quota_run WHERE $kind > 0"), '>', 2, "runs with $kind");
}

subtest 'a condition' => sub {
	foreach my $n (1 .. 30)
	{
		my $condition = condition(2);

		is(sql("SET ROLE scanner; SELECT users FROM quota_manager.preview(condition => \$c\$$condition\$c\$) LIMIT 1"),
			sql("SET ROLE scanner; SELECT count(*) FROM quota_manager.subject s WHERE s OPERATOR(quota_manager.\@\@) \$c\$$condition\$c\$"), $condition);
	}
};

subtest 'pages' => sub {
	my $pages = q{SET ROLE scanner; WITH RECURSIVE page AS (
			SELECT array_agg(u.user_id ORDER BY u.user_id COLLATE "C") AS ids, 1 AS n FROM quota_manager.preview_users(condition => 'true()', n => 4) u
			UNION ALL SELECT (SELECT array_agg(u.user_id ORDER BY u.user_id COLLATE "C") FROM quota_manager.preview_users(condition => 'true()', n => 4, after => p.ids[cardinality(p.ids)]) u), p.n + 1
				FROM page p WHERE cardinality(p.ids) = 4)
		SELECT string_agg(i, ' ' ORDER BY p.n, o) FROM page p, unnest(p.ids) WITH ORDINALITY i (i, o)};

	is(sql($pages), sql(q{SET ROLE scanner; SELECT string_agg(id, ' ' ORDER BY id COLLATE "C") FROM quota_manager.subject}), 'one after the other have everybody once');
};

# A forecast of some days against the scans of these days: at each firing, and when a day begins in a zone of a ceiling, which is
# when what a ceiling has cut or refused is tried again.
subtest 'a forecast under ceilings' => sub {
	my @zones = ('UTC', 'Asia/Shanghai', 'America/New_York');
	my (@wrong, %seen);

	foreach my $round (1 .. $rounds / 10)
	{
		my $start = sprintf('2031-0%d-%02d %02d:%02d:00+00', pick(3, 6, 11 % 10), 1 + int rand 25, int rand 24, pick(0, 17));
		my @names = map { "s$_" } 1 .. 2 + int rand 3;
		my $set = "SET search_path = quota_manager; SET quota_manager.surge_factor = 0; SET quota_manager.schedule_clock = '$start'";
		my @setup = ($set, 'TRUNCATE quota_execute, quota_run, quota_ceiling, user_balance, quota_internal.scan_mark', 'DELETE FROM quota_strategy', 'SELECT set_user_source(NULL)');
		my (@periodic, @statements);

		foreach my $name (@names)
		{
			my $expr = pick(undef, '0 8 * * *', '30 5,17 * * *', '0 */8 * * *', '0 0 * * *');

			push @periodic, $name if defined $expr;
			push @setup, sprintf(q{INSERT INTO quota_strategy (name, type, amount, model, condition, periodic_expr, time_zone, catch_up) VALUES ('%s', '%s', %d, 'a', '%s', %s, '%s', '%s')}, $name,
				defined $expr ? 'periodic' : 'single', pick(1, 3, 7, -2), pick('true()', 'is-vip(1)', 'is-vip(2)'), defined $expr ? "'$expr'" : 'NULL', pick(@zones), pick('none', 'latest', 'latest', 'all'));
		}
		foreach (1 .. 1 + int rand 3)
		{
			my $period = pick('day', 'day', 'day', 'total', @periodic ? 'run' : 'day');
			my $of = $period eq 'run' ? pick(@periodic) : pick(undef, undef, @names);

			push @setup, sprintf(q{INSERT INTO quota_ceiling (strategy_id, period, max_grants, max_amount, on_excess, time_zone) VALUES (%s, '%s', %s, '%s', '%s')},
				defined $of ? "(SELECT id FROM quota_strategy WHERE name = '$of')" : 'NULL', $period,
				pick('NULL, ' . int(rand(200)), int(rand(70)) . ', NULL', int(rand(70)) . ', ' . int(rand(200))), pick('cut', 'refuse'), pick(@zones));
		}
		sql(@setup);
		my $foreseen = sql($set, qq{SELECT strategy_name, coalesce(firing, '-infinity'), sum(users), sum(amount) FROM forecast(until => '$start'::timestamptz + interval '3 days')
			GROUP BY 1, 2 HAVING sum(users) > 0 ORDER BY 1, 2});
		my @times = split /\n/, sql($set, qq{SELECT t FROM (SELECT '$start'::timestamptz UNION SELECT firing FROM forecast(until => '$start'::timestamptz + interval '3 days')
			UNION SELECT d AT TIME ZONE z FROM (SELECT time_zone FROM quota_ceiling WHERE period = 'day') c (z), generate_series(date_trunc('day', '$start'::timestamptz AT TIME ZONE z), timestamp '2032-01-01', interval '1 day') d) x (t)
			WHERE t BETWEEN '$start' AND '$start'::timestamptz + interval '3 days' ORDER BY 1});
		sql($set, map { ("SET quota_manager.schedule_clock = '$_'", 'SELECT FROM (SELECT count(*) FROM scan()) s') } @times);
		my $real = sql($set, q{SELECT s.name, e.scheduled_time, count(*), sum(e.amount) FROM quota_execute e JOIN quota_strategy s ON s.id = e.strategy_id GROUP BY 1, 2 ORDER BY 1, 2});
		push @wrong, join "\n", "round $round:", @setup, "foreseen:\n$foreseen", "real:\n$real" if $foreseen ne $real;
		$seen{retried}++ if sql($set, q{SELECT count(*) FROM quota_run WHERE state = 'incomplete' OR reason LIKE 'refused%'}) > 0;
	}
	is(scalar @wrong, 0, 'it is what the scans grant') or diag($wrong[0]);
	cmp_ok($seen{retried} // 0, '>', 2, 'under ceilings that were reached');
};

$node->stop;
done_testing();
