/*
 * subtransaction.h
 *		Trying something within a transaction that goes on if it fails.
 */
#ifndef QM_SUBTRANSACTION_H
#define QM_SUBTRANSACTION_H

#include "postgres.h"

extern ErrorData *subtransaction_try(void (*body)(void *argument), void *argument,
									 MemoryContext error_memory);
extern void       subtransaction_undo(void (*body)(void *argument), void *argument);

#endif /* QM_SUBTRANSACTION_H */
