-- Of the API: why a user gets something of a strategy, question by question.

CREATE FUNCTION quota_internal.explained_strategy(strategy quota_manager.quota_strategy) RETURNS TABLE (step integer, question text, answer text, holds boolean)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	clock CONSTANT timestamptz := quota_manager.schedule_now();
	due quota_manager.strategy_due;
	served CONSTANT text := quota_manager.gateway_of(strategy.model);
	gateway quota_manager.quota_gateway;
BEGIN
	RETURN QUERY SELECT 1, 'is the strategy in use?', CASE strategy.state WHEN 'active' THEN 'enabled' ELSE strategy.state END,
		strategy.enabled AND NOT strategy.archived;
	RETURN QUERY SELECT 2, 'is it valid now?', CASE WHEN clock < strategy.valid_from THEN format('not before %s', strategy.valid_from)
			WHEN clock >= strategy.valid_until THEN format('not since %s', strategy.valid_until) ELSE 'yes' END,
		clock >= strategy.valid_from AND clock < strategy.valid_until;
	SELECT d.* INTO due FROM quota_manager.strategy_due d WHERE d.strategy_id = strategy.id ORDER BY d.scheduled_time LIMIT 1;
	RETURN QUERY SELECT 3, 'when does it run?', concat_ws('; ', concat_ws(', ', due.state, 'for ' || due.scheduled_time, 'at ' || due.due_time), due.reason),
		coalesce(due.state IN ('due', 'waiting', 'scheduled'), false);
	SELECT g.* INTO gateway FROM quota_manager.quota_gateway g WHERE g.name = served;
	RETURN QUERY SELECT 4, 'is there a gateway for it?', CASE WHEN gateway.name IS NULL THEN format('none serves model "%s"', strategy.model)
			ELSE concat_ws(': ', format('"%s" is %s', served, gateway.state), gateway.state_reason) END,
		gateway.name IS NOT NULL;
END
$$;
COMMENT ON FUNCTION quota_internal.explained_strategy(quota_manager.quota_strategy) IS 'Of explain(): whether a strategy grants anything at all.';

CREATE FUNCTION quota_internal.explained_condition(condition quota_manager.condition, user_id text) RETURNS TABLE (step integer, question text, answer text, holds boolean)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	whole record;
BEGIN
	SELECT m.* INTO whole FROM quota_internal.user_meets(user_id, condition) m;
	RETURN QUERY SELECT 5, 'is the user known?', CASE WHEN whole.is_known THEN 'yes' ELSE 'no such user' END, whole.is_known;
	IF NOT whole.is_known THEN
		RETURN;
	END IF;
	RETURN QUERY SELECT CASE WHEN q.operator IS NULL THEN 6 END, q.question,
			CASE WHEN q.meets THEN 'yes' WHEN q.may_meet THEN 'a balance is not known' ELSE 'no' END, q.meets IS TRUE
		FROM (SELECT 0 AS place, NULL AS operator, format('does the user meet the condition %s?', condition) AS question, whole.meets, whole.may_meet
			UNION ALL SELECT p.node, w.kind, format('of its %s(): %s', w.kind, p.text), m.meets, m.may_meet
			FROM quota_internal.condition_tree(condition) w JOIN quota_internal.condition_tree(condition) p ON p.parent = w.node
			CROSS JOIN LATERAL quota_internal.user_meets(user_id, p.text::quota_manager.condition) m WHERE w.parent IS NULL) q
		ORDER BY q.place
		LIMIT 101;
END
$$;
COMMENT ON FUNCTION quota_internal.explained_condition(quota_manager.condition, text) IS 'Of explain(): whether a user meets a condition, and the first hundred parts of it, which have no number.';

CREATE FUNCTION quota_internal.explained_room(strategy quota_manager.quota_strategy, user_id text, firing timestamptz, OUT answer text, OUT holds boolean, OUT amount numeric)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET jit = off SET quota_manager.pinned_statistics = on
AS $$
DECLARE
	had bigint;
	present numeric;
	full_ceiling text;
