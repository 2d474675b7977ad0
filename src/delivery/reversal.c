/*
 * reversal.c
 *		Goes on with reversals that wait for grants to be settled.
 *
 * What is done with which grant is in SQL, for decisions of operators do it as
 * well: continue_reversals().
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "utils/lsyscache.h"

#include "common/crash_point.h"
#include "common/statement.h"
#include "common/subtransaction.h"
#include "delivery/reversal.h"
#include "delivery/timing.h"

static Statement find_waiting = {
	"SELECT 1 FROM quota_manager.quota_reversal_item i WHERE i.outcome = 'waits' LIMIT 1"};

static Statement continue_all = {"SELECT quota_internal.continue_reversals() > 0"};

/* False in a database with the SQL of 1.0.0, which has no reversals.  Cheap. */
static bool
can_reverse(void)
{
	Oid schema = get_namespace_oid("quota_manager", true);

	return OidIsValid(schema) && OidIsValid(get_relname_relid("quota_reversal_item", schema));
}

/* True if a reversal waits for a grant. */
static bool
some_wait(void)
{
	bool found = statement_run(&find_waiting, NULL) > 0;

	SPI_freetuptable(SPI_tuptable);
	return found;
}

/* The body of the subtransaction.  *argument: something was done. */
static void
continue_waiting(void *argument)
{
	*(bool *) argument = statement_is_true(&continue_all, NULL);
}

/*
 * Goes on with what has been settled, in one transaction.  False: a lock of
 * another session was in the way, so it is to be called again in a while.
 */
bool
reversals_continue(const WorkUnit *unit)
{
	MemoryContext caller = CurrentMemoryContext;
	bool          continued = false;
	ErrorData    *error = NULL;

	unit->begin();
	set_local("lock_timeout", BATCH_LOCK_TIMEOUT);
	if (can_reverse() && some_wait())
		error = subtransaction_try(continue_waiting, &continued, caller);
	if (error != NULL && error->sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE)
		ReThrowError(error);
	if (continued)
		CRASH_POINT(reversal_committing);
	unit->commit();
	if (continued)
		CRASH_POINT(reversal_committed);
	MemoryContextSwitchTo(caller);
	return error == NULL;
}
