-- Functions that write run as the owner of the extension; these read and run statements as the caller.

CREATE FUNCTION quota_internal.require_caller() RETURNS void
LANGUAGE C VOLATILE AS 'MODULE_PATHNAME', 'qm_require_caller';
COMMENT ON FUNCTION quota_internal.require_caller() IS 'Raises an error within a security-restricted operation: code of others must not decide about grants.';

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

CREATE FUNCTION quota_internal.said_by() RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	RETURN left(nullif(nullif(current_setting('request.jwt.claims', true), '')::json ->> 'sub', ''), 200);
EXCEPTION WHEN data_exception OR statement_too_complex THEN
	-- Not from PostgREST, which writes an object.
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION quota_internal.said_by() IS 'The person that acts, as PostgREST names it: the subject of the token it checked; null: none is named. Any session can set it, so it proves nothing by itself.';

CREATE FUNCTION quota_internal.may_restore(relation oid) RETURNS boolean
LANGUAGE sql STABLE
RETURN pg_catalog.pg_has_role((SELECT c.relowner FROM pg_catalog.pg_class c WHERE c.oid OPERATOR(pg_catalog.=) relation), 'USAGE');
COMMENT ON FUNCTION quota_internal.may_restore(oid) IS 'Of triggers: is the current user the owner of the table, or a superuser? Only they may write what a restore writes.';
