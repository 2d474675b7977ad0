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

/* Registers the settings of the workers; called once by _PG_init. */
extern void worker_define_settings(void);

/* Registers the launcher; called by _PG_init while preloading, outside binary upgrade. */
extern void worker_register_launcher(void);

/* Lets workers step aside for DROP DATABASE and the like; called once by _PG_init. */
extern void worker_install_hook(void);

#endif /* QM_WORKER_H */
