-- What is probably wrong with strategies: lint(), and warnings when they are written.
\pset format unaligned
\pset tuples_only on
\pset null '~'
\set SHOW_CONTEXT never
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET search_path = quota_manager, public;
SET quota_manager.schedule_clock = '2025-07-01 08:00:00+00';
SET quota_manager.lint_on_write = on;
INSERT INTO quota_gateway (name, dialect, base_url, is_default) VALUES ('lint-a', 'zgsm', 'http://gateway.example', true), ('lint-b', 'zgsm', 'http://gateway.example', false);
CREATE FUNCTION quota_condition.lint_tag(s quota_manager.subject, tag text) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN s.name = tag;
CREATE FUNCTION quota_condition.lint_tag(s quota_manager.subject, tag bigint) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN s.vip = tag;
CREATE FUNCTION pg_temp.findings(VARIADIC conditions text[]) RETURNS SETOF text LANGUAGE sql AS $$
	SELECT concat_ws(E'\n    ', c, coalesce(string_agg(concat_ws(' | ', f.severity || ' ' || f.problem || ': ' || f.message, f.detail, f.hint), E'\n    ' ORDER BY f.position), 'nothing'))
	FROM unnest(conditions) WITH ORDINALITY c(c, position)
	LEFT JOIN LATERAL (SELECT * FROM quota_internal.condition_findings(c, '{m,n,o}', '{lint-a,lint-a,lint-b}')
		WITH ORDINALITY f(problem, severity, message, detail, hint, position)) f ON true
	GROUP BY c.c, c.position ORDER BY c.position $$;

-- Never and always, by what calls ask about.
SELECT pg_temp.findings('true()', 'false()', 'not(false())', 'and(true(), false())', 'is-vip(3)', 'not(is-vip(0))',
	'and(is-vip(3), not(is-vip(2)))', 'and(is-vip(2), not(is-vip(3)))', 'or(is-vip(1), not(is-vip(1)))', 'or(is-vip(2), not(is-vip(1)))',
	'is-vip(2147483648)', 'is-vip(2147483647)', 'is-vip(-2147483648)', 'is-vip(-2147483647)', 'not(is-vip(-9223372036854775808))',
	'and(is-vip(2147483647), is-vip(9223372036854775807))');
SELECT pg_temp.findings('and(register-before("2024-01-01 00:00:00"), access-after("2025-01-01 00:00:00"))',
	'and(register-before("2024-01-01 00:00:00"), not(register-before("2024-01-01T08:00:00+08:00")))',
	'and(register-before("2024-01-01 00:00:00"), not(register-before("2023-01-01 00:00:00")))',
	'or(access-after("2024-01-01 00:00:00"), not(access-after("2025-01-01 00:00:00")))',
	'and(access-after("2025-01-01 00:00:00"), not(access-after("2024-01-01 00:00:00")))',
	'and(not(register-before("2024-01-01 00:00:00")), not(access-after("2024-01-01 00:00:00")))');
SELECT pg_temp.findings('and(match-user("a", "b"), match-user("b", "c"))', 'and(match-user("a"), match-user("b"))', 'and(belong-to("a"), belong-to("b"))',
	'and(belong-to("a", "b"), not(belong-to("b", "a", "c")))', 'and(match-user("a"), belong-to("b"))', 'or(match-user("a"), not(match-user("a", "b")))',
	'and(not(match-user("a")), not(belong-to("")))', 'and(belong-to("a"), belong-to("A"))');
SELECT pg_temp.findings('github-star("")', 'github-star("a,b")', 'github-star(" a")', 'github-star("a　")', 'github-star("a b")', 'not(github-star(","))',
	'and(github-star("a"), github-star("b"))', 'and(github-star("a"), not(github-star("a")))');
