/*
 * worker.h
 *		Background workers: a launcher for the cluster, a scheduler and a
 *		courier for each database.
 *
 * What each does, and how one starts, watches and ends the other, is told in
 * docs/workers.md.
 */
#ifndef QM_WORKER_H
#define QM_WORKER_H

extern void worker_define_settings(void);

extern void worker_register_launcher(void);

extern void worker_install_hook(void);

#endif /* QM_WORKER_H */
