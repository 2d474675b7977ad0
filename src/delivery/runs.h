/*
 * runs.h
 *		Where the work is: runs with grants that may not be settled.
 *
 * No index tells which grants are pending, since claim and settle change that
 * for every row.  quota_run.undelivered marks the runs to look at; a look at
 * one tells, per gateway, where in it the open grants lie and when the first
 * falls due.  What was seen is kept for as long as the row of the run stays
 * as it is: whoever makes a settled grant pending again updates that row.
 *
 * Whatever was seen is believed for a bounded time only (runs_examine): should
 * it be wrong, for whatever reason, grants wait that long and no longer.
 */
#ifndef QM_RUNS_H
#define QM_RUNS_H

#include "postgres.h"

#include "nodes/pg_list.h"

#include "common/monotonic.h"

/*
 * The open grants of one run for one gateway: pending, processing, or in doubt
 * and not left to an operator.
 */
typedef struct Backlog
{
	char    *gateway;
	int64    low; /* their ids are not outside low..high */
	int64    high;
	int64    processing; /* how many of them are not pending */
	MonoTime due;        /* when the first pending one may be sent; MONO_NEVER: none is pending */
	MonoTime doubt_due;  /* the same of those in doubt that the policy acts on */
	bool     has_unread_doubts; /* there are some, and the sender was not told of them since */
	bool     touched;           /* something was claimed, searched for, or in doubt, since */
} Backlog;

typedef struct Run
{
	int64         id;
	int64         first_grant_id;
	int64         last_grant_id;
	TransactionId version;        /* of its row */
	bool          examined;       /* the backlogs are known */
	MonoTime      believed_until; /* when they are looked at anew in any case */
	int           backlog_count;
	Backlog      *backlogs;
} Run;

/*
 * Reads which runs are undelivered: a list of Run in the order of their ids,
 * in memory.  Takes over from the old list, which is freed, what is still
 * valid.
 */
extern List *runs_load(List *old, MemoryContext memory);

/*
 * A run is looked at anew after so many milliseconds in any case, and later if
 * looking takes so long that it would take more than a fiftieth of the time;
 * RUNS_BELIEVED_MAX at most.
 */
#define RUNS_BELIEVED 5000
#define RUNS_BELIEVED_MAX 60000
#define RUNS_LOOK_SHARE 50

/*
 * Looks at the grants of every run that is not examined, or was long ago.  One without open
 * grants is marked delivered, unless someone is at its row right now; that
 * decision must not share a transaction with a settlement: two senders that
 * settle the last grants of a run, at two gateways, would both see the other's
 * still open, and neither would mark it.
 */
extern void runs_examine(List *runs, MemoryContext memory);

/* The open grants of a run for a gateway; NULL: none. */
extern Backlog *run_backlog(const Run *run, const char *gateway);

/* Forgets what was seen of runs with a backlog at a gateway, or of those touched only. */
extern void runs_forget(List *runs, const char *gateway, bool touched_only);

#endif /* QM_RUNS_H */
