-- Why a user meets a condition or not, and how many users each part of one leaves.

CREATE FUNCTION quota_internal.abridged(value text, most integer DEFAULT 60) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
	-- A line break would end the line of a table.
	SELECT CASE WHEN pg_catalog.length(v.line) OPERATOR(pg_catalog.>) most THEN pg_catalog.left(v.line, most OPERATOR(pg_catalog.-) 3) OPERATOR(pg_catalog.||) '...' ELSE v.line END
	FROM (SELECT pg_catalog.replace(pg_catalog.replace(pg_catalog.replace(value, E'\n', '\n'), E'\r', '\r'), E'\t', '\t')) v (line);
END;
COMMENT ON FUNCTION quota_internal.abridged(text, integer) IS 'A text of at most so many characters on one line.';

CREATE FUNCTION quota_internal.shown_time("time" timestamptz) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
	SELECT CASE WHEN isfinite("time") THEN to_char("time" AT TIME ZONE 'UTC', concat('YYYY-MM-DD HH24:MI:SS', CASE WHEN date_trunc('second', "time") <> "time" THEN '.US' END,
		'"Z"', CASE WHEN "time" < '0001-01-01 00:00:00Z' THEN ' BC' END)) ELSE "time"::text END
$$;
COMMENT ON FUNCTION quota_internal.shown_time(timestamptz) IS 'A time as a condition can have it, in UTC.';

CREATE FUNCTION quota_internal.shown_age(age interval) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
	SELECT CASE WHEN s < 120 THEN s || ' s' WHEN s < 7200 THEN s / 60 || ' min' WHEN s < 172800 THEN s / 3600 || ' h' ELSE s / 86400 || ' days' END
	FROM (SELECT greatest(floor(extract(epoch FROM age)), 0)::bigint) a (s)
$$;
COMMENT ON FUNCTION quota_internal.shown_age(interval) IS 'A duration in words: 3 min.';

-- Whole levels, as many as are shown: a condition can have 8,000 calls, and each can be within 500 parts.
CREATE FUNCTION quota_internal.condition_levels(condition quota_manager.condition, most_parts bigint, most_calls bigint, OUT node integer, OUT parent integer,
	OUT depth integer, OUT kind text, OUT function text, OUT arguments text[], OUT text text, OUT calls integer, OUT is_opened boolean)
RETURNS SETOF record
LANGUAGE sql IMMUTABLE PARALLEL SAFE ROWS 10
BEGIN ATOMIC
	SELECT t.node, t.parent, t.depth, t.kind, t.function, t.arguments, t.text, t.calls, pg_catalog.lead(t.depth) OVER (ORDER BY t.node) OPERATOR(pg_catalog.>) t.depth
	FROM (SELECT t.*, pg_catalog.sum(t.calls) OVER (ORDER BY t.depth) AS calls_above, pg_catalog.count(*) OVER (ORDER BY t.depth) AS parts_above
		FROM quota_internal.condition_tree(condition) t) t
	WHERE t.depth OPERATOR(pg_catalog.=) 0 OR t.calls_above OPERATOR(pg_catalog.<=) most_calls AND t.parts_above OPERATOR(pg_catalog.<=) most_parts;
END;
COMMENT ON FUNCTION quota_internal.condition_levels(quota_manager.condition, bigint, bigint) IS 'The parts of a condition as condition_tree has them, down to the level at which they would be too many, and whether the parts of each are among them.';

-- Inlined, so that a query over many users and conditions compiles each part once.
CREATE FUNCTION quota_internal.condition_results(s quota_manager.subject, condition quota_manager.condition, OUT node integer, OUT parent integer,
	OUT depth integer, OUT kind text, OUT function text, OUT arguments text[], OUT text text, OUT is_opened boolean, OUT result text)
RETURNS SETOF record
LANGUAGE sql STABLE PARALLEL SAFE ROWS 10
BEGIN ATOMIC
	SELECT p.node, p.parent, p.depth, p.kind, p.function, p.arguments, p.text, p.is_opened, CASE
		WHEN quota_manager.meets(s, p.text::quota_manager.condition) THEN 'true'
		WHEN quota_manager.may_match(s, p.text::quota_manager.condition) THEN 'unknown'
		ELSE 'false' END
	FROM quota_internal.condition_levels(condition, 20000, 20000) p;
END;
COMMENT ON FUNCTION quota_internal.condition_results(quota_manager.subject, quota_manager.condition) IS 'The parts of a condition and what each says of a user, evaluated by itself: true, false, or unknown (a balance is missing that decides).';

