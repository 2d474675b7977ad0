/*
 * scan_lock.h
 *		Locks of strategies and of what is known of balances at a gateway.
 *
 * They are held to the end of the transaction, and no function of SQL can name
 * them.  One rule keeps their holders from waiting for each other: who holds
 * none may wait; who holds some only tries.  Edits of a strategy and decisions
 * by hand wait all the same: scans that would wait for them do not.
 *
 * The lock of a gateway's balances is held exclusively by who decides by them,
 * clears them, asks for them or stores answers, and shared by who grants there
 * while none are known.
 */
#ifndef QM_SCAN_LOCK_H
#define QM_SCAN_LOCK_H

#include "postgres.h"

/* Takes the lock of a gateway's balances exclusively if it is free, or held by this transaction. */
extern bool balance_lock_try(const char *gateway);

/* The same for who changes quotas by hand: waits for it. */
extern void balance_lock_wait(const char *gateway);

#endif /* QM_SCAN_LOCK_H */
