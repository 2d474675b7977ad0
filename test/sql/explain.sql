-- Conditions taken apart, users explained.
\pset null '~'

-- What a condition is made of: each part before its own parts.
SELECT t.* FROM quota_internal.condition_tree('match-user("a,b(c)", "d""e)") or (is-vip(+07) and not true())') t;
SELECT c, t.node, t.parent, t.depth, t.kind, t.function, t.arguments, t.calls
FROM unnest(ARRAY['true()', 'or-else(x, 1.50)', 'not(not is-vip(-1))', 'and(true(), or(true(), false(), true()), not(not(true())))', 'match-user("and(", ")", "")']) c,
	quota_internal.condition_tree(c) t;
-- Each part is a condition as it is stored, and together they are the whole.
SELECT t.text FROM quota_internal.condition_tree('is-vip(1) and belong-to("a", "b,c") and not(is-vip(2) or match-user(")", "(", ","))') t
WHERE t.text <> t.text::quota_manager.condition::text;
SELECT c FROM unnest(ARRAY['is-vip(1) and belong-to("a", "b,c") and not(is-vip(2) or true())', 'match-user(")", "(", ",") or is-vip(-1)']::quota_manager.condition[]) c
WHERE c::text <> (SELECT format('%s(%s)', min(w.kind), string_agg(p.text, ', ' ORDER BY p.node))
	FROM quota_internal.condition_tree(c) w JOIN quota_internal.condition_tree(c) p ON p.parent = w.node WHERE w.parent IS NULL);
-- As deep and as long as can be.
SELECT count(*), max(t.depth), max(t.calls), sum(length(t.text)) FROM quota_internal.condition_tree(repeat('not(', 499) || 'true()' || repeat(')', 499)) t;
SELECT count(*), max(t.depth), max(t.calls) FROM quota_internal.condition_tree('or(' || repeat('true(), ', 8000) || 'true())') t;
SELECT count(*) FROM quota_internal.condition_tree(NULL);

-- Times as conditions read them.
SELECT t, quota_internal.condition_time(t) AT TIME ZONE 'UTC' FROM unnest(ARRAY['2024-06-01 00:00:00', '2024-06-01T08:00:00.5+08:00', '2024-06-01T00:00:00+23:59', '2024-02-30 00:00:00',
	'now', '', NULL]) t;

-- Users explained.
SET search_path = quota_manager, pg_catalog;
SET timezone = 'UTC';
SET datestyle = 'ISO';
\pset null ''
\set SHOW_CONTEXT never
INSERT INTO quota_gateway (name, dialect, base_url, is_default) VALUES ('main', 'zgsm', 'http://127.0.0.1:9', true), ('other', 'zgsm', 'http://127.0.0.1:9', false);
INSERT INTO quota_model (model, gateway) VALUES ('big', 'other');
INSERT INTO user_info (id, vip, org, github_star, register_time, access_time) VALUES
	('ada', 3, 'lab', 'zgsm, vscode', '2024-01-08 00:00:00Z', '2025-03-01 12:30:00.5Z'), ('bob', 0, NULL, 'vscode', '2024-06-01 00:00:00Z', '2025-01-01 00:00:00Z'),
	('cyd', NULL, 'shop', NULL, NULL, NULL), ('dan', 1, 'lab', 'zgsm', '2024-03-01 00:00:00Z', '2025-02-01 00:00:00Z');
INSERT INTO user_balance (user_id, gateway, balance, read_time) VALUES ('bob', 'main', 12.5, now() - interval '200 s'), ('ada', 'main', 3, now() - interval '2 h 30 min'),
	('dan', 'main', NULL, now());
INSERT INTO quota_strategy (name, type, amount, model, condition, enabled) VALUES
	('loyal', 'single', 10, 'gpt-4', 'is-vip(2) and (github-star("zgsm") or belong-to("lab", "shop")) and not register-before("2024-02-01 00:00:00") and quota-le("gpt-4", 10)', false);
