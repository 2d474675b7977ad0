-- What every object of the extension must be; each query lists those that are not.
\pset format unaligned
\pset footer off
SET client_min_messages = warning;

CREATE VIEW pg_temp.member AS
SELECT d.classid, d.objid, pg_describe_object(d.classid, d.objid, 0) AS what
FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid AND d.refclassid = 'pg_extension'::regclass
WHERE e.extname = 'quota_manager' AND d.deptype = 'e'
	-- From PostgreSQL 17 on, also the types that relations and types bring along: of rows and of arrays.
	AND NOT (d.classid = 'pg_type'::regclass AND EXISTS (SELECT FROM pg_type t LEFT JOIN pg_class c ON c.oid = t.typrelid WHERE t.oid = d.objid AND (t.typcategory = 'A' OR c.relkind <> 'c')));
CREATE VIEW pg_temp.relation AS
SELECT c.* FROM pg_class c JOIN pg_temp.member m ON m.classid = 'pg_class'::regclass AND m.objid = c.oid;
CREATE VIEW pg_temp.routine AS
SELECT p.*, l.lanname FROM pg_proc p JOIN pg_temp.member m ON m.classid = 'pg_proc'::regclass AND m.objid = p.oid JOIN pg_language l ON l.oid = p.prolang;

-- The lists are not empty because nothing was looked at.
SELECT count(*) > 50 AS members, count(*) FILTER (WHERE classid = 'pg_class'::regclass) > 10 AS relations, count(*) FILTER (WHERE classid = 'pg_proc'::regclass) > 50 AS routines
FROM pg_temp.member;

-- Without a comment: members; columns of tables and views; indexes but those of constraints; triggers.
SELECT m.what FROM pg_temp.member m
WHERE NOT EXISTS (SELECT FROM pg_description d WHERE d.classoid = m.classid AND d.objoid = m.objid AND d.objsubid = 0)
	AND NOT (m.classid = 'pg_class'::regclass AND EXISTS (SELECT FROM pg_class c WHERE c.oid = m.objid AND c.relkind = 'S'))
ORDER BY m.what COLLATE "C";
SELECT r.relname, a.attname FROM pg_temp.relation r JOIN pg_attribute a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE r.relkind IN ('r', 'p', 'v', 'm') AND col_description(r.oid, a.attnum) IS NULL ORDER BY r.relname COLLATE "C", a.attnum;
SELECT i.indexrelid::regclass FROM pg_temp.relation r JOIN pg_index i ON i.indrelid = r.oid
WHERE obj_description(i.indexrelid, 'pg_class') IS NULL AND NOT EXISTS (SELECT FROM pg_constraint c WHERE c.conindid = i.indexrelid) ORDER BY 1;
SELECT r.relname, t.tgname FROM pg_temp.relation r JOIN pg_trigger t ON t.tgrelid = r.oid
WHERE NOT t.tgisinternal AND obj_description(t.oid, 'pg_trigger') IS NULL ORDER BY r.relname COLLATE "C", t.tgname;
-- Comments are sentences.
SELECT m.what, d.objsubid, d.description FROM pg_temp.member m JOIN pg_description d ON d.classoid = m.classid AND d.objoid = m.objid
WHERE d.description !~ '[.:?]$' OR d.description ~ '  |\s$|^\s' ORDER BY m.what COLLATE "C", d.objsubid;

-- Outside the schemas that are for it.
SELECT p.oid::regprocedure FROM pg_temp.routine p WHERE p.pronamespace NOT IN ('quota_manager'::regnamespace, 'quota_internal'::regnamespace, 'quota_condition'::regnamespace, 'quota_api'::regnamespace) ORDER BY 1;
SELECT r.oid::regclass FROM pg_temp.relation r WHERE r.relnamespace NOT IN ('quota_manager'::regnamespace, 'quota_internal'::regnamespace, 'quota_api'::regnamespace) ORDER BY 1;

-- Functions whose meaning depends on the caller's search_path: one that the planner inlines, all of whose names have their schema. So it is
-- with the body that set_user_source() writes.
SELECT p.oid::regprocedure FROM pg_temp.routine p
WHERE p.lanname NOT IN ('c', 'internal') AND p.prosqlbody IS NULL AND p.oid <> 'quota_internal.source_users()'::regprocedure
	AND NOT coalesce(p.proconfig, '{}') && ARRAY['search_path=pg_catalog, pg_temp'] ORDER BY 1;
-- Functions that read tables which grow by millions, and would be planned by what ANALYZE found in them; a function that reads them by
-- another one's view or function is not found here. The API's preview is planned with the statement that it stands in.
SELECT p.oid::regprocedure FROM pg_temp.routine p
WHERE p.lanname IN ('sql', 'plpgsql') AND p.prokind = 'f'
	AND pg_get_functiondef(p.oid) ~ '(FROM|JOIN|INTO|UPDATE|USING)\s+quota_manager\.(quota_execute|quota_run|user_balance|grant_decision|known_balance)\M'
	AND NOT coalesce(p.proconfig, '{}') && ARRAY['quota_manager.pinned_statistics=on'] ORDER BY 1;
