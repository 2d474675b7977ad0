-- What a scan would do: preview(), preview_users(), forecast().
SET search_path = quota_manager, public;
SET timezone = 'UTC';
SET datestyle = 'ISO, YMD';
SET client_min_messages = warning;
\set SHOW_CONTEXT never

SET quota_manager.schedule_clock = '2025-03-28 12:00:00+00';
INSERT INTO quota_gateway (name, dialect, base_url, is_default) VALUES ('main', 'zgsm', 'http://127.0.0.1:1', true), ('whole', 'higress', 'http://127.0.0.1:1', false);
INSERT INTO quota_model (model, gateway) VALUES ('w', 'whole');
INSERT INTO user_info (id, vip, org) SELECT 'u' || n, n % 4, 'org' || n % 2 FROM generate_series(1, 20) n;
INSERT INTO quota_strategy (name, type, amount, model, condition, enabled) VALUES
	('welcome', 'single', 2.5, 'm', 'is-vip(1)', true), ('low', 'single', 3, 'm', 'quota-le("m", 5)', true),
	('whole', 'single', 3, 'w', 'is-vip(3)', true), ('off', 'single', 7, 'm', 'is-vip(3)', false);
INSERT INTO quota_strategy (name, type, amount, model, periodic_expr, condition, max_exec_per_user, valid_from, valid_until) VALUES
	('daily', 'periodic', 10, 'm', '0 9 * * *', 'is-vip(2)', NULL, '-infinity', 'infinity'),
	('weekly', 'periodic', 7, 'm', '0 10 * * 1', 'belong-to("org1")', 2, '-infinity', 'infinity'),
	('june', 'periodic', 1, 'm', '0 8 * * *', 'true()', NULL, '2025-06-01 08:00Z', '2025-06-03 08:00Z'),
	('over', 'periodic', 1, 'm', '0 8 * * *', 'true()', NULL, '-infinity', '2025-03-01');

-- A strategy, also one that would not run.
SELECT * FROM preview('welcome');
SELECT * FROM preview('daily');
SELECT * FROM preview('off');
SELECT * FROM preview('june');
SELECT * FROM preview('over');
-- Whose answer depends on balances.
INSERT INTO user_balance (user_id, gateway, balance) VALUES ('u1', 'main', 3), ('u2', 'main', 8);
SELECT * FROM preview('low');
SELECT * FROM preview_users('low');
SELECT * FROM preview_users('low', reason => 'balance unknown', n => 3);

-- An allowance counts what balances lack.
SELECT * FROM preview('welcome', changes => '{"allowance": "top_up", "amount": 5.5, "condition": "true()"}');
SELECT * FROM preview_users('welcome', changes => '{"allowance": "top_up", "amount": 5.5, "condition": "true()"}');
SELECT * FROM preview_users('welcome', changes => '{"allowance": "exact", "amount": 5.5, "condition": "true()"}');
SELECT * FROM preview_users('welcome', changes => '{"allowance": "top_up", "amount": 5.5, "condition": "true()"}', reason => 'sufficient');
SELECT * FROM forecast(n => 2, strategy => 'daily') f;

-- Ceilings: one that refuses, one that cuts, and what is left of it; the breaker.
BEGIN;
INSERT INTO quota_ceiling (id, strategy_id, period, max_grants) SELECT 1, id, 'run', 5 FROM quota_strategy WHERE name = 'welcome';
SELECT * FROM preview('welcome');
SELECT * FROM preview_users('welcome');
SELECT * FROM preview_users('welcome', reason => 'over a ceiling', n => 2);
SELECT * FROM forecast(strategy => 'welcome');
UPDATE quota_ceiling SET on_excess = 'cut', max_grants = NULL, max_amount = 8;
SELECT * FROM preview('welcome');
SELECT * FROM preview_users('welcome');
SELECT * FROM preview_users('welcome', reason => 'over a ceiling', n => 2);
SELECT * FROM preview('welcome', changes => '{"amount": 4}');
SELECT * FROM forecast(strategy => 'welcome');
SELECT granted, note FROM scan('welcome');
DELETE FROM quota_ceiling;
SET LOCAL quota_manager.surge_factor = 2;
SET LOCAL quota_manager.surge_minimum = 5;
SELECT * FROM preview('welcome');
SELECT * FROM preview_users('welcome', reason => 'stopped by the breaker', n => 2);
SELECT * FROM preview_users('welcome');
ROLLBACK;

-- Pauses are said.
BEGIN;
SELECT pause_strategy('daily', 'wrong amount');
SELECT * FROM preview('daily');
SELECT pause_all('incident');
SELECT * FROM preview('daily');
SELECT * FROM forecast(1) LIMIT 1;
ROLLBACK;

-- A condition.
SELECT * FROM preview(condition => 'is-vip(2) and belong-to("org1")');
SELECT * FROM preview(condition => 'quota-le("m", 5)');
SELECT * FROM preview_users(condition => 'is-vip(3)', n => 2);
SELECT * FROM preview_users(condition => 'is-vip(3)', reason => 'meets the condition', after => 'u15');
SELECT * FROM preview_users(condition => 'quota-le("m", 5)', reason => 'balance unknown', after => 'u19', n => 2);

