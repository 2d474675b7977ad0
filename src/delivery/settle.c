/*
 * settle.c
 *		From processing to what became of it.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "common/crash_point.h"
#include "delivery/runs.h"
#include "delivery/delivery_settings.h"
#include "delivery/settle.h"
#include "common/statement.h"
#include "scan/balance_table.h"

/* No probe is further ahead than this, in milliseconds. */
#define PROBE_SHOWN_MAX (INT64CONST(24) * 3600 * 1000)

#define LEFTOVER_TEXT "the sender ended before the answer was recorded"

/* Of two statements, the second is for tables that are spread over parts. */

/*
 * What was not tried keeps the text of an earlier attempt, and its time.  A
 * grant stays doubtful as long as it is in doubt.
 */
#define SETTLE_GRANTS(of_users, end)                                                               \
	{                                                                                              \
		"UPDATE quota_manager.quota_execute AS e"                                                  \
		" SET status = k.status, awaits_balance = false,"                                          \
		" attempts = least(e.attempts::int8 + k.charge, 2147483647),"                              \
		" last_status = CASE WHEN k.tried THEN k.http_status ELSE e.last_status END,"              \
		" last_error = CASE WHEN k.tried THEN k.message ELSE e.last_error END,"                    \
		" next_attempt_time = coalesce(k.next_attempt_time, e.next_attempt_time),"                 \
		" doubt_time = CASE WHEN k.status = 'in_doubt' THEN coalesce(k.doubt_time, e.doubt_time) " \
		"END,"                                                                                     \
		" doubt_moment = CASE WHEN k.doubt_time IS NULL THEN e.doubt_moment ELSE k.doubt_moment "  \
		"END,"                                                                                     \
		" update_time = $15"                                                                       \
		" FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14) AS "            \
		"k(strategy_id,"                                                                           \
		" user_id, scheduled_time, revision, claim_number, status, charge, tried, http_status, "   \
		"message,"                                                                                 \
		" next_attempt_time, doubt_time, was, doubt_moment)"                                       \
		" WHERE e.strategy_id = k.strategy_id AND e.user_id = k.user_id"                           \
		" AND e.scheduled_time = k.scheduled_time AND e.revision = k.revision" of_users            \
		" AND e.status = k.was AND e.claim_number = k.claim_number" end " RETURNING e.id",         \
		{                                                                                          \
			INT4ARRAYOID, TEXTARRAYOID, TIMESTAMPTZARRAYOID, INT4ARRAYOID, INT4ARRAYOID,           \
				TEXTARRAYOID, INT4ARRAYOID, BOOLARRAYOID, INT4ARRAYOID, TEXTARRAYOID,              \
				TIMESTAMPTZARRAYOID, TIMESTAMPTZARRAYOID, TEXTARRAYOID, INT8ARRAYOID,              \
				TIMESTAMPTZOID                                                                     \
		}                                                                                          \
	}

static Statement settle_grants[] = {
	SETTLE_GRANTS("", ""), SETTLE_GRANTS(OF_USERS("e.user_id", 2) UNKNOWN_BEGIN, UNKNOWN_END)};

/*
 * The same for grants that were all completed with one status: a statement
 * costs as much for the columns of its table as for the rows it changes.
 */
#define SETTLE_COMPLETED(of_users, end)                                                            \
	{                                                                                              \
		"UPDATE quota_manager.quota_execute AS e"                                                  \
		" SET status = 'completed', last_status = $6, last_error = NULL,"                          \
		" update_time = $7"                                                                        \
		" FROM unnest($1, $2, $3, $4, $5) AS k(strategy_id, user_id, scheduled_time, revision,"    \
		" claim_number)"                                                                           \
		" WHERE e.strategy_id = k.strategy_id AND e.user_id = k.user_id"                           \
		" AND e.scheduled_time = k.scheduled_time AND e.revision = k.revision" of_users            \
		" AND e.status = 'processing' AND e.claim_number = k.claim_number" end " RETURNING e.id",  \
		{                                                                                          \
			INT4ARRAYOID, TEXTARRAYOID, TIMESTAMPTZARRAYOID, INT4ARRAYOID, INT4ARRAYOID, INT4OID,  \
				TIMESTAMPTZOID                                                                     \
		}                                                                                          \
	}

