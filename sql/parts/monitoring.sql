-- Figures for monitoring systems.

CREATE FUNCTION quota_internal.age_seconds(since timestamptz, until timestamptz) RETURNS double precision
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN greatest(pg_catalog.date_part('epoch', until) OPERATOR(pg_catalog.-) pg_catalog.date_part('epoch', since), 0);
COMMENT ON FUNCTION quota_internal.age_seconds(timestamptz, timestamptz) IS 'Seconds between two times; 0 where the clock was set back between them.';

CREATE FUNCTION quota_internal.oldest_pending(gateways text[]) RETURNS TABLE (gateway text, since timestamptz)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET quota_manager.pinned_statistics = on SET jit = off
AS $$
DECLARE
	run record;
BEGIN
	PERFORM quota_internal.pin_statistics();
	FOR run IN SELECT r.id, r.first_grant_id, r.last_grant_id, r.start_time FROM quota_manager.quota_run r WHERE r.undelivered ORDER BY r.start_time, r.id LOOP
		EXIT WHEN gateways IS NULL OR gateways = '{}';
		SELECT e.gateway, run.start_time INTO gateway, since FROM quota_manager.quota_execute e
			WHERE e.id BETWEEN run.first_grant_id AND run.last_grant_id AND e.run_id = run.id ORDER BY e.id LIMIT 1;
		CONTINUE WHEN gateway IS NULL OR gateway <> ALL (gateways);
		gateways := ARRAY(SELECT u.name FROM unnest(gateways) u (name) WHERE u.name <> oldest_pending.gateway);
		RETURN NEXT;
	END LOOP;
END
$$;
COMMENT ON FUNCTION quota_internal.oldest_pending(text[]) IS 'Of metrics: when the oldest run began that has open grants, for each of the gateways; the time of a run is that of its first grant. Other grants, perhaps millions, are not read.';

CREATE FUNCTION quota_internal.gateway_figures()
RETURNS TABLE (gateway text, pending bigint, processing bigint, failed bigint, in_doubt bigint, oldest_pending timestamptz,
	completed_total bigint, completed_amount_total numeric, failed_total bigint, in_doubt_total bigint, deferred_total bigint)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET quota_manager.pinned_statistics = on SET jit = off
AS $$
BEGIN
	PERFORM quota_internal.pin_statistics();
	RETURN QUERY
	WITH tally AS (
		SELECT t.gateway, sum(t.pending) AS pending, sum(t.processing) AS processing, sum(t.completed) AS completed,
			sum(t.completed_amount) AS completed_amount, sum(t.failed) AS failed, sum(t.in_doubt) AS in_doubt, sum(t.deferred) AS deferred
		FROM quota_manager.gateway_tally t GROUP BY t.gateway
	), troubled AS (
		SELECT t.gateway, count(*) FILTER (WHERE t.status = 'failed') AS failed, count(*) FILTER (WHERE t.status = 'in_doubt') AS in_doubt
		FROM quota_manager.troubled_grant t GROUP BY t.gateway
	)
	SELECT coalesce(g.name, t.gateway, p.gateway), coalesce(t.pending, 0)::bigint, coalesce(t.processing, 0)::bigint,
		coalesce(p.failed, 0), coalesce(p.in_doubt, 0), CASE WHEN t.pending > 0 THEN o.since END,
		coalesce(t.completed, 0)::bigint, coalesce(t.completed_amount, 0), coalesce(t.failed, 0)::bigint, coalesce(t.in_doubt, 0)::bigint,
		coalesce(t.deferred, 0)::bigint
	FROM quota_manager.quota_gateway g
	FULL JOIN tally t ON t.gateway = g.name
	FULL JOIN troubled p ON p.gateway = coalesce(g.name, t.gateway)
	LEFT JOIN quota_internal.oldest_pending(ARRAY(SELECT w.gateway FROM tally w WHERE w.pending > 0)) o ON o.gateway = t.gateway
	-- A deleted gateway is reported as long as it has open grants.
	WHERE g.name IS NOT NULL OR t.pending <> 0 OR t.processing <> 0 OR p.gateway IS NOT NULL;
