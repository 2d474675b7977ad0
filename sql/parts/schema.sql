\echo Use "CREATE EXTENSION quota_manager" to load this file. \quit

-- Conditions, user ids and what gateways answer are UTF-8 text; another encoding could not hold them.
DO $$
BEGIN
	IF pg_catalog.getdatabaseencoding() OPERATOR(pg_catalog.<>) 'UTF8' THEN
		RAISE EXCEPTION 'quota_manager needs a database with encoding UTF8, this one has %', pg_catalog.getdatabaseencoding()
			USING ERRCODE = 'feature_not_supported',
				HINT = 'Create the database with: CREATE DATABASE ... ENCODING ''UTF8'' TEMPLATE template0.';
	END IF;

	-- What someone else put into the schema before could capture names and operators below, and would run as
	-- whoever uses the extension.
	IF EXISTS (SELECT FROM pg_catalog.pg_namespace n JOIN pg_catalog.pg_roles r ON r.oid OPERATOR(pg_catalog.=) n.nspowner
			WHERE n.nspname OPERATOR(pg_catalog.=) 'quota_manager'
				AND (NOT r.rolsuper AND r.rolname OPERATOR(pg_catalog.<>) CURRENT_USER
					OR EXISTS (SELECT FROM pg_catalog.pg_depend d
						WHERE d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_namespace'::pg_catalog.regclass::pg_catalog.oid
							AND d.refobjid OPERATOR(pg_catalog.=) n.oid
							AND d.classid OPERATOR(pg_catalog.<>) 'pg_catalog.pg_extension'::pg_catalog.regclass::pg_catalog.oid))) THEN
		RAISE EXCEPTION 'schema quota_manager is there already and not empty, or belongs to another role'
			USING ERRCODE = 'duplicate_schema', HINT = 'Drop it; CREATE EXTENSION makes its own.';
	END IF;
END
$$;

CREATE SCHEMA quota_condition;
COMMENT ON SCHEMA quota_condition IS
	'Condition functions: has-tag("x") in a condition calls quota_condition.has_tag(subject, text). Functions added here can be used at once.';

CREATE TABLE quota_manager.quota_installation (
	singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
	id uuid NOT NULL DEFAULT pg_catalog.gen_random_uuid(),
	user_source text,
	workers_enabled boolean NOT NULL DEFAULT true
);
COMMENT ON TABLE quota_manager.quota_installation IS 'One row: what is true of this installation as a whole. Written when first needed.';
COMMENT ON COLUMN quota_manager.quota_installation.singleton IS 'Always true: there is one row at most.';
COMMENT ON COLUMN quota_manager.quota_installation.id IS 'Part of every Idempotency-Key sent to a gateway; a restored dump keeps it.';
COMMENT ON COLUMN quota_manager.quota_installation.user_source IS 'Relation that conditions read users from; null: quota_manager.user_info. Set by set_user_source.';
COMMENT ON COLUMN quota_manager.quota_installation.workers_enabled IS 'False after stop_workers(): background workers of this database stay down.';
SELECT pg_catalog.pg_extension_config_dump('quota_manager.quota_installation', '');

CREATE FUNCTION quota_manager.set_update_time() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	NEW.update_time := clock_timestamp();
	RETURN NEW;
END
$$;
COMMENT ON FUNCTION quota_manager.set_update_time() IS 'Trigger: keeps update_time.';
