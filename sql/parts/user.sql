-- Users, their balances, and subject: the view of a user for conditions.

CREATE FUNCTION quota_manager.star_list(github_star text) RETURNS text[]
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 5 AS 'MODULE_PATHNAME', 'qm_star_list';
COMMENT ON FUNCTION quota_manager.star_list(text) IS 'Elements of a comma list, trimmed of white space, without empty ones.';

-- With the other columns of the key of quota_execute or user_balance, this fits into an index row of 2704 bytes.
CREATE FUNCTION quota_internal.user_id_fits(id text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN pg_catalog.octet_length(id) OPERATOR(pg_catalog.<=) 2600;
COMMENT ON FUNCTION quota_internal.user_id_fits(text) IS 'True if a user of this id can be granted something: an id has at most 2600 bytes.';

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

-- An upsert writes the id with its present value, so roles need the right to write it.
CREATE FUNCTION quota_internal.keep_user_id() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF NOT quota_internal.may_restore(TG_RELID) THEN
		RAISE EXCEPTION 'the id of user "%" cannot be changed', OLD.id
			USING ERRCODE = 'invalid_parameter_value', DETAIL = 'Grants, balances and the gateway know the user by it.',
				HINT = 'Write another user.';
	END IF;
	RETURN NEW;
END
$$;
COMMENT ON FUNCTION quota_internal.keep_user_id() IS 'Trigger: only the owner of the table gives a user another id, which would be granted everything again.';
CREATE TRIGGER keep_user_id BEFORE UPDATE OF id ON quota_manager.user_info
	FOR EACH ROW WHEN (OLD.id IS DISTINCT FROM NEW.id) EXECUTE FUNCTION quota_internal.keep_user_id();

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
COMMENT ON TRIGGER keep_user_id ON quota_manager.user_info IS 'A user keeps its id.';
COMMENT ON TRIGGER set_update_time ON quota_manager.user_info IS 'Keeps update_time.';

-- The constraints say the same, but their errors show the whole row.
CREATE FUNCTION quota_internal.check_user() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF NEW.id IS NULL OR NEW.id = '' THEN
		RAISE EXCEPTION 'a user needs an id' USING ERRCODE = 'invalid_parameter_value', COLUMN = 'id';
	ELSIF octet_length(NEW.id) > 2600 THEN
		RAISE EXCEPTION 'the id of a user has % bytes', octet_length(NEW.id)
			USING ERRCODE = 'string_data_right_truncation', DETAIL = 'At most 2600 are possible.', COLUMN = 'id';
	ELSIF octet_length(NEW.org) > 2600 THEN
		RAISE EXCEPTION 'the organisation of user "%" has % bytes', NEW.id, octet_length(NEW.org)
			USING ERRCODE = 'string_data_right_truncation', DETAIL = 'At most 2600 are possible.', COLUMN = 'org';
	ELSIF NEW.create_time IS NULL OR NEW.update_time IS NULL THEN
		RAISE EXCEPTION 'column "%" of user "%" is null', CASE WHEN NEW.create_time IS NULL THEN 'create_time' ELSE 'update_time' END, NEW.id
			USING ERRCODE = 'null_value_not_allowed', HINT = 'Leave the column out.';
	ELSE
		RAISE EXCEPTION 'a project that user "%" starred has more than 2600 bytes', NEW.id
			USING ERRCODE = 'string_data_right_truncation', COLUMN = 'github_star', HINT = 'github_star is a list: separate the projects by commas.';
	END IF;
END
$$;
COMMENT ON FUNCTION quota_internal.check_user() IS 'Trigger: refuses a user whom a constraint would refuse, with a message that says why and does not show the row. It is called for such a user only.';
-- A valid row calls no function: users are loaded by the million.
CREATE TRIGGER check_user BEFORE INSERT OR UPDATE ON quota_manager.user_info
	FOR EACH ROW WHEN ((NEW.id <> '' AND pg_catalog.octet_length(NEW.id) <= 2600
		AND (NEW.org IS NULL OR pg_catalog.octet_length(NEW.org) <= 2600)
		AND (NEW.github_star IS NULL OR pg_catalog.octet_length(NEW.github_star) <= 2600 OR quota_internal.stars_fit(NEW.github_star))
		AND NEW.create_time IS NOT NULL AND NEW.update_time IS NOT NULL) IS NOT TRUE)
	EXECUTE FUNCTION quota_internal.check_user();
COMMENT ON TRIGGER check_user ON quota_manager.user_info IS 'Refuses a user whom a constraint would refuse, without showing the row.';
SELECT pg_catalog.pg_extension_config_dump('quota_manager.user_info', '');

-- A balance sample counts if it was requested after the last event of the user at the gateway and nothing is open there.
-- So each event clears balance and token: src/scan/balance_table.h.
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
COMMENT ON TABLE quota_manager.user_balance IS 'Balance samples: the remaining quota of users, per gateway.';
COMMENT ON COLUMN quota_manager.user_balance.user_id IS 'Id of the user.';
COMMENT ON COLUMN quota_manager.user_balance.gateway IS 'Gateway that was asked.';
COMMENT ON COLUMN quota_manager.user_balance.balance IS 'Remaining quota as answered; null: missing, because there was no answer or something happened to the user since the request.';
COMMENT ON COLUMN quota_manager.user_balance.read_time IS 'When it was requested; samples older than quota_manager.balance_max_age, or later than now, are not used.';
COMMENT ON COLUMN quota_manager.user_balance.token IS 'Token of the query whose answer is awaited; null: none.';
COMMENT ON COLUMN quota_manager.user_balance.lost_time IS 'When the answer to a grant or a change by hand was lost: for quota_manager.linger it may still arrive, and no balance is asked for. -infinity: never.';
COMMENT ON COLUMN quota_manager.user_balance.lost_moment IS 'The same in microseconds of the machine''s monotonic clock.';
COMMENT ON COLUMN quota_manager.user_balance.last_balance IS 'The last balance above 0 that was answered, also if it does not count any more; null: none, or its fall to 0 was accepted.';
COMMENT ON INDEX quota_manager.user_balance_readings IS 'Shows scans whether there are balance samples of a gateway.';
SELECT pg_catalog.pg_extension_config_dump('quota_manager.user_balance', '');

CREATE TABLE quota_manager.balance_suspension (
	gateway text PRIMARY KEY,
	since timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	reason text NOT NULL
);
COMMENT ON TABLE quota_manager.balance_suspension IS 'Gateways whose balances do not count, because those of nearly all users fell to 0 at once. Written by scans, ended by release_balances().';
COMMENT ON COLUMN quota_manager.balance_suspension.gateway IS 'Gateway whose balances count as missing.';
COMMENT ON COLUMN quota_manager.balance_suspension.since IS 'When a scan suspended them.';
COMMENT ON COLUMN quota_manager.balance_suspension.reason IS 'What the scan found.';
SELECT pg_catalog.pg_extension_config_dump('quota_manager.balance_suspension', '');

CREATE FUNCTION quota_internal.balance_horizon() RETURNS timestamptz
LANGUAGE C STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'qm_balance_horizon';
COMMENT ON FUNCTION quota_internal.balance_horizon() IS 'Balance samples requested at or before this time are too old: now() - quota_manager.balance_max_age.';

CREATE FUNCTION quota_internal.balance_clock() RETURNS timestamptz
LANGUAGE C STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'qm_balance_clock';
COMMENT ON FUNCTION quota_internal.balance_clock() IS 'Balance samples requested after this time, the present, date from before the clock was set back and are not used.';

CREATE FUNCTION quota_internal.answer_may_arrive(lost_time timestamptz, lost_moment bigint) RETURNS boolean
LANGUAGE C STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'qm_answer_may_arrive';
COMMENT ON FUNCTION quota_internal.answer_may_arrive(timestamptz, bigint) IS 'True if a request whose answer was lost then may still arrive at its gateway: for quota_manager.linger it may.';

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
