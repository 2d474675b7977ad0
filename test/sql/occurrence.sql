-- Every firing of a periodic strategy is accounted for, also those that are not run.
\pset format unaligned
\pset tuples_only on
\pset null '~'
\set SHOW_CONTEXT never
SET client_min_messages = warning;
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET search_path = quota_manager, public;
SET quota_manager.schedule_clock = '2025-07-01 00:30:00+00';

CREATE FUNCTION pg_temp.at(clock text) RETURNS text
LANGUAGE sql AS $$ SELECT set_config('quota_manager.schedule_clock', '2025-07-0' || clock || '+00', false) $$;
-- Moves the clock, scans all, and tells which firings were run.
CREATE FUNCTION pg_temp.scan_at(clock text) RETURNS TABLE (strategy text, firing timestamptz, error text)
LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_temp.at(clock);
	RETURN QUERY SELECT s.strategy, s.scheduled_time, s.error FROM quota_manager.scan() s;
END
$$;
CREATE FUNCTION pg_temp.write(name text, expr text, catch_up text DEFAULT 'latest', catch_up_window interval DEFAULT NULL, catch_up_max integer DEFAULT 100,
	valid_from timestamptz DEFAULT '-infinity', valid_until timestamptz DEFAULT 'infinity') RETURNS void
LANGUAGE sql AS $$
	INSERT INTO quota_manager.quota_strategy (name, type, amount, model, periodic_expr, condition, catch_up, catch_up_window, catch_up_max, valid_from, valid_until)
	VALUES (name, 'periodic', 5, 'm', expr, 'true()', catch_up, catch_up_window, catch_up_max, valid_from, valid_until)
$$;
CREATE FUNCTION pg_temp.begin_anew() RETURNS text
LANGUAGE sql AS $$
	TRUNCATE quota_manager.quota_execute, quota_manager.quota_run;
	DELETE FROM quota_manager.quota_strategy;
	SELECT pg_temp.at('1 00:30:00')
$$;
CREATE FUNCTION pg_temp.try(command text) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
	hint text;
BEGIN
	EXECUTE command;
	RETURN 'ok';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS hint = PG_EXCEPTION_HINT;
	RETURN SQLSTATE || ': ' || SQLERRM || coalesce(' [' || nullif(hint, '') || ']', '');
END
$$;
CREATE VIEW pg_temp.runs AS
SELECT s.name, to_char(r.scheduled_time, 'DD HH24:MI:SS') AS first, to_char(r.last_scheduled_time, 'DD HH24:MI:SS') AS last, r.occurrences AS times, r.state, r.reason
FROM quota_run r JOIN quota_strategy s ON s.id = r.strategy_id ORDER BY s.name, r.scheduled_time NULLS FIRST, r.id;

INSERT INTO quota_gateway (name, dialect, base_url, is_default) VALUES ('occurrence', 'higress', 'http://gateway.example', true);
INSERT INTO user_info (id) VALUES ('u1');

-- Nothing ran for some hours: what catch_up does not make up for is told.
SELECT pg_temp.write('none', '0 * * * *', 'none'), pg_temp.write('latest', '0 * * * *'), pg_temp.write('all', '0 * * * *', 'all');
SELECT * FROM pg_temp.scan_at('1 01:00:00');
SELECT * FROM pg_temp.scan_at('1 05:10:00');
SELECT * FROM pg_temp.scan_at('1 05:10:00');
SELECT * FROM pg_temp.scan_at('1 06:01:59');
SELECT * FROM pg_temp.scan_at('1 08:02:00');
SELECT * FROM pg_temp.scan_at('1 09:02:00');
TABLE pg_temp.runs;

-- A window and a maximum.
SELECT pg_temp.begin_anew();
SELECT pg_temp.write('latest-window', '0 * * * *', 'latest', '30 min'), pg_temp.write('latest-long', '0 6 * * *', 'latest', '2 days'),
	pg_temp.write('all-window', '0 * * * *', 'all', '3 hours'), pg_temp.write('all-max', '*/10 * * * *', 'all', NULL, 3), pg_temp.write('all-both', '*/10 * * * *', 'all', '20 min', 3);
