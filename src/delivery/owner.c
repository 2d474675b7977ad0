/*
 * owner.c
 *		Acting as the owner of the extension's tables for a moment.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "miscadmin.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "delivery/owner.h"

/*
 * Becomes the owner of quota_manager.<table>.
 */
void
become_owner(const char *table, CallerIdentity *caller)
{
	Oid       schema = get_namespace_oid("quota_manager", false);
	Oid       relation = get_relname_relid(table, schema);
	HeapTuple tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relation));
	Oid       owner;

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_TABLE),
						errmsg("table quota_manager.%s does not exist", table)));
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);

	GetUserIdAndSecContext(&caller->user, &caller->context);
	SetUserIdAndSecContext(owner, caller->context | SECURITY_LOCAL_USERID_CHANGE |
									  SECURITY_RESTRICTED_OPERATION);
}

void
become_caller(const CallerIdentity *caller)
{
	SetUserIdAndSecContext(caller->user, caller->context);
}