SELECT * FROM explain_match('ada', 'loyal');
SELECT * FROM explain_match_text('ada', 'loyal');
SELECT * FROM explain_match_text('bob', 'loyal');
SELECT * FROM explain_match_text('cyd', 'loyal');
SELECT * FROM explain_match_text('bob', condition => 'is-vip(0) or not(access-after("2024-06-01T08:00:00+08:00"))');
-- Each function: what it saw, and the way to the other result.
SELECT u.id, e.part, e.result, e.saw, e.to_change, e.set_column, e.set_value, e.set_gateway
FROM unnest(ARRAY['true()', 'false()', 'is-vip(3)', 'is-vip(0)', 'is-vip(99999999999)', 'is-vip(-99999999999)', 'match-user("bob", "dan")', 'match-user("ada", "b", "c")', 'match-user("")', 'belong-to("lab")',
	'belong-to("a", "", "b")', 'github-star("vscode")', 'github-star("vs")', 'github-star("a,b")', 'github-star(" zgsm")', 'github-star("")', 'register-before("2024-01-08 00:00:00")',
	'register-before("0001-01-01 00:00:00")', 'access-after("2025-03-01T12:30:00.499999Z")', 'access-after("9999-12-31 23:59:59")', 'quota-le("gpt-4", 12.50)', 'quota-le("gpt-4", 1e2)',
	'quota-le("big", 1)', 'balance-le("main", 5)']::condition[]) WITH ORDINALITY c (condition, place),
	(VALUES ('ada'), ('bob')) u (id), explain_match(u.id, condition => c.condition) e
ORDER BY c.place, u.id;
-- A balance can be missing for many reasons.
SELECT u.id, e.saw, e.to_change FROM unnest(ARRAY['ada', 'cyd', 'dan']) u (id), explain_match(u.id, condition => 'quota-le("gpt-4", 10)') e;
BEGIN;
UPDATE user_balance SET token = 1 WHERE user_id = 'dan';
UPDATE user_balance SET read_time = now() + interval '1 h' WHERE user_id = 'ada';
UPDATE user_balance SET balance = 'NaN' WHERE user_id = 'bob';
SELECT u.id, e.saw, e.to_change FROM unnest(ARRAY['ada', 'bob', 'dan']) u (id), explain_match(u.id, condition => 'quota-le("gpt-4", 10)') e;
UPDATE user_balance SET token = NULL, lost_time = clock_timestamp(), lost_moment = 9223372036854775807 WHERE user_id = 'dan';
SELECT e.saw FROM explain_match('dan', condition => 'quota-le("gpt-4", 10)') e;
INSERT INTO balance_suspension (gateway, reason) VALUES ('main', 'all read 0');
SELECT e.saw, e.to_change, e.set_column FROM explain_match('bob', condition => 'quota-le("gpt-4", 10)') e;
UPDATE quota_gateway SET is_default = false WHERE name = 'main';
SELECT e.saw, e.to_change, e.set_column FROM explain_match('bob', condition => 'quota-le("gpt-4", 10)') e;
ROLLBACK;
-- A function of the site's says only what it answers.
CREATE FUNCTION quota_condition.has_tag(s subject, tag text, at_least integer DEFAULT 1) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE
	RETURN CASE (s).id WHEN 'bob' THEN NULL ELSE (s).id > tag END;
