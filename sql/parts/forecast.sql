-- What scans to come would do: forecast().  Nothing here writes.

CREATE FUNCTION quota_internal.coming_firings(n integer, until timestamptz, strategy_ids integer[]) RETURNS TABLE (strategy_id integer, firings timestamptz[])
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET jit = off SET quota_manager.pinned_statistics = on
AS $$
#variable_conflict use_column
DECLARE
	clock CONSTANT timestamptz := quota_manager.schedule_now();
BEGIN
	PERFORM quota_internal.pin_statistics();
	RETURN QUERY
	WITH listed AS (
		SELECT s.*, greatest(clock, s.schedule_since, CASE WHEN s.valid_from > clock THEN s.valid_from - interval '1 us' END) AS after_time,
			least(until, CASE WHEN isfinite(s.valid_until) THEN s.valid_until - interval '1 us' END, '294276-12-31 23:59:59Z') AS until_time
		FROM quota_manager.quota_strategy s
		WHERE s.id = ANY (strategy_ids) AND s.type = 'periodic'
			AND quota_internal.check_time_zone(quota_internal.schedule_zone(s.periodic_expr, s.time_zone))
	), next AS MATERIALIZED (
		SELECT l.*, f.next FROM listed l CROSS JOIN LATERAL (SELECT quota_manager.next_firing(l.periodic_expr, l.after_time, l.time_zone)) f (next)
	), horizon AS (
		-- Once n strategies have fired, later firings are not among the next n.
		SELECT x.next FROM next x WHERE x.next <= x.until_time ORDER BY x.next OFFSET greatest(n, 1) - 1 LIMIT 1
	), coming AS (
		SELECT x.id, x.name, f.firing
		FROM next x CROSS JOIN LATERAL (SELECT quota_manager.firings(x.periodic_expr, x.after_time,
			least(x.until_time, (SELECT h.next FROM horizon h)), x.time_zone) LIMIT greatest(n, 0)) f (firing)
		-- Recorded while the schedule clock was ahead: see restart_schedule().
		WHERE x.next <= x.until_time AND NOT EXISTS (SELECT 1 FROM (SELECT r.* FROM quota_manager.quota_run r
			WHERE r.strategy_id = x.id AND r.scheduled_time <= f.firing ORDER BY r.scheduled_time DESC LIMIT 1) r
			WHERE coalesce(r.last_scheduled_time, r.scheduled_time) >= f.firing)
		UNION SELECT d.strategy_id, d.name, d.scheduled_time FROM quota_manager.strategy_due d
			WHERE d.strategy_id = ANY (strategy_ids) AND d.scheduled_time IS NOT NULL AND d.state IN ('due', 'waiting')
	)
	SELECT c.id, array_agg(c.firing ORDER BY c.firing)
	FROM (SELECT f.* FROM coming f ORDER BY f.firing, f.name COLLATE "C" LIMIT greatest(n, 0)) c GROUP BY c.id;
END
$$;
COMMENT ON FUNCTION quota_internal.coming_firings(integer, timestamptz, integer[]) IS 'Of forecast(): the next n firings of strategies, those that are due first, by strategy.';

