-- Brakes: pausing everything, a gateway or a strategy, and letting it go on.

CREATE FUNCTION quota_internal.pause(scope text, gateway text, strategy_id integer, note text) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
	PERFORM quota_internal.require_short(pause.note, 'the note');
	-- Waits for a transaction that pauses the same or ends that.
	INSERT INTO quota_manager.quota_pause (scope, gateway, strategy_id, note)
		VALUES (pause.scope, pause.gateway, pause.strategy_id, coalesce(pause.note, ''))
		ON CONFLICT (scope, (coalesce(gateway, '')), (coalesce(strategy_id, 0)), cause) WHERE end_time IS NULL DO NOTHING;
	RETURN FOUND;
END
$$;
COMMENT ON FUNCTION quota_internal.pause(text, text, integer, text) IS 'Writes a pause of an operator. False: one is in force already.';

CREATE FUNCTION quota_internal.unpause(scope text, gateway text, strategy_id integer, note text, cause text DEFAULT NULL) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	PERFORM quota_internal.require_short(note, 'the note');
	UPDATE quota_manager.quota_pause p SET end_time = clock_timestamp(), end_role = quota_internal.deciding_role(), end_session_role = session_user,
			end_said_by = quota_internal.said_by(), end_note = coalesce(unpause.note, '')
		WHERE p.end_time IS NULL AND p.scope = unpause.scope AND p.gateway IS NOT DISTINCT FROM unpause.gateway
			AND p.strategy_id IS NOT DISTINCT FROM unpause.strategy_id AND p.cause = coalesce(unpause.cause, p.cause);
	RETURN FOUND;
END
$$;
COMMENT ON FUNCTION quota_internal.unpause(text, text, integer, text, text) IS 'Ends the pauses in force of one thing, of one cause or (null) of any. False: there is none.';

CREATE FUNCTION quota_internal.end_waits_for_balances() RETURNS void
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp SET quota_manager.pinned_statistics = on SET jit = off
AS $$
	-- In the order in which decisions lock runs.
	WITH waiting AS MATERIALIZED (
		SELECT w.id FROM quota_manager.quota_run w
		-- OFFSET 0 makes the planner search the runs of each strategy by an index in place of reading all.
		WHERE w.id IN (SELECT f.id FROM quota_manager.quota_strategy s
			CROSS JOIN LATERAL (SELECT u.id FROM quota_manager.quota_run u WHERE u.strategy_id = s.id
				AND u.state = 'incomplete' AND u.retry_time > clock_timestamp() OFFSET 0) f)
		ORDER BY w.id FOR NO KEY UPDATE)
	UPDATE quota_manager.quota_run r SET retry_time = clock_timestamp() FROM waiting w WHERE r.id = w.id
$$;
COMMENT ON FUNCTION quota_internal.end_waits_for_balances() IS 'Of unpause_gateway() and unpause_all(): runs that lack balances are tried again at once.';

CREATE FUNCTION quota_internal.say_paused_already(what text, scope text, gateway text, strategy_id integer) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	known quota_manager.quota_pause;
BEGIN
	SELECT p.* INTO known FROM quota_manager.quota_pause p
		WHERE p.end_time IS NULL AND p.scope = say_paused_already.scope AND p.gateway IS NOT DISTINCT FROM say_paused_already.gateway
			AND p.strategy_id IS NOT DISTINCT FROM say_paused_already.strategy_id AND p.cause = 'operator';
	RAISE NOTICE '% is paused already', what
		USING DETAIL = initcap(left(quota_internal.pause_words(known), 1)) || substr(quota_internal.pause_words(known), 2) || '.';
END
$$;
COMMENT ON FUNCTION quota_internal.say_paused_already(text, text, text, integer) IS 'Of pause_all(), pause_gateway() and pause_strategy(): reports a pause that is in force.';

CREATE FUNCTION quota_manager.pause_all(note text DEFAULT '') RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	PERFORM quota_internal.check_transaction('everything is paused');
	IF NOT quota_internal.pause('everything', NULL, NULL, note) THEN
		PERFORM quota_internal.say_paused_already('everything', 'everything', NULL, NULL);
	END IF;
