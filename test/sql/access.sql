-- Who may do what.
\pset format unaligned
\pset tuples_only on
\pset null '~'
\set SHOW_CONTEXT never
SET client_min_messages = warning;
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET quota_manager.incremental_scans = off;
SET search_path = quota_manager, public;
SET quota_manager.schedule_clock = '2025-07-01 08:00:00+00';

CREATE ROLE regress_quota_viewer;
CREATE ROLE regress_quota_operator;
CREATE ROLE regress_quota_admin;
CREATE ROLE regress_quota_worker;
CREATE ROLE regress_quota_nobody;
CREATE ROLE "regress quota ""odd""; DROP TABLE x; --";

SELECT grant_access('regress_quota_viewer', 'god');
SELECT grant_access('regress_quota_viewer', 'Viewer');
SELECT grant_access('regress_quota_viewer', NULL);
SELECT grant_access(NULL, 'viewer');
SELECT grant_access('-', 'viewer');
SELECT grant_access('regress_quota_nosuch', 'viewer');
SELECT grant_access('regress_quota_viewer', 'viewer'), grant_access('regress_quota_operator', 'operator'),
	grant_access('regress_quota_admin', 'admin'), grant_access('regress_quota_worker', 'worker'),
	grant_access('"regress quota ""odd""; DROP TABLE x; --"', 'viewer');
-- Again, as after a restore.
SELECT grant_access('regress_quota_worker', 'worker');

INSERT INTO quota_gateway (name, dialect, base_url, is_default, credential) VALUES ('access-zgsm', 'zgsm', 'http://gateway.example', true, 'row:access-key');
INSERT INTO quota_credential VALUES ('access-key', 'access-secret');
INSERT INTO user_info (id, vip) VALUES ('u1', 1), ('u2', 2);
INSERT INTO user_balance (user_id, gateway, balance) VALUES ('u1', 'access-zgsm', 3);
INSERT INTO quota_strategy (name, type, amount, model, condition) VALUES ('access-vip', 'single', 5, 'm', 'is-vip(1)'), ('access-low', 'single', 5, 'm', 'quota-le("m", 10)');

-- What each may do to a table: S(elect) I(nsert) U(pdate) D(elete) T(runcate), in lower case for some columns only.
CREATE FUNCTION public.access_test_rights(role name, relation oid) RETURNS text LANGUAGE sql STABLE AS $$
	SELECT string_agg(CASE WHEN has_table_privilege(role, relation, p) THEN left(p, 1)
		WHEN p <> 'DELETE' AND p <> 'TRUNCATE' AND has_any_column_privilege(role, relation, p) THEN lower(left(p, 1)) ELSE '-' END, '' ORDER BY n)
	FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE']) WITH ORDINALITY AS privilege (p, n)
$$;
SELECT c.relname, access_test_rights('regress_quota_viewer', c.oid) AS viewer, access_test_rights('regress_quota_operator', c.oid) AS operator,
	access_test_rights('regress_quota_admin', c.oid) AS admin, access_test_rights('regress_quota_worker', c.oid) AS worker,
	access_test_rights('regress_quota_nobody', c.oid) AS nobody
FROM pg_class c WHERE c.relnamespace = 'quota_manager'::regnamespace AND c.relkind IN ('r', 'v', 'm', 'p', 'f') ORDER BY c.relname COLLATE "C";
-- No trigger may be made, and nobody refers to a table, who does not own it.
SELECT count(*) FROM pg_class c, unnest(ARRAY['regress_quota_viewer', 'regress_quota_operator', 'regress_quota_admin', 'regress_quota_worker', 'regress_quota_nobody']) role
WHERE c.relnamespace = 'quota_manager'::regnamespace AND c.relkind IN ('r', 'v')
	AND (has_table_privilege(role, c.oid, 'TRIGGER') OR has_any_column_privilege(role, c.oid, 'REFERENCES'));
SELECT role, has_schema_privilege(role, 'quota_manager', 'USAGE'), has_schema_privilege(role, 'quota_condition', 'USAGE'),
	has_schema_privilege(role, 'quota_manager', 'CREATE') OR has_schema_privilege(role, 'quota_condition', 'CREATE')
