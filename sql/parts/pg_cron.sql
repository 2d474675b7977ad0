-- Jobs of pg_cron that run strategies and deliver grants where no background workers do. Nothing of pg_cron is
-- named but in dynamic statements: it need not be there.

CREATE FUNCTION quota_manager.pg_cron_jobs(database name) RETURNS TABLE (job_name text, command text)
LANGUAGE sql IMMUTABLE
BEGIN ATOMIC
	-- The name of a job may be as long as that of a database, 63 bytes, and would be cut.
	SELECT CASE WHEN pg_catalog.octet_length(t.prefix OPERATOR(pg_catalog.||) database::text) OPERATOR(pg_catalog.<=) 63
			THEN t.prefix OPERATOR(pg_catalog.||) database::text ELSE t.prefix OPERATOR(pg_catalog.||) pg_catalog.md5(database::text) END,
		t.command
	FROM (VALUES ('quota_manager tick ', 'CALL quota_manager.tick()'), ('quota_manager deliver ', 'CALL quota_manager.deliver()')) t (prefix, command);
END;
COMMENT ON FUNCTION quota_manager.pg_cron_jobs(name) IS 'The jobs of pg_cron for a database: their names and commands. If a name is too long, it has the MD5 of the database''s name.';

CREATE FUNCTION quota_internal.pg_cron_database() RETURNS name
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	-- Not every role may read it.
	setting CONSTANT name := (SELECT s.setting FROM pg_settings s WHERE s.name = 'cron.database_name');
BEGIN
	IF EXISTS (SELECT 1 FROM pg_extension e WHERE e.extname = 'pg_cron') THEN
		RETURN current_database();
	ELSIF setting <> current_database() THEN
		RETURN setting;
	ELSIF setting IS NOT NULL THEN
		RAISE EXCEPTION 'extension pg_cron is not installed in database "%"', current_database()
			USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Call CREATE EXTENSION pg_cron.';
	ELSE
		RAISE EXCEPTION 'pg_cron is not to be found in database "%"', current_database()
			USING ERRCODE = 'object_not_in_prerequisite_state',
				HINT = 'It has to be in shared_preload_libraries, and its extension lives in the one database that cron.database_name names.';
	END IF;
END
$$;
COMMENT ON FUNCTION quota_internal.pg_cron_database() IS 'Of schedule_jobs(): the database whose jobs pg_cron runs; an error if it is not installed.';

CREATE FUNCTION quota_internal.require_pg_cron(instead text) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	home CONSTANT name := quota_internal.pg_cron_database();
BEGIN
	IF home <> current_database() THEN
		RAISE EXCEPTION 'pg_cron is not in database "%" but in "%"', current_database(), home
			USING ERRCODE = 'object_not_in_prerequisite_state',
				DETAIL = 'It reads its jobs in the database that cron.database_name names.',
				HINT = format('In database "%s" run: %s', home, instead);
	END IF;
	IF NOT has_schema_privilege('cron', 'USAGE') THEN
		RAISE EXCEPTION 'role "%" has no right on schema cron of pg_cron', current_user
			USING ERRCODE = 'insufficient_privilege', HINT = format('GRANT USAGE ON SCHEMA cron TO %I gives it.', current_user);
	END IF;
END
$$;
COMMENT ON FUNCTION quota_internal.require_pg_cron(text) IS 'Of schedule_jobs(): an error if this role cannot reach pg_cron from this database. instead: what to run where pg_cron is.';

CREATE FUNCTION quota_internal.check_job_role(database name, role name) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
	found_role pg_roles;
	is_super CONSTANT boolean := (SELECT r.rolsuper FROM pg_roles r WHERE r.rolname = current_user);
	danger text;
