-- The type cron and the firings of schedules.
SET search_path = quota_manager, public;
SET timezone = 'UTC';
SET datestyle = 'ISO, YMD';

-- What is written comes back in its canonical form, and that form is stable.
CREATE TEMP TABLE forms (n integer GENERATED ALWAYS AS IDENTITY, written text);
INSERT INTO forms (written) VALUES
	('0 8 * * *'),
	(E'  0\t08  *\r\n*  * '),
	('*/15 9-17 1,15 jan-Mar mon-FRI'),
	('30 0 8 ? * 1-5'),
	('0 0 ? * 007'),
	('5/10 0-23/2,23 */2 feb,APR/3 Sun'),
	('0 0 * * FRI-SUN'),
	('0 0 * * 5-7'),
	('0 0 29 2 *'),
	('0 0 31 4,5 *'),
	('@hourly'), ('@daily'), ('@midnight'), ('@weekly'), ('@monthly'), ('@Yearly'), ('@ANNUALLY'),
	('CRON_TZ=Europe/Berlin   0 8 * * *'),
	('CRON_TZ=Etc/GMT+5 @daily'),
	('CRON_TZ=No/Such_Zone 0 8 * * *');
SELECT written::cron AS canonical, written::cron::text::cron = written::cron AS stable FROM forms ORDER BY n;

