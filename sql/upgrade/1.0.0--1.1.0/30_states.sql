-- States of strategies.  Those that are not enabled may have granted, so they are paused and no drafts.
ALTER TABLE quota_manager.quota_strategy ADD COLUMN state text;
-- It is no edit: triggers do not count it.
DO $$
DECLARE
	role CONSTANT pg_catalog.text := pg_catalog.current_setting('session_replication_role');
BEGIN
	PERFORM pg_catalog.set_config('session_replication_role', 'replica', true);
	UPDATE quota_manager.quota_strategy SET state = CASE WHEN archived THEN 'archived' WHEN enabled THEN 'active' ELSE 'paused' END;
	PERFORM pg_catalog.set_config('session_replication_role', role, true);
END
$$;
ALTER TABLE quota_manager.quota_strategy ALTER COLUMN state SET NOT NULL, ALTER COLUMN enabled DROP DEFAULT,
	ADD CONSTRAINT quota_strategy_state_fits CHECK (CASE WHEN archived THEN state = 'archived' WHEN enabled THEN state = 'active' ELSE state IN ('draft', 'paused') END);
-- take FUNCTION quota_internal.keep_strategy_state
CREATE TRIGGER check_state BEFORE INSERT OR UPDATE ON quota_manager.quota_strategy
	FOR EACH ROW EXECUTE FUNCTION quota_internal.keep_strategy_state();
-- take FUNCTION quota_internal.announce_drafts
CREATE TRIGGER announce_drafts AFTER INSERT ON quota_manager.quota_strategy
	REFERENCING NEW TABLE AS written FOR EACH STATEMENT EXECUTE FUNCTION quota_internal.announce_drafts();
-- take FUNCTION quota_internal.open_spans
-- take VIEW quota_manager.strategy_due
