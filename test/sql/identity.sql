-- Whose installation this is: copies stand still until they are resumed, and what they and promoted servers write in doubt.
\pset format unaligned
\pset tuples_only on
\pset null '~'
\set SHOW_CONTEXT never
SET client_min_messages = notice;
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET search_path = quota_manager, public;
SET quota_manager.schedule_clock = '2025-07-01 00:30:00+00';

-- Runs a statement and shows its error, numbers of servers and databases left out.
CREATE FUNCTION pg_temp.try(statement text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
	problem text;
	detail text;
	hint text;
BEGIN
	EXECUTE statement;
	RETURN NEXT 'ok';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS problem = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	RETURN NEXT SQLSTATE || ' ' || regexp_replace(problem, '(cannot be reached): .*', '\1');
	RETURN NEXT regexp_replace(detail, '(Now it is: )system \d+, database \d+, timeline \d+', '\1...');
	RETURN NEXT hint;
END
$$;
-- Moves the clock, scans, and tells what was scanned.
CREATE FUNCTION pg_temp.scan_at(clock text) RETURNS TABLE (strategy text, firing timestamptz, granted bigint, note text) LANGUAGE plpgsql AS $$
BEGIN
	PERFORM set_config('quota_manager.schedule_clock', '2025-07-0' || clock || '+00', false);
	RETURN QUERY SELECT s.strategy, s.scheduled_time, s.granted, coalesce(s.error, s.note) FROM quota_manager.scan() s;
END
$$;
-- Another server, another database, another timeline.
CREATE FUNCTION pg_temp.pretend(statement text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE 'UPDATE quota_manager.quota_installation SET ' || statement;
END
$$;
CREATE VIEW pg_temp.grants AS
SELECT s.name, e.user_id AS "user", e.scheduled_time, e.status, e.next_attempt_time AS next, e.doubt_time IS NOT NULL AS doubted, e.last_error
FROM quota_execute e JOIN quota_strategy s ON s.id = e.strategy_id ORDER BY s.name, e.scheduled_time, e.user_id;
CREATE VIEW pg_temp.runs AS
SELECT s.name, r.scheduled_time, r.last_scheduled_time AS last, r.occurrences AS times, r.state, r.granted, r.undelivered, r.reason
FROM quota_run r JOIN quota_strategy s ON s.id = r.strategy_id ORDER BY s.name, r.scheduled_time NULLS FIRST, r.id;
CREATE VIEW pg_temp.ours AS
SELECT i.system_identifier = p.system_identifier AS system, i.database_oid = p.database_oid AS database, i.timeline = p.timeline AS timeline
FROM quota_installation i, quota_internal.present_identity() p;

SELECT p.system_identifier = c.system_identifier AS system, d.datname = current_database() AS database, p.timeline = t.timeline_id AS timeline
FROM quota_internal.present_identity() p, pg_control_system() c, pg_control_checkpoint() t, pg_database d WHERE d.oid = p.database_oid;

-- What has never run is nobody's; a scan with something due makes it this database's.
DELETE FROM quota_installation;
INSERT INTO quota_gateway (name, dialect, base_url, is_default) VALUES ('identity', 'zgsm', 'http://127.0.0.1:9', true);
INSERT INTO user_info (id, vip) VALUES ('u1', 1);
SELECT recorded_identity, present_identity = quota_internal.identity_text(p.system_identifier, p.database_oid, p.timeline) FROM resume(), quota_internal.present_identity() p;
SELECT count(*) FROM scan();
CALL deliver();
CALL tick();
SELECT count(*) FROM quota_installation;
INSERT INTO quota_strategy (name, type, amount, model, condition) VALUES ('once', 'single', 5, 'm', 'is-vip(1)');
INSERT INTO quota_strategy (name, type, amount, model, periodic_expr, condition) VALUES ('hourly', 'periodic', 5, 'm', '0 * * * *', 'is-vip(1)');
SELECT * FROM pg_temp.scan_at('1 01:00:00');
TABLE pg_temp.ours;
SELECT pg_temp.try('SELECT resume(''may_have_run'')');
SELECT pg_temp.try('SELECT resume(''unchanged_since_dump'')');
-- Where the row is there already it is filled.
UPDATE quota_installation SET system_identifier = NULL, database_oid = NULL, timeline = NULL;
SELECT * FROM pg_temp.scan_at('1 01:00:01');
TABLE pg_temp.ours;
\set VERBOSITY terse
UPDATE quota_installation SET timeline = NULL;
\set VERBOSITY default

-- A copy: another server, or another database, whatever the timeline.
SELECT id AS first_id FROM quota_installation \gset
SELECT pg_temp.pretend('system_identifier = 17, database_oid = 4, timeline = 2');
SELECT pg_temp.try('SELECT quota_manager.scan()');
SELECT pg_temp.try('SELECT quota_manager.scan(''once'')');
SELECT pg_temp.try('SELECT quota_internal.run_due(s.id) FROM quota_manager.quota_strategy s');
\set VERBOSITY terse
CALL tick();
CALL deliver();
\set VERBOSITY default
SELECT pg_temp.pretend('database_oid = p.database_oid, timeline = p.timeline FROM quota_internal.present_identity() p');
SELECT quota_internal.check_identity(false), quota_internal.check_identity(true);
SELECT pg_temp.pretend('system_identifier = p.system_identifier, database_oid = 4 FROM quota_internal.present_identity() p');
SELECT quota_internal.check_identity(false), quota_internal.check_identity(true);
-- Calls by hand, edits and decisions go on.
SELECT pg_temp.try('SELECT quota_manager.gateway_query(''u1'')');
UPDATE quota_strategy SET amount = 6 WHERE name = 'once';
SELECT imported FROM import_grants($$VALUES ('once', 'old', now())$$);
SELECT name, scheduled_time FROM quota_internal.due_strategies() ORDER BY 1, 2;
SELECT count(*) FROM quota_execute;

-- What resume would do is shown, and nothing is changed.
SET quota_manager.schedule_clock = '2025-07-01 04:30:00+00';
UPDATE quota_execute SET status = 'processing', claim_number = 1 WHERE user_id = 'u1' AND scheduled_time > '-infinity';
SELECT pending, processing, in_doubt, skipped_firings, doubtful_strategies, recorded_identity LIKE 'system %, database 4, timeline %' FROM resume();
SELECT pg_temp.try('SELECT quota_manager.resume(''May_have_run'')');
SELECT pg_temp.try('SELECT quota_manager.resume('''')');
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT pg_temp.try('SELECT quota_manager.resume(''may_have_run'')');
ROLLBACK;
BEGIN READ ONLY;
SELECT pending FROM resume();
SELECT pg_temp.try('SELECT quota_manager.resume(''may_have_run'')');
ROLLBACK;
SELECT quota_internal.check_identity(false);
TABLE pg_temp.grants;

-- Nothing was scanned or delivered since: all goes on where it stopped.
BEGIN;
SELECT pending, processing, in_doubt, skipped_firings, doubtful_strategies FROM resume('unchanged_since_dump');
TABLE pg_temp.ours;
SELECT id = :'first_id' AS same_id, former_ids, doubtful_until, doubtful_firing FROM quota_installation;
TABLE pg_temp.grants;
SELECT * FROM pg_temp.scan_at('1 04:30:00');
SELECT name, "user", scheduled_time, status FROM pg_temp.grants;
SELECT pg_temp.try('SELECT quota_manager.resume(''unchanged_since_dump'')');
ROLLBACK;

-- It may have run: what is open is in doubt, firings up to now are not run, single strategies write in doubt until a scan is done.
INSERT INTO quota_strategy (name, type, amount, model, periodic_expr, condition, enabled, archived) VALUES
	('off', 'periodic', 5, 'm', '0 * * * *', 'true()', false, false), ('old', 'periodic', 5, 'm', '0 * * * *', 'true()', true, true);
INSERT INTO quota_strategy (name, type, amount, model, condition, valid_until) VALUES ('over', 'single', 5, 'm', 'true()', '2025-07-01 04:00:00+00');
INSERT INTO user_balance (user_id, gateway, balance) VALUES ('u1', 'identity', 3);
SELECT doubt_policy_since AS since FROM quota_gateway \gset
SELECT pending, processing, in_doubt, skipped_firings, doubtful_strategies FROM resume('may_have_run');
TABLE pg_temp.ours;
TABLE pg_temp.grants;
TABLE pg_temp.runs;
SELECT i.doubtful_until BETWEEN now() - interval '1 min' AND clock_timestamp() AS until, i.doubtful_firing,
	i.id <> :'first_id' AS new_id, i.former_ids -> 0 ->> 'id' = :'first_id' AS former_id, jsonb_array_length(i.former_ids) AS former,
	(i.former_ids -> 0 ->> 'before_grant')::bigint > (SELECT max(id) FROM quota_execute) AS before_grant FROM quota_installation i;
SELECT doubt_policy_since > :'since' AS readings_are_outdated, (SELECT count(*) FROM user_balance) AS balances FROM quota_gateway;
SELECT pg_temp.try('SELECT quota_manager.resume(''may_have_run'')');
INSERT INTO user_info (id, vip) VALUES ('u2', 1);
SELECT * FROM pg_temp.scan_at('1 04:31:00');
SELECT name, "user", scheduled_time, status, next, doubted, last_error FROM pg_temp.grants WHERE "user" = 'u2';
SELECT name, times, state, granted, undelivered, reason FROM pg_temp.runs WHERE scheduled_time IS NULL;
SELECT e.user_id, e.status, e.maybe_granted_before FROM quota_execute e WHERE e.status = 'in_doubt' ORDER BY e.user_id, e.scheduled_time;
-- Decided as not granted it is delivered: its run is found again.
SELECT resolve(e.id, false) FROM quota_execute e WHERE user_id = 'u2';
SELECT e.status, e.maybe_granted_before, r.undelivered, e.id BETWEEN r.first_grant_id AND r.last_grant_id AS found FROM quota_execute e JOIN quota_run r ON r.id = e.run_id WHERE user_id = 'u2';
-- The scan was done, so who comes now is new; so is a strategy that was written since, and the next firing.
INSERT INTO user_info (id, vip) VALUES ('u3', 1);
INSERT INTO quota_strategy (name, type, amount, model, condition) VALUES ('new', 'single', 5, 'm', 'match-user("u1")');
SELECT * FROM pg_temp.scan_at('1 05:00:00');
SELECT name, "user", scheduled_time, status, next FROM pg_temp.grants WHERE "user" = 'u3' OR name IN ('new', 'hourly');
-- A firing of the time before that comes up after all is in doubt: its schedule could not be read at the time.
DELETE FROM quota_execute WHERE scheduled_time > '2025-07-01 04:00:00+00';
DELETE FROM quota_run WHERE scheduled_time >= '2025-07-01 02:00:00+00';
SELECT * FROM pg_temp.scan_at('1 04:30:00');
SELECT name, "user", scheduled_time, status, next FROM pg_temp.grants WHERE scheduled_time = '2025-07-01 04:00:00+00';

-- A single strategy that could not be completed goes on writing in doubt.
TRUNCATE quota_execute, quota_run;
DELETE FROM quota_strategy;
INSERT INTO quota_strategy (name, type, amount, model, condition) VALUES ('low', 'single', 5, 'm', 'quota-le("m", 10)');
SELECT pg_temp.pretend('system_identifier = 17');
SET client_min_messages = warning;
SELECT doubtful_strategies FROM resume('may_have_run');
INSERT INTO user_balance (user_id, gateway, balance) VALUES ('u1', 'identity', 3);
SELECT * FROM pg_temp.scan_at('1 06:00:00');
INSERT INTO user_balance (user_id, gateway, balance) VALUES ('u2', 'identity', 3), ('u3', 'identity', 30);
SELECT * FROM pg_temp.scan_at('1 06:00:00');
UPDATE user_balance SET balance = 0;
SELECT * FROM pg_temp.scan_at('1 06:00:00');
SELECT "user", status FROM pg_temp.grants;

-- Firings that are recorded as not run: stretches between those that have a run of their own.
TRUNCATE quota_execute, quota_run;
DELETE FROM quota_strategy;
SET quota_manager.schedule_clock = '2025-07-01 00:30:00+00';
INSERT INTO quota_strategy (name, type, amount, model, periodic_expr, condition, catch_up) VALUES
	('all', 'periodic', 5, 'm', '0 * * * *', 'true()', 'all'), ('latest', 'periodic', 5, 'm', '0 * * * *', 'true()', 'latest'),
	('none', 'periodic', 5, 'm', '0 * * * *', 'true()', 'none'), ('seldom', 'periodic', 5, 'm', '@yearly', 'true()', 'all');
INSERT INTO quota_strategy (name, type, amount, model, periodic_expr, condition, valid_until) VALUES
	('over', 'periodic', 5, 'm', '0 * * * *', 'true()', '2025-07-01 02:30:00+00');
INSERT INTO quota_run (strategy_id, scheduled_time, state, start_time, finish_time, granted, first_grant_id, last_grant_id)
SELECT s.id, f.at, f.state, now(), now(), 0, NULL, NULL FROM quota_strategy s,
	(VALUES ('2025-07-01 01:00:00+00'::timestamptz, 'failed'), ('2025-07-01 02:00:00+00', 'done'), ('2025-07-01 05:00:00+00', 'incomplete')) f(at, state)
WHERE s.name IN ('all', 'latest');
SET quota_manager.schedule_clock = '2025-07-01 08:00:00+00';
SELECT pg_temp.pretend('system_identifier = 17');
SELECT skipped_firings FROM resume('may_have_run');
SELECT name, scheduled_time, last, times, state, reason FROM pg_temp.runs;
SELECT * FROM pg_temp.scan_at('1 08:00:00');
SELECT * FROM pg_temp.scan_at('1 09:00:00');
-- A schedule that cannot be read does not keep the others.
TRUNCATE quota_execute, quota_run;
ALTER TABLE quota_strategy DISABLE TRIGGER check_strategy;
UPDATE quota_strategy SET time_zone = 'Nowhere/Land' WHERE name = 'none';
ALTER TABLE quota_strategy ENABLE TRIGGER check_strategy;
SELECT pg_temp.pretend('system_identifier = 17');
SELECT skipped_firings FROM resume('may_have_run');
SELECT name, scheduled_time, last, times, state FROM pg_temp.runs;

-- Promoted: under hold, which is the default, what is open is in doubt, once; the server that was primary may have granted, too.
TRUNCATE quota_execute, quota_run;
DELETE FROM quota_strategy;
SET client_min_messages = notice;
SET quota_manager.schedule_clock = '2025-07-01 00:30:00+00';
UPDATE quota_installation SET doubtful_until = NULL, doubtful_firing = NULL, former_ids = '[]';
INSERT INTO quota_strategy (name, type, amount, model, condition) VALUES ('once', 'single', 5, 'm', 'is-vip(1)');
INSERT INTO quota_strategy (name, type, amount, model, periodic_expr, condition) VALUES ('hourly', 'periodic', 5, 'm', '0 * * * *', 'match-user("u1")');
SELECT * FROM pg_temp.scan_at('1 01:00:00');
UPDATE quota_execute SET status = CASE user_id WHEN 'u1' THEN status WHEN 'u2' THEN 'processing' ELSE 'in_doubt' END,
	next_attempt_time = CASE user_id WHEN 'u3' THEN now() ELSE next_attempt_time END, last_status = 503, last_error = 'earlier',
	doubt_time = CASE user_id WHEN 'u3' THEN '2025-06-01'::timestamptz END;
INSERT INTO user_info (id, vip) VALUES ('u4', 1);
-- A clock that was ahead.
UPDATE quota_run SET finish_time = finish_time + interval '1 hour';
SHOW quota_manager.after_promotion;
SELECT pg_temp.try('SET quota_manager.after_promotion = continue');
SELECT pg_temp.pretend('timeline = 77');
BEGIN;
SELECT quota_internal.check_identity(false);
TABLE pg_temp.ours;
ROLLBACK;
SELECT recorded_identity LIKE '%, timeline 77' FROM resume();
SELECT * FROM pg_temp.scan_at('1 02:00:00');
TABLE pg_temp.ours;
SELECT name, "user", scheduled_time, status, next, last_error FROM pg_temp.grants;
SELECT doubt_time = '2025-06-01' AS kept, last_status FROM quota_execute WHERE user_id = 'u3';
SELECT doubtful_until > now() + interval '55 min' AS until, doubtful_firing, jsonb_array_length(former_ids) AS former FROM quota_installation;
SELECT id AS second_id FROM quota_installation \gset
SELECT * FROM pg_temp.scan_at('1 03:00:00');
SELECT name, "user", scheduled_time, status, next FROM pg_temp.grants WHERE scheduled_time = '2025-07-01 03:00:00+00';
SELECT id = :'second_id' AS same_id FROM quota_installation;

-- The row may hold ids of several lives; a grant keeps the key that it had.
SELECT pg_temp.pretend('timeline = 78');
SELECT count(*) FROM scan();
SELECT f ->> 'id' = :'second_id' AS second, (f ->> 'before_grant')::bigint > (i.former_ids -> 0 ->> 'before_grant')::bigint AS later
FROM quota_installation i, jsonb_array_elements(i.former_ids) WITH ORDINALITY x(f, n) WHERE n = 2;

DROP VIEW pg_temp.grants, pg_temp.runs, pg_temp.ours;
TRUNCATE quota_execute, quota_run, user_balance;
DELETE FROM quota_strategy;
DELETE FROM user_info;
DELETE FROM quota_gateway;
DELETE FROM quota_installation;
