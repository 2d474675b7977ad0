-- Reversals in the API.  What a call did with how many grants comes back in rows.

CREATE FUNCTION quota_api.reinstate(ids bigint[], note text DEFAULT '')
RETURNS TABLE (id bigint, done boolean, status text, obstacle text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s'
AS $$
DECLARE
	detail text;
	hint text;
BEGIN
	RETURN QUERY SELECT d.* FROM quota_internal.decide_listed('reinstate', ids, note) d;
EXCEPTION WHEN query_canceled OR OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	PERFORM quota_internal.raise_http_error(SQLSTATE, SQLERRM, detail, hint);
	RAISE;
END
$$;
COMMENT ON FUNCTION quota_api.reinstate(bigint[], text) IS
'Send grants after all that were cancelled
They are pending again, unless that exceeds max_exec_per_user of their strategy. One row per id: whether it was done, the status now, and what prevented it. note says why, and is kept in decisions. For operators.';

CREATE FUNCTION quota_api.correct(ids bigint[], applied boolean, note text DEFAULT '')
RETURNS TABLE (id bigint, done boolean, status text, obstacle text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s'
AS $$
DECLARE
	detail text;
	hint text;
BEGIN
	RETURN QUERY SELECT d.* FROM quota_internal.decide_listed(CASE applied WHEN true THEN 'correct_applied' WHEN false THEN 'correct_not_applied' END, ids, note) d;
EXCEPTION WHEN query_canceled OR OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	PERFORM quota_internal.raise_http_error(SQLSTATE, SQLERRM, detail, hint);
	RAISE;
END
$$;
COMMENT ON FUNCTION quota_api.correct(bigint[], boolean, text) IS
'Correct what was resolved wrongly
applied true: they were applied after all, and are completed unless they were sent again meanwhile; false: they were not, and are sent again. One row per id: whether it was done, the status now, and what prevented it. note says why, and is kept in decisions. For operators.';

CREATE FUNCTION quota_api.reverse_run(run_id bigint, note text)
RETURNS TABLE (reversal_id bigint, outcome text, grants bigint, amount numeric)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s'
AS $$
DECLARE
	detail text;
	hint text;
BEGIN
	RETURN QUERY SELECT r.* FROM quota_manager.reverse_run(run_id, note) r;
EXCEPTION WHEN query_canceled OR OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	PERFORM quota_internal.raise_http_error(SQLSTATE, SQLERRM, detail, hint);
	RAISE;
END
$$;
COMMENT ON FUNCTION quota_api.reverse_run(bigint, text) IS
'Take back what a run has granted
Pending grants are cancelled, completed ones get the opposite amount, and those that are being sent or in doubt wait. One row per outcome: how many grants, and their amount. See /rpc/preview_reversal first. For operators.';

CREATE FUNCTION quota_api.reverse_strategy(strategy text, note text, firing timestamptz DEFAULT NULL, version integer DEFAULT NULL)
RETURNS TABLE (reversal_id bigint, outcome text, grants bigint, amount numeric)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s'
AS $$
DECLARE
	detail text;
	hint text;
BEGIN
	RETURN QUERY SELECT r.* FROM quota_manager.reverse_strategy(strategy, note, firing, version) r;
EXCEPTION WHEN query_canceled OR OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	PERFORM quota_internal.raise_http_error(SQLSTATE, SQLERRM, detail, hint);
	RAISE;
END
$$;
COMMENT ON FUNCTION quota_api.reverse_strategy(text, text, timestamptz, integer) IS
'Take back what a strategy has granted
All of it, or what it granted for one firing or as one version. The strategy goes on granting unless it is paused. One row per outcome: how many grants, and their amount. For operators.';

CREATE FUNCTION quota_api.reverse_grants(ids bigint[], note text)
RETURNS TABLE (reversal_id bigint, outcome text, grants bigint, amount numeric)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s'
AS $$
DECLARE
	detail text;
	hint text;
BEGIN
	RETURN QUERY SELECT r.* FROM quota_manager.reverse_grants(ids, note) r;
EXCEPTION WHEN query_canceled OR OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	PERFORM quota_internal.raise_http_error(SQLSTATE, SQLERRM, detail, hint);
	RAISE;
END
$$;
COMMENT ON FUNCTION quota_api.reverse_grants(bigint[], text) IS
'Take grants back
As /rpc/reverse_run, for executions by their ids. One row per outcome: how many grants, and their amount. For operators.';

CREATE FUNCTION quota_api.undo_reversal(reversal_id bigint, note text)
RETURNS TABLE (undo_id bigint, outcome text, grants bigint, amount numeric)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s'
AS $$
DECLARE
	detail text;
	hint text;
BEGIN
	RETURN QUERY SELECT r.* FROM quota_manager.undo_reversal(reversal_id, note) r;
EXCEPTION WHEN query_canceled OR OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	PERFORM quota_internal.raise_http_error(SQLSTATE, SQLERRM, detail, hint);
	RAISE;
END
$$;
COMMENT ON FUNCTION quota_api.undo_reversal(bigint, text) IS
'Undo a reversal
What it took back is given again, what it cancelled is pending again, and what it waits for is left alone. This is a reversal too, undo_id. One row per outcome: how many grants, and their amount. For operators.';

CREATE FUNCTION quota_api.preview_reversal(run_id bigint DEFAULT NULL, strategy text DEFAULT NULL, ids bigint[] DEFAULT NULL, firing timestamptz DEFAULT NULL,
	version integer DEFAULT NULL, reversal_id bigint DEFAULT NULL)
RETURNS TABLE (outcome text, grants bigint, amount numeric)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	detail text;
	hint text;
BEGIN
	RETURN QUERY SELECT r.* FROM quota_manager.preview_reversal(run_id, strategy, ids, firing, version, reversal_id) r;
EXCEPTION WHEN query_canceled OR OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	PERFORM quota_internal.raise_http_error(SQLSTATE, SQLERRM, detail, hint);
	RAISE;
END
$$;
COMMENT ON FUNCTION quota_api.preview_reversal(bigint, text, bigint[], timestamptz, integer, bigint) IS
'What a reversal would do
Of a run, a strategy (perhaps of one firing or version), executions by their ids, or a reversal that is undone: give one of them. One row per outcome: how many grants, and their amount. Writes nothing.';

CREATE VIEW quota_api.reversals WITH (security_invoker = true) AS
SELECT v.id, v.reversal_time, v.what, v.note, v.role, v.said_by, v.cancelled, v.taken_back, v.delivered, v.waits, v.others,
	v.reversed_run_id, v.strategy_id, v.undone_id, v.run_id, v.undone_by
FROM (SELECT 1 OFFSET 0) one, quota_manager.reversal_status v;
COMMENT ON VIEW quota_api.reversals IS
'Reversals: what was taken back, by whom, when and why, and how far it is
Written by /rpc/reverse_run, /rpc/reverse_strategy, /rpc/reverse_grants and /rpc/undo_reversal. Page by id.';

CREATE VIEW quota_api.reversal_items WITH (security_invoker = true) AS
SELECT i.reversal_id, i.user_id, i.grant_id AS execution_id, i.outcome, i.opposite_id, i.outcome_time
FROM quota_manager.quota_reversal v
JOIN quota_manager.quota_reversal_item i ON i.reversal_id OPERATOR(pg_catalog.=) v.id;
COMMENT ON VIEW quota_api.reversal_items IS
'What a reversal did with each grant
Filter on reversal_id.';
COMMENT ON COLUMN quota_api.reversal_items.execution_id IS 'The grant: executions.id.';

CREATE FUNCTION quota_api.items(quota_api.reversals) RETURNS SETOF quota_api.reversal_items
LANGUAGE sql STABLE
BEGIN ATOMIC
	SELECT i.* FROM quota_api.reversal_items i WHERE i.reversal_id OPERATOR(pg_catalog.=) ($1).id;
END;
COMMENT ON FUNCTION quota_api.items(quota_api.reversals) IS 'What it did with each grant.';

-- A column takes over the comment of the column that it shows.
DO $$
DECLARE
	shown record;
BEGIN
	FOR shown IN
		SELECT c.relname, a.attname, pg_catalog.col_description(t.attrelid, t.attnum) AS comment
		FROM (VALUES ('reversals', 'reversal_status'), ('reversal_items', 'quota_reversal_item')) p (view_name, table_name)
		JOIN pg_catalog.pg_class c ON c.relnamespace OPERATOR(pg_catalog.=) 'quota_api'::pg_catalog.regnamespace AND c.relname OPERATOR(pg_catalog.=) p.view_name
		JOIN pg_catalog.pg_attribute a ON a.attrelid OPERATOR(pg_catalog.=) c.oid AND a.attnum OPERATOR(pg_catalog.>) 0
		JOIN pg_catalog.pg_attribute t ON t.attrelid OPERATOR(pg_catalog.=) pg_catalog.format('quota_manager.%I', p.table_name)::pg_catalog.regclass
			AND t.attname OPERATOR(pg_catalog.=) a.attname AND t.attnum OPERATOR(pg_catalog.>) 0
		WHERE pg_catalog.col_description(a.attrelid, a.attnum) IS NULL
	LOOP
		EXECUTE pg_catalog.format('COMMENT ON COLUMN quota_api.%I.%I IS %L', shown.relname, shown.attname, shown.comment);
	END LOOP;
END
$$;
