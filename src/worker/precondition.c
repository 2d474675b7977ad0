/*
 * precondition.c
 *		What workers need in a database: the extension in a version that the
 *		library serves, its objects, and the rights that grant_access gives them.
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
#include "worker/precondition.h"
#include "worker/worker.h"

/*
 * What workers cannot do without, schemas first; for what else they need, an
 * error says so.  They write as the owner of the extension, but read what
 * conditions ask for with their own rights.  Whoever may call the procedures may
 * do what workers do.
 */
static const struct
{
	ObjectType  type;
	const char *name;
} needed_objects[] = {
	{OBJECT_SCHEMA, "quota_manager"},     {OBJECT_SCHEMA, "quota_internal"},
	{OBJECT_SCHEMA, "quota_condition"},   {OBJECT_TABLE, "quota_strategy"},
	{OBJECT_TABLE, "quota_installation"}, {OBJECT_TABLE, "quota_run"},
	{OBJECT_TABLE, "quota_execute"},      {OBJECT_TABLE, "quota_gateway"},
	{OBJECT_TABLE, "quota_model"},        {OBJECT_TABLE, "user_balance"},
	{OBJECT_TABLE, "balance_suspension"}, {OBJECT_PROCEDURE, "tick"},
	{OBJECT_PROCEDURE, "deliver"},
};

/* A procedure of the extension, whatever its arguments; InvalidOid: it is missing. */
static Oid
find_procedure(const char *name)
{
	ObjectWithArgs *object = makeNode(ObjectWithArgs);

	object->objname = list_make2(makeString("quota_manager"), makeString(pstrdup(name)));
	object->args_unspecified = true;
	return LookupFuncWithArgs(OBJECT_PROCEDURE, object, true);
}

/*
 * Looks for one object, and for the right on it.  On failure, `missing` names
 * the object or the privilege.
 */
static PreconditionFailure
check_object(ObjectType type, const char *name, char *missing)
{
	Oid         schema = get_namespace_oid("quota_manager", true);
	const char *what = type == OBJECT_SCHEMA  ? "schema "
					   : type == OBJECT_TABLE ? "table quota_manager."
											  : "procedure quota_manager.";
	const char *privilege;
	Oid         object;
	AclResult   right;

	if (type == OBJECT_SCHEMA)
	{
		object = get_namespace_oid(name, true);
		privilege = "USAGE";
	}
	else if (type == OBJECT_TABLE)
	{
		object = get_relname_relid(name, schema);
		privilege = "SELECT";
	}
	else
	{
		object = find_procedure(name);
		privilege = "EXECUTE";
	}
	snprintf(missing, MISSING_SIZE, "%s%s", what, name);
	if (!OidIsValid(object))
		return FAILURE_OBJECT;

	if (type == OBJECT_SCHEMA)
		right = object_aclcheck(NamespaceRelationId, object, GetUserId(), ACL_USAGE);
	else if (type == OBJECT_TABLE)
		right = pg_class_aclcheck(object, GetUserId(), ACL_SELECT);
	else
		right = object_aclcheck(ProcedureRelationId, object, GetUserId(), ACL_EXECUTE);
	snprintf(missing, MISSING_SIZE, "%s on %s%s", privilege, what, name);
	return right == ACLCHECK_OK ? FAILURE_NONE : FAILURE_PRIVILEGE;
}

/*
 * Looks for what workers need in this database.  `missing` (of MISSING_SIZE
 * bytes) is what failed: an object, a privilege, or the version that there is.
 * In a transaction of a worker.
 */
PreconditionFailure
find_precondition_failure(char *missing)
{
	InstalledExtension  extension = installed_extension();
	PreconditionFailure failure = FAILURE_NONE;

	missing[0] = '\0';
	if (!OidIsValid(extension.oid))
		return FAILURE_EXTENSION;
	if (!extension_fits(&extension))
	{
		strlcpy(missing, extension.version, MISSING_SIZE);
		return FAILURE_VERSION;
	}
	for (int i = 0; i < lengthof(needed_objects) && failure == FAILURE_NONE; i++)
		failure = check_object(needed_objects[i].type, needed_objects[i].name, missing);
	return failure;
}

/* Logs a failure, with what to do about it. */
void
log_precondition_failure(PreconditionFailure failure, const char *missing, const char *database)
{
	switch (failure)
	{
		case FAILURE_NONE:
			break;
		case FAILURE_EXTENSION:
			ereport(DEBUG1, (errmsg_internal("database \"%s\" has no quota_manager", database)));
			break;
		case FAILURE_STOPPED:
			ereport(LOG, (errmsg("quota_manager workers of database \"%s\" are stopped", database),
						  errhint("Start them with quota_manager.start_workers().")));
			break;
		case FAILURE_VERSION:
			ereport(WARNING,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("extension quota_manager in database \"%s\" is at version %s, the "
							"library is %s",
							database, missing, QUOTA_MANAGER_VERSION),
					 errhint("%s", VERSION_HINT)));
			break;
		case FAILURE_OBJECT:
			ereport(WARNING,
					(errcode(ERRCODE_UNDEFINED_TABLE),
					 errmsg("quota_manager does not run in database \"%s\": %s is missing",
							database, missing),
					 errhint("Rename it back, or create the extension again. The workers go on "
							 "by themselves then.")));
			break;
		case FAILURE_PRIVILEGE:
			ereport(WARNING,
					(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
					 errmsg("role \"%s\" may not run quota_manager in database \"%s\"", worker_role,
							database),
					 errdetail("It lacks the privilege %s.", missing),
					 errhint("In that database call quota_manager.grant_access('%s', 'worker').",
							 worker_role)));
			break;
	}
}
