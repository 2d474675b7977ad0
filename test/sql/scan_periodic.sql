-- Periodic strategies: which firings are due, once each.
\pset format unaligned
\pset null '~'
\pset footer off
\set SHOW_CONTEXT never
SET client_min_messages = warning;
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET search_path = quota_manager, public;
SET quota_manager.schedule_clock = '2025-07-01 07:30:00+00';

-- Moves the clock, scans, and tells what was scanned.
CREATE FUNCTION pg_temp.scan_at(clock text, name text DEFAULT NULL)
RETURNS TABLE (strategy text, firing timestamptz, granted bigint, already bigint, unknown bigint, error text, note text)
LANGUAGE plpgsql AS $$
BEGIN
	PERFORM set_config('quota_manager.schedule_clock', clock || '+00', false);
	RETURN QUERY SELECT s.strategy, s.scheduled_time, s.granted, s.already_granted, s.unknown_balance, s.error, s.note FROM quota_manager.scan(name) s;
END
$$;
CREATE VIEW pg_temp.runs AS
SELECT s.name, r.scheduled_time, r.occurrences AS times, r.state, r.matched, r.granted, r.already_granted AS already, r.unknown_balance AS unknown, r.undelivered, r.reason,
	r.granted = (SELECT count(*) FROM quota_execute e WHERE e.run_id = r.id AND e.id BETWEEN r.first_grant_id AND r.last_grant_id) AS found
FROM quota_run r JOIN quota_strategy s ON s.id = r.strategy_id ORDER BY s.name, r.scheduled_time NULLS FIRST, r.id;

INSERT INTO quota_gateway (name, dialect, base_url, is_default) VALUES ('periodic-zgsm', 'zgsm', 'http://gateway.example', true);
INSERT INTO user_info (id, vip) VALUES ('u1', 1), ('u2', 0);

-- Before, exactly at and after a firing; once for each.
INSERT INTO quota_strategy (name, type, amount, model, periodic_expr, condition) VALUES ('daily', 'periodic', 5, 'm', '0 8 * * *', 'is-vip(1)');
SELECT * FROM pg_temp.scan_at('2025-07-01 07:59:59.999999');
SELECT * FROM pg_temp.scan_at('2025-07-01 08:00:00');
SELECT * FROM pg_temp.scan_at('2025-07-01 08:00:00');
SELECT * FROM pg_temp.scan_at('2025-07-01 08:00:00.000001');
SELECT * FROM pg_temp.scan_at('2025-07-02 07:59:59', 'daily');
SELECT * FROM pg_temp.scan_at('2025-07-02 08:00:01', 'daily');
-- A user who comes to meet the condition later waits for the next firing.
UPDATE user_info SET vip = 1 WHERE id = 'u2';
SELECT * FROM pg_temp.scan_at('2025-07-02 08:00:02');
SELECT * FROM pg_temp.scan_at('2025-07-03 08:00:00');
SELECT user_id, scheduled_time, batch_number, status FROM quota_execute ORDER BY scheduled_time, user_id;
SELECT * FROM pg_temp.runs;
-- The clock moved back grants nothing again, and forward again once.
SELECT * FROM pg_temp.scan_at('2025-07-01 08:00:00', 'daily');
SELECT * FROM pg_temp.scan_at('2025-07-03 08:00:00', 'daily');
SELECT * FROM pg_temp.scan_at('2025-07-04 08:00:00', 'daily');
TRUNCATE quota_execute, quota_run;
DELETE FROM quota_strategy;

-- Nothing at or before creation, enabling, unarchiving or an edit of the schedule is due.
SET quota_manager.schedule_clock = '2025-07-01 08:00:00+00';
INSERT INTO quota_strategy (name, type, amount, model, periodic_expr, condition, catch_up) VALUES ('hourly', 'periodic', 5, 'm', '0 * * * *', 'true()', 'all');
SELECT * FROM pg_temp.scan_at('2025-07-01 08:00:00');
SELECT * FROM pg_temp.scan_at('2025-07-01 08:30:00', 'hourly');
UPDATE quota_strategy SET enabled = false;
SELECT * FROM pg_temp.scan_at('2025-07-01 10:00:00', 'hourly');
UPDATE quota_strategy SET enabled = true;
SELECT * FROM pg_temp.scan_at('2025-07-01 10:00:00', 'hourly');
UPDATE quota_strategy SET archived = true;
SET quota_manager.schedule_clock = '2025-07-01 12:00:00+00';
UPDATE quota_strategy SET archived = false;
SELECT * FROM pg_temp.scan_at('2025-07-01 12:00:00', 'hourly');
SET quota_manager.schedule_clock = '2025-07-01 13:30:00+00';
UPDATE quota_strategy SET periodic_expr = '*/20 * * * *';
SELECT * FROM pg_temp.scan_at('2025-07-01 13:30:00');
SELECT * FROM pg_temp.scan_at('2025-07-01 13:40:00');
UPDATE quota_strategy SET time_zone = 'Asia/Kathmandu';
SELECT * FROM pg_temp.scan_at('2025-07-01 13:40:00', 'hourly');
-- Other edits keep what is due.
UPDATE quota_strategy SET amount = 6, condition = 'is-vip(1)', title = 'x';
SELECT * FROM pg_temp.scan_at('2025-07-01 13:55:00');
TRUNCATE quota_execute, quota_run;
DELETE FROM quota_strategy;

