-- Pauses: what they stop, what they say, and what is kept of them.
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET search_path = quota_manager, public;
SET quota_manager.schedule_clock = '2025-07-01 08:00:00+00';
\set SHOW_CONTEXT never
-- Notices say when something was paused, which differs each time.
SET client_min_messages = warning;

TRUNCATE quota_pause;
INSERT INTO quota_gateway (name, dialect, base_url, is_default) VALUES ('one', 'zgsm', 'http://127.0.0.1:1', true), ('two', 'zgsm', 'http://127.0.0.1:1', false);
INSERT INTO user_info (id) VALUES ('u1'), ('u2');
INSERT INTO quota_strategy (name, type, amount, model, condition) VALUES ('gift', 'single', 5, 'm', 'true()'), ('other', 'single', 7, 'm', 'true()');
INSERT INTO quota_strategy (name, type, amount, model, periodic_expr, condition, catch_up) SELECT c, 'periodic', 1, 'm', '0 * * * *', 'true()', c FROM unnest(ARRAY['none', 'latest', 'all']) c;
CREATE ROLE regress_brakes_operator;
CREATE ROLE regress_brakes_viewer;
SELECT grant_access('regress_brakes_operator', 'operator'), grant_access('regress_brakes_viewer', 'viewer');

CREATE VIEW in_words AS SELECT what, replace(paused_by, current_user, 'me') AS paused_by, why, until IS NOT NULL AS is_over, replace(ended_by, current_user, 'me') AS ended_by, end_why
	FROM quota_manager.pauses;
-- Without the time and the role.
CREATE FUNCTION masked(said text) RETURNS text LANGUAGE sql RETURN regexp_replace(said, 'since [-0-9]+ [:0-9+]+( by \w+)?', 'since ... by ...');
GRANT SELECT ON in_words TO regress_brakes_operator, regress_brakes_viewer;

-- Everything.
SELECT pause_all('find out first');
SELECT * FROM in_words;
SELECT name, state, due_time, masked(reason) FROM strategy_due ORDER BY name;
SELECT count(*) FROM scan();
SELECT strategy, granted, masked(note) FROM scan('gift');
CALL tick();
CALL deliver();
SELECT gateway, paused_since IS NOT NULL AS paused, paused_why FROM delivery_status ORDER BY 1;
SELECT kind, paused_since IS NOT NULL AS paused, paused_why FROM worker_status ORDER BY 1;
SELECT gateway, gateway_paused, gateway_paused_seconds >= 0 AS for_long, paused, paused_seconds >= 0 AS for_long, strategies_stopped FROM metrics ORDER BY gateway;
SELECT pause_all('again');
SELECT unpause_all('it was nothing');
SELECT unpause_all();
SELECT * FROM in_words;

-- A strategy, its pending grants included.
SELECT strategy, granted FROM scan() ORDER BY strategy;
SELECT pause_strategy('gift', 'paid 500 in place of 5');
SELECT state, enabled FROM quota_strategy WHERE name = 'gift';
SELECT strategy, granted, note FROM scan('gift');
-- An edit does the same, and ends it.
UPDATE quota_strategy SET enabled = false WHERE name = 'other';
SELECT * FROM in_words WHERE NOT is_over ORDER BY what;
UPDATE quota_strategy SET state = 'active' WHERE name IN ('gift', 'other');
SELECT * FROM in_words WHERE what LIKE 'strategy%' ORDER BY what;
SELECT pause_strategy('gift');
SELECT pause_strategy('gift', 'again');
SELECT unpause_strategy('gift', 'mended');
SELECT unpause_strategy('gift');
-- What was paused when it is put away is not paused any more.
SELECT pause_strategy('other');
UPDATE quota_strategy SET archived = true WHERE name = 'other';
SELECT * FROM in_words WHERE what = 'strategy "other"' AND end_why IS NOT NULL;
INSERT INTO quota_strategy (name, type, amount, model, condition, state) VALUES ('new', 'single', 5, 'm', 'true()', 'paused'), ('draft', 'single', 5, 'm', 'true()', 'draft');
SELECT * FROM in_words WHERE what = 'strategy "new"';
DELETE FROM quota_strategy WHERE name = 'new';
SELECT is_over, end_why FROM in_words WHERE end_why = 'deleted';

