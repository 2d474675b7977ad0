-- Errors as clients see them: the SQLSTATE says whose fault it is, and nobody is shown the row that was refused.
\pset format unaligned
\pset tuples_only on
\set SHOW_CONTEXT never
SET client_min_messages = warning;
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET search_path = quota_manager, public;
SET quota_manager.schedule_clock = '2025-07-01 08:00:00+00';

CREATE ROLE regress_quota_operator;
CREATE ROLE regress_quota_admin;
SELECT grant_access('regress_quota_operator', 'operator'), grant_access('regress_quota_admin', 'admin');
INSERT INTO quota_gateway (name, dialect, base_url, is_default, credential) VALUES ('errors', 'zgsm', 'http://hidden.example', true, 'row:hidden');
INSERT INTO quota_model (model, gateway) VALUES ('m', 'errors');
INSERT INTO quota_strategy (name, type, amount, model, condition) VALUES ('errors', 'single', 5, 'm', 'true()');
INSERT INTO user_info (id, email, phone) VALUES ('u1', 'hidden@example.com', '555-hidden');

-- One line: SQLSTATE, message, detail, hint and column of the error, or how many rows it touched.  What is long is cut.
CREATE FUNCTION public.errors_try(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	state text;
	message text;
	detail text;
	hint text;
	name text;
	touched bigint;
BEGIN
	EXECUTE statement;
	GET DIAGNOSTICS touched = ROW_COUNT;
	RETURN 'ok ' || touched;
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT,
		name = COLUMN_NAME;
	RETURN regexp_replace(concat_ws(' | ', state || ' ' || message, nullif(detail, ''), nullif(hint, ''), '(' || nullif(name, '') || ')'),
		'(x{10})x+', '\1...', 'g');
END
$$;
-- What is said where one column of a row is set to something.
CREATE FUNCTION public.errors_insert(relation regclass, good jsonb, bad jsonb) RETURNS text LANGUAGE sql AS $$
	SELECT public.errors_try(format('INSERT INTO %s (%s) SELECT %s', relation,
		string_agg(quote_ident(key), ', ' ORDER BY key), string_agg(coalesce(quote_literal(v), 'NULL'), ', ' ORDER BY key)))
	FROM jsonb_each_text(good || bad) AS column_of(key, v)
$$;
CREATE FUNCTION public.errors_update(relation regclass, name text, bad jsonb) RETURNS text LANGUAGE sql AS $$
	SELECT public.errors_try(format('UPDATE %s SET %s WHERE %I = %L', relation,
		string_agg(format('%I = %s', key, coalesce(quote_literal(v), 'NULL')), ', ' ORDER BY key),
		CASE relation WHEN 'quota_manager.user_info'::regclass THEN 'id' WHEN 'quota_manager.quota_model'::regclass THEN 'model' ELSE 'name' END, name))
	FROM jsonb_each_text(bad) AS column_of(key, v)
$$;
-- So long that no index row has room for it, however well it is compressed.
CREATE FUNCTION public.errors_long() RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(md5(i::text), '') FROM generate_series(1, 100) i
$$;
-- Whose values are refused shows no SQLSTATE of a constraint, and nothing of the row.
CREATE FUNCTION public.errors_said(said text) RETURNS text LANGUAGE sql AS $$
	SELECT CASE WHEN said ~ 'Failing row|hidden' OR said ~ '^(23502|23514|XX|P0001|54|42883|42601)' OR said ~ '^ok' THEN '!!! ' ELSE '' END || said
$$;

--
-- Values of strategies
--
SET ROLE regress_quota_operator;
SELECT errors_said(errors_insert('quota_strategy', '{"name": "new", "type": "single", "amount": 5, "model": "m", "condition": "true()"}', bad::jsonb))
FROM unnest(ARRAY['{"name": null}', '{"name": ""}', '{"title": null}', '{"type": null}', '{"type": "weekly"}', '{"amount": null}', '{"amount": 0}',
	'{"amount": "NaN"}', '{"model": null}', '{"model": ""}', '{"condition": null}', '{"condition": ""}', '{"time_zone": null}', '{"time_zone": "Mars"}',
	'{"periodic_expr": "@daily"}', '{"type": "periodic"}', '{"type": "periodic", "periodic_expr": "* * 30 2 *"}', '{"state": "on"}', '{"state": "active", "enabled": false}', '{"archived": null}',
	'{"max_exec_per_user": 0}', '{"max_exec_per_user": -1}', '{"catch_up": null}', '{"catch_up": "first"}', '{"catch_up_window": "0 s"}',
	'{"catch_up_window": "101 years"}', '{"catch_up_max": null}', '{"catch_up_max": 0}', '{"catch_up_max": 10001}', '{"valid_from": null}',
	'{"valid_until": null}', '{"valid_from": "2025-01-01", "valid_until": "2025-01-01"}']) bad;
SELECT errors_said(errors_insert('quota_strategy', '{"type": "single", "amount": 5, "model": "m", "condition": "true()"}', jsonb_build_object('name', errors_long())));
SELECT errors_said(errors_insert('quota_strategy', '{"name": "errors", "type": "single", "amount": 5, "model": "m", "condition": "true()"}', '{}'));
-- Also where it is put out of use, which a broken one can be.
SELECT errors_said(errors_update('quota_strategy', 'errors', bad::jsonb || '{"enabled": false}'))
FROM unnest(ARRAY['{"name": null}', '{"name": ""}', '{"title": null}', '{"type": null}', '{"amount": null}', '{"model": null}', '{"condition": null}',
	'{"time_zone": null}', '{"archived": null}', '{"max_exec_per_user": 0}', '{"catch_up": "first"}', '{"catch_up_window": "0 s"}', '{"catch_up_max": 0}',
	'{"valid_from": null}', '{"valid_from": "infinity"}']) bad;
SELECT errors_said(errors_update('quota_strategy', 'errors', '{"enabled": null}'));
SELECT errors_said(errors_update('quota_strategy', 'errors', jsonb_build_object('name', errors_long(), 'enabled', false)));
RESET ROLE;

--
-- Values of users
--
SET ROLE regress_quota_operator;
SELECT errors_said(errors_insert('user_info', '{"id": "u2", "email": "hidden", "phone": "hidden"}', bad))
FROM (VALUES ('{"id": null}'::jsonb), ('{"id": ""}'), (jsonb_build_object('id', repeat('x', 2601))), (jsonb_build_object('org', repeat('x', 2601))),
	(jsonb_build_object('github_star', 'a,' || repeat('x', 2601) || ',b')), ('{"vip": "many"}'), ('{"vip": 2147483648}'), ('{"access_time": "soon"}'), ('{"id": "u1"}')) v (bad);
SELECT errors_said(errors_update('user_info', 'u1', bad))
FROM (VALUES (jsonb_build_object('org', repeat('x', 2601))), (jsonb_build_object('github_star', repeat('x', 2601)))) v (bad);
SELECT errors_said(errors_update('user_info', 'u1', bad::jsonb)) FROM unnest(ARRAY['{"id": "u9"}', '{"id": null}']) bad;
SELECT errors_said(errors_try($$INSERT INTO user_info (id, email, vip) VALUES ('u1', 'hidden', 1), (NULL, 'hidden', 2) ON CONFLICT (id) DO UPDATE SET vip = excluded.vip$$));
RESET ROLE;
-- Nor is its owner, who writes the other columns too.
SELECT errors_said(errors_update('user_info', 'u1', bad::jsonb)) FROM unnest(ARRAY['{"id": null}', '{"id": ""}', '{"create_time": null}']) bad;
-- What fits is taken.
SELECT errors_try(format('INSERT INTO quota_manager.user_info (id, org, github_star) VALUES (%L, %L, %L)', repeat('u', 2600), repeat('o', 2600),
	concat_ws(',', repeat('a', 2600), repeat('b', 2600))));
DELETE FROM user_info WHERE id <> 'u1';

--
-- Values of gateways, models and credentials
--
SET ROLE regress_quota_admin;
SELECT errors_said(errors_insert('quota_gateway', '{"name": "new", "dialect": "zgsm", "base_url": "http://gateway.example", "credential": "row:hidden"}', bad::jsonb))
FROM unnest(ARRAY['{"name": null}', '{"name": ""}', '{"dialect": null}', '{"dialect": "soap"}', '{"base_url": null}', '{"base_url": ""}', '{"base_url": "ftp://x"}',
	'{"connect_timeout": null}', '{"connect_timeout": "0 s"}', '{"connect_timeout": "6 min"}', '{"request_timeout": null}', '{"request_timeout": "11 min"}',
	'{"max_connections": null}', '{"max_connections": 0}', '{"max_connections": 65}', '{"rate_limit": 0}', '{"rate_limit": "NaN"}', '{"doubt_policy": null}',
	'{"doubt_policy": "guess"}', '{"doubt_policy": "reconcile"}', '{"sole_writer": null}', '{"doubt_policy": "reconcile", "sole_writer": null}',
	'{"max_usage_rate": -1}', '{"max_usage_rate": "NaN"}', '{"guard_balances": null}', '{"is_default": null}', '{"is_default": true}', '{"name": "errors"}']) bad;
SELECT errors_said(errors_insert('quota_gateway', '{"dialect": "zgsm", "base_url": "http://gateway.example"}', jsonb_build_object('name', errors_long())));
SELECT errors_said(errors_update('quota_gateway', 'errors', bad::jsonb))
FROM unnest(ARRAY['{"dialect": null}', '{"base_url": null}', '{"connect_timeout": null}', '{"max_connections": 0}', '{"doubt_policy": null}', '{"sole_writer": null}',
	'{"is_default": null}', '{"rate_limit": -1}']) bad;
SELECT errors_said(errors_insert('quota_model', '{"model": "n", "gateway": "errors"}', bad))
FROM (VALUES ('{"model": null}'::jsonb), ('{"model": ""}'), ('{"gateway": null}'), ('{"gateway": "none"}'), ('{"model": "m"}'), (jsonb_build_object('model', errors_long()))) v (bad);
SELECT errors_said(errors_update('quota_model', 'm', bad::jsonb)) FROM unnest(ARRAY['{"model": null}', '{"model": ""}', '{"gateway": null}', '{"gateway": "none"}']) bad;
SELECT errors_said(errors_insert('quota_credential', '{"name": "new", "secret": "hidden"}', bad))
FROM (VALUES ('{"name": null}'::jsonb), ('{"name": ""}'), ('{"secret": null}'), ('{"secret": ""}'), (jsonb_build_object('name', errors_long()))) v (bad);
RESET ROLE;

--
-- What is in use stays, and what does not change says so.
--
INSERT INTO quota_execute (id, strategy_id, user_id, scheduled_time, strategy_version, amount, model, gateway, batch_number)
	SELECT 1, s.id, 'u1', '-infinity', 1, 5, 'm', 'errors', 'test' FROM quota_strategy s;
SET ROLE regress_quota_admin;
SELECT errors_said(errors_try($$DELETE FROM quota_manager.quota_strategy WHERE name = 'errors'$$));
SELECT errors_said(errors_try($$DELETE FROM quota_manager.quota_gateway WHERE name = 'errors'$$));
SELECT errors_said(errors_try($$UPDATE quota_manager.quota_gateway SET dialect = 'higress' WHERE name = 'errors'$$));
RESET ROLE;
SELECT errors_said(errors_try($$TRUNCATE quota_manager.quota_strategy$$));
SELECT errors_said(errors_try($$TRUNCATE quota_manager.quota_gateway$$));
SELECT errors_said(errors_try($$UPDATE quota_manager.quota_gateway SET name = 'other' WHERE name = 'errors'$$));
SELECT errors_said(errors_try($$UPDATE quota_manager.quota_strategy SET id = id + 1$$));
SELECT errors_said(errors_try($$UPDATE quota_manager.quota_strategy SET id = NULL$$));
TRUNCATE quota_execute;
SET ROLE regress_quota_admin;
SELECT errors_said(errors_try($$DELETE FROM quota_manager.quota_gateway WHERE name = 'errors'$$));
RESET ROLE;

--
-- A version, and the other columns that only a restore writes, are for nobody with access.
--
CREATE ROLE regress_quota_viewer;
CREATE ROLE regress_quota_worker;
SELECT grant_access('regress_quota_viewer', 'viewer'), grant_access('regress_quota_worker', 'worker');
CREATE FUNCTION public.errors_restore(level text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
	statement text;
BEGIN
	FOREACH statement IN ARRAY ARRAY[
		$s$INSERT INTO quota_manager.quota_strategy (name, type, amount, model, condition, version) VALUES ('restored', 'single', 5, 'none', 'is-vipp(1)', 1)$s$,
		$s$INSERT INTO quota_manager.quota_strategy (name, type, amount, model, condition, version, schedule_since) VALUES ('restored', 'single', 5, 'none', 'is-vipp(1)', 1, now())$s$,
		$s$INSERT INTO quota_manager.quota_strategy SELECT (jsonb_populate_record(s, '{"id": 77, "name": "restored"}')).* FROM quota_manager.quota_strategy s$s$,
		$s$UPDATE quota_manager.quota_strategy SET version = 7$s$,
		$s$UPDATE quota_manager.quota_strategy SET id = 7$s$,
		$s$UPDATE quota_manager.quota_strategy SET schedule_since = '-infinity'$s$,
		$s$INSERT INTO quota_manager.quota_strategy (id, name, type, amount, model, condition) VALUES (7, 'restored', 'single', 5, 'm', 'true()')$s$,
		$s$INSERT INTO quota_manager.quota_gateway (name, dialect, base_url, create_time) VALUES ('restored', 'zgsm', 'ftp://x', '2020-01-01')$s$,
		$s$INSERT INTO quota_manager.quota_gateway (name, dialect, base_url, state) VALUES ('restored', 'zgsm', 'http://x', 'closed')$s$,
		$s$UPDATE quota_manager.quota_gateway SET state = 'closed'$s$] LOOP
		EXECUTE format('SET LOCAL ROLE %I', 'regress_quota_' || level);
		RETURN NEXT level || ': ' || public.errors_try(statement);
		SET LOCAL ROLE NONE;
	END LOOP;
END
$$;
SELECT errors_restore(level) FROM unnest(ARRAY['viewer', 'operator', 'admin', 'worker']) level;
SELECT count(*) FROM quota_strategy WHERE name = 'restored' OR version > 1;

DELETE FROM quota_strategy;
DELETE FROM quota_model;
DELETE FROM quota_gateway;
DELETE FROM user_info;
DROP FUNCTION public.errors_try(text), public.errors_insert(regclass, jsonb, jsonb), public.errors_update(regclass, text, jsonb), public.errors_long(),
	public.errors_said(text), public.errors_restore(text);
DROP OWNED BY regress_quota_operator, regress_quota_admin, regress_quota_viewer, regress_quota_worker;
DROP ROLE regress_quota_operator, regress_quota_admin, regress_quota_viewer, regress_quota_worker;
