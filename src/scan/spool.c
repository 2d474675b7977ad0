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
};

/*
 * An empty spool in the current memory context, with this much memory; files
 * is the owner of its files.
 */
Spool *
spool_begin(int memory, ResourceOwner files)
{
	ResourceOwner caller = CurrentResourceOwner;
	Spool        *spool = palloc0(sizeof(Spool));

	spool->memory = CurrentMemoryContext;
	spool->files = files;
	spool->descriptor = CreateTemplateTupleDesc(1);
	TupleDescInitEntry(spool->descriptor, 1, "user_id", TEXTOID, -1, 0);
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

/* Adds a copy of an id. */
void
spool_add(Spool *spool, const char *id, int length)
{
	MemoryContext caller = MemoryContextSwitchTo(spool->memory);
	text         *value;
	Datum         values[1];
	bool          nulls[1] = {false};

	if (spool->ordered && spool->count > 0)
		spool->ordered = is_ascending(spool, id, length);
	resetStringInfo(&spool->last);
	appendBinaryStringInfo(&spool->last, id, length);
	value = cstring_to_text_with_len(id, length);
	values[0] = PointerGetDatum(value);
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

/* Sorts what is in the store. */
static void
sort_ids(Spool *spool)
{
	ResourceOwner   caller = CurrentResourceOwner;
	TypeCacheEntry *type = lookup_type_cache(TEXTOID, TYPECACHE_LT_OPR);
	bool            isnull;

	CurrentResourceOwner = spool->files;
	spool->sorted = false;
	spool->sort = tuplesort_begin_datum(TEXTOID, type->lt_opr, C_COLLATION_OID, false, work_mem,
										NULL, TUPLESORT_NONE);
	while (tuplestore_gettupleslot(spool->store, true, false, spool->slot))
	{
		CHECK_FOR_INTERRUPTS();
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

/* The next id in order, valid until the next call; NULL: there are no more. */
text *
spool_next(Spool *spool)
{
	MemoryContext caller = MemoryContextSwitchTo(spool->memory);
	text         *id = NULL;
	Datum         value;
	bool          isnull;

	CHECK_FOR_INTERRUPTS();
	if (spool->sort)
	{
		if (spool->current)
			pfree(spool->current);
		spool->current = NULL;
		/* The sort hands out a copy. */
		if (tuplesort_next_datum(spool->sort, &value, &isnull))
		{
			spool->current = DatumGetPointer(value);
			id = DatumGetTextPP(value);
		}
	}
	else if (tuplestore_gettupleslot(spool->store, true, false, spool->slot))
		id = DatumGetTextPP(slot_getattr(spool->slot, 1, &isnull));
	MemoryContextSwitchTo(caller);
	return id;
}
