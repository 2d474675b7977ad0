-- What a scan would do: preview(), preview_users().  Nothing here writes.

CREATE FUNCTION quota_internal.preview_counts(strategy quota_manager.quota_strategy, firing timestamptz, anew boolean, room bigint, room_amount numeric, later integer,
	OUT matched bigint, OUT granted bigint, OUT already_granted bigint, OUT capped bigint, OUT unknown bigint, OUT left_out bigint,
	OUT over_ceiling bigint, OUT sufficient bigint, OUT amount numeric, OUT magnitude numeric, OUT over_amount numeric, OUT later_users bigint[])
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'qm_preview_counts';
COMMENT ON FUNCTION quota_internal.preview_counts(quota_manager.quota_strategy, timestamptz, boolean, bigint, numeric, integer) IS 'Of preview(): what grant_evaluated() would count for a strategy, which need not be stored, and how many users it would grant to at each of so many firings after this one. Evaluates all users with the rights of the caller, on the snapshot of the statement.';

CREATE FUNCTION quota_internal.preview_page(strategy quota_manager.quota_strategy, firing timestamptz, anew boolean, room bigint, room_amount numeric,
	verdict text, after text, n integer) RETURNS TABLE (user_id text, amount numeric)
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'qm_preview_page';
COMMENT ON FUNCTION quota_internal.preview_page(quota_manager.quota_strategy, timestamptz, boolean, bigint, numeric, text, text, integer) IS 'Of preview_users(): ids of the first n users with a verdict (admitted, granted, capped, sufficient, over_ceiling, unknown) after an id, in the order of their bytes, and what each would get.';

CREATE FUNCTION quota_internal.check_edit(strategy quota_manager.quota_strategy, edited quota_manager.quota_strategy) RETURNS quota_manager.quota_strategy
LANGUAGE C STABLE STRICT AS 'MODULE_PATHNAME', 'qm_check_edit';
COMMENT ON FUNCTION quota_internal.check_edit(quota_manager.quota_strategy, quota_manager.quota_strategy) IS 'Of preview(): an edited strategy as it would be stored, or the error that the edit would be; calls the triggers that check edits.';

CREATE FUNCTION quota_internal.changed_strategy(strategy quota_manager.quota_strategy, changes jsonb) RETURNS quota_manager.quota_strategy
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	-- What people write.
	columns CONSTANT text[] := ARRAY(SELECT a.attname FROM pg_attribute a WHERE a.attrelid = 'quota_manager.quota_strategy'::regclass AND a.attnum > 0
		AND NOT a.attisdropped AND a.attname <> ALL (ARRAY['id', 'version', 'schedule_since', 'create_time', 'update_time']) ORDER BY a.attnum);
	edited quota_manager.quota_strategy := strategy;
	change record;
	message text;
	detail text;
	hint text;
BEGIN
	IF jsonb_typeof(changes) <> 'object' THEN
		RAISE EXCEPTION 'changes must be a JSON object, not %', CASE jsonb_typeof(changes) WHEN 'array' THEN 'an array' ELSE 'a ' || jsonb_typeof(changes) END
			USING ERRCODE = 'invalid_parameter_value', HINT = 'Write columns and their new values: {"condition": "is-vip(2)", "amount": 20}.';
	END IF;
	FOR change IN SELECT c.key, c.value FROM jsonb_each(changes) c LOOP
		IF change.key <> ALL (columns) THEN
			RAISE EXCEPTION 'a strategy has no "%" that can be changed', change.key
				USING ERRCODE = 'invalid_parameter_value', HINT = format('What can be changed: %s.', array_to_string(columns, ', '));
		END IF;
		BEGIN
			edited := jsonb_populate_record(edited, jsonb_build_object(change.key, change.value));
		EXCEPTION WHEN data_exception OR syntax_error_or_access_rule_violation THEN
			GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
			RAISE EXCEPTION 'change of "%": %', change.key, message
				USING ERRCODE = SQLSTATE, DETAIL = coalesce(nullif(detail, ''), format('The new value is %s.', change.value)),
					HINT = coalesce(nullif(hint, ''), format('Write a value of type %s.', (SELECT format_type(a.atttypid, -1) FROM pg_attribute a
						WHERE a.attrelid = 'quota_manager.quota_strategy'::regclass AND a.attname = change.key)));
		END;
	END LOOP;
	RETURN quota_internal.check_edit(strategy, edited);
