-- The relation that scans read users from: user_info, or one of the site.

CREATE FUNCTION quota_internal.check_source_owner(source text) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	known CONSTANT text := (SELECT i.user_source_owner FROM quota_manager.quota_installation i);
	-- By the catalogue: the caller may lack USAGE on the schema.
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
	-- A view reads its tables as its owner, or as the caller if security_invoker is set. The caller may lack USAGE on the schema.
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
COMMENT ON FUNCTION quota_internal.missing_source_rights(text, oid) IS 'GRANT statements that a role needs to read the user source; null: none. An error if its owner has changed.';

CREATE FUNCTION quota_internal.has_own_users() RETURNS boolean
LANGUAGE sql STABLE
BEGIN ATOMIC
	SELECT NOT EXISTS (SELECT 1 FROM quota_manager.quota_installation i WHERE i.user_source IS NOT NULL);
END;
COMMENT ON FUNCTION quota_internal.has_own_users() IS 'True if scans read users from user_info; otherwise they read the relation of set_user_source.';

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
	-- Without a balance call the join is left out here, which saves planning time.
	users := format('(SELECT u.id, %sROW(%s)::quota_manager.subject AS subject FROM %s u)',
		CASE WHEN (SELECT c.relkind FROM pg_class c WHERE c.oid = relation) = 'r' THEN 'u.ctid AS position, ' ELSE '' END,
		replace(columns, 'b.balances', 'NULL'), relation::regclass);
	with_balances := format('(SELECT u.id, ROW(%s)::quota_manager.subject AS subject FROM %s u LEFT JOIN quota_manager.known_balance b ON b.user_id = u.id)',
		columns, relation::regclass);
	-- An added column has a value in all rows without a write of any. Another server has another log.
	fingerprint := (SELECT hashtextextended(concat_ws(' ', (SELECT p.system_identifier FROM quota_internal.present_identity() p), relation, pg_relation_filenode(relation), (SELECT e.extversion FROM pg_extension e WHERE e.extname = 'quota_manager'),
			string_agg(concat_ws(' ', a.attnum, a.attname, a.atttypid, a.attmissingval), ' ' ORDER BY a.attnum)), 0)
		FROM pg_attribute a WHERE a.attrelid = relation AND a.attnum > 0);
END
$$;
COMMENT ON FUNCTION quota_internal.user_relation(oid) IS 'Relation that scans read users from, for a role that reads them (null: rights are not checked): the relation, whether it is user_info, and subqueries over it with the columns id and subject, without and with balances; position is the ctid in an ordinary table; fingerprint identifies the table''s server, columns and file.';

-- Questions about users: who asks is answered by the role that would evaluate for it in a scan.
CREATE FUNCTION quota_internal.ask(query text, conditions quota_manager.condition[], argument "any") RETURNS SETOF record
LANGUAGE C STABLE SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'qm_ask';
COMMENT ON FUNCTION quota_internal.ask(text, quota_manager.condition[], "any") IS 'The rows of a query about conditions, in which $1 is the argument: with the rights of the current user or, where the query runs code of others and that could become a superuser, with those of the workers'' role; as a security-restricted operation that only reads and leaves nothing behind.';

CREATE FUNCTION quota_internal.ask_about_users(query text, conditions quota_manager.condition[], argument "any") RETURNS SETOF record
LANGUAGE C STABLE SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'qm_ask_about_users';
COMMENT ON FUNCTION quota_internal.ask_about_users(text, quota_manager.condition[], "any") IS 'The same of a query over users, with the columns id and subject: those that scans find, or an error if the role that answers may not read them.';

CREATE FUNCTION quota_internal.only_built_in(condition quota_manager.condition) RETURNS quota_manager.condition
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'qm_only_built_in';
COMMENT ON FUNCTION quota_internal.only_built_in(quota_manager.condition) IS 'The condition if it is valid and calls only functions of the extension, whose names are reserved; null: it may run code of others.';

-- The view subject reads the relation of the site, too, but must not depend on it: DROP TABLE ... CASCADE of the site's would
-- drop the view, and with it the extension.  So it reads this function, whose body is text, and the planner inlines it: indexes
-- of the relation are used.  Without a relation of the site the view reads user_info itself.
CREATE FUNCTION quota_internal.source_users()
RETURNS TABLE (id text, name text, github_username text, email text, phone text, github_star text, vip integer, org text,
	register_time timestamptz, access_time timestamptz)
LANGUAGE sql STABLE
BEGIN ATOMIC
	SELECT u.id, u.name, u.github_username, u.email, u.phone, u.github_star, u.vip, u.org, u.register_time, u.access_time FROM quota_manager.user_info u;
END;
COMMENT ON FUNCTION quota_internal.source_users() IS 'Of subject: the users in the relation of set_user_source, with the rights of the caller. Made anew when another relation is set.';

