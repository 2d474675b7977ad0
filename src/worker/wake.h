/*
 * wake.h
 *		Wakes workers when a transaction commits that made something due for them.
 *
 * For any session.  What is asked for is done once per transaction, at its
 * commit, and forgotten if it is aborted or prepared: workers find out by
 * themselves within quota_manager.poll_interval.
 */
#ifndef QM_WAKE_H
#define QM_WAKE_H

#include "postgres.h"

#include "worker/worker.h"

extern void wake_when_committed(WorkerKind kind);
extern void retry_when_committed(WorkerKind kind);
extern void break_off_when_committed(void);
extern bool workers_are_enabled(void);
extern int  signal_workers(Oid database, WorkerKind kind, int signal);

/* For workers. */
extern uint64 completed_transactions(void);

#endif /* QM_WAKE_H */
