/*
 * doorbell.h
 *		How sessions tell the launcher of the cluster that their database wants
 *		a turn now, although no worker of it may run.
 *
 * Kept in shared memory, so it is there where the library is preloaded.  A
 * call that is lost, with a crash, costs time only: every database is looked
 * at again by and by.
 */
#ifndef QM_DOORBELL_H
#define QM_DOORBELL_H

#include "postgres.h"

/* Reserves the shared memory; called while the library is preloaded. */
extern void doorbell_reserve(void);

/* Asks for a turn of a database.  May be called while a transaction commits. */
extern void doorbell_ring(Oid database);

/* In the launcher: this process is to be called, until it ends. */
extern void doorbell_answer(void);

/*
 * In the launcher: the databases that rang since the last time, at most
 * DOORBELL_SIZE.  Returns how many; -1: too many to tell, it may be any.
 */
#define DOORBELL_SIZE 64
extern int doorbell_take(Oid *databases);

/*
 * Whether there is a scheduler, of any database, that may not look again: a
 * session whose transaction has committed rings then although one runs.  A
 * scheduler counts itself before it looks for the last time, so that either it
 * sees what was committed or the session sees it; its launcher takes it off
 * once the process is gone.
 */
extern void doorbell_count_leaving(int change);
extern bool doorbell_turn_ends(void);

#endif /* QM_DOORBELL_H */
