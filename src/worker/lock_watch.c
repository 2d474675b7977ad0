/*
 * lock_watch.c
 *		Of the launcher: locks that others hold.
 *
 * A database is locked by DDL that drops, renames, moves or copies it and wants
 * nobody to be connected.  PostgreSQL locks it before it checks whether the role
 * may give the command.  So not every lock counts, or whoever tries again and
 * again could keep workers from working: only one that a transaction holds at
 * several polls in a row.  Who may give the command holds it until workers are
 * gone, or for five seconds.
 *
 * A scan is not cut short, however long it takes.  But a lock can be held by a
 * session that has forgotten its transaction, and a time slice that does not end
 * for that would starve other databases.
 */
#include "postgres.h"

#include <signal.h>

#include "access/xact.h"
#include "catalog/pg_database.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "storage/procarray.h"

#include "worker/launcher_state.h"
#include "worker/timing.h"

/*
 * Notes who has locked a database.  True once it is the same transaction for
 * long enough.
 */
static bool
lock_lasts(Database *database)
{
	LOCKTAG               tag;
	VirtualTransactionId *holder;

	SET_LOCKTAG_OBJECT(tag, InvalidOid, DatabaseRelationId, database->oid, 0);
	holder = GetLockConflicts(&tag, RowExclusiveLock, NULL);
	if (!VirtualTransactionIdIsValid(*holder))
		database->ddl.polls = 0;
	for (; VirtualTransactionIdIsValid(*holder); holder++)
	{
		if (database->ddl.polls > 0 && VirtualTransactionIdEquals(*holder, database->ddl.holder))
			return ++database->ddl.polls >= DDL_LOCK_POLLS;
		if (!VirtualTransactionIdIsValid(holder[1]))
		{
			database->ddl.holder = *holder;
			database->ddl.polls = 1;
			return false;
		}
	}
	return false;
}

/* Polls one database. */
static void
poll_database(Database *database)
{
	database->ddl.is_locked = !database_is_unlocked(database->oid);
	if (!database->ddl.is_locked)
	{
		database->ddl.is_confirmed = false;
		database->ddl.polls = 0;
	}
	else if (!database->ddl.is_confirmed && lock_lasts(database))
	{
		database->ddl.is_confirmed = true;
		if (database->slot != NULL)
			ereport(LOG, (errmsg("quota_manager workers leave database \"%s\" while it is dropped, "
								 "renamed, moved or copied",
								 database->name)));
	}
}

/*
 * Finds out which databases are locked by DDL: no worker is started there, and
 * once the lock is confirmed those that run are to leave.  Returns true if it is
 * to be called again soon; *released is set if one was locked and is not any
 * more.
 */
bool
ddl_locks_poll(bool *released)
{
	MonoTime now = mono_now();
	bool     unsure = false;

	*released = false;
	StartTransactionCommand();
	for (Database *database = launcher.first; database != NULL; database = database->next)
	{
		bool was_locked = database->ddl.is_locked;

		/* where nothing is served it only matters when a slot is wanted */
		if (!database->announced && !was_locked && database->slot == NULL && database->wanted > now)
			continue;
		poll_database(database);
		*released = *released || (was_locked && !database->ddl.is_locked);
		unsure = unsure || (database->ddl.is_locked && !database->ddl.is_confirmed);
	}
	CommitTransactionCommand();
	return unsure;
}

/*
 * Whether the scheduler of a database was seen in one and the same wait for a
 * lock for so long.  When a wait began by the wall clock only serves to know it
 * again.
 */
static bool
waits_for_lock(Database *database, pid_t pid, int ms)
{
	PGPROC     *proc = BackendPidGetProc(pid);
	TimestampTz since = proc != NULL ? (TimestampTz) pg_atomic_read_u64(&proc->waitStart) : 0;

	if (since != database->lock_wait.since)
		database->lock_wait.seen = mono_now();
	database->lock_wait.since = since;
	return since != 0 && mono_now() >= mono_add_ms(database->lock_wait.seen, ms);
}

/*
 * Cancels what a scheduler waits for since LOCK_PATIENCE_MS, so that its time
 * slice can end; it is tried again in the next one.
 */
void
lock_waits_cancel(void)
{
	for (Database *database = launcher.first; database != NULL; database = database->next)
	{
		BackgroundWorkerHandle *scheduler = database->workers[WORKER_SCHEDULER].handle;
		pid_t                   pid;

		if (scheduler == NULL || GetBackgroundWorkerPid(scheduler, &pid) != BGWH_STARTED ||
			!waits_for_lock(database, pid, LOCK_PATIENCE_MS))
			continue;
		ereport(LOG,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("quota_manager scheduler of database \"%s\" has waited for a lock for "
						"%d s",
						database->name, LOCK_PATIENCE_MS / 1000),
				 errdetail("Other databases wait for its slot: it tries again in its next time "
						   "slice.")));
		(void) kill(pid, SIGINT);
	}
}
