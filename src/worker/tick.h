/*
 * tick.h
 *		Finds out which strategies are due, and runs them.
 *
 * Works in the transactions of a WorkUnit and holds none while it talks to a
 * gateway, so it serves a worker and a procedure alike.
 */
#ifndef QM_TICK_H
#define QM_TICK_H

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
	bool  runs; /* false: there are only firings to be recorded as not run */
} DueStrategy;

/* What the view strategy_due says. */
typedef struct DueLook
{
	List    *due;     /* of DueStrategy; what has been due longest comes first */
	MonoTime next;    /* when more will be due, unless something is committed or the clock set */
	bool     trouble; /* the last run of some strategy failed */
	bool     enabled; /* stop_workers() was not called */
} DueLook;

/* What running one did, over all its firings that were run. */
typedef struct TickResult
{
	int64 granted;
	int64 unknown_balance;
	char *error; /* NULL: none */
	bool  done;  /* otherwise nothing came of it: it may be due still */
	bool  more;  /* further firings are due */
} TickResult;

extern void look_for_due(const WorkUnit *unit, DueLook *look);

extern void tick_strategy(const WorkUnit *unit, BalanceReader *reader, const DueStrategy *strategy,
						  TickResult *result);

extern bool record_failure(const WorkUnit *unit, const DueStrategy *strategy, const char *reason);

extern void retry_all(const WorkUnit *unit);

#endif /* QM_TICK_H */
