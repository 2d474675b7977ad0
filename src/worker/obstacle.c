/*
 * obstacle.c
 *		What keeps a scheduler from its work in a database, and how people are told.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_namespace.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/lsyscache.h"

#include "common/version.h"
#include "worker/obstacle.h"
#include "worker/process.h"

/* What workers cannot do without; what else they may need is reported by who needs it. */
static const struct
{
	const char *table;
	AclMode     privileges;
} needed_tables[] = {
	{"quota_strategy", ACL_SELECT},
	{"quota_installation", ACL_SELECT},
	{"quota_run", ACL_SELECT | ACL_INSERT | ACL_UPDATE},
	{"quota_execute", ACL_SELECT | ACL_INSERT},
	{"quota_gateway", ACL_SELECT},
	{"quota_model", ACL_SELECT},
	{"user_balance", ACL_SELECT | ACL_INSERT | ACL_UPDATE},
	{"balance_suspension", ACL_SELECT | ACL_INSERT},
};

static const struct
{
	AclMode     privilege;
	const char *name;
} privilege_names[] = {
	{ACL_SELECT, "SELECT"},
	{ACL_INSERT, "INSERT"},
	{ACL_UPDATE, "UPDATE"},
};

/*
 * Whether the role may use objects in a schema.
 */
static bool
may_use_schema(Oid schema)
{
#if PG_VERSION_NUM >= 160000
	return object_aclcheck(NamespaceRelationId, schema, GetUserId(), ACL_USAGE) == ACLCHECK_OK;
#else
	return pg_namespace_aclcheck(schema, GetUserId(), ACL_USAGE) == ACLCHECK_OK;
#endif
}

/*
 * The first of the privileges on a table that the role lacks; NULL: none.
 */
static const char *
lacking_privilege(Oid table, AclMode privileges)
{
	for (int i = 0; i < lengthof(privilege_names); i++)
	{
		AclMode privilege = privilege_names[i].privilege;

		if ((privileges & privilege) != 0 &&
			pg_class_aclcheck(table, GetUserId(), privilege) != ACLCHECK_OK)
			return privilege_names[i].name;
	}
	return NULL;
}

/*
 * See obstacle.h.
 */
SchedulerEnd
find_obstacle(char *what)
{
	InstalledExtension extension = installed_extension();
	Oid                schema;

	what[0] = '\0';
	if (!OidIsValid(extension.oid))
		return SCHEDULER_ABSENT;
	if (!extension_fits(&extension))
	{
		strlcpy(what, extension.version, OBSTACLE_SIZE);
		return SCHEDULER_INCOMPATIBLE;
	}
	schema = get_namespace_oid("quota_manager", true);
	if (!OidIsValid(schema))
	{
		strlcpy(what, "schema quota_manager", OBSTACLE_SIZE);
		return SCHEDULER_DAMAGED;
	}
	if (!may_use_schema(schema))
	{
		strlcpy(what, "USAGE on schema quota_manager", OBSTACLE_SIZE);
		return SCHEDULER_FORBIDDEN;
	}
	for (int i = 0; i < lengthof(needed_tables); i++)
	{
		const char *name = needed_tables[i].table;
		Oid         table = get_relname_relid(name, schema);
		const char *privilege;

		if (!OidIsValid(table))
		{
			snprintf(what, OBSTACLE_SIZE, "table quota_manager.%s", name);
			return SCHEDULER_DAMAGED;
		}
		privilege = lacking_privilege(table, needed_tables[i].privileges);
		if (privilege != NULL)
		{
			snprintf(what, OBSTACLE_SIZE, "%s on table quota_manager.%s", privilege, name);
			return SCHEDULER_FORBIDDEN;
		}
	}
	return SCHEDULER_YIELDED;
}

/*
 * See obstacle.h.
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
