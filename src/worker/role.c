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
 * Of the launcher: who the workers are to be.  InvalidOid: nobody; *problem
 * says why (NULL: they are switched off), valid until the next call, and the
 * log does, once.  Must be called in a transaction.
 */
Oid
find_worker_role(const char **problem)
{
	static char *last_problem = NULL;
	Oid          role = InvalidOid;
	const char  *hint = NULL;

	*problem = workers_setting ? check_worker_role(&role, &hint) : NULL;
	if (*problem != NULL && (last_problem == NULL || strcmp(*problem, last_problem) != 0))
		ereport(WARNING,
				(errcode(ERRCODE_CONFIG_FILE_ERROR),
				 errmsg("quota_manager workers do not run: %s", *problem), errhint("%s", hint)));
	if (last_problem != NULL)
		pfree(last_problem);
	last_problem = *problem ? MemoryContextStrdup(TopMemoryContext, *problem) : NULL;
	*problem = last_problem;
	return role;
}
