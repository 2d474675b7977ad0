/*
 * changed.h
 *		Which users have changed since an evaluation before.
 *
 * Every version of a row tells the transaction that wrote it, and every page
 * the position in the log of its last change.  An evaluation saw what all
 * transactions before the oldest that ran then had written; so whatever it did
 * not see was written by that one or a later one, who committed late included.
 * Rows of such transactions are found again, some of which it did see.
 *
 * A page need not be looked at if it was not changed since a position that is
 * known to lie before all that was written by those transactions: the position
 * was read when the number of the next transaction was at most the oldest's.
 *
 * Transaction numbers are of 64 bits.  That a row was frozen since does not
 * hide its transaction, and one of more than four billion transactions ago is
 * taken for a newer one, which finds it again and does no harm.
 */
#ifndef QM_CHANGED_H
#define QM_CHANGED_H

#include "postgres.h"

#include "access/transam.h"
#include "access/xlogdefs.h"
#include "nodes/params.h"
#include "utils/snapshot.h"

/* A moment: all that later transactions wrote lies behind this position in the log. */
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
