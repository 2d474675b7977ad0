/*
 * own_launcher.h
 *		A launcher for one database, where the library is not preloaded.
 *
 * It is the launcher of the cluster in all but this: it is asked for by
 * start_workers(), serves one database only, and ends for good when the
 * workers of that database are stopped, or the extension or the database is
 * dropped.  It is started again after a crash, but not with the server.
 */
#ifndef QM_OWN_LAUNCHER_H
#define QM_OWN_LAUNCHER_H

#include "postgres.h"

/* Of a session. */
extern void start_own_launcher(void);

/* Of the launcher. */
extern Oid  await_starter(void);
extern void await_predecessor(Oid database);

#endif /* QM_OWN_LAUNCHER_H */
