-- Rights of roles.  PUBLIC can use types and immutable functions; grant_access grants all else.

CREATE FUNCTION quota_manager.grant_access(role regrole, access text) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	levels CONSTANT text[] := ARRAY['viewer', 'operator', 'admin', 'worker'];
	-- Functions for people that are volatile.  All levels may call the one that only reads, though it runs conditions.
	reads CONSTANT text[] := ARRAY['undecided'];
	runs CONSTANT text[] := ARRAY['scan', 'tick', 'deliver'];
	decides CONSTANT text[] := ARRAY['resolve', 'retry', 'cancel', 'reinstate', 'correct', 'reverse_run', 'reverse_strategy', 'reverse_grants',
		'undo_reversal', 'import_grants', 'restart_schedule', 'release_balances', 'audit_balances',
		'gateway_query', 'gateway_refresh', 'gateway_delta', 'bulk_delta', 'resolve_bulk', 'correct_bulk',
		'pause_all', 'unpause_all', 'pause_gateway', 'unpause_gateway', 'pause_strategy', 'unpause_strategy'];
	-- Of the API alone.
	edits CONSTANT text[] := CASE WHEN access IN ('operator', 'admin') THEN ARRAY['enable', 'disable', 'archive'] ELSE '{}' END;
	moves CONSTANT text[] := CASE WHEN access = 'admin' THEN ARRAY['pause'] ELSE '{}' END;
	administers CONSTANT text[] := ARRAY['resume', 'retain', 'start_workers', 'stop_workers', 'wake_workers', 'schedule_jobs', 'unschedule_jobs', 'set_credential'];
	-- Columns that roles write: no ids, times or versions, which only a restore writes.
	strategy_columns CONSTANT text := 'name, title, type, amount, model, periodic_expr, time_zone, condition, enabled, archived, state, edit_note, max_exec_per_user,
		catch_up, catch_up_window, catch_up_max, valid_from, valid_until, allowance';
	user_columns CONSTANT text := 'name, github_username, email, phone, github_star, vip, org, register_time, access_time';
	gateway_columns CONSTANT text := 'dialect, base_url, admin_path, key_header, route_model, connect_timeout, request_timeout,
		max_connections, rate_limit, doubt_policy, sole_writer, max_usage_rate, guard_balances, is_default';
	ceiling_columns CONSTANT text := 'strategy_id, period, max_grants, max_amount, on_excess, time_zone, note';
	called CONSTANT text[] := reads || CASE access WHEN 'viewer' THEN '{}' WHEN 'worker' THEN runs WHEN 'operator' THEN runs || decides ELSE runs || decides || administers END;
	-- Only one table holds secrets.
	readable CONSTANT text := (SELECT string_agg(c.oid::regclass::text, ', ') FROM pg_class c
		WHERE c.relnamespace = 'quota_manager'::regnamespace AND c.relkind IN ('r', 'p', 'v') AND c.relname <> 'quota_credential');
	routine regprocedure;