-- A balance can be missing, and two models can have one.
SELECT pg_temp.findings('or(quota-le("m", 5), not(quota-le("m", 5)))', 'and(quota-le("m", 5), not(quota-le("m", 5.0)))', 'and(quota-le("m", 5), not(quota-le("m", 4.999)))',
	'and(quota-le("m", 1), not(quota-le("n", 1e1)))', 'and(quota-le("m", 1), not(quota-le("o", 10)))', 'or(quota-le("m", 1), not(quota-le("m", 2)), true())',
	'and(quota-le("nobody", 1), not(quota-le("nobody", 2)))', 'and(quota-le("nobody", 1), not(quota-le("nowhere", 2)))', 'not(and(quota-le("m", 1), not(quota-le("m", 1))))');
-- Of a function of the site, only that a call is equal to itself.
SELECT pg_temp.findings('and(lint-tag("x"), not(lint-tag(x)))', 'and(lint-tag("x"), not(lint-tag("y")))', 'or(lint-tag(1), not(lint-tag("1")))', 'or(lint-tag(1), not(lint-tag(+01)))',
	'and(no-such("x"), not(no-such("x")))');
-- Parts.
SELECT pg_temp.findings('and(is-vip(1), is-vip(2))', 'or(is-vip(1), is-vip(2))', 'and(is-vip(1), is-vip(1), is-vip(1))', 'or(belong-to("a"), and(is-vip(1), not(is-vip(1))))',
	'and(is-vip(3), or(not(is-vip(2)), belong-to("x")))', 'and(is-vip(3), or(is-vip(2), belong-to("x")))', 'or(is-vip(3), and(is-vip(2), belong-to("x"), or(is-vip(1), belong-to("y"))))',
	'not(or(is-vip(1), is-vip(2)))', 'not(and(belong-to("x"), not(belong-to("x", "y"))))', 'or(false(), is-vip(1))', 'and(true(), is-vip(1))',
	'and(or(is-vip(1), belong-to("a")), or(is-vip(1), belong-to("b")))', 'or(match-user("a"), match-user("a", "b"), match-user("b"))',
	'and(or(belong-to("a"), is-vip(1)), or(belong-to("a"), not(is-vip(1))), not(belong-to("a")))');
-- Signs of another keyboard.
SELECT pg_temp.findings('belong-to("a，b")', 'belong-to("“a”")', 'belong-to("甲（北京）")', 'and(quota-le("m　", 1), match-user("a、b"))', 'lint-tag("it’s")');
SELECT v.* FROM (VALUES ('is-vip（1）'), ('belong-to(“a”)'), ('belong-to(''a'')'), ('belong-to("a”)'), ('belong-to("a"，"b")'), ('is-vip(1)、is-vip(2)'), ('is-vip(1)　and is-vip(2)'), ('and（is-vip(1), is-vip(2)）'),
	('not（is-vip(1)）'), ('is-vip(1）'), ('is-vip(＂1＂)'), ('is-vip(‘1’)'), ('is-vip 1'), ('is-vip(1)；')) c(c), LATERAL (SELECT c.c, q.sqlstate, q.message, q.hint, q.position FROM check_condition(c.c) q) v;
INSERT INTO quota_strategy (name, type, amount, model, condition) VALUES ('typed', 'single', 1, 'm', 'is-vip（1）');

-- Written.
INSERT INTO quota_strategy (name, type, amount, model, condition) VALUES ('never', 'single', 1, 'gpt-44', 'and(is-vip(3), not(is-vip(2)))');
INSERT INTO quota_model VALUES ('gpt-4', 'lint-b'), ('m', 'lint-a');
INSERT INTO quota_strategy (name, type, amount, model, condition, state) VALUES ('named', 'single', 1, 'gpt-44', 'or(quota-le("gpt-5x", 1), quota-le("elsewhere", 2))', 'draft');
INSERT INTO quota_strategy (name, type, amount, model, condition) VALUES ('vip-1', 'single', 1, 'm', 'is-vip(1)');
INSERT INTO quota_strategy (name, type, amount, model, condition) VALUES ('vip-2', 'single', 1, 'm', 'is-vip(2)'), ('vip-2-again', 'single', 2, 'm', 'and(is-vip(2), is-vip(1))'),
	('takes', 'single', -1, 'm', 'is-vip(2)'), ('ended', 'single', 1, 'gpt-4', 'is-vip(2)');
