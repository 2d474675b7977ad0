-- Background workers, and tick() for servers without them.

CREATE PROCEDURE quota_manager.tick(INOUT strategies bigint DEFAULT NULL, INOUT granted bigint DEFAULT NULL)
LANGUAGE C AS 'MODULE_PATHNAME', 'qm_tick';
COMMENT ON PROCEDURE quota_manager.tick(bigint, bigint) IS
	'Runs every due strategy like scan(), but reads the balances that conditions need from the gateways first. Commits between its steps: to be called as a statement of its own. Returns how many strategies were run and grants written.';

CREATE FUNCTION quota_manager.start_workers() RETURNS void
LANGUAGE C VOLATILE SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'qm_start_workers';
COMMENT ON FUNCTION quota_manager.start_workers() IS
	'Lets background workers run in this database from the end of the transaction on. Where the library is not preloaded it starts them, until the server is restarted.';

CREATE FUNCTION quota_manager.stop_workers() RETURNS void
LANGUAGE C VOLATILE SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'qm_stop_workers';
COMMENT ON FUNCTION quota_manager.stop_workers() IS
	'Ends the background workers of this database at the end of the transaction, a scan that they run included; they stay down, also after a restart, until start_workers().';

CREATE FUNCTION quota_manager.wake_workers() RETURNS void
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'qm_wake_workers';
COMMENT ON FUNCTION quota_manager.wake_workers() IS
	'Makes the launcher check this database at the end of the transaction, after the extension was created or its role got its rights; it checks every minute anyway.';

CREATE FUNCTION quota_internal.role_danger(role oid) RETURNS text
LANGUAGE C STABLE STRICT AS 'MODULE_PATHNAME', 'qm_role_danger';
COMMENT ON FUNCTION quota_internal.role_danger(oid) IS
	'Why a role must not scan in the background: it is a superuser or can become one; null: nothing.';

-- Workers are woken at commit.
CREATE FUNCTION quota_internal.wake_at_commit() RETURNS trigger
LANGUAGE C AS 'MODULE_PATHNAME', 'qm_wake_at_commit';
COMMENT ON FUNCTION quota_internal.wake_at_commit() IS
	'Trigger: wakes the named workers when the transaction commits, once however often it is called. After PREPARE TRANSACTION they find the work within poll_interval.';
CREATE TRIGGER wake_workers AFTER INSERT OR UPDATE ON quota_manager.quota_strategy
	FOR EACH STATEMENT EXECUTE FUNCTION quota_internal.wake_at_commit('scheduler');
COMMENT ON TRIGGER wake_workers ON quota_manager.quota_strategy IS 'A strategy may be due.';
-- Not on a change of state, which delivery workers write.
CREATE TRIGGER wake_workers AFTER INSERT OR DELETE OR UPDATE OF name, dialect, base_url, admin_path, credential, key_header, route_model,
	connect_timeout, request_timeout, max_connections, rate_limit, doubt_policy, sole_writer, max_usage_rate, doubt_policy_since, is_default
	ON quota_manager.quota_gateway FOR EACH STATEMENT EXECUTE FUNCTION quota_internal.wake_at_commit('scheduler', 'courier');
COMMENT ON TRIGGER wake_workers ON quota_manager.quota_gateway IS 'What waited for the gateway may be due.';
CREATE TRIGGER wake_workers AFTER INSERT OR UPDATE ON quota_manager.quota_model
	FOR EACH STATEMENT EXECUTE FUNCTION quota_internal.wake_at_commit('scheduler');
COMMENT ON TRIGGER wake_workers ON quota_manager.quota_model IS 'A strategy may have got its gateway.';
CREATE TRIGGER wake_workers AFTER INSERT OR UPDATE ON quota_manager.quota_run
	FOR EACH ROW WHEN (NEW.undelivered) EXECUTE FUNCTION quota_internal.wake_at_commit('courier');
COMMENT ON TRIGGER wake_workers ON quota_manager.quota_run IS 'Grants of the run can be sent: new ones, or some that an operator decided about.';

-- Not registered for pg_dump: errors of one server mean nothing on another.
CREATE TABLE quota_manager.quota_worker (
	kind text PRIMARY KEY,
	last_error text NOT NULL,
	last_error_time timestamptz NOT NULL
);
COMMENT ON TABLE quota_manager.quota_worker IS 'The last error of each kind of work, in a worker, tick() or deliver(): see worker_status. Written only when there is an error.';
COMMENT ON COLUMN quota_manager.quota_worker.kind IS 'scheduler or courier.';
COMMENT ON COLUMN quota_manager.quota_worker.last_error IS 'What went wrong last.';
COMMENT ON COLUMN quota_manager.quota_worker.last_error_time IS 'When that was.';

CREATE FUNCTION quota_internal.worker_queue(kind text, OUT depth bigint, OUT oldest_age interval)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan SET jit = off SET quota_manager.pinned_statistics = on
AS $$
DECLARE
	stretch record;
	counted record;
