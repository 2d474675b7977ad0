-- take part brakes
-- take FUNCTION quota_internal.run_is_held
-- take VIEW quota_manager.delivery_status
-- take VIEW quota_manager.worker_status
-- Who disabled these, and why, was not kept.
INSERT INTO quota_manager.quota_pause (scope, strategy_id, since, role, session_role, said_by, note)
	SELECT 'strategy', s.id, s.update_time, 'unknown', 'unknown', NULL, 'disabled before the update to 1.1.0'
	FROM quota_manager.quota_strategy s WHERE s.state OPERATOR(pg_catalog.=) 'paused' ORDER BY s.id;
