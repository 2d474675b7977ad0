/*
 * process.h
 *		What the three kinds of worker processes have in common.
 *
 * The launcher starts the scheduler and the delivery worker of a database and
 * takes them along when it ends.  They are registered to be never restarted by
 * the postmaster: the launcher does it, with a back-off.
 *
 * For worker processes only, unless a function says otherwise, and called from
 * their main loop, never from a signal handler.
 */
#ifndef QM_PROCESS_H
#define QM_PROCESS_H

#include "postgres.h"

#include <signal.h>

#include "libpq/pqsignal.h"
#include "postmaster/bgworker.h"
#include "storage/dsm_impl.h"

#include "common/work_unit.h"
#include "worker/slot.h"
#include "worker/worker.h"

/* What the launcher passes to a worker of a database, in bgw_extra. */
#define LIBRARY_SIZE 16
typedef struct WorkerArguments
{
	dsm_handle table; /* slot table */
	int        slot;
	char       library[LIBRARY_SIZE]; /* version of the launcher's library */
} WorkerArguments;

/* Lets a delivery worker claim nothing more, wait for what is in flight, and end. */
#define GRACEFUL_STOP_SIGNAL SIGUSR2

/* Starting workers. */
extern const char *worker_type(WorkerKind kind);
extern bool        is_worker(int pid, WorkerKind kind);
extern void        describe_worker(BackgroundWorker *worker, WorkerKind kind, const char *suffix);
extern BackgroundWorkerHandle *start_worker(WorkerKind kind, const WorkerArguments *arguments,
											const char *database);
extern WorkerSlot             *connect_worker(WorkerKind kind, pqsigfunc on_sigterm);

/* A launcher for one database, where the library is not preloaded. */
extern void start_own_launcher(void);
extern Oid  await_starter(void);
extern void await_predecessor(Oid database);

/* Signals, and waiting. */
extern void handle_stop_request(SIGNAL_ARGS);
extern void handle_cancel_request(SIGNAL_ARGS);
extern void begin_interruptible(void);
extern void end_interruptible(void);
extern bool worker_reload(void);
extern bool worker_wait(long timeout_ms);

/* Locks. */
extern bool take_worker_lock(Oid database, WorkerKind kind);
extern void await_worker_lock(WorkerKind kind, volatile sig_atomic_t *stop);
extern bool database_is_unlocked(Oid database);

/* What pg_stat_activity shows. */
extern void report_phase(const char *phase);
extern void report_notice(const char *text);
extern void report_suspended(void);

/* Errors. */
extern char *end_error(MemoryContext context, uint32 *logged);
extern void  record_last_error(const WorkUnit *unit, const char *kind, const char *message);
extern bool  extension_is_gone(void);

/* The role of workers. */
extern const char *check_worker_role(Oid *role, const char **hint);
extern Oid         find_worker_role(char **problem);

/* Transactions of a worker that serves a database. */
extern const WorkUnit database_work_unit;

#endif /* QM_PROCESS_H */
