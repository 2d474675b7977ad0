/*
 * process.h
 *		What the three kinds of worker processes have in common.
 *
 * A parent takes its children along: a launcher that ends terminates its
 * schedulers, a scheduler its courier.  Children are registered to be never
 * restarted by the postmaster, since their parent does it, with a back-off.
 * So the state of a crash or of a lost signal is never kept: every parent
 * compares what runs with what should, each few seconds.
 *
 * Everything here is for worker processes only, unless it says otherwise, and
 * is called from their main loop, never from a signal handler.
 */
#ifndef QM_PROCESS_H
#define QM_PROCESS_H

#include "postgres.h"

#include "libpq/pqsignal.h"
#include "postmaster/bgworker.h"
#include "storage/dsm_impl.h"
#include "utils/timestamp.h"

#include "delivery/delivery.h"
#include "worker/backoff.h"

/* Settings, defined in settings.c. */
extern int   scan_interval; /* seconds */
extern int   poll_interval; /* milliseconds */
extern int   max_workers;
extern bool  workers_setting;
extern char *worker_role;

/*
 * The kinds of workers.  The number is also the second half of the advisory
 * lock that a worker holds while it lives, so that there is one of its kind
 * in a database, and so that anyone can see who it is.
 */
typedef enum WorkerKind
{
	WORKER_LAUNCHER = 0,
	WORKER_SCHEDULER = 1,
	WORKER_COURIER = 2,
} WorkerKind;

/* First half of those advisory locks: "qmwc". */
#define WORKER_LOCK_CLASS 0x716d7763

/* Room for the version of a library. */
#define LIBRARY_SIZE 16

/* What a child is told by its parent, in bgw_extra. */
typedef struct WorkerOrder
{
	Oid        database;
	Oid        role;
	dsm_handle board;                      /* segment with the places: place.h */
	int        place;                      /* which one is its own */
	char       database_name[NAMEDATALEN]; /* for people: a database can be renamed */
	char       library[LIBRARY_SIZE];      /* version of the parent's library */
} WorkerOrder;

/* Seconds after which the postmaster starts a launcher again. */
#define LAUNCHER_RESTART_SECONDS 5

/*
 * Signal by which a scheduler lets its courier claim nothing more, wait for
 * what is in flight, and end.
 */
#define DISMISSAL_SIGNAL SIGUSR2

/* The library was preloaded, so there is a launcher for the whole cluster. */
extern bool launcher_is_preloaded;

/* Name of a kind in pg_stat_activity.backend_type. */
extern const char *worker_type(WorkerKind kind);

/*
 * Fills what is common to all our workers.  `suffix` (may be NULL) is
 * appended to the name that ps and pg_stat_activity show.
 */
extern void describe_worker(BackgroundWorker *worker, WorkerKind kind, const char *suffix);

/* True if this, of a background worker, is the type of a scheduler or courier of ours. */
extern bool is_worker_of_database(const char *type);

/*
 * Starts a child that serves order->database.  NULL: the server has no slot
 * left for background workers.  The handle is palloc'd and outlives every
 * transaction; the latch of this process is set when the child starts and ends.
 */
extern BackgroundWorkerHandle *start_child(WorkerKind kind, const WorkerOrder *order);

/* True once the child has ended. */
extern bool child_has_ended(BackgroundWorkerHandle *handle);

/* Sets its latch, so that it looks for work at once. */
extern void wake_child(BackgroundWorkerHandle *handle);

/*
 * Connects a child as its parent ordered, sets its session up and lets
 * signals in: SIGTERM to the handler given, SIGHUP for worker_reload.
 */
extern void connect_child(const WorkerOrder *order, pqsigfunc on_sigterm);

/*
 * The order in bgw_extra of this process.  Where the parent runs another
 * version of the library, as it may after the file was replaced where it is not
 * preloaded, nothing that they share can be relied on: both end, and the
 * launcher is started again with the library that there is now.
 */
extern WorkerOrder received_order(void);

/*
 * Signal handler for SIGTERM.  While idle it only sets
 * ShutdownRequestPending; in a transaction or a scan, that is between
 * begin_interruptible and end_interruptible, it is die(), which ends the
 * process with a FATAL at the next check for interrupts.
 */
extern void handle_stop_request(SIGNAL_ARGS);
extern void begin_interruptible(void);
extern void end_interruptible(void);

/*
 * Signal handler for SIGINT: between begin_interruptible and end_interruptible
 * it cancels what is being done, by an error; while idle there is nothing to
 * cancel.
 */
extern void handle_cancel_request(SIGNAL_ARGS);

/*
 * Takes the lock of a kind of worker for a database (InvalidOid: for the
 * cluster) until the process ends.  False: another process has it.
 */
extern bool take_worker_lock(Oid database, WorkerKind kind);

/*
 * Takes the lock of this kind of worker for this database; waits for another
 * process that has it and may be about to end, unless *stop becomes true.
 */
extern void await_worker_lock(WorkerKind kind, volatile sig_atomic_t *stop);

/*
 * True if nobody drops, renames, moves or copies a database, or waits to.  In a
 * transaction; for any backend.
 */
extern bool database_is_free(Oid database);

/*
 * Sleeps until the latch is set or the time has passed, and handles what came
 * meanwhile: ends the process when the postmaster is gone, processes
 * interrupts, barriers included.  Returns true if settings were reloaded.
 */
extern bool worker_wait(long timeout_ms);

/* Reloads the settings if SIGHUP asked for it; true if it did. */
extern bool worker_reload(void);

/* Shows in pg_stat_activity what is being done; NULL: idle. */
extern void report_phase(const char *phase);

/*
 * What report_phase shows from now on while the process is idle; NULL: what it
 * did last.  Copied.
 */
extern void report_notice(const char *notice);

/* Shows it as the state of a process that sleeps. */
extern void report_idle(const char *state);

/*
 * Tells the error that is being handled from others: a hash of its message,
 * never 0.  Leaves a copy of it in the current memory context.
 */
extern uint32 hash_error(void);

/*
 * Shows that this database is a copy and waits for resume(), which is looked
 * for again after so many milliseconds.
 */
#define FENCED_NAP_MS 1000
extern void report_fence(void);

/*
 * What is wrong with quota_manager.worker_role.  NULL: nothing, and *role is
 * set.  Otherwise a message, with *hint.  Must be called in a transaction; for
 * any backend.
 */
extern const char *check_worker_role(Oid *role, const char **hint);

/*
 * Of the launcher: who the workers are to be.  InvalidOid: nobody; *problem
 * tells why (NULL: they are switched off), valid until the next call, and the
 * log does, once.  Must be called in a transaction.
 */
extern Oid find_worker_role(const char **problem);

/*
 * Transactions of a worker that serves a database.  They begin by waiting
 * until nobody is dropping the extension, and raise an error with
 * ERRCODE_UNDEFINED_OBJECT if it is gone: so a DROP EXTENSION never waits for
 * more than one short transaction, and never deadlocks with one.  The same
 * error is raised where the extension was updated to a version that the library
 * does not serve.  While an update to that of the library is waiting, the
 * notice says so.
 */
extern const WorkUnit database_work_unit;

/* Message of the error that is being handled, allocated in the current memory context. */
extern char *error_message(void);

/*
 * True if the error that is being handled came from database_work_unit: the
 * extension is gone, or is another one.
 */
extern bool extension_is_gone(void);

#endif /* QM_PROCESS_H */