static Statement settle_completed[] = {
	SETTLE_COMPLETED("", ""),
	SETTLE_COMPLETED(OF_USERS("e.user_id", 2) UNKNOWN_BEGIN, UNKNOWN_END)};

/*
 * Nothing is known of the balances of users who have something open: grants
 * clear it.  To be safe, it is cleared here, too: of a plain table where
 * anything is known of balances at the gateway, which is asked once, of one that
 * is spread in the parts that have these users.
 */
#define FORGET_BALANCES(condition)                                                                 \
	{                                                                                              \
		"UPDATE quota_manager.user_balance AS b SET balance = NULL, token = NULL"                  \
		" FROM unnest($1) AS k(user_id)"                                                           \
		" WHERE b.user_id = k.user_id AND b.gateway = $2"                                          \
		" AND (b.balance IS NOT NULL OR b.token IS NOT NULL)" condition,                           \
		{                                                                                          \
			TEXTARRAYOID, TEXTOID                                                                  \
		}                                                                                          \
	}

static Statement forget_balances[] = {
	FORGET_BALANCES(
		" AND (SELECT EXISTS (SELECT 1 FROM quota_manager.user_balance a WHERE a.gateway = $2"
		" AND (a.balance IS NOT NULL OR a.token IS NOT NULL)))"),
	FORGET_BALANCES(OF_USERS("b.user_id", 1))};

/*
 * Grants that were claimed to be sent after a balance had been written down,
 * and have none, were not sent.
 */
static Statement settle_leftover_grants = {
	"UPDATE quota_manager.quota_execute AS e"
	" SET status = k.status, awaits_balance = false,"
	" attempts = least(e.attempts::int8 + CASE WHEN k.status = 'in_doubt' THEN $7 ELSE 0 END,"
	" 2147483647),"
	" next_attempt_time = CASE WHEN k.status = 'pending' THEN e.next_attempt_time"
	" WHEN $7 > 0 AND e.attempts::int8 + $7 >= $8 THEN 'infinity' ELSE $6 END,"
	" doubt_time = CASE WHEN k.status = 'in_doubt' THEN $9 END,"
	" doubt_moment = CASE WHEN k.status = 'in_doubt' THEN $10 END,"
	" last_status = CASE WHEN k.status = 'in_doubt' THEN NULL ELSE e.last_status END,"
	" last_error = CASE WHEN k.status = 'in_doubt' THEN $5 ELSE e.last_error END,"
	" update_time = $9"
	" FROM (VALUES ('pending', true), ('in_doubt', false)) AS k(status, unsent)"
	" WHERE e.run_id = $1 AND e.id BETWEEN $2 AND $3 AND e.gateway = $4"
	" AND e.status = 'processing'"
	" AND k.unsent = (e.awaits_balance AND e.doubt_time IS NULL)"
	" RETURNING e.status, e.id",
	{INT8OID, INT8OID, INT8OID, TEXTOID, TEXTOID, TIMESTAMPTZOID, INT4OID, INT4OID, TIMESTAMPTZOID,
	 INT8OID}};

static Statement save_state = {
	"UPDATE quota_manager.quota_gateway AS g"
	" SET state = $2, state_reason = $3, next_probe_time = $4"
	" WHERE g.id = (SELECT l.id FROM quota_manager.quota_gateway l WHERE l.id = $1"
	" FOR NO KEY UPDATE SKIP LOCKED)",
	{INT4OID, TEXTOID, TEXTOID, TIMESTAMPTZOID}};

/* Of a run: whose grants have become in doubt at a time. */
static Statement read_lost_users = {
	"SELECT e.user_id FROM quota_manager.quota_execute e"
	" WHERE e.run_id = $1 AND e.id BETWEEN $2 AND $3 AND e.gateway = $4"
	" AND e.status = 'in_doubt' AND e.doubt_time = $5",
	{INT8OID, INT8OID, INT8OID, TEXTOID, TIMESTAMPTZOID}};

