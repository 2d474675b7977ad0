-- What comes next: upcoming().
SET search_path = quota_manager, public;
SET timezone = 'UTC';
SET datestyle = 'ISO, YMD';
SET client_min_messages = warning;

INSERT INTO quota_gateway (name, dialect, base_url, is_default) VALUES ('main', 'zgsm', 'http://127.0.0.1:1', true);
SET quota_manager.schedule_clock = '2025-03-29 12:00:00+00';
INSERT INTO quota_strategy (name, type, amount, model, periodic_expr, time_zone, condition, valid_from, valid_until, enabled, archived) VALUES
	('daily', 'periodic', 1, 'm', '0 8 * * *', 'Europe/Berlin', 'true()', '-infinity', 'infinity', true, false),
	('hourly', 'periodic', 1, 'm', '30 * * * *', 'Europe/Berlin', 'true()', '-infinity', 'infinity', true, false),
	('night', 'periodic', 1, 'm', '30 2 * * *', 'Europe/Berlin', 'true()', '-infinity', 'infinity', true, false),
	('Shanghai', 'periodic', 1, 'm', 'CRON_TZ=Asia/Shanghai 0 8 * * *', 'Europe/Berlin', 'true()', '-infinity', 'infinity', true, false),
	('june', 'periodic', 1, 'm', '0 8 * * *', 'UTC', 'true()', '2025-06-01 08:00Z', '2025-06-03 08:00Z', true, false),
	('short', 'periodic', 1, 'm', '0 8 1 * *', 'UTC', 'true()', '-infinity', '2025-03-31', true, false),
	('over', 'periodic', 1, 'm', '0 8 * * *', 'UTC', 'true()', '-infinity', '2025-03-01', true, false),
	('off', 'periodic', 1, 'm', '30 2 * * *', 'Europe/Berlin', 'true()', '-infinity', 'infinity', false, false),
	('old', 'periodic', 1, 'm', '0 8 * * *', 'UTC', 'true()', '-infinity', 'infinity', true, true),
	('welcome', 'single', 1, 'm', NULL, 'UTC', 'true()', '-infinity', 'infinity', true, false);

-- Of all that are in use, in order; the clock is put forward in the night.
SELECT * FROM upcoming(n => 14);
SELECT count(*) FROM upcoming();
SELECT * FROM upcoming(NULL, 1);
-- The same, whoever asks from where.
SET timezone = 'America/New_York';
SELECT strategy, firing, local_time, time_zone, utc_time FROM upcoming(n => 1);
SET timezone = 'UTC';

-- Of one.
SELECT * FROM upcoming('daily', 3);
SELECT strategy, firing, note FROM upcoming('night', 2);
SELECT count(*), min(firing), max(firing) FROM upcoming('hourly', 10000);
SELECT count(*) FROM upcoming('daily');
-- It comes once in the night in which the clock is put back, where the hourly one comes twice.
SET quota_manager.schedule_clock = '2025-10-25 23:50:00+00';
SELECT strategy, local_time, utc_time, note FROM upcoming(n => 4);
SET quota_manager.schedule_clock = '2025-03-29 12:00:00+00';

-- What fires on the clock's second is past; validity begins with its start and ends before its end.
SET quota_manager.schedule_clock = '2025-03-29 13:30:00+00';
SELECT strategy, firing FROM upcoming('hourly', 1);
SELECT strategy, firing FROM upcoming('june');
SET quota_manager.schedule_clock = '2025-03-29 12:00:00+00';
-- Nor does it fire up to where it was enabled, or its schedule edited, by a clock that was ahead.
SET quota_manager.schedule_clock = '2025-03-30 12:00:00+00';
UPDATE quota_strategy SET periodic_expr = '0 9 * * *' WHERE name = 'daily';
SET quota_manager.schedule_clock = '2025-03-29 12:00:00+00';
SELECT strategy, firing FROM upcoming('daily', 1);

-- Who asks for one that has nothing to come is told why; in the list of all it is left out.
SELECT strategy, firing, time_zone, note FROM upcoming('short');
SELECT strategy, firing, time_zone, note FROM upcoming('over');
SELECT strategy, firing, note FROM upcoming('off', 2);
SELECT strategy, firing, note FROM upcoming('old', 1);
SELECT DISTINCT strategy FROM upcoming(n => 3000) ORDER BY 1;

