-- What is probably wrong with strategies: warnings when they are written, and lint() over all.
-- What is said of a condition is proved, for all users that there could be: src/condition/satisfiable.c.

CREATE FUNCTION quota_internal.condition_findings(condition quota_manager.condition, models text[], gateways text[])
RETURNS TABLE (problem text, severity text, message text, detail text, hint text)
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'qm_condition_findings';
COMMENT ON FUNCTION quota_internal.condition_findings(quota_manager.condition, text[], text[]) IS 'What is probably wrong with a condition, where the models are served by the gateways of the same positions.';

CREATE FUNCTION quota_internal.contained_conditions(conditions text[], models text[], gateways text[], of_positions integer[])
RETURNS TABLE (inner_position integer, outer_position integer)
LANGUAGE C IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'qm_contained_conditions';
COMMENT ON FUNCTION quota_internal.contained_conditions(text[], text[], text[], integer[]) IS 'Pairs of positions: every user that meets the first condition is known to meet the second; only those with one of certain positions, unless these are null. Conditions that nobody meets are in no pair.';

CREATE FUNCTION quota_internal.nearest_name(name text, names text[]) RETURNS text
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'qm_nearest_name';
COMMENT ON FUNCTION quota_internal.nearest_name(text, text[]) IS 'The one of some names that was probably meant; null: none is near.';

CREATE FUNCTION quota_internal.full_width_note(name text) RETURNS text
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'qm_full_width_note';
COMMENT ON FUNCTION quota_internal.full_width_note(text) IS 'The full-width sign in a text, in words; null: there is none.';

CREATE FUNCTION quota_internal.listed_names(names text[]) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
RETURN (SELECT pg_catalog.string_agg(pg_catalog.format('"%s"', n.name), ', ' ORDER BY n.position) FROM pg_catalog.unnest(names[:3]) WITH ORDINALITY AS n (name, position))
	OPERATOR(pg_catalog.||) CASE WHEN pg_catalog.cardinality(names) OPERATOR(pg_catalog.>) 3
		THEN pg_catalog.format(' and %s more', pg_catalog.cardinality(names) OPERATOR(pg_catalog.-) 3) ELSE '' END;
COMMENT ON FUNCTION quota_internal.listed_names(text[]) IS 'Names in quotes, the first three.';

