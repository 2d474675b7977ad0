-- Brakes over HTTP.  Not to be confused with /rpc/pause and /rpc/resume, which are about the background workers.

CREATE VIEW quota_api.pauses WITH (security_invoker = true) AS
SELECT p.what, p.since, p.paused_by, p.why, p.until, p.ended_by, p.end_why, p.scope, p.name, p.cause, p.id
FROM quota_manager.pauses p;
COMMENT ON VIEW quota_api.pauses IS
'Pauses: what is paused, and what was
Those in force (until is null) first. Written by /rpc/pause_all, /rpc/pause_gateway, /rpc/pause_strategy and their opposites, by edits of a strategy''s state, and by the breaker.';
DO $$
DECLARE
	shown record;
BEGIN
	FOR shown IN SELECT a.attname, pg_catalog.col_description(a.attrelid, a.attnum) AS comment FROM pg_catalog.pg_attribute a
		WHERE a.attrelid OPERATOR(pg_catalog.=) 'quota_manager.pauses'::pg_catalog.regclass AND a.attnum OPERATOR(pg_catalog.>) 0
	LOOP
		EXECUTE pg_catalog.format('COMMENT ON COLUMN quota_api.pauses.%I IS %L', shown.attname, shown.comment);
	END LOOP;
END
$$;

CREATE FUNCTION quota_internal.pull_brake(scope text, name text, pauses boolean, note text)
RETURNS TABLE (id text, done boolean, status text, obstacle text)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	was_paused CONSTANT boolean := EXISTS (SELECT 1 FROM quota_manager.pauses p WHERE p.until IS NULL AND p.scope = pull_brake.scope
		AND p.name IS NOT DISTINCT FROM pull_brake.name AND (p.cause = 'operator' OR NOT pauses));
BEGIN
	CASE concat(scope, CASE WHEN NOT pauses THEN ' goes on' END)
		WHEN 'everything' THEN PERFORM quota_manager.pause_all(note);
		WHEN 'everything goes on' THEN PERFORM quota_manager.unpause_all(note);
		WHEN 'gateway' THEN PERFORM quota_manager.pause_gateway(name, note);
		WHEN 'gateway goes on' THEN PERFORM quota_manager.unpause_gateway(name, note);
		WHEN 'strategy' THEN PERFORM quota_manager.pause_strategy(name, note);
		WHEN 'strategy goes on' THEN PERFORM quota_manager.unpause_strategy(name, note);
	END CASE;
	RETURN QUERY SELECT coalesce(name, scope), was_paused <> pauses, CASE WHEN pauses THEN 'paused' ELSE 'not paused' END,
		CASE WHEN was_paused = pauses THEN CASE WHEN pauses THEN 'paused already' ELSE 'not paused' END END;
END
$$;
COMMENT ON FUNCTION quota_internal.pull_brake(text, text, boolean, text) IS 'Of quota_api: pauses or unpauses, and returns what came of it as a row.';

