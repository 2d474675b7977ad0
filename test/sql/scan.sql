-- Scans of single strategies, caps, broken strategies, balances, and what is recorded.
\pset format unaligned
\pset null '~'
\set SHOW_CONTEXT never
SET client_min_messages = warning;
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET quota_manager.incremental_scans = off;
SET search_path = quota_manager, public;
SET quota_manager.schedule_clock = '2025-07-01 08:00:00+00';

CREATE FUNCTION pg_temp.scan(name text DEFAULT NULL)
RETURNS TABLE (strategy text, scheduled_time timestamptz, matched bigint, granted bigint, already bigint, capped bigint, unknown bigint, error text, note text)
LANGUAGE sql AS $$
	SELECT strategy, scheduled_time, matched, granted, already_granted, capped, unknown_balance, error, note FROM quota_manager.scan(name)
$$;
CREATE VIEW pg_temp.grants AS
SELECT s.name, e.user_id, e.scheduled_time, e.status, e.amount, e.model, e.gateway, e.batch_number, e.strategy_version, e.revision, e.claim_number
FROM quota_execute e JOIN quota_strategy s ON s.id = e.strategy_id;
CREATE VIEW pg_temp.runs AS
SELECT s.name, r.scheduled_time, r.occurrences AS times, r.state, r.matched, r.granted, r.already_granted AS already, r.capped, r.unknown_balance AS unknown,
	r.undelivered, r.reason,
	r.granted = (SELECT count(*) FROM quota_execute e WHERE e.run_id = r.id AND e.id BETWEEN r.first_grant_id AND r.last_grant_id) AS found
FROM quota_run r JOIN quota_strategy s ON s.id = r.strategy_id ORDER BY r.id;

-- No strategies, then no users: no rows, then empty ones.
SELECT * FROM pg_temp.scan();
INSERT INTO quota_gateway (name, dialect, base_url, is_default) VALUES ('scan-zgsm', 'zgsm', 'http://gateway.example', true);
INSERT INTO quota_strategy (name, type, amount, model, condition) VALUES ('scan-vip', 'single', 5, 'm', 'is-vip(1)');
SELECT * FROM pg_temp.scan();

-- Each user once for ever; whoever comes to meet the condition is next.
INSERT INTO user_info (id, vip, org, github_star) VALUES
	('u1', 1, 'org001', 'zgsm'), ('u2', 2, 'org001', NULL), ('u3', 0, 'org002', 'zgsm, other'), ('u4', NULL, NULL, NULL);
SELECT * FROM pg_temp.scan();
SELECT * FROM pg_temp.scan();
SELECT * FROM pg_temp.scan();
UPDATE user_info SET vip = 1 WHERE id = 'u3';
SELECT * FROM pg_temp.scan('scan-vip');
SET quota_manager.schedule_clock = '2035-07-01 08:00:00+00';
SELECT * FROM pg_temp.scan();
SET quota_manager.schedule_clock = '2025-07-01 08:00:00+00';
SELECT * FROM pg_temp.grants ORDER BY user_id;
SELECT * FROM pg_temp.runs;

-- A user who is removed and comes back, an edit of the strategy, a cancelled grant: not again.
DELETE FROM user_info WHERE id = 'u1';
INSERT INTO user_info (id, vip) VALUES ('u1', 3);
UPDATE quota_strategy SET amount = 6, condition = 'is-vip(1) or belong-to("org001")' WHERE name = 'scan-vip';
UPDATE quota_execute SET status = 'cancelled' WHERE user_id = 'u2';
SELECT * FROM pg_temp.scan();

-- Out of use.
UPDATE user_info SET vip = 5;
UPDATE quota_strategy SET enabled = false WHERE name = 'scan-vip';
SELECT * FROM pg_temp.scan();
SELECT * FROM pg_temp.scan('scan-vip');
UPDATE quota_strategy SET enabled = true, archived = true WHERE name = 'scan-vip';
SELECT * FROM pg_temp.scan();
SELECT * FROM pg_temp.scan('scan-vip');
UPDATE quota_strategy SET archived = false, valid_until = '2025-07-01 08:00:00+00' WHERE name = 'scan-vip';
SELECT * FROM pg_temp.scan();
SELECT * FROM pg_temp.scan('scan-vip');
UPDATE quota_strategy SET valid_from = '2025-07-01 08:00:00.000001+00', valid_until = 'infinity' WHERE name = 'scan-vip';
SELECT * FROM pg_temp.scan();
SELECT * FROM pg_temp.scan('scan-vip');
UPDATE quota_strategy SET valid_from = '2025-07-01 08:00:00+00', valid_until = '2025-07-01 08:00:00.000001+00' WHERE name = 'scan-vip';
SELECT * FROM pg_temp.scan();
TRUNCATE quota_execute, quota_run;
DELETE FROM quota_strategy;

