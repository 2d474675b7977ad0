/*
 * runs.c
 *		Where the work is: runs with grants that may not be settled.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"

#include "common/crash_point.h"
#include "delivery/runs.h"
#include "common/statement.h"

/*
 * Runs are looked at together if the ids of their grants are not far from each
 * other: each look has its price.
 */
#define RUNS_AT_ONCE 1024
#define FAR_APART 100000

static Statement read_runs = {
	"SELECT r.id, r.first_grant_id, r.last_grant_id, r.xmin"
	" FROM quota_manager.quota_run r"
	" WHERE r.undelivered AND r.first_grant_id IS NOT NULL ORDER BY r.id"};

#define OPEN_GRANTS                                                                                \
	"quota_manager.quota_execute e WHERE e.run_id = ANY ($1) AND e.id BETWEEN $2 AND $3"           \
	" AND (e.status IN ('pending', 'processing')"                                                  \
	" OR (e.status = 'in_doubt' AND e.next_attempt_time < 'infinity'))"

/* What was written later than now is from before the clock was set back: it is due. */
#define DUE_TIME "CASE WHEN e.update_time > $4 THEN '-infinity' ELSE e.next_attempt_time END"

static Statement read_backlogs = {"SELECT e.run_id, e.gateway, min(e.id), max(e.id),"
								  " count(*) FILTER (WHERE e.status = 'processing'),"
								  " min(" DUE_TIME ") FILTER (WHERE e.status = 'pending'),"
								  " min(" DUE_TIME ") FILTER (WHERE e.status = 'in_doubt')"
								  " FROM " OPEN_GRANTS
								  " GROUP BY e.run_id, e.gateway ORDER BY e.run_id, e.gateway",
								  {INT8ARRAYOID, INT8OID, INT8OID, TIMESTAMPTZOID}};

/*
 * The rows are locked before it is looked at whether a grant is open, in a
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
forget_backlogs(Run *run)
{
	int i;

	for (i = 0; i < run->backlog_count; i++)
		pfree(run->backlogs[i].gateway);
	if (run->backlogs != NULL)
		pfree(run->backlogs);
	run->backlogs = NULL;
	run->backlog_count = 0;
}

/*
 * Both lists are in the order of ids: they are merged in one go.
 */
List *
runs_load(List *old, MemoryContext memory)
{
	MemoryContext caller;
	List         *runs = NIL;
	ListCell     *cell = list_head(old);
	uint64        count = statement_run_values(&read_runs, NULL, NULL);
	uint64        i;

	caller = MemoryContextSwitchTo(memory);
	for (i = 0; i < count; i++)
	{
		bool          isnull;
		int64         id = DatumGetInt64(result_datum(i, 1, &isnull));
		TransactionId version = DatumGetTransactionId(result_datum(i, 4, &isnull));
		Run          *run = NULL;

		while (cell != NULL && ((Run *) lfirst(cell))->id < id)
		{
			forget_backlogs(lfirst(cell));
			pfree(lfirst(cell));
			cell = lnext(old, cell);
		}
		if (cell != NULL && ((Run *) lfirst(cell))->id == id)
		{
			run = lfirst(cell);
			cell = lnext(old, cell);
		}
		else
			run = palloc0(sizeof(Run));
		if (run->id != id || run->version != version)
		{
			forget_backlogs(run);
			run->id = id;
			run->version = version;
			run->first_grant_id = DatumGetInt64(result_datum(i, 2, &isnull));
			run->last_grant_id = DatumGetInt64(result_datum(i, 3, &isnull));
			run->examined = false;
			run->believed_until = MONO_PAST;
		}
		runs = lappend(runs, run);
	}
	for (; cell != NULL; cell = lnext(old, cell))
	{
		forget_backlogs(lfirst(cell));
		pfree(lfirst(cell));
	}
	list_free(old);
	MemoryContextSwitchTo(caller);
	SPI_freetuptable(SPI_tuptable);
	return runs;
}

