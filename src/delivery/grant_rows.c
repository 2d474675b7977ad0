/*
 * grant_rows.c
 *		Rows of quota_execute that a statement returns.
 */
#include "postgres.h"

#include "delivery/grant_rows.h"

/* Makes a grant, in memory, of a row of a result that begins with GRANT_RESULT. */
Grant *
grant_of_row(MemoryContext memory, uint64 row)
{
	Grant *grant = grant_create(memory, result_text(row, 2), result_text(row, 8));

	grant->key.strategy_id = result_int32(row, 1);
	grant->key.scheduled_time = result_time(row, 3);
	grant->key.revision = result_int32(row, 4);
	grant->key.claim_number = result_int32(row, 5);
	grant->id = result_int64(row, 6);
	grant->attempts = result_int32(row, 7);
	return grant;
}

static int
compare_ids(const void *a, const void *b)
{
	int64 x = *(const int64 *) a;
	int64 y = *(const int64 *) b;

	return x < y ? -1 : x > y;
}

/* Takes the first column of a result, ids, and frees the result. */
IdSet
ids_of_result(uint64 count)
{
	IdSet set = {(int) count, palloc(sizeof(int64) * Max(count, 1))};

	for (int i = 0; i < set.count; i++)
		set.ids[i] = result_int64(i, 1);
	SPI_freetuptable(SPI_tuptable);
	qsort(set.ids, set.count, sizeof(int64), compare_ids);
	return set;
}

bool
ids_contain(const IdSet *set, int64 id)
{
	return bsearch(&id, set->ids, set->count, sizeof(int64), compare_ids) != NULL;
}