-- Names that are not there, and names that would like to be SQL.
SELECT * FROM quota_manager.scan('scan-nosuch');
SELECT * FROM quota_manager.scan('''; DROP TABLE quota_manager.quota_run; --');
SELECT * FROM quota_manager.scan('');

-- User ids are any text.
DELETE FROM user_info;
INSERT INTO user_info (id) VALUES ('O''Brien'), ('100%s %I %L'), ('$1'), ('技术部/张三'), (E'tab\tnew\nline\\'), ('"quoted"'), (' '), (repeat('x', 1024)),
	(E'\U0001F600'), ('null'), ('{}');
INSERT INTO quota_strategy (name, type, amount, model, condition) VALUES ('scan-%s ''"', 'single', -0.5, 'm''s %I', 'true()');
SELECT * FROM pg_temp.scan('scan-%s ''"');
SELECT * FROM pg_temp.scan();
SELECT left(user_id, 20), length(user_id), amount, model FROM pg_temp.grants ORDER BY user_id COLLATE "C";
SELECT count(*) FROM quota_execute e JOIN user_info u ON u.id = e.user_id;
TRUNCATE quota_execute, quota_run;
DELETE FROM quota_strategy;
DELETE FROM user_info;

-- As long as every key has room for, and such as do not compress; longer ones are refused where they are written.
CREATE FUNCTION pg_temp.long_id(bytes integer) RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(md5(i::text), '' ORDER BY i) FROM generate_series(1, bytes / 32) i
$$;
\set VERBOSITY terse
INSERT INTO user_info (id) VALUES (left(pg_temp.long_id(3200), 2601));
INSERT INTO user_info (id) VALUES (repeat('x', 2601));
INSERT INTO user_info (id) VALUES (repeat('技', 867));
\set VERBOSITY default
INSERT INTO user_info (id, vip) VALUES (left(pg_temp.long_id(3200), 2600), 1), (repeat('技', 866), 2), ('short', 3);
INSERT INTO quota_strategy (name, type, amount, model, condition) VALUES ('scan-long', 'single', 1, 'm', 'true()');
SELECT * FROM pg_temp.scan();
SELECT octet_length(user_id), status FROM pg_temp.grants ORDER BY 1;
INSERT INTO user_balance (user_id, gateway, balance) SELECT id, left('scan-' || pg_temp.long_id(96), 78), 1 FROM user_info;
SELECT count(*) FROM user_balance;
DELETE FROM user_balance;
TRUNCATE quota_execute, quota_run;
DELETE FROM quota_strategy;
DELETE FROM user_info;

-- The cap: grants that were cancelled do not count, those that failed do.
INSERT INTO user_info (id) VALUES ('u1'), ('u2'), ('u3'), ('u4');
INSERT INTO quota_strategy (name, type, amount, model, condition, max_exec_per_user) VALUES ('scan-cap', 'single', 5, 'm', 'true()', 1);
SELECT * FROM pg_temp.scan();
UPDATE quota_strategy SET type = 'periodic', periodic_expr = '0 * * * *', max_exec_per_user = 2 WHERE name = 'scan-cap';
UPDATE quota_execute SET status = CASE user_id WHEN 'u1' THEN 'cancelled' WHEN 'u2' THEN 'failed' WHEN 'u3' THEN 'in_doubt' ELSE 'completed' END;
DELETE FROM user_info WHERE id = 'u4';
SET quota_manager.schedule_clock = '2025-07-01 09:00:00+00';
SELECT * FROM pg_temp.scan();
SET quota_manager.schedule_clock = '2025-07-01 10:00:00+00';
SELECT * FROM pg_temp.scan();
INSERT INTO user_info (id) VALUES ('u4');
SET quota_manager.schedule_clock = '2025-07-01 11:00:00+00';
SELECT * FROM pg_temp.scan();
SET quota_manager.schedule_clock = '2025-07-01 12:00:00+00';
SELECT * FROM pg_temp.scan();
UPDATE quota_strategy SET max_exec_per_user = 3 WHERE name = 'scan-cap';
SET quota_manager.schedule_clock = '2025-07-01 13:00:00+00';
SELECT * FROM pg_temp.scan();
SELECT user_id, count(*) FILTER (WHERE status <> 'cancelled') AS counted, count(*) FROM quota_execute GROUP BY user_id ORDER BY user_id;
SELECT * FROM pg_temp.runs;
TRUNCATE quota_execute, quota_run;
DELETE FROM quota_strategy;
SET quota_manager.schedule_clock = '2025-07-01 08:00:00+00';

-- A broken strategy is reported; the others run.
CREATE FUNCTION quota_condition.scan_test_gone(s subject) RETURNS boolean LANGUAGE sql STABLE PARALLEL SAFE RETURN true;
-- Code of others is not run as the superuser of this test.
CREATE ROLE scan_test_reader;
SELECT grant_access('scan_test_reader', 'worker');
CREATE FUNCTION pg_temp.reader_scan()
RETURNS TABLE (strategy text, scheduled_time timestamptz, matched bigint, granted bigint, already bigint, capped bigint, unknown bigint, error text, note text)
LANGUAGE plpgsql AS $$
BEGIN
	PERFORM set_config('role', 'scan_test_reader', true);
	RETURN QUERY SELECT * FROM pg_temp.scan();
	PERFORM set_config('role', 'none', true);
END
$$;
CREATE FUNCTION quota_condition.scan_test_fails(s subject) RETURNS boolean LANGUAGE sql STABLE PARALLEL SAFE RETURN 1 / length((s).id) - 1 = 1 / (length((s).id) - 2);
INSERT INTO quota_gateway (name, dialect, base_url) VALUES ('scan-other', 'zgsm', 'http://gateway.example');
INSERT INTO quota_model (model, gateway) VALUES ('scan-other', 'scan-other'), ('scan-whole', 'scan-other');
INSERT INTO quota_strategy (name, type, amount, model, condition) VALUES
	('scan-1', 'single', 1, 'm', 'true()'),
	('scan-2-function', 'single', 1, 'm', 'scan-test-gone()'),
	('scan-3-model', 'single', 1, 'scan-other', 'true()'),
	('scan-4-amount', 'single', 0.5, 'scan-whole', 'true()'),
	('scan-5-error', 'single', 1, 'm', 'scan-test-fails()'),
	('scan-6', 'single', 1, 'm', 'match-user("u1", "u2")'),
	('scan-6-balance', 'single', 1, 'm', 'is-vip(0) or quota-le("scan-other", 5)');
INSERT INTO quota_strategy (name, type, amount, model, periodic_expr, condition, time_zone, version, schedule_since)
VALUES ('scan-7-zone', 'periodic', 1, 'm', '0 8 * * *', 'true()', 'Mars/Olympus', 1, '2020-01-01');
DROP FUNCTION quota_condition.scan_test_gone;
DELETE FROM quota_model WHERE model = 'scan-other';
UPDATE quota_gateway SET is_default = (name = 'scan-zgsm');
UPDATE quota_gateway SET dialect = 'higress' WHERE name = 'scan-other';
INSERT INTO quota_gateway (name, dialect, base_url) VALUES ('scan-none', 'zgsm', 'http://gateway.example');
INSERT INTO quota_model (model, gateway) VALUES ('m', 'scan-zgsm');
SELECT * FROM pg_temp.scan('scan-5-error');
UPDATE quota_gateway SET is_default = false;
SELECT * FROM pg_temp.reader_scan();
SELECT * FROM pg_temp.reader_scan();
SELECT * FROM pg_temp.runs;
SELECT name, count(*) FROM pg_temp.grants GROUP BY name ORDER BY name;
-- Mended, they run.
INSERT INTO quota_model (model, gateway) VALUES ('scan-other', 'scan-zgsm');
UPDATE quota_strategy SET condition = 'true()', amount = 1 WHERE name IN ('scan-2-function', 'scan-4-amount', 'scan-5-error');
UPDATE quota_strategy SET time_zone = 'UTC' WHERE name = 'scan-7-zone';
SELECT strategy, granted, already, error FROM pg_temp.scan();
TRUNCATE quota_execute, quota_run;
DELETE FROM quota_strategy;
DROP FUNCTION quota_condition.scan_test_fails;
DROP OWNED BY scan_test_reader;
DROP ROLE scan_test_reader;
UPDATE quota_gateway SET is_default = true WHERE name = 'scan-zgsm';

-- Balances: known ones decide, negated or not; unknown ones never grant and are counted.
UPDATE user_info SET vip = 1 WHERE id = 'u4';
INSERT INTO user_balance (user_id, gateway, balance) VALUES ('u1', 'scan-zgsm', 10), ('u2', 'scan-zgsm', 10.000001), ('u2', 'scan-other', 0);
INSERT INTO user_balance (user_id, gateway, balance, read_time) VALUES ('u3', 'scan-zgsm', 0, now() - interval '1 day');
INSERT INTO quota_strategy (name, type, amount, model, condition) VALUES
	('scan-low', 'single', 5, 'm', 'quota-le("m", 10)'),
	('scan-high', 'single', 5, 'm', 'not quota-le("m", 10)'),
	('scan-low-or-vip', 'single', 5, 'm', 'quota-le("m", 10) or is-vip(1)'),
	('scan-low-and-not-vip', 'single', 5, 'm', 'and(quota-le("m", 10), not(is-vip(1)))'),
	('scan-never', 'single', 5, 'm', 'and(quota-le("m", 10), not(quota-le("m", 10)), false())'),
	('scan-two', 'single', 5, 'm', 'quota-le("m", 10) and quota-le("scan-other", 10)');
UPDATE quota_model SET gateway = 'scan-other' WHERE model = 'scan-other';
SELECT * FROM pg_temp.scan();
SELECT name, user_id FROM pg_temp.grants ORDER BY name, user_id;
SELECT s.name, u.* FROM quota_strategy s, undecided(s.id) u ORDER BY s.name, u.user_id, u.gateway;
-- They become known.
INSERT INTO user_balance (user_id, gateway, balance) SELECT id, g, -1 FROM user_info, unnest(ARRAY['scan-zgsm', 'scan-other']) g
ON CONFLICT (user_id, gateway) DO UPDATE SET balance = excluded.balance, read_time = now();
SELECT strategy, matched, granted, already, unknown, note FROM pg_temp.scan();
SELECT s.name, u.* FROM quota_strategy s, undecided(s.id) u ORDER BY s.name, u.user_id, u.gateway;
SELECT * FROM pg_temp.runs;
-- How fresh is fresh is a setting.
SET quota_manager.delete_proof = off;
DELETE FROM quota_execute;
SET quota_manager.delete_proof = on;
DELETE FROM quota_execute;
UPDATE user_balance SET read_time = now() - interval '2 min';
SET quota_manager.balance_max_age = '1 min';
SELECT strategy, matched, granted, unknown FROM pg_temp.scan('scan-low');
SET quota_manager.balance_max_age = '3 min';
SELECT strategy, matched, granted, unknown FROM pg_temp.scan('scan-low');
RESET quota_manager.balance_max_age;
TRUNCATE quota_execute, quota_run;
DELETE FROM quota_strategy;

-- Who is counted has met the condition, however the planner orders the joins.
DELETE FROM user_info WHERE id <> 'u1';
DELETE FROM user_balance;
INSERT INTO user_balance (user_id, gateway, balance) VALUES ('u1', 'scan-zgsm', 100);
ANALYZE user_info, user_balance;
INSERT INTO quota_strategy (name, type, amount, model, condition, max_exec_per_user) VALUES ('scan-tiny', 'single', 5, 'm', 'match-user("u1") and quota-le("m", 10)', 1);
SELECT * FROM pg_temp.scan();
-- A user whose cap is reached is not undecided.
UPDATE quota_strategy SET condition = 'true()';
SELECT strategy, granted FROM pg_temp.scan();
UPDATE quota_strategy SET type = 'periodic', periodic_expr = '0 * * * *', condition = 'quota-le("m", 10)';
DELETE FROM user_balance;
SET quota_manager.schedule_clock = '2025-07-01 09:00:00+00';
SELECT s.name, u.* FROM quota_strategy s, undecided(s.id) u;
SELECT * FROM pg_temp.scan();
SET quota_manager.schedule_clock = '2025-07-01 08:00:00+00';
TRUNCATE quota_execute, quota_run;
DELETE FROM quota_strategy;

-- The label is in the strategy's zone; the model decides the gateway when the grant is written.
INSERT INTO quota_strategy (name, type, amount, model, condition, time_zone) VALUES ('scan-zone', 'single', 5, 'scan-other', 'true()', 'Asia/Kolkata');
UPDATE quota_model SET gateway = 'scan-zgsm' WHERE model = 'scan-other';
SELECT strategy, granted FROM pg_temp.scan();
SELECT gateway, batch_number FROM pg_temp.grants;

-- Where nothing can be written, or a snapshot would hide what others do.
BEGIN READ ONLY;
SELECT * FROM quota_manager.scan();
ROLLBACK;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT * FROM quota_manager.scan();
ROLLBACK;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT * FROM quota_manager.scan('scan-zone');
ROLLBACK;
-- A scan that is rolled back has not been.
BEGIN;
UPDATE user_info SET id = 'u9';
SELECT strategy, granted FROM pg_temp.scan();
ROLLBACK;
SELECT count(*) FROM quota_execute;

TRUNCATE quota_execute, quota_run, user_balance;
DELETE FROM quota_strategy;
DELETE FROM user_info;
DELETE FROM quota_model;
DELETE FROM quota_gateway;
