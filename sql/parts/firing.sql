-- Firings of periodic strategies: which are run, and the record of those that are not.

CREATE FUNCTION quota_internal.recorded_until(strategy quota_manager.quota_strategy) RETURNS timestamptz
LANGUAGE sql STABLE SET quota_manager.pinned_statistics = on
BEGIN ATOMIC
	SELECT greatest(strategy.schedule_since,
		(SELECT coalesce(r.last_scheduled_time, r.scheduled_time) FROM quota_manager.quota_run r
			WHERE r.strategy_id OPERATOR(pg_catalog.=) strategy.id AND r.scheduled_time OPERATOR(pg_catalog.<=) (SELECT quota_manager.schedule_now())
			ORDER BY r.scheduled_time DESC LIMIT 1));
END;
COMMENT ON FUNCTION quota_internal.recorded_until(quota_manager.quota_strategy) IS 'The last firing of a periodic strategy up to now that quota_run records, or schedule_since; firings after it are open. Later firings that were recorded while the clock was ahead count when their time comes.';

CREATE FUNCTION quota_internal.last_run(strategy_id integer) RETURNS quota_manager.quota_run
LANGUAGE sql STABLE SET quota_manager.pinned_statistics = on
BEGIN ATOMIC
	SELECT r FROM quota_manager.quota_run r
	WHERE r.strategy_id OPERATOR(pg_catalog.=) last_run.strategy_id AND r.state OPERATOR(pg_catalog.<>) 'skipped'
		AND (r.scheduled_time OPERATOR(pg_catalog.<=) (SELECT quota_manager.schedule_now()) OR r.scheduled_time IS NULL)
	ORDER BY r.scheduled_time DESC NULLS LAST, r.id DESC LIMIT 1;
END;
COMMENT ON FUNCTION quota_internal.last_run(integer) IS 'The last run of a strategy that was not skipped.';