-- CET is a zone, with summer time.
INSERT INTO quota_strategy (name, type, amount, model, periodic_expr, time_zone, condition) VALUES ('abbreviated', 'periodic', 1, 'm', '0 8 1 7 *', 'CET', 'true()');
SELECT strategy, firing, local_time, time_zone FROM upcoming('abbreviated', 1);
DELETE FROM quota_strategy WHERE name = 'abbreviated';

-- One whose zone is not known here does not hide the others, nor itself.
ALTER TABLE quota_strategy DISABLE TRIGGER USER;
INSERT INTO quota_strategy (name, type, amount, model, periodic_expr, time_zone, condition, schedule_since, version, enabled, state) VALUES
	('lost', 'periodic', 1, 'm', '0 8 * * *', 'Europe/Atlantis', 'true()', '2025-01-01', 1, true, 'active'),
	('adrift', 'periodic', 1, 'm', 'CRON_TZ=No/Such_Zone 0 8 * * *', 'UTC', 'true()', '2025-01-01', 1, true, 'active');
ALTER TABLE quota_strategy ENABLE TRIGGER USER;
SELECT strategy, firing, local_time, time_zone, utc_time, note FROM upcoming(n => 2);
SELECT strategy, firing, time_zone, note FROM upcoming('lost', 5);

-- More strategies than are asked for: no more is listed than is told.
INSERT INTO quota_strategy (name, type, amount, model, periodic_expr, time_zone, condition)
	SELECT 'bulk' || i, 'periodic', 1, 'm', format('%s %s * * *', i % 60, i % 24), 'UTC', 'true()' FROM generate_series(1, 200) i;
SELECT count(*), bool_and(u.firing = e.firing) AS "as listed one by one" FROM
	(SELECT row_number() OVER (ORDER BY firing) AS i, firing FROM upcoming(n => 50) WHERE firing IS NOT NULL) u
	JOIN (SELECT row_number() OVER (ORDER BY f) AS i, f AS firing FROM quota_strategy s, firings(s.periodic_expr, schedule_now(), schedule_now() + interval '2 days', s.time_zone) f
		WHERE s.type = 'periodic' AND s.enabled AND NOT s.archived AND quota_internal.check_time_zone(quota_internal.schedule_zone(s.periodic_expr, s.time_zone))
			AND f >= s.valid_from AND f < s.valid_until AND f > s.schedule_since) e USING (i);

-- Errors say what to do.
DO $$
DECLARE
	call text;
	message text;
	detail text;
	hint text;
BEGIN
	FOREACH call IN ARRAY ARRAY['upcoming(''none'')', 'upcoming('''')', 'upcoming(''welcome'')', 'upcoming(n => 0)', 'upcoming(''daily'', -1)', 'upcoming(n => NULL)'] LOOP
		BEGIN
			EXECUTE 'SELECT quota_manager.' || call;
			RAISE WARNING '% is accepted', call;
		EXCEPTION WHEN OTHERS THEN
			GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
			RAISE WARNING '%', concat_ws(E'\n    ', call || ': ' || SQLSTATE || ' ' || message, nullif(detail, ''), nullif(hint, ''));
		END;
	END LOOP;
END
$$;

-- A viewer may ask, nobody else.
CREATE ROLE regress_upcoming_viewer;
CREATE ROLE regress_upcoming_stranger;
SELECT grant_access('regress_upcoming_viewer', 'viewer');
GRANT USAGE ON SCHEMA quota_manager TO regress_upcoming_stranger;
SET ROLE regress_upcoming_viewer;
SELECT count(*) FROM upcoming('daily', 1);
SELECT describe('@daily'), firings FROM firing_range('@daily', '2025-01-01', '2025-01-03', 'UTC');
SET ROLE regress_upcoming_stranger;
SELECT count(*) FROM upcoming('daily', 1);
RESET ROLE;

DROP OWNED BY regress_upcoming_viewer, regress_upcoming_stranger;
DROP ROLE regress_upcoming_viewer, regress_upcoming_stranger;
DELETE FROM quota_strategy;
DELETE FROM quota_gateway;
