-- The tables of the API.  What can be written is a plain view of one table, so that INSERT ... ON CONFLICT works; what cannot
-- is a join, so that clients are not offered to write it.

CREATE VIEW quota_api.strategies WITH (security_invoker = true) AS
SELECT s.id, s.name, s.title, s.type, s.amount, s.model, s.periodic_expr, s.time_zone, s.condition, s.enabled, s.archived, s.state, s.edit_note,
	s.max_exec_per_user, s.catch_up, s.catch_up_window, s.catch_up_max, s.valid_from, s.valid_until, s.schedule_since,
	s.version, s.create_time, s.update_time, s.allowance
FROM quota_manager.quota_strategy s;
COMMENT ON VIEW quota_api.strategies IS
'Strategies: which users get how much quota of which model, and when
Required: name, type, amount, model and condition; periodic_expr too where type is periodic. id, version, schedule_since and the times are kept by the database and cannot be written. A strategy is never deleted, since its grants are proof of what was paid: use /rpc/disable or /rpc/archive. Upsert with on_conflict=name. A PATCH without a filter changes every strategy.';
-- Defaults of a table do not show through a view.
ALTER VIEW quota_api.strategies ALTER title SET DEFAULT '';
ALTER VIEW quota_api.strategies ALTER time_zone SET DEFAULT 'UTC';
ALTER VIEW quota_api.strategies ALTER archived SET DEFAULT false;
ALTER VIEW quota_api.strategies ALTER catch_up SET DEFAULT 'latest';
ALTER VIEW quota_api.strategies ALTER catch_up_max SET DEFAULT 100;
ALTER VIEW quota_api.strategies ALTER valid_from SET DEFAULT '-infinity';
ALTER VIEW quota_api.strategies ALTER valid_until SET DEFAULT 'infinity';
ALTER VIEW quota_api.strategies ALTER allowance SET DEFAULT 'add';

CREATE VIEW quota_api.users WITH (security_invoker = true) AS
SELECT u.id, u.name, u.github_username, u.email, u.phone, u.github_star, u.vip, u.org, u.register_time, u.access_time,
	u.create_time, u.update_time
FROM quota_manager.user_info u;
COMMENT ON VIEW quota_api.users IS
'Users of the gateway
Required: id. Upsert in bulk with Prefer: resolution=merge-duplicates. Only administrators delete users. A PATCH or DELETE without a filter changes or deletes every user. Where the site keeps its users elsewhere (set_user_source), conditions do not read these.';

CREATE VIEW quota_api.gateways WITH (security_invoker = true) AS
SELECT g.name, g.dialect, g.base_url, g.admin_path, g.key_header, g.route_model, g.connect_timeout, g.request_timeout,
	g.max_connections, g.rate_limit, g.doubt_policy, g.sole_writer, g.max_usage_rate, g.guard_balances, g.is_default, g.state,
	g.state_reason, g.state_since, g.next_probe_time, g.create_time, g.update_time
FROM quota_manager.quota_gateway g;
COMMENT ON VIEW quota_api.gateways IS
'Gateways that grants are delivered to
Required: name, dialect (higress or zgsm) and base_url. Written by administrators. connect_timeout is from 1 ms to 5 min, request_timeout to 10 min, max_connections from 1 to 64. State and times are kept by deliveries. Where the key is stands in gateway_credentials.';
ALTER VIEW quota_api.gateways ALTER connect_timeout SET DEFAULT '5 s';
ALTER VIEW quota_api.gateways ALTER request_timeout SET DEFAULT '30 s';
ALTER VIEW quota_api.gateways ALTER max_connections SET DEFAULT 16;
ALTER VIEW quota_api.gateways ALTER doubt_policy SET DEFAULT 'hold';
ALTER VIEW quota_api.gateways ALTER sole_writer SET DEFAULT false;
ALTER VIEW quota_api.gateways ALTER guard_balances SET DEFAULT true;
ALTER VIEW quota_api.gateways ALTER is_default SET DEFAULT false;

CREATE VIEW quota_api.gateway_credentials WITH (security_invoker = true) AS
SELECT g.name, g.credential FROM quota_manager.quota_gateway g;
COMMENT ON VIEW quota_api.gateway_credentials IS
'Where the keys of gateways are, for administrators
PATCH credential of a gateway. It refers to a key and never is one: env:QUOTA_MANAGER_NAME, file:NAME or row:NAME.';

