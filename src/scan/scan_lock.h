/*
 * scan_lock.h
 *		Locks of strategies and of the balances of a gateway.
 *
 * They are held to the end of the transaction, and no function of SQL can name
 * them.  One rule prevents deadlocks: a transaction that holds none may wait; one
 * that holds some only tries.  Edits of a strategy and decisions by hand wait in
 * any case: scans never wait for them.
 *
 * An edit takes the lock of a strategy after it has locked the row; so does every
 * function of ours that changes the row.  Only a transaction that scans a
 * strategy and edits it afterwards takes them in the other order.
 *
 * A transaction that needs many strategies takes one lock for all of them, so that
 * its share of the server's lock table is bounded.
 *
 * The lock of a gateway's balances is exclusive for deciding by them, clearing
 * them, asking for them and storing answers, and shared for granting there while
 * the gateway has no balance samples.
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