/*
 * The moment of the time in a column of row i, where it is `now`; null: never.
 */
static MonoTime
moment_of(uint64 i, int column, TimestampTz now)
{
	bool  isnull;
	Datum value = result_datum(i, column, &isnull);

	return isnull ? MONO_NEVER : mono_at(DatumGetTimestampTz(value), now);
}

/*
 * Takes over row i of the answer, a backlog of the run as it was at `now`.
 */
static void
add_backlog(Run *run, uint64 i, TimestampTz now, MemoryContext memory)
{
	Backlog *backlog;
	bool     isnull;

	if (run->backlogs == NULL)
		run->backlogs = MemoryContextAlloc(memory, sizeof(Backlog));
	else
		run->backlogs = repalloc(run->backlogs, sizeof(Backlog) * (run->backlog_count + 1));
	backlog = &run->backlogs[run->backlog_count];
	memset(backlog, 0, sizeof(Backlog));
	backlog->gateway = MemoryContextStrdup(memory, result_text(i, 2));
	backlog->low = DatumGetInt64(result_datum(i, 3, &isnull));
	backlog->high = DatumGetInt64(result_datum(i, 4, &isnull));
	backlog->processing = DatumGetInt64(result_datum(i, 5, &isnull));
	backlog->due = moment_of(i, 6, now);
	backlog->doubt_due = moment_of(i, 7, now);
	backlog->has_unread_doubts = backlog->doubt_due != MONO_NEVER;
	/* those that are being sent may come back */
	backlog->touched = backlog->processing > 0;
	run->backlog_count++;
}

/*
 * Between which ids the open grants of a run are.
 */
static void
open_range(const Run *run, int64 *low, int64 *high)
{
	int i;

	*low = run->first_grant_id;
	*high = run->last_grant_id;
	for (i = 0; i < run->backlog_count; i++)
	{
		*low = i == 0 ? run->backlogs[i].low : Min(*low, run->backlogs[i].low);
		*high = i == 0 ? run->backlogs[i].high : Max(*high, run->backlogs[i].high);
	}
}

/*
 * Looks at the grants of some runs, in the order of the runs' ids, whose own
 * ids are within low..high.
 */
static void
examine(Run **runs, int count, int64 low, int64 high, MemoryContext memory)
{
	TimestampTz now = GetCurrentTimestamp();
	Datum      *ids = palloc(sizeof(Datum) * count);
	Datum       values[4];
	uint64      answers;
	uint64      row = 0;
	int         i;

	for (i = 0; i < count; i++)
		ids[i] = Int64GetDatum(runs[i]->id);
	values[0] = array_of(INT8OID, ids, NULL, count);
	values[1] = Int64GetDatum(low);
	values[2] = Int64GetDatum(high);
	values[3] = TimestampTzGetDatum(now);
	answers = statement_run_values(&read_backlogs, values, NULL);

	for (i = 0; i < count; i++)
	{
		forget_backlogs(runs[i]);
		for (; row < answers; row++)
		{
			bool isnull;

			if (DatumGetInt64(result_datum(row, 1, &isnull)) != runs[i]->id)
				break;
			add_backlog(runs[i], row, now, memory);
		}
		runs[i]->examined = true;
	}
	SPI_freetuptable(SPI_tuptable);
}

/*
 * Marks those of some runs delivered that are so.  A run whose row somebody is
 * at is looked at again next time.
 */
