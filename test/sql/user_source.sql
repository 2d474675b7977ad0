-- Users kept in somebody else's table.
\pset format unaligned
\pset null '~'
\pset footer off
\set SHOW_CONTEXT never
SET client_min_messages = warning;
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET quota_manager.incremental_scans = off;
SET search_path = quota_manager, public;
SET quota_manager.schedule_clock = '2025-07-01 08:00:00+00';

INSERT INTO quota_gateway (name, dialect, base_url, is_default) VALUES ('source-zgsm', 'zgsm', 'http://gateway.example', true);

-- Code of others is not run as the superuser of this test.
CREATE ROLE source_test_reader;
SELECT grant_access('source_test_reader', 'worker');
GRANT pg_read_all_data TO source_test_reader;
CREATE FUNCTION pg_temp.reader_scan(name text DEFAULT NULL) RETURNS TABLE (strategy text, scheduled_time timestamptz, matched bigint, granted bigint, already_granted bigint,
	capped bigint, unknown_balance bigint, error text, elapsed interval, note text)
LANGUAGE plpgsql AS $$
BEGIN
	PERFORM set_config('role', 'source_test_reader', true);
	RETURN QUERY SELECT * FROM quota_manager.scan(name);
	PERFORM set_config('role', 'none', true);
END
$$;
CREATE FUNCTION pg_temp.reader_undecided(name text) RETURNS TABLE (user_id text, gateway text)
LANGUAGE plpgsql AS $$
DECLARE
	strategy CONSTANT integer := (SELECT s.id FROM quota_manager.quota_strategy s WHERE s.name = reader_undecided.name);
BEGIN
	PERFORM set_config('role', 'source_test_reader', true);
	RETURN QUERY SELECT * FROM quota_manager.undecided(strategy);
	PERFORM set_config('role', 'none', true);
END
$$;

-- Other names, a uuid key, a schema and a table that have to be quoted.
CREATE SCHEMA "Source ""Test";
CREATE TABLE "Source ""Test"."Kunden'; DROP TABLE x; --" (
	uid uuid PRIMARY KEY, stufe smallint, sterne text, beitritt timestamptz, gesehen timestamptz, "Firma" varchar(20));
INSERT INTO "Source ""Test"."Kunden'; DROP TABLE x; --"
SELECT md5(i::text)::uuid, i % 5, CASE WHEN i % 500 = 0 THEN 'zgsm, other' ELSE 'repo' || i END,
	timestamptz '2020-01-01 00:00:00+00' + i * interval '1 hour', timestamptz '2025-01-01 00:00:00+00' + i * interval '1 hour', 'org' || i
FROM generate_series(1, 5000) i;
CREATE VIEW "Source ""Test"."Ku%nden" AS
SELECT k.uid::text AS id, k.stufe::integer AS vip, k.sterne AS github_star, k.beitritt AS register_time, k.gesehen AS access_time, k."Firma"::text AS org
FROM "Source ""Test"."Kunden'; DROP TABLE x; --" k;
ANALYZE "Source ""Test"."Kunden'; DROP TABLE x; --";
SELECT * FROM set_user_source('"Source ""Test"."Ku%nden"');
SELECT user_source FROM quota_installation;

-- The advice can be followed as it is, whatever the search path, and then everything has its index.
SELECT advice FROM set_user_source('"Source ""Test"."Ku%nden"') WHERE advice IS NOT NULL \gexec
ANALYZE "Source ""Test"."Kunden'; DROP TABLE x; --";
SELECT * FROM set_user_source('"Source ""Test"."Ku%nden"');

-- So the planner uses them of its own accord; where no balance is asked for, none is read.
CREATE FUNCTION pg_temp.plan(condition text) RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
	RETURN QUERY EXECUTE format('EXPLAIN (COSTS off) SELECT s.id FROM %s s WHERE s.subject OPERATOR(quota_manager.@@) %L', (SELECT r.with_balances FROM quota_internal.user_relation(NULL) r), condition);
END
$$;
SELECT c, bool_or(p ~ 'Index Cond') AS indexed, bool_or(p ~ 'Seq Scan on "Kunden') AS whole, bool_or(p ~ 'user_balance') AS balances
FROM unnest(ARRAY['match-user("c4ca4238-a0b9-2382-0dcc-509a6f75849b")', 'belong-to("org7", "org8")', 'github-star("zgsm")', 'is-vip(5)',
	'register-before("2020-01-02 00:00:00")', 'access-after("2025-07-27 00:00:00")', 'and(belong-to("org7"), is-vip(1))',
	'belong-to("org7") or match-user("c4ca4238-a0b9-2382-0dcc-509a6f75849b")', 'not(belong-to("org7"))', 'belong-to("org7") and quota-le("m", 10)']) c, pg_temp.plan(c) p