BEGIN
	PERFORM quota_internal.pin_statistics();
	SELECT count(*) FILTER (WHERE e.status <> 'cancelled') INTO had FROM quota_manager.quota_execute e
		WHERE e.strategy_id = strategy.id AND e.user_id = explained_room.user_id AND e.revision = 0;
	answer := format('had %s of %s', had, coalesce(strategy.max_exec_per_user::text, 'any number'));
	holds := strategy.max_exec_per_user IS NULL OR had < strategy.max_exec_per_user;
	amount := strategy.amount;
	IF strategy.allowance <> 'add' THEN
		present := (SELECT b.balance FROM quota_api.balances b
			WHERE b.user_id = explained_room.user_id AND b.gateway = quota_manager.gateway_of(strategy.model) AND b.counts);
		answer := concat(answer, '; ', CASE WHEN present IS NULL THEN 'the balance is not known' ELSE format('has a balance of %s of %s', present, strategy.amount) END);
		amount := strategy.amount - present;
		holds := holds AND coalesce(CASE strategy.allowance WHEN 'top_up' THEN amount > 0 ELSE amount <> 0 END, false);
	END IF;
	-- On the day of the firing, and what the user would get alone must fit.
	full_ceiling := (SELECT string_agg(quota_internal.ceiling_words(c.ceiling, c.grants_left, c.amount_left), '; ' ORDER BY (c.ceiling).id)
		FROM quota_internal.ceilings_of(strategy.id, greatest(firing, quota_manager.schedule_now()),
			coalesce((SELECT r.id FROM quota_manager.quota_run r WHERE r.strategy_id = strategy.id AND r.scheduled_time = firing), 0)) c
		WHERE c.grants_left < 1 OR c.amount_left < abs(amount));
	answer := concat_ws('; ', answer, full_ceiling);
	holds := holds AND full_ceiling IS NULL;
END
$$;
COMMENT ON FUNCTION quota_internal.explained_room(quota_manager.quota_strategy, text, timestamptz) IS 'Of explain(): whether a user may get more of a strategy for its next firing, by its cap, its allowance and ceilings, and how much.';

CREATE FUNCTION quota_internal.explained_grant(strategy quota_manager.quota_strategy, user_id text)
RETURNS TABLE (step integer, question text, answer text, holds boolean)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET jit = off SET quota_manager.pinned_statistics = on
AS $$
#variable_conflict use_column
DECLARE
	firing CONSTANT timestamptz := quota_internal.next_firing_of(strategy.id);
	present quota_manager.quota_execute;
	room record;
	line record;
	all_hold boolean := true;
BEGIN
	PERFORM quota_internal.pin_statistics();
	FOR line IN SELECT e.* FROM quota_internal.explained_strategy(strategy) e
		UNION ALL SELECT e.* FROM quota_internal.explained_condition(strategy.condition, explained_grant.user_id) e
	LOOP
		RETURN QUERY SELECT line.step, line.question, line.answer, line.holds;
		-- A part decides nothing by itself.
		all_hold := all_hold AND (line.holds OR line.step IS NULL);
	END LOOP;
	SELECT e.* INTO present FROM quota_manager.quota_execute e
		WHERE e.strategy_id = strategy.id AND e.user_id = explained_grant.user_id AND e.revision = 0
			AND e.scheduled_time = CASE strategy.type WHEN 'single' THEN '-infinity' ELSE coalesce(firing, 'infinity') END;
	RETURN QUERY SELECT 7, 'is it still to be granted?',
		CASE WHEN present.id IS NULL THEN 'yes' ELSE format('granted as execution %s, which is %s', present.id, replace(present.status, '_', ' ')) END,
		present.id IS NULL;
	SELECT r.* INTO room FROM quota_internal.explained_room(strategy, explained_grant.user_id, firing) r;
	RETURN QUERY SELECT 8, 'may the user get more of it?', room.answer, room.holds;
	all_hold := all_hold AND present.id IS NULL AND room.holds;
	RETURN QUERY SELECT 9, 'so, will it be granted when it runs?',
		CASE WHEN all_hold THEN format('yes, %s of model "%s"', room.amount, strategy.model) ELSE 'no, as things are' END, all_hold;
END
$$;
COMMENT ON FUNCTION quota_internal.explained_grant(quota_manager.quota_strategy, text) IS 'Of explain(): all questions and answers; a part of the condition has no number.';
