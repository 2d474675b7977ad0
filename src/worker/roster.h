/*
 * roster.h
 *		Of the launcher: the databases that it knows, what became of their last
 *		turn, and whose turn is next.
 *
 * A database is wanted at some time: at once when it is new or was asked for,
 * later when its last turn ended well, after a back-off when it did not.  Who
 * has been wanted longest is next.
 */
#ifndef QM_ROSTER_H
#define QM_ROSTER_H

#include "postgres.h"

#include "nodes/pg_list.h"
#include "storage/lock.h"
#include "utils/hsearch.h"

#include "worker/backoff.h"
#include "worker/databases.h"
#include "worker/place.h"
#include "worker/process.h"

typedef struct Database
{
	Oid                     oid; /* hash key; must be first */
	DatabaseEntry           entry;
	bool                    listed;   /* it is still there, and can be served */
	bool                    occupied; /* somebody drops, renames, moves or copies it, or tries */
	bool                    claimed;  /* and is kept from it by workers */
	VirtualTransactionId    holder;   /* who has locked it, */
	int                     looks;    /* at how many looks in a row */
	Backoff                 backoff;
	MonoTime                wanted; /* since when it should run */
	bool                    rang;   /* it was asked for while it ran */
	SchedulerEnd            last_end;
	char                    obstacle[OBSTACLE_SIZE]; /* that the last scheduler met */
	bool                    complained;              /* what is the matter was said */
	bool                    announced;               /* that it is served was said */
	BackgroundWorkerHandle *scheduler;               /* NULL: none runs */
	WorkerOrder             order;                   /* what it was told */
	MonoTime                start_time;
	TimestampTz             lock_wait; /* since when its scheduler waits for a lock, as that says */
	MonoTime                lock_wait_seen; /* when that was seen first */
	TurnMemory             *memory;         /* what its last turn left; NULL: nothing */
} Database;

/* Makes an empty roster, for the life of this process. */
extern void roster_create(void);

/* How many databases there are in it. */
extern int roster_size(void);

/*
 * Walks through all of them: NULL after the last one.  A walk is not to be left
 * before that; the database that it has come to may be removed.
 */
extern void      roster_begin(HASH_SEQ_STATUS *walk);
extern Database *roster_next(HASH_SEQ_STATUS *walk);

/*
 * Compares it with the databases that there are now, list of DatabaseEntry;
 * `only`: the only one to be served, InvalidOid: all.  Those that are gone are
 * not listed any more.
 */
extern void roster_update(List *entries, Oid only);

/* Forgets a database that has no scheduler any more. */
extern void roster_remove(Database *database);

/*
 * Notes how the turn of a database ended, from its place, and when it is
 * wanted again.  What keeps it from being served is said, once.
 */
extern void roster_turn_ended(Database *database, Place *place);

/* True if a scheduler could be started for it. */
extern bool roster_is_startable(const Database *database);

/*
 * The database that is next; NULL: none.  early: also one that is not wanted
 * yet, if its last turn ended well.
 */
extern Database *roster_next_turn(bool early);

/* How many databases are wanted that do not run. */
extern int roster_overdue(void);

/* How many are served, all the time or in turns. */
extern int roster_served(void);

/* Milliseconds until another database is wanted, at most limit_ms. */
extern long roster_pause(long limit_ms);

/* A session asks for a turn of a database. */
extern void roster_ring(Oid oid);

/* Whatever the matter was with any of them, it may have been mended. */
extern void roster_forget(void);

/*
 * Shows in pg_stat_activity how databases are served, and says in the log if
 * they take turns.  without_room: how many wait although there are places;
 * role_problem: why none is served, NULL: nothing.
 */
extern void roster_report(int places, int without_room, const char *role_problem);

#endif /* QM_ROSTER_H */
