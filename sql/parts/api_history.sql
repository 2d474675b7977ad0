-- Of the API: versions of strategies.

CREATE VIEW quota_api.strategy_versions WITH (security_invoker = true) AS
SELECT v.strategy_id, coalesce(v.definition ->> 'name', s.name) AS strategy_name, v.version, v.change_time, v.role, v.session_role, v.said_by, v.note, v.definition
FROM quota_manager.quota_strategy_version v
LEFT JOIN quota_manager.quota_strategy s ON s.id OPERATOR(pg_catalog.=) v.strategy_id;
COMMENT ON VIEW quota_api.strategy_versions IS
'Versions of strategies: by whom, when, why and what
Filter on strategy_id; an execution names its strategy_version. /rpc/strategy_history says in words what each changed.';
COMMENT ON COLUMN quota_api.strategy_versions.strategy_id IS 'The strategy.';
COMMENT ON COLUMN quota_api.strategy_versions.strategy_name IS 'Its name in this version.';
COMMENT ON COLUMN quota_api.strategy_versions.version IS 'Its version: counts edits.';
COMMENT ON COLUMN quota_api.strategy_versions.change_time IS 'When it was written.';
COMMENT ON COLUMN quota_api.strategy_versions.role IS 'Role that wrote it; null: not known.';
COMMENT ON COLUMN quota_api.strategy_versions.session_role IS 'Role that the session belonged to.';
COMMENT ON COLUMN quota_api.strategy_versions.said_by IS 'Person that wrote it, as named by the token.';
COMMENT ON COLUMN quota_api.strategy_versions.note IS 'Why, as given in edit_note.';
COMMENT ON COLUMN quota_api.strategy_versions.definition IS 'The columns that people write; null: it was deleted.';

CREATE FUNCTION quota_api.strategy_history(strategy text)
RETURNS TABLE (version integer, changed_at timestamptz, changed_by text, note text, changes text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	detail text;
	hint text;
BEGIN
	RETURN QUERY SELECT h.* FROM quota_manager.strategy_history(strategy) h;
EXCEPTION WHEN query_canceled OR OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	PERFORM quota_internal.raise_http_error(SQLSTATE, SQLERRM, detail, hint);
	RAISE;
END
$$;
COMMENT ON FUNCTION quota_api.strategy_history(text) IS
'The versions of a strategy, in words
When, by whom and why each was written (edit_note of the PATCH), and what it changed.';

CREATE FUNCTION quota_api.diff(strategy text, v1 integer DEFAULT NULL, v2 integer DEFAULT NULL)
RETURNS TABLE (user_id text, change text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	detail text;
	hint text;
BEGIN
	RETURN QUERY SELECT d.* FROM quota_manager.diff(strategy, v1, v2) d;
EXCEPTION WHEN query_canceled OR OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	PERFORM quota_internal.raise_http_error(SQLSTATE, SQLERRM, detail, hint);
	RAISE;
END
$$;
COMMENT ON FUNCTION quota_api.diff(text, integer, integer) IS
'Users gained and lost between two versions of a strategy, today
v2 is the present version if it is left out, v1 the one before v2. Filter, order, page and count the rows.';

CREATE FUNCTION quota_api.diff_counts(strategy text, v1 integer DEFAULT NULL, v2 integer DEFAULT NULL,
	OUT former_version integer, OUT latter_version integer, OUT gained bigint, OUT lost bigint, OUT kept bigint,
	OUT former_condition quota_manager.condition, OUT latter_condition quota_manager.condition)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	detail text;
	hint text;
BEGIN
	SELECT d.* INTO former_version, latter_version, gained, lost, kept, former_condition, latter_condition FROM quota_manager.diff_counts(strategy, v1, v2) d;
EXCEPTION WHEN query_canceled OR OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	PERFORM quota_internal.raise_http_error(SQLSTATE, SQLERRM, detail, hint);
	RAISE;
END
$$;
COMMENT ON FUNCTION quota_api.diff_counts(text, integer, integer) IS
'How many users are gained, lost and kept between two versions of a strategy, today
v2 is the present version if it is left out, v1 the one before v2.';