FROM unnest(ARRAY['regress_quota_viewer', 'regress_quota_operator', 'regress_quota_admin', 'regress_quota_worker', 'regress_quota_nobody']) role;

-- What each may call for people; a new function that is in no list of grant_access is for nobody.
SELECT p.proname, string_agg(DISTINCT l.level, ' ' ORDER BY l.level) FILTER (WHERE has_function_privilege('regress_quota_' || l.level, p.oid, 'EXECUTE')) AS levels
FROM pg_proc p, unnest(ARRAY['viewer', 'operator', 'admin', 'worker']) l (level)
WHERE p.pronamespace = 'quota_manager'::regnamespace GROUP BY p.proname ORDER BY p.proname COLLATE "C";
-- In quota_internal what may write is for the owner, what cannot is for all.
SELECT p.oid::regprocedure, l.level FROM pg_proc p, unnest(ARRAY['viewer', 'operator', 'admin', 'worker', 'nobody']) l (level)
WHERE p.pronamespace = 'quota_internal'::regnamespace AND (p.provolatile = 'v' AND p.proparallel <> 's' OR p.prosecdef AND p.proname NOT IN ('list_workers', 'is_copy', 'read_metrics', 'scan_verdicts'))
	AND has_function_privilege('regress_quota_' || l.level, p.oid, 'EXECUTE') ORDER BY p.proname COLLATE "C", l.level;
SELECT p.oid::regprocedure, l.level FROM pg_proc p, unnest(ARRAY['viewer', 'operator', 'admin', 'worker']) l (level)
WHERE p.pronamespace IN ('quota_internal'::regnamespace, 'quota_condition'::regnamespace) AND p.provolatile <> 'v' AND p.prorettype <> 'trigger'::regtype
	AND NOT has_function_privilege('regress_quota_' || l.level, p.oid, 'EXECUTE') ORDER BY p.proname COLLATE "C", l.level;
-- Of tables that are written by column, what is kept from whoever may write the rest.
SELECT c.relname, l.level, string_agg(a.attname, ' ' ORDER BY a.attnum) FILTER (WHERE NOT has_column_privilege('regress_quota_' || l.level, c.oid, a.attnum, 'INSERT')) AS no_insert,
	string_agg(a.attname, ' ' ORDER BY a.attnum) FILTER (WHERE NOT has_column_privilege('regress_quota_' || l.level, c.oid, a.attnum, 'UPDATE')) AS no_update
FROM unnest(ARRAY['quota_strategy', 'user_info', 'quota_gateway']) t (name) JOIN pg_class c ON c.oid = ('quota_manager.' || t.name)::regclass
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped, unnest(ARRAY['operator', 'admin']) l (level)
WHERE t.name <> 'quota_gateway' OR l.level = 'admin' GROUP BY 1, 2 ORDER BY 1, 2;
-- Nobody needs a number from a sequence whose table the owner writes.
SELECT s.relname, l.level FROM pg_class s, unnest(ARRAY['viewer', 'operator', 'admin', 'worker', 'nobody']) l (level)
WHERE s.relnamespace = 'quota_manager'::regnamespace AND s.relkind = 'S' AND has_sequence_privilege('regress_quota_' || l.level, s.oid, 'USAGE, UPDATE, SELECT') ORDER BY 1, 2;

