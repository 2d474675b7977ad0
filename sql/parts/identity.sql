-- Identity: whether this database is the one that granted and delivered before, or a copy of it, or a standby
-- that was promoted; and what follows from that.

CREATE FUNCTION quota_internal.present_identity(OUT system_identifier bigint, OUT database_oid oid, OUT timeline integer)
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'qm_present_identity';
COMMENT ON FUNCTION quota_internal.present_identity() IS 'Which database of which server this is. The timeline changes with every promotion and point-in-time recovery; null on a standby.';

CREATE FUNCTION quota_internal.identity_text(system_identifier bigint, database_oid oid, timeline integer) RETURNS text
LANGUAGE sql STABLE
RETURN pg_catalog.format('system %s, database %s, timeline %s', system_identifier, database_oid, coalesce(timeline::text, 'none (a standby)'));
COMMENT ON FUNCTION quota_internal.identity_text(bigint, oid, integer) IS 'An identity, for people.';

CREATE FUNCTION quota_internal.begin_doubt(reason text, OUT pending bigint, OUT processing bigint, OUT in_doubt bigint)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET jit = off SET quota_manager.pinned_statistics = on
AS $$
DECLARE
	present CONSTANT timestamptz := clock_timestamp();
	-- A recorded run was run here, however far ahead its clock was.
	until_time CONSTANT timestamptz := greatest(present, (SELECT max(r.finish_time) FROM quota_manager.quota_run r));
	stretch record;
	counted record;
BEGIN
	PERFORM quota_internal.pin_statistics();
	pending := 0;
	processing := 0;
	in_doubt := 0;
	FOR stretch IN SELECT s.* FROM quota_internal.undelivered_stretches() s LOOP
		FOR counted IN WITH changed AS (
			UPDATE quota_manager.quota_execute e
			SET status = 'in_doubt', awaits_balance = false, next_attempt_time = 'infinity', doubt_time = coalesce(e.doubt_time, present),
				last_status = NULL, last_error = reason, update_time = present
			FROM (SELECT g.strategy_id, g.user_id, g.scheduled_time, g.revision, g.status
				FROM quota_manager.quota_execute g
				WHERE g.id BETWEEN stretch.low AND stretch.high AND g.run_id = ANY (stretch.runs)
					AND (g.status = 'pending' OR g.status = 'processing' OR g.status = 'in_doubt' AND g.next_attempt_time < 'infinity')) o
			WHERE e.strategy_id = o.strategy_id AND e.user_id = o.user_id AND e.scheduled_time = o.scheduled_time AND e.revision = o.revision
				AND e.status = o.status
			RETURNING o.status AS status_before, e.gateway)
		SELECT c.gateway, count(*) FILTER (WHERE c.status_before = 'pending') AS pending,
			count(*) FILTER (WHERE c.status_before = 'processing') AS processing, count(*) FILTER (WHERE c.status_before = 'in_doubt') AS in_doubt
			FROM changed c GROUP BY c.gateway
		LOOP
			pending := pending + counted.pending;
			processing := processing + counted.processing;
			in_doubt := in_doubt + counted.in_doubt;
			INSERT INTO quota_manager.gateway_tally (gateway, pending, processing) VALUES (counted.gateway, -counted.pending, -counted.processing);
		END LOOP;
		INSERT INTO quota_manager.troubled_grant (grant_id, gateway, status)
			SELECT e.id, e.gateway, e.status FROM quota_manager.quota_execute e
			WHERE e.id BETWEEN stretch.low AND stretch.high AND e.run_id = ANY (stretch.runs) AND e.status = 'in_doubt'
			ON CONFLICT (grant_id) DO NOTHING;
	END LOOP;
	-- Earlier balance samples prove nothing any more: a delivery that is not recorded here may have followed.
	DELETE FROM quota_manager.user_balance;
	UPDATE quota_manager.quota_gateway SET doubt_policy_since = present;
	-- The other copy may have used the next grant ids for other grants: with a new installation id, no gateway takes a new
	-- grant for one that it has seen.
	UPDATE quota_manager.quota_installation i
		SET doubtful_until = until_time, doubtful_firing = quota_manager.schedule_now(), id = gen_random_uuid(),
			former_ids = i.former_ids || jsonb_build_object('id', i.id, 'before_grant', nextval(pg_get_serial_sequence('quota_manager.quota_execute', 'id')));
