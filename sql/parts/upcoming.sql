-- Coming firings.

CREATE FUNCTION quota_manager.upcoming(strategy_name text DEFAULT NULL, n integer DEFAULT 10)
RETURNS TABLE (strategy text, firing timestamptz, local_time timestamp, time_zone text, utc_time timestamp, note text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET jit = off SET quota_manager.pinned_statistics = on
AS $$
#variable_conflict use_column
DECLARE
	clock CONSTANT timestamptz := quota_manager.schedule_now();
	asked quota_manager.quota_strategy;
BEGIN
	IF n IS NULL OR n NOT BETWEEN 1 AND 10000 THEN
		RAISE EXCEPTION 'the number of firings must be between 1 and 10000'
			USING ERRCODE = 'invalid_parameter_value', HINT = 'Leave it out for 10.';
	END IF;
	IF strategy_name IS NOT NULL THEN
		SELECT s.* INTO asked FROM quota_manager.quota_strategy s WHERE s.name = strategy_name;
		IF NOT FOUND THEN
			RAISE EXCEPTION 'strategy "%" does not exist', strategy_name
				USING ERRCODE = 'undefined_object', HINT = 'See SELECT name FROM quota_manager.quota_strategy.';
		END IF;
		IF asked.type = 'single' THEN
			RAISE EXCEPTION 'strategy "%" has no schedule', strategy_name
				USING ERRCODE = 'wrong_object_type',
					DETAIL = 'It is single: each user gets its grant once, at the first scan at which they meet the condition.',
					HINT = 'See quota_manager.strategy_due for when it is scanned next.';
		END IF;
	END IF;

	RETURN QUERY
	WITH listed AS (
		SELECT s.id, s.name, s.schedule_since, s.periodic_expr, s.time_zone, z.zone, quota_internal.check_time_zone(z.zone) AS known,
			CASE WHEN s.state <> 'active' THEN s.state || ', will not run' END AS state,
			greatest(clock, s.schedule_since, CASE WHEN s.valid_from > clock THEN s.valid_from - interval '1 us' END) AS after_time,
			CASE WHEN isfinite(s.valid_until) THEN s.valid_until - interval '1 us' ELSE '294276-12-31 23:59:59Z' END AS until_time
		FROM quota_manager.quota_strategy s CROSS JOIN LATERAL quota_internal.schedule_zone(s.periodic_expr, s.time_zone) z(zone)
		WHERE s.type = 'periodic' AND CASE WHEN strategy_name IS NULL THEN s.enabled AND NOT s.archived ELSE s.name = strategy_name END
	), next AS MATERIALIZED (
		SELECT l.*, f.next
		FROM listed l CROSS JOIN LATERAL (SELECT CASE WHEN l.known THEN quota_manager.next_firing(l.periodic_expr, l.after_time, l.time_zone) END) f(next)
	), horizon AS (
		-- Once n strategies have fired, later firings are not among the next n.
		SELECT x.next FROM next x WHERE x.next <= x.until_time ORDER BY x.next OFFSET n - 1 LIMIT 1
	), firing AS (
		SELECT x.*, f.firing
		FROM next x CROSS JOIN LATERAL (SELECT quota_manager.firings(x.periodic_expr, x.after_time,
			least(x.until_time, (SELECT h.next FROM horizon h)), x.time_zone) LIMIT n) f(firing)
		WHERE x.next <= x.until_time
		ORDER BY f.firing, x.name COLLATE "C" LIMIT n
	)
	SELECT u.* FROM (
		SELECT f.name, f.firing, quota_internal.local_time(f.firing, f.zone), f.zone, f.firing AT TIME ZONE 'UTC',
			nullif(concat_ws('; ', f.state, (SELECT format('recorded already as %s, is not run again: see restart_schedule()', r.state)
				FROM quota_manager.quota_run r WHERE r.strategy_id = f.id AND r.scheduled_time <= f.firing AND coalesce(r.last_scheduled_time, r.scheduled_time) >= f.firing
				ORDER BY r.scheduled_time DESC LIMIT 1),
			CASE WHEN f.schedule_since > clock THEN 'written while the schedule clock was ahead: see restart_schedule()' END, quota_internal.firing_note(f.periodic_expr, f.firing, f.time_zone)), '')
		FROM firing f
		UNION ALL
		-- Invalid schedules are listed too, and a strategy that is named is always listed.
		(SELECT x.name, NULL, NULL, x.zone, NULL,
			concat_ws('; ', x.state, CASE
				WHEN NOT x.known THEN format('time zone "%s" is not known to this server', x.zone)
				WHEN x.until_time < clock THEN format('not valid since %s', x.until_time + interval '1 us')
				WHEN x.next IS NULL THEN 'does not fire within a hundred years'
				ELSE format('does not fire before valid_until, %s', x.until_time + interval '1 us') END)
		FROM next x
		WHERE NOT x.known OR strategy_name IS NOT NULL AND (x.next <= x.until_time) IS NOT TRUE
		ORDER BY x.name COLLATE "C" LIMIT n)) u(name, firing)
	ORDER BY u.firing, u.name COLLATE "C";
END
$$;
COMMENT ON FUNCTION quota_manager.upcoming(text, integer) IS
	'The next n firings, after the schedule clock and within validity, of one strategy or of all that are in use: local_time is that of time_zone, in which the schedule is read; note says what a change of the clock does. Schedules that cannot be read come last, without times.';