CREATE FUNCTION quota_internal.source_is_known() RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	PERFORM quota_internal.check_source_owner((SELECT i.user_source FROM quota_manager.quota_installation i));
	RETURN true;
END
$$;
COMMENT ON FUNCTION quota_internal.source_is_known() IS 'Of subject: true, or an error if the user source is owned by another role than when set_user_source was called for it.';

CREATE FUNCTION quota_internal.map_subject() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET check_function_bodies = off SET quota_manager.pinned_statistics = on
AS $$
DECLARE
	relation CONSTANT oid := to_regclass(NEW.user_source);
BEGIN
	IF NEW.user_source IS NOT NULL THEN
		-- In a restore the relation comes later, perhaps; then it has the columns of subject, until it is set again.
		EXECUTE format('CREATE OR REPLACE FUNCTION quota_internal.source_users()
				RETURNS TABLE (id text, name text, github_username text, email text, phone text, github_star text, vip integer, org text,
					register_time timestamptz, access_time timestamptz)
				LANGUAGE sql STABLE AS %L',
			format('SELECT %s FROM %s u CROSS JOIN (SELECT 1 WHERE quota_internal.source_is_known() OFFSET 0) k',
				(SELECT string_agg(CASE WHEN relation IS NULL OR a.attname IS NOT NULL THEN format('u.%I', s.attname)
						ELSE 'NULL::' || format_type(s.atttypid, -1) END, ', ' ORDER BY s.attnum)
					FROM pg_attribute s LEFT JOIN pg_attribute a ON a.attrelid = relation AND a.attname = s.attname AND a.attnum > 0 AND NOT a.attisdropped
					WHERE s.attrelid = 'quota_manager.subject'::regclass AND s.attnum > 0 AND s.attname <> 'balances'),
				(SELECT string_agg(quote_ident(p.part), '.' ORDER BY p.place) FROM unnest(parse_ident(NEW.user_source)) WITH ORDINALITY p (part, place))));
	END IF;
	EXECUTE format('CREATE OR REPLACE VIEW quota_manager.subject WITH (security_invoker = true) AS
			SELECT u.id, u.name, u.github_username, u.email, u.phone, u.github_star, u.vip, u.org, u.register_time, u.access_time, b.balances
			FROM %s u LEFT JOIN quota_manager.known_balance b ON b.user_id OPERATOR(pg_catalog.=) u.id',
		CASE WHEN NEW.user_source IS NULL THEN 'quota_manager.user_info' ELSE 'quota_internal.source_users()' END);
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION quota_internal.map_subject() IS 'Trigger: lets the view subject show the users that scans find, also when a dump is restored.';
CREATE TRIGGER map_subject AFTER UPDATE OF user_source ON quota_manager.quota_installation
	FOR EACH ROW WHEN (OLD.user_source IS NOT NULL OR NEW.user_source IS NOT NULL) EXECUTE FUNCTION quota_internal.map_subject();
COMMENT ON TRIGGER map_subject ON quota_manager.quota_installation IS 'The view subject shows the users that scans find.';
CREATE TRIGGER map_restored_subject AFTER INSERT ON quota_manager.quota_installation
	FOR EACH ROW WHEN (NEW.user_source IS NOT NULL) EXECUTE FUNCTION quota_internal.map_subject();
COMMENT ON TRIGGER map_restored_subject ON quota_manager.quota_installation IS 'The same for a row that is new, or restored.';

CREATE FUNCTION quota_internal.explain_as_owner(relation oid, query text) RETURNS text
LANGUAGE C VOLATILE STRICT AS 'MODULE_PATHNAME', 'qm_explain_as_owner';
COMMENT ON FUNCTION quota_internal.explain_as_owner(oid, text) IS 'Of set_user_source(): the plan of a query over a relation as JSON, planned with the rights of the relation''s owner: so code of the relation runs as no other role.';

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
	-- Roles that scan: the workers' role, and roles that were granted it. An administrator may grant missing rights later.
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
			-- Planning as the owner of the source rarely needs rights of the extension.
			indexed := false;
			advice := format('Not known: the owner of the source cannot have it planned (%s).', SQLERRM);
			RETURN NEXT;
			CONTINUE;
		END;
		-- The index must be searched for the condition; the source may use other indexes for itself.
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
			-- If its rows are on other servers, the index has another name there.
			relation := coalesce(to_regclass(quote_ident(node ->> 'Schema') || '.' || quote_ident(node ->> 'Relation Name')), users.relation);
			-- The filter is an expression to be indexed, an operator and a constant.
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
COMMENT ON FUNCTION quota_manager.create_access_time_index() IS 'Indexes user_info.access_time for access-after. Logins then cost more: their updates can no longer stay in place. pg_dump does not keep it.';
