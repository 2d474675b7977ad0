/*
 * survive.h
 *		Errors that a worker reports and outlives.
 */
#ifndef QM_SURVIVE_H
#define QM_SURVIVE_H

#include "postgres.h"

/*
 * Runs a step, in which SIGTERM interrupts.  False: it raised an error; all
 * transactions are ended then, and the log has it unless it is the one of
 * *complaint, which is set to its hash, or comes from a dropped extension.
 * It is kept for worker_status as one of the scheduler.  Afterwards the
 * current memory context is TopMemoryContext, and *message, allocated in
 * `scratch`, is that of the error.
 */
extern bool survive_step(void (*step)(void), MemoryContext scratch, uint32 *complaint,
						 const char **message);

/*
 * Keeps what went wrong with a kind of work (trouble.h) for those who look
 * later.  That it cannot be kept does not matter.
 */
extern void note_trouble(const char *kind, const char *message);

#endif /* QM_SURVIVE_H */
