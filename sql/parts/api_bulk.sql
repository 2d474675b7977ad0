-- Of the API: bulk calls by hand, to read and to decide about.  A function of the API cannot commit between its steps, so none
-- makes one.

CREATE VIEW quota_api.bulk_calls WITH (security_invoker = true) AS
SELECT b.key, b.gateway, b.users, b.total, b.applied, b.applied_total, b.refused, b.not_sent, b.in_doubt, b.sent, b.waiting, b.since, b.last_time, b.called_by
FROM quota_manager.bulk_calls b;
COMMENT ON VIEW quota_api.bulk_calls IS
'Bulk calls by hand: how far each is
One row per key. They are made with CALL quota_manager.bulk_delta() in a session, which commits between its steps.';

CREATE VIEW quota_api.bulk_call_rows WITH (security_invoker = true) AS
SELECT b.id, b.key, b.user_id, b.value, b.reason, b.gateway, b.state, b.message, b.create_time, b.send_time, b.finish_time, b.role, b.session_role, b.said_by, b.decide_time
FROM (SELECT 1 OFFSET 0) one, quota_manager.bulk_call b;
COMMENT ON VIEW quota_api.bulk_call_rows IS
'Rows of bulk calls by hand: one per key and user
Filter on key; page by user_id: order=user_id&limit=50, then user_id=gt.LAST.';

CREATE VIEW quota_api.bulk_doubts WITH (security_invoker = true) AS
SELECT d.key, d.user_id, d.value, d.reason, d.gateway, d.since, d.why, d.called_by
FROM (SELECT 1 OFFSET 0) one, quota_manager.bulk_doubts d;
COMMENT ON VIEW quota_api.bulk_doubts IS
'Changes of bulk calls of which nobody knows whether they were applied
Decide about them with /rpc/resolve_bulk.';

CREATE VIEW quota_api.bulk_decisions WITH (security_invoker = true) AS
SELECT d.id, d.decision_time, d.key, d.user_id, d.value, d.gateway, d.action, d.state_before, d.state_after, d.call_id, d.role, d.session_role, d.note, d.said_by
FROM (SELECT 1 OFFSET 0) one, quota_manager.bulk_decision d;
COMMENT ON VIEW quota_api.bulk_decisions IS
'Decisions of operators about changes of bulk calls
Written by /rpc/resolve_bulk and /rpc/correct_bulk. Filter on key; page by id.';

CREATE FUNCTION quota_api.resolve_bulk(key text, user_ids text[], applied boolean, note text DEFAULT '')
RETURNS TABLE (user_id text, done boolean, status text, obstacle text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s'
AS $$
DECLARE
	detail text;
	hint text;
BEGIN
	RETURN QUERY SELECT d.* FROM quota_internal.decide_bulk_each(CASE applied WHEN true THEN 'resolve_applied' WHEN false THEN 'resolve_not_applied' END, key, user_ids, note) d;
EXCEPTION WHEN query_canceled OR OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	PERFORM quota_internal.raise_http_error(SQLSTATE, SQLERRM, detail, hint);
	RAISE;
END
$$;
COMMENT ON FUNCTION quota_api.resolve_bulk(text, text[], boolean, text) IS
'Decide about changes of a bulk call that are in doubt
applied true: nothing is sent; false: the next CALL bulk_delta() with the key sends them again. user_ids null: all of the key that are in doubt. One row per user: whether it was done, the state now, and what prevented it. note says why, and is kept in bulk_decisions. For operators.';

CREATE FUNCTION quota_api.correct_bulk(key text, user_ids text[], applied boolean, note text DEFAULT '')
RETURNS TABLE (user_id text, done boolean, status text, obstacle text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s'
AS $$
DECLARE
	detail text;
	hint text;
BEGIN
	RETURN QUERY SELECT d.* FROM quota_internal.decide_bulk_each(CASE applied WHEN true THEN 'correct_applied' WHEN false THEN 'correct_not_applied' END, key, user_ids, note) d;
EXCEPTION WHEN query_canceled OR OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	PERFORM quota_internal.raise_http_error(SQLSTATE, SQLERRM, detail, hint);
	RAISE;
END
$$;
COMMENT ON FUNCTION quota_api.correct_bulk(text, text[], boolean, text) IS
'Correct what was resolved wrongly of a bulk call
applied true: they were applied after all, unless they were sent again meanwhile; false: they were not, and the next CALL bulk_delta() with the key sends them again. One row per user: whether it was done, the state now, and what prevented it. note says why, and is kept in bulk_decisions. For operators.';

DO $$
DECLARE
	shown record;
BEGIN
	FOR shown IN SELECT v.view_name, a.attname, pg_catalog.col_description(t.attrelid, t.attnum) AS comment
		FROM (VALUES ('bulk_calls', 'bulk_calls'), ('bulk_call_rows', 'bulk_call'), ('bulk_doubts', 'bulk_doubts'), ('bulk_decisions', 'bulk_decision')) v (view_name, table_name)
		JOIN pg_catalog.pg_attribute a ON a.attrelid OPERATOR(pg_catalog.=) pg_catalog.format('quota_api.%I', v.view_name)::pg_catalog.regclass
			AND a.attnum OPERATOR(pg_catalog.>) 0
		JOIN pg_catalog.pg_attribute t ON t.attrelid OPERATOR(pg_catalog.=) pg_catalog.format('quota_manager.%I', v.table_name)::pg_catalog.regclass
			AND t.attname OPERATOR(pg_catalog.=) a.attname AND t.attnum OPERATOR(pg_catalog.>) 0
	LOOP
		EXECUTE pg_catalog.format('COMMENT ON COLUMN quota_api.%I.%I IS %L', shown.view_name, shown.attname, shown.comment);
	END LOOP;
END
$$;