-- Functions that run as their owner: for people, those that write or decide; in quota_internal, triggers that must see or write what their caller may not,
-- those that say whose installation this is, those that show this extension's own workers and figures.
SELECT p.oid::regprocedure, p.proconfig FROM pg_temp.routine p WHERE p.prosecdef ORDER BY 1;
-- Functions that PUBLIC may call although they are more than a computation.
SELECT p.oid::regprocedure FROM pg_temp.routine p
WHERE p.provolatile <> 'i' AND EXISTS (SELECT FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a WHERE a.grantee = 0) ORDER BY 1;
-- Tables, views, columns and sequences that PUBLIC may use, and schemas.
SELECT r.oid::regclass FROM pg_temp.relation r
WHERE EXISTS (SELECT FROM aclexplode(r.relacl) a WHERE a.grantee = 0)
	OR EXISTS (SELECT FROM pg_attribute t, aclexplode(t.attacl) a WHERE t.attrelid = r.oid AND a.grantee = 0) ORDER BY 1;
SELECT n.nspname FROM pg_namespace n, aclexplode(n.nspacl) a WHERE n.nspname LIKE 'quota%' AND a.grantee = 0;

-- Views that do not run as whoever asks.
SELECT r.oid::regclass FROM pg_temp.relation r
WHERE r.relkind = 'v' AND NOT coalesce(r.reloptions, '{}') && ARRAY['security_invoker=true'] ORDER BY 1;

-- Condition functions that the planner could not inline, or that the language would refuse.
SELECT p.oid::regprocedure FROM pg_temp.routine p
WHERE p.pronamespace = 'quota_condition'::regnamespace
	AND (p.prosqlbody IS NULL OR p.provolatile = 'v' OR p.proparallel <> 's' OR p.prosecdef OR p.proconfig IS NOT NULL OR p.prorettype <> 'boolean'::regtype OR p.proretset)
ORDER BY 1;

-- Tables and sequences that pg_dump would not keep: keys, and what went wrong last.
SELECT r.oid::regclass, r.relkind FROM pg_temp.relation r JOIN pg_extension e ON e.extname = 'quota_manager'
WHERE r.relkind IN ('r', 'p', 'S') AND r.oid <> ALL (e.extconfig) ORDER BY 1;
SELECT s.oid::regclass FROM pg_temp.relation r JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = r.oid AND d.classid = 'pg_class'::regclass
JOIN pg_class s ON s.oid = d.objid AND s.relkind = 'S' JOIN pg_extension e ON e.extname = 'quota_manager'
WHERE s.oid <> ALL (e.extconfig) ORDER BY 1;
SELECT r.oid::regclass FROM pg_temp.relation r JOIN pg_extension e ON e.extname = 'quota_manager' CROSS JOIN unnest(e.extcondition) condition
WHERE condition <> '' ORDER BY 1 LIMIT 1;

-- What would keep the tables of grants, decisions, users and balances from being distributed by user: keys without the user, foreign keys, triggers.
SELECT r.relname, c.conname FROM pg_temp.relation r JOIN pg_constraint c ON c.conrelid = r.oid OR c.confrelid = r.oid
WHERE r.relname IN ('quota_execute', 'grant_decision', 'user_info', 'user_balance')
	AND (c.contype = 'f' OR c.contype IN ('p', 'u') AND NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = r.oid AND a.attnum = ANY (c.conkey)
		AND a.attname IN ('user_id', CASE r.relname WHEN 'user_info' THEN 'id' END))) ORDER BY 1, 2;
SELECT r.relname, t.tgname FROM pg_temp.relation r JOIN pg_trigger t ON t.tgrelid = r.oid
WHERE r.relname IN ('quota_execute', 'grant_decision', 'user_balance') AND NOT t.tgisinternal ORDER BY 1, 2;
-- Indexes of quota_execute that claim and settle would have to keep: they name what changes.
SELECT i.indexrelid::regclass FROM pg_index i
WHERE i.indrelid = 'quota_manager.quota_execute'::regclass
	AND (i.indpred IS NOT NULL OR EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
		AND a.attname IN ('status', 'claim_number', 'next_attempt_time', 'last_status', 'last_error', 'update_time'))) ORDER BY 1;
-- Constraints that a restore would have to take on trust.
SELECT r.relname, c.conname FROM pg_temp.relation r JOIN pg_constraint c ON c.conrelid = r.oid WHERE NOT c.convalidated ORDER BY 1, 2;

-- Operators captured from a schema other than these, in constraints and defaults.
SELECT DISTINCT r.relname, o.oid::regoperator FROM pg_temp.relation r
JOIN pg_depend d ON d.refclassid = 'pg_operator'::regclass AND (d.classid, d.objid) IN (
	SELECT 'pg_constraint'::regclass, c.oid FROM pg_constraint c WHERE c.conrelid = r.oid UNION SELECT 'pg_attrdef'::regclass, f.oid FROM pg_attrdef f WHERE f.adrelid = r.oid)
JOIN pg_operator o ON o.oid = d.refobjid WHERE o.oprnamespace <> 'pg_catalog'::regnamespace ORDER BY 1, 2;
