-- take FUNCTION quota_internal.said_by
-- take part pause
-- take part brakes
-- Who disabled these, and why, was not kept.
INSERT INTO quota_manager.quota_pause (scope, strategy_id, since, role, session_role, said_by, note)
	SELECT 'strategy', s.id, s.update_time, 'unknown', 'unknown', NULL, 'disabled before the update to 1.1.0'
	FROM quota_manager.quota_strategy s WHERE NOT s.enabled AND NOT s.archived ORDER BY s.id;
