-- Gateways, models and credentials: what is refused, and how it is said.
\pset format unaligned
\pset tuples_only on
\set SHOW_CONTEXT never
SET client_min_messages = warning;
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET search_path = quota_manager, public;

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
	RETURN concat_ws(E'\n', state || ' ' || message, nullif(regexp_replace(detail, '^Failing row contains.*', ''), ''), nullif(hint, ''));
END
$$;
CREATE FUNCTION pg_temp.add(columns text, vals text) RETURNS text LANGUAGE sql AS $$
	SELECT pg_temp.try(format('INSERT INTO quota_manager.quota_gateway (%s) VALUES (%s)', columns, vals))
$$;

-- What is refused by a constraint names it so that it can be understood.
SELECT pg_temp.add('name, dialect, base_url', $$'', 'zgsm', 'http://gateway.example'$$);
SELECT pg_temp.add('name, dialect, base_url', $$NULL, 'zgsm', 'http://gateway.example'$$);
SELECT pg_temp.add('name, dialect, base_url', $$'g', 'openai', 'http://gateway.example'$$);
SELECT pg_temp.add('name, dialect, base_url', $$'g', NULL, 'http://gateway.example'$$);
SELECT pg_temp.add('name, dialect, base_url', $$'g', 'zgsm', NULL$$);
SELECT pg_temp.add('name, dialect, base_url, connect_timeout', $$'g', 'zgsm', 'http://gateway.example', '0'$$);
SELECT pg_temp.add('name, dialect, base_url, connect_timeout', $$'g', 'zgsm', 'http://gateway.example', '6 min'$$);
SELECT pg_temp.add('name, dialect, base_url, request_timeout', $$'g', 'zgsm', 'http://gateway.example', '-1 s'$$);
SELECT pg_temp.add('name, dialect, base_url, max_connections', $$'g', 'zgsm', 'http://gateway.example', 65$$);
SELECT pg_temp.add('name, dialect, base_url, rate_limit', $$'g', 'zgsm', 'http://gateway.example', 0$$);
SELECT pg_temp.add('name, dialect, base_url, rate_limit', $$'g', 'zgsm', 'http://gateway.example', 'NaN'$$);
SELECT pg_temp.add('name, dialect, base_url, doubt_policy', $$'g', 'zgsm', 'http://gateway.example', 'shrug'$$);
SELECT pg_temp.add('name, dialect, base_url, state', $$'g', 'zgsm', 'http://gateway.example', 'ajar'$$);

-- URLs.
SELECT url, pg_temp.add('name, dialect, base_url', format($$'g', 'zgsm', %L$$, url)) AS answer
FROM unnest(ARRAY['', 'gateway.example', 'ftp://gateway.example', 'http://', 'http://user:secret@gateway.example',
	'http://gateway.example?x=1', 'http://gateway.example#x', 'http://gateway.example:0', 'http://gateway.example:65536',
	'http://gate way.example', E'http://gateway.example/\nHost: other', 'http://例え.example',
	'file:///etc/passwd', 'javascript:alert(1)']) url;

-- Paths, headers and their values cannot smuggle anything into a request.
SELECT path, pg_temp.add('name, dialect, base_url, admin_path', format($$'g', 'zgsm', 'http://gateway.example', %L$$, path)) AS answer
FROM unnest(ARRAY['', 'quota', '/', '/quota?x', '/quo ta', E'/quota\n', '/quota/']) path;
SELECT header, pg_temp.add('name, dialect, base_url, key_header', format($$'g', 'zgsm', 'http://gateway.example', %L$$, header)) AS answer
FROM unnest(ARRAY['', 'x admin key', 'x-admin-key:', E'x-admin-key\r\nHost', 'schlüssel', 'Metadata-Flavor', 'Metadata', 'Cookie', 'Host', 'x-', 'x_key',
	'X-Higress-LLM-Model', 'authorization2']) header;
SELECT header, pg_temp.add('name, dialect, base_url, key_header', format('%L, %L, %L, %L', 'gateway-test-' || header, 'zgsm', 'http://gateway.example', header)) AS answer
FROM unnest(ARRAY['AUTHORIZATION', 'X-Api-Key', 'x-1']) header;
SELECT model, pg_temp.add('name, dialect, base_url, route_model', format($$'g', 'zgsm', 'http://gateway.example', %L$$, model)) AS answer
FROM unnest(ARRAY['', 'a b', E'a\nb', '模型']) model;

-- Hosts a superuser did not allow.
SET quota_manager.allowed_hosts = 'gateway.example, 10.0.0.1';
SELECT pg_temp.add('name, dialect, base_url', $$'g', 'zgsm', 'http://evil.example'$$);
SELECT pg_temp.add('name, dialect, base_url', $$'g', 'zgsm', 'http://gateway.example.evil.example'$$);
SELECT pg_temp.add('name, dialect, base_url', $$'gateway-test-allowed', 'zgsm', 'https://GATEWAY.example:8443/base'$$);
RESET quota_manager.allowed_hosts;