/* The columns of the table k above. */
enum
{
	K_STRATEGY_ID,
	K_USER_ID,
	K_SCHEDULED_TIME,
	K_REVISION,
	K_CLAIM_NUMBER,
	K_STATUS,
	K_CHARGE,
	K_TRIED,
	K_HTTP_STATUS,
	K_MESSAGE,
	K_NEXT_ATTEMPT_TIME,
	K_DOUBT_TIME,
	K_WAS,
	K_DOUBT_MOMENT,
	K_COUNT
};

static const Oid k_types[K_COUNT] = {
	INT4OID, TEXTOID, TIMESTAMPTZOID, INT4OID,        INT4OID,        TEXTOID, INT4OID,
	BOOLOID, INT4OID, TEXTOID,        TIMESTAMPTZOID, TIMESTAMPTZOID, TEXTOID, INT8OID};

/*
 * The columns that settle_completed needs; it takes the status for all rows
 * where the next column would be.
 */
#define K_COMPLETED_COUNT (K_CLAIM_NUMBER + 1)

/*
 * Fills row i of the table k: the columns that settle_completed needs, or all.
 */
static void
fill_row(Datum *k[K_COUNT], bool *nulls[K_COUNT], int i, const Grant *grant, bool all)
{
	k[K_STRATEGY_ID][i] = Int32GetDatum(grant->key.strategy_id);
	k[K_USER_ID][i] = CStringGetTextDatum(grant->key.user_id);
	k[K_SCHEDULED_TIME][i] = TimestampTzGetDatum(grant->key.scheduled_time);
	k[K_REVISION][i] = Int32GetDatum(grant->key.revision);
	k[K_CLAIM_NUMBER][i] = Int32GetDatum(grant->key.claim_number);
	if (!all)
		return;
	k[K_STATUS][i] = CStringGetTextDatum(grant_status(grant));
	k[K_CHARGE][i] = Int32GetDatum(grant->outcome.failed_attempt ? 1 : 0);
	k[K_TRIED][i] = BoolGetDatum(grant->outcome.verdict != VERDICT_UNSENT);
	k[K_HTTP_STATUS][i] = Int32GetDatum(grant->outcome.http_status);
	nulls[K_HTTP_STATUS][i] = grant->outcome.http_status == 0;
	nulls[K_MESSAGE][i] = grant->outcome.message == NULL;
	if (grant->outcome.message != NULL)
		k[K_MESSAGE][i] = CStringGetTextDatum(grant->outcome.message);
	k[K_NEXT_ATTEMPT_TIME][i] = TimestampTzGetDatum(grant->outcome.next_attempt_time);
	nulls[K_NEXT_ATTEMPT_TIME][i] = !grant_sets_time(grant);
	k[K_DOUBT_TIME][i] = TimestampTzGetDatum(grant->doubt.time);
	nulls[K_DOUBT_TIME][i] = grant->outcome.sent != MAYBE_SENT && !grant->doubt.moved;
	k[K_DOUBT_MOMENT][i] = Int64GetDatum(grant->doubt.moment);
	k[K_WAS][i] = CStringGetTextDatum(grant->in_doubt ? "in_doubt" : "processing");
}

/*
 * True if everything to be settled was completed with the same status.
 */
static bool
all_completed(Sender *sender)
{
	const Grant *first = grants_first(&sender->grants, GRANT_DONE);
	dlist_iter   iter;

	grants_foreach(iter, &sender->grants, GRANT_DONE)
	{
		const Grant *grant = dlist_container(Grant, node, iter.cur);

		if (grant->outcome.verdict != VERDICT_COMPLETED || grant->outcome.message != NULL ||
			grant->earlier == MAYBE_SENT || grant->in_doubt ||
			grant->outcome.http_status != first->outcome.http_status)
			return false;
	}
	return true;
}

static int
compare_ids(const void *a, const void *b)
{
	int64 x = *(const int64 *) a;
	int64 y = *(const int64 *) b;

	return x < y ? -1 : x > y;
}

/*
 * Notes for whom answers were lost: their balances are not asked for until
 * what was sent cannot arrive any more.
 */
static void
note_lost_answers(Sender *sender)
{
	Datum     *users = palloc(sizeof(Datum) * grants_in(&sender->grants, GRANT_DONE));
	int        count = 0;
	dlist_iter iter;

	grants_foreach(iter, &sender->grants, GRANT_DONE)
	{
		const Grant *grant = dlist_container(Grant, node, iter.cur);

		if (grant->outcome.sent == MAYBE_SENT)
			users[count++] = CStringGetTextDatum(grant->key.user_id);
	}
	if (count > 0)
		balance_table_note_lost(sender->row->name, array_of(TEXTOID, users, NULL, count));
}

