/*
 * doubts.c
 *		What reconciling needs of the tables: balances before, and grants in doubt.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"

#include "common/crash_point.h"
#include "delivery/doubts.h"
#include "delivery/runs.h"
#include "delivery/settings.h"
#include "delivery/statement.h"

/* Milliseconds for which the rows of grants in doubt are believed to be as they were. */
#define DOUBTS_BELIEVED 1000

/* Without a balance, the grant is sent all the same: see take_reading in flight.c. */
#define RECORD_BALANCES(of_users, end)                                                             \
	{                                                                                              \
		"UPDATE quota_manager.quota_execute AS e"                                                  \
		" SET awaits_balance = false, balance_before = k.balance::numeric,"                        \
		" balance_time = CASE WHEN k.balance IS NOT NULL THEN k.balance_time END,"                 \
		" balance_moment = k.balance_moment"                                                       \
		" FROM unnest($1, $2, $3, $4, $5, $6, $7, $8) AS k(strategy_id, user_id, scheduled_time,"  \
		" revision, claim_number, balance, balance_time, balance_moment)"                          \
		" WHERE e.strategy_id = k.strategy_id AND e.user_id = k.user_id"                           \
		" AND e.scheduled_time = k.scheduled_time AND e.revision = k.revision" of_users            \
		" AND e.status = 'processing' AND e.claim_number = k.claim_number" end " RETURNING e.id",  \
			8, {INT4ARRAYOID, TEXTARRAYOID, TIMESTAMPTZARRAYOID, INT4ARRAYOID,                     \
				INT4ARRAYOID, TEXTARRAYOID, TIMESTAMPTZARRAYOID, INT8ARRAYOID},                    \
			NULL                                                                                   \
	}

static Statement record_balances[] = {
	RECORD_BALANCES("", ""), RECORD_BALANCES(OF_USERS("e.user_id", 2) UNKNOWN_BEGIN, UNKNOWN_END)};

static const Oid record_types[] = {INT4OID, TEXTOID, TIMESTAMPTZOID, INT4OID,
								   INT4OID, TEXTOID, TIMESTAMPTZOID, INT8OID};

#define RECORD_COLUMNS lengthof(record_types)

static Statement read_doubts = {
	"SELECT e.strategy_id, e.user_id, e.scheduled_time, e.revision, e.claim_number, e.id, "
	"e.attempts,"
	" trim_scale(e.amount)::text, trim_scale(e.balance_before)::text, e.balance_time,"
	" coalesce(e.doubt_time, e.update_time), e.next_attempt_time, e.balance_moment,"
	" e.doubt_moment, e.update_time"
	" FROM quota_manager.quota_execute e"
	" WHERE e.run_id = $1 AND e.id BETWEEN $2 AND $3 AND e.gateway = $4"
	" AND e.status = 'in_doubt' AND e.next_attempt_time < 'infinity'"
	" ORDER BY e.id",
	4,
	{INT8OID, INT8OID, INT8OID, TEXTOID},
	NULL};

/* Of grants that were in doubt after that claim: those that still are. */
#define READ_UNDECIDED(of_users)                                                                   \
	{                                                                                              \
		"SELECT e.id"                                                                              \
		" FROM unnest($1, $2, $3, $4, $5) AS k(strategy_id, user_id, scheduled_time, revision, "   \
		"claim_number)"                                                                            \
		" JOIN quota_manager.quota_execute e ON e.strategy_id = k.strategy_id"                     \
		" AND e.user_id = k.user_id AND e.scheduled_time = k.scheduled_time"                       \
		" AND e.revision = k.revision" of_users                                                    \
		" WHERE e.status = 'in_doubt' AND e.claim_number = k.claim_number ORDER BY e.id",          \
			5, {INT4ARRAYOID, TEXTARRAYOID, TIMESTAMPTZARRAYOID, INT4ARRAYOID, INT4ARRAYOID}, NULL \
	}

static Statement read_undecided[] = {READ_UNDECIDED(""), READ_UNDECIDED(OF_USERS("e.user_id", 2))};

/* The first columns of what is written say which rows are meant. */
#define KEY_COLUMNS 5

/*
 * Fills row i of the columns that say which rows are meant.
 */
static void
fill_key(Datum **k, int i, const Grant *grant)
{
	k[0][i] = Int32GetDatum(grant->strategy_id);
	k[1][i] = CStringGetTextDatum(grant->user_id);
	k[2][i] = TimestampTzGetDatum(grant->scheduled_time);
	k[3][i] = Int32GetDatum(grant->revision);
	k[4][i] = Int32GetDatum(grant->claim_number);
}

