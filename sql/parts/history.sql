-- Every version of a strategy: who made it, when, why and what it says, and what it changes for users.

-- No foreign key: versions stay when a strategy is deleted.
CREATE TABLE quota_manager.quota_strategy_version (
	strategy_id integer NOT NULL,
	version integer NOT NULL,
	change_time timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	role text,
	session_role text,
	said_by text,
	note text,
	definition jsonb,
	PRIMARY KEY (strategy_id, version)
);
COMMENT ON TABLE quota_manager.quota_strategy_version IS 'Every version of every strategy, written by triggers. Grants name theirs: quota_execute.strategy_version.';
COMMENT ON COLUMN quota_manager.quota_strategy_version.strategy_id IS 'The strategy.';
COMMENT ON COLUMN quota_manager.quota_strategy_version.version IS 'Its version: counts edits.';
COMMENT ON COLUMN quota_manager.quota_strategy_version.change_time IS 'When it was written.';
COMMENT ON COLUMN quota_manager.quota_strategy_version.role IS 'Role that wrote it; null: not known, since it is from before versions were kept.';
COMMENT ON COLUMN quota_manager.quota_strategy_version.session_role IS 'Role that the session belonged to.';
COMMENT ON COLUMN quota_manager.quota_strategy_version.said_by IS 'Person that wrote it, as named by the session: see grant_decision.said_by.';
COMMENT ON COLUMN quota_manager.quota_strategy_version.note IS 'Why, as given with the edit: quota_strategy.edit_note. Null: nothing was given.';
COMMENT ON COLUMN quota_manager.quota_strategy_version.definition IS 'The columns that people write; times and intervals as in UTC. Null: the strategy was deleted.';
SELECT pg_catalog.pg_extension_config_dump('quota_manager.quota_strategy_version', '');

-- The same text whatever the settings of the session, so that versions can be compared.
CREATE FUNCTION quota_internal.strategy_definition(strategy quota_manager.quota_strategy) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET intervalstyle = 'postgres'
AS $$
BEGIN
	RETURN to_jsonb(strategy) - ARRAY['id', 'version', 'schedule_since', 'create_time', 'update_time', 'edit_note'];
END
$$;
COMMENT ON FUNCTION quota_internal.strategy_definition(quota_manager.quota_strategy) IS 'What people write of a strategy, as quota_strategy_version keeps it.';

CREATE FUNCTION quota_internal.record_version() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET quota_manager.delete_proof = on
AS $$
BEGIN
	-- A cast from the rows of another table would be called with the rights of the owner.
	IF TG_RELID <> 'quota_manager.quota_strategy'::regclass THEN
		RAISE EXCEPTION 'this trigger is for quota_manager.quota_strategy only' USING ERRCODE = 'wrong_object_type';
	END IF;
	IF TG_OP = 'INSERT' THEN
		-- One that is restored was created before; its versions are restored too.
		IF NEW.create_time < statement_timestamp() THEN
			RETURN NULL;
		END IF;
		-- Of a strategy that had this id before and was deleted.
		DELETE FROM quota_manager.quota_strategy_version v WHERE v.strategy_id = NEW.id;
	ELSE
		-- A dump of 1.0.0 has none.
		INSERT INTO quota_manager.quota_strategy_version (strategy_id, version, change_time, definition)
			VALUES (OLD.id, OLD.version, OLD.update_time, quota_internal.strategy_definition(OLD)) ON CONFLICT (strategy_id, version) DO NOTHING;
	END IF;
	-- Versions that came round again take the place of those before.
	INSERT INTO quota_manager.quota_strategy_version AS v (strategy_id, version, role, session_role, said_by, note, definition)
		VALUES (coalesce(NEW.id, OLD.id), CASE WHEN TG_OP = 'DELETE' THEN OLD.version % 2147483647 + 1 ELSE NEW.version END,
			quota_internal.deciding_role(), session_user, quota_internal.said_by(), CASE WHEN TG_OP = 'INSERT' THEN NEW.edit_note END,
			CASE WHEN TG_OP <> 'DELETE' THEN quota_internal.strategy_definition(NEW) END)
		ON CONFLICT (strategy_id, version) DO UPDATE SET change_time = excluded.change_time, role = excluded.role, session_role = excluded.session_role,
			said_by = excluded.said_by, note = excluded.note, definition = excluded.definition;
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION quota_internal.record_version() IS 'Trigger: keeps each version of a strategy, and that it was deleted. Runs as the owner, since editors cannot write versions.';
CREATE TRIGGER record_version AFTER INSERT OR UPDATE OR DELETE ON quota_manager.quota_strategy
	FOR EACH ROW EXECUTE FUNCTION quota_internal.record_version();
COMMENT ON TRIGGER record_version ON quota_manager.quota_strategy IS 'Keeps each version.';

