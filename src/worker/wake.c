/*
 * wake.c
 *		Wakes workers when a transaction commits that made something due for them.
 *
 * Workers are found by their type among the processes of the server.  The lock
 * that each holds would name it, too, but finding that copies the whole
 * table of locks, which a scan may have filled.
 */
#include "postgres.h"

#include <signal.h>

#include "access/table.h"
#include "access/tableam.h"
#include "access/transam.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "common/compat.h"
#include "worker/process.h"
#include "worker/wake.h"
#include "worker/wake_request.h"

PG_FUNCTION_INFO_V1(qm_wake_at_commit);
PG_FUNCTION_INFO_V1(qm_break_off_at_commit);

/* What this transaction asks for, bits by WorkerKind. */
static struct
{
	bool   registered; /* the callback is, for the life of the process */
	bool   wanted;     /* workers run here or may, so the launcher is asked if they do not */
	uint32 wake;       /* these are to poll at once, */
	uint32 retry;      /* these to end all waiting, */
	bool   break_off;  /* and the scheduler to break off what it runs */
} at_commit;

/*
 * Sends a signal (0: none; SIGUSR1: sets the latch) to the workers of a kind of a
 * database, or to launchers.  Returns how many there are.
 *
 * Raises no error and allocates nothing.  Who ends meanwhile is not harmed,
 * nor is who gets its entry: a latch may be set at any time.
 */
int
signal_workers(Oid database, WorkerKind kind, int signal)
{
	int    count = 0;
	uint32 i;

	for (i = 0; i < ProcGlobal->allProcCount; i++)
	{
		PGPROC *proc = &ProcGlobal->allProcs[i];
		int     pid = proc->pid;

		if (pid == 0 || proc->databaseId != database || !proc_may_be_worker(proc) ||
			!is_worker(pid, kind))
			continue;
		count++;
		if (signal == SIGUSR1)
			SetLatch(&proc->procLatch);
		else if (signal != 0)
			(void) kill(pid, signal);
	}
	return count;
}

/* The same for a worker of this database, or the launcher. */
static bool
reach(WorkerKind kind, int signal)
{
	return signal_workers(kind == WORKER_LAUNCHER ? InvalidOid : MyDatabaseId, kind, signal) > 0;
}

/*
 * Does what was asked for.  Workers that are there may have polled for the last
 * time before their time slice ends: then the launcher is asked, too.
 */
static void
reach_all(void)
{
	bool missing = false;

	for (WorkerKind kind = WORKER_LAUNCHER; kind <= WORKER_DELIVERY; kind++)
	{
		if ((at_commit.wake & (1 << kind)) && !reach(kind, SIGUSR1))
			missing = true;
	}
	if ((at_commit.wanted && missing && !reach(WORKER_SCHEDULER, 0)) ||
		(at_commit.wake != 0 && wake_requests_expected()))
		at_commit.retry |= 1 << WORKER_LAUNCHER;
	for (WorkerKind kind = WORKER_LAUNCHER; kind <= WORKER_DELIVERY; kind++)
	{
		if ((at_commit.retry & (1 << kind)) == 0)
			continue;
		if (kind == WORKER_LAUNCHER && launcher_is_preloaded)
			wake_request(MyDatabaseId);
		else
			(void) reach(kind, SIGHUP);
	}
	/* afterwards, so that it begins nothing new */
	if (at_commit.break_off)
		(void) reach(WORKER_SCHEDULER, SIGINT);
}

/* Transaction callback. */
static void
at_transaction_end(XactEvent event, void *arg)
{
	if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT && event != XACT_EVENT_PREPARE)
		return;
	if (event == XACT_EVENT_COMMIT && (at_commit.wake != 0 || at_commit.retry != 0))
		reach_all();
	at_commit.wake = at_commit.retry = 0;
	at_commit.break_off = at_commit.wanted = false;
}

/* Registers the callback. */
static void
register_callback(void)
{
	if (!at_commit.registered)
		RegisterXactCallback(at_transaction_end, NULL);
	at_commit.registered = true;
}

/*
 * False after stop_workers().  In a transaction; for any backend.  Read with no
 * regard to rights: who may write a strategy need not be allowed to see this.
 */
bool
workers_are_enabled(void)
{
	Oid table = get_relname_relid("quota_installation", get_namespace_oid("quota_manager", false));
	AttrNumber column =
		OidIsValid(table) ? get_attnum(table, "workers_enabled") : InvalidAttrNumber;
	bool            result = true;
	Relation        relation;
	TableScanDesc   scan;
	TupleTableSlot *slot;

	if (column == InvalidAttrNumber)
		return false;
	relation = table_open(table, AccessShareLock);
	slot = table_slot_create(relation, NULL);
	PushActiveSnapshot(GetTransactionSnapshot());
	scan = table_beginscan(relation, GetActiveSnapshot(), 0, NULL);
	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		bool  isnull;
		Datum value = slot_getattr(slot, column, &isnull);

		result = isnull || DatumGetBool(value);
	}
	table_endscan(scan);
	PopActiveSnapshot();
	ExecDropSingleTupleTableSlot(slot);
	table_close(relation, AccessShareLock);
	return result;
}

/*
 * Lets a worker of this database poll as soon as this transaction is committed.
 * If none runs although they are wanted, the launcher is asked.
 */
void
wake_when_committed(WorkerKind kind)
{
	if (at_commit.wake & (1 << kind))
		return;
	register_callback();
	/* one that runs now may have gone when this is committed */
	if (at_commit.wake == 0)
		at_commit.wanted = reach(WORKER_SCHEDULER, 0) || (workers_setting && workers_are_enabled());
	at_commit.wake |= 1 << kind;
}

/*
 * Lets a worker of this database end all waiting and poll everything; or the
 * launcher serve this database soon.
 */
void
retry_when_committed(WorkerKind kind)
{
	register_callback();
	at_commit.retry |= 1 << kind;
}

/*
 * Lets the scheduler of this database break off what it runs, end all waiting
 * and poll everything.
 */
void
break_off_when_committed(void)
{
	retry_when_committed(WORKER_SCHEDULER);
	at_commit.break_off = true;
}

/*
 * wake_at_commit(KIND, ...): trigger of what may make something due for
 * workers of these kinds.
 */
Datum
qm_wake_at_commit(PG_FUNCTION_ARGS)
{
	const Trigger *trigger;
	int            i;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR, (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
						errmsg("wake_at_commit() is a trigger")));
	trigger = ((TriggerData *) fcinfo->context)->tg_trigger;
	for (i = 0; i < trigger->tgnargs; i++)
		wake_when_committed(strcmp(trigger->tgargs[i], "courier") == 0 ? WORKER_DELIVERY
																	   : WORKER_SCHEDULER);
	return PointerGetDatum(NULL);
}

/* break_off_at_commit(): trigger of what stops all scans. */
Datum
qm_break_off_at_commit(PG_FUNCTION_ARGS)
{
	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR, (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
						errmsg("break_off_at_commit() is a trigger")));
	break_off_when_committed();
	return PointerGetDatum(NULL);
}

/*
 * How many transactions that may have changed something have ended since the
 * server started; 0: not known.  As long as it stays what it was
 * before a snapshot was taken, the snapshot is up to date.
 */
uint64
completed_transactions(void)
{
	uint64 count;

	LWLockAcquire(ProcArrayLock, LW_SHARED);
	count = TransamVariables->xactCompletionCount;
	LWLockRelease(ProcArrayLock);
	return count;
}
