/*
 * worker.h
 *		Background workers: a launcher for the cluster, a scheduler and a
 *		delivery worker for each database.  See docs/workers.md.
 */
#ifndef QM_WORKER_H
#define QM_WORKER_H

#include "postgres.h"

/*
 * The kinds of workers.  The number is also the second half of the advisory
 * lock that a worker holds while it lives, so that there is one of its kind
 * in a database, and so that anyone can see who it is.  People know the
 * delivery worker as "courier".
 */
typedef enum WorkerKind
{
	WORKER_LAUNCHER = 0,
	WORKER_SCHEDULER = 1,
	WORKER_DELIVERY = 2,
} WorkerKind;

#define WORKER_KINDS 3

/* Settings. */
extern int   scan_interval; /* seconds */
extern int   poll_interval; /* milliseconds */
extern int   max_workers;
extern bool  workers_setting;
extern char *worker_role;

/* The library was preloaded, so there is a launcher for the whole cluster. */
extern bool launcher_is_preloaded;

/* Called by _PG_init. */
extern void worker_define_settings(void);
extern void worker_register_launcher(void);
extern void worker_install_hook(void);

#endif /* QM_WORKER_H */
