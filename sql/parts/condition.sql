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
-- Implicit, so that @@ takes a parameter of type text.
CREATE CAST (pg_catalog.text AS quota_manager.condition) WITH INOUT AS IMPLICIT;
COMMENT ON CAST (quota_manager.condition AS pg_catalog.text) IS 'The canonical text.';
COMMENT ON CAST (pg_catalog.text AS quota_manager.condition) IS 'Checks syntax and limits.';
