-- The built-in condition functions, and the operator @@: does a subject meet a condition?
-- Each body uses the subject once: a body that uses a costly argument twice is not inlined by the planner.

CREATE FUNCTION quota_internal.vip_at_least(vip integer, level bigint) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN vip OPERATOR(pg_catalog.>=) level OR (level OPERATOR(pg_catalog.<=) 0 AND vip IS NULL);
COMMENT ON FUNCTION quota_internal.vip_at_least(integer, bigint) IS 'vip >= level where a null vip counts as 0, in a form that reaches an index on vip.';

CREATE FUNCTION quota_internal.balance_at(balances jsonb, gateway text) RETURNS numeric
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 10 AS 'MODULE_PATHNAME', 'qm_balance_at';
COMMENT ON FUNCTION quota_internal.balance_at(jsonb, text) IS 'Balance at the gateway; null: it is missing.';

CREATE FUNCTION quota_internal.balance_for(balances jsonb, model text) RETURNS numeric
LANGUAGE C STABLE PARALLEL SAFE COST 10 AS 'MODULE_PATHNAME', 'qm_balance_for';
COMMENT ON FUNCTION quota_internal.balance_for(jsonb, text) IS 'Balance at the gateway that serves the model; null: it is missing.';

-- Our own statements use it in place of quota-le, with the gateway in place of the model: src/condition/names.h.
CREATE FUNCTION quota_internal.balance_le(s quota_manager.subject, gateway text, amount numeric) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN quota_internal.balance_at((s).balances, gateway) OPERATOR(pg_catalog.<=) amount;
COMMENT ON FUNCTION quota_internal.balance_le(quota_manager.subject, text, numeric) IS 'balance-le(gateway, amount): the remaining balance at the gateway is at most amount; null: it is missing.';

CREATE FUNCTION quota_internal.bound_condition(condition quota_manager.condition) RETURNS quota_manager.condition
LANGUAGE C STABLE STRICT AS 'MODULE_PATHNAME', 'qm_bound_condition';
COMMENT ON FUNCTION quota_internal.bound_condition(quota_manager.condition) IS 'The condition with balance-le(gateway, amount) in the place of quota-le(model, amount): a constant that means the same on every server that a statement is run on.';

CREATE FUNCTION quota_condition."true"(s quota_manager.subject) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN true;
COMMENT ON FUNCTION quota_condition."true"(quota_manager.subject) IS 'true(): always.';

CREATE FUNCTION quota_condition."false"(s quota_manager.subject) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN false;
COMMENT ON FUNCTION quota_condition."false"(quota_manager.subject) IS 'false(): never.';

CREATE FUNCTION quota_condition.match_user(s quota_manager.subject, VARIADIC ids text[]) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (s).id OPERATOR(pg_catalog.=) ANY (ids);
COMMENT ON FUNCTION quota_condition.match_user(quota_manager.subject, text[]) IS 'match-user(id, ...): the user''s id equals one argument, byte for byte.';

CREATE FUNCTION quota_condition.register_before(s quota_manager.subject, before timestamptz) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (s).register_time OPERATOR(pg_catalog.<) before;
COMMENT ON FUNCTION quota_condition.register_before(quota_manager.subject, timestamptz) IS 'register-before(time): the user registered before it.';

CREATE FUNCTION quota_condition.access_after(s quota_manager.subject, after timestamptz) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (s).access_time OPERATOR(pg_catalog.>) after;
COMMENT ON FUNCTION quota_condition.access_after(quota_manager.subject, timestamptz) IS 'access-after(time): the user was last seen after it.';

