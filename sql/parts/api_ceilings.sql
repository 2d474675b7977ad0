-- Ceilings in the API.

CREATE VIEW quota_api.ceilings WITH (security_invoker = true) AS
SELECT c.id, c.strategy_id, c.period, c.max_grants, c.max_amount, c.on_excess, c.time_zone, c.note, c.counted_since
FROM quota_manager.quota_ceiling c;
COMMENT ON VIEW quota_api.ceilings IS
'Ceilings: how much strategies grant at most per run, per day or in total
Required: period, and max_grants or max_amount. Without strategy_id all strategies together. Who administers writes them.';
-- Defaults of a table do not show through a view.
ALTER VIEW quota_api.ceilings ALTER on_excess SET DEFAULT 'refuse';
ALTER VIEW quota_api.ceilings ALTER time_zone SET DEFAULT 'UTC';
ALTER VIEW quota_api.ceilings ALTER note SET DEFAULT '';

CREATE VIEW quota_api.ceiling_status WITH (security_invoker = true) AS
SELECT s.ceiling_id, s.strategy_id, s.strategy AS strategy_name, s.period, nullif(s.period_start, '-infinity') AS period_start,
	s.max_grants, s.grants, s.grants_left, s.max_amount, s.amount, s.amount_left, s.on_excess, s.status
FROM quota_manager.ceiling_status s;
COMMENT ON VIEW quota_api.ceiling_status IS
'What was granted under each ceiling in its present period
grants_left and amount_left say what is left, status all of it in words.';
COMMENT ON COLUMN quota_api.ceiling_status.strategy_name IS 'Name of the strategy; null: all strategies together.';
COMMENT ON COLUMN quota_api.ceiling_status.period_start IS 'When the present day began; null: the total, or each run by itself.';
