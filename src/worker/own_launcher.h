/*
 * own_launcher.h
 *		A launcher for one database, where the library is not preloaded.
 *
 * It is the launcher of the cluster in all but this: it is asked for by
 * start_workers(), looks at one database only, and ends for good when the
 * workers of that database are stopped, or the extension or the database is
 * dropped.  It is started again after a crash, but not with the server.
 */
#ifndef QM_OWN_LAUNCHER_H
#define QM_OWN_LAUNCHER_H

#include "postgres.h"

/*
 * Starts one for the database of this session.  It begins its work when the
 * current transaction has ended.  Raises an error if it cannot be started.
 */
extern void start_own_launcher(void);

/*
 * In a launcher: waits until the transaction that asked for it has ended.
 * Only then it can be seen whether workers are to run.  Returns the database
 * to serve; InvalidOid for the launcher of the cluster, which nobody asked for.
 */
extern Oid await_starter(void);

/*
 * In a launcher: takes the lock of the launcher of a database that another one
 * has, which may just be about to end because it was told to.  Ends the process
 * if that one stays.
 */
extern void await_place(Oid database);

#endif /* QM_OWN_LAUNCHER_H */
