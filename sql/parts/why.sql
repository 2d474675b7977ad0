-- Why a user got something of a strategy, or did not: the story of it.

CREATE FUNCTION quota_internal.told_grants(strategy quota_manager.quota_strategy, user_id text)
RETURNS TABLE (at timestamptz, place bigint, what text, kind text, grant_id bigint, run_id bigint, strategy_version integer)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET jit = off SET quota_manager.pinned_statistics = on
AS $$
BEGIN
	PERFORM quota_internal.pin_statistics();
	RETURN QUERY
	SELECT k.at, k.place, k.what, k.kind, e.id, e.run_id, e.strategy_version
	FROM quota_manager.quota_execute e
	LEFT JOIN quota_manager.quota_strategy_version v ON v.strategy_id = e.strategy_id AND v.version = e.strategy_version
	LEFT JOIN LATERAL quota_internal.reversal_of(e.run_id) b ON e.revision > 0
	CROSS JOIN LATERAL (SELECT concat_ws(', ', quota_internal.status_text(e.last_status, e.last_error), nullif(e.last_error, '')), abs(e.amount) || ' of ' || e.model) r (reply, quota)
	CROSS JOIN LATERAL (VALUES (e.create_time, e.id * 2, CASE WHEN e.revision = 0 THEN 'grant' ELSE 'reversal' END, concat(CASE
				WHEN e.revision = 0 AND e.amount >= 0 THEN 'granted ' WHEN e.revision = 0 THEN 'taken away ' WHEN e.amount < 0 THEN 'taken back ' ELSE 'given back ' END,
				r.quota, CASE WHEN isfinite(e.scheduled_time) THEN ' for the firing of ' || e.scheduled_time END, CASE WHEN e.run_id IS NULL THEN ', imported' END,
				CASE WHEN e.revision = 0 THEN format(', by version %s', e.strategy_version) || coalesce(': ' || quota_internal.abridged(v.definition ->> 'condition', 100), '') END,
				', by ' || quota_internal.person(b.said_by, b.role) || coalesce(': ' || nullif(b.note, ''), ''))),
			-- What it is now comes after what was decided about it.
			(greatest(e.update_time, (SELECT max(d.decision_time) FROM quota_manager.grant_decision d WHERE d.user_id = e.user_id AND d.grant_id = e.id)), e.id * 2 + 1, 'delivery', CASE e.status
				WHEN 'pending' THEN format('waits to be sent to gateway "%s"', e.gateway) || CASE WHEN e.next_attempt_time > clock_timestamp() THEN ', not before ' || e.next_attempt_time ELSE '' END
				WHEN 'processing' THEN format('is being sent to gateway "%s"', e.gateway)
				WHEN 'completed' THEN format('applied by gateway "%s"', e.gateway)
				WHEN 'failed' THEN format('not applied by gateway "%s"', e.gateway)
				WHEN 'in_doubt' THEN format('in doubt: gateway "%s" may have applied it', e.gateway)
				-- Who cancelled it is told with the word.
				ELSE coalesce(nullif(e.last_error, ''), 'cancelled') END || CASE WHEN r.reply = '' OR e.status = 'cancelled' THEN '' ELSE ': ' || r.reply END)) k (at, place, kind, what)
	WHERE e.strategy_id = strategy.id AND e.user_id = told_grants.user_id;
END
$$;
COMMENT ON FUNCTION quota_internal.told_grants(quota_manager.quota_strategy, text) IS 'Of why(): what the user was granted by which version, what was taken back, and what became of the delivery.';

CREATE FUNCTION quota_internal.told_decisions(strategy quota_manager.quota_strategy, user_id text)
RETURNS TABLE (at timestamptz, place bigint, what text, kind text, grant_id bigint, run_id bigint, strategy_version integer)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET jit = off SET quota_manager.pinned_statistics = on
AS $$
BEGIN
	PERFORM quota_internal.pin_statistics();
	RETURN QUERY
	SELECT d.decision_time, d.id, concat(quota_internal.person(d.said_by, d.role), ': ', replace(d.action, '_', ' '), ', ', replace(d.status_before, '_', ' '), ' -> ',
			replace(d.status_after, '_', ' '), ': ' || nullif(d.note, '')), 'decision', d.grant_id, NULL::bigint, NULL::integer
	FROM quota_manager.grant_decision d WHERE d.user_id = told_decisions.user_id AND d.strategy_id = strategy.id;
END
$$;
COMMENT ON FUNCTION quota_internal.told_decisions(quota_manager.quota_strategy, text) IS 'Of why(): what operators decided about the grants of the user.';

