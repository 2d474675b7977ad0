-- Sets of strategies, each with the predicate over user_info u that somebody would write by hand for it.
--
-- mixed      20 as an operator has them: from nobody to every second user
-- selective  200 that an index serves: organisations, projects, named users
-- noindex    200 that no index serves, and that few users meet
-- shared     200 over 40 calls, each of them in ten; no index serves them
-- memory     200: what is in the others, and more grants than fit into work_mem many times
CREATE TABLE bench_strategy (set text, id integer, condition text, predicate text, PRIMARY KEY (set, id));

INSERT INTO bench_strategy (set, id, condition, predicate) VALUES
	('mixed', 1, 'github-star("zgsm")', $$quota_manager.star_list(u.github_star) @> '{zgsm}'$$),
	('mixed', 2, 'is-vip(1)', 'u.vip >= 1'),
	('mixed', 3, 'belong-to("org1")', $$u.org = 'org1'$$),
	('mixed', 4, 'register-before("2022-06-01 00:00:00")', $$u.register_time < '2022-06-01 00:00:00+00'$$),
	('mixed', 5, 'access-after("2025-11-30 00:00:00")', $$u.access_time > '2025-11-30 00:00:00+00'$$),
	('mixed', 6, 'match-user("user1", "user2", "user3")', $$u.id IN ('user1', 'user2', 'user3')$$),
	('mixed', 7, 'and(is-vip(2), github-star("zgsm"))', $$u.vip >= 2 AND quota_manager.star_list(u.github_star) @> '{zgsm}'$$),
	('mixed', 8, 'or(belong-to("org2"), belong-to("org3"))', $$u.org = 'org2' OR u.org = 'org3'$$),
	('mixed', 9, 'and(not(is-vip(1)), access-after("2025-11-25 00:00:00"), github-star("project/1"))',
		$$(u.vip >= 1) IS NOT TRUE AND u.access_time > '2025-11-25 00:00:00+00' AND quota_manager.star_list(u.github_star) @> '{project/1}'$$),
	('mixed', 10, 'is-vip(6)', 'u.vip >= 6'),
	('mixed', 11, 'belong-to("org100", "org101", "org102")', $$u.org IN ('org100', 'org101', 'org102')$$),
	('mixed', 12, 'github-star("project/50")', $$quota_manager.star_list(u.github_star) @> '{project/50}'$$),
	('mixed', 13, 'and(register-before("2023-01-01 00:00:00"), is-vip(1))', $$u.register_time < '2023-01-01 00:00:00+00' AND u.vip >= 1$$),
	('mixed', 14, 'or(is-vip(5), and(belong-to("org4"), github-star("zgsm")))',
		$$u.vip >= 5 OR u.org = 'org4' AND quota_manager.star_list(u.github_star) @> '{zgsm}'$$),
	('mixed', 15, 'not(access-after("2025-01-01 00:00:00"))', $$(u.access_time > '2025-01-01 00:00:00+00') IS NOT TRUE$$),
	('mixed', 16, 'and(access-after("2025-11-01 00:00:00"), github-star("zgsm"))',
		$$u.access_time > '2025-11-01 00:00:00+00' AND quota_manager.star_list(u.github_star) @> '{zgsm}'$$),
	('mixed', 17, 'register-before("2021-02-01 00:00:00")', $$u.register_time < '2021-02-01 00:00:00+00'$$),
	('mixed', 18, 'match-user("user10", "user20", "user30", "user40", "user50", "user60", "user70", "user80")',
		$$u.id IN ('user10', 'user20', 'user30', 'user40', 'user50', 'user60', 'user70', 'user80')$$),
	('mixed', 19, 'access-after("2025-06-01 00:00:00")', $$u.access_time > '2025-06-01 00:00:00+00'$$),
	('mixed', 20, 'belong-to("no such organisation")', $$u.org = 'no such organisation'$$);