CREATE FUNCTION quota_internal.record_edit_note() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF TG_RELID <> 'quota_manager.quota_strategy'::regclass THEN
		RAISE EXCEPTION 'this trigger is for quota_manager.quota_strategy only' USING ERRCODE = 'wrong_object_type';
	END IF;
	UPDATE quota_manager.quota_strategy_version v SET note = NEW.edit_note WHERE v.strategy_id = NEW.id AND v.version = NEW.version;
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION quota_internal.record_edit_note() IS 'Trigger: keeps the note of an edit with the version that it makes.';
-- Only for edits that write the note, also if it is the one of the edit before.  Its name sorts after record_version.
CREATE TRIGGER record_version_note AFTER UPDATE OF edit_note ON quota_manager.quota_strategy
	FOR EACH ROW EXECUTE FUNCTION quota_internal.record_edit_note();
COMMENT ON TRIGGER record_version_note ON quota_manager.quota_strategy IS 'Keeps the note of an edit.';

CREATE FUNCTION quota_internal.said_value(value jsonb) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN coalesce(nullif(pg_catalog.regexp_replace(value OPERATOR(pg_catalog.#>>) '{}', '^(\d{4,6}-\d\d-\d\d)T', '\1 '), ''), 'none');
COMMENT ON FUNCTION quota_internal.said_value(jsonb) IS 'Of strategy_history(): a value of a definition, in words.';

CREATE FUNCTION quota_internal.definition_changes(former jsonb, latter jsonb) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF latter IS NULL THEN
		RETURN 'deleted';
	END IF;
	IF former IS NULL THEN
		RETURN format('%s: %s%s of %s for %s', latter ->> 'state', nullif(latter ->> 'allowance', 'add') || ' ', latter ->> 'amount', latter ->> 'model', latter ->> 'condition')
			|| coalesce(', ' || (latter ->> 'periodic_expr') || ' ' || (latter ->> 'time_zone'), '');
	END IF;
	RETURN coalesce((SELECT string_agg(format('%s: %s -> %s', a.attname, quota_internal.said_value(former -> a.attname), quota_internal.said_value(latter -> a.attname)), '; '
			ORDER BY a.attname <> 'state', a.attnum)
		FROM pg_attribute a WHERE a.attrelid = 'quota_manager.quota_strategy'::regclass AND a.attnum > 0 AND NOT a.attisdropped
			AND former -> a.attname IS DISTINCT FROM latter -> a.attname
			-- What follows the state is not said again.
			AND NOT (a.attname IN ('enabled', 'archived') AND former -> 'state' IS DISTINCT FROM latter -> 'state')
			-- Columns that an update has added.
			AND former ? a.attname AND latter ? a.attname), 'nothing');
END
$$;
COMMENT ON FUNCTION quota_internal.definition_changes(jsonb, jsonb) IS 'What an edit of a strategy changed, in words. No former one: what it says; no latter one: deleted.';

-- A name that no strategy has any more is that of the last one that had it.
CREATE FUNCTION quota_internal.known_strategy_id(strategy text) RETURNS integer
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	chosen integer := (SELECT s.id FROM quota_manager.quota_strategy s WHERE s.name = strategy);
BEGIN
	IF strategy IS NULL THEN
		RAISE EXCEPTION 'the strategy must be given' USING ERRCODE = 'null_value_not_allowed';
	END IF;
	chosen := coalesce(chosen, (SELECT v.strategy_id FROM quota_manager.quota_strategy_version v
		WHERE v.definition IS NULL AND strategy = (SELECT p.definition ->> 'name' FROM quota_manager.quota_strategy_version p
			WHERE p.strategy_id = v.strategy_id AND p.definition IS NOT NULL ORDER BY p.change_time DESC, p.version DESC LIMIT 1)
		ORDER BY v.change_time DESC LIMIT 1));
	IF chosen IS NULL THEN
		RAISE EXCEPTION 'strategy "%" does not exist', strategy
			USING ERRCODE = 'undefined_object', HINT = 'See SELECT name FROM quota_manager.quota_strategy.';
	END IF;
	RETURN chosen;
END
$$;
COMMENT ON FUNCTION quota_internal.known_strategy_id(text) IS 'Of strategy_history(): a strategy that the caller may see, or that was deleted; an error if there is none.';

CREATE FUNCTION quota_manager.strategy_history(strategy text)
RETURNS TABLE (version integer, changed_at timestamptz, changed_by text, note text, changes text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
	chosen CONSTANT integer := quota_internal.known_strategy_id(strategy);
BEGIN
	RETURN QUERY SELECT v.version, v.change_time, coalesce(quota_internal.person(v.said_by, v.role), 'not known'), v.note,
			quota_internal.definition_changes(lag(v.definition) OVER w, v.definition)
		FROM (SELECT k.* FROM quota_manager.quota_strategy_version k WHERE k.strategy_id = chosen
			-- A strategy that was restored from a dump without versions has none until it is edited.
			UNION ALL SELECT s.id, s.version, s.update_time, NULL, NULL, NULL, NULL, quota_internal.strategy_definition(s) FROM quota_manager.quota_strategy s
				WHERE s.id = chosen AND NOT EXISTS (SELECT 1 FROM quota_manager.quota_strategy_version k WHERE k.strategy_id = s.id AND k.version = s.version)) v
		WINDOW w AS (ORDER BY v.change_time, v.version) ORDER BY v.change_time, v.version;
END
$$;
COMMENT ON FUNCTION quota_manager.strategy_history(text) IS 'The versions of a strategy: when, by whom and why each was written, and what it changed. Also of one that was deleted.';

CREATE FUNCTION quota_internal.version_condition(strategy quota_manager.quota_strategy, version integer) RETURNS quota_manager.condition
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	known text;
BEGIN
	IF version = strategy.version THEN
		RETURN strategy.condition;
	END IF;
	known := (SELECT v.definition ->> 'condition' FROM quota_manager.quota_strategy_version v
		WHERE v.strategy_id = strategy.id AND v.version = version_condition.version);
	IF known IS NULL THEN
		RAISE EXCEPTION 'version % of strategy "%" is not known', version, strategy.name
			USING ERRCODE = 'undefined_object', HINT = format('See SELECT * FROM quota_manager.strategy_history(%L).', strategy.name);
	END IF;
	RETURN known::quota_manager.condition;
END
$$;
COMMENT ON FUNCTION quota_internal.version_condition(quota_manager.quota_strategy, integer) IS 'The condition of a version of a strategy; an error if it is not known.';

CREATE FUNCTION quota_internal.compared_versions(strategy text, v1 integer, v2 integer,
	OUT former_version integer, OUT latter_version integer, OUT former quota_manager.condition, OUT latter quota_manager.condition)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	chosen CONSTANT quota_manager.quota_strategy := quota_internal.strategy_named(strategy);
BEGIN
	latter_version := coalesce(v2, chosen.version);
	-- A strategy that was never edited is compared with itself.
	former_version := coalesce(v1, (SELECT v.version FROM quota_manager.quota_strategy_version v
		WHERE v.strategy_id = chosen.id AND v.version < latter_version ORDER BY v.version DESC LIMIT 1), latter_version);
	former := quota_internal.version_condition(chosen, former_version);
	latter := quota_internal.version_condition(chosen, latter_version);
END
$$;
COMMENT ON FUNCTION quota_internal.compared_versions(text, integer, integer) IS 'Of diff() and diff_counts(): the versions and their conditions. v2 null: the present one; v1 null: the one before v2.';

CREATE FUNCTION quota_manager.diff(strategy text, v1 integer DEFAULT NULL, v2 integer DEFAULT NULL)
RETURNS TABLE (user_id text, change text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	compared record;
BEGIN
	SELECT c.* INTO compared FROM quota_internal.compared_versions(strategy, v1, v2) c;
	IF compared.former::text = compared.latter::text THEN
		RETURN;
	END IF;
	-- Two searches: each can use the indexes of the users.
	RETURN QUERY SELECT a.* FROM quota_internal.ask_about_users(format($sql$
		SELECT x.id, 'gained' FROM users x WHERE x.subject OPERATOR(quota_manager.@@) %2$L AND (x.subject OPERATOR(quota_manager.@@) %1$L) IS NOT TRUE
		UNION ALL
		SELECT x.id, 'lost' FROM users x WHERE x.subject OPERATOR(quota_manager.@@) %1$L AND (x.subject OPERATOR(quota_manager.@@) %2$L) IS NOT TRUE
		ORDER BY 1$sql$, compared.former, compared.latter), ARRAY[compared.former, compared.latter], NULL::text) AS a (user_id text, change text);
END
$$;
COMMENT ON FUNCTION quota_manager.diff(text, integer, integer) IS 'Users whom the condition of version v2 of a strategy has today and that of v1 has not (gained), and the other way round (lost). v2: the present one if it is left out; v1: the one before v2. Reads users with the rights of the caller.';

CREATE FUNCTION quota_manager.diff_counts(strategy text, v1 integer DEFAULT NULL, v2 integer DEFAULT NULL,
	OUT former_version integer, OUT latter_version integer, OUT gained bigint, OUT lost bigint, OUT kept bigint,
	OUT former_condition quota_manager.condition, OUT latter_condition quota_manager.condition)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	SELECT c.* INTO former_version, latter_version, former_condition, latter_condition FROM quota_internal.compared_versions(strategy, v1, v2) c;
	SELECT a.* INTO gained, lost, kept FROM quota_internal.ask_about_users(format($sql$
		SELECT count(*) FILTER (WHERE m.former IS NOT TRUE AND m.latter), count(*) FILTER (WHERE m.former AND m.latter IS NOT TRUE),
			count(*) FILTER (WHERE m.former AND m.latter)
		FROM (SELECT x.subject OPERATOR(quota_manager.@@) %1$L AS former, x.subject OPERATOR(quota_manager.@@) %2$L AS latter FROM users x
			WHERE x.subject OPERATOR(quota_manager.@@) %1$L OR x.subject OPERATOR(quota_manager.@@) %2$L) m$sql$, former_condition, latter_condition),
		ARRAY[former_condition, latter_condition], NULL::text) AS a (gained bigint, lost bigint, kept bigint);
END
$$;
COMMENT ON FUNCTION quota_manager.diff_counts(text, integer, integer) IS 'As diff(), counted: users gained, lost, and kept by both versions.';
