/*
 * work_unit.h
 *		Transactions of workers and of procedures.
 */
#ifndef QM_WORK_UNIT_H
#define QM_WORK_UNIT_H

#include "postgres.h"

#include "fmgr.h"

/*
 * How the caller begins and ends a transaction: a worker with its own
 * transactions, a procedure with those of its CALL.  Between begin and commit
 * SPI is connected and a snapshot can be taken; outside, nothing is held.
 *
 * Within, whatever the role, the database or the session have set: isolation
 * read committed, read write, search_path pg_catalog and pg_temp, row_security
 * off, no time-outs, and what pinned_settings.h fixes.  When commit returns,
 * what was written is on disk, and on those standbys that synchronous_commit =
 * on waits for.  The caller's current memory context is the same afterwards.
 */
typedef struct WorkUnit
{
	void (*begin)(void);
	void (*commit)(void);
} WorkUnit;

/* A transaction of a background worker, and one of a procedure that was called at top level. */
extern const WorkUnit worker_work_unit;
extern const WorkUnit procedure_work_unit;

extern void procedure_connect(FunctionCallInfo fcinfo, const char *name);
extern void set_local(const char *name, const char *value);
extern bool commit_is_replicated(void);
extern void leave_dead_server(void);

#endif /* QM_WORK_UNIT_H */
