/*
 * role.c
 *		The role that workers run as.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_authid.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#include "common/role_danger.h"
#include "worker/process.h"

/*
 * What is wrong with quota_manager.worker_role.  NULL: nothing, and *role is
 * set.  Otherwise a message, with *hint.  Must be called in a transaction; for
 * any backend.  A superuser, or who can become one, is refused: conditions
 * call functions that anyone who may write them has made, with the rights of
 * this role.
 */
const char *
check_worker_role(Oid *role, const char **hint)
{
	HeapTuple      tuple;
	Form_pg_authid form;
	const char    *problem = NULL;
	const char    *danger;

	*role = InvalidOid;
	*hint = "Make a role with CREATE ROLE name LOGIN, call quota_manager.grant_access('name', "
			"'worker') "
			"in each database, and name it in quota_manager.worker_role.";
	if (worker_role == NULL || worker_role[0] == '\0')
		return "quota_manager.worker_role is not set";

	tuple = SearchSysCache1(AUTHNAME, CStringGetDatum(worker_role));
	if (!HeapTupleIsValid(tuple))
		return psprintf("role \"%s\" of quota_manager.worker_role does not exist", worker_role);
	form = (Form_pg_authid) GETSTRUCT(tuple);
	danger = role_danger(form->oid);
	if (danger != NULL)
	{
		problem = psprintf("role \"%s\" of quota_manager.worker_role %s", worker_role, danger);
		*hint = "Conditions call functions that others have written: name a role without rights "
				"but those of quota_manager.grant_access(role, 'worker').";
	}
	else if (!form->rolcanlogin)
	{
		problem = psprintf("role \"%s\" of quota_manager.worker_role is not permitted to log in",
						   worker_role);
		*hint = psprintf("Permit it with ALTER ROLE %s LOGIN.", quote_identifier(worker_role));
	}
	else
		*role = form->oid;
	ReleaseSysCache(tuple);
	return problem;
}

/*
 * Of the launcher: the role of the workers.  InvalidOid: none are to run;
 * *problem says why (NULL: they are switched off), and the log does where that
 * is not what *problem was.  Must be called in a transaction.
 */
Oid
find_worker_role(char **problem)
{
	Oid         role = InvalidOid;
	const char *hint = NULL;
	const char *found = workers_setting ? check_worker_role(&role, &hint) : NULL;

	if (found != NULL && (*problem == NULL || strcmp(found, *problem) != 0))
		ereport(WARNING,
				(errcode(ERRCODE_CONFIG_FILE_ERROR),
				 errmsg("quota_manager workers do not run: %s", found), errhint("%s", hint)));
	if (*problem != NULL)
		pfree(*problem);
	*problem = found ? MemoryContextStrdup(TopMemoryContext, found) : NULL;
	return role;
}