END
$$;
COMMENT ON FUNCTION quota_internal.begin_doubt(text) IS 'What is open may have been delivered by another life of this database, and more may have been granted: open grants become in doubt for an operator to decide, scans write in doubt what the other life may have granted, and new grants get keys of their own. Counts the open grants by what they were.';

CREATE FUNCTION quota_internal.try_identity_lock() RETURNS boolean
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'qm_try_identity_lock';
COMMENT ON FUNCTION quota_internal.try_identity_lock() IS 'Of note_identity(): takes the lock for recording the identity; false if another transaction has it.';

CREATE FUNCTION quota_internal.note_identity() RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	-- The transaction may take long: a scan must not wait for another one.
	IF NOT quota_internal.try_identity_lock() THEN
		RETURN;
	END IF;
	INSERT INTO quota_manager.quota_installation AS i (system_identifier, database_oid, timeline)
		SELECT p.system_identifier, p.database_oid, p.timeline FROM quota_internal.present_identity() p
		ON CONFLICT (singleton) DO UPDATE SET system_identifier = excluded.system_identifier,
			database_oid = excluded.database_oid, timeline = excluded.timeline
		WHERE i.system_identifier IS NULL;
END
$$;
COMMENT ON FUNCTION quota_internal.note_identity() IS 'Of check_identity(): records this database as the one that grants and delivers, if none is recorded yet.';

CREATE FUNCTION quota_internal.check_identity(runs boolean) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	known quota_manager.quota_installation;
	present record;
	doubted record;
BEGIN
	SELECT p.* INTO present FROM quota_internal.present_identity() p;
	SELECT i.* INTO known FROM quota_manager.quota_installation i;
	IF known.system_identifier IS NULL THEN
		IF runs THEN
			PERFORM quota_internal.note_identity();
		END IF;
		RETURN true;
	END IF;
	IF (known.system_identifier, known.database_oid) <> (present.system_identifier, present.database_oid) THEN
		RETURN false;
	END IF;
	IF known.timeline = present.timeline THEN
		RETURN true;
	END IF;

	-- Promoted. The first process applies after_promotion; the others wait for the row and find it done.
	SELECT i.* INTO known FROM quota_manager.quota_installation i FOR UPDATE;
	IF known.timeline = present.timeline THEN
		RETURN true;
	END IF;
	UPDATE quota_manager.quota_installation SET timeline = present.timeline;
	IF quota_internal.setting('after_promotion') = 'hold' THEN
		SELECT d.* INTO doubted FROM quota_internal.begin_doubt('may have been delivered before this server was promoted') d;
		RAISE LOG 'this server was promoted since it last delivered (timeline % to %): % pending and % processing grants are in doubt',
				known.timeline, present.timeline, doubted.pending, doubted.processing
			USING DETAIL = 'quota_manager.after_promotion is hold: the former server may have delivered more than is recorded here.',
				HINT = 'Decide about them with quota_manager.resolve.';
	ELSE
		RAISE LOG 'this server was promoted since it last delivered (timeline % to %): it goes on', known.timeline, present.timeline
			USING DETAIL = 'quota_manager.after_promotion is continue.';
	END IF;
	RETURN true;
END
$$;
COMMENT ON FUNCTION quota_internal.check_identity(boolean) IS 'Before anything is scanned or delivered. False: this database is a copy and waits for resume(). After a promotion it applies quota_manager.after_promotion, once. runs: records this database as the one that grants and delivers.';

CREATE FUNCTION quota_internal.require_identity(runs boolean) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF NOT quota_internal.check_identity(runs) THEN
		RAISE EXCEPTION 'this database is a copy: nothing is scanned or delivered until it is resumed'
			USING ERRCODE = 'object_not_in_prerequisite_state',
				DETAIL = (SELECT format('It granted and delivered as: %s. Now it is: %s.',
						quota_internal.identity_text(i.system_identifier, i.database_oid, i.timeline),
						quota_internal.identity_text(p.system_identifier, p.database_oid, p.timeline))
					FROM quota_manager.quota_installation i, quota_internal.present_identity() p),
				HINT = 'Call quota_manager.resume(''unchanged_since_dump'') if nothing was scanned or delivered since the copy was made, otherwise quota_manager.resume(''may_have_run''); quota_manager.resume() shows what it is about.';
	END IF;