-- A credential is a reference; whatever else stands there is not repeated.
SELECT pg_temp.add('name, dialect, base_url, credential', format($$'g', 'zgsm', 'http://gateway.example', %L$$, credential)) AS answer
FROM unnest(ARRAY['sk-live-0123456789', 'env:PATH', 'env:quota_manager_key', 'env:QUOTA_MANAGER_KEY=sk-live', 'file:/etc/shadow',
	'file:../sk-live', 'file:.hidden', 'file:', 'row:', 'row:sk live', '']) credential;
SELECT bool_or(answer ~ 'sk-live|shadow|PATH') AS repeated
FROM (SELECT pg_temp.add('name, dialect, base_url, credential', format($$'g', 'zgsm', 'http://gateway.example', %L$$, credential)) AS answer
	FROM unnest(ARRAY['sk-live-0123456789', 'env:PATH', 'env:QUOTA_MANAGER_KEY=sk-live', 'file:/etc/shadow', 'file:../sk-live', 'row:sk-live key']) credential) answers;
SELECT credential, pg_temp.add('name, dialect, base_url, credential', format('%L, %L, %L, %L', 'gateway-test-' || credential, 'zgsm', 'http://gateway.example', credential)) AS answer
FROM unnest(ARRAY['env:QUOTA_MANAGER_KEY', 'file:key-1.txt', 'row:key_1']) credential;

-- Keys that cannot be sent are refused without being shown.
SELECT pg_temp.try($$INSERT INTO quota_credential VALUES (NULL, 'sk-live')$$);
SELECT pg_temp.try($$INSERT INTO quota_credential VALUES ('', 'sk-live')$$);
SELECT pg_temp.try($$INSERT INTO quota_credential VALUES ('two words', 'sk-live')$$);
SELECT pg_temp.try($$INSERT INTO quota_credential VALUES ('gateway-test', NULL)$$);
SELECT pg_temp.try($$INSERT INTO quota_credential VALUES ('gateway-test', '')$$);
SELECT pg_temp.try($$INSERT INTO quota_credential VALUES ('gateway-test', E'sk-live\r\nHost: other')$$);
SELECT pg_temp.try($$INSERT INTO quota_credential VALUES ('gateway-test', 'sk-live')$$);
SELECT pg_temp.try($$INSERT INTO quota_credential VALUES ('gateway-test', 'sk-live-2')$$);
DELETE FROM quota_credential WHERE name = 'gateway-test';

-- Only a gateway with a sole writer can reconcile.
SELECT pg_temp.add('name, dialect, base_url, doubt_policy', $$'g', 'zgsm', 'http://gateway.example', 'reconcile'$$);
SELECT pg_temp.add('name, dialect, base_url, max_usage_rate', $$'g', 'zgsm', 'http://gateway.example', -1$$);
SELECT pg_temp.add('name, dialect, base_url, doubt_policy', $$'gateway-test-resend', 'zgsm', 'http://gateway.example', 'resend'$$);
SELECT pg_temp.add('name, dialect, base_url, doubt_policy, sole_writer, max_usage_rate', $$'gateway-test-reconcile', 'zgsm', 'http://gateway.example', 'reconcile', true, 0.5$$);
SELECT pg_temp.try($$UPDATE quota_gateway SET sole_writer = false WHERE name = 'gateway-test-reconcile'$$);
-- The time from which on readings count is kept by the table itself.
UPDATE quota_gateway SET doubt_policy = 'hold' WHERE name = 'gateway-test-resend';
SELECT doubt_policy_since AS since FROM quota_gateway WHERE name = 'gateway-test-resend' \gset
UPDATE quota_gateway SET rate_limit = 5, doubt_policy_since = '2000-01-01 UTC' WHERE name = 'gateway-test-resend';
SELECT doubt_policy_since = :'since' AS kept FROM quota_gateway WHERE name = 'gateway-test-resend';
UPDATE quota_gateway SET doubt_policy = 'resend' WHERE name = 'gateway-test-resend';
SELECT doubt_policy_since > :'since' AS moved FROM quota_gateway WHERE name = 'gateway-test-resend';

-- Nothing of the above was stored.
SELECT name, dialect, base_url, credential, state, doubt_policy, is_default FROM quota_gateway WHERE name = 'g' OR name LIKE 'gateway-test%' ORDER BY name;
DELETE FROM quota_gateway WHERE name LIKE 'gateway-test%';

