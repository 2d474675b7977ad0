-- Of the API: what is probably wrong with strategies.

CREATE FUNCTION quota_api.lint(strategy text DEFAULT NULL)
RETURNS TABLE (id integer, strategy_name text, problem text, severity text, message text, detail text, hint text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
	error_detail text;
	error_hint text;
BEGIN
	RETURN QUERY
	SELECT s.id, l.strategy, l.problem, l.severity, l.message, l.detail, l.hint
	FROM quota_manager.lint(lint.strategy) WITH ORDINALITY l(strategy, problem, severity, message, detail, hint, position)
	JOIN quota_manager.quota_strategy s ON s.name = l.strategy
	ORDER BY l.position;
EXCEPTION WHEN query_canceled OR OTHERS THEN
	GET STACKED DIAGNOSTICS error_detail = PG_EXCEPTION_DETAIL, error_hint = PG_EXCEPTION_HINT;
	PERFORM quota_internal.raise_http_error(SQLSTATE, SQLERRM, error_detail, error_hint);
	RAISE;
END
$$;
COMMENT ON FUNCTION quota_api.lint(text) IS
'What is probably wrong with strategies
One row per finding, of the named strategy or of all that are not archived, worst first: severity is error, warning or notice; problem is a code that stays; message, detail and hint are for people.';