END
$$;
COMMENT ON FUNCTION quota_manager.pause_all(text) IS 'Stops everything: no strategy is run and no grant is sent until unpause_all(). From the moment the transaction commits nothing leaves the database but what is in flight. Calls by hand still work.';

CREATE FUNCTION quota_manager.unpause_all(note text DEFAULT '') RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	PERFORM quota_internal.check_transaction('the pause of everything is ended');
	IF NOT quota_internal.unpause('everything', NULL, NULL, note) THEN
		RAISE NOTICE 'not everything is paused' USING HINT = 'Single gateways and strategies may be: see quota_manager.pauses.';
		RETURN;
	END IF;
	PERFORM quota_internal.end_waits_for_balances();
END
$$;
COMMENT ON FUNCTION quota_manager.unpause_all(text) IS 'Ends pause_all(): what waited is sent, and firings missed meanwhile are run as catch_up of their strategy says. Gateways and strategies that are paused by themselves stay so.';

CREATE FUNCTION quota_internal.require_gateway(gateway text) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF gateway IS NULL THEN
		RAISE EXCEPTION 'the gateway must be given' USING ERRCODE = 'null_value_not_allowed';
	END IF;
	PERFORM 1 FROM quota_manager.quota_gateway g WHERE g.name = require_gateway.gateway FOR KEY SHARE;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'gateway "%" does not exist', gateway
			USING ERRCODE = 'undefined_object', HINT = 'See SELECT name FROM quota_manager.quota_gateway.';
	END IF;
END
$$;
COMMENT ON FUNCTION quota_internal.require_gateway(text) IS 'Of pause_gateway() and unpause_gateway(): raises an error for a gateway that does not exist.';

CREATE FUNCTION quota_manager.pause_gateway(gateway text, note text DEFAULT '') RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	PERFORM quota_internal.check_transaction('gateways are paused');
	PERFORM quota_internal.require_gateway(gateway);
	IF NOT quota_internal.pause('gateway', gateway, NULL, note) THEN
		PERFORM quota_internal.say_paused_already(format('gateway "%s"', gateway), 'gateway', gateway, NULL);
	END IF;
END
$$;
COMMENT ON FUNCTION quota_manager.pause_gateway(text, text) IS 'Stops a gateway: from the moment the transaction commits nothing is sent to it but what is in flight, until unpause_gateway(). Its grants stay pending. Calls by hand still work.';

CREATE FUNCTION quota_manager.unpause_gateway(gateway text, note text DEFAULT '') RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	PERFORM quota_internal.check_transaction('pauses of gateways are ended');
	PERFORM quota_internal.require_gateway(gateway);
	IF NOT quota_internal.unpause('gateway', gateway, NULL, note) THEN
		RAISE NOTICE 'gateway "%" is not paused', gateway USING HINT = 'See quota_manager.pauses for what is.';
		RETURN;
	END IF;
	PERFORM quota_internal.end_waits_for_balances();
END
$$;
COMMENT ON FUNCTION quota_manager.unpause_gateway(text, text) IS 'Ends pause_gateway(): its grants are sent.';

CREATE FUNCTION quota_internal.visible_strategy(strategy text) RETURNS quota_manager.quota_strategy
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	visible CONSTANT text[] := quota_internal.read_as_caller('SELECT s.id::text FROM quota_manager.quota_strategy s WHERE s.name = $1[1]', ARRAY[strategy]);
	found_row quota_manager.quota_strategy;
BEGIN
	IF strategy IS NULL THEN
		RAISE EXCEPTION 'the strategy must be given' USING ERRCODE = 'null_value_not_allowed';
	END IF;
	-- It waits for an edit that is not committed.
	SELECT s.* INTO found_row FROM quota_manager.quota_strategy s WHERE s.id = visible[1]::integer FOR NO KEY UPDATE;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'strategy "%" does not exist', strategy
			USING ERRCODE = 'undefined_object', HINT = 'See SELECT name FROM quota_manager.quota_strategy.';
	END IF;
	RETURN found_row;
END
$$;
COMMENT ON FUNCTION quota_internal.visible_strategy(text) IS 'Of pause_strategy() and unpause_strategy(): locks the strategy and returns it as it is; an error if the caller sees none of that name.';

