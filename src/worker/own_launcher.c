/*
 * own_launcher.c
 *		A launcher for one database, where the library is not preloaded.
 *
 * It is the launcher of the cluster in all but this: it is asked for by
 * start_workers(), serves one database only, and ends for good when the
 * workers of that database are stopped, or the extension or the database is
 * dropped.  It is started again after a crash, but not with the server.
 */
#include "postgres.h"

#include "access/xact.h"
#include "commands/dbcommands.h"
#include "miscadmin.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/lock.h"
#include "storage/proc.h"

#include "common/monotonic.h"
#include "worker/process.h"
#include "worker/timing.h"

/* What the session passes to it, in bgw_extra; all zero for the launcher of the cluster. */
typedef struct LauncherArguments
{
	Oid                  database;
	VirtualTransactionId starter;
} LauncherArguments;

/*
 * Starts one for the database of this session.  It begins its work when the
 * current transaction has ended.  Raises an error if it cannot be started.
 */
void
start_own_launcher(void)
{
	BackgroundWorker        worker;
	BackgroundWorkerHandle *handle;
	LauncherArguments       arguments = {0};
	char                   *name = get_database_name(MyDatabaseId);
	pid_t                   pid;

	describe_worker(&worker, WORKER_LAUNCHER, name);
	worker.bgw_restart_time = LAUNCHER_RESTART_SECONDS;
	worker.bgw_notify_pid = MyProcPid;
	arguments.database = MyDatabaseId;
	GET_VXID_FROM_PGPROC(arguments.starter, *MyProc);
	memcpy(worker.bgw_extra, &arguments, sizeof(arguments));

	if (!RegisterDynamicBackgroundWorker(&worker, &handle))
		ereport(ERROR, (errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
						errmsg("could not start the workers of database \"%s\"", name),
						errdetail("All slots for background workers are in use; three are needed."),
						errhint("You may need to increase max_worker_processes.")));
	if (WaitForBackgroundWorkerStartup(handle, &pid) != BGWH_STARTED)
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_RESOURCES),
						errmsg("could not start the workers of database \"%s\"", name),
						errhint("More details may be available in the server log.")));
}

/*
 * In a launcher: waits until the transaction that asked for it has ended. Only
 * then it can be seen whether workers are to run.  Returns the database to
 * serve; InvalidOid for the launcher of the cluster, which nobody asked for.
 */
Oid
await_starter(void)
{
	LauncherArguments arguments;

	memcpy(&arguments, MyBgworkerEntry->bgw_extra, sizeof(arguments));
	if (OidIsValid(arguments.database))
	{
		begin_interruptible();
		StartTransactionCommand();
		VirtualXactLock(arguments.starter, true);
		CommitTransactionCommand();
		end_interruptible();
	}
	return arguments.database;
}

/*
 * In a launcher: takes its lock, which another one of the database has that may
 * be about to end.  Ends the process if that one stays.
 */
void
await_predecessor(Oid database)
{
	MonoTime until = mono_in_ms(PREDECESSOR_MS);

	while (!take_worker_lock(database, WORKER_LAUNCHER))
	{
		if (ShutdownRequestPending || until <= mono_now())
			proc_exit(0);
		worker_wait(PREDECESSOR_POLL_MS);
	}
}
