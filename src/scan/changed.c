/*
 * changed.c
 *		Which users have changed since an evaluation before.
 *
 * Of most pages only the header is read.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/bufpage.h"
#include "storage/proc.h"
#include "utils/array.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "common/compat.h"
#include "scan/changed.h"

/* The present moment. */
static LogMoment
log_moment_now(void)
{
	LogMoment moment;

	/* In this order: a transaction that begins in between has written nothing before the position. */
	moment.position = GetXLogInsertRecPtr();
	moment.next_transaction = ReadNextFullTransactionId();
	return moment;
}

/*
 * The moment of the first call in this transaction: best before it has written
 * anything, and before the snapshot of the evaluation is taken.
 */
LogMoment
log_moment_of_transaction(void)
{
	static LogMoment          moment;
	static LocalTransactionId transaction = InvalidLocalTransactionId;

	if (transaction != my_local_transaction())
	{
		moment = log_moment_now();
		transaction = my_local_transaction();
	}
	return moment;
}

/*
 * The transaction that a number of 32 bits stands for, which was assigned
 * before next.
 */
static FullTransactionId
widen(TransactionId xid, FullTransactionId next)
{
	uint32 epoch = EpochFromFullTransactionId(next);

	if (!TransactionIdIsNormal(xid))
		return FullTransactionIdFromEpochAndXid(0, xid);
	if (xid > XidFromFullTransactionId(next))
		epoch--;
	return FullTransactionIdFromEpochAndXid(epoch, xid);
}

static bool
is_at_or_before(LogMoment moment, FullTransactionId seen)
{
	return moment.position != InvalidXLogRecPtr &&
		   FullTransactionIdPrecedesOrEquals(moment.next_transaction, seen);
}

/*
 * The mark of an evaluation with this snapshot, begun at this moment.
 * previous is the mark of the evaluation before; if it is NULL, the new mark
 * has a base only if nothing older was running.
 */
EvaluationMark
evaluation_mark(LogMoment begin, Snapshot snapshot, const EvaluationMark *previous)
{
	EvaluationMark mark = {.seen = widen(snapshot->xmin, ReadNextFullTransactionId()),
						   .candidate = begin};

	if (is_at_or_before(begin, mark.seen))
		mark.base = begin;
	else if (previous != NULL)
	{
		mark.base = previous->base;
		if (is_at_or_before(previous->candidate, mark.seen))
			mark.base = previous->candidate;
		else
			/* A candidate that is never reached would be useless. */
			mark.candidate = previous->candidate;
	}
	return mark;
}

/* Positions that were found so far. */
typedef struct Positions
{
	ItemPointerData *items;
	int              count;
	int              capacity;
	int              limit;
} Positions;

/* Adds a position; false: there are more than the limit. */
static bool
add_position(Positions *positions, BlockNumber block, OffsetNumber offset)
{
	if (positions->count == positions->limit)
	{
		positions->count++;
		return false;
	}
	if (positions->count == positions->capacity)
	{
		positions->capacity *= 2;
		positions->items =
			repalloc(positions->items, positions->capacity * sizeof(ItemPointerData));
	}
	ItemPointerSet(&positions->items[positions->count], block, offset);
	positions->count++;
	return true;
}

/* Adds the rows of a page that were written by seen or a later transaction. */
static bool
add_rows(Positions *positions, Page page, BlockNumber block, FullTransactionId seen,
		 FullTransactionId next)
{
	OffsetNumber last = PageGetMaxOffsetNumber(page);

	for (OffsetNumber offset = FirstOffsetNumber; offset <= last; offset++)
	{
		ItemId          item = PageGetItemId(page, offset);
		HeapTupleHeader row;

		if (!ItemIdIsNormal(item))
			continue;
		row = (HeapTupleHeader) PageGetItem(page, item);
		if (FullTransactionIdPrecedes(widen(HeapTupleHeaderGetRawXmin(row), next), seen))
			continue;
		if (!add_position(positions, block, offset))
			return false;
	}
	return true;
}

/* Searches the pages that were changed since the mark. */
static void
search_pages(Positions *positions, Relation table, const EvaluationMark *mark)
{
	BufferAccessStrategy strategy = GetAccessStrategy(BAS_BULKREAD);
	BlockNumber          blocks = RelationGetNumberOfBlocks(table);
	bool                 more = true;

	for (BlockNumber block = 0; more && block < blocks; block++)
	{
		Buffer buffer;

		CHECK_FOR_INTERRUPTS();
		buffer = ReadBufferExtended(table, MAIN_FORKNUM, block, RBM_NORMAL, strategy);
		if (BufferGetLSNAtomic(buffer) > mark->base.position)
		{
			LockBuffer(buffer, BUFFER_LOCK_SHARE);
			/* Read under the lock: a row's transaction was assigned before. */
			more = add_rows(positions, BufferGetPage(buffer), block, mark->seen,
							ReadNextFullTransactionId());
			UnlockReleaseBuffer(buffer);
		}
		else
			ReleaseBuffer(buffer);
	}
	FreeAccessStrategy(strategy);
}

/* An array of positions as the parameter of a query. */
static ParamListInfo
make_parameter(const Positions *positions)
{
	ParamListInfo params = makeParamList(1);
	Datum        *values = palloc(sizeof(Datum) * Max(positions->count, 1));

	for (int i = 0; i < positions->count; i++)
		values[i] = PointerGetDatum(&positions->items[i]);
	params->params[0].value = PointerGetDatum(construct_array(
		values, positions->count, TIDOID, sizeof(ItemPointerData), false, TYPALIGN_SHORT));
	params->params[0].isnull = false;
	params->params[0].ptype = TIDARRAYOID;
	params->params[0].pflags = PARAM_FLAG_CONST;
	pfree(values);
	return params;
}

/*
 * Positions of the rows of an ordinary, logged table that were written since
 * the mark, as the one parameter of a query (tid[]), in the current memory
 * context; *count is their number.  NULL: there are more than limit, and
 * *count is limit + 1.  The snapshot of the evaluation must have been taken
 * before.  Interruptible.
 */
ParamListInfo
changed_positions(Oid table, const EvaluationMark *mark, int limit, int *count)
{
	Relation  relation = table_open(table, AccessShareLock);
	Positions positions = {.capacity = 256, .limit = limit};

	positions.items = palloc(sizeof(ItemPointerData) * positions.capacity);
	search_pages(&positions, relation, mark);
	table_close(relation, NoLock);
	*count = positions.count;
	return positions.count > limit ? NULL : make_parameter(&positions);
}
