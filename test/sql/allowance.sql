-- Strategies that fill up to an amount: allowance.
SET search_path = quota_manager, pg_catalog;
SET client_min_messages = warning;
\pset format unaligned

BEGIN;
INSERT INTO quota_gateway (name, dialect, base_url, is_default) VALUES ('g', 'zgsm', 'http://127.0.0.1:1', true);
INSERT INTO quota_gateway (name, dialect, base_url) VALUES ('whole', 'higress', 'http://127.0.0.1:1');
INSERT INTO quota_model (model, gateway) VALUES ('w', 'whole');
INSERT INTO user_info (id, vip) SELECT 'u' || i, i FROM generate_series(1, 9) i;

-- What is refused.
SAVEPOINT s;
INSERT INTO quota_strategy (name, type, amount, model, condition, allowance) VALUES ('bad', 'single', 10, 'm', 'true()', 'fill');
ROLLBACK TO s;
INSERT INTO quota_strategy (name, type, amount, model, condition, allowance) VALUES ('bad', 'single', -10, 'm', 'true()', 'top_up');
ROLLBACK TO s;
INSERT INTO quota_strategy (name, type, amount, model, condition, allowance) VALUES ('bad', 'single', 10, 'm', 'true()', NULL);
ROLLBACK TO s;

INSERT INTO quota_strategy (id, name, type, amount, model, condition, allowance, enabled) VALUES
	(101, 'fill', 'single', 10, 'm', 'not(is-vip(9))', 'top_up', true),
	(102, 'level', 'single', 10, 'w', 'is-vip(1)', 'exact', false),
	(103, 'plain', 'single', 10, 'm', 'is-vip(1)', DEFAULT, false);
SELECT name, allowance, quota_internal.strategy_gateways(s) FROM quota_strategy s ORDER BY id;

-- A balance that is missing is asked for, and the user waits.
INSERT INTO user_balance (user_id, gateway, balance) VALUES ('u1', 'g', 3), ('u2', 'g', 10), ('u3', 'g', 11), ('u4', 'g', 0.1234567),
	('u5', 'g', -5), ('u9', 'g', 0);
SELECT * FROM undecided(101) ORDER BY 1;
SELECT strategy, matched, granted, already_granted, unknown_balance, error, note FROM scan('fill');
SELECT user_id, amount FROM quota_execute WHERE strategy_id = 101 ORDER BY user_id;
SELECT state, matched, granted, unknown_balance, amount, over_ceiling, sufficient, whole_reason FROM quota_run WHERE strategy_id = 101;
-- Balances from before a grant do not count any more.
SELECT user_id, balance FROM user_balance WHERE gateway = 'g' ORDER BY user_id;
-- A single strategy fills up once.
INSERT INTO user_balance (user_id, gateway, balance) VALUES ('u6', 'g', 10), ('u7', 'g', 9.9999999), ('u8', 'g', -1)
	ON CONFLICT (user_id, gateway) DO UPDATE SET balance = excluded.balance;
UPDATE user_balance SET balance = 0, read_time = clock_timestamp() WHERE user_id = 'u1';
SELECT strategy, matched, granted, already_granted, unknown_balance, error, note FROM scan('fill');
SELECT user_id, amount FROM quota_execute WHERE strategy_id = 101 ORDER BY user_id;
-- Whom is it sufficient for?
SELECT quota_internal.evaluate(ARRAY[101]);
SELECT * FROM quota_internal.evaluated_users(101, '-infinity', NULL) ORDER BY 1;
SELECT quota_internal.end_evaluation(NULL);

-- exact also takes away, whole units at a gateway that takes no others; also by INSERT, where the table is not plain.
UPDATE quota_strategy SET enabled = true WHERE id = 102;
INSERT INTO user_balance (user_id, gateway, balance) VALUES ('u1', 'whole', 3), ('u2', 'whole', 10), ('u3', 'whole', 110), ('u4', 'whole', -9223372036854775808);
SELECT strategy, matched, granted, unknown_balance, error, note FROM scan('level');
CREATE FUNCTION pg_temp.nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER site BEFORE INSERT ON quota_execute FOR EACH ROW EXECUTE FUNCTION pg_temp.nothing();
INSERT INTO user_balance (user_id, gateway, balance) VALUES ('u5', 'whole', 7), ('u6', 'whole', 12), ('u7', 'whole', 10);
SELECT strategy, matched, granted, unknown_balance, error, note FROM scan('level');
SELECT user_id, amount FROM quota_execute WHERE strategy_id = 102 ORDER BY user_id;
SELECT granted, amount, sufficient FROM quota_run WHERE strategy_id = 102 ORDER BY id;

-- Balances that a gateway lost fill nobody up.
DELETE FROM user_balance;
INSERT INTO user_info (id) SELECT 'v' || i FROM generate_series(10, 29) i;
INSERT INTO quota_strategy (id, name, type, amount, model, condition, allowance, enabled) VALUES (104, 'again', 'single', 10, 'm', 'true()', 'top_up', true);
INSERT INTO user_balance (user_id, gateway, balance, last_balance) SELECT 'v' || i, 'g', 0, 5 FROM generate_series(10, 29) i;
SELECT strategy, granted, unknown_balance, error, note FROM scan('again');
ROLLBACK;
