/*
 * agenda.h
 *		What the scheduler of a database has to do, and when.
 *
 * Periodic strategies are run when the schedule clock reaches their firing,
 * single ones every scan_interval of real time and when they are new or
 * edited.  What failed, or met a balance that could not be read, is tried
 * again after a back-off of its own, whichever kind it is.
 *
 * All of it can be forgotten at any time: it only saves work.  What is due is
 * decided by the database.
 */
#ifndef QM_AGENDA_H
#define QM_AGENDA_H

#include "postgres.h"

#include "nodes/pg_list.h"

#include "delivery/delivery.h"
#include "worker/backoff.h"
#include "worker/tick.h"

typedef struct Agenda Agenda;

/* What is remembered of a strategy. */
typedef struct Remembered
{
	int32   id; /* hash key; must be first */
	int32   version;
	Backoff retry;
	uint32  complaint; /* hash of what was logged last; 0: nothing was wrong */
} Remembered;

/* Tells one state of the tables of strategies, and of gateways and models, from another. */
typedef struct Fingerprint
{
	int64       strategies;
	int64       versions; /* hash of ids and versions */
	TimestampTz update_time;
	int64       gateways;
	int64       gateway_times; /* hash of ids and times of changes */
	int64       models;        /* hash of all rows */
} Fingerprint;

/* An agenda of at most so many strategies can be kept for another process. */
#define AGENDA_MEMORY_SIZE 256

typedef struct AgendaMemory
{
	bool        is_set;
	bool        changed;
	Fingerprint fingerprint;
	TimestampTz covered_until;
	MonoTime    next_singles;
	int         count;
	Remembered  strategies[AGENDA_MEMORY_SIZE];
} AgendaMemory;

/* Makes an empty agenda in the current memory context. */
extern Agenda *agenda_create(void);

/* Forgets everything: all single strategies are looked at next, and no back-off holds. */
extern void agenda_forget(Agenda *agenda);

/*
 * Looks whether strategies were changed or there is something to do, in one
 * short transaction if anything was committed since the last time.  Returns
 * false if stop_workers() was called.
 */
extern bool agenda_look(Agenda *agenda, const WorkUnit *unit);

/* True if agenda_look found that something may be due. */
extern bool agenda_has_work(const Agenda *agenda);

/* What to run now: list of DueStrategy in the current memory context. */
extern List *agenda_take(Agenda *agenda, const WorkUnit *unit);

/* Notes what became of one of them.  NULL: an error was raised. */
extern void agenda_note(Agenda *agenda, const DueStrategy *strategy, const TickResult *result);

/* Notes that all of them were run. */
extern void agenda_done(Agenda *agenda);

/*
 * Puts off one that was taken and not run, because others wait: agenda_look
 * will find it again at once, here or in another process.
 */
extern void agenda_postpone(Agenda *agenda, const DueStrategy *strategy);

/* Writes it down for another process that goes on with the work, and takes it over there. */
extern void agenda_save(const Agenda *agenda, AgendaMemory *memory);
extern void agenda_restore(Agenda *agenda, const AgendaMemory *memory);

/* Milliseconds to sleep until there may be something to do, at most limit_ms. */
extern long agenda_pause(const Agenda *agenda, long limit_ms);

#endif /* QM_AGENDA_H */
