/*
 * rights.c
 *		Whose rights the code of the extension acts with.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_namespace.h"
#include "miscadmin.h"
#include "utils/guc.h"
#include "utils/syscache.h"

#include "common/rights.h"

/*
 * The owner of quota_internal.  That schema can have been made by the extension
 * only, whoever owns the one that it was installed in.
 */
static Oid
extension_owner(void)
{
	HeapTuple tuple = SearchSysCache1(NAMESPACENAME, CStringGetDatum("quota_internal"));
	Oid       owner;

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_SCHEMA),
						errmsg("schema quota_internal of extension quota_manager does not exist")));
	owner = ((Form_pg_namespace) GETSTRUCT(tuple))->nspowner;
	ReleaseSysCache(tuple);
	return owner;
}

/*
 * What restricts the present operation goes on to restrict it.
 */
void
rights_become_owner(RightsBefore *before)
{
	Oid owner = extension_owner();

	before->settings_level = 0;
	GetUserIdAndSecContext(&before->user, &before->context);
	SetUserIdAndSecContext(owner, before->context | SECURITY_LOCAL_USERID_CHANGE);
}

void
rights_become_caller(RightsBefore *before)
{
	rights_become_reader(rights_caller(), before);
}

void
rights_become_reader(Oid role, RightsBefore *before)
{
	rights_require_caller();
	before->settings_level = NewGUCNestLevel();
	GetUserIdAndSecContext(&before->user, &before->context);
	SetUserIdAndSecContext(role, before->context | SECURITY_LOCAL_USERID_CHANGE |
									 SECURITY_RESTRICTED_OPERATION);
}

void
rights_restore(const RightsBefore *before)
{
	if (before->settings_level > 0)
		AtEOXact_GUC(false, before->settings_level);
	SetUserIdAndSecContext(before->user, before->context);
}

Oid
rights_caller(void)
{
	return GetOuterUserId();
}

void
rights_require_caller(void)
{
	if (InSecurityRestrictedOperation())
		ereport(
			ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg(
				 "quota_manager cannot be asked for this within a security-restricted operation"),
			 errdetail("Code of others runs in such an operation: conditions, indexes, "
					   "materialized views.")));
}
