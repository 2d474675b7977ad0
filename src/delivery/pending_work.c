/*
 * pending_work.c
 *		Where the work is: runs with grants that may not be settled.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"

#include "common/backoff.h"
#include "common/compat.h"
#include "common/crash_point.h"
#include "common/statement.h"
#include "delivery/grant_rows.h"
#include "delivery/pending_work.h"
#include "delivery/timing.h"

/*
 * Runs are read together if the ids of their grants are not far from each
 * other: each statement has its price.
 */
#define RUNS_AT_ONCE 1024
#define FAR_APART 100000

static Statement read_runs = {
	"SELECT r.id, r.first_grant_id, r.last_grant_id, r.xmin, r.strategy_id"
	" FROM quota_manager.quota_run r"
	" WHERE r.undelivered AND r.first_grant_id IS NOT NULL ORDER BY r.id"};

#define OPEN_GRANTS                                                                                \
	"quota_manager.quota_execute e WHERE e.run_id = ANY ($1) AND e.id BETWEEN $2 AND $3"           \
	" AND (e.status IN ('pending', 'processing')"                                                  \
	" OR (e.status = 'in_doubt' AND e.next_attempt_time < 'infinity'))"

/* A row that was written later than now was written before the clock was set back: it is due. */
#define DUE_TIME "CASE WHEN e.update_time > $4 THEN '-infinity' ELSE e.next_attempt_time END"

static Statement read_work = {"SELECT e.run_id, e.gateway, min(e.id), max(e.id),"
							  " count(*) FILTER (WHERE e.status = 'processing'),"
							  " min(" DUE_TIME ") FILTER (WHERE e.status = 'pending'),"
							  " min(" DUE_TIME ") FILTER (WHERE e.status = 'in_doubt')"
							  " FROM " OPEN_GRANTS
							  " GROUP BY e.run_id, e.gateway ORDER BY e.run_id, e.gateway",
							  {INT8ARRAYOID, INT8OID, INT8OID, TIMESTAMPTZOID}};

/*
 * The rows are locked before the open grants are read, which is done in a
 * statement of its own with a newer snapshot: otherwise a grant that was made
 * pending again while we waited for the row would be overlooked.
 */
static Statement lock_runs = {"SELECT r.id, r.first_grant_id, r.last_grant_id"
							  " FROM quota_manager.quota_run r"
							  " WHERE r.id = ANY ($1) AND r.undelivered"
							  " ORDER BY r.id FOR UPDATE SKIP LOCKED",
							  {INT8ARRAYOID}};

static Statement mark_delivered = {"UPDATE quota_manager.quota_run AS r SET undelivered = false"
								   " WHERE r.id = ANY ($1)"
								   " AND r.id NOT IN (SELECT e.run_id FROM " OPEN_GRANTS ")"
								   " RETURNING r.id",
								   {INT8ARRAYOID, INT8OID, INT8OID}};

static void
free_work(Run *run)
{
	for (int i = 0; i < run->work_count; i++)
		pfree(run->work[i].gateway);
	if (run->work != NULL)
		pfree(run->work);
	run->work = NULL;
	run->work_count = 0;
}

/* Frees runs of the list, from *i on, whose ids are lower than this one. */
static void
free_runs_before(List *runs, int *i, int64 id)
{
	for (; *i < list_length(runs); (*i)++)
	{
		Run *run = list_nth(runs, *i);

		if (run->id >= id)
			break;
		free_work(run);
		pfree(run);
	}
}

/*
 * Reads which runs are undelivered: a list of Run in the order of their ids, in
 * memory.  Takes over from the old list, which is freed, what is still valid.
 */
List *
pending_work_load(List *old, MemoryContext memory)
{
	MemoryContext caller = MemoryContextSwitchTo(memory);
	List         *runs = NIL;
	uint64        count = statement_run(&read_runs, NULL);
	int           known = 0;

	for (uint64 row = 0; row < count; row++)
	{
		int64         id = result_int64(row, 1);
		TransactionId version = (TransactionId) result_int32(row, 4);
		Run          *run;

		free_runs_before(old, &known, id);
		if (known < list_length(old) && ((Run *) list_nth(old, known))->id == id)
			run = list_nth(old, known++);
		else
			run = palloc0(sizeof(Run));
		if (run->id != id || run->version != version)
		{
			free_work(run);
			run->id = id;
			run->version = version;
			run->strategy_id = result_is_null(row, 5) ? 0 : result_int32(row, 5);
			run->first_grant_id = result_int64(row, 2);
			run->last_grant_id = result_int64(row, 3);
			run->is_read = false;
			run->read_next = MONO_PAST;
		}
		runs = lappend(runs, run);
	}
	free_runs_before(old, &known, PG_INT64_MAX);
	list_free(old);
	MemoryContextSwitchTo(caller);
	SPI_freetuptable(SPI_tuptable);
	return runs;
}

/* Takes over a row of read_work, which is about the run as it was at `now`. */
static void
add_work(Run *run, uint64 row, TimestampTz now, MemoryContext memory)
{
	PendingWork *work;

	if (run->work == NULL)
		run->work = MemoryContextAlloc(memory, sizeof(PendingWork));
	else
		run->work = repalloc(run->work, sizeof(PendingWork) * (run->work_count + 1));
	work = &run->work[run->work_count];
	memset(work, 0, sizeof(PendingWork));
	work->gateway = MemoryContextStrdup(memory, result_text(row, 2));
	work->low = result_int64(row, 3);
	work->high = result_int64(row, 4);
	work->processing = result_int64(row, 5);
	work->due = result_is_null(row, 6) ? MONO_NEVER : mono_at(result_time(row, 6), now);
	work->doubt_due = result_is_null(row, 7) ? MONO_NEVER : mono_at(result_time(row, 7), now);
	work->has_unresolved = work->doubt_due != MONO_NEVER;
	/* those that are being sent may come back */
	work->dirty = work->processing > 0;
	run->work_count++;
}

