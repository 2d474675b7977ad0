-- Ceilings and the breaker.
SET search_path = quota_manager, pg_catalog;
SET client_min_messages = warning;
SET timezone = 'UTC';
SET quota_manager.schedule_clock = '2026-03-10 22:30:00+00';
\pset format unaligned

BEGIN;
INSERT INTO quota_gateway (name, dialect, base_url, is_default) VALUES ('g', 'zgsm', 'http://127.0.0.1:1', true);
INSERT INTO user_info (id, vip) SELECT 'u' || lpad(i::text, 3, '0'), i % 3 FROM generate_series(1, 30) i;
INSERT INTO quota_strategy (id, name, type, amount, model, condition, enabled) VALUES (1, 'one', 'single', 10, 'm', 'is-vip(1)', true), (2, 'two', 'single', -7.5, 'm', 'is-vip(2)', true);

-- What is refused.
SAVEPOINT s;
INSERT INTO quota_ceiling (period) VALUES ('day');
ROLLBACK TO s;
INSERT INTO quota_ceiling (period, max_grants) VALUES ('week', 3);
ROLLBACK TO s;
INSERT INTO quota_ceiling (period, max_grants, on_excess) VALUES ('day', 3, 'stop');
ROLLBACK TO s;
INSERT INTO quota_ceiling (period, max_grants) VALUES ('day', -1);
ROLLBACK TO s;
INSERT INTO quota_ceiling (period, max_amount) VALUES ('day', 'Infinity');
ROLLBACK TO s;
INSERT INTO quota_ceiling (period, max_grants, time_zone) VALUES ('day', 3, 'Mars/Olympus');
ROLLBACK TO s;
INSERT INTO quota_ceiling (period, max_grants, strategy_id) VALUES ('day', 3, 77);
ROLLBACK TO s;
INSERT INTO quota_ceiling (period, max_grants, note) VALUES ('day', 3, NULL);
ROLLBACK TO s;
INSERT INTO quota_ceiling (id, period, max_grants) VALUES (1, 'day', 3);
UPDATE quota_ceiling SET id = 2;
ROLLBACK TO s;

-- Per day, of all: cut in the order of user ids, and tried again the next day.
INSERT INTO quota_ceiling (id, period, max_grants, on_excess, time_zone) VALUES (1, 'day', 12, 'cut', 'Asia/Shanghai');
INSERT INTO quota_ceiling (id, strategy_id, period, max_amount) VALUES (2, 2, 'total', 70);
SELECT strategy, matched, granted, error, note FROM scan();
SELECT strategy_id, count(*), max(user_id), sum(amount) FROM quota_execute GROUP BY 1;
SELECT strategy_id, state, granted, amount, over_ceiling, retry_time - finish_time > '59 min' AS waits FROM quota_run ORDER BY id;
SELECT ceiling_id, period_start, grants, grants_left, amount, amount_left, status FROM ceiling_status ORDER BY 1;
SELECT name, state FROM strategy_due ORDER BY 1;
SET LOCAL quota_manager.schedule_clock = '2026-03-11 15:59:59+00';
SELECT strategy, matched, granted, already_granted, error, note FROM scan();
SELECT quota_internal.ceiling_retry_time(1, schedule_now()) - clock_timestamp() <= '1 s' AS until_midnight;
SET LOCAL quota_manager.schedule_clock = '2026-03-11 16:00:00+00';
SELECT strategy, matched, granted, already_granted, error, note FROM scan();
-- A higher ceiling lets what waits go on at once.
UPDATE quota_ceiling SET max_grants = 100 WHERE id = 1;
SELECT name, state FROM strategy_due ORDER BY 1;
SELECT strategy, matched, granted, already_granted, error, note FROM scan();
SELECT ceiling_id, grants, amount FROM quota_ceiling_usage ORDER BY 1, period_start;
-- Cancelled or not, it was granted.
UPDATE quota_execute SET status = 'cancelled' WHERE strategy_id = 2;
INSERT INTO user_info (id, vip) VALUES ('w', 2);
SELECT strategy, matched, granted, already_granted, error, note FROM scan();

