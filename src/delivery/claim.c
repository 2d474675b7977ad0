/*
 * claim.c
 *		From pending to processing.
 *
 * Candidates are searched along the ids of the runs, a range at a time.  A
 * batch of them is then claimed by one UPDATE that names each row by its
 * primary key and takes it only if it is still pending.  That needs no row locks
 * before, and works as well where the table is distributed by user.
 *
 * Where it is, the candidates of a range are taken in the order of the hash of
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
#include "delivery/grant_rows.h"
#include "delivery/pending_work.h"
#include "delivery/timing.h"

/* Ids searched by one statement, and the most candidates kept. */
#define RANGE_IDS 32768
#define CANDIDATES_MAX 32768
#define CANDIDATES_MAX_TEXT "32768"

/*
 * A row that was written later than now was written before the clock was set
 * back: the grant is due, unless it is left to an operator.
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

/*
 * The balance that an earlier attempt has sampled is dropped in any case: it
 * must not be taken for one of this attempt.  The number of a claim must differ
 * from the one before; no first claim is number 0.
 */
#define CLAIM_GRANTS(of_users, end)                                                                \
	"UPDATE quota_manager.quota_execute AS e"                                                      \
	" SET status = 'processing', update_time = $8,"                                                \
	" claim_number = CASE e.claim_number WHEN 2147483647 THEN 0 ELSE e.claim_number + 1 END,"      \
	" awaits_balance = $6, balance_time = NULL, balance_before = NULL"                             \
	" FROM unnest($1, $2, $3, $4) AS k(" KEY_COLUMNS ")"                                           \
	" WHERE " IS_GRANT_OF_KEY of_users                                                             \
	" AND e.gateway = $5 AND (e.status = 'pending' OR e.status = $7)"                              \
	" AND " IS_DUE("$8") end " RETURNING " GRANT_RESULT ", e.doubt_time IS NOT NULL"

static Statement claim_grants[] =
	PLAIN_AND_SPREAD(CLAIM_GRANTS, KEY_TYPES, TEXTOID, BOOLOID, TEXTOID, TIMESTAMPTZOID);

/* The ids that a statement searches. */
typedef struct IdRange
{
	int64 low;
	int64 high;
} IdRange;

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
 * The open grants of a run for the sender's gateway that are due, not held by a
 * pause, and above what was searched already; NULL: none.
 */
static PendingWork *
work_to_search(const Sender *sender, const Run *run, MonoTime now)
{
	PendingWork *work = pending_work_at(run, sender->row->name);
	MonoTime     due;

	if (work == NULL || run->is_held || work->high <= sender->search.searched_id)
		return NULL;
	due = work->due;
	if (sender_policy(sender) == DOUBT_RESEND)
		due = Min(due, work->doubt_due);
	return due <= now ? work : NULL;
}

/*
 * Sets the range of at most so many ids that is to be searched next, adds the
 * runs that have some in it, and moves the search to its end.  False: nothing is
 * left.
 */
static bool
next_range(Sender *sender, List *runs, int64 size, IdRange *range, RowArrays *searched)
{
	MonoTime now = mono_now();
	bool     found = false;

	foreach_ptr (const Run, run, runs)
	{
		const PendingWork *work = work_to_search(sender, run, now);

		if (work == NULL)
			continue;
		range->low = found ? Min(range->low, work->low) : work->low;
		range->high = found ? Max(range->high, work->high) : work->high;
		found = true;
	}
	if (!found)
		return false;
	range->low = Max(range->low, sender->search.searched_id + 1);
	if ((uint64) range->high - (uint64) range->low >= (uint64) size)
		range->high = range->low + size - 1;

	foreach_ptr (Run, run, runs)
	{
		PendingWork *work = work_to_search(sender, run, now);

		if (work == NULL || work->low > range->high)
			continue;
		work->dirty = true;
		rows_add(searched, ARGS(arg_int64(run->id)));
	}
	sender->search.searched_id = range->high;
	return true;
}

/* True if the table of grants is not a plain one. */
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

/* By the hash of the user, then as they were. */
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
 * Brings those together that are likely to be kept together: the hash is the one
 * of the operator class of text.
 */
static void
order_by_part(CandidateSearch *search)
{
	for (int i = 0; i < search->count; i++)
	{
		const text *user_id = search->candidates[i].user_id;

		search->candidates[i].hash = (int32) hash_bytes(
			(const unsigned char *) VARDATA_ANY(user_id), VARSIZE_ANY_EXHDR(user_id));
		search->candidates[i].position = i;
	}
	qsort(search->candidates, search->count, sizeof(Candidate), compare_candidates);
}

