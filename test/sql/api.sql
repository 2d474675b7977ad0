-- The schema that PostgREST exposes: what it has, who may do what, and that the planner sees through it.
\pset format unaligned
\pset tuples_only on
\pset null '~'
\set SHOW_CONTEXT never
SET client_min_messages = warning;
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET search_path = quota_api, public;
SET quota_manager.schedule_clock = '2025-07-01 08:00:00+00';

CREATE ROLE regress_api_viewer;
CREATE ROLE regress_api_operator;
CREATE ROLE regress_api_admin;
CREATE ROLE regress_api_worker;
CREATE ROLE regress_api_nobody;
SELECT quota_manager.grant_access('regress_api_viewer', 'viewer'), quota_manager.grant_access('regress_api_operator', 'operator'),
	quota_manager.grant_access('regress_api_admin', 'admin'), quota_manager.grant_access('regress_api_worker', 'worker');

-- What each may do to a view: S(elect) I(nsert) U(pdate) D(elete), in lower case for some columns only.
CREATE FUNCTION public.api_test_rights(role name, relation oid) RETURNS text LANGUAGE sql STABLE AS $$
	SELECT string_agg(CASE WHEN has_table_privilege(role, relation, p) THEN left(p, 1)
		WHEN p <> 'DELETE' AND has_any_column_privilege(role, relation, p) THEN lower(left(p, 1)) ELSE '-' END, '' ORDER BY n)
	FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) WITH ORDINALITY AS privilege (p, n)
$$;
SELECT c.relname, api_test_rights('regress_api_viewer', c.oid) AS viewer, api_test_rights('regress_api_operator', c.oid) AS operator,
	api_test_rights('regress_api_admin', c.oid) AS admin, api_test_rights('regress_api_worker', c.oid) AS worker, api_test_rights('regress_api_nobody', c.oid) AS nobody
FROM pg_class c WHERE c.relnamespace = 'quota_api'::regnamespace AND c.relkind <> 'c' ORDER BY c.relname COLLATE "C";
SELECT c.relname, l.level, string_agg(a.attname, ' ' ORDER BY a.attnum) FILTER (WHERE NOT has_column_privilege('regress_api_' || l.level, c.oid, a.attnum, 'INSERT')) AS no_insert,
	string_agg(a.attname, ' ' ORDER BY a.attnum) FILTER (WHERE NOT has_column_privilege('regress_api_' || l.level, c.oid, a.attnum, 'UPDATE')) AS no_update
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0, unnest(ARRAY['operator', 'admin']) l (level)
WHERE c.relnamespace = 'quota_api'::regnamespace AND c.relname IN ('strategies', 'users', 'gateways', 'gateway_credentials') GROUP BY 1, 2 ORDER BY 1, 2;
SELECT p.oid::regprocedure, p.provolatile, string_agg(l.level, ' ' ORDER BY l.level)
FROM pg_proc p CROSS JOIN unnest(ARRAY['viewer', 'operator', 'admin', 'worker', 'nobody']) l (level)
WHERE p.pronamespace = 'quota_api'::regnamespace AND has_function_privilege('regress_api_' || l.level, p.oid, 'EXECUTE')
GROUP BY p.oid ORDER BY p.oid::regprocedure::text COLLATE "C";
SELECT l.level, has_schema_privilege('regress_api_' || l.level, 'quota_api', 'USAGE') FROM unnest(ARRAY['viewer', 'operator', 'admin', 'worker', 'nobody']) l (level);

-- Views that clients are offered to write (4 update, 8 insert, 16 delete): the plain ones, as a whole.
SELECT c.relname, pg_relation_is_updatable(c.oid, false) FROM pg_class c
WHERE c.relnamespace = 'quota_api'::regnamespace AND c.relkind = 'v' AND pg_relation_is_updatable(c.oid, true) <> 0 ORDER BY 1;
-- A column of theirs that has no default where that of the table has one, of those that can be written.
CREATE FUNCTION public.api_test_table(name) RETURNS regclass LANGUAGE sql STABLE AS $$
	SELECT CASE $1 WHEN 'strategies' THEN 'quota_manager.quota_strategy' WHEN 'users' THEN 'quota_manager.user_info' WHEN 'gateways' THEN 'quota_manager.quota_gateway'
		WHEN 'models' THEN 'quota_manager.quota_model' END::regclass
