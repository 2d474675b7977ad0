/*
 * timing.h
 *		Every time that workers go by, in milliseconds unless its name says otherwise.
 */
#ifndef QM_WORKER_TIMING_H
#define QM_WORKER_TIMING_H

#include "postgres.h"

/* The postmaster starts a launcher again after so long. */
#define LAUNCHER_RESTART_SECONDS 5

/* A worker that has lived for so long has recovered: its next failure is a first one. */
#define RECOVERED_MS (INT64CONST(60) * 1000)

/* Back-off of a worker that broke; of deliveries shorter, since they may be the only thing that is wrong. */
#define BROKEN_MIN_MS 1000
#define BROKEN_SCHEDULER_MAX_MS (60 * 1000)
#define BROKEN_DELIVERY_MAX_MS (30 * 1000)

/* Back-off where a right, a table or the right version is missing: somebody is about to mend that. */
#define UNFIT_MIN_MS 1000
#define UNFIT_MAX_MS (10 * 1000)

/* Back-off where there is nothing to serve.  The more databases there are, the longer. */
#define UNSERVED_MIN_MS (10 * 1000)
#define UNSERVED_MAX_MS (60 * 1000)
#define UNSERVED_MAX_PER_DATABASE_MS 1000

/* Back-off when the server is out of worker slots, and for how long it then counts as short of them. */
#define OUT_OF_SLOTS_MIN_MS 250
#define OUT_OF_SLOTS_MAX_MS (5 * 1000)
#define SHORT_OF_SLOTS_MS (INT64CONST(60) * 1000)

/* Between looks for reversals that go on, and as a share of what one takes. */
#define REVERSALS_MIN_MS 100
#define REVERSALS_MAX_MS 30000
#define REVERSALS_COST_SHARE 20

/* Databases get a slot one at a time, in such intervals: most may have nothing to serve. */
#define START_INTERVAL_MS 100

/* How long a time slice lasts at least, to bound starts of processes, and at most, unless a scan does. */
#define SLICE_MIN_MS 1000
#define SLICE_MAX_MS (INT64CONST(10) * 1000)

/* After its slice, answers are awaited for so long, and the request to stop is repeated. */
#define SLICE_END_MS (INT64CONST(30) * 1000)
#define SLICE_END_REPEAT_MS 200

/* A scheduler that has not answered the request after so long is in a scan. */
#define SLICE_ANSWER_MS 1000

/* The next slice comes even if nothing is due: only a poll sees what is written without triggers. */
#define REVISIT_MIN_MS (5 * 1000)
#define REVISIT_PER_DATABASE_MS 500
#define REVISIT_MAX_MS (60 * 1000)

/* A copy that waits for resume() needs no slice sooner. */
#define SUSPENDED_REVISIT_MS (INT64CONST(60) * 60 * 1000)

/* A database that is asked for all the time gets a slice no more often. */
#define REQUEST_MS 1000

/* Wake-up requests are read no more often; the list of databases, and locks by DDL, that often. */
#define REQUESTS_READ_MS 20
#define DATABASES_READ_MS 1000

/* While it is not sure that a lock by DDL lasts, and how many polls make sure. */
#define DDL_LOCK_POLL_MS 100
#define DDL_LOCK_POLLS 4

/* A scheduler that waits for a lock for so long is cancelled where other databases wait. */
#define LOCK_PATIENCE_MS (10 * 1000)

/* For how long a new launcher of one database waits for its predecessor, and workers poll for their lock. */
#define PREDECESSOR_MS 5000
#define PREDECESSOR_POLL_MS 250
#define LOCK_POLL_MS 200

/* How long a command waits for workers to leave its database, and how often it polls. */
#define COMMAND_PATIENCE_MS 10000
#define COMMAND_POLL_MS 10

/* Back-off of a scheduler after a cycle that failed. */
#define CYCLE_RETRY_MIN_MS 1000
#define CYCLE_RETRY_MAX_MS (10 * 1000)

/* Answers are polled so often while balances are read. */
#define BALANCES_POLL_MS 10

/* The wall clock was set if it moved by so much more or less than the monotonic one. */
#define CLOCK_STEP_MS INT64CONST(100)

/* A copy polls for resume() so often. */
#define SUSPENDED_POLL_MS 1000

/* After SIGTERM: answers are awaited for so long, and a statement may take so long. */
#define STOP_GRACE_MS 500
#define STATEMENT_GRACE_MS 300

/* Deliveries that wrote something are followed by another poll after this time. */
#define SECOND_POLL_MS 100

/* tick(): how long it waits for balances at most, how often it polls for what is due, and for answers. */
#define TICK_MAX_MS (INT64CONST(10) * 60 * 1000)
#define TICK_DUE_POLL_MS 500
#define TICK_ANSWER_POLL_MS 50

#endif /* QM_WORKER_TIMING_H */