-- Errors say what is wrong, where, and what is allowed.
CREATE FUNCTION pg_temp.complaint(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	state text;
	message text;
	detail text;
	hint text;
BEGIN
	EXECUTE statement;
	RETURN 'accepted: ' || statement;
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	RETURN concat_ws(E'\n    ', state || ' ' || message, nullif(detail, ''), nullif(hint, ''));
END
$$;
CREATE TEMP TABLE wrong (n integer GENERATED ALWAYS AS IDENTITY, written text);
INSERT INTO wrong (written) VALUES
	(''), ('   '), ('CRON_TZ=UTC'), ('* * *'), ('0 0 0 1 1 * 2025'), ('0 0 0 1 1 * 2025 x y'),
	('61 * * * *'), ('0 24 * * *'), ('0 0 0 * *'), ('0 0 32 * *'), ('0 0 * 0 *'), ('0 0 * 13 *'), ('0 0 * * 8'), ('60 0 0 * * *'),
	('99999999999999999999 * * * *'), ('-1 * * * *'), ('+1 * * * *'), ('1.5 * * * *'), ('0x1 * * * *'),
	('x * * * *'), ('0 0 * foo *'), ('0 0 * * monday'), ('MON * * * *'), ('0 0 L * *'), ('0 0 15W * *'), ('0 0 * * 5#3'),
	('** * * * *'), ('*5 * * * *'), ('*-5 * * * *'), ('1-2-3 * * * *'), ('1/2/3 * * * *'), ('1, * * * *'), (',1 * * * *'), ('1,,2 * * * *'), ('1- * * * *'), ('-  * * * *'),
	('*/0 * * * *'), ('*/60 * * * *'), ('0 */24 * * *'), ('*/ * * * *'), ('*/x * * * *'), ('*/-5 * * * *'),
	('0 22-6 * * *'), ('0 0 * nov-2 *'), ('0 0 * * FRI-MON'), ('0 0 * * MON-0'), ('0 0 * * 7-2'),
	('? * * * *'), ('0 0 * ? *'), ('0 0 ?,1 * *'), ('0 0 ?/2 * *'),
	('0 0 30 2 *'), ('0 0 31 4 *'), ('0 0 31 4,6,9,11 *'), ('0 0 30,31 2 MON'), ('CRON_TZ=UTC 0 0 0 31 feb ?'),
	('@every 5m'), ('@reboot'), ('@fortnightly'), ('@'), ('@daily 0'), ('CRON_TZ=UTC @daily @daily'),
	('TZ=UTC 0 8 * * *'), ('cron_tz=UTC 0 8 * * *'), ('CRON_TZ= 0 8 * * *'), ('CRON_TZ=Europe\Berlin 0 8 * * *'), ('CRON_TZ=+5 0 8 * * *'),
	('0 8 * * * — täglich'), ('0 é * * *'),
	('0 0 * * ' || repeat('1,', 508) || '1'), ('0 0 * * ' || repeat('1,', 2000));
\pset format unaligned
\pset tuples_only on
SELECT pg_temp.complaint(format('SELECT %L::quota_manager.cron', written)) FROM wrong ORDER BY n;
-- The longest that is accepted.
SELECT length(('0 0 * * ' || repeat('1,', 507) || '1 ')::cron::text);

-- A zone is looked for when a schedule is used.
SELECT pg_temp.complaint($$SELECT quota_manager.next_firing('0 8 * * *', '2025-01-01', 'Europe/Atlantis')$$);
SELECT pg_temp.complaint($$SELECT quota_manager.next_firing('CRON_TZ=No/Such_Zone 0 8 * * *', '2025-01-01', 'UTC')$$);
SELECT pg_temp.complaint($$SELECT quota_manager.firings('0 8 * * *', '2025-01-01', '2025-01-02', 'FOO5BAR')$$);
SELECT pg_temp.complaint($$SELECT quota_manager.firings('0 8 * * *', '2025-01-01', 'infinity', 'UTC')$$);
\pset format aligned
\pset tuples_only off
SELECT zone, check_time_zone(zone)
FROM unnest(ARRAY['UTC', 'utc', 'Europe/Berlin', 'europe/BERLIN', 'Etc/GMT+5', 'GMT', 'EST5EDT',
	'', 'Europe', 'Europe/Atlantis', 'Europe/Berlin ', 'Etc/GMT+99', 'UTC+3', 'FOO5BAR', '<+03>-3', ':UTC', '+03', '../UTC']) AS zone;
SELECT count(*) > 300 AS many, bool_and(check_time_zone(name)) AS "all" FROM pg_timezone_names;

-- Comparison, sorting, hashing, indexes; a literal is read as a schedule.
CREATE TEMP TABLE plan (id integer, schedule cron UNIQUE);
INSERT INTO plan VALUES (1, '0 8 * * *'), (2, '@daily'), (3, '*/5 * * * *'), (4, NULL);
INSERT INTO plan VALUES (5, ' 0  08 * * * ');
INSERT INTO plan SELECT 5, text '0 9 * * *';
INSERT INTO plan SELECT 6, varchar '0 10 * * *';
SELECT id FROM plan WHERE schedule = '00 8 * * *'::cron;
SELECT id FROM plan WHERE schedule = text '0 8 * * *' OR schedule IN ('0  9 * * *', '@DAILY') ORDER BY id;
SELECT id, schedule, schedule || ' !' AS text, length(schedule) FROM plan ORDER BY schedule;
SELECT schedule, count(*) FROM (SELECT schedule FROM plan UNION ALL SELECT schedule FROM plan) AS twice GROUP BY schedule ORDER BY schedule LIMIT 2;
SELECT '@daily'::cron < '@weekly'::cron AS lt, '@daily'::cron <= '@daily'::cron AS le, '@daily'::cron > '@weekly'::cron AS gt,
	'@daily'::cron >= '@daily'::cron AS ge, '@daily'::cron <> '@midnight'::cron AS ne;
SET enable_seqscan = off;
EXPLAIN (COSTS OFF) SELECT id FROM plan WHERE schedule = '0 8 * * *';
RESET enable_seqscan;
CREATE INDEX ON plan USING hash (schedule);
SELECT a.id FROM plan AS a JOIN plan AS b USING (schedule) ORDER BY a.id;

-- Binary input is checked as text input is.
\getenv abs_builddir PG_ABS_BUILDDIR
\set filename :abs_builddir '/results/cron.data'
COPY plan TO :'filename' (FORMAT binary);
CREATE TEMP TABLE copied (LIKE plan);
COPY copied FROM :'filename' (FORMAT binary);
SELECT count(*), count(schedule) FROM (TABLE plan INTERSECT TABLE copied) AS same;
COPY (SELECT 1, text ' 0  08 * * * ') TO :'filename' (FORMAT binary);
COPY copied FROM :'filename' (FORMAT binary);
SELECT schedule FROM copied WHERE id = 1;
COPY (SELECT 1, text '0 8 * *') TO :'filename' (FORMAT binary);
COPY copied FROM :'filename' (FORMAT binary);

-- Firings, told in local time with the offset.  After is exclusive, until inclusive.
CREATE FUNCTION pg_temp.told(schedule cron, zone text, after_time timestamptz, until_time timestamptz)
RETURNS TABLE (utc timestamp, local text) LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_catalog.set_config('timezone', zone, true);
	RETURN QUERY SELECT f AT TIME ZONE 'UTC', pg_catalog.to_char(f, 'Dy YYYY-MM-DD HH24:MI:SS TZH:TZM')
		FROM quota_manager.firings(schedule, after_time, until_time, zone) AS f;
	PERFORM pg_catalog.set_config('timezone', 'UTC', true);
END
$$;
SELECT * FROM pg_temp.told('0 8 * * *', 'Asia/Shanghai', '2025-01-01 00:00Z', '2025-01-03 00:00Z');
SELECT * FROM pg_temp.told('*/20 8-9 * * *', 'UTC', '2025-01-01 08:20Z', '2025-01-01 09:20Z');
SELECT * FROM pg_temp.told('*/20 8-9 * * *', 'UTC', '2025-01-01 08:19:59.999999Z', '2025-01-01 08:59:59.999999Z');
SELECT * FROM pg_temp.told('*/20 59 23 31 12 *', 'UTC', '2025-06-01 00:00Z', '2026-06-01 00:00Z');
SELECT * FROM pg_temp.told('0 0 * * *', 'Asia/Kathmandu', '1969-12-31 00:00Z', '1970-01-02 00:00Z');
SELECT count(*) FROM firings('0 0 * * *', '2025-01-03 00:00Z', '2025-01-01 00:00Z', 'UTC');

-- Both day fields restricted: either.  One that begins with * restricts only what the other leaves.
SELECT * FROM pg_temp.told('0 12 13 * FRI', 'UTC', '2025-06-01 00:00Z', '2025-06-21 00:00Z');
SELECT * FROM pg_temp.told('0 12 */10 * FRI', 'UTC', '2025-08-01 00:00Z', '2026-01-01 00:00Z');
SELECT * FROM pg_temp.told('0 12 13 * ?', 'UTC', '2025-06-01 00:00Z', '2025-08-01 00:00Z');
SELECT * FROM pg_temp.told('0 12 ? * 5-7', 'UTC', '2025-06-01 13:00Z', '2025-06-08 13:00Z');
SELECT * FROM pg_temp.told('0 12 * * SAT-SUN', 'UTC', '2025-06-01 13:00Z', '2025-06-08 13:00Z');
SELECT * FROM pg_temp.told('0 12 * * 5/1', 'UTC', '2025-06-01 13:00Z', '2025-06-08 13:00Z');
SELECT * FROM pg_temp.told('0 12 * * 7/3', 'UTC', '2025-06-01 00:00Z', '2025-06-08 00:00Z');

-- Descriptors are what they stand for.
SELECT d, next_firing(d::cron, '2025-02-12 10:30Z', 'UTC'), next_firing(d::cron, '2025-02-12 10:30Z', 'UTC') = next_firing(f::cron, '2025-02-12 10:30Z', 'UTC') AS same
FROM (VALUES ('@hourly', '0 * * * *'), ('@daily', '0 0 * * *'), ('@midnight', '0 0 * * *'), ('@weekly', '0 0 * * 0'),
	('@monthly', '0 0 1 * *'), ('@yearly', '0 0 1 1 *'), ('@annually', '0 0 1 1 *')) AS v(d, f);

-- CRON_TZ= comes before the zone given, which is then not looked at.
SELECT next_firing('CRON_TZ=Asia/Tokyo 0 8 * * *', '2025-01-01 00:00Z', 'Europe/Berlin'),
	next_firing('CRON_TZ=asia/tokyo 0 8 * * *', '2025-01-01 00:00Z', 'Europe/Atlantis');

-- Clock changes.  Europe/Berlin: 02:00 to 03:00 in March, 03:00 to 02:00 in October.
SELECT * FROM pg_temp.told('30 2 * * *', 'Europe/Berlin', '2025-03-29 00:00Z', '2025-03-31 12:00Z');
SELECT * FROM pg_temp.told('30 2 * * *', 'Europe/Berlin', '2025-10-25 00:00Z', '2025-10-27 12:00Z');
SELECT * FROM pg_temp.told('30 * * * *', 'Europe/Berlin', '2025-03-29 23:59Z', '2025-03-30 03:00Z');
SELECT * FROM pg_temp.told('30 * * * *', 'Europe/Berlin', '2025-10-25 23:59Z', '2025-10-26 03:00Z');
SELECT * FROM pg_temp.told('30 */1 * * *', 'Europe/Berlin', '2025-03-29 23:59Z', '2025-03-30 03:00Z');
SELECT * FROM pg_temp.told('30 */1 * * *', 'Europe/Berlin', '2025-10-25 23:59Z', '2025-10-26 03:00Z');
-- Nominal times that fall on one instant are one firing.
SELECT * FROM pg_temp.told('0,15,30 2,3 * * *', 'Europe/Berlin', '2025-03-30 00:00Z', '2025-03-30 03:00Z');
SELECT count(*) FROM firings('* * 2 * * *', '2025-03-30 00:00Z', '2025-03-30 12:00Z', 'Europe/Berlin');
SELECT count(*) FROM firings('* * * * *', '2025-10-25 22:00Z', '2025-10-26 23:00Z', 'Europe/Berlin');
SELECT count(*) FROM firings('* 0-23 * * *', '2025-10-25 22:00Z', '2025-10-26 23:00Z', 'Europe/Berlin');
-- In the second pass of a fold nothing fires again, wherever the search begins.
SELECT next_firing('30 2 * * *', '2025-10-26 00:45Z', 'Europe/Berlin'), next_firing('30 2 * * *', '2025-10-26 01:15Z', 'Europe/Berlin');
-- America/New_York: 02:00 to 03:00 in March, 02:00 to 01:00 in November.
SELECT * FROM pg_temp.told('30 1,2 * * *', 'America/New_York', '2025-03-08 12:00Z', '2025-03-10 12:00Z');
SELECT * FROM pg_temp.told('30 1,2 * * *', 'America/New_York', '2025-11-01 12:00Z', '2025-11-03 12:00Z');
-- Half an hour in Australia/Lord_Howe.
SELECT * FROM pg_temp.told('15 2 * * *', 'Australia/Lord_Howe', '2025-10-03 16:00Z', '2025-10-06 00:00Z');
SELECT * FROM pg_temp.told('45 1 * * *', 'Australia/Lord_Howe', '2025-04-04 16:00Z', '2025-04-07 00:00Z');
SELECT * FROM pg_temp.told('45 * * * *', 'Australia/Lord_Howe', '2025-04-05 14:00Z', '2025-04-05 17:00Z');
-- A gap and a fold at midnight.
SELECT * FROM pg_temp.told('0 0 * * *', 'America/Sao_Paulo', '2018-11-03 00:00Z', '2018-11-05 12:00Z');
SELECT * FROM pg_temp.told('30 23 * * *', 'America/Sao_Paulo', '2019-02-16 00:00Z', '2019-02-18 12:00Z');
-- A gap that ends on the next date.
SELECT * FROM pg_temp.told('45 23 * * *', 'Asia/Pyongyang', '2018-05-03 00:00Z', '2018-05-06 00:00Z');
SELECT * FROM pg_temp.told('45 23 4 5 *', 'Asia/Pyongyang', '2018-05-03 00:00Z', '2018-05-06 00:00Z');
SELECT * FROM pg_temp.told('45 * * * *', 'Asia/Pyongyang', '2018-05-04 13:30Z', '2018-05-04 16:00Z');
-- A date that does not exist.
SELECT * FROM pg_temp.told('0 8 * * *', 'Pacific/Apia', '2011-12-28 00:00Z', '2012-01-01 12:00Z');
SELECT * FROM pg_temp.told('0 8 30 12 *', 'Pacific/Apia', '2010-01-01 00:00Z', '2013-01-01 00:00Z');
SELECT * FROM pg_temp.told('0 */12 * * *', 'Pacific/Apia', '2011-12-29 12:00Z', '2011-12-31 12:00Z');
SELECT * FROM pg_temp.told('0 * * * *', 'Pacific/Apia', '2011-12-30 08:00Z', '2011-12-30 12:00Z');

-- Far away, and answered without walking there.
SELECT next_firing('0 0 29 2 *', '2025-01-01', 'UTC'), next_firing('0 0 29 2 *', '1896-03-01', 'UTC'), next_firing('0 0 29 2 *', '2096-03-01', 'UTC');
SELECT next_firing('0 0 29 2 */7', '2068-01-01', 'UTC') AS sunday, next_firing('0 0 */28 2 1', '2024-03-01', 'UTC') AS monday,
	next_firing('* * 29 2 */7', '2088-03-01', 'Europe/Berlin') AS every_minute;
SELECT next_firing('@yearly', 'infinity', 'UTC') AS after_the_end, next_firing('@yearly', '294276-12-31 00:00Z', 'UTC') AS at_the_end,
	next_firing('@yearly', '-infinity', 'UTC') AS from_the_beginning, next_firing('@yearly', NULL, 'UTC') AS unknown;
-- The rules of a zone go on for ever: what is read from the tz data for centuries to come is repeated after its last change.
SELECT array_agg(y) AS wrong FROM generate_series(2030, 2830) AS y
WHERE next_firing('0 * 1 7 *', make_timestamptz(y, 7, 3, 0, 0, 0), 'Europe/Berlin') <> make_timestamptz(y + 1, 7, 1, 0, 0, 0, 'Europe/Berlin');
SELECT count(*), max(f) FROM (SELECT firings('* * * * *', '2025-01-01', '200000-01-01', 'Europe/Berlin') AS f LIMIT 1000) AS lazily;

-- The schedule clock.
SET quota_manager.schedule_clock = '2025-03-30 08:00:00+02';
SELECT schedule_now();
SET timezone = 'America/New_York';
SET datestyle = 'SQL, DMY';
SET quota_manager.schedule_clock = '2025-03-04 08:00:00.25Z';
SELECT schedule_now();
SET timezone = 'UTC';
SET datestyle = 'ISO, YMD';
SET quota_manager.schedule_clock = '2024-02-29 23:59:59.123456-09:30';
SELECT schedule_now();
BEGIN;
SET LOCAL quota_manager.schedule_clock = '2000-01-01 00:00:00+00';
SELECT schedule_now();
ROLLBACK;
SELECT schedule_now();
SET quota_manager.schedule_clock = '';
SELECT schedule_now() BETWEEN now() AND clock_timestamp() AS real_time;
\pset format unaligned
\pset tuples_only on
SELECT pg_temp.complaint($$SET quota_manager.schedule_clock = '2025-03-30 08:00:00'$$);
SELECT split_part(pg_temp.complaint(format('SET quota_manager.schedule_clock = %L', clock)), E'\n', 1)
FROM unnest(ARRAY['now', 'infinity', '2025-03-30', '2025-03-30T08:00:00', '2025-02-29 08:00:00Z', '2025-13-01 08:00:00Z',
	'2025-03-30 24:00:00Z', '2025-03-30 08:60:00Z', '2025-03-30 08:00:60Z', '2025-03-30 08:00:00.Z', '2025-03-30 08:00:00.1234567Z',
	'2025-03-30 08:00:00+24', '2025-03-30 08:00:00+2', '2025-03-30 08:00:00+0200', '2025-03-30 08:00:00+02:60', '2025-03-30 08:00:00 CET',
	'2025-03-30 08:00:00Z ', '0000-01-01 00:00:00Z', '12025-03-30 08:00:00Z', '2025-3-30 8:00:00Z']) AS clock;
\pset format aligned
\pset tuples_only off
-- Only a superuser pins it.
CREATE ROLE regress_cron_user;
SET ROLE regress_cron_user;
SET quota_manager.schedule_clock = '2025-03-30 08:00:00+02';
RESET ROLE;
DROP ROLE regress_cron_user;
