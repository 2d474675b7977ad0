-- The functions of the API.  Those that have an effect are VOLATILE, for which PostgREST wants POST: GET has none.  What could
-- not be done comes back in rows, since warnings do not reach clients.  Each maps its errors: see raise_http_error.

CREATE FUNCTION quota_api.scan(strategy text DEFAULT NULL)
RETURNS TABLE (id integer, strategy_name text, done boolean, status text, obstacle text, scheduled_time timestamptz, matched bigint,
	granted bigint, already_granted bigint, capped bigint, unknown_balance bigint, elapsed interval)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s'
AS $$
#variable_conflict use_column
DECLARE
	detail text;
	hint text;
BEGIN
	RETURN QUERY
	SELECT k.id, s.strategy, o.status = 'done', o.status, coalesce(s.error, s.note), s.scheduled_time, s.matched, s.granted, s.already_granted,
		s.capped, s.unknown_balance, s.elapsed
	FROM quota_manager.scan(scan.strategy) s
	LEFT JOIN quota_manager.quota_strategy k ON k.name = s.strategy
	CROSS JOIN LATERAL (SELECT CASE
		WHEN s.error IS NOT NULL THEN 'failed'
		WHEN s.note LIKE 'left out: %' THEN 'left out'
		WHEN s.unknown_balance > 0 THEN 'incomplete'
		-- A strategy that was not run took no time.
		WHEN s.note IS NOT NULL AND s.elapsed = interval '0' THEN 'not due'
		ELSE 'done' END) o (status);
EXCEPTION WHEN query_canceled OR OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	PERFORM quota_internal.raise_http_error(SQLSTATE, SQLERRM, detail, hint);
	RAISE;
END
$$;
COMMENT ON FUNCTION quota_api.scan(text) IS
'Run every strategy that is due, or the named one if it is
One row per run, in one transaction: status is done, incomplete (some balances are missing), left out (another transaction has it locked), not due or failed, and obstacle says why. For operators.';

