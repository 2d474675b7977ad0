-- When strategies are due: one view says so, whoever asks.
\pset format unaligned
\pset null '~'
\pset footer off
\set SHOW_CONTEXT never
SET client_min_messages = warning;
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET search_path = quota_manager, public;
SET quota_manager.schedule_clock = '2025-07-01 07:30:00+00';

CREATE FUNCTION pg_temp.at(clock text) RETURNS void
LANGUAGE sql AS $$ SELECT set_config('quota_manager.schedule_clock', clock || '+00', false) $$;
-- Real times are told as what is left until then, rounded up to five seconds, since time passes; firings, which are minutes apart, by
-- the schedule clock.
CREATE FUNCTION pg_temp.due() RETURNS TABLE (name text, scheduled_time timestamptz, state text, due_in text, tries integer, reason text)
LANGUAGE sql AS $$
	SELECT d.name, d.scheduled_time, d.state, CASE
			WHEN d.state = 'scheduled' AND abs(extract(epoch FROM (d.due_time - clock_timestamp()) - (coalesce(d.scheduled_time, s.valid_from) - quota_manager.schedule_now()))) < 30 THEN 'then'
			WHEN d.state = 'due' AND d.scheduled_time IS NOT NULL AND abs(extract(epoch FROM (d.due_time - clock_timestamp()) - (d.scheduled_time - quota_manager.schedule_now()))) < 30 THEN 'then'
			WHEN d.state = 'due' THEN CASE WHEN d.due_time <= clock_timestamp() THEN 'now' ELSE 'later' END
			WHEN d.due_time IS NOT NULL THEN (ceil(extract(epoch FROM d.due_time - clock_timestamp()) / 5) * 5)::text || ' s' END,
		d.tries, d.reason
	FROM quota_manager.strategy_due d JOIN quota_manager.quota_strategy s ON s.id = d.strategy_id ORDER BY d.name, d.scheduled_time NULLS FIRST
$$;
CREATE FUNCTION pg_temp.begin_anew() RETURNS void
LANGUAGE sql AS $$
	TRUNCATE quota_manager.quota_execute, quota_manager.quota_run, quota_manager.user_balance;
	DELETE FROM quota_manager.quota_strategy;
	SELECT pg_temp.at('2025-07-01 07:30:00')
$$;
-- What a run that was tried leaves, so long ago.
CREATE FUNCTION pg_temp.age(ago interval) RETURNS void
LANGUAGE sql AS $$
	UPDATE quota_manager.quota_run SET start_time = start_time - ago, finish_time = finish_time - ago, retry_time = retry_time - ago
$$;

INSERT INTO quota_gateway (name, dialect, base_url, is_default) VALUES ('due', 'higress', 'http://gateway.example', true);
INSERT INTO user_info (id, vip) VALUES ('u1', 1);
INSERT INTO quota_strategy (name, type, amount, model, periodic_expr, condition, enabled, archived, valid_from, valid_until) VALUES
	('p archived', 'periodic', 5, 'm', '0 8 * * *', 'true()', true, true, '-infinity', 'infinity'),
	('p disabled', 'periodic', 5, 'm', '0 8 * * *', 'true()', false, false, '-infinity', 'infinity'),
	('p early', 'periodic', 5, 'm', '0 * * * *', 'true()', true, false, '2025-07-01 10:30:00+00', 'infinity'),
	('p hourly', 'periodic', 5, 'm', '0 * * * *', 'true()', true, false, '-infinity', 'infinity'),
	('p over', 'periodic', 5, 'm', '0 8 * * *', 'true()', true, false, '-infinity', '2025-07-01 07:00:00+00'),
	('p short', 'periodic', 5, 'm', '0 8 * * *', 'true()', true, false, '-infinity', '2025-07-01 07:45:00+00'),
	('s archived', 'single', 5, 'm', NULL, 'true()', true, true, '-infinity', 'infinity'),
	('s disabled', 'single', 5, 'm', NULL, 'true()', false, false, '-infinity', 'infinity'),
	('s early', 'single', 5, 'm', NULL, 'true()', true, false, '2025-07-01 10:30:00+00', 'infinity'),
	('s new', 'single', 5, 'm', NULL, 'true()', true, false, '-infinity', 'infinity'),
	('s over', 'single', 5, 'm', NULL, 'true()', true, false, '-infinity', '2025-07-01 07:00:00+00');