END
$$;
COMMENT ON FUNCTION quota_internal.changed_strategy(quota_manager.quota_strategy, jsonb) IS 'Of preview(): a strategy with columns changed, checked as an edit would be.';

CREATE FUNCTION quota_internal.previewed_strategy(strategy text, condition quota_manager.condition, changes jsonb) RETURNS quota_manager.quota_strategy
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	asked quota_manager.quota_strategy;
	unserved text;
BEGIN
	IF num_nonnulls(strategy, condition) <> 1 THEN
		RAISE EXCEPTION 'either a strategy or a condition is previewed'
			USING ERRCODE = 'invalid_parameter_value',
				HINT = 'Give strategy (its name), to see whom it would grant to, or condition, to see who meets it. A strategy with another condition: changes => ''{"condition": "..."}''.';
	END IF;
	IF condition IS NOT NULL THEN
		IF changes IS NOT NULL THEN
			RAISE EXCEPTION 'changes are of a strategy' USING ERRCODE = 'invalid_parameter_value', HINT = 'Give strategy (its name) in place of condition.';
		END IF;
		PERFORM quota_internal.require_condition(condition);
		SELECT m INTO unserved FROM unnest(quota_manager.condition_models(condition)) m
			WHERE NOT EXISTS (SELECT 1 FROM quota_manager.quota_gateway g WHERE g.name = quota_manager.gateway_of(m)) LIMIT 1;
		IF FOUND THEN
			RAISE EXCEPTION 'no gateway serves model "%" in the condition', unserved
				USING ERRCODE = 'invalid_parameter_value',
					HINT = 'Name its gateway in quota_manager.quota_model, or make one gateway the default (is_default).';
		END IF;
		asked.type := 'single';
		asked.condition := condition;
		RETURN asked;
	END IF;
	SELECT s.* INTO asked FROM quota_manager.quota_strategy s
		WHERE s.name = strategy AND s.id = ANY (quota_internal.visible_strategies());
	IF NOT FOUND THEN
		RAISE EXCEPTION 'strategy "%" does not exist', strategy
			USING ERRCODE = 'undefined_object', HINT = 'See SELECT name FROM quota_manager.quota_strategy.';
	END IF;
	IF changes IS NOT NULL THEN
		asked := quota_internal.changed_strategy(asked, changes);
		-- A key is no trigger.
		IF asked.name <> strategy AND EXISTS (SELECT 1 FROM quota_manager.quota_strategy s WHERE s.name = asked.name AND s.id = ANY (quota_internal.visible_strategies())) THEN
			RAISE EXCEPTION 'another strategy has the name "%"', asked.name
				USING ERRCODE = 'unique_violation', HINT = 'Choose another one, or rename that one first.';
		END IF;
	END IF;
	RETURN asked;
END
$$;
COMMENT ON FUNCTION quota_internal.previewed_strategy(text, quota_manager.condition, jsonb) IS 'Of preview(): the strategy, changed or not; for a condition one without an id or an amount.';

CREATE FUNCTION quota_internal.unused_because(strategy quota_manager.quota_strategy) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	clock CONSTANT timestamptz := quota_manager.schedule_now();
	pause quota_manager.quota_pause;
BEGIN
	SELECT p.* INTO pause FROM quota_manager.quota_pause p
		WHERE p.end_time IS NULL AND (p.scope = 'everything' OR p.scope = 'strategy' AND p.strategy_id = strategy.id) ORDER BY p.scope LIMIT 1;
	RETURN CASE WHEN pause.scope = 'everything' THEN concat('everything is paused', ' (' || nullif(pause.note, '') || ')')
		WHEN strategy.state = 'active' AND pause.cause = 'breaker' THEN format('the breaker stopped it (%s)', pause.note)
		WHEN strategy.state = 'paused' AND pause.cause = 'operator' THEN concat('it is paused', ' (' || nullif(pause.note, '') || ')')
		WHEN strategy.state = 'draft' THEN 'it is a draft'
		WHEN strategy.state <> 'active' THEN 'it is ' || strategy.state
		WHEN clock >= strategy.valid_until THEN format('it is not valid since %s', strategy.valid_until)
		-- A firing that is to come is within its validity.
		WHEN clock < strategy.valid_from AND strategy.type = 'single' THEN format('it is not valid before %s', strategy.valid_from) END;
END
$$;
COMMENT ON FUNCTION quota_internal.unused_because(quota_manager.quota_strategy) IS 'Why scans do not run the strategy; null: they do, when it is due.';

