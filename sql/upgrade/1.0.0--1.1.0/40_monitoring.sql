-- One time for all rows does not rewrite the table.
ALTER TABLE quota_manager.quota_gateway ADD COLUMN state_since timestamptz NOT NULL DEFAULT pg_catalog.now();
ALTER TABLE quota_manager.quota_gateway ALTER COLUMN state_since SET DEFAULT pg_catalog.clock_timestamp();
-- take FUNCTION quota_internal.check_gateway_state
-- take TRIGGER check_gateway_state ON quota_manager.quota_gateway
-- take FUNCTION quota_internal.set_state_since
CREATE TRIGGER set_state_since BEFORE UPDATE OF state ON quota_manager.quota_gateway
	FOR EACH ROW WHEN (OLD.state IS DISTINCT FROM NEW.state) EXECUTE FUNCTION quota_internal.set_state_since();
CREATE INDEX quota_run_skipped ON quota_manager.quota_run (occurrences) WHERE state = 'skipped';
-- take part counts
-- take FUNCTION quota_internal.run_strategy
-- take FUNCTION quota_internal.evaluate_together
-- take FUNCTION quota_internal.note_scan_progress
-- take FUNCTION quota_manager.scan
-- take FUNCTION quota_internal.begin_doubt
-- take FUNCTION quota_manager.resume
-- take FUNCTION quota_internal.count_decisions
-- take part monitoring
SELECT quota_internal.recount_grants();
