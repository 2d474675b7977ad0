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
-- Functions that write run as the owner of the extension; these let them read as whoever called them.

CREATE FUNCTION quota_internal.require_caller() RETURNS void
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'qm_require_caller';
COMMENT ON FUNCTION quota_internal.require_caller() IS 'Raises an error within a security-restricted operation: what others have written decides nothing.';

CREATE FUNCTION quota_internal.read_as_caller(query text, argument text[]) RETURNS text[]
LANGUAGE C VOLATILE SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'qm_read_as_caller';
COMMENT ON FUNCTION quota_internal.read_as_caller(text, text[]) IS 'The only column, of type text, of a query whose text is ours and whose $1 is the argument, run with the rights of the role that the session acts as: what it may not read is an error, and what a policy hides is not there.';

CREATE FUNCTION quota_internal.run_as_caller(statement text) RETURNS void
LANGUAGE C VOLATILE STRICT SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'qm_run_as_caller';
COMMENT ON FUNCTION quota_internal.run_as_caller(text) IS 'Runs a statement that others have written with the rights of the role that the session acts as, under SECURITY_RESTRICTED_OPERATION.';

CREATE FUNCTION quota_internal.deciding_role() RETURNS text
LANGUAGE sql STABLE
RETURN coalesce(nullif(pg_catalog.current_setting('role'), 'none'), session_user::text);
COMMENT ON FUNCTION quota_internal.deciding_role() IS 'The role that the session acts as, also inside of functions that run as their owner.';

CREATE FUNCTION quota_internal.may_restore(relation oid) RETURNS boolean
LANGUAGE sql STABLE
RETURN pg_catalog.pg_has_role((SELECT c.relowner FROM pg_catalog.pg_class c WHERE c.oid OPERATOR(pg_catalog.=) relation), 'USAGE');
COMMENT ON FUNCTION quota_internal.may_restore(oid) IS 'Of triggers: is the current user the owner of the table, or a superuser? Others cannot write what only a restore has to say.';
-- The type condition: canonical text, checked for syntax and limits when read.

CREATE TYPE quota_manager.condition;

CREATE FUNCTION quota_internal.condition_in(cstring) RETURNS quota_manager.condition
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'qm_condition_in';
COMMENT ON FUNCTION quota_internal.condition_in(cstring) IS 'Input: checks syntax and limits, stores the canonical text.';

CREATE FUNCTION quota_internal.condition_out(quota_manager.condition) RETURNS cstring
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'qm_condition_out';
COMMENT ON FUNCTION quota_internal.condition_out(quota_manager.condition) IS 'Output: the canonical text.';

CREATE FUNCTION quota_internal.condition_recv(internal) RETURNS quota_manager.condition
LANGUAGE C STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'qm_condition_recv';
COMMENT ON FUNCTION quota_internal.condition_recv(internal) IS 'Binary input: as the text input.';

CREATE FUNCTION quota_internal.condition_send(quota_manager.condition) RETURNS bytea
LANGUAGE C STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'qm_condition_send';
COMMENT ON FUNCTION quota_internal.condition_send(quota_manager.condition) IS 'Binary output: the canonical text.';

CREATE TYPE quota_manager.condition (
	INPUT = quota_internal.condition_in,
	OUTPUT = quota_internal.condition_out,
	RECEIVE = quota_internal.condition_recv,
	SEND = quota_internal.condition_send,
	LIKE = pg_catalog.text,
	CATEGORY = 'S',
	COLLATABLE = true
);
COMMENT ON TYPE quota_manager.condition IS 'A condition on a user, such as and(is-vip(2), belong-to("org001")); kept as its canonical text.';

CREATE CAST (quota_manager.condition AS pg_catalog.text) WITHOUT FUNCTION AS IMPLICIT;
-- Implicit, so that @@ takes a parameter of type text, which is the only thing that wants a condition.
CREATE CAST (pg_catalog.text AS quota_manager.condition) WITH INOUT AS IMPLICIT;
COMMENT ON CAST (quota_manager.condition AS pg_catalog.text) IS 'The canonical text.';
COMMENT ON CAST (pg_catalog.text AS quota_manager.condition) IS 'Checks syntax and limits.';
-- The type cron: canonical text, checked for syntax, ranges and impossible dates when read.

CREATE TYPE quota_manager.cron;

CREATE FUNCTION quota_internal.cron_in(cstring) RETURNS quota_manager.cron
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'qm_cron_in';
COMMENT ON FUNCTION quota_internal.cron_in(cstring) IS 'Input: checks syntax, ranges and impossible dates, stores the canonical text. Does not look whether a time zone exists.';

CREATE FUNCTION quota_internal.cron_out(quota_manager.cron) RETURNS cstring
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'qm_cron_out';
COMMENT ON FUNCTION quota_internal.cron_out(quota_manager.cron) IS 'Output: the canonical text.';

CREATE FUNCTION quota_internal.cron_recv(internal) RETURNS quota_manager.cron
LANGUAGE C STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'qm_cron_recv';
COMMENT ON FUNCTION quota_internal.cron_recv(internal) IS 'Binary input: as the text input.';

CREATE FUNCTION quota_internal.cron_send(quota_manager.cron) RETURNS bytea
LANGUAGE C STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'qm_cron_send';
COMMENT ON FUNCTION quota_internal.cron_send(quota_manager.cron) IS 'Binary output: the canonical text.';

CREATE TYPE quota_manager.cron (
	INPUT = quota_internal.cron_in,
	OUTPUT = quota_internal.cron_out,
	RECEIVE = quota_internal.cron_recv,
	SEND = quota_internal.cron_send,
	LIKE = pg_catalog.text,
	CATEGORY = 'S',
	COLLATABLE = true
);
COMMENT ON TYPE quota_manager.cron IS 'A cron schedule, such as 0 8 * * MON-FRI; kept as its canonical text.';

CREATE CAST (quota_manager.cron AS pg_catalog.text) WITHOUT FUNCTION AS IMPLICIT;
CREATE CAST (pg_catalog.text AS quota_manager.cron) WITH INOUT AS ASSIGNMENT;
COMMENT ON CAST (quota_manager.cron AS pg_catalog.text) IS 'The canonical text.';
COMMENT ON CAST (pg_catalog.text AS quota_manager.cron) IS 'Checks syntax, ranges and impossible dates.';

CREATE FUNCTION quota_manager.next_firing(schedule quota_manager.cron, after_time timestamp with time zone, zone text)
RETURNS timestamp with time zone
LANGUAGE C STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'qm_next_firing';
COMMENT ON FUNCTION quota_manager.next_firing(quota_manager.cron, timestamp with time zone, text) IS
	'The first firing after a time, the schedule being read in a time zone (that of its CRON_TZ= prefix, if it has one); null if there is none within a hundred years.';

CREATE FUNCTION quota_manager.firings(
	schedule quota_manager.cron,
	after_time timestamp with time zone,
	until_time timestamp with time zone,
	zone text
) RETURNS SETOF timestamp with time zone
LANGUAGE C STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'qm_firings';
COMMENT ON FUNCTION quota_manager.firings(quota_manager.cron, timestamp with time zone, timestamp with time zone, text) IS
	'The firings after after_time and up to until_time (after_time < firing <= until_time), in order; next_firing says how the time zone is chosen.';

CREATE FUNCTION quota_manager.firing_range(
	schedule quota_manager.cron,
	after_time timestamp with time zone,
	until_time timestamp with time zone,
	zone text,
	OUT first_firing timestamp with time zone,
	OUT last_firing timestamp with time zone,
	OUT firings bigint
)
LANGUAGE C STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'qm_firing_range';
COMMENT ON FUNCTION quota_manager.firing_range(quota_manager.cron, timestamp with time zone, timestamp with time zone, text) IS
	'The first and the last of what firings() returns, null if it returns nothing, and how many there are: counted by days, not one by one.';

CREATE FUNCTION quota_manager.describe(schedule quota_manager.cron) RETURNS text
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'qm_describe';
COMMENT ON FUNCTION quota_manager.describe(quota_manager.cron) IS
	'The schedule in plain English, such as: every hour from 09:00 to 17:00, Monday to Friday. Schedules that fire differently read differently.';

CREATE FUNCTION quota_internal.schedule_zone(schedule quota_manager.cron, zone text) RETURNS text
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'qm_schedule_zone';
COMMENT ON FUNCTION quota_internal.schedule_zone(quota_manager.cron, text) IS
	'The time zone that the schedule is read in: that of its CRON_TZ= prefix, if it has one. Does not look whether it exists.';

CREATE FUNCTION quota_internal.firing_note(schedule quota_manager.cron, firing timestamp with time zone, zone text) RETURNS text
LANGUAGE C STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'qm_firing_note';
COMMENT ON FUNCTION quota_internal.firing_note(quota_manager.cron, timestamp with time zone, text) IS
	'What a change of the clock does to a firing: it stands for times that do not exist, its time comes twice, or times before it were left out; null if nothing.';

CREATE FUNCTION quota_manager.schedule_now() RETURNS timestamp with time zone
LANGUAGE C VOLATILE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'qm_schedule_now';
COMMENT ON FUNCTION quota_manager.schedule_now() IS
	'The schedule clock: the real time, or where the superuser setting quota_manager.schedule_clock pins it.';

CREATE FUNCTION quota_internal.local_time(instant timestamp with time zone, zone text) RETURNS timestamp without time zone
LANGUAGE C STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'qm_local_time';
COMMENT ON FUNCTION quota_internal.local_time(timestamp with time zone, text) IS
	'What the clock shows in a time zone. AT TIME ZONE takes a few names of zones, such as CET, for abbreviations without summer time; schedules do not.';

CREATE FUNCTION quota_internal.check_time_zone(zone text) RETURNS boolean
LANGUAGE C STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'qm_check_time_zone';
COMMENT ON FUNCTION quota_internal.check_time_zone(text) IS 'Whether the server knows a time zone of this name.';
-- Gateways, the models they serve, and their credentials.

CREATE TABLE quota_manager.quota_gateway (
	id integer GENERATED BY DEFAULT AS IDENTITY UNIQUE,
	name text PRIMARY KEY,
	dialect text NOT NULL,
	base_url text NOT NULL,
	admin_path text,
	credential text,
	key_header text,
	route_model text,
	connect_timeout interval NOT NULL DEFAULT '5 s',
	request_timeout interval NOT NULL DEFAULT '30 s',
	max_connections integer NOT NULL DEFAULT 16,
	rate_limit double precision,
	doubt_policy text NOT NULL DEFAULT 'hold',
	sole_writer boolean NOT NULL DEFAULT false,
	max_usage_rate double precision,
	guard_balances boolean NOT NULL DEFAULT true,
	doubt_policy_since timestamptz NOT NULL DEFAULT '-infinity',
	is_default boolean NOT NULL DEFAULT false,
	state text NOT NULL DEFAULT 'open',
	state_reason text,
	next_probe_time timestamptz,
	create_time timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	update_time timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	CONSTRAINT quota_gateway_name_is_not_empty CHECK (name <> ''),
	CONSTRAINT quota_gateway_dialect_is_known CHECK (dialect IN ('higress', 'zgsm')),
	CONSTRAINT quota_gateway_connect_timeout_is_sane CHECK (connect_timeout BETWEEN '1 ms' AND '5 min'),
	CONSTRAINT quota_gateway_request_timeout_is_sane CHECK (request_timeout BETWEEN '1 ms' AND '10 min'),
	CONSTRAINT quota_gateway_max_connections_is_sane CHECK (max_connections BETWEEN 1 AND 64),
	CONSTRAINT quota_gateway_rate_limit_is_positive CHECK (rate_limit > 0 AND rate_limit < 'infinity'),
	CONSTRAINT quota_gateway_doubt_policy_is_known CHECK (doubt_policy IN ('hold', 'resend', 'reconcile')),
	CONSTRAINT quota_gateway_reconcile_has_sole_writer CHECK (doubt_policy <> 'reconcile' OR sole_writer),
	CONSTRAINT quota_gateway_max_usage_rate_is_sane CHECK (max_usage_rate >= 0 AND max_usage_rate < 'infinity'),
	CONSTRAINT quota_gateway_state_is_known CHECK (state IN ('open', 'closed', 'probing', 'misconfigured'))
);
CREATE UNIQUE INDEX quota_gateway_one_default ON quota_manager.quota_gateway (is_default) WHERE is_default;

COMMENT ON TABLE quota_manager.quota_gateway IS 'AiGateways that grants are delivered to.';
COMMENT ON COLUMN quota_manager.quota_gateway.id IS 'Number of the gateway; names the lock of its one sender.';
COMMENT ON COLUMN quota_manager.quota_gateway.name IS 'Name that grants and balances refer to; cannot be changed.';
COMMENT ON COLUMN quota_manager.quota_gateway.dialect IS 'Protocol it speaks: higress (integers) or zgsm (six decimals).';
COMMENT ON COLUMN quota_manager.quota_gateway.base_url IS 'http or https URL without credentials, query or fragment.';
COMMENT ON COLUMN quota_manager.quota_gateway.admin_path IS 'Path of the quota interface; null: the dialect''s own (/quota, /v1/chat/completions/quota).';
COMMENT ON COLUMN quota_manager.quota_gateway.credential IS 'Where the key is: env:QUOTA_MANAGER_NAME, file:NAME in quota_manager.credential_directory, or row:NAME in quota_credential; null: none. Never the key itself.';
COMMENT ON COLUMN quota_manager.quota_gateway.key_header IS 'Header that carries the key, Authorization or x-...; null: the dialect''s own (Authorization: Bearer, x-admin-key).';
COMMENT ON COLUMN quota_manager.quota_gateway.route_model IS 'Value of the header x-higress-llm-model, where the route needs one.';
COMMENT ON COLUMN quota_manager.quota_gateway.connect_timeout IS 'Longest time to connect.';
COMMENT ON COLUMN quota_manager.quota_gateway.request_timeout IS 'Longest time of a request from start to last byte.';
COMMENT ON COLUMN quota_manager.quota_gateway.max_connections IS 'Requests in flight at once.';
COMMENT ON COLUMN quota_manager.quota_gateway.rate_limit IS 'Requests per second at most; null: unlimited.';
COMMENT ON COLUMN quota_manager.quota_gateway.doubt_policy IS 'What becomes of a delivery whose answer was lost: hold (an operator decides with resolve), resend (with the same Idempotency-Key, for a gateway that honours it) or reconcile (what the gateway says before and after proves it; needs sole_writer).';
COMMENT ON COLUMN quota_manager.quota_gateway.sole_writer IS 'Nobody but this database changes quotas at this gateway; chats may use them.';
COMMENT ON COLUMN quota_manager.quota_gateway.max_usage_rate IS 'Most that the chats of one user can use, in units per second; null: unlimited. Lets reconcile prove more where the dialect is higress.';
COMMENT ON COLUMN quota_manager.quota_gateway.guard_balances IS 'Suspend its balances when those of nearly all users fall to 0 at once; see release_balances(). False: believe them.';
COMMENT ON COLUMN quota_manager.quota_gateway.doubt_policy_since IS 'When doubt_policy, sole_writer or where the gateway is was last changed; what was read before proves nothing. Kept by itself.';
COMMENT ON COLUMN quota_manager.quota_gateway.is_default IS 'Serves every model that quota_model does not name.';
COMMENT ON COLUMN quota_manager.quota_gateway.state IS 'open: grants are sent; closed: unreachable or failing, probing: being tried again, misconfigured: refuses us (key, path).';
COMMENT ON COLUMN quota_manager.quota_gateway.state_reason IS 'What the gateway answered when the state changed.';
COMMENT ON COLUMN quota_manager.quota_gateway.next_probe_time IS 'When a gateway that is not open is asked again.';
COMMENT ON COLUMN quota_manager.quota_gateway.create_time IS 'When the row was written.';
COMMENT ON COLUMN quota_manager.quota_gateway.update_time IS 'When its settings were last changed; a change of state does not count.';
COMMENT ON INDEX quota_manager.quota_gateway_one_default IS 'At most one gateway is the default.';

CREATE TABLE quota_manager.quota_model (
	model text PRIMARY KEY,
	gateway text NOT NULL
);
COMMENT ON TABLE quota_manager.quota_model IS 'Which gateway serves a model; all others are served by the default gateway.';
COMMENT ON COLUMN quota_manager.quota_model.model IS 'Name of the model.';
COMMENT ON COLUMN quota_manager.quota_model.gateway IS 'The one gateway that serves it.';
CREATE INDEX quota_model_gateway ON quota_manager.quota_model (gateway);
COMMENT ON INDEX quota_manager.quota_model_gateway IS 'Finds the models of a gateway.';

-- Not a foreign key: pg_restore with several jobs loads the two tables of an extension in any order.
CREATE FUNCTION quota_internal.check_model() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF NEW.model = '' THEN
		RAISE EXCEPTION 'a model needs a name' USING ERRCODE = 'invalid_parameter_value';
	END IF;
	PERFORM 1 FROM quota_manager.quota_gateway g WHERE g.name = NEW.gateway FOR KEY SHARE;
	-- Where there is none at all they are still to be restored.  One query: they may arrive at any moment.
	IF (SELECT count(*) > 0 AND count(*) FILTER (WHERE g.name = NEW.gateway) = 0 FROM quota_manager.quota_gateway g) THEN
		RAISE EXCEPTION 'gateway "%" of model "%" does not exist', NEW.gateway, NEW.model
			USING ERRCODE = 'foreign_key_violation', HINT = 'See SELECT name FROM quota_manager.quota_gateway.';
	END IF;
	RETURN NEW;
END
$$;
COMMENT ON FUNCTION quota_internal.check_model() IS 'Trigger: refuses a model of a gateway that does not exist.';
CREATE TRIGGER check_model BEFORE INSERT OR UPDATE ON quota_manager.quota_model
	FOR EACH ROW EXECUTE FUNCTION quota_internal.check_model();
COMMENT ON TRIGGER check_model ON quota_manager.quota_model IS 'Refuses a model of a gateway that does not exist.';

-- Not registered for pg_dump: a key does not belong in a backup.
CREATE TABLE quota_manager.quota_credential (
	name text PRIMARY KEY,
	secret text NOT NULL
);
CREATE FUNCTION quota_internal.check_credential() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	-- A constraint would show the row, key included, in its message.
	IF NEW.name IS NULL OR quota_internal.check_credential_reference('row:' || NEW.name) IS NOT NULL THEN
		RAISE EXCEPTION 'invalid name of a credential'
			USING ERRCODE = 'invalid_parameter_value', HINT = 'Use letters, digits, _, - and . only; a gateway refers to it as row:NAME.';
	END IF;
	IF NEW.secret IS NULL OR NEW.secret !~ '^[ -~]+$' THEN
		RAISE EXCEPTION 'invalid secret of credential "%"', NEW.name
			USING ERRCODE = 'invalid_parameter_value', HINT = 'A key is sent in a header: printable ASCII characters only.';
	END IF;
	RETURN NEW;
END
$$;
COMMENT ON FUNCTION quota_internal.check_credential() IS 'Trigger: refuses a credential that could not be used, without showing it.';
CREATE TRIGGER check_credential BEFORE INSERT OR UPDATE ON quota_manager.quota_credential
	FOR EACH ROW EXECUTE FUNCTION quota_internal.check_credential();
COMMENT ON TRIGGER check_credential ON quota_manager.quota_credential IS 'Refuses a credential that could not be used.';
CREATE FUNCTION quota_internal.hide_statement() RETURNS trigger
LANGUAGE C AS 'MODULE_PATHNAME', 'qm_hide_statement';
COMMENT ON FUNCTION quota_internal.hide_statement() IS 'Trigger: from here to its end the client''s statement shows neither with errors in the log nor in pg_stat_activity.';
CREATE TRIGGER hide_statement BEFORE INSERT OR UPDATE ON quota_manager.quota_credential
	FOR EACH STATEMENT EXECUTE FUNCTION quota_internal.hide_statement();
COMMENT ON TRIGGER hide_statement ON quota_manager.quota_credential IS 'A statement that stores a key may hold it.';

-- A role that may read all data may not truncate: it sees no row.
ALTER TABLE quota_manager.quota_credential ENABLE ROW LEVEL SECURITY;
CREATE POLICY administrators ON quota_manager.quota_credential
	USING (pg_catalog.has_table_privilege('quota_manager.quota_credential', 'TRUNCATE'));
COMMENT ON POLICY administrators ON quota_manager.quota_credential IS 'Hides keys from pg_read_all_data: only who may truncate the table sees rows, and of these no key but with the right to read that column.';

COMMENT ON TABLE quota_manager.quota_credential IS 'Keys that gateways refer to as row:NAME. Readable by its owner, by superusers and by roles with BYPASSRLS that can read all data; deliveries use them without their caller being able to. Never dumped.';
COMMENT ON COLUMN quota_manager.quota_credential.name IS 'Name used in row:NAME.';
COMMENT ON COLUMN quota_manager.quota_credential.secret IS 'The key itself.';

CREATE FUNCTION quota_manager.set_credential(name text, secret text) RETURNS void
LANGUAGE C VOLATILE SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'qm_set_credential';
COMMENT ON FUNCTION quota_manager.set_credential(text, text) IS
	'Stores a key that gateways refer to as row:NAME, or another one under that name. Errors do not show it. What logs every statement logs a key that stands in one, but not one that comes from a table.';

-- Not in SQL: such a function is read, parsed and planned again at each call from PL/pgSQL.
CREATE FUNCTION quota_manager.gateway_of(model text) RETURNS text
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	RETURN coalesce(
		(SELECT m.gateway FROM quota_manager.quota_model m WHERE m.model = gateway_of.model),
		(SELECT g.name FROM quota_manager.quota_gateway g WHERE g.is_default));
END
$$;
COMMENT ON FUNCTION quota_manager.gateway_of(text) IS 'Name of the gateway that serves a model; null: none does.';

CREATE FUNCTION quota_internal.amount_fits(dialect text, amount numeric) RETURNS boolean
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'qm_amount_fits';
COMMENT ON FUNCTION quota_internal.amount_fits(text, numeric) IS 'Can the dialect carry the amount? higress: integers within 64 bits; zgsm: up to 2^53 millionths with at most 6 decimals, or integers up to 2^53: what its float64 carries exactly.';

CREATE FUNCTION quota_internal.check_base_url(base_url text) RETURNS text
LANGUAGE C STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'qm_check_base_url';
COMMENT ON FUNCTION quota_internal.check_base_url(text) IS 'What is wrong with a gateway''s URL, quota_manager.allowed_hosts included; null: nothing.';

CREATE FUNCTION quota_internal.check_credential_reference(credential text) RETURNS text
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'qm_check_credential_reference';
COMMENT ON FUNCTION quota_internal.check_credential_reference(text) IS 'What is wrong with a reference to a credential; null: nothing. The message never repeats the reference.';

CREATE FUNCTION quota_internal.check_gateway() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	problem text;
BEGIN
	IF TG_OP = 'UPDATE' THEN
		NEW.doubt_policy_since := greatest(NEW.doubt_policy_since, OLD.doubt_policy_since);
		-- Readings can be called outdated at any time, also those of a gateway that could not be written now.
		IF NEW.doubt_policy_since > OLD.doubt_policy_since
			AND to_jsonb(NEW) - 'doubt_policy_since' = to_jsonb(OLD) - 'doubt_policy_since' THEN
			RETURN NEW;
		END IF;
		IF NEW.name IS DISTINCT FROM OLD.name OR NEW.id IS DISTINCT FROM OLD.id THEN
			RAISE EXCEPTION 'gateway "%" cannot be renamed', OLD.name
				USING ERRCODE = 'object_not_in_prerequisite_state',
					DETAIL = 'Grants and balances refer to it by name.',
					HINT = 'Create another gateway and move its models in quota_model.';
		END IF;
		IF (NEW.doubt_policy, NEW.sole_writer, NEW.base_url, NEW.admin_path, NEW.dialect)
			IS DISTINCT FROM (OLD.doubt_policy, OLD.sole_writer, OLD.base_url, OLD.admin_path, OLD.dialect) THEN
			NEW.doubt_policy_since := clock_timestamp();
		END IF;
		NEW.update_time := clock_timestamp();
	ELSIF NEW.create_time < statement_timestamp() AND quota_internal.may_restore(TG_RELID) THEN
		-- Being restored: another server may allow other hosts, and says so when it sends.
		RETURN NEW;
	END IF;
	problem := quota_internal.check_base_url(NEW.base_url);
	IF problem IS NOT NULL THEN
		RAISE EXCEPTION 'invalid URL of gateway "%": %', NEW.name, problem
			USING ERRCODE = 'invalid_parameter_value', HINT = 'Write it like http://gateway.example:8080.';
	END IF;
	IF NEW.admin_path IS NOT NULL AND NEW.admin_path !~ '^(/[A-Za-z0-9._~-]+)+$' THEN
		RAISE EXCEPTION 'invalid admin path of gateway "%"', NEW.name
			USING ERRCODE = 'invalid_parameter_value', HINT = 'Write it like /quota; null means the dialect''s own.';
	END IF;
	-- Any other could unlock a service that is no gateway, or frame the request.
	IF NEW.key_header IS NOT NULL AND (NEW.key_header !~* '^(authorization|x-[a-z0-9-]+)$' OR lower(NEW.key_header) = 'x-higress-llm-model') THEN
		RAISE EXCEPTION 'invalid key header of gateway "%"', NEW.name
			USING ERRCODE = 'invalid_parameter_value',
				DETAIL = 'A key is sent as Authorization, or in a header whose name begins with x-, but not x-higress-llm-model.',
				HINT = 'Write the header''s name only, like x-admin-key.';
	END IF;
	IF NEW.route_model IS NOT NULL AND NEW.route_model !~ '^[!-~]+$' THEN
		RAISE EXCEPTION 'invalid route model of gateway "%"', NEW.name
			USING ERRCODE = 'invalid_parameter_value', HINT = 'Write the value of the header x-higress-llm-model, without blanks.';
	END IF;
	problem := quota_internal.check_credential_reference(NEW.credential);
	IF problem IS NOT NULL THEN
		RAISE EXCEPTION 'invalid credential of gateway "%": %', NEW.name, problem
			USING ERRCODE = 'invalid_parameter_value',
				HINT = 'Write env:QUOTA_MANAGER_NAME, file:NAME or row:NAME; the key itself never stands here.';
	END IF;
	IF NEW.doubt_policy = 'reconcile' AND NOT NEW.sole_writer THEN
		RAISE EXCEPTION 'gateway "%" cannot reconcile: it is not marked as having a sole writer', NEW.name
			USING ERRCODE = 'invalid_parameter_value', DETAIL = 'What others add would be taken for a grant that was applied.',
				HINT = 'Set sole_writer if nobody but this database changes quotas there; otherwise use hold.';
	END IF;
	RETURN NEW;
END
$$;
COMMENT ON FUNCTION quota_internal.check_gateway() IS 'Trigger: refuses a gateway that could not be used, with a message that says why; keeps update_time.';
CREATE TRIGGER check_gateway BEFORE INSERT OR UPDATE OF name, id, dialect, base_url, admin_path, credential, key_header,
	route_model, connect_timeout, request_timeout, max_connections, rate_limit, doubt_policy, sole_writer, max_usage_rate, guard_balances, doubt_policy_since, is_default
	ON quota_manager.quota_gateway FOR EACH ROW EXECUTE FUNCTION quota_internal.check_gateway();
COMMENT ON TRIGGER check_gateway ON quota_manager.quota_gateway IS 'Refuses a gateway that could not be used.';

-- Not by column rights: a scan locks the row of its gateway, for which a role needs a right to update some column.
CREATE FUNCTION quota_internal.check_gateway_state() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	-- Deliveries write it as the owner of the table.
	IF NOT quota_internal.may_restore(TG_RELID) THEN
		RAISE EXCEPTION 'the state of gateway "%" is written by deliveries alone', NEW.name
			USING ERRCODE = 'insufficient_privilege',
				DETAIL = 'state, state_reason and next_probe_time tell what deliveries met.',
				HINT = 'CALL quota_manager.deliver() asks a gateway at once whether it works again; so does a worker when the row is edited.';
	END IF;
	RETURN NEW;
END
$$;
COMMENT ON FUNCTION quota_internal.check_gateway_state() IS 'Trigger: refuses a state that was not found by delivering.';
CREATE TRIGGER check_gateway_state BEFORE UPDATE OF state, state_reason, next_probe_time ON quota_manager.quota_gateway
	FOR EACH ROW WHEN ((OLD.state, OLD.state_reason, OLD.next_probe_time) IS DISTINCT FROM (NEW.state, NEW.state_reason, NEW.next_probe_time))
	EXECUTE FUNCTION quota_internal.check_gateway_state();
COMMENT ON TRIGGER check_gateway_state ON quota_manager.quota_gateway IS 'Refuses a state that was not found by delivering.';
CREATE TRIGGER check_gateway_new_state BEFORE INSERT ON quota_manager.quota_gateway
	FOR EACH ROW WHEN ((NEW.state, NEW.state_reason, NEW.next_probe_time) IS DISTINCT FROM ('open', NULL, NULL))
	EXECUTE FUNCTION quota_internal.check_gateway_state();
COMMENT ON TRIGGER check_gateway_new_state ON quota_manager.quota_gateway IS 'Refuses a new gateway with a state that was not found by delivering.';

SELECT pg_catalog.pg_extension_config_dump('quota_manager.quota_gateway', '');
SELECT pg_catalog.pg_extension_config_dump(pg_catalog.pg_get_serial_sequence('quota_manager.quota_gateway', 'id'), '');
SELECT pg_catalog.pg_extension_config_dump('quota_manager.quota_model', '');
-- Users, their balances, and the subject: the view of a user that conditions see.

CREATE FUNCTION quota_manager.star_list(github_star text) RETURNS text[]
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 5 AS 'MODULE_PATHNAME', 'qm_star_list';
COMMENT ON FUNCTION quota_manager.star_list(text) IS 'Elements of a comma list, trimmed of white space, without empty ones.';