SELECT * FROM pg_temp.due();
SELECT pg_temp.at('2025-07-01 11:00:00');
SELECT * FROM pg_temp.due();
SELECT strategy, scheduled_time, granted FROM scan();
SELECT * FROM pg_temp.due();
-- A single strategy is looked at again after scan_interval, and at once when it is edited.
SELECT pg_temp.age('50 min');
SELECT name, state, due_in FROM pg_temp.due() WHERE name LIKE 's%' AND state IN ('due', 'waiting');
SELECT pg_temp.age('10 min');
SELECT name, state, due_in FROM pg_temp.due() WHERE name LIKE 's%' AND state IN ('due', 'waiting');
SELECT strategy, granted FROM scan('s new');
UPDATE quota_strategy SET title = 'edited' WHERE name = 's new';
SELECT state, due_in FROM pg_temp.due() WHERE name = 's new';
-- Whoever has not been looked at because it was not valid is when it becomes so.
UPDATE quota_strategy SET valid_until = '2025-07-01 12:00:00+00' WHERE name IN ('s new', 'p hourly');
SELECT strategy, granted FROM scan('s new');
SELECT name, state, due_in, reason FROM pg_temp.due() WHERE name IN ('s new', 'p hourly');
SELECT pg_temp.at('2025-07-01 12:00:00');
SELECT name, state, due_in, reason FROM pg_temp.due() WHERE name IN ('s new', 'p hourly');

-- What fails waits for 5 s, doubling to 5 min; a scan by hand does not.
SELECT pg_temp.begin_anew();
INSERT INTO quota_strategy (name, type, amount, model, periodic_expr, condition, catch_up) VALUES
	('all', 'periodic', 5, 'm', '0 * * * *', 'true()', 'all'), ('latest', 'periodic', 5, 'm', '0 * * * *', 'true()', 'latest'), ('single', 'single', 5, 'm', NULL, 'true()', 'latest');
UPDATE quota_gateway SET is_default = false;
SELECT pg_temp.at('2025-07-01 08:00:00');
SELECT strategy, scheduled_time, error FROM scan();
SELECT * FROM pg_temp.due();
SELECT name, scheduled_time FROM quota_internal.due_strategies();
SELECT strategy, scheduled_time FROM scan();
SELECT * FROM pg_temp.due();
DO $$ BEGIN FOR i IN 1 .. 6 LOOP PERFORM quota_manager.scan(); END LOOP; END $$;
SELECT * FROM pg_temp.due();
SELECT pg_temp.age('400 s');
SELECT * FROM pg_temp.due();
-- As tick() does it, firing by firing.
CREATE FUNCTION pg_temp.run_due(id integer) RETURNS TABLE (scheduled_time timestamptz, state text, granted bigint, is_news boolean) LANGUAGE plpgsql AS $$
DECLARE
	run record;
BEGIN
	SELECT r.* INTO run FROM quota_internal.run_due(id) r;
	WHILE run.later_firings IS NOT NULL LOOP
		RETURN QUERY SELECT run.scheduled_time, run.state, run.granted, run.is_news WHERE run.state IS NOT NULL;
		EXIT WHEN run.later_firings = '{}';
		SELECT r.* INTO run FROM quota_internal.run_due(id, run.later_firings) r;
	END LOOP;
