-- Versions of strategies: what is kept, what it says in words, and which users a version gains and loses.
\pset format unaligned
\pset null '~'
\set SHOW_CONTEXT never
SET client_min_messages = warning;
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET search_path = quota_manager, public;
TRUNCATE quota_strategy_version;
INSERT INTO quota_gateway (name, dialect, base_url, is_default) VALUES ('history', 'zgsm', 'http://gateway.example', true);
INSERT INTO user_info (id, vip, org) SELECT 'u' || n, n, CASE WHEN n > 3 THEN 'o' END FROM generate_series(1, 6) n;
CREATE ROLE regress_quota_operator;
CREATE ROLE regress_quota_viewer;
SELECT grant_access('regress_quota_operator', 'operator'), grant_access('regress_quota_viewer', 'viewer');
CREATE VIEW public.history AS SELECT v.strategy_id, v.version, v.role, v.session_role = session_user AS own_session, v.said_by, v.note, v.definition
FROM quota_strategy_version v ORDER BY v.strategy_id, v.version;
GRANT SELECT ON public.history TO regress_quota_operator;

-- Each edit is kept, with its note, whoever makes it; a note that is given again counts again.
SET ROLE regress_quota_operator;
INSERT INTO quota_strategy (name, type, amount, model, condition, state) VALUES ('gift', 'single', 10, 'm', 'is-vip(1)', 'draft');
UPDATE quota_strategy SET amount = 20, condition = 'is-vip(2)', edit_note = 'ticket 42' WHERE name = 'gift';
SET timezone = 'Asia/Shanghai';
SET intervalstyle = 'sql_standard';
SET request.jwt.claims = '{"sub": "ada"}';
UPDATE quota_strategy SET enabled = true, valid_from = '2025-01-01 08:00:00+08', catch_up_window = '25:00:00' WHERE name = 'gift';
UPDATE quota_strategy SET condition = 'is-vip(4) or belong-to("o")', edit_note = 'ticket 42' WHERE name = 'gift';
RESET request.jwt.claims;
RESET timezone;
RESET intervalstyle;
UPDATE quota_strategy SET type = 'periodic', periodic_expr = '@daily', time_zone = 'Asia/Shanghai', state = 'archived', title = 'x' WHERE name = 'gift';
UPDATE quota_strategy SET title = 'x', edit_note = NULL WHERE name = 'gift';
UPDATE quota_strategy SET archived = false WHERE name = 'gift';
INSERT INTO quota_strategy (name, type, amount, model, condition, edit_note) VALUES ('gift', 'single', 1, 'm', 'true()', 'all') ON CONFLICT (name) DO UPDATE SET title = '', edit_note = excluded.edit_note;
SELECT version, changed_by, note, changes FROM strategy_history('gift');
SELECT version, role, own_session, said_by, note FROM public.history;
SELECT definition -> 'condition' AS condition, definition -> 'valid_from' AS valid_from, definition -> 'catch_up_window' AS "window" FROM public.history WHERE version = 3;
SELECT edit_note FROM quota_strategy;
-- What an edit changed is what is there: the last version is the row.
SELECT v.definition = quota_internal.strategy_definition(s) FROM quota_strategy s JOIN quota_strategy_version v ON (v.strategy_id, v.version) = (s.id, s.version);
-- Nobody else writes it.
INSERT INTO quota_strategy_version (strategy_id, version) VALUES (1, 1);
UPDATE quota_strategy_version SET note = 'x';
DELETE FROM quota_strategy_version;
-- An edit that is taken back is not kept.
BEGIN;
UPDATE quota_strategy SET amount = 30;
ROLLBACK;
SELECT count(*) FROM quota_strategy_version;
RESET ROLE;