void
settle_done(Sender *sender)
{
	Datum     *k[K_COUNT];
	bool      *nulls[K_COUNT];
	Datum      values[K_COUNT + 1];
	Datum      balances[2];
	int        rows = grants_in(&sender->grants, GRANT_DONE);
	int        columns = K_COUNT;
	int64     *found;
	uint64     count;
	uint64     row;
	int        column;
	int        i = 0;
	dlist_iter iter;

	if (rows == 0)
		return;
	CRASH_POINT(settle_starting);
	if (all_completed(sender))
		columns = K_COMPLETED_COUNT;
	for (column = 0; column < columns; column++)
	{
		k[column] = palloc0(sizeof(Datum) * rows);
		nulls[column] = palloc0(sizeof(bool) * rows);
	}
	grants_foreach(iter, &sender->grants, GRANT_DONE)
		fill_row(k, nulls, i++, dlist_container(Grant, node, iter.cur), columns == K_COUNT);
	for (column = 0; column < columns; column++)
		values[column] = array_of(k_types[column], k[column], nulls[column], rows);
	if (sender->row != NULL)
	{
		balances[0] = values[K_USER_ID];
		balances[1] = CStringGetTextDatum(sender->row->name);
		statement_run_values(&forget_balances[sender->is_spread], balances, NULL);
		note_lost_answers(sender);
	}
	if (columns == K_COUNT)
	{
		values[K_COUNT] = TimestampTzGetDatum(GetCurrentTimestamp());
		count = statement_run_values(&settle_grants[sender->is_spread], values, NULL);
	}
	else
	{
		values[K_COMPLETED_COUNT] =
			Int32GetDatum(grants_first(&sender->grants, GRANT_DONE)->outcome.http_status);
		values[K_COMPLETED_COUNT + 1] = TimestampTzGetDatum(GetCurrentTimestamp());
		count = statement_run_values(&settle_completed[sender->is_spread], values, NULL);
	}
	CRASH_POINT(settle_made);

	found = palloc(sizeof(int64) * Max(count, 1));
	for (row = 0; row < count; row++)
	{
		bool isnull;

		found[row] = DatumGetInt64(result_datum(row, 1, &isnull));
	}
	SPI_freetuptable(SPI_tuptable);
	qsort(found, count, sizeof(int64), compare_ids);
	grants_foreach(iter, &sender->grants, GRANT_DONE)
	{
		Grant *grant = dlist_container(Grant, node, iter.cur);

		grant->row_found = bsearch(&grant->id, found, count, sizeof(int64), compare_ids) != NULL;
		if (grant->row_found)
			tally_settled(&sender->batch.tally, grant);
	}
	sender->batch.settling = rows;
}

/*
 * Adds a settled grant to the count; what was in doubt before and still is
 * counts no more.
 */
static void
count_grant(const Grant *grant, DeliveryCount *count)
{
	switch (grant->outcome.verdict)
	{
		case VERDICT_COMPLETED:
			count->completed++;
			break;
		case VERDICT_FAILED:
			if (grant->earlier == MAYBE_SENT)
				count->in_doubt++;
			else
				count->failed++;
			break;
		case VERDICT_IN_DOUBT:
			if (!grant->in_doubt)
				count->in_doubt++;
			break;
		case VERDICT_DEFERRED:
			count->deferred++;
			break;
		case VERDICT_UNSENT:
			break;
	}
}

void
settle_finish(Sender *sender, DeliveryCount *count)
{
	if (sender->batch.settling > 0)
		CRASH_POINT(settle_committed);
	for (; sender->batch.settling > 0; sender->batch.settling--)
	{
		Grant *grant = grants_first(&sender->grants, GRANT_DONE);

		if (grant->row_found)
			count_grant(grant, count);
		else if (!grant->in_doubt)
			ereport(WARNING, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
							  errmsg("grant " INT64_FORMAT
									 " was changed by somebody else during its delivery",
									 grant->id),
							  errdetail("Its delivery ended as %s.", grant_status(grant)),
							  errhint("Compare it with the balance at the gateway.")));
		sender_settled(sender, grant);
	}
	sender->grants.done_since = mono_now();
}