/* Between which ids the open grants of a run are. */
static void
open_range(const Run *run, int64 *low, int64 *high)
{
	*low = run->first_grant_id;
	*high = run->last_grant_id;
	for (int i = 0; i < run->work_count; i++)
	{
		*low = i == 0 ? run->work[i].low : Min(*low, run->work[i].low);
		*high = i == 0 ? run->work[i].high : Max(*high, run->work[i].high);
	}
}

/*
 * Marks those of some runs delivered that are so.  A run whose row is locked is
 * read again next time.
 */
static void
close_runs(Run **runs, int count)
{
	RowArrays *done = rows_create(&lock_runs);
	RowArrays *locked = rows_create(&mark_delivered);
	int64      low = PG_INT64_MAX;
	int64      high = PG_INT64_MIN;
	uint64     found;
	IdSet      marked;

	for (int i = 0; i < count; i++)
	{
		if (runs[i]->work_count > 0)
			continue;
		runs[i]->is_read = false;
		rows_add(done, ARGS(arg_int64(runs[i]->id)));
	}
	if (done->count == 0)
		return;

	found = statement_run_rows(&lock_runs, done, NULL);
	for (uint64 row = 0; row < found; row++)
	{
		rows_add(locked, ARGS(arg_int64(result_int64(row, 1))));
		low = Min(low, result_int64(row, 2));
		high = Max(high, result_int64(row, 3));
	}
	SPI_freetuptable(SPI_tuptable);

	found = statement_run_rows(&mark_delivered, locked, ARGS(arg_int64(low), arg_int64(high)));
	if (found > 0)
		CRASH_POINT(run_closing);
	marked = ids_of_result(found);
	for (int i = 0; i < count; i++)
		if (ids_contain(&marked, runs[i]->id))
			runs[i]->is_read = true;
}

/*
 * Reads the open grants of some runs, in the order of the runs' ids, whose own
 * ids are within low..high, and marks those delivered that have none.
 */
static void
read_some(Run **runs, int count, int64 low, int64 high, MemoryContext memory)
{
	TimestampTz now = GetCurrentTimestamp();
	RowArrays  *ids = rows_create(&read_work);
	uint64      answers;
	uint64      row = 0;

	for (int i = 0; i < count; i++)
		rows_add(ids, ARGS(arg_int64(runs[i]->id)));
	answers =
		statement_run_rows(&read_work, ids, ARGS(arg_int64(low), arg_int64(high), arg_time(now)));
	for (int i = 0; i < count; i++)
	{
		free_work(runs[i]);
		for (; row < answers && result_int64(row, 1) == runs[i]->id; row++)
			add_work(runs[i], row, now, memory);
		runs[i]->is_read = true;
	}
	SPI_freetuptable(SPI_tuptable);
	close_runs(runs, count);
}

/* True if an id is that much higher than another one, whatever they are. */
static bool
is_far_above(int64 id, int64 other)
{
	return id > other && (uint64) id - (uint64) other > FAR_APART;
}

/*
 * Reads the open grants of every run that is not read, or was long ago.  One
 * without any is marked delivered, unless its row is locked right now; that
 * decision must not share a transaction with a settlement: two senders that
 * settle the last grants of a run, at two gateways, would both see the other's
 * still open, and neither would mark it.
 */
void
pending_work_read(List *runs, MemoryContext memory)
{
	MonoTime begin = mono_now();
	MonoTime read_next;
	Run    **some = palloc(sizeof(Run *) * RUNS_AT_ONCE);
	int      count = 0;
	int64    low = 0;
	int64    high = 0;

	foreach_ptr (Run, run, runs)
	{
		int64 run_low;
		int64 run_high;

		CHECK_FOR_INTERRUPTS();
		if (run->is_read && run->read_next > begin)
			continue;
		open_range(run, &run_low, &run_high);
		if (count == RUNS_AT_ONCE ||
			(count > 0 && (is_far_above(run_low, high) || is_far_above(low, run_high))))
		{
			read_some(some, count, low, high, memory);
			count = 0;
		}
		low = count == 0 ? run_low : Min(low, run_low);
		high = count == 0 ? run_high : Max(high, run_high);
		some[count++] = run;
	}
	if (count > 0)
		read_some(some, count, low, high, memory);

	read_next = backoff_by_cost(begin, PENDING_READ_MIN_MS, PENDING_READ_MAX_MS, READ_COST_SHARE);
	foreach_ptr (Run, run, runs)
		if (run->read_next <= begin)
			run->read_next = read_next;
}

/* The open grants of a run for a gateway; NULL: none. */
PendingWork *
pending_work_at(const Run *run, const char *gateway)
{
	for (int i = 0; i < run->work_count; i++)
		if (strcmp(run->work[i].gateway, gateway) == 0)
			return &run->work[i];
	return NULL;
}

/* Has the runs read again that have pending work at a gateway. */
void
pending_work_forget(List *runs, const char *gateway)
{
	foreach_ptr (Run, run, runs)
		if (pending_work_at(run, gateway) != NULL)
			run->is_read = false;
}

/* The same for those whose pending work there is dirty. */
void
pending_work_forget_dirty(List *runs, const char *gateway)
{
	foreach_ptr (Run, run, runs)
	{
		const PendingWork *work = pending_work_at(run, gateway);

		if (work != NULL && work->dirty)
			run->is_read = false;
	}
}