SELECT * FROM pg_temp.scan_at('1 05:30:00');
SELECT * FROM pg_temp.scan_at('1 06:10:00');
SELECT * FROM pg_temp.scan_at('4 06:00:00');
SELECT * FROM pg_temp.scan_at('4 06:00:00');
SELECT * FROM pg_temp.scan_at('6 05:59:59');
TABLE pg_temp.runs;
-- Without a window: all made up for one day, the latest however late.
SELECT pg_temp.begin_anew();
SELECT pg_temp.write('all', '0 */8 * * *', 'all'), pg_temp.write('latest', '0 1 1 * *', 'latest');
SELECT * FROM pg_temp.scan_at('4 01:00:00');
TABLE pg_temp.runs;
SELECT pg_temp.try($$INSERT INTO quota_manager.quota_strategy (name, type, amount, model, condition, catch_up_window) VALUES ('x', 'single', 1, 'm', 'true()', '$$ || w || $$')$$)
FROM unnest(ARRAY['0', '-1 day', '1000 years']) w;
SELECT pg_temp.try($$UPDATE quota_manager.quota_strategy SET catch_up_max = 0$$);
-- A row with a version is written as it is, as when a dump is restored; but firings are counted from some time on.
SELECT pg_temp.try($$INSERT INTO quota_manager.quota_strategy (name, type, amount, model, periodic_expr, condition, version, schedule_since)
	VALUES ('x', 'periodic', 1, 'm', '@daily', 'true()', 1, '$$ || since || $$')$$)
FROM unnest(ARRAY['infinity', '-infinity']) since;
-- The session's time zone does not stretch a day of the window.
SET timezone = 'Europe/Berlin';
SELECT set_config('quota_manager.schedule_clock', '2025-03-30 12:00:00+00', false), set_config('timezone', z, false), quota_internal.catch_up_start(s) = '2025-03-29 12:00:00+00'
FROM unnest(ARRAY['Europe/Berlin', 'UTC']) z, quota_strategy t, LATERAL (SELECT (r).* FROM (SELECT jsonb_populate_record(t, '{"catch_up_window": "1 day"}') AS r) p) s WHERE t.name = 'all';
SET timezone = 'UTC';

-- Disabled and archived.
SELECT pg_temp.begin_anew();
SELECT pg_temp.write('off', '0 * * * *', 'all');
SELECT * FROM pg_temp.scan_at('1 01:00:00');
SELECT pg_temp.at('1 03:10:00');
-- Due and not run when it is disabled.
UPDATE quota_strategy SET enabled = false;
TABLE pg_temp.runs;
SELECT * FROM pg_temp.scan_at('1 05:00:00');
TABLE pg_temp.runs;
SELECT pg_temp.at('1 07:00:00');
UPDATE quota_strategy SET title = 'other edits tell nothing';
TABLE pg_temp.runs;
UPDATE quota_strategy SET archived = true;
SELECT note FROM scan('off');
SELECT pg_temp.at('1 08:00:00');
UPDATE quota_strategy SET enabled = true;
UPDATE quota_strategy SET archived = false;
TABLE pg_temp.runs;
SELECT * FROM pg_temp.scan_at('1 09:00:00');
TABLE pg_temp.runs;

-- Validity.
SELECT pg_temp.begin_anew();
SELECT pg_temp.write('valid', '0 * * * *', 'all', NULL, 100, '2025-07-01 03:00:00+00', '2025-07-01 07:00:00+00');
SELECT * FROM pg_temp.scan_at('1 02:00:00');
TABLE pg_temp.runs;
SELECT * FROM pg_temp.scan_at('1 04:30:00');
SELECT * FROM pg_temp.scan_at('1 08:00:00');
TABLE pg_temp.runs;
-- Extended: what was outside stays so.
UPDATE quota_strategy SET valid_until = '2025-07-01 12:00:00+00';
SELECT * FROM pg_temp.scan_at('1 10:00:00');
SELECT pg_temp.at('1 12:30:00');
-- Moved together with the clock, before any scan.
UPDATE quota_strategy SET valid_until = 'infinity', valid_from = '2025-07-01 13:30:00+00';
SELECT * FROM pg_temp.scan_at('1 14:00:00');
TABLE pg_temp.runs;

