-- When each strategy is due: one definition for scans, workers and worker_status.

CREATE FUNCTION quota_internal.gateway_setup() RETURNS bigint
LANGUAGE sql STABLE
BEGIN ATOMIC
	SELECT (SELECT coalesce(pg_catalog.sum(pg_catalog.hashtext(pg_catalog.concat_ws(' ', g.name, pg_catalog.date_part('epoch', g.update_time)))), 0)
			FROM quota_manager.quota_gateway g)
		OPERATOR(pg_catalog.+) (SELECT coalesce(pg_catalog.sum(pg_catalog.hashtext(pg_catalog.concat_ws(' ', m.model, m.gateway))), 0)
			FROM quota_manager.quota_model m);
END;
COMMENT ON FUNCTION quota_internal.gateway_setup() IS 'Fingerprint of the settings of gateways and models. Hashes all rows, since a late commit can carry an older timestamp.';

CREATE FUNCTION quota_internal.retry_delay(tries integer) RETURNS interval
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN pg_catalog.make_interval(secs => least(5 OPERATOR(pg_catalog.*) pg_catalog.power(2, least(greatest(tries, 1) OPERATOR(pg_catalog.-) 1, 10)), 300));
COMMENT ON FUNCTION quota_internal.retry_delay(integer) IS 'How long a run waits to be tried again after so many tries that failed or were incomplete: 5 s, doubling up to 5 min.';

-- A time in the future, written while the clock was ahead, does not count: the run is due now.
CREATE FUNCTION quota_internal.next_try(state text, finish_time timestamptz, retry_time timestamptz, same_setup boolean, pace interval, real_now timestamptz)
RETURNS timestamptz
LANGUAGE sql STABLE PARALLEL SAFE
RETURN CASE
	WHEN finish_time OPERATOR(pg_catalog.>) real_now THEN real_now
	WHEN state OPERATOR(pg_catalog.=) 'done' THEN coalesce(retry_time, finish_time OPERATOR(pg_catalog.+) pace)
	WHEN same_setup THEN coalesce(retry_time, finish_time)
	ELSE finish_time END;
COMMENT ON FUNCTION quota_internal.next_try(text, timestamptz, timestamptz, boolean, interval, timestamptz) IS 'When a run is tried again: after its back-off, which ends with any change of gateways and models; after the pace if it is done.';

CREATE FUNCTION quota_internal.next_open_firing(strategy quota_manager.quota_strategy, after_time timestamptz) RETURNS timestamptz
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET quota_manager.pinned_statistics = on SET jit = off
AS $$
DECLARE
	firing timestamptz := after_time;
	covered timestamptz;
BEGIN
	-- The caller asks again at that time, so a hundred steps are enough even if more firings are recorded.
	FOR i IN 1 .. 100 LOOP
		firing := quota_manager.next_firing(strategy.periodic_expr, firing, strategy.time_zone);
		covered := (SELECT coalesce(r.last_scheduled_time, r.scheduled_time) FROM quota_manager.quota_run r
			WHERE r.strategy_id = strategy.id AND r.scheduled_time <= firing ORDER BY r.scheduled_time DESC LIMIT 1);
		EXIT WHEN firing IS NULL OR covered IS NULL OR covered < firing;
		firing := covered;
	END LOOP;
	RETURN firing;
END
$$;
COMMENT ON FUNCTION quota_internal.next_open_firing(quota_manager.quota_strategy, timestamptz) IS 'The first firing after a time that quota_run does not record yet: if the schedule clock was ahead, later ones may be recorded.';

CREATE FUNCTION quota_internal.never_fires(firing timestamptz, valid_until timestamptz) RETURNS text
LANGUAGE sql STABLE
RETURN CASE
	WHEN firing IS NULL THEN 'does not fire within a hundred years'
	WHEN firing OPERATOR(pg_catalog.>=) valid_until THEN pg_catalog.concat('does not fire before valid_until, ', valid_until) END;
COMMENT ON FUNCTION quota_internal.never_fires(timestamptz, timestamptz) IS 'Why a firing will not come; null: it will.';

CREATE FUNCTION quota_internal.due_firings_of(strategy quota_manager.quota_strategy, clock timestamptz, clock_offset interval, pace interval, present_setup bigint,
	real_now timestamptz)