CREATE FUNCTION quota_internal.told_runs(strategy quota_manager.quota_strategy, user_id text)
RETURNS TABLE (at timestamptz, place bigint, what text, kind text, grant_id bigint, run_id bigint, strategy_version integer)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET jit = off SET quota_manager.pinned_statistics = on
AS $$
#variable_conflict use_column
DECLARE
	-- Users of the site's may have been there for ever.
	since CONSTANT timestamptz := coalesce((SELECT u.create_time FROM quota_manager.user_info u WHERE u.id = told_runs.user_id AND quota_internal.has_own_users()), '-infinity');
BEGIN
	PERFORM quota_internal.pin_statistics();
	RETURN QUERY
	WITH had AS MATERIALIZED (
		SELECT e.create_time, e.run_id, e.scheduled_time, e.status FROM quota_manager.quota_execute e
		WHERE e.strategy_id = strategy.id AND e.user_id = told_runs.user_id AND e.revision = 0
	), counted (times) AS MATERIALIZED (
		SELECT coalesce(array_agg(h.create_time ORDER BY h.create_time) FILTER (WHERE h.status <> 'cancelled'), '{}') FROM had h
	), limits AS MATERIALIZED (
		SELECT v.version, (v.definition ->> 'max_exec_per_user')::integer AS most FROM quota_manager.quota_strategy_version v
		WHERE v.strategy_id = strategy.id AND v.definition IS NOT NULL
	), missed AS (
		SELECT r.id, r.finish_time, r.strategy_version, r.occurrences, r.scheduled_time, coalesce(r.last_scheduled_time, r.scheduled_time) AS last_time, r.state,
			CASE WHEN r.state IN ('skipped', 'failed') THEN r.reason
				-- By the limit of then.
				WHEN b.before >= CASE WHEN l.version IS NULL THEN strategy.max_exec_per_user ELSE l.most END THEN format('the user had had %s, as many as max_exec_per_user allows', b.before)
				ELSE concat_ws(', or ', 'the user did not meet the condition then', CASE WHEN r.unknown_balance > 0 THEN 'a balance was missing' END,
					CASE WHEN r.over_ceiling > 0 THEN 'a ceiling was reached' END, CASE WHEN r.sufficient > 0 THEN 'the balance was enough' END) END AS reason
		FROM quota_manager.quota_run r
		LEFT JOIN limits l ON l.version = r.strategy_version
		CROSS JOIN LATERAL (SELECT width_bucket(r.start_time - interval '1 us', (SELECT c.times FROM counted c))) b (before)
		-- Looked up in a hash, however many there are.
		WHERE r.strategy_id = strategy.id AND r.finish_time >= since AND r.id NOT IN (SELECT h.run_id FROM had h WHERE h.run_id IS NOT NULL)
			AND CASE WHEN r.scheduled_time IS NOT NULL THEN r.scheduled_time NOT IN (SELECT h.scheduled_time FROM had h)
				-- A single strategy is over for who has its grant.
				ELSE (r.finish_time >= (SELECT min(h.create_time) FROM had h WHERE h.scheduled_time = '-infinity')) IS NOT TRUE END
	), stretch AS (
		-- Neighbouring runs with one reason are one line.
		SELECT m.*, m.scheduled_time IS NULL AS is_scan, row_number() OVER (ORDER BY m.scheduled_time, m.id) - row_number() OVER (PARTITION BY m.scheduled_time IS NULL, m.state, m.reason, m.strategy_version ORDER BY m.scheduled_time, m.id) AS number
		FROM missed m
	)
	SELECT max(s.finish_time), max(s.id), concat(CASE WHEN sum(s.occurrences) > 1 THEN sum(s.occurrences) || CASE WHEN s.is_scan THEN ' scans' ELSE ' firings' END
				ELSE CASE WHEN s.is_scan THEN 'a scan' ELSE 'the firing' END END,
			CASE WHEN NOT s.is_scan THEN CASE WHEN min(s.scheduled_time) = max(s.last_time) THEN ' of ' || min(s.scheduled_time)
				ELSE format(' from %s to %s', min(s.scheduled_time), max(s.last_time)) END END,
			CASE s.state WHEN 'skipped' THEN ' not run' WHEN 'failed' THEN ' failed' ELSE ' granted nothing' END, ': ' || s.reason), 'left out', NULL::bigint, max(s.id), s.strategy_version
	FROM stretch s GROUP BY s.number, s.is_scan, s.state, s.reason, s.strategy_version;
END
$$;
COMMENT ON FUNCTION quota_internal.told_runs(quota_manager.quota_strategy, text) IS 'Of why(): the runs that granted the user nothing since the user is known, and why as far as runs say; neighbouring ones with one reason in one row.';

