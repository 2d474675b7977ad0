/*
 * process.c
 *		What the three kinds of worker processes have in common: how they are
 *		started, connect, sleep, and are stopped.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_database.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lock.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"

#include "common/compat.h"
#include "common/pinned_settings.h"
#include "worker/process.h"
#include "worker/timing.h"

/* Name in pg_stat_activity.backend_type, and entry point, of each kind. */
static const struct
{
	const char *type;
	const char *function;
} worker_kinds[] = {
	[WORKER_LAUNCHER] = {"quota_manager launcher", "qm_launcher_main"},
	[WORKER_SCHEDULER] = {"quota_manager scheduler", "qm_scheduler_main"},
	[WORKER_DELIVERY] = {"quota_manager courier", "qm_courier_main"},
};

/* First half of the advisory locks of workers: "qmwc". */
#define WORKER_LOCK_CLASS 0x716d7763

static struct
{
	volatile sig_atomic_t interruptible; /* SIGTERM ends the process by an error, not by a flag */
	char                  notice[128];   /* shown while idle; empty: none */
	uint32                wait_event;    /* 0: not known yet */
} process;

/* Name of a kind in pg_stat_activity.backend_type.  For any backend. */
const char *
worker_type(WorkerKind kind)
{
	return worker_kinds[kind].type;
}

/* Whether a process is a worker of a kind.  For any backend; raises no error. */
bool
is_worker(int pid, WorkerKind kind)
{
	const char *type = GetBackgroundWorkerTypeByPid(pid);

	return type != NULL && strcmp(type, worker_kinds[kind].type) == 0;
}

/*
 * Fills what is common to all our workers.  `suffix` (may be NULL) is appended
 * to the name that ps and pg_stat_activity show.  For any backend.
 */
void
describe_worker(BackgroundWorker *worker, WorkerKind kind, const char *suffix)
{
	memset(worker, 0, sizeof(*worker));
	snprintf(worker->bgw_name, sizeof(worker->bgw_name), "%s%s%s", worker_kinds[kind].type,
			 suffix ? " " : "", suffix ? suffix : "");
	strlcpy(worker->bgw_type, worker_kinds[kind].type, sizeof(worker->bgw_type));
	strlcpy(worker->bgw_library_name, "quota_manager", sizeof(worker->bgw_library_name));
	strlcpy(worker->bgw_function_name, worker_kinds[kind].function,
			sizeof(worker->bgw_function_name));
	worker->bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker->bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker->bgw_restart_time = BGW_NEVER_RESTART;
}

/*
 * Starts a worker in a slot.  NULL: the server is out of worker slots.  The
 * handle is palloc'd and outlives every transaction; the latch of this process
 * is set when the worker starts and ends.
 */
BackgroundWorkerHandle *
start_worker(WorkerKind kind, const WorkerArguments *arguments, const char *database)
{
	BackgroundWorker        worker;
	BackgroundWorkerHandle *handle;
	MemoryContext           caller_context = MemoryContextSwitchTo(TopMemoryContext);
	bool                    registered;

	describe_worker(&worker, kind, database);
	StaticAssertStmt(sizeof(WorkerArguments) <= BGW_EXTRALEN, "arguments fit in bgw_extra");
	memcpy(worker.bgw_extra, arguments, sizeof(WorkerArguments));
	strlcpy(((WorkerArguments *) worker.bgw_extra)->library, QUOTA_MANAGER_VERSION, LIBRARY_SIZE);
	worker.bgw_notify_pid = MyProcPid;
	registered = RegisterDynamicBackgroundWorker(&worker, &handle);
	MemoryContextSwitchTo(caller_context);
	return registered ? handle : NULL;
}

/*
 * The arguments of this process.  Where the launcher runs another version of
 * the library, as it may after the file was replaced where it is not preloaded,
 * nothing that they share can be relied on: both end, and the launcher is
 * started again with the library that there is now.
 */
static WorkerArguments
worker_arguments(void)
{
	WorkerArguments arguments;

	memcpy(&arguments, MyBgworkerEntry->bgw_extra, sizeof(arguments));
	/* another version of the library may have put anything there */
	arguments.library[LIBRARY_SIZE - 1] = '\0';
	if (strcmp(arguments.library, QUOTA_MANAGER_VERSION) != 0)
	{
		ereport(LOG, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					  errmsg("a quota_manager worker runs another version of the library than %s",
							 QUOTA_MANAGER_VERSION),
					  errdetail("It was started before the library was replaced, and is ended."),
					  errhint("Restart the server after the library was replaced.")));
		(void) kill(MyBgworkerEntry->bgw_notify_pid, SIGTERM);
		proc_exit(1);
	}
	return arguments;
}

/*
 * Attaches a worker to its slot, connects it to the database, sets its session
 * up and lets signals in: SIGTERM to the handler given, SIGHUP for
 * worker_reload.
 */
