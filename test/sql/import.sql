-- Taking over the grants of a service that ran before.
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

INSERT INTO quota_gateway (name, dialect, base_url, is_default) VALUES ('import-zgsm', 'zgsm', 'http://gateway.example', true);
INSERT INTO user_info (id) VALUES ('u1'), ('u2'), ('u3'), ('u4'), ('O''Brien %'), ('技术');
INSERT INTO quota_strategy (name, type, amount, model, condition, time_zone) VALUES ('welcome', 'single', 5, 'm', 'true()', 'Asia/Shanghai'), ('star', 'single', 7.5, 'm', 'true()', 'UTC');
INSERT INTO quota_strategy (name, type, amount, model, periodic_expr, condition) VALUES ('daily', 'periodic', 5, 'm', '0 8 * * *', 'true()');
UPDATE quota_strategy SET enabled = false WHERE name = 'star';

-- From a table: counts, repeated rows, unknown strategies, periodic ones, rows without a user.
CREATE TABLE public.import_test (plan text, uid text, paid_at timestamptz);
INSERT INTO public.import_test VALUES
	('welcome', 'u1', '2024-01-01 20:00:00+00'), ('welcome', 'u1', '2023-12-31 20:00:00+00'), ('welcome', 'u2', '2024-02-01 00:00:00+00'),
	('welcome', 'gone', '2024-02-01 00:00:00+00'), ('welcome', '', '2024-02-01 00:00:00+00'), ('welcome', NULL, '2024-02-01 00:00:00+00'),
	('star', 'u1', '2024-02-01 00:00:00+00'), ('star', 'O''Brien %', '2024-02-01 00:00:00+00'), ('star', '技术', '2024-02-01 00:00:00+00'),
	('daily', 'u1', '2024-02-01 08:00:00+00'), ('daily', 'u1', '2024-02-02 08:00:00+00'),
	('unknown', 'u3', '2024-02-01 00:00:00+00'), (NULL, 'u3', '2024-02-01 00:00:00+00');
SELECT * FROM import_grants('SELECT plan, uid, paid_at FROM public.import_test');
SELECT s.name, e.user_id, e.scheduled_time, e.revision, e.run_id, e.status, e.amount, e.model, e.gateway, e.batch_number, e.create_time, e.claim_number
FROM quota_execute e JOIN quota_strategy s ON s.id = e.strategy_id ORDER BY s.name, e.user_id COLLATE "C";
-- Once more changes nothing.
SELECT * FROM import_grants('TABLE public.import_test');
-- The next scan pays only those who were not imported; imported grants are not delivered.
UPDATE quota_strategy SET enabled = true WHERE name = 'star';
SELECT strategy, matched, granted, already_granted FROM scan();
SELECT s.name, e.user_id FROM quota_execute e JOIN quota_strategy s ON s.id = e.strategy_id WHERE e.status = 'pending' ORDER BY s.name, e.user_id COLLATE "C";
SELECT count(*) AS without_run FROM quota_execute e WHERE e.status <> 'completed' AND NOT EXISTS (SELECT FROM quota_run r WHERE r.id = e.run_id);
-- Who was granted here meanwhile is reported as such.
SELECT * FROM import_grants($$VALUES ('welcome', 'u3', timestamptz '2024-01-01 00:00:00+00'), ('welcome', 'later', '2024-01-01 00:00:00+00')$$);
INSERT INTO user_info (id) VALUES ('later'), ('gone');
SELECT strategy, matched, granted, already_granted FROM scan('welcome');

-- From COPY into a temporary table, whose name needs no schema.
CREATE TEMPORARY TABLE old_grants (plan text, uid text, paid_at timestamptz);
COPY old_grants FROM stdin;
welcome	c1	2024-01-01 00:00:00+00
welcome	c2	\N
welcome	c3	infinity
welcome	c4	-infinity
\.
SELECT * FROM import_grants('SELECT * FROM old_grants -- all of them');
SELECT user_id, isfinite(create_time) AS finite, batch_number ~ '^\d{14}$' AS labelled FROM quota_execute WHERE user_id LIKE 'c_' ORDER BY user_id;
-- A temporary table may have any name, and be there twice in a transaction.
BEGIN;
ALTER TABLE old_grants RENAME TO imported_grant;
SELECT imported, already_granted FROM import_grants('TABLE imported_grant');
SELECT imported, already_granted FROM import_grants('TABLE imported_grant');
ROLLBACK;
-- Nothing, or nobody.
SELECT * FROM import_grants('SELECT plan, uid, paid_at FROM public.import_test WHERE false');

-- Ids that are too long for a grant are left out, and keep no other out.
SELECT * FROM import_grants($$VALUES ('star', 'short', timestamptz '2024-01-01 00:00:00+00'), ('star', repeat('x', 2600), NULL), ('star', '', NULL), ('star', NULL, NULL),
	('star', (SELECT string_agg(md5(i::text), '') FROM generate_series(1, 32768) i), NULL)$$);

-- The amount that was paid then, where the query knows it.
SELECT * FROM import_grants($$VALUES ('star', 'paid-7', timestamptz '2024-01-01 00:00:00+00', 7), ('star', 'paid-now', NULL, NULL)$$);
SELECT e.user_id, e.amount = s.amount AS is_of_today, e.amount FROM quota_execute e JOIN quota_strategy s ON s.id = e.strategy_id WHERE e.user_id ~ '^paid' ORDER BY 1;
-- What is not a query of three columns or four.
SELECT * FROM import_grants(NULL);
SELECT * FROM import_grants('');
SELECT * FROM import_grants('SELEC');
SELECT * FROM import_grants('SELECT plan, uid, paid_at, 1, 1 FROM public.import_test');
SELECT * FROM import_grants('SELECT plan, uid, paid_at, uid FROM public.import_test');
SELECT * FROM import_grants('SELECT plan, uid, paid_at, 0 FROM public.import_test');
SELECT * FROM import_grants($$SELECT plan, uid, paid_at, 'NaN'::numeric FROM public.import_test$$);
SELECT * FROM import_grants('SELECT plan, uid, paid_at::text FROM public.import_test');
SELECT * FROM import_grants('SELECT plan, paid_at, uid FROM public.import_test');
SELECT * FROM import_grants('DELETE FROM public.import_test RETURNING *');
SELECT * FROM import_grants('SELECT plan, uid, paid_at FROM import_test');
SELECT count(*) FROM public.import_test;
-- What it sets is undone, before anything else is run.
SELECT strategy, imported, note FROM import_grants($$SELECT set_config('search_path', 'pg_toast', false), set_config('timezone', 'Asia/Tokyo', false), now()$$);
SHOW search_path;
SHOW timezone;

TRUNCATE quota_execute, quota_run;
DROP TABLE public.import_test;
DELETE FROM quota_strategy;
DELETE FROM user_info;
DELETE FROM quota_gateway;
