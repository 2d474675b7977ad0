/*
 * pending_work.h
 *		Where the work is: runs with grants that may not be settled.
 *
 * No index says which grants are pending, since claim and settle change that
 * for every row.  quota_run.undelivered marks the runs to read; reading one
 * says, per gateway, where in it the open grants lie and when the first falls
 * due.  What was read is kept for as long as the row of the run stays as it is:
 * whoever makes a settled grant pending again updates that row.  It is read
 * again after a bounded time in any case: should it be wrong, for whatever
 * reason, grants wait that long and no longer.
 *
 * Memory: in the context given.  In a transaction, with SPI connected.
 */
#ifndef QM_PENDING_WORK_H
#define QM_PENDING_WORK_H

#include "postgres.h"

#include "nodes/pg_list.h"

#include "common/monotonic.h"

/*
 * The open grants of one run for one gateway: pending, processing, or in doubt
 * and not left to an operator.
 */
typedef struct PendingWork
{
	char    *gateway;
	int64    low; /* their ids are not outside low..high */
	int64    high;
	int64    processing; /* how many of them are processing */
	MonoTime due;        /* when the first pending one may be sent; MONO_NEVER: none is pending */
	MonoTime doubt_due;  /* the same of those in doubt that the policy acts on */
	bool     has_unresolved; /* there are some, which the sender has not taken over since */
	bool     dirty;          /* something was claimed, searched for, or in doubt, since */
} PendingWork;

/* A row of quota_run. */
typedef struct Run
{
	int64         id;
	int32         strategy_id; /* 0: it is not the run of one */
	int64         first_grant_id;
	int64         last_grant_id;
	TransactionId version;   /* of the row */
	bool          is_read;   /* its pending work is known */
	bool          is_held;   /* its strategy is paused: its pending grants are not sent */
	MonoTime      read_next; /* when it is read again in any case */
	int           work_count;
	PendingWork  *work;
} Run;

extern List        *pending_work_load(List *old, MemoryContext memory);
extern void         pending_work_read(List *runs, MemoryContext memory);
extern PendingWork *pending_work_at(const Run *run, const char *gateway);
extern void         pending_work_forget(List *runs, const char *gateway);
extern void         pending_work_forget_dirty(List *runs, const char *gateway);

#endif /* QM_PENDING_WORK_H */