-- Edits: nothing at or before an edit of the schedule is run; with other edits what is due stays due.
SELECT pg_temp.begin_anew();
SELECT pg_temp.write('edited', '0 * * * *', 'all');
SELECT pg_temp.at('1 02:00:00');
UPDATE quota_strategy SET periodic_expr = '30 * * * *';
TABLE pg_temp.runs;
SELECT pg_temp.at('1 03:40:00');
UPDATE quota_strategy SET time_zone = 'Asia/Kolkata';
UPDATE quota_strategy SET time_zone = 'Asia/Kolkata';
SELECT pg_temp.at('1 05:00:00');
UPDATE quota_strategy SET amount = 7, title = 'x', catch_up = 'latest';
TABLE pg_temp.runs;
SELECT * FROM pg_temp.scan_at('1 05:00:00');
SELECT amount, count(*) FROM quota_execute GROUP BY 1;
-- No schedule any more, and one again.
SELECT pg_temp.at('1 06:00:00');
UPDATE quota_strategy SET type = 'single', periodic_expr = NULL;
SELECT pg_temp.at('1 08:00:00');
UPDATE quota_strategy SET type = 'periodic', periodic_expr = '0 * * * *';
SELECT * FROM pg_temp.scan_at('1 08:30:00');
TABLE pg_temp.runs;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT pg_temp.try($$UPDATE quota_manager.quota_strategy SET enabled = false$$);
SELECT pg_temp.try($$UPDATE quota_manager.quota_strategy SET title = 'y'$$);
ROLLBACK;

-- Errors: tried again until a later one is due; what failed keeps its row.
SELECT pg_temp.begin_anew();
SELECT pg_temp.write('none', '0 * * * *', 'none'), pg_temp.write('latest', '0 * * * *'), pg_temp.write('window', '0 * * * *', 'latest', '20 min'), pg_temp.write('all', '0 * * * *', 'all');
UPDATE quota_gateway SET is_default = false;
SELECT strategy, firing FROM pg_temp.scan_at('1 01:00:00');
SELECT strategy, firing FROM pg_temp.scan_at('1 01:01:59');
SELECT strategy, firing FROM pg_temp.scan_at('1 01:02:00');
SELECT strategy, firing FROM pg_temp.scan_at('1 01:20:00');
SELECT strategy, firing FROM pg_temp.scan_at('1 04:00:00');
UPDATE quota_gateway SET is_default = true;
SELECT strategy, firing FROM pg_temp.scan_at('1 04:01:00');
SELECT strategy, firing FROM pg_temp.scan_at('1 05:00:00');
SELECT name, first, last, times, state, left(reason, 29) FROM pg_temp.runs;

-- In order only: one that is called by hand for a later firing does nothing.
SELECT pg_temp.at('1 08:00:00');
SELECT (quota_internal.run_strategy(id, '2025-07-01 07:00:00+00')).scheduled_time FROM quota_strategy WHERE name = 'all';
SELECT (quota_internal.run_strategy(id, '2025-07-01 06:00:00+00')).scheduled_time FROM quota_strategy WHERE name = 'all';
SELECT (quota_internal.run_strategy(id, '2025-07-01 07:00:00+00')).scheduled_time FROM quota_strategy WHERE name = 'all';

-- Nothing but firings to be told of: that is a scan, too, but nothing was run.
SELECT pg_temp.begin_anew();
SELECT pg_temp.write('late', '0 * * * *', 'none');
SELECT pg_temp.at('1 03:30:00');
SELECT name, scheduled_time FROM quota_internal.due_strategies();
SELECT strategy, scheduled_time, note FROM scan('late');
SELECT name, scheduled_time FROM quota_internal.due_strategies();
TABLE pg_temp.runs;
-- A clock that is set back has nothing to tell, and nothing twice.
SELECT * FROM pg_temp.scan_at('1 02:00:00');
SELECT * FROM pg_temp.scan_at('1 03:00:00');
SELECT * FROM pg_temp.scan_at('1 04:01:00');
TABLE pg_temp.runs;

