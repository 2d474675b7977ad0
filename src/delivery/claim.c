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
#include "delivery/statement.h"

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
	6,
	{INT8ARRAYOID, INT8OID, INT8OID, TEXTOID, TEXTOID, TIMESTAMPTZOID},
	NULL};

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
			8, {INT4ARRAYOID, TEXTARRAYOID, TIMESTAMPTZARRAYOID, INT4ARRAYOID, TEXTOID,            \
				BOOLOID,      TEXTOID,      TIMESTAMPTZOID},                                       \
			NULL                                                                                   \
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
other_status(const Lane *lane)
{
	return lane_policy(lane) == DOUBT_RESEND ? "in_doubt" : "pending";
}

/*
 * When the first of the grants may be sent that the lane looks for.
 */
static MonoTime
backlog_due(const Lane *lane, const Backlog *backlog)
{
	if (lane_policy(lane) == DOUBT_RESEND)
		return Min(backlog->due, backlog->doubt_due);
	return backlog->due;
}

/*
 * The open grants of a run for the lane's gateway that are due and above what
 * was searched already; NULL: none.
 */
static Backlog *
backlog_to_search(const Lane *lane, const Run *run, MonoTime now)
{
	Backlog *backlog = run_backlog(run, lane->row->name);

	if (backlog == NULL || backlog_due(lane, backlog) > now || backlog->high <= lane->searched_id)
		return NULL;
	return backlog;
}

/*
 * Lays a window of so many ids over the next ones to be searched, and moves
 * the lane's place to its end.  False: nothing is left.
 */
static bool
lay_window(Lane *lane, List *runs, int64 size, Window *window)
{
	MonoTime  now = mono_now();
	bool      found = false;
	ListCell *cell;

	foreach (cell, runs)
	{
		Backlog *backlog = backlog_to_search(lane, lfirst(cell), now);

		if (backlog == NULL)
			continue;
		window->low = found ? Min(window->low, backlog->low) : backlog->low;
		window->high = found ? Max(window->high, backlog->high) : backlog->high;
		found = true;
	}
	if (!found)
		return false;
	window->low = Max(window->low, lane->searched_id + 1);
	if ((uint64) window->high - (uint64) window->low >= (uint64) size)
		window->high = window->low + size - 1;

	window->runs = palloc(sizeof(Datum) * list_length(runs));
	window->count = 0;
	foreach (cell, runs)
	{
		Run     *run = lfirst(cell);
		Backlog *backlog = backlog_to_search(lane, run, now);

		if (backlog == NULL || backlog->low > window->high)
			continue;
		backlog->touched = true;
		window->runs[window->count++] = Int64GetDatum(run->id);
	}
	lane->searched_id = window->high;
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
	return x->place < y->place ? -1 : x->place > y->place;
}

/*
 * Brings those together that are likely to be kept together.
 */
static void
order_by_part(Lane *lane)
{
	int i;

	for (i = 0; i < lane->candidate_count; i++)
	{
		lane->candidates[i].hash = user_hash(lane->candidates[i].user_id);
		lane->candidates[i].place = i;
	}
	qsort(lane->candidates, lane->candidate_count, sizeof(Candidate), compare_candidates);
}

/*
 * Makes candidates of the pending grants in a window.
 */
static void
load_candidates(Lane *lane, Window *window)
{
	Datum         values[6];
	uint64        count;
	uint64        i;
	bool          isnull;
	MemoryContext caller;

	values[0] = array_of(INT8OID, window->runs, NULL, window->count);
	values[1] = Int64GetDatum(window->low);
	values[2] = Int64GetDatum(window->high);
	values[3] = CStringGetTextDatum(lane->row->name);
	values[4] = CStringGetTextDatum(other_status(lane));
	values[5] = TimestampTzGetDatum(GetCurrentTimestamp());
	count = statement_run(&read_candidates, values, NULL);

	MemoryContextReset(lane->candidate_memory);
	caller = MemoryContextSwitchTo(lane->candidate_memory);
	lane->candidates = palloc(sizeof(Candidate) * Max(count, 1));
	for (i = 0; i < count; i++)
	{
		Candidate *candidate = &lane->candidates[i];

		candidate->strategy_id = DatumGetInt32(result_datum(i, 1, &isnull));
		candidate->user_id = DatumGetTextPCopy(result_datum(i, 2, &isnull));
		candidate->scheduled_time = DatumGetTimestampTz(result_datum(i, 3, &isnull));
		candidate->revision = DatumGetInt32(result_datum(i, 4, &isnull));
	}
	/* there may be more in the window */
	if (count == CANDIDATES_MAX)
		lane->searched_id = DatumGetInt64(result_datum(count - 1, 5, &isnull));
	lane->candidate_count = (int) count;
	lane->next_candidate = 0;
	MemoryContextSwitchTo(caller);
	SPI_freetuptable(SPI_tuptable);
	lane->is_spread = grants_are_spread();
	if (lane->is_spread)
		order_by_part(lane);
}

