/*
 * roster.c
 *		Of the launcher: the databases that it knows, what became of their last
 *		turn, and whose turn is next.
 */
#include "postgres.h"

#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "worker/obstacle.h"
#include "worker/roster.h"

/* How long to wait before a scheduler is started again that broke, and for how long it must live. */
#define BROKE_MIN_MS 1000
#define BROKE_MAX_MS (INT64CONST(60) * 1000)

/*
 * The same where it found nothing to do.  Whether a database has the extension
 * cannot be seen from outside of it, so each is looked into; the more there
 * are, the less often.
 */
#define IDLE_MIN_MS (10 * 1000)
#define IDLE_MAX_MS (60 * 1000)
#define IDLE_MAX_PER_DATABASE_MS 1000

/*
 * A database that has no place is looked at again after so long even if
 * nothing is due by then: it notices edits only when it has its turn.  With
 * more databases it takes longer, so that turns do not get more frequent.
 */
#define REVISIT_MIN_MS (5 * 1000)
#define REVISIT_PER_DATABASE_MS 500
#define REVISIT_MAX_MS (60 * 1000)

/* A database that is asked for all the time is started no more often than this. */
#define RING_MS 1000

static HTAB *databases;

/*
 * Makes an empty roster, for the life of this process.
 */
void
roster_create(void)
{
	HASHCTL control = {0};

	control.keysize = sizeof(Oid);
	control.entrysize = sizeof(Database);
	control.hcxt = TopMemoryContext;
	databases =
		hash_create("quota_manager databases", 32, &control, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

/*
 * How many databases there are in it.
 */
int
roster_size(void)
{
	return (int) hash_get_num_entries(databases);
}

/*
 * Walks through all of them: NULL after the last one.  A walk is not to be
 * left before that; the database that it has come to may be removed.
 */
void
roster_begin(HASH_SEQ_STATUS *walk)
{
	hash_seq_init(walk, databases);
}

/*
 * Walks through all of them: NULL after the last one.  A walk is not to be
 * left before that; the database that it has come to may be removed.
 */
Database *
roster_next(HASH_SEQ_STATUS *walk)
{
	return hash_seq_search(walk);
}

/*
 * Says that the role may not connect, once until it may.
 */
static void
explain_connect(Database *database)
{
	if (database->complained)
		return;
	database->complained = true;
	ereport(LOG, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				  errmsg("role \"%s\" may not connect to database \"%s\"", worker_role,
						 database->entry.name),
				  errhint("Grant it the privilege CONNECT on the database.")));
}

/*
 * Compares it with the databases that there are now, list of DatabaseEntry;
 * `only`: the only one to be served, InvalidOid: all.  Those that are gone are
 * not listed any more.
 */
void
roster_update(List *entries, Oid only)
{
	HASH_SEQ_STATUS walk;
	Database       *database;
	ListCell       *cell;

	roster_begin(&walk);
	while ((database = roster_next(&walk)) != NULL)
		database->listed = false;

	foreach (cell, entries)
	{
		DatabaseEntry *entry = lfirst(cell);
		bool           found;

		if (OidIsValid(only) && entry->oid != only)
			continue;
		database = hash_search(databases, &entry->oid, HASH_ENTER, &found);
		if (!found)
		{
			memset(database, 0, sizeof(*database));
			database->oid = entry->oid;
			database->wanted = mono_now();
		}
		if (!entry->can_connect)
			explain_connect(database);
		else if (found && !database->entry.can_connect)
		{
			database->complained = false;
			database->wanted = mono_now();
		}
		database->entry = *entry;
		database->listed = true;
	}
}

/*
 * Forgets what the last turn has left.
 */
static void
forget_memory(Database *database)
{
	if (database->memory != NULL)
		pfree(database->memory);
	database->memory = NULL;
}

/*
 * Forgets a database that has no scheduler any more.
 */
void
roster_remove(Database *database)
{
	forget_memory(database);
	hash_search(databases, &database->oid, HASH_REMOVE, NULL);
}

/*
 * Keeps what a turn has left for the next one.
 */
static void
keep_memory(Database *database, const Place *place)
{
	if (database->memory == NULL)
		database->memory = MemoryContextAlloc(TopMemoryContext, sizeof(TurnMemory));
	*database->memory = place->memory;
}

/*
 * Counts a scheduler that could not say why it ended.  It has logged an error
 * itself, but not what becomes of the database.
 */
static void
count_breakage(Database *database, bool connected)
{
	if (mono_now() >= mono_add_ms(database->start_time, BROKE_MAX_MS))
		backoff_none(&database->backoff);
	backoff_more(&database->backoff, BROKE_MIN_MS, BROKE_MAX_MS);
	if (connected || database->complained)
		return;
	database->complained = true;
	ereport(WARNING,
			(errcode(ERRCODE_CONNECTION_FAILURE),
			 errmsg("quota_manager could not connect to database \"%s\" as role \"%s\"",
					database->entry.name, worker_role),
			 errhint("The message before this one says why. It is tried again after 1 s, 2 s, ... "
					 "1 min.")));
}

/*
 * Notes how the turn of a database ended, from its place, and when it is
 * wanted again.  What keeps it from being served is said, once.
 */
void
roster_turn_ended(Database *database, Place *place)
{
	SchedulerEnd end = place->end;
	MonoTime     now = mono_now();

	if (place->served || end != database->last_end ||
		strcmp(place->obstacle, database->obstacle) != 0)
		database->complained = false;
	database->last_end = end;
	strlcpy(database->obstacle, place->obstacle, OBSTACLE_SIZE);
	database->announced = place->announced && end != SCHEDULER_ABSENT;
	/* It was told to step aside, and comes back when it may. */
	if (database->occupied && end == SCHEDULER_BROKE)
		backoff_none(&database->backoff);
	else if (end == SCHEDULER_BROKE)
		count_breakage(database, place->connected);
	else if (end == SCHEDULER_YIELDED)
		backoff_none(&database->backoff);
	else if (end == SCHEDULER_ABSENT || end == SCHEDULER_DISABLED)
		backoff_more(&database->backoff, IDLE_MIN_MS,
					 IDLE_MAX_MS + IDLE_MAX_PER_DATABASE_MS * roster_size());
	else
		/* It is about to be mended, one should think. */
		backoff_more(&database->backoff, BROKE_MIN_MS, IDLE_MIN_MS);

	database->wanted = Max(database->backoff.not_before, now);
	if (end == SCHEDULER_YIELDED)
	{
		int revisit =
			Min(Max(REVISIT_PER_DATABASE_MS * roster_served(), REVISIT_MIN_MS), REVISIT_MAX_MS);

		database->wanted = Max(Min(place->wanted, mono_add_ms(now, revisit)), now);
		keep_memory(database, place);
	}
	else
		forget_memory(database);
	if (database->rang)
		roster_ring(database->oid);
	database->rang = false;

	if (end != SCHEDULER_BROKE && end != SCHEDULER_YIELDED && !database->complained)
	{
		database->complained = true;
		explain_obstacle(end, database->obstacle, database->entry.name);
	}
}

/*
 * True if a scheduler could be started for it.
 */
bool
roster_is_startable(const Database *database)
{
	return database->scheduler == NULL && database->listed && database->entry.can_connect &&
		   !database->occupied;
}

/*
 * The database that is next; NULL: none.  early: also one that is not wanted
 * yet, if its last turn ended well.
 */
Database *
roster_next_turn(bool early)
{
	HASH_SEQ_STATUS walk;
	MonoTime        now = mono_now();
	Database       *database;
	Database       *best = NULL;

	roster_begin(&walk);
	while ((database = roster_next(&walk)) != NULL)
	{
		if (roster_is_startable(database) &&
			(database->wanted <= now || (early && database->last_end == SCHEDULER_YIELDED)) &&
			(best == NULL || database->wanted < best->wanted))
			best = database;
	}
	return best;
}

/*
 * How many databases are wanted that do not run.
 */
int
roster_overdue(void)
{
	HASH_SEQ_STATUS walk;
	MonoTime        now = mono_now();
	Database       *database;
	int             count = 0;

	roster_begin(&walk);
	while ((database = roster_next(&walk)) != NULL)
	{
		if (roster_is_startable(database) && database->wanted <= now)
			count++;
	}
	return count;
}

/*
 * How many are served, all the time or in turns.
 */
int
roster_served(void)
{
	HASH_SEQ_STATUS walk;
	Database       *database;
	int             count = 0;

	roster_begin(&walk);
	while ((database = roster_next(&walk)) != NULL)
	{
		if (database->announced && (database->scheduler != NULL ||
									database->last_end == SCHEDULER_YIELDED || database->occupied))
			count++;
	}
	return count;
}

/*
 * Milliseconds until another database is wanted, at most limit_ms.
 */
long
roster_pause(long limit_ms)
{
	HASH_SEQ_STATUS walk;
	Database       *database;
	long            pause = limit_ms;

	roster_begin(&walk);
	while ((database = roster_next(&walk)) != NULL)
	{
		long wait = mono_ms_until(database->wanted, limit_ms);

		if (roster_is_startable(database) && wait > 0)
			pause = Min(pause, wait);
	}
	return pause;
}

/*
 * A session asks for a turn of a database.
 */
void
roster_ring(Oid oid)
{
	Database *database = hash_search(databases, &oid, HASH_FIND, NULL);

	if (database == NULL)
		return;
	if (database->scheduler != NULL)
	{
		database->rang = true;
		return;
	}
	/* A database where workers break is not started for every call. */
	if (database->last_end != SCHEDULER_BROKE)
		backoff_none(&database->backoff);
	database->wanted = Min(database->wanted, Max(Max(mono_now(), database->backoff.not_before),
												 mono_add_ms(database->start_time, RING_MS)));
}

/*
 * Whatever the matter was with any of them, it may have been mended.
 */
void
roster_forget(void)
{
	HASH_SEQ_STATUS walk;
	MonoTime        now = mono_now();
	Database       *database;

	roster_begin(&walk);
	while ((database = roster_next(&walk)) != NULL)
	{
		backoff_none(&database->backoff);
		database->wanted = Min(database->wanted, now);
		forget_memory(database);
	}
}
