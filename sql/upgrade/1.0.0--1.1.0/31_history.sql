-- Versions of strategies.  Of those that are there now, nobody knows who wrote them.
ALTER TABLE quota_manager.quota_strategy ADD COLUMN edit_note text;
-- take part history
INSERT INTO quota_manager.quota_strategy_version (strategy_id, version, change_time, definition)
	SELECT s.id, s.version, s.update_time, quota_internal.strategy_definition(s) FROM quota_manager.quota_strategy s;
