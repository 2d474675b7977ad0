-- What operators decide about grants: resolve, retry and cancel, the trace of it, and who may.
\pset format unaligned
\pset tuples_only on
\pset null '~'
\set SHOW_CONTEXT never
SET client_min_messages = warning;
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET quota_manager.incremental_scans = off;
SET search_path = quota_manager, public;

CREATE ROLE regress_quota_viewer;
CREATE ROLE regress_quota_operator;
CREATE ROLE regress_quota_admin;
CREATE ROLE regress_quota_worker;
SELECT grant_access('regress_quota_viewer', 'viewer'), grant_access('regress_quota_operator', 'operator'),
	grant_access('regress_quota_admin', 'admin'), grant_access('regress_quota_worker', 'worker');

INSERT INTO quota_gateway (name, dialect, base_url, doubt_policy, sole_writer) VALUES
	('holds', 'zgsm', 'http://gateway.example', 'hold', false), ('resends', 'zgsm', 'http://gateway.example', 'resend', false),
	('reconciles', 'zgsm', 'http://gateway.example', 'reconcile', true);
-- Runs that were delivered.
INSERT INTO quota_run (id, strategy_id, state, first_grant_id, last_grant_id, start_time, finish_time)
SELECT i, -1, 'done', i * 100, i * 100 + 99, now(), now() FROM generate_series(1, 9) i;

-- A grant with everything set that a decision has to do with.
CREATE FUNCTION public.decision_test_grant(id bigint, status text, gateway text DEFAULT 'holds', due timestamptz DEFAULT 'infinity',
	balance numeric DEFAULT NULL, balance_time timestamptz DEFAULT NULL, run bigint DEFAULT NULL) RETURNS bigint LANGUAGE sql AS $$
	INSERT INTO quota_manager.quota_execute (id, strategy_id, user_id, scheduled_time, run_id, strategy_version, amount, model, gateway, batch_number,
		status, claim_number, attempts, last_status, last_error, next_attempt_time, doubt_time, balance_before, balance_time)
	VALUES (id, -1, 'u' || id, '-infinity', nullif(coalesce(run, id / 100), 0), 1, 5, 'm', gateway, '', status, 3, 2, 503, 'no answer',
		due, CASE WHEN status = 'in_doubt' THEN now() + interval '1 hour' END, balance, balance_time)
	RETURNING id;
$$;
-- Grants as a decision left them, and the trace of it.
CREATE VIEW public.decision_test AS
SELECT id, status, claim_number, attempts, CASE WHEN NOT isfinite(next_attempt_time) THEN next_attempt_time::text
	WHEN next_attempt_time <= clock_timestamp() THEN 'due' ELSE 'later' END AS next, doubt_time IS NOT NULL AS doubted, balance_before,
	balance_time IS NOT NULL AS balance_read, update_time = now() AS untouched, last_error
FROM quota_manager.quota_execute;
CREATE VIEW public.decision_test_trace AS
SELECT grant_id, action, status_before, status_after, role, session_role = session_user AS own_session, note, gateway, strategy_id, revision, user_id,
	scheduled_time, decision_time BETWEEN now() AND clock_timestamp() AS now
