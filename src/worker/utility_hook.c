/*
 * utility_hook.c
 *		Lets workers step aside for commands that want nobody connected to their
 *		database: DROP DATABASE, ALTER DATABASE ... RENAME and SET TABLESPACE,
 *		CREATE DATABASE.
 *
 * Workers do so anyway, since their launcher watches for the locks that such
 * commands take (lock_watch.c).  The hook spares the command the wait, and one
 * with FORCE the rights to end processes of another role.
 *
 * Only who may give the command can interrupt workers, and not where nothing may
 * be changed: there the command is refused.  The lock that the command is going
 * to take is taken first: it keeps workers that are started meanwhile from
 * connecting, until the command has ended in whatever way.
 */
#include "postgres.h"

#include <signal.h>

#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_database.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/syscache.h"
#include "utils/wait_event.h"

#include "common/compat.h"
#include "common/monotonic.h"
#include "worker/process.h"
#include "worker/timing.h"
#include "worker/wake.h"
#include "worker/worker.h"

static ProcessUtility_hook_type prev_ProcessUtility = NULL;

/* Whether the current role may create and rename databases. */
static bool
may_create_databases(void)
{
	HeapTuple tuple;
	bool      result = superuser();

	tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(GetUserId()));
	if (HeapTupleIsValid(tuple))
	{
		result = result || ((Form_pg_authid) GETSTRUCT(tuple))->rolcreatedb;
		ReleaseSysCache(tuple);
	}
	return result;
}

/* Whether a database may be copied by whoever may create one. */
static bool
is_template(Oid database)
{
	HeapTuple tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(database));
	bool      result = false;

	if (HeapTupleIsValid(tuple))
	{
		result = ((Form_pg_database) GETSTRUCT(tuple))->datistemplate;
		ReleaseSysCache(tuple);
	}
	return result;
}

/* The text of an option; NULL: it is not given. */
static const char *
option_text(List *options, const char *name)
{
	ListCell *cell;

	foreach (cell, options)
	{
		DefElem *option = lfirst_node(DefElem, cell);

		if (strcmp(option->defname, name) == 0 && option->arg != NULL)
			return defGetString(option);
	}
	return NULL;
}

/*
 * The database that a command wants to itself, with the lock that it will
 * take.  InvalidOid: none, or it will be refused: the command says why.
 */
static Oid
wanted_database(Node *statement, bool is_top_level, LOCKMODE *lock)
{
	const char *name = NULL;
	bool        renames = false;
	bool        copies = false;
	Oid         database;

	if (IsA(statement, DropdbStmt))
		name = ((DropdbStmt *) statement)->dbname;
	else if (IsA(statement, RenameStmt) &&
			 ((RenameStmt *) statement)->renameType == OBJECT_DATABASE)
	{
		name = ((RenameStmt *) statement)->subname;
		renames = true;
	}
	else if (IsA(statement, AlterDatabaseStmt) &&
			 option_text(((AlterDatabaseStmt *) statement)->options, "tablespace") != NULL)
		name = ((AlterDatabaseStmt *) statement)->dbname;
	else if (IsA(statement, CreatedbStmt))
	{
		name = option_text(((CreatedbStmt *) statement)->options, "template");
		if (name == NULL)
			name = "template1";
		copies = true;
	}
	/* all but renaming are refused in a transaction block */
	if (name == NULL || (!renames && (!is_top_level || IsTransactionBlock())))
		return InvalidOid;

	database = get_database_oid(name, true);
	if (!OidIsValid(database) || (!copies && database == MyDatabaseId))
		return InvalidOid;
	if ((renames || copies) && !may_create_databases())
		return InvalidOid;
	if (!object_ownercheck(DatabaseRelationId, database, GetUserId()) &&
		!(copies && is_template(database)))
		return InvalidOid;
	*lock = copies ? ShareLock : AccessExclusiveLock;
	return database;
}

/*
 * Ends the workers of a database and waits until they are gone, for a while:
 * the command itself says who is left.
 */
static void
await_departure(Oid database)
{
	MonoTime until = mono_in_ms(COMMAND_PATIENCE_MS);
	int      signal = SIGTERM;

	while (signal_workers(database, WORKER_SCHEDULER, signal) +
				   signal_workers(database, WORKER_DELIVERY, signal) >
			   0 &&
		   mono_now() < until)
	{
		signal = 0;
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, COMMAND_POLL_MS,
						 PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

/*
 * Locks the database that a command wants to itself.  InvalidOid: there is
 * none.  While the lock was waited for it may have got another name.
 */
static Oid
lock_wanted_database(Node *statement, bool is_top_level)
{
	LOCKMODE lock = NoLock;
	Oid      database = wanted_database(statement, is_top_level, &lock);

	while (OidIsValid(database))
	{
		Oid now;

		LockSharedObject(DatabaseRelationId, database, 0, lock);
		now = wanted_database(statement, is_top_level, &lock);
		if (now == database)
			break;
		UnlockSharedObject(DatabaseRelationId, database, 0, lock);
		database = now;
	}
	return database;
}

/* Hook: runs a command after workers have stepped aside that are in its way. */
static void
step_aside(PlannedStmt *statement, const char *query, bool read_only_tree,
		   ProcessUtilityContext context, ParamListInfo parameters, QueryEnvironment *environment,
		   DestReceiver *destination, QueryCompletion *completion)
{
	if (IsTransactionState() && !RecoveryInProgress() && !XactReadOnly)
	{
		Oid database =
			lock_wanted_database(statement->utilityStmt, context == PROCESS_UTILITY_TOPLEVEL);

		if (OidIsValid(database))
			await_departure(database);
	}
	if (prev_ProcessUtility)
		prev_ProcessUtility(statement, query, read_only_tree, context, parameters, environment,
							destination, completion);
	else
		standard_ProcessUtility(statement, query, read_only_tree, context, parameters, environment,
								destination, completion);
}

/*
 * Lets workers step aside for DROP DATABASE and the like; called once by
 * _PG_init.
 */
void
worker_install_hook(void)
{
	prev_ProcessUtility = ProcessUtility_hook;
	ProcessUtility_hook = step_aside;
}
