-- Of the API: what a scan would do, before it does.

CREATE FUNCTION quota_api.preview_counts(strategy text DEFAULT NULL, condition quota_manager.condition DEFAULT NULL, changes jsonb DEFAULT NULL)
RETURNS TABLE (reason text, users bigint, amount numeric, note text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	detail text;
	hint text;
BEGIN
	RETURN QUERY SELECT p.* FROM quota_manager.preview(strategy, condition, changes) p;
EXCEPTION WHEN query_canceled OR OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	PERFORM quota_internal.raise_http_error(SQLSTATE, SQLERRM, detail, hint);
	RAISE;
END
$$;
COMMENT ON FUNCTION quota_api.preview_counts(text, quota_manager.condition, jsonb) IS
'What a scan of a strategy would do now: users and amounts by reason
Give strategy (its name, whatever its state), and changes to see it edited: {"condition": "is-vip(2)", "amount": 20}. Or condition, to count who meets it. Writes nothing.';

CREATE FUNCTION quota_api.preview_users(strategy text DEFAULT NULL, condition quota_manager.condition DEFAULT NULL, changes jsonb DEFAULT NULL,
	reason text DEFAULT 'granted', after text DEFAULT NULL, n integer DEFAULT 50)
RETURNS TABLE (user_id text, amount numeric)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	detail text;
	hint text;
BEGIN
	RETURN QUERY SELECT p.* FROM quota_manager.preview_users(strategy, condition, changes, reason, after, n) p;
EXCEPTION WHEN query_canceled OR OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	PERFORM quota_internal.raise_http_error(SQLSTATE, SQLERRM, detail, hint);
	RAISE;
END
$$;
COMMENT ON FUNCTION quota_api.preview_users(text, quota_manager.condition, jsonb, text, text, integer) IS
'The users that preview_counts counts for a reason, and what each would get
The first n after an id, in the order of the bytes of their ids.';

CREATE FUNCTION quota_api.forecast_firings(n integer DEFAULT NULL, until timestamptz DEFAULT NULL, strategy text DEFAULT NULL)
RETURNS TABLE (firing timestamptz, strategy_name text, users bigint, amount numeric, model text, note text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	detail text;
	hint text;
BEGIN
	RETURN QUERY SELECT f.* FROM quota_manager.forecast(n, until, strategy) f;
EXCEPTION WHEN query_canceled OR OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	PERFORM quota_internal.raise_http_error(SQLSTATE, SQLERRM, detail, hint);
	RAISE;
END
$$;
COMMENT ON FUNCTION quota_api.forecast_firings(integer, timestamptz, text) IS
'What is coming: the next n firings with users and amounts
Of one strategy, or of all that are active; 10, or all until a time. First, where firing is null, what single strategies would grant at the next scan. On the users of now.';
