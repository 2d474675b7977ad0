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

-- A library that the server has loaded before it was replaced lacks what functions below are made of.
DO $$
BEGIN
-- take FUNCTION quota_internal.library_version
EXCEPTION WHEN undefined_function THEN
	RAISE EXCEPTION 'the library of quota_manager that this server runs is older than version 1.1.0'
		USING ERRCODE = 'object_not_in_prerequisite_state', DETAIL = SQLERRM,
			HINT = 'Install the new package, restart the server, and call ALTER EXTENSION quota_manager UPDATE again.';
END
$$;

-- Nobody is to meet one part of the update without the others.  All tables are locked at once, or none: who waits holds
-- nothing, so nobody waits for it, and it deadlocks with nobody.
DO $$
DECLARE
	tables CONSTANT pg_catalog.text := (
		SELECT pg_catalog.string_agg(c.oid::pg_catalog.regclass::pg_catalog.text, ', ' ORDER BY c.oid)
		FROM pg_catalog.pg_class c JOIN pg_catalog.pg_depend d
			ON d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid OPERATOR(pg_catalog.=) c.oid
		JOIN pg_catalog.pg_extension e
			ON d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_extension'::pg_catalog.regclass AND d.refobjid OPERATOR(pg_catalog.=) e.oid
		WHERE e.extname OPERATOR(pg_catalog.=) 'quota_manager' AND d.deptype OPERATOR(pg_catalog.=) 'e' AND c.relkind OPERATOR(pg_catalog.=) ANY ('{r,p}'));
	patience CONSTANT pg_catalog.interval := CASE WHEN pg_catalog.current_setting('lock_timeout') OPERATOR(pg_catalog.=) '0' THEN '1 min'
		ELSE pg_catalog.current_setting('lock_timeout') END;
	give_up CONSTANT pg_catalog.timestamptz := pg_catalog.clock_timestamp() OPERATOR(pg_catalog.+) patience;
BEGIN
	LOOP
		BEGIN
			EXECUTE 'LOCK TABLE ONLY ' OPERATOR(pg_catalog.||) tables OPERATOR(pg_catalog.||) ' IN ACCESS EXCLUSIVE MODE NOWAIT';
			EXIT;
		EXCEPTION WHEN lock_not_available THEN
			IF pg_catalog.clock_timestamp() OPERATOR(pg_catalog.>) give_up THEN
				RAISE EXCEPTION 'tables of quota_manager are in use for longer than %', patience
					USING ERRCODE = 'lock_not_available', DETAIL = SQLERRM,
						HINT = 'Wait until scans, dumps and other long transactions are over, see pg_locks, or set lock_timeout to wait for longer.';
			END IF;
			PERFORM pg_catalog.pg_sleep(0.02);
		END;
	END LOOP;
END
$$;
