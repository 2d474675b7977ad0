/*
 * tick.h
 *		Runs strategies that are due: reads the balances that their
 *		conditions need, then scans.
 *
 * Works in the transactions of a WorkUnit and holds none while it talks to a
 * gateway, so it serves a worker and a procedure alike.
 */
#ifndef QM_TICK_H
#define QM_TICK_H

#include "postgres.h"

#include "nodes/pg_list.h"

#include "delivery/delivery.h"

/* A strategy that is due. */
typedef struct DueStrategy
{
	int32 id;
	int32 version;
	bool  single;
	char *name;
} DueStrategy;

/* What running one did, over all its firings that were due. */
typedef struct TickResult
{
	int64 granted;
	int64 unknown_balance;
	char *error; /* NULL: none */
} TickResult;

/*
 * Lists what is due now, each strategy once, single strategies only if asked
 * for.  List of DueStrategy in the current memory context.
 */
extern List *due_strategies(const WorkUnit *unit, bool singles);

/*
 * Reads balances and scans one strategy.  Returns false if *stop (may be
 * NULL) became true before it was scanned; *result is filled otherwise.
 * What is wrong with the strategy is in result->error; errors raised are of
 * the database as a whole.  Results are in the current memory context, which
 * is left with some garbage.
 */
extern bool tick_strategy(const WorkUnit *unit, Courier *courier, const DueStrategy *strategy,
						  volatile sig_atomic_t *stop, TickResult *result);

#endif /* QM_TICK_H */