END
$$;
COMMENT ON FUNCTION quota_internal.require_identity(boolean) IS 'Of scan(), tick() and deliver(): raises an error if this database is a copy that waits for resume(). See check_identity.';

CREATE FUNCTION quota_internal.is_doubtful(strategy quota_manager.quota_strategy, firing timestamptz) RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET quota_manager.pinned_statistics = on
AS $$
DECLARE
	installation quota_manager.quota_installation;
BEGIN
	PERFORM quota_internal.pin_statistics();
	SELECT i.* INTO installation FROM quota_manager.quota_installation i;
	IF firing IS NOT NULL THEN
		RETURN coalesce(firing <= installation.doubtful_firing, false);
	END IF;
	IF (strategy.create_time < installation.doubtful_until) IS NOT TRUE THEN
		RETURN false;
	END IF;
	RETURN NOT EXISTS (SELECT 1 FROM quota_manager.quota_run r
		WHERE r.strategy_id = strategy.id AND r.scheduled_time IS NULL AND r.state = 'done' AND r.over_ceiling = 0
			AND r.finish_time > installation.doubtful_until);
END
$$;
COMMENT ON FUNCTION quota_internal.is_doubtful(quota_manager.quota_strategy, timestamptz) IS 'Of scan(): another life of this database may have granted what the strategy would grant now for a firing (null: a single strategy, up to its first complete scan).';

CREATE FUNCTION quota_internal.count_doubtful_firings(strategy quota_manager.quota_strategy) RETURNS bigint
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	RETURN (SELECT count(*) FROM quota_internal.retried_firings(strategy))
		+ (SELECT coalesce(sum(r.firings), 0) FROM quota_internal.open_spans(strategy) s,
			quota_manager.firing_range(strategy.periodic_expr, s.after_time, s.until_time, strategy.time_zone) r WHERE s.reason IS NULL);
EXCEPTION WHEN OTHERS THEN
	-- An invalid schedule does not fire before it is corrected.
	RETURN 0;
END
$$;
COMMENT ON FUNCTION quota_internal.count_doubtful_firings(quota_manager.quota_strategy) IS 'Of resume(): firings of a periodic strategy up to now that are not recorded as run here, those that are tried again included.';

CREATE FUNCTION quota_internal.skip_firings(strategy quota_manager.quota_strategy, why text) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET quota_manager.pinned_statistics = on SET jit = off
AS $$
DECLARE
	span record;
BEGIN
	UPDATE quota_manager.quota_run r SET state = 'skipped', reason = why, finish_time = clock_timestamp()
		WHERE r.strategy_id = strategy.id AND r.scheduled_time IN (SELECT f FROM quota_internal.retried_firings(strategy) f);
	FOR span IN SELECT s.* FROM quota_internal.open_spans(strategy) s LOOP
		PERFORM quota_internal.record_skipped(strategy, r.first_firing, r.last_firing, r.firings, coalesce(span.reason, why))
			FROM quota_manager.firing_range(strategy.periodic_expr, span.after_time, span.until_time, strategy.time_zone) r WHERE r.firings > 0;
	END LOOP;
EXCEPTION WHEN data_exception THEN
	-- Its time zone is not known here, or its times are out of range: it does not fire before that is corrected.
	RETURN;
END
$$;
COMMENT ON FUNCTION quota_internal.skip_firings(quota_manager.quota_strategy, text) IS 'Of resume(): records the firings of a periodic strategy up to now as not run.';

