-- Helpers of the functions of the API.

CREATE FUNCTION quota_internal.decide_listed(action text, ids bigint[], note text)
RETURNS TABLE (id bigint, done boolean, status text, obstacle text)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	PERFORM quota_internal.check_transaction('decisions are taken');
	IF ids IS NULL THEN
		RAISE EXCEPTION 'the grants must be given' USING ERRCODE = 'null_value_not_allowed', HINT = 'Write ids: [1, 2].';
	END IF;
	RETURN QUERY SELECT d.* FROM quota_internal.decide_each(action, ids, note) d;
END
$$;
COMMENT ON FUNCTION quota_internal.decide_listed(text, bigint[], text) IS 'Of the API''s resolve, retry and cancel: see decide_each.';

-- In the order of their ids, so that concurrent calls do not deadlock.
CREATE FUNCTION quota_internal.listed_strategies(ids integer[]) RETURNS SETOF integer
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	PERFORM quota_internal.check_transaction('strategies are changed');
	IF ids IS NULL THEN
		RAISE EXCEPTION 'the strategies must be given' USING ERRCODE = 'null_value_not_allowed', HINT = 'Write ids: [1, 2].';
	END IF;
	RETURN QUERY SELECT DISTINCT u FROM unnest(ids) u WHERE u IS NOT NULL ORDER BY u;
END
$$;
COMMENT ON FUNCTION quota_internal.listed_strategies(integer[]) IS 'Of the API: the strategies to be enabled, disabled or archived, each once; an error where nothing can be written.';

