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

extern void doorbell_reserve(void);

extern void doorbell_ring(Oid database);

extern void doorbell_answer(void);

/*
 * In the launcher: the databases that rang since the last time, at most
 * DOORBELL_SIZE.  Returns how many; -1: too many to tell, it may be any.
 */
#define DOORBELL_SIZE 64
extern int doorbell_take(Oid *databases);

extern void doorbell_count_leaving(int change);
extern bool doorbell_turn_ends(void);

#endif /* QM_DOORBELL_H */