-- Firings that were missed: none of them, the latest, all of the last day.
SET quota_manager.schedule_clock = '2025-07-01 08:00:00+00';
INSERT INTO quota_strategy (name, type, amount, model, periodic_expr, condition, catch_up)
SELECT 'catch-up-' || c, 'periodic', 5, 'm', '0 */6 * * *', 'match-user("u1")', c FROM unnest(ARRAY['none', 'latest', 'all']) c;
SELECT * FROM pg_temp.scan_at('2025-07-01 12:01:59');
SELECT * FROM pg_temp.scan_at('2025-07-02 12:02:01');
SELECT * FROM pg_temp.scan_at('2025-07-02 12:02:01');
SELECT * FROM pg_temp.scan_at('2025-07-05 18:00:30');
SELECT s.name, e.scheduled_time FROM quota_execute e JOIN quota_strategy s ON s.id = e.strategy_id ORDER BY s.name, e.scheduled_time;
TRUNCATE quota_execute, quota_run;
DELETE FROM quota_strategy;

-- Rare schedules are found however long nothing ran.
SET quota_manager.schedule_clock = '2021-01-01 00:00:00+00';
INSERT INTO quota_strategy (name, type, amount, model, periodic_expr, condition) VALUES
	('second', 'periodic', 5, 'm', '* * * * * *', 'match-user("u1")'),
	('monthly', 'periodic', 5, 'm', '@monthly', 'match-user("u1")'),
	('leap', 'periodic', 5, 'm', '0 0 29 2 *', 'match-user("u1")');
SELECT * FROM pg_temp.scan_at('2025-07-20 10:00:00.5');
SELECT * FROM pg_temp.scan_at('2025-07-20 10:00:00.9');
SELECT * FROM pg_temp.scan_at('2025-07-20 10:00:01');
TRUNCATE quota_execute, quota_run;
DELETE FROM quota_strategy;

-- Zones: the strategy's, and the schedule's own; the label is in the strategy's.
SET quota_manager.schedule_clock = '2025-07-01 00:00:00+00';
INSERT INTO quota_strategy (name, type, amount, model, periodic_expr, condition, time_zone) VALUES
	('zone-1-utc', 'periodic', 5, 'm', '0 8 * * *', 'match-user("u1")', 'UTC'),
	('zone-2-shanghai', 'periodic', 5, 'm', '0 8 * * *', 'match-user("u1")', 'Asia/Shanghai'),
	('zone-3-own', 'periodic', 5, 'm', 'CRON_TZ=America/New_York 0 8 * * *', 'match-user("u1")', 'Asia/Shanghai');
SELECT strategy, firing FROM pg_temp.scan_at('2025-07-01 08:00:00');
SELECT strategy, firing FROM pg_temp.scan_at('2025-07-01 12:00:00');
SELECT strategy, firing FROM pg_temp.scan_at('2025-07-02 00:00:00');
SELECT strategy, note FROM pg_temp.scan_at('2025-07-02 00:00:00', 'zone-2-shanghai');
SELECT s.name, e.scheduled_time, e.batch_number FROM quota_execute e JOIN quota_strategy s ON s.id = e.strategy_id ORDER BY s.name, e.scheduled_time;
-- What the session's own zone is does not matter.
SET timezone = 'Pacific/Auckland';
SELECT strategy, firing AT TIME ZONE 'UTC' AS firing FROM pg_temp.scan_at('2025-07-02 08:00:00');
SET timezone = 'UTC';
TRUNCATE quota_execute, quota_run;
DELETE FROM quota_strategy;

