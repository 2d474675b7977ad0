/*
 * due.h
 *		Finds out which strategies are due, and runs them.
 *
 * What is due is defined by the view strategy_due, and by nothing else.  Works
 * in the transactions of a WorkUnit and holds none while it talks to a gateway,
 * so it serves a worker and a procedure alike.  Results are in the current
 * memory context, which is left with some garbage.
 */
#ifndef QM_DUE_H
#define QM_DUE_H

#include "postgres.h"

#include "nodes/pg_list.h"

#include "common/monotonic.h"
#include "common/work_unit.h"
#include "scan/balance_reader.h"

/* A strategy that is due. */
typedef struct DueStrategy
{
	int32 id;
	char *name;
	bool  runs; /* false: there are only firings to be recorded as skipped */
} DueStrategy;

/* What the view says. */
typedef struct DueList
{
	List    *strategies; /* of DueStrategy; what has been due longest comes first */
	MonoTime next;       /* when more will be due, unless something is committed or the clock set */
	bool     failed;     /* the last run of some strategy failed */
	bool     enabled;    /* stop_workers() was not called */
} DueList;

/* What running one did, over all its firings that were run. */
typedef struct RunResult
{
	int64 granted;
	int64 unknown_balance;
	char *error; /* NULL: none */
	bool  done;  /* otherwise nothing came of it: it may be due still */
	bool  more;  /* further firings are due */
} RunResult;

extern void due_poll(const WorkUnit *unit, DueList *list);
extern void due_run(const WorkUnit *unit, BalanceReader *reader, const DueStrategy *strategy,
					RunResult *result);
extern bool due_record_failure(const WorkUnit *unit, const DueStrategy *strategy,
							   const char *reason);
extern void due_retry_all(const WorkUnit *unit);

#endif /* QM_DUE_H */
