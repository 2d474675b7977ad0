/*
 * worker.h
 *		Background workers: a launcher for the cluster, a scheduler and a
 *		delivery worker for each database.  See docs/workers.md.
 *
 * Called by _PG_init.
 */
#ifndef QM_WORKER_H
#define QM_WORKER_H

extern void worker_define_settings(void);
extern void worker_register_launcher(void);
extern void worker_install_hook(void);

#endif /* QM_WORKER_H */
