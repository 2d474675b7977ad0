-- Views that people read: what became of grants, in words.

CREATE FUNCTION quota_internal.minute_text(at timestamp) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
RETURN pg_catalog.to_char(at, CASE pg_catalog.date_part('second', at) WHEN 0 THEN 'YYYY-MM-DD HH24:MI' ELSE 'YYYY-MM-DD HH24:MI:SS' END);
COMMENT ON FUNCTION quota_internal.minute_text(timestamp) IS 'A local time for people, without seconds where these are 0.';

CREATE FUNCTION quota_internal.time_text(at timestamptz) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
RETURN CASE WHEN pg_catalog.isfinite(at) THEN pg_catalog.to_char(at, 'YYYY-MM-DD HH24:MI:SS') ELSE at::text END;
COMMENT ON FUNCTION quota_internal.time_text(timestamptz) IS 'A time for people, in the session''s zone.';

CREATE FUNCTION quota_internal.firing_text(firing timestamptz, schedule text, time_zone text) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	zone text;
BEGIN
	zone := quota_internal.schedule_zone(schedule::quota_manager.cron, time_zone);
	RETURN format('firing of %s %s', quota_internal.minute_text(quota_internal.local_time(firing, zone)), zone);
EXCEPTION WHEN data_exception OR feature_not_supported THEN
	-- Its zone is not known to this server.
	RETURN format('firing of %s UTC', quota_internal.minute_text(firing AT TIME ZONE 'UTC'));
END
$$;
COMMENT ON FUNCTION quota_internal.firing_text(timestamptz, text, text) IS 'A firing in words, in the zone that its schedule is read in.';

CREATE FUNCTION quota_internal.grant_cause(id bigint, user_id text, firing timestamptz, revision integer, version integer, run_id bigint,
	strategy quota_manager.quota_strategy, definition jsonb)
RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET quota_manager.pinned_statistics = on SET jit = off
AS $$
DECLARE
	reversal quota_manager.quota_reversal;
	reversed bigint;
BEGIN
	IF revision > 0 THEN
		SELECT v.* INTO reversal FROM quota_internal.reversal_of(run_id) v;
		-- The user comes with the collation of grants, in which the index could not be searched.
		reversed := (SELECT i.grant_id FROM quota_manager.quota_reversal_item i
			WHERE i.reversal_id = reversal.id AND i.user_id = grant_cause.user_id COLLATE "default" AND i.opposite_id = grant_cause.id);
		RETURN concat_ws(': ', CASE WHEN reversal.undone_id IS NULL THEN 'reversal' ELSE format('undoes reversal %s', reversal.undone_id) END
			|| CASE WHEN reversed IS NOT NULL THEN format(' of grant %s', reversed) ELSE '' END, nullif(reversal.note, ''));
	END IF;
	RETURN CASE WHEN run_id IS NULL THEN 'imported; ' ELSE '' END || CASE
		WHEN isfinite(firing) THEN quota_internal.firing_text(firing,
			coalesce(definition ->> 'periodic_expr', strategy.periodic_expr::text), coalesce(definition ->> 'time_zone', strategy.time_zone))
		-- Of a version from before versions were kept, only the present condition is known.
		ELSE concat_ws(', ', CASE WHEN definition IS NOT NULL OR version = strategy.version
			THEN 'met ' || coalesce(definition ->> 'condition', strategy.condition::text) ELSE 'met its condition' END, 'version ' || version) END;
END
$$;
COMMENT ON FUNCTION quota_internal.grant_cause(bigint, text, timestamptz, integer, integer, bigint, quota_manager.quota_strategy, jsonb) IS 'Why a grant was made, in words. definition: that of the version of the strategy that made it; run_id null: it was imported.';

