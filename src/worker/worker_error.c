/*
 * worker_error.c
 *		What the workers of a database do about an error: log it once, and record
 *		it for worker_status.
 */
#include "postgres.h"

#include "access/xact.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/lwlock.h"
#include "utils/memutils.h"

#include "common/last_error.h"
#include "worker/process.h"

/*
 * Ends the transactions and the handling of an error, in PG_CATCH.  It is logged
 * unless it is the one that was last (*logged is the hash of its message, never
 * 0), or comes from a dropped extension.  Returns the message, in `context`;
 * TopMemoryContext is the current one then.
 */
char *
end_error(MemoryContext context, uint32 *logged)
{
	ErrorData *error;
	uint32     hash;

	HOLD_INTERRUPTS();
	MemoryContextSwitchTo(context);
	error = CopyErrorData();
	hash = string_hash(error->message, strlen(error->message) + 1) | 1;
	if (hash != *logged && !extension_is_gone())
		EmitErrorReport();
	*logged = hash;
	LWLockReleaseAll();
	pgstat_report_wait_end();
	AbortOutOfAnyTransaction();
	MemoryContextSwitchTo(TopMemoryContext);
	FlushErrorState();
	RESUME_INTERRUPTS();
	return error->message;
}

/*
 * Records what went wrong with a kind of work for worker_status.  That it cannot
 * be recorded does not matter.  TopMemoryContext is the current one afterwards.
 */
void
record_last_error(const WorkUnit *unit, const char *kind, const char *message)
{
	PG_TRY();
	{
		last_error_record(unit, kind, message);
	}
	PG_CATCH();
	{
		HOLD_INTERRUPTS();
		AbortOutOfAnyTransaction();
		MemoryContextSwitchTo(TopMemoryContext);
		FlushErrorState();
		RESUME_INTERRUPTS();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(TopMemoryContext);
}