CREATE FUNCTION quota_internal.model_findings(strategy quota_manager.quota_strategy, models text[])
RETURNS TABLE (problem text, severity text, message text, detail text, hint text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	asked record;
	gateway text;
	near text;
BEGIN
	FOR asked IN SELECT m.model, min(m.position) AS position
		FROM (SELECT strategy.model, 1 UNION ALL SELECT u.model, u.position + 1 FROM unnest(models) WITH ORDINALITY u(model, position)) m(model, position)
		GROUP BY m.model ORDER BY 2
	LOOP
		SELECT g.name INTO gateway FROM quota_manager.quota_gateway g WHERE g.name = quota_manager.gateway_of(asked.model);
		IF gateway IS NULL THEN
			RETURN QUERY SELECT 'no_gateway', 'error', format('no gateway serves model "%s"', asked.model),
				CASE asked.position WHEN 1 THEN 'Its grants cannot be delivered.' ELSE 'Its balance is always missing.' END,
				'Name its gateway in quota_manager.quota_model, or make one gateway the default (is_default).';
			CONTINUE;
		END IF;
		CONTINUE WHEN NOT EXISTS (SELECT 1 FROM quota_manager.quota_model) OR EXISTS (SELECT 1 FROM quota_manager.quota_model m WHERE m.model = asked.model);
		near := quota_internal.nearest_name(asked.model, ARRAY(SELECT m.model FROM quota_manager.quota_model m ORDER BY m.model COLLATE "C"));
		RETURN QUERY SELECT 'unnamed_model', 'warning', format('quota_model does not name model "%s"%s', asked.model, CASE asked.position WHEN 1 THEN '' ELSE ' of the condition' END),
			format('The default gateway, "%s", serves it.', gateway),
			format('%sIf it is right, name it: INSERT INTO quota_manager.quota_model VALUES (%L, %L).', 'Did you mean "' || near || '"? ', asked.model, gateway);
	END LOOP;
END
$$;
COMMENT ON FUNCTION quota_internal.model_findings(quota_manager.quota_strategy, text[]) IS 'Of lint(): models that nobody named or serves, of a strategy and of its condition.';

CREATE FUNCTION quota_internal.time_findings(strategy quota_manager.quota_strategy)
RETURNS TABLE (problem text, severity text, message text, detail text, hint text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	zone text;
	since timestamptz;
	first timestamptz;
BEGIN
	IF strategy.valid_until <= quota_manager.schedule_now() THEN
		RETURN QUERY SELECT 'expired', 'warning', format('it is not valid any more since %s', strategy.valid_until), 'It grants nothing.'::text, 'Set valid_until to a later time, or archive it.'::text;
		RETURN;
	END IF;
	IF strategy.type <> 'periodic' THEN
		RETURN;
	END IF;
	zone := quota_internal.schedule_zone(strategy.periodic_expr, strategy.time_zone);
	IF NOT quota_internal.check_time_zone(zone) THEN
		RETURN QUERY SELECT 'unknown_time_zone', 'error', format('the server does not know time zone "%s"', zone), 'It grants nothing.'::text, 'See pg_timezone_names.'::text;
		RETURN;
	END IF;
	-- Of one that has fired, the last firing may be over.
	since := CASE WHEN strategy.valid_from > strategy.schedule_since THEN strategy.valid_from - interval '1 us' ELSE strategy.schedule_since END;
	first := quota_manager.next_firing(strategy.periodic_expr, since, strategy.time_zone);
	IF first IS NULL THEN
		RETURN QUERY SELECT 'never_fires', 'error', 'the schedule does not fire within a hundred years'::text,
			format('It fires %s.', quota_manager.describe(strategy.periodic_expr)), 'Correct periodic_expr.'::text;
	ELSIF first >= strategy.valid_until THEN
		RETURN QUERY SELECT 'never_fires', 'error', 'the schedule does not fire while the strategy is valid'::text,
			format('It would fire first at %s; valid_until is %s.', first, strategy.valid_until), 'Correct periodic_expr, valid_from or valid_until.'::text;
	END IF;
END
$$;
COMMENT ON FUNCTION quota_internal.time_findings(quota_manager.quota_strategy) IS 'Of lint(): schedules that never fire, and validity that is over.';

CREATE FUNCTION quota_internal.strategy_findings(strategy quota_manager.quota_strategy)
RETURNS TABLE (problem text, severity text, message text, detail text, hint text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	models CONSTANT text[] := quota_manager.condition_models(strategy.condition);
	served text[];
	gateways text[];
BEGIN
	RETURN QUERY SELECT 'broken_condition', 'error', 'the condition cannot be evaluated: ' || c.message, coalesce(c.detail, format('It is at character %s of the condition.', c."position")),
		coalesce(c.hint, 'See check_condition().') FROM quota_manager.check_condition(strategy.condition) c WHERE NOT c.valid;
	SELECT array_agg(m.model), array_agg(m.gateway) INTO served, gateways
		FROM (SELECT u.model, quota_manager.gateway_of(u.model) AS gateway FROM unnest(models) u(model)) m WHERE m.gateway IS NOT NULL;
	RETURN QUERY SELECT f.* FROM quota_internal.condition_findings(strategy.condition, coalesce(served, '{}'), coalesce(gateways, '{}')) f;
	RETURN QUERY SELECT f.* FROM quota_internal.model_findings(strategy, models) f;
	RETURN QUERY SELECT f.* FROM quota_internal.time_findings(strategy) f;
	RETURN QUERY SELECT 'full_width', n.severity, format('%s has a %s', n.what, n.note), 'It is a part of the name.'::text, 'Write the ASCII sign if that is meant.'::text
		FROM (VALUES ('warning', format('the model "%s"', strategy.model), quota_internal.full_width_note(strategy.model)),
			('notice', 'the name of the strategy', quota_internal.full_width_note(strategy.name))) n(severity, what, note) WHERE n.note IS NOT NULL;
END
$$;
COMMENT ON FUNCTION quota_internal.strategy_findings(quota_manager.quota_strategy) IS 'Of lint(): what is probably wrong with a strategy, seen for itself.';

CREATE FUNCTION quota_internal.overlapping_strategies(of_ids integer[])
RETURNS TABLE (inner_id integer, outer_id integer, mutual boolean, alike boolean)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	clock CONSTANT timestamptz := quota_manager.schedule_now();
	pool record;
	served text[];
	gateways text[];
BEGIN
	FOR pool IN
		SELECT array_agg(s.id ORDER BY s.id) AS ids, array_agg(s.condition::text ORDER BY s.id) AS conditions
		FROM quota_manager.quota_strategy s
		WHERE NOT s.archived AND s.valid_until > clock AND (of_ids IS NULL OR s.id = ANY (of_ids) OR s.enabled)
		GROUP BY s.model, sign(s.amount), s.allowance HAVING count(*) > 1 AND (of_ids IS NULL OR bool_or(s.id = ANY (of_ids)))
	LOOP
		SELECT array_agg(m.model), array_agg(m.gateway) INTO served, gateways
			FROM (SELECT d.model, quota_manager.gateway_of(d.model) AS gateway FROM (SELECT DISTINCT u.model
				FROM unnest(pool.conditions) c(condition) CROSS JOIN LATERAL unnest(quota_manager.condition_models(c.condition::quota_manager.condition)) u(model)
				WHERE c.condition LIKE '%quota-le%') d) m WHERE m.gateway IS NOT NULL;
		RETURN QUERY
		WITH pair AS MATERIALIZED (
			SELECT pool.ids[c.inner_position] AS a, pool.ids[c.outer_position] AS b
			FROM quota_internal.contained_conditions(pool.conditions, coalesce(served, '{}'), coalesce(gateways, '{}'),
				CASE WHEN of_ids IS NOT NULL THEN ARRAY(SELECT array_position(pool.ids, i) FROM unnest(of_ids) i WHERE i = ANY (pool.ids)) END) c
		), schedule AS MATERIALIZED (
			-- One schedule can be written in many ways.  So many firings are more than a year of days.
			SELECT d.expr, d.zone, CASE WHEN quota_internal.check_time_zone(quota_internal.schedule_zone(d.expr, d.zone)) THEN
					ARRAY(SELECT quota_manager.firings(d.expr, clock, least(clock, '290000-01-01 00:00:00Z') + interval '100 years', d.zone) LIMIT 400) END AS firings
			FROM (SELECT DISTINCT s.periodic_expr AS expr, s.time_zone AS zone FROM quota_manager.quota_strategy s
				WHERE s.type = 'periodic' AND s.id IN (SELECT p.a FROM pair p UNION ALL SELECT p.b FROM pair p)) d
		)
		SELECT p.a, p.b, q.mutual, q.alike
		FROM pair p JOIN quota_manager.quota_strategy s ON s.id = p.a JOIN quota_manager.quota_strategy o ON o.id = p.b
			LEFT JOIN schedule x ON x.expr::text = s.periodic_expr::text AND x.zone = s.time_zone
			LEFT JOIN schedule y ON y.expr::text = o.periodic_expr::text AND y.zone = o.time_zone
			CROSS JOIN LATERAL (SELECT EXISTS (SELECT 1 FROM pair r WHERE r.a = p.b AND r.b = p.a), s.type = o.type
				AND (s.type = 'single' OR (x.expr::text, x.zone) = (y.expr::text, y.zone) OR coalesce(x.firings = y.firings, false))) q(mutual, alike)
		-- Of those that fill users up, what one adds another does not.
		WHERE (s.allowance = 'add' OR q.mutual AND q.alike) AND (s.enabled OR o.enabled) AND s.valid_from < o.valid_until AND o.valid_from < s.valid_until;
	END LOOP;
END
$$;
COMMENT ON FUNCTION quota_internal.overlapping_strategies(integer[]) IS 'Of lint(): pairs of strategies of one model of which the second pays everybody whom the first pays; mutual: and the first whom the second pays; alike: at the same times. Only those with one of certain strategies, unless that is null.';

CREATE FUNCTION quota_internal.overlap_findings(of_ids integer[])
RETURNS TABLE (strategy_id integer, problem text, severity text, message text, detail text, hint text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	RETURN QUERY
	WITH pair AS MATERIALIZED (
		SELECT p.*, of_ids IS NULL OR p.inner_id = ANY (of_ids) AS has_inner, of_ids IS NULL OR p.outer_id = ANY (of_ids) AS has_outer
		FROM quota_internal.overlapping_strategies(of_ids) p
	), told AS (
		-- Each pair once.  Of two that pay the same users, it is said of the later one.
		SELECT p.inner_id AS id, p.outer_id AS other, p.alike, CASE WHEN p.mutual AND p.alike THEN 'duplicate' ELSE 'inner' END AS kind
			FROM pair p WHERE p.has_inner AND (NOT p.mutual OR NOT p.has_outer OR p.inner_id > p.outer_id)
		UNION ALL SELECT p.outer_id, p.inner_id, p.alike, 'outer' FROM pair p WHERE NOT p.has_inner AND NOT p.mutual
	), told_together AS (
		SELECT t.id, t.kind, t.alike, quota_internal.listed_names(array_agg(s.name ORDER BY s.id)) AS names
		FROM told t JOIN quota_manager.quota_strategy s ON s.id = t.other GROUP BY t.id, t.kind, t.alike
	)
	SELECT t.id, CASE t.kind WHEN 'duplicate' THEN 'duplicate' ELSE 'paid_twice' END, CASE WHEN t.alike THEN 'warning' ELSE 'notice' END,
		format(CASE t.kind WHEN 'duplicate' THEN 'it does the same as %s' WHEN 'inner' THEN 'everybody whom it pays is paid by %s as well' ELSE 'it pays everybody who is paid by %s' END, t.names),
		format('The model is the same, "%s"%s.', s.model, CASE WHEN t.alike THEN ', and so are the times' ELSE '; the times are not' END),
		CASE t.kind WHEN 'duplicate' THEN 'Archive one of them, unless both amounts are meant.'
			ELSE 'Where only one is meant for a user, take the users of the one out of the other with not().' END
	FROM told_together t JOIN quota_manager.quota_strategy s ON s.id = t.id;
END
$$;
COMMENT ON FUNCTION quota_internal.overlap_findings(integer[]) IS 'Of lint(): users who are paid twice, by strategies of the same model; of certain strategies, unless that is null.';

CREATE FUNCTION quota_manager.lint(strategy_name text DEFAULT NULL)
RETURNS TABLE (strategy text, problem text, severity text, message text, detail text, hint text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET jit = off
AS $$
#variable_conflict use_column
DECLARE
	asked CONSTANT integer := (SELECT s.id FROM quota_manager.quota_strategy s WHERE s.name = strategy_name);
BEGIN
	IF strategy_name IS NOT NULL AND asked IS NULL THEN
		RAISE EXCEPTION 'strategy "%" does not exist', strategy_name
			USING ERRCODE = 'undefined_object', HINT = 'See SELECT name FROM quota_manager.quota_strategy.';
	END IF;
	RETURN QUERY
	SELECT s.name, f.problem, f.severity, f.message, f.detail, f.hint
	FROM (
		SELECT s.id, f.* FROM quota_manager.quota_strategy s CROSS JOIN LATERAL quota_internal.strategy_findings(s) f
			WHERE CASE WHEN asked IS NULL THEN NOT s.archived ELSE s.id = asked END
		UNION ALL SELECT o.* FROM quota_internal.overlap_findings(CASE WHEN asked IS NOT NULL THEN ARRAY[asked] END) o
	) f JOIN quota_manager.quota_strategy s ON s.id = f.id
	ORDER BY array_position(ARRAY['error', 'warning', 'notice'], f.severity), s.name COLLATE "C", f.problem COLLATE "C", f.message COLLATE "C";
END
$$;
COMMENT ON FUNCTION quota_manager.lint(text) IS 'What is probably wrong with one strategy, or with all that are not archived, worst first: severity is error (it cannot do what it is for), warning or notice; problem is a code that stays. See docs/lint.md.';

CREATE FUNCTION quota_internal.warn_of_strategies(ids integer[]) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET jit = off
AS $$
DECLARE
	-- For the statement of a person; of more, lint() speaks.
	checked CONSTANT integer[] := ids[:100];
	shown CONSTANT integer := 10;
	finding record;
	count integer := 0;
BEGIN
	-- A warning must not keep anybody from writing.
	IF quota_internal.setting('lint_on_write') = 'off' OR NOT has_table_privilege('quota_manager.quota_strategy', 'SELECT')
		OR NOT has_table_privilege('quota_manager.quota_model', 'SELECT') OR NOT has_table_privilege('quota_manager.quota_gateway', 'SELECT') THEN
		RETURN;
	END IF;
	FOR finding IN
		SELECT s.name, f.* FROM (
			SELECT n.id, n.position, s.* FROM unnest(checked) WITH ORDINALITY n(id, position) JOIN quota_manager.quota_strategy k ON k.id = n.id
				CROSS JOIN LATERAL quota_internal.strategy_findings(k) s
			UNION ALL SELECT o.strategy_id, array_position(checked, o.strategy_id), o.problem, o.severity, o.message, o.detail, o.hint
				FROM quota_internal.overlap_findings(checked) o) f
		JOIN quota_manager.quota_strategy s ON s.id = f.id
		WHERE f.severity <> 'notice' ORDER BY f.severity, f.position, f.problem COLLATE "C", f.message COLLATE "C"
	LOOP
		count := count + 1;
		IF count <= shown THEN
			RAISE WARNING 'strategy "%": %', finding.name, finding.message USING DETAIL = finding.detail, HINT = finding.hint;
		END IF;
	END LOOP;
	IF count > shown THEN
		RAISE WARNING '% more findings, in % strategies of %', count - shown, cardinality(checked), cardinality(ids)
			USING HINT = 'See SELECT * FROM quota_manager.lint().';
	ELSIF cardinality(ids) > cardinality(checked) THEN
		RAISE WARNING 'only % strategies of % were looked at', cardinality(checked), cardinality(ids)
			USING HINT = 'See SELECT * FROM quota_manager.lint().';
	END IF;
END
$$;
COMMENT ON FUNCTION quota_internal.warn_of_strategies(integer[]) IS 'Warns of what lint() finds in some strategies, but for notices.';

CREATE FUNCTION quota_internal.lint_new_strategies() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	-- Restored ones were created before.
	ids CONSTANT integer[] := ARRAY(SELECT w.id FROM written w WHERE NOT w.archived AND w.create_time >= statement_timestamp() ORDER BY w.id);
BEGIN
	IF cardinality(ids) > 0 THEN
		PERFORM quota_internal.warn_of_strategies(ids);
	END IF;
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION quota_internal.lint_new_strategies() IS 'Trigger: warns of what is probably wrong with new strategies, where quota_manager.lint_on_write is on.';
-- Roles have the right once grant_access() was called for them; until then they are not warned.
CREATE TRIGGER lint_new_strategies AFTER INSERT ON quota_manager.quota_strategy
	REFERENCING NEW TABLE AS written FOR EACH STATEMENT
	WHEN (pg_catalog.has_function_privilege('quota_internal.warn_of_strategies(integer[])', 'EXECUTE')) EXECUTE FUNCTION quota_internal.lint_new_strategies();
COMMENT ON TRIGGER lint_new_strategies ON quota_manager.quota_strategy IS 'Warns of what is probably wrong with new strategies.';

CREATE FUNCTION quota_internal.lint_edited_strategies() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	ids CONSTANT integer[] := ARRAY(SELECT w.id FROM written w JOIN former f ON f.id = w.id WHERE NOT w.archived AND (w.enabled AND NOT f.enabled
		OR (w.condition::text, w.model, sign(w.amount), w.allowance, w.type, w.periodic_expr::text, w.time_zone, w.valid_from, w.valid_until)
			IS DISTINCT FROM (f.condition::text, f.model, sign(f.amount), f.allowance, f.type, f.periodic_expr::text, f.time_zone, f.valid_from, f.valid_until)) ORDER BY w.id);
BEGIN
	IF cardinality(ids) > 0 THEN
		PERFORM quota_internal.warn_of_strategies(ids);
	END IF;
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION quota_internal.lint_edited_strategies() IS 'Trigger: warns of what is probably wrong with strategies that were made active or edited, where quota_manager.lint_on_write is on.';
CREATE TRIGGER lint_edited_strategies AFTER UPDATE ON quota_manager.quota_strategy
	REFERENCING OLD TABLE AS former NEW TABLE AS written FOR EACH STATEMENT
	WHEN (pg_catalog.has_function_privilege('quota_internal.warn_of_strategies(integer[])', 'EXECUTE')) EXECUTE FUNCTION quota_internal.lint_edited_strategies();
COMMENT ON TRIGGER lint_edited_strategies ON quota_manager.quota_strategy IS 'Warns of what is probably wrong with strategies as they were edited.';
