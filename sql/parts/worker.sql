-- Background workers, and tick() for those who run without them.

CREATE PROCEDURE quota_manager.tick(INOUT strategies bigint DEFAULT NULL, INOUT granted bigint DEFAULT NULL)
LANGUAGE C AS 'MODULE_PATHNAME', 'qm_tick';
COMMENT ON PROCEDURE quota_manager.tick(bigint, bigint) IS
	'Runs every due strategy like scan(), but reads the balances that conditions need from the gateways first. Commits between its steps: to be called as a statement of its own. Returns how many strategies were run and grants written.';

CREATE FUNCTION quota_manager.start_workers() RETURNS void
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'qm_start_workers';
COMMENT ON FUNCTION quota_manager.start_workers() IS
	'Lets background workers run in this database from the end of the transaction on. Where the library is not preloaded it starts them, until the server is restarted.';

CREATE FUNCTION quota_manager.stop_workers() RETURNS void
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'qm_stop_workers';
COMMENT ON FUNCTION quota_manager.stop_workers() IS
	'Ends the background workers of this database at the end of the transaction; they stay down, also after a restart, until start_workers().';

CREATE FUNCTION quota_manager.wake_workers() RETURNS void
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'qm_wake_workers';
COMMENT ON FUNCTION quota_manager.wake_workers() IS
	'Lets the launcher look into this database at the end of the transaction, when the extension was created or its role got its rights; it does so by itself every minute.';

CREATE FUNCTION quota_manager.awaited_firing(strategy quota_manager.quota_strategy, covered_until timestamptz) RETURNS timestamptz
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	firing timestamptz;
BEGIN
	firing := quota_manager.next_firing(strategy.periodic_expr,
		greatest(covered_until, strategy.schedule_since, strategy.valid_from - interval '1 us'), strategy.time_zone);
	RETURN CASE WHEN firing < strategy.valid_until THEN firing END;
EXCEPTION WHEN OTHERS THEN
	-- A schedule that cannot be read is reported by the scan; the others are waited for all the same.
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION quota_manager.awaited_firing(quota_manager.quota_strategy, timestamptz) IS
	'Of the scheduler: the first firing of a periodic strategy after those that were looked at; null: none, or its schedule cannot be read.';

-- pg_stat_activity hides what other roles do; of our workers there is nothing to hide.
CREATE FUNCTION quota_manager.list_workers()
RETURNS TABLE (kind text, pid integer, role name, state text, activity text, started timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER
BEGIN ATOMIC
	SELECT pg_catalog.substr(a.backend_type, 15), a.pid, CASE WHEN a.datid IS NOT NULL THEN a.usename END, a.state, nullif(a.query, ''), a.backend_start
	FROM pg_catalog.pg_stat_activity a
	WHERE a.backend_type OPERATOR(pg_catalog.=) ANY (ARRAY['quota_manager launcher', 'quota_manager scheduler', 'quota_manager courier'])
		AND EXISTS (SELECT FROM pg_catalog.pg_locks l
			WHERE l.pid OPERATOR(pg_catalog.=) a.pid AND l.locktype OPERATOR(pg_catalog.=) 'advisory'
				AND l.classid OPERATOR(pg_catalog.=) 1902999395::oid AND l.granted
				AND (l.database OPERATOR(pg_catalog.=) 0::oid
					OR l.database OPERATOR(pg_catalog.=) (SELECT d.oid FROM pg_catalog.pg_database d
						WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database())));
END;
COMMENT ON FUNCTION quota_manager.list_workers() IS 'Of worker_status: the background workers that serve this database.';

CREATE VIEW quota_manager.worker_status WITH (security_invoker = true) AS
SELECT w.kind, w.pid, w.role, w.state, w.activity, w.started
FROM quota_manager.list_workers() w;
COMMENT ON VIEW quota_manager.worker_status IS 'The background workers that serve this database: launcher, scheduler and courier. A missing row is a worker that does not run; the server log says why.';
COMMENT ON COLUMN quota_manager.worker_status.kind IS 'launcher (starts schedulers), scheduler (runs strategies) or courier (delivers grants).';
COMMENT ON COLUMN quota_manager.worker_status.pid IS 'Process id.';
COMMENT ON COLUMN quota_manager.worker_status.role IS 'Role it runs as; null for the launcher, which is connected to no database.';
COMMENT ON COLUMN quota_manager.worker_status.state IS 'active or idle.';
COMMENT ON COLUMN quota_manager.worker_status.activity IS 'What it is doing, or did last.';
COMMENT ON COLUMN quota_manager.worker_status.started IS 'When it started.';

SELECT quota_manager.wake_workers();
