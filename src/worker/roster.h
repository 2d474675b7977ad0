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

#include "common/backoff.h"
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

extern void roster_create(void);

extern int roster_size(void);

extern void      roster_begin(HASH_SEQ_STATUS *walk);
extern Database *roster_next(HASH_SEQ_STATUS *walk);

extern void roster_update(List *entries, Oid only);

extern void roster_remove(Database *database);

extern void roster_turn_ended(Database *database, Place *place);

extern bool roster_is_startable(const Database *database);

extern Database *roster_next_turn(bool early);

extern int roster_overdue(void);

extern int roster_served(void);

extern long roster_pause(long limit_ms);

extern void roster_ring(Oid oid);

extern void roster_forget(void);

extern void roster_report(int places, int without_room, const char *role_problem);

#endif /* QM_ROSTER_H */
