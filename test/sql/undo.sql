-- Taking back what was granted: reversals of runs, strategies and grants, undoing them, and who may.
\pset format unaligned
\pset tuples_only on
\pset null '~'
\set SHOW_CONTEXT never
SET client_min_messages = warning;
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET search_path = quota_manager, public;

CREATE ROLE regress_quota_viewer;
CREATE ROLE regress_quota_operator;
SELECT grant_access('regress_quota_viewer', 'viewer'), grant_access('regress_quota_operator', 'operator');
-- The first numbers of each, whatever was tested before.
TRUNCATE quota_execute, quota_run, grant_decision, quota_reversal RESTART IDENTITY;
INSERT INTO quota_gateway (name, dialect, base_url, is_default) VALUES ('g', 'higress', 'http://gateway.example', true), ('h', 'zgsm', 'http://gateway.example', false);
INSERT INTO quota_model VALUES ('other', 'h');
INSERT INTO user_info (id) SELECT 'u' || n FROM generate_series(1, 6) n;
INSERT INTO quota_strategy (name, type, amount, model, condition, state) VALUES ('one', 'single', 500, 'm', 'true()', 'active'),
	('two', 'single', 7, 'other', 'match-user(u1, u2)', 'active'), ('none', 'single', 1, 'm', 'false()', 'paused');
SELECT strategy, granted FROM scan() ORDER BY 1;

-- Grants by their user and strategy, and what became of each of their revisions.
CREATE VIEW public.undo_test AS
SELECT s.name, e.user_id, string_agg(format('%s %s %s', e.revision, e.status, e.amount), ', ' ORDER BY e.revision) AS revisions
FROM quota_manager.quota_execute e JOIN quota_manager.quota_strategy s ON s.id = e.strategy_id GROUP BY 1, 2;
CREATE VIEW public.undo_test_items AS
SELECT i.reversal_id, e.user_id, e.revision, i.outcome, o.revision AS opposite FROM quota_manager.quota_reversal_item i
JOIN quota_manager.quota_execute e ON e.id = i.grant_id LEFT JOIN quota_manager.quota_execute o ON o.id = i.opposite_id;
GRANT SELECT ON public.undo_test, public.undo_test_items TO regress_quota_operator, regress_quota_viewer;
CREATE FUNCTION public.undo_test_set(strategy text, users text[], status text) RETURNS void LANGUAGE sql AS $$
	UPDATE quota_manager.quota_execute e SET status = undo_test_set.status, next_attempt_time = CASE undo_test_set.status WHEN 'in_doubt' THEN 'infinity' ELSE '-infinity' END::timestamptz
	FROM quota_manager.quota_strategy s WHERE s.id = e.strategy_id AND s.name = strategy AND e.user_id = ANY (users)
		AND e.revision = (SELECT max(x.revision) FROM quota_manager.quota_execute x WHERE (x.strategy_id, x.user_id) = (e.strategy_id, e.user_id));
	SELECT quota_internal.recount_grants();
$$;
CREATE FUNCTION public.undo_test_id(strategy text, user_id text, revision integer DEFAULT 0) RETURNS bigint LANGUAGE sql STABLE AS $$
	SELECT e.id FROM quota_manager.quota_execute e JOIN quota_manager.quota_strategy s ON s.id = e.strategy_id
	WHERE s.name = strategy AND e.user_id = undo_test_id.user_id AND e.revision = undo_test_id.revision $$;