CREATE VIEW quota_api.models WITH (security_invoker = true) AS
SELECT m.model, m.gateway FROM quota_manager.quota_model m;
COMMENT ON VIEW quota_api.models IS
'Which gateway serves a model
Required: model and gateway. All other models are served by the gateway with is_default. Written by administrators.';

-- A user's grants are one search of the key for each strategy: the key begins with the strategy.
CREATE VIEW quota_api.executions WITH (security_invoker = true) AS
SELECT e.id, e.strategy_id, s.name AS strategy_name, e.user_id, nullif(e.scheduled_time, '-infinity') AS scheduled_time, e.revision,
	e.run_id, e.status, e.amount, e.model, e.gateway, e.batch_number, e.attempts,
	CASE WHEN pg_catalog.isfinite(e.next_attempt_time) THEN e.next_attempt_time END AS next_attempt_time,
	e.status OPERATOR(pg_catalog.=) 'in_doubt' AND e.next_attempt_time OPERATOR(pg_catalog.=) 'infinity' AS awaits_decision,
	e.last_status, e.last_error, e.doubt_time, e.maybe_granted_before, e.strategy_version, e.create_time, e.update_time
FROM quota_manager.quota_strategy s
JOIN quota_manager.quota_execute e ON e.strategy_id OPERATOR(pg_catalog.=) s.id;
COMMENT ON VIEW quota_api.executions IS
'Grants and their delivery
Page by id: order=id.desc&limit=50, then id=lt.LAST. Filters on id, user_id, strategy_id and (with the range of a run''s ids) run_id reach an index; others, high offsets and Prefer: count=exact read all grants: prefer count=planned. Decide about them with /rpc/resolve, /rpc/retry and /rpc/cancel.';
COMMENT ON COLUMN quota_api.executions.strategy_name IS 'Name of the strategy that granted.';
COMMENT ON COLUMN quota_api.executions.scheduled_time IS 'The firing of a periodic strategy; null for single ones.';
COMMENT ON COLUMN quota_api.executions.status IS 'pending, processing, completed, failed (will not be applied), in_doubt (may have been applied: see /rpc/resolve) or cancelled (by an operator).';
COMMENT ON COLUMN quota_api.executions.next_attempt_time IS 'pending: not sent before this time; null: at once. in_doubt: when the doubt policy of its gateway acts next.';
COMMENT ON COLUMN quota_api.executions.awaits_decision IS 'In doubt, and nothing will be done about it until an operator decides: see /rpc/resolve.';

CREATE VIEW quota_api.runs WITH (security_invoker = true) AS
SELECT r.id, r.strategy_id, s.name AS strategy_name, r.strategy_version, r.scheduled_time, r.last_scheduled_time, r.occurrences,
	r.state, r.reason, r.matched, r.granted, r.already_granted, r.capped, r.unknown_balance, r.first_grant_id, r.last_grant_id,
	r.undelivered, r.start_time, r.finish_time, r.tries, r.retry_time, r.whole_reason, r.amount,
	r.over_ceiling, r.sufficient
FROM quota_manager.quota_run r
LEFT JOIN quota_manager.quota_strategy s ON s.id OPERATOR(pg_catalog.=) r.strategy_id;
COMMENT ON VIEW quota_api.runs IS
'Runs of strategies: the result of every firing and every scan
Page by id. Embed executions(...) to see what a run granted.';
COMMENT ON COLUMN quota_api.runs.strategy_name IS 'Name of the strategy; null: it was deleted.';

CREATE VIEW quota_api.decisions WITH (security_invoker = true) AS
SELECT d.id, d.decision_time, d.grant_id AS execution_id, d.strategy_id, s.name AS strategy_name, d.user_id,
	nullif(d.scheduled_time, '-infinity') AS scheduled_time, d.gateway, d.action, d.status_before, d.status_after, d.role, d.session_role,
	d.said_by, d.note
FROM quota_manager.grant_decision d
LEFT JOIN quota_manager.quota_strategy s ON s.id OPERATOR(pg_catalog.=) d.strategy_id;
COMMENT ON VIEW quota_api.decisions IS
'Decisions of operators about grants: by whom, when and why
Written by /rpc/resolve, /rpc/retry and /rpc/cancel. Page by id.';
COMMENT ON COLUMN quota_api.decisions.execution_id IS 'The grant: executions.id.';
COMMENT ON COLUMN quota_api.decisions.strategy_name IS 'Name of the strategy of the grant.';
COMMENT ON COLUMN quota_api.decisions.scheduled_time IS 'Firing of the grant; null for single strategies.';