WorkerSlot *
connect_worker(WorkerKind kind, pqsigfunc on_sigterm)
{
	WorkerArguments arguments = worker_arguments();
	WorkerSlot     *slot = slot_attach(arguments.table, arguments.slot, kind);

	/* Connecting may wait for a lock on the database. */
	pqsignal(SIGTERM, die);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(slot->database, slot->role, 0);
	pqsignal(SIGTERM, on_sigterm);

	/* What is set for the role or the database is not for its workers. */
	settings_isolate_session();
	SetConfigOption("application_name", MyBgworkerEntry->bgw_name, PGC_USERSET, PGC_S_SESSION);
	return slot;
}

/*
 * Signal handler for SIGTERM.  While idle it only sets ShutdownRequestPending;
 * in a transaction or a scan, that is between begin_interruptible and
 * end_interruptible, it is die(), which ends the process with a FATAL at the
 * next check for interrupts.
 */
void
handle_stop_request(SIGNAL_ARGS)
{
	int save_errno = errno;

	ShutdownRequestPending = true;
	if (process.interruptible)
		die(postgres_signal_arg);
	SetLatch(MyLatch);
	errno = save_errno;
}

/*
 * Signal handler for SIGINT: between begin_interruptible and end_interruptible
 * it cancels what is being done, by an error; while idle there is nothing to
 * cancel.
 */
void
handle_cancel_request(SIGNAL_ARGS)
{
	if (process.interruptible)
		StatementCancelHandler(postgres_signal_arg);
}

/*
 * Lets SIGTERM and SIGINT interrupt what comes next.  No statement would notice
 * one that came just before, so it is answered here.
 */
void
begin_interruptible(void)
{
	process.interruptible = true;
	if (ShutdownRequestPending)
		proc_exit(1);
}

/*
 * Ends what begin_interruptible began.  A SIGINT that came too late is not
 * meant for what comes next.
 */
void
end_interruptible(void)
{
	process.interruptible = false;
	QueryCancelPending = false;
}

/* Reloads the settings if SIGHUP asked for it; true if it did. */
bool
worker_reload(void)
{
	if (!ConfigReloadPending)
		return false;
	ConfigReloadPending = false;
	ProcessConfigFile(PGC_SIGHUP);
	return true;
}

/*
 * Sleeps until the latch is set or the time has passed, and handles what came
 * meanwhile: ends the process when the postmaster is gone, processes
 * interrupts, barriers included.  Returns true if settings were reloaded.
 */
bool
worker_wait(long timeout_ms)
{
	if (process.wait_event == 0)
		process.wait_event = WaitEventExtensionNew("QuotaManagerIdle");

	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, timeout_ms,
					 process.wait_event);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
	return worker_reload();
}

/*
 * Takes the lock of a kind of worker for a database (InvalidOid: for the
 * cluster) until the process ends.  False: another process has it.  No function
 * of SQL can take it (theirs have 1 or 2 at the end) and keep workers from
 * starting.
 */
bool
take_worker_lock(Oid database, WorkerKind kind)
{
	LOCKTAG           tag;
	LockAcquireResult result;

	SET_LOCKTAG_ADVISORY(tag, database, WORKER_LOCK_CLASS, kind, 3);
	StartTransactionCommand();
	result = LockAcquire(&tag, ExclusiveLock, true, true);
	CommitTransactionCommand();
	return result != LOCKACQUIRE_NOT_AVAIL;
}

/*
 * Takes the lock of this kind of worker for this database; waits for another
 * process that has it and may be about to end, unless *stop becomes true.
 */
void
await_worker_lock(WorkerKind kind, volatile sig_atomic_t *stop)
{
	while (!*stop && !take_worker_lock(MyDatabaseId, kind))
	{
		report_phase("waiting for the worker before this one to end");
		worker_wait(LOCK_POLL_MS);
	}
	report_phase(NULL);
}

/*
 * True if nobody drops, renames, moves or copies a database, or waits to:
 * whoever connects takes the same lock.  In a transaction; for any backend.
 */
bool
database_is_unlocked(Oid database)
{
	LOCKTAG tag;

	SET_LOCKTAG_OBJECT(tag, InvalidOid, DatabaseRelationId, database, 0);
	if (LockAcquire(&tag, RowExclusiveLock, false, true) == LOCKACQUIRE_NOT_AVAIL)
		return false;
	LockRelease(&tag, RowExclusiveLock, false);
	return true;
}

/* Shows in pg_stat_activity what is being done; NULL: idle. */
void
report_phase(const char *phase)
{
	if (phase == NULL && process.notice[0] != '\0')
		pgstat_report_activity(STATE_IDLE, process.notice);
	else
		pgstat_report_activity(phase ? STATE_RUNNING : STATE_IDLE, phase);
}

/*
 * What report_phase shows from now on while the process is idle; NULL: what it
 * did last.  Copied.
 */
void
report_notice(const char *text)
{
	bool ends = process.notice[0] != '\0' && text == NULL;

	strlcpy(process.notice, text ? text : "", sizeof(process.notice));
	/* what was shown before stays otherwise */
	if (ends)
		pgstat_report_activity(STATE_RUNNING, "");
}

/* Shows that this database is a copy and waits for resume(). */
void
report_suspended(void)
{
	report_phase("waiting for resume(): this database is a copy");
	report_phase(NULL);
}
