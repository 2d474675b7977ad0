-- The guard against balances that all fall to 0 at once.
\pset format unaligned
\pset tuples_only on
\pset null '~'
\set SHOW_CONTEXT never
SET timezone = 'UTC';
SET search_path = quota_manager, public;

INSERT INTO quota_gateway (name, dialect, base_url, is_default) VALUES ('guard', 'zgsm', 'http://gateway.example', true);
INSERT INTO user_info (id, vip) SELECT 'u' || lpad(n::text, 2, '0'), n FROM generate_series(1, 30) n;
INSERT INTO quota_strategy (name, type, amount, model, condition) VALUES
	('guard-low', 'single', 25, 'm', 'quota-le("m", 10)'),
	('guard-low-or-one', 'single', 25, 'm', 'or(match-user("u01"), quota-le("m", 10))');
UPDATE quota_strategy SET enabled = false;

-- Readings: how many of the users had 30 and have 0 now, how many have 30, how many are asked about; how long ago the first were asked for.
CREATE PROCEDURE public.guard_test_read(fallen integer, others integer, awaited integer DEFAULT 0, apart interval DEFAULT '0') LANGUAGE sql AS $$
	TRUNCATE quota_manager.quota_execute, quota_manager.quota_run, quota_manager.user_balance, quota_manager.balance_suspension;
	INSERT INTO quota_manager.user_balance (user_id, gateway, balance, last_balance, token, read_time)
		SELECT 'u' || lpad(n::text, 2, '0'), 'guard', CASE WHEN n <= fallen THEN 0 WHEN n <= fallen + others THEN 30 END, 30,
			CASE WHEN n > fallen + others THEN n END, now() - CASE WHEN n <= fallen THEN interval '0' ELSE apart END
		FROM generate_series(1, fallen + others + awaited) n
$$;
CREATE FUNCTION public.guard_test_scan(name text) RETURNS TABLE (granted bigint, unknown bigint, note text) LANGUAGE sql AS $$
	UPDATE quota_manager.quota_strategy s SET enabled = s.name = guard_test_scan.name;
	SELECT s.granted, s.unknown_balance, s.note FROM quota_manager.scan(name) s
$$;

-- All of ten: nothing is granted by them, and nobody is asked about again.
CALL guard_test_read(10, 0);
SELECT * FROM guard_test_scan('guard-low');
SELECT gateway, reason FROM balance_suspension;
SELECT gateway, balances_suspended_since IS NOT NULL, balances_reason FROM delivery_status;
SELECT count(*) FROM known_balance;
SELECT count(*) FROM quota_strategy s, undecided(s.id) WHERE s.name = 'guard-low';
-- What does not depend on balances goes on.
SELECT * FROM guard_test_scan('guard-low-or-one');
SELECT user_id FROM quota_execute;
-- Said once; the same scan again changes nothing.
SELECT * FROM guard_test_scan('guard-low');
-- Neither is a condition that is negated met.
SELECT count(*) FROM subject s WHERE s @@ 'not(quota-le("m", -1))';

SELECT release_balances('guard', NULL);
SELECT release_balances('guard', '');
SELECT release_balances('nosuch', 'why');
SELECT release_balances('guard', 'they are right');
SELECT release_balances('guard', 'again');
SELECT count(*) FROM balance_suspension;
SELECT count(*) FROM known_balance;
SELECT count(*) FROM quota_strategy s, undecided(s.id) WHERE s.name = 'guard-low';
SELECT state, retry_time <= clock_timestamp() FROM quota_run ORDER BY id DESC LIMIT 1;
-- Readings count afterwards: nothing is remembered of before.
UPDATE user_balance SET balance = 0, read_time = now();
SELECT * FROM guard_test_scan('guard-low');

-- Nine of ten are as bad, eight are believed, once: what was believed is not held against others.
CALL guard_test_read(9, 1);
SELECT * FROM guard_test_scan('guard-low');
CALL guard_test_read(8, 2);
SELECT * FROM guard_test_scan('guard-low');
SELECT count(*) FILTER (WHERE last_balance IS NULL), count(*) FILTER (WHERE last_balance = 30) FROM user_balance;
-- One among many, and fewer than ten.
CALL guard_test_read(1, 29);
SELECT * FROM guard_test_scan('guard-low');
CALL guard_test_read(9, 0);
SELECT * FROM guard_test_scan('guard-low');
-- So few while others are being asked about.
CALL guard_test_read(5, 0, 25);
SELECT * FROM guard_test_scan('guard-low');
SELECT count(*) FROM quota_run;
-- But not for ever.
UPDATE user_balance SET read_time = now() - interval '61 s' WHERE balance = 0;
SELECT * FROM guard_test_scan('guard-low');
-- What others had a while before is no proof.
CALL guard_test_read(10, 20, apart => '1 min');
SELECT * FROM guard_test_scan('guard-low');
CALL guard_test_read(10, 20, apart => '5 s');
SELECT * FROM guard_test_scan('guard-low');
-- Users who had nothing before did not fall.
CALL guard_test_read(30, 0);
UPDATE user_balance SET last_balance = NULL;
SELECT * FROM guard_test_scan('guard-low');
-- Where it is switched off; what was believed then is no drop when it is switched on.
UPDATE quota_gateway SET guard_balances = false;
CALL guard_test_read(30, 0);
SELECT * FROM guard_test_scan('guard-low');
UPDATE quota_gateway SET guard_balances = true;
SELECT count(*) FROM user_balance WHERE last_balance IS NOT NULL;
-- A scan that is rolled back suspends nothing, and the next one does.
CALL guard_test_read(30, 0);
BEGIN;
SELECT * FROM guard_test_scan('guard-low');
ROLLBACK;
SELECT count(*) FROM balance_suspension;
SELECT * FROM guard_test_scan('guard-low');

-- Who may end it.
CREATE ROLE regress_guard_operator;
CREATE ROLE regress_guard_worker;
CREATE ROLE regress_guard_viewer;
SELECT grant_access('regress_guard_operator', 'operator'), grant_access('regress_guard_worker', 'worker'), grant_access('regress_guard_viewer', 'viewer');
SET ROLE regress_guard_viewer;
SELECT gateway, balances_reason FROM delivery_status;
SELECT release_balances('guard', 'why');
SET ROLE regress_guard_worker;
SELECT release_balances('guard', 'why');
DELETE FROM balance_suspension;
UPDATE balance_suspension SET since = now();
SET ROLE regress_guard_operator;
UPDATE quota_gateway SET guard_balances = false;
SELECT release_balances('guard', 'they are right');
RESET ROLE;
-- A worker suspends.
CALL guard_test_read(30, 0);
UPDATE quota_strategy SET enabled = name = 'guard-low';
SET ROLE regress_guard_worker;
SELECT granted, unknown_balance, note FROM scan('guard-low');
RESET ROLE;

DROP OWNED BY regress_guard_operator, regress_guard_worker, regress_guard_viewer;
DROP ROLE regress_guard_operator, regress_guard_worker, regress_guard_viewer;
DROP PROCEDURE public.guard_test_read;
DROP FUNCTION public.guard_test_scan;
TRUNCATE quota_execute, quota_run, user_balance, balance_suspension;
DELETE FROM quota_strategy;
DELETE FROM user_info;
DELETE FROM quota_gateway;
