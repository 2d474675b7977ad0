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
	('*/0 * * * *'), ('*/100000 * * * *'), ('0 */99999999999 * * *'), ('*/ * * * *'), ('*/x * * * *'), ('*/-5 * * * *'),
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
-- A step beyond the values means the first of them.
SELECT w::cron, describe(w::cron) FROM (VALUES ('0 16-23/24 * * *'), ('*/60 * * * *'), ('0 0 5/99 * *'), ('0 0 1 */99999 *'), ('0 9 * * MON-FRI/7')) x (w);
-- The longest that is accepted.
SELECT length(('0 0 * * ' || repeat('1,', 507) || '1 ')::cron::text);

-- A zone is looked for when a schedule is used.
SELECT pg_temp.complaint($$SELECT quota_manager.next_firing('0 8 * * *', '2025-01-01', 'Europe/Atlantis')$$);
SELECT pg_temp.complaint($$SELECT quota_manager.next_firing('CRON_TZ=No/Such_Zone 0 8 * * *', '2025-01-01', 'UTC')$$);
SELECT pg_temp.complaint($$SELECT quota_manager.firings('0 8 * * *', '2025-01-01', '2025-01-02', 'FOO5BAR')$$);
SELECT pg_temp.complaint($$SELECT quota_manager.firings('0 8 * * *', '2025-01-01', 'infinity', 'UTC')$$);
\pset format aligned
\pset tuples_only off
SELECT zone, quota_internal.check_time_zone(zone)
FROM unnest(ARRAY['UTC', 'utc', 'Europe/Berlin', 'europe/BERLIN', 'Etc/GMT+5', 'GMT', 'EST5EDT',
	'', 'Europe', 'Europe/Atlantis', 'Europe/Berlin ', 'Etc/GMT+99', 'UTC+3', 'FOO5BAR', '<+03>-3', ':UTC', '+03', '../UTC']) AS zone;
SELECT count(*) > 300 AS many, bool_and(quota_internal.check_time_zone(name)) AS "all" FROM pg_timezone_names;

-- What a zone's clock shows; CET is no abbreviation here.
SELECT zone, quota_internal.local_time('2025-07-01 12:00:00.5+00', zone) FROM unnest(ARRAY['UTC', 'CET', 'europe/berlin', 'Asia/Kathmandu']) AS zone;
SELECT quota_internal.local_time('infinity', 'UTC'), quota_internal.local_time('-infinity', 'UTC'), quota_internal.local_time(NULL, 'UTC');
SELECT quota_internal.local_time('2025-07-01 12:00:00+00', 'Nowhere');
SELECT quota_internal.local_time('294276-12-31 23:59:59Z', 'Asia/Shanghai');

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

-- Binary input is checked as text input is.  The files are the client's: the server may be another user's.
\copy plan TO PROGRAM 'cat >"$PG_ABS_BUILDDIR/results/cron.data"' (FORMAT binary)
CREATE TEMP TABLE copied (LIKE plan);
\copy copied FROM PROGRAM 'cat "$PG_ABS_BUILDDIR/results/cron.data"' (FORMAT binary)
SELECT count(*), count(schedule) FROM (TABLE plan INTERSECT TABLE copied) AS same;
\copy (SELECT 1, text ' 0  08 * * * ') TO PROGRAM 'cat >"$PG_ABS_BUILDDIR/results/cron.data"' (FORMAT binary)
\copy copied FROM PROGRAM 'cat "$PG_ABS_BUILDDIR/results/cron.data"' (FORMAT binary)
SELECT schedule FROM copied WHERE id = 1;
\copy (SELECT 1, text '0 8 * *') TO PROGRAM 'cat >"$PG_ABS_BUILDDIR/results/cron.data"' (FORMAT binary)
\copy copied FROM PROGRAM 'cat "$PG_ABS_BUILDDIR/results/cron.data"' (FORMAT binary)

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

-- From one end of time to the other, a date and a day of week together, a date that comes every four years, with an hour of exactly * in
-- a zone that changes its clock twice a year: all are found, and none in more than a few milliseconds.
SELECT count(*) AS asked, count(f.next) AS found, bool_and(f.next > a) AS after,
	bool_and((f.next AT TIME ZONE z)::date - (a AT TIME ZONE z)::date <= 40 * 366) AS within_forty_years
FROM unnest(ARRAY['0 0 29 2 */7', '* * 29 2 */7', '* * * 29 2 */7', '0 0 */28 2 */6', '59 59 23 31 12 *', '* * 30 12 */5']) AS s,
	unnest(ARRAY['UTC', 'Europe/Berlin', 'Africa/Casablanca', 'Pacific/Apia', 'America/New_York']) AS z,
	unnest(ARRAY['4713-01-01 BC', '0001-12-31 BC', '1896-03-01', '1983-12-31', '2068-03-01', '2096-03-01', '9999-12-31', '200000-01-01']::timestamptz[]) AS a,
	next_firing(s::cron, a, z) AS f(next);
