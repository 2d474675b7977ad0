-- Allowances.  The column comes without a default, which a table cannot get whose rows functions take.
ALTER TABLE quota_manager.quota_strategy ADD COLUMN allowance text;
-- It is no edit: triggers do not count it.
DO $$
DECLARE
	role CONSTANT pg_catalog.text := pg_catalog.current_setting('session_replication_role');
BEGIN
	PERFORM pg_catalog.set_config('session_replication_role', 'replica', true);
	UPDATE quota_manager.quota_strategy SET allowance = 'add';
	PERFORM pg_catalog.set_config('session_replication_role', role, true);
END
$$;
ALTER TABLE quota_manager.quota_strategy ALTER COLUMN allowance SET NOT NULL, ALTER COLUMN allowance SET DEFAULT 'add';
ALTER TABLE quota_manager.quota_strategy ADD CONSTRAINT quota_strategy_allowance_is_known CHECK (allowance IN ('add', 'top_up', 'exact'));
ALTER TABLE quota_manager.quota_strategy ADD CONSTRAINT quota_strategy_allowance_has_an_amount_above_zero CHECK (allowance = 'add' OR amount > 0);
ALTER TABLE quota_manager.quota_run ADD COLUMN amount numeric;
ALTER TABLE quota_manager.quota_run ADD COLUMN over_ceiling bigint NOT NULL DEFAULT 0;
ALTER TABLE quota_manager.quota_run ADD COLUMN sufficient bigint NOT NULL DEFAULT 0;
-- Of reversals; before the view that reads whole rows.
ALTER TABLE quota_manager.quota_run ADD COLUMN reversal_id bigint;
ALTER TABLE quota_manager.quota_run ADD COLUMN reversed_sums jsonb;
CREATE INDEX quota_run_reversal ON quota_manager.quota_run (reversal_id) WHERE reversal_id IS NOT NULL;
-- take FUNCTION quota_internal.strategy_gateways
CREATE INDEX quota_run_granted ON quota_manager.quota_run (strategy_id, id) WHERE granted > 0;
-- take FUNCTION quota_internal.evaluated_users
-- take FUNCTION quota_internal.evaluated_count
-- take FUNCTION quota_internal.is_tried_again
-- take FUNCTION quota_internal.is_doubtful
DROP FUNCTION quota_internal.grant_evaluated(quota_manager.quota_execute, integer, boolean);
-- take FUNCTION quota_internal.grant_evaluated
-- The view has subqueries of whole rows.
-- take VIEW quota_manager.strategy_due
-- take part ceiling