CREATE FUNCTION public.undo_test_try(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	answer text;
	detail text;
	hint text;
BEGIN
	EXECUTE statement INTO answer;
	RAISE assert_failure;
EXCEPTION WHEN assert_failure THEN
	RETURN coalesce(nullif(answer, ''), 'done');
WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	RETURN concat_ws(E'\n  ', SQLSTATE || ' ' || SQLERRM, nullif(detail, ''), nullif(hint, ''));
END
$$;

--
-- A run with grants in every status.
--
SELECT undo_test_set('one', '{u1}', 'completed'), undo_test_set('one', '{u2}', 'processing'), undo_test_set('one', '{u3}', 'in_doubt'),
	undo_test_set('one', '{u4}', 'failed'), undo_test_set('one', '{u5}', 'cancelled');
SELECT id AS run FROM quota_run r WHERE r.strategy_id = (SELECT id FROM quota_strategy WHERE name = 'one') \gset
INSERT INTO user_balance (user_id, gateway, balance) VALUES ('u1', 'g', 3), ('u6', 'g', 3), ('u1', 'h', 3);
SET ROLE regress_quota_viewer;
SELECT * FROM preview_reversal(run_id => :run);
SELECT undo_test_try('SELECT quota_manager.reverse_run(1, ''n'')');
SET ROLE regress_quota_operator;
SELECT * FROM reverse_run(:run, '500 in place of 5');
SELECT revisions, user_id FROM undo_test WHERE name = 'one' ORDER BY user_id;
SELECT user_id, revision, outcome, opposite FROM undo_test_items ORDER BY user_id;
SELECT id, what, note, role, session_role = session_user, said_by, reversed_run_id = :run, strategy_id, undone_id FROM quota_reversal;
SELECT cancelled, taken_back, delivered, waits, others FROM reversal_status;
RESET ROLE;
-- The opposite amount is a grant of a run without a strategy, found by deliveries; nothing takes it for a scan.
SELECT r.strategy_id, r.state, r.reason, r.matched, r.granted, r.amount, r.undelivered, e.user_id, e.revision, e.amount, e.model, e.gateway, e.strategy_version,
	e.batch_number = g.batch_number, e.scheduled_time, e.status, e.next_attempt_time, e.claim_number
FROM quota_reversal v JOIN quota_run r ON r.id = v.run_id JOIN quota_execute e ON e.run_id = r.id AND e.id BETWEEN r.first_grant_id AND r.last_grant_id
JOIN quota_execute g ON g.user_id = e.user_id AND g.strategy_id = e.strategy_id AND g.revision = 0;
SELECT pending FROM delivery_status WHERE gateway = 'g';
SELECT * FROM quota_internal.check_counts();
SELECT action, status_before, status_after, user_id, note FROM grant_decision ORDER BY id;
SELECT last_error = 'cancelled by regress_quota_operator: reversal 1: 500 in place of 5' FROM quota_execute WHERE id = undo_test_id('one', 'u6');
-- Balances from before do not count; that of a grant that was only cancelled still does.
SELECT user_id, gateway, balance FROM user_balance ORDER BY 1, 2;
-- It is still granted.
SELECT strategy, granted, already_granted FROM scan('one');

-- Again: there is nothing left to do, and nothing is recorded.
SELECT * FROM reverse_run(:run, 'again');
SELECT * FROM reverse_strategy('one', 'again');
SELECT * FROM reverse_grants(ARRAY[undo_test_id('one', 'u1'), undo_test_id('one', 'u1'), 999], 'again');
SELECT count(*), max(id) FROM quota_reversal;

-- What waits goes on when it is settled.
SELECT quota_internal.continue_reversals();
SELECT undo_test_set('one', '{u2}', 'completed');
SELECT quota_internal.continue_reversals(), quota_internal.continue_reversals();
SELECT resolve(undo_test_id('one', 'u3'), false, 'not in their log');
SELECT revisions, user_id FROM undo_test WHERE name = 'one' ORDER BY user_id;
SELECT user_id, revision, outcome, opposite FROM undo_test_items ORDER BY user_id;
SELECT action, status_before, status_after, user_id, note FROM grant_decision WHERE user_id = 'u3' ORDER BY id;
SELECT * FROM quota_internal.check_counts();
SELECT count(*), array_agg(DISTINCT strategy_id) FROM quota_run WHERE reason LIKE 'reversal%';

-- Only the last revision changes.
SELECT undo_test_try(format('SELECT quota_manager.' || call, undo_test_id('one', 'u1'))) FROM unnest(ARRAY['retry(%s)', 'cancel(%s)', 'reinstate(%s)', 'correct(%s, false)']) call;

--
-- Undo, and undo of that.
--
SELECT undo_test_set('one', '{u1}', 'completed');
SELECT * FROM preview_reversal(reversal_id => 1);
SELECT * FROM undo_reversal(1, 'it was right after all');
SELECT revisions, user_id FROM undo_test WHERE name = 'one' ORDER BY user_id;
SELECT reversal_id, user_id, revision, outcome, opposite FROM undo_test_items ORDER BY 1, 2, 3;
SELECT * FROM undo_reversal(1, 'twice');
SELECT * FROM quota_internal.check_counts();
-- The run can be taken back again.
SELECT * FROM preview_reversal(run_id => :run);
SELECT undo_test_set('one', '{u1}', 'completed');
SELECT * FROM reverse_run(:run, 'no, it was wrong');
SELECT revisions, user_id FROM undo_test WHERE name = 'one' ORDER BY user_id;
-- A call of before that comes once more undoes nothing that was meant since.
SELECT undo_test_try('SELECT * FROM quota_manager.undo_reversal(1, ''late'')');
SELECT * FROM preview_reversal(reversal_id => 2);
SELECT what, undone_id, cancelled, taken_back, waits, others FROM reversal_status ORDER BY id;
-- The run of a reversal is a run.
SELECT run_id AS back FROM quota_reversal WHERE id = 3 \gset
SELECT undo_test_set('one', '{u1}', 'completed');
SELECT * FROM preview_reversal(run_id => :back);
-- What failed to be taken back is taken back by the next revision, and stays what it is.
SELECT undo_test_set('two', '{u1,u2}', 'completed');
SELECT * FROM reverse_strategy('two', 'first');
SELECT undo_test_set('two', '{u1}', 'failed');
SELECT * FROM reverse_strategy('two', 'second');
SELECT revisions, user_id FROM undo_test WHERE name = 'two' ORDER BY user_id;
SELECT undo_test_try(format('SELECT quota_manager.retry(%s)', undo_test_id('two', 'u1', 1)));
-- While it waits, the reversal is undone.
SELECT undo_test_set('two', '{u1,u2}', 'in_doubt');
SELECT * FROM reverse_grants(ARRAY[undo_test_id('two', 'u1', 2), undo_test_id('two', 'u2', 1)], 'a moment');
SELECT * FROM undo_reversal((SELECT max(id) FROM quota_reversal), 'no');
SELECT resolve(undo_test_id('two', 'u1', 2), true);
SELECT user_id, outcome FROM undo_test_items WHERE outcome IN ('waits', 'withdrawn', 'spared') ORDER BY 1, reversal_id;

--
-- One firing, one version; gateways that are gone; imported grants.
--
SET quota_manager.schedule_clock = '2026-01-01 00:30:00+00';
INSERT INTO quota_strategy (name, type, amount, model, condition, periodic_expr, state) VALUES ('hourly', 'periodic', 1, 'm', 'match-user(u1)', '0 * * * *', 'active');
SET quota_manager.schedule_clock = '2026-01-01 01:00:00+00';
SELECT granted FROM scan('hourly');
UPDATE quota_strategy SET amount = 2 WHERE name = 'hourly';
SET quota_manager.schedule_clock = '2026-01-01 02:00:00+00';
SELECT granted FROM scan('hourly');
RESET quota_manager.schedule_clock;
SELECT * FROM preview_reversal(strategy => 'hourly');
SELECT * FROM preview_reversal(strategy => 'hourly', firing => '2026-01-01 01:00:00+00');
SELECT * FROM preview_reversal(strategy => 'hourly', version => (SELECT version FROM quota_strategy WHERE name = 'hourly'));
SELECT * FROM reverse_strategy('hourly', 'n', firing => '2026-01-01 02:00:00+00');
SELECT what FROM quota_reversal ORDER BY id DESC LIMIT 1;
INSERT INTO quota_strategy (name, type, amount, model, condition, state) VALUES ('old', 'single', 3, 'm', 'false()', 'paused'), ('lost', 'single', 3, 'm', 'false()', 'paused'),
	('low', 'single', '-9223372036854775808', 'm', 'false()', 'paused');
SELECT imported FROM import_grants($$SELECT n, 'u1', now() FROM unnest(ARRAY['old', 'lost', 'low']) n$$);
UPDATE quota_execute SET gateway = 'gone' WHERE id = undo_test_id('lost', 'u1');
SELECT * FROM reverse_grants(ARRAY[undo_test_id('old', 'u1'), undo_test_id('lost', 'u1'), undo_test_id('low', 'u1')], 'never paid');
SELECT revisions FROM undo_test WHERE name = 'old';

--
-- Reinstate and correct.
--
INSERT INTO quota_strategy (name, type, amount, model, condition, max_exec_per_user, periodic_expr, state) VALUES ('capped', 'periodic', 1, 'm', 'match-user(u1, u2)', 1, '@yearly', 'paused');
INSERT INTO quota_run (id, strategy_id, state, first_grant_id, last_grant_id, start_time, finish_time) SELECT 900, id, 'done', 9000, 9999, now(), now() FROM quota_strategy WHERE name = 'capped';
CREATE FUNCTION public.undo_test_grant(id bigint, user_id text, year integer, status text) RETURNS void LANGUAGE sql AS $$
	INSERT INTO quota_manager.quota_execute (id, strategy_id, user_id, scheduled_time, run_id, strategy_version, amount, model, gateway, batch_number, status, next_attempt_time)
	SELECT undo_test_grant.id, s.id, undo_test_grant.user_id, make_timestamptz(year, 1, 1, 0, 0, 0, 'UTC'), 900, 1, 5, 'm', 'g', '', undo_test_grant.status, 'infinity' FROM quota_manager.quota_strategy s WHERE s.name = 'capped';
	SELECT quota_internal.recount_grants();
$$;
SELECT undo_test_grant(9001, 'u1', 2001, 'cancelled'), undo_test_grant(9002, 'u1', 2002, 'completed'), undo_test_grant(9003, 'u2', 2001, 'cancelled'), undo_test_grant(9004, 'u2', 2002, 'cancelled');
SELECT undo_test_try('SELECT quota_manager.reinstate(9001)');
SELECT undo_test_try('SELECT quota_manager.reinstate(9002)');
SET client_min_messages = notice;
SELECT reinstate(ARRAY[9001, 9003, 9004, 9999], 'came back');
SET client_min_messages = warning;
SELECT id, status, next_attempt_time <= now(), attempts, last_error = 'reinstated by ' || session_user || ': came back' FROM quota_execute WHERE id IN (9003, 9004) ORDER BY 1;
SELECT undelivered FROM quota_run WHERE id = 900;
SELECT undo_test_grant(9010 + n, 'u3', 2010 + n, 'in_doubt') FROM generate_series(1, 9) n;
SELECT resolve(ARRAY[9011, 9012, 9013], true, 'by mistake'), resolve(ARRAY[9014, 9015, 9016, 9017, 9018], false, 'by mistake');
SELECT correct(9011, false, 'looked again'), correct(9014, true, 'looked again');
SELECT id, status, attempts, doubt_time, last_error LIKE 'corrected as%applied by ' || session_user || ': looked again' FROM quota_execute WHERE id IN (9011, 9014) ORDER BY 1;
SELECT outcome, grants FROM reverse_grants(ARRAY[9012::bigint], 'taken back');
UPDATE quota_execute SET status = CASE id WHEN 9015 THEN 'completed' WHEN 9016 THEN 'in_doubt' WHEN 9017 THEN 'processing' ELSE 'failed' END WHERE id BETWEEN 9015 AND 9018;
SELECT quota_internal.recount_grants();
SELECT id, undo_test_try(format('SELECT quota_manager.correct(%s, %s)', id, applied)) FROM (VALUES (9011, 'false'), (9012, 'false'), (9013, 'true'), (9015, 'true'), (9016, 'true'), (9017, 'true'), (9018, 'true'),
	(9019, 'true'), (9002, 'false'), (1, 'true'), (9011, 'NULL')) c (id, applied);
-- A correction can be corrected.
SELECT correct(9014, false, 'and again'), correct(9014, true, 'and again');
SELECT action, status_before, status_after FROM grant_decision WHERE grant_id = 9014 ORDER BY id;
SELECT * FROM quota_internal.check_counts();

--
-- What cannot be done.
--
SELECT undo_test_try(call) FROM unnest(ARRAY['SELECT * FROM quota_manager.reverse_run(99999, ''n'')', 'SELECT * FROM quota_manager.reverse_run(NULL, ''n'')',
	'SELECT * FROM quota_manager.reverse_run(1, NULL)', 'SELECT * FROM quota_manager.reverse_run(1, '''')', 'SELECT * FROM quota_manager.reverse_strategy(''nobody'', ''n'')',
	'SELECT * FROM quota_manager.reverse_strategy(NULL, ''n'')', 'SELECT * FROM quota_manager.reverse_grants(NULL, ''n'')', 'SELECT count(*) FROM quota_manager.reverse_grants(''{}'', ''n'')',
	'SELECT * FROM quota_manager.undo_reversal(99, ''n'')', 'SELECT * FROM quota_manager.preview_reversal()', 'SELECT * FROM quota_manager.preview_reversal(run_id => 1, ids => ''{}'')',
	'SELECT * FROM quota_manager.preview_reversal(strategy => ''nobody'')', 'SELECT count(*) FROM quota_manager.preview_reversal(run_id => 99999)',
	'SELECT * FROM quota_manager.reverse_run(1, repeat(''n'', 2590))']) call;
SELECT count(*) FROM reverse_strategy('none', 'nothing was granted');
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT undo_test_try('SELECT * FROM quota_manager.reverse_run(1, ''n'')');
COMMIT;
BEGIN READ ONLY;
SELECT undo_test_try('SELECT * FROM quota_manager.reverse_run(1, ''n'')');
COMMIT;
-- Grants and strategies that a policy hides are not there.
ALTER TABLE quota_execute ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON quota_execute FOR SELECT USING (user_id = 'u1');
ALTER TABLE quota_strategy ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON quota_strategy FOR SELECT USING (name <> 'hourly');
SET ROLE regress_quota_operator;
SELECT outcome, grants FROM preview_reversal(run_id => :run);
SELECT outcome, grants FROM preview_reversal(ids => ARRAY[9002, 9003]);
SELECT outcome, grants FROM reverse_grants(ARRAY[9003], 'hidden');
SELECT undo_test_try('SELECT * FROM quota_manager.reverse_strategy(''hourly'', ''n'')');
RESET ROLE;
ALTER TABLE quota_execute DISABLE ROW LEVEL SECURITY;
ALTER TABLE quota_strategy DISABLE ROW LEVEL SECURITY;

-- All revisions of a grant at once: the first one counts, and what is written for it is left alone.
SELECT undo_test_grant(9040, 'u5', 2040, 'completed');
CREATE VIEW public.undo_test_chain AS SELECT id, revision, status, amount FROM quota_execute WHERE user_id = 'u5' AND scheduled_time > '2039-01-01';
SELECT outcome, grants FROM reverse_grants(ARRAY[9040::bigint], 'first');
SELECT outcome, grants FROM undo_reversal((SELECT max(id) FROM quota_reversal), 'undone at once');
SELECT * FROM preview_reversal(ids => (SELECT array_agg(id) FROM public.undo_test_chain));
SELECT outcome, grants, amount FROM reverse_grants((SELECT array_agg(id) FROM public.undo_test_chain), 'all');
SELECT quota_internal.continue_reversals();
SELECT revision, status, amount FROM public.undo_test_chain ORDER BY 1;
UPDATE quota_execute SET status = 'completed' WHERE id = (SELECT id FROM public.undo_test_chain WHERE revision = 2);
SELECT outcome, grants FROM undo_reversal((SELECT max(id) FROM quota_reversal), 'undone');
SELECT * FROM preview_reversal(ids => (SELECT array_agg(id) FROM public.undo_test_chain));
SELECT outcome, grants, amount FROM reverse_grants((SELECT array_agg(id) FROM public.undo_test_chain), 'all');
SELECT quota_internal.continue_reversals();
SELECT revision, status, amount FROM public.undo_test_chain ORDER BY 1;
SELECT quota_internal.recount_grants();
DROP VIEW public.undo_test_chain;

-- Another life of the database may have gone on with what waits: it is written in doubt.
SELECT undo_test_grant(9030, 'u4', 2030, 'in_doubt');
SELECT outcome, grants FROM reverse_grants(ARRAY[9030::bigint], 'before');
INSERT INTO quota_installation (doubtful_until, doubtful_firing) VALUES (clock_timestamp(), clock_timestamp())
	ON CONFLICT (singleton) DO UPDATE SET doubtful_until = excluded.doubtful_until, doubtful_firing = excluded.doubtful_firing;
SELECT resolve(9030, true, 'it was');
SELECT revision, status, amount, maybe_granted_before, next_attempt_time, last_error FROM quota_execute WHERE user_id = 'u4' AND scheduled_time > '2029-01-01' ORDER BY revision;
SELECT undelivered FROM quota_run WHERE strategy_id IS NULL ORDER BY id DESC LIMIT 1;
SELECT * FROM quota_internal.check_counts();
SELECT outcome, grants FROM reverse_grants(ARRAY[9013::bigint], 'after');
SELECT status, maybe_granted_before FROM quota_execute WHERE user_id = 'u3' AND revision = 1 ORDER BY id DESC LIMIT 1;

DROP VIEW public.undo_test, public.undo_test_items;
DROP FUNCTION public.undo_test_set, public.undo_test_id, public.undo_test_try, public.undo_test_grant;
DROP POLICY p ON quota_execute;
DROP POLICY p ON quota_strategy;
TRUNCATE quota_execute, quota_run, grant_decision, quota_reversal, quota_reversal_item, user_balance;
DELETE FROM quota_strategy;
DELETE FROM user_info;
DELETE FROM quota_model;
DELETE FROM quota_gateway;
DELETE FROM quota_installation;
DROP OWNED BY regress_quota_viewer, regress_quota_operator;
DROP ROLE regress_quota_viewer, regress_quota_operator;