SELECT a, next_firing('0 0 29 2 */7', a, 'Europe/Berlin') AS sunday, next_firing('* * 29 2 */7', a, 'Europe/London') AS every_hour, next_firing('0 8 29 2 MON', a, 'America/New_York') AS either
FROM unnest(ARRAY['0001-12-31 BC', '1896-03-01', '2068-03-01', '9999-12-31']::timestamptz[]) AS a;

-- First, last and number of firings: as listed, and by multiplication.
SELECT * FROM firing_range('30 * * * *', '2025-03-29 23:30Z', '2025-03-30 03:30Z', 'Europe/Berlin');
SELECT * FROM firing_range('0,15,30 2,3 * * *', '2025-03-30 00:00Z', '2025-03-30 03:00Z', 'Europe/Berlin');
SELECT * FROM firing_range('45 23 * * *', '2018-05-03 00:00Z', '2018-05-06 00:00Z', 'Asia/Pyongyang');
SELECT * FROM firing_range('0 8 * * *', '2011-12-28 00:00Z', '2012-01-01 12:00Z', 'Pacific/Apia');
SELECT * FROM firing_range('CRON_TZ=Asia/Tokyo 0 8 * * *', '2025-01-01 00:00Z', '2025-01-02 00:00Z', 'Europe/Atlantis');
SELECT * FROM firing_range('0 8 * * *', '2025-01-01 08:00Z', '2025-01-01 08:00Z', 'UTC');
SELECT * FROM firing_range('0 8 * * *', '2025-01-03 00:00Z', '2025-01-01 00:00Z', 'UTC');
SELECT * FROM firing_range('0 8 * * *', '2025-01-01 07:59:59.5Z', '2025-01-02 07:59:59.5Z', 'UTC');
SELECT * FROM firing_range('0 8 * * *', NULL, '2025-01-02', 'UTC');
SELECT firings = extract(epoch FROM timestamptz '2030-01-01' - timestamptz '2020-01-01') AS every_second FROM firing_range('* * * * * *', '2020-01-01', '2030-01-01', 'Europe/Berlin');
SELECT * FROM firing_range('* * * * * *', '4713-01-01 BC', '294276-12-31 23:59:59.999999', 'UTC');
SELECT * FROM firing_range('0 8 * * *', '2000-01-01', '294000-01-01', 'Europe/Berlin');
\pset format unaligned
\pset tuples_only on
SELECT pg_temp.complaint($$SELECT quota_manager.firing_range('0 8 * * *', '-infinity', '2025-01-01', 'UTC')$$);
SELECT pg_temp.complaint($$SELECT quota_manager.firing_range('0 8 * * *', '2025-01-01', '2025-01-02', 'Europe/Atlantis')$$);
\pset format aligned
\pset tuples_only off

-- What a change of the clock does to a firing.
CREATE FUNCTION pg_temp.noted(schedule cron, zone text, after_time timestamptz)
RETURNS TABLE (utc timestamp, local timestamp, note text) LANGUAGE sql AS $$
	SELECT f AT TIME ZONE 'UTC', f AT TIME ZONE zone, quota_internal.firing_note(schedule, f, zone)
	FROM quota_manager.firings(schedule, after_time, after_time + interval '30 hours', zone) AS f
	WHERE quota_internal.firing_note(schedule, f, zone) IS NOT NULL