CREATE FUNCTION quota_manager.pause_strategy(strategy text, note text DEFAULT '') RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	chosen quota_manager.quota_strategy;
BEGIN
	PERFORM quota_internal.check_transaction('strategies are paused');
	chosen := quota_internal.visible_strategy(strategy);
	IF chosen.state IN ('draft', 'archived') THEN
		RAISE EXCEPTION 'strategy "%" is % and cannot be paused', strategy, CASE chosen.state WHEN 'draft' THEN 'a draft' ELSE 'archived' END
			USING ERRCODE = 'object_not_in_prerequisite_state', DETAIL = 'It grants nothing as it is.',
				HINT = CASE chosen.state WHEN 'draft' THEN 'It will when it is made active.' ELSE 'Grants that are pending can be cancelled: quota_manager.cancel().' END;
	END IF;
	IF NOT quota_internal.pause('strategy', NULL, chosen.id, note) THEN
		PERFORM quota_internal.say_paused_already(format('strategy "%s"', strategy), 'strategy', NULL, chosen.id);
	END IF;
	UPDATE quota_manager.quota_strategy s SET state = 'paused', edit_note = nullif(pause_strategy.note, '') WHERE s.id = chosen.id AND s.state = 'active';
END
$$;
COMMENT ON FUNCTION quota_manager.pause_strategy(text, text) IS 'Stops a strategy until unpause_strategy(): it grants nothing, and from the moment the transaction commits none of its pending grants is sent but what is in flight.';

CREATE FUNCTION quota_manager.unpause_strategy(strategy text, note text DEFAULT '') RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	chosen quota_manager.quota_strategy;
	ended boolean;
BEGIN
	PERFORM quota_internal.check_transaction('pauses of strategies are ended');
	chosen := quota_internal.visible_strategy(strategy);
	ended := quota_internal.unpause('strategy', NULL, chosen.id, note);
	IF NOT ended AND chosen.state <> 'paused' THEN
		RAISE NOTICE 'strategy "%" is not paused', strategy USING HINT = 'See quota_manager.pauses for what is.';
	END IF;
	UPDATE quota_manager.quota_strategy s SET state = 'active', edit_note = nullif(unpause_strategy.note, '') WHERE s.id = chosen.id AND s.state = 'paused';
END
$$;
COMMENT ON FUNCTION quota_manager.unpause_strategy(text, text) IS 'Lets a strategy grant again that is paused, by an operator or by the breaker; its pending grants are sent.';

CREATE FUNCTION quota_internal.has_pending_grants(strategy_id integer) RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET quota_manager.pinned_statistics = on SET jit = off
AS $$
DECLARE
	run record;
BEGIN
	PERFORM quota_internal.pin_statistics();
	FOR run IN SELECT r.id, r.first_grant_id, r.last_grant_id FROM quota_manager.quota_run r
		WHERE r.strategy_id = has_pending_grants.strategy_id AND r.undelivered AND r.first_grant_id IS NOT NULL
	LOOP
		IF EXISTS (SELECT 1 FROM quota_manager.quota_execute e
			WHERE e.id BETWEEN run.first_grant_id AND run.last_grant_id AND e.run_id = run.id AND e.status = 'pending') THEN
			RETURN true;
		END IF;
	END LOOP;
	RETURN false;
END
$$;
COMMENT ON FUNCTION quota_internal.has_pending_grants(integer) IS 'Of record_pause(): is any grant that the strategy gave pending? Reads those of its runs only that are not delivered.';

-- Runs as the owner, who alone writes pauses: the role that edits a strategy need not be able to.
CREATE FUNCTION quota_internal.record_pause() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	former CONSTANT text := CASE WHEN TG_OP <> 'INSERT' THEN OLD.state ELSE '' END;
	present CONSTANT text := CASE WHEN TG_OP <> 'DELETE' THEN NEW.state ELSE 'deleted' END;
