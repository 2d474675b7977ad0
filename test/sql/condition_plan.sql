-- A constant condition is planned as predicates on columns: indexes, and no table that is not needed.
SET search_path = quota_manager, public;
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET quota_manager.schedule_clock = '2025-07-01 08:00:00+00';
INSERT INTO quota_gateway (name, dialect, base_url, is_default) VALUES ('cp', 'zgsm', 'http://127.0.0.1:1', true);
INSERT INTO user_info (id, github_star, vip, org, register_time, access_time)
SELECT 'u' || n, CASE WHEN n % 500 = 0 THEN 'a, zgsm' ELSE 'p' || n % 1000 END, CASE WHEN n % 500 = 0 THEN 3 END, 'org' || n % 1000,
	timestamptz '2020-01-01 00:00:00+00' + n * interval '10 minutes', timestamptz '2025-01-01 00:00:00+00' - n * interval '10 minutes'
FROM generate_series(1, 100000) n;
VACUUM ANALYZE user_info;
SET enable_indexonlyscan = off;

-- What is asked of an index and what of each row; how they are combined is the planner's business.
CREATE FUNCTION pg_temp.plan(query text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
	line text;
BEGIN
	FOR line IN EXECUTE 'EXPLAIN (COSTS off) ' || query LOOP
		IF line ~ 'Index Cond|Filter|Seq Scan|user_balance' THEN
			RETURN NEXT trim(line);
		END IF;
	END LOOP;
END
$$;
SELECT pg_temp.plan($$SELECT s.id FROM subject s WHERE s @@ 'belong-to("org7")'$$);
SELECT pg_temp.plan($$SELECT s.id FROM subject s WHERE s @@ 'match-user("u1", "u2")'$$);
SELECT pg_temp.plan($$SELECT s.id FROM subject s WHERE s @@ 'is-vip(2)'$$);
SELECT pg_temp.plan($$SELECT s.id FROM subject s WHERE s @@ 'github-star("zgsm")'$$);
SELECT pg_temp.plan($$SELECT s.id FROM subject s WHERE s @@ 'register-before("2020-01-01 12:00:00")'$$);
SELECT pg_temp.plan($$SELECT s.id FROM subject s WHERE s @@ 'access-after("2024-12-31 00:00:00")'$$);
SELECT create_access_time_index();
ANALYZE user_info;
SELECT pg_temp.plan($$SELECT s.id FROM subject s WHERE s @@ 'access-after("2024-12-31 00:00:00")'$$);
SELECT bool_or(line ~ 'Index Cond') AS uses_index, bool_or(line ~ 'Seq Scan') AS reads_all
FROM pg_temp.plan($$SELECT s.id FROM subject s WHERE s @@ 'and(is-vip(2), belong-to("org500"))'$$) line;
SELECT bool_or(line ~ 'Index Cond') AS uses_index, bool_or(line ~ 'Seq Scan') AS reads_all
FROM pg_temp.plan($$SELECT s.id FROM subject s WHERE s @@ 'not(or(is-vip(2), not(belong-to("org500"))))'$$) line;
SELECT bool_or(line ~ 'Index Cond') AS uses_index, bool_or(line ~ 'Seq Scan') AS reads_all
FROM pg_temp.plan($$SELECT s.id FROM subject s WHERE s @@ 'or(match-user("u1"), belong-to("org500"))'$$) line;
SELECT pg_temp.plan($$SELECT s.id FROM subject s WHERE s @@ 'true()'$$);
SELECT pg_temp.plan($$SELECT s.id FROM subject s WHERE s @@ 'and(false(), quota-le("m", 1))'$$);

-- Only a condition that asks for a balance reads the balances.
SELECT bool_or(line ~ 'user_balance') AS reads_balances
FROM pg_temp.plan($$SELECT s.id FROM subject s WHERE s @@ 'quota-le("m", 10)'$$) line;
SELECT bool_or(line ~ 'user_balance') AS reads_balances
FROM pg_temp.plan($$SELECT s.id FROM subject s WHERE s @@ 'or(is-vip(1), github-star("x"), not(belong-to("y")))'$$) line;

-- A parameter is as good as a constant where the plan is made for its value.
PREPARE by_condition (condition) AS SELECT s.id FROM subject s WHERE s @@ $1;
SET plan_cache_mode = force_custom_plan;
SELECT pg_temp.plan($$EXECUTE by_condition ('belong-to("org7")')$$);
SET plan_cache_mode = force_generic_plan;
SELECT count(*) FROM subject s WHERE s @@ 'belong-to("org7")';
EXECUTE by_condition ('and(belong-to("org7"), match-user("u7", "u8"))');
RESET plan_cache_mode;

-- Parameters of type text: as clients and functions have them.
RESET plan_cache_mode;
PREPARE by_text (text) AS SELECT s.id FROM subject s WHERE s @@ $1;
SELECT pg_temp.plan($$EXECUTE by_text ('belong-to("org7")')$$);
EXECUTE by_text ('and(belong-to("org7"), match-user("u7", "u8"))');
EXECUTE by_text ('and(belong-to("org7"), nosuch())');
EXECUTE by_text ('belong-to(');
SET plan_cache_mode = force_generic_plan;
EXECUTE by_text ('and(belong-to("org7"), match-user("u7", "u8"))');
EXECUTE by_text ('belong-to(');
RESET plan_cache_mode;
PREPARE by_anything AS SELECT s.id FROM subject s WHERE s @@ $1;
EXECUTE by_anything ('and(belong-to("org7"), match-user("u7", "u8"))');
-- A condition is still a text where one is wanted, and a text that is not one is an error where it is written.
SELECT 'true()'::condition || ' or not', upper('true()'::condition), 'true()'::condition = 'true()'::text, 'true()'::condition LIKE 'tr%';
SELECT s.id FROM subject s WHERE s @@ 'nosuch';

-- In target lists, and in a parallel plan.
SELECT count(*) FILTER (WHERE s @@ 'is-vip(2)'), count(*) FILTER (WHERE s @@ 'github-star("zgsm")') FROM subject s;
SET parallel_setup_cost = 0;
SET parallel_tuple_cost = 0;
SET min_parallel_table_scan_size = 0;
SELECT count(*) FROM subject s WHERE s @@ 'not(github-star("zgsm"))';
SELECT count(*) FROM subject s, (VALUES ('not(github-star("zgsm"))'::condition)) v (c) WHERE s @@ c;

-- A broken constant is an error with its place even where no row is looked at.
SELECT s.id FROM subject s WHERE s.id = 'nobody' AND s @@ 'and(is-vip(1), nosuch())';

DROP INDEX user_info_access_time;
TRUNCATE user_info;
DELETE FROM quota_gateway WHERE name = 'cp';