-- A key of quota_execute or user_balance has room for so much, and for the other columns, in an index row of 2704 bytes.
CREATE FUNCTION quota_internal.user_id_fits(id text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN pg_catalog.octet_length(id) OPERATOR(pg_catalog.<=) 2600;
COMMENT ON FUNCTION quota_internal.user_id_fits(text) IS 'Can a user of this id be granted something? An id has at most 2600 bytes.';

CREATE FUNCTION quota_internal.org_fits(org text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN pg_catalog.octet_length(org) OPERATOR(pg_catalog.<=) 2600;
COMMENT ON FUNCTION quota_internal.org_fits(text) IS 'Has an index row room for the organisation? It has at most 2600 bytes.';

CREATE FUNCTION quota_internal.stars_fit(github_star text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN NOT EXISTS (SELECT 1 FROM pg_catalog.unnest(quota_manager.star_list(github_star)) e WHERE pg_catalog.octet_length(e) OPERATOR(pg_catalog.>) 2600);
COMMENT ON FUNCTION quota_internal.stars_fit(text) IS 'Has an index row room for each project of a comma list? A project has at most 2600 bytes, the list as many as it likes.';

CREATE TABLE quota_manager.user_info (
	id text PRIMARY KEY,
	name text,
	github_username text,
	email text,
	phone text,
	github_star text,
	vip integer,
	org text,
	register_time timestamptz,
	access_time timestamptz,
	create_time timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	update_time timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	CONSTRAINT user_info_id_is_not_empty CHECK (id <> ''),
	CONSTRAINT user_info_id_has_at_most_2600_bytes CHECK (quota_internal.user_id_fits(id)),
	CONSTRAINT user_info_org_has_at_most_2600_bytes CHECK (quota_internal.org_fits(org)),
	CONSTRAINT user_info_each_github_star_has_at_most_2600_bytes CHECK (pg_catalog.octet_length(github_star) <= 2600 OR quota_internal.stars_fit(github_star))
) WITH (fillfactor = 90);

CREATE INDEX user_info_org ON quota_manager.user_info (org);
CREATE INDEX user_info_github_star ON quota_manager.user_info USING gin (quota_manager.star_list(github_star));
CREATE INDEX user_info_vip ON quota_manager.user_info (vip);
CREATE INDEX user_info_register_time ON quota_manager.user_info (register_time);
CREATE TRIGGER set_update_time BEFORE UPDATE ON quota_manager.user_info
	FOR EACH ROW EXECUTE FUNCTION quota_internal.set_update_time();

COMMENT ON TABLE quota_manager.user_info IS 'Users of the gateway. Users kept elsewhere: see set_user_source.';
COMMENT ON COLUMN quota_manager.user_info.id IS 'Id that the gateway knows the user by; at most 2600 bytes.';
COMMENT ON COLUMN quota_manager.user_info.name IS 'Name for display.';
COMMENT ON COLUMN quota_manager.user_info.github_username IS 'Name at GitHub.';
COMMENT ON COLUMN quota_manager.user_info.email IS 'Mail address.';
COMMENT ON COLUMN quota_manager.user_info.phone IS 'Phone number.';
COMMENT ON COLUMN quota_manager.user_info.github_star IS 'Starred projects, separated by commas; read by github-star. Each has at most 2600 bytes.';
COMMENT ON COLUMN quota_manager.user_info.vip IS 'VIP level; null counts as 0. Read by is-vip.';
COMMENT ON COLUMN quota_manager.user_info.org IS 'Organisation; read by belong-to. At most 2600 bytes.';
COMMENT ON COLUMN quota_manager.user_info.register_time IS 'When the user registered; read by register-before.';
COMMENT ON COLUMN quota_manager.user_info.access_time IS 'When the user was last seen; read by access-after. Not indexed: every login changes it; see create_access_time_index().';
COMMENT ON COLUMN quota_manager.user_info.create_time IS 'When the row was written.';
COMMENT ON COLUMN quota_manager.user_info.update_time IS 'When the row was last changed.';
COMMENT ON INDEX quota_manager.user_info_org IS 'Serves belong-to.';
COMMENT ON INDEX quota_manager.user_info_github_star IS 'Serves github-star.';
COMMENT ON INDEX quota_manager.user_info_vip IS 'Serves is-vip.';
COMMENT ON INDEX quota_manager.user_info_register_time IS 'Serves register-before.';
COMMENT ON TRIGGER set_update_time ON quota_manager.user_info IS 'Keeps update_time.';
SELECT pg_catalog.pg_extension_config_dump('quota_manager.user_info', '');

-- A reading counts if it was asked for after everything that happened to the user at the gateway, and nothing is open there.
-- So whatever happens clears balance and token: src/scan/balance_table.h.
CREATE TABLE quota_manager.user_balance (
	user_id text,
	gateway text,
	balance numeric,
	read_time timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	token bigint,
	lost_time timestamptz NOT NULL DEFAULT '-infinity',
	lost_moment bigint NOT NULL DEFAULT '-9223372036854775808',
	last_balance numeric,
	PRIMARY KEY (user_id, gateway)
) WITH (fillfactor = 70);
CREATE INDEX user_balance_readings ON quota_manager.user_balance (gateway) WHERE balance IS NOT NULL OR token IS NOT NULL;
COMMENT ON TABLE quota_manager.user_balance IS 'What is known of users'' remaining quota, per gateway.';
COMMENT ON COLUMN quota_manager.user_balance.user_id IS 'Id of the user.';
COMMENT ON COLUMN quota_manager.user_balance.gateway IS 'Gateway that was asked.';
COMMENT ON COLUMN quota_manager.user_balance.balance IS 'Remaining quota as answered; null: not known, because it was not answered or something happened to the user since it was asked for.';
COMMENT ON COLUMN quota_manager.user_balance.read_time IS 'When it was asked for; what is older than quota_manager.balance_max_age, or later than now, is not used.';
COMMENT ON COLUMN quota_manager.user_balance.token IS 'An answer that brings this token is awaited; null: none.';
COMMENT ON COLUMN quota_manager.user_balance.lost_time IS 'When the answer to a grant or a change by hand was lost: for quota_manager.linger it may still arrive, and no balance is asked for. -infinity: never.';
COMMENT ON COLUMN quota_manager.user_balance.lost_moment IS 'The same in microseconds of the machine''s monotonic clock.';
COMMENT ON COLUMN quota_manager.user_balance.last_balance IS 'The last balance above 0 that was answered, also if it is not known any more; null: none, or that it fell to 0 since was believed.';
COMMENT ON INDEX quota_manager.user_balance_readings IS 'Tells scans whether anything is known of balances at a gateway.';
SELECT pg_catalog.pg_extension_config_dump('quota_manager.user_balance', '');

CREATE TABLE quota_manager.balance_suspension (
	gateway text PRIMARY KEY,
	since timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	reason text NOT NULL
);
COMMENT ON TABLE quota_manager.balance_suspension IS 'Gateways whose balances do not count, because those of nearly all users fell to 0 at once. Written by scans, ended by release_balances().';
COMMENT ON COLUMN quota_manager.balance_suspension.gateway IS 'Gateway whose balances are unknown to conditions.';
COMMENT ON COLUMN quota_manager.balance_suspension.since IS 'When a scan found it.';
COMMENT ON COLUMN quota_manager.balance_suspension.reason IS 'What was found.';
SELECT pg_catalog.pg_extension_config_dump('quota_manager.balance_suspension', '');

CREATE FUNCTION quota_internal.balance_horizon() RETURNS timestamptz
LANGUAGE C STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'qm_balance_horizon';
COMMENT ON FUNCTION quota_internal.balance_horizon() IS 'Balances asked for at or before this time are too old to be used: now() - quota_manager.balance_max_age.';

CREATE FUNCTION quota_internal.balance_clock() RETURNS timestamptz
LANGUAGE C STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'qm_balance_clock';
COMMENT ON FUNCTION quota_internal.balance_clock() IS 'Balances asked for after this time, the present, are from before the clock was set back and are not used.';

CREATE FUNCTION quota_internal.answer_may_arrive(lost_time timestamptz, lost_moment bigint) RETURNS boolean
LANGUAGE C STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'qm_answer_may_arrive';
COMMENT ON FUNCTION quota_internal.answer_may_arrive(timestamptz, bigint) IS 'May a request whose answer was lost then still arrive at its gateway? For quota_manager.linger it may.';

CREATE VIEW quota_manager.known_balance WITH (security_invoker = true) AS
SELECT b.user_id, pg_catalog.jsonb_object_agg(b.gateway, b.balance) AS balances
FROM quota_manager.user_balance b
WHERE b.balance IS NOT NULL AND b.read_time OPERATOR(pg_catalog.>) quota_internal.balance_horizon()
	AND b.read_time OPERATOR(pg_catalog.<=) quota_internal.balance_clock()
	AND b.gateway OPERATOR(pg_catalog.<>) ALL (SELECT s.gateway FROM quota_manager.balance_suspension s)
GROUP BY b.user_id;
COMMENT ON VIEW quota_manager.known_balance IS 'Fresh balances of a user at gateways whose balances count, one row per user: grouped, so that a join to it is dropped where no condition asks for a balance.';
COMMENT ON COLUMN quota_manager.known_balance.user_id IS 'Id of the user.';
COMMENT ON COLUMN quota_manager.known_balance.balances IS 'Remaining quota per gateway name.';

CREATE VIEW quota_manager.subject WITH (security_invoker = true) AS
SELECT u.id, u.name, u.github_username, u.email, u.phone, u.github_star, u.vip, u.org,
	u.register_time, u.access_time, b.balances
FROM quota_manager.user_info u
LEFT JOIN quota_manager.known_balance b ON b.user_id OPERATOR(pg_catalog.=) u.id;
COMMENT ON VIEW quota_manager.subject IS 'A user as conditions see it: WHERE s @@ ''is-vip(2)''. Also the row type that condition functions take.';
COMMENT ON COLUMN quota_manager.subject.id IS 'Id that the gateway knows the user by.';
COMMENT ON COLUMN quota_manager.subject.name IS 'Name for display.';
COMMENT ON COLUMN quota_manager.subject.github_username IS 'Name at GitHub.';
COMMENT ON COLUMN quota_manager.subject.email IS 'Mail address.';
COMMENT ON COLUMN quota_manager.subject.phone IS 'Phone number.';
COMMENT ON COLUMN quota_manager.subject.github_star IS 'Starred projects, separated by commas.';
COMMENT ON COLUMN quota_manager.subject.vip IS 'VIP level; null counts as 0.';
COMMENT ON COLUMN quota_manager.subject.org IS 'Organisation.';
COMMENT ON COLUMN quota_manager.subject.register_time IS 'When the user registered.';
COMMENT ON COLUMN quota_manager.subject.access_time IS 'When the user was last seen.';
COMMENT ON COLUMN quota_manager.subject.balances IS 'Fresh balances: an object of gateway name and remaining quota.';
-- The built-in condition functions, and the operator that asks whether a subject meets a condition.
-- Each body uses the subject once: a body that uses a costly argument twice is not inlined by the planner.

CREATE FUNCTION quota_internal.vip_at_least(vip integer, level bigint) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN vip OPERATOR(pg_catalog.>=) level OR (level OPERATOR(pg_catalog.<=) 0 AND vip IS NULL);
COMMENT ON FUNCTION quota_internal.vip_at_least(integer, bigint) IS 'vip >= level where a null vip counts as 0, in a form that reaches an index on vip.';

CREATE FUNCTION quota_internal.balance_at(balances jsonb, gateway text) RETURNS numeric
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 10 AS 'MODULE_PATHNAME', 'qm_balance_at';
COMMENT ON FUNCTION quota_internal.balance_at(jsonb, text) IS 'Balance at the gateway; null: not known.';

CREATE FUNCTION quota_internal.balance_for(balances jsonb, model text) RETURNS numeric
LANGUAGE C STABLE PARALLEL SAFE COST 10 AS 'MODULE_PATHNAME', 'qm_balance_for';
COMMENT ON FUNCTION quota_internal.balance_for(jsonb, text) IS 'Balance at the gateway that serves the model; null: not known.';

-- What statements of ours ask in the place of quota-le, with the gateway in the place of the model: src/condition/names.h.
CREATE FUNCTION quota_internal.balance_le(s quota_manager.subject, gateway text, amount numeric) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN quota_internal.balance_at((s).balances, gateway) OPERATOR(pg_catalog.<=) amount;
COMMENT ON FUNCTION quota_internal.balance_le(quota_manager.subject, text, numeric) IS 'balance-le(gateway, amount): the remaining balance at the gateway is at most amount; null: not known.';

CREATE FUNCTION quota_internal.bound_condition(condition quota_manager.condition) RETURNS quota_manager.condition
LANGUAGE C STABLE STRICT AS 'MODULE_PATHNAME', 'qm_bound_condition';
COMMENT ON FUNCTION quota_internal.bound_condition(quota_manager.condition) IS 'The condition with balance-le(gateway, amount) in the place of quota-le(model, amount): a constant that means the same on every server that a statement is run on.';

CREATE FUNCTION quota_condition."true"(s quota_manager.subject) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN true;
COMMENT ON FUNCTION quota_condition."true"(quota_manager.subject) IS 'true(): always.';

CREATE FUNCTION quota_condition."false"(s quota_manager.subject) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN false;
COMMENT ON FUNCTION quota_condition."false"(quota_manager.subject) IS 'false(): never.';

CREATE FUNCTION quota_condition.match_user(s quota_manager.subject, VARIADIC ids text[]) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (s).id OPERATOR(pg_catalog.=) ANY (ids);
COMMENT ON FUNCTION quota_condition.match_user(quota_manager.subject, text[]) IS 'match-user(id, ...): the user''s id equals one argument, byte for byte.';

CREATE FUNCTION quota_condition.register_before(s quota_manager.subject, before timestamptz) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (s).register_time OPERATOR(pg_catalog.<) before;
COMMENT ON FUNCTION quota_condition.register_before(quota_manager.subject, timestamptz) IS 'register-before(time): the user registered before it.';

CREATE FUNCTION quota_condition.access_after(s quota_manager.subject, after timestamptz) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (s).access_time OPERATOR(pg_catalog.>) after;
COMMENT ON FUNCTION quota_condition.access_after(quota_manager.subject, timestamptz) IS 'access-after(time): the user was last seen after it.';

CREATE FUNCTION quota_condition.github_star(s quota_manager.subject, project text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN quota_manager.star_list((s).github_star) OPERATOR(pg_catalog.@>) ARRAY[project];
COMMENT ON FUNCTION quota_condition.github_star(quota_manager.subject, text) IS 'github-star(project): the user starred it; an empty project matches nobody.';

CREATE FUNCTION quota_condition.quota_le(s quota_manager.subject, model text, amount numeric) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE
RETURN quota_internal.balance_for((s).balances, model) OPERATOR(pg_catalog.<=) amount;
COMMENT ON FUNCTION quota_condition.quota_le(quota_manager.subject, text, numeric) IS 'quota-le(model, amount): the remaining balance at the gateway that serves the model is at most amount; null: not known.';

CREATE FUNCTION quota_condition.is_vip(s quota_manager.subject, level bigint) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN quota_internal.vip_at_least((s).vip, level);
COMMENT ON FUNCTION quota_condition.is_vip(quota_manager.subject, bigint) IS 'is-vip(level): the user''s VIP level is at least level; no level counts as 0.';

CREATE FUNCTION quota_condition.belong_to(s quota_manager.subject, VARIADIC orgs text[]) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (s).org OPERATOR(pg_catalog.=) ANY (orgs);
COMMENT ON FUNCTION quota_condition.belong_to(quota_manager.subject, text[]) IS 'belong-to(org, ...): the user''s organisation equals one argument exactly.';

CREATE FUNCTION quota_internal.meets_support(internal) RETURNS internal
LANGUAGE C STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'qm_meets_support';
COMMENT ON FUNCTION quota_internal.meets_support(internal) IS 'Planner support of meets: turns a constant condition into predicates on columns.';

CREATE FUNCTION quota_internal.may_match_support(internal) RETURNS internal
LANGUAGE C STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'qm_may_match_support';
COMMENT ON FUNCTION quota_internal.may_match_support(internal) IS 'Planner support of may_match: turns a constant condition into predicates on columns.';

CREATE FUNCTION quota_manager.meets(s quota_manager.subject, c quota_manager.condition) RETURNS boolean
LANGUAGE C STABLE STRICT PARALLEL SAFE COST 100 SUPPORT quota_internal.meets_support
AS 'MODULE_PATHNAME', 'qm_meets';
COMMENT ON FUNCTION quota_manager.meets(quota_manager.subject, quota_manager.condition) IS 'Does the subject meet the condition? Behind the operator @@.';

CREATE FUNCTION quota_manager.may_match(s quota_manager.subject, c quota_manager.condition) RETURNS boolean
LANGUAGE C STABLE STRICT PARALLEL SAFE COST 100 SUPPORT quota_internal.may_match_support
AS 'MODULE_PATHNAME', 'qm_may_match';
COMMENT ON FUNCTION quota_manager.may_match(quota_manager.subject, quota_manager.condition) IS 'Would the subject meet the condition if every balance that is not known were favourable? Where this is true and @@ is not, the user is undecided.';

CREATE OPERATOR quota_manager.@@ (
	LEFTARG = quota_manager.subject,
	RIGHTARG = quota_manager.condition,
	FUNCTION = quota_manager.meets,
	RESTRICT = pg_catalog.contsel,
	JOIN = pg_catalog.contjoinsel
);
COMMENT ON OPERATOR quota_manager.@@ (quota_manager.subject, quota_manager.condition) IS 'The subject meets the condition. True or not true: false and null both mean no.';

CREATE FUNCTION quota_manager.check_condition(
	expression text,
	OUT valid boolean,
	OUT condition quota_manager.condition,
	OUT sqlstate text,
	OUT message text,
	OUT detail text,
	OUT hint text,
	OUT "position" integer)
LANGUAGE C STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'qm_check_condition';
COMMENT ON FUNCTION quota_manager.check_condition(text) IS 'Checks a condition, names and types included, without raising an error: what is wrong, where (in characters, from 1), and what to write instead.';

CREATE FUNCTION quota_internal.require_condition(condition quota_manager.condition) RETURNS void
LANGUAGE C STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'qm_require_condition';
COMMENT ON FUNCTION quota_internal.require_condition(quota_manager.condition) IS 'Raises an error that says what is wrong with a condition, names and types included.';

CREATE FUNCTION quota_manager.condition_models(condition quota_manager.condition) RETURNS text[]
LANGUAGE C STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'qm_condition_models';
COMMENT ON FUNCTION quota_manager.condition_models(quota_manager.condition) IS 'Models whose balance a condition asks for.';
-- Strategies: who gets what, and when.

CREATE TABLE quota_manager.quota_strategy (
	id integer GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
	name text NOT NULL UNIQUE,
	title text NOT NULL DEFAULT '',
	type text NOT NULL,
	amount numeric NOT NULL,
	model text NOT NULL,
	periodic_expr quota_manager.cron,
	time_zone text NOT NULL DEFAULT 'UTC',
	condition quota_manager.condition NOT NULL,
	enabled boolean NOT NULL DEFAULT true,
	archived boolean NOT NULL DEFAULT false,
	max_exec_per_user integer,
	catch_up text NOT NULL DEFAULT 'latest',
	catch_up_window interval,
	catch_up_max integer NOT NULL DEFAULT 100,
	valid_from timestamptz NOT NULL DEFAULT '-infinity',
	valid_until timestamptz NOT NULL DEFAULT 'infinity',
	schedule_since timestamptz NOT NULL,
	version integer NOT NULL,
	create_time timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	update_time timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	CONSTRAINT quota_strategy_name_is_not_empty CHECK (name <> ''),
	CONSTRAINT quota_strategy_type_is_known CHECK (type IN ('single', 'periodic')),
	CONSTRAINT quota_strategy_amount_is_not_zero CHECK (amount <> 0 AND amount > '-infinity' AND amount < 'infinity'),
	CONSTRAINT quota_strategy_schedule_fits_type CHECK ((type = 'periodic') = (periodic_expr IS NOT NULL)),
	CONSTRAINT quota_strategy_cap_is_positive CHECK (max_exec_per_user > 0),
	CONSTRAINT quota_strategy_catch_up_is_known CHECK (catch_up IN ('none', 'latest', 'all')),
	CONSTRAINT quota_strategy_catch_up_window_is_sane CHECK (catch_up_window BETWEEN '1 second' AND '100 years'),
	CONSTRAINT quota_strategy_catch_up_max_is_sane CHECK (catch_up_max BETWEEN 1 AND 10000),
	CONSTRAINT quota_strategy_validity_is_not_empty CHECK (valid_from < valid_until),
	CONSTRAINT quota_strategy_schedule_since_is_finite CHECK (pg_catalog.isfinite(schedule_since)),
	CONSTRAINT quota_strategy_version_is_positive CHECK (version > 0)
);
COMMENT ON TABLE quota_manager.quota_strategy IS 'Strategies: which users get how much quota of which model, and when.';
COMMENT ON COLUMN quota_manager.quota_strategy.id IS 'Number of the strategy; grants refer to it.';
COMMENT ON COLUMN quota_manager.quota_strategy.name IS 'Unique name.';
COMMENT ON COLUMN quota_manager.quota_strategy.title IS 'Text for people.';
COMMENT ON COLUMN quota_manager.quota_strategy.type IS 'single: each user once for ever; periodic: each user once per firing of the schedule.';
COMMENT ON COLUMN quota_manager.quota_strategy.amount IS 'Quota added per grant; negative takes away. Whole numbers for higress, up to 6 decimals for zgsm.';
COMMENT ON COLUMN quota_manager.quota_strategy.model IS 'Model the quota is for; decides the gateway, see quota_model.';
COMMENT ON COLUMN quota_manager.quota_strategy.periodic_expr IS 'Schedule of a periodic strategy.';
COMMENT ON COLUMN quota_manager.quota_strategy.time_zone IS 'Zone the schedule is read in, unless it begins with CRON_TZ=.';
COMMENT ON COLUMN quota_manager.quota_strategy.condition IS 'Condition that a user must meet; true() for everyone.';
COMMENT ON COLUMN quota_manager.quota_strategy.enabled IS 'False: grants nothing. What falls due meanwhile is not made up for.';
COMMENT ON COLUMN quota_manager.quota_strategy.archived IS 'True: out of use for good, kept because its grants are proof.';
COMMENT ON COLUMN quota_manager.quota_strategy.max_exec_per_user IS 'Most grants a user gets from this strategy in total; null: no limit.';
COMMENT ON COLUMN quota_manager.quota_strategy.catch_up IS 'Firings missed while nothing ran: none, latest (only the last one) or all.';
COMMENT ON COLUMN quota_manager.quota_strategy.catch_up_window IS 'Firings missed for longer than this are not run any more; null: one day where catch_up is all, no limit where it is latest. A day is 24 hours.';
COMMENT ON COLUMN quota_manager.quota_strategy.catch_up_max IS 'Where catch_up is all: most firings that are made up for at a time, the last ones; at most 10000.';
COMMENT ON COLUMN quota_manager.quota_strategy.valid_from IS 'Grants nothing before this time of the schedule clock.';
COMMENT ON COLUMN quota_manager.quota_strategy.valid_until IS 'Grants nothing from this time of the schedule clock on.';
COMMENT ON COLUMN quota_manager.quota_strategy.schedule_since IS 'Firings at or before this time are not due: when it was created, enabled or its schedule edited. Kept by itself.';
COMMENT ON COLUMN quota_manager.quota_strategy.version IS 'Counts edits; every grant names the version it was made by. Kept by itself.';
COMMENT ON COLUMN quota_manager.quota_strategy.create_time IS 'When the row was written.';
COMMENT ON COLUMN quota_manager.quota_strategy.update_time IS 'When the row was last changed.';

CREATE FUNCTION quota_internal.check_strategy_target(name text, model text, amount numeric) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	gateway quota_manager.quota_gateway;
BEGIN
	SELECT g.* INTO gateway FROM quota_manager.quota_gateway g WHERE g.name = quota_manager.gateway_of(check_strategy_target.model);
	IF NOT FOUND THEN
		RAISE EXCEPTION 'no gateway serves model "%" of strategy "%"', model, name
			USING ERRCODE = 'invalid_parameter_value',
				HINT = 'Name its gateway in quota_manager.quota_model, or make one gateway the default (is_default).';
	END IF;
	IF NOT quota_internal.amount_fits(gateway.dialect, amount) THEN
		RAISE EXCEPTION 'amount % of strategy "%" cannot be delivered to gateway "%"', amount, name, gateway.name
			USING ERRCODE = 'numeric_value_out_of_range',
				DETAIL = CASE gateway.dialect
					WHEN 'higress' THEN 'The dialect higress takes whole numbers within 64 bits.'
					ELSE 'The dialect zgsm computes in float64: it takes integers up to 9007199254740992 (2^53), and numbers with at most 6 decimals up to 9007199254.740992.' END;
	END IF;
END
$$;
COMMENT ON FUNCTION quota_internal.check_strategy_target(text, text, numeric) IS 'Raises an error if no gateway serves the model or its dialect cannot carry the amount.';

CREATE FUNCTION quota_internal.check_strategy_models(name text, condition quota_manager.condition) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	model text;
BEGIN
	FOREACH model IN ARRAY quota_manager.condition_models(condition) LOOP
		IF NOT EXISTS (SELECT 1 FROM quota_manager.quota_gateway g WHERE g.name = quota_manager.gateway_of(model)) THEN
			RAISE EXCEPTION 'no gateway serves model "%" in the condition of strategy "%"', model, name
				USING ERRCODE = 'invalid_parameter_value',
					HINT = 'Name its gateway in quota_manager.quota_model, or make one gateway the default (is_default).';
		END IF;
	END LOOP;
END
$$;
COMMENT ON FUNCTION quota_internal.check_strategy_models(text, quota_manager.condition) IS 'Raises an error if no gateway serves a model whose balance the condition asks for: it would never be known.';

CREATE FUNCTION quota_internal.check_strategy() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF TG_OP = 'INSERT' THEN
		-- A row with a version is being restored: what it refers to may not be there yet.
		IF NEW.version IS NOT NULL THEN
			IF NOT quota_internal.may_restore(TG_RELID) THEN
				RAISE EXCEPTION 'strategy "%" cannot be written with a version', NEW.name
					USING ERRCODE = 'insufficient_privilege', DETAIL = 'Only who restores it, its owner or a superuser, says which version it has.',
						HINT = 'Leave version and schedule_since out.';
			END IF;
			RETURN NEW;
		END IF;
		NEW.version := 1;
		NEW.schedule_since := quota_manager.schedule_now();
	ELSE
		IF NEW.id <> OLD.id THEN
			RAISE EXCEPTION 'the id of strategy "%" cannot be changed', OLD.name
				USING ERRCODE = 'object_not_in_prerequisite_state', DETAIL = 'Grants refer to it.';
		END IF;
		NEW.update_time := clock_timestamp();
		-- It is compared with others, never ordered.
		NEW.version := OLD.version % 2147483647 + 1;
		IF NEW.version < OLD.version THEN
			RAISE WARNING 'the versions of strategy "%" begin again with 1', OLD.name
				USING ERRCODE = 'data_exception', DETAIL = 'It had the highest version that there is, which it cannot have come to by edits.';
		END IF;
		NEW.schedule_since := CASE
			WHEN NEW.enabled AND NOT OLD.enabled OR OLD.archived AND NOT NEW.archived
				OR (NEW.type, NEW.periodic_expr::text, NEW.time_zone) IS DISTINCT FROM (OLD.type, OLD.periodic_expr::text, OLD.time_zone)
				-- Written while the clock was ahead: see restart_schedule().
				OR NEW.schedule_since < OLD.schedule_since AND OLD.schedule_since > quota_manager.schedule_now()
			THEN quota_manager.schedule_now() ELSE OLD.schedule_since END;
		-- A broken strategy can always be put out of use.
		IF NOT NEW.enabled OR NEW.archived THEN
			IF (NEW.condition::text, NEW.model, NEW.amount, NEW.type, NEW.periodic_expr::text, NEW.time_zone)
				IS NOT DISTINCT FROM (OLD.condition::text, OLD.model, OLD.amount, OLD.type, OLD.periodic_expr::text, OLD.time_zone) THEN
				RETURN NEW;
			END IF;
		END IF;
	END IF;
	IF NEW.name IS NULL OR NEW.name = '' THEN
		RAISE EXCEPTION 'a strategy needs a name' USING ERRCODE = 'invalid_parameter_value';
	END IF;
	IF NEW.type IS NULL OR NEW.type NOT IN ('single', 'periodic') THEN
		RAISE EXCEPTION 'unknown type of strategy "%": %', NEW.name, coalesce(quote_literal(NEW.type), 'null')
			USING ERRCODE = 'invalid_parameter_value',
				HINT = 'Write single (each user once) or periodic (once per firing of a schedule).';
	END IF;
	IF NEW.type = 'periodic' AND NEW.periodic_expr IS NULL THEN
		RAISE EXCEPTION 'periodic strategy "%" has no schedule', NEW.name
			USING ERRCODE = 'invalid_parameter_value', HINT = 'Set periodic_expr, for example 0 8 * * *.';
	END IF;
	IF NEW.type = 'single' AND NEW.periodic_expr IS NOT NULL THEN
		RAISE EXCEPTION 'single strategy "%" has a schedule', NEW.name
			USING ERRCODE = 'invalid_parameter_value', HINT = 'Leave periodic_expr null, or make the type periodic.';
	END IF;
	IF NEW.amount IS NULL OR NEW.amount = 0 OR NEW.amount IN ('NaN', 'Infinity', '-Infinity') THEN
		RAISE EXCEPTION 'amount of strategy "%" must be a number other than 0', NEW.name
			USING ERRCODE = 'numeric_value_out_of_range';
	END IF;
	IF NEW.model IS NULL OR NEW.model = '' THEN
		RAISE EXCEPTION 'strategy "%" has no model', NEW.name USING ERRCODE = 'invalid_parameter_value';
	END IF;
	IF NEW.condition IS NULL THEN
		RAISE EXCEPTION 'strategy "%" has no condition', NEW.name
			USING ERRCODE = 'invalid_parameter_value', HINT = 'Write true() to match everyone.';
	END IF;
	IF NOT quota_internal.check_time_zone(NEW.time_zone) THEN
		RAISE EXCEPTION 'unknown time zone of strategy "%": "%"', NEW.name, NEW.time_zone
			USING ERRCODE = 'invalid_parameter_value', HINT = 'See pg_timezone_names.';
	END IF;
	IF NEW.valid_from >= NEW.valid_until THEN
		RAISE EXCEPTION 'strategy "%" is never valid: valid_from is not before valid_until', NEW.name
			USING ERRCODE = 'invalid_parameter_value';
	END IF;
	IF NEW.type = 'periodic' THEN
		-- Raises an error if the schedule's own zone is unknown.
		PERFORM quota_manager.next_firing(NEW.periodic_expr, quota_manager.schedule_now(), NEW.time_zone);
	END IF;
	PERFORM quota_internal.require_condition(NEW.condition);
	PERFORM quota_internal.check_strategy_models(NEW.name, NEW.condition);
	PERFORM quota_internal.check_strategy_target(NEW.name, NEW.model, NEW.amount);
	RETURN NEW;
END
$$;
COMMENT ON FUNCTION quota_internal.check_strategy() IS 'Trigger: refuses a strategy that could not work, with a message that says why; keeps version, schedule_since and update_time.';
CREATE TRIGGER check_strategy BEFORE INSERT OR UPDATE ON quota_manager.quota_strategy
	FOR EACH ROW EXECUTE FUNCTION quota_internal.check_strategy();
COMMENT ON TRIGGER check_strategy ON quota_manager.quota_strategy IS 'Refuses a strategy that could not work.';

SELECT pg_catalog.pg_extension_config_dump('quota_manager.quota_strategy', '');
SELECT pg_catalog.pg_extension_config_dump(pg_catalog.pg_get_serial_sequence('quota_manager.quota_strategy', 'id'), '');
-- Runs of strategies, and grants with their delivery.

-- Functions that read these tables have the setting pinned_statistics: src/scan/pinned_statistics.h.
CREATE FUNCTION quota_internal.pin_statistics() RETURNS void
LANGUAGE C IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'qm_pin_statistics';
COMMENT ON FUNCTION quota_internal.pin_statistics() IS 'Does nothing, but loads the library if the session has not yet: the setting pinned_statistics of the calling function has an effect from then on.';

CREATE TABLE quota_manager.quota_run (
	id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
	strategy_id integer NOT NULL,
	strategy_version integer,
	scheduled_time timestamptz,
	last_scheduled_time timestamptz,
	occurrences bigint NOT NULL DEFAULT 1,
	state text NOT NULL,
	reason text,
	matched bigint NOT NULL DEFAULT 0,
	granted bigint NOT NULL DEFAULT 0,
	already_granted bigint NOT NULL DEFAULT 0,
	capped bigint NOT NULL DEFAULT 0,
	unknown_balance bigint NOT NULL DEFAULT 0,
	first_grant_id bigint,
	last_grant_id bigint,
	undelivered boolean NOT NULL DEFAULT false,
	start_time timestamptz NOT NULL,
	finish_time timestamptz NOT NULL,
	tries integer NOT NULL DEFAULT 0,
	retry_time timestamptz,
	setup bigint,
	whole_reason text,
	CONSTRAINT quota_run_state_is_known CHECK (state IN ('done', 'incomplete', 'failed', 'skipped')),
	CONSTRAINT quota_run_range_is_whole CHECK ((first_grant_id IS NULL) = (last_grant_id IS NULL))
);
CREATE UNIQUE INDEX quota_run_firing ON quota_manager.quota_run (strategy_id, scheduled_time);
CREATE INDEX quota_run_unfinished ON quota_manager.quota_run (strategy_id, scheduled_time) WHERE state IN ('failed', 'incomplete');
CREATE INDEX quota_run_single ON quota_manager.quota_run (strategy_id, id) WHERE scheduled_time IS NULL;
CREATE INDEX quota_run_undelivered ON quota_manager.quota_run (id) WHERE undelivered;

COMMENT ON TABLE quota_manager.quota_run IS 'What became of every firing of a periodic strategy and of every scan of a single one.';
COMMENT ON COLUMN quota_manager.quota_run.id IS 'Number of the run; its grants name it.';
COMMENT ON COLUMN quota_manager.quota_run.strategy_id IS 'The strategy.';
COMMENT ON COLUMN quota_manager.quota_run.strategy_version IS 'Version of the strategy that ran.';
COMMENT ON COLUMN quota_manager.quota_run.scheduled_time IS 'The firing of a periodic strategy; null for single ones.';
COMMENT ON COLUMN quota_manager.quota_run.last_scheduled_time IS 'Last of several firings that were skipped for one reason.';
COMMENT ON COLUMN quota_manager.quota_run.occurrences IS 'How many firings that were skipped, or scans without a change, this row stands for.';
COMMENT ON COLUMN quota_manager.quota_run.state IS 'done; incomplete: some balances could not be read; failed: an error; both are tried again until they succeed, a later firing is due or they are too late; skipped: not run.';
COMMENT ON COLUMN quota_manager.quota_run.reason IS 'Why it failed, was skipped or is incomplete, or whom it left out.';
COMMENT ON COLUMN quota_manager.quota_run.matched IS 'Users who met the condition.';
COMMENT ON COLUMN quota_manager.quota_run.granted IS 'Grants written.';
COMMENT ON COLUMN quota_manager.quota_run.already_granted IS 'Users who met it and had their grant already.';
COMMENT ON COLUMN quota_manager.quota_run.capped IS 'Users who met it and had reached max_exec_per_user.';
COMMENT ON COLUMN quota_manager.quota_run.unknown_balance IS 'Users whose answer depends on a balance that is not known.';
COMMENT ON COLUMN quota_manager.quota_run.first_grant_id IS 'The ids of its grants are not below this.';
COMMENT ON COLUMN quota_manager.quota_run.last_grant_id IS 'The ids of its grants are not above this.';
COMMENT ON COLUMN quota_manager.quota_run.undelivered IS 'Some of its grants may be pending or processing: the courier looks there.';
COMMENT ON COLUMN quota_manager.quota_run.start_time IS 'When it began (real time).';
COMMENT ON COLUMN quota_manager.quota_run.finish_time IS 'When it ended (real time).';
COMMENT ON COLUMN quota_manager.quota_run.tries IS 'How many tries in a row failed or were incomplete.';
COMMENT ON COLUMN quota_manager.quota_run.retry_time IS 'Until when tick() and the workers wait with the next try, if it failed or is incomplete, or was made due by end_back_offs(). An edit of the strategy and a change of gateways or models end the wait.';
COMMENT ON COLUMN quota_manager.quota_run.setup IS 'Tells what gateways and models were when it ran from other settings: see gateway_setup().';
COMMENT ON COLUMN quota_manager.quota_run.whole_reason IS 'Why all users were looked at; null: only those who had changed since the scan before, and matched and already_granted count these alone.';
COMMENT ON INDEX quota_manager.quota_run_firing IS 'A firing is accounted for once.';
COMMENT ON INDEX quota_manager.quota_run_unfinished IS 'Finds firings that may have to be tried again.';
COMMENT ON INDEX quota_manager.quota_run_single IS 'Finds the last scan of a single strategy.';
COMMENT ON INDEX quota_manager.quota_run_undelivered IS 'Finds runs with work for the courier.';
SELECT pg_catalog.pg_extension_config_dump('quota_manager.quota_run', '');
SELECT pg_catalog.pg_extension_config_dump(pg_catalog.pg_get_serial_sequence('quota_manager.quota_run', 'id'), '');

-- Room on the page keeps claim and settle in place (HOT); no index names a column that they change.
CREATE TABLE quota_manager.quota_execute (
	id bigint GENERATED BY DEFAULT AS IDENTITY,
	strategy_id integer,
	revision integer DEFAULT 0,
	user_id text COLLATE "C",
	scheduled_time timestamptz,
	run_id bigint,
	create_time timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	update_time timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	next_attempt_time timestamptz NOT NULL DEFAULT '-infinity',
	doubt_time timestamptz,
	balance_time timestamptz,
	strategy_version integer NOT NULL,
	claim_number integer NOT NULL DEFAULT 0,
	attempts integer NOT NULL DEFAULT 0,
	awaits_balance boolean NOT NULL DEFAULT false,
	maybe_granted_before boolean NOT NULL DEFAULT false,
	last_status integer,
	status text NOT NULL DEFAULT 'pending',
	amount numeric NOT NULL,
	model text NOT NULL,
	gateway text NOT NULL,
	batch_number text NOT NULL,
	balance_before numeric,
	last_error text,
	doubt_moment bigint,
	balance_moment bigint,
	PRIMARY KEY (strategy_id, user_id, scheduled_time, revision),
	CONSTRAINT quota_execute_status_is_known CHECK (status IN ('pending', 'processing', 'completed', 'failed', 'in_doubt', 'cancelled'))
) WITH (fillfactor = 45);
CREATE INDEX quota_execute_id ON quota_manager.quota_execute (id);

COMMENT ON TABLE quota_manager.quota_execute IS 'Grants and their delivery. The primary key is the promise: one grant per strategy, user and firing.';
COMMENT ON COLUMN quota_manager.quota_execute.id IS 'Number of the grant.';
COMMENT ON COLUMN quota_manager.quota_execute.strategy_id IS 'The strategy that granted.';
COMMENT ON COLUMN quota_manager.quota_execute.revision IS '0 the grant; a reversal is the next.';
COMMENT ON COLUMN quota_manager.quota_execute.user_id IS 'The user who gets it.';
COMMENT ON COLUMN quota_manager.quota_execute.scheduled_time IS 'The firing of a periodic strategy; -infinity for single ones.';
COMMENT ON COLUMN quota_manager.quota_execute.run_id IS 'The run that wrote it; null: none did, it was imported.';
COMMENT ON COLUMN quota_manager.quota_execute.create_time IS 'When it was granted.';
COMMENT ON COLUMN quota_manager.quota_execute.update_time IS 'When its delivery last changed.';
COMMENT ON COLUMN quota_manager.quota_execute.next_attempt_time IS 'pending: not sent before this time. in_doubt: when the doubt policy of its gateway acts next; infinity: an operator decides, see resolve.';
COMMENT ON COLUMN quota_manager.quota_execute.doubt_time IS 'When an attempt ended whose outcome is not known; null: none, or it was settled since. The connection was closed by then.';
COMMENT ON COLUMN quota_manager.quota_execute.balance_time IS 'When balance_before was read.';
COMMENT ON COLUMN quota_manager.quota_execute.strategy_version IS 'Version of the strategy that granted.';
COMMENT ON COLUMN quota_manager.quota_execute.claim_number IS 'Number of its last claim for sending; only grows. A settlement must name it.';
COMMENT ON COLUMN quota_manager.quota_execute.attempts IS 'How many attempts the gateway put off or refused while it answered queries; at quota_manager.max_attempts the grant fails. Attempts while it was down or misconfigured do not count.';
COMMENT ON COLUMN quota_manager.quota_execute.awaits_balance IS 'Claimed, but sent only after balance_before was written down: while this is true, the claim has sent nothing.';
COMMENT ON COLUMN quota_manager.quota_execute.maybe_granted_before IS 'In doubt from the start: before a restore or a promotion it may have been granted and delivered already, under another number. False again when that has been decided.';
COMMENT ON COLUMN quota_manager.quota_execute.last_status IS 'HTTP status of the last answer; null: none was read.';
COMMENT ON COLUMN quota_manager.quota_execute.status IS 'pending -> processing -> completed, failed (will not be applied) or in_doubt (may have been applied: see resolve); cancelled by an operator.';
COMMENT ON COLUMN quota_manager.quota_execute.amount IS 'Quota to add.';
COMMENT ON COLUMN quota_manager.quota_execute.model IS 'Model the quota is for.';
COMMENT ON COLUMN quota_manager.quota_execute.gateway IS 'Gateway it goes to.';
COMMENT ON COLUMN quota_manager.quota_execute.batch_number IS 'Label for people: scheduled or run time as YYYYMMDDHH24MISS in the strategy''s zone. Never a key.';
COMMENT ON COLUMN quota_manager.quota_execute.balance_before IS 'What the gateway said before the last attempt, where its doubt policy is reconcile: zgsm: the total, higress: what remains.';
COMMENT ON COLUMN quota_manager.quota_execute.last_error IS 'What went wrong last, for people.';
COMMENT ON COLUMN quota_manager.quota_execute.doubt_moment IS 'The moment of doubt_time in microseconds of the machine''s monotonic clock, which nobody sets; of use until the machine is started again.';
COMMENT ON COLUMN quota_manager.quota_execute.balance_moment IS 'The same of balance_time.';
COMMENT ON INDEX quota_manager.quota_execute_id IS 'Finds grants by their ids, and those of a run by the range of theirs.';
SELECT pg_catalog.pg_extension_config_dump('quota_manager.quota_execute', '');
SELECT pg_catalog.pg_extension_config_dump(pg_catalog.pg_get_serial_sequence('quota_manager.quota_execute', 'id'), '');

CREATE FUNCTION quota_internal.undelivered_stretches() RETURNS TABLE (low bigint, high bigint, runs bigint[])
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET quota_manager.pinned_statistics = on SET jit = off
AS $$
DECLARE
	-- Runs further apart than this, in ids of grants, are looked at one after the other.
	far_apart CONSTANT bigint := 100000;
BEGIN
	PERFORM quota_internal.pin_statistics();
	RETURN QUERY SELECT min(r.first_grant_id), max(r.last_grant_id), array_agg(r.id)
		FROM (SELECT o.*, count(*) FILTER (WHERE o.is_far) OVER (ORDER BY o.first_grant_id, o.id) AS number
			FROM (SELECT u.id, u.first_grant_id, u.last_grant_id,
					u.first_grant_id::numeric - max(u.last_grant_id) OVER (ORDER BY u.first_grant_id, u.id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
						> far_apart AS is_far
				FROM quota_manager.quota_run u WHERE u.undelivered AND u.first_grant_id IS NOT NULL) o) r
		GROUP BY r.number;
END
$$;
COMMENT ON FUNCTION quota_internal.undelivered_stretches() IS 'Where open grants are: the runs that have some, those together whose grants lie near each other, and between which ids. A statement for each stretch finds its grants by the index, which one that joins runs and grants could not where grants are distributed.';

-- As the owner, as the next one, since a policy may hide grants from who deletes.
CREATE FUNCTION quota_internal.keep_strategy_with_grants() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET quota_manager.pinned_statistics = on SET jit = off
AS $$
BEGIN
	PERFORM quota_internal.pin_statistics();
	-- An older snapshot would not show the grants of a scan that has just ended.
	IF current_setting('transaction_isolation') <> 'read committed' THEN
		RAISE EXCEPTION 'strategies are deleted at isolation level read committed only'
			USING ERRCODE = 'invalid_transaction_state';
	END IF;
	IF TG_OP = 'TRUNCATE' THEN
		IF EXISTS (SELECT 1 FROM quota_manager.quota_execute) THEN
			RAISE EXCEPTION 'strategies with grants cannot be removed'
				USING ERRCODE = 'restrict_violation', DETAIL = 'Grants are proof of what was paid.';
		END IF;
		RETURN NULL;
	END IF;
	IF EXISTS (SELECT 1 FROM quota_manager.quota_execute e WHERE e.strategy_id = OLD.id) THEN
		RAISE EXCEPTION 'strategy "%" has grants and cannot be deleted', OLD.name
			USING ERRCODE = 'restrict_violation', DETAIL = 'Grants are proof of what was paid.',
				HINT = 'Disable it (enabled = false) or archive it (archived = true).';
	END IF;
	RETURN OLD;
END
$$;
COMMENT ON FUNCTION quota_internal.keep_strategy_with_grants() IS 'Trigger: a strategy with grants cannot be deleted.';
CREATE TRIGGER keep_strategy_with_grants BEFORE DELETE ON quota_manager.quota_strategy
	FOR EACH ROW EXECUTE FUNCTION quota_internal.keep_strategy_with_grants();
CREATE TRIGGER keep_strategies_with_grants BEFORE TRUNCATE ON quota_manager.quota_strategy
	FOR EACH STATEMENT EXECUTE FUNCTION quota_internal.keep_strategy_with_grants();
COMMENT ON TRIGGER keep_strategy_with_grants ON quota_manager.quota_strategy IS 'A strategy with grants cannot be deleted.';
COMMENT ON TRIGGER keep_strategies_with_grants ON quota_manager.quota_strategy IS 'Strategies with grants cannot be truncated away.';

CREATE FUNCTION quota_internal.keep_gateway_in_use() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET quota_manager.pinned_statistics = on SET jit = off
AS $$
BEGIN
	PERFORM quota_internal.pin_statistics();
	IF TG_OP = 'TRUNCATE' THEN
		IF EXISTS (SELECT 1 FROM quota_manager.quota_gateway) THEN
			RAISE EXCEPTION 'gateways cannot be truncated'
				USING ERRCODE = 'restrict_violation', HINT = 'Delete them one by one.';
		END IF;
		RETURN NULL;
	END IF;
	IF TG_OP = 'UPDATE' AND NEW.dialect IS NOT DISTINCT FROM OLD.dialect THEN
		RETURN NEW;
	END IF;
	IF EXISTS (SELECT 1 FROM quota_manager.quota_execute e
			WHERE e.gateway = OLD.name AND e.status IN ('pending', 'processing', 'in_doubt')) THEN
		IF TG_OP = 'UPDATE' THEN
			RAISE EXCEPTION 'the dialect of gateway "%" cannot be changed while it has grants that are not settled', OLD.name
				USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Deliver, resolve or cancel them first.';
		END IF;
		RAISE EXCEPTION 'gateway "%" has grants that are not settled and cannot be deleted', OLD.name
			USING ERRCODE = 'restrict_violation', HINT = 'Deliver, resolve or cancel them first.';
	END IF;
	IF TG_OP = 'UPDATE' THEN
		RETURN NEW;
	END IF;
	IF EXISTS (SELECT 1 FROM quota_manager.quota_model m WHERE m.gateway = OLD.name) THEN
		RAISE EXCEPTION 'gateway "%" serves models and cannot be deleted', OLD.name
			USING ERRCODE = 'restrict_violation', HINT = 'Move its models to another gateway in quota_manager.quota_model.';
	END IF;
	RETURN OLD;
END
$$;
COMMENT ON FUNCTION quota_internal.keep_gateway_in_use() IS 'Trigger: a gateway with unsettled grants or models cannot be deleted, nor speak another dialect while it has unsettled grants.';
CREATE TRIGGER keep_gateway_in_use BEFORE DELETE ON quota_manager.quota_gateway
	FOR EACH ROW EXECUTE FUNCTION quota_internal.keep_gateway_in_use();
COMMENT ON TRIGGER keep_gateway_in_use ON quota_manager.quota_gateway IS 'A gateway with unsettled grants or models cannot be deleted.';
CREATE TRIGGER keep_dialect_in_use BEFORE UPDATE OF dialect ON quota_manager.quota_gateway
	FOR EACH ROW EXECUTE FUNCTION quota_internal.keep_gateway_in_use();
COMMENT ON TRIGGER keep_dialect_in_use ON quota_manager.quota_gateway IS 'A gateway with unsettled grants keeps its dialect.';
CREATE TRIGGER keep_gateways_in_use BEFORE TRUNCATE ON quota_manager.quota_gateway
	FOR EACH STATEMENT EXECUTE FUNCTION quota_internal.keep_gateway_in_use();
COMMENT ON TRIGGER keep_gateways_in_use ON quota_manager.quota_gateway IS 'Gateways are deleted one by one.';
-- What becomes of the firings of periodic strategies: which are run, and the record of those that are not.

CREATE FUNCTION quota_internal.recorded_until(strategy quota_manager.quota_strategy) RETURNS timestamptz
LANGUAGE sql STABLE SET quota_manager.pinned_statistics = on
BEGIN ATOMIC
	SELECT greatest(strategy.schedule_since,
		(SELECT coalesce(r.last_scheduled_time, r.scheduled_time) FROM quota_manager.quota_run r
			WHERE r.strategy_id OPERATOR(pg_catalog.=) strategy.id AND r.scheduled_time OPERATOR(pg_catalog.<=) (SELECT quota_manager.schedule_now())
			ORDER BY r.scheduled_time DESC LIMIT 1));
END;
COMMENT ON FUNCTION quota_internal.recorded_until(quota_manager.quota_strategy) IS 'The last firing of a periodic strategy up to now that quota_run tells of, or the time before which none is due: what comes after is open. What is recorded of later firings, because the clock was ahead, counts when they come.';

CREATE FUNCTION quota_internal.last_run(strategy_id integer) RETURNS quota_manager.quota_run
LANGUAGE sql STABLE SET quota_manager.pinned_statistics = on
BEGIN ATOMIC
	SELECT r FROM quota_manager.quota_run r
	WHERE r.strategy_id OPERATOR(pg_catalog.=) last_run.strategy_id AND r.state OPERATOR(pg_catalog.<>) 'skipped'
		AND (r.scheduled_time OPERATOR(pg_catalog.<=) (SELECT quota_manager.schedule_now()) OR r.scheduled_time IS NULL)
	ORDER BY r.scheduled_time DESC NULLS LAST, r.id DESC LIMIT 1;
END;
COMMENT ON FUNCTION quota_internal.last_run(integer) IS 'The last run of a strategy that was not skipped.';

CREATE FUNCTION quota_internal.open_spans(strategy quota_manager.quota_strategy)
RETURNS TABLE (after_time timestamptz, until_time timestamptz, reason text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	clock CONSTANT timestamptz := quota_manager.schedule_now();
	since CONSTANT timestamptz := quota_internal.recorded_until(strategy);
	-- Spans are open at their start; firings are whole seconds.
	valid_after CONSTANT timestamptz := least(clock, strategy.valid_from - interval '1 us');
	valid_to CONSTANT timestamptz := least(clock, strategy.valid_until - interval '1 us');
BEGIN
	IF strategy.type <> 'periodic' OR since >= clock THEN
		RETURN;
	END IF;
	IF strategy.archived OR NOT strategy.enabled THEN
		RETURN QUERY SELECT since, clock, CASE WHEN strategy.archived THEN 'archived' ELSE 'disabled' END;
		RETURN;
	END IF;
	RETURN QUERY SELECT s.* FROM (VALUES
			(since, valid_after, 'before valid_from'),
			(greatest(since, valid_after), valid_to, CASE WHEN clock >= strategy.valid_until THEN 'not run before valid_until' END),
			(greatest(since, valid_to), clock, 'after valid_until')) s (after_time, until_time, reason)
		WHERE s.after_time < s.until_time;
END
$$;
COMMENT ON FUNCTION quota_internal.open_spans(quota_manager.quota_strategy) IS 'Spans of time (after_time, until_time] up to now whose firings quota_run does not tell of yet, in order, and why they are not run; null: catch_up decides.';

CREATE FUNCTION quota_internal.catch_up_start(strategy quota_manager.quota_strategy) RETURNS timestamptz
LANGUAGE sql STABLE
RETURN CASE
	WHEN strategy.catch_up OPERATOR(pg_catalog.=) 'none' THEN quota_manager.schedule_now() OPERATOR(pg_catalog.-) interval '2 min'
	ELSE coalesce(
		-- In UTC, so that a day has 24 hours whatever the time zone of the session is.
		pg_catalog.timezone('UTC', pg_catalog.timezone('UTC', quota_manager.schedule_now()) OPERATOR(pg_catalog.-) strategy.catch_up_window),
		CASE WHEN strategy.catch_up OPERATOR(pg_catalog.=) 'all' THEN quota_manager.schedule_now() OPERATOR(pg_catalog.-) interval '24 hours' ELSE '-infinity' END)
	END;
COMMENT ON FUNCTION quota_internal.catch_up_start(quota_manager.quota_strategy) IS 'Firings at or before this time are too late to be run.';

CREATE FUNCTION quota_internal.open_firings(strategy quota_manager.quota_strategy, next_only boolean DEFAULT false)
RETURNS TABLE (first_firing timestamptz, last_firing timestamptz, firings bigint, reason text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
	start CONSTANT timestamptz := quota_internal.catch_up_start(strategy);
	wanted CONSTANT integer := CASE strategy.catch_up WHEN 'all' THEN strategy.catch_up_max ELSE 1 END;
	span record;
	in_time record;
	since timestamptz;
	step interval := interval '1 min';
BEGIN
	FOR span IN SELECT s.* FROM quota_internal.open_spans(strategy) s LOOP
		IF span.reason IS NOT NULL THEN
			RETURN QUERY SELECT r.*, span.reason
				FROM quota_manager.firing_range(strategy.periodic_expr, span.after_time, span.until_time, strategy.time_zone) r WHERE r.firings > 0;
			CONTINUE;
		END IF;
		IF start > span.after_time THEN
			RETURN QUERY SELECT r.*, CASE strategy.catch_up WHEN 'none' THEN 'more than 2 minutes late' ELSE 'older than catch_up_window' END
				FROM quota_manager.firing_range(strategy.periodic_expr, span.after_time, least(start, span.until_time), strategy.time_zone) r WHERE r.firings > 0;
		END IF;
		since := greatest(start, span.after_time);
		CONTINUE WHEN since >= span.until_time;
		SELECT r.* INTO in_time FROM quota_manager.firing_range(strategy.periodic_expr, since, span.until_time, strategy.time_zone) r;
		IF in_time.firings > wanted THEN
			-- Those that are run are the last ones: looked for in growing steps back, since they may fire each second or once in years.
			WHILE (SELECT r.firings < wanted FROM quota_manager.firing_range(strategy.periodic_expr,
					greatest(since, span.until_time - step), span.until_time, strategy.time_zone) r) LOOP
				step := step * 2;
			END LOOP;
			SELECT f INTO since FROM quota_manager.firings(strategy.periodic_expr, greatest(since, span.until_time - step), span.until_time, strategy.time_zone) f
				ORDER BY f DESC OFFSET wanted - 1 LIMIT 1;
			since := since - interval '1 us';
			RETURN QUERY SELECT r.*, CASE strategy.catch_up WHEN 'all' THEN 'more than catch_up_max' ELSE 'a later firing was run instead' END
				FROM quota_manager.firing_range(strategy.periodic_expr, in_time.first_firing - interval '1 us', since, strategy.time_zone) r;
		END IF;
		-- In the select list, where no more are computed than are asked for.
		RETURN QUERY SELECT f, f, 1::bigint, NULL
			FROM (SELECT quota_manager.firings(strategy.periodic_expr, since, span.until_time, strategy.time_zone) LIMIT CASE WHEN next_only THEN 1 END) l(f);
	END LOOP;
END
$$;
COMMENT ON FUNCTION quota_internal.open_firings(quota_manager.quota_strategy, boolean) IS 'Firings of a periodic strategy up to now that quota_run does not tell of yet, in order: those to be run, reason null, one by one; those that are not, with the reason, as ranges. next_only: of those to be run, the first.';

CREATE FUNCTION quota_internal.retried_firings(strategy quota_manager.quota_strategy) RETURNS SETOF timestamptz
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET quota_manager.pinned_statistics = on SET jit = off
AS $$
DECLARE
	clock CONSTANT timestamptz := quota_manager.schedule_now();
	late timestamptz := greatest(strategy.schedule_since, strategy.valid_from - interval '1 us', quota_internal.catch_up_start(strategy));
BEGIN
	IF strategy.type <> 'periodic' OR strategy.archived OR NOT strategy.enabled OR clock >= strategy.valid_until THEN
		RETURN;
	END IF;
	IF strategy.catch_up <> 'all' THEN
		-- Only the last one, and a later firing takes its place.
		late := greatest(late, quota_internal.recorded_until(strategy) - interval '1 us');
	END IF;
	RETURN QUERY SELECT r.scheduled_time FROM quota_manager.quota_run r
		WHERE r.strategy_id = strategy.id AND r.scheduled_time > late AND r.scheduled_time <= clock AND r.state IN ('failed', 'incomplete')
			AND (strategy.catch_up = 'all' OR NOT EXISTS (SELECT 1 FROM quota_internal.open_firings(strategy, true) o WHERE o.reason IS NULL))
		ORDER BY 1;
END
$$;
COMMENT ON FUNCTION quota_internal.retried_firings(quota_manager.quota_strategy) IS 'Firings of a periodic strategy whose run failed or is incomplete, and that are tried again.';

CREATE FUNCTION quota_internal.due_firings(strategy quota_manager.quota_strategy) RETURNS SETOF timestamptz
LANGUAGE sql STABLE
BEGIN ATOMIC
	SELECT f.firing FROM quota_internal.retried_firings(strategy) f (firing)
	UNION ALL SELECT o.first_firing FROM quota_internal.open_firings(strategy) o WHERE o.reason IS NULL
	ORDER BY 1;
END;
COMMENT ON FUNCTION quota_internal.due_firings(quota_manager.quota_strategy) IS 'Firings of a periodic strategy that are to be run now by the schedule clock, as its catch_up says, those that are tried again included; in order.';

CREATE FUNCTION quota_internal.record_skipped(strategy quota_manager.quota_strategy, first_firing timestamptz, last_firing timestamptz, firings bigint, why text) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET quota_manager.pinned_statistics = on SET jit = off
AS $$
DECLARE
	last quota_manager.quota_run;
BEGIN
	SELECT r.* INTO last FROM quota_manager.quota_run r
		WHERE r.strategy_id = strategy.id AND r.scheduled_time < first_firing ORDER BY r.scheduled_time DESC LIMIT 1;
	IF last.state = 'skipped' AND last.reason = why AND last.granted = 0 THEN
		UPDATE quota_manager.quota_run r SET last_scheduled_time = last_firing, occurrences = r.occurrences + firings, finish_time = clock_timestamp()
			WHERE r.id = last.id;
	ELSE
		INSERT INTO quota_manager.quota_run (strategy_id, strategy_version, scheduled_time, last_scheduled_time, occurrences, state, reason, start_time, finish_time)
			VALUES (strategy.id, strategy.version, first_firing, nullif(last_firing, first_firing), firings, 'skipped', why, clock_timestamp(), clock_timestamp());
	END IF;
END
$$;
COMMENT ON FUNCTION quota_internal.record_skipped(quota_manager.quota_strategy, timestamptz, timestamptz, bigint, text) IS 'Records firings of a strategy, which follow those that are recorded, as not run; those that were not run for one reason in a row are one row.';

CREATE FUNCTION quota_internal.record_passed_over(strategy quota_manager.quota_strategy) RETURNS timestamptz
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	open record;
BEGIN
	-- Asked once: the clock goes on, and a firing is not to be told of and then run.
	FOR open IN SELECT o.* FROM quota_internal.open_firings(strategy, true) o LOOP
		IF open.reason IS NULL THEN
			RETURN open.first_firing;
		END IF;
		PERFORM quota_internal.record_skipped(strategy, open.first_firing, open.last_firing, open.firings, open.reason);
	END LOOP;
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION quota_internal.record_passed_over(quota_manager.quota_strategy) IS 'Of scan(): records the firings that are not run and come before the next one that is, and returns that; null: none. The caller holds the lock of the strategy.';

CREATE FUNCTION quota_internal.record_edited_schedule() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	span record;
	why CONSTANT text := CASE
		WHEN NEW.archived THEN 'archived'
		WHEN NOT NEW.enabled THEN 'disabled'
		WHEN NEW.schedule_since <> OLD.schedule_since THEN 'schedule edited' END;
BEGIN
	-- A cast from the rows of another table would be called with the rights of the owner.
	IF TG_RELID <> 'quota_manager.quota_strategy'::regclass THEN
		RAISE EXCEPTION 'this trigger is for quota_manager.quota_strategy only' USING ERRCODE = 'wrong_object_type';
	END IF;
	-- An older snapshot would not show what a scan has just recorded.
	IF current_setting('transaction_isolation') <> 'read committed' THEN
		RAISE EXCEPTION 'schedules are edited at isolation level read committed only'
			USING ERRCODE = 'invalid_transaction_state', HINT = 'Begin the transaction with ISOLATION LEVEL READ COMMITTED.';
	END IF;
	FOR span IN SELECT s.after_time, s.until_time, coalesce(s.reason, why) AS reason FROM quota_internal.open_spans(OLD) s LOOP
		EXIT WHEN span.reason IS NULL;
		PERFORM quota_internal.record_skipped(OLD, r.first_firing, r.last_firing, r.firings, span.reason)
			FROM quota_manager.firing_range(OLD.periodic_expr, span.after_time, span.until_time, OLD.time_zone) r WHERE r.firings > 0;
	END LOOP;
	RETURN NULL;
EXCEPTION WHEN data_exception THEN
	-- A schedule whose time zone the server does not know has no firings to tell of. Nor must times out of range keep a
	-- strategy in use.
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION quota_internal.record_edited_schedule() IS 'Trigger: records the firings up to now that the strategy as it was did not run, and as it is would not tell of. As the owner, since editors need no right to write runs.';
CREATE TRIGGER record_edited_schedule AFTER UPDATE ON quota_manager.quota_strategy
	FOR EACH ROW WHEN (OLD.type = 'periodic' AND (OLD.enabled, OLD.archived, OLD.type, OLD.periodic_expr::text, OLD.time_zone, OLD.valid_from, OLD.valid_until)
		IS DISTINCT FROM (NEW.enabled, NEW.archived, NEW.type, NEW.periodic_expr::text, NEW.time_zone, NEW.valid_from, NEW.valid_until))
	EXECUTE FUNCTION quota_internal.record_edited_schedule();
COMMENT ON TRIGGER record_edited_schedule ON quota_manager.quota_strategy IS 'Firings up to an edit of the schedule are accounted for by the strategy as it was.';
-- When each strategy is due: one definition for scans, workers and worker_status.

CREATE FUNCTION quota_internal.gateway_setup() RETURNS bigint
LANGUAGE sql STABLE
BEGIN ATOMIC
	SELECT (SELECT coalesce(pg_catalog.sum(pg_catalog.hashtext(pg_catalog.concat_ws(' ', g.name, pg_catalog.date_part('epoch', g.update_time)))), 0)
			FROM quota_manager.quota_gateway g)
		OPERATOR(pg_catalog.+) (SELECT coalesce(pg_catalog.sum(pg_catalog.hashtext(pg_catalog.concat_ws(' ', m.model, m.gateway))), 0)
			FROM quota_manager.quota_model m);
END;
COMMENT ON FUNCTION quota_internal.gateway_setup() IS 'Tells one state of the settings of gateways and models from another, whoever commits late included.';

CREATE FUNCTION quota_internal.retry_delay(tries integer) RETURNS interval
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN pg_catalog.make_interval(secs => least(5 OPERATOR(pg_catalog.*) pg_catalog.power(2, least(greatest(tries, 1) OPERATOR(pg_catalog.-) 1, 10)), 300));
COMMENT ON FUNCTION quota_internal.retry_delay(integer) IS 'How long a run waits to be tried again after so many tries that failed or were incomplete: 5 s, doubling up to 5 min.';

-- A time that was written when the clock was ahead of the present one does not count: then the run is due now.
CREATE FUNCTION quota_internal.next_try(state text, finish_time timestamptz, retry_time timestamptz, same_setup boolean, pace interval, real_now timestamptz)
RETURNS timestamptz
LANGUAGE sql STABLE PARALLEL SAFE
RETURN CASE
	WHEN finish_time OPERATOR(pg_catalog.>) real_now THEN real_now
	WHEN state OPERATOR(pg_catalog.=) 'done' THEN coalesce(retry_time, finish_time OPERATOR(pg_catalog.+) pace)
	WHEN same_setup THEN coalesce(retry_time, finish_time)
	ELSE finish_time END;
COMMENT ON FUNCTION quota_internal.next_try(text, timestamptz, timestamptz, boolean, interval, timestamptz) IS 'When a run is tried again: after its back-off, which ends with any change of gateways and models; after the pace if it is done.';

CREATE FUNCTION quota_internal.next_open_firing(strategy quota_manager.quota_strategy, after_time timestamptz) RETURNS timestamptz
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET quota_manager.pinned_statistics = on SET jit = off
AS $$
DECLARE
	firing timestamptz := after_time;
	covered timestamptz;
BEGIN
	-- Whoever asks looks again then, so it does not matter if many more are recorded.
	FOR i IN 1 .. 100 LOOP
		firing := quota_manager.next_firing(strategy.periodic_expr, firing, strategy.time_zone);
		covered := (SELECT coalesce(r.last_scheduled_time, r.scheduled_time) FROM quota_manager.quota_run r
			WHERE r.strategy_id = strategy.id AND r.scheduled_time <= firing ORDER BY r.scheduled_time DESC LIMIT 1);
		EXIT WHEN firing IS NULL OR covered IS NULL OR covered < firing;
		firing := covered;
	END LOOP;
	RETURN firing;
END
$$;
COMMENT ON FUNCTION quota_internal.next_open_firing(quota_manager.quota_strategy, timestamptz) IS 'The first firing after a time that quota_run does not tell of yet: where the schedule clock was ahead, later ones may be recorded.';

CREATE FUNCTION quota_internal.never_fires(firing timestamptz, valid_until timestamptz) RETURNS text
LANGUAGE sql STABLE
RETURN CASE
	WHEN firing IS NULL THEN 'does not fire within a hundred years'
	WHEN firing OPERATOR(pg_catalog.>=) valid_until THEN pg_catalog.concat('does not fire before valid_until, ', valid_until) END;
COMMENT ON FUNCTION quota_internal.never_fires(timestamptz, timestamptz) IS 'Why a firing will not come; null: it will.';

CREATE FUNCTION quota_internal.due_firings_of(strategy quota_manager.quota_strategy, clock timestamptz, clock_offset interval, pace interval, present_setup bigint,
	real_now timestamptz)
RETURNS TABLE (scheduled_time timestamptz, state text, due_time timestamptz, tries integer, reason text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET quota_manager.pinned_statistics = on SET jit = off
AS $$
#variable_conflict use_column
DECLARE
	entry record;
	skipped record;
	found_due boolean := false;
	since timestamptz;
	problem text;
BEGIN
	FOR entry IN
		SELECT f.firing, r.tries, r.reason, quota_internal.next_try(r.state, r.finish_time, r.retry_time,
				r.strategy_version = strategy.version AND r.setup = present_setup, pace, real_now) AS next_try
			FROM quota_internal.retried_firings(strategy) f (firing)
			JOIN quota_manager.quota_run r ON r.strategy_id = strategy.id AND r.scheduled_time = f.firing
	LOOP
		found_due := true;
		RETURN QUERY SELECT entry.firing, CASE WHEN entry.next_try <= real_now THEN 'due' ELSE 'waiting' END, entry.next_try, entry.tries, entry.reason;
	END LOOP;
	FOR entry IN SELECT o.* FROM quota_internal.open_firings(strategy) o LOOP
		IF entry.reason IS NULL THEN
			found_due := true;
			RETURN QUERY SELECT entry.first_firing, 'due', entry.first_firing + clock_offset, 0, NULL::text;
		ELSIF skipped IS NULL THEN
			skipped := entry;
		END IF;
	END LOOP;
	IF NOT found_due AND skipped IS NOT NULL THEN
		RETURN QUERY SELECT NULL::timestamptz, 'recording', skipped.first_firing + clock_offset + pace, 0, skipped.reason;
	END IF;
	since := greatest(clock, quota_internal.recorded_until(strategy));
	problem := CASE WHEN since > clock OR EXISTS (SELECT 1 FROM quota_manager.quota_run r WHERE r.strategy_id = strategy.id AND r.scheduled_time > clock) THEN
		'firings after the schedule clock are recorded already: see restart_schedule()' END;
	since := quota_internal.next_open_firing(strategy, greatest(since, strategy.valid_from - interval '1 us'));
	RETURN QUERY SELECT since, CASE WHEN since < strategy.valid_until THEN 'scheduled' ELSE 'idle' END,
		CASE WHEN since < strategy.valid_until THEN since + clock_offset END, 0,
		coalesce(problem, quota_internal.never_fires(since, strategy.valid_until), CASE WHEN clock < strategy.valid_from THEN 'not valid before ' || strategy.valid_from END);
EXCEPTION WHEN OTHERS THEN
	-- What cannot be read is reported by the scan, for this strategy alone.
	problem := SQLERRM;
	RETURN QUERY SELECT NULL::timestamptz, CASE WHEN w.at <= real_now THEN 'due' ELSE 'waiting' END, w.at, w.tries, problem
		FROM (SELECT coalesce(max(quota_internal.next_try(r.state, r.finish_time, r.retry_time, r.setup = present_setup, pace, real_now)), real_now) AS at, coalesce(max(r.tries), 0) AS tries
			FROM (SELECT u.* FROM quota_manager.quota_run u WHERE u.strategy_id = strategy.id AND u.scheduled_time IS NULL ORDER BY u.id DESC LIMIT 1) r
			WHERE r.strategy_version = strategy.version) w;
END
$$;
COMMENT ON FUNCTION quota_internal.due_firings_of(quota_manager.quota_strategy, timestamptz, interval, interval, bigint, timestamptz) IS
	'Of strategy_due: what there is to do for a periodic strategy in use that has more to it than its next firing.';

-- The subqueries keep what is asked once from being asked for each row, or for each column.  Most strategies have nothing to
-- them but their next firing: those are ten times faster here than a function of plpgsql would be.
CREATE VIEW quota_manager.strategy_due WITH (security_invoker = true) AS
SELECT s.id AS strategy_id, s.name, s.type, d.scheduled_time, d.state, d.due_time, d.tries, d.reason
FROM (SELECT c.*, CASE WHEN pg_catalog.abs(pg_catalog.date_part('epoch', c.real_now OPERATOR(pg_catalog.-) c.clock)) OPERATOR(pg_catalog.<) 1 THEN interval '0'
			-- In seconds, since a day of the session's time zone may have more or less than 24 hours.
			ELSE pg_catalog.make_interval(secs => pg_catalog.date_part('epoch', c.real_now OPERATOR(pg_catalog.-) c.clock)) END AS clock_offset
		FROM (SELECT quota_manager.schedule_now() AS clock, pg_catalog.clock_timestamp() AS real_now, quota_internal.gateway_setup() AS setup,
			quota_internal.setting('scan_interval')::interval AS pace OFFSET 0) c OFFSET 0) c
CROSS JOIN quota_manager.quota_strategy s
CROSS JOIN LATERAL (SELECT s.enabled AND NOT s.archived AS in_use, c.clock OPERATOR(pg_catalog.>=) s.valid_until AS expired,
		s.type OPERATOR(pg_catalog.=) 'periodic' AS periodic,
		CASE WHEN s.type OPERATOR(pg_catalog.=) 'periodic' THEN quota_internal.check_time_zone(quota_internal.schedule_zone(s.periodic_expr, s.time_zone)) END AS readable,
		CASE WHEN s.type OPERATOR(pg_catalog.=) 'periodic' THEN greatest(s.schedule_since,
			(SELECT coalesce(r.last_scheduled_time, r.scheduled_time) FROM quota_manager.quota_run r
				WHERE r.strategy_id OPERATOR(pg_catalog.=) s.id AND r.scheduled_time OPERATOR(pg_catalog.<=) c.clock
				ORDER BY r.scheduled_time DESC LIMIT 1)) END AS recorded OFFSET 0) p
CROSS JOIN LATERAL (SELECT CASE WHEN p.readable THEN quota_manager.next_firing(s.periodic_expr, p.recorded, s.time_zone) END AS next OFFSET 0) n
CROSS JOIN LATERAL (SELECT p.in_use AND p.readable AND NOT p.expired AND (n.next OPERATOR(pg_catalog.<=) c.clock
		OR c.clock OPERATOR(pg_catalog.<) s.valid_from OR p.recorded OPERATOR(pg_catalog.>) c.clock
		OR EXISTS (SELECT 1 FROM quota_manager.quota_run r WHERE r.strategy_id OPERATOR(pg_catalog.=) s.id AND r.scheduled_time OPERATOR(pg_catalog.>) c.clock)
		OR EXISTS (SELECT 1 FROM quota_manager.quota_run r WHERE r.strategy_id OPERATOR(pg_catalog.=) s.id
			AND r.state OPERATOR(pg_catalog.=) ANY (ARRAY['failed', 'incomplete'])
			AND r.scheduled_time OPERATOR(pg_catalog.>=) CASE WHEN s.catch_up OPERATOR(pg_catalog.=) 'all' THEN quota_internal.catch_up_start(s.*) ELSE p.recorded END)) AS closer
		OFFSET 0) k
-- The last run without a firing: of a single strategy, or of one whose schedule cannot be read.
LEFT JOIN LATERAL (SELECT u.tries, u.reason, u.state,
		CASE WHEN u.strategy_version OPERATOR(pg_catalog.=) s.version
			THEN quota_internal.next_try(u.state, u.finish_time, u.retry_time, u.setup OPERATOR(pg_catalog.=) c.setup, c.pace, c.real_now) END AS next_try
	FROM (SELECT r.* FROM quota_manager.quota_run r
		WHERE p.in_use AND NOT p.expired AND p.readable IS NOT TRUE AND r.strategy_id OPERATOR(pg_catalog.=) s.id AND r.scheduled_time IS NULL
		ORDER BY r.id DESC LIMIT 1) u OFFSET 0) l ON true
CROSS JOIN LATERAL (
	SELECT CASE WHEN a.state OPERATOR(pg_catalog.=) ANY (ARRAY['scheduled', 'idle']) AND p.readable AND p.in_use THEN n.next END AS scheduled_time,
		CASE WHEN a.state OPERATOR(pg_catalog.=) 'due' AND a.ready_time OPERATOR(pg_catalog.>) c.real_now THEN 'waiting' ELSE a.state END AS state,
		CASE a.state WHEN 'due' THEN a.ready_time
			WHEN 'scheduled' THEN coalesce(n.next, s.valid_from) OPERATOR(pg_catalog.+) c.clock_offset
			WHEN 'recording' THEN n.next OPERATOR(pg_catalog.+) c.clock_offset OPERATOR(pg_catalog.+) c.pace END AS due_time,
		CASE WHEN a.state OPERATOR(pg_catalog.=) 'due' AND l.next_try IS NOT NULL THEN l.tries ELSE 0 END AS tries,
		CASE WHEN NOT p.in_use THEN CASE WHEN s.archived THEN 'archived' ELSE 'disabled' END
			WHEN p.expired THEN pg_catalog.concat('not valid since ', s.valid_until)
			WHEN c.clock OPERATOR(pg_catalog.<) s.valid_from THEN pg_catalog.concat('not valid before ', s.valid_from)
			WHEN p.readable THEN quota_internal.never_fires(n.next, s.valid_until)
			WHEN l.next_try IS NOT NULL AND l.state OPERATOR(pg_catalog.<>) 'done' THEN l.reason
			WHEN p.periodic THEN pg_catalog.format('time zone "%s" is not known to this server', quota_internal.schedule_zone(s.periodic_expr, s.time_zone)) END AS reason
	FROM (SELECT CASE
				WHEN NOT p.in_use OR p.expired THEN CASE WHEN n.next IS NULL THEN 'idle' ELSE 'recording' END
				WHEN p.readable THEN CASE WHEN n.next OPERATOR(pg_catalog.<) s.valid_until THEN 'scheduled' ELSE 'idle' END
				WHEN NOT p.periodic AND c.clock OPERATOR(pg_catalog.<) s.valid_from THEN 'scheduled'
				WHEN p.recorded OPERATOR(pg_catalog.>=) c.clock THEN 'idle'
				ELSE 'due' END AS state,
			coalesce(l.next_try, least(greatest(s.update_time, s.valid_from OPERATOR(pg_catalog.+) c.clock_offset), c.real_now)) AS ready_time OFFSET 0) a
	WHERE k.closer IS NOT TRUE
	UNION ALL
	SELECT f.scheduled_time, f.state, f.due_time, f.tries, f.reason
	FROM quota_internal.due_firings_of(s.*, c.clock, c.clock_offset, c.pace, c.setup, c.real_now) f WHERE k.closer) d;
COMMENT ON VIEW quota_manager.strategy_due IS 'When each strategy is due: what tick() and the workers run, what scan() runs by hand, and what comes next. One row per strategy, more where there are several firings to it.';
COMMENT ON COLUMN quota_manager.strategy_due.strategy_id IS 'The strategy.';
COMMENT ON COLUMN quota_manager.strategy_due.name IS 'Its name.';
COMMENT ON COLUMN quota_manager.strategy_due.type IS 'single or periodic.';
COMMENT ON COLUMN quota_manager.strategy_due.scheduled_time IS 'The firing that is due, waits, or comes next; null: none, or it is a single strategy.';
COMMENT ON COLUMN quota_manager.strategy_due.state IS 'due: to be run now. waiting: to be run at due_time, when its back-off is over, or scan_interval since the last scan; scan() runs it at once. scheduled: its firing, or its validity, is to come. recording: nothing is run, but firings are recorded as not run at due_time, or by the next scan(). idle: nothing will be run.';
COMMENT ON COLUMN quota_manager.strategy_due.due_time IS 'Since when it is due, or when it will be (real time); null: never, as things are.';
COMMENT ON COLUMN quota_manager.strategy_due.tries IS 'How many tries in a row failed or were incomplete.';
COMMENT ON COLUMN quota_manager.strategy_due.reason IS 'Why it waits or is not run.';

CREATE FUNCTION quota_internal.due_strategies(strategy_name text DEFAULT NULL)
RETURNS TABLE (strategy_id integer, name text, scheduled_time timestamptz)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan SET jit = off SET quota_manager.pinned_statistics = on
AS $$
	SELECT d.strategy_id, d.name, d.scheduled_time FROM quota_manager.strategy_due d
	WHERE (strategy_name IS NULL OR d.name = strategy_name)
		AND (d.state IN ('due', 'waiting') OR d.state = 'recording' AND d.due_time <= clock_timestamp() + quota_internal.setting('scan_interval')::interval)
	ORDER BY d.strategy_id, d.scheduled_time
$$;
COMMENT ON FUNCTION quota_internal.due_strategies(text) IS 'What scan() would do now: firings to be run or tried again, single strategies, and (scheduled_time null) firings to be recorded as not run; of all strategies or of the named one. Who waits for a back-off or for scan_interval is included: see strategy_due.';

CREATE FUNCTION quota_manager.restart_schedule(strategy_name text) RETURNS timestamptz
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET quota_manager.pinned_statistics = on SET jit = off
AS $$
DECLARE
	role CONSTANT text := quota_internal.deciding_role();
	visible CONSTANT text[] := quota_internal.read_as_caller('SELECT s.id::text FROM quota_manager.quota_strategy s WHERE s.name = $1[1]', ARRAY[strategy_name]);
	clock timestamptz;
	strategy quota_manager.quota_strategy;
	firing timestamptz;
BEGIN
	SELECT s.* INTO strategy FROM quota_manager.quota_strategy s WHERE s.id = visible[1]::integer;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'strategy "%" does not exist', strategy_name
			USING ERRCODE = 'undefined_object', HINT = 'See SELECT name FROM quota_manager.quota_strategy.';
	END IF;
	IF strategy.type = 'single' THEN
		RAISE EXCEPTION 'strategy "%" has no schedule', strategy_name USING ERRCODE = 'wrong_object_type';
	END IF;
	PERFORM quota_internal.check_transaction('schedules are restarted');
	-- The row first, as edits do.
	PERFORM 1 FROM quota_manager.quota_strategy s WHERE s.id = strategy.id FOR NO KEY UPDATE;
	PERFORM quota_internal.lock_strategies(ARRAY[strategy.id]);
	clock := quota_manager.schedule_now();
	-- Nothing was granted for them, and they are still to come.
	DELETE FROM quota_manager.quota_run r WHERE r.strategy_id = strategy.id AND r.state = 'skipped' AND r.scheduled_time > clock;
	UPDATE quota_manager.quota_run r SET (last_scheduled_time, occurrences) = (SELECT nullif(f.last_firing, r.scheduled_time), greatest(f.firings, 1)
			FROM quota_manager.firing_range(strategy.periodic_expr, r.scheduled_time - interval '1 us', clock, strategy.time_zone) f)
		WHERE r.strategy_id = strategy.id AND r.state = 'skipped' AND r.scheduled_time <= clock AND r.last_scheduled_time > clock;
	-- The trigger sees to it that it is the schedule clock.
	UPDATE quota_manager.quota_strategy s SET schedule_since = clock WHERE s.id = strategy.id AND s.schedule_since > clock;
	SELECT s.* INTO strategy FROM quota_manager.quota_strategy s WHERE s.id = strategy.id;
	firing := quota_internal.next_open_firing(strategy, greatest(clock, strategy.valid_from - interval '1 us'));
	RAISE LOG 'role "%" restarted the schedule of strategy "%"', role, strategy_name USING DETAIL = format('Its next firing: %s.', coalesce(firing::text, 'none'));
	RETURN firing;
END
$$;
COMMENT ON FUNCTION quota_manager.restart_schedule(text) IS 'Lets a periodic strategy run from now on again where the schedule clock was ahead for a while: forgets that later firings were not run, but not those that were run, and counts from now if the strategy was written then. Returns its next firing.';
-- Where scans find the users: user_info, or a relation of the site.

CREATE FUNCTION quota_internal.check_source_owner(source text) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	known CONSTANT text := (SELECT i.user_source_owner FROM quota_manager.quota_installation i);
	-- By the catalogue: the schema may be one that the caller cannot look into.
	present CONSTANT text := (SELECT pg_get_userbyid(c.relowner) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE (parse_ident(source))[1] = n.nspname AND (parse_ident(source))[2] = c.relname);
BEGIN
	IF present <> known THEN
		RAISE EXCEPTION 'user source % belongs to role "%" now, not to "%"', source, present, known
			USING ERRCODE = 'object_not_in_prerequisite_state',
				DETAIL = 'It was made anew, given away, or restored as another role: what it calls is code that its owner chose.',
				HINT = format('If it is to be read, the owner of the extension confirms it: SELECT quota_manager.set_user_source(%L).', source);
	END IF;
END
$$;
COMMENT ON FUNCTION quota_internal.check_source_owner(text) IS 'Raises an error if the user source is owned by another role than when set_user_source was called for it. Roles are compared by name: a restored relation has another oid.';

CREATE FUNCTION quota_internal.missing_source_rights(source text, role oid) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	PERFORM quota_internal.check_source_owner(source);
	-- A view reads what it is made of as its owner, or as whoever asks. The schema may be one that the caller cannot look into.
	RETURN (WITH RECURSIVE relation AS (
		SELECT c.oid, c.relname, c.relkind, c.reloptions, n.oid AS schema, n.nspname
			FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
			WHERE (parse_ident(source))[1] = n.nspname AND (parse_ident(source))[2] = c.relname
		UNION SELECT c.oid, c.relname, c.relkind, c.reloptions, n.oid, n.nspname
			FROM relation v
			JOIN pg_rewrite w ON w.ev_class = v.oid
			JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid AND d.refclassid = 'pg_class'::regclass
			JOIN pg_class c ON c.oid = d.refobjid AND c.oid <> v.oid AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
			JOIN pg_namespace n ON n.oid = c.relnamespace
			WHERE v.relkind = 'v' AND coalesce(v.reloptions, '{}') && ARRAY['security_invoker=true', 'security_invoker=on', 'security_invoker=1']
	), missing AS (
		SELECT DISTINCT format('GRANT USAGE ON SCHEMA %I TO %s', r.nspname, role::regrole) AS statement, 1 AS place
			FROM relation r WHERE NOT has_schema_privilege(role, r.schema, 'USAGE')
		UNION ALL SELECT format('GRANT SELECT ON %I.%I TO %s', r.nspname, r.relname, role::regrole), 2
			FROM relation r WHERE NOT has_table_privilege(role, r.oid, 'SELECT')
				AND (r.relname <> (parse_ident(source))[2] OR r.nspname <> (parse_ident(source))[1]
					OR EXISTS (SELECT 1 FROM pg_attribute s JOIN pg_attribute a ON a.attrelid = r.oid AND a.attname = s.attname AND a.attnum > 0
						WHERE s.attrelid = 'quota_manager.subject'::regclass AND NOT has_column_privilege(role, r.oid, a.attnum, 'SELECT')))
	)
	SELECT string_agg(m.statement, '; ' ORDER BY m.place, m.statement) FROM missing m);
END
$$;
COMMENT ON FUNCTION quota_internal.missing_source_rights(text, oid) IS 'What has to be granted to a role so that it can read the user source; null: nothing. An error if it has another owner than it had.';

CREATE FUNCTION quota_internal.has_own_users() RETURNS boolean
LANGUAGE sql STABLE
BEGIN ATOMIC
	SELECT NOT EXISTS (SELECT 1 FROM quota_manager.quota_installation i WHERE i.user_source IS NOT NULL);
END;
COMMENT ON FUNCTION quota_internal.has_own_users() IS 'Do scans read users from user_info? Otherwise from the relation of set_user_source.';

CREATE FUNCTION quota_internal.user_relation(reader oid, OUT relation oid, OUT is_own boolean, OUT users text, OUT with_balances text, OUT fingerprint bigint)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET quota_manager.pinned_statistics = on
AS $$
DECLARE
	source text := (SELECT i.user_source FROM quota_manager.quota_installation i);
	rights text;
	columns text;
BEGIN
	is_own := source IS NULL;
	IF NOT is_own THEN
		rights := CASE WHEN reader IS NOT NULL THEN quota_internal.missing_source_rights(source, reader) END;
		IF rights IS NOT NULL THEN
			RAISE EXCEPTION 'role "%" cannot read the user source %', pg_get_userbyid(reader), source
				USING ERRCODE = 'insufficient_privilege', DETAIL = format('What is missing: %s.', rights);
		END IF;
		IF to_regclass(source) IS NULL THEN
			RAISE EXCEPTION 'user source % does not exist', source
				USING ERRCODE = 'undefined_table', HINT = 'Call quota_manager.set_user_source with a relation that does.';
		END IF;
	END IF;
	relation := coalesce(to_regclass(source), 'quota_manager.user_info'::regclass);
	SELECT string_agg(CASE
			WHEN a.attname = 'balances' THEN 'b.balances'
			WHEN own.attname IS NULL THEN 'NULL'
			ELSE format('u.%I', a.attname) END, ', ' ORDER BY a.attnum)
		INTO columns
		FROM pg_attribute a
		LEFT JOIN pg_attribute own ON own.attrelid = relation AND own.attname = a.attname AND own.attnum > 0 AND NOT own.attisdropped
		WHERE a.attrelid = 'quota_manager.subject'::regclass AND a.attnum > 0 AND NOT a.attisdropped;
	-- Where no balance is asked for, the planner is spared a join that it would only find to be of no use.
	users := format('(SELECT u.id, %sROW(%s)::quota_manager.subject AS subject FROM %s u)',
		CASE WHEN (SELECT c.relkind FROM pg_class c WHERE c.oid = relation) = 'r' THEN 'u.ctid AS position, ' ELSE '' END,
		replace(columns, 'b.balances', 'NULL'), relation::regclass);
	with_balances := format('(SELECT u.id, ROW(%s)::quota_manager.subject AS subject FROM %s u LEFT JOIN quota_manager.known_balance b ON b.user_id = u.id)',
		columns, relation::regclass);
	-- A column that is added has a value in all rows, none of which is written for it. Another server has a log of its own.
	fingerprint := (SELECT hashtextextended(concat_ws(' ', (SELECT p.system_identifier FROM quota_internal.present_identity() p), relation, pg_relation_filenode(relation), (SELECT e.extversion FROM pg_extension e WHERE e.extname = 'quota_manager'),
			string_agg(concat_ws(' ', a.attnum, a.attname, a.atttypid, a.attmissingval), ' ' ORDER BY a.attnum)), 0)
		FROM pg_attribute a WHERE a.attrelid = relation AND a.attnum > 0);
END
$$;
COMMENT ON FUNCTION quota_internal.user_relation(oid) IS 'Where scans find the users, for a role that reads them (null: whose rights are not asked about): the relation, whether it is user_info, and subqueries over it with the columns id and subject, without and with balances; position is where the row of an ordinary table lies, fingerprint tells the table''s server, columns and file from others.';

CREATE FUNCTION quota_internal.explain_as_owner(relation oid, query text) RETURNS text
LANGUAGE C VOLATILE STRICT AS 'MODULE_PATHNAME', 'qm_explain_as_owner';
COMMENT ON FUNCTION quota_internal.explain_as_owner(oid, text) IS 'Of set_user_source(): the plan of a query over a relation as JSON, planned with the rights of the relation''s owner: what the relation brings along runs as nobody else.';

CREATE FUNCTION quota_manager.set_user_source(source regclass DEFAULT NULL)
RETURNS TABLE (condition text, indexed boolean, advice text)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp SET jit = off SET enable_seqscan = off SET enable_indexonlyscan = off SET timezone = 'UTC' SET datestyle = 'ISO'
AS $$
DECLARE
	problems text[];
	reader record;
	plan jsonb;
	node jsonb;
	relation regclass;
	expression text;
	sought text;
	users record;
BEGIN
	IF source IS NOT NULL THEN
		IF NOT EXISTS (SELECT 1 FROM pg_class c WHERE c.oid = source AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND c.relpersistence <> 't') THEN
			RAISE EXCEPTION 'user source % is not a table or view that lasts', source
				USING ERRCODE = 'wrong_object_type', HINT = 'Other sessions scan too: a temporary one will not do.';
		END IF;
		SELECT array_agg(format(CASE WHEN p.found IS NULL THEN 'It has no column "%1$s" of type %2$s.'
					WHEN p.found = p.wanted THEN 'Column "%1$s" must have the collation of the database.'
					ELSE 'Column "%1$s" must have type %2$s, not %3$s.' END,
					p.attname, p.wanted, p.found) ORDER BY p.attnum)
			INTO problems
			FROM (SELECT s.attnum, s.attname, format_type(s.atttypid, -1) AS wanted, format_type(a.atttypid, -1) AS found
				FROM pg_attribute s
				LEFT JOIN pg_attribute a ON a.attrelid = source AND a.attname = s.attname AND a.attnum > 0 AND NOT a.attisdropped
				WHERE s.attrelid = 'quota_manager.subject'::regclass AND s.attnum > 0 AND s.attname <> 'balances'
					AND (a.attname IS NULL AND s.attname = 'id' OR a.atttypid <> s.atttypid OR a.attcollation <> s.attcollation)) p;
		IF problems IS NOT NULL THEN
			RAISE EXCEPTION 'user source % does not have the columns of a user', source
				USING ERRCODE = 'datatype_mismatch', DETAIL = array_to_string(problems, E'\n'),
					HINT = 'Make a view over your users with the columns of quota_manager.subject: id, github_star, vip, org, register_time, access_time; what is missing is null.';
		END IF;
	END IF;
	INSERT INTO quota_manager.quota_installation (user_source, user_source_owner)
		VALUES (source::oid::regclass::text, (SELECT pg_get_userbyid(c.relowner) FROM pg_class c WHERE c.oid = source))
		ON CONFLICT (singleton) DO UPDATE SET user_source = excluded.user_source, user_source_owner = excluded.user_source_owner;
	-- Who scans: the workers, and to whom it was granted. An administrator may grant what is missing now or later.
	FOR reader IN
		SELECT r.rolname, quota_internal.missing_source_rights(i.user_source, r.oid) AS rights
		FROM quota_manager.quota_installation i, pg_roles r
		WHERE i.user_source IS NOT NULL AND NOT r.rolsuper AND (r.rolname = quota_internal.setting('worker_role')
			OR r.oid IN (SELECT a.grantee FROM pg_proc p, aclexplode(p.proacl) a WHERE p.oid = 'quota_manager.scan(text)'::regprocedure))
		ORDER BY r.rolname
	LOOP
		IF reader.rights IS NOT NULL THEN
			RAISE WARNING 'role "%" may scan but cannot read the user source %', reader.rolname, source
				USING ERRCODE = 'insufficient_privilege', DETAIL = 'Its scans fail until it can.', HINT = reader.rights || ';';
		END IF;
	END LOOP;
	SELECT r.* INTO users FROM quota_internal.user_relation(NULL) r;
	FOR condition, expression, sought IN VALUES
		('match-user("?")', NULL, '\?'), ('belong-to("?")', NULL, '\?'), ('is-vip(2)', NULL, '>= ''?2'), ('github-star("?")', 'USING gin ', '\?'),
		('register-before("2000-01-01 00:00:00")', NULL, '2000-01-01'), ('access-after("2000-01-01 00:00:00")', NULL, '2000-01-01') LOOP
		BEGIN
			plan := quota_internal.explain_as_owner(users.relation, format('SELECT s.id FROM %s s WHERE s.subject OPERATOR(quota_manager.@@) %L', users.users, condition))::jsonb;
		EXCEPTION WHEN insufficient_privilege THEN
			-- Its owner needs no rights here, and mostly the planner asks for none.
			indexed := false;
			advice := format('Not known: the owner of the source cannot have it planned (%s).', SQLERRM);
			RETURN NEXT;
			CONTINUE;
		END;
		-- What the condition asks for must be what an index is searched for; the source may use others for itself.
		indexed := EXISTS (SELECT 1 FROM jsonb_path_query(plan, '$.**."Index Cond"') c WHERE c #>> '{}' ~ sought);
		advice := NULL;
		IF NOT indexed THEN
			node := NULL;
			SELECT n INTO node FROM jsonb_path_query(plan, '$.** ? (exists (@."Filter"))') n
				WHERE n ->> 'Filter' ~ sought ORDER BY n ? 'Relation Name' DESC LIMIT 1;
			IF node ->> 'Filter' ~ 'SubPlan' OR NOT node ? 'Relation Name' THEN
				advice := 'The source computes it for each user: no index can serve it.';
				RETURN NEXT;
				CONTINUE;
			END IF;
			-- Where its rows are kept elsewhere it is not known here by that name.
			relation := coalesce(to_regclass(quote_ident(node ->> 'Schema') || '.' || quote_ident(node ->> 'Relation Name')), users.relation);
			-- The filter is what an index must hold, an operator, and a constant.
			advice := CASE WHEN node IS NULL THEN 'The source has nothing that the condition reads.' ELSE
				format('CREATE INDEX ON %s ', coalesce(pg_partition_root(relation), relation)) || coalesce(expression, '')
				|| '((' || coalesce(substring(replace(node ->> 'Filter', quote_ident(node ->> 'Alias') || '.', '') FROM '^\((.*) (?:=|>=|>|<|@>) .*\)$'), '...') || '))' END;
		END IF;
		RETURN NEXT;
	END LOOP;
END
$$;
COMMENT ON FUNCTION quota_manager.set_user_source(regclass) IS 'Makes scans read users from a relation with the columns of subject; null: from user_info. Lists for which conditions it has an index, and the index to make.';

CREATE FUNCTION quota_manager.create_access_time_index() RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	CREATE INDEX IF NOT EXISTS user_info_access_time ON quota_manager.user_info (access_time);
END
$$;
COMMENT ON FUNCTION quota_manager.create_access_time_index() IS 'Indexes user_info.access_time for access-after. Logins become dearer: their updates can no longer stay in place. pg_dump does not keep it.';
-- Scans: strategies x subjects -> quota_execute.

-- The rule by which these locks are taken: src/scan/scan_lock.h.
CREATE FUNCTION quota_internal.lock_strategies(strategy_ids integer[]) RETURNS void
LANGUAGE C VOLATILE STRICT AS 'MODULE_PATHNAME', 'qm_lock_strategies';
COMMENT ON FUNCTION quota_internal.lock_strategies(integer[]) IS 'Waits for scans and edits of the strategies to end, and keeps others out until the transaction ends.';

CREATE FUNCTION quota_internal.try_lock_strategy(strategy_id integer) RETURNS boolean
LANGUAGE C VOLATILE STRICT AS 'MODULE_PATHNAME', 'qm_try_lock_strategy';
COMMENT ON FUNCTION quota_internal.try_lock_strategy(integer) IS 'Of record_failure(): keeps scans and edits of the strategy out until the transaction ends. False: another transaction edits or scans it.';

CREATE FUNCTION quota_internal.strategy_is_locked(strategy_id integer) RETURNS boolean
LANGUAGE C VOLATILE STRICT AS 'MODULE_PATHNAME', 'qm_strategy_is_locked';
COMMENT ON FUNCTION quota_internal.strategy_is_locked(integer) IS 'Of run_due(): does another transaction edit or scan the strategy?';

CREATE FUNCTION quota_internal.lock_balances(gateway text) RETURNS void
LANGUAGE C VOLATILE STRICT AS 'MODULE_PATHNAME', 'qm_lock_balances';
COMMENT ON FUNCTION quota_internal.lock_balances(text) IS 'Waits for scans that grant or decide by balances at the gateway, and keeps them out until the transaction ends.';

CREATE FUNCTION quota_internal.lock_scan(strategy_id integer, exclusive_gateways text[], shared_gateway text) RETURNS boolean
LANGUAGE C VOLATILE STRICT AS 'MODULE_PATHNAME', 'qm_lock_scan';
COMMENT ON FUNCTION quota_internal.lock_scan(integer, text[], text) IS 'Of scan(): takes the lock of the strategy and those of the balances at gateways, all or none. False: another transaction has one, and this one must not wait since it holds others.';

CREATE FUNCTION quota_internal.has_readings(gateway text) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET quota_manager.pinned_statistics = on SET jit = off
AS $$
BEGIN
	PERFORM quota_internal.pin_statistics();
	RETURN EXISTS (SELECT 1 FROM quota_manager.user_balance b WHERE b.gateway = has_readings.gateway
		AND (b.balance IS NOT NULL OR b.token IS NOT NULL));
END
$$;
COMMENT ON FUNCTION quota_internal.has_readings(text) IS 'Of scan(): is a balance at the gateway known, or asked for?';

CREATE FUNCTION quota_internal.condition_gateways(condition quota_manager.condition) RETURNS text[]
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	models CONSTANT text[] := quota_manager.condition_models(condition);
BEGIN
	IF models = '{}' THEN
		RETURN models;
	END IF;
	RETURN ARRAY(SELECT DISTINCT quota_manager.gateway_of(m) FROM unnest(models) m WHERE quota_manager.gateway_of(m) IS NOT NULL);
END
$$;
COMMENT ON FUNCTION quota_internal.condition_gateways(quota_manager.condition) IS 'Gateways whose balances a condition asks for.';

CREATE FUNCTION quota_internal.try_scan_locks(strategy quota_manager.quota_strategy) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	target CONSTANT text := coalesce(quota_manager.gateway_of(strategy.model), '');
	decides text[] := quota_internal.condition_gateways(strategy.condition);
BEGIN
	-- Who clears readings must be alone: two would meet the same rows in different orders.
	IF quota_internal.has_readings(target) THEN
		decides := decides || target;
	END IF;
	RETURN quota_internal.lock_scan(strategy.id, decides, target);
END
$$;
COMMENT ON FUNCTION quota_internal.try_scan_locks(quota_manager.quota_strategy) IS 'Of scan(): takes what a run of the strategy locks; see lock_scan.';

CREATE FUNCTION quota_internal.lock_due_strategy(strategy_id integer) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	strategy quota_manager.quota_strategy;
	version integer;
BEGIN
	LOOP
		SELECT s.* INTO strategy FROM quota_manager.quota_strategy s WHERE s.id = lock_due_strategy.strategy_id;
		IF strategy.version IS NOT DISTINCT FROM version THEN
			RETURN true;
		END IF;
		IF NOT quota_internal.try_scan_locks(strategy) THEN
			RETURN false;
		END IF;
		-- As it is now that nobody edits it; what it locks may be something else then.
		version := strategy.version;
	END LOOP;
END
$$;
COMMENT ON FUNCTION quota_internal.lock_due_strategy(integer) IS 'Of scan(): takes what a run of the strategy locks, as it is then. False: another transaction has some of it.';

CREATE FUNCTION quota_internal.open_users(gateways text[]) RETURNS TABLE (user_id text, gateway text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET jit = off SET max_parallel_workers_per_gather = 0 SET quota_manager.pinned_statistics = on
AS $$
DECLARE
	stretch record;
BEGIN
	PERFORM quota_internal.pin_statistics();
	FOR stretch IN SELECT s.* FROM quota_internal.undelivered_stretches() s LOOP
		RETURN QUERY SELECT DISTINCT e.user_id, e.gateway FROM quota_manager.quota_execute e
			WHERE e.id BETWEEN stretch.low AND stretch.high AND e.run_id = ANY (stretch.runs) AND e.gateway = ANY (gateways)
				AND (e.status = 'pending' OR e.status = 'processing' OR e.status = 'in_doubt' AND e.next_attempt_time < 'infinity');
	END LOOP;
END
$$;
COMMENT ON FUNCTION quota_internal.open_users(text[]) IS 'Users who have something open at gateways: granted, and neither settled nor left to an operator. Their balances cannot count. A user may come more than once.';

CREATE FUNCTION quota_internal.forget_balances(run_id bigint, first_grant_id bigint, last_grant_id bigint, gateway text) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET jit = off SET quota_manager.pinned_statistics = on
AS $$
BEGIN
	PERFORM quota_internal.pin_statistics();
	IF quota_internal.has_readings(gateway) THEN
		UPDATE quota_manager.user_balance b SET balance = NULL, token = NULL
			FROM (SELECT DISTINCT e.user_id FROM quota_manager.quota_execute e WHERE e.run_id = forget_balances.run_id
				AND e.id BETWEEN first_grant_id AND last_grant_id AND e.gateway = forget_balances.gateway) e
			WHERE b.user_id = e.user_id AND b.gateway = forget_balances.gateway AND (b.balance IS NOT NULL OR b.token IS NOT NULL);
	END IF;
END
$$;
COMMENT ON FUNCTION quota_internal.forget_balances(bigint, bigint, bigint, text) IS 'Of scan(): the balances of users who were granted something at the gateway are not known any more, nor will answers that are under way count.';

CREATE FUNCTION quota_internal.guard_balances(gateways text[]) RETURNS text
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET jit = off SET quota_manager.pinned_statistics = on
AS $$
DECLARE
	horizon CONSTANT timestamptz := quota_internal.balance_horizon();
	clock CONSTANT timestamptz := quota_internal.balance_clock();
	checked record;
	fallen bigint;
	others bigint;
	awaited bigint;
	since timestamptz;
	problem text;
BEGIN
	PERFORM quota_internal.pin_statistics();
	FOR checked IN
		SELECT g.name, g.guard_balances AS is_guarded FROM quota_manager.quota_gateway g
		WHERE g.name = ANY (gateways) AND NOT EXISTS (SELECT 1 FROM quota_manager.balance_suspension s WHERE s.gateway = g.name)
		ORDER BY g.name
	LOOP
		SELECT count(*), min(b.read_time) INTO fallen, since FROM quota_manager.user_balance b
			WHERE b.gateway = checked.name AND b.balance = 0 AND b.last_balance > 0 AND b.read_time > horizon AND b.read_time <= clock;
		CONTINUE WHEN fallen = 0;
		-- What was answered long before the first that fell tells nothing of what the gateway has now.
		SELECT count(*) FILTER (WHERE b.balance <> 0 AND b.read_time > greatest(horizon, since - interval '10 s') AND b.read_time <= clock),
				count(*) FILTER (WHERE b.balance IS NULL AND b.token <> 0 AND b.last_balance > 0)
			INTO others, awaited FROM quota_manager.user_balance b
			WHERE b.gateway = checked.name AND (b.balance IS NOT NULL OR b.token IS NOT NULL);
		IF checked.is_guarded AND fallen * 10 >= (fallen + others) * 9 THEN
			IF fallen + others >= 10 THEN
				problem := format('balances of gateway "%s" are suspended: %s of %s users read 0 at once; see release_balances',
					checked.name, fallen, fallen + others);
				INSERT INTO quota_manager.balance_suspension (gateway, since, reason) VALUES (checked.name, clock, problem);
				RAISE WARNING '%', problem
					USING ERRCODE = 'object_not_in_prerequisite_state',
						DETAIL = 'Their last balances were above 0. Perhaps the gateway lost its data, or keeps it elsewhere since it was upgraded.',
						HINT = format('If the balances are right, call quota_manager.release_balances(%L, note). Until then they count as unknown.', checked.name);
				CONTINUE;
			ELSIF fallen + others + awaited >= 10 AND since > clock - interval '1 min' THEN
				RETURN format('left out: all but %s of %s users read 0 at gateway "%s", and answers for others are awaited', others, fallen + others, checked.name);
			END IF;
		END IF;
		UPDATE quota_manager.user_balance b SET last_balance = NULL
			WHERE b.gateway = checked.name AND b.balance = 0 AND b.last_balance > 0 AND b.read_time > horizon AND b.read_time <= clock;
	END LOOP;
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION quota_internal.guard_balances(text[]) IS 'Of scan(), which has the balances at the gateways locked: suspends those of a gateway where at least 90 percent of at least 10 users fell to 0 since they were believed last, and believes the others. Returns why nothing must be decided by them yet; null: it may be.';

CREATE FUNCTION quota_internal.lock_edited_strategy() RETURNS trigger
LANGUAGE C AS 'MODULE_PATHNAME', 'qm_lock_edited_strategy';
COMMENT ON FUNCTION quota_internal.lock_edited_strategy() IS 'Trigger: an edit waits for a running scan of the strategy, and a scan for an edit. An edit that puts the strategy out of use breaks off the scan of a scheduler; others say whom they wait for.';
-- Its name sorts before the other triggers: they must see what a scan has just granted.
CREATE TRIGGER await_scan BEFORE UPDATE OR DELETE ON quota_manager.quota_strategy
	FOR EACH ROW EXECUTE FUNCTION quota_internal.lock_edited_strategy();
COMMENT ON TRIGGER await_scan ON quota_manager.quota_strategy IS 'An edit waits for a running scan of the strategy.';

CREATE FUNCTION quota_internal.check_transaction(what text) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF current_setting('transaction_read_only')::boolean THEN
		RAISE EXCEPTION '% in a transaction that can write', what
			USING ERRCODE = 'read_only_sql_transaction',
				DETAIL = CASE WHEN pg_is_in_recovery() THEN 'This server is a standby.' ELSE 'This transaction is read-only.' END;
	END IF;
	IF current_setting('transaction_isolation') <> 'read committed' THEN
		RAISE EXCEPTION '% at isolation level read committed only', what
			USING ERRCODE = 'invalid_transaction_state',
				DETAIL = 'The snapshot of this transaction may be older than what another session has just granted or disabled.';
	END IF;
END
$$;
COMMENT ON FUNCTION quota_internal.check_transaction(text) IS 'Raises an error in a transaction that cannot write, or keeps one snapshot: a lock taken there does not make newer rows visible.';

CREATE FUNCTION quota_internal.evaluate(strategies integer[])
RETURNS TABLE (strategy_id integer, strategy_version integer, matched bigint, unknown bigint, left_out bigint)
LANGUAGE C VOLATILE STRICT AS 'MODULE_PATHNAME', 'qm_evaluate';
COMMENT ON FUNCTION quota_internal.evaluate(integer[]) IS 'Of scan(): finds the users of one strategy, or of those of several that can be evaluated before any of them grants, with the rights of the caller. What was found is kept for grant_evaluated() until end_evaluation().';

CREATE FUNCTION quota_internal.grant_evaluated(template quota_manager.quota_execute, cap integer, anew boolean,
	OUT matched bigint, OUT granted bigint, OUT already_granted bigint, OUT capped bigint, OUT unknown bigint, OUT left_out bigint)
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'qm_grant_evaluated';
COMMENT ON FUNCTION quota_internal.grant_evaluated(quota_manager.quota_execute, integer, boolean) IS 'Of scan(): writes grants like the template for users who were found of its strategy and have none, and counts. cap: see max_exec_per_user; anew: nobody can have a grant yet.';

CREATE FUNCTION quota_internal.evaluated_users(strategy_id integer, firing timestamptz, cap integer) RETURNS TABLE (user_id text, verdict text)
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'qm_evaluated_users';
COMMENT ON FUNCTION quota_internal.evaluated_users(integer, timestamptz, integer) IS 'What grant_evaluated() would do of each user who was found: admitted, granted (already), capped, or unknown: might be admitted if a balance were known. Writes nothing.';

CREATE FUNCTION quota_internal.begin_scan() RETURNS void
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'qm_begin_scan';
COMMENT ON FUNCTION quota_internal.begin_scan() IS 'Of scan(), before it writes anything: remembers the moment, for the marks of what it evaluates.';

CREATE TABLE quota_internal.scan_mark (
	strategy_id integer PRIMARY KEY,
	strategy_version integer NOT NULL,
	run_id bigint NOT NULL,
	users bigint NOT NULL,
	seen xid8 NOT NULL,
	base pg_lsn,
	base_next xid8,
	candidate pg_lsn NOT NULL,
	candidate_next xid8 NOT NULL
);
COMMENT ON TABLE quota_internal.scan_mark IS 'How far the last scan of a single strategy has seen, so that the next one looks only at users who have changed. May be deleted: the next scan looks at all then.';
COMMENT ON COLUMN quota_internal.scan_mark.strategy_id IS 'The strategy.';
COMMENT ON COLUMN quota_internal.scan_mark.strategy_version IS 'Version that was scanned; a mark of another one does not count.';
COMMENT ON COLUMN quota_internal.scan_mark.run_id IS 'The run that wrote it; does not count where that is gone.';
COMMENT ON COLUMN quota_internal.scan_mark.users IS 'Tells the table of users from others, and from itself with other columns.';
COMMENT ON COLUMN quota_internal.scan_mark.seen IS 'All transactions before this one had ended, and what they wrote was seen.';
COMMENT ON COLUMN quota_internal.scan_mark.base IS 'Position in the log before which that transaction and later ones had written nothing; null: none is known.';
COMMENT ON COLUMN quota_internal.scan_mark.base_next IS 'The next transaction at that position.';
COMMENT ON COLUMN quota_internal.scan_mark.candidate IS 'Position that may become the base of a later scan.';
COMMENT ON COLUMN quota_internal.scan_mark.candidate_next IS 'The next transaction at that position.';

CREATE FUNCTION quota_internal.evaluation_mark(strategy_id integer, OUT whole_reason text, OUT users bigint, OUT seen xid8, OUT base pg_lsn, OUT base_next xid8,
	OUT candidate pg_lsn, OUT candidate_next xid8)
LANGUAGE C VOLATILE STRICT AS 'MODULE_PATHNAME', 'qm_evaluation_mark';
COMMENT ON FUNCTION quota_internal.evaluation_mark(integer) IS 'Of scan(): why the evaluation of a strategy looked at all users (null: only at those who have changed), and its mark; nulls where the next evaluation cannot go by one.';

CREATE FUNCTION quota_internal.end_evaluation(strategy_id integer) RETURNS void
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'qm_end_evaluation';
COMMENT ON FUNCTION quota_internal.end_evaluation(integer) IS 'Of scan(): frees what evaluate() found for a strategy alone; null: for all. The end of the transaction does it too.';

CREATE FUNCTION quota_internal.visible_strategies() RETURNS integer[]
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'qm_visible_strategies';
COMMENT ON FUNCTION quota_internal.visible_strategies() IS 'Ids of the strategies that the caller may see, by the rights and policies of the site.';

CREATE FUNCTION quota_manager.undecided(strategy_id integer) RETURNS TABLE (user_id text, gateway text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET jit = off SET max_parallel_workers_per_gather = 0 SET quota_manager.pinned_statistics = on
AS $$
DECLARE
	strategy quota_manager.quota_strategy;
	gateways text[];
BEGIN
	SELECT s.* INTO strategy FROM quota_manager.quota_strategy s
		WHERE s.id = undecided.strategy_id AND s.id = ANY (quota_internal.visible_strategies());
	gateways := quota_internal.condition_gateways(strategy.condition);
	-- Those of others would not be known afterwards either.
	gateways := ARRAY(SELECT n FROM unnest(gateways) n WHERE n NOT IN (SELECT b.gateway FROM quota_manager.balance_suspension b));
	IF strategy.condition IS NULL OR gateways = '{}' THEN
		RETURN;
	END IF;
	PERFORM quota_internal.evaluate(ARRAY[strategy.id]);
	RETURN QUERY SELECT v.user_id, g.gateway
		-- No grant is looked for of a periodic strategy: the firing that the balances are for is still to come.
		FROM quota_internal.evaluated_users(strategy.id, CASE strategy.type WHEN 'single' THEN '-infinity' ELSE 'infinity' END::timestamptz, strategy.max_exec_per_user) v
		CROSS JOIN unnest(gateways) g (gateway)
		LEFT JOIN quota_manager.user_balance b ON b.user_id = v.user_id AND b.gateway = g.gateway
		-- NOT IN, which is hashed once: nobody can tell beforehand how many are open, and a join might be a loop over both.
		WHERE v.verdict = 'unknown' AND (v.user_id, g.gateway) NOT IN (SELECT o.user_id, o.gateway FROM quota_internal.open_users(gateways) o)
			AND quota_internal.answer_may_arrive(nullif(b.lost_time, '-infinity'), b.lost_moment) IS NOT TRUE
			AND (b.balance IS NOT NULL AND b.read_time > quota_internal.balance_horizon() AND b.read_time <= quota_internal.balance_clock()) IS NOT TRUE;
	PERFORM quota_internal.end_evaluation(strategy.id);
END
$$;
COMMENT ON FUNCTION quota_manager.undecided(integer) IS 'Balances to read before the strategy is scanned: of users whose answer depends on one that is not known, and would count: nothing of theirs is open at the gateway.';

CREATE FUNCTION quota_internal.record_run(run quota_manager.quota_run) RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET quota_manager.pinned_statistics = on SET jit = off
AS $$
DECLARE
	last quota_manager.quota_run;
BEGIN
	IF run.scheduled_time IS NULL THEN
		SELECT r.* INTO last FROM quota_manager.quota_run r
			WHERE r.strategy_id = run.strategy_id AND r.scheduled_time IS NULL ORDER BY r.id DESC LIMIT 1;
	ELSE
		SELECT r.* INTO last FROM quota_manager.quota_run r WHERE r.strategy_id = run.strategy_id AND r.scheduled_time = run.scheduled_time;
	END IF;
	run.tries := CASE
		WHEN run.state = 'done' THEN 0
		-- What is tried in other circumstances is tried for the first time.
		WHEN (last.strategy_version, last.setup) = (run.strategy_version, run.setup) THEN least(last.tries, 1000000) + 1
		ELSE 1 END;
	run.retry_time := CASE WHEN run.tries > 0 THEN run.finish_time + quota_internal.retry_delay(run.tries) END;
	-- A single scan that changed nothing, like the one before it, is one row with it.
	IF run.scheduled_time IS NULL AND run.granted = 0 AND last.granted = 0
		AND (last.strategy_version, last.state, last.reason) IS NOT DISTINCT FROM (run.strategy_version, run.state, run.reason)
		-- Who looked only at users who have changed has nothing to say of the others.
		AND (run.state = 'done' AND run.whole_reason IS NULL OR (last.matched, last.already_granted, last.capped, last.unknown_balance)
			IS NOT DISTINCT FROM (run.matched, run.already_granted, run.capped, run.unknown_balance))
	THEN
		UPDATE quota_manager.quota_run r SET occurrences = least(r.occurrences, 9223372036854775806) + 1, finish_time = run.finish_time,
			setup = run.setup, tries = run.tries, retry_time = run.retry_time, whole_reason = run.whole_reason WHERE r.id = last.id;
		RETURN last.id;
	END IF;
	INSERT INTO quota_manager.quota_run AS r VALUES (run.*)
	ON CONFLICT (strategy_id, scheduled_time) DO UPDATE SET
		strategy_version = excluded.strategy_version, state = excluded.state, reason = excluded.reason,
		-- Who was granted in an earlier go may not meet the condition any more.
		matched = greatest(excluded.matched, r.granted + excluded.granted), granted = r.granted + excluded.granted, already_granted = excluded.already_granted,
		capped = excluded.capped, unknown_balance = excluded.unknown_balance,
		first_grant_id = least(r.first_grant_id, excluded.first_grant_id),
		last_grant_id = greatest(r.last_grant_id, excluded.last_grant_id),
		undelivered = r.undelivered OR excluded.undelivered, finish_time = excluded.finish_time,
		setup = excluded.setup, tries = excluded.tries, retry_time = excluded.retry_time, whole_reason = excluded.whole_reason;
	RETURN run.id;
END
$$;
COMMENT ON FUNCTION quota_internal.record_run(quota_manager.quota_run) IS 'Of scan(): writes what became of a run, and when it is tried again if it failed or is incomplete. Returns the id of the row.';

CREATE FUNCTION quota_internal.admit_firing(strategy quota_manager.quota_strategy, firing timestamptz) RETURNS timestamptz
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	next_open timestamptz;
BEGIN
	IF EXISTS (SELECT 1 FROM quota_internal.retried_firings(strategy) f WHERE f = firing) THEN
		RETURN firing;
	END IF;
	-- Also if it is not due any more: an edit may have come in between.
	next_open := quota_internal.record_passed_over(strategy);
	-- Later than it was found, where others were scanned before: then a later firing is run in its place at once.  Otherwise
	-- whoever comes late in a long scan would be told to be late in each.
	RETURN CASE WHEN firing <= next_open THEN next_open END;
END
$$;
COMMENT ON FUNCTION quota_internal.admit_firing(quota_manager.quota_strategy, timestamptz) IS 'Of scan(): the firing that is to be run now where one was found to be due: itself, or the later one that has taken its place; null: none. Records those before it that are not run.';

CREATE FUNCTION quota_internal.note_scan(mark quota_internal.scan_mark) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF mark.seen IS NULL THEN
		DELETE FROM quota_internal.scan_mark m WHERE m.strategy_id = mark.strategy_id;
		RETURN;
	END IF;
	INSERT INTO quota_internal.scan_mark AS m VALUES (mark.*)
		ON CONFLICT (strategy_id) DO UPDATE SET strategy_version = excluded.strategy_version, run_id = excluded.run_id, users = excluded.users,
			seen = excluded.seen, base = excluded.base, base_next = excluded.base_next, candidate = excluded.candidate, candidate_next = excluded.candidate_next;
END
$$;
COMMENT ON FUNCTION quota_internal.note_scan(quota_internal.scan_mark) IS 'Of scan(): keeps the mark of a scan that is done; one without a mark ends the one before.';

CREATE FUNCTION quota_internal.run_strategy(strategy_id integer, firing timestamptz, setup bigint DEFAULT quota_internal.gateway_setup(), evaluated boolean DEFAULT false)
RETURNS quota_manager.quota_run
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET quota_manager.pinned_statistics = on SET jit = off
AS $$
DECLARE
	strategy quota_manager.quota_strategy;
	run quota_manager.quota_run;
	template quota_manager.quota_execute;
	-- Here, so that a table that is missing is no fault of the strategy.
	grant_ids CONSTANT regclass := pg_get_serial_sequence('quota_manager.quota_execute', 'id');
	counts record;
	mark quota_internal.scan_mark;
	gateways text[];
	anew boolean;
	doubtful boolean;
	waits_for text;
	detail text;
	-- Someone who writes grants around the lock of the strategy is met as a key violation.
	retries integer := 3;
BEGIN
	run.strategy_id := strategy_id;
	run.occurrences := 1;
	run.start_time := clock_timestamp();
	run.granted := 0;
	run.matched := 0;
	run.already_granted := 0;
	run.capped := 0;
	run.unknown_balance := 0;
	run.undelivered := false;
	run.setup := setup;
	PERFORM quota_internal.require_identity(true);
	-- What was evaluated is locked to the end of the transaction.
	IF NOT evaluated AND NOT quota_internal.lock_due_strategy(strategy_id) THEN
		run.scheduled_time := firing;
		run.state := 'locked';
		run.reason := 'left out: another transaction edits or scans it, or uses the balances at a gateway of its';
		run.finish_time := clock_timestamp();
		RETURN run;
	END IF;
	SELECT s.* INTO strategy FROM quota_manager.quota_strategy s WHERE s.id = run_strategy.strategy_id;
	-- Changed, disabled or already run since it was found due.
	IF NOT FOUND OR strategy.type = 'single' AND (firing IS NOT NULL OR NOT strategy.enabled OR strategy.archived
			OR quota_manager.schedule_now() < strategy.valid_from OR quota_manager.schedule_now() >= strategy.valid_until) THEN
		RETURN NULL;
	END IF;
	IF firing IS NOT NULL THEN
		firing := quota_internal.admit_firing(strategy, firing);
		IF firing IS NULL THEN
			RETURN NULL;
		END IF;
	END IF;
	run.scheduled_time := firing;
	run.strategy_version := strategy.version;
	-- A firing that is tried again keeps its run: the grants name it.
	IF firing IS NOT NULL THEN
		run.id := (SELECT r.id FROM quota_manager.quota_run r WHERE r.strategy_id = strategy.id AND r.scheduled_time = firing);
		anew := run.id IS NULL;
	END IF;
	run.id := coalesce(run.id, nextval(pg_get_serial_sequence('quota_manager.quota_run', 'id')));
	BEGIN
		IF strategy.type = 'periodic' AND firing IS NULL THEN
			-- Nothing is to be run, or its schedule cannot be read and the run says why.
			PERFORM quota_internal.record_passed_over(strategy);
			RETURN NULL;
		END IF;
		template.strategy_id := strategy.id;
		template.scheduled_time := coalesce(firing, '-infinity');
		template.revision := 0;
		template.run_id := run.id;
		template.strategy_version := strategy.version;
		template.amount := strategy.amount;
		template.model := strategy.model;
		template.gateway := quota_manager.gateway_of(strategy.model);
		template.create_time := now();
		template.update_time := now();
		-- Keeps the gateway until its grants can be seen.
		PERFORM 1 FROM quota_manager.quota_gateway g WHERE g.name = template.gateway FOR KEY SHARE;
		PERFORM quota_internal.check_strategy_target(strategy.name, strategy.model, strategy.amount);
		PERFORM quota_internal.check_strategy_models(strategy.name, strategy.condition);
		gateways := quota_internal.condition_gateways(strategy.condition);
		IF gateways <> '{}' THEN
			waits_for := quota_internal.guard_balances(gateways);
		END IF;
		IF waits_for IS NOT NULL THEN
			run.state := 'locked';
			run.reason := waits_for;
			run.finish_time := clock_timestamp();
			RETURN run;
		END IF;
		doubtful := quota_internal.is_doubtful(strategy, firing);
		template.maybe_granted_before := doubtful;
		IF doubtful THEN
			template.status := 'in_doubt';
			template.next_attempt_time := 'infinity';
			template.doubt_time := template.create_time;
			template.last_error := 'may have been granted and delivered before this database was restored or promoted';
		ELSE
			template.status := 'pending';
			template.next_attempt_time := '-infinity';
		END IF;
		template.batch_number := to_char(quota_internal.local_time(coalesce(firing, quota_manager.schedule_now()), strategy.time_zone), 'YYYYMMDDHH24MISS');
		-- Where nobody has a grant yet, who matches is who is granted.  The order makes the planner take the index.
		IF firing IS NULL THEN
			anew := (SELECT true FROM quota_manager.quota_execute e WHERE e.strategy_id = strategy.id ORDER BY e.user_id LIMIT 1) IS NULL;
		END IF;
		IF NOT evaluated THEN
			PERFORM quota_internal.evaluate(ARRAY[strategy.id]);
		END IF;
		LOOP
			BEGIN
				run.first_grant_id := nextval(grant_ids);
				SELECT c.* INTO counts FROM quota_internal.grant_evaluated(template, strategy.max_exec_per_user, anew) c;
				EXIT;
			EXCEPTION WHEN unique_violation THEN
				retries := retries - 1;
				IF retries = 0 THEN
					RAISE;
				END IF;
				-- Somebody has a grant after all.
				anew := false;
			END;
		END LOOP;
		SELECT m.whole_reason, m.users, m.seen, m.base, m.base_next, m.candidate, m.candidate_next
			INTO run.whole_reason, mark.users, mark.seen, mark.base, mark.base_next, mark.candidate, mark.candidate_next
			FROM quota_internal.evaluation_mark(strategy.id) m;
		IF NOT evaluated THEN
			PERFORM quota_internal.end_evaluation(strategy.id);
		END IF;
		run.matched := counts.matched;
		run.granted := counts.granted;
		run.already_granted := counts.already_granted;
		run.capped := counts.capped;
		run.unknown_balance := counts.unknown;
		IF run.granted > 0 THEN
			run.last_grant_id := nextval(grant_ids);
			run.undelivered := NOT doubtful;
			PERFORM quota_internal.forget_balances(run.id, run.first_grant_id, run.last_grant_id, template.gateway);
		ELSE
			run.first_grant_id := NULL;
		END IF;
		run.state := CASE WHEN run.unknown_balance > 0 THEN 'incomplete' ELSE 'done' END;
		run.reason := nullif(concat_ws('; ', CASE WHEN run.unknown_balance > 0 THEN 'some balances are not known' END,
			CASE WHEN run.unknown_balance > 0 THEN (SELECT string_agg(b.reason, '; ' ORDER BY b.gateway) FROM quota_manager.balance_suspension b
				WHERE b.gateway = ANY (gateways)) END,
			CASE WHEN doubtful AND run.granted > 0 THEN 'granted in doubt' END,
			CASE WHEN counts.left_out > 0 THEN 'users left out because their ids are longer than 2600 bytes: ' || counts.left_out END), '');
	EXCEPTION WHEN OTHERS THEN
		GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
		run.state := 'failed';
		run.reason := SQLERRM || CASE WHEN detail <> '' THEN ' (' || detail || ')' ELSE '' END;
		run.granted := 0;
		run.first_grant_id := NULL;
		run.last_grant_id := NULL;
		run.undelivered := false;
	END;
	run.finish_time := clock_timestamp();
	run.id := quota_internal.record_run(run);
	IF run.state = 'done' THEN
		mark.strategy_id := strategy.id;
		mark.strategy_version := strategy.version;
		mark.run_id := run.id;
		PERFORM quota_internal.note_scan(mark);
	END IF;
	RETURN run;
END
$$;
COMMENT ON FUNCTION quota_internal.run_strategy(integer, timestamptz, bigint, boolean) IS 'Of scan(): runs one strategy for one firing (null: a single strategy, or a periodic one that has no firing to be run) under its lock, and records the firings before it that are not run; an error is recorded, not raised. setup: gateway_setup() before anything was looked up; evaluated: evaluate() was called for it. Null: nothing was run.';

CREATE FUNCTION quota_internal.evaluate_together(strategies integer[], OUT evaluated integer[], OUT idle integer[])
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET quota_manager.pinned_statistics = on SET jit = off
AS $$
DECLARE
	locked integer[] := ARRAY[]::integer[];
	candidate integer;
BEGIN
	FOREACH candidate IN ARRAY strategies LOOP
		IF quota_internal.lock_due_strategy(candidate) THEN
			locked := locked || candidate;
		END IF;
	END LOOP;
	IF cardinality(locked) > 1 THEN
		SELECT array_agg(e.strategy_id), array_agg(e.strategy_id) FILTER (WHERE e.matched + e.unknown + e.left_out = 0)
			INTO evaluated, idle FROM quota_internal.evaluate(locked) e;
	END IF;
	evaluated := coalesce(evaluated, ARRAY[]::integer[]);
	idle := coalesce(idle, ARRAY[]::integer[]);
EXCEPTION WHEN OTHERS THEN
	-- The run of whose fault it is tells.
	evaluated := ARRAY[]::integer[];
	idle := evaluated;
END
$$;
COMMENT ON FUNCTION quota_internal.evaluate_together(integer[]) IS 'Of scan(): locks strategies and evaluates those of them that can share passes over the users; returns these, and those that nobody was found of.';

CREATE FUNCTION quota_internal.record_idle(strategies integer[], setup bigint) RETURNS integer[]
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET quota_manager.pinned_statistics = on SET jit = off
AS $$
DECLARE
	clock CONSTANT timestamptz := quota_manager.schedule_now();
	recorded integer[];
BEGIN
	IF cardinality(strategies) = 0 THEN
		RETURN strategies;
	END IF;
	PERFORM quota_internal.require_identity(true);
	WITH same AS (
		SELECT last.id, s.id AS strategy_id, m.whole_reason FROM quota_manager.quota_strategy s
		CROSS JOIN LATERAL quota_internal.evaluation_mark(s.id) m
		CROSS JOIN LATERAL (SELECT r.* FROM quota_manager.quota_run r WHERE r.strategy_id = s.id AND r.scheduled_time IS NULL ORDER BY r.id DESC LIMIT 1) last
		WHERE s.id = ANY (strategies) AND s.type = 'single' AND s.enabled AND NOT s.archived AND clock >= s.valid_from AND clock < s.valid_until
			-- By record_run() it would be one row with the last.
			AND last.granted = 0 AND last.state = 'done' AND last.reason IS NULL AND last.strategy_version = s.version
			AND (m.whole_reason IS NULL OR (last.matched, last.already_granted, last.capped, last.unknown_balance) = (0, 0, 0, 0))
			AND EXISTS (SELECT 1 FROM quota_manager.quota_gateway g WHERE g.name = quota_manager.gateway_of(s.model)
				AND quota_internal.amount_fits(g.dialect, s.amount))
	), updated AS (
		UPDATE quota_manager.quota_run r SET occurrences = least(r.occurrences, 9223372036854775806) + 1, finish_time = clock_timestamp(),
				setup = record_idle.setup, tries = 0, retry_time = NULL, whole_reason = same.whole_reason
			FROM same WHERE r.id = same.id
			RETURNING r.strategy_id, r.strategy_version, r.id
	), marked AS (
		INSERT INTO quota_internal.scan_mark AS m (strategy_id, strategy_version, run_id, users, seen, base, base_next, candidate, candidate_next)
			SELECT u.strategy_id, u.strategy_version, u.id, e.users, e.seen, e.base, e.base_next, e.candidate, e.candidate_next
			FROM updated u CROSS JOIN LATERAL quota_internal.evaluation_mark(u.strategy_id) e WHERE e.seen IS NOT NULL
			ON CONFLICT (strategy_id) DO UPDATE SET strategy_version = excluded.strategy_version, run_id = excluded.run_id, users = excluded.users,
				seen = excluded.seen, base = excluded.base, base_next = excluded.base_next, candidate = excluded.candidate, candidate_next = excluded.candidate_next
	)
	SELECT coalesce(array_agg(u.strategy_id), ARRAY[]::integer[]) INTO recorded FROM updated u;
	RETURN recorded;
END
$$;
COMMENT ON FUNCTION quota_internal.record_idle(integer[], bigint) IS 'Of scan(): records at one time what became of single strategies that nobody was found of, the last time neither; returns which. What run_strategy() would do for each costs more than finding nobody.';

CREATE FUNCTION quota_manager.scan(strategy_name text DEFAULT NULL)
RETURNS TABLE (strategy text, scheduled_time timestamptz, matched bigint, granted bigint, already_granted bigint, capped bigint,
	unknown_balance bigint, error text, elapsed interval, note text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET quota_manager.pinned_statistics = on SET jit = off
AS $$
#variable_conflict use_column
DECLARE
	setup CONSTANT bigint := quota_internal.gateway_setup();
	visible integer[];
	together record;
	recorded integer[];
	due record;
	run quota_manager.quota_run;
	idle quota_manager.quota_strategy;
	found_due boolean := false;
BEGIN
	PERFORM quota_internal.check_transaction('strategies are scanned');
	PERFORM quota_internal.begin_scan();
	visible := quota_internal.visible_strategies();
	PERFORM quota_internal.require_identity(false);
	FOR due IN SELECT d.* FROM quota_internal.due_strategies(strategy_name) d WHERE d.strategy_id = ANY (visible) LOOP
		IF recorded IS NULL THEN
			SELECT e.* INTO together FROM quota_internal.evaluate_together(ARRAY(SELECT DISTINCT d.strategy_id
				FROM quota_internal.due_strategies(strategy_name) d WHERE d.strategy_id = ANY (visible) ORDER BY 1)) e;
			recorded := quota_internal.record_idle(together.idle, setup);
		END IF;
		IF due.strategy_id = ANY (recorded) THEN
			found_due := true;
			RETURN QUERY SELECT due.name, NULL::timestamptz, 0::bigint, 0::bigint, 0::bigint, 0::bigint, 0::bigint, NULL::text, interval '0', NULL::text;
			CONTINUE;
		END IF;
		run := quota_internal.run_strategy(due.strategy_id, due.scheduled_time, setup, due.strategy_id = ANY (together.evaluated));
		CONTINUE WHEN run.strategy_id IS NULL;
		found_due := true;
		RETURN QUERY SELECT due.name, run.scheduled_time, run.matched, run.granted, run.already_granted, run.capped, run.unknown_balance,
			CASE run.state WHEN 'failed' THEN run.reason END, run.finish_time - run.start_time,
			CASE WHEN run.state <> 'failed' THEN run.reason END;
	END LOOP;
	PERFORM quota_internal.end_evaluation(NULL);
	IF strategy_name IS NULL OR found_due THEN
		RETURN;
	END IF;
	SELECT s.* INTO idle FROM quota_manager.quota_strategy s WHERE s.name = strategy_name AND s.id = ANY (visible);
	IF NOT FOUND THEN
		RAISE EXCEPTION 'strategy "%" does not exist', strategy_name
			USING ERRCODE = 'undefined_object', HINT = 'See SELECT name FROM quota_manager.quota_strategy.';
	END IF;
	RETURN QUERY SELECT idle.name, NULL::timestamptz, 0::bigint, 0::bigint, 0::bigint, 0::bigint, 0::bigint, NULL::text, interval '0',
		CASE
			WHEN idle.archived THEN 'archived'
			WHEN NOT idle.enabled THEN 'disabled'
			WHEN quota_manager.schedule_now() >= idle.valid_until THEN 'not valid since ' || idle.valid_until
			WHEN quota_manager.schedule_now() < idle.valid_from THEN 'not valid before ' || idle.valid_from
			ELSE (SELECT 'not due; next firing ' || coalesce(max(d.scheduled_time) FILTER (WHERE d.state = 'scheduled')::text, 'never') || coalesce('; ' || max(d.reason), '')
				FROM quota_manager.strategy_due d WHERE d.strategy_id = idle.id) END;
END
$$;
COMMENT ON FUNCTION quota_manager.scan(text) IS 'Runs every due strategy, or the named one if it is due, and tells per strategy how many users matched and were granted. Conditions are evaluated with the rights of the caller. All of it is one transaction; tick() has one per firing. Does no HTTP: balances that are not known and fresh are reported, see tick().';

CREATE FUNCTION quota_internal.run_due(strategy_id integer, firings timestamptz[] DEFAULT NULL, waits boolean DEFAULT true)
RETURNS TABLE (scheduled_time timestamptz, state text, matched bigint, granted bigint, already_granted bigint, capped bigint, unknown_balance bigint,
	reason text, is_news boolean, later_firings timestamptz[])
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET quota_manager.pinned_statistics = on SET jit = off
AS $$
#variable_conflict use_column
DECLARE
	run quota_manager.quota_run;
	last quota_manager.quota_run;
BEGIN
	PERFORM quota_internal.check_transaction('strategies are scanned');
	PERFORM quota_internal.begin_scan();
	PERFORM quota_internal.require_identity(false);
	IF NOT waits AND quota_internal.strategy_is_locked(strategy_id) THEN
		RETURN;
	END IF;
	firings := coalesce(firings, ARRAY(SELECT d.scheduled_time FROM quota_manager.strategy_due d
		WHERE d.strategy_id = run_due.strategy_id AND d.state IN ('due', 'recording') AND d.due_time <= clock_timestamp() ORDER BY 1));
	IF cardinality(firings) = 0 THEN
		RETURN;
	END IF;
	last := quota_internal.last_run(run_due.strategy_id);
	run := quota_internal.run_strategy(run_due.strategy_id, firings[1]);
	IF run.state = 'locked' THEN
		RETURN;
	END IF;
	RETURN QUERY SELECT run.scheduled_time, run.state, run.matched, run.granted, run.already_granted, run.capped, run.unknown_balance, run.reason,
		(last.strategy_version, last.state, last.reason) IS DISTINCT FROM (run.strategy_version, run.state, run.reason), firings[2:];
END
$$;
COMMENT ON FUNCTION quota_internal.run_due(integer, timestamptz[], boolean) IS 'Of tick() and the scheduler: runs one firing of a strategy, or a single strategy: the first of those given, or of what is due by strategy_due. waits: for a transaction that edits or scans it now. Returns nothing if nothing is due or another transaction has locked it; state null: it was not to be run after all. is_news: not the same came of the run before; later_firings: what is due after it.';

CREATE FUNCTION quota_internal.record_failure(strategy_id integer, reason text) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET quota_manager.pinned_statistics = on SET jit = off
AS $$
DECLARE
	strategy quota_manager.quota_strategy;
	run quota_manager.quota_run;
BEGIN
	-- Who edits it must not be waited for; who runs it records what comes of that.
	IF NOT quota_internal.try_lock_strategy(strategy_id) THEN
		RETURN false;
	END IF;
	SELECT s.* INTO strategy FROM quota_manager.quota_strategy s WHERE s.id = record_failure.strategy_id;
	SELECT d.scheduled_time INTO run.scheduled_time FROM quota_manager.strategy_due d
		WHERE d.strategy_id = record_failure.strategy_id AND d.state = 'due' ORDER BY 1 LIMIT 1;
	IF NOT FOUND THEN
		RETURN true;
	END IF;
	IF run.scheduled_time IS NOT NULL THEN
		run.scheduled_time := quota_internal.admit_firing(strategy, run.scheduled_time);
		IF run.scheduled_time IS NULL THEN
			RETURN true;
		END IF;
	END IF;
	run.id := coalesce((SELECT r.id FROM quota_manager.quota_run r WHERE r.strategy_id = strategy.id AND r.scheduled_time = run.scheduled_time),
		nextval(pg_get_serial_sequence('quota_manager.quota_run', 'id')));
	run.strategy_id := strategy.id;
	run.strategy_version := strategy.version;
	run.setup := quota_internal.gateway_setup();
	run.state := 'failed';
	run.reason := reason;
	run.occurrences := 1;
	run.matched := 0;
	run.granted := 0;
	run.already_granted := 0;
	run.capped := 0;
	run.unknown_balance := 0;
	run.undelivered := false;
	run.start_time := clock_timestamp();
	run.finish_time := run.start_time;
	PERFORM quota_internal.record_run(run);
	RETURN true;
END
$$;
COMMENT ON FUNCTION quota_internal.record_failure(integer, text) IS 'Of tick() and the scheduler: records that running a strategy was broken off by an error or a cancel, so that it is tried again after its back-off. False: another transaction edits or runs it, and nothing was recorded.';

CREATE FUNCTION quota_internal.end_back_offs() RETURNS bigint
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp SET quota_manager.pinned_statistics = on SET jit = off
AS $$
	WITH ended AS (
		UPDATE quota_manager.quota_run r SET retry_time = clock_timestamp()
		-- OFFSET 0 has the runs of each strategy looked for by an index, not all of them read.
		WHERE r.id IN (SELECT f.id FROM quota_manager.quota_strategy s
				CROSS JOIN LATERAL (SELECT u.id FROM quota_manager.quota_run u WHERE u.strategy_id = s.id
					AND u.state IN ('failed', 'incomplete') AND u.retry_time > clock_timestamp() OFFSET 0) f
			UNION ALL SELECT l.id FROM quota_manager.quota_strategy s
				CROSS JOIN LATERAL (SELECT u.id, u.state FROM quota_manager.quota_run u
					WHERE u.strategy_id = s.id AND u.scheduled_time IS NULL ORDER BY u.id DESC LIMIT 1) l
				WHERE s.type = 'single' AND s.enabled AND NOT s.archived AND l.state = 'done')
		RETURNING 1)
	SELECT count(*) FROM ended
$$;
COMMENT ON FUNCTION quota_internal.end_back_offs() IS 'Lets everything that waits run now: what failed or is incomplete, and single strategies whose scan_interval is not over. Workers do it when their settings are reloaded or what was missing in the database is there again, and resume() does. Returns how many runs waited.';

CREATE FUNCTION quota_manager.release_balances(gateway text, note text) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off SET quota_manager.pinned_statistics = on
AS $$
DECLARE
	-- Of a gateway that was deleted meanwhile, too.
	visible CONSTANT text[] := quota_internal.read_as_caller('SELECT s.gateway FROM quota_manager.balance_suspension s WHERE s.gateway = $1[1]
		AND (EXISTS (SELECT 1 FROM quota_manager.quota_gateway g WHERE g.name = s.gateway) OR $1[2]::boolean)',
		ARRAY[release_balances.gateway, (NOT EXISTS (SELECT 1 FROM quota_manager.quota_gateway g WHERE g.name = release_balances.gateway))::text]);
BEGIN
	PERFORM quota_internal.check_transaction('balances are released');
	IF note IS NULL OR note = '' THEN
		RAISE EXCEPTION 'why the balances are released must be given' USING ERRCODE = 'null_value_not_allowed';
	END IF;
	PERFORM quota_internal.require_short(gateway, 'the gateway''s name'), quota_internal.require_short(note, 'the note');
	PERFORM quota_internal.lock_balances(release_balances.gateway);
	DELETE FROM quota_manager.balance_suspension s WHERE s.gateway = release_balances.gateway AND s.gateway = ANY (visible);
	IF NOT FOUND THEN
		RAISE EXCEPTION 'balances of gateway "%" are not suspended', release_balances.gateway
			USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'See SELECT gateway, reason FROM quota_manager.balance_suspension.';
	END IF;
	PERFORM quota_internal.pin_statistics();
	-- What is asked for from now on counts, whatever it was before.
	UPDATE quota_manager.user_balance b SET balance = NULL, token = NULL, last_balance = NULL
		WHERE b.gateway = release_balances.gateway AND (b.balance IS NOT NULL OR b.token IS NOT NULL OR b.last_balance IS NOT NULL);
	PERFORM quota_internal.end_back_offs();
	RAISE LOG 'balances of gateway "%" were released by %: %', release_balances.gateway, quota_internal.deciding_role(), note;
END
$$;
COMMENT ON FUNCTION quota_manager.release_balances(text, text) IS 'Lets balances of a gateway count again after scans suspended them: all are asked for anew and believed, zeros too. Ends back-offs. Who did it and why is logged.';
-- What comes next.

CREATE FUNCTION quota_manager.upcoming(strategy_name text DEFAULT NULL, n integer DEFAULT 10)
RETURNS TABLE (strategy text, firing timestamptz, local_time timestamp, time_zone text, utc_time timestamp, note text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET jit = off SET quota_manager.pinned_statistics = on
AS $$
#variable_conflict use_column
DECLARE
	clock CONSTANT timestamptz := quota_manager.schedule_now();
	asked quota_manager.quota_strategy;
BEGIN
	IF n IS NULL OR n <= 0 THEN
		RAISE EXCEPTION 'the number of firings must be positive'
			USING ERRCODE = 'invalid_parameter_value', HINT = 'Leave it out to be told 10.';
	END IF;
	IF strategy_name IS NOT NULL THEN
		SELECT s.* INTO asked FROM quota_manager.quota_strategy s WHERE s.name = strategy_name;
		IF NOT FOUND THEN
			RAISE EXCEPTION 'strategy "%" does not exist', strategy_name
				USING ERRCODE = 'undefined_object', HINT = 'See SELECT name FROM quota_manager.quota_strategy.';
		END IF;
		IF asked.type = 'single' THEN
			RAISE EXCEPTION 'strategy "%" has no schedule', strategy_name
				USING ERRCODE = 'wrong_object_type',
					DETAIL = 'It is single: each user gets its grant once, at the first scan at which they meet the condition.';
		END IF;
	END IF;

	RETURN QUERY
	WITH listed AS (
		SELECT s.id, s.name, s.schedule_since, s.periodic_expr, s.time_zone, z.zone, quota_internal.check_time_zone(z.zone) AS known,
			CASE WHEN s.archived THEN 'archived, will not run' WHEN NOT s.enabled THEN 'disabled, will not run' END AS state,
			greatest(clock, s.schedule_since, CASE WHEN s.valid_from > clock THEN s.valid_from - interval '1 us' END) AS after_time,
			CASE WHEN isfinite(s.valid_until) THEN s.valid_until - interval '1 us' ELSE '294276-12-31 23:59:59Z' END AS until_time
		FROM quota_manager.quota_strategy s CROSS JOIN LATERAL quota_internal.schedule_zone(s.periodic_expr, s.time_zone) z(zone)
		WHERE s.type = 'periodic' AND CASE WHEN strategy_name IS NULL THEN s.enabled AND NOT s.archived ELSE s.name = strategy_name END
	), next AS MATERIALIZED (
		SELECT l.*, f.next
		FROM listed l CROSS JOIN LATERAL (SELECT CASE WHEN l.known THEN quota_manager.next_firing(l.periodic_expr, l.after_time, l.time_zone) END) f(next)
	), horizon AS (
		-- When as many strategies as firings are asked for have fired once, no later firing is wanted.
		SELECT x.next FROM next x WHERE x.next <= x.until_time ORDER BY x.next OFFSET n - 1 LIMIT 1
	), firing AS (
		SELECT x.*, f.firing
		FROM next x CROSS JOIN LATERAL (SELECT quota_manager.firings(x.periodic_expr, x.after_time,
			least(x.until_time, (SELECT h.next FROM horizon h)), x.time_zone) LIMIT n) f(firing)
		WHERE x.next <= x.until_time
		ORDER BY f.firing, x.name COLLATE "C" LIMIT n
	)
	SELECT u.* FROM (
		SELECT f.name, f.firing, quota_internal.local_time(f.firing, f.zone), f.zone, f.firing AT TIME ZONE 'UTC',
			nullif(concat_ws('; ', f.state, (SELECT format('recorded already as %s, is not run again: see restart_schedule()', r.state)
				FROM quota_manager.quota_run r WHERE r.strategy_id = f.id AND r.scheduled_time <= f.firing AND coalesce(r.last_scheduled_time, r.scheduled_time) >= f.firing
				ORDER BY r.scheduled_time DESC LIMIT 1),
			CASE WHEN f.schedule_since > clock THEN 'written while the schedule clock was ahead: see restart_schedule()' END, quota_internal.firing_note(f.periodic_expr, f.firing, f.time_zone)), '')
		FROM firing f
		UNION ALL
		-- What cannot be read is not to go unseen, and who asks for one strategy is answered.
		(SELECT x.name, NULL, NULL, x.zone, NULL,
			concat_ws('; ', x.state, CASE
				WHEN NOT x.known THEN format('time zone "%s" is not known to this server', x.zone)
				WHEN x.until_time < clock THEN format('not valid since %s', x.until_time + interval '1 us')
				WHEN x.next IS NULL THEN 'does not fire within a hundred years'
				ELSE format('does not fire before valid_until, %s', x.until_time + interval '1 us') END)
		FROM next x
		WHERE NOT x.known OR strategy_name IS NOT NULL AND (x.next <= x.until_time) IS NOT TRUE
		ORDER BY x.name COLLATE "C" LIMIT n)) u(name, firing)
	ORDER BY u.firing, u.name COLLATE "C";
END
$$;
COMMENT ON FUNCTION quota_manager.upcoming(text, integer) IS
	'The next n firings, after the schedule clock and within validity, of one strategy or of all that are in use: local_time is that of time_zone, in which the schedule is read; note says what a change of the clock does. Schedules that cannot be read come last, without times.';
-- Identity: whether this database is the one that granted and delivered before, or a copy of it, or a standby
-- that was promoted; and what follows from that.

CREATE FUNCTION quota_internal.present_identity(OUT system_identifier bigint, OUT database_oid oid, OUT timeline integer)
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'qm_present_identity';
COMMENT ON FUNCTION quota_internal.present_identity() IS 'Which database of which server this is. The timeline changes with every promotion and point-in-time recovery; null on a standby.';

CREATE FUNCTION quota_internal.identity_text(system_identifier bigint, database_oid oid, timeline integer) RETURNS text
LANGUAGE sql STABLE
RETURN pg_catalog.format('system %s, database %s, timeline %s', system_identifier, database_oid, coalesce(timeline::text, 'none (a standby)'));
COMMENT ON FUNCTION quota_internal.identity_text(bigint, oid, integer) IS 'An identity, for people.';

CREATE FUNCTION quota_internal.begin_doubt(reason text, OUT pending bigint, OUT processing bigint, OUT in_doubt bigint)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET jit = off SET quota_manager.pinned_statistics = on
AS $$
DECLARE
	present CONSTANT timestamptz := clock_timestamp();
	-- A run that is known was not run elsewhere, however far ahead the clock was that it was recorded by.
	until_time CONSTANT timestamptz := greatest(present, (SELECT max(r.finish_time) FROM quota_manager.quota_run r));
	stretch record;
	counted record;
BEGIN
	PERFORM quota_internal.pin_statistics();
	pending := 0;
	processing := 0;
	in_doubt := 0;
	FOR stretch IN SELECT s.* FROM quota_internal.undelivered_stretches() s LOOP
		WITH changed AS (
			UPDATE quota_manager.quota_execute e
			SET status = 'in_doubt', awaits_balance = false, next_attempt_time = 'infinity', doubt_time = coalesce(e.doubt_time, present),
				last_status = NULL, last_error = reason, update_time = present
			FROM (SELECT g.strategy_id, g.user_id, g.scheduled_time, g.revision, g.status
				FROM quota_manager.quota_execute g
				WHERE g.id BETWEEN stretch.low AND stretch.high AND g.run_id = ANY (stretch.runs)
					AND (g.status = 'pending' OR g.status = 'processing' OR g.status = 'in_doubt' AND g.next_attempt_time < 'infinity')) o
			WHERE e.strategy_id = o.strategy_id AND e.user_id = o.user_id AND e.scheduled_time = o.scheduled_time AND e.revision = o.revision
				AND e.status = o.status
			RETURNING o.status AS status_before)
		SELECT count(*) FILTER (WHERE c.status_before = 'pending') AS pending, count(*) FILTER (WHERE c.status_before = 'processing') AS processing,
			count(*) FILTER (WHERE c.status_before = 'in_doubt') AS in_doubt
			INTO counted FROM changed c;
		pending := pending + counted.pending;
		processing := processing + counted.processing;
		in_doubt := in_doubt + counted.in_doubt;
	END LOOP;
	-- What gateways said before proves nothing any more, and may be outdated by a delivery that is not known here.
	DELETE FROM quota_manager.user_balance;
	UPDATE quota_manager.quota_gateway SET doubt_policy_since = present;
	-- The other life may have used the next numbers of grants for others: with them goes another id, so that no
	-- gateway takes a new grant for one that it has seen.
	UPDATE quota_manager.quota_installation i
		SET doubtful_until = until_time, doubtful_firing = quota_manager.schedule_now(), id = gen_random_uuid(),
			former_ids = i.former_ids || jsonb_build_object('id', i.id, 'before_grant', nextval(pg_get_serial_sequence('quota_manager.quota_execute', 'id')));
END
$$;
COMMENT ON FUNCTION quota_internal.begin_doubt(text) IS 'What is open may have been delivered by another life of this database, and more may have been granted: open grants become in doubt for an operator to decide, scans write in doubt what the other life may have granted, and new grants get keys of their own. Counts the open grants by what they were.';

CREATE FUNCTION quota_internal.try_identity_lock() RETURNS boolean
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'qm_try_identity_lock';
COMMENT ON FUNCTION quota_internal.try_identity_lock() IS 'Of note_identity(): false if another transaction is at it.';

CREATE FUNCTION quota_internal.note_identity() RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	-- A transaction that notes it may last: a scan is not to wait for another one.
	IF NOT quota_internal.try_identity_lock() THEN
		RETURN;
	END IF;
	INSERT INTO quota_manager.quota_installation AS i (system_identifier, database_oid, timeline)
		SELECT p.system_identifier, p.database_oid, p.timeline FROM quota_internal.present_identity() p
		ON CONFLICT (singleton) DO UPDATE SET system_identifier = excluded.system_identifier,
			database_oid = excluded.database_oid, timeline = excluded.timeline
		WHERE i.system_identifier IS NULL;
END
$$;
COMMENT ON FUNCTION quota_internal.note_identity() IS 'Of check_identity(): notes that this is the database that grants and delivers, if nothing is noted yet.';

CREATE FUNCTION quota_internal.check_identity(runs boolean) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	known quota_manager.quota_installation;
	present record;
	doubted record;
BEGIN
	SELECT p.* INTO present FROM quota_internal.present_identity() p;
	SELECT i.* INTO known FROM quota_manager.quota_installation i;
	IF known.system_identifier IS NULL THEN
		IF runs THEN
			PERFORM quota_internal.note_identity();
		END IF;
		RETURN true;
	END IF;
	IF (known.system_identifier, known.database_oid) <> (present.system_identifier, present.database_oid) THEN
		RETURN false;
	END IF;
	IF known.timeline = present.timeline THEN
		RETURN true;
	END IF;

	-- Promoted. Whoever comes first does what is to be done; the others wait for the row and find it done.
	SELECT i.* INTO known FROM quota_manager.quota_installation i FOR UPDATE;
	IF known.timeline = present.timeline THEN
		RETURN true;
	END IF;
	UPDATE quota_manager.quota_installation SET timeline = present.timeline;
	IF quota_internal.setting('after_promotion') = 'hold' THEN
		SELECT d.* INTO doubted FROM quota_internal.begin_doubt('may have been delivered before this server was promoted') d;
		RAISE LOG 'this server was promoted since it last delivered (timeline % to %): % pending and % processing grants are in doubt',
				known.timeline, present.timeline, doubted.pending, doubted.processing
			USING DETAIL = 'quota_manager.after_promotion is hold: the server before may have delivered more than this one knows of.',
				HINT = 'Decide about them with quota_manager.resolve.';
	ELSE
		RAISE LOG 'this server was promoted since it last delivered (timeline % to %): it goes on', known.timeline, present.timeline
			USING DETAIL = 'quota_manager.after_promotion is continue.';
	END IF;
	RETURN true;
END
$$;
COMMENT ON FUNCTION quota_internal.check_identity(boolean) IS 'Before anything is scanned or delivered. False: this database is a copy and waits for resume(). After a promotion it does, once, what quota_manager.after_promotion says. runs: notes that this is the database that grants and delivers.';

CREATE FUNCTION quota_internal.require_identity(runs boolean) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF NOT quota_internal.check_identity(runs) THEN
		RAISE EXCEPTION 'this database is a copy: nothing is scanned or delivered until it is resumed'
			USING ERRCODE = 'object_not_in_prerequisite_state',
				DETAIL = (SELECT format('It granted and delivered as: %s. Now it is: %s.',
						quota_internal.identity_text(i.system_identifier, i.database_oid, i.timeline),
						quota_internal.identity_text(p.system_identifier, p.database_oid, p.timeline))
					FROM quota_manager.quota_installation i, quota_internal.present_identity() p),
				HINT = 'Call quota_manager.resume(''unchanged_since_dump'') if nothing was scanned or delivered since the copy was made, otherwise quota_manager.resume(''may_have_run''); quota_manager.resume() shows what it is about.';
	END IF;
END
$$;
COMMENT ON FUNCTION quota_internal.require_identity(boolean) IS 'Of scan(), tick() and deliver(): raises an error if this database is a copy that waits for resume(). See check_identity.';

CREATE FUNCTION quota_internal.is_doubtful(strategy quota_manager.quota_strategy, firing timestamptz) RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET quota_manager.pinned_statistics = on
AS $$
DECLARE
	installation quota_manager.quota_installation;
BEGIN
	PERFORM quota_internal.pin_statistics();
	SELECT i.* INTO installation FROM quota_manager.quota_installation i;
	IF firing IS NOT NULL THEN
		RETURN coalesce(firing <= installation.doubtful_firing, false);
	END IF;
	IF (strategy.create_time < installation.doubtful_until) IS NOT TRUE THEN
		RETURN false;
	END IF;
	RETURN NOT EXISTS (SELECT 1 FROM quota_manager.quota_run r
		WHERE r.strategy_id = strategy.id AND r.scheduled_time IS NULL AND r.state = 'done' AND r.finish_time > installation.doubtful_until);
END
$$;
COMMENT ON FUNCTION quota_internal.is_doubtful(quota_manager.quota_strategy, timestamptz) IS 'Of scan(): another life of this database may have granted what the strategy would grant now for a firing (null: a single strategy, up to its first complete scan).';

CREATE FUNCTION quota_internal.count_doubtful_firings(strategy quota_manager.quota_strategy) RETURNS bigint
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	RETURN (SELECT count(*) FROM quota_internal.retried_firings(strategy))
		+ (SELECT coalesce(sum(r.firings), 0) FROM quota_internal.open_spans(strategy) s,
			quota_manager.firing_range(strategy.periodic_expr, s.after_time, s.until_time, strategy.time_zone) r WHERE s.reason IS NULL);
EXCEPTION WHEN OTHERS THEN
	-- A schedule that cannot be read fires when it has been mended, and not before.
	RETURN 0;
END
$$;
COMMENT ON FUNCTION quota_internal.count_doubtful_firings(quota_manager.quota_strategy) IS 'Of resume(): firings of a periodic strategy up to now that were not run as far as is known here, those that are tried again included.';

CREATE FUNCTION quota_internal.skip_firings(strategy quota_manager.quota_strategy, why text) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET quota_manager.pinned_statistics = on SET jit = off
AS $$
DECLARE
	span record;
BEGIN
	UPDATE quota_manager.quota_run r SET state = 'skipped', reason = why, finish_time = clock_timestamp()
		WHERE r.strategy_id = strategy.id AND r.scheduled_time IN (SELECT f FROM quota_internal.retried_firings(strategy) f);
	FOR span IN SELECT s.* FROM quota_internal.open_spans(strategy) s LOOP
		PERFORM quota_internal.record_skipped(strategy, r.first_firing, r.last_firing, r.firings, coalesce(span.reason, why))
			FROM quota_manager.firing_range(strategy.periodic_expr, span.after_time, span.until_time, strategy.time_zone) r WHERE r.firings > 0;
	END LOOP;
EXCEPTION WHEN data_exception THEN
	-- Its time zone is not known here, or its times are out of range: it fires when that has been mended, and not before.
	RETURN;
END
$$;
COMMENT ON FUNCTION quota_internal.skip_firings(quota_manager.quota_strategy, text) IS 'Of resume(): records the firings of a periodic strategy up to now as not run.';

CREATE FUNCTION quota_manager.resume(policy text DEFAULT NULL, OUT pending bigint, OUT processing bigint, OUT in_doubt bigint,
	OUT skipped_firings bigint, OUT doubtful_strategies bigint, OUT recorded_identity text, OUT present_identity text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off SET quota_manager.pinned_statistics = on
AS $$
DECLARE
	role CONSTANT text := quota_internal.deciding_role();
	known quota_manager.quota_installation;
	present record;
	strategy quota_manager.quota_strategy;
BEGIN
	IF policy NOT IN ('unchanged_since_dump', 'may_have_run') THEN
		RAISE EXCEPTION 'unknown policy %', quote_literal(policy)
			USING ERRCODE = 'invalid_parameter_value',
				HINT = 'Write unchanged_since_dump (nothing was scanned or delivered since the copy was made) or may_have_run; null only shows.';
	END IF;
	SELECT p.* INTO present FROM quota_internal.present_identity() p;
	SELECT i.* INTO known FROM quota_manager.quota_installation i;
	IF policy IS NOT NULL THEN
		PERFORM quota_internal.require_caller();
		PERFORM quota_internal.check_transaction('a copy is resumed');
		SELECT i.* INTO known FROM quota_manager.quota_installation i FOR UPDATE;
		IF known.system_identifier IS NULL
			OR (known.system_identifier, known.database_oid) = (present.system_identifier, present.database_oid) THEN
			RAISE EXCEPTION 'there is nothing to resume: this database is no copy'
				USING ERRCODE = 'object_not_in_prerequisite_state';
		END IF;
		PERFORM quota_internal.lock_strategies(ARRAY(SELECT k.id FROM quota_manager.quota_strategy k ORDER BY k.id));
	END IF;

	IF known.system_identifier IS NOT NULL THEN
		recorded_identity := quota_internal.identity_text(known.system_identifier, known.database_oid, known.timeline);
	END IF;
	present_identity := quota_internal.identity_text(present.system_identifier, present.database_oid, present.timeline);
	SELECT count(*) FILTER (WHERE e.status = 'pending'), count(*) FILTER (WHERE e.status = 'processing'), count(*) FILTER (WHERE e.status = 'in_doubt')
		INTO pending, processing, in_doubt FROM quota_manager.quota_execute e;
	skipped_firings := 0;
	doubtful_strategies := 0;
	FOR strategy IN SELECT s.* FROM quota_manager.quota_strategy s WHERE s.enabled AND NOT s.archived ORDER BY s.id LOOP
		IF strategy.type = 'periodic' THEN
			skipped_firings := skipped_firings + quota_internal.count_doubtful_firings(strategy);
		ELSIF quota_manager.schedule_now() < strategy.valid_until THEN
			doubtful_strategies := doubtful_strategies + 1;
		END IF;
	END LOOP;
	IF policy IS NULL THEN
		RETURN;
	END IF;

	IF policy = 'unchanged_since_dump' THEN
		RAISE NOTICE 'resuming as unchanged since the dump: pending grants are delivered (%), processing ones are in doubt (%), firings that are due are run (%), single strategies are scanned (%)',
			pending, processing, skipped_firings, doubtful_strategies;
	ELSE
		RAISE NOTICE 'resuming as one that may have run: pending and processing grants become in doubt (% and %, where % are), firings up to now are recorded as not run (%), single strategies write what their next scan grants in doubt (%)',
			pending, processing, in_doubt, skipped_firings, doubtful_strategies;
		PERFORM quota_internal.begin_doubt('may have been delivered before this database was restored');
		-- What the other life granted is not known here.
		DELETE FROM quota_internal.scan_mark;
		FOR strategy IN SELECT s.* FROM quota_manager.quota_strategy s WHERE s.type = 'periodic' AND s.enabled AND NOT s.archived ORDER BY s.id LOOP
			PERFORM quota_internal.skip_firings(strategy, 'may have been run before this database was restored');
		END LOOP;
	END IF;
	UPDATE quota_manager.quota_installation SET system_identifier = present.system_identifier, database_oid = present.database_oid,
		timeline = present.timeline;
	PERFORM quota_internal.end_back_offs();
	PERFORM quota_manager.wake_workers();
	RAISE LOG 'role "%" resumed this database with policy %', role, policy
		USING DETAIL = format('It granted and delivered as: %s. Now it is: %s.', recorded_identity, present_identity);
END
$$;
COMMENT ON FUNCTION quota_manager.resume(text) IS 'Lets a copy of a database (a restored dump, pg_upgrade, CREATE DATABASE ... TEMPLATE) scan and deliver. unchanged_since_dump: nothing was scanned or delivered since the copy was made; may_have_run: what is open becomes in doubt, firings up to now are not run, and the next scans of single strategies write in doubt. Null changes nothing. Returns what it met: grants by status, firings and single strategies that may_have_run is about, and which database this was and is.';
-- Delivery: CALL deliver(), and requests by hand.

CREATE PROCEDURE quota_manager.deliver(
	INOUT completed bigint DEFAULT 0,
	INOUT failed bigint DEFAULT 0,
	INOUT in_doubt bigint DEFAULT 0,
	INOUT deferred bigint DEFAULT 0)
LANGUAGE C AS 'MODULE_PATHNAME', 'qm_deliver';
COMMENT ON PROCEDURE quota_manager.deliver(bigint, bigint, bigint, bigint) IS 'Delivers every grant that is due and returns how many became what (deferred: attempts that were not applied; their grants are pending again). Commits between its steps: a statement of its own, CALL quota_manager.deliver().';

CREATE TABLE quota_manager.gateway_call (
	id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
	call_time timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	role text NOT NULL,
	action text NOT NULL,
	gateway text NOT NULL,
	user_id text NOT NULL,
	amount numeric,
	reason text,
	outcome text NOT NULL,
	message text,
	CONSTRAINT gateway_call_action_is_known CHECK (action IN ('query', 'refresh', 'delta'))
);
COMMENT ON TABLE quota_manager.gateway_call IS 'Requests made by hand with gateway_query, gateway_refresh and gateway_delta that were answered or applied, and whose transaction was committed. The server''s log holds all of them, failed ones too.';
COMMENT ON COLUMN quota_manager.gateway_call.id IS 'Number of the call.';
COMMENT ON COLUMN quota_manager.gateway_call.call_time IS 'When the answer had arrived.';
COMMENT ON COLUMN quota_manager.gateway_call.role IS 'Role that called.';
COMMENT ON COLUMN quota_manager.gateway_call.action IS 'query, refresh (sets the quota) or delta (adds to it).';
COMMENT ON COLUMN quota_manager.gateway_call.gateway IS 'Gateway that was asked.';
COMMENT ON COLUMN quota_manager.gateway_call.user_id IS 'User it was about.';
COMMENT ON COLUMN quota_manager.gateway_call.amount IS 'Amount of a refresh or delta.';
COMMENT ON COLUMN quota_manager.gateway_call.reason IS 'Why, as given by the caller.';
COMMENT ON COLUMN quota_manager.gateway_call.outcome IS 'answered or applied.';
COMMENT ON COLUMN quota_manager.gateway_call.message IS 'What the gateway said, where that is of interest.';
SELECT pg_catalog.pg_extension_config_dump('quota_manager.gateway_call', '');
SELECT pg_catalog.pg_extension_config_dump(pg_catalog.pg_get_serial_sequence('quota_manager.gateway_call', 'id'), '');

CREATE FUNCTION quota_manager.gateway_query(user_id text, gateway text DEFAULT NULL) RETURNS numeric
LANGUAGE C VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'qm_gateway_query';
COMMENT ON FUNCTION quota_manager.gateway_query(text, text) IS 'Asks a gateway (null: the default one) what remains of a user''s quota, and notes the answer in user_balance. Logged.';

CREATE FUNCTION quota_manager.gateway_refresh(user_id text, quota numeric, gateway text DEFAULT NULL) RETURNS text
LANGUAGE C VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'qm_gateway_refresh';
COMMENT ON FUNCTION quota_manager.gateway_refresh(text, numeric, text) IS 'Sets a user''s quota at a gateway (null: the default one); what chats used meanwhile is wiped out. Takes effect at once, also if the transaction is rolled back. Logged.';

CREATE FUNCTION quota_manager.gateway_delta(user_id text, value numeric, reason text, gateway text DEFAULT NULL) RETURNS text
LANGUAGE C VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'qm_gateway_delta';
COMMENT ON FUNCTION quota_manager.gateway_delta(text, numeric, text, text) IS 'Adds to a user''s quota at a gateway (null: the default one). Takes effect at once, also if the transaction is rolled back. Logged.';

CREATE FUNCTION quota_manager.audit_balances(gateway text DEFAULT NULL)
RETURNS TABLE (user_id text, balance numeric, granted_least numeric, granted_most numeric, difference numeric, finding text)
LANGUAGE C VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp SET row_security = off SET jit = off SET quota_manager.pinned_statistics = on
AS 'MODULE_PATHNAME', 'qm_audit_balances';
COMMENT ON FUNCTION quota_manager.audit_balances(text) IS 'Asks a gateway with sole_writer (null: the default one) about every user who was granted something there, and lists whose balance the grants and changes by hand do not explain, and who cannot be read. zgsm: balance is the total, compared exactly but for float64. higress: balance is what remains, so only more than was granted can be told, or less than max_usage_rate explains. granted_least and granted_most differ by what is open or in doubt. Counts from zero: what users had before their first grant shows as more. Writes nothing, one query for each user, all in one transaction.';

-- Grants are counted in undelivered runs only: what is pending or processing is there, and nowhere else.
CREATE VIEW quota_manager.delivery_status WITH (security_invoker = true) AS
SELECT coalesce(g.name, o.gateway) AS gateway, g.state, g.state_reason, g.next_probe_time,
	coalesce(o.pending, 0) AS pending, coalesce(o.processing, 0) AS processing, coalesce(o.doubts_to_settle, 0) AS doubts_to_settle,
	o.oldest_pending, o.next_attempt_time, b.since AS balances_suspended_since, b.reason AS balances_reason
FROM quota_manager.quota_gateway g
FULL JOIN (
	SELECT e.gateway,
		pg_catalog.count(*) FILTER (WHERE e.status OPERATOR(pg_catalog.=) 'pending') AS pending,
		pg_catalog.count(*) FILTER (WHERE e.status OPERATOR(pg_catalog.=) 'processing') AS processing,
		pg_catalog.count(*) FILTER (WHERE e.status OPERATOR(pg_catalog.=) 'in_doubt'
			AND e.next_attempt_time OPERATOR(pg_catalog.<) 'infinity') AS doubts_to_settle,
		pg_catalog.min(e.create_time) FILTER (WHERE e.status OPERATOR(pg_catalog.=) 'pending') AS oldest_pending,
		pg_catalog.min(e.next_attempt_time) FILTER (WHERE e.status OPERATOR(pg_catalog.=) 'pending') AS next_attempt_time
	FROM quota_manager.quota_run r
	JOIN quota_manager.quota_execute e ON e.run_id OPERATOR(pg_catalog.=) r.id
		AND e.id OPERATOR(pg_catalog.>=) r.first_grant_id AND e.id OPERATOR(pg_catalog.<=) r.last_grant_id
	WHERE r.undelivered
	GROUP BY e.gateway
) o ON o.gateway OPERATOR(pg_catalog.=) g.name
LEFT JOIN quota_manager.balance_suspension b ON b.gateway OPERATOR(pg_catalog.=) coalesce(g.name, o.gateway);
COMMENT ON VIEW quota_manager.delivery_status IS 'Gateways: their state, and what waits for them.';
COMMENT ON COLUMN quota_manager.delivery_status.gateway IS 'Name of the gateway.';
COMMENT ON COLUMN quota_manager.delivery_status.state IS 'open, closed, probing or misconfigured: see quota_gateway.';
COMMENT ON COLUMN quota_manager.delivery_status.state_reason IS 'What the gateway answered when the state changed.';
COMMENT ON COLUMN quota_manager.delivery_status.next_probe_time IS 'When a gateway that is not open is asked again.';
COMMENT ON COLUMN quota_manager.delivery_status.pending IS 'Grants to be sent.';
COMMENT ON COLUMN quota_manager.delivery_status.processing IS 'Grants claimed by a sender: in flight, or about to be.';
COMMENT ON COLUMN quota_manager.delivery_status.doubts_to_settle IS 'Grants in doubt that are to be sent again or reconciled; those left to an operator are not counted.';
COMMENT ON COLUMN quota_manager.delivery_status.oldest_pending IS 'When the oldest grant to be sent was made.';
COMMENT ON COLUMN quota_manager.delivery_status.next_attempt_time IS 'When the first of them may be sent; -infinity: at once.';
COMMENT ON COLUMN quota_manager.delivery_status.balances_suspended_since IS 'Since when conditions know no balance of the gateway; null: they do. See release_balances().';
COMMENT ON COLUMN quota_manager.delivery_status.balances_reason IS 'Why.';
-- What operators decide about grants: resolve, retry and cancel, of one grant or of many, and the trace of it.

-- No foreign key, no trigger, and a key that holds the user: it can be distributed like the grants.
CREATE TABLE quota_manager.grant_decision (
	id bigint GENERATED BY DEFAULT AS IDENTITY,
	decision_time timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	grant_id bigint NOT NULL,
	strategy_id integer NOT NULL,
	revision integer NOT NULL,
	user_id text,
	scheduled_time timestamptz NOT NULL,
	gateway text NOT NULL,
	action text NOT NULL,
	status_before text NOT NULL,
	status_after text NOT NULL,
	role text NOT NULL,
	session_role text NOT NULL,
	note text NOT NULL,
	PRIMARY KEY (user_id, id),
	CONSTRAINT grant_decision_action_is_known CHECK (action IN ('resolve_applied', 'resolve_not_applied', 'retry', 'cancel'))
);
CREATE INDEX grant_decision_grant ON quota_manager.grant_decision (grant_id);

COMMENT ON TABLE quota_manager.grant_decision IS 'What was decided about grants with resolve, retry and cancel: by whom, when and why. Written by these functions only.';
COMMENT ON COLUMN quota_manager.grant_decision.id IS 'Number of the decision.';
COMMENT ON COLUMN quota_manager.grant_decision.decision_time IS 'When it was taken.';
COMMENT ON COLUMN quota_manager.grant_decision.grant_id IS 'The grant: quota_execute.id.';
COMMENT ON COLUMN quota_manager.grant_decision.strategy_id IS 'Strategy of the grant.';
COMMENT ON COLUMN quota_manager.grant_decision.revision IS 'Revision of the grant.';
COMMENT ON COLUMN quota_manager.grant_decision.user_id IS 'User of the grant.';
COMMENT ON COLUMN quota_manager.grant_decision.scheduled_time IS 'Firing of the grant; -infinity for single strategies.';
COMMENT ON COLUMN quota_manager.grant_decision.gateway IS 'Gateway of the grant.';
COMMENT ON COLUMN quota_manager.grant_decision.action IS 'resolve_applied, resolve_not_applied, retry or cancel.';
COMMENT ON COLUMN quota_manager.grant_decision.status_before IS 'Status of the grant before.';
COMMENT ON COLUMN quota_manager.grant_decision.status_after IS 'Status of the grant afterwards.';
COMMENT ON COLUMN quota_manager.grant_decision.role IS 'Role that decided.';
COMMENT ON COLUMN quota_manager.grant_decision.session_role IS 'Role that the session belonged to.';
COMMENT ON COLUMN quota_manager.grant_decision.note IS 'Why, as given.';
COMMENT ON INDEX quota_manager.grant_decision_grant IS 'Finds the decisions about a grant; those about a user''s are found by the key.';
SELECT pg_catalog.pg_extension_config_dump('quota_manager.grant_decision', '');
SELECT pg_catalog.pg_extension_config_dump(pg_catalog.pg_get_serial_sequence('quota_manager.grant_decision', 'id'), '');

CREATE FUNCTION quota_internal.decision_candidates(action text, ids bigint[])
RETURNS TABLE (execution quota_manager.quota_execute, obstacle text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan SET jit = off SET quota_manager.pinned_statistics = on
AS $$
DECLARE
	present CONSTANT timestamptz := clock_timestamp();
BEGIN
	PERFORM quota_internal.pin_statistics();
	RETURN QUERY
	SELECT e, CASE
			WHEN e.status <> ALL (CASE action WHEN 'retry' THEN ARRAY['failed', 'pending', 'in_doubt'] WHEN 'cancel' THEN ARRAY['pending']
				ELSE ARRAY['in_doubt'] END) THEN replace(e.status, '_', ' ')
			WHEN action IN ('retry', 'resolve_not_applied') AND r.id IS NULL THEN 'without a run'
			WHEN action <> 'retry' OR e.status = 'failed' THEN NULL
			-- It went out under another number, if it did.
			WHEN e.status = 'in_doubt' AND e.maybe_granted_before THEN 'in doubt because another life of this database may have granted it'
			WHEN e.status = 'pending' THEN CASE WHEN e.next_attempt_time <= present THEN 'pending and due already' END
			WHEN g.doubt_policy = 'resend' THEN NULL
			WHEN g.name IS NULL THEN 'in doubt at a gateway that does not exist'
			WHEN g.doubt_policy <> 'reconcile' THEN 'in doubt at a gateway whose doubt policy is hold'
			WHEN isfinite(e.next_attempt_time) THEN 'in doubt and about to be reconciled'
			-- Its user may have got others since, which would be taken for it.
			ELSE 'in doubt, and reconciling proved nothing'
		END
	FROM quota_manager.quota_execute e
	LEFT JOIN quota_manager.quota_run r ON r.id = e.run_id
	LEFT JOIN quota_manager.quota_gateway g ON g.name = e.gateway
	WHERE e.id = ANY (ids);
END
$$;
COMMENT ON FUNCTION quota_internal.decision_candidates(text, bigint[]) IS 'Of resolve(), retry() and cancel(): grants by their ids, and why the action cannot be done to them (it is ...); null: it can.';

CREATE FUNCTION quota_internal.visible_grants(ids bigint[]) RETURNS bigint[]
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp SET quota_manager.pinned_statistics = on SET jit = off
BEGIN ATOMIC
	-- The range is for the index, which would be searched once for each element of the array.
	SELECT quota_internal.read_as_caller('SELECT e.id::text FROM quota_manager.quota_execute e, (SELECT min(i::bigint) AS low, max(i::bigint) AS high FROM unnest($1) i) r
		WHERE e.id BETWEEN r.low AND r.high AND e.id + 0 = ANY ($1::bigint[])', ids::text[])::bigint[];
END;
COMMENT ON FUNCTION quota_internal.visible_grants(bigint[]) IS 'Of resolve(), retry() and cancel(): those of the grants that the caller may see.';

CREATE FUNCTION quota_internal.record_decisions(decisions quota_manager.grant_decision[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET quota_manager.pinned_statistics = on
AS $$
DECLARE
	present CONSTANT timestamptz := clock_timestamp();
	decider CONSTANT text := quota_internal.deciding_role();
	whose_session CONSTANT text := session_user;
BEGIN
	PERFORM quota_internal.pin_statistics();
	INSERT INTO quota_manager.grant_decision (decision_time, grant_id, strategy_id, revision, user_id, scheduled_time, gateway, action,
		status_before, status_after, role, session_role, note)
	SELECT present, d.grant_id, d.strategy_id, d.revision, d.user_id, d.scheduled_time, d.gateway, d.action,
		d.status_before, d.status_after, decider, whose_session, d.note
	FROM unnest(decisions) d;
END
$$;
COMMENT ON FUNCTION quota_internal.record_decisions(quota_manager.grant_decision[]) IS 'Of resolve(), retry() and cancel(): writes the trace. When and by whom is not for the caller to say.';

CREATE FUNCTION quota_internal.decide(action text, ids bigint[], note text) RETURNS bigint[]
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan SET jit = off SET quota_manager.pinned_statistics = on
AS $$
DECLARE
	remark CONSTANT text := CASE action
			WHEN 'resolve_applied' THEN 'resolved as applied by '
			WHEN 'resolve_not_applied' THEN 'resolved as not applied by '
			WHEN 'retry' THEN 'retried by '
			WHEN 'cancel' THEN 'cancelled by ' END
		|| quota_internal.deciding_role() || CASE WHEN note <> '' THEN ': ' || note ELSE '' END;
	present CONSTANT timestamptz := clock_timestamp();
	chosen quota_manager.quota_execute[];
	runs bigint[];
	decisions quota_manager.grant_decision[];
BEGIN
	PERFORM quota_internal.require_short(note, 'the note');
	PERFORM quota_internal.pin_statistics();
	IF action IN ('resolve_not_applied', 'retry') THEN
		-- Before the grants are looked at: a scan may decide by balances of their users.
		PERFORM quota_internal.lock_balances(g.gateway) FROM (SELECT DISTINCT (c.execution).gateway
			FROM quota_internal.decision_candidates(action, ids) c WHERE c.obstacle IS NULL ORDER BY 1) g;
	END IF;
	SELECT array_agg(c.execution) INTO chosen
		FROM quota_internal.decision_candidates(action, ids) c WHERE c.obstacle IS NULL;
	-- The runs first: whoever marks one delivered locks it, and then looks for open grants. What the courier knows of
	-- a run is valid until its row changes: so also where a grant is open no more, or due at another time.
	SELECT array_agg(DISTINCT c.run_id) INTO runs FROM unnest(chosen) c
		WHERE action <> 'resolve_applied' OR c.next_attempt_time < 'infinity';
	PERFORM 1 FROM quota_manager.quota_run r WHERE r.id = ANY (runs) ORDER BY r.id FOR NO KEY UPDATE;
	UPDATE quota_manager.quota_run r SET undelivered = true WHERE r.id = ANY (runs);

	WITH changed AS (
		UPDATE quota_manager.quota_execute e
		SET status = k.status_after,
			next_attempt_time = CASE WHEN action IN ('resolve_not_applied', 'retry') THEN present ELSE e.next_attempt_time END,
			attempts = CASE WHEN action IN ('resolve_not_applied', 'retry') AND k.status <> 'pending' THEN 0 ELSE e.attempts END,
			doubt_time = CASE WHEN k.status_after = 'in_doubt' THEN e.doubt_time END,
			maybe_granted_before = e.maybe_granted_before AND k.status_after = 'in_doubt',
			balance_time = CASE WHEN k.reopened THEN NULL ELSE e.balance_time END,
			balance_before = CASE WHEN k.reopened THEN NULL ELSE e.balance_before END,
			last_error = remark,
			update_time = present
		FROM (SELECT c.*, s.status_after, c.status <> 'pending' AND s.status_after = 'pending' AS reopened
			FROM unnest(chosen) c CROSS JOIN LATERAL (SELECT CASE
				WHEN action = 'resolve_applied' THEN 'completed'
				WHEN action = 'cancel' THEN 'cancelled'
				WHEN action = 'resolve_not_applied' OR c.status = 'failed' THEN 'pending'
				ELSE c.status END AS status_after) s) k
		WHERE e.strategy_id = k.strategy_id AND e.user_id = k.user_id AND e.scheduled_time = k.scheduled_time
			AND e.revision = k.revision AND e.status = k.status
		RETURNING e.id, e.strategy_id, e.revision, e.user_id, e.scheduled_time, e.gateway, k.status AS status_before, e.status AS status_after)
	SELECT array_agg(ROW(NULL, NULL, c.id, c.strategy_id, c.revision, c.user_id, c.scheduled_time, c.gateway, action,
			c.status_before, c.status_after, NULL, NULL, coalesce(note, ''))::quota_manager.grant_decision ORDER BY c.id)
		INTO decisions FROM changed c;
	IF action IN ('resolve_not_applied', 'retry') THEN
		UPDATE quota_manager.user_balance b SET balance = NULL, token = NULL
			FROM (SELECT DISTINCT d.user_id, d.gateway FROM unnest(decisions) d) d
			WHERE b.user_id = d.user_id AND b.gateway = d.gateway AND (b.balance IS NOT NULL OR b.token IS NOT NULL);
	END IF;
	PERFORM quota_internal.record_decisions(decisions);
	RETURN ARRAY(SELECT d.grant_id FROM unnest(decisions) d);
END
$$;
COMMENT ON FUNCTION quota_internal.decide(text, bigint[], text) IS 'Of resolve(), retry() and cancel(): does the action to those of the grants that it can be done to, and returns their ids.';

CREATE FUNCTION quota_internal.decision_hint(action text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE action
	WHEN 'retry' THEN 'Grants can be retried that failed, wait for a later time, or are in doubt at a gateway whose doubt policy can act on them.'
	WHEN 'cancel' THEN 'Only grants that are pending can be cancelled.'
	ELSE 'Only grants in doubt can be resolved.' END;
COMMENT ON FUNCTION quota_internal.decision_hint(text) IS 'Of resolve(), retry() and cancel(): what an action is for.';

CREATE FUNCTION quota_internal.decide_one(action text, id bigint, note text) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	obstacle text;
	visible bigint[];
BEGIN
	IF id IS NULL OR action IS NULL THEN
		RAISE EXCEPTION '%', CASE WHEN action IN ('retry', 'cancel') THEN 'the grant must be given'
				ELSE 'the grant and whether it was applied must be given' END
			USING ERRCODE = 'null_value_not_allowed';
	END IF;
	visible := quota_internal.visible_grants(ARRAY[id]);
	WHILE cardinality(quota_internal.decide(action, visible, note)) = 0 LOOP
		SELECT c.obstacle INTO obstacle FROM quota_internal.decision_candidates(action, visible) c;
		IF NOT FOUND THEN
			RAISE EXCEPTION 'grant % does not exist', id USING ERRCODE = 'no_data_found';
		END IF;
		-- It may have been changed to and fro by another session.
		CONTINUE WHEN obstacle IS NULL;
		RAISE EXCEPTION 'grant % %', id, CASE
				WHEN action = 'retry' THEN 'cannot be retried'
				WHEN action = 'cancel' THEN 'cannot be cancelled'
				WHEN obstacle = 'without a run' THEN 'cannot be sent again'
				ELSE 'is not in doubt' END
			USING ERRCODE = 'object_not_in_prerequisite_state', DETAIL = format('It is %s.', obstacle), HINT = CASE
				WHEN obstacle LIKE 'in doubt%' THEN 'Find out whether it was applied, and use quota_manager.resolve().'
				WHEN obstacle = 'without a run' THEN 'It was not written by a scan.'
				WHEN obstacle = 'processing' THEN 'It is being sent: wait for what becomes of it.'
				ELSE quota_internal.decision_hint(action) END;
	END LOOP;
END
$$;
COMMENT ON FUNCTION quota_internal.decide_one(text, bigint, text) IS 'Of resolve(), retry() and cancel(): does the action to a grant, or raises an error that says why not.';

CREATE FUNCTION quota_internal.decide_many(action text, ids bigint[], note text) RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	visible bigint[];
	decided bigint[];
	rest bigint[];
	reasons text;
BEGIN
	IF action IS NULL THEN
		RAISE EXCEPTION 'whether the grants were applied must be given' USING ERRCODE = 'null_value_not_allowed';
	END IF;
	visible := quota_internal.visible_grants(ids);
	decided := quota_internal.decide(action, visible, note);
	rest := ARRAY(SELECT i FROM unnest(ids) i WHERE i IS NOT NULL EXCEPT SELECT d FROM unnest(decided) d);
	IF cardinality(rest) > 0 THEN
		SELECT string_agg(o.grants || ' ' || o.obstacle, '; ' ORDER BY o.grants DESC, o.obstacle) INTO reasons
			FROM (SELECT coalesce(c.obstacle, CASE WHEN c.execution IS NULL THEN 'not found' ELSE 'changed at this moment' END) AS obstacle,
					count(*) AS grants
				FROM unnest(rest) i LEFT JOIN quota_internal.decision_candidates(action, visible) c ON (c.execution).id = i
				GROUP BY 1) o;
		RAISE WARNING '% of % grants were left as they are', cardinality(rest), cardinality(rest) + cardinality(decided)
			USING ERRCODE = 'object_not_in_prerequisite_state', DETAIL = format('They are: %s.', reasons),
				HINT = quota_internal.decision_hint(action);
	END IF;
	RETURN cardinality(decided);
END
$$;
COMMENT ON FUNCTION quota_internal.decide_many(text, bigint[], text) IS 'Of resolve(), retry() and cancel(): does the action to the grants that it can be done to, tells of the others in one warning, and returns how many it was done to.';

CREATE FUNCTION quota_manager.resolve(id bigint, applied boolean, note text DEFAULT '') RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	PERFORM quota_internal.decide_one(CASE applied WHEN true THEN 'resolve_applied' WHEN false THEN 'resolve_not_applied' END, id, note);
END
$$;
COMMENT ON FUNCTION quota_manager.resolve(bigint, boolean, text) IS 'Decides about a grant in doubt: applied, then it is completed; not applied, then it is sent again.';

CREATE FUNCTION quota_manager.resolve(ids bigint[], applied boolean, note text DEFAULT '') RETURNS bigint
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
	SELECT quota_internal.decide_many(CASE applied WHEN true THEN 'resolve_applied' WHEN false THEN 'resolve_not_applied' END, ids, note);
END;
COMMENT ON FUNCTION quota_manager.resolve(bigint[], boolean, text) IS 'Decides about grants in doubt and returns about how many; others among the ids are left alone and told of in a warning.';

CREATE FUNCTION quota_manager.retry(id bigint, note text DEFAULT '') RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	PERFORM quota_internal.decide_one('retry', id, note);
END
$$;
COMMENT ON FUNCTION quota_manager.retry(bigint, text) IS 'Sends a grant again that failed; makes one due now that waits for a later time; has the doubt policy of its gateway act anew on one in doubt.';

CREATE FUNCTION quota_manager.retry(ids bigint[], note text DEFAULT '') RETURNS bigint
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
	SELECT quota_internal.decide_many('retry', ids, note);
END;
COMMENT ON FUNCTION quota_manager.retry(bigint[], text) IS 'Retries grants and returns how many; those that cannot be retried are left alone and told of in a warning.';

CREATE FUNCTION quota_manager.cancel(id bigint, note text DEFAULT '') RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	PERFORM quota_internal.decide_one('cancel', id, note);
END
$$;
COMMENT ON FUNCTION quota_manager.cancel(bigint, text) IS 'Cancels a grant that is pending: it is not sent, and not granted again for its firing.';

CREATE FUNCTION quota_manager.cancel(ids bigint[], note text DEFAULT '') RETURNS bigint
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
	SELECT quota_internal.decide_many('cancel', ids, note);
END;
COMMENT ON FUNCTION quota_manager.cancel(bigint[], text) IS 'Cancels grants and returns how many; those that are not pending are left alone and told of in a warning.';
-- Background workers, and tick() for those who run without them.

CREATE PROCEDURE quota_manager.tick(INOUT strategies bigint DEFAULT NULL, INOUT granted bigint DEFAULT NULL)
LANGUAGE C AS 'MODULE_PATHNAME', 'qm_tick';
COMMENT ON PROCEDURE quota_manager.tick(bigint, bigint) IS
	'Runs every due strategy like scan(), but reads the balances that conditions need from the gateways first. Commits between its steps: to be called as a statement of its own. Returns how many strategies were run and grants written.';

CREATE FUNCTION quota_manager.start_workers() RETURNS void
LANGUAGE C VOLATILE SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'qm_start_workers';
COMMENT ON FUNCTION quota_manager.start_workers() IS
	'Lets background workers run in this database from the end of the transaction on. Where the library is not preloaded it starts them, until the server is restarted.';

CREATE FUNCTION quota_manager.stop_workers() RETURNS void
LANGUAGE C VOLATILE SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'qm_stop_workers';
COMMENT ON FUNCTION quota_manager.stop_workers() IS
	'Ends the background workers of this database at the end of the transaction, a scan that they run included; they stay down, also after a restart, until start_workers().';

CREATE FUNCTION quota_manager.wake_workers() RETURNS void
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'qm_wake_workers';
COMMENT ON FUNCTION quota_manager.wake_workers() IS
	'Lets the launcher look into this database at the end of the transaction, when the extension was created or its role got its rights; it does so by itself every minute.';

CREATE FUNCTION quota_internal.role_danger(role oid) RETURNS text
LANGUAGE C STABLE STRICT AS 'MODULE_PATHNAME', 'qm_role_danger';
COMMENT ON FUNCTION quota_internal.role_danger(oid) IS
	'Why a role must not scan in the background: it is a superuser or can become one; null: nothing.';

-- What may make something due is told to the workers at commit.
CREATE FUNCTION quota_internal.wake_at_commit() RETURNS trigger
LANGUAGE C AS 'MODULE_PATHNAME', 'qm_wake_at_commit';
COMMENT ON FUNCTION quota_internal.wake_at_commit() IS
	'Trigger: lets the workers named look for work as soon as the transaction is committed, once however often it is called. Not where it is prepared: workers look by themselves every poll_interval.';
CREATE TRIGGER wake_workers AFTER INSERT OR UPDATE ON quota_manager.quota_strategy
	FOR EACH STATEMENT EXECUTE FUNCTION quota_internal.wake_at_commit('scheduler');
COMMENT ON TRIGGER wake_workers ON quota_manager.quota_strategy IS 'A strategy may be due.';
-- Not the state, which couriers write.
CREATE TRIGGER wake_workers AFTER INSERT OR DELETE OR UPDATE OF name, dialect, base_url, admin_path, credential, key_header, route_model,
	connect_timeout, request_timeout, max_connections, rate_limit, doubt_policy, sole_writer, max_usage_rate, doubt_policy_since, is_default
	ON quota_manager.quota_gateway FOR EACH STATEMENT EXECUTE FUNCTION quota_internal.wake_at_commit('scheduler', 'courier');
COMMENT ON TRIGGER wake_workers ON quota_manager.quota_gateway IS 'What waited for the gateway may be due.';
CREATE TRIGGER wake_workers AFTER INSERT OR UPDATE ON quota_manager.quota_model
	FOR EACH STATEMENT EXECUTE FUNCTION quota_internal.wake_at_commit('scheduler');
COMMENT ON TRIGGER wake_workers ON quota_manager.quota_model IS 'A strategy may have got its gateway.';
CREATE TRIGGER wake_workers AFTER INSERT OR UPDATE ON quota_manager.quota_run
	FOR EACH ROW WHEN (NEW.undelivered) EXECUTE FUNCTION quota_internal.wake_at_commit('courier');
COMMENT ON TRIGGER wake_workers ON quota_manager.quota_run IS 'Grants of the run can be sent: new ones, or some that an operator decided about.';

-- Not registered for pg_dump: what went wrong on one server is no news of another.
CREATE TABLE quota_manager.quota_worker (
	kind text PRIMARY KEY,
	last_error text NOT NULL,
	last_error_time timestamptz NOT NULL
);
COMMENT ON TABLE quota_manager.quota_worker IS 'What went wrong last with the work of a kind of worker, whoever did it: see worker_status. Written when something goes wrong only.';
COMMENT ON COLUMN quota_manager.quota_worker.kind IS 'scheduler or courier.';
COMMENT ON COLUMN quota_manager.quota_worker.last_error IS 'What went wrong last.';
COMMENT ON COLUMN quota_manager.quota_worker.last_error_time IS 'When that was.';

CREATE FUNCTION quota_internal.worker_queue(kind text, OUT depth bigint, OUT oldest_age interval)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan SET jit = off SET quota_manager.pinned_statistics = on
AS $$
DECLARE
	stretch record;
	counted record;
BEGIN
	PERFORM quota_internal.pin_statistics();
	IF kind = 'courier' THEN
		depth := 0;
		FOR stretch IN SELECT s.* FROM quota_internal.undelivered_stretches() s LOOP
			SELECT count(*) AS depth, min(e.create_time) AS oldest INTO counted
			FROM quota_manager.quota_execute e
			WHERE e.id BETWEEN stretch.low AND stretch.high
				-- Cheaper than a list.
				AND (e.status = 'pending' OR e.status = 'processing' OR e.status = 'in_doubt' AND e.next_attempt_time < 'infinity')
				AND e.run_id = ANY (stretch.runs);
			depth := depth + counted.depth;
			oldest_age := greatest(oldest_age, clock_timestamp() - counted.oldest);
		END LOOP;
	ELSIF kind = 'scheduler' THEN
		SELECT count(*), max(CASE WHEN d.scheduled_time IS NULL OR d.tries > 0 THEN clock_timestamp() - d.due_time ELSE quota_manager.schedule_now() - d.scheduled_time END)
			INTO depth, oldest_age
			FROM quota_manager.strategy_due d WHERE d.state = 'due';
	END IF;
END
$$;
COMMENT ON FUNCTION quota_internal.worker_queue(text) IS
	'Of worker_status: how much a kind of worker has to do, and for how long the oldest of it has waited.';

-- pg_stat_activity hides what other roles do; of our workers there is nothing to hide.
CREATE FUNCTION quota_internal.list_workers()
RETURNS TABLE (kind text, pid integer, role name, state text, activity text, started timestamptz, last_tick timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER
BEGIN ATOMIC
	SELECT pg_catalog.substr(a.backend_type, 15), a.pid, CASE WHEN a.datid IS NOT NULL THEN a.usename END, a.state, nullif(a.query, ''), a.backend_start, a.state_change
	FROM pg_catalog.pg_stat_activity a
	WHERE a.backend_type OPERATOR(pg_catalog.=) ANY (ARRAY['quota_manager launcher', 'quota_manager scheduler', 'quota_manager courier'])
		AND EXISTS (SELECT 1 FROM pg_catalog.pg_locks l
			WHERE l.pid OPERATOR(pg_catalog.=) a.pid AND l.locktype OPERATOR(pg_catalog.=) 'advisory'
				AND l.classid OPERATOR(pg_catalog.=) 1902999395::oid AND l.granted
				AND (l.database OPERATOR(pg_catalog.=) 0::oid
					OR l.database OPERATOR(pg_catalog.=) (SELECT d.oid FROM pg_catalog.pg_database d
						WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database())));
END;
COMMENT ON FUNCTION quota_internal.list_workers() IS 'Of worker_status: the background workers that serve this database.';

-- The subquery keeps the queue from being counted twice, or for those who do not ask for it.
CREATE VIEW quota_manager.worker_status WITH (security_invoker = true) AS
SELECT k.kind, w.pid, w.role, coalesce(w.state, 'not running') AS state, w.activity, w.started, w.last_tick,
	(q.queue).depth AS queue_depth, (q.queue).oldest_age, t.last_error, t.last_error_time
FROM (VALUES ('launcher'), ('scheduler'), ('courier')) k (kind)
LEFT JOIN quota_internal.list_workers() w ON w.kind OPERATOR(pg_catalog.=) k.kind
LEFT JOIN quota_manager.quota_worker t ON t.kind OPERATOR(pg_catalog.=) k.kind
CROSS JOIN LATERAL (SELECT quota_internal.worker_queue(k.kind) AS queue OFFSET 0) q;
COMMENT ON VIEW quota_manager.worker_status IS 'The background workers that serve this database: launcher, scheduler and courier; what waits for each, and what went wrong last.';
COMMENT ON COLUMN quota_manager.worker_status.kind IS 'launcher (starts schedulers), scheduler (runs strategies) or courier (delivers grants).';
COMMENT ON COLUMN quota_manager.worker_status.pid IS 'Process id; null: it does not run, and the server log says why.';
COMMENT ON COLUMN quota_manager.worker_status.role IS 'Role it runs as; null for the launcher, which is connected to no database.';
COMMENT ON COLUMN quota_manager.worker_status.state IS 'active, idle or not running.';
COMMENT ON COLUMN quota_manager.worker_status.activity IS 'What it is doing, or did last.';
COMMENT ON COLUMN quota_manager.worker_status.started IS 'When it started.';
COMMENT ON COLUMN quota_manager.worker_status.last_tick IS 'When it last began or ended a look for work; it looks every poll_interval (the launcher: every second).';
COMMENT ON COLUMN quota_manager.worker_status.queue_depth IS 'scheduler: firings and single strategies that are due and not run yet; courier: grants pending, being sent, or in doubt that the doubt policy of their gateway acts on.';
COMMENT ON COLUMN quota_manager.worker_status.oldest_age IS 'For how long the oldest of them has been due (firings: by the schedule clock), or how long ago it was granted (courier).';
COMMENT ON COLUMN quota_manager.worker_status.last_error IS 'What went wrong last, also in tick() and deliver(), and before a restart: an error, a strategy that failed, a gateway that closed. It may be over: see quota_run and delivery_status.';
COMMENT ON COLUMN quota_manager.worker_status.last_error_time IS 'When that was.';

SELECT quota_manager.wake_workers();
-- Jobs of pg_cron that run strategies and deliver grants where no background workers do. Nothing of pg_cron is
-- named but in dynamic statements: it need not be there.

CREATE FUNCTION quota_manager.pg_cron_jobs(database name) RETURNS TABLE (job_name text, command text)
LANGUAGE sql IMMUTABLE
BEGIN ATOMIC
	-- The name of a job may be as long as that of a database, 63 bytes, and would be cut.
	SELECT CASE WHEN pg_catalog.octet_length(t.prefix || database::text) <= 63 THEN t.prefix || database::text ELSE t.prefix || pg_catalog.md5(database::text) END,
		t.command
	FROM (VALUES ('quota_manager tick ', 'CALL quota_manager.tick()'), ('quota_manager deliver ', 'CALL quota_manager.deliver()')) t (prefix, command);
END;
COMMENT ON FUNCTION quota_manager.pg_cron_jobs(name) IS 'The jobs of pg_cron that serve a database: their names and what they call. A name that is too long holds the MD5 of the database''s name.';

CREATE FUNCTION quota_internal.pg_cron_database() RETURNS name
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	-- Not to be seen by everyone.
	setting CONSTANT name := (SELECT s.setting FROM pg_settings s WHERE s.name = 'cron.database_name');
BEGIN
	IF EXISTS (SELECT 1 FROM pg_extension e WHERE e.extname = 'pg_cron') THEN
		RETURN current_database();
	ELSIF setting <> current_database() THEN
		RETURN setting;
	ELSIF setting IS NOT NULL THEN
		RAISE EXCEPTION 'extension pg_cron is not installed in database "%"', current_database()
			USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Call CREATE EXTENSION pg_cron.';
	ELSE
		RAISE EXCEPTION 'pg_cron is not to be found in database "%"', current_database()
			USING ERRCODE = 'object_not_in_prerequisite_state',
				HINT = 'It has to be in shared_preload_libraries, and its extension lives in the one database that cron.database_name names.';
	END IF;
END
$$;
COMMENT ON FUNCTION quota_internal.pg_cron_database() IS 'Of schedule_jobs(): the database whose jobs pg_cron runs; an error if it is not installed.';

CREATE FUNCTION quota_internal.require_pg_cron(instead text) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	home CONSTANT name := quota_internal.pg_cron_database();
BEGIN
	IF home <> current_database() THEN
		RAISE EXCEPTION 'pg_cron is not in database "%" but in "%"', current_database(), home
			USING ERRCODE = 'object_not_in_prerequisite_state',
				DETAIL = 'It reads its jobs in the database that cron.database_name names.',
				HINT = format('In database "%s" run: %s', home, instead);
	END IF;
	IF NOT has_schema_privilege('cron', 'USAGE') THEN
		RAISE EXCEPTION 'role "%" has no right on schema cron of pg_cron', current_user
			USING ERRCODE = 'insufficient_privilege', HINT = format('GRANT USAGE ON SCHEMA cron TO %I gives it.', current_user);
	END IF;
END
$$;
COMMENT ON FUNCTION quota_internal.require_pg_cron(text) IS 'Of schedule_jobs(): an error if this role cannot reach pg_cron from this database. instead: what to run where pg_cron is.';

CREATE FUNCTION quota_internal.check_job_role(database name, role name) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
	found_role pg_roles;
	is_super CONSTANT boolean := (SELECT r.rolsuper FROM pg_roles r WHERE r.rolname = current_user);
	danger text;
BEGIN
	SELECT r.* INTO found_role FROM pg_roles r WHERE r.rolname = role;
	danger := quota_internal.role_danger(found_role.oid);
	IF NOT FOUND THEN
		RAISE EXCEPTION 'role "%" does not exist', role USING ERRCODE = 'undefined_object',
			HINT = 'It is named in quota_manager.worker_role: make it with CREATE ROLE ... LOGIN, or name another one.';
	ELSIF NOT EXISTS (SELECT 1 FROM pg_database d WHERE d.datname = database AND d.datallowconn) THEN
		RAISE EXCEPTION 'there is no database "%" to connect to', database USING ERRCODE = '3D000';
	ELSIF danger IS NOT NULL THEN
		RAISE EXCEPTION 'jobs cannot run as role "%": it %', role, danger
			USING ERRCODE = 'invalid_parameter_value',
				DETAIL = 'Conditions call functions that others have written.',
				HINT = 'Make a role with CREATE ROLE ... LOGIN, call quota_manager.grant_access(role, ''worker'') in that database, and name the role here.';
	ELSIF NOT found_role.rolcanlogin THEN
		RAISE EXCEPTION 'jobs cannot run as role "%": it is not permitted to log in', role
			USING ERRCODE = 'invalid_parameter_value', HINT = format('Permit it with ALTER ROLE %I LOGIN.', role);
	ELSIF role <> current_user AND NOT is_super THEN
		RAISE EXCEPTION 'role "%" cannot schedule jobs for role "%"', current_user, role
			USING ERRCODE = 'insufficient_privilege', HINT = 'Only a superuser can; others name themselves.';
	ELSIF NOT has_database_privilege(role, database, 'CONNECT') THEN
		RAISE EXCEPTION 'role "%" may not connect to database "%"', role, database
			USING ERRCODE = 'insufficient_privilege', HINT = 'Grant it the privilege CONNECT on the database.';
	-- What it may do in another database cannot be seen from here.
	ELSIF database = current_database()
		AND NOT (has_schema_privilege(role, 'quota_manager', 'USAGE') AND has_table_privilege(role, 'quota_manager.quota_execute', 'SELECT')
			AND has_function_privilege(role, 'quota_manager.tick(bigint, bigint)', 'EXECUTE')
			AND has_function_privilege(role, 'quota_manager.deliver(bigint, bigint, bigint, bigint)', 'EXECUTE')) THEN
		RAISE EXCEPTION 'role "%" may not run quota_manager in database "%"', role, database
			USING ERRCODE = 'insufficient_privilege', HINT = format('Call quota_manager.grant_access(''%I'', ''worker'').', role);
	END IF;
END
$$;
COMMENT ON FUNCTION quota_internal.check_job_role(name, name) IS 'Of schedule_jobs(): an error if the jobs of a database cannot run as a role, or not be scheduled for it.';

CREATE FUNCTION quota_internal.warn_of_failing_jobs(database name, role name) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
	-- Not to be seen by everyone.
	by_connection CONSTANT boolean := coalesce((SELECT s.setting = 'off' FROM pg_settings s WHERE s.name = 'cron.use_background_workers'), false);
	host CONSTANT text := coalesce((SELECT nullif(s.setting, '') FROM pg_settings s WHERE s.name = 'cron.host'), 'localhost');
	cure CONSTANT text := format('Set cron.use_background_workers = on and restart the server, or let role "%s" connect from %s to database "%s" without a password (pg_hba.conf).',
		role, host, database);
	last_run record;
BEGIN
	-- How the last run of them ended that pg_cron knows of, and lets us see.
	EXECUTE 'SELECT d.status, d.return_message, d.start_time FROM cron.job_run_details d
		WHERE d.command IN (SELECT j.command FROM quota_manager.pg_cron_jobs($1) j) AND d.database = $1 AND d.username = $2
			AND d.status IN (''succeeded'', ''failed'')
		ORDER BY d.runid DESC LIMIT 1' INTO last_run USING database, role;
	IF last_run.status = 'failed' THEN
		RAISE WARNING 'the last run of a job of pg_cron for database "%" failed: %', database, last_run.return_message
			USING ERRCODE = '01000', DETAIL = format('It was started %s.', coalesce('at ' || last_run.start_time, 'never')),
				HINT = CASE WHEN by_connection THEN cure ELSE 'See cron.job_run_details.' END;
	ELSIF by_connection AND last_run.status IS NULL THEN
		RAISE WARNING 'pg_cron connects to % to run the jobs of database "%"', host, database
			USING ERRCODE = '01000', DETAIL = format('Where pg_hba.conf asks role "%s" for a password, every run fails with "connection failed".', role),
				HINT = cure || ' How runs end is in cron.job_run_details, and told when schedule_jobs() is called again.';
	END IF;
EXCEPTION WHEN undefined_table OR undefined_column OR insufficient_privilege THEN
	-- Not to be seen: what cannot be known is not warned of.
	RETURN;
END
$$;
COMMENT ON FUNCTION quota_internal.warn_of_failing_jobs(name, name) IS 'Of schedule_jobs(): warns if runs of the jobs of a database fail, or if pg_cron has to connect for them and it is not known whether it can.';

CREATE FUNCTION quota_manager.schedule_jobs(database name DEFAULT pg_catalog.current_database(), role regrole DEFAULT NULL)
RETURNS TABLE (job_id bigint, job_name text)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
	every_minute CONSTANT text := '* * * * *';
	runner CONSTANT name := coalesce((SELECT r.rolname FROM pg_roles r WHERE r.oid = role),
		nullif(quota_internal.setting('worker_role'), ''), current_user);
	target CONSTANT name := coalesce(database, current_database());
	job record;
	stale bigint;
BEGIN
	-- Whether there is pg_cron at all comes before what is needed for it.
	PERFORM quota_internal.pg_cron_database();
	PERFORM quota_internal.check_job_role(target, runner);
	PERFORM quota_internal.require_pg_cron((SELECT string_agg(format('SELECT cron.schedule_in_database(%L, %L, %L, %L, %L);',
		j.job_name, every_minute, j.command, target, runner), ' ') FROM quota_manager.pg_cron_jobs(target) j));
	IF target <> current_database()
		AND NOT has_function_privilege('cron.schedule_in_database(text, text, text, text, text, boolean)', 'EXECUTE') THEN
		RAISE EXCEPTION 'role "%" may not schedule jobs in another database', current_user
			USING ERRCODE = 'insufficient_privilege',
				HINT = format('GRANT EXECUTE ON FUNCTION cron.schedule_in_database TO %I lets it.', current_user);
	END IF;

	FOR job IN SELECT j.* FROM quota_manager.pg_cron_jobs(target) j LOOP
		job_name := job.job_name;
		-- To schedule a job of the same name again would leave the one of another role, and one that is switched off.
		FOR stale IN EXECUTE 'SELECT j.jobid FROM cron.job j WHERE j.jobname = $1
				AND (j.username, j.database, j.schedule, j.command, j.nodeport, j.active) IS DISTINCT FROM ($2, $3, $4, $5, $6, true)'
			USING job_name, runner::text, target::text, every_minute, job.command, current_setting('port')::integer
		LOOP
			EXECUTE 'SELECT cron.unschedule($1)' USING stale;
		END LOOP;
		IF runner <> current_user THEN
			EXECUTE 'SELECT cron.schedule_in_database($1, $2, $3, $4, $5)' INTO job_id
				USING job_name, every_minute, job.command, target::text, runner::text;
		ELSIF target <> current_database() THEN
			EXECUTE 'SELECT cron.schedule_in_database($1, $2, $3, $4)' INTO job_id USING job_name, every_minute, job.command, target::text;
		ELSE
			EXECUTE 'SELECT cron.schedule($1, $2, $3)' INTO job_id USING job_name, every_minute, job.command;
		END IF;
		RETURN NEXT;
	END LOOP;
	PERFORM quota_internal.warn_of_failing_jobs(target, runner);
END
$$;
COMMENT ON FUNCTION quota_manager.schedule_jobs(name, regrole) IS
	'Lets pg_cron call tick() and deliver() every minute in a database, as a role (null: that of quota_manager.worker_role, or the caller). To be called in the database of pg_cron. Calling it again brings the two jobs up to date.';

CREATE FUNCTION quota_manager.unschedule_jobs(database name DEFAULT pg_catalog.current_database()) RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
	target CONSTANT name := coalesce(database, current_database());
	names CONSTANT text[] := (SELECT array_agg(j.job_name) FROM quota_manager.pg_cron_jobs(target) j);
	removed bigint := 0;
	job bigint;
BEGIN
	PERFORM quota_internal.require_pg_cron(format('SELECT cron.unschedule(jobid) FROM cron.job WHERE jobname IN (%s);',
		(SELECT string_agg(quote_literal(n), ', ') FROM unnest(names) n)));
	FOR job IN EXECUTE 'SELECT j.jobid FROM cron.job j WHERE j.jobname = ANY ($1)' USING names LOOP
		EXECUTE 'SELECT cron.unschedule($1)' USING job;
		removed := removed + 1;
	END LOOP;
	IF removed = 0 THEN
		RAISE NOTICE 'there are no jobs of quota_manager for database "%" that role "%" can see', target, current_user;
	END IF;
	RETURN removed;
END
$$;
COMMENT ON FUNCTION quota_manager.unschedule_jobs(name) IS
	'Removes the jobs that schedule_jobs() made for a database, which need not be there any more; of other roles only for a superuser. To be called in the database of pg_cron. Returns how many there were.';
-- Taking over from a service that ran before.

CREATE FUNCTION quota_manager.import_grants(query text)
RETURNS TABLE (strategy text, given bigint, imported bigint, already_granted bigint, repeated bigint, note text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off SET quota_manager.pinned_statistics = on
AS $$
#variable_conflict use_column
DECLARE
	visible CONSTANT integer[] := quota_internal.read_as_caller('SELECT s.id::text FROM quota_manager.quota_strategy s', NULL)::integer[];
	present CONSTANT timestamptz := clock_timestamp();
BEGIN
	IF query IS NULL OR query = '' THEN
		RAISE EXCEPTION 'no query to import from' USING ERRCODE = 'invalid_parameter_value',
			HINT = 'Give a query that returns strategy name, user id, time and, if you have it, amount, such as SELECT name, user_id, paid_at, amount FROM public.old_grants.';
	END IF;
	PERFORM quota_internal.check_transaction('grants are imported');
	CREATE TEMPORARY TABLE quota_manager_import (strategy text, user_id text, grant_time timestamptz, amount numeric) ON COMMIT DROP;
	EXECUTE format('GRANT INSERT ON pg_temp.quota_manager_import TO %I', quota_internal.deciding_role());
	BEGIN
		PERFORM quota_internal.run_as_caller('INSERT INTO pg_temp.quota_manager_import ' || query);
	EXCEPTION WHEN datatype_mismatch OR syntax_error THEN
		RAISE EXCEPTION 'the query to import from does not return strategy name, user id and time: %', SQLERRM
			USING ERRCODE = 'datatype_mismatch',
				HINT = 'Its columns are text, text and timestamp with time zone, in this order, and numeric for the amount, which can be left out.';
	WHEN undefined_table THEN
		RAISE EXCEPTION 'the query to import from cannot be run: %', SQLERRM
			USING ERRCODE = 'undefined_table', HINT = 'Write names with their schema, such as public.old_grants; temporary tables need none.';
	END;
	IF EXISTS (SELECT 1 FROM pg_temp.quota_manager_import g WHERE g.amount = 0 OR g.amount IN ('NaN', 'Infinity', '-Infinity')) THEN
		RAISE EXCEPTION 'the query to import from returns an amount that no grant can have'
			USING ERRCODE = 'invalid_parameter_value', DETAIL = 'It is 0, infinite or not a number.',
				HINT = 'Leave the row out, or return null, which means the amount of the strategy.';
	END IF;
	UPDATE pg_temp.quota_manager_import g SET grant_time = now() WHERE g.grant_time IS NULL OR NOT isfinite(g.grant_time);
	PERFORM quota_internal.lock_strategies(ARRAY(SELECT k.id FROM quota_manager.quota_strategy k
		WHERE k.id = ANY (visible) AND k.name IN (SELECT g.strategy FROM pg_temp.quota_manager_import g) ORDER BY k.id));
	RETURN QUERY
	WITH row_of AS (
		SELECT g.strategy, g.user_id, g.grant_time, s.id AS strategy_id, s.type, s.version, coalesce(g.amount, s.amount) AS amount, s.model, s.time_zone,
			quota_manager.gateway_of(s.model) AS gateway, g.user_id <> '' AND quota_internal.user_id_fits(g.user_id) AS usable,
			row_number() OVER (PARTITION BY g.strategy, g.user_id ORDER BY g.grant_time) AS nth
		FROM pg_temp.quota_manager_import g LEFT JOIN quota_manager.quota_strategy s ON s.name = g.strategy AND s.id = ANY (visible)
	), written AS (
		INSERT INTO quota_manager.quota_execute (strategy_id, user_id, scheduled_time, strategy_version, status, amount, model,
			gateway, batch_number, create_time, update_time)
		SELECT r.strategy_id, r.user_id, '-infinity', r.version, 'completed', r.amount, r.model, coalesce(r.gateway, ''),
			to_char(quota_internal.local_time(r.grant_time, r.time_zone), 'YYYYMMDDHH24MISS'), r.grant_time, present
		FROM row_of r WHERE r.type = 'single' AND r.usable AND r.nth = 1
		ON CONFLICT DO NOTHING
		RETURNING strategy_id, user_id
	), counted AS (
		SELECT r.strategy, r.strategy_id, r.type, count(*) AS given,
			count(*) FILTER (WHERE r.usable AND r.nth = 1) AS wanted,
			count(*) FILTER (WHERE r.usable AND r.nth > 1) AS repeated,
			count(*) FILTER (WHERE r.user_id <> '') AS named, count(*) FILTER (WHERE r.usable) AS usable
		FROM row_of r GROUP BY r.strategy, r.strategy_id, r.type
	)
	SELECT c.strategy, c.given, w.imported, CASE WHEN c.type = 'single' THEN c.wanted - w.imported ELSE 0 END,
		CASE WHEN c.type = 'single' THEN c.repeated ELSE 0 END,
		CASE WHEN c.strategy_id IS NULL THEN 'unknown strategy: nothing imported'
			WHEN c.type <> 'single' THEN 'not a single strategy: nothing imported'
			WHEN c.usable < c.given THEN concat_ws('; ',
				CASE WHEN c.named < c.given THEN c.given - c.named || ' without a user id: not imported' END,
				CASE WHEN c.usable < c.named THEN c.named - c.usable || ' with a user id longer than 2600 bytes: not imported' END) END
	FROM counted c CROSS JOIN LATERAL (SELECT count(*) AS imported FROM written w WHERE w.strategy_id = c.strategy_id) w
	ORDER BY c.strategy;
	DROP TABLE pg_temp.quota_manager_import;
END
$$;
COMMENT ON FUNCTION quota_manager.import_grants(text) IS 'Takes over completed grants of single strategies from a query that returns strategy name, user id, time and perhaps amount (left out or null: the amount that the strategy has now), so that the next scan does not pay again. Tells per strategy what was imported, was there already, came twice, or was not known.';
-- Who may do what.  PUBLIC can use the types and call what is pure; all else is granted by grant_access.

CREATE FUNCTION quota_manager.grant_access(role regrole, access text) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	levels CONSTANT text[] := ARRAY['viewer', 'operator', 'admin', 'worker'];
	-- Functions for people that do something; those that only look are for all, also one that runs conditions to do so.
	looks CONSTANT text[] := ARRAY['undecided'];
	runs CONSTANT text[] := ARRAY['scan', 'tick', 'deliver'];
	decides CONSTANT text[] := ARRAY['resolve', 'retry', 'cancel', 'import_grants', 'restart_schedule', 'release_balances', 'audit_balances',
		'gateway_query', 'gateway_refresh', 'gateway_delta'];
	administers CONSTANT text[] := ARRAY['resume', 'start_workers', 'stop_workers', 'wake_workers', 'schedule_jobs', 'unschedule_jobs', 'set_credential'];
	called CONSTANT text[] := looks || CASE access WHEN 'viewer' THEN '{}' WHEN 'worker' THEN runs WHEN 'operator' THEN runs || decides ELSE runs || decides || administers END;
	-- All but one hold nothing that is secret.
	readable CONSTANT text := (SELECT string_agg(c.oid::regclass::text, ', ') FROM pg_class c
		WHERE c.relnamespace = 'quota_manager'::regnamespace AND c.relkind IN ('r', 'p', 'v') AND c.relname <> 'quota_credential');
	routine regprocedure;
BEGIN
	IF access IS NULL OR access <> ALL (levels) THEN
		RAISE EXCEPTION 'unknown access %', coalesce(quote_literal(access), 'null')
			USING ERRCODE = 'invalid_parameter_value',
				HINT = 'Write viewer (looks), operator (runs strategies), admin (all, gateways included) or worker (the background workers'' role).';
	END IF;
	IF role IS NULL OR role = 0 THEN
		RAISE EXCEPTION 'no role to give access to' USING ERRCODE = 'invalid_parameter_value';
	END IF;

	EXECUTE format('GRANT USAGE ON SCHEMA quota_manager, quota_internal, quota_condition TO %s', role);
	EXECUTE format('GRANT EXECUTE ON ALL ROUTINES IN SCHEMA quota_condition TO %s', role);
	EXECUTE format('GRANT SELECT ON %s TO %s', readable, role);
	FOR routine IN SELECT p.oid FROM pg_proc p JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
			JOIN pg_extension e ON e.oid = d.refobjid AND d.refclassid = 'pg_extension'::regclass AND e.extname = 'quota_manager'
		WHERE p.pronamespace IN ('quota_manager'::regnamespace, 'quota_internal'::regnamespace) AND p.prorettype <> 'trigger'::regtype
			-- What is not volatile cannot write, nor can what parallel workers may run. In quota_internal the rest is for the owner.
			AND (p.provolatile <> 'v' OR p.proparallel = 's' OR p.pronamespace = 'quota_manager'::regnamespace AND p.proname = ANY (called))
	LOOP
		EXECUTE format('GRANT EXECUTE ON ROUTINE %s TO %s', routine, role);
	END LOOP;

	-- Neither ids nor times nor versions: what is written with them is being restored.
	IF access IN ('operator', 'admin') THEN
		EXECUTE format('GRANT DELETE, INSERT (name, title, type, amount, model, periodic_expr, time_zone, condition, enabled, archived, max_exec_per_user,
				catch_up, catch_up_window, catch_up_max, valid_from, valid_until),
			UPDATE (name, title, type, amount, model, periodic_expr, time_zone, condition, enabled, archived, max_exec_per_user,
				catch_up, catch_up_window, catch_up_max, valid_from, valid_until) ON quota_manager.quota_strategy TO %s', role);
		EXECUTE format('GRANT DELETE, INSERT (id, name, github_username, email, phone, github_star, vip, org, register_time, access_time),
			UPDATE (name, github_username, email, phone, github_star, vip, org, register_time, access_time) ON quota_manager.user_info TO %s', role);
	END IF;
	IF access = 'admin' THEN
		EXECUTE format('GRANT DELETE, INSERT (name, dialect, base_url, admin_path, credential, key_header, route_model, connect_timeout, request_timeout,
				max_connections, rate_limit, doubt_policy, sole_writer, max_usage_rate, guard_balances, is_default),
			UPDATE (dialect, base_url, admin_path, credential, key_header, route_model, connect_timeout, request_timeout,
				max_connections, rate_limit, doubt_policy, sole_writer, max_usage_rate, guard_balances, is_default) ON quota_manager.quota_gateway TO %s', role);
		EXECUTE format('GRANT INSERT, UPDATE, DELETE ON quota_manager.quota_model TO %s', role);
		EXECUTE format('GRANT SELECT (name), INSERT, UPDATE, DELETE, TRUNCATE ON quota_manager.quota_credential TO %s', role);
	END IF;
	IF access = 'worker' THEN
		PERFORM quota_manager.wake_workers();
	END IF;
END
$$;
COMMENT ON FUNCTION quota_manager.grant_access(regrole, text) IS 'Gives a role the rights of a viewer, operator, admin, or of the background workers. Works again after a restore.';

-- Whatever default privileges gave to anybody is taken back: a trigger on a table would run as the owner, who writes there.
DO $$
DECLARE
	object record;
	grantee oid;
BEGIN
	FOR object IN
		WITH member AS (
			SELECT d.classid, d.objid FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_extension e
				ON d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_extension'::pg_catalog.regclass AND d.refobjid OPERATOR(pg_catalog.=) e.oid
			WHERE e.extname OPERATOR(pg_catalog.=) 'quota_manager' AND d.deptype OPERATOR(pg_catalog.=) 'e'
		)
		SELECT CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END AS kind, c.oid::pg_catalog.regclass::pg_catalog.text AS name, c.relowner AS owner,
				c.relacl AS acl
			FROM member m JOIN pg_catalog.pg_class c ON m.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass AND m.objid OPERATOR(pg_catalog.=) c.oid
		UNION ALL SELECT 'ROUTINE', p.oid::pg_catalog.regprocedure::pg_catalog.text, p.proowner, coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))
			FROM member m JOIN pg_catalog.pg_proc p ON m.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass AND m.objid OPERATOR(pg_catalog.=) p.oid
		UNION ALL SELECT 'TYPE', t.oid::pg_catalog.regtype::pg_catalog.text, t.typowner, coalesce(t.typacl, pg_catalog.acldefault('T', t.typowner))
			FROM member m JOIN pg_catalog.pg_type t ON m.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_type'::pg_catalog.regclass AND m.objid OPERATOR(pg_catalog.=) t.oid
				AND t.typtype OPERATOR(pg_catalog.=) 'b' AND t.typelem OPERATOR(pg_catalog.=) 0::pg_catalog.oid
		UNION ALL SELECT 'SCHEMA', n.nspname::pg_catalog.text, n.nspowner, n.nspacl
			FROM pg_catalog.pg_namespace n WHERE n.nspname OPERATOR(pg_catalog.=) ANY (ARRAY['quota_manager', 'quota_internal', 'quota_condition'])
	LOOP
		FOR grantee IN SELECT DISTINCT a.grantee FROM pg_catalog.aclexplode(object.acl) a WHERE a.grantee OPERATOR(pg_catalog.<>) object.owner LOOP
			EXECUTE pg_catalog.format('REVOKE ALL ON %s %s FROM %s CASCADE', object.kind, object.name,
				CASE WHEN grantee OPERATOR(pg_catalog.=) 0::pg_catalog.oid THEN 'PUBLIC' ELSE grantee::pg_catalog.regrole::pg_catalog.text END);
		END LOOP;
		-- Types are for everybody, and so are functions without effect that read nothing: constraints and indexes call them.
		IF object.kind OPERATOR(pg_catalog.=) 'TYPE' OR object.kind OPERATOR(pg_catalog.=) 'ROUTINE'
			AND (SELECT p.provolatile OPERATOR(pg_catalog.=) 'i' FROM pg_catalog.pg_proc p WHERE p.oid OPERATOR(pg_catalog.=) object.name::pg_catalog.regprocedure) THEN
			EXECUTE pg_catalog.format('GRANT ALL ON %s %s TO PUBLIC', object.kind, object.name);
		END IF;
	END LOOP;
END
$$;