RETURNS TABLE (scheduled_time timestamptz, state text, due_time timestamptz, tries integer, reason text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET quota_manager.pinned_statistics = on SET jit = off
AS $$
#variable_conflict use_column
DECLARE
	entry record;
	skipped record;
	found_due boolean := false;
	since timestamptz;
	problem text;
BEGIN
	FOR entry IN
		SELECT f.firing, r.tries, r.reason, quota_internal.next_try(r.state, r.finish_time, r.retry_time,
				r.strategy_version = strategy.version AND r.setup = present_setup, pace, real_now) AS next_try
			FROM quota_internal.retried_firings(strategy) f (firing)
			JOIN quota_manager.quota_run r ON r.strategy_id = strategy.id AND r.scheduled_time = f.firing
	LOOP
		found_due := true;
		RETURN QUERY SELECT entry.firing, CASE WHEN entry.next_try <= real_now THEN 'due' ELSE 'waiting' END, entry.next_try, entry.tries, entry.reason;
	END LOOP;
	FOR entry IN SELECT o.* FROM quota_internal.open_firings(strategy) o LOOP
		IF entry.reason IS NULL THEN
			found_due := true;
			RETURN QUERY SELECT entry.first_firing, 'due', entry.first_firing + clock_offset, 0, NULL::text;
		ELSIF skipped IS NULL THEN
			skipped := entry;
		END IF;
	END LOOP;
	IF NOT found_due AND skipped IS NOT NULL THEN
		RETURN QUERY SELECT NULL::timestamptz, 'recording', skipped.first_firing + clock_offset + pace, 0, skipped.reason;
	END IF;
	since := greatest(clock, quota_internal.recorded_until(strategy));
	problem := CASE WHEN since > clock OR EXISTS (SELECT 1 FROM quota_manager.quota_run r WHERE r.strategy_id = strategy.id AND r.scheduled_time > clock) THEN
		'firings after the schedule clock are recorded already: see restart_schedule()' END;
	since := quota_internal.next_open_firing(strategy, greatest(since, strategy.valid_from - interval '1 us'));
	RETURN QUERY SELECT since, CASE WHEN since < strategy.valid_until THEN 'scheduled' ELSE 'idle' END,
		CASE WHEN since < strategy.valid_until THEN since + clock_offset END, 0,
		coalesce(problem, quota_internal.never_fires(since, strategy.valid_until), CASE WHEN clock < strategy.valid_from THEN 'not valid before ' || strategy.valid_from END);
EXCEPTION WHEN OTHERS THEN
	-- The scan reports an invalid schedule, for this strategy alone.
	problem := SQLERRM;
	RETURN QUERY SELECT NULL::timestamptz, CASE WHEN w.at <= real_now THEN 'due' ELSE 'waiting' END, w.at, w.tries, problem
		FROM (SELECT coalesce(max(quota_internal.next_try(r.state, r.finish_time, r.retry_time, r.setup = present_setup, pace, real_now)), real_now) AS at, coalesce(max(r.tries), 0) AS tries
			FROM (SELECT u.* FROM quota_manager.quota_run u WHERE u.strategy_id = strategy.id AND u.scheduled_time IS NULL ORDER BY u.id DESC LIMIT 1) r
			WHERE r.strategy_version = strategy.version) w;
END
$$;
COMMENT ON FUNCTION quota_internal.due_firings_of(quota_manager.quota_strategy, timestamptz, interval, interval, bigint, timestamptz) IS
	'Of strategy_due: the firings of a periodic strategy in use that has more than its next firing to run, retry or record.';

CREATE FUNCTION quota_internal.run_is_held(strategy quota_manager.quota_strategy) RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	RETURN EXISTS (SELECT 1 FROM quota_manager.quota_pause p WHERE p.end_time IS NULL
		AND (p.scope = 'everything' OR p.strategy_id = strategy.id AND p.cause = 'breaker' AND strategy.state = 'active'));
END
$$;
COMMENT ON FUNCTION quota_internal.run_is_held(quota_manager.quota_strategy) IS 'Of run_strategy(): is everything paused, or has the breaker stopped the strategy? strategy_due may have been read before.';

-- The subqueries with OFFSET 0 are computed once, not for each row or column.  Most strategies have only a next firing, for
-- which this is ten times faster than a PL/pgSQL function.
CREATE VIEW quota_manager.strategy_due WITH (security_invoker = true) AS
SELECT s.id AS strategy_id, s.name, s.type, d.scheduled_time, d.state, d.due_time, d.tries, d.reason
FROM (SELECT c.*, CASE WHEN pg_catalog.abs(pg_catalog.date_part('epoch', c.real_now OPERATOR(pg_catalog.-) c.clock)) OPERATOR(pg_catalog.<) 1 THEN interval '0'
			-- In seconds, since a day of the session's time zone may have more or less than 24 hours.
			ELSE pg_catalog.make_interval(secs => pg_catalog.date_part('epoch', c.real_now OPERATOR(pg_catalog.-) c.clock)) END AS clock_offset
		FROM (SELECT quota_manager.schedule_now() AS clock, pg_catalog.clock_timestamp() AS real_now, quota_internal.gateway_setup() AS setup,
			quota_internal.setting('scan_interval')::interval AS pace,
			(SELECT 'everything is paused ' OPERATOR(pg_catalog.||) quota_internal.pause_words(e.*) FROM quota_manager.quota_pause e
				WHERE e.scope OPERATOR(pg_catalog.=) 'everything' AND e.end_time IS NULL) AS everything,
			-- Null, in place of an empty object: nearly always none is.
			(SELECT pg_catalog.jsonb_object_agg(t.strategy_id, 'the breaker stopped it ' OPERATOR(pg_catalog.||) quota_internal.pause_words(t.*))
				FROM quota_manager.quota_pause t WHERE t.scope OPERATOR(pg_catalog.=) 'strategy' AND t.cause OPERATOR(pg_catalog.=) 'breaker'
					AND t.end_time IS NULL) AS stopped OFFSET 0) c OFFSET 0) c
CROSS JOIN quota_manager.quota_strategy s
CROSS JOIN LATERAL (SELECT s.enabled AND NOT s.archived AS in_use, c.clock OPERATOR(pg_catalog.>=) s.valid_until AS expired,
		s.type OPERATOR(pg_catalog.=) 'periodic' AS periodic,
		CASE WHEN s.type OPERATOR(pg_catalog.=) 'periodic' THEN quota_internal.check_time_zone(quota_internal.schedule_zone(s.periodic_expr, s.time_zone)) END AS readable,
		CASE WHEN s.type OPERATOR(pg_catalog.=) 'periodic' THEN greatest(s.schedule_since,
			(SELECT coalesce(r.last_scheduled_time, r.scheduled_time) FROM quota_manager.quota_run r
				WHERE r.strategy_id OPERATOR(pg_catalog.=) s.id AND r.scheduled_time OPERATOR(pg_catalog.<=) c.clock
				ORDER BY r.scheduled_time DESC LIMIT 1)) END AS recorded OFFSET 0) p
CROSS JOIN LATERAL (SELECT CASE WHEN p.readable THEN quota_manager.next_firing(s.periodic_expr, p.recorded, s.time_zone) END AS next OFFSET 0) n
CROSS JOIN LATERAL (SELECT h.reason, h.reason IS NULL AND p.in_use AND p.readable AND NOT p.expired AND (n.next OPERATOR(pg_catalog.<=) c.clock
		OR c.clock OPERATOR(pg_catalog.<) s.valid_from OR p.recorded OPERATOR(pg_catalog.>) c.clock
		OR EXISTS (SELECT 1 FROM quota_manager.quota_run r WHERE r.strategy_id OPERATOR(pg_catalog.=) s.id AND r.scheduled_time OPERATOR(pg_catalog.>) c.clock)
		OR EXISTS (SELECT 1 FROM quota_manager.quota_run r WHERE r.strategy_id OPERATOR(pg_catalog.=) s.id
			AND r.state OPERATOR(pg_catalog.=) ANY (ARRAY['failed', 'incomplete'])
			AND r.scheduled_time OPERATOR(pg_catalog.>=) CASE WHEN s.catch_up OPERATOR(pg_catalog.=) 'all' THEN quota_internal.catch_up_start(s.*) ELSE p.recorded END)) AS closer
		FROM (SELECT CASE
			WHEN c.everything IS NOT NULL AND (p.in_use AND NOT p.expired OR n.next IS NOT NULL) THEN c.everything
			WHEN c.stopped IS NOT NULL AND p.in_use THEN c.stopped OPERATOR(pg_catalog.->>) s.id::text END AS reason) h OFFSET 0) k
-- The last run without a firing: of a single strategy, or of one whose schedule cannot be read.
LEFT JOIN LATERAL (SELECT u.tries, u.reason, u.state,
		CASE WHEN u.strategy_version OPERATOR(pg_catalog.=) s.version
			THEN quota_internal.next_try(u.state, u.finish_time, u.retry_time, u.setup OPERATOR(pg_catalog.=) c.setup, c.pace, c.real_now) END AS next_try
	FROM (SELECT r.* FROM quota_manager.quota_run r
		WHERE k.reason IS NULL AND p.in_use AND NOT p.expired AND p.readable IS NOT TRUE AND r.strategy_id OPERATOR(pg_catalog.=) s.id AND r.scheduled_time IS NULL
		ORDER BY r.id DESC LIMIT 1) u OFFSET 0) l ON true
CROSS JOIN LATERAL (
	SELECT CASE WHEN a.state OPERATOR(pg_catalog.=) ANY (ARRAY['scheduled', 'idle', 'paused']) AND p.readable AND p.in_use THEN n.next END AS scheduled_time,
		CASE WHEN a.state OPERATOR(pg_catalog.=) 'due' AND a.ready_time OPERATOR(pg_catalog.>) c.real_now THEN 'waiting' ELSE a.state END AS state,
		CASE a.state WHEN 'due' THEN a.ready_time
			WHEN 'scheduled' THEN coalesce(n.next, s.valid_from) OPERATOR(pg_catalog.+) c.clock_offset
			WHEN 'recording' THEN n.next OPERATOR(pg_catalog.+) c.clock_offset OPERATOR(pg_catalog.+) c.pace END AS due_time,
		CASE WHEN a.state OPERATOR(pg_catalog.=) 'due' AND l.next_try IS NOT NULL THEN l.tries ELSE 0 END AS tries,
		CASE WHEN k.reason IS NOT NULL THEN k.reason
			WHEN NOT p.in_use THEN s.state
			WHEN p.expired THEN pg_catalog.concat('not valid since ', s.valid_until)
			WHEN c.clock OPERATOR(pg_catalog.<) s.valid_from THEN pg_catalog.concat('not valid before ', s.valid_from)
			WHEN p.readable THEN quota_internal.never_fires(n.next, s.valid_until)
			WHEN l.next_try IS NOT NULL AND l.state OPERATOR(pg_catalog.<>) 'done' THEN l.reason
			WHEN p.periodic THEN pg_catalog.format('time zone "%s" is not known to this server', quota_internal.schedule_zone(s.periodic_expr, s.time_zone)) END AS reason
	FROM (SELECT CASE
				WHEN k.reason IS NOT NULL THEN 'paused'
				WHEN NOT p.in_use OR p.expired THEN CASE WHEN n.next IS NULL THEN 'idle' ELSE 'recording' END
				WHEN p.readable THEN CASE WHEN n.next OPERATOR(pg_catalog.<) s.valid_until THEN 'scheduled' ELSE 'idle' END
				WHEN NOT p.periodic AND c.clock OPERATOR(pg_catalog.<) s.valid_from THEN 'scheduled'
				WHEN p.recorded OPERATOR(pg_catalog.>=) c.clock THEN 'idle'
				ELSE 'due' END AS state,
			coalesce(l.next_try, least(greatest(s.update_time, s.valid_from OPERATOR(pg_catalog.+) c.clock_offset), c.real_now)) AS ready_time OFFSET 0) a
	WHERE k.closer IS NOT TRUE
	UNION ALL
	SELECT f.scheduled_time, f.state, f.due_time, f.tries, f.reason
	FROM quota_internal.due_firings_of(s.*, c.clock, c.clock_offset, c.pace, c.setup, c.real_now) f WHERE k.closer) d;
COMMENT ON VIEW quota_manager.strategy_due IS 'When each strategy is due: what tick() and the workers run, what scan() runs by hand, and what comes next. One row per strategy, more if several of its firings are due or wait.';
COMMENT ON COLUMN quota_manager.strategy_due.strategy_id IS 'The strategy.';
COMMENT ON COLUMN quota_manager.strategy_due.name IS 'Its name.';
COMMENT ON COLUMN quota_manager.strategy_due.type IS 'single or periodic.';
COMMENT ON COLUMN quota_manager.strategy_due.scheduled_time IS 'The firing that is due, waits, or comes next; null: none, or it is a single strategy.';
COMMENT ON COLUMN quota_manager.strategy_due.state IS 'due: to be run now. waiting: to be run at due_time, when its back-off is over, or scan_interval since the last scan; scan() runs it at once. scheduled: its firing, or its validity, is to come. recording: nothing is run, but firings are recorded as not run at due_time, or by the next scan(). paused: nothing is run or recorded until the pause ends: of everything, or of the breaker; catch_up decides about firings missed meanwhile. idle: nothing will be run.';
COMMENT ON COLUMN quota_manager.strategy_due.due_time IS 'Since when it is due, or when it will be (real time); null: never, as things are.';
COMMENT ON COLUMN quota_manager.strategy_due.tries IS 'How many tries in a row failed or were incomplete.';
COMMENT ON COLUMN quota_manager.strategy_due.reason IS 'Why it waits or is not run.';

CREATE FUNCTION quota_internal.due_strategies(strategy_name text DEFAULT NULL)
RETURNS TABLE (strategy_id integer, name text, scheduled_time timestamptz)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan SET jit = off SET quota_manager.pinned_statistics = on
AS $$
	SELECT d.strategy_id, d.name, d.scheduled_time FROM quota_manager.strategy_due d
	WHERE (strategy_name IS NULL OR d.name = strategy_name)
		AND (d.state IN ('due', 'waiting') OR d.state = 'recording' AND d.due_time <= clock_timestamp() + quota_internal.setting('scan_interval')::interval)
	ORDER BY d.strategy_id, d.scheduled_time
$$;
COMMENT ON FUNCTION quota_internal.due_strategies(text) IS 'What scan() would do now: firings to be run or tried again, single strategies, and (scheduled_time null) firings to be recorded as not run; of all strategies or of the named one. Strategies that wait for a back-off or for scan_interval are included: see strategy_due.';

CREATE FUNCTION quota_manager.restart_schedule(strategy_name text) RETURNS timestamptz
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET quota_manager.pinned_statistics = on SET jit = off
AS $$
DECLARE
	role CONSTANT text := quota_internal.deciding_role();
	visible CONSTANT text[] := quota_internal.read_as_caller('SELECT s.id::text FROM quota_manager.quota_strategy s WHERE s.name = $1[1]', ARRAY[strategy_name]);
	clock timestamptz;
	strategy quota_manager.quota_strategy;
	firing timestamptz;
BEGIN
	PERFORM quota_internal.check_transaction('schedules are restarted');
	IF strategy_name IS NULL THEN
		RAISE EXCEPTION 'the strategy must be given' USING ERRCODE = 'null_value_not_allowed';
	END IF;
	SELECT s.* INTO strategy FROM quota_manager.quota_strategy s WHERE s.id = visible[1]::integer;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'strategy "%" does not exist', strategy_name
			USING ERRCODE = 'undefined_object', HINT = 'See SELECT name FROM quota_manager.quota_strategy.';
	END IF;
	IF strategy.type = 'single' THEN
		RAISE EXCEPTION 'strategy "%" has no schedule', strategy_name
			USING ERRCODE = 'wrong_object_type', DETAIL = 'It is single: it is scanned every quota_manager.scan_interval.',
				HINT = 'See quota_manager.strategy_due for when it is scanned next.';
	END IF;
	-- The row first, as edits do.
	PERFORM 1 FROM quota_manager.quota_strategy s WHERE s.id = strategy.id FOR NO KEY UPDATE;
	PERFORM quota_internal.lock_strategies(ARRAY[strategy.id]);
	clock := quota_manager.schedule_now();
	-- They granted nothing, and are still to come.
	DELETE FROM quota_manager.quota_run r WHERE r.strategy_id = strategy.id AND r.state = 'skipped' AND r.scheduled_time > clock;
	UPDATE quota_manager.quota_run r SET (last_scheduled_time, occurrences) = (SELECT nullif(f.last_firing, r.scheduled_time), greatest(f.firings, 1)
			FROM quota_manager.firing_range(strategy.periodic_expr, r.scheduled_time - interval '1 us', clock, strategy.time_zone) f)
		WHERE r.strategy_id = strategy.id AND r.state = 'skipped' AND r.scheduled_time <= clock AND r.last_scheduled_time > clock;
	-- The trigger sets it to the schedule clock.
	UPDATE quota_manager.quota_strategy s SET schedule_since = clock WHERE s.id = strategy.id AND s.schedule_since > clock;
	SELECT s.* INTO strategy FROM quota_manager.quota_strategy s WHERE s.id = strategy.id;
	firing := quota_internal.next_open_firing(strategy, greatest(clock, strategy.valid_from - interval '1 us'));
	RAISE LOG 'role "%" restarted the schedule of strategy "%"', role, strategy_name USING DETAIL = format('Its next firing: %s.', coalesce(firing::text, 'none'));
	RETURN firing;
END
$$;
COMMENT ON FUNCTION quota_manager.restart_schedule(text) IS 'Lets a periodic strategy run again from now on after the schedule clock was ahead for a while: deletes the record of later firings that were skipped, but not of those that were run; if the strategy was written while the clock was ahead, its schedule starts now. Returns its next firing.';