-- Many firings, and a schedule that cannot be read.
SELECT pg_temp.begin_anew();
SET quota_manager.schedule_clock = '2015-07-01 00:00:00.5+00';
SELECT pg_temp.write('second', '* * * * * *', 'all', '1 year', 2);
SELECT * FROM pg_temp.scan_at('1 00:00:00');
TABLE pg_temp.runs;
UPDATE quota_strategy SET enabled = false;
ALTER TABLE quota_strategy DISABLE TRIGGER check_strategy;
UPDATE quota_strategy SET time_zone = 'Nowhere/Land';
ALTER TABLE quota_strategy ENABLE TRIGGER check_strategy;
SELECT * FROM pg_temp.scan_at('1 00:01:00');
UPDATE quota_strategy SET time_zone = 'UTC', enabled = true;
TABLE pg_temp.runs;

-- Whoever edits strategies needs no right to write runs.
CREATE ROLE quota_occurrence_editor;
GRANT USAGE ON SCHEMA quota_manager TO quota_occurrence_editor;
SELECT grant_access('quota_occurrence_editor', 'operator');
REVOKE INSERT, UPDATE ON quota_run FROM quota_occurrence_editor;
SELECT pg_temp.at('1 02:00:00');
SET ROLE quota_occurrence_editor;
UPDATE quota_manager.quota_strategy SET periodic_expr = '@daily';
SELECT pg_temp.try($$SELECT quota_internal.record_edited_schedule()$$);
RESET ROLE;
TABLE pg_temp.runs;

-- As what the trigger records is written by the owner, it stays with its table: a cast from the rows of another one would be called by the owner too.
DO $$
BEGIN
	CREATE TABLE pg_temp.look_alike (LIKE quota_manager.quota_strategy);
	CREATE TRIGGER borrowed AFTER UPDATE ON pg_temp.look_alike FOR EACH ROW EXECUTE FUNCTION quota_internal.record_edited_schedule();
END
$$;
INSERT INTO pg_temp.look_alike SELECT * FROM quota_strategy;
SELECT pg_temp.try('UPDATE pg_temp.look_alike SET enabled = false');
DROP TABLE pg_temp.look_alike;

-- A scan may take longer than schedules allow: whoever comes late in it, its firing being passed by then, runs the one that took its place.
SELECT pg_temp.begin_anew();
CREATE FUNCTION pg_temp.last_a_minute() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF NEW.state = 'done' AND NEW.strategy_id = (SELECT s.id FROM quota_manager.quota_strategy s WHERE s.name = '1 lasts') THEN
		PERFORM set_config('quota_manager.schedule_clock', (quota_manager.schedule_now() AT TIME ZONE 'UTC' + interval '1 min')::text || '+00', false);
	END IF;
	RETURN NULL;
END
$$;
CREATE TRIGGER occurrence_lasts AFTER INSERT ON quota_run FOR EACH ROW EXECUTE FUNCTION pg_temp.last_a_minute();
INSERT INTO quota_strategy (name, type, amount, model, periodic_expr, condition, catch_up, catch_up_max) VALUES
	('1 lasts', 'periodic', 5, 'm', '* * * * *', 'true()', 'latest', 1), ('2 latest', 'periodic', 5, 'm', '* * * * *', 'true()', 'latest', 1),
	('3 all', 'periodic', 5, 'm', '* * * * *', 'true()', 'all', 2);
SELECT * FROM pg_temp.scan_at('1 00:33:00');
SELECT strategy, scheduled_time, granted, error FROM scan('2 latest');
SELECT pg_temp.at('1 00:34:00');
TABLE pg_temp.runs;
DELETE FROM quota_execute;
DELETE FROM quota_strategy WHERE name = '1 lasts';
DROP TRIGGER occurrence_lasts ON quota_run;

-- The last scan of a single strategy is found beside however many runs of others, and of its own.
SELECT pg_temp.begin_anew();
INSERT INTO quota_run (strategy_id, scheduled_time, state, start_time, finish_time)
	SELECT 1 + (n <= 500)::integer, CASE WHEN n > 500 THEN to_timestamp(n) END, 'done', now(), now() FROM generate_series(1, 20000) n;
ANALYZE quota_run;
EXPLAIN (COSTS off) SELECT FROM quota_run r WHERE r.strategy_id = 2 AND r.scheduled_time IS NULL ORDER BY r.id DESC LIMIT 1;

SELECT pg_temp.begin_anew();
DELETE FROM user_info;
DELETE FROM quota_gateway;
DROP OWNED BY quota_occurrence_editor;
DROP ROLE quota_occurrence_editor;
