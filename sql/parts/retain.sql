-- Retention: retain() deletes what is old of runs and of grants of periodic strategies, and keeps what is owed to them.

-- The key begins as that of grants does, and holds the user: it can be distributed like them.
CREATE TABLE quota_manager.pruned_grant (
	strategy_id integer,
	user_id text COLLATE "C",
	gateway text,
	grants bigint NOT NULL,
	completed bigint NOT NULL,
	amount numeric NOT NULL,
	last_time timestamptz NOT NULL,
	standing bigint NOT NULL,
	standing_amount numeric NOT NULL,
	standing_since timestamptz,
	standing_until timestamptz,
	refresh_time timestamptz,
	PRIMARY KEY (strategy_id, user_id, gateway)
) WITH (fillfactor = 80);
DO $$
DECLARE
	wanted CONSTANT text := pg_catalog.current_setting('quota_install.user_collation', true);
BEGIN
	IF wanted OPERATOR(pg_catalog.<>) '' THEN
		EXECUTE pg_catalog.format('ALTER TABLE quota_manager.pruned_grant ALTER user_id TYPE text COLLATE pg_catalog.%I', wanted);
	END IF;
END
$$;
COMMENT ON TABLE quota_manager.pruned_grant IS 'What retain() has deleted of grants, added up per strategy, user and gateway: audit_balances counts it.';
COMMENT ON COLUMN quota_manager.pruned_grant.strategy_id IS 'The strategy that granted.';
COMMENT ON COLUMN quota_manager.pruned_grant.user_id IS 'User the grants were for.';
COMMENT ON COLUMN quota_manager.pruned_grant.gateway IS 'Gateway they went to.';
COMMENT ON COLUMN quota_manager.pruned_grant.grants IS 'How many there were, without cancelled ones and reversals.';
COMMENT ON COLUMN quota_manager.pruned_grant.completed IS 'How many were completed, reversals included.';
COMMENT ON COLUMN quota_manager.pruned_grant.amount IS 'Sum of what was completed.';
COMMENT ON COLUMN quota_manager.pruned_grant.last_time IS 'When the last of them was granted.';
COMMENT ON COLUMN quota_manager.pruned_grant.standing IS 'How many of the completed ones were not overwritten by a gateway_refresh.';
COMMENT ON COLUMN quota_manager.pruned_grant.standing_amount IS 'Sum of their amounts: what a balance has of them.';
COMMENT ON COLUMN quota_manager.pruned_grant.standing_since IS 'When the first of these was granted; null: there is none.';
COMMENT ON COLUMN quota_manager.pruned_grant.standing_until IS 'When the last of these was settled.';
COMMENT ON COLUMN quota_manager.pruned_grant.refresh_time IS 'The refresh that they came after; null: the user had none.';
SELECT pg_catalog.pg_extension_config_dump('quota_manager.pruned_grant', '');

CREATE TABLE quota_manager.pruned_run (
	strategy_id integer PRIMARY KEY,
	runs bigint NOT NULL DEFAULT 0,
	skipped_firings bigint NOT NULL DEFAULT 0,
	grants bigint NOT NULL DEFAULT 0,
	completed bigint NOT NULL DEFAULT 0,
	amount numeric NOT NULL DEFAULT 0,
	until_time timestamptz,
	prune_time timestamptz NOT NULL,
	role text NOT NULL
);
COMMENT ON TABLE quota_manager.pruned_run IS 'What retain() has deleted of each strategy, added up.';
COMMENT ON COLUMN quota_manager.pruned_run.strategy_id IS 'The strategy.';
COMMENT ON COLUMN quota_manager.pruned_run.runs IS 'Runs that were deleted, or folded into a row of quota_run that stands for many.';
COMMENT ON COLUMN quota_manager.pruned_run.skipped_firings IS 'Firings that had been skipped, among them.';
COMMENT ON COLUMN quota_manager.pruned_run.grants IS 'Grants that were deleted, reversals included.';
COMMENT ON COLUMN quota_manager.pruned_run.completed IS 'How many of them were completed.';
COMMENT ON COLUMN quota_manager.pruned_run.amount IS 'Sum of the amounts of these.';
COMMENT ON COLUMN quota_manager.pruned_run.until_time IS 'When the last of the grants was written.';
COMMENT ON COLUMN quota_manager.pruned_run.prune_time IS 'When something of the strategy was last deleted.';
COMMENT ON COLUMN quota_manager.pruned_run.role IS 'The role that did it.';
SELECT pg_catalog.pg_extension_config_dump('quota_manager.pruned_run', '');

