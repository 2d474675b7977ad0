-- Revokes all rights that default privileges gave: a trigger on a table, say, would run as the owner, who writes there.
DO $$
DECLARE
	-- Objects that existed before an update keep their rights.
	settled CONSTANT text[] := coalesce(pg_catalog.current_setting('quota_upgrade.members', true), '{}')::pg_catalog.text[];
	object record;
	grantee oid;
BEGIN
	FOR object IN
		WITH member AS (
			SELECT d.classid, d.objid FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_extension e
				ON d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_extension'::pg_catalog.regclass AND d.refobjid OPERATOR(pg_catalog.=) e.oid
			WHERE e.extname OPERATOR(pg_catalog.=) 'quota_manager' AND d.deptype OPERATOR(pg_catalog.=) 'e'
				AND pg_catalog.format('%s %s', d.classid, d.objid) OPERATOR(pg_catalog.<>) ALL (settled)
		)
		SELECT CASE WHEN c.relkind OPERATOR(pg_catalog.=) 'S' THEN 'SEQUENCE' ELSE 'TABLE' END AS kind, c.oid::pg_catalog.regclass::pg_catalog.text AS name, c.relowner AS owner,
				c.relacl AS acl
			FROM member m JOIN pg_catalog.pg_class c ON m.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass AND m.objid OPERATOR(pg_catalog.=) c.oid
		UNION ALL SELECT 'ROUTINE', p.oid::pg_catalog.regprocedure::pg_catalog.text, p.proowner, coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))
			FROM member m JOIN pg_catalog.pg_proc p ON m.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass AND m.objid OPERATOR(pg_catalog.=) p.oid
		UNION ALL SELECT 'TYPE', t.oid::pg_catalog.regtype::pg_catalog.text, t.typowner, coalesce(t.typacl, pg_catalog.acldefault('T', t.typowner))
			FROM member m JOIN pg_catalog.pg_type t ON m.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_type'::pg_catalog.regclass AND m.objid OPERATOR(pg_catalog.=) t.oid
				AND t.typtype OPERATOR(pg_catalog.=) ANY ('{b,d}') AND t.typelem OPERATOR(pg_catalog.=) 0::pg_catalog.oid
		UNION ALL SELECT 'SCHEMA', n.nspname::pg_catalog.text, n.nspowner, n.nspacl
			FROM pg_catalog.pg_namespace n WHERE n.nspname OPERATOR(pg_catalog.=) ANY (ARRAY['quota_manager', 'quota_internal', 'quota_condition', 'quota_api'])
				AND pg_catalog.format('%s %s', 'pg_catalog.pg_namespace'::pg_catalog.regclass::pg_catalog.oid, n.oid) OPERATOR(pg_catalog.<>) ALL (settled)
	LOOP
		FOR grantee IN SELECT DISTINCT a.grantee FROM pg_catalog.aclexplode(object.acl) a WHERE a.grantee OPERATOR(pg_catalog.<>) object.owner LOOP
			EXECUTE pg_catalog.format('REVOKE ALL ON %s %s FROM %s CASCADE', object.kind, object.name,
				CASE WHEN grantee OPERATOR(pg_catalog.=) 0::pg_catalog.oid THEN 'PUBLIC' ELSE grantee::pg_catalog.regrole::pg_catalog.text END);
		END LOOP;
		-- PUBLIC may use types and immutable functions: constraints and indexes call them.
		IF object.kind OPERATOR(pg_catalog.=) 'TYPE' OR object.kind OPERATOR(pg_catalog.=) 'ROUTINE'
			AND (SELECT p.provolatile OPERATOR(pg_catalog.=) 'i' FROM pg_catalog.pg_proc p WHERE p.oid OPERATOR(pg_catalog.=) object.name::pg_catalog.regprocedure) THEN
			EXECUTE pg_catalog.format('GRANT ALL ON %s %s TO PUBLIC', object.kind, object.name);
		END IF;
	END LOOP;
END
$$;

-- Monitoring roles may read the figures, and nothing else.
GRANT USAGE ON SCHEMA quota_manager, quota_internal TO pg_monitor;
GRANT SELECT ON quota_manager.metrics, quota_manager.stat_progress_scan, quota_manager.stat_progress_deliver TO pg_monitor;
GRANT EXECUTE ON FUNCTION quota_internal.read_metrics(), quota_internal.metrics_text(), quota_internal.read_progress(text) TO pg_monitor;
