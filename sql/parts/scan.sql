-- Scans: strategies x subjects -> quota_execute.

-- The rule by which these locks are taken: src/scan/scan_lock.h.
CREATE FUNCTION quota_internal.lock_strategies(strategy_ids integer[]) RETURNS void
LANGUAGE C VOLATILE STRICT AS 'MODULE_PATHNAME', 'qm_lock_strategies';
COMMENT ON FUNCTION quota_internal.lock_strategies(integer[]) IS 'Waits for scans and edits of the strategies to end, and blocks new ones until the transaction ends.';

CREATE FUNCTION quota_internal.try_lock_strategy(strategy_id integer) RETURNS boolean
LANGUAGE C VOLATILE STRICT AS 'MODULE_PATHNAME', 'qm_try_lock_strategy';
COMMENT ON FUNCTION quota_internal.try_lock_strategy(integer) IS 'Of record_failure(): blocks scans and edits of the strategy until the transaction ends. False: another transaction edits or scans it.';

CREATE FUNCTION quota_internal.strategy_is_locked(strategy_id integer) RETURNS boolean
LANGUAGE C VOLATILE STRICT AS 'MODULE_PATHNAME', 'qm_strategy_is_locked';
COMMENT ON FUNCTION quota_internal.strategy_is_locked(integer) IS 'Of run_due(): does another transaction edit or scan the strategy?';

CREATE FUNCTION quota_internal.lock_balances(gateway text) RETURNS void
LANGUAGE C VOLATILE STRICT AS 'MODULE_PATHNAME', 'qm_lock_balances';
COMMENT ON FUNCTION quota_internal.lock_balances(text) IS 'Waits for scans that grant or decide by balances at the gateway, and blocks new ones until the transaction ends.';

CREATE FUNCTION quota_internal.lock_scan(strategy_id integer, exclusive_gateways text[], shared_gateway text) RETURNS boolean
LANGUAGE C VOLATILE STRICT AS 'MODULE_PATHNAME', 'qm_lock_scan';
COMMENT ON FUNCTION quota_internal.lock_scan(integer, text[], text) IS 'Of scan(): takes the lock of the strategy and those of the balances at gateways, all or none. False: another transaction has one, and this one must not wait since it holds others.';

CREATE FUNCTION quota_internal.has_readings(gateway text) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET quota_manager.pinned_statistics = on SET jit = off
AS $$
BEGIN
	PERFORM quota_internal.pin_statistics();
	RETURN EXISTS (SELECT 1 FROM quota_manager.user_balance b WHERE b.gateway = has_readings.gateway
		AND (b.balance IS NOT NULL OR b.token IS NOT NULL));
END
$$;
COMMENT ON FUNCTION quota_internal.has_readings(text) IS 'Of scan(): does user_balance hold a balance sample or a token for the gateway?';

CREATE FUNCTION quota_internal.condition_gateways(condition quota_manager.condition) RETURNS text[]
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	models CONSTANT text[] := quota_manager.condition_models(condition);
BEGIN
	IF models = '{}' THEN
		RETURN models;
	END IF;
	RETURN ARRAY(SELECT DISTINCT quota_manager.gateway_of(m) FROM unnest(models) m WHERE quota_manager.gateway_of(m) IS NOT NULL);
END
$$;
COMMENT ON FUNCTION quota_internal.condition_gateways(quota_manager.condition) IS 'Gateways whose balances a condition asks for.';

CREATE FUNCTION quota_internal.strategy_gateways(strategy quota_manager.quota_strategy) RETURNS text[]
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	gateways CONSTANT text[] := quota_internal.condition_gateways(strategy.condition);
	target text;
BEGIN
	IF strategy.allowance <> 'add' THEN
		target := quota_manager.gateway_of(strategy.model);
		IF target <> ALL (gateways) THEN
			RETURN gateways || target;
		END IF;
	END IF;
	RETURN gateways;
END
$$;
COMMENT ON FUNCTION quota_internal.strategy_gateways(quota_manager.quota_strategy) IS 'Gateways whose balances decide whom a strategy grants something, or how much.';

CREATE FUNCTION quota_internal.try_scan_locks(strategy quota_manager.quota_strategy) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	target CONSTANT text := coalesce(quota_manager.gateway_of(strategy.model), '');
	decides text[] := quota_internal.strategy_gateways(strategy);
BEGIN
	-- Clearing balance samples needs the exclusive lock: two transactions would lock the same rows in different orders.
	IF quota_internal.has_readings(target) THEN
		decides := decides || target;
	END IF;
	RETURN quota_internal.lock_scan(strategy.id, decides, target);
END
$$;
COMMENT ON FUNCTION quota_internal.try_scan_locks(quota_manager.quota_strategy) IS 'Of scan(): takes what a run of the strategy locks; see lock_scan.';

CREATE FUNCTION quota_internal.lock_due_strategy(strategy_id integer) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	strategy quota_manager.quota_strategy;
	version integer;
BEGIN
	LOOP
		SELECT s.* INTO strategy FROM quota_manager.quota_strategy s WHERE s.id = lock_due_strategy.strategy_id;
		IF strategy.version IS NOT DISTINCT FROM version THEN
			RETURN true;
		END IF;
		IF NOT quota_internal.try_scan_locks(strategy) THEN
			RETURN false;
		END IF;
		-- Read it again now that it is locked: an edit may have changed what is to be locked.
		version := strategy.version;
	END LOOP;
END
$$;
COMMENT ON FUNCTION quota_internal.lock_due_strategy(integer) IS 'Of scan(): takes what a run of the strategy locks, as it is then. False: another transaction has some of it.';