CREATE FUNCTION quota_internal.status_text(last_status integer, last_error text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN 'HTTP ' OPERATOR(pg_catalog.||) nullif(last_status, CASE WHEN pg_catalog.starts_with(last_error, 'HTTP ' OPERATOR(pg_catalog.||) last_status::text) THEN last_status END)::text;
COMMENT ON FUNCTION quota_internal.status_text(integer, text) IS 'Of views: the HTTP status of the last answer; null if there was none, or the error says it.';

CREATE FUNCTION quota_internal.grant_outcome(status text, next_attempt_time timestamptz, last_status integer, last_error text) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
RETURN CASE status
	WHEN 'pending' THEN pg_catalog.concat_ws(': ', CASE WHEN next_attempt_time OPERATOR(pg_catalog.>) pg_catalog.now()
			THEN pg_catalog.concat('waits until ', quota_internal.time_text(next_attempt_time)) ELSE 'waits to be sent' END, last_error)
	WHEN 'processing' THEN 'is being sent'
	WHEN 'in_doubt' THEN pg_catalog.concat_ws(': ', CASE WHEN next_attempt_time OPERATOR(pg_catalog.=) 'infinity'
			THEN 'in doubt, awaits a decision' ELSE 'in doubt, is being looked into' END, last_error)
	-- Who cancelled it is told with the word.
	WHEN 'cancelled' THEN coalesce(last_error, 'cancelled')
	ELSE pg_catalog.concat_ws(': ', status, last_error) END
	OPERATOR(pg_catalog.||) CASE WHEN status OPERATOR(pg_catalog.=) ANY (ARRAY['completed', 'cancelled']) OR quota_internal.status_text(last_status, last_error) IS NULL THEN ''
		ELSE pg_catalog.format(' (%s)', quota_internal.status_text(last_status, last_error)) END;
COMMENT ON FUNCTION quota_internal.grant_outcome(text, timestamptz, integer, text) IS 'What became of a grant, in words, with what the gateway said last.';

-- A user's grants are one search of the key for each strategy, and the newest ones are found by their ids.
CREATE VIEW quota_manager.grant_list WITH (security_invoker = true) AS
SELECT e.id, pg_catalog.date_trunc('second', e.create_time) AS create_time, e.user_id, s.name AS strategy, e.amount, e.model,
	quota_internal.grant_cause(e.id, e.user_id, e.scheduled_time, e.revision, e.strategy_version, e.run_id, s.*, v.definition) AS cause,
	quota_internal.grant_outcome(e.status, e.next_attempt_time, e.last_status, e.last_error) AS outcome,
	e.gateway, e.status, nullif(e.scheduled_time, '-infinity') AS scheduled_time, e.revision, e.strategy_version, e.strategy_id, e.run_id
FROM quota_manager.quota_strategy s
JOIN quota_manager.quota_execute e ON e.strategy_id OPERATOR(pg_catalog.=) s.id
LEFT JOIN quota_manager.quota_strategy_version v ON v.strategy_id OPERATOR(pg_catalog.=) e.strategy_id AND v.version OPERATOR(pg_catalog.=) e.strategy_version;
COMMENT ON VIEW quota_manager.grant_list IS 'Grants as people read them: to whom, by what, why, and what became of it. Fast for a user, a range of ids, and ORDER BY id DESC LIMIT.';
COMMENT ON COLUMN quota_manager.grant_list.id IS 'Number of the grant.';
COMMENT ON COLUMN quota_manager.grant_list.create_time IS 'When it was granted, to the second.';
COMMENT ON COLUMN quota_manager.grant_list.user_id IS 'User it is for.';
COMMENT ON COLUMN quota_manager.grant_list.strategy IS 'Name of the strategy.';
COMMENT ON COLUMN quota_manager.grant_list.amount IS 'Quota to add.';
COMMENT ON COLUMN quota_manager.grant_list.model IS 'Model the quota is for.';
COMMENT ON COLUMN quota_manager.grant_list.cause IS 'Why it was granted: the firing, in the zone of its schedule; the condition that was met; or the reversal.';
COMMENT ON COLUMN quota_manager.grant_list.outcome IS 'What became of it, with what the gateway said last or who decided.';
COMMENT ON COLUMN quota_manager.grant_list.gateway IS 'Gateway it goes to.';
COMMENT ON COLUMN quota_manager.grant_list.status IS 'pending, processing, completed, failed, in_doubt or cancelled: see quota_execute.';
COMMENT ON COLUMN quota_manager.grant_list.scheduled_time IS 'The firing; null: it is of a single strategy.';
COMMENT ON COLUMN quota_manager.grant_list.revision IS '0 the grant; a reversal is the next.';
COMMENT ON COLUMN quota_manager.grant_list.strategy_version IS 'Version of the strategy that granted: see quota_strategy_version.';
COMMENT ON COLUMN quota_manager.grant_list.strategy_id IS 'Number of the strategy.';
COMMENT ON COLUMN quota_manager.grant_list.run_id IS 'The run that wrote it; null: it was imported.';

CREATE FUNCTION quota_internal.grants_in_trouble() RETURNS SETOF quota_manager.quota_execute
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan SET jit = off SET quota_manager.pinned_statistics = on
AS $$
DECLARE
	ids bigint[];
BEGIN
	PERFORM quota_internal.pin_statistics();
	-- By thousands: each is a search of an index, however many there are.
	FOR ids IN SELECT array_agg(n.grant_id) FROM (SELECT t.grant_id, row_number() OVER (ORDER BY t.grant_id) AS number
		FROM quota_manager.troubled_grant t) n GROUP BY (n.number - 1) / 1000 ORDER BY min(n.number)
	LOOP
		RETURN QUERY SELECT e.* FROM quota_manager.quota_execute e WHERE e.id = ANY (ids) AND e.status IN ('failed', 'in_doubt');
	END LOOP;
END
$$;
COMMENT ON FUNCTION quota_internal.grants_in_trouble() IS 'Of trouble_list: grants that failed or are in doubt, without a read of all grants.';

CREATE FUNCTION quota_internal.what_to_do(id bigint, status text, next_attempt_time timestamptz, update_time timestamptz, maybe_granted_before boolean,
	gateway_state text, is_awaited boolean, is_paused boolean, later_revision integer) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
RETURN CASE WHEN later_revision IS NOT NULL THEN pg_catalog.format('nothing: revision %s of the grant has taken its place', later_revision)
	ELSE pg_catalog.concat_ws('; ', CASE
		WHEN status OPERATOR(pg_catalog.=) 'failed' THEN pg_catalog.format('repair the cause, then SELECT quota_manager.retry(%s, ''why'')', id)
		WHEN next_attempt_time OPERATOR(pg_catalog.<) 'infinity' THEN pg_catalog.format('nothing: the doubt policy of the gateway acts at %s',
			quota_internal.time_text(greatest(next_attempt_time, update_time)))
		WHEN maybe_granted_before THEN pg_catalog.format('find out whether the other life of this database delivered it, then SELECT quota_manager.resolve(%s, true or false, ''why'')', id)
		ELSE pg_catalog.format('find out at the gateway, then SELECT quota_manager.resolve(%s, true or false, ''why'')', id) END,
	CASE WHEN gateway_state IS NULL THEN 'its gateway does not exist any more' WHEN gateway_state OPERATOR(pg_catalog.<>) 'open' THEN 'its gateway is ' OPERATOR(pg_catalog.||) gateway_state END,
	CASE WHEN is_paused THEN 'nothing of it is sent before its pause ends: see pauses' END,
	CASE WHEN is_awaited THEN 'a reversal waits for it' END) END;
COMMENT ON FUNCTION quota_internal.what_to_do(bigint, text, timestamptz, timestamptz, boolean, text, boolean, boolean, integer) IS 'Of trouble_list: what an operator can do about a grant that failed or is in doubt.';

-- What a policy was about to do is left to people once the policy is hold.
CREATE VIEW quota_manager.trouble_list WITH (security_invoker = true) AS
SELECT e.id, pg_catalog.date_trunc('second', e.update_time) AS since, e.user_id, s.name AS strategy, e.amount, e.model, e.gateway, e.status,
	pg_catalog.concat(coalesce(e.last_error, 'not known'), ' (' OPERATOR(pg_catalog.||) quota_internal.status_text(e.last_status, e.last_error) OPERATOR(pg_catalog.||) ')') AS why,
	quota_internal.what_to_do(e.id, e.status, CASE WHEN g.doubt_policy OPERATOR(pg_catalog.=) 'hold' THEN 'infinity' ELSE e.next_attempt_time END, e.update_time, e.maybe_granted_before, g.state, i.grant_id IS NOT NULL,
		EXISTS (SELECT 1 FROM quota_manager.quota_pause p WHERE p.end_time IS NULL AND p.cause OPERATOR(pg_catalog.=) 'operator'
			AND (p.scope OPERATOR(pg_catalog.=) 'everything' OR p.gateway OPERATOR(pg_catalog.=) e.gateway
				-- Which does not hold reversals.
				OR p.strategy_id OPERATOR(pg_catalog.=) e.strategy_id AND e.revision OPERATOR(pg_catalog.=) 0)),
		l.revision) AS what_to_do,
	l.revision IS NULL AND (e.status OPERATOR(pg_catalog.=) 'failed' OR e.next_attempt_time OPERATOR(pg_catalog.=) 'infinity'
		OR coalesce(g.doubt_policy OPERATOR(pg_catalog.=) 'hold', false)) AS awaits_you,
	nullif(e.scheduled_time, '-infinity') AS scheduled_time, e.attempts, e.strategy_id, e.run_id
FROM quota_internal.grants_in_trouble() e
LEFT JOIN quota_manager.quota_strategy s ON s.id OPERATOR(pg_catalog.=) e.strategy_id
LEFT JOIN quota_manager.quota_gateway g ON g.name OPERATOR(pg_catalog.=) e.gateway
LEFT JOIN quota_manager.quota_reversal_item i ON i.grant_id OPERATOR(pg_catalog.=) e.id AND i.user_id OPERATOR(pg_catalog.=) e.user_id AND i.outcome OPERATOR(pg_catalog.=) 'waits'
-- Only the last revision of a grant can be retried.
CROSS JOIN LATERAL (SELECT CASE e.status WHEN 'failed' THEN (SELECT pg_catalog.max(x.revision) FROM quota_manager.quota_execute x
	WHERE x.strategy_id OPERATOR(pg_catalog.=) e.strategy_id AND x.user_id OPERATOR(pg_catalog.=) e.user_id
		AND x.scheduled_time OPERATOR(pg_catalog.=) e.scheduled_time AND x.revision OPERATOR(pg_catalog.>) e.revision) END AS revision) l;
COMMENT ON VIEW quota_manager.trouble_list IS 'Grants that failed or are in doubt: why, and what to do about it. Costs as much as there are of them, not as there are grants.';
COMMENT ON COLUMN quota_manager.trouble_list.id IS 'Number of the grant.';
COMMENT ON COLUMN quota_manager.trouble_list.since IS 'When its status last changed.';
COMMENT ON COLUMN quota_manager.trouble_list.user_id IS 'User it is for.';
COMMENT ON COLUMN quota_manager.trouble_list.strategy IS 'Name of the strategy.';
COMMENT ON COLUMN quota_manager.trouble_list.amount IS 'Quota to add.';
COMMENT ON COLUMN quota_manager.trouble_list.model IS 'Model the quota is for.';
COMMENT ON COLUMN quota_manager.trouble_list.gateway IS 'Gateway it goes to.';
COMMENT ON COLUMN quota_manager.trouble_list.status IS 'failed (was not applied) or in_doubt (may have been applied).';
COMMENT ON COLUMN quota_manager.trouble_list.why IS 'What went wrong last, with the HTTP status.';
COMMENT ON COLUMN quota_manager.trouble_list.what_to_do IS 'What an operator can do, with the call that does it.';
COMMENT ON COLUMN quota_manager.trouble_list.awaits_you IS 'True: nothing happens until somebody decides.';
COMMENT ON COLUMN quota_manager.trouble_list.scheduled_time IS 'The firing; null: it is of a single strategy.';
COMMENT ON COLUMN quota_manager.trouble_list.attempts IS 'Failed attempts.';
COMMENT ON COLUMN quota_manager.trouble_list.strategy_id IS 'Number of the strategy.';
COMMENT ON COLUMN quota_manager.trouble_list.run_id IS 'The run that wrote it.';

CREATE VIEW quota_manager.trouble_counts WITH (security_invoker = true) AS
SELECT e.gateway, s.name AS strategy,
	pg_catalog.count(*) FILTER (WHERE e.status OPERATOR(pg_catalog.=) 'failed') AS failed,
	pg_catalog.count(*) FILTER (WHERE e.status OPERATOR(pg_catalog.=) 'in_doubt') AS in_doubt,
	pg_catalog.count(*) FILTER (WHERE l.revision IS NULL AND (e.status OPERATOR(pg_catalog.=) 'failed' OR e.next_attempt_time OPERATOR(pg_catalog.=) 'infinity'
		OR g.doubt_policy OPERATOR(pg_catalog.=) 'hold')) AS await_you,
	pg_catalog.sum(e.amount) AS amount, pg_catalog.date_trunc('second', pg_catalog.min(e.update_time)) AS since,
	pg_catalog.mode() WITHIN GROUP (ORDER BY e.last_error) AS mostly
FROM quota_internal.grants_in_trouble() e
LEFT JOIN quota_manager.quota_strategy s ON s.id OPERATOR(pg_catalog.=) e.strategy_id
LEFT JOIN quota_manager.quota_gateway g ON g.name OPERATOR(pg_catalog.=) e.gateway
CROSS JOIN LATERAL (SELECT CASE e.status WHEN 'failed' THEN (SELECT pg_catalog.max(x.revision) FROM quota_manager.quota_execute x
	WHERE x.strategy_id OPERATOR(pg_catalog.=) e.strategy_id AND x.user_id OPERATOR(pg_catalog.=) e.user_id
		AND x.scheduled_time OPERATOR(pg_catalog.=) e.scheduled_time AND x.revision OPERATOR(pg_catalog.>) e.revision) END AS revision) l
GROUP BY e.gateway, s.name;
COMMENT ON VIEW quota_manager.trouble_counts IS 'How many grants failed or are in doubt, per gateway and strategy.';
COMMENT ON COLUMN quota_manager.trouble_counts.gateway IS 'The gateway.';
COMMENT ON COLUMN quota_manager.trouble_counts.strategy IS 'Name of the strategy.';
COMMENT ON COLUMN quota_manager.trouble_counts.failed IS 'Grants that failed.';
COMMENT ON COLUMN quota_manager.trouble_counts.in_doubt IS 'Grants in doubt.';
COMMENT ON COLUMN quota_manager.trouble_counts.await_you IS 'Those of them that wait for a decision.';
COMMENT ON COLUMN quota_manager.trouble_counts.amount IS 'Sum of their amounts.';
COMMENT ON COLUMN quota_manager.trouble_counts.since IS 'Since when the oldest has been in this state.';
COMMENT ON COLUMN quota_manager.trouble_counts.mostly IS 'The reason that most of them have.';

-- From runs: what became of each grant is known of those that failed or are in doubt only.  Names are found when little is left.
CREATE VIEW quota_manager.grant_totals WITH (security_invoker = true) AS
WITH troubled AS MATERIALIZED (
	SELECT e.run_id, e.strategy_id, e.model, pg_catalog.count(*) FILTER (WHERE e.status OPERATOR(pg_catalog.=) 'failed') AS failed,
		pg_catalog.count(*) FILTER (WHERE e.status OPERATOR(pg_catalog.=) 'in_doubt') AS in_doubt
	FROM quota_internal.grants_in_trouble() e GROUP BY e.run_id, e.strategy_id, e.model)
SELECT x.day, x.strategy, x.model, pg_catalog.sum(x.runs)::bigint AS runs, pg_catalog.sum(x.granted)::bigint AS granted,
	CASE WHEN pg_catalog.bool_and(x.is_recorded) THEN pg_catalog.sum(x.amount) END AS amount,
	pg_catalog.sum(x.failed)::bigint AS failed, pg_catalog.sum(x.in_doubt)::bigint AS in_doubt,
	pg_catalog.sum(x.undelivered_runs)::bigint AS undelivered_runs, x.is_reversal, x.strategy_id
FROM (SELECT d.day, d.runs, d.granted, d.amount, d.is_recorded, d.failed, d.in_doubt, d.undelivered_runs, d.is_reversal,
		s.name AS strategy, coalesce(d.model, v.definition OPERATOR(pg_catalog.->>) 'model', s.model) AS model, d.strategy_id
	FROM (SELECT r.start_time::date AS day, false AS is_reversal, r.strategy_id, r.strategy_version, NULL::text AS model,
			pg_catalog.count(*) AS runs, pg_catalog.sum(r.granted) AS granted, pg_catalog.sum(r.amount) AS amount,
			pg_catalog.bool_and(r.amount IS NOT NULL) AS is_recorded, coalesce(pg_catalog.sum(t.failed), 0) AS failed, coalesce(pg_catalog.sum(t.in_doubt), 0) AS in_doubt,
			pg_catalog.count(*) FILTER (WHERE r.undelivered) AS undelivered_runs
		FROM quota_manager.quota_run r
		LEFT JOIN (SELECT e.run_id, pg_catalog.sum(e.failed) AS failed, pg_catalog.sum(e.in_doubt) AS in_doubt
			FROM troubled e GROUP BY e.run_id) t ON t.run_id OPERATOR(pg_catalog.=) r.id
		WHERE r.granted OPERATOR(pg_catalog.>) 0 AND r.strategy_id IS NOT NULL
		GROUP BY 1, 2, 3, 4
		UNION ALL
		-- A reversal can be of several strategies.
		SELECT r.start_time::date, true, p.strategy_id, NULL, p.model, pg_catalog.count(*), pg_catalog.sum(p.grants), pg_catalog.sum(p.amount), true,
			coalesce(pg_catalog.sum(t.failed), 0), coalesce(pg_catalog.sum(t.in_doubt), 0), pg_catalog.count(*) FILTER (WHERE r.undelivered)
		FROM quota_manager.quota_run r
		CROSS JOIN LATERAL pg_catalog.jsonb_to_recordset(r.reversed_sums) AS p (strategy_id integer, model text, grants bigint, amount numeric)
		LEFT JOIN troubled t ON t.run_id OPERATOR(pg_catalog.=) r.id AND t.strategy_id OPERATOR(pg_catalog.=) p.strategy_id AND t.model OPERATOR(pg_catalog.=) p.model
		WHERE r.granted OPERATOR(pg_catalog.>) 0 AND r.strategy_id IS NULL
		GROUP BY 1, 3, 5) d
	LEFT JOIN quota_manager.quota_strategy s ON s.id OPERATOR(pg_catalog.=) d.strategy_id
	LEFT JOIN quota_manager.quota_strategy_version v ON v.strategy_id OPERATOR(pg_catalog.=) d.strategy_id AND v.version OPERATOR(pg_catalog.=) d.strategy_version) x
GROUP BY x.day, x.strategy, x.model, x.is_reversal, x.strategy_id;
COMMENT ON VIEW quota_manager.grant_totals IS 'What was granted per day, strategy and model, from the records of runs, so that grants need not be read. Cancelled grants are counted like others, and those that retain() has folded are not: see pruned_run.';
COMMENT ON COLUMN quota_manager.grant_totals.day IS 'Day of the runs, in the session''s time zone.';
COMMENT ON COLUMN quota_manager.grant_totals.strategy IS 'Name of the strategy; null: it was deleted.';
COMMENT ON COLUMN quota_manager.grant_totals.model IS 'Model of the strategy''s version that ran last; of a reversal, that of the grants.';
COMMENT ON COLUMN quota_manager.grant_totals.runs IS 'Runs that granted something; a reversal of grants of several strategies counts for each.';
COMMENT ON COLUMN quota_manager.grant_totals.granted IS 'Grants that they wrote.';
COMMENT ON COLUMN quota_manager.grant_totals.amount IS 'Sum of the amounts; null: some ran before version 1.1.0, which did not record it.';
COMMENT ON COLUMN quota_manager.grant_totals.failed IS 'How many of these grants failed.';
COMMENT ON COLUMN quota_manager.grant_totals.in_doubt IS 'How many of them are in doubt.';
COMMENT ON COLUMN quota_manager.grant_totals.undelivered_runs IS 'Runs of which some grants may be pending or being sent; 0: all are settled.';
COMMENT ON COLUMN quota_manager.grant_totals.is_reversal IS 'True: grants that take back others; their amounts have the other sign.';
COMMENT ON COLUMN quota_manager.grant_totals.strategy_id IS 'Number of the strategy.';

CREATE FUNCTION quota_internal.age_text(since timestamptz, until timestamptz) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (SELECT CASE
		WHEN s.seconds OPERATOR(pg_catalog.<) 120 THEN s.seconds::text OPERATOR(pg_catalog.||) ' s ago'
		WHEN s.seconds OPERATOR(pg_catalog.<) 7200 THEN (s.seconds OPERATOR(pg_catalog./) 60)::text OPERATOR(pg_catalog.||) ' min ago'
		WHEN s.seconds OPERATOR(pg_catalog.<) 172800 THEN (s.seconds OPERATOR(pg_catalog./) 3600)::text OPERATOR(pg_catalog.||) ' h ago'
		ELSE (s.seconds OPERATOR(pg_catalog./) 86400)::text OPERATOR(pg_catalog.||) ' days ago' END
	FROM (SELECT quota_internal.age_seconds(since, until)::bigint AS seconds) s);
COMMENT ON FUNCTION quota_internal.age_text(timestamptz, timestamptz) IS 'How long ago something was, for people.';

CREATE FUNCTION quota_internal.user_attributes(user_id text) RETURNS TABLE (name text, value text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	attributes jsonb;
BEGIN
	SELECT a.subject INTO attributes FROM quota_internal.ask_about_users('SELECT to_jsonb(u.subject) FROM users u WHERE u.id = $1', NULL, user_id) AS a (subject jsonb);
	RETURN QUERY SELECT a.attname::text, attributes ->> a.attname FROM pg_attribute a
		WHERE a.attrelid = 'quota_manager.subject'::regclass AND a.attnum > 0 AND NOT a.attisdropped AND a.attname NOT IN ('balances')
			AND attributes ->> a.attname IS NOT NULL
		ORDER BY a.attnum;
END
$$;
COMMENT ON FUNCTION quota_internal.user_attributes(text) IS 'Of user_page: what conditions see of a user, in the order of subject; no rows: there is no such user.';

CREATE FUNCTION quota_internal.user_balances(user_id text) RETURNS TABLE (gateway text, balance numeric, note text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET quota_manager.pinned_statistics = on SET jit = off
AS $$
DECLARE
	horizon CONSTANT timestamptz := quota_internal.balance_horizon();
	clock CONSTANT timestamptz := quota_internal.balance_clock();
BEGIN
	PERFORM quota_internal.pin_statistics();
	RETURN QUERY SELECT b.gateway, coalesce(b.balance, b.last_balance), concat_ws(', ',
			-- A call by hand that was rolled back leaves the former balance, read at -infinity.
			CASE WHEN b.balance IS NOT NULL AND isfinite(b.read_time) THEN 'read ' || quota_internal.age_text(b.read_time, clock)
				WHEN b.balance IS NOT NULL THEN 'the last one; something happened since'
				WHEN b.last_balance IS NOT NULL THEN 'the last one above 0; something happened since' ELSE 'not known' END,
			CASE WHEN b.balance IS NOT NULL AND isfinite(b.read_time) AND (b.read_time <= horizon OR b.read_time > clock) THEN 'too old for conditions' END,
			CASE WHEN s.gateway IS NOT NULL THEN 'balances of the gateway are suspended' END)
		FROM quota_manager.user_balance b LEFT JOIN quota_manager.balance_suspension s ON s.gateway = b.gateway
		WHERE b.user_id = user_balances.user_id ORDER BY b.gateway COLLATE "C";
END
$$;
COMMENT ON FUNCTION quota_internal.user_balances(text) IS 'Of user_page: the last known balances of a user.';

CREATE FUNCTION quota_internal.user_totals(user_id text) RETURNS TABLE (model text, amount numeric, note text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET quota_manager.pinned_statistics = on SET jit = off
AS $$
BEGIN
	PERFORM quota_internal.pin_statistics();
	RETURN QUERY SELECT e.model, coalesce(sum(e.amount) FILTER (WHERE e.status = 'completed'), 0), concat_ws(', ',
			format('%s of %s grants completed', count(*) FILTER (WHERE e.status = 'completed'), count(*)),
			nullif(count(*) FILTER (WHERE e.status IN ('pending', 'processing')), 0) || ' on the way',
			nullif(count(*) FILTER (WHERE e.status = 'in_doubt'), 0) || ' in doubt',
			nullif(count(*) FILTER (WHERE e.status = 'failed'), 0) || ' failed',
			nullif(count(*) FILTER (WHERE e.status = 'cancelled'), 0) || ' cancelled')
		FROM quota_manager.quota_strategy s JOIN quota_manager.quota_execute e ON e.strategy_id = s.id
		WHERE e.user_id = user_totals.user_id GROUP BY e.model ORDER BY e.model COLLATE "C";
END
$$;
COMMENT ON FUNCTION quota_internal.user_totals(text) IS 'Of user_page: what a user was granted, per model.';

CREATE FUNCTION quota_internal.user_grants(user_id text, n integer) RETURNS SETOF quota_manager.grant_list
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan SET jit = off SET quota_manager.pinned_statistics = on
AS $$
BEGIN
	PERFORM quota_internal.pin_statistics();
	-- The words are found for those only that are shown.
	RETURN QUERY SELECT l.* FROM quota_manager.grant_list l
		WHERE l.user_id = user_grants.user_id AND l.id = ANY (ARRAY(SELECT e.id FROM quota_manager.quota_strategy s
			JOIN quota_manager.quota_execute e ON e.strategy_id = s.id WHERE e.user_id = user_grants.user_id ORDER BY e.id DESC LIMIT greatest(n, 0)))
		ORDER BY l.id DESC;
END
$$;
COMMENT ON FUNCTION quota_internal.user_grants(text, integer) IS 'Of user_page: the last grants of a user.';

CREATE FUNCTION quota_manager.user_page(user_id text, n integer DEFAULT 20) RETURNS TABLE (section text, entry text, value text, note text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET jit = off SET quota_manager.pinned_statistics = on
AS $$
#variable_conflict use_column
DECLARE
	-- Where the id comes from a grant, it has the collation of grants, in which indexes of other tables could not be searched.
	who CONSTANT text COLLATE "default" := user_page.user_id;
	is_known boolean;
BEGIN
	IF who IS NULL THEN
		RAISE EXCEPTION 'the user must be given' USING ERRCODE = 'null_value_not_allowed';
	END IF;
	IF n IS NULL OR n <= 0 THEN
		RAISE EXCEPTION 'the number of grants must be positive'
			USING ERRCODE = 'invalid_parameter_value', HINT = 'Leave it out for 20.';
	END IF;
	PERFORM quota_internal.pin_statistics();
	RETURN QUERY SELECT 'user', a.name, a.value, NULL::text FROM quota_internal.user_attributes(who) a;
	is_known := FOUND;
	IF NOT is_known THEN
		RETURN QUERY SELECT 'user', 'id', who, 'not in the user source: no strategy finds this user';
	END IF;
	RETURN QUERY SELECT 'balance', b.gateway, b.balance::text, b.note FROM quota_internal.user_balances(who) b;
	is_known := is_known OR FOUND;
	RETURN QUERY SELECT 'total', t.model, trim_scale(t.amount)::text, t.note FROM quota_internal.user_totals(who) t;
	is_known := is_known OR FOUND;
	RETURN QUERY SELECT 'pruned', coalesce(s.name, 'strategy ' || p.strategy_id), trim_scale(p.amount)::text,
			format('%s grants up to %s, deleted by retain()', p.grants, quota_internal.time_text(p.last_time))
		FROM quota_manager.quota_strategy s JOIN quota_manager.pruned_grant p ON p.strategy_id = s.id
		WHERE p.user_id = who ORDER BY s.name COLLATE "C";
	is_known := is_known OR FOUND;
	RETURN QUERY SELECT 'grant', format('%s  #%s', quota_internal.time_text(l.create_time), l.id), format('%s of %s', trim_scale(l.amount), l.model),
			format('%s, %s: %s', l.strategy, l.cause, l.outcome)
		FROM quota_internal.user_grants(who, n) l ORDER BY l.id DESC;
	RETURN QUERY SELECT d.section, d.entry, d.value, d.note FROM (
		SELECT 'decision' AS section, format('%s  #%s', quota_internal.time_text(d.decision_time), d.grant_id) AS entry, replace(d.action, '_', ' ') AS value,
			concat_ws(': ', 'by ' || quota_internal.person(d.said_by, d.role), nullif(d.note, '')) AS note, d.id
		FROM quota_manager.grant_decision d WHERE d.user_id = who ORDER BY d.id DESC LIMIT n) d ORDER BY d.id DESC;
	is_known := is_known OR FOUND;
	RETURN QUERY SELECT c.section, c.entry, c.value, c.note FROM (
		SELECT 'call by hand' AS section, format('%s  %s', quota_internal.time_text(c.call_time), c.gateway) AS entry,
			concat_ws(' ', c.action, trim_scale(c.amount)) AS value,
			concat_ws(': ', 'by ' || quota_internal.person(c.said_by, c.role), concat_ws('; ', nullif(c.reason, ''), c.outcome)) AS note, c.call_time, c.id
		FROM quota_manager.gateway_call c WHERE c.user_id = who ORDER BY c.call_time DESC, c.id DESC LIMIT n) c ORDER BY c.call_time DESC, c.id DESC;
	is_known := is_known OR FOUND;
	RETURN QUERY SELECT 'call in doubt', format('%s  %s', quota_internal.time_text(d.since), d.gateway), 'delta ' || trim_scale(d.value),
			format('by %s: %s; bulk call %s', d.called_by, d.reason, d.key)
		FROM quota_manager.bulk_doubts d WHERE d.user_id = who ORDER BY d.since DESC, d.key COLLATE "C" LIMIT n;
	is_known := is_known OR FOUND;
	IF NOT is_known THEN
		RAISE EXCEPTION 'user "%" is not known', left(who, 100)
			USING ERRCODE = 'no_data_found', DETAIL = 'The user source does not have it, and nothing was granted to it.',
				HINT = 'See SELECT id FROM quota_manager.subject.';
	END IF;
END
$$;
COMMENT ON FUNCTION quota_manager.user_page(text, integer) IS 'Everything about one user, in sections: what conditions see, balances, totals per model, the last n grants with their causes and outcomes, decisions about them, calls by hand, those of bulk calls that are in doubt.';
