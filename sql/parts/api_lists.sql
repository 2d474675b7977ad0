-- Of the API: grants as people read them.

CREATE VIEW quota_api.grant_list WITH (security_invoker = true) AS
SELECT g.id, g.create_time, g.user_id, g.strategy, g.amount, g.model, g.cause, g.outcome, g.gateway, g.status, g.scheduled_time, g.revision,
	g.strategy_version, g.strategy_id, g.run_id
FROM quota_manager.grant_list g;
COMMENT ON VIEW quota_api.grant_list IS
'Grants in words: to whom, by what, why, and what became of them
Page by id: order=id.desc&limit=50, then id=lt.LAST. Filters on id and user_id reach an index. executions has the columns that programs need.';

CREATE VIEW quota_api.trouble_list WITH (security_invoker = true) AS
SELECT t.id, t.since, t.user_id, t.strategy, t.amount, t.model, t.gateway, t.status, t.why, t.what_to_do, t.awaits_you, t.scheduled_time, t.attempts,
	t.strategy_id, t.run_id
FROM quota_manager.trouble_list t;
COMMENT ON VIEW quota_api.trouble_list IS
'Grants that failed or are in doubt: why, and what to do
Decide about them with /rpc/resolve and /rpc/retry, which take many ids.';

CREATE VIEW quota_api.trouble_counts WITH (security_invoker = true) AS
SELECT t.gateway, t.strategy, t.failed, t.in_doubt, t.await_you, t.amount, t.since, t.mostly FROM quota_manager.trouble_counts t;
COMMENT ON VIEW quota_api.trouble_counts IS
'How many grants failed or are in doubt, per gateway and strategy
One row per gateway and strategy that has any.';

CREATE VIEW quota_api.grant_totals WITH (security_invoker = true) AS
SELECT t.day, t.strategy, t.model, t.runs, t.granted, t.amount, t.failed, t.in_doubt, t.undelivered_runs, t.is_reversal, t.strategy_id
FROM quota_manager.grant_totals t;
COMMENT ON VIEW quota_api.grant_totals IS
'What was granted per day, strategy and model
Filter on day: day=gte.2026-11-01. Days are those of the time zone of the role, or of Prefer: timezone=ZONE.';

-- A column takes over the comment of the view's column that it shows.
DO $$
DECLARE
	shown record;
BEGIN
	FOR shown IN SELECT c.relname, a.attname, pg_catalog.col_description(t.attrelid, t.attnum) AS comment
		FROM pg_catalog.pg_class c
		JOIN pg_catalog.pg_attribute a ON a.attrelid OPERATOR(pg_catalog.=) c.oid AND a.attnum OPERATOR(pg_catalog.>) 0
		JOIN pg_catalog.pg_attribute t ON t.attrelid OPERATOR(pg_catalog.=) pg_catalog.format('quota_manager.%I', c.relname)::pg_catalog.regclass
			AND t.attname OPERATOR(pg_catalog.=) a.attname
		WHERE c.relnamespace OPERATOR(pg_catalog.=) 'quota_api'::pg_catalog.regnamespace
			AND c.relname OPERATOR(pg_catalog.=) ANY (ARRAY['grant_list', 'trouble_list', 'trouble_counts', 'grant_totals'])
	LOOP
		EXECUTE pg_catalog.format('COMMENT ON COLUMN quota_api.%I.%I IS %L', shown.relname, shown.attname, shown.comment);
	END LOOP;
END
$$;

CREATE FUNCTION quota_api.user_page(user_id text, n integer DEFAULT 20)
RETURNS TABLE (section text, entry text, value text, note text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	detail text;
	hint text;
BEGIN
	RETURN QUERY SELECT p.* FROM quota_manager.user_page(user_id, n) p;
EXCEPTION WHEN query_canceled OR OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	PERFORM quota_internal.raise_http_error(SQLSTATE, SQLERRM, detail, hint);
	RAISE;
END
$$;
COMMENT ON FUNCTION quota_api.user_page(text, integer) IS
'Everything about one user, in sections
What conditions see, balances, totals per model, the last n grants with their causes and outcomes, decisions about them, calls by hand.';