GROUP BY c ORDER BY c COLLATE "C";

-- Scans go through it.
INSERT INTO user_info (id, org) VALUES ('not-asked', 'org7');
INSERT INTO user_balance (user_id, gateway, balance) SELECT md5(i::text)::uuid::text, 'source-zgsm', i FROM generate_series(1, 20) i;
INSERT INTO quota_strategy (name, type, amount, model, condition) VALUES
	('source-star', 'single', 5, 'm', 'github-star("zgsm")'),
	('source-org', 'single', 5, 'm', 'belong-to("org7", "org8")'),
	('source-low', 'single', 5, 'm', 'quota-le("m", 10) and is-vip(4)'),
	('source-missing', 'single', 5, 'm', 'not(or(is-vip(1), register-before("2030-01-01 00:00:00")))');
SELECT strategy, matched, granted, already_granted, unknown_balance, error FROM pg_temp.reader_scan();
SELECT strategy, matched, granted, already_granted, unknown_balance, error FROM pg_temp.reader_scan();
SELECT s.name, e.user_id FROM quota_execute e JOIN quota_strategy s ON s.id = e.strategy_id WHERE s.name IN ('source-org', 'source-low') ORDER BY s.name, e.user_id;
SELECT count(*) FROM pg_temp.reader_undecided('source-low');
TRUNCATE quota_execute, quota_run;

-- A view of constants, whose owner has no rights here, is planned as its owner as far as that goes.
CREATE ROLE source_test_owner;
CREATE VIEW public.source_test_constant AS SELECT 'u1'::text AS id, 'org1'::text AS org;
ALTER VIEW public.source_test_constant OWNER TO source_test_owner;
SELECT condition, indexed, advice FROM set_user_source('public.source_test_constant') WHERE condition ~ 'user|belong';
DROP VIEW public.source_test_constant;
DROP ROLE source_test_owner;
-- Advice looks through joins and names the table that is partitioned, not a partition.
CREATE TABLE public.source_test_person (pid uuid PRIMARY KEY, org text);
CREATE TABLE public.source_test_level (pid uuid PRIMARY KEY, vip integer);
CREATE VIEW public.source_test_join AS SELECT p.pid::text AS id, p.org, l.vip FROM public.source_test_person p LEFT JOIN public.source_test_level l ON l.pid = p.pid;
SELECT condition, advice FROM set_user_source('public.source_test_join') WHERE condition ~ 'user|belong';
CREATE TABLE public.source_test_part (id text, org text) PARTITION BY LIST (org);
CREATE TABLE public.source_test_part_1 PARTITION OF public.source_test_part FOR VALUES IN ('a');
CREATE TABLE public.source_test_part_2 PARTITION OF public.source_test_part DEFAULT;
SELECT condition, advice FROM set_user_source('public.source_test_part') WHERE condition ~ 'user|belong';
DROP VIEW public.source_test_join;
DROP TABLE public.source_test_person, public.source_test_level, public.source_test_part;

-- Columns that are missing are null; those of other types are refused, and the source stays.
CREATE TABLE public.source_test (id text, vip integer, note text);
SELECT condition, indexed, advice FROM set_user_source('public.source_test');
INSERT INTO public.source_test VALUES ('s1', 1), ('s2', NULL), (NULL, 4), ('', 4);
UPDATE quota_strategy SET condition = 'not(or(is-vip(1), belong-to("org7"), github-star("zgsm")))' WHERE name = 'source-missing';
SELECT strategy, matched, granted, error FROM pg_temp.reader_scan('source-missing');
UPDATE quota_strategy SET condition = 'true()' WHERE name = 'source-star';
SELECT strategy, matched, granted, error FROM pg_temp.reader_scan('source-star');
SELECT s.name, e.user_id FROM quota_execute e JOIN quota_strategy s ON s.id = e.strategy_id ORDER BY s.name, e.user_id;
-- Whoever is there twice makes the scan of that strategy fail, and nobody is paid twice.
INSERT INTO public.source_test VALUES ('s3', 9), ('s3', 9);
SELECT strategy, matched, granted, error FROM pg_temp.reader_scan('source-star');
DELETE FROM public.source_test WHERE id = 's3';
TRUNCATE quota_execute, quota_run;

-- Ids that are too long for a grant fail alone, and that is said at every scan, until they are gone.
CREATE FUNCTION pg_temp.long_id(bytes integer, seed integer DEFAULT 0) RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(md5((i * 10 + seed)::text), '' ORDER BY i) FROM generate_series(1, bytes / 32) i
$$;
CREATE FUNCTION pg_temp.scan(name text) RETURNS TABLE (strategy text, matched bigint, granted bigint, already bigint, capped bigint, unknown bigint, error text, note text)
LANGUAGE sql AS $$
	SELECT strategy, matched, granted, already_granted, capped, unknown_balance, error, note FROM pg_temp.reader_scan(name)
