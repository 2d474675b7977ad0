-- Of the API: bulk calls by hand, to read.  A function of the API cannot commit between its steps, so none makes one.

CREATE VIEW quota_api.bulk_calls WITH (security_invoker = true) AS
SELECT b.key, b.gateway, b.users, b.total, b.applied, b.applied_total, b.refused, b.not_sent, b.in_doubt, b.sent, b.waiting, b.since, b.last_time, b.called_by
FROM quota_manager.bulk_calls b;
COMMENT ON VIEW quota_api.bulk_calls IS
'Bulk calls by hand: how far each is
One row per key. They are made with CALL quota_manager.bulk_delta() in a session, which commits between its steps.';

CREATE VIEW quota_api.bulk_call_rows WITH (security_invoker = true) AS
SELECT b.id, b.key, b.user_id, b.value, b.reason, b.gateway, b.state, b.message, b.create_time, b.send_time, b.finish_time, b.role, b.session_role, b.said_by
FROM (SELECT 1 OFFSET 0) one, quota_manager.bulk_call b;
COMMENT ON VIEW quota_api.bulk_call_rows IS
'Rows of bulk calls by hand: one per key and user
Filter on key; page by id.';

DO $$
DECLARE
	shown record;
BEGIN
	FOR shown IN SELECT v.view_name, a.attname, pg_catalog.col_description(t.attrelid, t.attnum) AS comment
		FROM (VALUES ('bulk_calls', 'bulk_calls'), ('bulk_call_rows', 'bulk_call')) v (view_name, table_name)
		JOIN pg_catalog.pg_attribute a ON a.attrelid OPERATOR(pg_catalog.=) pg_catalog.format('quota_api.%I', v.view_name)::pg_catalog.regclass
			AND a.attnum OPERATOR(pg_catalog.>) 0
		JOIN pg_catalog.pg_attribute t ON t.attrelid OPERATOR(pg_catalog.=) pg_catalog.format('quota_manager.%I', v.table_name)::pg_catalog.regclass
			AND t.attname OPERATOR(pg_catalog.=) a.attname AND t.attnum OPERATOR(pg_catalog.>) 0
	LOOP
		EXECUTE pg_catalog.format('COMMENT ON COLUMN quota_api.%I.%I IS %L', shown.view_name, shown.attname, shown.comment);
	END LOOP;
END
$$;