GRANT EXECUTE ON FUNCTION quota_condition.has_tag TO PUBLIC;
-- It is not run as a superuser.
SELECT * FROM explain_match('ada', condition => 'not(has-tag("b", 7))');
CREATE ROLE regress_explain_viewer;
SELECT grant_access('regress_explain_viewer', 'viewer');
SET ROLE regress_explain_viewer;
SELECT u.id, e.part, e.result, e.saw, e.bound, e.to_change, e.decides FROM (VALUES ('ada'), ('bob'), ('cyd')) u (id), explain_match(u.id, condition => 'not(has-tag("b", 7))') e;
RESET ROLE;
DROP OWNED BY regress_explain_viewer;
DROP ROLE regress_explain_viewer;
DROP FUNCTION quota_condition.has_tag;
-- What is long is shortened, and stays on its line.
SELECT * FROM explain_match_text('ada', condition => format('match-user(%s) and github-star("a%sb")', (SELECT string_agg(to_json('u' || n)::text, ', ') FROM generate_series(1, 40) n), E'\n\t'));
SELECT * FROM explain_match_text('ada', condition => 'and(' || repeat('is-vip(1), ', 11) || 'is-vip(4))') LIMIT 2;
SELECT e.to_change FROM unnest(ARRAY['and', 'or']) k, unnest(ARRAY[1, 4]) v, explain_match('ada', condition => k || '(' || repeat(format('is-vip(%s), ', v), 11) || 'is-vip(4))') e WHERE e.parent IS NULL;
SELECT count(*), max(e.to_change) FROM explain_match('ada', condition => repeat('and(is-vip(1), or(is-vip(4), ', 249) || 'is-vip(1)' || repeat('))', 249)) e;

-- How many users are left.
SELECT * FROM funnel('loyal');
SELECT * FROM funnel(condition => 'not(is-vip(1) and belong-to("lab") and github-star("vscode"))');
SELECT * FROM funnel(condition => 'true()');
SELECT count(*), count(f.remaining), min(f.remaining) FROM funnel(condition => 'and(' || repeat('is-vip(1), ', 299) || 'is-vip(1))') f;
SELECT * FROM funnel(condition => 'or(' || repeat('is-vip(1), ', 999) || 'is-vip(2))');

-- What cannot be explained.
SELECT * FROM explain_match('ada');
SELECT * FROM explain_match('ada', 'loyal', 'true()');
SELECT * FROM explain_match(NULL, 'loyal');
SELECT * FROM explain_match('eve', 'loyal');
SELECT * FROM explain_match_text('ada', 'nosuch');
SELECT * FROM explain_match('ada', condition => 'is-vp(1)');
SELECT * FROM funnel();
SELECT * FROM funnel('nosuch');
SELECT * FROM funnel(condition => 'is-vip(');
SELECT * FROM funnel(condition => 'is-vip("a")');

