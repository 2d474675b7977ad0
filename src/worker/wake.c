/*
 * wake.c
 *		Tells workers, when a transaction has committed, that there is something
 *		to see for them.
 *
 * Workers are found by their type among the processes of the server.  The lock
 * that each holds would name it, too, but to look that up is to copy the whole
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
#include "postmaster/bgworker.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "common/compat.h"
#include "worker/doorbell.h"
#include "worker/wake.h"

PG_FUNCTION_INFO_V1(qm_wake_at_commit);

/* What is to be done at commit, bits by WorkerKind. */
static uint32 to_wake = 0;
static uint32 to_tell = 0;

/* At commit, a scheduler is to break off what it runs. */
static bool to_break_off = false;

/* Workers run in this database or may, so that the launcher is told if they do not. */
static bool wanted = false;

/*
 * Whether a process is a background worker; others need not be looked up.
 */
static bool
may_be_worker(const PGPROC *proc)
{
	return proc_may_be_worker(proc);
}

/*
 * Finds workers of a kind of this database, or launchers, and wakes them, or
 * sends them a signal (0: none).  False: there is none.
 *
 * Raises no error and allocates nothing.  Who ends meanwhile is not harmed,
 * nor is who gets its place: a latch may be set at any time.
 */
static bool
reach_workers(WorkerKind kind, bool wake, int signal)
{
	Oid    database = kind == WORKER_LAUNCHER ? InvalidOid : MyDatabaseId;
	bool   found = false;
	uint32 i;

	for (i = 0; i < ProcGlobal->allProcCount; i++)
	{
		PGPROC     *proc = &ProcGlobal->allProcs[i];
		int         pid = proc->pid;
		const char *type;

		if (pid == 0 || proc->databaseId != database || !may_be_worker(proc))
			continue;
		type = GetBackgroundWorkerTypeByPid(pid);
		if (type == NULL || strcmp(type, worker_type(kind)) != 0)
			continue;
		found = true;
		if (wake)
			SetLatch(&proc->procLatch);
		if (signal != 0)
			(void) kill(pid, signal);
	}
	return found;
}

/*
 * Does what was asked for.  A scheduler that is there may have looked for the
 * last time: then the launcher is told, too.
 */
static void
reach_all(void)
{
	uint32 missing = 0;
	int    kind;

	for (kind = WORKER_LAUNCHER; kind <= WORKER_COURIER; kind++)
	{
		if ((to_wake & (1 << kind)) && !reach_workers(kind, true, 0))
			missing |= 1 << kind;
	}
	/* A courier that has ended is started again by its scheduler. */
	if (wanted && missing != 0 && !reach_workers(WORKER_SCHEDULER, false, 0))
		to_tell |= 1 << WORKER_LAUNCHER;
	if (to_wake != 0 && doorbell_turn_ends())
		to_tell |= 1 << WORKER_LAUNCHER;
	for (kind = WORKER_LAUNCHER; kind <= WORKER_COURIER; kind++)
	{
		if ((to_tell & (1 << kind)) == 0)
			continue;
		if (kind == WORKER_LAUNCHER && launcher_is_preloaded)
			doorbell_ring(MyDatabaseId);
		else
			(void) reach_workers(kind, false, SIGHUP);
	}
	/* after it was told, so that it begins nothing new */
	if (to_break_off)
		(void) reach_workers(WORKER_SCHEDULER, false, SIGINT);
}

/*
 * Transaction callback.
 */
static void
at_transaction_end(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_COMMIT:
			if (to_wake != 0 || to_tell != 0)
				reach_all();
			break;
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PREPARE:
			break;
		default:
			return;
	}
	to_wake = to_tell = 0;
	to_break_off = false;
	wanted = false;
}

/*
 * Has the callback called.
 */
static void
register_callback(void)
{
	static bool registered = false;

	if (!registered)
		RegisterXactCallback(at_transaction_end, NULL);
	registered = true;
}

/*
 * False after stop_workers(), and if workers are switched off: then nobody
 * waits for being told.  Read with no regard to rights: who may write a
 * strategy need not be allowed to see this.
 */
static bool
workers_are_wanted(void)
{
	Oid table = get_relname_relid("quota_installation", get_namespace_oid("quota_manager", false));
	AttrNumber column =
		OidIsValid(table) ? get_attnum(table, "workers_enabled") : InvalidAttrNumber;
	bool            result = true;
	Relation        relation;
	TableScanDesc   scan;
	TupleTableSlot *slot;

	if (!workers_setting || column == InvalidAttrNumber)
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
 * Lets a worker of this database look for work at once.  If none runs although
 * they are wanted, the launcher is told.
 */
void
wake_when_committed(WorkerKind kind)
{
	if (to_wake & (1 << kind))
		return;
	register_callback();
	/* one that runs now may have gone when this is committed */
	if (to_wake == 0)
		wanted = reach_workers(WORKER_SCHEDULER, false, 0) || workers_are_wanted();
	to_wake |= 1 << kind;
}

/*
 * Lets a worker of this database forget all waiting and look at everything; or
 * the launcher give this database a turn soon.
 */
void
tell_when_committed(WorkerKind kind)
{
	register_callback();
	to_tell |= 1 << kind;
}

/*
 * Lets the scheduler of this database break off what it runs, forget all
 * waiting and look at everything.
 */
void
break_off_when_committed(void)
{
	tell_when_committed(WORKER_SCHEDULER);
	to_break_off = true;
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
		wake_when_committed(strcmp(trigger->tgargs[i], "courier") == 0 ? WORKER_COURIER
																	   : WORKER_SCHEDULER);
	return PointerGetDatum(NULL);
}

/*
 * How many transactions that may have changed something have ended since the
 * server started; 0: that cannot be told.  As long as it stays what it was
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