INSERT INTO bench_strategy (set, id, condition, predicate)
SELECT 'selective', n, v.condition, v.predicate FROM generate_series(1, 200) n, LATERAL (SELECT
	format('org%s', 100 + 3 * n), format('project/%s', 50 + 7 * n), format('user%s', 17 * n), format('user%s', 29 * n)) AS a (org, project, id1, id2), LATERAL (SELECT
	CASE n % 5
		WHEN 0 THEN format('match-user("%s", "%s")', id1, id2)
		WHEN 1 THEN format('belong-to("%s")', org)
		WHEN 2 THEN format('github-star("%s")', project)
		WHEN 3 THEN format('and(is-vip(1), belong-to("%s"))', org)
		ELSE format('or(belong-to("%s"), match-user("%s"))', org, id1) END,
	CASE n % 5
		WHEN 0 THEN format('u.id IN (%L, %L)', id1, id2)
		WHEN 1 THEN format('u.org = %L', org)
		WHEN 2 THEN format('quota_manager.star_list(u.github_star) @> ARRAY[%L]', project)
		WHEN 3 THEN format('u.vip >= 1 AND u.org = %L', org)
		ELSE format('u.org = %L OR u.id = %L', org, id1) END) AS v (condition, predicate);

INSERT INTO bench_strategy (set, id, condition, predicate)
SELECT 'noindex', n, v.condition, v.predicate FROM generate_series(1, 200) n, LATERAL (SELECT
	to_char(timestamp '2025-12-01 00:00:00' - n * interval '3 seconds', 'YYYY-MM-DD HH24:MI:SS'), format('org%s', n)) AS a (seen, org), LATERAL (SELECT
	CASE n % 2
		WHEN 0 THEN format('access-after("%s")', seen)
		ELSE format('and(access-after("%s"), not(belong-to("%s")))', seen, org) END,
	CASE n % 2
		WHEN 0 THEN format('u.access_time > ''%s+00''', seen)
		ELSE format('u.access_time > ''%s+00'' AND (u.org = %L) IS NOT TRUE', seen, org) END) AS v (condition, predicate);

INSERT INTO bench_strategy (set, id, condition, predicate)
SELECT 'shared', row_number() OVER (ORDER BY a, b), format('and(access-after("%s"), %s)', seen, v.condition), format('u.access_time > ''%s+00'' AND %s', seen, v.predicate)
FROM generate_series(1, 20) a, generate_series(1, 20) b, LATERAL (SELECT
	to_char(timestamp '2025-12-01 00:00:00' - a * interval '30 seconds', 'YYYY-MM-DD HH24:MI:SS')) AS s (seen), LATERAL (SELECT
	CASE WHEN b <= 8 THEN format('not(belong-to("org%s"))', b) WHEN b <= 14 THEN format('not(github-star("project/%s"))', b)
		ELSE format('not(is-vip(%s))', b - 14) END,
	CASE WHEN b <= 8 THEN format('(u.org = ''org%s'') IS NOT TRUE', b)
		WHEN b <= 14 THEN format('(quota_manager.star_list(u.github_star) @> ''{project/%s}'') IS NOT TRUE', b)
		ELSE format('(u.vip >= %s) IS NOT TRUE', b - 14) END) AS v (condition, predicate)
WHERE (a + b) % 2 = 0;

INSERT INTO bench_strategy (set, id, condition, predicate)
SELECT 'memory', row_number() OVER (ORDER BY set, id), condition, predicate FROM bench_strategy
WHERE set = 'mixed' OR set IN ('selective', 'noindex', 'shared') AND id <= 60;

-- What somebody would make by hand, with the one key that it takes, and with the number of the grant as another.
CREATE TABLE plain_grant (
	id bigint GENERATED ALWAYS AS IDENTITY,
	strategy_id integer NOT NULL,
	user_id text NOT NULL,
	create_time timestamptz NOT NULL DEFAULT now(),
	amount numeric NOT NULL,
	status text NOT NULL DEFAULT 'pending',
	PRIMARY KEY (strategy_id, user_id)
);
CREATE TABLE plain_grant_two_keys (LIKE plain_grant INCLUDING ALL, UNIQUE (id));
CREATE TABLE loop_grant (LIKE plain_grant INCLUDING ALL);
