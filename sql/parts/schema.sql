\echo Use "CREATE EXTENSION quota_manager" to load this file. \quit

-- Of updates: default_rights.sql sees to everything here, whatever somebody has set for the database or a role.
SELECT pg_catalog.set_config('quota_upgrade.members', '{}', true);

-- A fresh install: default_rights.sql may revoke rights on every object.
SELECT pg_catalog.set_config('quota_upgrade.members', '{}', true);

-- Conditions, user ids and what gateways answer are UTF-8 text; another encoding could not hold them.
DO $$
BEGIN
	IF pg_catalog.getdatabaseencoding() OPERATOR(pg_catalog.<>) 'UTF8' THEN
		RAISE EXCEPTION 'quota_manager needs a database with encoding UTF8, this one has %', pg_catalog.getdatabaseencoding()
			USING ERRCODE = 'feature_not_supported',
				HINT = 'Create the database with: CREATE DATABASE ... ENCODING ''UTF8'' TEMPLATE template0.';
	END IF;

	-- Objects of another role in the schema could capture names and operators below, and would run as the users of
	-- the extension.
	IF EXISTS (SELECT 1 FROM pg_catalog.pg_namespace n JOIN pg_catalog.pg_roles r ON r.oid OPERATOR(pg_catalog.=) n.nspowner
			WHERE n.nspname OPERATOR(pg_catalog.=) 'quota_manager'
				AND (NOT r.rolsuper AND r.rolname OPERATOR(pg_catalog.<>) CURRENT_USER
					OR EXISTS (SELECT 1 FROM pg_catalog.pg_depend d
						WHERE d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_namespace'::pg_catalog.regclass::pg_catalog.oid
							AND d.refobjid OPERATOR(pg_catalog.=) n.oid
							AND d.classid OPERATOR(pg_catalog.<>) 'pg_catalog.pg_extension'::pg_catalog.regclass::pg_catalog.oid))) THEN
		RAISE EXCEPTION 'schema quota_manager is there already and not empty, or belongs to another role'
			USING ERRCODE = 'duplicate_schema', HINT = 'Drop it; CREATE EXTENSION makes its own.';
	END IF;
END
$$;

CREATE SCHEMA quota_internal;
COMMENT ON SCHEMA quota_internal IS 'What quota_manager is made of; not for people, and may change with any version.';

CREATE SCHEMA quota_condition;
COMMENT ON SCHEMA quota_condition IS
	'Condition functions: has-tag("x") in a condition calls quota_condition.has_tag(subject, text). Functions added here can be used at once.';

CREATE TABLE quota_manager.quota_installation (
	singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
	id uuid NOT NULL DEFAULT pg_catalog.gen_random_uuid(),
	user_source text,
	workers_enabled boolean NOT NULL DEFAULT true,
	system_identifier bigint,
	database_oid oid,
	timeline integer,
	doubtful_until timestamptz,
	doubtful_firing timestamptz,
	former_ids jsonb NOT NULL DEFAULT '[]',
	user_source_owner text,
	CONSTRAINT quota_installation_user_source_has_an_owner CHECK ((user_source IS NULL) = (user_source_owner IS NULL)),
	CONSTRAINT quota_installation_identity_is_whole CHECK (pg_catalog.num_nulls(system_identifier, database_oid, timeline) IN (0, 3))
);
COMMENT ON TABLE quota_manager.quota_installation IS 'One row: what is true of this installation as a whole. Written when first needed.';
COMMENT ON COLUMN quota_manager.quota_installation.singleton IS 'Always true: there is one row at most.';
COMMENT ON COLUMN quota_manager.quota_installation.id IS 'Part of every Idempotency-Key sent to a gateway; a restored dump keeps it, until it is resumed as one that may have run.';
COMMENT ON COLUMN quota_manager.quota_installation.user_source IS 'Relation that conditions read users from; null: quota_manager.user_info. Set by set_user_source.';
COMMENT ON COLUMN quota_manager.quota_installation.user_source_owner IS 'Role that owned the relation when set_user_source was called. If another does, nothing is scanned until it is called again.';
COMMENT ON COLUMN quota_manager.quota_installation.workers_enabled IS 'False after stop_workers(): background workers of this database stay down.';
COMMENT ON COLUMN quota_manager.quota_installation.system_identifier IS 'Server (pg_control_system) that strategies were last run or grants last sent on; null: never. On any other nothing is scanned or delivered until resume().';
COMMENT ON COLUMN quota_manager.quota_installation.database_oid IS 'Database that strategies were last run or grants last sent in; null: never. In any other nothing is scanned or delivered until resume().';
COMMENT ON COLUMN quota_manager.quota_installation.timeline IS 'Timeline that strategies were last run or grants last sent on; null: never. On any other quota_manager.after_promotion decides.';
COMMENT ON COLUMN quota_manager.quota_installation.doubtful_until IS 'Up to this real time another life of this database may have granted: single strategies that are older write grants in doubt until a scan of theirs is done that ended later; null: never.';
COMMENT ON COLUMN quota_manager.quota_installation.doubtful_firing IS 'The same by the schedule clock, which can be pinned: grants for firings up to this time are written in doubt.';
COMMENT ON COLUMN quota_manager.quota_installation.former_ids IS 'Ids it had before, oldest first: {"id", "before_grant"}. Grants with a number below before_grant keep the first one that fits as part of their Idempotency-Key.';
SELECT pg_catalog.pg_extension_config_dump('quota_manager.quota_installation', '');

CREATE FUNCTION quota_internal.library_version() RETURNS text
LANGUAGE C STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'qm_library_version';
COMMENT ON FUNCTION quota_internal.library_version() IS
	'Version of the library that this session runs; pg_extension has that of the SQL in this database.';

CREATE FUNCTION quota_internal.setting(name text) RETURNS text
LANGUAGE C STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'qm_setting';
COMMENT ON FUNCTION quota_internal.setting(text) IS
	'As current_setting(''quota_manager.'' || name), with the library loaded: before, that shows what any role has set.';

CREATE FUNCTION quota_internal.require_short(value text, name text) RETURNS void
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF octet_length(value) > 2600 THEN
		RAISE EXCEPTION '% has % bytes', name, octet_length(value)
			USING ERRCODE = 'string_data_right_truncation', DETAIL = 'At most 2600 are possible.';
	END IF;
END
$$;
COMMENT ON FUNCTION quota_internal.require_short(text, text) IS
	'Raises an error for a text that is longer than an id can be, before it is stored with each of many grants, or logged.';

CREATE FUNCTION quota_internal.set_update_time() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	NEW.update_time := clock_timestamp();
	RETURN NEW;
END
$$;
COMMENT ON FUNCTION quota_internal.set_update_time() IS 'Trigger: keeps update_time.';
