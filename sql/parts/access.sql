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
