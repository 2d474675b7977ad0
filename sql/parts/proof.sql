-- What proves what was paid is not lost by a slip: quota_manager.delete_proof.  Deleted grants: counts.sql.

CREATE FUNCTION quota_internal.keep_proof() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET quota_manager.pinned_statistics = on SET jit = off
AS $$
DECLARE
	-- Not as constants of a type: another one of these tables may be missing.
	loss CONSTANT text := CASE TG_RELID
		WHEN to_regclass('quota_manager.quota_execute') THEN 'users would be paid again'
		WHEN to_regclass('quota_manager.quota_run') THEN 'firings would be run again'
		WHEN to_regclass('quota_manager.bulk_call') THEN 'keys would send again what they have sent'
		WHEN to_regclass('quota_manager.pruned_grant') THEN 'ceilings and audits would not count what was granted'
		WHEN to_regclass('quota_manager.quota_reversal') THEN 'reversals could not be undone'
		WHEN to_regclass('quota_manager.quota_reversal_item') THEN 'reversals could not be undone, and would not go on'
		WHEN to_regclass('quota_manager.quota_strategy_version') THEN 'nobody would know what grants were made by' END;
	is_lost boolean;
BEGIN
	-- Another table could be given this trigger.
	IF loss IS NULL THEN
		RAISE EXCEPTION 'this trigger is for the tables of quota_manager that keep proof only' USING ERRCODE = 'wrong_object_type';
	END IF;
	PERFORM quota_internal.pin_statistics();
	IF quota_internal.setting('delete_proof')::boolean THEN
		RETURN CASE TG_LEVEL WHEN 'ROW' THEN NEW END;
	END IF;
	IF TG_OP = 'UPDATE' THEN
		is_lost := true;
	ELSIF TG_OP = 'TRUNCATE' THEN
		EXECUTE format('SELECT EXISTS (SELECT 1 FROM %s)', TG_RELID::regclass) INTO is_lost;
	ELSIF TG_RELID = to_regclass('quota_manager.quota_run') THEN
		is_lost := EXISTS (SELECT 1 FROM gone g JOIN quota_manager.quota_strategy s ON s.id = g.strategy_id
			WHERE NOT s.archived AND (g.scheduled_time IS NOT NULL AND g.state <> 'skipped' OR g.first_grant_id IS NOT NULL));
	ELSE
		is_lost := EXISTS (SELECT 1 FROM gone);
	END IF;
	IF is_lost THEN
		RAISE EXCEPTION '% quota_manager.% cannot be %: %', CASE TG_OP WHEN 'TRUNCATE' THEN 'table' WHEN 'DELETE' THEN 'rows of' ELSE 'keys of' END,
				TG_TABLE_NAME, CASE TG_OP WHEN 'TRUNCATE' THEN 'truncated' WHEN 'DELETE' THEN 'deleted' ELSE 'changed' END, loss
			USING ERRCODE = 'object_not_in_prerequisite_state', DETAIL = 'They are proof of what was paid, and of who did it.',
				HINT = concat(CASE WHEN TG_RELID IN (to_regclass('quota_manager.quota_execute'), to_regclass('quota_manager.quota_run')) AND TG_OP <> 'UPDATE'
					THEN 'Delete what is old with CALL quota_manager.retain(). ' END, 'To do it all the same, set quota_manager.delete_proof to on before.');
	END IF;
	RETURN CASE TG_LEVEL WHEN 'ROW' THEN NEW END;
END
$$;
COMMENT ON FUNCTION quota_internal.keep_proof() IS 'Trigger: refuses that proof of what was paid is truncated, deleted or given another key, unless quota_manager.delete_proof is on.';
DO $$
DECLARE
	kept record;
BEGIN
	-- Deleted grants are looked at by count_deleted.
	FOR kept IN SELECT t.name, t.key FROM (VALUES ('quota_execute', 'strategy_id, user_id, scheduled_time, revision'), ('quota_run', 'strategy_id, scheduled_time'),
			('bulk_call', 'key, user_id'), ('pruned_grant', NULL), ('quota_reversal', NULL), ('quota_reversal_item', NULL), ('quota_strategy_version', NULL)) t (name, key)
	LOOP
		EXECUTE pg_catalog.format('CREATE TRIGGER keep_truncated_proof BEFORE TRUNCATE ON quota_manager.%I FOR EACH STATEMENT EXECUTE FUNCTION quota_internal.keep_proof()', kept.name);
		EXECUTE pg_catalog.format('COMMENT ON TRIGGER keep_truncated_proof ON quota_manager.%I IS %L', kept.name, 'Proof is not truncated by a slip.');
		IF kept.name OPERATOR(pg_catalog.<>) ALL (ARRAY['quota_execute', 'pruned_grant']) THEN
			EXECUTE pg_catalog.format('CREATE TRIGGER keep_deleted_proof AFTER DELETE ON quota_manager.%I REFERENCING OLD TABLE AS gone
				FOR EACH STATEMENT EXECUTE FUNCTION quota_internal.keep_proof()', kept.name);
			EXECUTE pg_catalog.format('COMMENT ON TRIGGER keep_deleted_proof ON quota_manager.%I IS %L', kept.name, 'Proof is not deleted by a slip.');
		END IF;
		IF kept.key IS NOT NULL THEN
			EXECUTE pg_catalog.format('CREATE TRIGGER keep_key BEFORE UPDATE OF %s ON quota_manager.%I FOR EACH ROW WHEN ((%s) IS DISTINCT FROM (%s))
				EXECUTE FUNCTION quota_internal.keep_proof()', kept.key, kept.name,
				pg_catalog.regexp_replace(kept.key, '(\w+)', 'OLD.\1', 'g'), pg_catalog.regexp_replace(kept.key, '(\w+)', 'NEW.\1', 'g'));
			EXECUTE pg_catalog.format('COMMENT ON TRIGGER keep_key ON quota_manager.%I IS %L', kept.name, 'A key that proves something is not changed by a slip.');
		END IF;
	END LOOP;
END
$$;