CREATE FUNCTION quota_internal.switched_strategies(ids integer[], switched integer[], rule text)
RETURNS TABLE (id integer, done boolean, status text, obstacle text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	RETURN QUERY
	SELECT l, w IS NOT NULL, n.status, CASE
			WHEN w IS NOT NULL THEN NULL
			WHEN n.status IS NULL THEN 'not found'
			WHEN rule = n.status THEN n.status
			ELSE n.status || ' already' END
		FROM quota_internal.listed_strategies(ids) l
		LEFT JOIN unnest(switched) w ON w = l
		LEFT JOIN quota_manager.quota_strategy s ON s.id = l
		CROSS JOIN LATERAL (SELECT CASE WHEN s.archived THEN 'archived' WHEN s.enabled THEN 'enabled' WHEN NOT s.enabled THEN 'disabled' END) n (status)
		ORDER BY l;
END
$$;
COMMENT ON FUNCTION quota_internal.switched_strategies(integer[], integer[], text) IS 'Of the API: returns for each strategy whether it was switched, its status now, and what prevented it; rule: the status in which it cannot be.';

CREATE FUNCTION quota_internal.workers_are_paused() RETURNS boolean
LANGUAGE sql STABLE
BEGIN ATOMIC
	SELECT EXISTS (SELECT 1 FROM quota_manager.quota_installation i WHERE NOT i.workers_enabled);
END;
COMMENT ON FUNCTION quota_internal.workers_are_paused() IS 'True if the background workers were stopped with stop_workers().';

-- As the owner, who may read the identity of the server.
CREATE FUNCTION quota_internal.is_copy() RETURNS boolean
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	RETURN EXISTS (SELECT 1 FROM quota_manager.quota_installation i, quota_internal.present_identity() p
		WHERE (i.system_identifier, i.database_oid) <> (p.system_identifier, p.database_oid));
END
$$;
COMMENT ON FUNCTION quota_internal.is_copy() IS 'True if this database is a copy and waits for resume().';

CREATE FUNCTION quota_internal.strategy_named(strategy text) RETURNS quota_manager.quota_strategy
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	known quota_manager.quota_strategy;
BEGIN
	IF strategy IS NULL THEN
		RAISE EXCEPTION 'the strategy must be given' USING ERRCODE = 'null_value_not_allowed';
	END IF;
	SELECT s.* INTO known FROM quota_manager.quota_strategy s WHERE s.name = strategy;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'strategy "%" does not exist', strategy
			USING ERRCODE = 'undefined_object', HINT = 'See SELECT name FROM quota_manager.quota_strategy.';
	END IF;
	RETURN known;
END
$$;
COMMENT ON FUNCTION quota_internal.strategy_named(text) IS 'A strategy that the caller may see, or an error.';

CREATE FUNCTION quota_internal.next_firing_of(strategy_id integer) RETURNS timestamptz
LANGUAGE sql STABLE
BEGIN ATOMIC
	SELECT pg_catalog.min(d.scheduled_time) FROM quota_manager.strategy_due d
	WHERE d.strategy_id OPERATOR(pg_catalog.=) next_firing_of.strategy_id
		AND d.state OPERATOR(pg_catalog.=) ANY (ARRAY['due', 'waiting', 'scheduled']);
END;
COMMENT ON FUNCTION quota_internal.next_firing_of(integer) IS 'The firing that a strategy runs next, which may be due already; null: none, or it is single.';

CREATE FUNCTION quota_internal.previewed_users(condition quota_manager.condition, strategy text) RETURNS SETOF quota_api.users
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	-- A relation of the site shows only the columns that conditions see.
	chosen CONSTANT text := 'SELECT (x.subject).id, (x.subject).name, (x.subject).github_username, (x.subject).email, (x.subject).phone,
		(x.subject).github_star, (x.subject).vip, (x.subject).org, (x.subject).register_time, (x.subject).access_time FROM users x %s';
	found text[];
	detail text;
	hint text;
BEGIN
	IF num_nonnulls(condition, strategy) <> 1 THEN
		RAISE EXCEPTION 'either a condition or a strategy is previewed'
			USING ERRCODE = 'invalid_parameter_value', HINT = 'Give condition, to see who meets it, or strategy, to see whom it would grant to.';
	END IF;
	IF strategy IS NOT NULL THEN
		found := ARRAY(SELECT v.user_id FROM quota_manager.preview_users((quota_internal.strategy_named(strategy)).name, n => 2147483647) v);
	END IF;
	IF quota_internal.has_own_users() THEN
		found := coalesce(found, ARRAY(SELECT a.id FROM quota_internal.ask_about_users(format('SELECT x.id FROM users x WHERE x.subject OPERATOR(quota_manager.@@) %L', condition),
			ARRAY[condition], NULL::text) AS a (id text)));
		RETURN QUERY SELECT u.* FROM unnest(found) f (id) JOIN quota_api.users u USING (id);
	ELSE
		RETURN QUERY SELECT a.*, NULL::timestamptz, NULL::timestamptz FROM quota_internal.ask_about_users(format(chosen, CASE WHEN condition IS NULL THEN 'JOIN unnest($1) f (id) ON f.id = x.id'
				ELSE format('WHERE x.subject OPERATOR(quota_manager.@@) %L', condition) END), ARRAY[condition], found)
			AS a (id text, name text, github_username text, email text, phone text, github_star text, vip integer, org text, register_time timestamptz, access_time timestamptz);
	END IF;
EXCEPTION WHEN query_canceled OR OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	PERFORM quota_internal.raise_http_error(SQLSTATE, SQLERRM, detail, hint);
	RAISE;
END
$$;
COMMENT ON FUNCTION quota_internal.previewed_users(quota_manager.condition, text) IS 'Of the API: whom a strategy would grant to, and who meets a condition that calls functions of others, or where users are kept by the site.';

CREATE FUNCTION quota_internal.user_meets(user_id text, condition quota_manager.condition, OUT is_known boolean, OUT meets boolean, OUT may_meet boolean)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	SELECT a.* INTO is_known, meets, may_meet FROM quota_internal.ask_about_users(format('SELECT true, x.subject OPERATOR(quota_manager.@@) %1$L, quota_manager.may_match(x.subject, %1$L)
		FROM users x WHERE x.id = $1', condition), ARRAY[condition], user_id) AS a (is_known boolean, meets boolean, may_meet boolean);
	is_known := coalesce(is_known, false);
END
$$;
COMMENT ON FUNCTION quota_internal.user_meets(text, quota_manager.condition) IS 'Whether there is such a user, meets the condition, and would meet it if every missing balance were favourable.';
