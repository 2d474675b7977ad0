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
#include "common/backoff.h"

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

extern const char *worker_type(WorkerKind kind);

extern void describe_worker(BackgroundWorker *worker, WorkerKind kind, const char *suffix);

extern bool is_worker_of_database(const char *type);

extern BackgroundWorkerHandle *start_child(WorkerKind kind, const WorkerOrder *order);

extern bool child_has_ended(BackgroundWorkerHandle *handle);

extern void wake_child(BackgroundWorkerHandle *handle);

extern void connect_child(const WorkerOrder *order, pqsigfunc on_sigterm);

extern WorkerOrder received_order(void);

extern void handle_stop_request(SIGNAL_ARGS);
extern void begin_interruptible(void);
extern void end_interruptible(void);

extern void handle_cancel_request(SIGNAL_ARGS);

extern bool take_worker_lock(Oid database, WorkerKind kind);

extern void await_worker_lock(WorkerKind kind, volatile sig_atomic_t *stop);

extern bool database_is_free(Oid database);

extern bool worker_wait(long timeout_ms);

extern bool worker_reload(void);

extern void report_phase(const char *phase);

extern void report_notice(const char *notice);

extern void report_idle(const char *state);

extern uint32 hash_error(void);

/*
 * Shows that this database is a copy and waits for resume(), which is looked
 * for again after so many milliseconds.
 */
#define FENCED_NAP_MS 1000
extern void report_fence(void);

extern const char *check_worker_role(Oid *role, const char **hint);

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

extern char *error_message(void);

extern bool extension_is_gone(void);

#endif /* QM_PROCESS_H */
