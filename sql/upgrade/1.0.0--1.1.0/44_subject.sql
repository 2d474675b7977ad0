-- The view subject follows the user source.
-- take FUNCTION quota_internal.source_users
-- take FUNCTION quota_internal.source_is_known
-- take FUNCTION quota_internal.map_subject
CREATE TRIGGER map_subject AFTER UPDATE OF user_source ON quota_manager.quota_installation
	FOR EACH ROW WHEN (OLD.user_source IS NOT NULL OR NEW.user_source IS NOT NULL) EXECUTE FUNCTION quota_internal.map_subject();
CREATE TRIGGER map_restored_subject AFTER INSERT ON quota_manager.quota_installation
	FOR EACH ROW WHEN (NEW.user_source IS NOT NULL) EXECUTE FUNCTION quota_internal.map_subject();
UPDATE quota_manager.quota_installation SET user_source = user_source WHERE user_source IS NOT NULL;
