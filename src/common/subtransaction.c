/*
 * subtransaction.c
 *		Trying something within a transaction that goes on if it fails.
 */
#include "postgres.h"

#include "access/xact.h"
#include "utils/resowner.h"

#include "common/subtransaction.h"

/*
 * Runs body in a subtransaction.  NULL: it is committed.  Otherwise it is
 * undone, and its error, a cancel included, is returned in error_memory.  The
 * current memory context is that of the caller, in body and afterwards; so is
 * the resource owner afterwards.
 */
ErrorData *
subtransaction_try(void (*body)(void *argument), void *argument, MemoryContext error_memory)
{
	MemoryContext caller = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData *volatile error = NULL;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(caller);
	PG_TRY();
	{
		body(argument);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(error_memory);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(caller);
	CurrentResourceOwner = owner;
	return error;
}
