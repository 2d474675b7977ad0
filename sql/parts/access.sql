-- Who may do what.  PUBLIC can use the types and call what is pure; all else is granted by grant_access.

CREATE FUNCTION quota_manager.grant_access(role regrole, access text) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	levels CONSTANT text[] := ARRAY['viewer', 'operator', 'admin', 'worker'];
	-- Functions for people that do something; those that only look are for all, also one that runs conditions to do so.
	looks CONSTANT text[] := ARRAY['undecided'];
	runs CONSTANT text[] := ARRAY['scan', 'tick', 'deliver'];
	decides CONSTANT text[] := ARRAY['resolve', 'retry', 'cancel', 'import_grants', 'restart_schedule', 'release_balances', 'audit_balances',
		'gateway_query', 'gateway_refresh', 'gateway_delta'];
	administers CONSTANT text[] := ARRAY['resume', 'start_workers', 'stop_workers', 'wake_workers', 'schedule_jobs', 'unschedule_jobs', 'set_credential'];
	called CONSTANT text[] := looks || CASE access WHEN 'viewer' THEN '{}' WHEN 'worker' THEN runs WHEN 'operator' THEN runs || decides ELSE runs || decides || administers END;
	-- All but one hold nothing that is secret.
	readable CONSTANT text := (SELECT string_agg(c.oid::regclass::text, ', ') FROM pg_class c
		WHERE c.relnamespace = 'quota_manager'::regnamespace AND c.relkind IN ('r', 'p', 'v') AND c.relname <> 'quota_credential');
	routine regprocedure;