CREATE FUNCTION quota_api.pause_all(note text DEFAULT '')
RETURNS TABLE (id text, done boolean, status text, obstacle text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s'
AS $$
DECLARE
	detail text;
	hint text;
BEGIN
	RETURN QUERY SELECT b.* FROM quota_internal.pull_brake('everything', NULL, true, note) b;
EXCEPTION WHEN query_canceled OR OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	PERFORM quota_internal.raise_http_error(SQLSTATE, SQLERRM, detail, hint);
	RAISE;
END
$$;
COMMENT ON FUNCTION quota_api.pause_all(text) IS
'Pause everything
No strategy is run and nothing is sent until /rpc/unpause_all, but what is in flight. Calls by hand still work. One row: whether it was done, the status now, and what prevented it. note says why, and is kept in pauses. For operators.';

CREATE FUNCTION quota_api.unpause_all(note text DEFAULT '')
RETURNS TABLE (id text, done boolean, status text, obstacle text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s'
AS $$
DECLARE
	detail text;
	hint text;
BEGIN
	RETURN QUERY SELECT b.* FROM quota_internal.pull_brake('everything', NULL, false, note) b;
EXCEPTION WHEN query_canceled OR OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	PERFORM quota_internal.raise_http_error(SQLSTATE, SQLERRM, detail, hint);
	RAISE;
END
$$;
COMMENT ON FUNCTION quota_api.unpause_all(text) IS
'End the pause of everything
Gateways and strategies that are paused by themselves stay so. One row: whether it was done, the status now, and what prevented it. note says why, and is kept in pauses. For operators.';

CREATE FUNCTION quota_api.pause_gateway(gateway text, note text DEFAULT '')
RETURNS TABLE (id text, done boolean, status text, obstacle text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s'
AS $$
DECLARE
	detail text;
	hint text;
BEGIN
	RETURN QUERY SELECT b.* FROM quota_internal.pull_brake('gateway', gateway, true, note) b;
EXCEPTION WHEN query_canceled OR OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	PERFORM quota_internal.raise_http_error(SQLSTATE, SQLERRM, detail, hint);
	RAISE;
END
$$;
COMMENT ON FUNCTION quota_api.pause_gateway(text, text) IS
'Pause a gateway
Nothing is sent to it until /rpc/unpause_gateway, but what is in flight; its grants stay pending. One row: whether it was done, the status now, and what prevented it. note says why, and is kept in pauses. For operators.';

CREATE FUNCTION quota_api.unpause_gateway(gateway text, note text DEFAULT '')
RETURNS TABLE (id text, done boolean, status text, obstacle text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s'
AS $$
DECLARE
	detail text;
	hint text;
BEGIN
	RETURN QUERY SELECT b.* FROM quota_internal.pull_brake('gateway', gateway, false, note) b;
EXCEPTION WHEN query_canceled OR OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	PERFORM quota_internal.raise_http_error(SQLSTATE, SQLERRM, detail, hint);
	RAISE;
END
$$;
COMMENT ON FUNCTION quota_api.unpause_gateway(text, text) IS
'End the pause of a gateway
Its grants are sent. One row: whether it was done, the status now, and what prevented it. note says why, and is kept in pauses. For operators.';

CREATE FUNCTION quota_api.pause_strategy(strategy text, note text DEFAULT '')
RETURNS TABLE (id text, done boolean, status text, obstacle text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s'
AS $$
DECLARE
	detail text;
	hint text;
BEGIN
	RETURN QUERY SELECT b.* FROM quota_internal.pull_brake('strategy', strategy, true, note) b;
EXCEPTION WHEN query_canceled OR OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	PERFORM quota_internal.raise_http_error(SQLSTATE, SQLERRM, detail, hint);
	RAISE;
END
$$;
COMMENT ON FUNCTION quota_api.pause_strategy(text, text) IS
'Pause a strategy
It grants nothing until /rpc/unpause_strategy, and none of its pending grants is sent. One row: whether it was done, the status now, and what prevented it. note says why, and is kept in pauses. For operators.';

CREATE FUNCTION quota_api.unpause_strategy(strategy text, note text DEFAULT '')
RETURNS TABLE (id text, done boolean, status text, obstacle text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s'
AS $$
DECLARE
	detail text;
	hint text;
BEGIN
	RETURN QUERY SELECT b.* FROM quota_internal.pull_brake('strategy', strategy, false, note) b;
EXCEPTION WHEN query_canceled OR OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	PERFORM quota_internal.raise_http_error(SQLSTATE, SQLERRM, detail, hint);
	RAISE;
END
$$;
COMMENT ON FUNCTION quota_api.unpause_strategy(text, text) IS
'End the pause of a strategy
Whether an operator paused it or the breaker did. Its pending grants are sent. One row: whether it was done, the status now, and what prevented it. note says why, and is kept in pauses. For operators.';