CREATE FUNCTION quota_internal.missing_balance(gateway text, sample quota_manager.user_balance) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	clock CONSTANT timestamptz := quota_internal.balance_clock();
	-- A call by hand that was rolled back leaves the former balance, read at -infinity.
	is_gone CONSTANT boolean := sample.balance IS NULL OR NOT isfinite(sample.read_time);
BEGIN
	IF EXISTS (SELECT 1 FROM quota_manager.balance_suspension s WHERE s.gateway = missing_balance.gateway) THEN
		RETURN 'balances of the gateway are suspended';
	END IF;
	RETURN CASE
		WHEN sample.user_id IS NULL THEN 'never read'
		WHEN is_gone AND sample.token <> 0 THEN 'asked for, no answer yet'
		WHEN is_gone AND quota_internal.answer_may_arrive(sample.lost_time, sample.lost_moment) THEN 'the answer to a change of it was lost'
		WHEN is_gone THEN 'not read since it last changed'
		WHEN sample.read_time > clock THEN 'read before the clock was set back'
		WHEN sample.read_time <= quota_internal.balance_horizon() THEN format('what was read %s ago (%s) is too old', quota_internal.shown_age(clock - sample.read_time), sample.balance)
		ELSE 'not a number' END;
END
$$;
COMMENT ON FUNCTION quota_internal.missing_balance(text, quota_manager.user_balance) IS 'Why the balance of a user at a gateway counts as missing, of which there is this sample or none.';

