-- Import of grants from an earlier service.

CREATE FUNCTION quota_manager.import_grants(query text)
RETURNS TABLE (strategy text, given bigint, imported bigint, already_granted bigint, repeated bigint, note text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off SET quota_manager.pinned_statistics = on
AS $$
#variable_conflict use_column
DECLARE
	visible CONSTANT integer[] := quota_internal.read_as_caller('SELECT s.id::text FROM quota_manager.quota_strategy s', NULL)::integer[];
	present CONSTANT timestamptz := clock_timestamp();
BEGIN
	PERFORM quota_internal.check_transaction('grants are imported');
	IF query IS NULL OR query = '' THEN
		RAISE EXCEPTION 'no query to import from' USING ERRCODE = 'invalid_parameter_value',
			HINT = 'Give a query that returns strategy name, user id, time and, if you have it, amount, such as SELECT name, user_id, paid_at, amount FROM public.old_grants.';
	END IF;
	CREATE TEMPORARY TABLE quota_manager_import (strategy text, user_id text, grant_time timestamptz, amount numeric) ON COMMIT DROP;
	EXECUTE format('GRANT INSERT ON pg_temp.quota_manager_import TO %I', quota_internal.deciding_role());
	BEGIN
		PERFORM quota_internal.run_as_caller('INSERT INTO pg_temp.quota_manager_import ' || query);
	EXCEPTION WHEN datatype_mismatch OR syntax_error THEN
		RAISE EXCEPTION 'the query to import from does not return strategy name, user id and time: %', SQLERRM
			USING ERRCODE = 'datatype_mismatch',
				HINT = 'Its columns are text, text and timestamp with time zone, in this order, and numeric for the amount, which can be left out.';
	WHEN undefined_table THEN
		RAISE EXCEPTION 'the query to import from cannot be run: %', SQLERRM
			USING ERRCODE = 'undefined_table', HINT = 'Write names with their schema, such as public.old_grants; temporary tables need none.';
	END;
	IF EXISTS (SELECT 1 FROM pg_temp.quota_manager_import g WHERE g.amount = 0 OR g.amount IN ('NaN', 'Infinity', '-Infinity')) THEN
		RAISE EXCEPTION 'the query to import from returns an amount that no grant can have'
			USING ERRCODE = 'invalid_parameter_value', DETAIL = 'It is 0, infinite or not a number.',
				HINT = 'Leave the row out, or return null, which means the amount of the strategy.';
	END IF;
	UPDATE pg_temp.quota_manager_import g SET grant_time = now() WHERE g.grant_time IS NULL OR NOT isfinite(g.grant_time);
	PERFORM quota_internal.lock_strategies(ARRAY(SELECT k.id FROM quota_manager.quota_strategy k
		WHERE k.id = ANY (visible) AND k.name IN (SELECT g.strategy FROM pg_temp.quota_manager_import g) ORDER BY k.id));
	RETURN QUERY
	WITH row_of AS (
		SELECT g.strategy, g.user_id, g.grant_time, s.id AS strategy_id, s.type, s.version, coalesce(g.amount, s.amount) AS amount, s.model, s.time_zone,
			quota_manager.gateway_of(s.model) AS gateway, g.user_id <> '' AND quota_internal.user_id_fits(g.user_id) AS usable,
			row_number() OVER (PARTITION BY g.strategy, g.user_id ORDER BY g.grant_time) AS nth
		FROM pg_temp.quota_manager_import g LEFT JOIN quota_manager.quota_strategy s ON s.name = g.strategy AND s.id = ANY (visible)
	), written AS (
		INSERT INTO quota_manager.quota_execute (strategy_id, user_id, scheduled_time, strategy_version, status, amount, model,
			gateway, batch_number, create_time, update_time)
		SELECT r.strategy_id, r.user_id, '-infinity', r.version, 'completed', r.amount, r.model, coalesce(r.gateway, ''),
			to_char(quota_internal.local_time(r.grant_time, r.time_zone), 'YYYYMMDDHH24MISS'), r.grant_time, present
		FROM row_of r WHERE r.type = 'single' AND r.usable AND r.nth = 1
		ON CONFLICT DO NOTHING
		RETURNING strategy_id, user_id
	), counted AS (
		SELECT r.strategy, r.strategy_id, r.type, count(*) AS given,
			count(*) FILTER (WHERE r.usable AND r.nth = 1) AS wanted,
			count(*) FILTER (WHERE r.usable AND r.nth > 1) AS repeated,
			count(*) FILTER (WHERE r.user_id <> '') AS named, count(*) FILTER (WHERE r.usable) AS usable
		FROM row_of r GROUP BY r.strategy, r.strategy_id, r.type
	)
	SELECT c.strategy, c.given, w.imported, CASE WHEN c.type = 'single' THEN c.wanted - w.imported ELSE 0 END,
		CASE WHEN c.type = 'single' THEN c.repeated ELSE 0 END,
		CASE WHEN c.strategy_id IS NULL THEN 'unknown strategy: nothing imported'
			WHEN c.type <> 'single' THEN 'not a single strategy: nothing imported'
			WHEN c.usable < c.given THEN concat_ws('; ',
				CASE WHEN c.named < c.given THEN c.given - c.named || ' without a user id: not imported' END,
				CASE WHEN c.usable < c.named THEN c.named - c.usable || ' with a user id longer than 2600 bytes: not imported' END) END
	FROM counted c CROSS JOIN LATERAL (SELECT count(*) AS imported FROM written w WHERE w.strategy_id = c.strategy_id) w
	ORDER BY c.strategy;
	DROP TABLE pg_temp.quota_manager_import;
END
$$;
COMMENT ON FUNCTION quota_manager.import_grants(text) IS 'Takes over completed grants of single strategies from a query that returns strategy name, user id, time and perhaps amount (left out or null: the amount that the strategy has now), so that the next scan does not pay again. Returns per strategy how many were imported, existed already, came twice, or were not recognised.';
