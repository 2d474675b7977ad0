/*
 * user_source.c
 *		The relation that scans read users from, and whose rights they read with.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/xlog.h"
#include "catalog/namespace.h"
#include "catalog/pg_am.h"
#include "catalog/pg_class.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "common/compat.h"
#include "common/role_danger.h"
#include "common/statement.h"
#include "scan/user_source.h"

static Statement own_users = {"SELECT quota_internal.has_own_users()", {0}};

static Statement relation_of_users = {
	"SELECT r.relation, r.is_own, r.users, r.with_balances, r.fingerprint"
	" FROM quota_internal.user_relation($1) r",
	{OIDOID}};

/* What keeps a role from evaluating for others; NULL: nothing. */
static char *
problem_of_worker(const char *name, Oid role)
{
	char *danger;

	if (!OidIsValid(role))
		return psprintf("names role \"%s\", which does not exist", name);
	danger = role_danger(role);
	return danger ? psprintf("names role \"%s\", which %s", name, danger) : NULL;
}

/* Raises an error if the role that evaluates for the caller cannot do so in this database. */
static void
require_access(Oid role, Oid caller)
{
	char *name = GetUserNameFromId(role, false);

	if (object_aclcheck(NamespaceRelationId, get_namespace_oid("quota_internal", false), role,
						ACL_USAGE) == ACLCHECK_OK)
		return;
	ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
					errmsg("role \"%s\" of quota_manager.worker_role has no access to the "
						   "extension in this database",
						   name),
					errdetail("It runs code that others have written in place of role \"%s\".",
							  GetUserNameFromId(caller, false)),
					errhint("SELECT quota_manager.grant_access(%s, 'worker');",
							quote_literal_cstr(quote_identifier(name)))));
}

/*
 * The role that evaluates in place of one that is a superuser, or can become
 * one: the code of others must not have such rights.  called: a condition function
 * of others, or NULL: the users are.
 */
static Oid
worker_role(Oid caller, const char *danger, const char *called)
{
	const char *name = GetConfigOption("quota_manager.worker_role", true, false);
	bool        named = name && name[0];
	Oid         role = named ? get_role_oid(name, true) : InvalidOid;
	char       *problem = named ? problem_of_worker(name, role) : pstrdup("is not set");
	char       *whose = called ? psprintf("Condition function %s", called) : "The user source";

	if (problem != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("code that others have written is not run as role \"%s\", which %s",
						GetUserNameFromId(caller, false), danger),
				 errdetail("%s is not the extension's own; quota_manager.worker_role %s.", whose,
						   problem),
				 errhint("Act as another role that quota_manager.grant_access was called for "
						 "(SET ROLE), or name the workers' role in quota_manager.worker_role: it "
						 "then acts for who can become a superuser.")));
	require_access(role, caller);
	return role;
}

/* The role that runs code of others for the caller. */
static Oid
reader_of_others_code(Oid caller, const char *called)
{
	char *danger = role_danger(caller);

	return danger == NULL ? caller : worker_role(caller, danger, called);
}

/*
 * True if a relation is an ordinary table, all of whose rows every reader sees and
 * all of whose changes are in the log.  With wal_level minimal those
 * of a table that this transaction has made or emptied are not.  Values of
 * virtual columns are not in the rows at all.
 */
static bool
is_ordinary(Oid relation)
{
	HeapTuple     tuple;
	Form_pg_class form;
	Relation      table;
	bool          plain;

	/* Locked before the row is read, which must stay valid during the scan. */
	LockRelationOid(relation, AccessShareLock);
	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relation));
	if (!HeapTupleIsValid(tuple))
		return false;
	form = (Form_pg_class) GETSTRUCT(tuple);
	plain = form->relkind == RELKIND_RELATION && form->relpersistence == RELPERSISTENCE_PERMANENT &&
			form->relam == HEAP_TABLE_AM_OID && !form->relrowsecurity && !form->relhassubclass &&
			!form->relispartition;
	ReleaseSysCache(tuple);
	if (!plain)
		return false;
	table = table_open(relation, NoLock);
	plain = RelationNeedsWAL(table) && !has_virtual_columns(RelationGetDescr(table));
	table_close(table, NoLock);
	return plain;
}

/*
 * The role that evaluates for the caller conditions that call a function of
 * others, or none (NULL), where the users need not be read.
 */
Oid
user_source_reader(Oid caller, const char *called)
{
	return called == NULL ? caller : reader_of_others_code(caller, called);
}

/* Finds the relation for source->reader.  SPI is connected. */
static void
find_relation(UserSource *source, MemoryContext memory)
{
	MemoryContext caller;
	bool          isnull;

	(void) statement_run(&relation_of_users, ARGS(arg_datum(ObjectIdGetDatum(source->reader))));
	source->relation = DatumGetObjectId(result_datum(0, 1, &isnull));
	source->is_own = result_bool(0, 2);
	caller = MemoryContextSwitchTo(memory);
	source->users = result_text(0, 3);
	source->with_balances = result_text(0, 4);
	MemoryContextSwitchTo(caller);
	source->fingerprint = result_int64(0, 5);
	source->is_plain = is_ordinary(source->relation);
}

/*
 * Finds where users are read, and by which role, for a caller and conditions that
 * call a function of others, or none (NULL); allocates in memory.  An error where
 * code of others would run as a superuser.
 */
void
user_source_find(UserSource *source, Oid caller, const char *called, MemoryContext memory)
{
	bool runs_others_code;

	SPI_connect();
	runs_others_code = called != NULL || !statement_is_true(&own_users, NULL);
	source->reader = runs_others_code ? reader_of_others_code(caller, called) : caller;
	find_relation(source, memory);
	/* Another one may have been set in between. */
	if (!runs_others_code && !source->is_own)
	{
		source->reader = reader_of_others_code(caller, NULL);
		find_relation(source, memory);
	}
	SPI_finish();
}
