-- What people read of grants: what it says in words.
\pset format unaligned
\pset null '~'
\set SHOW_CONTEXT never
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET search_path = quota_manager, public;
SET quota_manager.schedule_clock = '2026-11-27 00:30:00+00';

INSERT INTO quota_gateway (name, dialect, base_url, is_default, doubt_policy) VALUES ('views', 'higress', 'http://gateway.example', true, 'resend');
INSERT INTO user_info (id, name, vip, github_star) SELECT 'u' || i, CASE i WHEN 1 THEN 'Ann' END, 2, 'zgsm' FROM generate_series(1, 6) i;
INSERT INTO quota_strategy (name, type, amount, model, periodic_expr, time_zone, condition, enabled) VALUES
	('daily', 'periodic', 5, 'm', '0 9 * * *', 'Asia/Shanghai', 'true()', true),
	('zoned', 'periodic', 2, 'm', 'CRON_TZ=Europe/Berlin 0 2 * * *', 'UTC', 'is-vip(1)', true);
INSERT INTO quota_strategy (name, type, amount, model, condition, enabled) VALUES ('star', 'single', 50, 'n', 'github-star("zgsm")', true);
SET quota_manager.schedule_clock = '2026-11-27 01:00:00+00';
SELECT strategy, granted FROM scan();

-- A grant says what made it, also after an edit.
UPDATE quota_strategy SET condition = 'is-vip(9)', amount = 1 WHERE name = 'star';
UPDATE quota_strategy SET time_zone = 'America/New_York' WHERE name = 'daily';
SELECT user_id, strategy, amount, model, cause, outcome FROM grant_list WHERE user_id = 'u1' ORDER BY id;

-- What becomes of grants.
UPDATE quota_execute SET status = 'completed', last_status = 200 WHERE user_id = 'u1';
UPDATE quota_execute SET status = 'failed', last_error = 'user is blocked', last_status = 403 WHERE user_id = 'u2';
UPDATE quota_execute SET status = 'in_doubt', last_error = 'no answer', next_attempt_time = 'infinity', doubt_time = now() WHERE user_id = 'u3';
UPDATE quota_execute SET next_attempt_time = '2100-01-01', last_error = 'try later', last_status = 429, attempts = 1 WHERE user_id = 'u4' AND model = 'm';
UPDATE quota_execute SET status = 'processing' WHERE user_id = 'u4' AND model = 'n';
UPDATE quota_execute SET status = 'in_doubt', last_error = 'no answer', next_attempt_time = '2100-01-01' WHERE user_id = 'u5' AND model = 'n';
UPDATE quota_execute SET status = 'in_doubt', maybe_granted_before = true, last_error = 'may have been granted before', next_attempt_time = 'infinity' WHERE user_id = 'u5' AND strategy_id = (SELECT id FROM quota_strategy WHERE name = 'daily');
SELECT quota_internal.recount_grants();
SELECT cancel(ARRAY(SELECT id FROM quota_execute WHERE user_id = 'u6' AND model = 'm'), 'ordered by nobody') AS cancelled;
SELECT count(*) FROM reverse_grants(ARRAY(SELECT id FROM quota_execute WHERE user_id IN ('u1', 'u3') AND strategy_id = (SELECT id FROM quota_strategy WHERE name = 'daily')), 'by mistake');
SELECT user_id, strategy, amount, regexp_replace(cause, 'grant \d+', 'grant N') AS cause, replace(outcome, current_user, 'ROLE') AS outcome, status, revision
	FROM grant_list ORDER BY user_id, id;
SELECT count(*) FROM resolve(ARRAY(SELECT id FROM quota_execute WHERE user_id = 'u3' AND strategy_id = (SELECT id FROM quota_strategy WHERE name = 'zoned')), true, 'seen in its log');
SELECT replace(outcome, current_user, 'ROLE') FROM grant_list WHERE user_id = 'u3' AND strategy = 'zoned';