-- Stories.
SET client_min_messages = warning;
SET quota_manager.schedule_clock = '2025-07-01 07:30:00+00';
CREATE VIEW pg_temp.told AS SELECT u.id AS user_id, s.name AS strategy, w.* FROM user_info u, quota_strategy s, why(u.id, s.name) WITH ORDINALITY w (at, what, kind, grant_id, run_id, strategy_version, place);
CREATE FUNCTION pg_temp.scan_at(clock text) RETURNS void LANGUAGE sql AS $$ SELECT set_config('quota_manager.schedule_clock', clock || '+00', false); SELECT count(*) FROM quota_manager.scan(); $$;
DELETE FROM quota_strategy;
INSERT INTO quota_strategy (name, type, amount, model, condition, enabled) VALUES ('once', 'single', 5, 'gpt-4', 'is-vip(1)', false);
SELECT user_id, kind, what FROM pg_temp.told WHERE user_id IN ('ada', 'bob') ORDER BY user_id, place;
UPDATE quota_strategy SET enabled = true;
SELECT pg_temp.scan_at('2025-07-01 07:30:00');
-- Granted by the first version, one delivered, one refused and tried again, one cancelled.
UPDATE quota_execute SET status = 'completed', last_status = 200, update_time = clock_timestamp() WHERE user_id = 'ada';
UPDATE quota_execute SET status = 'failed', last_status = 404, last_error = 'no such user', update_time = clock_timestamp() WHERE user_id = 'dan';
SELECT retry(id, 'dan is there now') FROM quota_execute WHERE user_id = 'dan';
UPDATE quota_strategy SET amount = 7, condition = 'is-vip(0) and not(belong-to("shop"))', edit_note = 'for all but the shop';
SELECT pg_temp.scan_at('2025-07-01 07:40:00');
SELECT cancel(id, 'a slip') FROM quota_execute WHERE user_id = 'bob';
SELECT user_id, kind, what, strategy_version FROM pg_temp.told ORDER BY user_id, place;
-- Firings: skipped, left out, capped, failed; neighbouring ones with one reason are one line.
UPDATE quota_strategy SET archived = true WHERE name = 'once';
INSERT INTO quota_strategy (name, type, amount, model, periodic_expr, condition, max_exec_per_user) VALUES ('hourly', 'periodic', 5, 'gpt-4', '0 * * * *', 'is-vip(1)', 2);
SELECT pg_temp.scan_at(format('2025-07-01 %s:00:00', h)) FROM unnest(ARRAY['08', '09', '10', '13']) h;
UPDATE user_info SET vip = 1 WHERE id = 'bob';
SELECT pg_temp.scan_at('2025-07-01 14:00:00');
UPDATE quota_strategy SET condition = 'is-vip(1) and quota-le("big", 3)' WHERE name = 'hourly';
SELECT pg_temp.scan_at('2025-07-01 15:00:00');
SELECT user_id, kind, what, strategy_version FROM pg_temp.told WHERE strategy = 'hourly' AND kind NOT IN ('delivery') AND user_id IN ('ada', 'bob', 'cyd') ORDER BY user_id, place;
-- Taken back, and what stands in the way now.
UPDATE quota_execute SET status = 'completed', last_status = 200, update_time = clock_timestamp() WHERE user_id = 'bob' AND status = 'pending';
SELECT count(*) FROM reverse_grants((SELECT array_agg(e.id) FROM quota_execute e JOIN quota_strategy s ON s.id = e.strategy_id WHERE s.name = 'hourly' AND e.user_id = 'bob'), 'the wrong bob');
SELECT pause_gateway('main', 'they asked us to wait');
SELECT pause_strategy('hourly');
SELECT kind, what FROM pg_temp.told WHERE strategy = 'hourly' AND user_id = 'bob' ORDER BY place;
SELECT unpause_strategy('hourly'), unpause_gateway('main');
-- Of a user who is gone, the grants are known.
DELETE FROM user_info WHERE id = 'dan';
SELECT kind, what FROM why('dan', 'once');
-- Validity and gateways.
UPDATE quota_strategy SET valid_until = '2025-07-01 16:00:00Z' WHERE name = 'hourly';
SET quota_manager.schedule_clock = '2025-07-01 17:00:00+00';
SELECT kind, what FROM pg_temp.told WHERE strategy = 'hourly' AND user_id = 'cyd' AND kind IN ('now', 'next') ORDER BY place;
SELECT * FROM why('eve', 'hourly');
SELECT * FROM why(NULL, 'hourly');
SELECT * FROM why('ada', NULL);
RESET quota_manager.schedule_clock;
TRUNCATE quota_execute, quota_run, quota_reversal, quota_reversal_item, grant_decision, quota_strategy_version, quota_pause, troubled_grant, gateway_tally;

-- A call by hand that was rolled back leaves the former balance, which does not count any more.
INSERT INTO user_balance (user_id, gateway, balance, read_time) VALUES ('bob', 'main', 12.5, now()) ON CONFLICT (user_id, gateway) DO UPDATE SET balance = 12.5, read_time = now();
DO $$
BEGIN
	PERFORM gateway_delta('bob', 1, 'a test', 'main');
EXCEPTION WHEN OTHERS THEN
	RAISE NOTICE '%', SQLSTATE;
END
$$;
SELECT saw FROM explain_match('bob', condition => 'balance-le("main", 5)');
SELECT value, note FROM user_page('bob') WHERE section = 'balance' AND entry = 'main';
SET quota_manager.linger = 0;
SELECT saw FROM explain_match('bob', condition => 'balance-le("main", 5)');
RESET quota_manager.linger;

DELETE FROM quota_strategy;
DELETE FROM user_balance;
DELETE FROM user_info;
DELETE FROM quota_model;
DELETE FROM quota_gateway;