-- A new ceiling counts what was granted before; one that is for something else now counts again.
INSERT INTO quota_ceiling (id, strategy_id, period, max_grants) VALUES (3, 1, 'total', 100), (4, NULL, 'total', 100), (5, 1, 'run', 2);
SELECT ceiling_id, grants, amount, status FROM ceiling_status ORDER BY 1;
UPDATE quota_ceiling SET strategy_id = 2 WHERE id = 3;
SELECT ceiling_id, grants, amount, status FROM ceiling_status WHERE ceiling_id = 3;
DELETE FROM quota_ceiling WHERE id IN (3, 4);
SELECT DISTINCT ceiling_id FROM quota_ceiling_usage ORDER BY 1;

-- Per run: refused whole, or some at a time.
INSERT INTO user_info (id, vip) SELECT 'x' || i, 1 FROM generate_series(1, 5) i;
SELECT strategy, matched, granted, already_granted, error, note FROM scan('one');
UPDATE quota_ceiling SET on_excess = 'cut' WHERE id = 5;
SELECT strategy, granted, error, note FROM scan('one');
SELECT strategy, granted, error, note FROM scan('one');
SELECT strategy, granted, error, note FROM scan('one');
SELECT strategy, granted, error, note FROM scan('one');
SELECT state, granted, over_ceiling, whole_reason FROM quota_run WHERE strategy_id = 1 ORDER BY id DESC LIMIT 4;
DELETE FROM quota_ceiling;

-- A firing that is cut by a ceiling per run does not get more by being tried again.
INSERT INTO quota_strategy (id, name, type, periodic_expr, amount, model, condition, allowance, enabled)
	VALUES (3, 'hourly', 'periodic', '0 * * * *', 10, 'm', 'match-user(u001, u002, u003, u004)', 'top_up', true);
INSERT INTO quota_ceiling (id, strategy_id, period, max_amount, on_excess) VALUES (6, 3, 'run', 15, 'cut');
INSERT INTO user_balance (user_id, gateway, balance) VALUES ('u001', 'g', 4), ('u003', 'g', 2);
SET LOCAL quota_manager.schedule_clock = '2026-03-11 17:00:00+00';
SELECT strategy, matched, granted, already_granted, unknown_balance, error, note FROM scan('hourly');
INSERT INTO user_balance (user_id, gateway, balance) VALUES ('u002', 'g', 9), ('u004', 'g', 10);
SELECT strategy, matched, granted, already_granted, unknown_balance, error, note FROM scan('hourly');
SELECT user_id, amount FROM quota_execute WHERE strategy_id = 3 ORDER BY 1;
SELECT state, granted, amount, over_ceiling, sufficient FROM quota_run WHERE strategy_id = 3;
SELECT strategy, matched, granted, already_granted, unknown_balance, error, note FROM scan('hourly');

-- Nor does a scan of a single strategy, whose users wait for their balances; later ones are runs of their own.
SAVEPOINT s;
DELETE FROM user_balance;
INSERT INTO quota_strategy (id, name, type, amount, model, condition, allowance, enabled)
	VALUES (9, 'fill', 'single', 10, 'm', 'match-user(u011, u012, u013, u014)', 'top_up', true);
INSERT INTO quota_ceiling (id, strategy_id, period, max_grants) VALUES (9, 9, 'run', 2);
INSERT INTO user_balance (user_id, gateway, balance) VALUES ('u011', 'g', 4), ('u012', 'g', 2);
SELECT strategy, granted, unknown_balance, error, note FROM scan('fill');
INSERT INTO user_balance (user_id, gateway, balance) VALUES ('u013', 'g', 9);
SELECT reason, users, note FROM preview('fill');
SELECT strategy, granted, unknown_balance, error, note FROM scan('fill');
UPDATE quota_ceiling SET on_excess = 'cut' WHERE id = 9;
INSERT INTO user_balance (user_id, gateway, balance) VALUES ('u014', 'g', 9);
SELECT strategy, granted, unknown_balance, error, note FROM scan('fill');
SELECT strategy, granted, unknown_balance, error, note FROM scan('fill');
ROLLBACK TO s;

