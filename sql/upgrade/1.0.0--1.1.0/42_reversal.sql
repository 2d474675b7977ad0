-- Runs of reversals have no strategy.
ALTER TABLE quota_manager.quota_run ALTER COLUMN strategy_id DROP NOT NULL;
ALTER TABLE quota_manager.grant_decision DROP CONSTRAINT grant_decision_action_is_known;
ALTER TABLE quota_manager.grant_decision ADD CONSTRAINT grant_decision_action_is_known CHECK (action IN ('resolve_applied', 'resolve_not_applied', 'retry', 'cancel', 'reinstate',
		'correct_applied', 'correct_not_applied'));
-- take FUNCTION quota_internal.correction_obstacle
-- take FUNCTION quota_internal.decision_candidates
-- take FUNCTION quota_internal.decide
-- take FUNCTION quota_internal.decide_and_continue
-- take FUNCTION quota_internal.decision_hint
-- take FUNCTION quota_internal.decide_one
-- take FUNCTION quota_internal.decide_each
-- take FUNCTION quota_manager.reinstate
-- take FUNCTION quota_manager.correct
-- take part reversal