BEGIN
	PERFORM quota_internal.pin_statistics();
	IF kind = 'courier' THEN
		depth := 0;
		FOR stretch IN SELECT s.* FROM quota_internal.undelivered_stretches() s LOOP
			SELECT count(*) AS depth, min(e.create_time) AS oldest INTO counted
			FROM quota_manager.quota_execute e
			WHERE e.id BETWEEN stretch.low AND stretch.high
				-- Cheaper than a list.
				AND (e.status = 'pending' OR e.status = 'processing' OR e.status = 'in_doubt' AND e.next_attempt_time < 'infinity')
				AND e.run_id = ANY (stretch.runs);
			depth := depth + counted.depth;
			oldest_age := greatest(oldest_age, clock_timestamp() - counted.oldest);
		END LOOP;
	ELSIF kind = 'scheduler' THEN
		SELECT count(*), max(CASE WHEN d.scheduled_time IS NULL OR d.tries > 0 THEN clock_timestamp() - d.due_time ELSE quota_manager.schedule_now() - d.scheduled_time END)
			INTO depth, oldest_age
			FROM quota_manager.strategy_due d WHERE d.state = 'due';
	END IF;
END
$$;
COMMENT ON FUNCTION quota_internal.worker_queue(text) IS
	'Of worker_status: how much work a kind of worker has, and how long the oldest of it has waited.';

-- pg_stat_activity hides what other roles do; our workers have nothing to hide.
CREATE FUNCTION quota_internal.list_workers()
RETURNS TABLE (kind text, pid integer, role name, state text, activity text, started timestamptz, last_tick timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER
BEGIN ATOMIC
	SELECT pg_catalog.substr(a.backend_type, 15), a.pid, CASE WHEN a.datid IS NOT NULL THEN a.usename END, a.state, nullif(a.query, ''), a.backend_start, a.state_change
	FROM pg_catalog.pg_stat_activity a
	WHERE a.backend_type OPERATOR(pg_catalog.=) ANY (ARRAY['quota_manager launcher', 'quota_manager scheduler', 'quota_manager courier'])
		AND EXISTS (SELECT 1 FROM pg_catalog.pg_locks l
			WHERE l.pid OPERATOR(pg_catalog.=) a.pid AND l.locktype OPERATOR(pg_catalog.=) 'advisory'
				AND l.classid OPERATOR(pg_catalog.=) 1902999395::oid AND l.granted
				AND (l.database OPERATOR(pg_catalog.=) 0::oid
					OR l.database OPERATOR(pg_catalog.=) (SELECT d.oid FROM pg_catalog.pg_database d
						WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database())));
END;
COMMENT ON FUNCTION quota_internal.list_workers() IS 'Of worker_status: the background workers that serve this database.';

-- The subquery is evaluated once, and only if a query reads the queue.
CREATE VIEW quota_manager.worker_status WITH (security_invoker = true) AS
SELECT k.kind, w.pid, w.role, coalesce(w.state, 'not running') AS state, w.activity, w.started, w.last_tick,
	(q.queue).depth AS queue_depth, (q.queue).oldest_age, t.last_error, t.last_error_time,
	p.since AS paused_since, quota_internal.person(p.said_by, p.role) AS paused_by, nullif(p.note, '') AS paused_why
FROM (VALUES ('launcher'), ('scheduler'), ('courier')) k (kind)
LEFT JOIN quota_internal.list_workers() w ON w.kind OPERATOR(pg_catalog.=) k.kind
LEFT JOIN quota_manager.quota_worker t ON t.kind OPERATOR(pg_catalog.=) k.kind
LEFT JOIN quota_manager.quota_pause p ON p.scope OPERATOR(pg_catalog.=) 'everything' AND p.end_time IS NULL AND k.kind OPERATOR(pg_catalog.<>) 'launcher'
CROSS JOIN LATERAL (SELECT quota_internal.worker_queue(k.kind) AS queue OFFSET 0) q;
COMMENT ON VIEW quota_manager.worker_status IS 'The background workers that serve this database: launcher, scheduler and courier; their queues and last errors.';
COMMENT ON COLUMN quota_manager.worker_status.kind IS 'launcher (starts the workers), scheduler (runs strategies) or courier (the delivery worker, which sends grants).';
COMMENT ON COLUMN quota_manager.worker_status.pid IS 'Process id; null: it does not run, and the server log says why.';
COMMENT ON COLUMN quota_manager.worker_status.role IS 'Role it runs as; null for the launcher, which is connected to no database.';
COMMENT ON COLUMN quota_manager.worker_status.state IS 'active, idle or not running.';
COMMENT ON COLUMN quota_manager.worker_status.activity IS 'Present or last activity.';
COMMENT ON COLUMN quota_manager.worker_status.started IS 'When it started.';
COMMENT ON COLUMN quota_manager.worker_status.last_tick IS 'When it last began or ended a poll for work; it polls every poll_interval (the launcher: every second).';
COMMENT ON COLUMN quota_manager.worker_status.queue_depth IS 'scheduler: firings and single strategies that are due and not run yet; courier: grants pending, being sent, or in doubt that the doubt policy of their gateway acts on.';
COMMENT ON COLUMN quota_manager.worker_status.oldest_age IS 'For how long the oldest of them has been due (firings: by the schedule clock), or how long ago it was granted (courier).';
COMMENT ON COLUMN quota_manager.worker_status.last_error IS 'Last error of this kind of work, also in tick() and deliver(), and before a restart: an error, a strategy that failed, a gateway that closed. It may be resolved: see quota_run and delivery_status.';
COMMENT ON COLUMN quota_manager.worker_status.last_error_time IS 'When that was.';
COMMENT ON COLUMN quota_manager.worker_status.paused_since IS 'Since when everything is paused, so that scheduler and courier do nothing; null: it is not. Single gateways and strategies may be: see pauses.';
COMMENT ON COLUMN quota_manager.worker_status.paused_by IS 'By whom.';
COMMENT ON COLUMN quota_manager.worker_status.paused_why IS 'Why, as given.';

SELECT quota_manager.wake_workers();