END
$$;
SELECT count(*) AS run FROM quota_strategy s, pg_temp.run_due(s.id);
SELECT count(*) AS run FROM quota_strategy s, pg_temp.run_due(s.id);
-- A later firing is due at its own time; only under catch_up all is the one before tried again.
SELECT pg_temp.at('2025-07-01 09:00:00');
SELECT * FROM pg_temp.due();
SELECT s.name, r.scheduled_time, r.is_news FROM quota_strategy s, pg_temp.run_due(s.id) r ORDER BY 1, 2;
SELECT * FROM pg_temp.due();
-- A change of gateways ends the wait, and so do one of models and an edit.
INSERT INTO quota_gateway (name, dialect, base_url) VALUES ('other', 'zgsm', 'http://other.example');
SELECT name, scheduled_time, state, due_in FROM pg_temp.due();
SELECT count(*) FROM scan();
SELECT name, scheduled_time, state, due_in, tries FROM pg_temp.due();
INSERT INTO quota_model VALUES ('m', 'other');
SELECT name, scheduled_time, state, due_in FROM pg_temp.due();
DELETE FROM quota_model;
SELECT name, state, due_in FROM pg_temp.due() WHERE state = 'waiting';
INSERT INTO quota_model VALUES ('m', 'other'), ('n', 'due');
SELECT strategy FROM scan('latest');
UPDATE quota_model SET model = 'o' WHERE model = 'n';
SELECT name, state, due_in FROM pg_temp.due();
SELECT s.name, r.scheduled_time, r.state, r.granted, r.is_news FROM quota_strategy s, pg_temp.run_due(s.id) r ORDER BY 1, 2;
SELECT * FROM pg_temp.due();

-- Balances that are not known: likewise, and an edit ends the wait.  quota_internal.end_back_offs() ends all waits.
SELECT pg_temp.begin_anew();
DELETE FROM quota_model;
UPDATE quota_gateway SET is_default = true WHERE name = 'due';
DELETE FROM quota_gateway WHERE name = 'other';
INSERT INTO quota_strategy (name, type, amount, model, periodic_expr, condition) VALUES
	('low', 'periodic', 5, 'm', '0 * * * *', 'quota-le("m", 10)'), ('low once', 'single', 5, 'm', NULL, 'quota-le("m", 10)');
SELECT pg_temp.at('2025-07-01 08:00:00');
SELECT strategy, unknown_balance, note FROM scan();
SELECT * FROM pg_temp.due();
UPDATE quota_strategy SET title = 'edited';
SELECT name, state, due_in, tries FROM pg_temp.due();
SELECT count(*) FROM scan();
SELECT name, state, due_in, tries FROM pg_temp.due();
SELECT quota_internal.end_back_offs();
SELECT name, state, due_in, tries FROM pg_temp.due();
SELECT quota_internal.end_back_offs();

-- Real time is set back by hours, and by years: what was remembered is due now.
SELECT pg_temp.begin_anew();
INSERT INTO quota_strategy (name, type, amount, model, periodic_expr, condition) VALUES
	('broken', 'single', 5, 'm', NULL, 'true()'), ('done', 'single', 5, 'm', NULL, 'true()'), ('hourly', 'periodic', 5, 'm', '0 * * * *', 'true()');
SELECT strategy, granted FROM scan('done');
UPDATE quota_gateway SET is_default = false;
SELECT pg_temp.at('2025-07-01 08:00:00');
SELECT strategy FROM scan('broken') UNION ALL SELECT strategy FROM scan('hourly');
SELECT ago, name, state, due_in FROM unnest(ARRAY[interval '-2 s', '-8 hours', '-10 years']) WITH ORDINALITY a (ago, n),
	LATERAL (SELECT pg_temp.age(ago)) x, LATERAL (SELECT * FROM pg_temp.due() OFFSET 0 * n) d ORDER BY n, name, state;
UPDATE quota_gateway SET is_default = true;