-- Validity: firings before, at and after its ends.
SET quota_manager.schedule_clock = '2025-07-01 07:30:00+00';
INSERT INTO quota_strategy (name, type, amount, model, periodic_expr, condition, valid_from, valid_until, catch_up)
VALUES ('valid', 'periodic', 5, 'm', '0 * * * *', 'match-user("u1")', '2025-07-01 09:00:00+00', '2025-07-01 11:00:00+00', 'all');
SELECT * FROM pg_temp.scan_at('2025-07-01 08:00:00', 'valid');
SELECT * FROM pg_temp.scan_at('2025-07-01 09:00:00', 'valid');
SELECT * FROM pg_temp.scan_at('2025-07-01 10:59:59', 'valid');
SELECT * FROM pg_temp.scan_at('2025-07-01 11:00:00', 'valid');
SELECT * FROM pg_temp.scan_at('2025-07-01 12:00:00', 'valid');
-- What fell due in time but was not run is not granted after the end.
INSERT INTO quota_strategy (name, type, amount, model, periodic_expr, condition, valid_until)
VALUES ('over', 'periodic', 5, 'm', '0 * * * *', 'match-user("u1")', '2025-07-01 14:00:00+00');
SELECT * FROM pg_temp.scan_at('2025-07-01 14:00:00', 'over');
TRUNCATE quota_execute, quota_run;
DELETE FROM quota_strategy;

-- A firing that fails is tried again, and granted once; its grants belong to its run.
SET quota_manager.schedule_clock = '2025-07-01 07:30:00+00';
INSERT INTO quota_strategy (name, type, amount, model, periodic_expr, condition, catch_up) VALUES
	('retry-all', 'periodic', 5, 'm', '0 * * * *', 'true()', 'all'), ('retry-latest', 'periodic', 5, 'm', '0 * * * *', 'true()', 'latest');
UPDATE quota_gateway SET is_default = false;
SELECT * FROM pg_temp.scan_at('2025-07-01 08:00:00');
SELECT * FROM pg_temp.scan_at('2025-07-01 08:00:30');
-- A later firing takes the place of the one that failed, unless all are made up for.
SET quota_manager.schedule_clock = '2025-07-01 09:00:00+00';
SELECT name, scheduled_time FROM quota_internal.due_strategies();
UPDATE quota_gateway SET is_default = true;
SELECT name, (quota_internal.run_strategy(strategy_id, scheduled_time)).granted FROM quota_internal.due_strategies() WHERE scheduled_time = '2025-07-01 09:00:00+00';
-- The later one is done; the one that failed is not forgotten.
SELECT name, scheduled_time FROM quota_internal.due_strategies();
SELECT * FROM pg_temp.scan_at('2025-07-01 09:00:00');
SELECT * FROM pg_temp.scan_at('2025-07-01 09:00:00');
SELECT * FROM pg_temp.runs;
SELECT gateway, pending FROM delivery_status WHERE gateway = 'periodic-zgsm';
TRUNCATE quota_execute, quota_run;
DELETE FROM quota_strategy;

-- A firing with balances that are not known is tried again until they are, and belongs to one run.
SET quota_manager.schedule_clock = '2025-07-01 07:30:00+00';
INSERT INTO quota_strategy (name, type, amount, model, periodic_expr, condition) VALUES ('low', 'periodic', 5, 'm', '0 * * * *', 'quota-le("m", 10)');
INSERT INTO user_balance (user_id, gateway, balance) VALUES ('u1', 'periodic-zgsm', 3);
SELECT * FROM pg_temp.scan_at('2025-07-01 08:00:00');
SELECT * FROM pg_temp.scan_at('2025-07-01 08:01:00');
INSERT INTO user_balance (user_id, gateway, balance) VALUES ('u2', 'periodic-zgsm', 3);
SELECT * FROM pg_temp.scan_at('2025-07-01 08:02:00');
SELECT * FROM pg_temp.scan_at('2025-07-01 08:03:00');
SELECT * FROM pg_temp.runs;
SELECT gateway, pending FROM delivery_status WHERE gateway = 'periodic-zgsm';

-- A run that is called by hand for a firing that is not due does nothing.
SELECT (quota_internal.run_strategy(id, '2025-07-01 08:00:00+00')).granted, (quota_internal.run_strategy(id, '2025-07-01 08:30:00+00')).granted, (quota_internal.run_strategy(id, '2026-07-01 08:00:00+00')).granted,
	(quota_internal.run_strategy(id, NULL)).granted, (quota_internal.run_strategy(-1, NULL)).granted FROM quota_strategy;
SELECT count(*) FROM quota_execute;

TRUNCATE quota_execute, quota_run, user_balance;
DELETE FROM quota_strategy;
DELETE FROM user_info;
DELETE FROM quota_gateway;
