/*
 * wake_request.h
 *		How sessions ask the launcher of the cluster to serve their database
 *		soon, although no worker of it may run.
 *
 * Kept in shared memory, so it is there where the library is preloaded.  A
 * request that is lost, with a crash, costs time only.
 */
#ifndef QM_WAKE_REQUEST_H
#define QM_WAKE_REQUEST_H

#include "postgres.h"

/* So many databases are remembered. */
#define WAKE_REQUESTS 64

/* Of any session; may be called while a transaction commits. */
extern bool wake_requests_expected(void);
extern void wake_request(Oid database);

/* Of the launcher. */
extern void wake_requests_reserve(void);
extern void wake_requests_receive(void);
extern void wake_requests_expect(bool expected);
extern int  wake_requests_take(Oid *databases);

#endif /* QM_WAKE_REQUEST_H */