BEGIN
	IF TG_RELID <> 'quota_manager.quota_strategy'::regclass THEN
		RAISE EXCEPTION 'this trigger is for quota_manager.quota_strategy only' USING ERRCODE = 'wrong_object_type';
	END IF;
	IF present = 'paused' AND former <> 'paused' THEN
		PERFORM quota_internal.pause('strategy', NULL, NEW.id, '');
	ELSIF present <> 'paused' AND former <> present THEN
		-- What the breaker stopped stays so until unpause_strategy().
		PERFORM quota_internal.unpause('strategy', NULL, OLD.id, CASE WHEN present <> 'active' THEN present ELSE '' END,
			CASE WHEN present = 'active' THEN 'operator' END);
	END IF;
	IF former = 'paused' AND present = 'archived' AND quota_internal.has_pending_grants(OLD.id) THEN
		RAISE NOTICE 'pending grants of strategy "%" are sent now', NEW.name
			USING DETAIL = 'Its pause has held them, and ends when it is archived.',
				HINT = format('If they are not to be: SELECT * FROM quota_manager.reverse_strategy(%L, ''why''); or cancel them with quota_manager.cancel().', NEW.name);
	END IF;
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION quota_internal.record_pause() IS 'Trigger: who paused a strategy by an edit, and who let it go on, is kept in quota_pause.';
CREATE TRIGGER record_pause AFTER UPDATE OR DELETE ON quota_manager.quota_strategy
	FOR EACH ROW EXECUTE FUNCTION quota_internal.record_pause();
COMMENT ON TRIGGER record_pause ON quota_manager.quota_strategy IS 'Who paused it, and who let it go on, is kept.';
-- A restored one was created before, and its pause comes with quota_pause.
CREATE TRIGGER record_new_pause AFTER INSERT ON quota_manager.quota_strategy
	FOR EACH ROW WHEN (NEW.state = 'paused' AND NEW.create_time >= pg_catalog.statement_timestamp()) EXECUTE FUNCTION quota_internal.record_pause();
COMMENT ON TRIGGER record_new_pause ON quota_manager.quota_strategy IS 'Who wrote it as a paused one is kept.';

CREATE FUNCTION quota_internal.forget_paused_gateway() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF TG_RELID <> 'quota_manager.quota_gateway'::regclass THEN
		RAISE EXCEPTION 'this trigger is for quota_manager.quota_gateway only' USING ERRCODE = 'wrong_object_type';
	END IF;
	PERFORM quota_internal.unpause('gateway', OLD.name, NULL, 'deleted');
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION quota_internal.forget_paused_gateway() IS 'Trigger: the pause of a gateway ends when it is deleted; another one may get its name.';
CREATE TRIGGER forget_paused_gateway AFTER DELETE ON quota_manager.quota_gateway
	FOR EACH ROW EXECUTE FUNCTION quota_internal.forget_paused_gateway();
COMMENT ON TRIGGER forget_paused_gateway ON quota_manager.quota_gateway IS 'Its pause ends.';

CREATE FUNCTION quota_internal.break_off_at_commit() RETURNS trigger
LANGUAGE C AS 'MODULE_PATHNAME', 'qm_break_off_at_commit';
COMMENT ON FUNCTION quota_internal.break_off_at_commit() IS 'Trigger: the scheduler breaks off what it runs when the transaction commits.';

CREATE FUNCTION quota_internal.announce_pause() RETURNS trigger
LANGUAGE C AS 'MODULE_PATHNAME', 'qm_announce_pause';
COMMENT ON FUNCTION quota_internal.announce_pause() IS
	'Trigger: whoever sends grants hears of the change with the commit and sends nothing before it has read what is paused. While a prepared transaction with such a change is committed, requests may be on their way.';
CREATE TRIGGER announce_pause AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON quota_manager.quota_pause
	FOR EACH STATEMENT EXECUTE FUNCTION quota_internal.announce_pause();
COMMENT ON TRIGGER announce_pause ON quota_manager.quota_pause IS 'Whoever sends grants hears of it.';
CREATE TRIGGER announce_pause AFTER UPDATE ON quota_manager.quota_strategy
	FOR EACH ROW WHEN (OLD.state IS DISTINCT FROM NEW.state) EXECUTE FUNCTION quota_internal.announce_pause();
COMMENT ON TRIGGER announce_pause ON quota_manager.quota_strategy IS 'Whoever sends its grants hears of it.';
CREATE TRIGGER wake_workers AFTER INSERT OR UPDATE OR DELETE ON quota_manager.quota_pause
	FOR EACH STATEMENT EXECUTE FUNCTION quota_internal.wake_at_commit('scheduler', 'courier');
