/*
 * changed.h
 *		Which users have changed since an evaluation before.
 *
 * Every row version names the transaction that wrote it, and every page has the
 * log position of its last change.  An evaluation saw all rows of transactions
 * before the oldest one that was running then; all others were written by that
 * transaction or later ones, late commits included.  Rows of those are found again,
 * also the few that the evaluation has seen.
 *
 * A page can be skipped if it was not changed since a log position that precedes
 * all writes of those transactions: a position taken when the next transaction
 * number was at most that of the oldest.
 *
 * Transaction numbers have 64 bits.  Freezing a row keeps its number; a row of more
 * than four billion transactions ago looks newer, so it is found again, which is
 * harmless.
 */
#ifndef QM_CHANGED_H
#define QM_CHANGED_H

#include "postgres.h"

#include "access/transam.h"
#include "access/xlogdefs.h"
#include "nodes/params.h"
#include "utils/snapshot.h"

/* A moment: later transactions wrote only behind this position in the log. */
typedef struct LogMoment
{
	XLogRecPtr        position;
	FullTransactionId next_transaction;
} LogMoment;

/*
 * How far an evaluation saw: all that was written before the transaction seen.
 * base is a moment at or before it, candidate one that may be behind it and
 * serves as a base as soon as the oldest transaction has caught up.
 */
typedef struct EvaluationMark
{
	FullTransactionId seen;
	LogMoment         base;
	LogMoment         candidate;
} EvaluationMark;

extern LogMoment      log_moment_of_transaction(void);
extern EvaluationMark evaluation_mark(LogMoment begin, Snapshot snapshot,
									  const EvaluationMark *previous);
extern ParamListInfo  changed_positions(Oid table, const EvaluationMark *mark, int limit,
										int *count);

#endif /* QM_CHANGED_H */
