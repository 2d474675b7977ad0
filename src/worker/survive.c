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

#include "worker/process.h"
#include "worker/survive.h"

/*
 * Reports the error that is being handled and cleans up behind it.
 */
static void
recover(MemoryContext scratch, uint32 *complaint)
{
	uint32 hash;

	HOLD_INTERRUPTS();
	MemoryContextSwitchTo(scratch);
	hash = hash_error();
	if (hash != *complaint && !extension_is_gone())
		EmitErrorReport();
	*complaint = hash;
	LWLockReleaseAll();
	pgstat_report_wait_end();
	AbortOutOfAnyTransaction();
	MemoryContextSwitchTo(TopMemoryContext);
	FlushErrorState();
	RESUME_INTERRUPTS();
}

/*
 * See survive.h.
 */
bool
survive_step(void (*step)(void), MemoryContext scratch, uint32 *complaint)
{
	/* Changes between setjmp and longjmp. */
	volatile bool succeeded = false;

	begin_interruptible();
	PG_TRY();
	{
		step();
		succeeded = true;
	}
	PG_CATCH();
	{
		recover(scratch, complaint);
	}
	PG_END_TRY();
	end_interruptible();
	MemoryContextSwitchTo(TopMemoryContext);
	return succeeded;
}
