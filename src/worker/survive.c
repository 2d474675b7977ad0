/*
 * survive.c
 *		Errors that a worker reports and outlives.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/lwlock.h"
#include "utils/memutils.h"

#include "delivery/last_error.h"
#include "worker/process.h"
#include "worker/survive.h"

/*
 * Keeps what went wrong with a kind of work (trouble.h) for those who look
 * later.  That it cannot be kept does not matter.
 */
void
note_trouble(const char *kind, const char *message)
{
	begin_interruptible();
	PG_TRY();
	{
		last_error_record(&database_work_unit, kind, message);
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
	end_interruptible();
	MemoryContextSwitchTo(TopMemoryContext);
}

/*
 * Reports the error that is being handled and cleans up behind it.  Returns
 * its message, in `scratch`.
 */
static char *
recover(MemoryContext scratch, uint32 *complaint)
{
	uint32 hash;
	char  *message;

	HOLD_INTERRUPTS();
	MemoryContextSwitchTo(scratch);
	hash = hash_error();
	message = error_message();
	if (hash != *complaint && !extension_is_gone())
		EmitErrorReport();
	*complaint = hash;
	LWLockReleaseAll();
	pgstat_report_wait_end();
	AbortOutOfAnyTransaction();
	MemoryContextSwitchTo(TopMemoryContext);
	FlushErrorState();
	RESUME_INTERRUPTS();
	return message;
}

/*
 * Runs a step, in which SIGTERM interrupts.  False: it raised an error; all
 * transactions are ended then, and the log has it unless it is the one of
 * *complaint, which is set to its hash, or comes from a dropped extension. It
 * is kept for worker_status as one of the scheduler.  Afterwards the current
 * memory context is TopMemoryContext, and *message, allocated in `scratch`, is
 * that of the error.
 */
bool
survive_step(void (*step)(void), MemoryContext scratch, uint32 *complaint, const char **message)
{
	/* Change between setjmp and longjmp. */
	volatile bool succeeded = false;
	char *volatile found = NULL;

	begin_interruptible();
	PG_TRY();
	{
		step();
		succeeded = true;
	}
	PG_CATCH();
	{
		found = recover(scratch, complaint);
	}
	PG_END_TRY();
	end_interruptible();
	MemoryContextSwitchTo(TopMemoryContext);
	if (found != NULL && !extension_is_gone())
		note_trouble(WORK_SCHEDULER, found);
	*message = found;
	return succeeded;
}