-- What is in trouble, and what to do.
SELECT user_id, strategy, status, why, regexp_replace(what_to_do, '\(\d+', '(N') AS what_to_do, awaits_you FROM trouble_list ORDER BY user_id, id;
SELECT gateway, strategy, failed, in_doubt, await_you, amount, mostly FROM trouble_counts ORDER BY strategy;
-- A policy that was about to act does not once it is hold.
UPDATE quota_gateway SET doubt_policy = 'hold' WHERE name = 'views';
SELECT regexp_replace(what_to_do, '\(\d+', '(N') AS what_to_do, awaits_you FROM trouble_list WHERE user_id = 'u5' AND strategy = 'star';
SELECT strategy, await_you FROM trouble_counts ORDER BY strategy;
SELECT pause_gateway('views', 'moving');
UPDATE quota_gateway SET state = 'misconfigured', state_reason = '401' WHERE name = 'views';
SELECT DISTINCT regexp_replace(what_to_do, '\(\d+', '(N') FROM trouble_list WHERE status = 'failed';
SELECT unpause_gateway('views', 'moved');

-- Totals.
SELECT strategy, model, runs, granted, amount, failed, in_doubt, undelivered_runs, is_reversal FROM grant_totals ORDER BY strategy, is_reversal;

-- A user's page.
INSERT INTO user_balance (user_id, gateway, balance, read_time) VALUES ('u1', 'views', 44, quota_internal.balance_clock() - interval '185 s');
INSERT INTO user_balance (user_id, gateway, balance, read_time) VALUES ('u1', 'old', 1.50, quota_internal.balance_clock() - interval '10 days');
INSERT INTO balance_suspension (gateway, since, reason) VALUES ('old', now(), 'all fell to 0');
INSERT INTO gateway_call (call_time, role, action, gateway, user_id, amount, reason, outcome, said_by)
	VALUES ('2026-11-26 10:00+00', 'ann', 'delta', 'views', 'u1', 7, 'goodwill', 'applied', 'carol');
INSERT INTO pruned_grant SELECT id, 'u1', 'views', 12, 12, 60, '2025-11-30 01:00+00', 12, 60, '2024-12-01', '2025-11-30', NULL::timestamptz FROM quota_strategy WHERE name = 'daily';
SELECT section, regexp_replace(entry, '#\d+', '#N') AS entry, value, regexp_replace(note, 'grant \d+', 'grant N') AS note
	FROM (SELECT section, CASE WHEN section IN ('grant', 'decision') THEN right(entry, strpos(reverse(entry), '#')) ELSE entry END AS entry, value, note FROM user_page('u1')) p;
SELECT section, count(*) FROM user_page('u6', 1) GROUP BY section ORDER BY section;
SELECT section, value, replace(note, current_user, 'ROLE') AS note FROM user_page('u6') WHERE section IN ('total', 'decision');
DELETE FROM user_info WHERE id = 'u6';
SELECT section, entry, value, note FROM user_page('u6') LIMIT 1;
SELECT * FROM user_page('nobody');
SELECT * FROM user_page(NULL);
SELECT * FROM user_page('u1', 0);

-- An imported grant; a zone that nobody knows.
INSERT INTO quota_execute (strategy_id, user_id, scheduled_time, strategy_version, status, amount, model, gateway, batch_number)
	SELECT id, 'old', '-infinity', 1, 'completed', 50, 'n', 'views', '' FROM quota_strategy WHERE name = 'star';
SELECT cause FROM grant_list WHERE user_id = 'old';
SELECT quota_internal.firing_text('2026-11-27 01:00:05+00', '0 9 * * *', 'Nowhere/At_All');

TRUNCATE quota_execute, quota_run, quota_reversal, quota_reversal_item, grant_decision, gateway_call, user_balance, balance_suspension, pruned_grant, quota_pause;
DELETE FROM quota_strategy WHERE name IN ('daily', 'zoned', 'star');
DELETE FROM quota_gateway WHERE name = 'views';
DELETE FROM user_info;
