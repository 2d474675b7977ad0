-- The built-in condition functions, how calls find them, and functions added by SQL.
SET search_path = quota_manager, public;
SET timezone = 'UTC';
SET datestyle = 'ISO';
INSERT INTO quota_gateway (name, dialect, base_url, is_default) VALUES
	('cf-default', 'zgsm', 'http://127.0.0.1:1', true), ('cf-other', 'zgsm', 'http://127.0.0.1:1', false);
INSERT INTO quota_model VALUES ('cf-model', 'cf-other');
SELECT star_list(E'\t\x0b\f a\u3000b \u3000,\u00a0\u2003c\u0085,\u3000, \u1680\u2028d\u2029\u202f\u205f,\u200be\ufeff,\u3001f,') = ARRAY[E'a\u3000b', 'c', 'd', E'\u200be\ufeff', E'\u3001f'] AS trimmed;
INSERT INTO user_info (id, github_star, vip, org, register_time, access_time) VALUES
	('u1', 'zgsm, a/b ,,	c', 2, 'org1', '2024-01-01 00:00:00+00', '2025-01-01 00:00:00+00'),
	('u2', NULL, NULL, NULL, NULL, NULL),
	('U1', 'ZGSM', -1, ' org1', '2024-06-01 00:00:00+00', '2024-06-01 00:00:00.000001+00');
INSERT INTO user_balance (user_id, gateway, balance) VALUES ('u1', 'cf-default', 10), ('u1', 'cf-other', 0.5), ('u2', 'cf-other', -3);

