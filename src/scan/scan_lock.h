/*
 * scan_lock.h
 *		Locks of strategies and of what is known of balances at a gateway.
 *
 * They are held to the end of the transaction, and no function of SQL can name
 * them.  One rule keeps their holders from waiting for each other: who holds
 * none may wait; who holds some only tries.  Edits of a strategy and decisions
 * by hand wait all the same: scans that would wait for them do not.
 *
 * An edit comes to the lock of a strategy when it has locked its row; so does
 * every function of ours that changes the row.  Only a transaction that scans a
 * strategy and edits it afterwards takes them in the other order.
 *
 * Whoever locks many strategies locks all of them in the end: what a
 * transaction takes of the server's table of locks is bounded.
 *
 * The lock of a gateway's balances is held exclusively by who decides by them,
 * clears them, asks for them or stores answers, and shared by who grants there
 * while none are known.
 */
#ifndef QM_SCAN_LOCK_H
#define QM_SCAN_LOCK_H

#include "postgres.h"

extern bool strategy_lock_edit_try(int32 id);
extern void strategy_lock_edit(int32 id);
extern int  strategy_lock_holders(int32 id, int *pids, int max);
extern bool balance_lock_try(const char *gateway);
extern void balance_lock_wait(const char *gateway);

#endif /* QM_SCAN_LOCK_H */
