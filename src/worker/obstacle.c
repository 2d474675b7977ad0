/*
 * obstacle.c
 *		What keeps a scheduler from its work in a database, and how people are told.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_proc.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "nodes/value.h"
#include "parser/parse_func.h"
#include "utils/acl.h"
#include "utils/lsyscache.h"

#include "common/compat.h"
#include "common/version.h"
#include "worker/obstacle.h"
#include "worker/process.h"

/*
 * What workers cannot do without; what else they may need is reported by who
 * needs it.  They write as the owner of the extension, but read what conditions
 * are asked about with their own rights.
 */
static const char *const needed_schemas[] = {"quota_manager", "quota_internal", "quota_condition"};

static const char *const needed_tables[] = {
	"quota_strategy", "quota_installation", "quota_run",    "quota_execute",
	"quota_gateway",  "quota_model",        "user_balance", "balance_suspension",
};

/* Whoever may call them may do what workers do. */
static const char *const needed_procedures[] = {"tick", "deliver"};

/*
 * Whether the role may use objects in a schema.
 */
static bool
may_use_schema(Oid schema)
{
	return object_aclcheck(NamespaceRelationId, schema, GetUserId(), ACL_USAGE) == ACLCHECK_OK;
}

/*
 * Whether the role may call a procedure.
 */
static bool
may_call(Oid procedure)
{
	return object_aclcheck(ProcedureRelationId, procedure, GetUserId(), ACL_EXECUTE) == ACLCHECK_OK;
}

/*
 * The first of the schemas that is missing, or that the role may not use.
 */
static SchedulerEnd
find_schema_obstacle(char *what)
{
	for (int i = 0; i < lengthof(needed_schemas); i++)
	{
		const char *name = needed_schemas[i];
		Oid         schema = get_namespace_oid(name, true);

		if (!OidIsValid(schema))
		{
			snprintf(what, OBSTACLE_SIZE, "schema %s", name);
			return SCHEDULER_DAMAGED;
		}
		if (!may_use_schema(schema))
		{
			snprintf(what, OBSTACLE_SIZE, "USAGE on schema %s", name);
			return SCHEDULER_FORBIDDEN;
		}
	}
	return SCHEDULER_YIELDED;
}

/*
 * The first of the tables that is missing, or that the role may not read.
 */
static SchedulerEnd
find_table_obstacle(char *what)
{
	Oid schema = get_namespace_oid("quota_manager", false);

	for (int i = 0; i < lengthof(needed_tables); i++)
	{
		const char *name = needed_tables[i];
		Oid         table = get_relname_relid(name, schema);

		if (!OidIsValid(table))
		{
			snprintf(what, OBSTACLE_SIZE, "table quota_manager.%s", name);
			return SCHEDULER_DAMAGED;
		}
		if (pg_class_aclcheck(table, GetUserId(), ACL_SELECT) != ACLCHECK_OK)
		{
			snprintf(what, OBSTACLE_SIZE, "SELECT on table quota_manager.%s", name);
			return SCHEDULER_FORBIDDEN;
		}
	}
	return SCHEDULER_YIELDED;
}

/*
 * The first of the procedures that is missing, or that the role may not call.
 */
static SchedulerEnd
find_procedure_obstacle(char *what)
{
	for (int i = 0; i < lengthof(needed_procedures); i++)
	{
		char           *name = pstrdup(needed_procedures[i]);
		ObjectWithArgs *object = makeNode(ObjectWithArgs);
		Oid             procedure;

		object->objname = list_make2(makeString("quota_manager"), makeString(name));
		object->args_unspecified = true;
		procedure = LookupFuncWithArgs(OBJECT_PROCEDURE, object, true);
		if (!OidIsValid(procedure))
		{
			snprintf(what, OBSTACLE_SIZE, "procedure quota_manager.%s", name);
			return SCHEDULER_DAMAGED;
		}
		if (!may_call(procedure))
		{
			snprintf(what, OBSTACLE_SIZE, "EXECUTE on procedure quota_manager.%s", name);
			return SCHEDULER_FORBIDDEN;
		}
	}
	return SCHEDULER_YIELDED;
}

/*
 * Looks for what is missing in this database.  SCHEDULER_YIELDED: nothing is.
 * Otherwise ABSENT, INCOMPATIBLE, DAMAGED or FORBIDDEN, and `what` (of
 * OBSTACLE_SIZE bytes) names it.  In a transaction of a worker.
 */
SchedulerEnd
find_obstacle(char *what)
{
	InstalledExtension extension = installed_extension();
	SchedulerEnd       obstacle;

	what[0] = '\0';
	if (!OidIsValid(extension.oid))
		return SCHEDULER_ABSENT;
	if (!extension_fits(&extension))
	{
		strlcpy(what, extension.version, OBSTACLE_SIZE);
		return SCHEDULER_INCOMPATIBLE;
	}
	obstacle = find_schema_obstacle(what);
	if (obstacle == SCHEDULER_YIELDED)
		obstacle = find_table_obstacle(what);
	if (obstacle == SCHEDULER_YIELDED)
		obstacle = find_procedure_obstacle(what);
	return obstacle;
}

/*
 * Logs it, with what to do.
 */
void
explain_obstacle(SchedulerEnd obstacle, const char *what, const char *database)
{
	switch (obstacle)
	{
		case SCHEDULER_BROKE:
		case SCHEDULER_YIELDED:
			break;
		case SCHEDULER_ABSENT:
			ereport(DEBUG1, (errmsg_internal("database \"%s\" has no quota_manager", database)));
			break;
		case SCHEDULER_DISABLED:
			ereport(LOG, (errmsg("quota_manager workers of database \"%s\" are stopped", database),
						  errhint("Start them with quota_manager.start_workers().")));
			break;
		case SCHEDULER_FORBIDDEN:
			ereport(WARNING,
					(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
					 errmsg("role \"%s\" may not run quota_manager in database \"%s\"", worker_role,
							database),
					 errdetail("It lacks the privilege %s.", what),
					 errhint("In that database call quota_manager.grant_access('%s', 'worker').",
							 worker_role)));
			break;
		case SCHEDULER_DAMAGED:
			ereport(WARNING,
					(errcode(ERRCODE_UNDEFINED_TABLE),
					 errmsg("quota_manager does not run in database \"%s\": %s is missing",
							database, what),
					 errhint("Rename it back, or create the extension again. The workers go on "
							 "by themselves then.")));
			break;
		case SCHEDULER_INCOMPATIBLE:
			ereport(WARNING,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("extension quota_manager in database \"%s\" is at version %s, the "
							"library is %s",
							database, what, QUOTA_MANAGER_VERSION),
					 errhint("%s", VERSION_HINT)));
			break;
	}
}
