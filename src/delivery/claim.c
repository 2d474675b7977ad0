/*
 * claim.c
 *		From pending to processing.
 *
 * Candidates are searched along the ids of the runs, a window at a time.  A
 * batch of them is then claimed by one UPDATE that names each row by its
 * primary key and takes it only if it is still pending.  That needs no row locks
 * before, and works as well where the table is distributed by user.
 *
 * Where it is, the candidates of a window are taken in the order of the hash of
 * their users, by which users are distributed: so a batch, and what is settled
 * after it, are about the users of few servers and parts.  A user's grants stay
 * in their order.
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "common/compat.h"
#include "common/crash_point.h"
#include "common/hashfn.h"
#include "common/plain_table.h"
#include "delivery/claim.h"
#include "delivery/runs.h"
#include "common/statement.h"

/* Ids searched by one statement, and the most candidates kept. */
#define WINDOW 32768
#define CANDIDATES_MAX 32768
#define CANDIDATES_MAX_TEXT "32768"

/* Milliseconds before users are looked for again who have to wait. */
#define REST 1000

/*
 * What was written later than now is from before the clock was set back: it is
 * due, unless it is left to an operator.
 */
#define IS_DUE(now)                                                                                \
	"(e.next_attempt_time <= " now " OR (e.update_time > " now                                     \
	" AND e.next_attempt_time < 'infinity'))"

static Statement read_candidates = {
	"SELECT e.strategy_id, e.user_id, e.scheduled_time, e.revision, e.id"
	" FROM quota_manager.quota_execute e"
	" WHERE e.run_id = ANY ($1) AND e.id BETWEEN $2 AND $3 AND e.gateway = $4"
	" AND (e.status = 'pending' OR e.status = $5) AND " IS_DUE(
		"$6") " ORDER BY e.id LIMIT " CANDIDATES_MAX_TEXT,
	{INT8ARRAYOID, INT8OID, INT8OID, TEXTOID, TEXTOID, TIMESTAMPTZOID}};

/* Where candidates are searched: in these runs, between these ids. */
typedef struct Window
{
	Datum *runs;
	int    count;
	int64  low;
	int64  high;
} Window;

/*
 * What an earlier attempt has read is forgotten in any case: it must not be
 * taken for a reading before this one.  The number of a claim must differ from
 * the one before; no first claim is number 0.
 */
#define CLAIM_CANDIDATES(of_users, end)                                                            \
	{                                                                                              \
		"UPDATE quota_manager.quota_execute AS e"                                                  \
		" SET status = 'processing', update_time = $8,"                                            \
		" claim_number = CASE e.claim_number WHEN 2147483647 THEN 0 ELSE e.claim_number + 1 END,"  \
		" awaits_balance = $6, balance_time = NULL, balance_before = NULL"                         \
		" FROM unnest($1, $2, $3, $4) AS k(strategy_id, user_id, scheduled_time, revision)"        \
		" WHERE e.strategy_id = k.strategy_id AND e.user_id = k.user_id"                           \
		" AND e.scheduled_time = k.scheduled_time AND e.revision = k.revision" of_users            \
		" AND e.gateway = $5 AND (e.status = 'pending' OR e.status = $7)"                          \
		" AND " IS_DUE("$8") end                                                                   \
			" RETURNING e.strategy_id, e.user_id, e.scheduled_time, e.revision, "                  \
			"e.claim_number, e.id,"                                                                \
			" e.attempts, trim_scale(e.amount)::text, e.doubt_time IS NOT NULL",                   \
		{                                                                                          \
			INT4ARRAYOID, TEXTARRAYOID, TIMESTAMPTZARRAYOID, INT4ARRAYOID, TEXTOID, BOOLOID,       \
				TEXTOID, TIMESTAMPTZOID                                                            \
		}                                                                                          \
	}

/* For a plain table, and for one that is spread. */
static Statement claim_candidates[] = {
	CLAIM_CANDIDATES("", ""),
	CLAIM_CANDIDATES(OF_USERS("e.user_id", 2) UNKNOWN_BEGIN, UNKNOWN_END)};

/*
 * The status besides pending that the gateway's policy sends: grants in doubt
 * are sent again where it is to resend, and keep that status until then.
 */
static const char *
other_status(const Sender *sender)
{
	return sender_policy(sender) == DOUBT_RESEND ? "in_doubt" : "pending";
}

/*
 * When the first of the grants may be sent that the sender looks for.
 */
static MonoTime
backlog_due(const Sender *sender, const Backlog *backlog)
{
	if (sender_policy(sender) == DOUBT_RESEND)
		return Min(backlog->due, backlog->doubt_due);
	return backlog->due;
}

/*
 * The open grants of a run for the sender's gateway that are due and above what
 * was searched already; NULL: none.
 */
static Backlog *
backlog_to_search(const Sender *sender, const Run *run, MonoTime now)
{
	Backlog *backlog = run_backlog(run, sender->row->name);

	if (backlog == NULL || backlog_due(sender, backlog) > now ||
		backlog->high <= sender->search.searched_id)
		return NULL;
	return backlog;
}