CREATE FUNCTION quota_condition.github_star(s quota_manager.subject, project text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN quota_manager.star_list((s).github_star) OPERATOR(pg_catalog.@>) ARRAY[project];
COMMENT ON FUNCTION quota_condition.github_star(quota_manager.subject, text) IS 'github-star(project): the user starred it; an empty project matches nobody.';

CREATE FUNCTION quota_condition.quota_le(s quota_manager.subject, model text, amount numeric) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE
RETURN quota_internal.balance_for((s).balances, model) OPERATOR(pg_catalog.<=) amount;
COMMENT ON FUNCTION quota_condition.quota_le(quota_manager.subject, text, numeric) IS 'quota-le(model, amount): the remaining balance at the gateway that serves the model is at most amount; null: it is missing.';

CREATE FUNCTION quota_condition.is_vip(s quota_manager.subject, level bigint) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN quota_internal.vip_at_least((s).vip, level);
COMMENT ON FUNCTION quota_condition.is_vip(quota_manager.subject, bigint) IS 'is-vip(level): the user''s VIP level is at least level; no level counts as 0.';

CREATE FUNCTION quota_condition.belong_to(s quota_manager.subject, VARIADIC orgs text[]) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (s).org OPERATOR(pg_catalog.=) ANY (orgs);
COMMENT ON FUNCTION quota_condition.belong_to(quota_manager.subject, text[]) IS 'belong-to(org, ...): the user''s organisation equals one argument exactly.';

CREATE FUNCTION quota_internal.meets_support(internal) RETURNS internal
LANGUAGE C STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'qm_meets_support';
COMMENT ON FUNCTION quota_internal.meets_support(internal) IS 'Planner support of meets: turns a constant condition into predicates on columns.';

CREATE FUNCTION quota_internal.may_match_support(internal) RETURNS internal
LANGUAGE C STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'qm_may_match_support';
COMMENT ON FUNCTION quota_internal.may_match_support(internal) IS 'Planner support of may_match: turns a constant condition into predicates on columns.';

CREATE FUNCTION quota_manager.meets(s quota_manager.subject, c quota_manager.condition) RETURNS boolean
LANGUAGE C STABLE STRICT PARALLEL SAFE COST 100 SUPPORT quota_internal.meets_support
AS 'MODULE_PATHNAME', 'qm_meets';
COMMENT ON FUNCTION quota_manager.meets(quota_manager.subject, quota_manager.condition) IS 'Does the subject meet the condition? Behind the operator @@.';

CREATE FUNCTION quota_manager.may_match(s quota_manager.subject, c quota_manager.condition) RETURNS boolean
LANGUAGE C STABLE STRICT PARALLEL SAFE COST 100 SUPPORT quota_internal.may_match_support
AS 'MODULE_PATHNAME', 'qm_may_match';
COMMENT ON FUNCTION quota_manager.may_match(quota_manager.subject, quota_manager.condition) IS 'Would the subject meet the condition if every missing balance were favourable? Where this is true and @@ is not, a balance decides that is missing.';

CREATE OPERATOR quota_manager.@@ (
	LEFTARG = quota_manager.subject,
	RIGHTARG = quota_manager.condition,
	FUNCTION = quota_manager.meets,
	RESTRICT = pg_catalog.contsel,
	JOIN = pg_catalog.contjoinsel
);
COMMENT ON OPERATOR quota_manager.@@ (quota_manager.subject, quota_manager.condition) IS 'The subject meets the condition. True or not true: false and null both mean no.';

CREATE FUNCTION quota_manager.check_condition(
	expression text,
	OUT valid boolean,
	OUT condition quota_manager.condition,
	OUT sqlstate text,
	OUT message text,
	OUT detail text,
	OUT hint text,
	OUT "position" integer)
LANGUAGE C STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'qm_check_condition';
COMMENT ON FUNCTION quota_manager.check_condition(text) IS 'Checks a condition, names and types included, without raising an error: what is wrong, where (in characters, from 1), and what to write instead.';

CREATE FUNCTION quota_internal.require_condition(condition quota_manager.condition) RETURNS void
LANGUAGE C STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'qm_require_condition';
COMMENT ON FUNCTION quota_internal.require_condition(quota_manager.condition) IS 'Raises an error that says what is wrong with a condition, names and types included.';

CREATE FUNCTION quota_manager.condition_models(condition quota_manager.condition) RETURNS text[]
LANGUAGE C STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'qm_condition_models';
COMMENT ON FUNCTION quota_manager.condition_models(quota_manager.condition) IS 'Models whose balance a condition asks for.';

CREATE FUNCTION quota_internal.condition_tree(
	condition quota_manager.condition,
	OUT node integer,
	OUT parent integer,
	OUT depth integer,
	OUT kind text,
	OUT function text,
	OUT arguments text[],
	OUT text text,
	OUT calls integer)
RETURNS SETOF record
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE ROWS 10 AS 'MODULE_PATHNAME', 'qm_condition_tree';
COMMENT ON FUNCTION quota_internal.condition_tree(quota_manager.condition) IS 'The parts of a condition, each before its own parts: its number from 1, that of the part that it is of (null: it is the whole), its depth from 0; kind: and, or, not or call; the function and the arguments of a call; its text, which is a condition again; and how many calls it has. Names and types are not looked up.';

CREATE FUNCTION quota_internal.condition_time("time" text) RETURNS timestamptz
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'qm_condition_time';
COMMENT ON FUNCTION quota_internal.condition_time(text) IS 'A time as conditions read it; null: it is none.';