-- Below what was granted already: nothing more is, and a run that would grant nothing is not refused.
SAVEPOINT s;
INSERT INTO quota_ceiling (id, strategy_id, period, max_grants, max_amount) VALUES (8, 1, 'total', 1, 1);
SELECT strategy, matched, granted, error FROM scan('one');
INSERT INTO user_info (id, vip) VALUES ('v5', 1);
SELECT strategy, matched, granted, error FROM scan('one');
ROLLBACK TO s;

-- Another life of the database may have granted what a scan here was cut off from.
SAVEPOINT s;
INSERT INTO quota_installation (doubtful_until) VALUES (clock_timestamp()) ON CONFLICT (singleton) DO UPDATE SET doubtful_until = excluded.doubtful_until;
INSERT INTO quota_ceiling (id, strategy_id, period, max_grants, on_excess) VALUES (7, 1, 'run', 2, 'cut');
INSERT INTO user_info (id, vip) SELECT 'v' || i, 1 FROM generate_series(1, 3) i;
SELECT strategy, granted, note FROM scan('one');
UPDATE quota_run SET retry_time = clock_timestamp() WHERE strategy_id = 1;
SELECT strategy, granted, note FROM scan('one');
INSERT INTO user_info (id, vip) VALUES ('v4', 1);
SELECT strategy, granted, note FROM scan('one');
SELECT user_id, status FROM quota_execute WHERE user_id LIKE 'v%' ORDER BY 1;
ROLLBACK TO s;

-- The breaker: far more than usual stands still until it is released.
SET LOCAL quota_manager.surge_minimum = 3;
SELECT (quota_internal.surge_limit(1, 0)).usual, (quota_internal.surge_limit(99, 0)).usual;
INSERT INTO user_info (id, vip) SELECT 'y' || lpad(i::text, 3, '0'), 1 FROM generate_series(1, 221) i;
SELECT strategy, matched, granted, error, note FROM scan('one');
SELECT strategy_id, scope, cause, note, would_grant FROM quota_pause WHERE cause = 'breaker' AND end_time IS NULL;
SELECT strategy, granted FROM scan('two');
SELECT unpause_strategy('one', 'these are right');
SELECT * FROM quota_internal.surge_limit(1, 0);
INSERT INTO user_info (id, vip) SELECT 'z' || lpad(i::text, 3, '0'), 1 FROM generate_series(1, 22) i;
SELECT strategy, granted, error, note FROM scan('one');
SELECT * FROM quota_internal.surge_limit(1, 0);
SET LOCAL quota_manager.surge_factor = 0;
SELECT * FROM quota_internal.surge_limit(1, 0);
ROLLBACK;

-- Who may write them.
CREATE ROLE regress_ceiling_admin;
CREATE ROLE regress_ceiling_operator;
SELECT grant_access('regress_ceiling_admin', 'admin'), grant_access('regress_ceiling_operator', 'operator');
BEGIN;
SET LOCAL ROLE regress_ceiling_admin;
INSERT INTO quota_ceiling (period, max_grants) VALUES ('day', 3);
UPDATE quota_ceiling SET max_grants = 4, period = 'total';
SELECT max_grants, grants, status FROM ceiling_status;
SAVEPOINT s;
INSERT INTO quota_ceiling (period, max_grants, counted_since) VALUES ('day', 3, now());
ROLLBACK TO s;
SET LOCAL ROLE regress_ceiling_operator;
SELECT max_grants, grants, status FROM ceiling_status;
UPDATE quota_ceiling SET max_grants = 5;
ROLLBACK TO s;
SET LOCAL quota_manager.surge_factor = 0;
ROLLBACK;
DROP OWNED BY regress_ceiling_admin, regress_ceiling_operator;
DROP ROLE regress_ceiling_admin, regress_ceiling_operator;