CREATE FUNCTION quota_internal.previewed_firing(asked quota_manager.quota_strategy, OUT firing timestamptz, OUT anew boolean)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET quota_manager.pinned_statistics = on SET jit = off
AS $$
DECLARE
	clock CONSTANT timestamptz := quota_manager.schedule_now();
	stored quota_manager.quota_strategy;
BEGIN
	PERFORM quota_internal.pin_statistics();
	IF asked.id IS NULL THEN
		firing := '-infinity';
		anew := true;
		RETURN;
	END IF;
	-- The ORDER BY makes the planner use the index.
	anew := NOT EXISTS (SELECT 1 FROM (SELECT e.user_id FROM quota_manager.quota_execute e WHERE e.strategy_id = asked.id ORDER BY e.user_id LIMIT 1) e);
	IF asked.type = 'single' THEN
		firing := '-infinity';
		RETURN;
	END IF;
	SELECT s.* INTO stored FROM quota_manager.quota_strategy s WHERE s.id = asked.id;
	-- Firings that are due already are those of the schedule that is stored.
	IF asked.state = 'active' AND stored.state = 'active'
		AND (asked.type, asked.periodic_expr::text, asked.time_zone) = (stored.type, stored.periodic_expr::text, stored.time_zone) THEN
		firing := quota_internal.next_firing_of(asked.id);
	END IF;
	firing := coalesce(firing, quota_internal.next_open_firing(asked, greatest(clock, asked.valid_from - interval '1 us')), 'infinity');
	anew := anew OR firing > clock;
END
$$;
COMMENT ON FUNCTION quota_internal.previewed_firing(quota_manager.quota_strategy) IS 'Of preview(): the firing that is previewed, which is the next one or one that is due (-infinity: of a single strategy; infinity: it never fires), and whether no user can have a grant of it.';

CREATE FUNCTION quota_internal.previewed_room(asked quota_manager.quota_strategy, firing timestamptz,
	OUT clock timestamptz, OUT run_id bigint, OUT grants bigint, OUT amount numeric, OUT may_stop boolean, OUT usual bigint, OUT so_far bigint)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET quota_manager.pinned_statistics = on SET jit = off
AS $$
DECLARE
	room record;
BEGIN
	PERFORM quota_internal.pin_statistics();
	-- Of a day ceiling, what is left on the day of the firing.
	clock := greatest(quota_manager.schedule_now(), CASE WHEN isfinite(firing) THEN firing END);
	may_stop := false;
	IF asked.id IS NULL THEN
		RETURN;
	END IF;
	-- There is no run 0.
	run_id := coalesce((SELECT r.id FROM quota_manager.quota_run r WHERE r.strategy_id = asked.id AND r.scheduled_time = firing), 0);
	SELECT r.* INTO room FROM quota_internal.ceiling_room(asked.id, clock, run_id) r;
	grants := room.grants;
	amount := room.amount;
	SELECT l.usual, l.so_far INTO usual, so_far FROM quota_internal.surge_limit(asked.id, run_id) l;
	may_stop := num_nonnulls(room.strict_grants, room.strict_amount, usual) > 0;
END
$$;
COMMENT ON FUNCTION quota_internal.previewed_room(quota_manager.quota_strategy, timestamptz) IS 'Of preview(): how much a run may grant before it is cut, and whether a ceiling or the breaker may stop it.';

