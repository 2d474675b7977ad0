/*
 * edit.c
 *		Edits of a strategy that is being scanned.
 */
#include "postgres.h"

#include <signal.h>

#include "access/htup_details.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "utils/builtins.h"
#include "utils/rel.h"

#include "scan/scan_lock.h"
#include "worker/process.h"

PG_FUNCTION_INFO_V1(qm_lock_edited_strategy);

/* More than one process can keep an edit waiting only where it edits many strategies. */
#define HOLDERS_MAX 8

/* A column of a strategy, which is never null. */
static Datum
strategy_column(const TriggerData *trigger, HeapTuple row, const char *name)
{
	TupleDesc columns = trigger->tg_relation->rd_att;
	int       number = SPI_fnumber(columns, name);
	bool      isnull;
	Datum     value;

	if (number <= 0)
		ereport(ERROR, (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
						errmsg("lock_edited_strategy() is a trigger for strategies only")));
	value = heap_getattr(row, number, columns, &isnull);
	if (isnull)
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						errmsg("column \"%s\" of a strategy is null", name)));
	return value;
}

/* Whether the strategy is not to grant anything from now on. */
static bool
puts_out_of_use(const TriggerData *trigger)
{
	HeapTuple row = trigger->tg_newtuple;

	return TRIGGER_FIRED_BY_DELETE(trigger->tg_event) ||
		   !DatumGetBool(strategy_column(trigger, row, "enabled")) ||
		   DatumGetBool(strategy_column(trigger, row, "archived"));
}

/* Name of the role that a process acts as. */
static const char *
process_role(int pid)
{
	const PGPROC *process = BackendPidGetProc(pid);
	const char   *role = process ? GetUserNameFromId(process->roleId, true) : NULL;

	return role ? role : "";
}

/*
 * Breaks off the scan of a scheduler, which begins it again if it is still due,
 * where its strategy is put out of use; otherwise lets the client know what it
 * waits for.
 */
static void
break_off_or_tell(const TriggerData *trigger, int pid)
{
	const char *name = TextDatumGetCString(strategy_column(trigger, trigger->tg_trigtuple, "name"));

	if (puts_out_of_use(trigger) && is_worker(pid, WORKER_SCHEDULER))
		(void) kill(pid, SIGINT);
	else
		ereport(NOTICE,
				(errmsg("waiting for a scan of strategy \"%s\" to end", name),
				 errdetail("Process %d has locked it, as role \"%s\".", pid, process_role(pid)),
				 errhint("SELECT pg_cancel_backend(%d) breaks it off.", pid)));
}

/*
 * lock_edited_strategy(): trigger.  An edit waits for a scan of the strategy,
 * and a scan for an edit.
 */
Datum
qm_lock_edited_strategy(PG_FUNCTION_ARGS)
{
	const TriggerData *trigger = (TriggerData *) fcinfo->context;
	int                pids[HOLDERS_MAX];
	int                count;
	int32              id;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_BEFORE(trigger->tg_event) ||
		!TRIGGER_FIRED_FOR_ROW(trigger->tg_event) || TRIGGER_FIRED_BY_INSERT(trigger->tg_event))
		ereport(ERROR, (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
						errmsg("lock_edited_strategy() is a trigger before updates and deletes")));
	id = DatumGetInt32(strategy_column(trigger, trigger->tg_trigtuple, "id"));
	if (!strategy_lock_edit_try(id))
	{
		count = strategy_lock_holders(id, pids, HOLDERS_MAX);
		for (int i = 0; i < count; i++)
			break_off_or_tell(trigger, pids[i]);
		strategy_lock_edit(id);
	}
	return PointerGetDatum(TRIGGER_FIRED_BY_UPDATE(trigger->tg_event) ? trigger->tg_newtuple
																	  : trigger->tg_trigtuple);
}
