-- take FUNCTION quota_internal.said_by
ALTER TABLE quota_manager.grant_decision ADD COLUMN said_by text;
COMMENT ON COLUMN quota_manager.grant_decision.said_by IS 'Person that decided, as the session said: the subject of the token (sub of request.jwt.claims) where PostgREST checked it; null: nothing was said. Any other session can say what it likes.';
ALTER TABLE quota_manager.gateway_call ADD COLUMN said_by text;
ALTER TABLE quota_manager.gateway_call ALTER COLUMN said_by SET DEFAULT quota_internal.said_by();
COMMENT ON COLUMN quota_manager.gateway_call.said_by IS 'Person that called, as the session said: see grant_decision.said_by.';
CREATE INDEX grant_decision_id ON quota_manager.grant_decision (id);
COMMENT ON INDEX quota_manager.grant_decision_id IS 'Finds the latest decisions.';
-- take FUNCTION quota_internal.record_decisions
-- take FUNCTION quota_internal.decide
-- take FUNCTION quota_internal.decide_each
-- take FUNCTION quota_internal.decide_many
-- take FUNCTION quota_manager.grant_access

-- take FUNCTION quota_internal.keep_user_id
CREATE TRIGGER keep_user_id BEFORE UPDATE OF id ON quota_manager.user_info
	FOR EACH ROW WHEN (OLD.id IS DISTINCT FROM NEW.id) EXECUTE FUNCTION quota_internal.keep_user_id();
COMMENT ON TRIGGER keep_user_id ON quota_manager.user_info IS 'A user keeps its id.';

-- take part api
-- take part api_views
-- take part api_relationships
-- take part api_errors
-- take part api_helpers
-- take part api_explain
-- take part api_functions
