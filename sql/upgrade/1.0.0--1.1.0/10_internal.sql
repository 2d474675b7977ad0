-- What only the extension calls is in quota_internal.
ALTER FUNCTION quota_manager.condition_models(quota_manager.condition) SET SCHEMA quota_internal;
ALTER FUNCTION quota_manager.pg_cron_jobs(name) SET SCHEMA quota_internal;
-- Nothing calls it.
DROP FUNCTION quota_internal.due_firings(quota_manager.quota_strategy);
