\echo Use "ALTER EXTENSION quota_manager UPDATE" to load this file. \quit

-- What is there keeps the rights that it has; default_rights.sql sees to what is new.  The schema of the extension is no
-- member of it.
SELECT pg_catalog.set_config('quota_upgrade.members', pg_catalog.array_agg(m.member)::pg_catalog.text, true)
FROM (
	SELECT pg_catalog.format('%s %s', d.classid, d.objid) AS member
	FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_extension e
		ON d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_extension'::pg_catalog.regclass AND d.refobjid OPERATOR(pg_catalog.=) e.oid
	WHERE e.extname OPERATOR(pg_catalog.=) 'quota_manager' AND d.deptype OPERATOR(pg_catalog.=) 'e'
	UNION ALL SELECT pg_catalog.format('%s %s', 'pg_catalog.pg_namespace'::pg_catalog.regclass::pg_catalog.oid, e.extnamespace)
	FROM pg_catalog.pg_extension e WHERE e.extname OPERATOR(pg_catalog.=) 'quota_manager'
) m;
