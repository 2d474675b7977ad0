-- Who may do what.  Nothing is granted to PUBLIC but what types and pure functions need.

DO $$
DECLARE
	routine regprocedure;
	is_pure boolean;
BEGIN
	FOR routine, is_pure IN
		SELECT p.oid, p.provolatile = 'i'
			FROM pg_catalog.pg_proc p
			WHERE p.pronamespace IN ('quota_manager'::pg_catalog.regnamespace, 'quota_internal'::pg_catalog.regnamespace,
				'quota_condition'::pg_catalog.regnamespace)
				AND EXISTS (SELECT 1 FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_extension e ON d.refobjid OPERATOR(pg_catalog.=) e.oid
					WHERE d.objid OPERATOR(pg_catalog.=) p.oid AND d.deptype OPERATOR(pg_catalog.=) 'e'
						AND e.extname OPERATOR(pg_catalog.=) 'quota_manager')
	LOOP
		IF NOT is_pure THEN
			EXECUTE pg_catalog.format('REVOKE ALL ON ROUTINE %s FROM PUBLIC', routine);
		END IF;
	END LOOP;
END
$$;

CREATE FUNCTION quota_manager.grant_access(role regrole, access text) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	levels CONSTANT text[] := ARRAY['viewer', 'operator', 'admin', 'worker'];
	viewer_routines CONSTANT text[] := ARRAY['setting', 'meets', 'may_match', 'balance_for', 'bound_condition', 'balance_horizon', 'balance_clock', 'answer_may_arrive', 'condition_gateways', 'open_users', 'undelivered_stretches', 'gateway_of', 'check_condition',
		'require_condition', 'condition_models', 'next_firing', 'firings', 'firing_range', 'firing_note', 'describe', 'schedule_zone', 'upcoming',
		'schedule_now', 'local_time', 'check_time_zone', 'due_firings',
		'due_strategies', 'due_firings_of', 'gateway_setup', 'retry_delay', 'next_try', 'next_open_firing', 'never_fires', 'last_run', 'undecided', 'subject_source', 'has_own_users', 'missing_source_rights', 'list_workers', 'worker_queue', 'recorded_until', 'open_spans', 'catch_up_start', 'open_firings',
		'retried_firings'];
	operator_routines CONSTANT text[] := ARRAY['check_transaction', 'check_strategy_target', 'check_strategy_models', 'lock_strategies', 'try_lock_strategy', 'lock_balances', 'lock_scan', 'try_scan_locks', 'has_readings', 'forget_balances', 'guard_balances', 'scan', 'scan_begin', 'scan_admit', 'scan_counts', 'record_run', 'write_grants',
		'check_source_ids', 'count_unknown', 'record_skipped', 'record_passed_over', 'admit_firing', 'run_strategy', 'run_due', 'record_failure', 'end_back_offs', 'deliver', 'tick',
		'present_identity', 'identity_text', 'check_identity', 'require_identity', 'is_doubtful'];
	-- Not the workers' role: what it does, nobody has decided.
	decision_routines CONSTANT text[] := ARRAY['require_short', 'import_grants', 'release_balances', 'audit_balances', 'gateway_query', 'gateway_refresh', 'gateway_delta', 'restart_schedule', 'resolve', 'retry', 'cancel', 'decide_one', 'decide_many', 'decide', 'decision_candidates',
		'decision_hint', 'deciding_role', 'record_decisions'];
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
	EXECUTE format('GRANT SELECT ON quota_manager.quota_strategy, quota_manager.quota_run, quota_manager.quota_execute, quota_manager.user_info,
		quota_manager.user_balance, quota_manager.balance_suspension, quota_manager.quota_gateway, quota_manager.quota_model, quota_manager.quota_installation,
		quota_manager.known_balance, quota_manager.subject, quota_manager.gateway_call, quota_manager.grant_decision, quota_manager.delivery_status,
		quota_manager.strategy_due, quota_manager.worker_status, quota_manager.quota_worker TO %s', role);
	EXECUTE format('GRANT EXECUTE ON ALL ROUTINES IN SCHEMA quota_condition TO %s', role);
	IF access IN ('operator', 'admin') THEN
		EXECUTE format('GRANT INSERT, UPDATE, DELETE ON quota_manager.quota_strategy, quota_manager.user_info TO %s', role);
		EXECUTE format('GRANT DELETE ON quota_manager.balance_suspension TO %s', role);
	END IF;
	IF access IN ('operator', 'admin', 'worker') THEN
		EXECUTE format('GRANT INSERT, UPDATE ON quota_manager.quota_run, quota_manager.user_balance, quota_manager.quota_worker TO %s', role);
		-- Whoever scans may suspend balances; the workers release none.
		EXECUTE format('GRANT INSERT ON quota_manager.balance_suspension TO %s', role);
		-- What was granted to whom stays as it was written.
		EXECUTE format('GRANT INSERT, UPDATE (status, claim_number, attempts, last_status, last_error, next_attempt_time, update_time,
			doubt_time, maybe_granted_before, awaits_balance, balance_time, balance_before, doubt_moment, balance_moment)
			ON quota_manager.quota_execute TO %s', role);
		EXECUTE format('GRANT DELETE ON quota_manager.user_balance, quota_manager.quota_worker TO %s', role);
		EXECUTE format('GRANT UPDATE (state, state_reason, next_probe_time) ON quota_manager.quota_gateway TO %s', role);
		EXECUTE format('GRANT USAGE ON ALL SEQUENCES IN SCHEMA quota_manager TO %s', role);
	END IF;
	IF access = 'admin' THEN
		EXECUTE format('GRANT INSERT (workers_enabled), UPDATE (workers_enabled) ON quota_manager.quota_installation TO %s', role);
		EXECUTE format('GRANT INSERT, UPDATE, DELETE ON quota_manager.quota_gateway, quota_manager.quota_model, quota_manager.quota_credential TO %s', role);
		EXECUTE format('GRANT SELECT (name) ON quota_manager.quota_credential TO %s', role);
	END IF;
	FOR routine IN SELECT p.oid FROM pg_proc p WHERE p.pronamespace IN ('quota_manager'::regnamespace, 'quota_internal'::regnamespace)
		AND (access = 'admin' OR p.proname = ANY (viewer_routines) OR access <> 'viewer' AND p.proname = ANY (operator_routines)
			OR access = 'operator' AND p.proname = ANY (decision_routines))
		-- A trigger needs no right once it is there, and some are the owner's.
		AND p.prorettype <> 'trigger'::regtype
		AND p.proname NOT IN ('grant_access', 'set_user_source', 'create_access_time_index', 'begin_doubt', 'note_identity', 'try_identity_lock', 'skip_firings')
	LOOP
		EXECUTE format('GRANT EXECUTE ON ROUTINE %s TO %s', routine, role);
	END LOOP;
	IF access = 'worker' THEN
		PERFORM quota_manager.wake_workers();
	END IF;
END
$$;
COMMENT ON FUNCTION quota_manager.grant_access(regrole, text) IS 'Gives a role the rights of a viewer, operator, admin, or of the background workers. Works again after a restore.';
REVOKE ALL ON FUNCTION quota_manager.grant_access(regrole, text) FROM PUBLIC;