BEGIN
	IF access IS NULL OR access <> ALL (levels) THEN
		RAISE EXCEPTION 'unknown access %', coalesce(quote_literal(access), 'null')
			USING ERRCODE = 'invalid_parameter_value',
				HINT = 'Write viewer (looks), operator (runs strategies), admin (all, gateways included) or worker (the background workers'' role).';
	END IF;
	IF role IS NULL OR role = 0 THEN
		RAISE EXCEPTION 'no role to give access to' USING ERRCODE = 'invalid_parameter_value';
	END IF;

	EXECUTE format('GRANT USAGE ON SCHEMA quota_manager, quota_internal, quota_condition TO %s', role);
	EXECUTE format('GRANT EXECUTE ON ALL ROUTINES IN SCHEMA quota_condition TO %s', role);
	EXECUTE format('GRANT SELECT ON %s TO %s', readable, role);
	FOR routine IN SELECT p.oid FROM pg_proc p JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
			JOIN pg_extension e ON e.oid = d.refobjid AND d.refclassid = 'pg_extension'::regclass AND e.extname = 'quota_manager'
		WHERE p.pronamespace IN ('quota_manager'::regnamespace, 'quota_internal'::regnamespace) AND p.prorettype <> 'trigger'::regtype
			-- What is not volatile cannot write, nor can what parallel workers may run. In quota_internal the rest is for the owner.
			AND (p.provolatile <> 'v' OR p.proparallel = 's' OR p.pronamespace = 'quota_manager'::regnamespace AND p.proname = ANY (called))
	LOOP
		EXECUTE format('GRANT EXECUTE ON ROUTINE %s TO %s', routine, role);
	END LOOP;

	-- Neither ids nor times nor versions: what is written with them is being restored.
	IF access IN ('operator', 'admin') THEN
		EXECUTE format('GRANT DELETE, INSERT (name, title, type, amount, model, periodic_expr, time_zone, condition, enabled, archived, max_exec_per_user,
				catch_up, catch_up_window, catch_up_max, valid_from, valid_until),
			UPDATE (name, title, type, amount, model, periodic_expr, time_zone, condition, enabled, archived, max_exec_per_user,
				catch_up, catch_up_window, catch_up_max, valid_from, valid_until) ON quota_manager.quota_strategy TO %s', role);
		EXECUTE format('GRANT DELETE, INSERT (id, name, github_username, email, phone, github_star, vip, org, register_time, access_time),
			UPDATE (name, github_username, email, phone, github_star, vip, org, register_time, access_time) ON quota_manager.user_info TO %s', role);
	END IF;
	IF access = 'admin' THEN
		EXECUTE format('GRANT DELETE, INSERT (name, dialect, base_url, admin_path, credential, key_header, route_model, connect_timeout, request_timeout,
				max_connections, rate_limit, doubt_policy, sole_writer, max_usage_rate, guard_balances, is_default),
			UPDATE (dialect, base_url, admin_path, credential, key_header, route_model, connect_timeout, request_timeout,
				max_connections, rate_limit, doubt_policy, sole_writer, max_usage_rate, guard_balances, is_default) ON quota_manager.quota_gateway TO %s', role);
		EXECUTE format('GRANT INSERT, UPDATE, DELETE ON quota_manager.quota_model TO %s', role);
		EXECUTE format('GRANT SELECT (name), INSERT, UPDATE, DELETE, TRUNCATE ON quota_manager.quota_credential TO %s', role);
	END IF;
	IF access = 'worker' THEN
		PERFORM quota_manager.wake_workers();
	END IF;
END
$$;
COMMENT ON FUNCTION quota_manager.grant_access(regrole, text) IS 'Gives a role the rights of a viewer, operator, admin, or of the background workers. Works again after a restore.';

-- Whatever default privileges gave to anybody is taken back: a trigger on a table would run as the owner, who writes there.
DO $$
DECLARE
	object record;
	grantee oid;
BEGIN
	FOR object IN
		WITH member AS (
			SELECT d.classid, d.objid FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_extension e
				ON d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_extension'::pg_catalog.regclass AND d.refobjid OPERATOR(pg_catalog.=) e.oid
			WHERE e.extname OPERATOR(pg_catalog.=) 'quota_manager' AND d.deptype OPERATOR(pg_catalog.=) 'e'
		)
		SELECT CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END AS kind, c.oid::pg_catalog.regclass::pg_catalog.text AS name, c.relowner AS owner,
				c.relacl AS acl
			FROM member m JOIN pg_catalog.pg_class c ON m.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass AND m.objid OPERATOR(pg_catalog.=) c.oid
		UNION ALL SELECT 'ROUTINE', p.oid::pg_catalog.regprocedure::pg_catalog.text, p.proowner, coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))
			FROM member m JOIN pg_catalog.pg_proc p ON m.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass AND m.objid OPERATOR(pg_catalog.=) p.oid
		UNION ALL SELECT 'TYPE', t.oid::pg_catalog.regtype::pg_catalog.text, t.typowner, coalesce(t.typacl, pg_catalog.acldefault('T', t.typowner))
			FROM member m JOIN pg_catalog.pg_type t ON m.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_type'::pg_catalog.regclass AND m.objid OPERATOR(pg_catalog.=) t.oid
				AND t.typtype OPERATOR(pg_catalog.=) 'b' AND t.typelem OPERATOR(pg_catalog.=) 0::pg_catalog.oid
		UNION ALL SELECT 'SCHEMA', n.nspname::pg_catalog.text, n.nspowner, n.nspacl
			FROM pg_catalog.pg_namespace n WHERE n.nspname OPERATOR(pg_catalog.=) ANY (ARRAY['quota_manager', 'quota_internal', 'quota_condition'])
	LOOP
		FOR grantee IN SELECT DISTINCT a.grantee FROM pg_catalog.aclexplode(object.acl) a WHERE a.grantee OPERATOR(pg_catalog.<>) object.owner LOOP
			EXECUTE pg_catalog.format('REVOKE ALL ON %s %s FROM %s CASCADE', object.kind, object.name,
				CASE WHEN grantee OPERATOR(pg_catalog.=) 0::pg_catalog.oid THEN 'PUBLIC' ELSE grantee::pg_catalog.regrole::pg_catalog.text END);
		END LOOP;
		-- Types are for everybody, and so are functions without effect that read nothing: constraints and indexes call them.
		IF object.kind OPERATOR(pg_catalog.=) 'TYPE' OR object.kind OPERATOR(pg_catalog.=) 'ROUTINE'
			AND (SELECT p.provolatile OPERATOR(pg_catalog.=) 'i' FROM pg_catalog.pg_proc p WHERE p.oid OPERATOR(pg_catalog.=) object.name::pg_catalog.regprocedure) THEN
			EXECUTE pg_catalog.format('GRANT ALL ON %s %s TO PUBLIC', object.kind, object.name);
		END IF;
	END LOOP;
END
$$;
