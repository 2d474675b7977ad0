-- States of strategies: drafts, what enabled and archived say, what contradicts, and what is restored.
\pset format unaligned
\pset tuples_only on
\pset null '~'
\set SHOW_CONTEXT never
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET search_path = quota_manager, public;
SET quota_manager.schedule_clock = '2025-07-01 08:00:00+00';
INSERT INTO quota_gateway (name, dialect, base_url, is_default) VALUES ('state-zgsm', 'zgsm', 'http://gateway.example', true);
INSERT INTO user_info (id, vip) VALUES ('u1', 1);

-- What is written, and what becomes of it.
CREATE FUNCTION pg_temp.new(columns text, "values" text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	said text;
	tip text;
BEGIN
	EXECUTE format('INSERT INTO quota_manager.quota_strategy (name, type, amount, model, condition%s) VALUES (''new'', ''single'', 1, ''m'', ''true()''%s)
		RETURNING concat_ws('' '', state, enabled, archived)', columns, "values") INTO said;
	DELETE FROM quota_manager.quota_strategy WHERE name = 'new';
	RETURN said;
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS tip = PG_EXCEPTION_HINT;
	RETURN concat_ws(' | ', SQLSTATE || ' ' || SQLERRM, tip);
END
$$;
CREATE FUNCTION pg_temp.set(change text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	said text;
	tip text;
BEGIN
	EXECUTE format('UPDATE quota_manager.quota_strategy SET %s WHERE name = ''state'' RETURNING concat_ws('' '', state, enabled, archived, version)', change) INTO said;
	RETURN said;
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS tip = PG_EXCEPTION_HINT;
	RETURN concat_ws(' | ', SQLSTATE || ' ' || SQLERRM, tip);
END
$$;

-- A draft unless it is said to be enabled.
SET quota_manager.default_strategy_state = draft;
SET quota_manager.default_strategy_state = paused;
INSERT INTO quota_strategy (name, type, amount, model, condition) VALUES ('it''s', 'single', 1, 'm', 'true()');
INSERT INTO quota_strategy (name, type, amount, model, condition) SELECT 'bulk ' || n, 'single', 1, 'm', 'true()' FROM generate_series(1, 12) n;
INSERT INTO quota_strategy (name, type, amount, model, condition, state) VALUES ('said', 'single', 1, 'm', 'true()', 'active');
INSERT INTO quota_strategy (name, type, amount, model, condition) VALUES ('said', 'single', 1, 'm', 'true()') ON CONFLICT (name) DO UPDATE SET amount = 2;
SELECT strategy, granted FROM scan();
SELECT strategy, note FROM scan('it''s');
SELECT state, reason FROM strategy_due WHERE name = 'it''s';
SELECT state, count(*) FROM quota_strategy GROUP BY state ORDER BY state;
DELETE FROM quota_strategy WHERE name <> 'said';

SET client_min_messages = warning;
SELECT columns, vals, pg_temp.new(columns, vals) FROM (VALUES ('', ''), (', enabled', ', NULL'), (', enabled', ', true'), (', enabled', ', false'), (', archived', ', true'),
	(', enabled, archived', ', true, true'), (', state', ', ''draft'''), (', state', ', ''active'''), (', state', ', ''paused'''), (', state', ', ''archived'''),
	(', state, enabled', ', ''archived'', true'), (', state, enabled', ', ''active'', true'), (', state, enabled', ', ''paused'', true'), (', state, enabled', ', ''active'', false'),
	(', state, archived', ', ''active'', true'), (', state', ', ''enabled'''), (', state', ', '''''), (', state', ', NULL')) v (columns, vals);
SET quota_manager.default_strategy_state = active;
SELECT columns, vals, pg_temp.new(columns, vals) FROM (VALUES ('', ''), (', enabled', ', NULL'), (', enabled', ', false'), (', state', ', ''draft''')) v (columns, vals);
SET quota_manager.default_strategy_state = draft;

-- What is edited says the state by either side.
INSERT INTO quota_strategy (name, type, amount, model, periodic_expr, condition) VALUES ('state', 'periodic', 1, 'm', '0 * * * *', 'true()');
SELECT change, pg_temp.set(change) FROM unnest(ARRAY['enabled = false', 'title = ''x''', 'enabled = true', 'enabled = false', 'state = ''active''', 'state = ''paused''',
	'archived = true', 'archived = false', 'state = ''active''', 'archived = true', 'archived = false', 'state = ''archived''', 'enabled = false', 'state = ''active''',
	'state = ''archived'', enabled = false', 'state = ''paused''', 'state = ''draft''', 'archived = true', 'enabled = true', 'archived = false', 'state = NULL', 'enabled = NULL',
	'state = ''off''', 'state = ''paused'', archived = true', 'state = ''draft'', archived = true, enabled = false', 'enabled = false, archived = true', 'archived = false, state = ''active'', enabled = true',
	'enabled = true, state = ''active''']) change;

-- A strategy starts where it is made active, as where it is enabled.
SELECT pg_temp.set('state = ''draft''');
SET quota_manager.schedule_clock = '2025-07-01 10:30:00+00';
SELECT note FROM scan('state');
SELECT strategy, note FROM upcoming('state', 1);
SELECT pg_temp.set('state = ''active''');
SELECT schedule_since FROM quota_strategy WHERE name = 'state';
SET quota_manager.schedule_clock = '2025-07-01 11:30:00+00';
SELECT scheduled_time, granted FROM scan('state');
-- Its grants keep it from being a draft again, and so an archived one is paused.
SELECT change, pg_temp.set(change) FROM unnest(ARRAY['state = ''draft''', 'state = ''paused''', 'state = ''draft''', 'archived = true', 'archived = false', 'state = ''active''']) change;
SET quota_manager.schedule_clock = '2025-07-01 12:30:00+00';
SELECT pg_temp.set('state = ''paused''');
SET quota_manager.schedule_clock = '2025-07-01 13:30:00+00';
SELECT note FROM scan('state');
SELECT scheduled_time, state, occurrences, reason FROM quota_run WHERE strategy_id = (SELECT id FROM quota_strategy WHERE name = 'state') ORDER BY id;
BEGIN ISOLATION LEVEL REPEATABLE READ;
UPDATE quota_strategy SET state = 'draft' WHERE name = 'said';
ROLLBACK;

-- What is restored says it already; dumps of 1.0.0 by enabled and archived.
INSERT INTO quota_strategy (name, type, amount, model, condition, enabled, archived, state, version, schedule_since, create_time) VALUES
	('r1', 'single', 1, 'm', 'true()', true, false, NULL, 1, '2020-01-01', '2020-01-01'), ('r2', 'single', 1, 'm', 'true()', false, false, NULL, 1, '2020-01-01', '2020-01-01'),
	('r3', 'single', 1, 'm', 'true()', true, true, NULL, 1, '2020-01-01', '2020-01-01'), ('r4', 'single', 1, 'm', 'true()', false, false, 'draft', 1, '2020-01-01', '2020-01-01');
SELECT name, state, enabled, archived FROM quota_strategy WHERE name LIKE 'r_' ORDER BY name;
\set VERBOSITY terse
INSERT INTO quota_strategy (name, type, amount, model, condition, enabled, archived, state, version, schedule_since) VALUES
	('r5', 'single', 1, 'm', 'true()', true, false, 'draft', 1, '2020-01-01');
\set VERBOSITY default

-- Operators write it, and only as the trigger allows.
CREATE ROLE regress_quota_operator;
SELECT grant_access('regress_quota_operator', 'operator');
SET ROLE regress_quota_operator;
SET client_min_messages = notice;
INSERT INTO quota_manager.quota_strategy (name, type, amount, model, condition) VALUES ('mine', 'single', 1, 'm', 'is-vip(1)');
UPDATE quota_manager.quota_strategy SET state = 'active' WHERE name = 'mine' RETURNING enabled;
SELECT granted FROM scan('mine');
UPDATE quota_manager.quota_strategy SET state = 'draft' WHERE name = 'mine';
SELECT id, done, status, obstacle FROM (SELECT id AS wanted FROM quota_manager.quota_strategy WHERE name = 'r4') s, quota_api.enable(ARRAY[s.wanted, s.wanted]) e (number, done, status, obstacle), (VALUES ('r4')) v (id);
RESET ROLE;
CREATE TABLE look_alike (LIKE quota_strategy);
CREATE TRIGGER check_state BEFORE INSERT ON look_alike FOR EACH ROW EXECUTE FUNCTION quota_internal.keep_strategy_state();
INSERT INTO look_alike (name, state) VALUES ('x', 'draft');

DROP TABLE look_alike;
TRUNCATE quota_execute, quota_run;
DELETE FROM quota_strategy;
DELETE FROM user_info;
DELETE FROM quota_gateway;
DROP OWNED BY regress_quota_operator;
DROP ROLE regress_quota_operator;
