-- What is refused says why, with the SQLSTATE that clients expect, and does not show the row.
-- take FUNCTION quota_internal.check_strategy
-- take FUNCTION quota_internal.check_strategy_values
CREATE TRIGGER check_strategy_values BEFORE INSERT OR UPDATE ON quota_manager.quota_strategy
	FOR EACH ROW EXECUTE FUNCTION quota_internal.check_strategy_values();

-- take FUNCTION quota_internal.check_gateway
-- take FUNCTION quota_internal.check_gateway_values
CREATE TRIGGER check_gateway_values BEFORE INSERT OR UPDATE OF name, id, dialect, base_url, admin_path, credential, key_header,
	route_model, connect_timeout, request_timeout, max_connections, rate_limit, doubt_policy, sole_writer, max_usage_rate, guard_balances, doubt_policy_since, is_default,
	create_time, update_time
	ON quota_manager.quota_gateway FOR EACH ROW EXECUTE FUNCTION quota_internal.check_gateway_values();

-- take FUNCTION quota_internal.check_model
-- take FUNCTION quota_internal.check_credential

-- take FUNCTION quota_internal.check_user
CREATE TRIGGER check_user BEFORE INSERT OR UPDATE ON quota_manager.user_info
	FOR EACH ROW WHEN ((NEW.id <> '' AND pg_catalog.octet_length(NEW.id) <= 2600
		AND (NEW.org IS NULL OR pg_catalog.octet_length(NEW.org) <= 2600)
		AND (NEW.github_star IS NULL OR pg_catalog.octet_length(NEW.github_star) <= 2600 OR quota_internal.stars_fit(NEW.github_star))
		AND NEW.create_time IS NOT NULL AND NEW.update_time IS NOT NULL) IS NOT TRUE)
	EXECUTE FUNCTION quota_internal.check_user();

-- take FUNCTION quota_internal.keep_strategy_with_grants
-- take FUNCTION quota_internal.keep_gateway_in_use
