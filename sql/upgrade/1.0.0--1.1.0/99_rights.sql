-- take part default_rights

-- A GRANT of a script makes all rights that an object has those that the extension came with, also what grant_access gave,
-- and pg_dump leaves these out.  Roles of a site are not among them: their numbers begin at 16384.
DO $$
DECLARE
	object record;
BEGIN
	FOR object IN
		SELECT i.objoid, i.classoid, i.objsubid, i.privtype, (
			SELECT pg_catalog.array_agg(item) FROM pg_catalog.unnest(i.initprivs) AS item
			WHERE NOT EXISTS (SELECT 1 FROM pg_catalog.aclexplode(ARRAY[item]) AS a
				WHERE a.grantee OPERATOR(pg_catalog.<>) a.grantor AND a.grantee OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid)) AS acl
		FROM pg_catalog.pg_init_privs i
		WHERE pg_catalog.format('%s %s', i.classoid, i.objoid) OPERATOR(pg_catalog.=)
			ANY (pg_catalog.current_setting('quota_upgrade.members')::pg_catalog.text[])
	LOOP
		DELETE FROM pg_catalog.pg_init_privs i
			WHERE i.objoid OPERATOR(pg_catalog.=) object.objoid AND i.classoid OPERATOR(pg_catalog.=) object.classoid
				AND i.objsubid OPERATOR(pg_catalog.=) object.objsubid;
		INSERT INTO pg_catalog.pg_init_privs
			SELECT object.objoid, object.classoid, object.objsubid, object.privtype, object.acl;
	END LOOP;
	-- From PostgreSQL 17 on they are noted as depending on the roles, too.
	DELETE FROM pg_catalog.pg_shdepend s
	WHERE s.deptype OPERATOR(pg_catalog.=) 'i' AND s.refobjid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid
		AND s.dbid OPERATOR(pg_catalog.=) (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database())
		AND pg_catalog.format('%s %s', s.classid, s.objid) OPERATOR(pg_catalog.=)
			ANY (pg_catalog.current_setting('quota_upgrade.members')::pg_catalog.text[]);
END
$$;
