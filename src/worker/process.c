/*
 * process.c
 *		What the three kinds of worker processes have in common: how they are
 *		described and started, connect, sleep, and are told to stop.
 */
#include "postgres.h"

#include <signal.h>

#include "access/xact.h"
#include "catalog/pg_database.h"
#include "common/hashfn.h"
#include "libpq/pqsignal.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lock.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/wait_event.h"

#include "common/compat.h"
#include "common/pinned_settings.h"
#include "worker/process.h"

/* Name in pg_stat_activity.backend_type, and entry point, of each kind. */
static const struct
{
	const char *type;
	const char *function;
} worker_kinds[] = {
	[WORKER_LAUNCHER] = {"quota_manager launcher", "qm_launcher_main"},
	[WORKER_SCHEDULER] = {"quota_manager scheduler", "qm_scheduler_main"},
	[WORKER_COURIER] = {"quota_manager courier", "qm_courier_main"},
};

/* How often a lock that another worker has is tried. */
#define LOCK_RETRY_MS 200

/* SIGTERM ends the process by an error rather than by a flag. */
static volatile sig_atomic_t interruptible = false;

/* See report_notice; empty: none. */
static char notice[128];

/*
 * Name of a kind in pg_stat_activity.backend_type.
 */
const char *
worker_type(WorkerKind kind)
{
	return worker_kinds[kind].type;
}

/*
 * Fills what is common to all our workers.  `suffix` (may be NULL) is appended
 * to the name that ps and pg_stat_activity show.
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
 * True if this, of a background worker, is the type of a scheduler or courier
 * of ours.
 */
bool
is_worker_of_database(const char *type)
{
	return strcmp(type, worker_kinds[WORKER_SCHEDULER].type) == 0 ||
		   strcmp(type, worker_kinds[WORKER_COURIER].type) == 0;
}

/*
 * Starts a child that serves order->database.  NULL: the server has no slot
 * left for background workers.  The handle is palloc'd and outlives every
 * transaction; the latch of this process is set when the child starts and
 * ends.
 */
BackgroundWorkerHandle *
start_child(WorkerKind kind, const WorkerOrder *order)
{
	BackgroundWorker        worker;
	BackgroundWorkerHandle *handle;
	MemoryContext           caller_context = MemoryContextSwitchTo(TopMemoryContext);
	bool                    registered;

	describe_worker(&worker, kind, order->database_name);
	StaticAssertStmt(sizeof(WorkerOrder) <= BGW_EXTRALEN, "order fits in bgw_extra");
	memcpy(worker.bgw_extra, order, sizeof(WorkerOrder));
	strlcpy(((WorkerOrder *) worker.bgw_extra)->library, QUOTA_MANAGER_VERSION, LIBRARY_SIZE);
	worker.bgw_notify_pid = MyProcPid;
	registered = RegisterDynamicBackgroundWorker(&worker, &handle);
	MemoryContextSwitchTo(caller_context);
	return registered ? handle : NULL;
}

/*
 * True once the child has ended.
 */
bool
child_has_ended(BackgroundWorkerHandle *handle)
{
	pid_t pid;

	return GetBackgroundWorkerPid(handle, &pid) == BGWH_STOPPED;
}

/*
 * Sets its latch, so that it looks for work at once.  The signal is that of
 * latches in general.
 */
void
wake_child(BackgroundWorkerHandle *handle)
{
	pid_t pid;

	if (GetBackgroundWorkerPid(handle, &pid) == BGWH_STARTED)
		(void) kill(pid, SIGUSR1);
}

/*
 * The order in bgw_extra of this process.  Where the parent runs another
 * version of the library, as it may after the file was replaced where it is
 * not preloaded, nothing that they share can be relied on: both end, and the
 * launcher is started again with the library that there is now.
 */
WorkerOrder
received_order(void)
{
	WorkerOrder order;

	memcpy(&order, MyBgworkerEntry->bgw_extra, sizeof(order));
	/* another version of the library may have put anything there */
	order.library[LIBRARY_SIZE - 1] = '\0';
	if (strcmp(order.library, QUOTA_MANAGER_VERSION) != 0)
	{
		ereport(LOG, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					  errmsg("a quota_manager worker runs another version of the library than %s",
							 QUOTA_MANAGER_VERSION),
					  errdetail("It was started before the library was replaced, and is ended."),
					  errhint("Restart the server after the library was replaced.")));
		(void) kill(MyBgworkerEntry->bgw_notify_pid, SIGTERM);
		proc_exit(1);
	}
	return order;
}