COMMENT ON TRIGGER wake_workers ON quota_manager.quota_pause IS 'What waited may be due.';
CREATE TRIGGER break_off AFTER INSERT ON quota_manager.quota_pause
	FOR EACH ROW WHEN (NEW.scope = 'everything' AND NEW.end_time IS NULL) EXECUTE FUNCTION quota_internal.break_off_at_commit();
COMMENT ON TRIGGER break_off ON quota_manager.quota_pause IS 'What the scheduler runs is broken off.';
CREATE TRIGGER wake_courier AFTER UPDATE ON quota_manager.quota_strategy
	FOR EACH ROW WHEN (OLD.state = 'paused' AND NEW.state <> 'paused') EXECUTE FUNCTION quota_internal.wake_at_commit('courier');
COMMENT ON TRIGGER wake_courier ON quota_manager.quota_strategy IS 'Its grants can be sent.';

CREATE VIEW quota_manager.pauses WITH (security_invoker = true) AS
SELECT CASE p.scope WHEN 'everything' THEN 'everything'
		WHEN 'gateway' THEN pg_catalog.format('gateway "%s"', p.gateway)
		ELSE 'strategy ' OPERATOR(pg_catalog.||) coalesce('"' OPERATOR(pg_catalog.||) s.name OPERATOR(pg_catalog.||) '"', p.strategy_id::text) END AS what,
	p.since,
	CASE p.cause WHEN 'breaker' THEN 'the breaker' ELSE quota_internal.person(p.said_by, p.role) END AS paused_by,
	nullif(p.note, '') AS why, p.end_time AS until,
	quota_internal.person(p.end_said_by, p.end_role) AS ended_by, nullif(p.end_note, '') AS end_why,
	p.scope, coalesce(p.gateway, s.name) AS name, p.cause, p.id
FROM (SELECT q.id, q.scope, q.gateway, q.strategy_id, q.cause, q.since, q.role, q.said_by, q.note, q.end_time, q.end_role, q.end_said_by, q.end_note
		FROM quota_manager.quota_pause q
	UNION ALL
	-- Restored from a dump of 1.0.0, say.
	SELECT NULL, 'strategy', NULL, t.id, 'operator', t.update_time, 'unknown', NULL, '', NULL, NULL, NULL, NULL FROM quota_manager.quota_strategy t
		WHERE t.state OPERATOR(pg_catalog.=) 'paused' AND NOT EXISTS (SELECT 1 FROM quota_manager.quota_pause q
			WHERE q.strategy_id OPERATOR(pg_catalog.=) t.id AND q.cause OPERATOR(pg_catalog.=) 'operator' AND q.end_time IS NULL)) p
LEFT JOIN quota_manager.quota_strategy s ON s.id OPERATOR(pg_catalog.=) p.strategy_id
ORDER BY p.end_time DESC, p.since DESC, p.id DESC;
COMMENT ON VIEW quota_manager.pauses IS 'What is paused, and what was: those in force first, then the past, latest first.';
COMMENT ON COLUMN quota_manager.pauses.what IS 'everything, or the gateway or strategy.';
COMMENT ON COLUMN quota_manager.pauses.since IS 'When it was paused.';
COMMENT ON COLUMN quota_manager.pauses.paused_by IS 'Who paused it: the role, with the person that it named, or the breaker.';
COMMENT ON COLUMN quota_manager.pauses.why IS 'Why, as given; null: nothing was given.';
COMMENT ON COLUMN quota_manager.pauses.until IS 'When the pause ended; null: it is in force.';
COMMENT ON COLUMN quota_manager.pauses.ended_by IS 'Who ended it; null: it is in force.';
COMMENT ON COLUMN quota_manager.pauses.end_why IS 'Why it was ended, as given.';
COMMENT ON COLUMN quota_manager.pauses.scope IS 'everything, gateway or strategy.';
COMMENT ON COLUMN quota_manager.pauses.name IS 'Name of the gateway or strategy.';
COMMENT ON COLUMN quota_manager.pauses.cause IS 'operator or breaker.';
COMMENT ON COLUMN quota_manager.pauses.id IS 'Number of the pause: quota_pause.id; null: a paused strategy was restored without its pause.';