$$;
SELECT c.relname, a.attname, pg_get_expr(t.adbin, t.adrelid), pg_get_expr(v.adbin, v.adrelid)
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
JOIN pg_attribute b ON b.attrelid = api_test_table(c.relname) AND b.attname = a.attname
LEFT JOIN pg_attrdef t ON t.adrelid = b.attrelid AND t.adnum = b.attnum
LEFT JOIN pg_attrdef v ON v.adrelid = c.oid AND v.adnum = a.attnum
WHERE c.relnamespace = 'quota_api'::regnamespace AND pg_get_expr(t.adbin, t.adrelid) IS DISTINCT FROM pg_get_expr(v.adbin, v.adrelid)
	AND has_column_privilege('regress_api_admin', c.oid, a.attnum, 'INSERT') ORDER BY 1, 2;
-- Columns of the tables that are not shown.
SELECT c.relname, b.attname FROM pg_class c JOIN pg_attribute b ON b.attrelid = api_test_table(c.relname) AND b.attnum > 0 AND NOT b.attisdropped
WHERE c.relnamespace = 'quota_api'::regnamespace AND NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = b.attname) ORDER BY 1, 2;
-- Functions that could be called under one name with other arguments, but those of rows, which are relationships.
SELECT p.proname, count(*) FROM pg_proc p WHERE p.pronamespace = 'quota_api'::regnamespace AND p.proargnames IS NOT NULL GROUP BY 1 HAVING count(*) > 1;
-- Functions with an effect whose waits for locks are not bounded.
SELECT p.oid::regprocedure FROM pg_proc p WHERE p.pronamespace = 'quota_api'::regnamespace AND p.provolatile = 'v'
	AND NOT coalesce(p.proconfig, '{}') @> ARRAY['lock_timeout=1s'];
-- Titles: the first lines of comments.
SELECT split_part(obj_description(c.oid), E'\n', 1) FROM pg_class c WHERE c.relnamespace = 'quota_api'::regnamespace AND c.relkind = 'v' ORDER BY c.relname COLLATE "C";
SELECT p.proname, split_part(obj_description(p.oid), E'\n', 1) FROM pg_proc p WHERE p.pronamespace = 'quota_api'::regnamespace ORDER BY p.oid::regprocedure::text COLLATE "C";
SELECT a.attname, col_description(a.attrelid, a.attnum) FROM pg_attribute a
WHERE a.attrelid = 'quota_api.strategies'::regclass AND a.attnum > 0 AND col_description(a.attrelid, a.attnum) ~ 'Required' ORDER BY a.attnum;

-- What the planner makes of it: relationships are seen through, and indexes reached, also by plans that are kept.
INSERT INTO quota_manager.quota_gateway (name, dialect, base_url, is_default) VALUES ('api-zgsm', 'zgsm', 'http://gateway.example', true);
INSERT INTO quota_manager.user_info (id, vip, org) SELECT 'u' || n, n % 4, 'o' FROM generate_series(1, 2000) n;
INSERT INTO quota_manager.quota_strategy (name, type, amount, model, condition) SELECT 's' || n, 'single', 1, 'm', 'is-vip(1)' FROM generate_series(1, 5) n;
INSERT INTO quota_manager.quota_strategy (name, type, amount, model, periodic_expr, condition) VALUES ('daily', 'periodic', 1, 'm', '0 9 * * *', 'is-vip(3)');
SELECT strategy_name, done, status, obstacle, matched, granted FROM scan() ORDER BY id;
INSERT INTO quota_manager.quota_strategy (name, type, amount, model, condition, enabled) SELECT 'off' || n, 'single', 1, 'm', 'false()', false FROM generate_series(1, 400) n;
INSERT INTO quota_manager.quota_run (strategy_id, state, scheduled_time, start_time, finish_time)
	SELECT s.id, 'skipped', '2024-01-01'::timestamptz + n * interval '1 min', now(), now() FROM quota_manager.quota_strategy s, generate_series(1, 20) n WHERE s.name ~ 'off';