bool
claim_search(Lane *lane, List *runs)
{
	int64 size = WINDOW;

	while (lane->next_candidate == lane->candidate_count && !lane->exhausted)
	{
		Window window;

		CHECK_FOR_INTERRUPTS();
		if (lay_window(lane, runs, size, &window))
			load_candidates(lane, &window);
		else
			lane->exhausted = true;
		/* whatever ids there are, few empty windows cover them */
		size = Min(size, PG_INT64_MAX / 2) * 2;
	}
	return lane->next_candidate < lane->candidate_count;
}

/*
 * True if the candidate's user has to wait until it is known what became of
 * an earlier grant.
 */
static bool
has_to_wait(const Lane *lane, const Candidate *candidate)
{
	char *user_id;
	bool  waits;

	if (lane->doubtful == NULL)
		return false;
	user_id = text_to_cstring(candidate->user_id);
	waits = lane_user_in_doubt(lane, user_id);
	pfree(user_id);
	return waits;
}

/*
 * Makes a grant of row i of what was claimed.
 */
static Grant *
claimed_grant(const Lane *lane, uint64 row)
{
	char  *user_id = result_text(row, 2, CurrentMemoryContext);
	char  *amount = result_text(row, 8, CurrentMemoryContext);
	Grant *grant = grant_create(lane->memory, user_id, amount);
	bool   isnull;

	grant->strategy_id = DatumGetInt32(result_datum(row, 1, &isnull));
	grant->scheduled_time = DatumGetTimestampTz(result_datum(row, 3, &isnull));
	grant->revision = DatumGetInt32(result_datum(row, 4, &isnull));
	grant->claim_number = DatumGetInt32(result_datum(row, 5, &isnull));
	grant->id = DatumGetInt64(result_datum(row, 6, &isnull));
	grant->attempts = DatumGetInt32(result_datum(row, 7, &isnull));
	grant->doubtful = DatumGetBool(result_datum(row, 9, &isnull));
	grant->needs_balance = lane_policy(lane) == DOUBT_RECONCILE;
	if (grant->claim_number == 0)
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
take_claimed(Lane *lane, int count)
{
	Grant **grants = palloc(sizeof(Grant *) * Max(count, 1));
	int     i;

	for (i = 0; i < count; i++)
		grants[i] = claimed_grant(lane, i);
	qsort(grants, count, sizeof(Grant *), compare_ids);
	for (i = 0; i < count; i++)
	{
		dlist_push_tail(&lane->turn.claimed, &grants[i]->node);
		tally_claimed(lane, grants[i]);
	}
	pfree(grants);
}

int
claim_batch(Lane *lane, int limit)
{
	int    most = Min(limit, lane->candidate_count - lane->next_candidate);
	Datum *strategy_ids = palloc(sizeof(Datum) * most);
	Datum *user_ids = palloc(sizeof(Datum) * most);
	Datum *scheduled_times = palloc(sizeof(Datum) * most);
	Datum *revisions = palloc(sizeof(Datum) * most);
	Datum  values[8];
	int    count = 0;

	while (count < most && lane->next_candidate < lane->candidate_count)
	{
		Candidate *candidate = &lane->candidates[lane->next_candidate++];

		if (has_to_wait(lane, candidate))
		{
			lane->rest_until = mono_in_ms(REST);
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
	values[4] = CStringGetTextDatum(lane->row->name);
	values[5] = BoolGetDatum(lane_policy(lane) == DOUBT_RECONCILE);
	values[6] = CStringGetTextDatum(other_status(lane));
	values[7] = TimestampTzGetDatum(GetCurrentTimestamp());
	CRASH_POINT(claim_starting);
	count = (int) statement_run(&claim_candidates[lane->is_spread], values, NULL);
	CRASH_POINT(claim_made);
	take_claimed(lane, count);
	SPI_freetuptable(SPI_tuptable);
	return count;
}