CREATE FUNCTION quota_manager.resume(policy text DEFAULT NULL, OUT pending bigint, OUT processing bigint, OUT in_doubt bigint,
	OUT skipped_firings bigint, OUT doubtful_strategies bigint, OUT recorded_identity text, OUT present_identity text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off SET quota_manager.pinned_statistics = on
AS $$
DECLARE
	role CONSTANT text := quota_internal.deciding_role();
	known quota_manager.quota_installation;
	present record;
	strategy quota_manager.quota_strategy;
BEGIN
	IF policy NOT IN ('unchanged_since_dump', 'may_have_run') THEN
		RAISE EXCEPTION 'unknown policy %', quote_literal(policy)
			USING ERRCODE = 'invalid_parameter_value',
				HINT = 'Write unchanged_since_dump (nothing was scanned or delivered since the copy was made) or may_have_run; null only shows what would happen.';
	END IF;
	SELECT p.* INTO present FROM quota_internal.present_identity() p;
	SELECT i.* INTO known FROM quota_manager.quota_installation i;
	IF policy IS NOT NULL THEN
		PERFORM quota_internal.require_caller();
		PERFORM quota_internal.check_transaction('a copy is resumed');
		SELECT i.* INTO known FROM quota_manager.quota_installation i FOR UPDATE;
		IF known.system_identifier IS NULL
			OR (known.system_identifier, known.database_oid) = (present.system_identifier, present.database_oid) THEN
			RAISE EXCEPTION 'there is nothing to resume: this database is no copy'
				USING ERRCODE = 'object_not_in_prerequisite_state';
		END IF;
		PERFORM quota_internal.lock_strategies(ARRAY(SELECT k.id FROM quota_manager.quota_strategy k ORDER BY k.id));
	END IF;

	IF known.system_identifier IS NOT NULL THEN
		recorded_identity := quota_internal.identity_text(known.system_identifier, known.database_oid, known.timeline);
	END IF;
	present_identity := quota_internal.identity_text(present.system_identifier, present.database_oid, present.timeline);
	SELECT count(*) FILTER (WHERE e.status = 'pending'), count(*) FILTER (WHERE e.status = 'processing'), count(*) FILTER (WHERE e.status = 'in_doubt')
		INTO pending, processing, in_doubt FROM quota_manager.quota_execute e;
	skipped_firings := 0;
	doubtful_strategies := 0;
	FOR strategy IN SELECT s.* FROM quota_manager.quota_strategy s WHERE s.enabled AND NOT s.archived ORDER BY s.id LOOP
		IF strategy.type = 'periodic' THEN
			skipped_firings := skipped_firings + quota_internal.count_doubtful_firings(strategy);
		ELSIF quota_manager.schedule_now() < strategy.valid_until THEN
			doubtful_strategies := doubtful_strategies + 1;
		END IF;
	END LOOP;
	IF policy IS NULL THEN
		RETURN;
	END IF;

	-- The dump may come from a version that did not count grants.
	PERFORM quota_internal.recount_grants();
	IF policy = 'unchanged_since_dump' THEN
		RAISE NOTICE 'resuming as unchanged since the dump: pending grants are delivered (%), processing ones are in doubt (%), firings that are due are run (%), single strategies are scanned (%)',
			pending, processing, skipped_firings, doubtful_strategies;
	ELSE
		RAISE NOTICE 'resuming as one that may have run: % pending and % processing grants become in doubt (% are already), % firings up to now are recorded as not run, and % single strategies write in doubt what their next scan grants',
			pending, processing, in_doubt, skipped_firings, doubtful_strategies;
		PERFORM quota_internal.begin_doubt('may have been delivered before this database was restored');
		-- Grants of the other copy are not recorded here.
		DELETE FROM quota_internal.scan_mark;
		FOR strategy IN SELECT s.* FROM quota_manager.quota_strategy s WHERE s.type = 'periodic' AND s.enabled AND NOT s.archived ORDER BY s.id LOOP
			PERFORM quota_internal.skip_firings(strategy, 'may have been run before this database was restored');
		END LOOP;
	END IF;
	-- The view subject follows the user source again, where a restore called no triggers.
	UPDATE quota_manager.quota_installation i SET system_identifier = present.system_identifier, database_oid = present.database_oid,
		timeline = present.timeline, user_source = i.user_source;
	PERFORM quota_internal.end_back_offs();
	PERFORM quota_manager.wake_workers();
	RAISE LOG 'role "%" resumed this database with policy %', role, policy
		USING DETAIL = format('It granted and delivered as: %s. Now it is: %s.', recorded_identity, present_identity);
END
$$;
COMMENT ON FUNCTION quota_manager.resume(text) IS 'Lets a copy of a database (a restored dump, pg_upgrade, CREATE DATABASE ... TEMPLATE) scan and deliver. unchanged_since_dump: nothing was scanned or delivered since the copy was made; may_have_run: what is open becomes in doubt, firings up to now are not run, and the next scans of single strategies write in doubt. Null changes nothing. Returns what it met: grants by status, firings and single strategies that may_have_run is about, and which database this was and is.';