CREATE FUNCTION quota_internal.open_spans(strategy quota_manager.quota_strategy)
RETURNS TABLE (after_time timestamptz, until_time timestamptz, reason text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	clock CONSTANT timestamptz := quota_manager.schedule_now();
	since CONSTANT timestamptz := quota_internal.recorded_until(strategy);
	-- Spans are open at their start; firings are whole seconds.
	valid_after CONSTANT timestamptz := least(clock, strategy.valid_from - interval '1 us');
	valid_to CONSTANT timestamptz := least(clock, strategy.valid_until - interval '1 us');
BEGIN
	IF strategy.type <> 'periodic' OR since >= clock THEN
		RETURN;
	END IF;
	IF strategy.archived OR NOT strategy.enabled THEN
		RETURN QUERY SELECT since, clock, strategy.state;
		RETURN;
	END IF;
	RETURN QUERY SELECT s.* FROM (VALUES
			(since, valid_after, 'before valid_from'),
			(greatest(since, valid_after), valid_to, CASE WHEN clock >= strategy.valid_until THEN 'not run before valid_until' END),
			(greatest(since, valid_to), clock, 'after valid_until')) s (after_time, until_time, reason)
		WHERE s.after_time < s.until_time;
END
$$;
COMMENT ON FUNCTION quota_internal.open_spans(quota_manager.quota_strategy) IS 'Spans of time (after_time, until_time] up to now whose firings quota_run does not record yet, in order, and why they are not run; null: catch_up decides.';

CREATE FUNCTION quota_internal.catch_up_start(strategy quota_manager.quota_strategy) RETURNS timestamptz
LANGUAGE sql STABLE
RETURN CASE
	WHEN strategy.catch_up OPERATOR(pg_catalog.=) 'none' THEN quota_manager.schedule_now() OPERATOR(pg_catalog.-) interval '2 min'
	ELSE coalesce(
		-- In UTC, so that a day has 24 hours whatever the time zone of the session is.
		pg_catalog.timezone('UTC', pg_catalog.timezone('UTC', quota_manager.schedule_now()) OPERATOR(pg_catalog.-) strategy.catch_up_window),
		CASE WHEN strategy.catch_up OPERATOR(pg_catalog.=) 'all' THEN quota_manager.schedule_now() OPERATOR(pg_catalog.-) interval '24 hours' ELSE '-infinity' END)
	END;
COMMENT ON FUNCTION quota_internal.catch_up_start(quota_manager.quota_strategy) IS 'Firings at or before this time are too late to be run.';

CREATE FUNCTION quota_internal.open_firings(strategy quota_manager.quota_strategy, next_only boolean DEFAULT false)
RETURNS TABLE (first_firing timestamptz, last_firing timestamptz, firings bigint, reason text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
	start CONSTANT timestamptz := quota_internal.catch_up_start(strategy);
	wanted CONSTANT integer := CASE strategy.catch_up WHEN 'all' THEN strategy.catch_up_max ELSE 1 END;
	span record;
	in_time record;
	since timestamptz;
	step interval := interval '1 min';
BEGIN
	FOR span IN SELECT s.* FROM quota_internal.open_spans(strategy) s LOOP
		IF span.reason IS NOT NULL THEN
			RETURN QUERY SELECT r.*, span.reason
				FROM quota_manager.firing_range(strategy.periodic_expr, span.after_time, span.until_time, strategy.time_zone) r WHERE r.firings > 0;
			CONTINUE;
		END IF;
		IF start > span.after_time THEN
			RETURN QUERY SELECT r.*, CASE strategy.catch_up WHEN 'none' THEN 'more than 2 minutes late' ELSE 'older than catch_up_window' END
				FROM quota_manager.firing_range(strategy.periodic_expr, span.after_time, least(start, span.until_time), strategy.time_zone) r WHERE r.firings > 0;
		END IF;
		since := greatest(start, span.after_time);
		CONTINUE WHEN since >= span.until_time;
		SELECT r.* INTO in_time FROM quota_manager.firing_range(strategy.periodic_expr, since, span.until_time, strategy.time_zone) r;
		IF in_time.firings > wanted THEN
			-- The last ones are run.  They are searched in growing steps back, since a schedule may fire each second or once in years.
			WHILE (SELECT r.firings < wanted FROM quota_manager.firing_range(strategy.periodic_expr,
					greatest(since, span.until_time - step), span.until_time, strategy.time_zone) r) LOOP
				step := step * 2;
			END LOOP;
			SELECT f INTO since FROM quota_manager.firings(strategy.periodic_expr, greatest(since, span.until_time - step), span.until_time, strategy.time_zone) f
				ORDER BY f DESC OFFSET wanted - 1 LIMIT 1;
			since := since - interval '1 us';
			RETURN QUERY SELECT r.*, CASE strategy.catch_up WHEN 'all' THEN 'more than catch_up_max' ELSE 'a later firing was run instead' END
				FROM quota_manager.firing_range(strategy.periodic_expr, in_time.first_firing - interval '1 us', since, strategy.time_zone) r;
		END IF;
		-- In the select list, so that no more firings are computed than LIMIT allows.
		RETURN QUERY SELECT f, f, 1::bigint, NULL
			FROM (SELECT quota_manager.firings(strategy.periodic_expr, since, span.until_time, strategy.time_zone) LIMIT CASE WHEN next_only THEN 1 END) l(f);
	END LOOP;
END
$$;
COMMENT ON FUNCTION quota_internal.open_firings(quota_manager.quota_strategy, boolean) IS 'Firings of a periodic strategy up to now that quota_run does not record yet, in order: those to be run one by one with reason null; those to be skipped as ranges with the reason. next_only: of those to be run, only the first.';

CREATE FUNCTION quota_internal.retried_firings(strategy quota_manager.quota_strategy) RETURNS SETOF timestamptz
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET quota_manager.pinned_statistics = on SET jit = off
AS $$
DECLARE
	clock CONSTANT timestamptz := quota_manager.schedule_now();
	late timestamptz := greatest(strategy.schedule_since, strategy.valid_from - interval '1 us', quota_internal.catch_up_start(strategy));
BEGIN
	IF strategy.type <> 'periodic' OR strategy.archived OR NOT strategy.enabled OR clock >= strategy.valid_until THEN
		RETURN;
	END IF;
	IF strategy.catch_up <> 'all' THEN
		-- Only the last firing, and only until a later one takes its place.
		late := greatest(late, quota_internal.recorded_until(strategy) - interval '1 us');
	END IF;
	RETURN QUERY SELECT r.scheduled_time FROM quota_manager.quota_run r
		WHERE r.strategy_id = strategy.id AND r.scheduled_time > late AND r.scheduled_time <= clock AND r.state IN ('failed', 'incomplete')
			AND (strategy.catch_up = 'all' OR NOT EXISTS (SELECT 1 FROM quota_internal.open_firings(strategy, next_only => true) o WHERE o.reason IS NULL))
		ORDER BY 1;
END
$$;
COMMENT ON FUNCTION quota_internal.retried_firings(quota_manager.quota_strategy) IS 'Firings of a periodic strategy whose run failed or is incomplete, and that are tried again.';

-- Not called any more: dumps of 1.0.0 have rights on it, and could not be restored without it.
CREATE FUNCTION quota_internal.due_firings(strategy quota_manager.quota_strategy) RETURNS SETOF timestamptz
LANGUAGE sql STABLE
BEGIN ATOMIC
	SELECT f.firing FROM quota_internal.retried_firings(strategy) f (firing)
	UNION ALL SELECT o.first_firing FROM quota_internal.open_firings(strategy) o WHERE o.reason IS NULL
	ORDER BY 1;
END;
COMMENT ON FUNCTION quota_internal.due_firings(quota_manager.quota_strategy) IS 'Firings of a periodic strategy that are to be run now by the schedule clock, as its catch_up says, those that are tried again included; in order.';

CREATE FUNCTION quota_internal.record_skipped(strategy quota_manager.quota_strategy, first_firing timestamptz, last_firing timestamptz, firings bigint, why text) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET quota_manager.pinned_statistics = on SET jit = off
AS $$
DECLARE
	last quota_manager.quota_run;
BEGIN
	SELECT r.* INTO last FROM quota_manager.quota_run r
		WHERE r.strategy_id = strategy.id AND r.scheduled_time < first_firing ORDER BY r.scheduled_time DESC LIMIT 1;
	IF last.state = 'skipped' AND last.reason = why AND last.granted = 0 THEN
		UPDATE quota_manager.quota_run r SET last_scheduled_time = last_firing, occurrences = r.occurrences + firings, finish_time = clock_timestamp()
			WHERE r.id = last.id;
	ELSE
		INSERT INTO quota_manager.quota_run (strategy_id, strategy_version, scheduled_time, last_scheduled_time, occurrences, state, reason, start_time, finish_time)
			VALUES (strategy.id, strategy.version, first_firing, nullif(last_firing, first_firing), firings, 'skipped', why, clock_timestamp(), clock_timestamp());
	END IF;
END
$$;
COMMENT ON FUNCTION quota_internal.record_skipped(quota_manager.quota_strategy, timestamptz, timestamptz, bigint, text) IS 'Records firings of a strategy, which follow the recorded ones, as skipped; consecutive firings skipped for one reason are one row.';

CREATE FUNCTION quota_internal.record_passed_over(strategy quota_manager.quota_strategy) RETURNS timestamptz
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	open record;
BEGIN
	-- Computed once: the clock moves on, and a firing must not be recorded as skipped and then run.
	FOR open IN SELECT o.* FROM quota_internal.open_firings(strategy, next_only => true) o LOOP
		IF open.reason IS NULL THEN
			RETURN open.first_firing;
		END IF;
		PERFORM quota_internal.record_skipped(strategy, open.first_firing, open.last_firing, open.firings, open.reason);
	END LOOP;
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION quota_internal.record_passed_over(quota_manager.quota_strategy) IS 'Of scan(): records the skipped firings before the next one to be run, and returns that one; null: none. The caller holds the lock of the strategy.';

CREATE FUNCTION quota_internal.record_edited_schedule() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	span record;
	why CONSTANT text := CASE
		WHEN NEW.state <> 'active' THEN NEW.state
		WHEN NEW.schedule_since <> OLD.schedule_since THEN 'schedule edited' END;
BEGIN
	-- A cast from the rows of another table would be called with the rights of the owner.
	IF TG_RELID <> 'quota_manager.quota_strategy'::regclass THEN
		RAISE EXCEPTION 'this trigger is for quota_manager.quota_strategy only' USING ERRCODE = 'wrong_object_type';
	END IF;
	-- An older snapshot would not show what a scan has just recorded.
	IF current_setting('transaction_isolation') <> 'read committed' THEN
		RAISE EXCEPTION 'schedules are edited at isolation level read committed only'
			USING ERRCODE = 'invalid_transaction_state', HINT = 'Begin the transaction with ISOLATION LEVEL READ COMMITTED.';
	END IF;
	FOR span IN SELECT s.after_time, s.until_time, coalesce(s.reason, why) AS reason FROM quota_internal.open_spans(OLD) s LOOP
		EXIT WHEN span.reason IS NULL;
		PERFORM quota_internal.record_skipped(OLD, r.first_firing, r.last_firing, r.firings, span.reason)
			FROM quota_manager.firing_range(OLD.periodic_expr, span.after_time, span.until_time, OLD.time_zone) r WHERE r.firings > 0;
	END LOOP;
	RETURN NULL;
EXCEPTION WHEN data_exception THEN
	-- A schedule in an unknown time zone has no firings to record, and an edit must not fail because times are out of range.
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION quota_internal.record_edited_schedule() IS 'Trigger: firings pending under the old definition are recorded as skipped at once. Runs as the owner, since editors need no right to write runs.';
CREATE TRIGGER record_edited_schedule AFTER UPDATE ON quota_manager.quota_strategy
	FOR EACH ROW WHEN (OLD.type = 'periodic' AND (OLD.enabled, OLD.archived, OLD.type, OLD.periodic_expr::text, OLD.time_zone, OLD.valid_from, OLD.valid_until)
		IS DISTINCT FROM (NEW.enabled, NEW.archived, NEW.type, NEW.periodic_expr::text, NEW.time_zone, NEW.valid_from, NEW.valid_until))
	EXECUTE FUNCTION quota_internal.record_edited_schedule();
COMMENT ON TRIGGER record_edited_schedule ON quota_manager.quota_strategy IS 'Firings up to an edit of the schedule are recorded by the old definition.';