CREATE FUNCTION quota_internal.forecast_demand(asked quota_manager.quota_strategy, firings timestamptz[])
RETURNS TABLE (place integer, firing timestamptz, users bigint, amount numeric, magnitude numeric, usual bigint, so_far bigint, so_far_amount numeric, is_bound boolean, note text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET jit = off SET quota_manager.pinned_statistics = on
AS $$
#variable_conflict use_column
DECLARE
	target record;
	counts record;
	run record;
	surge record;
	notes text;
BEGIN
	PERFORM quota_internal.pin_statistics();
	BEGIN
		PERFORM quota_internal.check_strategy_target(asked.name, asked.model, asked.amount);
		PERFORM quota_internal.check_strategy_models(asked.name, asked.condition);
		SELECT f.* INTO target FROM quota_internal.previewed_firing(asked) f;
		SELECT c.* INTO counts FROM quota_internal.preview_counts(asked, target.firing, target.anew, NULL, NULL, greatest(cardinality(firings) - 1, 0)) c;
	EXCEPTION WHEN undefined_table THEN
		-- That of the users is of all.
		RAISE;
	WHEN OTHERS THEN
		-- The error of one strategy must not hide the others.
		notes := SQLERRM;
		RETURN QUERY SELECT f.place::integer, f.firing, NULL::bigint, NULL::numeric, NULL::numeric, NULL::bigint, NULL::bigint, NULL::numeric, false, notes
			FROM unnest(firings) WITH ORDINALITY f (firing, place);
		RETURN;
	END;
	SELECT r.id, r.granted, abs(r.amount) AS amount INTO run FROM quota_manager.quota_run r WHERE r.strategy_id = asked.id AND r.scheduled_time = target.firing;
	SELECT l.* INTO surge FROM quota_internal.surge_limit(asked.id, coalesce(run.id, 0)) l;
	notes := concat_ws('; ', 'will not run, as ' || quota_internal.unused_because(asked),
		CASE WHEN counts.unknown > 0 THEN format('and up to %s users whose balance is not known', counts.unknown) END);
	RETURN QUERY SELECT f.place::integer, f.firing, u.users, CASE f.place WHEN 1 THEN counts.amount ELSE u.users * asked.amount END,
			CASE f.place WHEN 1 THEN counts.magnitude ELSE u.users * abs(asked.amount) END,
			-- Scans do not look at fewer.
			CASE WHEN f.place > 1 OR counts.matched > CASE WHEN quota_internal.is_tried_again(asked.id, nullif(target.firing, '-infinity'))
				THEN 0 ELSE quota_internal.setting('surge_minimum')::bigint END THEN surge.usual END,
			CASE f.place WHEN 1 THEN coalesce(greatest(surge.so_far, run.granted), 0) ELSE 0 END, CASE f.place WHEN 1 THEN coalesce(run.amount, 0) ELSE 0 END,
			f.place > 1 AND asked.allowance <> 'add', notes
		FROM unnest(firings) WITH ORDINALITY f (firing, place)
		CROSS JOIN LATERAL (SELECT CASE f.place WHEN 1 THEN counts.granted ELSE counts.later_users[f.place - 1] END) u (users);
END
$$;
COMMENT ON FUNCTION quota_internal.forecast_demand(quota_manager.quota_strategy, timestamptz[]) IS 'Of forecast(): users and amounts of firings of a strategy (null: a single one), which is evaluated once, if there were neither ceilings nor the breaker, and what the breaker goes by.';

CREATE FUNCTION quota_internal.forecast_usage(ceilings quota_manager.quota_ceiling[], used quota_manager.quota_ceiling_usage[], at timestamptz)
RETURNS quota_manager.quota_ceiling_usage[]
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	start timestamptz;
	counted quota_manager.quota_ceiling_usage;
BEGIN
	FOR i IN 1 .. cardinality(ceilings) LOOP
		start := quota_internal.ceiling_period_start(ceilings[i].period, ceilings[i].time_zone, at);
		IF used[i] IS NULL OR used[i].period_start IS DISTINCT FROM start THEN
			SELECT u.* INTO counted FROM quota_manager.quota_ceiling_usage u WHERE u.ceiling_id = ceilings[i].id AND u.period_start = start;
			IF NOT FOUND THEN
				counted := ROW(ceilings[i].id, start, 0, 0);
			END IF;
			used[i] := counted;
		END IF;
	END LOOP;
	RETURN used;
END
$$;
COMMENT ON FUNCTION quota_internal.forecast_usage(quota_manager.quota_ceiling[], quota_manager.quota_ceiling_usage[], timestamptz) IS 'Of forecast(): what is counted under ceilings at a time: as before, or nothing where a day has turned.';

CREATE FUNCTION quota_internal.forecast_left(ceilings quota_manager.quota_ceiling[], used quota_manager.quota_ceiling_usage[], strategy_id integer,
	run_grants bigint, run_amount numeric) RETURNS TABLE (place integer, on_excess text, period text, grants_left bigint, amount_left numeric)
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	FOR i IN 1 .. cardinality(ceilings) LOOP
		CONTINUE WHEN ceilings[i].strategy_id <> forecast_left.strategy_id;
		place := i;
		on_excess := ceilings[i].on_excess;
		period := ceilings[i].period;
		grants_left := ceilings[i].max_grants - CASE period WHEN 'run' THEN run_grants ELSE used[i].grants END;
		amount_left := ceilings[i].max_amount - CASE period WHEN 'run' THEN run_amount ELSE used[i].amount END;
		RETURN NEXT;
	END LOOP;
END
$$;
COMMENT ON FUNCTION quota_internal.forecast_left(quota_manager.quota_ceiling[], quota_manager.quota_ceiling_usage[], integer, bigint, numeric) IS 'Of forecast(): the ceilings that a run of a strategy is under, and what is left of each.';

CREATE FUNCTION quota_internal.forecast_is_late(strategy quota_manager.quota_strategy, firing timestamptz, at timestamptz) RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	-- See catch_up_start().
	RETURN at >= strategy.valid_until OR coalesce(firing <= CASE WHEN strategy.catch_up = 'none' THEN at - interval '2 min'
		ELSE coalesce(((at AT TIME ZONE 'UTC') - strategy.catch_up_window) AT TIME ZONE 'UTC', CASE WHEN strategy.catch_up = 'all' THEN at - interval '24 hours' END) END, false);
END
$$;
COMMENT ON FUNCTION quota_internal.forecast_is_late(quota_manager.quota_strategy, timestamptz, timestamptz) IS 'Of forecast(): is it too late by then to try a firing again?';

CREATE FUNCTION quota_internal.forecast_runs(strategy_ids integer[], all_firings jsonb, horizon timestamptz)
RETURNS TABLE (at timestamptz, strategy_id integer, firing timestamptz, users bigint, amount numeric, note text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET jit = off SET quota_manager.pinned_statistics = on
AS $$
#variable_conflict use_column
DECLARE
	clock CONSTANT timestamptz := quota_manager.schedule_now();
	factor CONSTANT numeric := quota_internal.setting('surge_factor')::numeric;
	minimum CONSTANT bigint := quota_internal.setting('surge_minimum')::bigint;
	ceilings CONSTANT quota_manager.quota_ceiling[] := ARRAY(SELECT c FROM quota_manager.quota_ceiling c ORDER BY c.id);
	used quota_manager.quota_ceiling_usage[] := ARRAY[]::quota_manager.quota_ceiling_usage[];
	events jsonb[];
	position integer := 1;
	-- Runs that wait for room, and strategies that the breaker has stopped, and what is usual for others.
	waiting jsonb[] := ARRAY[]::jsonb[];
	due jsonb[];
	stopped integer[] := ARRAY[]::integer[];
	usual jsonb := jsonb_build_object();
	item jsonb;
	strategy quota_manager.quota_strategy;
	room record;
	counts record;
	run record;
BEGIN
	events := ARRAY(SELECT to_jsonb(d) || jsonb_build_object('at', greatest(clock, d.firing), 'strategy', s.id, 'again', false)
		FROM quota_manager.quota_strategy s
		CROSS JOIN LATERAL quota_internal.forecast_demand(s.*, ARRAY(SELECT nullif(f, '')::timestamptz FROM jsonb_array_elements_text(all_firings -> s.id::text) f)) d
		WHERE s.id = ANY (strategy_ids) ORDER BY greatest(clock, d.firing), s.id, d.firing);
	at := '-infinity';
	LOOP
		-- The next firing, or the next day that may have room for what waits.
		at := least((events[position] ->> 'at')::timestamptz, (SELECT min((date_trunc('day', at AT TIME ZONE c.time_zone) + interval '1 day') AT TIME ZONE c.time_zone)
			FROM unnest(ceilings) c WHERE c.period = 'day' AND waiting <> '{}'));
		-- The clock has moved on since the horizon was set.
		EXIT WHEN at IS NULL OR at > greatest(horizon, clock);
		due := ARRAY[]::jsonb[];
		WHILE (events[position] ->> 'at')::timestamptz = at LOOP
			due := array_append(due, events[position]);
			position := position + 1;
		END LOOP;
		-- A later firing takes the place of the one before.
		due := due || ARRAY(SELECT w FROM unnest(waiting) w JOIN quota_manager.quota_strategy s ON s.id = (w ->> 'strategy')::integer
			WHERE NOT quota_internal.forecast_is_late(s.*, (w ->> 'firing')::timestamptz, at)
				AND (s.catch_up = 'all' OR NOT EXISTS (SELECT 1 FROM unnest(due) d WHERE d -> 'strategy' = w -> 'strategy')));
		waiting := ARRAY[]::jsonb[];
		FOREACH item IN ARRAY ARRAY(SELECT d FROM unnest(due) d ORDER BY (d ->> 'strategy')::integer, (d ->> 'firing')::timestamptz) LOOP
			strategy_id := (item ->> 'strategy')::integer;
			firing := (item ->> 'firing')::timestamptz;
			users := (item ->> 'users')::bigint;
			amount := (item ->> 'amount')::numeric;
			note := nullif(item ->> 'note', '');
			SELECT s.* INTO strategy FROM quota_manager.quota_strategy s WHERE s.id = strategy_id;
			IF users IS NULL THEN
				RETURN NEXT;
				CONTINUE;
			ELSIF strategy_id = ANY (stopped) THEN
				users := 0;
				amount := 0;
				note := concat_ws('; ', 'not before it is released: the breaker stops it', note);
				IF NOT (item -> 'again')::boolean THEN
					RETURN NEXT;
				END IF;
				CONTINUE;
			END IF;
			IF ceilings <> '{}' THEN
				used := quota_internal.forecast_usage(ceilings, used, at);
			END IF;
			SELECT min(l.grants_left) FILTER (WHERE l.on_excess = 'cut') AS grants, min(l.amount_left) FILTER (WHERE l.on_excess = 'cut') AS amount,
					min(l.grants_left) FILTER (WHERE l.on_excess = 'refuse') AS strict_grants, min(l.amount_left) FILTER (WHERE l.on_excess = 'refuse') AS strict_amount
				INTO room FROM quota_internal.forecast_left(ceilings, used, strategy_id, (item ->> 'so_far')::bigint, (item ->> 'so_far_amount')::numeric) l;
			SELECT users AS wanted, users, amount, (item ->> 'magnitude')::numeric AS magnitude, NULL::text AS stop_reason, false AS is_surge, false AS waits INTO run;
			IF room.grants < run.wanted OR room.amount < run.magnitude THEN
				IF strategy.allowance = 'add' OR (item ->> 'place')::integer > 1 THEN
					run.users := greatest(least(run.wanted, room.grants, floor(room.amount / nullif(abs(strategy.amount), 0))::bigint), 0);
					run.amount := run.users * strategy.amount;
					run.magnitude := run.users * abs(strategy.amount);
				ELSE
					SELECT c.* INTO counts FROM quota_internal.previewed_firing(strategy) f
						CROSS JOIN LATERAL quota_internal.preview_counts(strategy, f.firing, f.anew,
							CASE WHEN room.grants < 0 THEN 0 ELSE room.grants END, CASE WHEN room.amount < 0 THEN 0 ELSE room.amount END, 0) c;
					run.users := counts.granted;
					run.amount := counts.amount;
					run.magnitude := counts.magnitude;
				END IF;
				run.waits := EXISTS (SELECT 1 FROM quota_internal.forecast_left(ceilings, used, strategy_id, (item ->> 'so_far')::bigint, (item ->> 'so_far_amount')::numeric) l
					WHERE l.on_excess = 'cut' AND l.period <> 'run' AND (l.grants_left < run.wanted OR l.amount_left < (item ->> 'magnitude')::numeric));
			END IF;
			IF run.users > 0 AND (room.strict_grants < run.users OR room.strict_amount < run.magnitude) THEN
				run.stop_reason := (SELECT quota_internal.refusal_text(ceilings[l.place], l.grants_left, l.amount_left, run.users, run.magnitude)
					FROM quota_internal.forecast_left(ceilings, used, strategy_id, (item ->> 'so_far')::bigint, (item ->> 'so_far_amount')::numeric) l
					WHERE l.on_excess = 'refuse' AND (l.grants_left < run.users OR l.amount_left < run.magnitude) ORDER BY l.place LIMIT 1);
				run.waits := true;
			ELSIF (item ->> 'so_far')::bigint + run.users > coalesce((usual ->> strategy_id::text)::bigint, (item ->> 'usual')::bigint) THEN
				run.stop_reason := format('stopped by the breaker: %s would be granted, usual are at most %s; see who would get one, edit what was wrong, then call unpause_strategy()',
					(item ->> 'so_far')::bigint + run.users, coalesce((usual ->> strategy_id::text)::bigint, (item ->> 'usual')::bigint));
				run.waits := false;
				stopped := stopped || strategy_id;
			END IF;
			IF run.stop_reason IS NOT NULL THEN
				run.users := 0;
				run.amount := 0;
				run.magnitude := 0;
			END IF;
			FOR i IN 1 .. cardinality(ceilings) LOOP
				IF ceilings[i].strategy_id IS NULL OR ceilings[i].strategy_id = strategy_id THEN
					used[i].grants := used[i].grants + run.users;
					used[i].amount := used[i].amount + run.magnitude;
				END IF;
			END LOOP;
			IF factor > 0 AND run.users > 0 THEN
				usual := usual || jsonb_build_object(strategy_id, least(greatest((usual ->> strategy_id::text)::numeric, (item ->> 'usual')::numeric, minimum,
					floor(((item ->> 'so_far')::bigint + run.users) * factor)), 9223372036854775807));
			END IF;
			users := run.users;
			amount := run.amount;
			note := nullif(concat_ws('; ', run.stop_reason, CASE WHEN (item -> 'again')::boolean THEN format('tried again at %s', at) END, note,
				CASE WHEN run.stop_reason IS NULL AND run.users < run.wanted THEN format('%s more are over a ceiling', run.wanted - run.users) END,
				CASE WHEN (item -> 'is_bound')::boolean THEN 'at most: what will be missing then is not known' END), '');
			IF NOT (item -> 'again')::boolean OR run.users > 0 THEN
				RETURN NEXT;
			END IF;
			IF run.waits THEN
				waiting := array_append(waiting, item || jsonb_build_object('again', true,
					'users', run.wanted - run.users, 'amount', (item ->> 'amount')::numeric - run.amount, 'magnitude', (item ->> 'magnitude')::numeric - run.magnitude,
					'so_far', CASE WHEN strategy.type = 'periodic' THEN (item ->> 'so_far')::bigint + run.users ELSE 0 END,
					'so_far_amount', CASE WHEN strategy.type = 'periodic' THEN (item ->> 'so_far_amount')::numeric + run.magnitude ELSE 0 END,
					-- Who is left of one that fills up can only be counted, not named.
					'place', 2));
			END IF;
		END LOOP;
	END LOOP;
END
$$;
COMMENT ON FUNCTION quota_internal.forecast_runs(integer[], jsonb, timestamptz) IS 'Of forecast(): the runs of strategies for their firings (a text per firing, empty: a single one), in the order of time, each with what those before it leave below the ceilings; runs that a ceiling cuts or refuses are tried again with the next ones, and when a day begins.';

CREATE FUNCTION quota_manager.forecast(n integer DEFAULT NULL, until timestamptz DEFAULT NULL, strategy text DEFAULT NULL)
RETURNS TABLE (firing timestamptz, strategy_name text, users bigint, amount numeric, model text, note text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off SET quota_manager.pinned_statistics = on
AS $$
#variable_conflict use_column
DECLARE
	-- Of all that fire every minute, this is a week.
	most CONSTANT integer := 10000;
	clock CONSTANT timestamptz := quota_manager.schedule_now();
	asked CONSTANT integer := CASE WHEN strategy IS NOT NULL THEN (quota_internal.previewed_strategy(strategy, NULL, NULL)).id END;
	chosen integer[];
	listed record;
BEGIN
	IF n <= 0 OR n > most THEN
		RAISE EXCEPTION 'the number of firings must be between 1 and %', most USING ERRCODE = 'invalid_parameter_value', HINT = 'Leave n out for 10, or for all until a time.';
	END IF;
	chosen := ARRAY(SELECT s.id FROM quota_manager.quota_strategy s
		WHERE CASE WHEN asked IS NULL THEN s.state = 'active' AND clock < s.valid_until AND s.id = ANY (quota_internal.visible_strategies()) ELSE s.id = asked END);
	SELECT array_agg(f.strategy_id) AS ids, jsonb_object_agg(f.strategy_id, f.firings) AS firings, max(f.last) AS last INTO listed
	FROM (SELECT c.strategy_id, to_jsonb(c.firings) AS firings, c.firings[cardinality(c.firings)] AS last
			FROM quota_internal.coming_firings(coalesce(n, CASE WHEN until IS NULL THEN 10 ELSE most END), until, chosen) c
		UNION ALL SELECT s.id, '[""]', NULL FROM quota_manager.quota_strategy s
			WHERE s.id = ANY (chosen) AND s.type = 'single' AND (asked IS NOT NULL OR s.valid_from <= greatest(clock, until))) f;
	RETURN QUERY
	SELECT c.firing, s.name, c.users, c.amount, s.model, c.note
	FROM quota_internal.forecast_runs(listed.ids, listed.firings, greatest(clock, coalesce(CASE WHEN n IS NULL THEN until END, listed.last))) c
	JOIN quota_manager.quota_strategy s ON s.id = c.strategy_id
	ORDER BY c.firing NULLS FIRST, s.name COLLATE "C", c.at;
END
$$;
COMMENT ON FUNCTION quota_manager.forecast(integer, timestamptz, text) IS
	'What is coming: the next n firings (10, or up to a time all), of one strategy or of all that are active, and first (firing null) what single strategies would grant at the next scan; with users and amounts. Each strategy is evaluated once, on the users, balances and grants of now: users who come, leave or change meanwhile are not foreseen. A firing counts against max_exec_per_user and ceilings for the ones after it; one that a ceiling cuts or refuses is tried again, which is a row of its own if it grants something. Writes nothing.';