INSERT INTO quota_strategy (name, type, amount, model, condition, periodic_expr, time_zone) VALUES ('daily', 'periodic', 1, 'm', 'is-vip(2)', '0 8 * * *', 'UTC');
INSERT INTO quota_strategy (name, type, amount, model, condition, periodic_expr, time_zone) VALUES ('daily-too', 'periodic', 1, 'm', 'is-vip(2)', '0 8 * * *', 'UTC');
INSERT INTO quota_strategy (name, type, amount, model, condition, periodic_expr, time_zone) VALUES ('daily-else', 'periodic', 1, 'm', 'is-vip(2)', '0 8 * * *', 'Asia/Shanghai');
INSERT INTO quota_strategy (name, type, amount, model, condition, periodic_expr, valid_until) VALUES ('leap', 'periodic', 1, 'gpt-4', 'is-vip(1)', '0 0 29 2 *', '2026-01-01 00:00:00Z');
INSERT INTO quota_strategy (name, type, amount, model, condition, periodic_expr, valid_from) VALUES ('later', 'periodic', 1, 'gpt-4', 'is-vip(4)', '0 0 29 2 MON', '2999-01-01 00:00:00Z');
INSERT INTO quota_strategy (name, type, amount, model, condition, valid_until) VALUES ('over', 'single', 1, 'gpt-4', 'is-vip(5)', '2025-07-01 08:00:00Z');
INSERT INTO quota_strategy (name, type, amount, model, condition, valid_from, valid_until) VALUES ('june', 'single', 1, 'gpt-4', 'is-vip(2)', '2026-06-01 00:00:00Z', '2026-07-01 00:00:00Z');
UPDATE quota_strategy SET valid_until = '2026-06-01 00:00:00Z' WHERE name = 'ended';
-- What is not edited is not said again; what is put into use is.
UPDATE quota_strategy SET title = 'x', amount = amount WHERE name = 'never';
UPDATE quota_strategy SET state = 'paused' WHERE name = 'never';
UPDATE quota_strategy SET state = 'active' WHERE name = 'never';
UPDATE quota_strategy SET state = 'archived' WHERE name = 'never';
UPDATE quota_strategy SET condition = 'false()' WHERE name = 'never';
-- Pairs once, whichever the statement writes.
UPDATE quota_strategy SET condition = 'is-vip(1)' WHERE name IN ('vip-1', 'vip-2');
UPDATE quota_strategy SET condition = 'is-vip(0)' WHERE name = 'vip-1';
INSERT INTO quota_strategy (name, type, amount, model, condition) SELECT 'bulk' || i, 'single', 1, 'gpt-4', format('is-vip(%s)', i)::condition FROM generate_series(10, 22) i;
DELETE FROM quota_strategy WHERE name LIKE 'bulk%';
-- Restored, or not wanted.
INSERT INTO quota_strategy (name, type, amount, model, condition, version, schedule_since, create_time) VALUES ('restored', 'single', 1, 'gone', 'no-such("，")', 1, '2025-01-01', '2025-01-01');
SET quota_manager.lint_on_write = off;
INSERT INTO quota_strategy (name, type, amount, model, condition) VALUES ('quiet', 'single', 1, 'gpt-4（x）', 'false()');
SET quota_manager.lint_on_write = on;

-- All, worst first.
\pset format aligned
\pset tuples_only off
SELECT strategy, severity, problem, message FROM lint();
SELECT * FROM lint('daily-too');
SELECT problem, message FROM lint('vip-1');
SELECT problem, message FROM lint('never');
SELECT * FROM lint('nobody');
UPDATE quota_gateway SET is_default = false;
DELETE FROM quota_strategy WHERE model <> 'gone';
SELECT * FROM lint();

DELETE FROM quota_strategy;
DELETE FROM quota_model;
DELETE FROM quota_gateway;
DROP FUNCTION quota_condition.lint_tag(subject, text);
DROP FUNCTION quota_condition.lint_tag(subject, bigint);