-- planned: the condition is a constant; executed: it is a value of each row.
CREATE FUNCTION pg_temp.planned(expression text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE result text;
BEGIN
	EXECUTE format('SELECT string_agg(s.id || CASE WHEN s @@ %1$L THEN ''+'' WHEN may_match(s, %1$L) THEN ''?'' ELSE ''-'' END, '' '' ORDER BY s.id COLLATE "C")
		FROM subject s', expression) INTO result;
	RETURN result;
END
$$;
CREATE FUNCTION pg_temp.executed(expression text) RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(s.id || CASE WHEN s @@ c THEN '+' WHEN may_match(s, c) THEN '?' ELSE '-' END, ' ' ORDER BY s.id COLLATE "C")
	FROM subject s, (VALUES (expression::condition)) v (c)
$$;
SELECT expression, pg_temp.planned(expression) AS planned, pg_temp.planned(expression) = pg_temp.executed(expression) AS same
FROM unnest(ARRAY['true()', 'false()', 'match-user("u1", "u2")', 'match-user("u")', 'register-before("2024-01-01 00:00:01")',
	'register-before("2024-01-01 00:00:00")', 'register-before("2024-01-01T08:00:01+08:00")', 'not register-before("2030-01-01 00:00:00")',
	'access-after("2024-06-01T00:00:00Z")', 'access-after("2024-06-01 00:00:00.000001Z")', 'not access-after("2020-01-01 00:00:00")',
	'github-star("zgsm")', 'github-star("a/b")', 'github-star("c")', 'github-star("")', 'github-star(" zgsm")', 'not github-star(zgsm)',
	'is-vip(0)', 'is-vip(-1)', 'is-vip(-2)', 'is-vip(2)', 'is-vip(9223372036854775807)', 'is-vip(-9223372036854775808)', 'not is-vip(1)',
	'belong-to("org1")', 'belong-to("org1", " org1")', 'not belong-to("org1")',
	'quota-le("m", 10)', 'quota-le("m", 9.999999)', 'not quota-le("m", 10)', 'quota-le("cf-model", 0.5)', 'not quota-le("cf-model", -3)',
	'or(is-vip(1), quota-le("m", 10))', 'and(is-vip(1), quota-le("m", 10))', 'not and(is-vip(1), quota-le("m", 10))',
	'or(quota-le("m", 1), not quota-le("m", 1))']) AS expression;

-- Balances are read for what a condition calls, not for what stands in its arguments.
SELECT quota_manager.condition_models('or(match-user("quota-le(\""m\"", 1)"), belong-to(quota-le))') AS none,
	quota_manager.condition_models('or(match-user("quota-le"), not(quota-le("m", 1)), quota-le("cf-model", 2), quota-le("m", 3))') AS models;

-- No subject is no match, whichever way the condition is run.
SELECT n.s @@ 'not(is-vip(1))' AS planned, n.s @@ c AS executed
FROM (VALUES ('not(is-vip(1))'::condition)) v (c) LEFT JOIN (SELECT s, s.id FROM subject s OFFSET 0) n ON n.id = 'nobody';

-- A balance that is too old is not known.
UPDATE user_balance SET read_time = now() - interval '1 hour';
SELECT pg_temp.planned('quota-le("m", 10)');
SET quota_manager.balance_max_age = '2h';
SELECT pg_temp.planned('quota-le("m", 10)');
RESET quota_manager.balance_max_age;

-- Statements of the extension carry the gateway in the place of the model, and mean the same.
UPDATE user_balance SET read_time = now();
SELECT quota_internal.bound_condition('or(quota-le("m", 10), not(quota-le("cf-model", 0.50)), is-vip(1))'), quota_internal.bound_condition(NULL);
SELECT expression, pg_temp.planned(quota_internal.bound_condition(expression)::text) AS planned,
	pg_temp.planned(expression) = pg_temp.planned(quota_internal.bound_condition(expression)::text) AS same,
	pg_temp.planned(expression) = pg_temp.executed(quota_internal.bound_condition(expression)::text) AS executed
FROM unnest(ARRAY['quota-le("m", 10)', 'not quota-le("m", 10)', 'quota-le("cf-model", -3)', 'or(is-vip(1), quota-le("m", 10))', 'not and(is-vip(1), quota-le("m", 10))']) AS expression;
-- What would become too long stays as it is.
SELECT length(c::text), quota_internal.bound_condition(c) = c AS same
FROM (SELECT ('or(' || string_agg('quota-le("cf-model", ' || n % 10 || ')', ', ') || ')')::condition FROM generate_series(1, 2600) n) l (c);
-- Strategies name models, whose balances are read.
SELECT c.valid, c.message, c.hint, c."position" FROM check_condition('or(is-vip(1), balance-le("cf-default", 10))') c;
-- Where balances are, but not the gateways, an answer would be wrong.
BEGIN;
DELETE FROM quota_model WHERE gateway LIKE 'cf-%';
DELETE FROM quota_gateway;
\set SHOW_CONTEXT never
SELECT pg_temp.planned('balance-le("cf-default", 10)');
SELECT pg_temp.planned('quota-le("m", 10)');
ROLLBACK;
\set SHOW_CONTEXT errors

-- Wrong names, counts, types and values.
SELECT expression, c.sqlstate, c.message, c."position", c.hint
FROM unnest(ARRAY['is-vp(1)', 'belongs-to("x")', 'zzzzzzzzzz()', 'true() or nosuch("x")', 'false("x")', 'is-vip()', 'is-vip(1, 2)', 'belong-to()',
	'quota-le("m")', 'is-vip("1")', 'is-vip(one)', 'is-vip(1.0)', 'is-vip(1e0)', 'is-vip(9223372036854775808)', 'match-user(123)',
	'register-before(2024)', 'quota-le(m, "10")', 'quota-le(m, NaN)', 'quota-le(1, 2)', 'register-before("2024-02-30 00:00:00")',
	'register-before("2023-02-29 00:00:00")', 'register-before("2024-13-01 00:00:00")', 'register-before("2024-01-01 24:00:00")',
	'register-before("2024-01-01 00:00:60")', 'register-before("0000-01-01 00:00:00")', 'register-before("2024-01-01")',
	'register-before("2024-01-01T00:00:00")', 'register-before("2024-01-01 00:00:00.5")', 'register-before("2024-01-01 00:00:00.1234567Z")',
	'register-before("2024-01-01 00:00:00+24:00")', 'register-before("now")', 'register-before("infinity")', 'register-before("")',
	'and(true(), ' || repeat('x', 70) || '())']) AS expression,
	LATERAL check_condition(expression) c;
SELECT count(*) FROM subject s WHERE s @@ 'or(true(), nosuch("x"))';
SELECT count(*) FROM subject s, (VALUES ('or(true(), nosuch("x"))'::condition)) v (c) WHERE s @@ c;
SELECT 'is-vip(99999999999)'::condition;

-- A function added by SQL works at once: defaults, variadic, overloads by kind of argument.
CREATE FUNCTION quota_condition.name_like(s subject, pattern text, ends text DEFAULT '%') RETURNS boolean
	LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN (s).id LIKE pattern || ends;
CREATE FUNCTION quota_condition.level_in(s subject, VARIADIC levels integer[]) RETURNS boolean
	LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN (s).vip = ANY (levels);
CREATE FUNCTION quota_condition.has(s subject, what text) RETURNS boolean
	LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$ BEGIN RETURN s.org = what; END $$;
CREATE FUNCTION quota_condition.has(s subject, what bigint) RETURNS boolean
	LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$ BEGIN RETURN s.vip = what; END $$;
SELECT expression, pg_temp.planned(expression) AS planned, pg_temp.planned(expression) = pg_temp.executed(expression) AS same
FROM unnest(ARRAY['name-like("u")', 'name-like("u", "1")', 'level-in(1, 2)', 'has("org1")', 'has(2)', 'not has(2)']) AS expression;
SELECT c.sqlstate, c.message, c.hint FROM unnest(ARRAY['has(2.5)', 'level-in(3000000000)', 'level-in()', 'name-like("a","b","c")', 'name-lik("u")']) AS expression,
	LATERAL check_condition(expression) c;

-- What the planner or a scan could not use is refused, with the cure.
CREATE FUNCTION quota_condition.bad(s subject) RETURNS boolean LANGUAGE sql VOLATILE RETURN true;
SELECT c.sqlstate, c.message, c.hint FROM check_condition('bad()') c;
ALTER FUNCTION quota_condition.bad(subject) STABLE;
SELECT c.sqlstate, c.message, c.hint FROM check_condition('bad()') c;
ALTER FUNCTION quota_condition.bad(subject) PARALLEL SAFE SECURITY DEFINER;
SELECT c.sqlstate, c.message, c.hint FROM check_condition('bad()') c;
ALTER FUNCTION quota_condition.bad(subject) SECURITY INVOKER;
SELECT c.valid FROM check_condition('bad()') c;
DROP FUNCTION quota_condition.bad(subject);
CREATE FUNCTION quota_condition.bad(s subject) RETURNS SETOF boolean LANGUAGE sql STABLE PARALLEL SAFE RETURN true;
SELECT c.sqlstate, c.message, c.hint FROM check_condition('bad()') c;
DROP FUNCTION quota_condition.bad(subject);
CREATE FUNCTION quota_condition.bad(s subject) RETURNS integer LANGUAGE sql STABLE PARALLEL SAFE RETURN 1;
SELECT c.sqlstate, c.message, c.hint FROM check_condition('bad()') c;
DROP FUNCTION quota_condition.bad(subject);
CREATE FUNCTION quota_condition.bad(what text) RETURNS boolean LANGUAGE sql STABLE PARALLEL SAFE RETURN true;
SELECT c.sqlstate, c.message, c.detail FROM check_condition('bad("x")') c;
DROP FUNCTION quota_condition.bad(text);
CREATE FUNCTION quota_condition.bad(s subject, what point) RETURNS boolean LANGUAGE sql STABLE PARALLEL SAFE RETURN true;
SELECT c.sqlstate, c.message, c.hint FROM check_condition('bad("x")') c;
DROP FUNCTION quota_condition.bad(subject, point);

-- Names of the extension are reserved: an overload beside them is not considered.
CREATE FUNCTION quota_condition.is_vip(s subject, level integer) RETURNS boolean
	LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN true;
SELECT pg_temp.planned('is-vip(77)');
DROP FUNCTION quota_condition.is_vip(subject, integer);

-- Many distinct conditions in one column.
SELECT count(*) FILTER (WHERE s @@ c) FROM subject s, (SELECT ('is-vip(' || n % 3000 || ')')::condition AS c FROM generate_series(0, 5999) n OFFSET 0) v;

SELECT star_list(''), star_list(','), star_list(' a '), star_list(E'a,\t b c\n,,技'), star_list(NULL);

DROP FUNCTION quota_condition.name_like, quota_condition.level_in, quota_condition.has(subject, text), quota_condition.has(subject, bigint);
TRUNCATE user_info, user_balance;
DELETE FROM quota_model WHERE gateway LIKE 'cf-%';
DELETE FROM quota_gateway WHERE name LIKE 'cf-%';