CREATE FUNCTION quota_internal.explained_balance(s quota_manager.subject, called text, arguments text[], result text,
	OUT saw text, OUT bound text, OUT change text, OUT set_column text, OUT set_value text, OUT set_gateway text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET quota_manager.pinned_statistics = on
AS $$
DECLARE
	asked CONSTANT text := CASE called WHEN 'quota-le' THEN quota_manager.gateway_of(arguments[1]) ELSE arguments[1] END;
	sample quota_manager.user_balance;
BEGIN
	PERFORM quota_internal.pin_statistics();
	bound := arguments[2];
	IF asked IS NULL THEN
		saw := 'no balance, no gateway serves the model';
		change := format('a gateway to serve model "%s"', quota_internal.abridged(arguments[1]));
		RETURN;
	END IF;
	SELECT b.* INTO sample FROM quota_manager.user_balance b WHERE b.user_id = (s).id AND b.gateway = asked;
	IF result = 'unknown' THEN
		saw := 'no balance, ' || quota_internal.missing_balance(asked, sample);
		IF saw LIKE '%suspended' THEN
			change := format('the balances of gateway "%s" to be released', quota_internal.abridged(asked));
			RETURN;
		END IF;
	ELSE
		saw := concat('balance ', (s).balances ->> asked, ', read ' || quota_internal.shown_age(quota_internal.balance_clock() - sample.read_time) || ' ago');
	END IF;
	set_column := 'balance';
	set_gateway := asked;
	set_value := arguments[2]::numeric + CASE result WHEN 'true' THEN 1 ELSE 0 END;
	change := format('balance %s %s', CASE result WHEN 'true' THEN 'above' WHEN 'false' THEN 'at most' ELSE 'to be read, and at most' END, quota_internal.abridged(bound, 40));
END
$$;
COMMENT ON FUNCTION quota_internal.explained_balance(quota_manager.subject, text, text[], text) IS 'Of explained_call(): of quota-le and balance-le.';

CREATE FUNCTION quota_internal.explained_time(column_name text, value timestamptz, arguments text[], result text,
	OUT saw text, OUT bound text, OUT change text, OUT set_column text, OUT set_value text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	limit_time CONSTANT timestamptz := quota_internal.condition_time(arguments[1]);
	is_before CONSTANT boolean := column_name = 'register_time';
BEGIN
	saw := coalesce(column_name || ' = ' || quota_internal.shown_time(value), column_name || ' is null');
	bound := quota_internal.shown_time(limit_time);
	set_column := column_name;
	set_value := quota_internal.shown_time(limit_time + CASE WHEN result = 'true' THEN interval '0' WHEN is_before THEN interval '-1 us' ELSE interval '1 us' END);
	change := format('%s %s %s', column_name, CASE WHEN is_before = (result = 'true') THEN CASE WHEN is_before THEN 'not before' ELSE 'after' END
		ELSE CASE WHEN is_before THEN 'before' ELSE 'not after' END END, bound);
END
$$;
COMMENT ON FUNCTION quota_internal.explained_time(text, timestamptz, text[], text) IS 'Of explained_call(): of register-before and access-after.';

CREATE FUNCTION quota_internal.explained_names(column_name text, value text, arguments text[], result text,
	OUT saw text, OUT bound text, OUT change text, OUT set_column text, OUT set_value text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	-- What a user can have: the limits are those of user_info.
	possible CONSTANT text[] := ARRAY(SELECT a.name FROM unnest(arguments) WITH ORDINALITY a (name, place)
		WHERE octet_length(a.name) <= 2600 AND (column_name = 'org' OR a.name <> '') ORDER BY a.place);
	quoted CONSTANT text := '"' || quota_internal.abridged(possible[1]) || '"';
BEGIN
	saw := CASE WHEN value IS NULL THEN column_name || ' is null' ELSE format('%s = "%s"', column_name, quota_internal.abridged(value)) END;
	bound := quota_internal.abridged(array_to_string(arguments, ', '));
	IF result = 'true' THEN
		change := CASE WHEN column_name = 'id' THEN 'another user' ELSE 'another org, or none' END;
		set_column := column_name;
	ELSIF possible[1] IS NULL THEN
		change := format('nothing: no user can have such an %s', column_name);
	ELSE
		change := CASE WHEN column_name = 'id' THEN 'another user: ' ELSE 'org to be ' END || quoted
			|| CASE cardinality(possible) WHEN 1 THEN '' WHEN 2 THEN format(' or "%s"', quota_internal.abridged(possible[2])) ELSE format(' or one of the %s others', cardinality(possible) - 1) END;
		set_column := column_name;
		set_value := possible[1];
	END IF;
END
$$;
COMMENT ON FUNCTION quota_internal.explained_names(text, text, text[], text) IS 'Of explained_call(): of match-user and belong-to. Null is a value that sets the column, too.';

CREATE FUNCTION quota_internal.explained_star(github_star text, arguments text[], result text,
	OUT saw text, OUT bound text, OUT change text, OUT set_column text, OUT set_value text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	stars CONSTANT text[] := coalesce(quota_manager.star_list(github_star), '{}');
	project CONSTANT text := arguments[1];
BEGIN
	saw := CASE WHEN stars = '{}' THEN 'no stars' ELSE format('stars {%s}', quota_internal.abridged(array_to_string(stars, ', '))) END;
	bound := quota_internal.abridged(project);
	IF result = 'true' THEN
		change := format('no star "%s"', bound);
		set_value := array_to_string(array_remove(stars, project), ',');
	ELSIF quota_manager.star_list(project) <> ARRAY[project] OR octet_length(project) > 2600 THEN
		change := 'nothing: no user can have starred that';
		RETURN;
	ELSE
		change := format('star "%s"', bound);
		set_value := array_to_string(stars || project, ',');
	END IF;
	set_column := 'github_star';
END
$$;
COMMENT ON FUNCTION quota_internal.explained_star(text, text[], text) IS 'Of explained_call(): of github-star.';

CREATE FUNCTION quota_internal.explained_vip(vip integer, arguments text[], result text,
	OUT saw text, OUT bound text, OUT change text, OUT set_column text, OUT set_value text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	level CONSTANT numeric := arguments[1]::numeric;
BEGIN
	saw := coalesce('vip = ' || vip, 'vip is null, which counts as 0');
	bound := level::text;
	IF result = 'true' AND level <= -2147483648 THEN
		change := 'nothing: each user has that level';
	ELSIF result = 'false' AND level > 2147483647 THEN
		change := 'nothing: no user can have that level';
	ELSE
		set_column := 'vip';
		set_value := level - CASE result WHEN 'true' THEN 1 ELSE 0 END;
		change := format('vip to be at %s %s', CASE result WHEN 'true' THEN 'most' ELSE 'least' END, set_value);
	END IF;
END
$$;
COMMENT ON FUNCTION quota_internal.explained_vip(integer, text[], text) IS 'Of explained_call(): of is-vip.';

CREATE FUNCTION quota_internal.explained_call(s quota_manager.subject, called text, arguments text[], result text,
	OUT saw text, OUT bound text, OUT change text, OUT set_column text, OUT set_value text, OUT set_gateway text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	CASE called
	WHEN 'is-vip' THEN SELECT e.* INTO saw, bound, change, set_column, set_value FROM quota_internal.explained_vip((s).vip, arguments, result) e;
	WHEN 'github-star' THEN SELECT e.* INTO saw, bound, change, set_column, set_value FROM quota_internal.explained_star((s).github_star, arguments, result) e;
	WHEN 'match-user' THEN SELECT e.* INTO saw, bound, change, set_column, set_value FROM quota_internal.explained_names('id', (s).id, arguments, result) e;
	WHEN 'belong-to' THEN SELECT e.* INTO saw, bound, change, set_column, set_value FROM quota_internal.explained_names('org', (s).org, arguments, result) e;
	WHEN 'register-before' THEN
		SELECT e.* INTO saw, bound, change, set_column, set_value FROM quota_internal.explained_time('register_time', (s).register_time, arguments, result) e;
	WHEN 'access-after' THEN
		SELECT e.* INTO saw, bound, change, set_column, set_value FROM quota_internal.explained_time('access_time', (s).access_time, arguments, result) e;
	WHEN 'quota-le', 'balance-le' THEN SELECT e.* INTO saw, bound, change, set_column, set_value, set_gateway
		FROM quota_internal.explained_balance(s, called, arguments, result) e;
	WHEN 'true' THEN change := 'nothing: it always holds';
	WHEN 'false' THEN change := 'nothing: it never holds';
	ELSE
		saw := 'not known: the function is not built in';
		bound := quota_internal.abridged(array_to_string(arguments, ', '));
		change := format('what %s sees', called);
	END CASE;
END
$$;
COMMENT ON FUNCTION quota_internal.explained_call(quota_manager.subject, text, text[], text) IS 'Of explain_match(): the value that a call saw, the bound that it was compared with, and what would have to change for another result: in words, and as a value of a column (of a balance: at which gateway). A call of a function that is not built in says nothing of that.';

CREATE FUNCTION quota_internal.explained_parts(kind text, result text, nodes integer[], results text[]) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	-- One part decides where it alone makes the other result.
	one_is_enough CONSTANT boolean := kind = 'and' AND result = 'true' OR kind = 'or' AND result <> 'true';
	needed CONSTANT text[] := ARRAY(SELECT u.node::text FROM unnest(nodes, results) u (node, result)
		WHERE one_is_enough AND explained_parts.result <> 'unknown' OR kind = 'not'
			OR u.result = explained_parts.result OR u.result = 'unknown' ORDER BY u.node);
	shown CONSTANT text[] := CASE WHEN cardinality(needed) > 8 THEN needed[1:7] || format('%s more', cardinality(needed) - 7) ELSE needed END;
BEGIN
	RETURN concat(array_to_string(shown[:cardinality(shown) - 1], ', '), CASE WHEN cardinality(shown) > 1 THEN CASE WHEN one_is_enough THEN ' or ' ELSE ' and ' END END,
		shown[cardinality(shown)], CASE WHEN (result = 'true') = (kind <> 'not') THEN ' to fail' ELSE ' to hold' END);
END
$$;
COMMENT ON FUNCTION quota_internal.explained_parts(text, text, integer[], text[]) IS 'Of explain_match(): which parts of an and(), or() or not() would have to change for another result; an unknown one is to hold.';

CREATE FUNCTION quota_internal.explained_tree(s quota_manager.subject, condition quota_manager.condition)
RETURNS TABLE (node integer, part text, result text, saw text, bound text, to_change text, decides boolean, parent integer, function text,
	set_column text, set_value text, set_gateway text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
	RETURN QUERY
	WITH RECURSIVE known AS MATERIALIZED (
		SELECT r.* FROM quota_internal.ask(format('SELECT r.* FROM quota_internal.condition_results($1, %L) r', condition), ARRAY[condition], s)
			AS r (node integer, parent integer, depth integer, kind text, function text, arguments text[], text text, is_opened boolean, result text)
	), deciding AS (
		SELECT k.node, k.kind, k.result FROM known k WHERE k.parent IS NULL
		-- The parts that have the result of an and() or or() make it, and an unknown one may; all others could be otherwise.
		UNION ALL SELECT k.node, k.kind, k.result FROM deciding d JOIN known k ON k.parent = d.node WHERE d.kind = 'not' OR k.result IN (d.result, 'unknown')
	), parts AS (
		SELECT k.parent AS node, array_agg(k.node ORDER BY k.node) AS nodes, array_agg(k.result ORDER BY k.node) AS results FROM known k GROUP BY k.parent
	)
	SELECT k.node, repeat('  ', k.depth) || CASE WHEN k.is_opened THEN k.kind ELSE quota_internal.abridged(k.text) END, k.result, e.saw, e.bound,
		coalesce(e.change, quota_internal.explained_parts(k.kind, k.result, p.nodes, p.results), 'parts that are too many to be shown'),
		d.node IS NOT NULL, k.parent, coalesce(k.function, k.kind), e.set_column, e.set_value, e.set_gateway
	FROM known k
	LEFT JOIN deciding d ON d.node = k.node
	LEFT JOIN parts p ON p.node = k.node
	LEFT JOIN LATERAL quota_internal.explained_call(s, k.function, k.arguments, k.result) e ON k.kind = 'call'
	ORDER BY k.node;
END
$$;
COMMENT ON FUNCTION quota_internal.explained_tree(quota_manager.subject, quota_manager.condition) IS 'Of explain_match(): its rows, for a user as conditions see it.';

CREATE FUNCTION quota_internal.asked_condition(strategy text, condition quota_manager.condition) RETURNS quota_manager.condition
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF num_nonnulls(strategy, condition) <> 1 THEN
		RAISE EXCEPTION 'either a strategy or a condition is explained'
			USING ERRCODE = 'invalid_parameter_value', HINT = 'Name the strategy, or write condition => ''is-vip(2)''.';
	END IF;
	RETURN coalesce(condition, (quota_internal.strategy_named(strategy)).condition);
END
$$;
COMMENT ON FUNCTION quota_internal.asked_condition(text, quota_manager.condition) IS 'The condition of a strategy that the caller may see, or the given one; one of them must be given.';

CREATE FUNCTION quota_internal.known_subject(user_id text, condition quota_manager.condition) RETURNS quota_manager.subject
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	known quota_manager.subject;
BEGIN
	SELECT (a.subject).* INTO known
		FROM quota_internal.ask_about_users('SELECT u.subject FROM users u WHERE u.id = $1', ARRAY[condition], user_id) AS a (subject quota_manager.subject);
	RETURN known;
END
$$;
COMMENT ON FUNCTION quota_internal.known_subject(text, quota_manager.condition) IS 'A user as a condition sees it, where a scan of the caller finds it; all null: there is none.';

CREATE FUNCTION quota_internal.subject_of(user_id text, condition quota_manager.condition) RETURNS quota_manager.subject
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	known CONSTANT quota_manager.subject := CASE WHEN user_id IS NOT NULL THEN quota_internal.known_subject(user_id, condition) END;
BEGIN
	IF user_id IS NULL THEN
		RAISE EXCEPTION 'the user must be given' USING ERRCODE = 'null_value_not_allowed';
	END IF;
	IF known.id IS NULL THEN
		RAISE EXCEPTION 'user "%" does not exist', quota_internal.abridged(user_id)
			USING ERRCODE = 'no_data_found', HINT = 'See SELECT id FROM quota_manager.subject.';
	END IF;
	RETURN known;
END
$$;
COMMENT ON FUNCTION quota_internal.subject_of(text, quota_manager.condition) IS 'The same, or an error if there is none.';

CREATE FUNCTION quota_manager.explain_match(user_id text, strategy text DEFAULT NULL, condition quota_manager.condition DEFAULT NULL)
RETURNS TABLE (node integer, part text, result text, saw text, bound text, to_change text, decides boolean, parent integer, function text,
	set_column text, set_value text, set_gateway text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	asked CONSTANT quota_manager.condition := quota_internal.asked_condition(strategy, condition);
BEGIN
	RETURN QUERY SELECT e.* FROM quota_internal.explained_tree(quota_internal.subject_of(user_id, asked), asked) e;
END
$$;
COMMENT ON FUNCTION quota_manager.explain_match(text, text, quota_manager.condition) IS 'Why a user meets the condition of a strategy, or a condition, or does not: each part of it with its result (true, false, or unknown: a balance is missing), the value that it saw, the bound that this was compared with, and what would have to change for another result; decides: the result of the whole comes from it. set_column, set_value and set_gateway say the change of a call to programs.';

CREATE FUNCTION quota_manager.explain_match_text(user_id text, strategy text DEFAULT NULL, condition quota_manager.condition DEFAULT NULL) RETURNS SETOF text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	RETURN QUERY SELECT l.line
	FROM quota_manager.explain_match(user_id, strategy, condition) e
	CROSS JOIN LATERAL (SELECT substring(e.part FROM '^ *') AS indent) i
	CROSS JOIN LATERAL (VALUES (1, concat(i.indent, CASE WHEN e.parent IS NOT NULL THEN '->  ' END, ltrim(e.part), '  (', e.result, ': ' || e.saw, ')')),
		(2, CASE WHEN e.decides AND e.saw IS NOT NULL THEN concat(i.indent, '      To change: ', e.to_change) END)) l (place, line)
	WHERE l.line IS NOT NULL
	ORDER BY e.node, l.place;
END
$$;
COMMENT ON FUNCTION quota_manager.explain_match_text(text, text, quota_manager.condition) IS 'The same as explain_match in lines of text, as EXPLAIN writes them.';

CREATE FUNCTION quota_manager.funnel(strategy text DEFAULT NULL, condition quota_manager.condition DEFAULT NULL)
RETURNS TABLE (node integer, part text, holds bigint, fails bigint, unknown bigint, remaining bigint, parent integer, function text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET jit = off
AS $$
#variable_conflict use_column
DECLARE
	asked CONSTANT quota_manager.condition := quota_internal.asked_condition(strategy, condition);
	columns text;
	counts text;
	users bigint;
	figures bigint[];
BEGIN
	-- Each part is computed once per user; the outer query counts. A part without balances is never unknown.
	SELECT string_agg(format('x.subject OPERATOR(quota_manager.@@) %L AS n%s', b.text, p.node)
				|| CASE WHEN b.asks THEN format(', quota_manager.may_match(x.subject, %L) AS m%s', b.text, p.node) ELSE '' END, ', '),
			string_agg(format('count(*) FILTER (WHERE u.n%s), %s, %s', p.node,
				CASE WHEN b.asks THEN format('count(*) FILTER (WHERE u.m%1$s AND u.n%1$s IS NOT TRUE)', p.node) ELSE '0' END, CASE
				-- Of parts without end, the first ones.
				WHEN p.before IS NOT NULL AND p.place <= 100 THEN format('count(*) FILTER (WHERE %s)', array_to_string(p.before, ' AND ')) ELSE 'NULL' END), ', ' ORDER BY p.node)
		INTO columns, counts
		FROM (SELECT l.node, l.text, w.kind, row_number() OVER within AS place,
				CASE WHEN w.kind = 'and' THEN array_agg('u.n' || l.node) OVER (within ROWS BETWEEN 99 PRECEDING AND CURRENT ROW) END AS before
			FROM quota_internal.condition_levels(asked, 500, 4000) l LEFT JOIN quota_internal.condition_levels(asked, 500, 4000) w ON w.node = l.parent
			WINDOW within AS (PARTITION BY l.parent ORDER BY l.node)) p
		CROSS JOIN LATERAL (SELECT quota_internal.bound_condition(p.text::quota_manager.condition) AS text,
			quota_manager.condition_models(p.text::quota_manager.condition) <> '{}' AS asks) b;
	SELECT a.* INTO users, figures FROM quota_internal.ask_about_users(format('SELECT count(*), ARRAY[%s]::bigint[] FROM (SELECT %s FROM users x OFFSET 0) u', counts, columns),
		ARRAY[asked], NULL::text) AS a (users bigint, figures bigint[]);
	RETURN QUERY
	SELECT l.node, repeat('  ', l.depth) || CASE WHEN l.is_opened THEN l.kind ELSE quota_internal.abridged(l.text) END,
		f.holds, users - f.holds - f.unknown, f.unknown, CASE WHEN w.kind = 'and' THEN f.remaining END, l.parent, coalesce(l.function, l.kind)
	FROM quota_internal.condition_levels(asked, 500, 4000) l
	LEFT JOIN quota_internal.condition_levels(asked, 500, 4000) w ON w.node = l.parent
	CROSS JOIN LATERAL (SELECT figures[3 * l.place - 2], figures[3 * l.place - 1], figures[3 * l.place]
		FROM (SELECT count(*) FROM quota_internal.condition_levels(asked, 500, 4000) o WHERE o.node <= l.node) l (place)) f (holds, unknown, remaining)
	ORDER BY l.node;
END
$$;
COMMENT ON FUNCTION quota_manager.funnel(text, quota_manager.condition) IS 'How many users meet each part of the condition of a strategy, or of a condition, in one pass over all users: holds, fails, or unknown (a balance is missing); remaining: how many meet this part of an and() and those before it.';
