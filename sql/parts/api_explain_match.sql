-- Of the API: users explained.

CREATE FUNCTION quota_api.explain_match(user_id text, strategy text DEFAULT NULL, condition quota_manager.condition DEFAULT NULL)
RETURNS TABLE (node integer, part text, result text, saw text, bound text, to_change text, decides boolean, parent integer, function text,
	set_column text, set_value text, set_gateway text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	detail text;
	hint text;
BEGIN
	RETURN QUERY SELECT e.* FROM quota_manager.explain_match(user_id, strategy, condition) e;
EXCEPTION WHEN query_canceled OR OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	PERFORM quota_internal.raise_http_error(SQLSTATE, SQLERRM, detail, hint);
	RAISE;
END
$$;
COMMENT ON FUNCTION quota_api.explain_match(text, text, quota_manager.condition) IS
'Why a user meets a condition, or does not
Of a strategy (its name) or a condition: a row per part, in order, with its result (true, false, or unknown: a balance is missing), the value it saw, the bound, and what would have to change for another result; decides is whether the result of the whole comes from it. set_column, set_value and set_gateway say the change to programs. Writes nothing.';

CREATE FUNCTION quota_api.funnel(strategy text DEFAULT NULL, condition quota_manager.condition DEFAULT NULL)
RETURNS TABLE (node integer, part text, holds bigint, fails bigint, unknown bigint, remaining bigint, parent integer, function text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	detail text;
	hint text;
BEGIN
	RETURN QUERY SELECT f.* FROM quota_manager.funnel(strategy, condition) f;
EXCEPTION WHEN query_canceled OR OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	PERFORM quota_internal.raise_http_error(SQLSTATE, SQLERRM, detail, hint);
	RAISE;
END
$$;
COMMENT ON FUNCTION quota_api.funnel(text, quota_manager.condition) IS
'How many users meet each part of a condition
Of a strategy (its name) or a condition: a row per part, in order, with the users for whom it holds, fails or is unknown (a balance is missing); remaining: who meet this part of an and() and those before it. Reads every user; writes nothing.';

CREATE FUNCTION quota_api.why(user_id text, strategy text)
RETURNS TABLE (at timestamptz, what text, kind text, grant_id bigint, run_id bigint, strategy_version integer)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	detail text;
	hint text;
BEGIN
	RETURN QUERY SELECT w.* FROM quota_manager.why(user_id, strategy) w;
EXCEPTION WHEN query_canceled OR OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	PERFORM quota_internal.raise_http_error(SQLSTATE, SQLERRM, detail, hint);
	RAISE;
END
$$;
COMMENT ON FUNCTION quota_api.why(text, text) IS
'Why a user got something of a strategy, or did not: the story of it
A row per event, in order: kind is grant, delivery, reversal, decision, left out (runs that granted the user nothing, and why as far as they say), brake (a pause in force), now (what is the case) or next. Writes nothing.';
