-- The type cron: canonical text, checked for syntax, ranges and impossible dates when read.

CREATE TYPE quota_manager.cron;

CREATE FUNCTION quota_internal.cron_in(cstring) RETURNS quota_manager.cron
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'qm_cron_in';
COMMENT ON FUNCTION quota_internal.cron_in(cstring) IS 'Input: checks syntax, ranges and impossible dates, stores the canonical text. Does not check that a time zone exists.';

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
	'The time zone that the schedule is read in: that of its CRON_TZ= prefix, if it has one. Does not check that it exists.';

CREATE FUNCTION quota_internal.firing_note(schedule quota_manager.cron, firing timestamp with time zone, zone text) RETURNS text
LANGUAGE C STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'qm_firing_note';
COMMENT ON FUNCTION quota_internal.firing_note(quota_manager.cron, timestamp with time zone, text) IS
	'How a change of the clock affects a firing: it stands for local times that do not exist, its local time comes twice, or times before it were skipped; null: not at all.';

CREATE FUNCTION quota_manager.schedule_now() RETURNS timestamp with time zone
LANGUAGE C VOLATILE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'qm_schedule_now';
COMMENT ON FUNCTION quota_manager.schedule_now() IS
	'The schedule clock: the real time, or where the superuser setting quota_manager.schedule_clock pins it.';

CREATE FUNCTION quota_internal.local_time(instant timestamp with time zone, zone text) RETURNS timestamp without time zone
LANGUAGE C STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'qm_local_time';
COMMENT ON FUNCTION quota_internal.local_time(timestamp with time zone, text) IS
	'Local time in a time zone. AT TIME ZONE takes a few names of zones, such as CET, for abbreviations without summer time; schedules do not.';

CREATE FUNCTION quota_internal.check_time_zone(zone text) RETURNS boolean
LANGUAGE C STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'qm_check_time_zone';
COMMENT ON FUNCTION quota_internal.check_time_zone(text) IS 'Whether the server knows a time zone of this name.';