$$;
INSERT INTO public.source_test VALUES (pg_temp.long_id(1048576), 1), (repeat('x', 1048576), 1), (repeat('技', 400000), 5), (left(pg_temp.long_id(3200), 2600), 1);
SELECT * FROM pg_temp.scan('source-star');
SELECT * FROM pg_temp.scan('source-star');
SELECT * FROM pg_temp.scan('source-star');
INSERT INTO public.source_test VALUES (pg_temp.long_id(1048576, 1), 0), ('s4', 0);
SELECT * FROM pg_temp.scan('source-star');
SELECT * FROM pg_temp.scan('source-star');
SELECT state, matched, granted, already_granted, occurrences, reason FROM quota_run ORDER BY id;
SELECT octet_length(user_id), status FROM quota_execute ORDER BY 1, user_id;
-- Only those who meet the condition count; the cap does not change it, and a firing is done.
UPDATE quota_strategy SET condition = 'is-vip(2)', max_exec_per_user = 3 WHERE name = 'source-star';
SELECT * FROM pg_temp.scan('source-star');
INSERT INTO quota_strategy (name, type, amount, model, periodic_expr, condition, version, schedule_since)
	VALUES ('source-daily', 'periodic', 1, 'm', '0 8 * * *', 'true()', 1, '2025-06-30 23:00:00+00');
SELECT * FROM pg_temp.scan('source-daily');
SELECT * FROM pg_temp.scan('source-daily');
-- Where a balance decides, they are not asked about.
UPDATE quota_strategy SET condition = 'quota-le("m", 5)', max_exec_per_user = NULL WHERE name = 'source-star';
TRUNCATE quota_execute, quota_run;
SELECT octet_length(user_id), gateway FROM pg_temp.reader_undecided('source-star') ORDER BY 1, user_id;
INSERT INTO user_balance (user_id, gateway, balance) VALUES ('s1', 'source-zgsm', 3), ('s2', 'source-zgsm', 8);
SELECT * FROM pg_temp.scan('source-star');
DELETE FROM user_balance WHERE user_id LIKE 's_';
DELETE FROM quota_strategy WHERE name = 'source-daily';
-- The limit is one of bytes, not of what they compress to.
DELETE FROM public.source_test WHERE octet_length(id) > 2600;
INSERT INTO public.source_test VALUES (repeat('x', 3000), 1), (repeat('y', 2601), 1), (repeat('z', 2600), 1);
UPDATE quota_strategy SET condition = 'is-vip(1)' WHERE name = 'source-star';
SELECT * FROM pg_temp.scan('source-star');
SELECT octet_length(user_id) FROM quota_execute WHERE octet_length(user_id) > 100 ORDER BY 1;
DELETE FROM public.source_test WHERE id LIKE 'z%';
-- Nothing else is too long for anything: another error of that kind is the strategy's.
CREATE FUNCTION quota_condition.source_test_limit(s subject) RETURNS boolean LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
BEGIN
	RAISE EXCEPTION 'so many' USING ERRCODE = 'program_limit_exceeded';
END
$$;
UPDATE quota_strategy SET condition = 'source-test-limit()' WHERE name = 'source-star';
SELECT * FROM pg_temp.scan('source-star');
UPDATE quota_strategy SET condition = 'true()' WHERE name = 'source-star';
DROP FUNCTION quota_condition.source_test_limit;
DELETE FROM public.source_test WHERE octet_length(id) > 2600;
TRUNCATE quota_execute, quota_run;
SELECT * FROM pg_temp.scan('source-star');
TRUNCATE quota_execute, quota_run;

CREATE DOMAIN public.source_test_text AS text;
CREATE TYPE public.source_test_type AS (id text);
CREATE SEQUENCE public.source_test_sequence;
CREATE TEMPORARY TABLE source_test_temp (id text);
CREATE TABLE public.source_test_no_id (uid text);
CREATE TABLE public.source_test_int_id (id integer);
CREATE TABLE public.source_test_uuid_id (id uuid);
CREATE TABLE public.source_test_varchar_id (id varchar(20));
CREATE TABLE public.source_test_domain (id text, org public.source_test_text);
CREATE TABLE public.source_test_vip (id text, vip bigint);
CREATE TABLE public.source_test_time (id text, register_time timestamp);
CREATE TABLE public.source_test_index (id text PRIMARY KEY);
SELECT * FROM set_user_source('public.source_test_no_id');
SELECT * FROM set_user_source('public.source_test_int_id');
SELECT * FROM set_user_source('public.source_test_uuid_id');
SELECT * FROM set_user_source('public.source_test_varchar_id');
SELECT * FROM set_user_source('public.source_test_domain');
SELECT * FROM set_user_source('public.source_test_vip');
SELECT * FROM set_user_source('public.source_test_time');
SELECT * FROM set_user_source('public.source_test_type');
SELECT * FROM set_user_source('public.source_test_sequence');
SELECT * FROM set_user_source('public.source_test_index_pkey');
SELECT * FROM set_user_source('source_test_temp');
SELECT * FROM set_user_source('public.nosuch');
SELECT * FROM set_user_source(0);
SELECT user_source FROM quota_installation;

