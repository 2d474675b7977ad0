/*
 * spool.c
 *		User ids that an evaluation found, kept until they are written.
 *
 * Users are mostly read in the order of their ids, and then nothing has to be
 * sorted.
 */
#include "postgres.h"

#include "access/tupdesc.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "executor/tuptable.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/tuplesort.h"
#include "utils/tuplestore.h"
#include "utils/typcache.h"

#include "common/compat.h"
#include "scan/spool.h"

struct Spool
{
	MemoryContext    memory;
	ResourceOwner    files;
	Tuplestorestate *store;
	Tuplesortstate  *sort; /* NULL: the ids came in order */
	bool             sorted;
	TupleDesc        descriptor;
	TupleTableSlot  *slot;
	StringInfoData   last;    /* the id that was added last */
	Pointer          current; /* what the last spool_next() returned, if it is to be freed */
	int64            count;
	bool             ordered;
	bool             has_balances;
};

/*
 * An empty spool in the current memory context, with this much memory; files
 * is the owner of its files.  has_balances: each user comes with a balance.
 */
Spool *
spool_begin(int memory, ResourceOwner files, bool has_balances)
{
	ResourceOwner caller = CurrentResourceOwner;
	Spool        *spool = palloc0(sizeof(Spool));

	spool->memory = CurrentMemoryContext;
	spool->files = files;
	spool->has_balances = has_balances;
	spool->descriptor = CreateTemplateTupleDesc(has_balances ? 2 : 1);
	TupleDescInitEntry(spool->descriptor, 1, "user_id", TEXTOID, -1, 0);
	if (has_balances)
		TupleDescInitEntry(spool->descriptor, 2, "balance", NUMERICOID, -1, 0);
	spool->slot = MakeSingleTupleTableSlot(spool->descriptor, &TTSOpsMinimalTuple);
	initStringInfo(&spool->last);
	spool->ordered = true;
	/* Its files must outlive the subtransaction that it is filled in. */
	CurrentResourceOwner = files;
	spool->store = tuplestore_begin_heap(false, false, memory);
	CurrentResourceOwner = caller;
	return spool;
}

/* Is the id above the one that was added before? */
static bool
is_ascending(const Spool *spool, const char *id, int length)
{
	int order = memcmp(spool->last.data, id, Min(spool->last.len, length));

	return order < 0 || (order == 0 && spool->last.len <= length);
}

/* Adds a copy of an id, and of its balance in a spool that has these. */
void
spool_add(Spool *spool, const char *id, int length, Datum balance)
{
	MemoryContext caller = MemoryContextSwitchTo(spool->memory);
	text         *value;
	Datum         values[2];
	bool          nulls[2] = {false, false};

	if (spool->ordered && spool->count > 0)
		spool->ordered = is_ascending(spool, id, length);
	resetStringInfo(&spool->last);
	appendBinaryStringInfo(&spool->last, id, length);
	value = cstring_to_text_with_len(id, length);
	values[0] = PointerGetDatum(value);
	values[1] = balance;
	tuplestore_putvalues(spool->store, spool->descriptor, values, nulls);
	pfree(value);
	spool->count++;
	MemoryContextSwitchTo(caller);
}

/* How many ids were added. */
int64
spool_count(const Spool *spool)
{
	return spool->count;
}

/* A sort of the ids alone, or of ids with balances. */
static Tuplesortstate *
begin_sort(const Spool *spool)
{
	TypeCacheEntry *type = lookup_type_cache(TEXTOID, TYPECACHE_LT_OPR);
	AttrNumber      column = 1;
	Oid             collation = C_COLLATION_OID;
	bool            nulls_first = false;

	if (spool->has_balances)
		return tuplesort_begin_heap(spool->descriptor, 1, &column, &type->lt_opr, &collation,
									&nulls_first, work_mem, NULL, TUPLESORT_NONE);
	return tuplesort_begin_datum(TEXTOID, type->lt_opr, collation, nulls_first, work_mem, NULL,
								 TUPLESORT_NONE);
}

/* Sorts what is in the store. */
static void
sort_ids(Spool *spool)
{
	ResourceOwner caller = CurrentResourceOwner;
	bool          isnull;

	CurrentResourceOwner = spool->files;
	spool->sorted = false;
	spool->sort = begin_sort(spool);
	while (tuplestore_gettupleslot(spool->store, true, false, spool->slot))
	{
		CHECK_FOR_INTERRUPTS();
		if (spool->has_balances)
			tuplesort_puttupleslot(spool->sort, spool->slot);
		else
			tuplesort_putdatum(spool->sort, slot_getattr(spool->slot, 1, &isnull), false);
	}
	tuplesort_performsort(spool->sort);
	spool->sorted = true;
	CurrentResourceOwner = caller;
}

/*
 * Ends a sort.  One that failed is left to the end of the spool, since ending
 * it would write its buffers.
 */
static void
end_sort(Spool *spool)
{
	if (spool->current)
		pfree(spool->current);
	spool->current = NULL;
	if (spool->sort && spool->sorted)
		tuplesort_end(spool->sort);
	spool->sort = NULL;
}

/* Starts reading at the first id; sorts with work_mem of memory if necessary. */
void
spool_rewind(Spool *spool)
{
	MemoryContext caller = MemoryContextSwitchTo(spool->memory);

	tuplestore_rescan(spool->store);
	end_sort(spool);
	if (!spool->ordered)
		sort_ids(spool);
	MemoryContextSwitchTo(caller);
}

/* Reads the next id of a sort of ids alone, which hands out a copy; NULL: there are no more. */
static text *
next_sorted(Spool *spool)
{
	Datum value;
	bool  isnull;

	if (spool->current)
		pfree(spool->current);
	spool->current = NULL;
	if (!tuplesort_next_datum(spool->sort, &value, &isnull))
		return NULL;
	spool->current = DatumGetPointer(value);
	return DatumGetTextPP(value);
}

/* Reads the next row into the slot; false: there are no more. */
static bool
next_row(Spool *spool)
{
	if (spool->sort)
		return tuplesort_gettupleslot(spool->sort, true, false, spool->slot, NULL);
	return tuplestore_gettupleslot(spool->store, true, false, spool->slot);
}

/*
 * The next id in order, and its balance in a spool that has these, valid until
 * the next call; NULL: there are no more.
 */
text *
spool_next(Spool *spool, Datum *balance)
{
	MemoryContext caller = MemoryContextSwitchTo(spool->memory);
	text         *id = NULL;
	bool          isnull;

	CHECK_FOR_INTERRUPTS();
	if (spool->sort && !spool->has_balances)
		id = next_sorted(spool);
	else if (next_row(spool))
	{
		id = DatumGetTextPP(slot_getattr(spool->slot, 1, &isnull));
		if (spool->has_balances)
			*balance = slot_getattr(spool->slot, 2, &isnull);
	}
	MemoryContextSwitchTo(caller);
	return id;
}