-- A strategy as an edit would make it.
SELECT * FROM preview('daily', changes => '{"condition": "is-vip(3)", "amount": 20.5}');
SELECT * FROM preview('daily', changes => '{"periodic_expr": "30 7 * * *", "time_zone": "Asia/Shanghai"}');
SELECT * FROM preview('daily', changes => '{"type": "single", "periodic_expr": null}');
SELECT * FROM preview('daily', changes => '{"enabled": false}');
SELECT * FROM preview('daily', changes => '{"state": "archived"}');
SELECT * FROM preview('off', changes => '{"enabled": true, "max_exec_per_user": 1}');
SELECT * FROM preview_users('daily', changes => '{"condition": "is-vip(3)", "amount": 20}', n => 1);
SELECT name, condition, amount, version FROM quota_strategy WHERE name = 'daily';

-- What a scan has granted, and what it counts.
SELECT strategy, granted, unknown_balance FROM scan();
SELECT * FROM preview('welcome');
SELECT * FROM preview('low');
UPDATE user_info SET vip = 5 WHERE id IN ('u4', 'u8');
SELECT * FROM preview('welcome');
SELECT * FROM preview('welcome', changes => '{"condition": "true()", "amount": 4}');
SELECT * FROM preview_users('welcome');
SELECT * FROM preview_users('welcome', reason => 'already granted', n => 2);
-- Firings that are due.
SET quota_manager.schedule_clock = '2025-03-31 10:30:00+00';
SELECT * FROM preview('weekly');
SELECT * FROM forecast(n => 5);
SELECT strategy, scheduled_time, granted FROM scan('weekly');
SELECT * FROM preview('weekly');
SET quota_manager.schedule_clock = '2025-04-07 10:30:00+00';
SELECT strategy, scheduled_time, granted FROM scan('weekly');
SELECT * FROM preview('weekly');
SELECT * FROM preview_users('weekly', reason => 'capped', n => 1);

-- What is coming.
SELECT * FROM forecast();
SELECT * FROM forecast(3);
SELECT * FROM forecast(until => '2025-04-10');
SELECT count(*), min(firing), max(firing) FROM forecast(until => '2025-06-10') WHERE firing IS NOT NULL;
SELECT * FROM forecast(strategy => 'june');
SELECT * FROM forecast(strategy => 'off');
SELECT * FROM forecast(strategy => 'weekly', n => 2);
-- A cap shrinks with each firing.
INSERT INTO quota_strategy (name, type, amount, model, periodic_expr, condition, max_exec_per_user) VALUES ('twice', 'periodic', 7, 'm', '0 * * * *', 'is-vip(3)', 2);
SELECT * FROM forecast(strategy => 'twice', n => 4);
SET quota_manager.schedule_clock = '2025-04-07 11:30:00+00';
SELECT strategy, granted FROM scan('twice');
INSERT INTO user_info (id, vip) VALUES ('new', 3);
SELECT * FROM forecast(strategy => 'twice', n => 3);
-- A strategy that cannot run hides no others.
BEGIN;
UPDATE quota_model SET gateway = 'whole';
ALTER TABLE quota_strategy DISABLE TRIGGER check_strategy;
UPDATE quota_strategy SET amount = 1.5 WHERE name = 'whole';
SELECT * FROM forecast(1);
ROLLBACK;

-- Users who cannot be granted anything.
CREATE TABLE site_users AS SELECT s.id, s.name, s.github_username, s.email, s.phone, s.github_star, s.vip, s.org, s.register_time, s.access_time FROM subject s;
INSERT INTO site_users (id, vip) VALUES (repeat('x', 2601), 3), (NULL, 3), ('', 3);
SELECT count(*) FROM set_user_source('site_users');
-- Code of others is not run as a superuser.
SELECT * FROM preview('off');
CREATE ROLE regress_preview_viewer;
SELECT grant_access('regress_preview_viewer', 'viewer');
GRANT SELECT ON site_users TO regress_preview_viewer;
SET ROLE regress_preview_viewer;
SELECT * FROM preview('off');
SELECT * FROM preview(condition => 'is-vip(3)');
RESET ROLE;
-- One who is there twice is an error, as of a scan.
INSERT INTO site_users (id, vip) VALUES ('u3', 3);
SET ROLE regress_preview_viewer;
SELECT * FROM preview('off');
SELECT * FROM preview_users('off', n => 100);
RESET ROLE;
SELECT count(*) FROM set_user_source();