CREATE INDEX gateway_call_user ON quota_manager.gateway_call (user_id, call_time);
COMMENT ON INDEX quota_manager.gateway_call_user IS 'Finds the calls about a user, and with them what a refresh has overwritten.';

-- A scan may end while an edit of the cap waits; who edits the strategy has its row, and so has retain().
CREATE FUNCTION quota_internal.refuse_late_cap() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF TG_RELID <> 'quota_manager.quota_strategy'::regclass THEN
		RAISE EXCEPTION 'this trigger is for quota_manager.quota_strategy only' USING ERRCODE = 'wrong_object_type';
	END IF;
	IF EXISTS (SELECT 1 FROM quota_manager.pruned_grant p WHERE p.strategy_id = NEW.id) THEN
		RAISE EXCEPTION 'max_exec_per_user of strategy "%" cannot be set: retain() has deleted grants of it', NEW.name
			USING ERRCODE = 'object_not_in_prerequisite_state', COLUMN = 'max_exec_per_user',
				DETAIL = 'They would not be counted, and users could get more than the limit.',
				HINT = 'Archive it and write another strategy with the limit, which counts from then on.';
	END IF;
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION quota_internal.refuse_late_cap() IS 'Trigger: a strategy of which grants were pruned cannot get a limit per user, since it could not count them.';
CREATE TRIGGER refuse_late_cap AFTER UPDATE ON quota_manager.quota_strategy
	FOR EACH ROW WHEN (OLD.max_exec_per_user IS NULL AND NEW.max_exec_per_user IS NOT NULL)
	EXECUTE FUNCTION quota_internal.refuse_late_cap();
COMMENT ON TRIGGER refuse_late_cap ON quota_manager.quota_strategy IS 'A limit per user counts all grants there were.';

CREATE FUNCTION quota_internal.check_retain(keep interval, strategy_name text, batch integer) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF keep IS NULL THEN
		RAISE EXCEPTION 'how long runs and grants are kept must be given'
			USING ERRCODE = 'null_value_not_allowed', HINT = 'For example ''1 year''.';
	END IF;
	IF keep < interval '1 day' THEN
		RAISE EXCEPTION 'runs and grants are kept for at least a day, not for %', keep
			USING ERRCODE = 'invalid_parameter_value', HINT = 'For example ''1 year''.';
	END IF;
	-- A time so long ago may be none.
	IF keep > interval '1000 years' THEN
		RAISE EXCEPTION 'runs and grants are kept for at most 1000 years, not for %', keep
			USING ERRCODE = 'invalid_parameter_value', HINT = 'What is never deleted needs no call of retain().';
	END IF;
	IF (batch BETWEEN 1 AND 100000) IS NOT TRUE THEN
		RAISE EXCEPTION 'a batch has from 1 to 100000 grants, not %', coalesce(batch::text, 'null')
			USING ERRCODE = 'invalid_parameter_value', HINT = 'Leave it out for 1000.';
	END IF;
	IF strategy_name IS NOT NULL AND NOT EXISTS (SELECT 1 FROM quota_manager.quota_strategy s WHERE s.name = strategy_name) THEN
		RAISE EXCEPTION 'strategy "%" does not exist', strategy_name
			USING ERRCODE = 'undefined_object', HINT = 'See SELECT name FROM quota_manager.quota_strategy.';
	END IF;
END
$$;
COMMENT ON FUNCTION quota_internal.check_retain(interval, text, integer) IS 'Of retain() and retain_preview(): raises an error for arguments that cannot be meant.';

CREATE FUNCTION quota_internal.kept_firing(strategy_id integer) RETURNS timestamptz
LANGUAGE sql STABLE SET quota_manager.pinned_statistics = on
BEGIN ATOMIC
	SELECT r.scheduled_time FROM quota_manager.quota_run r
	WHERE r.strategy_id OPERATOR(pg_catalog.=) kept_firing.strategy_id AND r.scheduled_time IS NOT NULL AND r.state OPERATOR(pg_catalog.<>) 'skipped'
		AND r.last_scheduled_time IS NULL
	ORDER BY r.scheduled_time DESC OFFSET 29 LIMIT 1;
END;
COMMENT ON FUNCTION quota_internal.kept_firing(integer) IS 'Of retain(): the thirtieth last firing of a strategy that was run: this run and later ones are kept however old they are, so that people see what it did last. Null: it has fewer.';