/*
 * Fills row i of what is written.
 */
static void
fill_row(Datum *k[RECORD_COLUMNS], bool *nulls, int i, const Grant *grant)
{
	fill_key(k, i, grant);
	nulls[i] = grant->balance_before == NULL;
	if (grant->balance_before != NULL)
		k[5][i] = CStringGetTextDatum(grant->balance_before);
	k[6][i] = TimestampTzGetDatum(grant->balance_time);
	k[7][i] = Int64GetDatum(grant->balance_moment);
}

void
doubts_record(Lane *lane)
{
	Datum     *k[RECORD_COLUMNS];
	bool      *nulls = palloc0(sizeof(bool) * lane->read_count);
	Datum      values[RECORD_COLUMNS];
	uint64     count;
	uint64     row;
	int        column;
	int        i = 0;
	dlist_iter iter;

	if (lane->read_count == 0)
		return;
	for (column = 0; column < RECORD_COLUMNS; column++)
		k[column] = palloc0(sizeof(Datum) * lane->read_count);
	dlist_foreach(iter, &lane->read)
		fill_row(k, nulls, i++, dlist_container(Grant, node, iter.cur));
	for (column = 0; column < RECORD_COLUMNS; column++)
		values[column] =
			array_of(record_types[column], k[column], column == 5 ? nulls : NULL, lane->read_count);
	count = statement_run(&record_balances[lane->is_spread], values, NULL);
	CRASH_POINT(before_recording);

	dlist_foreach(iter, &lane->read)
	{
		Grant *grant = dlist_container(Grant, node, iter.cur);
		bool   isnull;

		grant->settled = false;
		for (row = 0; row < count && !grant->settled; row++)
			grant->settled = DatumGetInt64(result_datum(row, 1, &isnull)) == grant->id;
	}
	SPI_freetuptable(SPI_tuptable);
	lane->turn.recording = lane->read_count;
}

void
doubts_finish(Lane *lane)
{
	if (lane->turn.recording > 0)
		CRASH_POINT(before_recorded);
	for (; lane->turn.recording > 0; lane->turn.recording--)
	{
		Grant *grant = dlist_container(Grant, node, dlist_pop_head_node(&lane->read));
		bool   found = grant->settled;

		lane->read_count--;
		grant->settled = false;
		if (found)
			dlist_push_tail(&lane->armed, &grant->node);
		else
		{
			lane->measured--;
			lane_put_back_one(lane, grant);
		}
	}
}

/*
 * A moment in column `column` of row i of what was read; MONO_PAST: there is
 * none, or it is one of an earlier run of the machine.
 */
static MonoTime
moment_of(uint64 i, int column)
{
	bool  isnull;
	Datum value = result_datum(i, column, &isnull);

	return isnull || DatumGetInt64(value) > mono_now() ? MONO_PAST : DatumGetInt64(value);
}

/*
 * Sets when the answer to the grant of row i was lost: not longer ago than
 * either clock says, since the one may have been set, and the other begins anew
 * with the machine.  What was lost at a time that is yet to come, by a clock
 * that was set back, and of which nothing else is known, was lost now.
 */
static void
set_doubt_moment(Grant *grant, uint64 i)
{
	TimestampTz now = GetCurrentTimestamp();
	MonoTime    moment = moment_of(i, 14);

	if (grant->doubt_time <= now)
		grant->doubt_moment = Max(mono_at(grant->doubt_time, now), moment);
	else if (moment != MONO_PAST)
		grant->doubt_moment = moment;
	else
	{
		grant->doubt_time = now;
		grant->doubt_moment = mono_now();
		grant->doubt_moved = true;
	}
}

/*
 * When the grant of row i is to be looked at.  One that is written later than
 * now was so before the clock was set back: at once.
 */
static MonoTime
due_of(const Grant *grant, uint64 i)
{
	TimestampTz now = GetCurrentTimestamp();
	bool        isnull;

	if (DatumGetTimestampTz(result_datum(i, 15, &isnull)) > now)
		return MONO_PAST;
	return mono_at(grant->next_attempt_time, now);
}

/*
 * Makes a grant of row i of what was read.
 */
