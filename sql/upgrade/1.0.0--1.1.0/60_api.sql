-- take FUNCTION quota_internal.said_by
ALTER TABLE quota_manager.grant_decision ADD COLUMN said_by text;
ALTER TABLE quota_manager.gateway_call ADD COLUMN said_by text;
ALTER TABLE quota_manager.gateway_call ALTER COLUMN said_by SET DEFAULT quota_internal.said_by();
CREATE INDEX grant_decision_id ON quota_manager.grant_decision (id);
-- take FUNCTION quota_internal.record_decisions
-- take FUNCTION quota_internal.decide_many
-- take FUNCTION quota_manager.grant_access

-- take FUNCTION quota_internal.keep_user_id
CREATE TRIGGER keep_user_id BEFORE UPDATE OF id ON quota_manager.user_info
	FOR EACH ROW WHEN (OLD.id IS DISTINCT FROM NEW.id) EXECUTE FUNCTION quota_internal.keep_user_id();

-- The views of the API take over comments of the tables that they show.
-- take comments

-- take part api
-- take part api_ceilings
-- take part api_views
-- take part api_relationships
-- take part api_errors
-- take part api_helpers
-- take part api_explain
-- take part api_explain_match
-- take part api_functions
-- take part api_preview
-- take part api_history
-- take part api_reversal
-- take part api_brakes
-- take part api_lint
-- take part api_bulk
-- take part api_lists
