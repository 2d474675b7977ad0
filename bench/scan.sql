-- scan() of 100,000 users x 20 strategies, against a loop and against hand-written SQL.
\set ON_ERROR_STOP on
\set QUIET on
SET client_min_messages = warning;
SET search_path = quota_manager, public;
SET jit = off;

INSERT INTO quota_gateway (name, dialect, base_url, is_default) VALUES ('bench', 'zgsm', 'http://127.0.0.1:1', true);
INSERT INTO user_info (id, github_star, vip, org, register_time, access_time)
SELECT 'user' || n, concat_ws(',', CASE WHEN n % 3 = 0 THEN 'zgsm' END, 'project/' || n % 100), n % 7, 'org' || n % 50,
	timestamptz '2022-01-01 00:00:00+00' + n % 1000 * interval '1 day', timestamptz '2025-01-01 00:00:00+00' + n % 300 * interval '1 day'
FROM generate_series(1, 100000) n;
VACUUM ANALYZE user_info;

-- Each strategy with the predicate that somebody would write by hand.
CREATE TABLE bench_strategy (id integer, condition text, predicate text);
INSERT INTO bench_strategy
SELECT n, condition, predicate FROM (VALUES
	(1, 'github-star("zgsm")', $$quota_manager.star_list(u.github_star) @> ARRAY['zgsm']$$),
	(2, 'is-vip(6)', 'u.vip >= 6'),
	(3, 'belong-to("org1")', $$u.org = 'org1'$$),
	(4, 'register-before("2022-06-01 00:00:00")', $$u.register_time < '2022-06-01 00:00:00+00'$$),
	(5, 'access-after("2025-10-01 00:00:00")', $$u.access_time > '2025-10-01 00:00:00+00'$$),
	(6, 'match-user("user1", "user2", "user3")', $$u.id IN ('user1', 'user2', 'user3')$$),
	(7, 'and(is-vip(2), github-star("zgsm"))', $$u.vip >= 2 AND quota_manager.star_list(u.github_star) @> ARRAY['zgsm']$$),
	(8, 'or(belong-to("org1"), belong-to("org2"))', $$u.org = 'org1' OR u.org = 'org2'$$),
	(9, 'not(or(is-vip(1), belong-to("org3")))', $$(u.vip >= 1) IS NOT TRUE AND (u.org = 'org3') IS NOT TRUE$$),
	(10, 'and(access-after("2025-05-01 00:00:00"), is-vip(5))', $$u.access_time > '2025-05-01 00:00:00+00' AND u.vip >= 5$$)) AS v (n, condition, predicate);
INSERT INTO bench_strategy SELECT id + 10, condition, predicate FROM bench_strategy;
INSERT INTO quota_strategy (id, name, type, amount, model, condition)
SELECT id, 'bench ' || id, 'single', 1, 'm', condition::condition FROM bench_strategy ORDER BY id;

CREATE PROCEDURE by_hand() LANGUAGE plpgsql AS $$
DECLARE
	b bench_strategy;
BEGIN
	FOR b IN SELECT * FROM bench_strategy ORDER BY id LOOP
		EXECUTE format('INSERT INTO quota_manager.quota_execute
				(strategy_id, user_id, scheduled_time, run_id, strategy_version, amount, model, gateway, batch_number, create_time, update_time)
			SELECT $1, u.id, ''-infinity'', 1, 1, 1, ''m'', ''bench'', ''20250701080000'', now(), now() FROM quota_manager.user_info u
			WHERE (%s) AND NOT EXISTS (SELECT FROM quota_manager.quota_execute e
				WHERE e.strategy_id = $1 AND e.user_id = u.id AND e.scheduled_time = ''-infinity'' AND e.revision = 0)', b.predicate) USING b.id;
	END LOOP;
END
$$;

CREATE PROCEDURE by_loop() LANGUAGE plpgsql AS $$
DECLARE
	st quota_strategy;
	u user_info;
	matches boolean;
BEGIN
	FOR st IN SELECT * FROM quota_strategy ORDER BY id LOOP
		FOR u IN SELECT * FROM user_info LOOP
			IF EXISTS (SELECT FROM quota_execute e WHERE e.strategy_id = st.id AND e.user_id = u.id
					AND e.scheduled_time = '-infinity' AND e.revision = 0) THEN
				CONTINUE;
			END IF;
			SELECT s @@ st.condition INTO matches FROM subject s WHERE s.id = u.id;
			IF matches THEN
				INSERT INTO quota_execute (strategy_id, user_id, scheduled_time, run_id, strategy_version, amount, model, gateway, batch_number)
				VALUES (st.id, u.id, '-infinity', 1, st.version, st.amount, st.model, 'bench', '20250701080000');
			END IF;
		END LOOP;
	END LOOP;
END
$$;

CREATE TABLE bench_time (way text, round integer, seconds double precision, grants bigint);
CREATE PROCEDURE measure(way text, round integer, fill boolean) LANGUAGE plpgsql AS $$
DECLARE
	started timestamptz;
	ended timestamptz;
BEGIN
	IF fill THEN
		TRUNCATE quota_manager.quota_execute, quota_manager.quota_run;
	END IF;
	COMMIT;
	started := clock_timestamp();
	CASE way
		WHEN 'scan' THEN PERFORM FROM quota_manager.scan();
		WHEN 'by hand' THEN CALL by_hand();
		WHEN 'loop' THEN CALL by_loop();
	END CASE;
	COMMIT;
	ended := clock_timestamp();
	INSERT INTO bench_time SELECT way || CASE WHEN fill THEN '' ELSE ', nothing new' END, round,
		extract(epoch FROM ended - started), (SELECT count(*) FROM quota_manager.quota_execute);
END
$$;

\set round 0
CALL measure('scan', 0, true);
CALL measure('by hand', 0, true);
SELECT format('CALL measure(%L, %s, %L)', way, round, fill)
FROM generate_series(1, 5) round, (VALUES (1, 'scan', true), (2, 'scan', false), (3, 'by hand', true), (4, 'by hand', false)) AS v (n, way, fill)
ORDER BY round, (n + round) % 2, n \gexec
CALL measure('loop', 1, true);

-- Every way wrote the same grants.
SELECT 1 / (count(DISTINCT grants) = 1)::int AS same_grants FROM bench_time \gset
\set QUIET off
\pset footer off
SELECT way, count(*) AS runs, max(grants) AS grants, round(percentile_cont(0.5) WITHIN GROUP (ORDER BY seconds)::numeric, 2) AS median_seconds
FROM bench_time WHERE round > 0 GROUP BY way ORDER BY way;
WITH pair AS (
	SELECT s.round, s.seconds / h.seconds AS ratio, s.way FROM bench_time s JOIN bench_time h ON h.round = s.round AND h.way = replace(s.way, 'scan', 'by hand')
	WHERE s.way LIKE 'scan%' AND s.round > 0)
SELECT way || ' / by hand' AS ratio, round(min(ratio)::numeric, 3) AS min, round(percentile_cont(0.5) WITHIN GROUP (ORDER BY ratio)::numeric, 3) AS median,
	round(max(ratio)::numeric, 3) AS max FROM pair GROUP BY way
UNION ALL
SELECT 'loop / scan', r, r, r FROM (SELECT round((max(seconds) FILTER (WHERE way = 'loop')
	/ percentile_cont(0.5) WITHIN GROUP (ORDER BY seconds) FILTER (WHERE way = 'scan' AND round > 0))::numeric, 1) AS r FROM bench_time) l
ORDER BY 1;
