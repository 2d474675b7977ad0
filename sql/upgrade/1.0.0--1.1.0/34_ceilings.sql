-- Allowances.
ALTER TABLE quota_manager.quota_strategy ADD COLUMN allowance text NOT NULL DEFAULT 'add';
ALTER TABLE quota_manager.quota_strategy ADD CONSTRAINT quota_strategy_allowance_is_known CHECK (allowance IN ('add', 'top_up', 'exact'));
ALTER TABLE quota_manager.quota_strategy ADD CONSTRAINT quota_strategy_allowance_has_an_amount_above_zero CHECK (allowance = 'add' OR amount > 0);
ALTER TABLE quota_manager.quota_run ADD COLUMN amount numeric;
ALTER TABLE quota_manager.quota_run ADD COLUMN over_ceiling bigint NOT NULL DEFAULT 0;
ALTER TABLE quota_manager.quota_run ADD COLUMN sufficient bigint NOT NULL DEFAULT 0;
-- take FUNCTION quota_internal.strategy_gateways
-- take FUNCTION quota_internal.evaluated_users
DROP FUNCTION quota_internal.grant_evaluated(quota_manager.quota_execute, integer, boolean);
-- take FUNCTION quota_internal.grant_evaluated
