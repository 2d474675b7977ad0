-- What proves what was paid is not lost by a slip: quota_manager.delete_proof.  Deleted grants: counts.sql.

CREATE FUNCTION quota_internal.loss_of_proof(relation oid) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	-- Not as constants of a type: another one of these tables may be missing.
	loss CONSTANT text := CASE relation
		WHEN to_regclass('quota_manager.quota_execute') THEN 'users would be paid again'
		WHEN to_regclass('quota_manager.quota_run') THEN 'firings would be run again'
		WHEN to_regclass('quota_manager.bulk_call') THEN 'keys would send again what they have sent'
		WHEN to_regclass('quota_manager.pruned_grant') THEN 'ceilings and audits would not count what was granted'
		WHEN to_regclass('quota_manager.quota_reversal') THEN 'reversals could not be undone'
		WHEN to_regclass('quota_manager.quota_reversal_item') THEN 'reversals could not be undone, and would not go on'
		WHEN to_regclass('quota_manager.quota_strategy_version') THEN 'nobody would know what grants were made by' END;
BEGIN
	-- Another table could be given one of these triggers, which would run what it calls as the owner.
	IF loss IS NULL THEN
		RAISE EXCEPTION 'this trigger is for the tables of quota_manager that keep proof only' USING ERRCODE = 'wrong_object_type';
	END IF;
	RETURN loss;
END
$$;
COMMENT ON FUNCTION quota_internal.loss_of_proof(oid) IS 'Of triggers: what would come of losing rows of a table; an error if it keeps no proof.';

CREATE FUNCTION quota_internal.refuse_loss(relation oid, operation text, loss text) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	RAISE EXCEPTION '% % cannot be %: %', CASE operation WHEN 'TRUNCATE' THEN 'table' WHEN 'DELETE' THEN 'rows of' ELSE 'keys of' END,
			relation::regclass, CASE operation WHEN 'TRUNCATE' THEN 'truncated' WHEN 'DELETE' THEN 'deleted' ELSE 'changed' END, loss
		USING ERRCODE = 'object_not_in_prerequisite_state', DETAIL = 'They are proof of what was paid, and of who did it.',
			HINT = concat(CASE WHEN operation <> 'UPDATE' AND relation IN (to_regclass('quota_manager.quota_execute'), to_regclass('quota_manager.quota_run'))
				THEN 'Delete what is old with CALL quota_manager.retain(). ' END, 'To do it all the same, set quota_manager.delete_proof to on before.');
END
$$;
COMMENT ON FUNCTION quota_internal.refuse_loss(oid, text, text) IS 'Of triggers: raises the error that proof of what was paid would be lost, and how.';

CREATE FUNCTION quota_internal.keep_proof() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET quota_manager.pinned_statistics = on SET jit = off
AS $$
DECLARE
	loss CONSTANT text := quota_internal.loss_of_proof(TG_RELID);
	is_lost boolean := TG_OP = 'UPDATE';
BEGIN
	IF quota_internal.setting('delete_proof')::boolean THEN
		RETURN CASE TG_LEVEL WHEN 'ROW' THEN NEW END;
	END IF;
	IF TG_OP = 'TRUNCATE' THEN
		EXECUTE format('SELECT EXISTS (SELECT 1 FROM %s)', TG_RELID::regclass) INTO is_lost;
	END IF;
	IF is_lost THEN
		PERFORM quota_internal.refuse_loss(TG_RELID, TG_OP, loss);
	END IF;
	RETURN CASE TG_LEVEL WHEN 'ROW' THEN NEW END;
END
$$;
COMMENT ON FUNCTION quota_internal.keep_proof() IS 'Trigger: refuses that proof of what was paid is truncated or given another key, unless quota_manager.delete_proof is on.';

CREATE FUNCTION quota_internal.keep_deleted_proof() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	loss CONSTANT text := quota_internal.loss_of_proof(TG_RELID);
BEGIN
	IF NOT quota_internal.setting('delete_proof')::boolean AND EXISTS (SELECT 1 FROM gone) THEN
		PERFORM quota_internal.refuse_loss(TG_RELID, TG_OP, loss);
	END IF;
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION quota_internal.keep_deleted_proof() IS 'Trigger: refuses that proof of what was paid is deleted, unless quota_manager.delete_proof is on.';

CREATE FUNCTION quota_internal.keep_deleted_runs() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	loss CONSTANT text := quota_internal.loss_of_proof(TG_RELID);
BEGIN
	IF quota_internal.setting('delete_proof')::boolean THEN
		RETURN NULL;
	END IF;
	IF EXISTS (SELECT 1 FROM gone g JOIN quota_manager.quota_strategy s ON s.id = g.strategy_id
			WHERE NOT s.archived AND (g.scheduled_time IS NOT NULL AND g.state <> 'skipped' OR g.first_grant_id IS NOT NULL)) THEN
		PERFORM quota_internal.refuse_loss(TG_RELID, TG_OP, loss);
	END IF;
	-- Runs of reversals have no strategy.
	IF EXISTS (SELECT 1 FROM gone g CROSS JOIN LATERAL jsonb_to_recordset(g.reversed_sums) AS p (strategy_id integer)
			JOIN quota_manager.quota_strategy s ON s.id = p.strategy_id WHERE NOT s.archived) THEN
		PERFORM quota_internal.refuse_loss(TG_RELID, TG_OP, 'what reversals take back and give again would not be sent');
	END IF;
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION quota_internal.keep_deleted_runs() IS 'Trigger: refuses that runs are deleted that keep firings from being run again, unless quota_manager.delete_proof is on.';

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
				FOR EACH STATEMENT EXECUTE FUNCTION quota_internal.%I()', kept.name,
				CASE WHEN kept.name OPERATOR(pg_catalog.=) 'quota_run' THEN 'keep_deleted_runs' ELSE 'keep_deleted_proof' END);
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