-- A viewer looks, tries conditions, and changes nothing.
SET ROLE regress_quota_viewer;
SELECT count(*) FROM quota_strategy;
SELECT count(*) FROM user_info;
SELECT kind, pid, state, queue_depth, oldest_age IS NOT NULL, last_error FROM worker_status WHERE kind <> 'launcher' ORDER BY kind;
SELECT gateway, pending FROM delivery_status;
SELECT count(*) >= 0 FROM gateway_call;
SELECT id FROM subject s WHERE s @@ 'is-vip(2) or quota-le("m", 10)' ORDER BY id;
SELECT s.id FROM subject s, quota_strategy t WHERE s @@ t.condition AND may_match(s, t.condition) ORDER BY s.id, t.name;
SELECT valid, message FROM check_condition('is-vp(1)');
SELECT name, scheduled_time FROM quota_internal.due_strategies() ORDER BY name;
SELECT user_id FROM quota_strategy t, undecided(t.id) ORDER BY user_id;
SELECT next_firing('0 8 * * *', '2025-07-01 08:00:00+00', 'UTC');
SELECT * FROM scan();
SELECT quota_internal.run_strategy(1, NULL);
SELECT import_grants('SELECT 1');
SELECT set_user_source();
SELECT grant_access('regress_quota_viewer', 'admin');
SELECT * FROM quota_credential;
INSERT INTO user_info (id) VALUES ('u3');
UPDATE quota_strategy SET enabled = false;
UPDATE quota_installation SET workers_enabled = false;
SET quota_manager.schedule_clock = '2030-01-01 00:00:00+00';
SELECT name FROM pg_settings WHERE name IN ('quota_manager.allowed_hosts', 'quota_manager.credential_directory');

-- An operator runs strategies and users, and decides neither where grants go nor where users come from.
SET ROLE regress_quota_operator;
INSERT INTO user_info (id, vip) VALUES ('u3', 1);
INSERT INTO quota_strategy (name, type, amount, model, condition) VALUES ('access-operator', 'single', 5, 'm', 'match-user("u3")');
INSERT INTO quota_strategy (name, type, amount, model, periodic_expr, condition, max_exec_per_user) VALUES ('access-hourly', 'periodic', 5, 'm', '0 * * * *', 'true()', 2);
UPDATE quota_strategy SET title = 'x' WHERE name = 'access-vip';
SELECT strategy, granted, unknown_balance, error FROM scan();
SELECT strategy, note FROM scan('access-hourly');
SELECT imported FROM import_grants($$VALUES ('access-vip', 'u9', now())$$);
DELETE FROM quota_strategy WHERE name = 'access-hourly';
DELETE FROM quota_strategy WHERE name = 'access-vip';
UPDATE quota_execute SET status = 'cancelled' WHERE user_id = 'u3';
DELETE FROM quota_execute;
TRUNCATE quota_strategy;
INSERT INTO quota_gateway (name, dialect, base_url) VALUES ('access-evil', 'zgsm', 'http://evil.example');
UPDATE quota_gateway SET base_url = 'http://evil.example';
INSERT INTO quota_model VALUES ('x', 'access-zgsm');
SELECT * FROM quota_credential;
INSERT INTO quota_credential VALUES ('x', 'x');
-- A view runs what it calls as whoever scans: where users come from is for the owner to say.
SELECT set_user_source();
INSERT INTO quota_installation (user_source) VALUES ('public.evil');
INSERT INTO quota_installation DEFAULT VALUES;
UPDATE quota_installation SET user_source = 'public.evil';
UPDATE quota_installation SET id = gen_random_uuid();
UPDATE quota_installation SET workers_enabled = true;
-- Whose installation this is, is for nobody to say.
UPDATE quota_installation SET system_identifier = 1;
UPDATE quota_installation SET doubtful_until = NULL;
SELECT resume();
SELECT quota_internal.begin_doubt('x');
CREATE FUNCTION quota_condition.evil(s subject) RETURNS boolean LANGUAGE sql STABLE PARALLEL SAFE AS 'SELECT true';
CREATE FUNCTION quota_manager.evil() RETURNS boolean LANGUAGE sql AS 'SELECT true';
SELECT grant_access('regress_quota_operator', 'admin');
SELECT scan() IS NULL FROM (SELECT set_config('quota_manager.schedule_clock', '2030-01-01 00:00:00+00', false)) clock;