-- All that is wrong is said at once.
CREATE TABLE public.source_test_all (id uuid, vip bigint, org varchar, register_time timestamptz, access_time date);
SELECT * FROM set_user_source('public.source_test_all');
DROP TABLE public.source_test_all;

-- What the source looks up for each user is not what the condition is searched by.
CREATE TABLE public.source_test_lookup (uid text PRIMARY KEY, org text);
CREATE VIEW public.source_test_subquery AS
SELECT t.id, (SELECT l.org FROM public.source_test_lookup l WHERE l.uid = t.id) AS org FROM public.source_test t;
SELECT condition, indexed, advice FROM set_user_source('public.source_test_subquery') WHERE condition ~ 'user|belong';
DROP VIEW public.source_test_subquery;

-- Who may scan and cannot read it, is named with what is missing; a scan of theirs says so, too.
CREATE ROLE source_test_operator;
SELECT grant_access('source_test_operator', 'operator');
CREATE SCHEMA source_test_crm;
CREATE TABLE source_test_crm.customer (id text, org text);
INSERT INTO source_test_crm.customer VALUES ('c1', 'org7');
CREATE VIEW source_test_crm.subject WITH (security_invoker) AS SELECT * FROM source_test_crm.customer;
SELECT count(*) FROM set_user_source('source_test_crm.subject');
SET ROLE source_test_operator;
SELECT error FROM scan('source-star');
SELECT * FROM undecided((SELECT id FROM quota_strategy WHERE name = 'source-star'));
RESET ROLE;
GRANT USAGE ON SCHEMA source_test_crm TO source_test_operator;
GRANT SELECT (id, org) ON source_test_crm.subject TO source_test_operator;
SELECT count(*) FROM set_user_source('source_test_crm.subject');
GRANT SELECT ON source_test_crm.customer TO source_test_operator;
SELECT count(*) FROM set_user_source('source_test_crm.subject');
SET ROLE source_test_operator;
UPDATE quota_strategy SET condition = 'true()' WHERE name = 'source-star';
SELECT granted, error FROM scan('source-star');
RESET ROLE;
DROP OWNED BY source_test_operator;
SELECT count(*) FROM set_user_source('public.source_test');
DROP SCHEMA source_test_crm CASCADE;
DROP ROLE source_test_operator;
TRUNCATE quota_execute, quota_run;

-- A source that was dropped is reported for each strategy, not raised; one of its columns likewise.
ALTER TABLE public.source_test DROP COLUMN id;
SELECT strategy, granted, error FROM pg_temp.reader_scan();
DROP TABLE public.source_test;
SELECT strategy, granted, error FROM pg_temp.reader_scan();
SELECT strategy, granted, error FROM pg_temp.reader_scan('source-star');
SELECT state, reason, occurrences FROM quota_run ORDER BY id;
SELECT quota_internal.user_relation(NULL);

-- Back to user_info.
SELECT condition, indexed FROM set_user_source();
SELECT user_source FROM quota_installation;
SELECT strategy, matched, granted, error FROM pg_temp.reader_scan('source-org');
SELECT create_access_time_index();
SELECT create_access_time_index();
SELECT condition, indexed, advice FROM set_user_source(NULL) WHERE condition LIKE 'access-after%';
DROP INDEX user_info_access_time;

DROP SCHEMA "Source ""Test" CASCADE;
DROP TABLE public.source_test_no_id, public.source_test_int_id, public.source_test_uuid_id, public.source_test_varchar_id, public.source_test_domain,
	public.source_test_vip, public.source_test_time, public.source_test_index;
DROP DOMAIN public.source_test_text;
DROP TYPE public.source_test_type;
DROP SEQUENCE public.source_test_sequence;
TRUNCATE quota_execute, quota_run, user_balance;
DELETE FROM quota_strategy;
DELETE FROM user_info;
DELETE FROM quota_gateway;
DELETE FROM quota_installation;
DROP OWNED BY source_test_reader;
DROP ROLE source_test_reader;