-- The schedule clock was ahead for a moment: it is said why nothing runs, until it is told to.
SELECT pg_temp.begin_anew();
INSERT INTO quota_strategy (name, type, amount, model, periodic_expr, condition) VALUES ('was ahead', 'periodic', 5, 'm', '0 * * * *', 'true()');
SELECT pg_temp.at('2025-07-01 16:00:00');
INSERT INTO quota_strategy (name, type, amount, model, periodic_expr, condition) VALUES ('written ahead', 'periodic', 5, 'm', '0 * * * *', 'true()');
SELECT strategy, scheduled_time, granted FROM scan();
SELECT pg_temp.at('2025-07-01 08:10:00');
SELECT * FROM pg_temp.due();
SELECT strategy, note FROM scan('was ahead');
SELECT strategy, note FROM scan('written ahead');
SELECT strategy, firing, note FROM upcoming('was ahead', 9);
SELECT strategy, firing, note FROM upcoming('written ahead', 2);
SELECT pg_temp.at('2025-07-01 09:00:00');
SELECT count(*) FROM scan();
SELECT restart_schedule('was ahead'), restart_schedule('written ahead');
SELECT s.name, r.scheduled_time, r.last_scheduled_time, r.occurrences, r.state FROM quota_run r JOIN quota_strategy s ON s.id = r.strategy_id ORDER BY 1, 2;
SELECT * FROM pg_temp.due();
SELECT pg_temp.at('2025-07-01 10:00:00');
SELECT strategy, scheduled_time, granted FROM scan();
SELECT pg_temp.at('2025-07-01 15:00:00');
SELECT strategy, scheduled_time, granted FROM scan();
SELECT * FROM pg_temp.due();
-- What was run is not run again.
SELECT pg_temp.at('2025-07-01 16:00:00');
SELECT strategy, scheduled_time, granted FROM scan();
SELECT s.name, r.scheduled_time, r.last_scheduled_time, r.occurrences, r.state FROM quota_run r JOIN quota_strategy s ON s.id = r.strategy_id ORDER BY 1, 2;
-- A run far in the future stops nothing.
INSERT INTO quota_run (strategy_id, scheduled_time, state, start_time, finish_time) SELECT id, '9999-01-01 00:00:00+00', 'done', now(), now() FROM quota_strategy;
SELECT pg_temp.at('2025-07-01 17:00:00');
SELECT strategy, scheduled_time, granted FROM scan();
SELECT name, scheduled_time, state FROM pg_temp.due();
\set VERBOSITY terse
SELECT restart_schedule('no such');

-- Errors that break a run off are recorded, so that it waits.
SELECT pg_temp.begin_anew();
INSERT INTO quota_strategy (name, type, amount, model, periodic_expr, condition, catch_up) VALUES
	('single', 'single', 5, 'm', NULL, 'true()', 'latest'), ('late', 'periodic', 5, 'm', '0 * * * *', 'true()', 'latest');
SELECT pg_temp.at('2025-07-01 09:10:00');
SELECT quota_internal.record_failure(id, 'canceled') FROM quota_strategy;
SELECT * FROM pg_temp.due();
SELECT s.name, r.scheduled_time, r.state, r.reason FROM quota_run r JOIN quota_strategy s ON s.id = r.strategy_id ORDER BY 1, 2;
SELECT strategy, scheduled_time, granted FROM scan();

-- A schedule that cannot be read is reported as often, and keeps nobody from seeing the others.
SELECT pg_temp.begin_anew();
INSERT INTO quota_strategy (name, type, amount, model, periodic_expr, condition) VALUES ('nowhere', 'periodic', 5, 'm', '0 * * * *', 'true()'), ('other', 'periodic', 5, 'm', '0 * * * *', 'true()');
ALTER TABLE quota_strategy DISABLE TRIGGER check_strategy;
UPDATE quota_strategy SET time_zone = 'Nowhere/Land' WHERE name = 'nowhere';
ALTER TABLE quota_strategy ENABLE TRIGGER check_strategy;
SELECT * FROM pg_temp.due();
SELECT pg_temp.at('2025-07-01 08:00:00');
SELECT * FROM pg_temp.due();
SELECT strategy, error FROM scan();
SELECT * FROM pg_temp.due();

SELECT pg_temp.begin_anew();
DELETE FROM user_info;
DELETE FROM quota_gateway;