CREATE FUNCTION quota_internal.previewed_run(asked quota_manager.quota_strategy, later integer,
	OUT firing timestamptz, OUT granted bigint, OUT amount numeric, OUT already_granted bigint, OUT capped bigint, OUT sufficient bigint,
	OUT over_ceiling bigint, OUT over_amount numeric, OUT stopped bigint, OUT stopped_amount numeric, OUT unknown bigint, OUT left_out bigint,
	OUT later_users bigint[], OUT stop_reason text, OUT cut_reason text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
	target record;
	room record;
	counts record;
	stop record;
BEGIN
	IF asked.id IS NOT NULL THEN
		PERFORM quota_internal.check_strategy_target(asked.name, asked.model, asked.amount);
		PERFORM quota_internal.check_strategy_models(asked.name, asked.condition);
	END IF;
	SELECT f.* INTO target FROM quota_internal.previewed_firing(asked) f;
	SELECT r.* INTO room FROM quota_internal.previewed_room(asked, target.firing) r;
	SELECT c.* INTO counts FROM quota_internal.preview_counts(asked, target.firing, target.anew, room.grants, room.amount, later) c;
	firing := target.firing;
	granted := counts.granted;
	amount := counts.amount;
	already_granted := counts.already_granted;
	capped := counts.capped;
	sufficient := counts.sufficient;
	over_ceiling := counts.over_ceiling;
	over_amount := counts.over_amount;
	unknown := counts.unknown;
	left_out := counts.left_out;
	later_users := counts.later_users;
	IF room.may_stop THEN
		SELECT s.* INTO stop FROM quota_internal.reason_to_stop(asked.id, room.clock, room.run_id, counts.granted, counts.magnitude,
			-- Scans do not look at fewer.
			CASE WHEN counts.matched > CASE WHEN quota_internal.is_tried_again(asked.id, nullif(target.firing, '-infinity'))
				THEN 0 ELSE quota_internal.setting('surge_minimum')::bigint END THEN room.usual END, room.so_far) s;
		stop_reason := stop.reason;
		IF stop.is_surge THEN
			stopped := counts.granted;
			stopped_amount := counts.amount;
		ELSIF stop_reason IS NOT NULL THEN
			over_ceiling := over_ceiling + counts.granted;
			over_amount := over_amount + counts.amount;
		END IF;
		IF stop_reason IS NOT NULL THEN
			granted := 0;
			amount := 0;
		END IF;
	END IF;
	IF over_ceiling > 0 AND stop_reason IS NULL THEN
		cut_reason := (SELECT c.reason FROM quota_internal.cutting_ceiling(asked.id, room.clock, room.run_id, counts.granted, counts.granted + counts.over_ceiling,
			counts.magnitude + counts.over_ceiling * abs(asked.amount)) c);
	END IF;
END
$$;
COMMENT ON FUNCTION quota_internal.previewed_run(quota_manager.quota_strategy, integer) IS 'Of preview(): what a run of a strategy would come to: for which firing, how many users had which verdict, and what would stop or cut it; and how many users would be granted at each of so many later firings.';

CREATE FUNCTION quota_internal.previewed_doubts(asked quota_manager.quota_strategy, firing timestamptz) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET jit = off SET quota_manager.pinned_statistics = on
AS $$
DECLARE
	unused CONSTANT text := quota_internal.unused_because(asked);
BEGIN
	RETURN nullif(concat_ws('; ',
		CASE WHEN unused IS NOT NULL THEN 'nothing is granted, as ' || unused END,
		CASE WHEN asked.type = 'periodic' AND isfinite(firing) THEN format('for the firing of %s', firing)
			WHEN asked.type = 'periodic' THEN 'its schedule does not fire any more' END,
		CASE WHEN quota_internal.is_doubtful(asked, nullif(firing, '-infinity')) THEN 'granted in doubt: see resume()' END), '');
END
$$;
COMMENT ON FUNCTION quota_internal.previewed_doubts(quota_manager.quota_strategy, timestamptz) IS 'Of preview(): what is to be said of the users that would be granted something.';

CREATE FUNCTION quota_manager.preview(strategy text DEFAULT NULL, condition quota_manager.condition DEFAULT NULL, changes jsonb DEFAULT NULL)
RETURNS TABLE (reason text, users bigint, amount numeric, note text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off SET quota_manager.pinned_statistics = on
AS $$
#variable_conflict use_column
DECLARE
	asked CONSTANT quota_manager.quota_strategy := quota_internal.previewed_strategy(strategy, condition, changes);
	run record;
BEGIN
	PERFORM quota_internal.pin_statistics();
	SELECT r.* INTO run FROM quota_internal.previewed_run(asked, 0) r;
	IF asked.id IS NULL THEN
		RETURN QUERY VALUES ('meets the condition', run.granted, NULL::numeric, NULL::text);
	ELSE
		RETURN QUERY VALUES ('granted', run.granted, run.amount, quota_internal.previewed_doubts(asked, run.firing));
	END IF;
	RETURN QUERY
	SELECT r.reason, r.users, r.amount, r.note
	FROM (VALUES
		(2, 'already granted', run.already_granted, NULL, NULL),
		(3, 'capped', run.capped, NULL, format('had %s grants', asked.max_exec_per_user)),
		(4, 'sufficient', run.sufficient, NULL, format('their balance is %s', CASE asked.allowance WHEN 'exact' THEN asked.amount::text ELSE format('at least %s', asked.amount) END)),
		(5, 'over a ceiling', run.over_ceiling, run.over_amount, CASE WHEN run.stopped IS NULL THEN coalesce(run.stop_reason, run.cut_reason) END),
		(6, 'stopped by the breaker', run.stopped, run.stopped_amount, run.stop_reason),
		(7, 'balance unknown', run.unknown, asked.amount * run.unknown, 'what they get depends on balances that are not known: tick() reads them first'),
		(8, 'id too long', run.left_out, NULL, 'an id has at most 2600 bytes')) r (place, reason, users, amount, note)
	WHERE r.users > 0
	ORDER BY r.place;
END
$$;
COMMENT ON FUNCTION quota_manager.preview(text, quota_manager.condition, jsonb) IS
	'What a scan would do now, and how much it would cost: users and amounts by reason. Of a strategy, whatever its state, and as an edit would make it (changes: {"condition": "is-vip(2)", "amount": 20}); or who meets a condition. A periodic strategy: for the firing that is due or comes next. Writes nothing; users are read with the rights of the caller, as scans do.';

CREATE FUNCTION quota_internal.verdict_of_reason(reason text, of_condition boolean) RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	verdict CONSTANT text := CASE reason WHEN 'granted' THEN 'admitted' WHEN 'already granted' THEN 'granted' WHEN 'capped' THEN 'capped' WHEN 'sufficient' THEN 'sufficient'
		WHEN 'over a ceiling' THEN 'over_ceiling' WHEN 'stopped by the breaker' THEN 'stopped'
		WHEN 'balance unknown' THEN 'unknown' WHEN 'meets the condition' THEN CASE WHEN of_condition THEN 'admitted' END END;
BEGIN
	IF verdict IS NULL THEN
		RAISE EXCEPTION 'users are not listed by reason %', coalesce(quote_literal(reason), 'null')
			USING ERRCODE = 'invalid_parameter_value', HINT = 'Write granted, already granted, capped, sufficient, over a ceiling, stopped by the breaker or balance unknown.';
	END IF;
	RETURN verdict;
END
$$;
COMMENT ON FUNCTION quota_internal.verdict_of_reason(text, boolean) IS 'The verdict that preview() has these words for.';

CREATE FUNCTION quota_manager.preview_users(strategy text DEFAULT NULL, condition quota_manager.condition DEFAULT NULL, changes jsonb DEFAULT NULL,
	reason text DEFAULT 'granted', after text DEFAULT NULL, n integer DEFAULT 50)
RETURNS TABLE (user_id text, amount numeric)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off SET quota_manager.pinned_statistics = on
AS $$
#variable_conflict use_column
DECLARE
	verdict text := quota_internal.verdict_of_reason(reason, strategy IS NULL);
	asked quota_manager.quota_strategy;
	run record;
	target record;
	room record;
BEGIN
	IF (n >= 0) IS NOT TRUE THEN
		RAISE EXCEPTION 'the number of users must not be negative' USING ERRCODE = 'invalid_parameter_value', HINT = 'Leave n out for 50.';
	END IF;
	asked := quota_internal.previewed_strategy(strategy, condition, changes);
	PERFORM quota_internal.pin_statistics();
	SELECT f.* INTO target FROM quota_internal.previewed_firing(asked) f;
	SELECT r.* INTO room FROM quota_internal.previewed_room(asked, target.firing) r;
	-- What stops a run goes by all of its users.
	IF room.may_stop THEN
		SELECT r.* INTO run FROM quota_internal.previewed_run(asked, 0) r;
		IF run.stopped IS NOT NULL THEN
			verdict := CASE verdict WHEN 'stopped' THEN 'admitted' WHEN 'admitted' THEN NULL ELSE verdict END;
		ELSIF run.stop_reason IS NOT NULL THEN
			room.grants := 0;
		END IF;
	ELSIF asked.id IS NOT NULL THEN
		PERFORM quota_internal.check_strategy_target(asked.name, asked.model, asked.amount);
		PERFORM quota_internal.check_strategy_models(asked.name, asked.condition);
	END IF;
	IF verdict = 'stopped' OR verdict IS NULL THEN
		RETURN;
	END IF;
	RETURN QUERY SELECT p.user_id, CASE WHEN asked.id IS NOT NULL THEN p.amount END
		FROM quota_internal.preview_page(asked, target.firing, target.anew, room.grants, room.amount, verdict, after, n) p;
END
$$;
COMMENT ON FUNCTION quota_manager.preview_users(text, quota_manager.condition, jsonb, text, text, integer) IS
	'The users that preview() counts for a reason, a page at a time: the first n after an id, in the order of the bytes of their ids, and what each would get.';