CREATE FUNCTION quota_internal.told_strategy(strategy quota_manager.quota_strategy)
RETURNS TABLE (at timestamptz, place bigint, what text, kind text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	clock CONSTANT timestamptz := quota_manager.schedule_now();
	served CONSTANT text := quota_manager.gateway_of(strategy.model);
	gateway quota_manager.quota_gateway;
	due quota_manager.strategy_due;
BEGIN
	RETURN QUERY SELECT p.since, p.id, format('%s was paused by %s and still is', CASE p.scope WHEN 'everything' THEN 'everything' WHEN 'gateway' THEN format('gateway "%s"', p.gateway)
			ELSE 'the strategy' END, CASE p.cause WHEN 'breaker' THEN 'the breaker' ELSE quota_internal.person(p.said_by, p.role) END)
			|| CASE WHEN p.would_grant IS NOT NULL THEN format(', which stopped a run that would have granted to %s', p.would_grant) ELSE '' END || coalesce(': ' || nullif(p.note, ''), ''), 'brake'
		FROM quota_manager.quota_pause p WHERE p.end_time IS NULL AND (p.scope = 'everything' OR p.gateway = served OR p.strategy_id = strategy.id);
	IF strategy.state <> 'active' THEN
		RETURN QUERY SELECT clock_timestamp(), 1::bigint, concat('the strategy is ', CASE WHEN strategy.state = 'draft' THEN 'a ' END, strategy.state, ': it grants nothing'), 'now';
	END IF;
	IF clock < strategy.valid_from OR clock >= strategy.valid_until THEN
		RETURN QUERY SELECT clock_timestamp(), 2::bigint, CASE WHEN clock < strategy.valid_from THEN 'the strategy is not valid before ' || strategy.valid_from
			ELSE 'the strategy is not valid since ' || strategy.valid_until END, 'now';
	END IF;
	SELECT g.* INTO gateway FROM quota_manager.quota_gateway g WHERE g.name = served;
	IF gateway.name IS NULL OR gateway.state <> 'open' THEN
		RETURN QUERY SELECT clock_timestamp(), 3::bigint, coalesce(concat_ws(': ', format('gateway "%s" is %s', gateway.name, gateway.state), gateway.state_reason),
			format('no gateway serves model "%s"', strategy.model)), 'now';
	END IF;
	SELECT d.* INTO due FROM quota_manager.strategy_due d WHERE d.strategy_id = strategy.id
		ORDER BY d.state IN ('due', 'waiting', 'scheduled') DESC, d.due_time LIMIT 1;
	IF due.state IN ('due', 'waiting', 'scheduled') THEN
		RETURN QUERY SELECT greatest(due.due_time, clock_timestamp()), 1::bigint, concat('it runs next', ', for the firing of ' || due.scheduled_time, ': ' || due.reason), 'next';
	ELSE
		RETURN QUERY SELECT NULL::timestamptz, 1::bigint, concat('it does not run, as things are', ': ' || due.reason), 'next';
	END IF;
END
$$;
COMMENT ON FUNCTION quota_internal.told_strategy(quota_manager.quota_strategy) IS 'Of why(): what keeps the strategy from granting now, and when it runs next.';

CREATE FUNCTION quota_internal.told_allowance(strategy quota_manager.quota_strategy, known quota_manager.subject) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	gateway CONSTANT text := quota_manager.gateway_of(strategy.model);
	balance CONSTANT numeric := ((known).balances ->> gateway)::numeric;
	saw text;
BEGIN
	saw := (SELECT e.saw FROM quota_internal.explained_balance(known, 'balance-le', ARRAY[gateway, strategy.amount::text], CASE WHEN balance IS NULL THEN 'unknown' ELSE 'true' END) e
		WHERE gateway IS NOT NULL);
	RETURN format(CASE WHEN balance IS NULL THEN 'what is missing up to %s is not known'
		WHEN balance = strategy.amount OR balance > strategy.amount AND strategy.allowance = 'top_up' THEN 'nothing is missing up to %s'
		WHEN balance > strategy.amount THEN 'it takes away what is above %s' ELSE 'it fills up to %s' END, strategy.amount) || ': ' || saw;
END
$$;
COMMENT ON FUNCTION quota_internal.told_allowance(quota_manager.quota_strategy, quota_manager.subject) IS 'Of why(): what the balance of the user leaves to be filled up; null: no gateway serves the model.';

CREATE FUNCTION quota_internal.told_user(strategy quota_manager.quota_strategy, user_id text) RETURNS TABLE (place bigint, what text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET jit = off SET quota_manager.pinned_statistics = on
AS $$
DECLARE
	known quota_manager.subject;
	had_it boolean;
	counted bigint;
	whole text;
	deciding text;
BEGIN
	PERFORM quota_internal.pin_statistics();
	BEGIN
		known := quota_internal.known_subject(user_id, strategy.condition);
		IF known.id IS NULL THEN
			RETURN QUERY SELECT 4::bigint, 'there is no such user now';
		ELSE
			SELECT max(e.result) FILTER (WHERE e.parent IS NULL), quota_internal.abridged(string_agg(concat_ws(', ', ltrim(e.part), e.saw), '; ' ORDER BY e.node) FILTER (WHERE e.decides AND e.saw <> ''), 400)
				INTO whole, deciding FROM quota_internal.explained_tree(known, strategy.condition) e;
			RETURN QUERY SELECT 5::bigint, CASE whole WHEN 'true' THEN 'the user meets the condition now' WHEN 'false' THEN 'the user does not meet the condition now'
				ELSE 'whether the user meets the condition now, a missing balance decides' END || coalesce(': ' || deciding, '');
		END IF;
	EXCEPTION WHEN OTHERS THEN
		-- The rest of the story is true all the same.
		RETURN QUERY SELECT 5::bigint, 'whether the user meets the condition now is not known: ' || SQLERRM;
	END;
	IF NOT quota_internal.user_id_fits(user_id) THEN
		RETURN QUERY SELECT 6::bigint, 'the id of the user has no room in a grant: it has more than 2600 bytes';
	END IF;
	-- Of a strategy that was periodic before, the grants of firings are others.
	SELECT coalesce(bool_or(e.scheduled_time = '-infinity'), false), count(*) FILTER (WHERE e.status <> 'cancelled') INTO had_it, counted
		FROM quota_manager.quota_execute e WHERE e.strategy_id = strategy.id AND e.user_id = told_user.user_id AND e.revision = 0;
	IF had_it AND strategy.type = 'single' THEN
		RETURN QUERY SELECT 7::bigint, 'the user has had it: a single strategy grants once';
	ELSIF counted >= strategy.max_exec_per_user THEN
		RETURN QUERY SELECT 7::bigint, format('the user has had %s, as many as max_exec_per_user allows', counted);
	ELSIF whole <> 'false' AND strategy.allowance <> 'add' THEN
		RETURN QUERY SELECT 8::bigint, a FROM quota_internal.told_allowance(strategy, known) a WHERE a IS NOT NULL;
	END IF;
END
$$;
COMMENT ON FUNCTION quota_internal.told_user(quota_manager.quota_strategy, text) IS 'Of why(): whether the user meets the condition now and may get more of the strategy.';

CREATE FUNCTION quota_manager.why(user_id text, strategy text)
RETURNS TABLE (at timestamptz, what text, kind text, grant_id bigint, run_id bigint, strategy_version integer)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET jit = off SET quota_manager.pinned_statistics = on
AS $$
#variable_conflict use_column
DECLARE
	-- As in user_page().
	who CONSTANT text COLLATE "default" := why.user_id;
	asked CONSTANT quota_manager.quota_strategy := quota_internal.strategy_named(strategy);
BEGIN
	PERFORM quota_internal.pin_statistics();
	-- An error if there is neither such a user nor a grant.
	IF who IS NULL OR NOT EXISTS (SELECT 1 FROM quota_manager.quota_execute e WHERE e.strategy_id = asked.id AND e.user_id = who) THEN
		PERFORM quota_internal.subject_of(who, NULL);
	END IF;
	RETURN QUERY
	SELECT date_trunc('second', t.at), t.what, t.kind, t.grant_id, t.run_id, t.strategy_version FROM (
		SELECT 1 AS part, g.* FROM quota_internal.told_grants(asked, who) g
		UNION ALL SELECT 1, d.* FROM quota_internal.told_decisions(asked, who) d
		UNION ALL SELECT 1, r.* FROM quota_internal.told_runs(asked, who) r
		UNION ALL SELECT CASE s.kind WHEN 'brake' THEN 1 WHEN 'now' THEN 2 ELSE 3 END, s.*, NULL, NULL, NULL FROM quota_internal.told_strategy(asked) s
		UNION ALL SELECT 2, clock_timestamp(), u.*, 'now', NULL, NULL, NULL FROM quota_internal.told_user(asked, who) u) t
	ORDER BY t.part, CASE WHEN t.part = 1 THEN t.at END, t.place;
END
$$;
COMMENT ON FUNCTION quota_manager.why(text, text) IS 'Why a user got something of a strategy, or did not: grants with the version that made them, deliveries, reversals, decisions, the runs that granted the user nothing since the user is known, and what is the case now; in the order of time. kind: grant, delivery, reversal, decision, left out, brake, now, next.';
