/*
 * occupied.c
 *		Of the launcher: databases that somebody drops, renames, moves or copies.
 *
 * PostgreSQL locks a database for such a command before it looks whether the
 * role may give it.  So not every lock counts, or whoever tries again and
 * again could keep workers from working: only one that a transaction has at
 * several looks in a row.  Who may give the command holds it until workers are
 * gone, or for five seconds.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_database.h"
#include "storage/lock.h"

#include "worker/occupied.h"
#include "worker/roster.h"

/* So many looks in a row. */
#define LOOKS 4

/*
 * Notes who has locked a database.  Returns true once it is the same
 * transaction for long enough.
 */
static bool
is_held(Database *database)
{
	LOCKTAG               tag;
	VirtualTransactionId *holder;

	SET_LOCKTAG_OBJECT(tag, InvalidOid, DatabaseRelationId, database->oid, 0);
	holder = GetLockConflicts(&tag, RowExclusiveLock, NULL);
	if (!VirtualTransactionIdIsValid(*holder))
		database->looks = 0;
	for (; VirtualTransactionIdIsValid(*holder); holder++)
	{
		if (database->looks > 0 && VirtualTransactionIdEquals(*holder, database->holder))
			return ++database->looks >= LOOKS;
		if (!VirtualTransactionIdIsValid(holder[1]))
		{
			database->holder = *holder;
			database->looks = 1;
			return false;
		}
	}
	return false;
}

/*
 * Looks which databases are locked by such commands: none is started there.
 * Where workers are in the way of one, database->claimed is set, and they are
 * to end.  Returns true if it is to be looked again soon; *freed is set if one
 * was locked and is not any more.
 */
bool
look_for_occupants(bool *freed)
{
	MonoTime        now = mono_now();
	bool            unsure = false;
	HASH_SEQ_STATUS walk;
	Database       *database;

	*freed = false;
	StartTransactionCommand();
	roster_begin(&walk);
	while ((database = roster_next(&walk)) != NULL)
	{
		bool occupied;

		/* those in which nothing was found matter only while they are looked into */
		if (!database->announced && !database->occupied && database->scheduler == NULL &&
			database->wanted > now)
			continue;
		occupied = !database_is_free(database->oid);
		if (!occupied)
		{
			*freed = *freed || database->occupied;
			database->claimed = false;
			database->looks = 0;
		}
		else if (!database->claimed)
		{
			database->claimed = is_held(database);
			if (database->claimed && database->scheduler != NULL)
				ereport(LOG,
						(errmsg("quota_manager workers leave database \"%s\" while it is dropped, "
								"renamed, moved or copied",
								database->entry.name)));
			unsure = unsure || !database->claimed;
		}
		database->occupied = occupied;
	}
	CommitTransactionCommand();
	return unsure;
}
