-- Strategies: what is refused and how it is said, and what is kept by itself.
\pset format unaligned
\pset tuples_only on
\set SHOW_CONTEXT never
SET client_min_messages = warning;
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET search_path = quota_manager, public;
SET quota_manager.schedule_clock = '2025-07-01 08:00:00+00';

-- One line: SQLSTATE, message, detail and hint of the error, or how many rows it touched.
CREATE FUNCTION pg_temp.try(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	state text;
	message text;
	detail text;
	hint text;
	touched bigint;
BEGIN
	EXECUTE statement;
	GET DIAGNOSTICS touched = ROW_COUNT;
	RETURN 'ok ' || touched;
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	-- The row itself holds numbers and times that differ from run to run.
	RETURN concat_ws(' | ', state || ' ' || message, nullif(regexp_replace(detail, '^Failing row contains.*', ''), ''), nullif(hint, ''));
END
$$;
-- A strategy that would do, but for one column.
CREATE FUNCTION pg_temp.bad(changed text, value text) RETURNS text LANGUAGE sql AS $$
	SELECT pg_temp.try(format('INSERT INTO quota_manager.quota_strategy (%s) SELECT %s',
		string_agg(quote_ident(key), ', ' ORDER BY key), string_agg(coalesce(quote_literal(v), 'NULL'), ', ' ORDER BY key)))
	FROM jsonb_each_text(jsonb_build_object('name', 'strategy-test', 'type', 'single', 'amount', '5', 'model', 'm', 'condition', 'true()')
		|| jsonb_build_object(changed, value)) AS column_of(key, v)
$$;
CREATE FUNCTION pg_temp.bad(changed jsonb) RETURNS text LANGUAGE sql AS $$
	SELECT pg_temp.try(format('INSERT INTO quota_manager.quota_strategy (%s) SELECT %s',
		string_agg(quote_ident(key), ', ' ORDER BY key), string_agg(coalesce(quote_literal(v), 'NULL'), ', ' ORDER BY key)))
	FROM jsonb_each_text(jsonb_build_object('name', 'strategy-test', 'type', 'periodic', 'amount', '5', 'model', 'm', 'condition', 'true()',
		'periodic_expr', '0 8 * * *') || changed) AS column_of(key, v)
$$;

-- While nobody serves a model there is no strategy for it.
SELECT pg_temp.bad('model', 'm');
INSERT INTO quota_gateway (name, dialect, base_url) VALUES ('strategy-zgsm', 'zgsm', 'http://gateway.example'), ('strategy-higress', 'higress', 'http://gateway.example');
INSERT INTO quota_model (model, gateway) VALUES ('m', 'strategy-zgsm'), ('whole', 'strategy-higress');
SELECT pg_temp.bad('model', 'other');
SELECT pg_temp.bad('condition', 'quota-le("other", 5)');
SELECT pg_temp.bad('condition', 'is-vip(1) or not quota-le("m", 5) or quota-le("other", 5)');

-- Names, types, models.
SELECT pg_temp.bad('name', '');
SELECT pg_temp.bad('name', NULL);
SELECT pg_temp.bad('type', 'weekly');
SELECT pg_temp.bad('type', NULL);
SELECT pg_temp.bad('model', '');
SELECT pg_temp.bad('model', NULL);
SELECT pg_temp.bad('title', NULL);

-- Conditions.
SELECT pg_temp.bad('condition', '');
SELECT pg_temp.bad('condition', NULL);
SELECT pg_temp.bad('condition', 'is-vp(1)');
SELECT pg_temp.bad('condition', 'is-vip(1) true()');
SELECT pg_temp.bad('condition', 'is-vip(1) and');
SELECT pg_temp.bad('condition', 'is-vip()');
SELECT pg_temp.bad('condition', 'is-vip("1")');
SELECT pg_temp.bad('condition', 'is-vip(1.5)');
SELECT pg_temp.bad('condition', 'and(is-vip(1)');
SELECT pg_temp.bad('condition', 'match-user("u1)');
SELECT pg_temp.bad('condition', 'register-before("2024-02-30 00:00:00")');
SELECT pg_temp.bad('condition', 'register-before(now)');

-- Condition functions that a scan could not use.
CREATE FUNCTION quota_condition.strategy_test_volatile(s subject) RETURNS boolean LANGUAGE sql VOLATILE PARALLEL SAFE AS 'SELECT true';
CREATE FUNCTION quota_condition.strategy_test_unsafe(s subject) RETURNS boolean LANGUAGE sql STABLE AS 'SELECT true';
CREATE FUNCTION quota_condition.strategy_test_definer(s subject) RETURNS boolean LANGUAGE sql STABLE PARALLEL SAFE SECURITY DEFINER AS 'SELECT true';
CREATE FUNCTION quota_condition.strategy_test_set(s subject) RETURNS SETOF boolean LANGUAGE sql STABLE PARALLEL SAFE AS 'SELECT true';
CREATE FUNCTION quota_condition.strategy_test_number(s subject) RETURNS integer LANGUAGE sql STABLE PARALLEL SAFE AS 'SELECT 1';
CREATE FUNCTION quota_condition.strategy_test_user(u user_info) RETURNS boolean LANGUAGE sql STABLE PARALLEL SAFE AS 'SELECT true';
CREATE FUNCTION quota_condition.strategy_test_good(s subject) RETURNS boolean LANGUAGE sql STABLE PARALLEL SAFE AS 'SELECT true';
SELECT pg_temp.bad('condition', 'strategy-test-volatile()');
SELECT pg_temp.bad('condition', 'strategy-test-unsafe()');
SELECT pg_temp.bad('condition', 'strategy-test-definer()');
SELECT pg_temp.bad('condition', 'strategy-test-set()');
SELECT pg_temp.bad('condition', 'strategy-test-number()');
SELECT pg_temp.bad('condition', 'strategy-test-user()');

-- Amounts.
SELECT value, pg_temp.bad('amount', value) FROM unnest(ARRAY['0', '0.000000', 'NaN', 'Infinity', '-Infinity', '0.0000001', '1.0000001', '1000000000000000000', NULL]) value;
SELECT amount, pg_temp.bad(jsonb_build_object('type', 'single', 'periodic_expr', NULL, 'model', 'whole', 'amount', amount))
FROM unnest(ARRAY['0', '1.5', '0.000001', '9223372036854775808', '-9223372036854775809', 'NaN']) amount;

-- Schedules.
SELECT pg_temp.bad('periodic_expr', '0 8 * * *');
SELECT expr, pg_temp.bad(jsonb_build_object('periodic_expr', expr))
FROM unnest(ARRAY[NULL, '', '* * *', '61 * * * *', '0 0 30 2 *', '@never', '0 8 * * MOON', 'CRON_TZ=Mars/Olympus 0 8 * * *']) expr;
SELECT zone, pg_temp.bad(jsonb_build_object('time_zone', zone))
FROM unnest(ARRAY['', 'Mars/Olympus', '../../etc/passwd', '+08', NULL]) zone;
SELECT pg_temp.bad(jsonb_build_object('catch_up', 'sometimes'));
SELECT pg_temp.bad(jsonb_build_object('catch_up', NULL));

-- Caps and validity.
SELECT pg_temp.bad('max_exec_per_user', '0');
SELECT pg_temp.bad('max_exec_per_user', '-1');
SELECT pg_temp.bad(jsonb_build_object('valid_from', '2025-07-01 08:00:00+00', 'valid_until', '2025-07-01 08:00:00+00'));
SELECT pg_temp.bad(jsonb_build_object('valid_from', '2025-07-02 08:00:00+00', 'valid_until', '2025-07-01 08:00:00+00'));
SELECT pg_temp.bad(jsonb_build_object('valid_from', 'infinity'));
SELECT pg_temp.bad(jsonb_build_object('valid_until', '-infinity'));

-- Nothing of the above was stored.
SELECT count(*) FROM quota_strategy;

-- What the extremes of the dialects allow is stored as it is.
INSERT INTO quota_strategy (name, type, amount, model, condition) VALUES
	('strategy-test-least', 'single', -9223372036854775808, 'whole', 'true()'),
	('strategy-test-most', 'single', 9223372036854775807, 'whole', 'true()'),
	('strategy-test-fine', 'single', -0.000001, 'm', 'true()'),
	('strategy-test-''; DROP TABLE x; --', 'single', 1, 'm', 'match-user("''; DROP TABLE x; --", "100%", "技术")')
RETURNING name, amount, condition;
SELECT pg_temp.try($$INSERT INTO quota_strategy (name, type, amount, model, condition) VALUES ('strategy-test-least', 'single', 1, 'm', 'true()')$$);
DELETE FROM quota_strategy;

-- version, schedule_since and update_time are kept by themselves.
INSERT INTO quota_strategy (name, type, amount, model, periodic_expr, condition) VALUES ('strategy-test', 'periodic', 5, 'm', '0 8 * * *', 'strategy-test-good()')
RETURNING version, schedule_since, enabled, archived, catch_up, time_zone, valid_from, valid_until;
CREATE FUNCTION pg_temp.edit(assignment text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	result text;
BEGIN
	EXECUTE 'UPDATE quota_manager.quota_strategy SET ' || assignment || $q$ WHERE name LIKE 'strategy-test%'
		RETURNING concat_ws(' ', version, schedule_since, update_time > now() - interval '1 day')$q$ INTO result;
	RETURN result;
END
$$;
SET quota_manager.schedule_clock = '2025-07-02 08:00:00+00';
SELECT pg_temp.edit('title = ''Every morning'', amount = 6, condition = ''true()'', max_exec_per_user = 3');
SELECT pg_temp.edit('version = 77, schedule_since = ''-infinity'', update_time = ''2000-01-01''');
SELECT pg_temp.edit('periodic_expr = ''0 8 * * *''');
SELECT pg_temp.edit('periodic_expr = ''5 8 * * *''');
SET quota_manager.schedule_clock = '2025-07-03 08:00:00+00';
SELECT pg_temp.edit('time_zone = ''Asia/Shanghai''');
SET quota_manager.schedule_clock = '2025-07-04 08:00:00+00';
SELECT pg_temp.edit('enabled = false');
SELECT pg_temp.edit('enabled = true');
SET quota_manager.schedule_clock = '2025-07-05 08:00:00+00';
SELECT pg_temp.edit('archived = true');
SELECT pg_temp.edit('archived = false');
SET quota_manager.schedule_clock = '2025-07-06 08:00:00+00';
SELECT pg_temp.edit('type = ''single'', periodic_expr = NULL');
SELECT pg_temp.try($$UPDATE quota_strategy SET id = id + 1000$$);
SELECT pg_temp.try($$UPDATE quota_strategy SET periodic_expr = '0 8 * * *'$$);
SELECT pg_temp.try($$UPDATE quota_strategy SET amount = 0$$);
SELECT pg_temp.try($$UPDATE quota_strategy SET condition = 'is-vp(1)'$$);
SELECT pg_temp.try($$UPDATE quota_strategy SET model = 'other'$$);
SELECT pg_temp.edit('name = ''strategy-test-renamed''');

-- A row that arrives with a version is being restored and is left alone, even if it is broken.
INSERT INTO quota_strategy (name, type, amount, model, periodic_expr, condition, version, schedule_since, time_zone)
VALUES ('strategy-test-broken', 'periodic', 0.0000001, 'gone', '0 8 * * *', 'gone(1) and quota-le("gone", 1)', 7, '2020-01-01 00:00:00+00', 'Mars/Olympus')
RETURNING version, schedule_since, condition;
SELECT pg_temp.try($$INSERT INTO quota_strategy (name, type, amount, model, condition, version, schedule_since) VALUES ('strategy-test-zero', 'single', 0, 'm', 'true()', 1, now())$$);
SELECT pg_temp.try($$INSERT INTO quota_strategy (name, type, amount, model, condition, version, schedule_since) VALUES ('strategy-test-version', 'single', 1, 'm', 'true()', 0, now())$$);
SELECT pg_temp.try($$INSERT INTO quota_strategy (name, type, amount, model, condition, version) VALUES ('strategy-test-since', 'single', 1, 'm', 'true()', 1)$$);

-- A broken strategy can be put out of use, and comes back only mended.
SELECT pg_temp.try($$UPDATE quota_strategy SET title = 'x' WHERE name = 'strategy-test-broken'$$);
SELECT pg_temp.try($$UPDATE quota_strategy SET enabled = false WHERE name = 'strategy-test-broken'$$);
SELECT pg_temp.try($$UPDATE quota_strategy SET title = 'x' WHERE name = 'strategy-test-broken'$$);
SELECT pg_temp.try($$UPDATE quota_strategy SET condition = 'gone(2)' WHERE name = 'strategy-test-broken'$$);
SELECT pg_temp.try($$UPDATE quota_strategy SET enabled = true WHERE name = 'strategy-test-broken'$$);
SELECT pg_temp.try($$UPDATE quota_strategy SET enabled = true, condition = 'true()', model = 'm', amount = 1 WHERE name = 'strategy-test-broken'$$);
SELECT pg_temp.try($$UPDATE quota_strategy SET enabled = true, condition = 'true()', model = 'm', amount = 1, time_zone = 'UTC' WHERE name = 'strategy-test-broken'$$);
UPDATE quota_strategy SET archived = true WHERE name = 'strategy-test-broken';

-- A condition function that changed its mind breaks a strategy, which can still be disabled.
UPDATE quota_strategy SET condition = 'strategy-test-good()' WHERE name = 'strategy-test-renamed';
ALTER FUNCTION quota_condition.strategy_test_good(subject) VOLATILE;
SELECT pg_temp.try($$UPDATE quota_strategy SET title = 'x' WHERE name = 'strategy-test-renamed'$$);
SELECT pg_temp.try($$UPDATE quota_strategy SET enabled = false WHERE name = 'strategy-test-renamed'$$);

-- A strategy with grants is there for ever.
SELECT pg_temp.try($$DELETE FROM quota_strategy WHERE name = 'strategy-test-broken'$$);
INSERT INTO quota_strategy (name, type, amount, model, condition) VALUES ('strategy-test-granted', 'single', 5, 'm', 'true()');
INSERT INTO quota_execute (strategy_id, user_id, scheduled_time, run_id, strategy_version, status, amount, model, gateway, batch_number)
SELECT id, 'u1', '-infinity', NULL, 1, 'cancelled', 5, 'm', 'strategy-zgsm', 'by hand' FROM quota_strategy WHERE name = 'strategy-test-granted';
SELECT pg_temp.try($$DELETE FROM quota_strategy WHERE name = 'strategy-test-granted'$$);
SELECT pg_temp.try($$DELETE FROM quota_strategy$$);
SELECT pg_temp.try($$TRUNCATE quota_strategy$$);
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT pg_temp.try($$DELETE FROM quota_strategy WHERE name = 'strategy-test-renamed'$$);
SELECT pg_temp.try($$TRUNCATE quota_strategy$$);
ROLLBACK;
SELECT name, enabled, archived, version FROM quota_strategy ORDER BY name;
TRUNCATE quota_execute;
SELECT pg_temp.try($$TRUNCATE quota_strategy$$);

DROP FUNCTION quota_condition.strategy_test_volatile, quota_condition.strategy_test_unsafe, quota_condition.strategy_test_definer,
	quota_condition.strategy_test_set, quota_condition.strategy_test_number, quota_condition.strategy_test_user, quota_condition.strategy_test_good;
DELETE FROM quota_model;
DELETE FROM quota_gateway;
