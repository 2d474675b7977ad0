/*
 * user_source.c
 *		The relation that scans read users from, and whose rights they read with.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/xlog.h"
#include "catalog/pg_am.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/guc.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "common/compat.h"
#include "common/rights.h"
#include "common/role_danger.h"
#include "scan/user_source.h"

/*
 * The role that evaluates in place of one that is a superuser, or can become
 * one: the code of others must not have such rights.
 */
static Oid
worker_role(const char *danger)
{
	const char *name = GetConfigOption("quota_manager.worker_role", true, false);
	Oid         role = name && name[0] ? get_role_oid(name, true) : InvalidOid;

	if (!OidIsValid(role) || role_danger(role) != NULL)
		ereport(
			ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("code that others have written is not run as role \"%s\", which %s",
					GetUserNameFromId(rights_caller(), false), danger),
			 errdetail("A condition function or the user source is not the extension's own."),
			 errhint("Scan as another role that quota_manager.grant_access was called for, or name "
					 "the workers' role in quota_manager.worker_role: who can become a superuser "
					 "scans as it then.")));
	return role;
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
 * Finds where users are read, and by which role, for conditions that run code
 * of others or not; allocates in memory.  An error where code of others would
 * run as a superuser.  Run as the owner.
 */
void
user_source_find(UserSource *source, bool runs_others_code, MemoryContext memory)
{
	Oid   types[] = {OIDOID};
	Datum values[1];
	bool  isnull;
	char *danger;

	source->reader = rights_caller();
	SPI_connect();
	if (!runs_others_code)
	{
		if (SPI_execute("SELECT quota_internal.has_own_users()", false, 1) != SPI_OK_SELECT ||
			SPI_processed != 1)
			elog(ERROR, "could not look up the user source");
		runs_others_code =
			!DatumGetBool(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	}
	danger = runs_others_code ? role_danger(source->reader) : NULL;
	if (danger != NULL)
		source->reader = worker_role(danger);
	values[0] = ObjectIdGetDatum(source->reader);
	if (SPI_execute_with_args("SELECT r.relation, r.is_own, r.users, r.with_balances, r.fingerprint"
							  " FROM quota_internal.user_relation($1) r",
							  1, types, values, NULL, false, 1) != SPI_OK_SELECT ||
		SPI_processed != 1)
		elog(ERROR, "could not look up the user source");
	source->relation =
		DatumGetObjectId(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	source->is_own =
		DatumGetBool(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2, &isnull));
	source->users =
		MemoryContextStrdup(memory, SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 3));
	source->with_balances =
		MemoryContextStrdup(memory, SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 4));
	source->fingerprint =
		DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 5, &isnull));
	source->is_plain = is_ordinary(source->relation);
	SPI_finish();
}