BEGIN
	SELECT r.* INTO found_role FROM pg_roles r WHERE r.rolname = role;
	danger := quota_internal.role_danger(found_role.oid);
	IF NOT FOUND THEN
		RAISE EXCEPTION 'role "%" does not exist', role USING ERRCODE = 'undefined_object',
			HINT = 'It is named in quota_manager.worker_role: make it with CREATE ROLE ... LOGIN, or name another one.';
	ELSIF NOT EXISTS (SELECT 1 FROM pg_database d WHERE d.datname = database AND d.datallowconn) THEN
		RAISE EXCEPTION 'there is no database "%" to connect to', database USING ERRCODE = '3D000';
	ELSIF danger IS NOT NULL THEN
		RAISE EXCEPTION 'jobs cannot run as role "%": it %', role, danger
			USING ERRCODE = 'invalid_parameter_value',
				DETAIL = 'Conditions call functions that others have written.',
				HINT = 'Make a role with CREATE ROLE ... LOGIN, call quota_manager.grant_access(role, ''worker'') in that database, and name the role here.';
	ELSIF NOT found_role.rolcanlogin THEN
		RAISE EXCEPTION 'jobs cannot run as role "%": it is not permitted to log in', role
			USING ERRCODE = 'invalid_parameter_value', HINT = format('Permit it with ALTER ROLE %I LOGIN.', role);
	ELSIF role <> current_user AND NOT is_super THEN
		RAISE EXCEPTION 'role "%" cannot schedule jobs for role "%"', current_user, role
			USING ERRCODE = 'insufficient_privilege', HINT = 'Only a superuser can; others name themselves.';
	ELSIF NOT has_database_privilege(role, database, 'CONNECT') THEN
		RAISE EXCEPTION 'role "%" may not connect to database "%"', role, database
			USING ERRCODE = 'insufficient_privilege', HINT = 'Grant it the privilege CONNECT on the database.';
	-- What it may do in another database cannot be seen from here.
	ELSIF database = current_database()
		AND NOT (has_schema_privilege(role, 'quota_manager', 'USAGE') AND has_table_privilege(role, 'quota_manager.quota_execute', 'SELECT')
			AND has_function_privilege(role, 'quota_manager.tick(bigint, bigint)', 'EXECUTE')
			AND has_function_privilege(role, 'quota_manager.deliver(bigint, bigint, bigint, bigint)', 'EXECUTE')) THEN
		RAISE EXCEPTION 'role "%" may not run quota_manager in database "%"', role, database
			USING ERRCODE = 'insufficient_privilege', HINT = format('Call quota_manager.grant_access(''%I'', ''worker'').', role);
	END IF;
END
$$;
COMMENT ON FUNCTION quota_internal.check_job_role(name, name) IS 'Of schedule_jobs(): an error if the jobs of a database cannot run as a role, or cannot be scheduled for it.';

CREATE FUNCTION quota_internal.warn_of_failing_jobs(database name, role name) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
	-- Not every role may read it.
	by_connection CONSTANT boolean := coalesce((SELECT s.setting = 'off' FROM pg_settings s WHERE s.name = 'cron.use_background_workers'), false);
	host CONSTANT text := coalesce((SELECT nullif(s.setting, '') FROM pg_settings s WHERE s.name = 'cron.host'), 'localhost');
	cure CONSTANT text := format('Set cron.use_background_workers = on and restart the server, or let role "%s" connect from %s to database "%s" without a password (pg_hba.conf).',
		role, host, database);
	last_run record;
BEGIN
	-- The result of their last run that pg_cron has kept and shows to this role.
	EXECUTE 'SELECT d.status, d.return_message, d.start_time FROM cron.job_run_details d
		WHERE d.command IN (SELECT j.command FROM quota_manager.pg_cron_jobs($1) j) AND d.database = $1 AND d.username = $2
			AND d.status IN (''succeeded'', ''failed'')
		ORDER BY d.runid DESC LIMIT 1' INTO last_run USING database, role;
	IF last_run.status = 'failed' THEN
		RAISE WARNING 'the last run of a job of pg_cron for database "%" failed: %', database, last_run.return_message
			USING ERRCODE = '01000', DETAIL = format('It was started %s.', coalesce('at ' || last_run.start_time, 'never')),
				HINT = CASE WHEN by_connection THEN cure ELSE 'See cron.job_run_details.' END;
	ELSIF by_connection AND last_run.status IS NULL THEN
		RAISE WARNING 'pg_cron connects to % to run the jobs of database "%"', host, database
			USING ERRCODE = '01000', DETAIL = format('Where pg_hba.conf asks role "%s" for a password, every run fails with "connection failed".', role),
				HINT = cure || ' The result of each run is in cron.job_run_details, and reported when schedule_jobs() is called again.';
	END IF;
EXCEPTION WHEN undefined_table OR undefined_column OR insufficient_privilege THEN
	-- Not readable: no warning.
	RETURN;
END
$$;
COMMENT ON FUNCTION quota_internal.warn_of_failing_jobs(name, name) IS 'Of schedule_jobs(): warns if runs of the jobs of a database fail, or if pg_cron has to connect for them and it is not known whether it can.';