-- An administrator has gateways and keys too, but does not read a key.
SET ROLE regress_quota_admin;
INSERT INTO quota_gateway (name, dialect, base_url) VALUES ('access-higress', 'higress', 'http://gateway.example');
INSERT INTO quota_model VALUES ('access-model', 'access-higress');
UPDATE quota_gateway SET max_connections = 4 WHERE name = 'access-higress';
INSERT INTO quota_credential VALUES ('access-new', 'access-secret-2');
SELECT name FROM quota_credential ORDER BY name;
UPDATE quota_credential SET secret = 'access-secret-3' WHERE name = 'access-new';
SELECT * FROM quota_credential;
SELECT secret FROM quota_credential;
-- What triggers do as the owner they do for our tables alone.
CREATE TEMP TABLE look_alike (LIKE quota_strategy);
CREATE TRIGGER borrowed AFTER UPDATE ON look_alike FOR EACH ROW EXECUTE FUNCTION quota_internal.record_edited_schedule();
DROP TABLE look_alike;
UPDATE quota_credential SET secret = 'x' WHERE secret LIKE 'access%';
UPDATE quota_credential SET secret = 'x' RETURNING secret;
UPDATE quota_credential SET name = secret;
COPY quota_credential TO stdout;
DELETE FROM quota_credential WHERE name = 'access-new';
DELETE FROM quota_model WHERE model = 'access-model';
DELETE FROM quota_gateway WHERE name = 'access-higress';
SELECT strategy, granted FROM scan('access-low');
SELECT set_user_source();
SELECT grant_access('regress_quota_nobody', 'viewer');
SELECT pending >= 0 FROM resume();
SELECT resume('may_have_run');
UPDATE quota_installation SET database_oid = 1;
SELECT quota_internal.begin_doubt('x');

-- Nor does an admin write how a gateway fares: that is the couriers' to say.
SET ROLE regress_quota_admin;
UPDATE quota_gateway SET state = 'open' WHERE name = 'access-zgsm';
UPDATE quota_gateway SET next_probe_time = now() WHERE name = 'access-zgsm';
INSERT INTO quota_gateway (name, dialect, base_url, state) VALUES ('closed', 'zgsm', 'http://127.0.0.1:1', 'closed');
UPDATE quota_gateway SET base_url = base_url WHERE name = 'access-zgsm';
RESET ROLE;

-- The workers' role scans and delivers, and edits nothing.
SET ROLE regress_quota_worker;
SELECT import_grants('SELECT 1');
SELECT gateway_delta('u1', 1, 'why not');
SELECT * FROM quota_credential;
SELECT strategy, granted, already_granted, error FROM scan();
UPDATE quota_gateway SET state = 'closed', state_reason = 'test', next_probe_time = now() WHERE name = 'access-zgsm';
UPDATE quota_gateway SET base_url = 'http://evil.example';
UPDATE quota_strategy SET enabled = false;
INSERT INTO user_info (id) VALUES ('u4');
INSERT INTO quota_credential VALUES ('x', 'x');
UPDATE quota_credential SET secret = 'x';
UPDATE quota_installation SET timeline = 1;
SELECT resume();

-- A role with an odd name has what it was given; who was given nothing has nothing.
SET ROLE "regress quota ""odd""; DROP TABLE x; --";
SELECT count(*) FROM quota_strategy;
SET ROLE regress_quota_nobody;
SELECT * FROM quota_manager.quota_strategy;
SELECT quota_manager.gateway_of('m');
SELECT 'true()'::quota_manager.condition;
RESET ROLE;
-- Even with the schemas open, only what is pure can be called.
GRANT USAGE ON SCHEMA quota_manager, quota_condition TO regress_quota_nobody;
SET ROLE regress_quota_nobody;
SELECT 'is-vip(1)'::condition, '0 8 * * *'::cron, star_list('a, b');
SELECT * FROM user_info;
SELECT * FROM subject;
SELECT gateway_of('m');
SELECT * FROM check_condition('true()');
SELECT scan();
RESET ROLE;

DROP FUNCTION public.access_test_rights(name, oid);
TRUNCATE quota_execute, quota_run, user_balance;
DELETE FROM quota_strategy;
DELETE FROM user_info;
DELETE FROM quota_credential;
DELETE FROM quota_gateway;
DELETE FROM quota_installation;
DROP OWNED BY regress_quota_viewer, regress_quota_operator, regress_quota_admin, regress_quota_worker, regress_quota_nobody, "regress quota ""odd""; DROP TABLE x; --";
DROP ROLE regress_quota_viewer, regress_quota_operator, regress_quota_admin, regress_quota_worker, regress_quota_nobody, "regress quota ""odd""; DROP TABLE x; --";