$$;
\pset format unaligned
\pset tuples_only on
-- Left out: the time itself, with others, with one that is shown, and for an hour field of exactly *.
SELECT * FROM pg_temp.noted('30 2 * * *', 'Europe/Berlin', '2025-03-29 22:30Z');
SELECT * FROM pg_temp.noted('15,45 2 * * *', 'Europe/Berlin', '2025-03-29 22:30Z');
SELECT * FROM pg_temp.noted('0,15,30 2,3 * * *', 'Europe/Berlin', '2025-03-29 22:30Z');
SELECT * FROM pg_temp.noted('0 2,3 * * *', 'Europe/Berlin', '2025-03-29 22:30Z');
SELECT * FROM pg_temp.noted('30 * * * *', 'Europe/Berlin', '2025-03-29 22:30Z');
SELECT * FROM pg_temp.noted('15,30 * * * *', 'Europe/Berlin', '2025-03-29 22:30Z');
SELECT * FROM pg_temp.noted('30 15 2 * * *', 'Australia/Lord_Howe', '2025-10-04 00:00Z');
-- Shown twice.
SELECT * FROM pg_temp.noted('30 2 * * *', 'Europe/Berlin', '2025-10-25 22:30Z');
SELECT * FROM pg_temp.noted('30 * * * *', 'Europe/Berlin', '2025-10-25 22:30Z');
SELECT * FROM pg_temp.noted('0 * * * *', 'Europe/Berlin', '2025-10-25 22:30Z');
SELECT * FROM pg_temp.noted('0 1,3 * * *', 'Europe/Berlin', '2025-10-25 22:30Z');
SELECT quota_internal.firing_note('CRON_TZ=America/Sao_Paulo 30 23 * * *', '2018-02-18 01:30Z', 'Europe/Atlantis');
-- A gap that ends on the next date, and a date left out, for which whoever fires next is told.
SELECT * FROM pg_temp.noted('45 23 * * *', 'Asia/Pyongyang', '2018-05-04 00:00Z');
SELECT * FROM pg_temp.noted('45 * * * *', 'Asia/Pyongyang', '2018-05-04 00:00Z');
SELECT * FROM pg_temp.noted('0 8 * * *', 'Pacific/Apia', '2011-12-30 00:00Z');
SELECT * FROM pg_temp.noted('0 */12 * * *', 'Pacific/Apia', '2011-12-30 00:00Z');
SELECT * FROM pg_temp.noted('0 8 30 12 *', 'Pacific/Apia', '2012-12-29 00:00Z');
SELECT * FROM pg_temp.noted('0 8 29,31 12 *', 'Pacific/Apia', '2011-12-30 00:00Z');
-- Nothing to be said: other days, and what is no firing.
SELECT count(*), count(quota_internal.firing_note(s::cron, f, 'Europe/Berlin')) FROM unnest(ARRAY['30 2 * * *', '30 * * * *', '@daily']) AS s, firings(s::cron, '2025-03-31 00:00Z', '2025-10-25 00:00Z', 'Europe/Berlin') AS f;
SELECT count(*), count(quota_internal.firing_note('*/15 * * * *', f, 'UTC')) FROM firings('*/15 * * * *', '2025-03-29 00:00Z', '2025-04-01 00:00Z', 'UTC') AS f;
SELECT quota_internal.firing_note('30 2 * * *', '2025-03-30 01:00:01Z', 'Europe/Berlin') IS NULL, quota_internal.firing_note('30 2 * * *', '2025-03-30 01:00:00.5Z', 'Europe/Berlin') IS NULL,
	quota_internal.firing_note('30 2 * * *', 'infinity', 'Europe/Berlin') IS NULL, quota_internal.firing_note('30 2 * * *', '2025-10-26 01:30Z', 'Europe/Berlin') IS NULL;
SELECT quota_internal.schedule_zone('0 8 * * *', 'Europe/Berlin'), quota_internal.schedule_zone('CRON_TZ=Asia/Tokyo 0 8 * * *', 'Europe/Berlin');

-- A schedule in plain English.
SELECT s || ' is ' || describe(s::cron) FROM unnest(ARRAY[
	-- times of the day, and times at equal distances
	'0 8 * * *', '30 0 8 * * *', '0 8,20 * * *', '0 */6 * * *', '0 */2 * * *', '0 */5 * * *', '0 9-17 * * *', '*/15 9 * * *', '*/7 9 * * *', '*/15 9-17 * * MON-FRI', '5/10 9-17 * * *',
	'30 */15 9-17 * * *', '*/10 30 9 * * *', '0-5 9 * * *', '* 9 * * *',
	-- in several stretches, or none
	'0 22-23,0-6 * * *', '30 9-17,20 * * *', '*/15 9-11,14-16 * * *', '0 0,5,9,17,20,21 * * *', '*/15 */2 * * *', '5/15 */2 * * *',
	-- every hour, whatever it is, is not every hour of the day
	'* * * * *', '* 0-23 * * *', '*/15 * * * *', '*/15 0-23 * * *', '0,15,30,45 * * * *', '0 * * * *', '0 0-23 * * *', '30 * * * *', '15 30 * * * *', '* * * * * *', '*/10 * * * * *', '0,30 * * * * *',
	-- steps that begin anew
	'*/7 * * * *', '*/7 9-17 * * *', '*/7 9-11,14-17 * * 1-5', '*/7 * * * * *', '*/40 * * * * *', '*/20 */7 9-17 * * *', '30 5/10 * * * *', '1-4,17 * * * *', '1,2,17 * * * *', '* 30 * * * *',
	-- days of week
	'@weekly', '0 12 * * FRI-SUN', '0 12 * * SAT,SUN', '0 12 * * MON,WED,FRI', '0 12 * * SAT-7,1', '*/15 8-17 * 3-10 1-5', '0 12 * */2 1,3,5',
	-- days of month and months
	'@monthly', '@yearly', '0 0 29 2 *', '0 10 1,15 * *', '0 0 1-7 * ?', '0 0 */2 * *', '0 0 2,3,11-13,21-23,31 1,7 *', '0 0 1 3-10 *', '0 8 * 3-10 *', '0 8 * 1,7 *', '0 0 1-30 4 *',
	-- both: either, or both of them
	'0 12 13 * FRI', '0 12 13 1,7 FRI', '0 12 13 MAR-OCT 1-5', '0 12 */10 * FRI', '0 12 */10 * MON,WED,FRI', '0 12 1-7 1 */2', '0 12 29 2 */7', '0 12 1-31 * FRI', '0 12 13 * 0-6',
	-- a zone of its own
	'CRON_TZ=Asia/Shanghai 0 8 * * *', 'CRON_TZ=Asia/Shanghai */7 * * * *']) AS s;
\pset format aligned
\pset tuples_only off

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