/*
 * Notes that answers were lost: of the grants of a run that have just become
 * in doubt.  The run, its range and the gateway are the first of the values.
 */
static void
note_lost_of_run(const Datum *range, TimestampTz doubt_time)
{
	Datum  values[5] = {range[0], range[1], range[2], range[3], TimestampTzGetDatum(doubt_time)};
	uint64 count = statement_run_values(&read_lost_users, values, NULL);
	Datum *users = palloc(sizeof(Datum) * Max(count, 1));
	uint64 row;
	bool   isnull;

	for (row = 0; row < count; row++)
		users[row] = PointerGetDatum(DatumGetTextPCopy(result_datum(row, 1, &isnull)));
	SPI_freetuptable(SPI_tuptable);
	balance_table_note_lost(TextDatumGetCString(range[3]),
							array_of(TEXTOID, users, NULL, (int) count));
}

/*
 * Settles what another sender has left of a run; returns how many are in doubt.
 */
static int64
settle_leftovers_of_run(Sender *sender, const Run *run, const Backlog *backlog)
{
	TimestampTz now = GetCurrentTimestamp();
	Datum       values[10];
	int64       in_doubt = 0;
	uint64      count;
	uint64      row;

	values[0] = Int64GetDatum(run->id);
	values[1] = Int64GetDatum(backlog->low);
	values[2] = Int64GetDatum(backlog->high);
	values[3] = CStringGetTextDatum(sender->row->name);
	values[4] = CStringGetTextDatum(LEFTOVER_TEXT);
	values[5] = TimestampTzGetDatum(sender_policy(sender) == DOUBT_HOLD ? DT_NOEND : now);
	values[6] = Int32GetDatum(sender_policy(sender) == DOUBT_RESEND ? 1 : 0);
	values[7] = Int32GetDatum(delivery_max_attempts);
	values[8] = TimestampTzGetDatum(now);
	values[9] = Int64GetDatum(mono_now());
	count = statement_run_values(&settle_leftover_grants, values, NULL);
	for (row = 0; row < count; row++)
	{
		bool isnull;
		bool is_in_doubt = strcmp(result_text(row, 1), "in_doubt") == 0;

		in_doubt += is_in_doubt;
		tally_left_over(&sender->batch.tally, DatumGetInt64(result_datum(row, 2, &isnull)),
						is_in_doubt);
	}
	SPI_freetuptable(SPI_tuptable);
	if (in_doubt > 0)
		note_lost_of_run(values, now);
	return in_doubt;
}

int64
settle_leftovers(Sender *sender, List *runs)
{
	int64     in_doubt = 0;
	ListCell *cell;

	foreach (cell, runs)
	{
		Run     *run = lfirst(cell);
		Backlog *backlog = run_backlog(run, sender->row->name);

		if (backlog == NULL || backlog->processing == 0)
			continue;
		in_doubt += settle_leftovers_of_run(sender, run, backlog);
		run->examined = false;
	}
	return in_doubt;
}

bool
settle_state(Sender *sender)
{
	Datum values[4];
	char  nulls[4] = {' ', ' ', ' ', ' '};
	bool  written;

	values[0] = Int32GetDatum(sender->row->id);
	values[1] = CStringGetTextDatum(circuit_state_name(sender->circuit.state));
	if (sender->circuit.reason[0] == '\0')
		nulls[2] = 'n';
	else
		values[2] = CStringGetTextDatum(sender->circuit.reason);
	/* for people, who read the clock on the wall */
	values[3] = TimestampTzGetDatum(TimestampTzPlusMilliseconds(
		GetCurrentTimestamp(), mono_ms_until(sender->circuit.check_time, PROBE_SHOWN_MAX)));
	if (sender->circuit.state == CIRCUIT_OPEN || sender->circuit.state == CIRCUIT_PROBING)
		nulls[3] = 'n';
	written = statement_run_values(&save_state, values, nulls) > 0;
	if (!written)
		return false;
	CRASH_POINT(state_saved);
	return true;
}