INSERT INTO quota_manager.user_balance (user_id, gateway, balance) SELECT id, 'api-zgsm', 1 FROM quota_manager.user_info;
ANALYZE quota_manager.user_info, quota_manager.quota_strategy, quota_manager.quota_execute, quota_manager.quota_run, quota_manager.user_balance;
-- Which indexes a statement uses, and what it reads as a whole.
CREATE FUNCTION public.api_test_plan(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	line text;
	used text[] := '{}';
BEGIN
	FOR line IN EXECUTE 'EXPLAIN (COSTS OFF) EXECUTE ' || query LOOP
		used := used || coalesce(substring(line FROM 'Index.* Scan.* using (\S+)'), substring(line FROM 'Bitmap Index Scan on (\S+)'),
			'all of ' || substring(line FROM 'Seq Scan on (\S+)'), 'function ' || substring(line FROM 'Function Scan on (\S+)'));
	END LOOP;
	RETURN (SELECT string_agg(DISTINCT u, ', ') FROM unnest(used) u);
END
$$;
-- A page is planned for its size each time, what has a key need not be.
SET plan_cache_mode = force_custom_plan;
PREPARE page AS SELECT e.* FROM quota_api.executions e WHERE e.id < $1 ORDER BY e.id DESC LIMIT $2 OFFSET $3;
SELECT api_test_plan('page(500, 5, 0)');
PREPARE newest AS SELECT e.* FROM quota_api.executions e ORDER BY e.id DESC LIMIT $1 OFFSET $2;
SELECT api_test_plan('newest(5, 0)');
PREPARE of_user AS SELECT e.* FROM quota_api.executions e WHERE e.user_id = $1 ORDER BY e.id DESC LIMIT $2 OFFSET $3;
SELECT api_test_plan($$of_user('u3', 5, 0)$$);
PREPARE to_one AS SELECT e.id, row_to_json(s.*)::jsonb, row_to_json(r.*)::jsonb, row_to_json(u.*)::jsonb FROM quota_api.executions e
	LEFT JOIN LATERAL (SELECT t.name FROM quota_api.strategy(e::quota_api.executions) t) s ON true
	LEFT JOIN LATERAL (SELECT t.id, t.state FROM quota_api.run(e::quota_api.executions) t) r ON true
	LEFT JOIN LATERAL (SELECT t.id, t.vip FROM quota_api."user"(e::quota_api.executions) t) u ON true ORDER BY e.id DESC LIMIT $1;
SELECT api_test_plan('to_one(3)');
PREPARE newest_decisions AS SELECT d.id FROM quota_api.decisions d ORDER BY d.id DESC LIMIT $1;
SET enable_seqscan = off;
SELECT api_test_plan('newest_decisions(3)');
RESET enable_seqscan;
SET plan_cache_mode = force_generic_plan;
PREPARE one AS SELECT e.* FROM quota_api.executions e WHERE e.id = $1;
SELECT api_test_plan('one(5)');
PREPARE of_run AS SELECT r.id, x.executions FROM quota_api.runs r
	LEFT JOIN LATERAL (SELECT json_agg(l) AS executions FROM (SELECT t.id, t.user_id FROM quota_api.executions(r::quota_api.runs) t ORDER BY t.id DESC LIMIT $1) l) x ON true
	WHERE r.id = $2;
SELECT api_test_plan('of_run(2, 3)');
PREPARE of_users AS SELECT u.id, x.executions, y.balances FROM quota_api.users u
	LEFT JOIN LATERAL (SELECT json_agg(l) AS executions FROM (SELECT t.id, t.amount FROM quota_api.executions(u::quota_api.users) t) l) x ON true
	LEFT JOIN LATERAL (SELECT json_agg(l) AS balances FROM (SELECT t.gateway, t.balance FROM quota_api.balances(u::quota_api.users) t) l) y ON true
	WHERE u.id = $1;
SELECT api_test_plan($$of_users('u3')$$);
PREPARE of_strategy AS SELECT s.name, x.runs FROM quota_api.strategies s
	LEFT JOIN LATERAL (SELECT json_agg(l) AS runs FROM (SELECT t.id FROM quota_api.runs(s::quota_api.strategies) t) l) x ON true WHERE s.id = $1;
SELECT api_test_plan('of_strategy(3)');
RESET plan_cache_mode;

-- Times that clients could not read are null; computed fields.
SELECT strategy_name, scheduled_time, next_attempt_time, awaits_decision, status FROM executions ORDER BY id LIMIT 1;
SELECT s.name, s.schedule_text, schedule_text(s) FROM strategies s WHERE s.type = 'periodic' OR s.name = 's1' ORDER BY s.name;
SELECT count(*), count(*) FILTER (WHERE x.next_attempt_time IS NULL) FROM deliveries x;

DROP FUNCTION public.api_test_rights(name, oid), public.api_test_table(name), public.api_test_plan(text);
SET quota_manager.delete_proof = on;
DELETE FROM quota_manager.quota_execute;
DELETE FROM quota_manager.quota_run;
DELETE FROM quota_manager.quota_strategy;
DELETE FROM quota_manager.user_balance;
DELETE FROM quota_manager.user_info;
DELETE FROM quota_manager.quota_gateway;
RESET search_path;
SET client_min_messages = error;
DROP OWNED BY regress_api_viewer, regress_api_operator, regress_api_admin, regress_api_worker;
DROP ROLE regress_api_viewer, regress_api_operator, regress_api_admin, regress_api_worker, regress_api_nobody;