CREATE FUNCTION quota_api.resolve(ids bigint[], applied boolean, note text DEFAULT '')
RETURNS TABLE (id bigint, done boolean, status text, obstacle text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s'
AS $$
DECLARE
	detail text;
	hint text;
BEGIN
	RETURN QUERY SELECT d.* FROM quota_internal.decide_listed(CASE applied WHEN true THEN 'resolve_applied' WHEN false THEN 'resolve_not_applied' END, ids, note) d;
EXCEPTION WHEN query_canceled OR OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	PERFORM quota_internal.raise_http_error(SQLSTATE, SQLERRM, detail, hint);
	RAISE;
END
$$;
COMMENT ON FUNCTION quota_api.resolve(bigint[], boolean, text) IS
'Decide about grants in doubt
applied true: they are completed; false: they are sent again. One row per id: whether it was done, the status now, and what prevented it. note says why, and is kept in decisions. For operators.';

CREATE FUNCTION quota_api.retry(ids bigint[], note text DEFAULT '')
RETURNS TABLE (id bigint, done boolean, status text, obstacle text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s'
AS $$
DECLARE
	detail text;
	hint text;
BEGIN
	RETURN QUERY SELECT d.* FROM quota_internal.decide_listed('retry', ids, note) d;
EXCEPTION WHEN query_canceled OR OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	PERFORM quota_internal.raise_http_error(SQLSTATE, SQLERRM, detail, hint);
	RAISE;
END
$$;
COMMENT ON FUNCTION quota_api.retry(bigint[], text) IS
'Send grants again that failed, or wait for a later time
One row per id: whether it was done, the status now, and what prevented it. note says why, and is kept in decisions. For operators.';

CREATE FUNCTION quota_api.cancel(ids bigint[], note text DEFAULT '')
RETURNS TABLE (id bigint, done boolean, status text, obstacle text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s'
AS $$
DECLARE
	detail text;
	hint text;
BEGIN
	RETURN QUERY SELECT d.* FROM quota_internal.decide_listed('cancel', ids, note) d;
EXCEPTION WHEN query_canceled OR OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	PERFORM quota_internal.raise_http_error(SQLSTATE, SQLERRM, detail, hint);
	RAISE;
END
$$;
COMMENT ON FUNCTION quota_api.cancel(bigint[], text) IS
'Cancel grants that are pending
They are not sent, and not granted again for their firing. One row per id: whether it was done, the status now, and what prevented it. note says why, and is kept in decisions. For operators.';

CREATE FUNCTION quota_api.enable(ids integer[])
RETURNS TABLE (id integer, done boolean, status text, obstacle text)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s'
AS $$
DECLARE
	switched integer[] := ARRAY[]::integer[];
	wanted integer;
	detail text;
	hint text;
BEGIN
	FOR wanted IN SELECT l FROM quota_internal.listed_strategies(ids) l LOOP
		UPDATE quota_manager.quota_strategy s SET enabled = true WHERE s.id = wanted AND NOT s.enabled AND NOT s.archived;
		IF FOUND THEN
			switched := switched || wanted;
		END IF;
	END LOOP;
	RETURN QUERY SELECT s.* FROM quota_internal.switched_strategies(ids, switched, 'archived') s;
EXCEPTION WHEN query_canceled OR OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	PERFORM quota_internal.raise_http_error(SQLSTATE, SQLERRM, detail, hint);
	RAISE;
END
$$;
COMMENT ON FUNCTION quota_api.enable(integer[]) IS
'Enable strategies
Firings that fell due while they were disabled are skipped. One row per id: whether it was done, the status now (enabled, disabled, archived), and what prevented it. For operators.';

CREATE FUNCTION quota_api.disable(ids integer[])
RETURNS TABLE (id integer, done boolean, status text, obstacle text)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s'
AS $$
DECLARE
	switched integer[] := ARRAY[]::integer[];
	wanted integer;
	detail text;
	hint text;
BEGIN
	FOR wanted IN SELECT l FROM quota_internal.listed_strategies(ids) l LOOP
		UPDATE quota_manager.quota_strategy s SET enabled = false WHERE s.id = wanted AND s.enabled;
		IF FOUND THEN
			switched := switched || wanted;
		END IF;
	END LOOP;
	RETURN QUERY SELECT s.* FROM quota_internal.switched_strategies(ids, switched, NULL) s;
EXCEPTION WHEN query_canceled OR OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	PERFORM quota_internal.raise_http_error(SQLSTATE, SQLERRM, detail, hint);
	RAISE;
END
$$;
COMMENT ON FUNCTION quota_api.disable(integer[]) IS
'Disable strategies
They grant nothing until they are enabled; what was granted is still delivered. One row per id: whether it was done, the status now (enabled, disabled, archived), and what prevented it. For operators.';

CREATE FUNCTION quota_api.archive(ids integer[])
RETURNS TABLE (id integer, done boolean, status text, obstacle text)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s'
AS $$
DECLARE
	switched integer[] := ARRAY[]::integer[];
	wanted integer;
	detail text;
	hint text;
BEGIN
	FOR wanted IN SELECT l FROM quota_internal.listed_strategies(ids) l LOOP
		UPDATE quota_manager.quota_strategy s SET archived = true WHERE s.id = wanted AND NOT s.archived;
		IF FOUND THEN
			switched := switched || wanted;
		END IF;
	END LOOP;
	RETURN QUERY SELECT s.* FROM quota_internal.switched_strategies(ids, switched, NULL) s;
EXCEPTION WHEN query_canceled OR OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	PERFORM quota_internal.raise_http_error(SQLSTATE, SQLERRM, detail, hint);
	RAISE;
END
$$;
COMMENT ON FUNCTION quota_api.archive(integer[]) IS
'Put strategies out of use for good
They stay as proof of what they granted; PATCH archived to false takes one back. One row per id: whether it was done, the status now (enabled, disabled, archived), and what prevented it. For operators.';

CREATE FUNCTION quota_api.pause()
RETURNS TABLE (id text, done boolean, status text, obstacle text)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s'
AS $$
DECLARE
	detail text;
	hint text;
	are_paused boolean;
BEGIN
	PERFORM quota_internal.check_transaction('workers are paused');
	are_paused := quota_internal.workers_are_paused();
	PERFORM quota_manager.stop_workers();
	RETURN QUERY SELECT 'workers', NOT are_paused, 'paused', CASE WHEN are_paused THEN 'paused already' END;
EXCEPTION WHEN query_canceled OR OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	PERFORM quota_internal.raise_http_error(SQLSTATE, SQLERRM, detail, hint);
	RAISE;
END
$$;
COMMENT ON FUNCTION quota_api.pause() IS
'Pause the background workers
No strategy runs by itself and nothing is delivered until /rpc/resume, also after a restart of the server. One row: whether it was done, the status now, and what prevented it. For administrators.';

CREATE FUNCTION quota_api.resume(policy text DEFAULT NULL)
RETURNS TABLE (id text, done boolean, status text, obstacle text)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s'
AS $$
DECLARE
	detail text;
	hint text;
	are_paused boolean;
BEGIN
	PERFORM quota_internal.check_transaction('workers are resumed');
	IF policy IS NOT NULL THEN
		PERFORM quota_manager.resume(policy);
		RETURN QUERY SELECT 'copy', true, 'resumed', NULL::text;
	ELSIF quota_internal.is_copy() THEN
		RETURN QUERY SELECT 'copy', false, 'waits', 'this database is a copy: say policy unchanged_since_dump or may_have_run';
	END IF;
	are_paused := quota_internal.workers_are_paused();
	IF are_paused THEN
		PERFORM quota_manager.start_workers();
	END IF;
	RETURN QUERY SELECT 'workers', are_paused, 'enabled', CASE WHEN NOT are_paused THEN 'enabled already' END;
EXCEPTION WHEN query_canceled OR OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	PERFORM quota_internal.raise_http_error(SQLSTATE, SQLERRM, detail, hint);
	RAISE;
END
$$;
COMMENT ON FUNCTION quota_api.resume(text) IS
'Resume the background workers, and a copy of a database
Ends /rpc/pause. A restored dump scans and delivers nothing until policy says what the original did since: unchanged_since_dump (nothing was scanned or delivered) or may_have_run. One row for each: whether it was done, the status now, and what prevented it. For administrators.';

CREATE FUNCTION quota_api.upcoming(strategy text DEFAULT NULL, n integer DEFAULT 10)
RETURNS TABLE (strategy_name text, firing timestamptz, local_time timestamp, time_zone text, utc_time timestamp, note text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	detail text;
	hint text;
BEGIN
	RETURN QUERY SELECT u.* FROM quota_manager.upcoming(strategy, n) u;
EXCEPTION WHEN query_canceled OR OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	PERFORM quota_internal.raise_http_error(SQLSTATE, SQLERRM, detail, hint);
	RAISE;
END
$$;
COMMENT ON FUNCTION quota_api.upcoming(text, integer) IS
'The next n firings, of one strategy or of all in use
local_time is that of time_zone, in which the schedule is read; note says what a change of the clock does, or why none comes.';

CREATE FUNCTION quota_api.check_condition(
	expression text,
	OUT valid boolean,
	OUT condition quota_manager.condition,
	OUT sqlstate text,
	OUT message text,
	OUT detail text,
	OUT hint text,
	OUT "position" integer)
LANGUAGE sql STABLE
BEGIN ATOMIC
	SELECT c.* FROM quota_manager.check_condition(expression) c;
END;
COMMENT ON FUNCTION quota_api.check_condition(text) IS
'Check a condition, names and types included
What is wrong, where (in characters, from 1), and what to write instead; condition is its canonical text.';

CREATE FUNCTION quota_api.check_schedule(
	expression text,
	time_zone text DEFAULT 'UTC',
	n integer DEFAULT 5,
	OUT valid boolean,
	OUT schedule quota_manager.cron,
	OUT description text,
	OUT firings timestamptz[],
	OUT sqlstate text,
	OUT message text,
	OUT detail text,
	OUT hint text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	firing timestamptz := quota_manager.schedule_now();
BEGIN
	IF expression IS NULL OR expression = '' THEN
		RAISE EXCEPTION 'empty schedule' USING ERRCODE = 'invalid_parameter_value', HINT = 'Write one such as 0 8 * * *.';
	END IF;
	schedule := expression::quota_manager.cron;
	description := quota_manager.describe(schedule);
	firings := '{}';
	FOR i IN 1 .. least(n, 1000) LOOP
		firing := quota_manager.next_firing(schedule, firing, time_zone);
		EXIT WHEN firing IS NULL;
		firings := firings || firing;
	END LOOP;
	valid := true;
EXCEPTION WHEN data_exception THEN
	GET STACKED DIAGNOSTICS check_schedule.sqlstate = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	valid := false;
	schedule := NULL;
	description := NULL;
	firings := NULL;
	detail := nullif(detail, '');
	hint := nullif(hint, '');
END
$$;
COMMENT ON FUNCTION quota_api.check_schedule(text, text, integer) IS
'Check a cron schedule
What is wrong and what to write instead, or what it says in plain English and when it fires next, n times (at most 1000). time_zone is the one it is read in, unless it begins with CRON_TZ=.';

CREATE FUNCTION quota_api.describe(schedule quota_manager.cron) RETURNS text
LANGUAGE sql STABLE
RETURN quota_manager.describe(schedule);
COMMENT ON FUNCTION quota_api.describe(quota_manager.cron) IS
'A cron schedule in plain English
Such as: every hour from 09:00 to 17:00, Monday to Friday.';

CREATE FUNCTION quota_api.preview(condition quota_manager.condition DEFAULT NULL, strategy text DEFAULT NULL) RETURNS SETOF quota_api.users
LANGUAGE sql STABLE
BEGIN ATOMIC
	-- Inlined by the planner, so that filters and limits reach the indexes. As a relation, whether it is this half does
	-- not keep the planner from dropping balances that no condition asks for. Where code of others runs it is the other half,
	-- and the planner, which would run it too, is not shown the condition.
	SELECT u.* FROM quota_api.users u
	CROSS JOIN (SELECT 1 WHERE strategy IS NULL AND quota_internal.only_built_in(condition) IS NOT NULL AND quota_internal.has_own_users() OFFSET 0) h
	LEFT JOIN quota_manager.known_balance b ON b.user_id OPERATOR(pg_catalog.=) u.id
	WHERE ROW(u.id, u.name, u.github_username, u.email, u.phone, u.github_star, u.vip, u.org, u.register_time, u.access_time, b.balances)::quota_manager.subject
		OPERATOR(quota_manager.@@) quota_internal.only_built_in(condition)
	UNION ALL
	SELECT p.* FROM quota_internal.previewed_users(condition, strategy) p
	WHERE (strategy IS NULL AND quota_internal.only_built_in(condition) IS NOT NULL AND quota_internal.has_own_users()) IS NOT TRUE;
END;
COMMENT ON FUNCTION quota_api.preview(quota_manager.condition, text) IS
'Users who meet a condition, or whom a strategy would grant to
Writes nothing. Give condition (see who meets it now) or strategy (its name: who would be granted something if it ran for its next firing; what was granted already and caps are considered). The rows are users: filter, order, page and count them.';

CREATE FUNCTION quota_api.forecast(strategy text DEFAULT NULL)
RETURNS TABLE (id integer, strategy_name text, firing timestamptz, matched bigint, granted bigint, already_granted bigint, capped bigint,
	unknown_balance bigint, amount numeric, total_amount numeric, model text, gateway text, note text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
	stop_note text;
	asked quota_manager.quota_strategy;
	detail text;
	hint text;
BEGIN
	IF forecast.strategy IS NOT NULL THEN
		PERFORM quota_internal.strategy_named(forecast.strategy);
	END IF;
	FOR asked IN SELECT s.* FROM quota_manager.quota_strategy s
		WHERE CASE WHEN forecast.strategy IS NULL THEN s.enabled AND NOT s.archived ELSE s.name = forecast.strategy END ORDER BY s.id
	LOOP
		id := asked.id;
		strategy_name := asked.name;
		amount := asked.amount;
		model := asked.model;
		gateway := quota_manager.gateway_of(asked.model);
		firing := NULL;
		note := (SELECT string_agg(DISTINCT d.reason, '; ') FROM quota_manager.strategy_due d WHERE d.strategy_id = asked.id);
		BEGIN
			firing := quota_internal.next_firing_of(asked.id);
			SELECT coalesce(sum(p.users) FILTER (WHERE p.reason NOT IN ('balance unknown', 'id too long')), 0), coalesce(sum(p.users) FILTER (WHERE p.reason = 'granted'), 0),
					coalesce(sum(p.users) FILTER (WHERE p.reason = 'already granted'), 0), coalesce(sum(p.users) FILTER (WHERE p.reason = 'capped'), 0),
					coalesce(sum(p.users) FILTER (WHERE p.reason = 'balance unknown'), 0), coalesce(sum(p.amount) FILTER (WHERE p.reason = 'granted'), 0),
					string_agg(p.note, '; ') FILTER (WHERE p.reason IN ('over a ceiling', 'stopped by the breaker'))
				INTO matched, granted, already_granted, capped, unknown_balance, total_amount, stop_note
				FROM quota_manager.preview(asked.name) p;
			note := nullif(concat_ws('; ', stop_note, note), '');
		EXCEPTION WHEN undefined_table THEN
			-- That of the users is of all.
			RAISE;
		WHEN OTHERS THEN
			-- The error of one strategy must not hide the others.
			matched := NULL;
			granted := NULL;
			already_granted := NULL;
			capped := NULL;
			unknown_balance := NULL;
			total_amount := NULL;
			note := SQLERRM;
		END;
		RETURN NEXT;
	END LOOP;
EXCEPTION WHEN query_canceled OR OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	PERFORM quota_internal.raise_http_error(SQLSTATE, SQLERRM, detail, hint);
	RAISE;
END
$$;
COMMENT ON FUNCTION quota_api.forecast(text) IS
'What strategies would grant if they ran now
Of one strategy, or of all in use: for its next firing, which users match, and how many would be granted something, were already, have reached max_exec_per_user, or have a missing balance. Writes nothing; evaluates every user.';

CREATE FUNCTION quota_api.explain(strategy text, user_id text)
RETURNS TABLE (step integer, question text, answer text, holds boolean)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	detail text;
	hint text;
BEGIN
	IF user_id IS NULL THEN
		RAISE EXCEPTION 'the user must be given' USING ERRCODE = 'null_value_not_allowed';
	END IF;
	RETURN QUERY SELECT e.* FROM quota_internal.explained_grant(quota_internal.strategy_named(strategy), user_id) e;
EXCEPTION WHEN query_canceled OR OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	PERFORM quota_internal.raise_http_error(SQLSTATE, SQLERRM, detail, hint);
	RAISE;
END
$$;
COMMENT ON FUNCTION quota_api.explain(text, text) IS
'Why a user gets something of a strategy, or does not
Questions in order, with answers; holds is whether the answer is in favour. The parts of the condition are answered one by one. Writes nothing.';

CREATE FUNCTION quota_api.health(
	OUT status text,
	OUT version text,
	OUT in_recovery boolean,
	OUT is_copy boolean,
	OUT workers_paused boolean,
	OUT scheduler_running boolean,
	OUT courier_running boolean,
	OUT gateways bigint,
	OUT gateways_not_open bigint,
	OUT oldest_undelivered interval,
	OUT problems text[])
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET jit = off SET quota_manager.pinned_statistics = on
AS $$
DECLARE
	detail text;
	hint text;
BEGIN
	PERFORM quota_internal.pin_statistics();
	version := (SELECT e.extversion FROM pg_extension e WHERE e.extname = 'quota_manager');
	in_recovery := pg_is_in_recovery();
	is_copy := quota_internal.is_copy();
	workers_paused := quota_internal.workers_are_paused();
	SELECT count(*) FILTER (WHERE w.kind = 'scheduler') > 0, count(*) FILTER (WHERE w.kind = 'courier') > 0
		INTO scheduler_running, courier_running FROM quota_internal.list_workers() w;
	SELECT count(*), count(*) FILTER (WHERE g.state <> 'open') INTO gateways, gateways_not_open FROM quota_manager.quota_gateway g;
	oldest_undelivered := greatest(clock_timestamp() - (SELECT min(r.start_time) FROM quota_manager.quota_run r WHERE r.undelivered), interval '0');
	problems := array_remove(ARRAY[
			CASE WHEN is_copy THEN 'this database is a copy that waits for resume' END,
			CASE WHEN workers_paused THEN 'workers are paused' END,
			CASE WHEN in_recovery THEN 'this server is a standby' END]
		|| ARRAY(SELECT format('gateway "%s" is %s', g.name, g.state) FROM quota_manager.quota_gateway g WHERE g.state <> 'open' ORDER BY g.name)
		|| ARRAY(SELECT format('balances of gateway "%s" are suspended', s.gateway) FROM quota_manager.balance_suspension s ORDER BY s.gateway)
		-- A strategy that an operator paused is like one that was disabled; one that the breaker stopped waits for somebody.
		|| ARRAY(SELECT CASE p.cause WHEN 'breaker' THEN format('the breaker stopped %s', p.what) ELSE format('%s is paused', p.what) END
			FROM quota_manager.pauses p WHERE p.until IS NULL AND (p.scope <> 'strategy' OR p.cause = 'breaker') ORDER BY p.scope, p.what), NULL);
	status := CASE WHEN problems = '{}' THEN 'ok' ELSE 'degraded' END;
EXCEPTION WHEN query_canceled OR OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	PERFORM quota_internal.raise_http_error(SQLSTATE, SQLERRM, detail, hint);
	RAISE;
END
$$;
COMMENT ON FUNCTION quota_api.health() IS
'Is it well?
status is ok, or degraded with problems in words, pauses and what the breaker stopped among them. Missing workers alone are no problem: pg_cron may do their work.';

CREATE FUNCTION quota_api.gateway_query(user_id text, gateway text DEFAULT NULL) RETURNS numeric
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s'
AS $$
DECLARE
	detail text;
	hint text;
BEGIN
	RETURN quota_manager.gateway_query(user_id, gateway);
EXCEPTION WHEN query_canceled OR OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	PERFORM quota_internal.raise_http_error(SQLSTATE, SQLERRM, detail, hint);
	RAISE;
END
$$;
COMMENT ON FUNCTION quota_api.gateway_query(text, text) IS
'Ask a gateway what remains of a user''s quota
The default gateway, or the one named. The answer is stored in balances, but not by GET. For operators; logged.';

CREATE FUNCTION quota_api.gateway_refresh(user_id text, quota numeric, gateway text DEFAULT NULL) RETURNS text
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s'
AS $$
DECLARE
	detail text;
	hint text;
BEGIN
	RETURN quota_manager.gateway_refresh(user_id, quota, gateway);
EXCEPTION WHEN query_canceled OR OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	PERFORM quota_internal.raise_http_error(SQLSTATE, SQLERRM, detail, hint);
	RAISE;
END
$$;
COMMENT ON FUNCTION quota_api.gateway_refresh(text, numeric, text) IS
'Set a user''s quota at a gateway
At the default gateway, or the one named; what chats used meanwhile is lost. Takes effect at once. After status 502 or 504 compare the balance before you try again. For operators; logged.';

CREATE FUNCTION quota_api.gateway_delta(user_id text, value numeric, reason text, gateway text DEFAULT NULL) RETURNS text
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s'
AS $$
DECLARE
	detail text;
	hint text;
BEGIN
	RETURN quota_manager.gateway_delta(user_id, value, reason, gateway);
EXCEPTION WHEN query_canceled OR OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	PERFORM quota_internal.raise_http_error(SQLSTATE, SQLERRM, detail, hint);
	RAISE;
END
$$;
COMMENT ON FUNCTION quota_api.gateway_delta(text, numeric, text, text) IS
'Add to a user''s quota at a gateway
At the default gateway, or the one named. Takes effect at once. After status 502 or 504 compare the balance before you try again. For operators; logged, with the reason.';

CREATE FUNCTION quota_api.release_balances(gateway text, note text)
RETURNS TABLE (id text, done boolean, status text, obstacle text)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s'
AS $$
DECLARE
	-- The policies of the site count here, too.
	are_suspended CONSTANT boolean := EXISTS (SELECT 1 FROM quota_manager.balance_suspension s WHERE s.gateway = release_balances.gateway)
		OR NOT EXISTS (SELECT 1 FROM quota_manager.quota_gateway g WHERE g.name = release_balances.gateway);
	detail text;
	hint text;
BEGIN
	PERFORM quota_internal.check_transaction('balances are released');
	IF are_suspended OR note IS NULL OR note = '' THEN
		PERFORM quota_manager.release_balances(gateway, note);
	END IF;
	RETURN QUERY SELECT gateway, are_suspended, 'counted', CASE WHEN NOT are_suspended THEN 'not suspended' END;
EXCEPTION WHEN query_canceled OR OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	PERFORM quota_internal.raise_http_error(SQLSTATE, SQLERRM, detail, hint);
	RAISE;
END
$$;
COMMENT ON FUNCTION quota_api.release_balances(text, text) IS
'Let balances of a gateway count again
After scans suspended them, because those of nearly all users fell to 0 at once: see health and deliveries. All are read again and accepted, zeros too. One row: whether it was done, the status now, and what prevented it. note says why, and goes into the server log. For operators.';

-- PostgREST answers with the media type that a domain is named after.
CREATE DOMAIN quota_api."text/plain" AS text;
COMMENT ON DOMAIN quota_api."text/plain" IS 'Text that is answered as it is, with the media type text/plain.';

CREATE FUNCTION quota_api.metrics() RETURNS quota_api."text/plain"
LANGUAGE sql STABLE
RETURN quota_internal.metrics_text();
COMMENT ON FUNCTION quota_api.metrics() IS
'Figures for Prometheus
With Accept: text/plain, in its text format. docs/monitoring.md explains them.';
