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
#include "delivery/delivery_settings.h"
#include "common/statement.h"

/* Milliseconds for which the rows of grants in doubt are believed to be as they were. */
#define DOUBTS_BELIEVED 1000

/* Without a balance, the grant is sent all the same: see take_sample in requests.c. */
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
		{                                                                                          \
			INT4ARRAYOID, TEXTARRAYOID, TIMESTAMPTZARRAYOID, INT4ARRAYOID, INT4ARRAYOID,           \
				TEXTARRAYOID, TIMESTAMPTZARRAYOID, INT8ARRAYOID                                    \
		}                                                                                          \
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
	{INT8OID, INT8OID, INT8OID, TEXTOID}};

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
		{                                                                                          \
			INT4ARRAYOID, TEXTARRAYOID, TIMESTAMPTZARRAYOID, INT4ARRAYOID, INT4ARRAYOID            \
		}                                                                                          \
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
	k[0][i] = Int32GetDatum(grant->key.strategy_id);
	k[1][i] = CStringGetTextDatum(grant->key.user_id);
	k[2][i] = TimestampTzGetDatum(grant->key.scheduled_time);
	k[3][i] = Int32GetDatum(grant->key.revision);
	k[4][i] = Int32GetDatum(grant->key.claim_number);
}

/*
 * Fills row i of what is written.
 */
static void
fill_row(Datum *k[RECORD_COLUMNS], bool *nulls, int i, const Grant *grant)
{
	fill_key(k, i, grant);
	nulls[i] = grant->before.balance == NULL;
	if (grant->before.balance != NULL)
		k[5][i] = CStringGetTextDatum(grant->before.balance);
	k[6][i] = TimestampTzGetDatum(grant->before.time);
	k[7][i] = Int64GetDatum(grant->before.moment);
}

void
doubts_record(Sender *sender)
{
	Datum     *k[RECORD_COLUMNS];
	bool      *nulls = palloc0(sizeof(bool) * grants_in(&sender->grants, GRANT_SAMPLED));
	Datum      values[RECORD_COLUMNS];
	uint64     count;
	uint64     row;
	int        column;
	int        i = 0;
	dlist_iter iter;

	if (grants_in(&sender->grants, GRANT_SAMPLED) == 0)
		return;
	for (column = 0; column < RECORD_COLUMNS; column++)
		k[column] = palloc0(sizeof(Datum) * grants_in(&sender->grants, GRANT_SAMPLED));
	grants_foreach(iter, &sender->grants, GRANT_SAMPLED)
		fill_row(k, nulls, i++, dlist_container(Grant, node, iter.cur));
	for (column = 0; column < RECORD_COLUMNS; column++)
		values[column] = array_of(record_types[column], k[column], column == 5 ? nulls : NULL,
								  grants_in(&sender->grants, GRANT_SAMPLED));
	count = statement_run_values(&record_balances[sender->is_spread], values, NULL);
	CRASH_POINT(before_recording);

	grants_foreach(iter, &sender->grants, GRANT_SAMPLED)
	{
		Grant *grant = dlist_container(Grant, node, iter.cur);
		bool   isnull;

		grant->row_found = false;
		for (row = 0; row < count && !grant->row_found; row++)
			grant->row_found = DatumGetInt64(result_datum(row, 1, &isnull)) == grant->id;
	}
	SPI_freetuptable(SPI_tuptable);
	sender->batch.recording = grants_in(&sender->grants, GRANT_SAMPLED);
}

