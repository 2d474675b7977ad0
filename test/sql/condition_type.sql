-- The type condition: canonical text, syntax errors, limits.
SET search_path = quota_manager, public;
SET timezone = 'UTC';

-- Both forms give one canonical text.
SELECT expression, expression::condition AS canonical, expression::condition::text::condition = expression::condition AS stable
FROM (VALUES
	('is-vip(1)'),
	(E' \t\r\n is-vip ( +007 ) \n'),
	('is-vip(1) and is-vip(2) or is-vip(3)'),
	('is-vip(1) or is-vip(2) and not is-vip(3)'),
	('and(is-vip(1), and(is-vip(2), and(is-vip(3), is-vip(4))))'),
	('is-vip(1) and and(is-vip(2), is-vip(3)) and (is-vip(4) and is-vip(5))'),
	('(((is-vip(1))))'),
	('not not(not (is-vip(1)))'),
	('not (is-vip(1) or is-vip(2)) and is-vip(3)'),
	('match-user(a, "b c", "d""e", f_.-/:@9, and)'),
	('match-user("back\slash", "tab	", "技术部")'),
	('quota-le(m, -0.0) or quota-le(m, -00.50) or quota-le(m, 1e+05) or quota-le(m, 2e-3)'),
	('match-user(2024-01-01, 1.2.3, -x, 5-3)')) AS v (expression);

-- Syntax errors.
SELECT expression, c.sqlstate, c.message, c."position", c.hint
FROM (VALUES (''), ('  '), ('true'), ('()'), ('('), (')'), ('is-vip(1'), ('is-vip(1))'), ('((is-vip(1))'), ('is-vip(1) x'),
	('is-vip(1) is-vip(2)'), ('is-vip(1), is-vip(2)'), ('and'), ('or is-vip(1)'), ('is-vip(1) and'), ('and()'), ('and(is-vip(1))'),
	('or(is-vip(1))'), ('not()'), ('not(is-vip(1), is-vip(2))'), ('and(is-vip(1),)'), ('and(,is-vip(1))'), ('and(1, 2)'),
	('is-vip(,1)'), ('is-vip(1,)'), ('is-vip(1 2)'), ('is-vip(is-vip(1))'), ('match-user("a)'), ('match-user(''a'')'),
	('is-vip(1) && is-vip(2)'), ('IS-VIP(1)'), ('is_vip(1)'), ('Is Vip(1)'), ('"is-vip"(1)'), ('match-user(技)'), ('技(1)'),
	('match-user(a+b)'), ('quota-le(m, 1e999999999999)'), ('quota-le(m, ' || repeat('9', 40) || 'e131072)')) AS v (expression),
	LATERAL check_condition(expression) c;
SELECT c.* FROM check_condition(NULL) c;

-- The input raises the same, with the place.
SELECT 'is-vip(1) and'::condition;
SELECT ('match-user("' || repeat('x', 100) || '") oops ' || repeat('y', 100))::condition;
SELECT '技术部("x"'::condition;

-- The input does not look names up: a restore must not depend on what else is there.
SELECT 'no-such-function("x")'::condition;

-- Limits: 64 KiB as written and as canonical text, 500 levels of the flattened tree.
SELECT n, c.valid, c.sqlstate, c.message, c.detail, length(c.condition)
FROM (VALUES
	(1, repeat('not ', 499) || 'true()'),
	(2, repeat('not ', 500) || 'true()'),
	(3, repeat('not(', 499) || 'true()' || repeat(')', 499)),
	(4, repeat('(', 30000) || 'true()' || repeat(')', 30000)),
	(5, repeat('and(true(), ', 4000) || 'true()' || repeat(')', 4000)),
	(6, repeat('true() and ', 4000) || 'true()'),
	(7, repeat('and(true(), or(true(), ', 249) || 'true()' || repeat('))', 249)),
	(8, repeat('and(true(), or(true(), ', 250) || 'true()' || repeat('))', 250)),
	(9, repeat('(', 100000)),
	(10, 'match-user("' || repeat('x', 70 * 1024) || '")'),
	(11, 'match-user("' || repeat('x', 65536 - 14) || '")'),
	(12, 'match-user("' || repeat('x', 65536 - 13) || '")'),
	(13, 'match-user(' || repeat('x', 65536 - 12) || ')')) AS v (n, expression),
	LATERAL check_condition(expression) c ORDER BY n;

-- A text of another encoding never gets here.
SELECT convert_from('\x69732d766970ff', 'UTF8')::condition;

-- Equality, grouping, an index, binary copy.
CREATE TABLE stored_condition (c condition PRIMARY KEY);
INSERT INTO stored_condition VALUES ('is-vip(1) and is-vip(2)'), ('match-user("a""b")');
INSERT INTO stored_condition VALUES ('and(is-vip(1), is-vip(2))');
SELECT c, count(*) FROM stored_condition GROUP BY c ORDER BY c;
INSERT INTO stored_condition SELECT 'true()'::text;
\copy stored_condition TO 'condition_type.tmp' WITH (FORMAT binary)
TRUNCATE stored_condition;
\copy stored_condition FROM 'condition_type.tmp' WITH (FORMAT binary)
SELECT c::text FROM stored_condition ORDER BY 1;
\! rm -f condition_type.tmp
DROP TABLE stored_condition;
