/*
 * place.h
 *		The places for schedulers, and what they and their launcher tell each
 *		other there.
 *
 * Where there are more databases than places they take turns.  The launcher
 * says how many databases wait; a scheduler whose turn is complete gives up
 * its place for one of them, and leaves when it wants to be back and what the
 * next turn of its database has to know.
 *
 * The board is a segment of dynamic shared memory that lives as long as its
 * launcher.  A place belongs to the launcher while no scheduler runs in it.
 */
#ifndef QM_PLACE_H
#define QM_PLACE_H

#include "postgres.h"

#include "port/atomics.h"
#include "storage/dsm.h"

#include "common/monotonic.h"

/* Why a scheduler ended. */
typedef enum SchedulerEnd
{
	SCHEDULER_BROKE,        /* it could not say: crashed, terminated, an error */
	SCHEDULER_YIELDED,      /* its turn was over */
	SCHEDULER_ABSENT,       /* the extension is not in this database */
	SCHEDULER_DISABLED,     /* stop_workers() was called */
	SCHEDULER_FORBIDDEN,    /* the role may not use the extension */
	SCHEDULER_DAMAGED,      /* a table of the extension is missing */
	SCHEDULER_INCOMPATIBLE, /* the extension is of a version that the library does not serve */
} SchedulerEnd;

/* Room for what is missing, or the version that there is. */
#define OBSTACLE_SIZE 192

/* What one turn of a database leaves for the next. */
typedef struct TurnMemory
{
	Oid    extension; /* it is of this one; InvalidOid: there is none */
	bool   fenced;    /* that the database is a copy was said */
	uint32 complaint; /* hash of the error that was logged last; 0: none */
	uint32 damage;    /* the same of what is missing */
} TurnMemory;

/* How far a scheduler has come with its courier. */
typedef enum CourierState
{
	COURIER_NOT_STARTED,
	COURIER_STARTED,
	COURIER_LACKS_ROOM, /* max_worker_processes is reached */
} CourierState;

typedef struct Place
{
	/* Written by the scheduler, read by the launcher when that has ended. */
	SchedulerEnd end;
	MonoTime     wanted;                  /* YIELDED: when to be back at the latest */
	char         obstacle[OBSTACLE_SIZE]; /* what is missing, or the version that there is */
	bool         connected;               /* it got as far as that, */
	bool         served;                  /* and nothing was missing */

	/* From the last turn, and for the next; the launcher reads the first while it runs. */
	volatile bool announced; /* that the database is served was said */
	TurnMemory    memory;

	/* Written by the scheduler, read by the launcher while it runs. */
	volatile bool about_to_leave; /* counted by doorbell_count_leaving */
	volatile bool leaving;        /* it has given up the place */
	volatile int  courier_state;  /* a CourierState */

	/*
	 * The courier has delivered what there was when the scheduler asked for
	 * the n-th time, once `answered` is n; `courier_next` is when it will look
	 * again (MONO_NEVER: nothing is pending).
	 */
	pg_atomic_uint32 asked;
	pg_atomic_uint32 answered;
	pg_atomic_uint64 courier_next;
	uint32           courier_complaint; /* like `complaint`, of the courier */
} Place;

typedef struct Board
{
	pg_atomic_uint32 waiting; /* how many databases wait for a place */
	int              count;
	Place            places[FLEXIBLE_ARRAY_MEMBER];
} Board;

extern Board *board_create(int places, dsm_handle *handle);

extern Place *board_attach(dsm_handle handle, int number, Board **board);

extern void place_prepare(Place *place);

extern bool board_is_contended(Board *board);

extern bool board_make_room(Board *board);

extern uint32 place_asked(Place *place);
extern void   place_answer(Place *place, uint32 asked, MonoTime next);

extern void     place_ask(Place *place);
extern bool     place_is_answered(Place *place);
extern MonoTime place_courier_next(Place *place);

#endif /* QM_PLACE_H */
