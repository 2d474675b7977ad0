/*
 * wake.h
 *		Tells workers, when a transaction has committed, that there is something
 *		to see for them.
 *
 * For any session.  What is asked for is done once per transaction, at its
 * commit, and forgotten if it is aborted or prepared: workers find out by
 * themselves within quota_manager.poll_interval.
 */
#ifndef QM_WAKE_H
#define QM_WAKE_H

#include "postgres.h"

#include "worker/process.h"

/*
 * Lets a worker of this database look for work at once.  If none runs although
 * they are wanted, the launcher is told.
 */
extern void wake_when_committed(WorkerKind kind);

/*
 * Lets a worker of this database forget all waiting and look at everything; or the
 * launcher give this database a turn soon.
 */
extern void tell_when_committed(WorkerKind kind);

/*
 * Lets the scheduler of this database break off what it runs, forget all waiting
 * and look at everything.
 */
extern void break_off_when_committed(void);

/*
 * How many transactions that may have changed something have ended since the
 * server started; 0: that cannot be told.  As long as it stays what it was
 * before a snapshot was taken, the snapshot is up to date.
 */
extern uint64 completed_transactions(void);

#endif /* QM_WAKE_H */