CREATE VIEW quota_api.balances WITH (security_invoker = true) AS
SELECT b.user_id, b.gateway, b.balance, nullif(b.read_time, '-infinity') AS read_time,
	b.balance IS NOT NULL AND b.read_time OPERATOR(pg_catalog.>) quota_internal.balance_horizon()
		AND b.read_time OPERATOR(pg_catalog.<=) quota_internal.balance_clock() AND s.gateway IS NULL AS counts,
	b.last_balance
FROM quota_manager.user_balance b
LEFT JOIN quota_manager.balance_suspension s ON s.gateway OPERATOR(pg_catalog.=) b.gateway;
COMMENT ON VIEW quota_api.balances IS
'Balances: the last known remaining quota of users
Filter on user_id. Read by workers before a strategy needs them; /rpc/gateway_query asks now.';
COMMENT ON COLUMN quota_api.balances.counts IS 'True if a condition would use it now: it is not too old, nothing happened to the user since, and balances of the gateway are not suspended.';

CREATE VIEW quota_api.deliveries WITH (security_invoker = true) AS
SELECT d.gateway, d.state, d.state_reason, d.next_probe_time, d.pending, d.processing, d.doubts_to_settle, d.oldest_pending,
	nullif(d.next_attempt_time, '-infinity') AS next_attempt_time, d.balances_suspended_since, d.balances_reason, d.paused_since, d.paused_by, d.paused_why
FROM quota_manager.delivery_status d;
COMMENT ON VIEW quota_api.deliveries IS
'Deliveries: the state of each gateway, and the grants that wait for it
One row per gateway.';
COMMENT ON COLUMN quota_api.deliveries.next_attempt_time IS 'When the first of the pending grants may be sent; null: at once, or there is none.';

CREATE VIEW quota_api.workers WITH (security_invoker = true) AS
SELECT w.kind, w.pid, w.role, w.state, w.activity, w.started, w.last_tick, w.queue_depth, w.oldest_age, w.last_error, w.last_error_time,
	w.paused_since, w.paused_by, w.paused_why
FROM quota_manager.worker_status w;
COMMENT ON VIEW quota_api.workers IS
'Background workers: launcher, scheduler and courier
One row per kind, running or not.';

-- A column takes over the comment of the table's column that it shows.
DO $$
DECLARE
	shown record;
BEGIN
	FOR shown IN
		SELECT c.relname, a.attname, t.attnotnull AND NOT t.atthasdef AND t.attidentity OPERATOR(pg_catalog.=) ''
				AND c.relname OPERATOR(pg_catalog.=) ANY (ARRAY['strategies', 'users', 'gateways', 'models'])
				AND t.attname OPERATOR(pg_catalog.<>) ALL (ARRAY['version', 'schedule_since', 'enabled', 'state']) AS is_required,
			pg_catalog.col_description(t.attrelid, t.attnum) AS comment
		FROM (VALUES ('strategies', 'quota_strategy'), ('users', 'user_info'), ('gateways', 'quota_gateway'), ('gateway_credentials', 'quota_gateway'),
			('models', 'quota_model'), ('executions', 'quota_execute'), ('runs', 'quota_run'), ('decisions', 'grant_decision'),
			('balances', 'user_balance'), ('deliveries', 'delivery_status'), ('workers', 'worker_status'),
			('ceilings', 'quota_ceiling'), ('ceiling_status', 'ceiling_status')) p (view_name, table_name)
		JOIN pg_catalog.pg_class c ON c.relnamespace OPERATOR(pg_catalog.=) 'quota_api'::pg_catalog.regnamespace AND c.relname OPERATOR(pg_catalog.=) p.view_name
		JOIN pg_catalog.pg_attribute a ON a.attrelid OPERATOR(pg_catalog.=) c.oid AND a.attnum OPERATOR(pg_catalog.>) 0
		JOIN pg_catalog.pg_attribute t ON t.attrelid OPERATOR(pg_catalog.=) pg_catalog.format('quota_manager.%I', p.table_name)::pg_catalog.regclass
			AND t.attname OPERATOR(pg_catalog.=) a.attname AND t.attnum OPERATOR(pg_catalog.>) 0
		WHERE pg_catalog.col_description(a.attrelid, a.attnum) IS NULL
	LOOP
		EXECUTE pg_catalog.format('COMMENT ON COLUMN quota_api.%I.%I IS %L', shown.relname, shown.attname,
			shown.comment OPERATOR(pg_catalog.||) CASE WHEN shown.is_required THEN ' Required.' ELSE '' END);
	END LOOP;
END
$$;