CREATE FUNCTION quota_internal.usual_runs(strategy_id integer) RETURNS bigint[]
LANGUAGE sql STABLE SET quota_manager.pinned_statistics = on
BEGIN ATOMIC
	-- As many as surge_limit() looks at, or more.
	SELECT coalesce(pg_catalog.array_agg(l.id), '{}') FROM (SELECT r.id FROM quota_manager.quota_run r
		WHERE r.strategy_id OPERATOR(pg_catalog.=) usual_runs.strategy_id AND r.granted OPERATOR(pg_catalog.>) 0 ORDER BY r.id DESC LIMIT 30) l;
END;
COMMENT ON FUNCTION quota_internal.usual_runs(integer) IS 'Of retain(): the last thirty runs of a strategy that granted something, which are kept however old they are: the breaker goes by them.';

CREATE FUNCTION quota_internal.fold_run(run quota_manager.quota_run) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET quota_manager.pinned_statistics = on SET jit = off SET quota_manager.delete_proof = on
AS $$
DECLARE
	firings bigint := run.occurrences;
	last_firing timestamptz := coalesce(run.last_scheduled_time, run.scheduled_time);
	other quota_manager.quota_run;
BEGIN
	-- One row for all neighbours: its firings stay recorded, whatever the schedule clock says.
	SELECT r.* INTO other FROM quota_manager.quota_run r
		WHERE r.strategy_id = run.strategy_id AND r.scheduled_time > run.scheduled_time ORDER BY r.scheduled_time LIMIT 1;
	IF other.state = 'done' AND other.last_scheduled_time IS NOT NULL THEN
		DELETE FROM quota_manager.quota_run r WHERE r.id = other.id;
		last_firing := other.last_scheduled_time;
		firings := firings + other.occurrences;
	END IF;
	SELECT r.* INTO other FROM quota_manager.quota_run r
		WHERE r.strategy_id = run.strategy_id AND r.scheduled_time < run.scheduled_time ORDER BY r.scheduled_time DESC LIMIT 1;
	IF other.state = 'done' AND other.last_scheduled_time IS NOT NULL THEN
		DELETE FROM quota_manager.quota_run r WHERE r.id = run.id;
		UPDATE quota_manager.quota_run r SET last_scheduled_time = last_firing, occurrences = r.occurrences + firings,
			finish_time = greatest(r.finish_time, run.finish_time) WHERE r.id = other.id;
		RETURN;
	END IF;
	UPDATE quota_manager.quota_run r SET last_scheduled_time = last_firing, occurrences = firings, state = 'done',
		reason = 'stands for firings whose runs were pruned', matched = 0, granted = 0, already_granted = 0, capped = 0, unknown_balance = 0,
		amount = 0, over_ceiling = 0, sufficient = 0, first_grant_id = NULL, last_grant_id = NULL, undelivered = false, tries = 0, retry_time = NULL, whole_reason = NULL
		WHERE r.id = run.id;
END
$$;
COMMENT ON FUNCTION quota_internal.fold_run(quota_manager.quota_run) IS 'Of retain(): makes a run of which no grant is left part of the row that stands for the pruned firings next to it.';

CREATE FUNCTION quota_internal.overwritten(create_time timestamptz, update_time timestamptz, refresh_time timestamptz, overtaking interval) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
	WHEN refresh_time IS NULL OR create_time OPERATOR(pg_catalog.>=) refresh_time THEN false
	WHEN (refresh_time OPERATOR(pg_catalog.-) overtaking) OPERATOR(pg_catalog.>) update_time THEN true END;
COMMENT ON FUNCTION quota_internal.overwritten(timestamptz, timestamptz, timestamptz, interval) IS 'Of retain(), as audit_balances sees it: did the last refresh by hand overwrite what a settled grant added? Null: cannot be told.';

