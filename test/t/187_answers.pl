
# What preview, forecast, explain, funnel, diff and why answer agrees: with each other, and with what the scan after it does.
# Random strategies, users and states; and answers that were wrong once.
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

my $rounds = $ENV{QUOTA_MANAGER_LONG} ? 1000 : 80;
my $seed = QuotaTest::Seed::start(187);
my $node = scan_node('answers', <<'CONF');
log_min_messages = debug1
quota_manager.lint_on_write = off
quota_manager.balance_max_age = '10 h'
quota_manager.incremental_scans = off
quota_manager.surge_factor = 3
quota_manager.surge_minimum = 12
CONF

sub sql { return $node->safe_psql('postgres', join ";\n", 'SET search_path = quota_manager', 'SET client_min_messages = error', @_); }

# What a statement says.
sub says
{
	my (undef, $out, $err) = $node->psql('postgres', "SET search_path = quota_manager; $_[0]", extra_params => [ '-v', 'VERBOSITY=verbose' ]);

	return $err . $out;
}

sql(<<'SQL');
INSERT INTO quota_gateway (name, dialect, base_url, is_default, guard_balances) VALUES
	('a', 'zgsm', 'http://127.0.0.1:9', true, false), ('b', 'higress', 'http://127.0.0.1:9', false, false);
