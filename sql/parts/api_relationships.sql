-- What can be embedded, without foreign keys, and computed fields.  PostgREST takes a function of a row for a relationship of
-- it; the argument has no name, so that none is an endpoint by itself.  The planner inlines them, and reaches the indexes.

CREATE FUNCTION quota_api.strategy(quota_api.executions) RETURNS SETOF quota_api.strategies
LANGUAGE sql STABLE ROWS 1
BEGIN ATOMIC
	SELECT s.* FROM quota_api.strategies s WHERE s.id OPERATOR(pg_catalog.=) ($1).strategy_id;
END;
COMMENT ON FUNCTION quota_api.strategy(quota_api.executions) IS 'The strategy that granted.';

CREATE FUNCTION quota_api.strategy(quota_api.runs) RETURNS SETOF quota_api.strategies
LANGUAGE sql STABLE ROWS 1
BEGIN ATOMIC
	SELECT s.* FROM quota_api.strategies s WHERE s.id OPERATOR(pg_catalog.=) ($1).strategy_id;
END;
COMMENT ON FUNCTION quota_api.strategy(quota_api.runs) IS 'The strategy that ran.';

CREATE FUNCTION quota_api."user"(quota_api.executions) RETURNS SETOF quota_api.users
LANGUAGE sql STABLE ROWS 1
BEGIN ATOMIC
	-- In the collation of the index on users.
	SELECT u.* FROM quota_api.users u WHERE u.id OPERATOR(pg_catalog.=) (($1).user_id COLLATE pg_catalog."default");
END;
COMMENT ON FUNCTION quota_api."user"(quota_api.executions) IS 'The user who was granted it; none, where the site keeps its users elsewhere.';

CREATE FUNCTION quota_api.run(quota_api.executions) RETURNS SETOF quota_api.runs
LANGUAGE sql STABLE ROWS 1
BEGIN ATOMIC
	SELECT r.* FROM quota_api.runs r WHERE r.id OPERATOR(pg_catalog.=) ($1).run_id;
END;
COMMENT ON FUNCTION quota_api.run(quota_api.executions) IS 'The run that granted; none, where it was imported.';

CREATE FUNCTION quota_api.runs(quota_api.strategies) RETURNS SETOF quota_api.runs
LANGUAGE sql STABLE
BEGIN ATOMIC
	SELECT r.* FROM quota_api.runs r WHERE r.strategy_id OPERATOR(pg_catalog.=) ($1).id;
END;
COMMENT ON FUNCTION quota_api.runs(quota_api.strategies) IS 'Runs of the strategy.';

CREATE FUNCTION quota_api.executions(quota_api.runs) RETURNS SETOF quota_api.executions
LANGUAGE sql STABLE
BEGIN ATOMIC
	SELECT e.* FROM quota_api.executions e
	WHERE e.id OPERATOR(pg_catalog.>=) ($1).first_grant_id AND e.id OPERATOR(pg_catalog.<=) ($1).last_grant_id
		AND e.run_id OPERATOR(pg_catalog.=) ($1).id;
END;
COMMENT ON FUNCTION quota_api.executions(quota_api.runs) IS 'What the run granted.';

CREATE FUNCTION quota_api.executions(quota_api.users) RETURNS SETOF quota_api.executions
LANGUAGE sql STABLE
BEGIN ATOMIC
	SELECT e.* FROM quota_api.executions e WHERE e.user_id OPERATOR(pg_catalog.=) ($1).id;
END;
COMMENT ON FUNCTION quota_api.executions(quota_api.users) IS 'What the user was granted.';

CREATE FUNCTION quota_api.balances(quota_api.users) RETURNS SETOF quota_api.balances
LANGUAGE sql STABLE
BEGIN ATOMIC
	SELECT b.* FROM quota_api.balances b WHERE b.user_id OPERATOR(pg_catalog.=) ($1).id;
END;
COMMENT ON FUNCTION quota_api.balances(quota_api.users) IS 'Balance samples of the user.';

CREATE FUNCTION quota_api.decisions(quota_api.executions) RETURNS SETOF quota_api.decisions
LANGUAGE sql STABLE
BEGIN ATOMIC
	SELECT d.* FROM quota_api.decisions d WHERE d.execution_id OPERATOR(pg_catalog.=) ($1).id;
END;
COMMENT ON FUNCTION quota_api.decisions(quota_api.executions) IS 'What operators decided about the grant.';

CREATE FUNCTION quota_api.schedule_text(quota_api.strategies) RETURNS text
LANGUAGE sql STABLE
RETURN quota_manager.describe(($1).periodic_expr);
COMMENT ON FUNCTION quota_api.schedule_text(quota_api.strategies) IS 'The schedule in plain English; null for single strategies.';