BEGIN
	IF access IS NULL OR access <> ALL (levels) THEN
		RAISE EXCEPTION 'unknown access %', coalesce(quote_literal(access), 'null')
			USING ERRCODE = 'invalid_parameter_value',
				HINT = 'Write viewer (reads), operator (runs strategies), admin (all, gateways included) or worker (the background workers'' role).';
	END IF;
	IF role IS NULL OR role = 0 THEN
		RAISE EXCEPTION 'no role to give access to'
			USING ERRCODE = 'invalid_parameter_value', HINT = 'Name it: SELECT quota_manager.grant_access(''role'', ''viewer'').';
	END IF;

	EXECUTE format('GRANT USAGE ON SCHEMA quota_manager, quota_internal, quota_condition TO %s', role);
	EXECUTE format('GRANT EXECUTE ON ALL ROUTINES IN SCHEMA quota_condition TO %s', role);
	EXECUTE format('GRANT SELECT ON %s TO %s', readable, role);
	FOR routine IN SELECT p.oid FROM pg_proc p JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
			JOIN pg_extension e ON e.oid = d.refobjid AND d.refclassid = 'pg_extension'::regclass AND e.extname = 'quota_manager'
		WHERE p.pronamespace IN ('quota_manager'::regnamespace, 'quota_internal'::regnamespace) AND p.prorettype <> 'trigger'::regtype
			-- Functions that are not volatile or are parallel safe cannot write.  Others of quota_internal are for the owner alone.
			AND (p.provolatile <> 'v' OR p.proparallel = 's' OR p.pronamespace = 'quota_manager'::regnamespace AND p.proname = ANY (called))
	LOOP
		EXECUTE format('GRANT EXECUTE ON ROUTINE %s TO %s', routine, role);
	END LOOP;

	-- An upsert writes the key with its present value, so roles need the right to write it; triggers refuse another value.
	IF access IN ('operator', 'admin') THEN
		EXECUTE format('GRANT DELETE, INSERT (%1$s), UPDATE (%1$s) ON quota_manager.quota_strategy TO %2$s', strategy_columns, role);
		EXECUTE format('GRANT DELETE, INSERT (id, %1$s), UPDATE (id, %1$s) ON quota_manager.user_info TO %2$s', user_columns, role);
	END IF;
	IF access = 'admin' THEN
		EXECUTE format('GRANT DELETE, INSERT (name, credential, %1$s), UPDATE (name, credential, %1$s) ON quota_manager.quota_gateway TO %2$s', gateway_columns, role);
		EXECUTE format('GRANT INSERT, UPDATE, DELETE ON quota_manager.quota_model TO %s', role);
		EXECUTE format('GRANT DELETE, INSERT (%1$s), UPDATE (%1$s) ON quota_manager.quota_ceiling TO %2$s', ceiling_columns, role);
		EXECUTE format('GRANT SELECT (name), INSERT, UPDATE, DELETE, TRUNCATE ON quota_manager.quota_credential TO %s', role);
	END IF;

	-- The API: its views for all levels, its functions by level.
	IF access <> 'worker' THEN
		EXECUTE format('GRANT USAGE ON SCHEMA quota_api TO %s', role);
		EXECUTE format('GRANT SELECT ON %s TO %s', (SELECT string_agg(c.oid::regclass::text, ', ') FROM pg_class c
			WHERE c.relnamespace = 'quota_api'::regnamespace AND c.relkind = 'v' AND (access = 'admin' OR c.relname <> 'gateway_credentials')), role);
		FOR routine IN SELECT p.oid FROM pg_proc p WHERE p.pronamespace = 'quota_api'::regnamespace
			AND (p.provolatile <> 'v' OR p.proname = ANY (called || edits || moves))
		LOOP
			EXECUTE format('GRANT EXECUTE ON ROUTINE %s TO %s', routine, role);
		END LOOP;
	END IF;
	IF access IN ('operator', 'admin') THEN
		EXECUTE format('GRANT INSERT (%1$s), UPDATE (%1$s) ON quota_api.strategies TO %2$s', strategy_columns, role);
		EXECUTE format('GRANT INSERT (id, %1$s), UPDATE (id, %1$s) ON quota_api.users TO %2$s', user_columns, role);
	END IF;
	IF access = 'admin' THEN
		EXECUTE format('GRANT DELETE ON quota_api.users TO %s', role);
		EXECUTE format('GRANT DELETE, INSERT (name, %1$s), UPDATE (name, %1$s) ON quota_api.gateways TO %2$s', gateway_columns, role);
		EXECUTE format('GRANT UPDATE (credential) ON quota_api.gateway_credentials TO %s', role);
		EXECUTE format('GRANT INSERT, UPDATE, DELETE ON quota_api.models TO %s', role);
		EXECUTE format('GRANT DELETE, INSERT (%1$s), UPDATE (%1$s) ON quota_api.ceilings TO %2$s', ceiling_columns, role);
	END IF;
	IF access = 'worker' THEN
		PERFORM quota_manager.wake_workers();
	END IF;
END
$$;
COMMENT ON FUNCTION quota_manager.grant_access(regrole, text) IS 'Gives a role the rights of a viewer, operator, admin, or of the background workers. Works again after a restore.';