-- A strategy that the breaker has stopped: what it missed follows catch_up.
SET quota_manager.schedule_clock = '2025-07-01 11:30:00+00';
INSERT INTO quota_pause (scope, strategy_id, cause, note) SELECT 'strategy', id, 'breaker', 'would have granted to all' FROM quota_strategy WHERE type = 'periodic';
SELECT name, state, scheduled_time, masked(reason) FROM strategy_due WHERE type = 'periodic' ORDER BY name;
SELECT strategy, granted, masked(note) FROM scan('all');
SELECT count(*) FROM scan() s JOIN quota_strategy q ON q.name = s.strategy WHERE q.type = 'periodic';
SELECT count(*) FROM quota_run r JOIN quota_strategy s ON s.id = r.strategy_id WHERE s.type = 'periodic' AND r.scheduled_time > '2025-07-01 08:00:00+00';
UPDATE quota_strategy SET amount = 2 WHERE name = 'all';
SELECT name, state FROM strategy_due WHERE name = 'all';
SELECT unpause_strategy(name) FROM quota_strategy WHERE type = 'periodic' ORDER BY name;
SELECT strategy, scheduled_time, granted FROM scan() WHERE scheduled_time IS NOT NULL ORDER BY strategy, scheduled_time;
SELECT paused_by, is_over FROM in_words WHERE why LIKE 'would have%' GROUP BY 1, 2;

-- A gateway.
SELECT pause_gateway('two', 'maintenance');
SELECT gateway, paused_since IS NOT NULL AS paused, paused_why FROM delivery_status ORDER BY 1;
SELECT unpause_gateway('two');
SELECT unpause_gateway('two');
SELECT pause_gateway('two');
DELETE FROM quota_gateway WHERE name = 'two';
SELECT is_over, end_why FROM in_words WHERE what = 'gateway "two"' ORDER BY end_why;

-- Mistakes.
SELECT pause_gateway('three');
SELECT pause_gateway(NULL);
SELECT unpause_gateway('three');
SELECT pause_strategy('missing');
SELECT pause_strategy(NULL);
SELECT pause_strategy('draft');
SELECT pause_strategy('other');
SELECT pause_all(repeat('x', 3000));
-- The row has times.
\set VERBOSITY terse
INSERT INTO quota_pause (scope, gateway, strategy_id) VALUES ('everything', 'one', NULL);
INSERT INTO quota_pause (scope, gateway, cause) VALUES ('gateway', 'one', 'breaker');
\set VERBOSITY default
BEGIN READ ONLY;
SELECT pause_all();
ROLLBACK;

-- Rights.
SET ROLE regress_brakes_viewer;
SELECT pause_all();
SELECT count(*) > 5 AS sees FROM in_words;
SET ROLE regress_brakes_operator;
SET request.jwt.claims = '{"sub": "olga"}';
SELECT pause_gateway('one', 'mine');
INSERT INTO quota_pause (scope) VALUES ('everything');
UPDATE quota_strategy SET state = 'paused' WHERE name = 'gift';
SELECT * FROM in_words WHERE NOT is_over ORDER BY what;
SELECT unpause_gateway('one'), unpause_strategy('gift');
RESET request.jwt.claims;
RESET ROLE;

DROP VIEW in_words;
DROP FUNCTION masked;
TRUNCATE quota_execute, quota_run, quota_pause;
DELETE FROM quota_strategy;
DELETE FROM user_info;
DELETE FROM quota_gateway;
DELETE FROM quota_installation;
DROP OWNED BY regress_brakes_operator, regress_brakes_viewer;
DROP ROLE regress_brakes_operator, regress_brakes_viewer;
