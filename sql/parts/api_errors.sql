-- How errors reach clients: PostgREST turns an SQLSTATE into an HTTP status, for some into one that misleads, or makes
-- clients repeat a request that may have been applied.  Functions of the API map these; errors of plain views keep theirs.

CREATE FUNCTION quota_internal.http_status(sqlstate text) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
	WHEN sqlstate OPERATOR(pg_catalog.=) ANY (ARRAY['42704', 'P0002']) THEN 404
	-- Not possible in this state; in use; locked or in conflict with another transaction; the user source is missing.
	WHEN sqlstate OPERATOR(pg_catalog.=) ANY (ARRAY['55000', '55006', '55P03', '23001', '40001', '40P01', '25000', '42P01']) THEN 409
	WHEN sqlstate OPERATOR(pg_catalog.~~) '08%' THEN 502
	WHEN sqlstate OPERATOR(pg_catalog.=) '53000' THEN 429
	WHEN sqlstate OPERATOR(pg_catalog.~~) '53%' THEN 500
	WHEN sqlstate OPERATOR(pg_catalog.~~) '54%' THEN 400
	WHEN sqlstate OPERATOR(pg_catalog.=) '57014' THEN 504 END;
COMMENT ON FUNCTION quota_internal.http_status(text) IS 'The HTTP status of an SQLSTATE where it is not the one that PostgREST gives it; null: it is. None is 503, which has clients repeat a request that may have been applied, and none is a code that PostgREST repeats by itself.';

CREATE FUNCTION quota_internal.raise_http_error(sqlstate text, message text, detail text, hint text) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	status CONSTANT integer := quota_internal.http_status(sqlstate);
BEGIN
	IF status IS NULL THEN
		RETURN;
	END IF;
	-- As JSON, so that no text of a user becomes part of a header.
	RAISE SQLSTATE 'PGRST' USING
		MESSAGE = json_build_object('code', sqlstate, 'message', message, 'details', nullif(detail, ''), 'hint', nullif(hint, ''))::text,
		DETAIL = json_build_object('status', status, 'headers', CASE WHEN status = 429
			THEN json_build_object('Retry-After', coalesce(substring(detail FROM 'wait (\d{1,5}) s\M'), '10')) ELSE '{}' END)::text;
END
$$;
COMMENT ON FUNCTION quota_internal.raise_http_error(text, text, text, text) IS 'Of functions of the API, for an error that they caught: raises it as PostgREST wants it, if its own status for it would be wrong. Otherwise it returns, and the error is raised again as it is.';
