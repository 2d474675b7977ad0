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
 * The owner of quota_internal.  Only the extension can have made that schema;
 * the schema that it was installed in may have another owner.
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
 * Becomes the owner of the extension's schema quota_internal.  Until
 * rights_restore, run only statements whose text is ours and that call no code
 * of others.  Restrictions of the present operation stay in force.
 */
void
rights_become_owner(RightsBefore *before)
{
	Oid owner = extension_owner();

	before->settings_level = 0;
	GetUserIdAndSecContext(&before->user, &before->context);
	SetUserIdAndSecContext(owner, before->context | SECURITY_LOCAL_USERID_CHANGE);
}

/*
 * Becomes the caller under SECURITY_RESTRICTED_OPERATION: for code that others
 * have written, and for reading what the caller may see.  Settings that the
 * code changes, such as search_path, are undone by rights_restore, since the
 * code after it may run as the owner.  Raises an error within a
 * security-restricted operation, so that such code cannot come back here.
 */
void
rights_become_caller(RightsBefore *before)
{
	rights_become_reader(rights_caller(), before);
}

/*
 * The same as rights_become_caller, as a role that reads in place of the
 * caller.
 */
void
rights_become_reader(Oid role, RightsBefore *before)
{
	rights_require_caller();
	rights_become_restricted(role, before);
}

/*
 * The same as rights_become_reader, also within such an operation: for a role
 * that is the current user, or has fewer rights.
 */
void
rights_become_restricted(Oid role, RightsBefore *before)
{
	before->settings_level = NewGUCNestLevel();
	GetUserIdAndSecContext(&before->user, &before->context);
	SetUserIdAndSecContext(role, before->context | SECURITY_LOCAL_USERID_CHANGE |
									 SECURITY_RESTRICTED_OPERATION);
}

/* Restores the rights and settings of before the change. */
void
rights_restore(const RightsBefore *before)
{
	if (before->settings_level > 0)
		AtEOXact_GUC(false, before->settings_level);
	SetUserIdAndSecContext(before->user, before->context);
}

/* The caller, whoever is the current user. */
Oid
rights_caller(void)
{
	return GetOuterUserId();
}

/*
 * Raises an error within a security-restricted operation, for what only the
 * caller may ask for: a condition, a view or an index that others have written
 * must not decide about grants or call a gateway.
 */
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