CREATE FUNCTION quota_internal.open_users(gateways text[]) RETURNS TABLE (user_id text, gateway text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET jit = off SET max_parallel_workers_per_gather = 0 SET quota_manager.pinned_statistics = on
AS $$
DECLARE
	stretch record;
BEGIN
	PERFORM quota_internal.pin_statistics();
	FOR stretch IN SELECT s.* FROM quota_internal.undelivered_stretches() s LOOP
		RETURN QUERY SELECT DISTINCT e.user_id, e.gateway FROM quota_manager.quota_execute e
			WHERE e.id BETWEEN stretch.low AND stretch.high AND e.run_id = ANY (stretch.runs) AND e.gateway = ANY (gateways)
				AND (e.status = 'pending' OR e.status = 'processing' OR e.status = 'in_doubt' AND e.next_attempt_time < 'infinity');
	END LOOP;
	RETURN QUERY SELECT b.user_id, b.gateway FROM quota_internal.bulk_sent_users(gateways) b;
END
$$;
COMMENT ON FUNCTION quota_internal.open_users(text[]) IS 'Users with open grants at gateways, neither settled nor left to an operator, or with a request of a bulk call under way there. Their balances do not count. A user may come more than once.';

CREATE FUNCTION quota_internal.forget_balances(run_id bigint, first_grant_id bigint, last_grant_id bigint, gateway text) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET jit = off SET quota_manager.pinned_statistics = on
AS $$
BEGIN
	PERFORM quota_internal.pin_statistics();
	IF quota_internal.has_readings(gateway) THEN
		UPDATE quota_manager.user_balance b SET balance = NULL, token = NULL
			FROM (SELECT DISTINCT e.user_id FROM quota_manager.quota_execute e WHERE e.run_id = forget_balances.run_id
				AND e.id BETWEEN first_grant_id AND last_grant_id AND e.gateway = forget_balances.gateway) e
			WHERE b.user_id = e.user_id AND b.gateway = forget_balances.gateway AND (b.balance IS NOT NULL OR b.token IS NOT NULL);
	END IF;
END
$$;
COMMENT ON FUNCTION quota_internal.forget_balances(bigint, bigint, bigint, text) IS 'Of scan(): drops the cached balances of users who were granted something at the gateway, since they predate the grants and quota-le would match again. Answers in flight will not count either.';

CREATE FUNCTION quota_internal.guard_balances(gateways text[]) RETURNS text
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET jit = off SET quota_manager.pinned_statistics = on
AS $$
DECLARE
	horizon CONSTANT timestamptz := quota_internal.balance_horizon();
	clock CONSTANT timestamptz := quota_internal.balance_clock();
	checked record;
	fallen bigint;
	others bigint;
	awaited bigint;
	since timestamptz;
	problem text;
BEGIN
	PERFORM quota_internal.pin_statistics();
	FOR checked IN
		SELECT g.name, g.guard_balances AS is_guarded FROM quota_manager.quota_gateway g
		WHERE g.name = ANY (gateways) AND NOT EXISTS (SELECT 1 FROM quota_manager.balance_suspension s WHERE s.gateway = g.name)
		ORDER BY g.name
	LOOP
		SELECT count(*), min(b.read_time) INTO fallen, since FROM quota_manager.user_balance b
			WHERE b.gateway = checked.name AND b.balance = 0 AND b.last_balance > 0 AND b.read_time > horizon AND b.read_time <= clock;
		CONTINUE WHEN fallen = 0;
		-- Samples from long before the first fall say nothing about the gateway now.
		SELECT count(*) FILTER (WHERE b.balance <> 0 AND b.read_time > greatest(horizon, since - interval '10 s') AND b.read_time <= clock),
				count(*) FILTER (WHERE b.balance IS NULL AND b.token <> 0 AND b.last_balance > 0)
			INTO others, awaited FROM quota_manager.user_balance b
			WHERE b.gateway = checked.name AND (b.balance IS NOT NULL OR b.token IS NOT NULL);
		IF checked.is_guarded AND fallen * 10 >= (fallen + others) * 9 THEN
			IF fallen + others >= 10 THEN
				problem := format('balances of gateway "%s" are suspended: %s of %s users read 0 at once; see release_balances',
					checked.name, fallen, fallen + others);
				INSERT INTO quota_manager.balance_suspension (gateway, since, reason) VALUES (checked.name, clock, problem);
				RAISE WARNING '%', problem
					USING ERRCODE = 'object_not_in_prerequisite_state',
						DETAIL = 'Their last balances were above 0. Perhaps the gateway lost its data, or keeps it elsewhere since it was upgraded.',
						HINT = format('If the balances are right, call quota_manager.release_balances(%L, note). Until then conditions treat them as missing.', checked.name);
				CONTINUE;
			ELSIF fallen + others + awaited >= 10 AND since > clock - interval '1 min' THEN
				RETURN format('left out: all but %s of %s users read 0 at gateway "%s", and answers for others are awaited', others, fallen + others, checked.name);
			END IF;
		END IF;
		UPDATE quota_manager.user_balance b SET last_balance = NULL
			WHERE b.gateway = checked.name AND b.balance = 0 AND b.last_balance > 0 AND b.read_time > horizon AND b.read_time <= clock;
	END LOOP;
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION quota_internal.guard_balances(text[]) IS 'Of scan(), which has locked the balances at the gateways: suspends those of a gateway where at least 90 percent of at least 10 users fell to 0 since they were last accepted, and accepts the others. Returns why they must not decide yet; null: they may.';

CREATE FUNCTION quota_internal.lock_edited_strategy() RETURNS trigger
LANGUAGE C AS 'MODULE_PATHNAME', 'qm_lock_edited_strategy';
COMMENT ON FUNCTION quota_internal.lock_edited_strategy() IS 'Trigger: an edit waits for a running scan of the strategy, and a scan for an edit. An edit that puts the strategy out of use cancels the scan of a scheduler; other edits report which processes they wait for.';
-- Its name sorts before the other triggers: they must see what a scan has just granted.
CREATE TRIGGER await_scan BEFORE UPDATE OR DELETE ON quota_manager.quota_strategy
	FOR EACH ROW EXECUTE FUNCTION quota_internal.lock_edited_strategy();
COMMENT ON TRIGGER await_scan ON quota_manager.quota_strategy IS 'An edit waits for a running scan of the strategy.';

CREATE FUNCTION quota_internal.check_writable(what text) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF current_setting('transaction_read_only')::boolean THEN
		RAISE EXCEPTION '% only in a transaction that can write', what
			USING ERRCODE = 'read_only_sql_transaction',
				DETAIL = CASE WHEN pg_is_in_recovery() THEN 'This server is a standby.' ELSE 'This transaction is read-only.' END,
				HINT = CASE WHEN pg_is_in_recovery() THEN 'Connect to the primary.' ELSE 'Begin it READ WRITE; default_transaction_read_only says how transactions begin.' END;
	END IF;
END
$$;
COMMENT ON FUNCTION quota_internal.check_writable(text) IS 'Raises an error in a transaction that cannot write, before anything else is checked or done.';

CREATE FUNCTION quota_internal.check_transaction(what text) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	PERFORM quota_internal.check_writable(what);
	IF current_setting('transaction_isolation') <> 'read committed' THEN
		RAISE EXCEPTION '% at isolation level read committed only', what
			USING ERRCODE = 'invalid_transaction_state',
				DETAIL = 'The snapshot of this transaction may be older than what another session has just granted or disabled.',
				HINT = 'Begin the transaction with ISOLATION LEVEL READ COMMITTED.';
	END IF;
END
$$;
COMMENT ON FUNCTION quota_internal.check_transaction(text) IS 'Raises an error in a transaction that cannot write, or keeps one snapshot: a lock taken there does not make newer rows visible.';

CREATE FUNCTION quota_internal.evaluate(strategies integer[])
RETURNS TABLE (strategy_id integer, strategy_version integer, matched bigint, unknown bigint, left_out bigint)
LANGUAGE C VOLATILE STRICT AS 'MODULE_PATHNAME', 'qm_evaluate';
COMMENT ON FUNCTION quota_internal.evaluate(integer[]) IS 'Of scan(): finds the users of one strategy, or of those of several strategies that can be evaluated before any of them grants, with the rights of the caller. The result is kept for grant_evaluated() until end_evaluation().';

CREATE FUNCTION quota_internal.grant_evaluated(template quota_manager.quota_execute, cap integer, anew boolean, room bigint, room_amount numeric, writes boolean,
	OUT matched bigint, OUT granted bigint, OUT already_granted bigint, OUT capped bigint, OUT unknown bigint, OUT left_out bigint,
	OUT over_ceiling bigint, OUT sufficient bigint, OUT amount numeric, OUT magnitude numeric)
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'qm_grant_evaluated';
COMMENT ON FUNCTION quota_internal.grant_evaluated(quota_manager.quota_execute, integer, boolean, bigint, numeric, boolean) IS 'Of scan(): writes grants like the template for the users found for its strategy who have none, and counts. cap: see max_exec_per_user; anew: no user can have a grant yet; room, room_amount: at most so many grants, and so much in all (null: no limit), in the order of user ids; writes: false only counts. magnitude: amount without signs.';

CREATE FUNCTION quota_internal.evaluated_count(strategy_id integer) RETURNS bigint
LANGUAGE C VOLATILE STRICT AS 'MODULE_PATHNAME', 'qm_evaluated_count';
COMMENT ON FUNCTION quota_internal.evaluated_count(integer) IS 'How many users grant_evaluated() would look at: it grants no more.';

CREATE FUNCTION quota_internal.evaluated_users(strategy_id integer, firing timestamptz, cap integer) RETURNS TABLE (user_id text, verdict text)
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'qm_evaluated_users';
COMMENT ON FUNCTION quota_internal.evaluated_users(integer, timestamptz, integer) IS 'What grant_evaluated() would do for each user found: admitted, granted (already), capped, sufficient (the balance is at the allowance), or unknown (a balance is missing that decides). Leaves ceilings out. Writes nothing.';

CREATE FUNCTION quota_internal.note_scan_progress(total bigint, done bigint) RETURNS void
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'qm_note_scan_progress';
COMMENT ON FUNCTION quota_internal.note_scan_progress(bigint, bigint) IS 'Of scan(): the number of its runs (null: as before), and how many more are done, for stat_progress_scan.';

CREATE FUNCTION quota_internal.begin_scan() RETURNS void
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'qm_begin_scan';
COMMENT ON FUNCTION quota_internal.begin_scan() IS 'Of scan(), before it writes anything: records the moment, for the marks of its evaluations.';

CREATE TABLE quota_internal.scan_mark (
	strategy_id integer PRIMARY KEY,
	strategy_version integer NOT NULL,
	run_id bigint NOT NULL,
	users bigint NOT NULL,
	seen xid8 NOT NULL,
	base pg_lsn,
	base_next xid8,
	candidate pg_lsn NOT NULL,
	candidate_next xid8 NOT NULL
);
COMMENT ON TABLE quota_internal.scan_mark IS 'How far the last scan of a single strategy has seen, so that the next one evaluates only users who have changed. May be deleted: the next scan then evaluates all users.';
COMMENT ON COLUMN quota_internal.scan_mark.strategy_id IS 'The strategy.';
COMMENT ON COLUMN quota_internal.scan_mark.strategy_version IS 'Version that was scanned; a mark of another one does not count.';
COMMENT ON COLUMN quota_internal.scan_mark.run_id IS 'The run that wrote it; does not count where that is gone.';
COMMENT ON COLUMN quota_internal.scan_mark.users IS 'Fingerprint of the table of users and its columns.';
COMMENT ON COLUMN quota_internal.scan_mark.seen IS 'All transactions before this one had ended, and what they wrote was seen.';
COMMENT ON COLUMN quota_internal.scan_mark.base IS 'Position in the log before which that transaction and later ones had written nothing; null: none is known.';
COMMENT ON COLUMN quota_internal.scan_mark.base_next IS 'The next transaction at that position.';
COMMENT ON COLUMN quota_internal.scan_mark.candidate IS 'Position that may become the base of a later scan.';
COMMENT ON COLUMN quota_internal.scan_mark.candidate_next IS 'The next transaction at that position.';

CREATE FUNCTION quota_internal.evaluation_mark(strategy_id integer, OUT whole_reason text, OUT users bigint, OUT seen xid8, OUT base pg_lsn, OUT base_next xid8,
	OUT candidate pg_lsn, OUT candidate_next xid8)
LANGUAGE C VOLATILE STRICT AS 'MODULE_PATHNAME', 'qm_evaluation_mark';
COMMENT ON FUNCTION quota_internal.evaluation_mark(integer) IS 'Of scan(): why all users were evaluated for a strategy (null: only those who have changed), and its mark; nulls if the next evaluation cannot use one.';

CREATE FUNCTION quota_internal.end_evaluation(strategy_id integer) RETURNS void
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'qm_end_evaluation';
COMMENT ON FUNCTION quota_internal.end_evaluation(integer) IS 'Of scan(): frees what evaluate() found for a strategy alone; null: for all. The end of the transaction does it too.';

CREATE FUNCTION quota_internal.visible_strategies() RETURNS integer[]
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'qm_visible_strategies';
COMMENT ON FUNCTION quota_internal.visible_strategies() IS 'Ids of the strategies that the caller may see, by the rights and policies of the site.';

CREATE FUNCTION quota_manager.undecided(strategy_id integer) RETURNS TABLE (user_id text, gateway text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET jit = off SET max_parallel_workers_per_gather = 0 SET quota_manager.pinned_statistics = on
AS $$
DECLARE
	strategy quota_manager.quota_strategy;
	gateways text[];
BEGIN
	SELECT s.* INTO strategy FROM quota_manager.quota_strategy s
		WHERE s.id = undecided.strategy_id AND s.id = ANY (quota_internal.visible_strategies());
	gateways := quota_internal.strategy_gateways(strategy);
	-- A suspended gateway's balances would still be missing afterwards.
	gateways := ARRAY(SELECT n FROM unnest(gateways) n WHERE n NOT IN (SELECT b.gateway FROM quota_manager.balance_suspension b));
	IF strategy.condition IS NULL OR gateways = '{}' THEN
		RETURN;
	END IF;
	PERFORM quota_internal.evaluate(ARRAY[strategy.id]);
	RETURN QUERY SELECT v.user_id, g.gateway
		-- A periodic strategy has no grants yet for the coming firing, which the balances are for.
		FROM quota_internal.evaluated_users(strategy.id, CASE strategy.type WHEN 'single' THEN '-infinity' ELSE 'infinity' END::timestamptz, strategy.max_exec_per_user) v
		CROSS JOIN unnest(gateways) g (gateway)
		LEFT JOIN quota_manager.user_balance b ON b.user_id = v.user_id AND b.gateway = g.gateway
		-- NOT IN is hashed once; a join might become a nested loop, since the number of open grants cannot be estimated.
		WHERE v.verdict = 'unknown' AND (v.user_id, g.gateway) NOT IN (SELECT o.user_id, o.gateway FROM quota_internal.open_users(gateways) o)
			AND quota_internal.answer_may_arrive(nullif(b.lost_time, '-infinity'), b.lost_moment) IS NOT TRUE
			AND (b.balance IS NOT NULL AND b.read_time > quota_internal.balance_horizon() AND b.read_time <= quota_internal.balance_clock()) IS NOT TRUE;
	PERFORM quota_internal.end_evaluation(strategy.id);
END
$$;
COMMENT ON FUNCTION quota_manager.undecided(integer) IS 'Balances to read before the strategy is scanned: of users whose answer, or whose amount, depends on a missing balance, and who have nothing open at the gateway, so that the balance will count.';

CREATE FUNCTION quota_internal.record_run(run quota_manager.quota_run) RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET quota_manager.pinned_statistics = on SET jit = off
AS $$
DECLARE
	last quota_manager.quota_run;
BEGIN
	IF run.scheduled_time IS NULL THEN
		SELECT r.* INTO last FROM quota_manager.quota_run r
			WHERE r.strategy_id = run.strategy_id AND r.scheduled_time IS NULL ORDER BY r.id DESC LIMIT 1;
	ELSE
		SELECT r.* INTO last FROM quota_manager.quota_run r WHERE r.strategy_id = run.strategy_id AND r.scheduled_time = run.scheduled_time;
	END IF;
	run.tries := CASE
		WHEN run.state = 'done' THEN 0
		-- After an edit of the strategy, gateways or models, counting starts again.
		WHEN (last.strategy_version, last.setup) = (run.strategy_version, run.setup) THEN least(last.tries, 1000000) + 1
		ELSE 1 END;
	run.retry_time := CASE WHEN run.tries > 0 THEN greatest(run.retry_time, run.finish_time + quota_internal.retry_delay(run.tries)) END;
	-- A single scan that changed nothing, like the one before it, is one row with it.
	IF run.scheduled_time IS NULL AND run.granted = 0 AND last.granted = 0
		AND (last.strategy_version, last.state, last.reason) IS NOT DISTINCT FROM (run.strategy_version, run.state, run.reason)
		-- An incremental scan has no figures for users who have not changed.
		AND run.over_ceiling = last.over_ceiling AND (run.state = 'done' AND run.whole_reason IS NULL OR (last.matched, last.already_granted, last.capped, last.unknown_balance, last.sufficient)
			IS NOT DISTINCT FROM (run.matched, run.already_granted, run.capped, run.unknown_balance, run.sufficient))
	THEN
		UPDATE quota_manager.quota_run r SET occurrences = least(r.occurrences, 9223372036854775806) + 1, finish_time = run.finish_time,
			setup = run.setup, tries = run.tries, retry_time = run.retry_time, whole_reason = run.whole_reason WHERE r.id = last.id;
		RETURN last.id;
	END IF;
	INSERT INTO quota_manager.quota_run AS r VALUES (run.*)
	ON CONFLICT (strategy_id, scheduled_time) DO UPDATE SET
		strategy_version = excluded.strategy_version, state = excluded.state, reason = excluded.reason,
		-- Users granted in an earlier try may no longer meet the condition.
		matched = greatest(excluded.matched, r.granted + excluded.granted), granted = r.granted + excluded.granted, already_granted = excluded.already_granted,
		capped = excluded.capped, unknown_balance = excluded.unknown_balance, amount = coalesce(r.amount, 0) + excluded.amount,
		over_ceiling = excluded.over_ceiling, sufficient = excluded.sufficient,
		first_grant_id = least(r.first_grant_id, excluded.first_grant_id),
		last_grant_id = greatest(r.last_grant_id, excluded.last_grant_id),
		undelivered = r.undelivered OR excluded.undelivered, finish_time = excluded.finish_time,
		setup = excluded.setup, tries = excluded.tries, retry_time = excluded.retry_time, whole_reason = excluded.whole_reason;
	RETURN run.id;
END
$$;
COMMENT ON FUNCTION quota_internal.record_run(quota_manager.quota_run) IS 'Of scan(): writes what became of a run, and when it is tried again if it failed or is incomplete. Returns the id of the row.';

CREATE FUNCTION quota_internal.admit_firing(strategy quota_manager.quota_strategy, firing timestamptz) RETURNS timestamptz
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	next_open timestamptz;
BEGIN
	IF EXISTS (SELECT 1 FROM quota_internal.retried_firings(strategy) f WHERE f = firing) THEN
		RETURN firing;
	END IF;
	-- Even if the firing is not due any more, after an edit.
	next_open := quota_internal.record_passed_over(strategy);
	-- A long scan may reach this strategy late: then a later firing takes its place at once.  Otherwise the last strategies of
	-- a long scan would be reported as late in every scan.
	RETURN CASE WHEN firing <= next_open THEN next_open END;
END
$$;
COMMENT ON FUNCTION quota_internal.admit_firing(quota_manager.quota_strategy, timestamptz) IS 'Of scan(): the firing that is to be run now where one was found to be due: itself, or the later one that has taken its place; null: none. Records those before it that are not run.';

CREATE FUNCTION quota_internal.note_scan(mark quota_internal.scan_mark) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF mark.seen IS NULL THEN
		DELETE FROM quota_internal.scan_mark m WHERE m.strategy_id = mark.strategy_id;
		RETURN;
	END IF;
	INSERT INTO quota_internal.scan_mark AS m VALUES (mark.*)
		ON CONFLICT (strategy_id) DO UPDATE SET strategy_version = excluded.strategy_version, run_id = excluded.run_id, users = excluded.users,
			seen = excluded.seen, base = excluded.base, base_next = excluded.base_next, candidate = excluded.candidate, candidate_next = excluded.candidate_next;
END
$$;
COMMENT ON FUNCTION quota_internal.note_scan(quota_internal.scan_mark) IS 'Of scan(): keeps the mark of a scan that is done; one without a mark ends the one before.';

CREATE FUNCTION quota_internal.is_tried_again(strategy_id integer, firing timestamptz) RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET quota_manager.pinned_statistics = on SET jit = off
AS $$
BEGIN
	IF firing IS NULL THEN
		RETURN (SELECT r.state FROM quota_manager.quota_run r WHERE r.strategy_id = is_tried_again.strategy_id AND r.scheduled_time IS NULL
			ORDER BY r.id DESC LIMIT 1) IS DISTINCT FROM 'done';
	END IF;
	RETURN EXISTS (SELECT 1 FROM quota_manager.quota_run r WHERE r.strategy_id = is_tried_again.strategy_id AND r.scheduled_time = firing);
END
$$;
COMMENT ON FUNCTION quota_internal.is_tried_again(integer, timestamptz) IS 'Of scan(): has an earlier run of the strategy for the firing (null: a single strategy) not done all of it?';

CREATE FUNCTION quota_internal.run_strategy(strategy_id integer, firing timestamptz, setup bigint DEFAULT quota_internal.gateway_setup(), evaluated boolean DEFAULT false)
RETURNS quota_manager.quota_run
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET quota_manager.pinned_statistics = on SET jit = off
AS $$
DECLARE
	strategy quota_manager.quota_strategy;
	run quota_manager.quota_run;
	template quota_manager.quota_execute;
	-- Outside of the inner block, so that a missing table is not recorded as an error of the strategy.
	grant_ids CONSTANT regclass := pg_get_serial_sequence('quota_manager.quota_execute', 'id');
	counts record;
	mark quota_internal.scan_mark;
	gateways text[];
	anew boolean;
	maybe_granted boolean;
	clock CONSTANT timestamptz := quota_manager.schedule_now();
	room record;
	surge record;
	stop_reason text;
	is_surge boolean := false;
	cut_reason text;
	cut_lasts boolean := false;
	waits_for text;
	detail text;
	-- Another writer of grants that ignores the lock of the strategy causes a key violation.
	retries integer := 3;
BEGIN
	run.strategy_id := strategy_id;
	run.occurrences := 1;
	run.start_time := clock_timestamp();
	run.granted := 0;
	run.matched := 0;
	run.already_granted := 0;
	run.capped := 0;
	run.unknown_balance := 0;
	run.amount := 0;
	run.over_ceiling := 0;
	run.sufficient := 0;
	run.undelivered := false;
	run.setup := setup;
	PERFORM quota_internal.require_identity(true);
	-- Evaluated strategies are locked to the end of the transaction.
	IF NOT evaluated AND NOT quota_internal.lock_due_strategy(strategy_id) THEN
		run.scheduled_time := firing;
		run.state := 'locked';
		run.reason := 'left out: another transaction edits or scans it, or uses the balances at a gateway of its';
		run.finish_time := clock_timestamp();
		RETURN run;
	END IF;
	SELECT s.* INTO strategy FROM quota_manager.quota_strategy s WHERE s.id = run_strategy.strategy_id;
	-- Changed, disabled or already run since it was found due.
	IF NOT FOUND OR strategy.type = 'single' AND (firing IS NOT NULL OR NOT strategy.enabled OR strategy.archived
			OR quota_manager.schedule_now() < strategy.valid_from OR quota_manager.schedule_now() >= strategy.valid_until) THEN
		RETURN NULL;
	END IF;
	-- Or paused.
	IF quota_internal.run_is_held(strategy) THEN
		RETURN NULL;
	END IF;
	IF firing IS NOT NULL THEN
		firing := quota_internal.admit_firing(strategy, firing);
		IF firing IS NULL THEN
			RETURN NULL;
		END IF;
	END IF;
	run.scheduled_time := firing;
	run.strategy_version := strategy.version;
	-- A firing that is tried again keeps its run: the grants name it.
	IF firing IS NOT NULL THEN
		run.id := (SELECT r.id FROM quota_manager.quota_run r WHERE r.strategy_id = strategy.id AND r.scheduled_time = firing);
		anew := run.id IS NULL;
	END IF;
	run.id := coalesce(run.id, nextval(pg_get_serial_sequence('quota_manager.quota_run', 'id')));
	BEGIN
		IF strategy.type = 'periodic' AND firing IS NULL THEN
			-- Nothing is to be run, or its schedule cannot be read and the run says why.
			PERFORM quota_internal.record_passed_over(strategy);
			RETURN NULL;
		END IF;
		template.strategy_id := strategy.id;
		template.scheduled_time := coalesce(firing, '-infinity');
		template.revision := 0;
		template.run_id := run.id;
		template.strategy_version := strategy.version;
		template.amount := strategy.amount;
		template.model := strategy.model;
		template.gateway := quota_manager.gateway_of(strategy.model);
		template.create_time := now();
		template.update_time := now();
		-- Keeps the gateway until its grants can be seen.
		PERFORM 1 FROM quota_manager.quota_gateway g WHERE g.name = template.gateway FOR KEY SHARE;
		PERFORM quota_internal.check_strategy_target(strategy.name, strategy.model, strategy.amount);
		PERFORM quota_internal.check_strategy_models(strategy.name, strategy.condition);
		gateways := quota_internal.strategy_gateways(strategy);
		IF gateways <> '{}' THEN
			waits_for := quota_internal.guard_balances(gateways);
		END IF;
		IF waits_for IS NOT NULL THEN
			run.state := 'locked';
			run.reason := waits_for;
			run.finish_time := clock_timestamp();
			RETURN run;
		END IF;
		maybe_granted := quota_internal.is_doubtful(strategy, firing);
		template.maybe_granted_before := maybe_granted;
		IF maybe_granted THEN
			template.status := 'in_doubt';
			template.next_attempt_time := 'infinity';
			template.doubt_time := template.create_time;
			template.last_error := 'may have been granted and delivered before this database was restored or promoted';
		ELSE
			template.status := 'pending';
			template.next_attempt_time := '-infinity';
		END IF;
		template.batch_number := to_char(quota_internal.local_time(coalesce(firing, quota_manager.schedule_now()), strategy.time_zone), 'YYYYMMDDHH24MISS');
		-- If there are no grants yet, all users who match are granted.  The ORDER BY makes the planner use the index.
		IF firing IS NULL THEN
			anew := (SELECT true FROM quota_manager.quota_execute e WHERE e.strategy_id = strategy.id ORDER BY e.user_id LIMIT 1) IS NULL;
		END IF;
		IF NOT evaluated THEN
			PERFORM quota_internal.evaluate(ARRAY[strategy.id]);
		END IF;
		PERFORM quota_internal.lock_ceilings(strategy.id, clock);
		SELECT r.* INTO room FROM quota_internal.ceiling_room(strategy.id, clock, run.id) r;
		-- Earlier tries count too: a condition on balances does not find again whom they have granted to.
		SELECT l.* INTO surge FROM quota_internal.surge_limit(strategy.id, run.id) l
			WHERE quota_internal.evaluated_count(strategy.id) > CASE WHEN quota_internal.is_tried_again(strategy.id, firing)
				THEN 0 ELSE quota_internal.setting('surge_minimum')::bigint END;
		LOOP
			BEGIN
				run.first_grant_id := nextval(grant_ids);
				-- Counts first where it may have to stop: what is written and rolled back is work for VACUUM.
				IF room.strict_amount IS NOT NULL OR quota_internal.evaluated_count(strategy.id) > least(room.strict_grants, surge.usual - surge.so_far) THEN
					SELECT c.* INTO counts FROM quota_internal.grant_evaluated(template, strategy.max_exec_per_user, anew, room.grants, room.amount, false) c;
					SELECT s.* INTO stop_reason, is_surge FROM quota_internal.reason_to_stop(strategy.id, clock, run.id, counts.granted, counts.magnitude, surge.usual, surge.so_far) s;
					EXIT WHEN stop_reason IS NOT NULL;
				END IF;
				SELECT c.* INTO counts FROM quota_internal.grant_evaluated(template, strategy.max_exec_per_user, anew, room.grants, room.amount, true) c;
				EXIT;
			EXCEPTION WHEN unique_violation THEN
				retries := retries - 1;
				IF retries = 0 THEN
					RAISE;
				END IF;
				-- A user has a grant after all.
				anew := false;
			END;
		END LOOP;
		SELECT m.whole_reason, m.users, m.seen, m.base, m.base_next, m.candidate, m.candidate_next
			INTO run.whole_reason, mark.users, mark.seen, mark.base, mark.base_next, mark.candidate, mark.candidate_next
			FROM quota_internal.evaluation_mark(strategy.id) m;
		IF NOT evaluated THEN
			PERFORM quota_internal.end_evaluation(strategy.id);
		END IF;
		run.matched := counts.matched;
		run.granted := counts.granted;
		run.already_granted := counts.already_granted;
		run.capped := counts.capped;
		run.unknown_balance := counts.unknown;
		run.amount := counts.amount;
		run.over_ceiling := counts.over_ceiling;
		run.sufficient := counts.sufficient;
		IF stop_reason IS NOT NULL THEN
			run.granted := 0;
			run.amount := 0;
			run.over_ceiling := CASE WHEN is_surge THEN counts.over_ceiling ELSE counts.granted + counts.over_ceiling END;
		ELSIF counts.over_ceiling > 0 THEN
			SELECT c.* INTO cut_reason, cut_lasts FROM quota_internal.cutting_ceiling(strategy.id, clock, run.id, counts.granted, counts.granted + counts.over_ceiling,
				counts.magnitude + counts.over_ceiling * abs(strategy.amount)) c;
		END IF;
		IF run.granted > 0 THEN
			PERFORM quota_internal.count_under_ceilings(strategy.id, clock, counts.granted, counts.magnitude);
			run.last_grant_id := nextval(grant_ids);
			run.undelivered := NOT maybe_granted;
			PERFORM quota_internal.forget_balances(run.id, run.first_grant_id, run.last_grant_id, template.gateway);
			PERFORM quota_internal.count_granted(run, template.gateway, maybe_granted);
		ELSE
			run.first_grant_id := NULL;
		END IF;
		run.state := CASE WHEN stop_reason IS NOT NULL THEN 'failed' WHEN run.unknown_balance > 0 OR cut_lasts THEN 'incomplete' ELSE 'done' END;
		IF stop_reason IS NOT NULL AND NOT is_surge OR cut_lasts AND run.unknown_balance = 0 THEN
			run.retry_time := quota_internal.ceiling_retry_time(strategy.id, clock);
		END IF;
		run.reason := nullif(concat_ws('; ', stop_reason,
			CASE WHEN counts.over_ceiling > 0 AND stop_reason IS NULL THEN format('over a ceiling: %s', counts.over_ceiling) || coalesce(' (' || cut_reason || ')', '') END, CASE WHEN run.unknown_balance > 0 THEN 'some balances are not known' END,
			CASE WHEN run.unknown_balance > 0 THEN (SELECT string_agg(b.reason, '; ' ORDER BY b.gateway) FROM quota_manager.balance_suspension b
				WHERE b.gateway = ANY (gateways)) END,
			CASE WHEN maybe_granted AND run.granted > 0 THEN 'granted in doubt' END,
			CASE WHEN counts.left_out > 0 THEN 'users left out because their ids are longer than 2600 bytes: ' || counts.left_out END), '');
	EXCEPTION
	-- The lock_timeout of the caller expired: not an error of the strategy.
	WHEN lock_not_available THEN
		RAISE;
	WHEN OTHERS THEN
		GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
		run.state := 'failed';
		run.reason := SQLERRM || CASE WHEN detail <> '' THEN ' (' || detail || ')' ELSE '' END;
		run.granted := 0;
		run.amount := 0;
		stop_reason := NULL;
		is_surge := false;
		run.first_grant_id := NULL;
		run.last_grant_id := NULL;
		run.undelivered := false;
	END;
	run.finish_time := clock_timestamp();
	run.id := quota_internal.record_run(run);
	IF is_surge THEN
		INSERT INTO quota_manager.quota_pause (scope, strategy_id, cause, note, run_id, would_grant)
			VALUES ('strategy', strategy.id, 'breaker', format('%s would be granted, usual are at most %s', surge.so_far + counts.granted, surge.usual), run.id, surge.so_far + counts.granted)
			ON CONFLICT DO NOTHING;
	END IF;
	-- Users over a ceiling must be found again.
	IF run.state = 'done' AND run.over_ceiling = 0 THEN
		mark.strategy_id := strategy.id;
		mark.strategy_version := strategy.version;
		mark.run_id := run.id;
		PERFORM quota_internal.note_scan(mark);
	END IF;
	RETURN run;
END
$$;
COMMENT ON FUNCTION quota_internal.run_strategy(integer, timestamptz, bigint, boolean) IS 'Of scan(): runs one strategy for one firing (null: a single strategy, or a periodic one that has no firing to be run) under its lock, and records the firings before it that are not run; an error is recorded, not raised, unless it is the caller''s lock_timeout. setup: gateway_setup() before anything was looked up; evaluated: evaluate() was called for it. Null: nothing was run.';

CREATE FUNCTION quota_internal.evaluate_together(strategies integer[], OUT evaluated integer[], OUT idle integer[])
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET quota_manager.pinned_statistics = on SET jit = off
AS $$
DECLARE
	locked integer[] := ARRAY[]::integer[];
	candidate integer;
BEGIN
	FOREACH candidate IN ARRAY strategies LOOP
		IF quota_internal.lock_due_strategy(candidate) THEN
			locked := locked || candidate;
		END IF;
	END LOOP;
	IF cardinality(locked) > 1 THEN
		SELECT array_agg(e.strategy_id), array_agg(e.strategy_id) FILTER (WHERE e.matched + e.unknown + e.left_out = 0)
			INTO evaluated, idle FROM quota_internal.evaluate(locked) e;
	END IF;
	evaluated := coalesce(evaluated, ARRAY[]::integer[]);
	idle := coalesce(idle, ARRAY[]::integer[]);
EXCEPTION
-- Raised here, not once for each strategy.
WHEN lock_not_available THEN
	RAISE;
WHEN OTHERS THEN
	-- The run of the strategy at fault records the error.
	evaluated := ARRAY[]::integer[];
	idle := evaluated;
END
$$;
COMMENT ON FUNCTION quota_internal.evaluate_together(integer[]) IS 'Of scan(): locks strategies and evaluates those that can share passes over the users; returns these, and those among them without any users.';

CREATE FUNCTION quota_internal.record_idle(strategies integer[], setup bigint) RETURNS integer[]
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET quota_manager.pinned_statistics = on SET jit = off
AS $$
DECLARE
	clock CONSTANT timestamptz := quota_manager.schedule_now();
	recorded integer[];
BEGIN
	IF cardinality(strategies) = 0 THEN
		RETURN strategies;
	END IF;
	PERFORM quota_internal.require_identity(true);
	WITH same AS (
		SELECT last.id, s.id AS strategy_id, m.whole_reason FROM quota_manager.quota_strategy s
		CROSS JOIN LATERAL quota_internal.evaluation_mark(s.id) m
		CROSS JOIN LATERAL (SELECT r.* FROM quota_manager.quota_run r WHERE r.strategy_id = s.id AND r.scheduled_time IS NULL ORDER BY r.id DESC LIMIT 1) last
		WHERE s.id = ANY (strategies) AND s.type = 'single' AND s.enabled AND NOT s.archived AND clock >= s.valid_from AND clock < s.valid_until
			-- record_run() would merge it into the last row.
			AND last.granted = 0 AND last.state = 'done' AND last.reason IS NULL AND last.strategy_version = s.version
			AND (m.whole_reason IS NULL OR (last.matched, last.already_granted, last.capped, last.unknown_balance, last.over_ceiling, last.sufficient) = (0, 0, 0, 0, 0, 0))
			AND EXISTS (SELECT 1 FROM quota_manager.quota_gateway g WHERE g.name = quota_manager.gateway_of(s.model)
				AND quota_internal.amount_fits(g.dialect, s.amount))
	), updated AS (
		UPDATE quota_manager.quota_run r SET occurrences = least(r.occurrences, 9223372036854775806) + 1, finish_time = clock_timestamp(),
				setup = record_idle.setup, tries = 0, retry_time = NULL, whole_reason = same.whole_reason
			FROM same WHERE r.id = same.id
			RETURNING r.strategy_id, r.strategy_version, r.id
	), marked AS (
		INSERT INTO quota_internal.scan_mark AS m (strategy_id, strategy_version, run_id, users, seen, base, base_next, candidate, candidate_next)
			SELECT u.strategy_id, u.strategy_version, u.id, e.users, e.seen, e.base, e.base_next, e.candidate, e.candidate_next
			FROM updated u CROSS JOIN LATERAL quota_internal.evaluation_mark(u.strategy_id) e WHERE e.seen IS NOT NULL
			ON CONFLICT (strategy_id) DO UPDATE SET strategy_version = excluded.strategy_version, run_id = excluded.run_id, users = excluded.users,
				seen = excluded.seen, base = excluded.base, base_next = excluded.base_next, candidate = excluded.candidate, candidate_next = excluded.candidate_next
	)
	SELECT coalesce(array_agg(u.strategy_id), ARRAY[]::integer[]) INTO recorded FROM updated u;
	RETURN recorded;
END
$$;
COMMENT ON FUNCTION quota_internal.record_idle(integer[], bigint) IS 'Of scan(): records in one statement the runs of single strategies that found no users, as the run before; returns which. run_strategy() for each would cost more than the evaluation.';

CREATE FUNCTION quota_manager.scan(strategy_name text DEFAULT NULL)
RETURNS TABLE (strategy text, scheduled_time timestamptz, matched bigint, granted bigint, already_granted bigint, capped bigint,
	unknown_balance bigint, error text, elapsed interval, note text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET quota_manager.pinned_statistics = on SET jit = off
AS $$
#variable_conflict use_column
DECLARE
	setup CONSTANT bigint := quota_internal.gateway_setup();
	visible integer[];
	chosen integer[];
	runs bigint;
	together record;
	recorded integer[];
	due record;
	run quota_manager.quota_run;
	idle quota_manager.quota_strategy;
	found_due boolean := false;
BEGIN
	PERFORM quota_internal.check_transaction('strategies are scanned');
	PERFORM quota_internal.begin_scan();
	visible := quota_internal.visible_strategies();
	PERFORM quota_internal.require_identity(false);
	IF strategy_name IS NULL AND EXISTS (SELECT 1 FROM quota_manager.quota_pause p WHERE p.scope = 'everything' AND p.end_time IS NULL) THEN
		RAISE NOTICE '%', (SELECT 'everything is paused ' || quota_internal.pause_words(p) FROM quota_manager.quota_pause p
				WHERE p.scope = 'everything' AND p.end_time IS NULL)
			USING DETAIL = 'Nothing is run until quota_manager.unpause_all().';
	END IF;
	FOR due IN SELECT d.* FROM quota_internal.due_strategies(strategy_name) d WHERE d.strategy_id = ANY (visible) LOOP
		IF recorded IS NULL THEN
			SELECT coalesce(array_agg(DISTINCT d.strategy_id ORDER BY d.strategy_id), '{}'), count(*) INTO chosen, runs
				FROM quota_internal.due_strategies(strategy_name) d WHERE d.strategy_id = ANY (visible);
			SELECT e.* INTO together FROM quota_internal.evaluate_together(chosen) e;
			recorded := quota_internal.record_idle(together.idle, setup);
			PERFORM quota_internal.note_scan_progress(runs, cardinality(recorded));
		END IF;
		IF due.strategy_id = ANY (recorded) THEN
			found_due := true;
			RETURN QUERY SELECT due.name, NULL::timestamptz, 0::bigint, 0::bigint, 0::bigint, 0::bigint, 0::bigint, NULL::text, interval '0', NULL::text;
			CONTINUE;
		END IF;
		run := quota_internal.run_strategy(due.strategy_id, due.scheduled_time, setup, due.strategy_id = ANY (together.evaluated));
		PERFORM quota_internal.note_scan_progress(NULL, 1);
		CONTINUE WHEN run.strategy_id IS NULL;
		found_due := true;
		RETURN QUERY SELECT due.name, run.scheduled_time, run.matched, run.granted, run.already_granted, run.capped, run.unknown_balance,
			CASE run.state WHEN 'failed' THEN run.reason END, run.finish_time - run.start_time,
			CASE WHEN run.state <> 'failed' THEN run.reason END;
	END LOOP;
	PERFORM quota_internal.end_evaluation(NULL);
	IF strategy_name IS NULL OR found_due THEN
		RETURN;
	END IF;
	SELECT s.* INTO idle FROM quota_manager.quota_strategy s WHERE s.name = strategy_name AND s.id = ANY (visible);
	IF NOT FOUND THEN
		RAISE EXCEPTION 'strategy "%" does not exist', strategy_name
			USING ERRCODE = 'undefined_object', HINT = 'See SELECT name FROM quota_manager.quota_strategy.';
	END IF;
	RETURN QUERY SELECT idle.name, NULL::timestamptz, 0::bigint, 0::bigint, 0::bigint, 0::bigint, 0::bigint, NULL::text, interval '0',
		CASE
			WHEN idle.state <> 'active' THEN idle.state
			WHEN quota_manager.schedule_now() >= idle.valid_until THEN 'not valid since ' || idle.valid_until
			WHEN quota_manager.schedule_now() < idle.valid_from THEN 'not valid before ' || idle.valid_from
			ELSE (SELECT coalesce(max(d.reason) FILTER (WHERE d.state = 'paused'), 'not due; next firing ' || coalesce(max(d.scheduled_time) FILTER (WHERE d.state = 'scheduled')::text, 'never') || coalesce('; ' || max(d.reason), ''))
				FROM quota_manager.strategy_due d WHERE d.strategy_id = idle.id) END;
END
$$;
COMMENT ON FUNCTION quota_manager.scan(text) IS 'Runs every due strategy, or the named one if it is due, and returns per strategy how many users matched and were granted. Conditions are evaluated with the rights of the caller. All of it is one transaction; tick() uses one per firing. Does no HTTP: balances that are missing or outdated are counted in unknown_balance; tick() reads them first.';

CREATE FUNCTION quota_internal.run_due(strategy_id integer, firings timestamptz[] DEFAULT NULL, waits boolean DEFAULT true)
RETURNS TABLE (scheduled_time timestamptz, state text, matched bigint, granted bigint, already_granted bigint, capped bigint, unknown_balance bigint,
	reason text, is_news boolean, later_firings timestamptz[])
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET quota_manager.pinned_statistics = on SET jit = off
AS $$
#variable_conflict use_column
DECLARE
	run quota_manager.quota_run;
	last quota_manager.quota_run;
BEGIN
	PERFORM quota_internal.check_transaction('strategies are scanned');
	PERFORM quota_internal.begin_scan();
	PERFORM quota_internal.require_identity(false);
	IF NOT waits AND quota_internal.strategy_is_locked(strategy_id) THEN
		RETURN;
	END IF;
	firings := coalesce(firings, ARRAY(SELECT d.scheduled_time FROM quota_manager.strategy_due d
		WHERE d.strategy_id = run_due.strategy_id AND d.state IN ('due', 'recording') AND d.due_time <= clock_timestamp() ORDER BY 1));
	IF cardinality(firings) = 0 THEN
		RETURN;
	END IF;
	last := quota_internal.last_run(run_due.strategy_id);
	run := quota_internal.run_strategy(run_due.strategy_id, firings[1]);
	IF run.state = 'locked' THEN
		RETURN;
	END IF;
	RETURN QUERY SELECT run.scheduled_time, run.state, run.matched, run.granted, run.already_granted, run.capped, run.unknown_balance, run.reason,
		(last.strategy_version, last.state, last.reason) IS DISTINCT FROM (run.strategy_version, run.state, run.reason), firings[2:];
END
$$;
COMMENT ON FUNCTION quota_internal.run_due(integer, timestamptz[], boolean) IS 'Of tick() and the scheduler: runs one firing of a strategy, or a single strategy: the first of those given, or of what is due by strategy_due. waits: for a transaction that edits or scans it now. Returns nothing if nothing is due or another transaction has locked it; state null: it was not to be run after all. is_news: the result differs from that of the run before; later_firings: what is due after it.';

CREATE FUNCTION quota_internal.record_failure(strategy_id integer, reason text) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET quota_manager.pinned_statistics = on SET jit = off
AS $$
DECLARE
	strategy quota_manager.quota_strategy;
	run quota_manager.quota_run;
BEGIN
	-- Do not wait for an edit; a concurrent run records its own result.
	IF NOT quota_internal.try_lock_strategy(strategy_id) THEN
		RETURN false;
	END IF;
	SELECT s.* INTO strategy FROM quota_manager.quota_strategy s WHERE s.id = record_failure.strategy_id;
	SELECT d.scheduled_time INTO run.scheduled_time FROM quota_manager.strategy_due d
		WHERE d.strategy_id = record_failure.strategy_id AND d.state = 'due' ORDER BY 1 LIMIT 1;
	IF NOT FOUND THEN
		RETURN true;
	END IF;
	IF run.scheduled_time IS NOT NULL THEN
		run.scheduled_time := quota_internal.admit_firing(strategy, run.scheduled_time);
		IF run.scheduled_time IS NULL THEN
			RETURN true;
		END IF;
	END IF;
	run.id := coalesce((SELECT r.id FROM quota_manager.quota_run r WHERE r.strategy_id = strategy.id AND r.scheduled_time = run.scheduled_time),
		nextval(pg_get_serial_sequence('quota_manager.quota_run', 'id')));
	run.strategy_id := strategy.id;
	run.strategy_version := strategy.version;
	run.setup := quota_internal.gateway_setup();
	run.state := 'failed';
	run.reason := reason;
	run.occurrences := 1;
	run.matched := 0;
	run.granted := 0;
	run.already_granted := 0;
	run.capped := 0;
	run.unknown_balance := 0;
	run.amount := 0;
	run.over_ceiling := 0;
	run.sufficient := 0;
	run.undelivered := false;
	run.start_time := clock_timestamp();
	run.finish_time := run.start_time;
	PERFORM quota_internal.record_run(run);
	RETURN true;
END
$$;
COMMENT ON FUNCTION quota_internal.record_failure(integer, text) IS 'Of tick() and the scheduler: records that a run ended with an error or was cancelled, so that it is tried again after its back-off. False: another transaction edits or runs the strategy, and nothing was recorded.';

CREATE FUNCTION quota_internal.end_back_offs() RETURNS bigint
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp SET quota_manager.pinned_statistics = on SET jit = off
AS $$
	-- In the order in which decisions lock runs.
	WITH waiting AS MATERIALIZED (
		SELECT w.id FROM quota_manager.quota_run w
		-- OFFSET 0 makes the planner search the runs of each strategy by an index in place of reading all.
		WHERE w.id IN (SELECT f.id FROM quota_manager.quota_strategy s
				CROSS JOIN LATERAL (SELECT u.id FROM quota_manager.quota_run u WHERE u.strategy_id = s.id
					AND u.state IN ('failed', 'incomplete') AND u.retry_time > clock_timestamp() OFFSET 0) f
			UNION ALL SELECT l.id FROM quota_manager.quota_strategy s
				CROSS JOIN LATERAL (SELECT u.id, u.state FROM quota_manager.quota_run u
					WHERE u.strategy_id = s.id AND u.scheduled_time IS NULL ORDER BY u.id DESC LIMIT 1) l
				WHERE s.type = 'single' AND s.enabled AND NOT s.archived AND l.state = 'done')
		ORDER BY w.id FOR NO KEY UPDATE
	), ended AS (
		UPDATE quota_manager.quota_run r SET retry_time = clock_timestamp() FROM waiting w WHERE r.id = w.id RETURNING 1)
	SELECT count(*) FROM ended
$$;
COMMENT ON FUNCTION quota_internal.end_back_offs() IS 'Ends all back-offs: failed and incomplete runs, and single strategies within their scan_interval, are due now. Called by resume(), and by workers when their settings are reloaded or a missing object of the database is back. Returns how many runs waited.';

CREATE FUNCTION quota_manager.release_balances(gateway text, note text) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off SET quota_manager.pinned_statistics = on
AS $$
DECLARE
	-- Also for a gateway that was deleted meanwhile.
	visible CONSTANT text[] := quota_internal.read_as_caller('SELECT s.gateway FROM quota_manager.balance_suspension s WHERE s.gateway = $1[1]
		AND (EXISTS (SELECT 1 FROM quota_manager.quota_gateway g WHERE g.name = s.gateway) OR $1[2]::boolean)',
		ARRAY[release_balances.gateway, (NOT EXISTS (SELECT 1 FROM quota_manager.quota_gateway g WHERE g.name = release_balances.gateway))::text]);
BEGIN
	PERFORM quota_internal.check_transaction('balances are released');
	IF note IS NULL OR note = '' THEN
		RAISE EXCEPTION 'why the balances are released must be given'
			USING ERRCODE = 'null_value_not_allowed', HINT = 'Write it as the note: it goes into the server log.';
	END IF;
	PERFORM quota_internal.require_short(gateway, 'the gateway''s name'), quota_internal.require_short(note, 'the note');
	PERFORM quota_internal.lock_balances(release_balances.gateway);
	DELETE FROM quota_manager.balance_suspension s WHERE s.gateway = release_balances.gateway AND s.gateway = ANY (visible);
	IF NOT FOUND THEN
		IF quota_internal.read_as_caller('SELECT g.name FROM quota_manager.quota_gateway g WHERE g.name = $1[1]', ARRAY[release_balances.gateway]) = '{}' THEN
			RAISE EXCEPTION 'gateway "%" does not exist', release_balances.gateway
				USING ERRCODE = 'undefined_object', HINT = 'See SELECT name FROM quota_manager.quota_gateway.';
		END IF;
		RAISE EXCEPTION 'balances of gateway "%" are not suspended', release_balances.gateway
			USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'See SELECT gateway, reason FROM quota_manager.balance_suspension.';
	END IF;
	PERFORM quota_internal.pin_statistics();
	-- All balances are read again, and accepted whatever they were before.
	UPDATE quota_manager.user_balance b SET balance = NULL, token = NULL, last_balance = NULL
		WHERE b.gateway = release_balances.gateway AND (b.balance IS NOT NULL OR b.token IS NOT NULL OR b.last_balance IS NOT NULL);
	PERFORM quota_internal.end_back_offs();
	RAISE LOG 'balances of gateway "%" were released by %: %', release_balances.gateway, quota_internal.deciding_role(), note;
END
$$;
COMMENT ON FUNCTION quota_manager.release_balances(text, text) IS 'Lets balances of a gateway count again after scans suspended them: all are read again and accepted, zeros too. Ends back-offs. The role and its reason are logged.';