-- At most one is the default; a model means its own gateway, or the default, or none.
SELECT gateway_of('m') IS NULL AS nobody;
INSERT INTO quota_gateway (name, dialect, base_url, is_default) VALUES ('gateway-test', 'zgsm', 'http://gateway.example', true);
INSERT INTO quota_gateway (name, dialect, base_url) VALUES ('gateway-test-2', 'higress', 'http://gateway.example/base');
SELECT pg_temp.try($$UPDATE quota_gateway SET is_default = true WHERE name = 'gateway-test-2'$$);
INSERT INTO quota_model (model, gateway) VALUES ('gateway-test-model', 'gateway-test-2'), ('gateway-test-定价', 'gateway-test');
SELECT pg_temp.try($$INSERT INTO quota_model (model, gateway) VALUES ('gateway-test-model', 'gateway-test')$$);
SELECT pg_temp.try($$INSERT INTO quota_model (model, gateway) VALUES ('m', 'gateway-test-3')$$);
SELECT m AS model, gateway_of(m) FROM unnest(ARRAY['gateway-test-model', 'gateway-test-定价', 'Gateway-test-model', 'm', '']) m;

-- A gateway keeps its name; the rest may change, and update_time tells of it.
SELECT pg_temp.try($$UPDATE quota_gateway SET name = 'other' WHERE name = 'gateway-test'$$);
SELECT pg_temp.try($$UPDATE quota_gateway SET id = id + 1000 WHERE name = 'gateway-test'$$);
SELECT pg_temp.try($$UPDATE quota_gateway SET base_url = 'gopher://gateway.example' WHERE name = 'gateway-test'$$);
SELECT pg_temp.try($$UPDATE quota_gateway SET credential = 'sk-live' WHERE name = 'gateway-test'$$);
UPDATE quota_gateway SET update_time = '2000-01-01' WHERE name = 'gateway-test';
UPDATE quota_gateway SET request_timeout = '10 s' WHERE name = 'gateway-test' RETURNING update_time > now() - interval '1 hour' AS fresh;

-- A row that brings its create_time is being restored: another server may allow other hosts.
BEGIN;
SET LOCAL quota_manager.allowed_hosts = 'other.example';
INSERT INTO quota_gateway (name, dialect, base_url, create_time) VALUES ('gateway-test-restored', 'zgsm', 'http://gateway.example', '2024-01-01');
SELECT pg_temp.try($$UPDATE quota_gateway SET base_url = base_url WHERE name = 'gateway-test-restored'$$);
ROLLBACK;

-- A gateway goes when nobody needs it any more.
SELECT pg_temp.try($$DELETE FROM quota_gateway WHERE name = 'gateway-test-2'$$);
INSERT INTO quota_execute (strategy_id, user_id, scheduled_time, run_id, strategy_version, status, amount, model, gateway, batch_number)
SELECT -1, status, '-infinity', NULL, 1, status, 5, 'm', 'gateway-test', 'by hand'
FROM unnest(ARRAY['pending', 'processing', 'in_doubt', 'completed', 'failed', 'cancelled']) status;
SELECT pg_temp.try($$UPDATE quota_gateway SET dialect = 'higress' WHERE name = 'gateway-test'$$);
DELETE FROM quota_model WHERE gateway LIKE 'gateway-test%';
SELECT pg_temp.try($$DELETE FROM quota_gateway WHERE name = 'gateway-test'$$);
UPDATE quota_execute SET status = 'completed' WHERE strategy_id = -1 AND status IN ('pending', 'processing');
SELECT pg_temp.try($$DELETE FROM quota_gateway WHERE name = 'gateway-test'$$);
UPDATE quota_execute SET status = 'completed' WHERE strategy_id = -1 AND status = 'in_doubt';
SELECT pg_temp.try($$UPDATE quota_gateway SET dialect = 'higress' WHERE name = 'gateway-test'$$);
SELECT pg_temp.try($$DELETE FROM quota_gateway WHERE name = 'gateway-test'$$);
SELECT pg_temp.try($$UPDATE quota_execute SET status = 'lost' WHERE strategy_id = -1$$);

-- What the dialects can carry.
SELECT amount, quota_internal.amount_fits('higress', amount::numeric) AS higress, quota_internal.amount_fits('zgsm', amount::numeric) AS zgsm
FROM unnest(ARRAY['1', '-1', '1.0', '0.5', '0.000001', '-0.000001', '0.0000001', '1.0000000', '9223372036854775807', '9223372036854775808',
	'-9223372036854775808', '-9223372036854775809', '123456789.123456', '1e30', 'NaN', 'Infinity', '-Infinity']) amount;
SELECT pg_temp.try($$SELECT quota_internal.amount_fits('openai', 1)$$);

TRUNCATE quota_execute;
DELETE FROM quota_gateway;