INSERT INTO quota_model VALUES ('a', 'a'), ('b', 'b');
INSERT INTO user_info (id, vip, org) SELECT 'u' || n, n % 4, 'org' || n % 3 FROM generate_series(1, 25) n;
CREATE SCHEMA site;
CREATE TABLE site.people (uid text, level integer, team text);
CREATE VIEW site.subjects AS SELECT uid AS id, level AS vip, team AS org FROM site.people;
INSERT INTO site.people SELECT 'p' || n, n % 4, 'org' || n % 3 FROM generate_series(1, 25) n;
-- Who cannot be granted anything.
INSERT INTO site.people VALUES (NULL, 2, 'org1'), ('', 2, 'org1'), (repeat('x', 2601), 2, 'org1');
CREATE ROLE scanner;
SELECT grant_access('scanner', 'operator');
GRANT USAGE ON SCHEMA site TO scanner;
GRANT SELECT ON site.subjects TO scanner;
CREATE SCHEMA test;
GRANT USAGE ON SCHEMA test TO scanner;
-- What is wrong about what is said of a strategy; no rows: nothing.
CREATE FUNCTION test.answers(name text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
	asked CONSTANT quota_strategy := (SELECT s FROM quota_strategy s WHERE s.name = answers.name);
	met CONSTANT text[] := ARRAY(SELECT u.user_id FROM preview_users(condition => asked.condition, n => 1000) u);
	perhaps CONSTANT text[] := ARRAY(SELECT u.user_id FROM preview_users(condition => asked.condition, reason => 'balance unknown', n => 1000) u);
	said CONSTANT jsonb := (SELECT jsonb_object_agg(p.reason, jsonb_build_array(p.users, trim_scale(p.amount), p.note)) FROM preview(name) p);
	long CONSTANT bigint := (SELECT coalesce(sum(p.users), 0) FROM preview(condition => asked.condition) p WHERE p.reason = 'id too long');
	whole record;
	first record;
	target record;
	version record;
	seen text[];
BEGIN
	SELECT f.* INTO whole FROM funnel(name) f LIMIT 1;
	-- Who has too long an id is counted with either.
	IF (whole.holds - cardinality(met), whole.unknown - cardinality(perhaps)) NOT IN ((long, 0), (0, long)) THEN
		RETURN NEXT format('the funnel ends with %s and %s unknown, the preview has %s and %s', whole.holds, whole.unknown, cardinality(met), cardinality(perhaps));
	END IF;
	FOR version IN SELECT v.version, ARRAY(SELECT u.user_id FROM preview_users(condition => (v.definition ->> 'condition')::condition, n => 1000) u) AS met
		FROM quota_strategy_version v WHERE v.strategy_id = asked.id ORDER BY random() LIMIT 2
	LOOP
		seen := ARRAY(SELECT d.change || ' ' || d.user_id FROM diff(name, version.version, asked.version) d WHERE octet_length(d.user_id) <= 2600 ORDER BY 1);
		IF seen <> ARRAY(SELECT 'gained ' || u FROM unnest(met) u WHERE u <> ALL (version.met) UNION ALL SELECT 'lost ' || u FROM unnest(version.met) u WHERE u <> ALL (met) ORDER BY 1) THEN
			RETURN NEXT format('diff(%s, %s) says %s; they meet %s and %s', version.version, asked.version, seen, version.met, met);
		END IF;
		IF (SELECT (c.gained, c.lost) FROM diff_counts(name, version.version, asked.version) c) IS DISTINCT FROM (SELECT (count(*) FILTER (WHERE d.change = 'gained'), count(*) FILTER (WHERE d.change = 'lost')) FROM diff(name, version.version, asked.version) d) THEN
			RETURN NEXT format('diff_counts(%s, %s) counts others than diff', version.version, asked.version);
		END IF;
	END LOOP;
	SELECT f.* INTO target FROM quota_internal.previewed_firing(asked) f;
	SELECT f.* INTO first FROM forecast(strategy => name, n => 1) f LIMIT 1;
	IF first.users IS NULL OR first.firing IS DISTINCT FROM nullif(target.firing, '-infinity') THEN
		IF isfinite(target.firing) AND target.firing < '2040-01-01' AND quota_manager.schedule_now() < asked.valid_until THEN
			RETURN NEXT format('the forecast begins with %s, the preview is of %s', first, target.firing);
		END IF;
	ELSIF (first.users, trim_scale(first.amount)) IS DISTINCT FROM ((said -> 'granted' ->> 0)::bigint, (said -> 'granted' ->> 1)::numeric) THEN
		RETURN NEXT format('the forecast says %s, the preview %s; %s; %s; clock %s', first, said, (SELECT jsonb_agg(c) FROM quota_ceiling c), (SELECT jsonb_agg(c) FROM quota_ceiling_usage c), quota_manager.schedule_now());
	END IF;
END
$$;
-- What is wrong about why() of a user, by the reason that preview_users() lists the user with.
CREATE FUNCTION test.why(name text, u text, reason text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	asked CONSTANT quota_strategy := (SELECT s FROM quota_strategy s WHERE s.name = why.name);
	told CONSTANT text := (SELECT string_agg(w.what, E'\n') FROM quota_manager.why(u, why.name) w WHERE w.kind = 'now');
	meets CONSTANT boolean := told ~ 'the user meets the condition now';
	has_had CONSTANT boolean := told ~ 'has had it: a single strategy grants once';
	capped CONSTANT boolean := told ~ 'as many as max_exec_per_user allows';
	unknown CONSTANT boolean := told ~ 'a missing balance decides|what is missing up to \d+ is not known: no balance';
	enough CONSTANT boolean := told ~ 'nothing is missing up to \d+: balance';
	fitting boolean;
BEGIN
	fitting := CASE reason
		WHEN 'granted' THEN meets AND NOT has_had AND NOT capped AND NOT unknown AND NOT enough AND (asked.allowance = 'add') = (told !~ 'fills up to|takes away what is above')
		WHEN 'over a ceiling' THEN meets AND NOT has_had AND NOT capped AND NOT unknown AND NOT enough
		WHEN 'already granted' THEN has_had OR asked.type = 'periodic' AND EXISTS (SELECT 1 FROM quota_manager.why(u, why.name) w WHERE w.kind = 'grant')
		WHEN 'capped' THEN meets AND capped
		WHEN 'sufficient' THEN meets AND enough AND NOT has_had AND NOT capped
		WHEN 'balance unknown' THEN unknown AND NOT has_had AND NOT capped
		ELSE told ~ 'the user does not meet the condition now' END;
	RETURN CASE WHEN fitting THEN '' ELSE format('%s, but why() says: %s', reason, told) END;
END
$$;
SQL

my $strategies = 0;

sub add_strategy
{
	my $periodic = rand() < 0.5;

	return sprintf q{INSERT INTO quota_strategy (name, type, amount, model, condition, periodic_expr, max_exec_per_user, allowance, state)
		VALUES ('s%d', '%s', %d, '%s', $c$%s$c$, %s, %s, '%s', '%s')},
	  ++$strategies, $periodic ? 'periodic' : 'single', 1 + rand 15, pick('a', 'b'), condition(2), $periodic ? "'0 */4 * * *'" : 'NULL',
	  rand() < 0.5 ? 1 + int rand 2 : 'NULL', pick('add', 'add', 'top_up', 'exact'), pick(('active') x 8, 'draft', 'paused');
}

# Something that may change the answers.
sub change
{
	my $name = 's' . (1 + int rand $strategies);

	return pick(
		sprintf(q{UPDATE user_info SET vip = %d WHERE id = 'u%d'}, rand 4, 1 + rand 25),
		sprintf(q{UPDATE site.people SET level = %d WHERE uid = 'p%d'}, rand 4, 1 + rand 25),
		(sprintf q{INSERT INTO user_balance (user_id, gateway, balance) SELECT i, '%s', %d FROM (SELECT id FROM user_info UNION ALL SELECT uid FROM site.people WHERE uid <> '') x (i) WHERE octet_length(i) < 2600 AND random() < 0.6
			ON CONFLICT (user_id, gateway) DO UPDATE SET balance = excluded.balance, read_time = clock_timestamp()}, pick('a', 'b'), rand 20) x 3,
		q{UPDATE quota_execute SET status = 'cancelled' WHERE status = 'pending' AND id % 7 = 0},
		(sprintf q{INSERT INTO quota_ceiling (strategy_id, period, max_grants, max_amount, on_excess) VALUES (%s, '%s', %s, '%s')},
			pick('NULL', "(SELECT id FROM quota_strategy WHERE name = '$name')"), pick('run', 'day', 'total'),
			pick((sprintf '%d, NULL', rand 40), (sprintf 'NULL, %d', rand 200), (sprintf '%d, %d', rand 40, rand 300)), pick('refuse', 'cut')),
		(q{DELETE FROM quota_ceiling WHERE random() < 0.7}) x 2,
		(sprintf q{UPDATE quota_strategy SET condition = $c$%s$c$, max_exec_per_user = %s WHERE name = '%s'}, condition(2), pick('NULL', 1, 2), $name) x 2,
		(sprintf q{UPDATE quota_strategy SET type = '%s', periodic_expr = %s WHERE name = '%s'}, @{ pick([ 'single', 'NULL' ], [ 'periodic', "'0 */4 * * *'" ]) }, $name),
		qq{UPDATE quota_strategy SET state = 'paused' WHERE name = '$name' AND state = 'active'},
		q{UPDATE quota_strategy SET state = 'active' WHERE state <> 'active'},
		qq{SELECT unpause_strategy(p.name, 'test') FROM (SELECT DISTINCT s.name FROM quota_pause q JOIN quota_strategy s ON s.id = q.strategy_id WHERE q.end_time IS NULL AND q.cause = 'breaker') p},
		'SELECT FROM set_user_source(' . pick(q{'site.subjects'}, 'NULL') . ')');
}

subtest 'random strategies, users and states' => sub {
	my $clock = 1_750_000_000;
	my (%seen, @wrong);
	my @reasons = ('granted', 'already granted', 'capped', 'sufficient', 'over a ceiling', 'balance unknown');

	sql("SET quota_manager.schedule_clock = '2025-06-15 00:00:00+00'", map { add_strategy() } 1 .. 8);
	foreach my $round (1 .. $rounds)
	{
		my $name = 's' . (1 + int rand $strategies);
		my $set = strftime("SET quota_manager.schedule_clock = '%Y-%m-%d %H:%M:%S+00'", gmtime($clock += int rand 8 * 3600));
		my @changes = ((map { change() } 0 .. 1 + rand 3), rand() < 0.1 && $strategies < 16 ? add_strategy() : ());
		my @said = split /\n(?=answer|why )/, sql($set, 'SELECT setseed(' . rand() . ')', @changes, 'SET ROLE scanner', "SELECT 'answer ' || a FROM test.answers('$name') a",
			(map { "SELECT 'why ' || CASE w WHEN '' THEN '$_' ELSE 'wrong ' || user_id || ': ' || w END FROM (SELECT user_id, test.why('$name', user_id, '$_') AS w FROM preview_users('$name', reason => '$_', n => 2)) u" } @reasons),
			"SELECT 'why ' || CASE w WHEN '' THEN 'not met' ELSE 'wrong ' || id || ': ' || w END FROM (SELECT id, test.why('$name', id, 'not met') AS w FROM (SELECT id FROM subject WHERE octet_length(id) BETWEEN 1 AND 2600
				AND id <> ALL (ARRAY(SELECT user_id FROM preview_users(condition => (SELECT condition FROM quota_strategy WHERE name = '$name'), n => 100)
				UNION ALL SELECT user_id FROM preview_users(condition => (SELECT condition FROM quota_strategy WHERE name = '$name'), n => 100, reason => 'balance unknown'))) ORDER BY id LIMIT 2) x) y");

		foreach my $answer (@said)
		{
			$seen{$1}++ if $answer =~ /why ((?!wrong).*)/;
			push @wrong, "round $round, $name: $answer" if $answer =~ /^\s*(?:answer|why wrong)/;
		}
		last if @wrong > 9;
		sql($set, 'SET ROLE scanner', 'SELECT count(*) FROM scan()') if rand() < 0.7;
	}
	is_deeply(\@wrong, [], "$rounds rounds") or diag(join "\n", "QUOTA_MANAGER_SEED=$seed", @wrong);
	note(join ', ', map { "$_: $seen{$_}" } sort keys %seen);
	cmp_ok($seen{$_} // 0, '>', 2, "users with: $_") foreach @reasons, 'not met';
};

subtest 'a name that is taken' => sub {
	sql(q{SELECT set_user_source(NULL)}, q{INSERT INTO quota_strategy (name, type, amount, model, condition) VALUES ('one', 'single', 1, 'a', 'true()'), ('two', 'single', 1, 'a', 'true()')});
	like(says(q{UPDATE quota_strategy SET name = 'two' WHERE name = 'one'}), qr/ERROR:  23505/, 'is an error of the edit');
	like(says(q{SELECT * FROM preview('one', changes => '{"name": "two"}')}), qr/ERROR:  23505: another strategy has the name "two"\nHINT:  Choose another one/, 'and of its preview');
	unlike(says(qq{SELECT * FROM preview('one', changes => '{"name": "$_"}')}), qr/ERROR/, "$_ is not") foreach 'one', 'three';
	sql(q{ALTER TABLE quota_strategy ENABLE ROW LEVEL SECURITY}, q{CREATE POLICY site ON quota_strategy TO scanner USING (name <> 'two')});
	unlike(says(q{SET ROLE scanner; SELECT * FROM preview('one', changes => '{"name": "two"}')}), qr/ERROR/, 'nobody is told of a strategy that a policy hides');
	sql(q{DROP POLICY site ON quota_strategy}, q{ALTER TABLE quota_strategy DISABLE ROW LEVEL SECURITY});
};

# Statistics of balances are pinned: to the planner there are a million.
# Any session can bring it about that the cache entry of the table of strategies is built anew while its triggers are
# called; so does this trigger, which also has what was freed used again.
subtest 'an edit is checked while the cache entry of the table is built anew' => sub {
	sql(q{CREATE FUNCTION quota_internal.check_anew() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN
			GRANT SELECT ON quota_manager.quota_strategy TO PUBLIC;
			FOR i IN 1 .. 20 LOOP
				EXECUTE format('CREATE TABLE public.filler_%s (a int CHECK (a > 0), b text DEFAULT ''x'' UNIQUE)', i);
				EXECUTE format('DROP TABLE public.filler_%s', i);
			END LOOP;
			REVOKE SELECT ON quota_manager.quota_strategy FROM PUBLIC;
			RETURN NEW;
		END $$},
		q{CREATE TRIGGER check_a BEFORE UPDATE ON quota_strategy FOR EACH ROW EXECUTE FUNCTION quota_internal.check_anew()});
	my $name = sql('SELECT min(name) FROM quota_strategy');
	is(sql(map { "SELECT (quota_internal.check_edit(s, s)).name FROM quota_strategy s WHERE name = '$name'" } 1 .. 5), join("\n", ($name) x 5), 'five times');
	sql('DROP TRIGGER check_a ON quota_strategy', 'DROP FUNCTION quota_internal.check_anew()');
};

subtest 'few users are evaluated without parallel workers' => sub {
	my $set = 'SET max_parallel_workers_per_gather = 2';

	sql(q{INSERT INTO quota_strategy (name, type, amount, model, condition, allowance) VALUES ('low', 'single', 1, 'a', 'quota-le("a", 100)', 'add'), ('fill', 'single', 1, 'a', 'true()', 'top_up')});
	my $before = -s $node->logfile;
	sql($set, map { ("SELECT count(*) FROM preview('$_')", "SELECT count(*) FROM preview_users('$_')", "SELECT count(*) FROM scan('$_')") } 'low', 'fill');
	unlike(slurp_file($node->logfile, $before), qr/starting background worker process "parallel worker/, 'previews and scans');
	sql(q{INSERT INTO user_info (id) SELECT 'many' || n FROM generate_series(1, 60000) n}, 'ANALYZE user_info');
	$before = -s $node->logfile;
	sql($set, q{SELECT count(*) FROM preview('low')});
	like(slurp_file($node->logfile, $before), qr/starting background worker process "parallel worker/, 'many are evaluated with them');
	sql(q{DELETE FROM user_info WHERE id LIKE 'many%'});
};

subtest 'why() of a strategy that was of another type' => sub {
	my $told = sub { my ($kind, @set) = @_; return sql(@set, "SELECT what FROM why('u1', 'turned') WHERE kind = '$kind'") };

	sql(q{DELETE FROM quota_ceiling}, q{SET quota_manager.schedule_clock = '2030-01-01 07:00:00+00'},
		q{INSERT INTO quota_strategy (name, type, amount, model, condition, periodic_expr) VALUES ('turned', 'periodic', 1, 'a', 'true()', '0 8 * * *')},
		q{SET quota_manager.schedule_clock = '2030-01-01 08:00:10+00'}, q{SELECT count(*) FROM scan('turned')});
	sql(q{UPDATE quota_strategy SET type = 'single', periodic_expr = NULL, condition = 'is-vip(4)' WHERE name = 'turned'});
	my @set = (q{SET quota_manager.schedule_clock = '2030-01-02 08:00:10+00'});
	sql(@set, q{SELECT count(*) FROM scan('turned')});
	is($told->('left out', @set), 'a scan granted nothing: the user did not meet the condition then', 'a scan that left the user out, who had had another grant');
	unlike($told->('now', @set), qr/has had it/, 'the user has not had it');
	sql(@set, q{UPDATE quota_strategy SET condition = 'true()' WHERE name = 'turned'}, q{SELECT count(*) FROM scan('turned')});
	like($told->('now', @set), qr/has had it: a single strategy grants once/, 'and now has');
};

subtest 'why() goes by the limit of then' => sub {
	my @set = (q{SET quota_manager.schedule_clock = '2030-01-01 07:00:00+00'});

	sql(@set, q{INSERT INTO quota_strategy (name, type, amount, model, condition, periodic_expr, max_exec_per_user) VALUES ('limited', 'periodic', 1, 'a', 'is-vip(0)', '0 8 * * *', 5)},
		q{SET quota_manager.schedule_clock = '2030-01-01 08:00:10+00'}, q{SELECT count(*) FROM scan('limited')}, q{UPDATE quota_strategy SET condition = 'is-vip(4)' WHERE name = 'limited'},
		q{SET quota_manager.schedule_clock = '2030-01-02 08:00:10+00'}, q{SELECT count(*) FROM scan('limited')}, q{UPDATE quota_strategy SET max_exec_per_user = 1, condition = 'is-vip(0)' WHERE name = 'limited'},
		q{SET quota_manager.schedule_clock = '2030-01-03 08:00:10+00'}, q{SELECT count(*) FROM scan('limited')});
	is(sql(q{SELECT what FROM why('u1', 'limited') WHERE kind = 'left out' ORDER BY at, what}), "the firing of 2030-01-02 08:00:00+00 granted nothing: the user did not meet the condition then\n"
		. 'the firing of 2030-01-03 08:00:00+00 granted nothing: the user had had 1, as many as max_exec_per_user allows', 'not by the one of now');
};

subtest 'why() of an id that is too long' => sub {
	sql(q{SELECT set_user_source('site.subjects')});
	like(sql(q{SET ROLE scanner}, q{SELECT string_agg(what, ' ') FROM why(repeat('x', 2601), 'one')}), qr/the user meets the condition now.*the id of the user has no room in a grant: it has more than 2600 bytes/, 'says so');
	sql(q{SELECT set_user_source(NULL)});
};

subtest 'ceilings' => sub {
	my @set = ('SET quota_manager.surge_factor = 0', q{SET quota_manager.schedule_clock = '2031-01-01 08:00:10+00'});

	sql(@set, q{SELECT set_user_source(NULL)}, q{UPDATE quota_strategy SET archived = true}, q{DELETE FROM quota_ceiling},
		q{INSERT INTO quota_strategy (name, type, amount, model, condition, allowance) VALUES ('filled', 'single', 10, 'b', 'match-user("u1", "u2", "u3")', 'top_up')},
		q{INSERT INTO user_balance (user_id, gateway, balance) SELECT id, 'b', 4 FROM user_info ON CONFLICT (user_id, gateway) DO UPDATE SET balance = 4, read_time = clock_timestamp()},
		q{INSERT INTO quota_ceiling (strategy_id, period, max_amount, on_excess) SELECT id, 'day', 12, 'cut' FROM quota_strategy WHERE name = 'filled'});
	is(sql(@set, q{SELECT reason, users, amount FROM preview('filled')}), "granted|2|12\nover a ceiling|1|6", 'a preview');
	is(sql(@set, q{SELECT users, amount FROM forecast(strategy => 'filled')}), '2|12', 'and a forecast of what fills up, under a ceiling of amounts alone');
	sql(@set, q{DELETE FROM quota_ceiling}, q{INSERT INTO quota_ceiling (period, max_amount, on_excess) VALUES ('day', 12, 'cut')}, q{SELECT count(*) FROM scan('filled')}, q{INSERT INTO quota_strategy (name, type, amount, model, condition, periodic_expr) VALUES ('tomorrow', 'periodic', 4, 'b', 'true()', '0 8 * * *')});
	is(sql(@set, q{SELECT users, amount FROM preview('tomorrow') WHERE reason = 'granted'}), '3|12', 'a preview of a firing goes by what is left on its day');
	is(sql(@set, q{SELECT users, amount FROM forecast(strategy => 'tomorrow', n => 1)}), '3|12', 'as does a forecast');
	is(sql(@set, q{SELECT count(*) FROM preview_users('tomorrow')}), 3, 'and a page of users');
	sql(q{DELETE FROM quota_ceiling}, q{UPDATE quota_strategy SET archived = true});
};

subtest 'lint() of schedules and models that are written otherwise' => sub {
	my $strategy = sub { sprintf q{INSERT INTO quota_strategy (name, type, amount, model, condition, periodic_expr, time_zone, state) VALUES ('%s', 'periodic', 1, '%s', 'is-vip(2)', '%s', '%s', 'active')}, @_ };

	sql(q{INSERT INTO quota_model VALUES ('gpt-4', 'a')}, $strategy->('daily', 'gpt-4', '0 8 * * *', 'UTC'), $strategy->('every day', 'gpt-4', '0 8 * * 0-6', 'UTC'), $strategy->('in China', 'gpt-4', '0 16 * * *', 'Asia/Shanghai'),
		$strategy->('in Berlin', 'gpt-4', '0 9 * * *', 'Europe/Berlin'), $strategy->('workdays', 'gpt-4', '0 8 * * 1-5', 'UTC'), $strategy->('upper', 'GPT-4', '0 8 * * *', 'UTC'));
	is(sql(q{SELECT strategy, problem, severity, message FROM lint() WHERE strategy IN ('daily', 'every day', 'in China')}), "every day|duplicate|warning|it does the same as \"daily\"\n"
		. 'in China|duplicate|warning|it does the same as "daily", "every day"', 'the same times are the same');
	is(sql(q{SELECT problem, severity FROM lint('in Berlin') WHERE severity = 'warning'}), '', 'and those that differ in summer are not');
	like(sql(q{SELECT hint FROM lint('upper') WHERE problem = 'unnamed_model'}), qr/^Did you mean "gpt-4"\?/, 'a model in other letters');
	sql(q{UPDATE quota_strategy SET archived = true});
};

subtest 'lint() has nothing to warn of in what we show' => sub {
	my $shown = 0;

	foreach my $file (glob("$FindBin::RealBin/../../docs/*.md"), map { "$FindBin::RealBin/../../$_" } 'README.md', 'examples/sample.sql')
	{
		# One page shows what is found, and one begins with a typo.
		next if $file =~ m{/(?:lint|session)\.md$};
		my $page = slurp_file($file) =~ s/^quota[-=]# //mgr;
		my %named;
		my @inserts = grep { !/VALUES \('([\w-]+)'/ || !$named{$1}++ } $page =~ /^(INSERT INTO (?:quota_manager\.)?quota_strategy .*?;)$/msg;

		next if !@inserts;
		$shown += @inserts;
		is(sql(q{BEGIN}, q{UPDATE quota_strategy SET name = 'other ' || id}, q{DELETE FROM quota_model}, (map { s/;$//r } @inserts),
			q{SELECT strategy, problem, severity, message FROM lint() WHERE severity <> 'notice'}, q{ROLLBACK}), '', $file =~ s{.*/}{}r);
	}
	cmp_ok($shown, '>', 3, "$shown statements");
};

$node->stop;
done_testing();
