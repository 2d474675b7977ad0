/*
 * role_danger.c
 *		Roles that are superusers, or can become one.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_authid.h"
#include "fmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"

#include "common/compat.h"
#include "common/role_danger.h"

PG_FUNCTION_INFO_V1(qm_role_danger);

/* Roles whose members reach the server's files or programs, and by these everything. */
static const Oid server_roles[] = {ROLE_PG_READ_SERVER_FILES, ROLE_PG_WRITE_SERVER_FILES,
								   ROLE_PG_EXECUTE_SERVER_PROGRAM};

/* What a role can do, or NULL if it is harmless by itself. */
static const char *
own_danger(Form_pg_authid role)
{
	if (role->rolsuper)
		return "is a superuser";
	if (CREATEROLE_GRANTS_ANY && role->rolcreaterole)
		return "may create roles";
	for (int i = 0; i < lengthof(server_roles); i++)
	{
		if (role->oid == server_roles[i])
			return "reaches the files or programs of the server";
	}
	return NULL;
}

/*
 * Why a role is one of these, such as "is a superuser", allocated in the
 * current memory context; NULL: it is harmless.  Needs a transaction but no
 * database: only shared catalogues are read.  Memberships count whether they
 * are inherited or not: SET ROLE is enough.
 */
char *
role_danger(Oid role)
{
	Relation    roles = table_open(AuthIdRelationId, AccessShareLock);
	SysScanDesc scan = systable_beginscan(roles, InvalidOid, false, NULL, 0, NULL);
	HeapTuple   tuple;
	char       *result = NULL;

	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_authid other = (Form_pg_authid) GETSTRUCT(tuple);
		const char    *danger = own_danger(other);

		if (danger == NULL || !is_member_of_role_nosuper(role, other->oid))
			continue;
		result = other->oid == role ? pstrdup(danger)
									: psprintf("is a member of role \"%s\", which %s",
											   NameStr(other->rolname), danger);
		if (other->oid == role)
			break;
	}
	systable_endscan(scan);
	table_close(roles, AccessShareLock);
	return result;
}

/* role_danger(oid) */
Datum
qm_role_danger(PG_FUNCTION_ARGS)
{
	char *danger = role_danger(PG_GETARG_OID(0));

	if (danger == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(danger));
}