void
doubts_finish(Sender *sender)
{
	if (sender->batch.recording > 0)
		CRASH_POINT(before_recorded);
	for (; sender->batch.recording > 0; sender->batch.recording--)
	{
		Grant *grant = grants_first(&sender->grants, GRANT_SAMPLED);

		if (grant->row_found)
			grant_move(&sender->grants, grant, GRANT_READY_TO_SEND);
		else
			grant_return(&sender->grants, grant);
		grant->row_found = false;
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

	if (grant->doubt.time <= now)
		grant->doubt.moment = Max(mono_at(grant->doubt.time, now), moment);
	else if (moment != MONO_PAST)
		grant->doubt.moment = moment;
	else
	{
		grant->doubt.time = now;
		grant->doubt.moment = mono_now();
		grant->doubt.moved = true;
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
	return mono_at(grant->outcome.next_attempt_time, now);
}

/*
 * Makes a grant of row i of what was read.
 */
static Grant *
doubtful_grant(const Sender *sender, uint64 i)
{
	char  *user_id = result_text(i, 2);
	char  *amount = result_text(i, 8);
	char  *balance = result_text(i, 9);
	Grant *grant = grant_create(sender->memory, user_id, amount);
	bool   isnull;
	Datum  balance_time = result_datum(i, 10, &isnull);

	if (balance != NULL && !isnull)
		grant_set_sample(grant, balance, DatumGetTimestampTz(balance_time), moment_of(i, 13));
	grant->key.strategy_id = DatumGetInt32(result_datum(i, 1, &isnull));
	grant->key.scheduled_time = DatumGetTimestampTz(result_datum(i, 3, &isnull));
	grant->key.revision = DatumGetInt32(result_datum(i, 4, &isnull));
	grant->key.claim_number = DatumGetInt32(result_datum(i, 5, &isnull));
	grant->id = DatumGetInt64(result_datum(i, 6, &isnull));
	grant->attempts = DatumGetInt32(result_datum(i, 7, &isnull));
	grant->doubt.time = DatumGetTimestampTz(result_datum(i, 11, &isnull));
	grant->outcome.next_attempt_time = DatumGetTimestampTz(result_datum(i, 12, &isnull));
	set_doubt_moment(grant, i);
	grant->doubt.due = due_of(grant, i);
	/* nothing can be proven, but its user waits as long as it may still arrive */
	if (grant->before.balance == NULL)
		grant->doubt.due = Max(grant->doubt.due, grant_last_arrival(grant));
	return grant;
}

/*
 * Gives the sender those of one run.
 */
static void
load_run(Sender *sender, const Run *run, const Backlog *backlog)
{
	Datum  values[4];
	uint64 count;
	uint64 i;

	values[0] = Int64GetDatum(run->id);
	values[1] = Int64GetDatum(backlog->low);
	values[2] = Int64GetDatum(backlog->high);
	values[3] = CStringGetTextDatum(sender->row->name);
	count = statement_run_values(&read_doubts, values, NULL);
	for (i = 0; i < count; i++)
	{
		Grant *grant = doubtful_grant(sender, i);

		if (grant_is_known_unresolved(&sender->grants, grant->key.user_id, grant->id))
		{
			grant_free(grant);
			continue;
		}
		sender_add_unresolved(sender, grant);
	}
	SPI_freetuptable(SPI_tuptable);
}

void
doubts_load(Sender *sender, List *runs)
{
	ListCell *cell;

	foreach (cell, runs)
	{
		Run     *run = lfirst(cell);
		Backlog *backlog = run_backlog(run, sender->row->name);

		if (backlog == NULL || !backlog->has_unread_doubts)
			continue;
		load_run(sender, run, backlog);
		backlog->has_unread_doubts = false;
		/* what is proven of them changes it */
		backlog->touched = true;
	}
}

/*
 * The ids of those of the sender's waiting grants whose rows are in doubt as they
 * were, in ascending order.
 */
static int64 *
undecided_ids(Sender *sender, int *count)
{
	Datum     *k[KEY_COLUMNS];
	Datum      values[KEY_COLUMNS];
	int64     *ids;
	int        rows = grants_in(&sender->grants, GRANT_UNRESOLVED);
	int        column;
	int        i = 0;
	bool       isnull;
	dlist_iter iter;

	for (column = 0; column < KEY_COLUMNS; column++)
		k[column] = palloc(sizeof(Datum) * rows);
	grants_foreach(iter, &sender->grants, GRANT_UNRESOLVED)
		fill_key(k, i++, dlist_container(Grant, node, iter.cur));
	for (column = 0; column < KEY_COLUMNS; column++)
		values[column] = array_of(record_types[column], k[column], NULL, rows);
	*count = (int) statement_run_values(&read_undecided[sender->is_spread], values, NULL);
	ids = palloc(sizeof(int64) * Max(*count, 1));
	for (i = 0; i < *count; i++)
		ids[i] = DatumGetInt64(result_datum(i, 1, &isnull));
	SPI_freetuptable(SPI_tuptable);
	return ids;
}

static int
compare_ids(const void *a, const void *b)
{
	int64 x = *(const int64 *) a;
	int64 y = *(const int64 *) b;

	return x < y ? -1 : x > y;
}

/*
 * Forgets those that wait whose id is none of these, which are in ascending
 * order.
 */
static void
keep_unresolved(GrantQueue *grants, const int64 *ids, int count)
{
	dlist_mutable_iter iter;

	grants_foreach_modify(iter, grants, GRANT_UNRESOLVED)
	{
		Grant *grant = dlist_container(Grant, node, iter.cur);

		if (bsearch(&grant->id, ids, count, sizeof(int64), compare_ids) == NULL)
			grant_remove(grants, grant);
	}
}

void
doubts_check(Sender *sender)
{
	MonoTime begin = mono_now();
	int64   *ids;
	int      count;

	/* where nobody has waited since, it does not matter yet */
	if (grants_in(&sender->grants, GRANT_UNRESOLVED) == 0 || sender->unresolved.next_read > begin ||
		sender->search.rest_until < sender->unresolved.next_read)
		return;
	ids = undecided_ids(sender, &count);
	keep_unresolved(&sender->grants, ids, count);
	sender->unresolved.next_read =
		mono_in_ms(Max(DOUBTS_BELIEVED, (mono_now() - begin) / 1000 * RUNS_LOOK_SHARE));
}
