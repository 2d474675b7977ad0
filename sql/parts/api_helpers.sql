-- What functions of the API are made of.

CREATE FUNCTION quota_internal.decide_listed(action text, ids bigint[], note text)
RETURNS TABLE (id bigint, done boolean, status text, obstacle text)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	PERFORM quota_internal.check_transaction('decisions are taken');
	IF ids IS NULL THEN
		RAISE EXCEPTION 'the grants must be given' USING ERRCODE = 'null_value_not_allowed', HINT = 'Write ids: [1, 2].';
	END IF;
	RETURN QUERY SELECT d.* FROM quota_internal.decide_each(action, ids, note) d;
END
$$;
COMMENT ON FUNCTION quota_internal.decide_listed(text, bigint[], text) IS 'Of the API''s resolve, retry and cancel: see decide_each.';

CREATE FUNCTION quota_internal.switch_strategies(action text, ids integer[])
RETURNS TABLE (id integer, done boolean, status text, obstacle text)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
	wanted integer;
	strategy quota_manager.quota_strategy;
BEGIN
	PERFORM quota_internal.check_transaction('strategies are changed');
	IF ids IS NULL THEN
		RAISE EXCEPTION 'the strategies must be given' USING ERRCODE = 'null_value_not_allowed', HINT = 'Write ids: [1, 2].';
	END IF;
	-- One after the other in the order of their ids: two who switch some do not wait for each other in a circle.
	FOR wanted IN SELECT DISTINCT u FROM unnest(ids) u WHERE u IS NOT NULL ORDER BY u LOOP
		UPDATE quota_manager.quota_strategy s
			SET enabled = CASE action WHEN 'enable' THEN true WHEN 'disable' THEN false ELSE s.enabled END, archived = s.archived OR action = 'archive'
			WHERE s.id = wanted AND CASE action WHEN 'enable' THEN NOT s.enabled AND NOT s.archived WHEN 'disable' THEN s.enabled ELSE NOT s.archived END;
		done := FOUND;
		SELECT s.* INTO strategy FROM quota_manager.quota_strategy s WHERE s.id = wanted;
		id := wanted;
		status := CASE WHEN strategy.archived THEN 'archived' WHEN strategy.enabled THEN 'enabled' WHEN NOT strategy.enabled THEN 'disabled' END;
		obstacle := CASE WHEN done THEN NULL WHEN status IS NULL THEN 'not found' WHEN action = 'enable' AND strategy.archived THEN 'archived'
			ELSE status || ' already' END;
		RETURN NEXT;
	END LOOP;
END
$$;
COMMENT ON FUNCTION quota_internal.switch_strategies(text, integer[]) IS 'Of the API: enables, disables or archives strategies with the rights of the caller, and tells of each whether it was done, its status now, and what stood in the way.';

CREATE FUNCTION quota_internal.workers_are_paused() RETURNS boolean
LANGUAGE sql STABLE
BEGIN ATOMIC
	SELECT EXISTS (SELECT 1 FROM quota_manager.quota_installation i WHERE NOT i.workers_enabled);
END;
COMMENT ON FUNCTION quota_internal.workers_are_paused() IS 'Were the background workers stopped with stop_workers()?';

-- As the owner, who may look at what tells servers apart.
CREATE FUNCTION quota_internal.is_copy() RETURNS boolean
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	RETURN EXISTS (SELECT 1 FROM quota_manager.quota_installation i, quota_internal.present_identity() p
		WHERE (i.system_identifier, i.database_oid) <> (p.system_identifier, p.database_oid));
END
$$;
COMMENT ON FUNCTION quota_internal.is_copy() IS 'Does this database wait for resume(), because it is a copy of the one that granted and delivered?';
