-- Users as a gateway has them, skewed: a few organisations and projects have most of the users, most users pay nothing,
-- registrations grow, and most who come at all came lately.  The same rows for the same number of users.
--
-- psql variables: users (how many), ids (serial: user1, user2, ...; uuid: in no order)

-- A number in [0, 1) that depends on nothing but its arguments.
CREATE FUNCTION bench_draw(n bigint, k bigint) RETURNS double precision LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (hashint8extended(n, k) & 1125899906842623) / 1125899906842624.0::double precision;

INSERT INTO quota_manager.user_info (id, name, github_username, email, phone, github_star, vip, org, register_time, access_time)
SELECT CASE :'ids' WHEN 'uuid' THEN md5(n::text)::uuid::text ELSE 'user' || n END,
	'Name of user ' || n, 'github-user-' || n, 'user' || n || '@example.org', '+49 30 ' || n,
	-- Two in five starred nothing; the others up to eight projects.
	CASE WHEN bench_draw(n, 1) < 0.6 THEN concat_ws(',', CASE WHEN bench_draw(n, 2) < 0.25 THEN 'zgsm' END,
		(SELECT string_agg('project/' || floor(20001 ^ bench_draw(n, 10 + star)), ',')
			FROM generate_series(1, least(8, 1 + floor(-2 * ln(1 - bench_draw(n, 3))))::integer) star)) END,
	CASE WHEN bench_draw(n, 4) < 0.3 THEN NULL WHEN bench_draw(n, 4) < 0.8 THEN 0
		ELSE least(9, 1 + floor(-1.5 * ln(1 - bench_draw(n, 5))))::integer END,
	CASE WHEN bench_draw(n, 6) < 0.5 THEN 'org' || floor(5001 ^ bench_draw(n, 7)) END,
	timestamptz '2025-12-01 00:00:00+00' - 1800 * bench_draw(n, 8) ^ 1.7 * interval '1 day',
	CASE WHEN bench_draw(n, 9) >= 0.05 THEN timestamptz '2025-12-01 00:00:00+00'
		+ CASE WHEN bench_draw(n, 9) < 0.35 THEN 2 ELSE 250 END * ln(1 - bench_draw(n, 20)) * interval '1 day' END
FROM generate_series(1, :users) n;
VACUUM ANALYZE quota_manager.user_info;