static Grant *
doubtful_grant(const Lane *lane, uint64 i)
{
	char  *user_id = result_text(i, 2, CurrentMemoryContext);
	char  *amount = result_text(i, 8, CurrentMemoryContext);
	char  *balance = result_text(i, 9, CurrentMemoryContext);
	Grant *grant = grant_create(lane->memory, user_id, amount);
	bool   isnull;
	Datum  balance_time = result_datum(i, 10, &isnull);

	if (balance != NULL && !isnull)
		grant_take_balance(grant, balance, DatumGetTimestampTz(balance_time), moment_of(i, 13));
	grant->strategy_id = DatumGetInt32(result_datum(i, 1, &isnull));
	grant->scheduled_time = DatumGetTimestampTz(result_datum(i, 3, &isnull));
	grant->revision = DatumGetInt32(result_datum(i, 4, &isnull));
	grant->claim_number = DatumGetInt32(result_datum(i, 5, &isnull));
	grant->id = DatumGetInt64(result_datum(i, 6, &isnull));
	grant->attempts = DatumGetInt32(result_datum(i, 7, &isnull));
	grant->doubt_time = DatumGetTimestampTz(result_datum(i, 11, &isnull));
	grant->next_attempt_time = DatumGetTimestampTz(result_datum(i, 12, &isnull));
	set_doubt_moment(grant, i);
	grant->due = due_of(grant, i);
	/* nothing can be proven, but its user waits as long as it may still arrive */
	if (grant->balance_before == NULL)
		grant->due = Max(grant->due, grant_arrived(grant));
	return grant;
}

/*
 * Gives the lane those of one run.
 */
static void
load_run(Lane *lane, const Run *run, const Backlog *backlog)
{
	Datum  values[4];
	uint64 count;
	uint64 i;

	values[0] = Int64GetDatum(run->id);
	values[1] = Int64GetDatum(backlog->low);
	values[2] = Int64GetDatum(backlog->high);
	values[3] = CStringGetTextDatum(lane->row->name);
	count = statement_run(&read_doubts, values, NULL);
	for (i = 0; i < count; i++)
	{
		Grant *grant = doubtful_grant(lane, i);

		if (lane_has_doubt(lane, grant->id))
		{
			grant_free(grant);
			continue;
		}
		lane_doubt_begins(lane, grant->user_id);
		lane_add_doubt(lane, grant);
	}
	SPI_freetuptable(SPI_tuptable);
}

void
doubts_load(Lane *lane, List *runs)
{
	ListCell *cell;

	foreach (cell, runs)
	{
		Run     *run = lfirst(cell);
		Backlog *backlog = run_backlog(run, lane->row->name);

		if (backlog == NULL || !backlog->has_unread_doubts)
			continue;
		load_run(lane, run, backlog);
		backlog->has_unread_doubts = false;
		/* what is proven of them changes it */
		backlog->touched = true;
	}
}

/*
 * The ids of those of the lane's waiting grants whose rows are in doubt as they
 * were, in ascending order.
 */
static int64 *
undecided_ids(Lane *lane, int *count)
{
	Datum     *k[KEY_COLUMNS];
	Datum      values[KEY_COLUMNS];
	int64     *ids;
	int        rows = 0;
	int        column;
	int        i = 0;
	bool       isnull;
	dlist_iter iter;

	dlist_foreach(iter, &lane->doubts) rows++;
	for (column = 0; column < KEY_COLUMNS; column++)
		k[column] = palloc(sizeof(Datum) * rows);
	dlist_foreach(iter, &lane->doubts) fill_key(k, i++, dlist_container(Grant, node, iter.cur));
	for (column = 0; column < KEY_COLUMNS; column++)
		values[column] = array_of(record_types[column], k[column], NULL, rows);
	*count = (int) statement_run(&read_undecided[lane->is_spread], values, NULL);
	ids = palloc(sizeof(int64) * Max(*count, 1));
	for (i = 0; i < *count; i++)
		ids[i] = DatumGetInt64(result_datum(i, 1, &isnull));
	SPI_freetuptable(SPI_tuptable);
	return ids;
}

void
doubts_check(Lane *lane)
{
	MonoTime begin = mono_now();
	int64   *ids;
	int      count;

	/* where nobody has waited since, it does not matter yet */
	if (dlist_is_empty(&lane->doubts) || lane->doubts_check > begin ||
		lane->rest_until < lane->doubts_check)
		return;
	ids = undecided_ids(lane, &count);
	lane_keep_doubts(lane, ids, count);
	lane->doubts_check =
		mono_in_ms(Max(DOUBTS_BELIEVED, (mono_now() - begin) / 1000 * RUNS_LOOK_SHARE));
}
