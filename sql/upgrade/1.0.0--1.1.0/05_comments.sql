-- Comments that read badly.
COMMENT ON COLUMN quota_manager.quota_gateway.doubt_policy_since IS 'When doubt_policy, sole_writer or where the gateway is was last changed; what was read before proves nothing. Maintained by a trigger.';
COMMENT ON COLUMN quota_manager.quota_strategy.schedule_since IS 'Firings at or before this time are not due: when it was created, enabled or its schedule edited. Maintained by a trigger.';
COMMENT ON COLUMN quota_manager.quota_strategy.version IS 'Counts edits; every grant names the version it was made by. Maintained by a trigger.';