static void
close_runs(Run **runs, int count)
{
	Datum *ids = palloc(sizeof(Datum) * count);
	int    closing = 0;
	Datum  values[3];
	int64  low = PG_INT64_MAX;
	int64  high = PG_INT64_MIN;
	uint64 found;
	uint64 row;
	bool   isnull;
	int    i;

	for (i = 0; i < count; i++)
	{
		if (runs[i]->backlog_count > 0)
			continue;
		runs[i]->examined = false;
		ids[closing++] = Int64GetDatum(runs[i]->id);
	}
	if (closing == 0)
		return;

	values[0] = array_of(INT8OID, ids, NULL, closing);
	found = statement_run_values(&lock_runs, values, NULL);
	for (row = 0; row < found; row++)
	{
		ids[row] = Int64GetDatum(DatumGetInt64(result_datum(row, 1, &isnull)));
		low = Min(low, DatumGetInt64(result_datum(row, 2, &isnull)));
		high = Max(high, DatumGetInt64(result_datum(row, 3, &isnull)));
	}
	SPI_freetuptable(SPI_tuptable);

	values[0] = array_of(INT8OID, ids, NULL, (int) found);
	values[1] = Int64GetDatum(low);
	values[2] = Int64GetDatum(high);
	found = statement_run_values(&mark_delivered, values, NULL);
	if (found > 0)
		CRASH_POINT(run_closing);
	for (row = 0; row < found; row++)
	{
		int64 id = DatumGetInt64(result_datum(row, 1, &isnull));

		for (i = 0; i < count; i++)
			if (runs[i]->id == id)
				runs[i]->examined = true;
	}
	SPI_freetuptable(SPI_tuptable);
}

/*
 * True if what is known of a run is not, or no longer, to be relied on.
 */
static bool
wants_look(const Run *run, MonoTime now)
{
	return !run->examined || run->believed_until <= now;
}

/*
 * Looks at some runs, in the order of their ids, and closes those that are
 * done.
 */
static void
look_at(Run **some, int count, int64 low, int64 high, MemoryContext memory)
{
	if (count == 0)
		return;
	examine(some, count, low, high, memory);
	close_runs(some, count);
}

/*
 * True if an id is that much higher than another one, whatever they are.
 */
static bool
is_far_above(int64 id, int64 other)
{
	return id > other && (uint64) id - (uint64) other > FAR_APART;
}

void
runs_examine(List *runs, MemoryContext memory)
{
	MonoTime  begin = mono_now();
	MonoTime  believed_until;
	Run     **some = palloc(sizeof(Run *) * RUNS_AT_ONCE);
	int       count = 0;
	int64     low = 0;
	int64     high = 0;
	ListCell *cell;

	foreach (cell, runs)
	{
		Run  *run = lfirst(cell);
		int64 run_low;
		int64 run_high;

		CHECK_FOR_INTERRUPTS();
		if (!wants_look(run, begin))
			continue;
		open_range(run, &run_low, &run_high);
		if (count == RUNS_AT_ONCE ||
			(count > 0 && (is_far_above(run_low, high) || is_far_above(low, run_high))))
		{
			look_at(some, count, low, high, memory);
			count = 0;
		}
		low = count == 0 ? run_low : Min(low, run_low);
		high = count == 0 ? run_high : Max(high, run_high);
		some[count++] = run;
	}
	look_at(some, count, low, high, memory);

	believed_until = mono_in_ms(
		Min(Max(RUNS_BELIEVED, (mono_now() - begin) / 1000 * RUNS_LOOK_SHARE), RUNS_BELIEVED_MAX));
	foreach (cell, runs)
	{
		Run *run = lfirst(cell);

		if (run->believed_until <= begin)
			run->believed_until = believed_until;
	}
}

Backlog *
run_backlog(const Run *run, const char *gateway)
{
	int i;

	for (i = 0; i < run->backlog_count; i++)
		if (strcmp(run->backlogs[i].gateway, gateway) == 0)
			return &run->backlogs[i];
	return NULL;
}

void
runs_forget(List *runs, const char *gateway, bool touched_only)
{
	ListCell *cell;

	foreach (cell, runs)
	{
		Run     *run = lfirst(cell);
		Backlog *backlog = run_backlog(run, gateway);

		if (backlog != NULL && (backlog->touched || !touched_only))
			run->examined = false;
	}
}