CREATE FUNCTION quota_internal.prunable_grants(run quota_manager.quota_run, after_grant bigint, batch integer, before timestamptz)
RETURNS TABLE (found quota_manager.quota_execute, refresh_time timestamptz, stands boolean, obstacle text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET quota_manager.pinned_statistics = on SET jit = off
AS $$
DECLARE
	chosen quota_manager.quota_execute[];
	users text[];
	awaited bigint[];
BEGIN
	PERFORM quota_internal.pin_statistics();
	chosen := ARRAY(SELECT e FROM quota_manager.quota_execute e
		WHERE e.id BETWEEN greatest(run.first_grant_id, after_grant + 1) AND run.last_grant_id AND e.run_id = run.id AND e.revision = 0
		ORDER BY e.id LIMIT batch);
	users := ARRAY(SELECT c.user_id FROM unnest(chosen) c);
	-- Of a grant that is settled, the reversal is still to be carried out.
	awaited := ARRAY(SELECT i.grant_id FROM quota_manager.quota_reversal_item i WHERE i.outcome = 'waits');
	RETURN QUERY
	WITH every AS (
		SELECT c.id AS first_id, c AS one FROM unnest(chosen) c
		UNION ALL
		-- Reversals: they are deleted with the grant, or keep it.
		SELECT c.id, e FROM quota_manager.quota_execute e JOIN unnest(chosen) c ON c.user_id = e.user_id
			WHERE e.strategy_id = run.strategy_id AND e.user_id = ANY (users) AND e.scheduled_time = run.scheduled_time AND e.revision > 0
	), refresh AS (
		SELECT c.user_id, c.gateway, max(c.call_time) AS at FROM quota_manager.gateway_call c
			WHERE c.action = 'refresh' AND c.outcome = 'applied' AND c.user_id = ANY (users) GROUP BY c.user_id, c.gateway
	), judged AS (
		SELECT v.first_id, v.one, f.at, coalesce(g.request_timeout, interval '10 min') AS overtaking
		FROM every v
		LEFT JOIN refresh f ON f.user_id = (v.one).user_id AND f.gateway = (v.one).gateway
		LEFT JOIN quota_manager.quota_gateway g ON g.name = (v.one).gateway
	)
	SELECT j.one, j.at, (j.one).status = 'completed' AND quota_internal.overwritten((j.one).create_time, (j.one).update_time, j.at, j.overtaking) IS FALSE,
		-- Of all revisions: any of them keeps all.
		min(CASE
			WHEN (j.one).status NOT IN ('completed', 'failed', 'cancelled') THEN 'not settled'
			WHEN (j.one).id = ANY (awaited) THEN 'a reversal waits for it'
			WHEN (j.one).update_time >= before OR (j.one).create_time >= before THEN 'settled lately'
			WHEN (j.one).status = 'completed' AND quota_internal.overwritten((j.one).create_time, (j.one).update_time, j.at, j.overtaking) IS NULL THEN 'next to a refresh by hand'
			END) OVER (PARTITION BY j.first_id)
	FROM judged j ORDER BY (j.one).id;
END
$$;
COMMENT ON FUNCTION quota_internal.prunable_grants(quota_manager.quota_run, bigint, integer, timestamptz) IS 'Of retain(): some grants of a run in the order of their ids, with their reversals, and why they are kept; null: they may be deleted.';

CREATE FUNCTION quota_internal.prune_grants(run quota_manager.quota_run, after_grant bigint, batch integer, before timestamptz,
	OUT seen bigint, OUT last_grant bigint, OUT deleted bigint, OUT kept bigint)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan SET jit = off SET quota_manager.pinned_statistics = on SET quota_manager.delete_proof = on
AS $$
DECLARE
	victims quota_manager.quota_execute[];
	refreshed timestamptz[];
	standing boolean[];
	gone bigint[];
BEGIN
	PERFORM quota_internal.pin_statistics();
	SELECT count(*) FILTER (WHERE (p.found).revision = 0), max((p.found).id) FILTER (WHERE (p.found).revision = 0),
			count(*) FILTER (WHERE p.obstacle IS NOT NULL), array_agg(p.found ORDER BY (p.found).id) FILTER (WHERE p.obstacle IS NULL),
			array_agg(p.refresh_time ORDER BY (p.found).id) FILTER (WHERE p.obstacle IS NULL),
			array_agg(p.stands ORDER BY (p.found).id) FILTER (WHERE p.obstacle IS NULL)
		INTO seen, last_grant, kept, victims, refreshed, standing
		FROM quota_internal.prunable_grants(run, after_grant, batch, before) p;
	deleted := 0;
	IF victims IS NULL THEN
		RETURN;
	END IF;
	WITH d AS (
		DELETE FROM quota_manager.quota_execute e USING unnest(victims) v
		WHERE e.strategy_id = v.strategy_id AND e.user_id = v.user_id AND e.scheduled_time = v.scheduled_time AND e.revision = v.revision
			AND e.status = v.status AND e.update_time = v.update_time
		RETURNING e.id)
	SELECT array_agg(d.id) INTO gone FROM d;
	deleted := coalesce(cardinality(gone), 0);
	-- The trigger does it, but for a table that is distributed.
	DELETE FROM quota_manager.troubled_grant t WHERE t.grant_id = ANY (gone);

	-- In the order of the key: two calls do not deadlock.
	INSERT INTO quota_manager.pruned_grant AS p (strategy_id, user_id, gateway, grants, completed, amount, last_time,
			standing, standing_amount, standing_since, standing_until, refresh_time)
		SELECT v.strategy_id, v.user_id, v.gateway, count(*) FILTER (WHERE v.revision = 0 AND v.status <> 'cancelled'),
			count(*) FILTER (WHERE v.status = 'completed'), coalesce(sum(v.amount) FILTER (WHERE v.status = 'completed'), 0), max(v.create_time),
			count(*) FILTER (WHERE k.stands), coalesce(sum(v.amount) FILTER (WHERE k.stands), 0), min(v.create_time) FILTER (WHERE k.stands),
			max(v.update_time) FILTER (WHERE k.stands), max(k.refresh_time)
		FROM unnest(victims) WITH ORDINALITY v
		JOIN unnest(refreshed, standing) WITH ORDINALITY k (refresh_time, stands, number) ON k.number = v.ordinality
		WHERE v.id = ANY (gone)
		GROUP BY v.strategy_id, v.user_id, v.gateway ORDER BY v.strategy_id, v.user_id, v.gateway
	ON CONFLICT (strategy_id, user_id, gateway) DO UPDATE SET
		grants = p.grants + excluded.grants, completed = p.completed + excluded.completed, amount = p.amount + excluded.amount,
		last_time = greatest(p.last_time, excluded.last_time),
		-- What was counted before a refresh is gone with it.
		standing = CASE WHEN p.refresh_time IS NOT DISTINCT FROM excluded.refresh_time THEN p.standing ELSE 0 END + excluded.standing,
		standing_amount = CASE WHEN p.refresh_time IS NOT DISTINCT FROM excluded.refresh_time THEN p.standing_amount ELSE 0 END + excluded.standing_amount,
		standing_since = CASE WHEN p.refresh_time IS NOT DISTINCT FROM excluded.refresh_time THEN least(p.standing_since, excluded.standing_since)
			ELSE excluded.standing_since END,
		standing_until = CASE WHEN p.refresh_time IS NOT DISTINCT FROM excluded.refresh_time THEN greatest(p.standing_until, excluded.standing_until)
			ELSE excluded.standing_until END,
		refresh_time = excluded.refresh_time;
	INSERT INTO quota_manager.pruned_run AS p (strategy_id, grants, completed, amount, until_time, prune_time, role)
		SELECT run.strategy_id, count(*), count(*) FILTER (WHERE v.status = 'completed'), coalesce(sum(v.amount) FILTER (WHERE v.status = 'completed'), 0),
			max(v.create_time), clock_timestamp(), quota_internal.deciding_role()
		FROM unnest(victims) v WHERE v.id = ANY (gone)
	ON CONFLICT (strategy_id) DO UPDATE SET grants = p.grants + excluded.grants, completed = p.completed + excluded.completed,
		amount = p.amount + excluded.amount, until_time = greatest(p.until_time, excluded.until_time),
		prune_time = excluded.prune_time, role = excluded.role;
END
$$;
COMMENT ON FUNCTION quota_internal.prune_grants(quota_manager.quota_run, bigint, integer, timestamptz) IS 'Of retain(): deletes what may be deleted of the next grants of a run, which the caller has locked, and adds it up. seen: how many grants there were, the last of them last_grant; kept: how many are left, reversals included.';

CREATE FUNCTION quota_internal.count_pruned_runs(strategy_id integer, runs bigint, skipped bigint) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
	INSERT INTO quota_manager.pruned_run AS p (strategy_id, runs, skipped_firings, prune_time, role)
		SELECT count_pruned_runs.strategy_id, count_pruned_runs.runs, count_pruned_runs.skipped, clock_timestamp(), quota_internal.deciding_role()
		WHERE count_pruned_runs.runs > 0
	ON CONFLICT (strategy_id) DO UPDATE SET runs = p.runs + excluded.runs, skipped_firings = p.skipped_firings + excluded.skipped_firings,
		prune_time = excluded.prune_time, role = excluded.role;
END
$$;
COMMENT ON FUNCTION quota_internal.count_pruned_runs(integer, bigint, bigint) IS 'Of retain(): counts the runs of a strategy that it has deleted, and the skipped firings that they stood for.';

CREATE FUNCTION quota_internal.prune_scans(strategy_id integer, batch integer, before timestamptz) RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET quota_manager.pinned_statistics = on SET jit = off
AS $$
DECLARE
	deleted bigint;
BEGIN
	-- Runs that granted are the origin of grants that are never deleted.
	DELETE FROM quota_manager.quota_run r WHERE r.id = ANY (ARRAY(
		SELECT o.id FROM quota_manager.quota_run o
		WHERE o.strategy_id = prune_scans.strategy_id AND o.scheduled_time IS NULL AND o.granted = 0 AND o.first_grant_id IS NULL AND o.finish_time < before
			AND o.id < (SELECT u.id FROM quota_manager.quota_run u WHERE u.strategy_id = prune_scans.strategy_id AND u.scheduled_time IS NULL
				ORDER BY u.id DESC OFFSET 29 LIMIT 1)
			-- A restored copy grants in doubt up to its first scan that is done and was not cut.
			AND o.id <> coalesce((SELECT max(u.id) FROM quota_manager.quota_run u
				WHERE u.strategy_id = prune_scans.strategy_id AND u.scheduled_time IS NULL AND u.state = 'done' AND u.over_ceiling = 0), 0)
			AND NOT EXISTS (SELECT 1 FROM quota_internal.scan_mark m WHERE m.run_id = o.id)
		ORDER BY o.id LIMIT batch FOR UPDATE SKIP LOCKED));
	GET DIAGNOSTICS deleted = ROW_COUNT;
	PERFORM quota_internal.count_pruned_runs(strategy_id, deleted, 0);
	RETURN deleted;
END
$$;
COMMENT ON FUNCTION quota_internal.prune_scans(integer, integer, timestamptz) IS 'Of retain(): deletes old runs of a strategy that had no firing and granted nothing. Returns how many.';

CREATE FUNCTION quota_internal.finish_old_run(run quota_manager.quota_run, strategy quota_manager.quota_strategy) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET quota_manager.pinned_statistics = on SET jit = off
AS $$
DECLARE
	reread quota_manager.quota_run;
BEGIN
	IF NOT quota_internal.try_lock_strategy(run.strategy_id) THEN
		RETURN false;
	END IF;
	-- A scan may have run it before the lock was taken.
	SELECT r.* INTO reread FROM quota_manager.quota_run r WHERE r.id = run.id;
	IF reread.state NOT IN ('failed', 'incomplete') OR run.scheduled_time IN (SELECT f FROM quota_internal.retried_firings(strategy) f) THEN
		RETURN false;
	END IF;
	-- An edit must not make it one that is tried again: users whose grants are gone would get them twice.
	UPDATE quota_manager.quota_run r SET state = 'done', tries = 0, retry_time = NULL,
		reason = concat_ws(': ', 'not tried any more when its grants were pruned; it was ' || r.state, r.reason) WHERE r.id = run.id;
	RETURN true;
EXCEPTION WHEN data_exception THEN
	-- A schedule that cannot be read: not known which firings are tried again.
	RETURN false;
END
$$;
COMMENT ON FUNCTION quota_internal.finish_old_run(quota_manager.quota_run, quota_manager.quota_strategy) IS 'Of retain(): ends for good a run that failed or is incomplete. False: it may be tried again, or the strategy is being run or edited.';

CREATE FUNCTION quota_internal.prune_run(run quota_manager.quota_run, boundary timestamptz, after_grant bigint, batch integer, before timestamptz,
	OUT work bigint, OUT last_grant bigint, OUT deleted bigint, OUT kept bigint, OUT is_gone boolean)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET quota_manager.pinned_statistics = on SET jit = off
AS $$
DECLARE
	part record;
BEGIN
	-- A run costs about as much as ten grants.
	work := 10;
	deleted := 0;
	kept := 0;
	is_gone := false;
	IF run.first_grant_id IS NOT NULL THEN
		SELECT p.* INTO part FROM quota_internal.prune_grants(run, after_grant, batch, before) p;
		work := work + part.seen;
		deleted := part.deleted;
		kept := part.kept;
		IF part.seen >= batch THEN
			last_grant := part.last_grant;
			RETURN;
		END IF;
		IF EXISTS (SELECT 1 FROM quota_manager.quota_execute e WHERE e.id BETWEEN run.first_grant_id AND run.last_grant_id AND e.run_id = run.id) THEN
			RETURN;
		END IF;
		UPDATE quota_manager.quota_run r SET first_grant_id = NULL, last_grant_id = NULL, undelivered = false WHERE r.id = run.id;
	END IF;
	IF run.scheduled_time < boundary THEN
		PERFORM quota_internal.fold_run(run);
		PERFORM quota_internal.count_pruned_runs(run.strategy_id, 1, CASE run.state WHEN 'skipped' THEN run.occurrences ELSE 0 END);
		is_gone := true;
	END IF;
END
$$;
COMMENT ON FUNCTION quota_internal.prune_run(quota_manager.quota_run, timestamptz, bigint, integer, timestamptz) IS 'Of retain(): deletes what may be deleted of a run, which the caller has locked: some of its grants, then the run, if it fired before the boundary. last_grant: where to go on; null: there is no more of it.';

CREATE FUNCTION quota_internal.prune_step(keep interval, strategy_name text, batch integer,
	INOUT strategy_id integer, INOUT firing timestamptz, INOUT after_grant bigint, OUT grants bigint, OUT runs bigint, OUT kept bigint)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET quota_manager.pinned_statistics = on SET jit = off
AS $$
DECLARE
	before CONSTANT timestamptz := clock_timestamp() - keep;
	firing_before CONSTANT timestamptz := quota_manager.schedule_now() - keep;
	visible CONSTANT integer[] := quota_internal.visible_strategies();
	strategy quota_manager.quota_strategy;
	run quota_manager.quota_run;
	boundary timestamptz;
	usual bigint[];
	step record;
	work bigint := 0;
BEGIN
	PERFORM quota_internal.pin_statistics();
	grants := 0;
	runs := 0;
	kept := 0;
	IF firing IS NULL THEN
		strategy_id := (SELECT min(s.id) FROM quota_manager.quota_strategy s
			WHERE s.id = ANY (visible) AND s.id > coalesce(prune_step.strategy_id, 0) AND (strategy_name IS NULL OR s.name = strategy_name));
		IF strategy_id IS NULL THEN
			RETURN;
		END IF;
	END IF;
	-- Edits wait for the end of this step; a strategy that is being edited is left for the next call.
	SELECT s.* INTO strategy FROM quota_manager.quota_strategy s WHERE s.id = prune_step.strategy_id FOR NO KEY UPDATE SKIP LOCKED;
	IF NOT FOUND THEN
		RAISE NOTICE 'strategy % is left out: another transaction edits it', prune_step.strategy_id;
		firing := NULL;
		RETURN;
	END IF;
	IF firing IS NULL THEN
		runs := quota_internal.prune_scans(strategy.id, batch, before);
		firing := CASE WHEN runs < batch THEN '-infinity'::timestamptz END;
		IF firing IS NULL THEN
			-- There are more of them.
			strategy_id := strategy_id - 1;
		END IF;
		RETURN;
	END IF;
	-- The limit counts all grants there were.
	IF strategy.max_exec_per_user IS NOT NULL THEN
		firing := NULL;
		RETURN;
	END IF;
	boundary := coalesce(quota_internal.kept_firing(strategy.id), '-infinity');
	usual := quota_internal.usual_runs(strategy.id);
	WHILE work < batch LOOP
		SELECT r.* INTO run FROM quota_manager.quota_run r
			WHERE r.strategy_id = strategy.id AND r.scheduled_time >= firing AND (r.scheduled_time > firing OR after_grant IS NOT NULL)
				AND r.scheduled_time < firing_before AND r.finish_time < before
				AND (r.first_grant_id IS NOT NULL OR r.scheduled_time < boundary AND r.id <> ALL (usual) AND (r.state = 'skipped' OR r.last_scheduled_time IS NULL))
			ORDER BY r.scheduled_time LIMIT 1 FOR UPDATE SKIP LOCKED;
		IF NOT FOUND THEN
			firing := NULL;
			after_grant := NULL;
			RETURN;
		END IF;
		IF run.scheduled_time <> firing THEN
			after_grant := NULL;
		END IF;
		firing := run.scheduled_time;
		IF run.state IN ('failed', 'incomplete') AND NOT quota_internal.finish_old_run(run, strategy) THEN
			after_grant := NULL;
			work := work + 10;
			CONTINUE;
		END IF;
		SELECT p.* INTO step FROM quota_internal.prune_run(run, CASE WHEN run.id = ANY (usual) THEN '-infinity' ELSE boundary END, coalesce(after_grant, 0), greatest(batch - work, 1)::integer, before) p;
		after_grant := step.last_grant;
		work := work + step.work;
		grants := grants + step.deleted;
		kept := kept + step.kept;
		runs := runs + step.is_gone::integer;
	END LOOP;
END
$$;
COMMENT ON FUNCTION quota_internal.prune_step(interval, text, integer, integer, timestamptz, bigint) IS 'Of retain(): one transaction of it. It goes on from a strategy, one of its firings and one of the grants of that, and returns where to go on: strategy_id null at the beginning and at the end, firing null at the beginning of a strategy.';

CREATE FUNCTION quota_internal.oldest_grant(strategy_name text) RETURNS timestamptz
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET quota_manager.pinned_statistics = on SET jit = off
AS $$
BEGIN
	RETURN (SELECT min(o.start_time) FROM quota_manager.quota_strategy s
		CROSS JOIN LATERAL (SELECT r.start_time FROM quota_manager.quota_run r
			WHERE r.strategy_id = s.id AND r.scheduled_time IS NOT NULL AND r.first_grant_id IS NOT NULL ORDER BY r.scheduled_time LIMIT 1) o
		WHERE strategy_name IS NULL OR s.name = strategy_name);
END
$$;
COMMENT ON FUNCTION quota_internal.oldest_grant(text) IS 'Of retain(): when the oldest run was made of which grants for firings are left.';

CREATE PROCEDURE quota_manager.retain(keep interval, strategy_name text DEFAULT NULL, batch integer DEFAULT 1000,
	INOUT grants bigint DEFAULT 0, INOUT runs bigint DEFAULT 0, INOUT kept bigint DEFAULT 0, INOUT oldest_left timestamptz DEFAULT NULL)
LANGUAGE C AS 'MODULE_PATHNAME', 'qm_retain';
COMMENT ON PROCEDURE quota_manager.retain(interval, text, integer, bigint, bigint, bigint, timestamptz) IS 'Deletes grants of periodic strategies that were settled longer ago than keep, and runs that are older, of all strategies or of the named one. Never deletes grants of single strategies, grants that are not settled, or those of strategies with max_exec_per_user. Commits after every batch, so it can be cancelled and called again. Returns how many grants and runs it deleted, how many old grants it had to keep (kept), and when the oldest run was made that has grants left. See docs/operations.md.';

CREATE FUNCTION quota_manager.retain_preview(keep interval, strategy_name text DEFAULT NULL)
RETURNS TABLE (strategy text, action text, grants bigint, runs bigint, oldest timestamptz, reason text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET quota_manager.pinned_statistics = on SET jit = off
AS $$
#variable_conflict use_column
DECLARE
	before timestamptz;
	firing_before timestamptz;
BEGIN
	PERFORM quota_internal.pin_statistics(), quota_internal.check_retain(keep, strategy_name, 1);
	before := clock_timestamp() - keep;
	firing_before := quota_manager.schedule_now() - keep;
	RETURN QUERY
	SELECT s.name, CASE WHEN v.reason IS NULL THEN 'delete' ELSE 'keep' END, sum(CASE WHEN r.first_grant_id IS NOT NULL THEN r.granted ELSE 0 END)::bigint,
		count(*), min(r.start_time), CASE WHEN v.reason IS NULL AND bool_or(r.undelivered) THEN 'but those that are not settled' ELSE v.reason END
	FROM quota_manager.quota_strategy s
	JOIN quota_manager.quota_run r ON r.strategy_id = s.id AND r.finish_time < before
		AND (r.scheduled_time IS NULL OR r.scheduled_time < firing_before) AND NOT (r.state = 'done' AND r.last_scheduled_time IS NOT NULL)
	CROSS JOIN LATERAL (SELECT CASE
		WHEN r.scheduled_time IS NULL AND r.granted > 0 THEN 'single: its grants are the proof that users have them'
		WHEN r.scheduled_time IS NOT NULL AND s.max_exec_per_user IS NOT NULL THEN 'max_exec_per_user counts its grants'
		WHEN r.first_grant_id IS NULL AND (r.scheduled_time IS NULL AND (SELECT count(*) <= 30 FROM quota_manager.quota_run u
				WHERE u.strategy_id = s.id AND u.scheduled_time IS NULL AND u.id >= r.id)
			OR (r.scheduled_time < quota_internal.kept_firing(s.id)) IS FALSE OR r.id = ANY (quota_internal.usual_runs(s.id)))
			THEN 'among its last thirty runs' END AS reason OFFSET 0) v
	WHERE strategy_name IS NULL OR s.name = strategy_name
	GROUP BY s.name, v.reason ORDER BY s.name COLLATE "C", v.reason NULLS FIRST;
END
$$;
COMMENT ON FUNCTION quota_manager.retain_preview(interval, text) IS 'What retain() would delete, and what it would keep and why, per strategy, by what runs say of their grants: reversals, which go with them, are not counted. Writes nothing.';
