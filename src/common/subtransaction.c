/*
 * subtransaction.c
 *		Trying something within a transaction that goes on if it fails.
 */
#include "postgres.h"

#include "access/xact.h"
#include "utils/resowner.h"

#include "common/subtransaction.h"

typedef struct Attempt
{
	void (*body)(void *argument);
	void *argument;
} Attempt;

/* Runs it in a subtransaction, which is committed or undone; returns its error. */
static ErrorData *
run(Attempt attempt, bool commit, MemoryContext error_memory)
{
	MemoryContext caller = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData *volatile error = NULL;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(caller);
	PG_TRY();
	{
		attempt.body(attempt.argument);
		if (commit)
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
	if (!commit && error == NULL)
		RollbackAndReleaseCurrentSubTransaction();
	MemoryContextSwitchTo(caller);
	CurrentResourceOwner = owner;
	return error;
}

/*
 * Runs body in a subtransaction.  NULL: it is committed.  Otherwise it is
 * undone, and its error, a cancel included, is returned in error_memory.  The
 * current memory context is that of the caller, in body and afterwards; so is
 * the resource owner afterwards.
 */
ErrorData *
subtransaction_try(void (*body)(void *argument), void *argument, MemoryContext error_memory)
{
	return run((Attempt){body, argument}, true, error_memory);
}

/*
 * Runs body, which only reads, in a subtransaction that is undone, so that what it
 * leaves open is closed.  Its error is raised.
 */
void
subtransaction_undo(void (*body)(void *argument), void *argument)
{
	ErrorData *error = run((Attempt){body, argument}, false, CurrentMemoryContext);

	if (error != NULL)
		ReThrowError(error);
}