/*
 * Connects a child as its parent ordered, sets its session up and lets signals
 * in: SIGTERM to the handler given, SIGHUP for worker_reload.
 */
void
connect_child(const WorkerOrder *order, pqsigfunc on_sigterm)
{
	/* Connecting may wait for a lock on the database. */
	pqsignal(SIGTERM, die);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(order->database, order->role, 0);
	pqsignal(SIGTERM, on_sigterm);

	/* What is set for the role or the database is not for its workers. */
	settings_isolate_session();
	SetConfigOption("application_name", MyBgworkerEntry->bgw_name, PGC_USERSET, PGC_S_SESSION);
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
	if (interruptible)
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
	if (interruptible)
		StatementCancelHandler(postgres_signal_arg);
}

/*
 * Signal handler for SIGTERM.  While idle it only sets ShutdownRequestPending;
 * in a transaction or a scan, that is between begin_interruptible and
 * end_interruptible, it is die(), which ends the process with a FATAL at the
 * next check for interrupts.  A signal that came just before would not be
 * noticed by a statement: it is looked for here.
 */
void
begin_interruptible(void)
{
	interruptible = true;
	if (ShutdownRequestPending)
		proc_exit(1);
}

/*
 * Signal handler for SIGTERM.  While idle it only sets ShutdownRequestPending;
 * in a transaction or a scan, that is between begin_interruptible and
 * end_interruptible, it is die(), which ends the process with a FATAL at the
 * next check for interrupts.
 */
void
end_interruptible(void)
{
	interruptible = false;
	/* one that came too late is not meant for what comes next */
	QueryCancelPending = false;
}

/*
 * Names the lock as no function of SQL can (theirs have 1 or 2 at the end), so
 * that nobody else can take it and keep the workers from starting.
 */
static void
name_worker_lock(LOCKTAG *tag, Oid database, WorkerKind kind)
{
	SET_LOCKTAG_ADVISORY(*tag, database, WORKER_LOCK_CLASS, kind, 3);
}

/*
 * Takes the lock of a kind of worker for a database (InvalidOid: for the
 * cluster) until the process ends.  False: another process has it.
 */
bool
take_worker_lock(Oid database, WorkerKind kind)
{
	LOCKTAG           tag;
	LockAcquireResult result;

	name_worker_lock(&tag, database, kind);
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
		worker_wait(LOCK_RETRY_MS);
	}
	report_phase(NULL);
}

/*
 * True if nobody drops, renames, moves or copies a database, or waits to.  In
 * a transaction; for any backend.  Whoever connects takes the same lock.
 */
bool
database_is_free(Oid database)
{
	LOCKTAG tag;

	SET_LOCKTAG_OBJECT(tag, InvalidOid, DatabaseRelationId, database, 0);
	if (LockAcquire(&tag, RowExclusiveLock, false, true) == LOCKACQUIRE_NOT_AVAIL)
		return false;
	LockRelease(&tag, RowExclusiveLock, false);
	return true;
}

/*
 * Reloads the settings if SIGHUP asked for it; true if it did.
 */
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
	static uint32 wait_event = 0;

	if (wait_event == 0)
		wait_event = WaitEventExtensionNew("QuotaManagerIdle");

	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, timeout_ms,
					 wait_event);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
	return worker_reload();
}

/*
 * Shows in pg_stat_activity what is being done; NULL: idle.
 */
void
report_phase(const char *phase)
{
	if (phase == NULL && notice[0] != '\0')
		report_idle(notice);
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
	bool ends = notice[0] != '\0' && text == NULL;

	strlcpy(notice, text ? text : "", sizeof(notice));
	/* what was shown before stays otherwise */
	if (ends)
		pgstat_report_activity(STATE_RUNNING, "");
}

/*
 * Shows it as the state of a process that sleeps.
 */
void
report_idle(const char *state)
{
	pgstat_report_activity(STATE_IDLE, state);
}

/*
 * Tells the error that is being handled from others: a hash of its message,
 * never 0.  Leaves a copy of it in the current memory context.
 */
uint32
hash_error(void)
{
	ErrorData *error = CopyErrorData();

	return string_hash(error->message, strlen(error->message) + 1) | 1;
}

/*
 * Shows that this database is a copy and waits for resume().
 */
void
report_fence(void)
{
	report_phase("waiting for resume(): this database is a copy");
	report_phase(NULL);
}

/*
 * Message of the error that is being handled, allocated in the current memory
 * context.
 */
char *
error_message(void)
{
	ErrorData *error = CopyErrorData();
	char      *message = pstrdup(error->message ? error->message : "");

	FreeErrorData(error);
	return message;
}