CREATE FUNCTION quota_manager.schedule_jobs(database name DEFAULT pg_catalog.current_database(), role regrole DEFAULT NULL)
RETURNS TABLE (job_id bigint, job_name text)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
	every_minute CONSTANT text := '* * * * *';
	runner CONSTANT name := coalesce((SELECT r.rolname FROM pg_roles r WHERE r.oid = role),
		nullif(quota_internal.setting('worker_role'), ''), current_user);
	target CONSTANT name := coalesce(database, current_database());
	job record;
	stale bigint;
BEGIN
	-- The existence of pg_cron is checked first, then its preconditions.
	PERFORM quota_internal.pg_cron_database();
	PERFORM quota_internal.check_job_role(target, runner);
	PERFORM quota_internal.require_pg_cron((SELECT string_agg(format('SELECT cron.schedule_in_database(%L, %L, %L, %L, %L);',
		j.job_name, every_minute, j.command, target, runner), ' ') FROM quota_manager.pg_cron_jobs(target) j));
	IF target <> current_database()
		AND NOT has_function_privilege('cron.schedule_in_database(text, text, text, text, text, boolean)', 'EXECUTE') THEN
		RAISE EXCEPTION 'role "%" may not schedule jobs in another database', current_user
			USING ERRCODE = 'insufficient_privilege',
				HINT = format('GRANT EXECUTE ON FUNCTION cron.schedule_in_database TO %I lets it.', current_user);
	END IF;

	FOR job IN SELECT j.* FROM quota_manager.pg_cron_jobs(target) j LOOP
		job_name := job.job_name;
		-- Scheduling a job of the same name again would not replace the job of another role, or one that is switched off.
		FOR stale IN EXECUTE 'SELECT j.jobid FROM cron.job j WHERE j.jobname = $1
				AND (j.username, j.database, j.schedule, j.command, j.nodeport, j.active) IS DISTINCT FROM ($2, $3, $4, $5, $6, true)'
			USING job_name, runner::text, target::text, every_minute, job.command, current_setting('port')::integer
		LOOP
			EXECUTE 'SELECT cron.unschedule($1)' USING stale;
		END LOOP;
		IF runner <> current_user THEN
			EXECUTE 'SELECT cron.schedule_in_database($1, $2, $3, $4, $5)' INTO job_id
				USING job_name, every_minute, job.command, target::text, runner::text;
		ELSIF target <> current_database() THEN
			EXECUTE 'SELECT cron.schedule_in_database($1, $2, $3, $4)' INTO job_id USING job_name, every_minute, job.command, target::text;
		ELSE
			EXECUTE 'SELECT cron.schedule($1, $2, $3)' INTO job_id USING job_name, every_minute, job.command;
		END IF;
		RETURN NEXT;
	END LOOP;
	PERFORM quota_internal.warn_of_failing_jobs(target, runner);
END
$$;
COMMENT ON FUNCTION quota_manager.schedule_jobs(name, regrole) IS
	'Lets pg_cron call tick() and deliver() every minute in a database, as a role (null: that of quota_manager.worker_role, or the caller). To be called in the database of pg_cron. Calling it again brings the two jobs up to date.';

CREATE FUNCTION quota_manager.unschedule_jobs(database name DEFAULT pg_catalog.current_database()) RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
	target CONSTANT name := coalesce(database, current_database());
	names CONSTANT text[] := (SELECT array_agg(j.job_name) FROM quota_manager.pg_cron_jobs(target) j);
	removed bigint := 0;
	job bigint;
BEGIN
	PERFORM quota_internal.require_pg_cron(format('SELECT cron.unschedule(jobid) FROM cron.job WHERE jobname IN (%s);',
		(SELECT string_agg(quote_literal(n), ', ') FROM unnest(names) n)));
	FOR job IN EXECUTE 'SELECT j.jobid FROM cron.job j WHERE j.jobname = ANY ($1)' USING names LOOP
		EXECUTE 'SELECT cron.unschedule($1)' USING job;
		removed := removed + 1;
	END LOOP;
	IF removed = 0 THEN
		RAISE NOTICE 'there are no jobs of quota_manager for database "%" that role "%" can see', target, current_user;
	END IF;
	RETURN removed;
END
$$;
COMMENT ON FUNCTION quota_manager.unschedule_jobs(name) IS
	'Removes the jobs that schedule_jobs() made for a database, which need not be there any more; of other roles only for a superuser. To be called in the database of pg_cron. Returns how many there were.';