FROM quota_manager.grant_decision;
GRANT SELECT ON public.decision_test, public.decision_test_trace TO regress_quota_operator;
-- What a statement answers, or its error with everything that it says. What it did is undone.
CREATE FUNCTION public.decision_test_try(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	answer text;
	detail text;
	hint text;
BEGIN
	EXECUTE statement INTO answer;
	RAISE assert_failure;
EXCEPTION WHEN assert_failure THEN
	RETURN coalesce(nullif(answer, ''), 'done');
WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	RETURN concat_ws(E'\n  ', SQLSTATE || ' ' || SQLERRM, nullif(detail, ''), nullif(hint, ''));
END
$$;

--
-- One grant.
--

-- In doubt: completed, or sent again. The run of the second is looked at again, that of the first is not.
SELECT decision_test_grant(100, 'in_doubt'), decision_test_grant(200, 'in_doubt', balance => 12.5, balance_time => now());
SET ROLE regress_quota_operator;
BEGIN;
SELECT resolve(100, true, 'in their log'), resolve(200, false);
SELECT * FROM decision_test_trace ORDER BY grant_id;
COMMIT;
RESET ROLE;
SELECT * FROM decision_test ORDER BY id;
SELECT id, undelivered FROM quota_run WHERE id <= 2 ORDER BY id;
-- One that its gateway's policy would have acted on is open no more: the courier must look at its run anew.
SELECT decision_test_grant(300, 'in_doubt', 'resends', now());
SELECT resolve(300, true) IS NULL;
SELECT id, undelivered FROM quota_run WHERE id = 3;

-- Retry: what failed is sent again; what waits is due; what is in doubt is left to the policy of its gateway, as that is now.
SELECT decision_test_grant(400, 'failed', due => '-infinity', balance => 1, balance_time => now()), decision_test_grant(401, 'pending', due => now() + interval '1 hour'),
	decision_test_grant(402, 'in_doubt', 'resends'),
	decision_test_grant(404, 'in_doubt', 'resends', now() + interval '1 hour');
BEGIN;
SELECT retry(400, 'mended'), retry(401, 'cannot wait'), retry(402), retry(id => 404, note => NULL);
SELECT grant_id, action, status_before, status_after, note, now FROM decision_test_trace WHERE grant_id >= 400 ORDER BY grant_id;
COMMIT;
SELECT id, status, claim_number, attempts, next, doubted, balance_before, balance_read, untouched FROM decision_test WHERE id >= 400 ORDER BY id;
SELECT count(DISTINCT last_error), bool_and(last_error = 'retried by ' || session_user || coalesce(': ' || nullif(note, ''), ''))
FROM decision_test JOIN grant_decision ON grant_id = decision_test.id WHERE grant_id >= 400;
SELECT id, undelivered FROM quota_run WHERE id = 4;

-- Cancel. Of what the courier knows about the run, a part is true no more: its row must change.
SELECT decision_test_grant(500, 'pending', due => '-infinity'), decision_test_grant(501, 'pending', due => now() + interval '1 hour', run => 0);
UPDATE quota_run SET undelivered = true WHERE id = 5;
SELECT xmin AS before FROM quota_run WHERE id = 5 \gset
SELECT cancel(500, 'a "mistake"; 技术'), cancel(501);
SELECT id, status, claim_number, attempts, next, untouched, last_error = 'cancelled by ' || session_user || CASE id WHEN 500 THEN ': a "mistake"; 技术' ELSE '' END
FROM decision_test WHERE id >= 500 ORDER BY id;
SELECT undelivered, xmin::text <> :'before' AS changed FROM quota_run WHERE id = 5;

-- What cannot be done, for each status.
SELECT decision_test_grant(600 + n, status, due => '-infinity') FROM unnest(ARRAY['pending', 'processing', 'completed', 'failed', 'in_doubt', 'cancelled']) WITH ORDINALITY s (status, n);
SELECT count(*) AS decisions FROM grant_decision \gset
SELECT e.status, call, decision_test_try(format('SELECT quota_manager.' || call, e.id))
FROM quota_execute e, unnest(ARRAY['resolve(%s, true)', 'resolve(%s, false)', 'retry(%s)', 'cancel(%s)']) WITH ORDINALITY c (call, n) WHERE e.id >= 600 ORDER BY e.id, n;
SELECT count(*) = :decisions FROM grant_decision;
-- In doubt where the policy of the gateway cannot act: no balance from before, none that was ever read, one from before the policy was set, no gateway.
SELECT decision_test_grant(700, 'in_doubt', 'reconciles'), decision_test_grant(701, 'in_doubt', 'reconciles', due => now() + interval '1 hour', balance => 7, balance_time => now()),
	decision_test_grant(702, 'in_doubt', 'reconciles', balance => 7, balance_time => now()), decision_test_grant(703, 'in_doubt', 'nowhere');
SELECT decision_test_try(format('SELECT quota_manager.retry(%s)', id)) FROM generate_series(700, 703) id;
-- What was not written by a scan has no run in which it would be found.
SELECT decision_test_grant(710, 'in_doubt', 'resends', run => 0), decision_test_grant(711, 'failed', run => 0), decision_test_grant(712, 'in_doubt', run => 0);
SELECT decision_test_try('SELECT quota_manager.' || call) FROM unnest(ARRAY['resolve(710, false)', 'retry(710)', 'retry(711)', 'resolve(712, true)']) call;
-- What was in doubt from the start went out under another number, if it did; once decided, it is a grant like others.
SELECT decision_test_grant(720, 'in_doubt', 'resends');
UPDATE quota_execute SET maybe_granted_before = true WHERE id = 720;
SELECT decision_test_try('SELECT quota_manager.retry(720)');
SELECT resolve(720, false);
SELECT status, maybe_granted_before FROM quota_execute WHERE id = 720;
UPDATE quota_execute SET status = 'in_doubt', doubt_time = create_time WHERE id = 720;
SELECT retry(720);
-- What is not there, or not given.
SELECT decision_test_try('SELECT quota_manager.' || call) FROM unnest(ARRAY['resolve(99999, true)', 'retry(99999)', 'cancel(-1)', 'resolve(NULL::bigint, true)', 'resolve(1, NULL)',
	'retry(NULL::bigint)', 'cancel(NULL::bigint)', 'resolve(ARRAY[1], NULL)']) call;

--
-- Many.
--
TRUNCATE quota_execute, grant_decision;
UPDATE quota_run SET undelivered = false;
SELECT count(decision_test_grant(i, 'in_doubt')) FROM generate_series(100, 899, 10) i;
SET client_min_messages = notice;
-- Nothing.
SELECT resolve('{}'::bigint[], true), resolve(NULL::bigint[], false), resolve(ARRAY[NULL]::bigint[], true), retry('{}'::bigint[]), cancel(NULL::bigint[]);
SELECT resolve(array_agg(id), true, 'checked') FROM quota_execute WHERE gateway = 'nowhere' AND status = 'in_doubt';
-- Each once, whatever the array looks like.
SELECT resolve(ARRAY[110, NULL, 110, 120, 110, NULL]::bigint[], true, 'twice');
SELECT resolve(ARRAY[[130, 140], [150, 130]]::bigint[], true), resolve('[5:6]={160,170}'::bigint[], false);
SELECT grant_id, action, note FROM decision_test_trace ORDER BY grant_id;
SELECT id, undelivered FROM quota_run WHERE undelivered;
-- The others are left alone, and counted once.
SELECT resolve(ARRAY[110, 180, 99999, 160, 120, NULL, 99999]::bigint[], true, 'some');
SELECT resolve(ARRAY[-9223372036854775808, 9223372036854775807, 0, 190], false);
SELECT resolve(ARRAY[110], true);
-- All of a kind.
SELECT resolve(array_agg(id), false, 'outage') FROM quota_execute WHERE gateway = 'holds' AND status = 'in_doubt' AND id < 800;
SELECT id, undelivered FROM quota_run ORDER BY id;
SELECT status, next, attempts, doubted, count(*), min(last_error) = 'resolved as not applied by ' || session_user || ': outage' FROM decision_test
WHERE id BETWEEN 200 AND 899 GROUP BY status, next, attempts, doubted ORDER BY status;
SELECT cancel(array_agg(id), 'given up') FROM quota_execute WHERE id < 700;
SELECT retry(array_agg(id)) FROM quota_execute;
UPDATE quota_gateway SET doubt_policy = 'resend' WHERE name = 'holds';
UPDATE quota_execute SET status = 'failed' WHERE id BETWEEN 700 AND 740;
SELECT retry(array_agg(id ORDER BY id DESC), 'again') FROM quota_execute WHERE id >= 700;
SELECT status, next, attempts, doubted, count(*) FROM decision_test WHERE id >= 700 GROUP BY status, next, attempts, doubted ORDER BY status, next;
SELECT action, status_before, status_after, count(*) FROM grant_decision GROUP BY action, status_before, status_after ORDER BY action, status_before;
SELECT count(*) FROM grant_decision d JOIN quota_execute e ON e.id = d.grant_id
WHERE (d.user_id, d.strategy_id, d.scheduled_time, d.revision, d.gateway) IS DISTINCT FROM (e.user_id, e.strategy_id, e.scheduled_time, e.revision, e.gateway);
SET client_min_messages = warning;

-- In a transaction that keeps one snapshot they work; in one that cannot write they say so.
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT cancel(750);
ROLLBACK;
BEGIN READ ONLY;
SELECT cancel(750);
ROLLBACK;

--
-- A grant that was cancelled counts no more for the cap, and is not granted again.
--
TRUNCATE quota_execute, quota_run, grant_decision;
UPDATE quota_gateway SET is_default = true WHERE name = 'holds';
INSERT INTO user_info (id) VALUES ('u1'), ('u2');
SET quota_manager.schedule_clock = '2025-07-01 08:00:00+00';
INSERT INTO quota_strategy (name, type, amount, model, condition) VALUES ('decision-once', 'single', 5, 'm', 'true()');
INSERT INTO quota_strategy (name, type, amount, model, periodic_expr, condition, max_exec_per_user) VALUES ('decision-hourly', 'periodic', 5, 'm', '0 * * * *', 'true()', 1);
SET quota_manager.schedule_clock = '2025-07-01 09:00:00+00';
SELECT strategy, granted FROM scan();
SELECT cancel(array_agg(id)) FROM quota_execute WHERE user_id = 'u1';
SELECT strategy, granted, already_granted, capped FROM scan() ORDER BY strategy;
SET quota_manager.schedule_clock = '2025-07-01 10:00:00+00';
SELECT strategy, granted, already_granted, capped FROM scan() ORDER BY strategy;
SELECT user_id, scheduled_time, status FROM quota_execute ORDER BY user_id, scheduled_time;
RESET quota_manager.schedule_clock;

--
-- Who may.
--
TRUNCATE quota_execute, quota_run, grant_decision;
INSERT INTO quota_run (id, strategy_id, state, first_grant_id, last_grant_id, start_time, finish_time) VALUES (1, -1, 'done', 100, 199, now(), now());
SELECT count(decision_test_grant(i, 'in_doubt')) FROM generate_series(100, 109) i;
CREATE FUNCTION public.decision_test_borrowed(id bigint) RETURNS void LANGUAGE sql SECURITY DEFINER BEGIN ATOMIC SELECT quota_manager.resolve(id, true, 'borrowed'); END;
SET ROLE regress_quota_admin;
SELECT resolve(100, true, 'by the admin');
SET ROLE regress_quota_operator;
SELECT resolve(ARRAY[101, 102], true, 'by the operator');
-- Who decided is who acts, also where a function lends the rights.
SELECT public.decision_test_borrowed(103);
-- Nobody writes, changes or takes back a trace, and whoever calls what writes it does so under their own name, now.
INSERT INTO grant_decision (grant_id, strategy_id, revision, user_id, scheduled_time, gateway, action, status_before, status_after, role, session_role, note)
	VALUES (104, -1, 0, 'u104', '-infinity', 'holds', 'resolve_applied', 'in_doubt', 'completed', 'regress_quota_admin', 'regress_quota_admin', 'forged');
UPDATE grant_decision SET role = 'regress_quota_admin';
DELETE FROM grant_decision;
TRUNCATE grant_decision;
ALTER TABLE grant_decision DISABLE TRIGGER ALL;
SELECT quota_internal.record_decisions(ARRAY[ROW(1, '2000-01-01', 104, -1, 0, 'u104', '-infinity', 'holds', 'resolve_applied', 'in_doubt', 'completed', 'regress_quota_admin', 'regress_quota_admin', 'forged', NULL)::grant_decision]);
\set VERBOSITY terse
SELECT quota_internal.decide('forgive', ARRAY[104], 'no such action');
\set VERBOSITY default
SET ROLE regress_quota_admin;
DELETE FROM grant_decision;
SET ROLE regress_quota_viewer;
SELECT grant_id, action, role, note, decision_time > now() - interval '1 hour' FROM grant_decision ORDER BY grant_id;
SELECT resolve(105, true);
SELECT retry(105);
SELECT cancel(ARRAY[105]);
SET ROLE regress_quota_worker;
SELECT count(*) FROM grant_decision;
SELECT resolve(105, true);
SELECT resolve(ARRAY[105], true);
SELECT retry(105);
SELECT retry(ARRAY[105]);
SELECT cancel(105);
SELECT cancel(ARRAY[105]);
SELECT quota_internal.decide('cancel', ARRAY[105], '');
SELECT quota_internal.record_decisions(NULL);
RESET ROLE;
SELECT status, count(*) FROM quota_execute GROUP BY status ORDER BY status;

--
-- By hand, nothing is changed at a gateway where a change would prove that a grant arrived.
--
SELECT decision_test_try('SELECT quota_manager.' || call) FROM unnest(ARRAY[$$gateway_delta('u1', 5, 'a present', 'reconciles')$$, $$gateway_refresh('u1', 5, 'reconciles')$$]) call;
BEGIN READ ONLY;
SELECT gateway_delta('u1', 5, 'a present', 'reconciles');
ROLLBACK;

DROP FUNCTION public.decision_test_grant(bigint, text, text, timestamptz, numeric, timestamptz, bigint), public.decision_test_try(text), public.decision_test_borrowed(bigint);
DROP VIEW public.decision_test, public.decision_test_trace;
TRUNCATE quota_execute, quota_run, grant_decision;
DELETE FROM quota_strategy;
DELETE FROM user_info;
DELETE FROM quota_gateway;
DELETE FROM quota_installation;
DROP OWNED BY regress_quota_viewer, regress_quota_operator, regress_quota_admin, regress_quota_worker;
DROP ROLE regress_quota_viewer, regress_quota_operator, regress_quota_admin, regress_quota_worker;