END
$$;
COMMENT ON FUNCTION quota_internal.gateway_figures() IS 'Of metrics: what is counted for each gateway.';

CREATE FUNCTION quota_internal.read_metrics()
RETURNS TABLE (gateway text, gateway_open integer, gateway_closed integer, gateway_probing integer, gateway_misconfigured integer,
	gateway_state_seconds double precision, balances_suspended integer, pending_grants bigint, processing_grants bigint, failed_grants bigint,
	in_doubt_grants bigint, oldest_pending_seconds double precision, completed_grants_total bigint, completed_amount_total numeric,
	failures_total bigint, doubts_total bigint, deferrals_total bigint,
	launcher_running integer, schedulers_running integer, couriers_running integer, launcher_tick_seconds double precision,
	scheduler_tick_seconds double precision, courier_tick_seconds double precision, copy_suspended integer, strategies_in_use bigint,
	strategies_failing bigint, due_firings bigint, firing_delay_seconds double precision, failed_runs bigint, incomplete_runs bigint,
	undelivered_runs bigint, skipped_firings_total bigint, gateway_paused integer, gateway_paused_seconds double precision,
	paused integer, paused_seconds double precision, strategies_stopped bigint, bulk_changes_in_doubt bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET quota_manager.pinned_statistics = on SET jit = off
AS $$
#variable_conflict use_column
DECLARE
	present CONSTANT timestamptz := clock_timestamp();
BEGIN
	PERFORM quota_internal.pin_statistics();
	RETURN QUERY
	SELECT f.gateway, (g.state = 'open')::integer, (g.state = 'closed')::integer, (g.state = 'probing')::integer, (g.state = 'misconfigured')::integer,
		quota_internal.age_seconds(g.state_since, present), CASE WHEN g.name IS NOT NULL THEN (b.gateway IS NOT NULL)::integer END,
		f.pending, f.processing, f.failed, f.in_doubt, CASE WHEN f.pending > 0 THEN quota_internal.age_seconds(f.oldest_pending, present) ELSE 0 END,
		f.completed_total, f.completed_amount_total, f.failed_total, f.in_doubt_total, f.deferred_total,
		NULL::integer, NULL::integer, NULL::integer, NULL::double precision, NULL::double precision, NULL::double precision, NULL::integer,
		NULL::bigint, NULL::bigint, NULL::bigint, NULL::double precision, NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint,
		(p.since IS NOT NULL)::integer, coalesce(quota_internal.age_seconds(p.since, present), 0), NULL::integer, NULL::double precision, NULL::bigint,
		(SELECT count(*) FROM quota_manager.bulk_call c WHERE c.gateway = f.gateway AND c.state = 'in_doubt')
	FROM quota_internal.gateway_figures() f
	LEFT JOIN LATERAL (SELECT min(q.since) AS since FROM quota_manager.quota_pause q
		WHERE q.end_time IS NULL AND (q.scope = 'everything' OR q.gateway = f.gateway)) p ON true
	LEFT JOIN quota_manager.quota_gateway g ON g.name = f.gateway
	LEFT JOIN quota_manager.balance_suspension b ON b.gateway = f.gateway
	ORDER BY f.gateway;

	RETURN QUERY
	SELECT NULL::text, NULL::integer, NULL::integer, NULL::integer, NULL::integer, NULL::double precision, NULL::integer, NULL::bigint, NULL::bigint,
		NULL::bigint, NULL::bigint, NULL::double precision, NULL::bigint, NULL::numeric, NULL::bigint, NULL::bigint, NULL::bigint,
		w.launchers, w.schedulers, w.couriers, w.launcher_age, w.scheduler_age, w.courier_age,
		quota_internal.is_copy()::integer,
		d.in_use, d.failing, d.due, d.delay, r.failed, r.incomplete,
		(SELECT count(*) FROM quota_manager.quota_run u WHERE u.undelivered),
		(SELECT coalesce(sum(s.occurrences), 0)::bigint FROM quota_manager.quota_run s WHERE s.state = 'skipped')
			+ (SELECT coalesce(sum(p.skipped_firings), 0)::bigint FROM quota_manager.pruned_run p),
		NULL::integer, NULL::double precision, (p.since IS NOT NULL)::integer, coalesce(quota_internal.age_seconds(p.since, present), 0), p.stopped, NULL::bigint
	FROM (SELECT count(*) FILTER (WHERE l.kind = 'launcher')::integer AS launchers, count(*) FILTER (WHERE l.kind = 'scheduler')::integer AS schedulers,
			count(*) FILTER (WHERE l.kind = 'courier')::integer AS couriers,
			max(quota_internal.age_seconds(l.last_tick, present)) FILTER (WHERE l.kind = 'launcher') AS launcher_age,
			max(quota_internal.age_seconds(l.last_tick, present)) FILTER (WHERE l.kind = 'scheduler') AS scheduler_age,
			max(quota_internal.age_seconds(l.last_tick, present)) FILTER (WHERE l.kind = 'courier') AS courier_age
		FROM quota_internal.list_workers() l) w
	CROSS JOIN (SELECT (SELECT count(*) FROM quota_manager.quota_strategy s WHERE s.enabled AND NOT s.archived) AS in_use,
			count(DISTINCT q.strategy_id) FILTER (WHERE q.tries > 0) AS failing, count(*) FILTER (WHERE q.state = 'due') AS due,
			coalesce(max(CASE WHEN q.scheduled_time IS NULL OR q.tries > 0 THEN quota_internal.age_seconds(q.due_time, present)
				ELSE quota_internal.age_seconds(q.scheduled_time, quota_manager.schedule_now()) END) FILTER (WHERE q.state = 'due'), 0) AS delay
		FROM quota_manager.strategy_due q) d
	CROSS JOIN (SELECT count(*) FILTER (WHERE u.state = 'failed') AS failed, count(*) FILTER (WHERE u.state = 'incomplete') AS incomplete
		FROM quota_manager.quota_run u WHERE u.state IN ('failed', 'incomplete')) r
	CROSS JOIN (SELECT min(q.since) FILTER (WHERE q.scope = 'everything') AS since, count(*) FILTER (WHERE q.cause = 'breaker') AS stopped
		FROM quota_manager.quota_pause q WHERE q.end_time IS NULL) p;
END
$$;
COMMENT ON FUNCTION quota_internal.read_metrics() IS 'Of metrics: its rows. Runs as the owner: a role that may read the view needs no right on the tables that it counts.';

CREATE VIEW quota_manager.metrics WITH (security_invoker = true) AS
SELECT m.gateway, m.gateway_open, m.gateway_closed, m.gateway_probing, m.gateway_misconfigured, m.gateway_state_seconds, m.balances_suspended,
	m.pending_grants, m.processing_grants, m.failed_grants, m.in_doubt_grants, m.oldest_pending_seconds, m.completed_grants_total,
	m.completed_amount_total, m.failures_total, m.doubts_total, m.deferrals_total,
	m.launcher_running, m.schedulers_running, m.couriers_running, m.launcher_tick_seconds, m.scheduler_tick_seconds, m.courier_tick_seconds,
	m.copy_suspended, m.strategies_in_use, m.strategies_failing, m.due_firings, m.firing_delay_seconds, m.failed_runs, m.incomplete_runs,
	m.undelivered_runs, m.skipped_firings_total, m.gateway_paused, m.gateway_paused_seconds, m.paused, m.paused_seconds, m.strategies_stopped, m.bulk_changes_in_doubt
FROM quota_internal.read_metrics() m;
COMMENT ON VIEW quota_manager.metrics IS 'Figures for monitoring: a row per gateway, and one (gateway null) for the database as a whole; columns that do not apply are null. Columns that end in _total only grow, but for a restore, and for amounts that are taken back.';
COMMENT ON COLUMN quota_manager.metrics.gateway IS 'Label: the gateway; null: the figures are about the database.';
COMMENT ON COLUMN quota_manager.metrics.gateway_open IS '1: the gateway is open, grants are sent.';
COMMENT ON COLUMN quota_manager.metrics.gateway_closed IS '1: the gateway is closed, because it is unreachable, fails or asks for a pause.';
COMMENT ON COLUMN quota_manager.metrics.gateway_probing IS '1: the gateway answers again and is sent grants carefully.';
COMMENT ON COLUMN quota_manager.metrics.gateway_misconfigured IS '1: the gateway refuses us, its key cannot be read, or its URL is not allowed.';
COMMENT ON COLUMN quota_manager.metrics.gateway_state_seconds IS 'For how long the gateway has been in its state.';
COMMENT ON COLUMN quota_manager.metrics.balances_suspended IS '1: balances of the gateway count as missing until release_balances() is called.';
COMMENT ON COLUMN quota_manager.metrics.pending_grants IS 'Grants to be sent.';
COMMENT ON COLUMN quota_manager.metrics.processing_grants IS 'Grants claimed by the sender: in flight, or about to be.';
COMMENT ON COLUMN quota_manager.metrics.failed_grants IS 'Grants that failed and were not retried.';
COMMENT ON COLUMN quota_manager.metrics.in_doubt_grants IS 'Grants in doubt: they may have been applied.';
COMMENT ON COLUMN quota_manager.metrics.oldest_pending_seconds IS 'For how long the oldest run has existed that has open grants for the gateway; 0: no grant is pending.';
COMMENT ON COLUMN quota_manager.metrics.completed_grants_total IS 'Grants that deliveries have completed.';
COMMENT ON COLUMN quota_manager.metrics.completed_amount_total IS 'Sum of their amounts.';
COMMENT ON COLUMN quota_manager.metrics.failures_total IS 'Grants that failed, each time.';
COMMENT ON COLUMN quota_manager.metrics.doubts_total IS 'Attempts whose answer was lost.';
COMMENT ON COLUMN quota_manager.metrics.deferrals_total IS 'Attempts that were certainly not applied and whose grant waits again.';
COMMENT ON COLUMN quota_manager.metrics.launcher_running IS '1: the launcher runs; 0: it does not, and no worker is started.';
COMMENT ON COLUMN quota_manager.metrics.schedulers_running IS 'Schedulers that serve this database: 1, or 0 if there is none or its time slice is over.';
COMMENT ON COLUMN quota_manager.metrics.couriers_running IS 'Delivery workers of this database: 1 while there is something to deliver.';
COMMENT ON COLUMN quota_manager.metrics.launcher_tick_seconds IS 'How long ago the launcher last began or ended a poll for work.';
COMMENT ON COLUMN quota_manager.metrics.scheduler_tick_seconds IS 'How long ago the scheduler last began or ended a poll for work.';
COMMENT ON COLUMN quota_manager.metrics.courier_tick_seconds IS 'How long ago the delivery worker last began or ended a poll for work.';
COMMENT ON COLUMN quota_manager.metrics.copy_suspended IS '1: the database is a copy, and nothing is scanned or delivered until resume() is called.';
COMMENT ON COLUMN quota_manager.metrics.strategies_in_use IS 'Strategies that are enabled and not archived.';
COMMENT ON COLUMN quota_manager.metrics.strategies_failing IS 'Strategies whose last run failed or is incomplete and is tried again.';
COMMENT ON COLUMN quota_manager.metrics.due_firings IS 'Firings and single strategies that are due and not run yet.';
COMMENT ON COLUMN quota_manager.metrics.firing_delay_seconds IS 'For how long the oldest of them has been due; 0: none is.';
COMMENT ON COLUMN quota_manager.metrics.failed_runs IS 'Runs that failed and were not made good by a later try.';
COMMENT ON COLUMN quota_manager.metrics.incomplete_runs IS 'Runs that are incomplete because some balances were not known.';
COMMENT ON COLUMN quota_manager.metrics.undelivered_runs IS 'Runs with open grants.';
COMMENT ON COLUMN quota_manager.metrics.skipped_firings_total IS 'Firings that were recorded as not run.';
COMMENT ON COLUMN quota_manager.metrics.gateway_paused IS '1: an operator has paused the gateway, or everything.';
COMMENT ON COLUMN quota_manager.metrics.gateway_paused_seconds IS 'For how long; 0: it is not paused.';
COMMENT ON COLUMN quota_manager.metrics.paused IS '1: an operator has paused everything.';
COMMENT ON COLUMN quota_manager.metrics.paused_seconds IS 'For how long; 0: not everything is paused.';
COMMENT ON COLUMN quota_manager.metrics.strategies_stopped IS 'Strategies that the breaker has stopped.';
COMMENT ON COLUMN quota_manager.metrics.bulk_changes_in_doubt IS 'Changes of bulk calls by hand in doubt: see bulk_doubts.';

CREATE FUNCTION quota_internal.metrics_text() RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	figures CONSTANT jsonb := (SELECT jsonb_agg(to_jsonb(m)) FROM quota_manager.metrics m);
	text text := '';
	figure record;
BEGIN
	FOR figure IN
		SELECT 'quota_manager_' || a.attname AS name, a.attname AS label,
			replace(replace(col_description(a.attrelid, a.attnum), '\', '\\'), E'\n', '\n') AS help,
			CASE WHEN a.attname LIKE '%\_total' THEN 'counter' ELSE 'gauge' END AS type
		FROM pg_attribute a
		WHERE a.attrelid = 'quota_manager.metrics'::regclass AND a.attnum > 1 AND NOT a.attisdropped ORDER BY a.attnum
	LOOP
		text := text || format(E'# HELP %s %s\n# TYPE %s %s\n', figure.name, figure.help, figure.name, figure.type)
			|| coalesce((SELECT string_agg(figure.name
					|| coalesce('{gateway="' || replace(replace(replace(f.row ->> 'gateway', '\', '\\'), '"', '\"'), E'\n', '\n') || '"}', '')
					|| ' ' || (f.row ->> figure.label) || E'\n', '' ORDER BY f.number)
				FROM jsonb_array_elements(figures) WITH ORDINALITY f (row, number) WHERE f.row ->> figure.label IS NOT NULL), '');
	END LOOP;
	RETURN text;
END
$$;
COMMENT ON FUNCTION quota_internal.metrics_text() IS 'The view metrics in the text format of Prometheus, version 0.0.4.';

CREATE FUNCTION quota_internal.read_progress(command text) RETURNS TABLE (pid integer, datid oid, started timestamptz, figures bigint[])
LANGUAGE C STABLE STRICT AS 'MODULE_PATHNAME', 'qm_read_progress';
COMMENT ON FUNCTION quota_internal.read_progress(text) IS 'Of stat_progress_scan and stat_progress_deliver: the scans, or deliveries, that run on a server that preloads the library. Start and figures are null for callers who may not see what the role does.';

CREATE VIEW quota_manager.stat_progress_scan WITH (security_invoker = true) AS
SELECT p.pid, p.datid, d.datname,
	(ARRAY['initializing', 'planning', 'evaluating users', 'writing grants', 'recording'])[p.figures[1] OPERATOR(pg_catalog.+) 1] AS phase,
	p.figures[2] AS runs_total, p.figures[3] AS runs_done, nullif(p.figures[4], 0)::integer AS strategy_id,
	p.figures[5] AS users_total, p.figures[6] AS users_done, p.figures[7] AS grants_written, p.started
FROM quota_internal.read_progress('scan') p LEFT JOIN pg_catalog.pg_database d ON d.oid OPERATOR(pg_catalog.=) p.datid;
COMMENT ON VIEW quota_manager.stat_progress_scan IS 'Progress of the scans that run on this server, like pg_stat_progress_vacuum. Empty where the library is not preloaded; for other roles than members of pg_read_all_stats, scans of other roles show only pid and database.';
COMMENT ON COLUMN quota_manager.stat_progress_scan.pid IS 'Process id.';
COMMENT ON COLUMN quota_manager.stat_progress_scan.datid IS 'Database.';
COMMENT ON COLUMN quota_manager.stat_progress_scan.datname IS 'Its name.';
COMMENT ON COLUMN quota_manager.stat_progress_scan.phase IS 'initializing (locks, what is due), planning, evaluating users, writing grants, or recording what came of a run.';
COMMENT ON COLUMN quota_manager.stat_progress_scan.runs_total IS 'Runs of the scan: single strategies, and firings of periodic ones.';
COMMENT ON COLUMN quota_manager.stat_progress_scan.runs_done IS 'How many of them are done.';
COMMENT ON COLUMN quota_manager.stat_progress_scan.strategy_id IS 'The strategy whose users are evaluated or granted; null: several at once, or none.';
COMMENT ON COLUMN quota_manager.stat_progress_scan.users_total IS 'In this phase: users to be evaluated, as the planner estimates, or users found, who are granted unless they have their grant.';
COMMENT ON COLUMN quota_manager.stat_progress_scan.users_done IS 'How many of them, to the last thousand; may exceed the estimate.';
COMMENT ON COLUMN quota_manager.stat_progress_scan.grants_written IS 'Grants written by the scan.';
COMMENT ON COLUMN quota_manager.stat_progress_scan.started IS 'When the scan began.';

CREATE VIEW quota_manager.stat_progress_deliver WITH (security_invoker = true) AS
SELECT p.pid, p.datid, d.datname,
	(ARRAY['looking for work', 'delivering', 'waiting for a lock', 'winding down'])[p.figures[1] OPERATOR(pg_catalog.+) 1] AS phase,
	p.figures[2] AS gateways_total, p.figures[3] AS gateways_served, p.figures[4] AS gateways_open,
	p.figures[5] AS grants_claimed, p.figures[6] AS grants_in_flight, p.figures[7] AS grants_completed, p.figures[8] AS grants_failed,
	p.figures[9] AS grants_in_doubt, p.figures[10] AS grants_deferred, p.started
FROM quota_internal.read_progress('deliver') p LEFT JOIN pg_catalog.pg_database d ON d.oid OPERATOR(pg_catalog.=) p.datid;
COMMENT ON VIEW quota_manager.stat_progress_deliver IS 'Progress of the deliveries that run on this server: CALL deliver(), or a delivery worker with work. As stat_progress_scan.';
COMMENT ON COLUMN quota_manager.stat_progress_deliver.pid IS 'Process id.';
COMMENT ON COLUMN quota_manager.stat_progress_deliver.datid IS 'Database.';
COMMENT ON COLUMN quota_manager.stat_progress_deliver.datname IS 'Its name.';
COMMENT ON COLUMN quota_manager.stat_progress_deliver.phase IS 'looking for work, delivering, waiting for a lock that another session holds, or winding down: what is in flight is awaited.';
COMMENT ON COLUMN quota_manager.stat_progress_deliver.gateways_total IS 'Gateways of the database.';
COMMENT ON COLUMN quota_manager.stat_progress_deliver.gateways_served IS 'How many of them this process sends to.';
COMMENT ON COLUMN quota_manager.stat_progress_deliver.gateways_open IS 'How many of those are open.';
COMMENT ON COLUMN quota_manager.stat_progress_deliver.grants_claimed IS 'Grants claimed and not sent yet.';
COMMENT ON COLUMN quota_manager.stat_progress_deliver.grants_in_flight IS 'Requests in flight, queries included, at the end of the last batch.';
COMMENT ON COLUMN quota_manager.stat_progress_deliver.grants_completed IS 'Grants completed since it started.';
COMMENT ON COLUMN quota_manager.stat_progress_deliver.grants_failed IS 'Grants that failed.';
COMMENT ON COLUMN quota_manager.stat_progress_deliver.grants_in_doubt IS 'Grants that became in doubt.';
COMMENT ON COLUMN quota_manager.stat_progress_deliver.grants_deferred IS 'Attempts that were not applied; their grants wait again.';
COMMENT ON COLUMN quota_manager.stat_progress_deliver.started IS 'When the delivery began.';