/*
 * Lays a window of so many ids over the next ones to be searched, and moves
 * the sender's place to its end.  False: nothing is left.
 */
static bool
lay_window(Sender *sender, List *runs, int64 size, Window *window)
{
	MonoTime  now = mono_now();
	bool      found = false;
	ListCell *cell;

	foreach (cell, runs)
	{
		Backlog *backlog = backlog_to_search(sender, lfirst(cell), now);

		if (backlog == NULL)
			continue;
		window->low = found ? Min(window->low, backlog->low) : backlog->low;
		window->high = found ? Max(window->high, backlog->high) : backlog->high;
		found = true;
	}
	if (!found)
		return false;
	window->low = Max(window->low, sender->search.searched_id + 1);
	if ((uint64) window->high - (uint64) window->low >= (uint64) size)
		window->high = window->low + size - 1;

	window->runs = palloc(sizeof(Datum) * list_length(runs));
	window->count = 0;
	foreach (cell, runs)
	{
		Run     *run = lfirst(cell);
		Backlog *backlog = backlog_to_search(sender, run, now);

		if (backlog == NULL || backlog->low > window->high)
			continue;
		backlog->touched = true;
		window->runs[window->count++] = Int64GetDatum(run->id);
	}
	sender->search.searched_id = window->high;
	return true;
}

/*
 * True if the table of grants is not a plain one.
 */
static bool
grants_are_spread(void)
{
	Relation table =
		table_openrv(makeRangeVar("quota_manager", "quota_execute", -1), RowExclusiveLock);
	bool is_plain;

	PushActiveSnapshot(GetTransactionSnapshot());
	is_plain = is_plain_table(table);
	PopActiveSnapshot();
	table_close(table, NoLock);
	return !is_plain;
}

/*
 * The hash of a user's id, as the operator class of text has it.
 */
static int32
user_hash(const text *user_id)
{
	return (int32) hash_bytes((const unsigned char *) VARDATA_ANY(user_id),
							  VARSIZE_ANY_EXHDR(user_id));
}

/*
 * By the hash of the user, then as they were.
 */
static int
compare_candidates(const void *a, const void *b)
{
	const Candidate *x = a;
	const Candidate *y = b;

	if (x->hash != y->hash)
		return x->hash < y->hash ? -1 : 1;
	return x->position < y->position ? -1 : x->position > y->position;
}

/*
 * Brings those together that are likely to be kept together.
 */
static void
order_by_part(Sender *sender)
{
	int i;

	for (i = 0; i < sender->search.count; i++)
	{
		sender->search.candidates[i].hash = user_hash(sender->search.candidates[i].user_id);
		sender->search.candidates[i].position = i;
	}
	qsort(sender->search.candidates, sender->search.count, sizeof(Candidate), compare_candidates);
}

/*
 * Makes candidates of the pending grants in a window.
 */
static void
load_candidates(Sender *sender, Window *window)
{
	Datum         values[6];
	uint64        count;
	uint64        i;
	bool          isnull;
	MemoryContext caller;

	values[0] = array_of(INT8OID, window->runs, NULL, window->count);
	values[1] = Int64GetDatum(window->low);
	values[2] = Int64GetDatum(window->high);
	values[3] = CStringGetTextDatum(sender->row->name);
	values[4] = CStringGetTextDatum(other_status(sender));
	values[5] = TimestampTzGetDatum(GetCurrentTimestamp());
	count = statement_run_values(&read_candidates, values, NULL);

	MemoryContextReset(sender->search.memory);
	caller = MemoryContextSwitchTo(sender->search.memory);
	sender->search.candidates = palloc(sizeof(Candidate) * Max(count, 1));
	for (i = 0; i < count; i++)
	{
		Candidate *candidate = &sender->search.candidates[i];

		candidate->strategy_id = DatumGetInt32(result_datum(i, 1, &isnull));
		candidate->user_id = DatumGetTextPCopy(result_datum(i, 2, &isnull));
		candidate->scheduled_time = DatumGetTimestampTz(result_datum(i, 3, &isnull));
		candidate->revision = DatumGetInt32(result_datum(i, 4, &isnull));
	}
	/* there may be more in the window */
	if (count == CANDIDATES_MAX)
		sender->search.searched_id = DatumGetInt64(result_datum(count - 1, 5, &isnull));
	sender->search.count = (int) count;
	sender->search.next = 0;
	MemoryContextSwitchTo(caller);
	SPI_freetuptable(SPI_tuptable);
	sender->is_spread = grants_are_spread();
	if (sender->is_spread)
		order_by_part(sender);
}