/* Makes candidates of the pending grants in a range of ids. */
static void
load_candidates(Sender *sender, IdRange range, RowArrays *runs)
{
	CandidateSearch *search = &sender->search;
	uint64           count;
	MemoryContext    caller;

	count = statement_run_rows(&read_candidates, runs,
							   ARGS(arg_int64(range.low), arg_int64(range.high),
									arg_text(sender->row->name), arg_text(other_status(sender)),
									arg_time(GetCurrentTimestamp())));
	MemoryContextReset(search->memory);
	caller = MemoryContextSwitchTo(search->memory);
	search->candidates = palloc(sizeof(Candidate) * Max(count, 1));
	for (uint64 row = 0; row < count; row++)
	{
		Candidate *candidate = &search->candidates[row];
		bool       isnull;

		candidate->strategy_id = result_int32(row, 1);
		candidate->user_id = DatumGetTextPCopy(result_datum(row, 2, &isnull));
		candidate->scheduled_time = result_time(row, 3);
		candidate->revision = result_int32(row, 4);
	}
	/* there may be more in the range */
	if (count == CANDIDATES_MAX)
		search->searched_id = result_int64(count - 1, 5);
	search->count = (int) count;
	search->next = 0;
	MemoryContextSwitchTo(caller);
	SPI_freetuptable(SPI_tuptable);
	sender->is_spread = grants_are_spread();
	if (sender->is_spread)
		order_by_part(search);
}

/*
 * Makes sure the sender has candidates: pending grants of its gateway that are
 * due, oldest first.  False: the search came to the end of the runs.
 */
bool
claim_search(Sender *sender, List *runs)
{
	int64 size = RANGE_IDS;

	while (candidates_left(&sender->search) == 0 && !sender->search.exhausted)
	{
		RowArrays *searched = rows_create(&read_candidates);
		IdRange    range;

		CHECK_FOR_INTERRUPTS();
		if (next_range(sender, runs, size, &range, searched))
			load_candidates(sender, range, searched);
		else
			sender->search.exhausted = true;
		/* whatever ids there are, few empty ranges cover them */
		size = Min(size, PG_INT64_MAX / 2) * 2;
	}
	return candidates_left(&sender->search) > 0;
}

/* Makes a grant of a row that was claimed. */
static Grant *
claimed_grant(const Sender *sender, uint64 row)
{
	Grant *grant = grant_of_row(sender->memory, row);

	grant->earlier = result_bool(row, 9) ? MAYBE_SENT : NOT_SENT;
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
compare_grants(const void *a, const void *b)
{
	const Grant *x = *(Grant *const *) a;
	const Grant *y = *(Grant *const *) b;

	return x->id < y->id ? -1 : x->id > y->id;
}

/*
 * Takes over the rows that were claimed, oldest first, in whatever order the
 * executor returned them.
 */
static void
take_claimed(Sender *sender, int count)
{
	Grant **grants = palloc(sizeof(Grant *) * Max(count, 1));

	for (int i = 0; i < count; i++)
		grants[i] = claimed_grant(sender, i);
	SPI_freetuptable(SPI_tuptable);
	qsort(grants, count, sizeof(Grant *), compare_grants);
	for (int i = 0; i < count; i++)
	{
		dlist_push_tail(&sender->batch.claimed, &grants[i]->node);
		tally_claimed(&sender->batch.tally, grants[i]);
	}
	pfree(grants);
}

/*
 * Claims up to limit candidates.  Those that are still pending become
 * `processing` and are put into sender->batch.claimed; they must not be sent
 * before the transaction has been committed.  Returns how many.
 */
int
claim_batch(Sender *sender, int limit)
{
	Statement *statement = &claim_grants[sender->is_spread];
	RowArrays *rows = rows_create(statement);
	int        count;

	while (rows->count < limit && candidates_left(&sender->search) > 0)
	{
		const Candidate *candidate = &sender->search.candidates[sender->search.next++];

		if (user_is_unresolved(&sender->grants, text_to_cstring(candidate->user_id)))
			sender->search.rest_until = mono_in_ms(WAITING_USERS_REST_MS);
		else
			rows_add(rows,
					 ARGS(arg_int32(candidate->strategy_id),
						  arg_datum(PointerGetDatum(candidate->user_id)),
						  arg_time(candidate->scheduled_time), arg_int32(candidate->revision)));
	}
	if (rows->count == 0)
		return 0;
	CRASH_POINT(claim_starting);
	count = (int) statement_run_rows(
		statement, rows,
		ARGS(arg_text(sender->row->name), arg_bool(sender_policy(sender) == DOUBT_RECONCILE),
			 arg_text(other_status(sender)), arg_time(GetCurrentTimestamp())));
	CRASH_POINT(claim_made);
	take_claimed(sender, count);
	return count;
}
