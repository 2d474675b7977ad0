/*
 * lock_wait.c
 *		Of the launcher: schedulers that wait for a lock of somebody while other
 *		databases wait for their place.
 *
 * A scan is not cut short, however long it takes.  But a lock can be held by a
 * session that has forgotten its transaction, and a database whose turn does
 * not end for that would starve the others.
 */
#include "postgres.h"

#include <signal.h>

#include "storage/proc.h"
#include "storage/procarray.h"

#include "worker/lock_wait.h"
#include "worker/roster.h"

/*
 * Whether the scheduler of a database was seen in one and the same wait for a
 * lock for so long.  That a wait began by the wall clock only tells it from
 * another one.
 */
static bool
waits_for_lock(Database *database, pid_t pid, int ms)
{
	PGPROC     *proc = BackendPidGetProc(pid);
	TimestampTz since = proc != NULL ? (TimestampTz) pg_atomic_read_u64(&proc->waitStart) : 0;

	if (since != database->lock_wait)
		database->lock_wait_seen = mono_now();
	database->lock_wait = since;
	/* it is 0 while nothing is waited for */
	return since != 0 && mono_now() >= mono_add_ms(database->lock_wait_seen, ms);
}

/*
 * Cancels what a scheduler waits for since LOCK_PATIENCE_MS, so that its turn
 * can end; it is tried again in the next one.
 */
void
cancel_lock_waits(void)
{
	HASH_SEQ_STATUS walk;
	Database       *database;

	roster_begin(&walk);
	while ((database = roster_next(&walk)) != NULL)
	{
		pid_t pid;

		if (database->scheduler == NULL ||
			GetBackgroundWorkerPid(database->scheduler, &pid) != BGWH_STARTED ||
			!waits_for_lock(database, pid, LOCK_PATIENCE_MS))
			continue;
		ereport(
			LOG,
			(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
			 errmsg("quota_manager scheduler of database \"%s\" has waited for a lock for %d s",
					database->entry.name, LOCK_PATIENCE_MS / 1000),
			 errdetail("Other databases wait for its place: it tries again in its next turn.")));
		(void) kill(pid, SIGINT);
	}
}
