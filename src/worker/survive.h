/*
 * survive.h
 *		Errors that a worker reports and outlives.
 */
#ifndef QM_SURVIVE_H
#define QM_SURVIVE_H

#include "postgres.h"

extern bool survive_step(void (*step)(void), MemoryContext scratch, uint32 *complaint,
						 const char **message);

extern void note_trouble(const char *kind, const char *message);

#endif /* QM_SURVIVE_H */