-- Who is gained, who is lost.
SET ROLE regress_quota_viewer;
SELECT * FROM diff('gift', 1, 2);
SELECT * FROM diff('gift', 2, 1);
SELECT * FROM diff('gift', 1);
SELECT * FROM diff('gift');
SELECT * FROM diff('gift', v2 => 4);
SELECT * FROM diff_counts('gift', 1, 2);
SELECT * FROM diff_counts('gift', 2, 4);
SELECT * FROM diff('gift', 1, 99);
SELECT * FROM diff('nosuch');
SELECT * FROM strategy_history('nosuch');
SELECT * FROM quota_api.diff('gift', 1, 2);
SELECT gained, lost FROM quota_api.diff_counts('gift', 1, 2);
SELECT version, changes FROM quota_api.strategy_history('gift') LIMIT 2;
SELECT strategy_name, version, note FROM quota_api.strategy_versions ORDER BY version LIMIT 2;
RESET ROLE;
-- Where a balance is missing, nobody knows: as a scan, this one does not find the user.
UPDATE quota_strategy SET condition = 'is-vip(5) and quota-le("m", 5)';
INSERT INTO user_balance (user_id, gateway, balance, read_time) VALUES ('u5', 'history', 1, now());
SELECT * FROM diff('gift', 1);
-- Users of the site's own.
CREATE TABLE public.site_user (id text, grade integer);
INSERT INTO public.site_user VALUES ('s1', 1), ('s2', 3);
CREATE VIEW public.site_users AS SELECT id, NULL::text AS name, NULL::text AS github_username, NULL::text AS email, NULL::text AS phone, NULL::text AS github_star, grade AS vip,
	NULL::text AS org, NULL::timestamptz AS register_time, NULL::timestamptz AS access_time FROM public.site_user;
SELECT set_user_source('public.site_users');
-- A relation of others is not read as a superuser, nor by who may not.
SELECT * FROM diff('gift', 1, 2);
SET ROLE regress_quota_viewer;
SELECT * FROM diff('gift', 1, 2);
RESET ROLE;
GRANT SELECT ON public.site_users TO regress_quota_viewer;
SET ROLE regress_quota_viewer;
SELECT * FROM diff('gift', 1, 2);
RESET ROLE;
SELECT set_user_source(NULL);

-- What is restored brings its versions with it; where it brings none, the first edit keeps what was there.
INSERT INTO quota_strategy (name, type, amount, model, condition, enabled, version, schedule_since, create_time, update_time)
	VALUES ('old', 'single', 7, 'm', 'is-vip(1)', true, 3, '2020-01-01', '2020-01-01', '2021-01-01');
SELECT version, changed_by, changes FROM strategy_history('old');
UPDATE quota_strategy SET amount = 8 WHERE name = 'old';
SELECT version, changed_at = '2021-01-01' AS before, changed_by, changes FROM strategy_history('old');
SELECT * FROM diff('old');
-- One that is deleted is remembered, until another one has its id.
DELETE FROM quota_strategy WHERE name = 'old' RETURNING id \gset
SELECT version, changes FROM strategy_history('old');
SELECT * FROM diff('old');
INSERT INTO quota_strategy (id, name, type, amount, model, condition) VALUES (:id, 'next', 'single', 7, 'm', 'is-vip(1)');
SELECT version, changes FROM strategy_history('next');
SELECT count(*) FROM quota_strategy_version WHERE strategy_id = :id;
CREATE TABLE look_alike AS SELECT * FROM quota_strategy LIMIT 0;
CREATE TRIGGER record AFTER INSERT ON look_alike FOR EACH ROW EXECUTE FUNCTION quota_internal.record_version();
INSERT INTO look_alike (name, state) VALUES ('x', 'draft');

DROP TABLE look_alike, public.site_user CASCADE;
DROP VIEW public.history;
DELETE FROM quota_strategy;
TRUNCATE quota_strategy_version, user_balance;
DELETE FROM user_info;
DELETE FROM quota_gateway;
DROP OWNED BY regress_quota_operator, regress_quota_viewer;
DROP ROLE regress_quota_operator, regress_quota_viewer;