bool
claim_search(Sender *sender, List *runs)
{
	int64 size = WINDOW;

	while (candidates_left(&sender->search) == 0 && !sender->search.exhausted)
	{
		Window window;

		CHECK_FOR_INTERRUPTS();
		if (lay_window(sender, runs, size, &window))
			load_candidates(sender, &window);
		else
			sender->search.exhausted = true;
		/* whatever ids there are, few empty windows cover them */
		size = Min(size, PG_INT64_MAX / 2) * 2;
	}
	return candidates_left(&sender->search) > 0;
}

/*
 * True if the candidate's user has to wait until it is known what became of
 * an earlier grant.
 */
static bool
has_to_wait(const Sender *sender, const Candidate *candidate)
{
	char *user_id;
	bool  waits;

	user_id = text_to_cstring(candidate->user_id);
	waits = user_is_unresolved(&sender->grants, user_id);
	pfree(user_id);
	return waits;
}

/*
 * Makes a grant of row i of what was claimed.
 */
static Grant *
claimed_grant(const Sender *sender, uint64 row)
{
	char  *user_id = result_text(row, 2);
	char  *amount = result_text(row, 8);
	Grant *grant = grant_create(sender->memory, user_id, amount);
	bool   isnull;

	grant->key.strategy_id = DatumGetInt32(result_datum(row, 1, &isnull));
	grant->key.scheduled_time = DatumGetTimestampTz(result_datum(row, 3, &isnull));
	grant->key.revision = DatumGetInt32(result_datum(row, 4, &isnull));
	grant->key.claim_number = DatumGetInt32(result_datum(row, 5, &isnull));
	grant->id = DatumGetInt64(result_datum(row, 6, &isnull));
	grant->attempts = DatumGetInt32(result_datum(row, 7, &isnull));
	grant->earlier = DatumGetBool(result_datum(row, 9, &isnull)) ? MAYBE_SENT : NOT_SENT;
	grant->before.needed = sender_policy(sender) == DOUBT_RECONCILE;
	if (grant->key.claim_number == 0)
		ereport(WARNING, (errcode(ERRCODE_DATA_EXCEPTION),
						  errmsg("the claim numbers of grant " INT64_FORMAT " begin again with 0",
								 grant->id),
						  errdetail("It had the highest number that there is, which it cannot have "
									"come to by being sent."),
						  errhint("Find out who wrote to quota_manager.quota_execute.")));
	return grant;
}

static int
compare_ids(const void *a, const void *b)
{
	const Grant *x = *(Grant *const *) a;
	const Grant *y = *(Grant *const *) b;

	return x->id < y->id ? -1 : x->id > y->id;
}

/*
 * Takes over the rows that were claimed, oldest first, in whatever order the
 * executor came by them.
 */
static void
take_claimed(Sender *sender, int count)
{
	Grant **grants = palloc(sizeof(Grant *) * Max(count, 1));
	int     i;

	for (i = 0; i < count; i++)
		grants[i] = claimed_grant(sender, i);
	qsort(grants, count, sizeof(Grant *), compare_ids);
	for (i = 0; i < count; i++)
	{
		dlist_push_tail(&sender->batch.claimed, &grants[i]->node);
		tally_claimed(&sender->batch.tally, grants[i]);
	}
	pfree(grants);
}

int
claim_batch(Sender *sender, int limit)
{
	int    most = Min(limit, candidates_left(&sender->search));
	Datum *strategy_ids = palloc(sizeof(Datum) * most);
	Datum *user_ids = palloc(sizeof(Datum) * most);
	Datum *scheduled_times = palloc(sizeof(Datum) * most);
	Datum *revisions = palloc(sizeof(Datum) * most);
	Datum  values[8];
	int    count = 0;

	while (count < most && candidates_left(&sender->search) > 0)
	{
		Candidate *candidate = &sender->search.candidates[sender->search.next++];

		if (has_to_wait(sender, candidate))
		{
			sender->search.rest_until = mono_in_ms(REST);
			continue;
		}
		strategy_ids[count] = Int32GetDatum(candidate->strategy_id);
		user_ids[count] = PointerGetDatum(candidate->user_id);
		scheduled_times[count] = TimestampTzGetDatum(candidate->scheduled_time);
		revisions[count++] = Int32GetDatum(candidate->revision);
	}
	if (count == 0)
		return 0;
	values[0] = array_of(INT4OID, strategy_ids, NULL, count);
	values[1] = array_of(TEXTOID, user_ids, NULL, count);
	values[2] = array_of(TIMESTAMPTZOID, scheduled_times, NULL, count);
	values[3] = array_of(INT4OID, revisions, NULL, count);
	values[4] = CStringGetTextDatum(sender->row->name);
	values[5] = BoolGetDatum(sender_policy(sender) == DOUBT_RECONCILE);
	values[6] = CStringGetTextDatum(other_status(sender));
	values[7] = TimestampTzGetDatum(GetCurrentTimestamp());
	CRASH_POINT(claim_starting);
	count = (int) statement_run_values(&claim_candidates[sender->is_spread], values, NULL);
	CRASH_POINT(claim_made);
	take_claimed(sender, count);
	SPI_freetuptable(SPI_tuptable);
	return count;
}