-- What is refused.
CREATE FUNCTION pg_temp.says(call text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	detail text;
	hint text;
BEGIN
	EXECUTE 'SELECT * FROM ' || call;
	RETURN 'nothing';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	RETURN concat_ws(' | ', SQLSTATE, SQLERRM, nullif(detail, ''), nullif(hint, ''));
END
$$;
\pset format unaligned
SELECT call, pg_temp.says(call) FROM unnest(ARRAY[
	$$preview()$$,
	$$preview('none')$$,
	$$preview('daily', 'true()')$$,
	$$preview(condition => 'true()', changes => '{"amount": 1}')$$,
	$$preview(condition => 'nosuch()')$$,
	$$preview(condition => 'is-vip(')$$,
	$$preview('daily', changes => '[]')$$,
	$$preview('daily', changes => '3')$$,
	$$preview('daily', changes => '{"amont": 1}')$$,
	$$preview('daily', changes => '{"id": 1}')$$,
	$$preview('daily', changes => '{"amount": "x"}')$$,
	$$preview('daily', changes => '{"amount": {}}')$$,
	$$preview('daily', changes => '{"amount": 0}')$$,
	$$preview('daily', changes => '{"amount": null}')$$,
	$$preview('whole', changes => '{"amount": 1.5}')$$,
	$$preview('daily', changes => '{"condition": "is-vip("}')$$,
	$$preview('daily', changes => '{"condition": "is-vi(2)"}')$$,
	$$preview('daily', changes => '{"periodic_expr": "x"}')$$,
	$$preview('daily', changes => '{"periodic_expr": null}')$$,
	$$preview('daily', changes => '{"catch_up_max": 0}')$$,
	$$preview('daily', changes => '{"name": ""}')$$,
	$$preview('daily', changes => '{"title": null}')$$,
	$$preview('daily', changes => '{"time_zone": "Mars"}')$$,
	$$preview('daily', changes => '{"state": "gone"}')$$,
	$$preview_users('daily', n => -1)$$,
	$$preview_users('daily', n => NULL)$$,
	$$preview_users('daily', reason => 'nosuch')$$,
	$$preview_users('daily', reason => NULL)$$,
	$$preview_users('daily', reason => 'meets the condition')$$,
	$$forecast(0)$$,
	$$forecast(10001)$$,
	$$forecast(strategy => 'none')$$]) call;
\pset format aligned

-- In a transaction that cannot write, which gets no number.
BEGIN READ ONLY;
SELECT count(*) FROM preview('welcome');
SELECT count(*) FROM preview('low', changes => '{"amount": 9}');
SELECT count(*) FROM preview_users('low', reason => 'balance unknown', n => 5);
SELECT count(*) FROM forecast(n => 5);
SELECT pg_current_xact_id_if_assigned();
COMMIT;

SET ROLE regress_preview_viewer;
SELECT * FROM preview('welcome');
SELECT count(*) FROM forecast(1);
RESET ROLE;

-- A forecast under ceilings: days turn in their zones, and what was cut or refused is tried again then.
UPDATE quota_strategy SET state = 'archived';
TRUNCATE quota_execute, quota_run, quota_ceiling RESTART IDENTITY;
SELECT count(*) FROM set_user_source(NULL);
SET quota_manager.schedule_clock = '2026-03-01 12:00:00+00';
INSERT INTO quota_strategy (name, type, amount, model, condition) VALUES ('some', 'single', 5, 'm', 'is-vip(3)');
INSERT INTO quota_strategy (name, type, amount, model, condition, periodic_expr) VALUES
	('noon', 'periodic', 10, 'm', 'is-vip(2)', '0 12 * * *'), ('eight', 'periodic', 2, 'm', 'true()', '0 8,20 * * *');
SELECT count(*) AS users FROM user_info;
SELECT firing, strategy_name, users, amount, note FROM forecast(5);
INSERT INTO quota_ceiling (period, max_grants, on_excess) VALUES ('day', 30, 'cut');
SELECT firing, strategy_name, users, amount, note FROM forecast(5);
UPDATE quota_strategy SET catch_up = 'all' WHERE name = 'eight';
INSERT INTO quota_ceiling (strategy_id, period, max_amount, time_zone) SELECT id, 'day', 60, 'Asia/Shanghai' FROM quota_strategy WHERE name = 'noon';
INSERT INTO quota_ceiling (period, max_grants, on_excess) VALUES ('total', 70, 'cut');
SELECT firing, strategy_name, users, amount, note FROM forecast(5);
DELETE FROM quota_ceiling;
SET quota_manager.surge_minimum = 5;
SET quota_manager.surge_factor = 1;
SELECT count(*) FROM scan('some');
UPDATE quota_strategy SET condition = 'true()' WHERE name = 'some';
SELECT firing, strategy_name, users, amount, note FROM forecast(3);
RESET quota_manager.surge_factor;
RESET quota_manager.surge_minimum;
TRUNCATE quota_ceiling;

DROP TABLE site_users;
DROP OWNED BY regress_preview_viewer;
DROP ROLE regress_preview_viewer;
TRUNCATE quota_execute, quota_run, user_balance, user_info;
DELETE FROM quota_strategy;
DELETE FROM quota_model;
DELETE FROM quota_gateway;
