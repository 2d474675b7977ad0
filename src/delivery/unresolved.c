/*
 * unresolved.c
 *		What reconciliation needs of tables: balances before, and grants in doubt.
 */
#include "postgres.h"

#include "common/backoff.h"
#include "common/compat.h"
#include "common/crash_point.h"
#include "delivery/grant_rows.h"
#include "delivery/pending_work.h"
#include "delivery/timing.h"
#include "delivery/unresolved.h"

/* A grant without a balance is sent all the same: requests.c. */
#define WRITE_SAMPLES(of_users, end)                                                               \
	"UPDATE quota_manager.quota_execute AS e"                                                      \
	" SET awaits_balance = false, balance_before = k.balance::numeric,"                            \
	" balance_time = CASE WHEN k.balance IS NOT NULL THEN k.balance_time END,"                     \
	" balance_moment = k.balance_moment"                                                           \
	" FROM unnest($1, $2, $3, $4, $5, $6, $7, $8) AS k(" CLAIM_COLUMNS                             \
	", balance, balance_time, balance_moment)"                                                     \
	" WHERE " IS_GRANT_OF_KEY of_users                                                             \
	" AND e.status = 'processing' AND e.claim_number = k.claim_number" end " RETURNING e.id"

static Statement write_samples[] =
	PLAIN_AND_SPREAD(WRITE_SAMPLES, CLAIM_TYPES, TEXTARRAYOID, TIMESTAMPTZARRAYOID, INT8ARRAYOID);

static Statement read_unresolved = {
	"SELECT " GRANT_RESULT ", trim_scale(e.balance_before)::text, e.balance_time,"
	" coalesce(e.doubt_time, e.update_time), e.next_attempt_time, e.balance_moment,"
	" e.doubt_moment, e.update_time"
	" FROM quota_manager.quota_execute e"
	" WHERE e.run_id = $1 AND e.id BETWEEN $2 AND $3 AND e.gateway = $4"
	" AND e.status = 'in_doubt' AND e.next_attempt_time < 'infinity'"
	" ORDER BY e.id",
	{INT8OID, INT8OID, INT8OID, TEXTOID}};

/* Of grants that were in doubt after that claim: those that still are. */
#define STILL_IN_DOUBT(of_users, end)                                                              \
	"SELECT e.id FROM unnest($1, $2, $3, $4, $5) AS k(" CLAIM_COLUMNS ")"                          \
	" JOIN quota_manager.quota_execute e ON " IS_GRANT_OF_KEY of_users                             \
	" AND e.status = 'in_doubt' AND e.claim_number = k.claim_number" end

static Statement still_in_doubt[] = PLAIN_AND_SPREAD(STILL_IN_DOUBT, CLAIM_TYPES);

/*
 * Writes the balances of the grants in GRANT_SAMPLED, each guarded by the number
 * of the claim, and notes in every grant whether its row was found.  They stay
 * there until the transaction has been committed: then samples_finish.
 */
void
samples_write(Sender *sender)
{
	Statement *statement = &write_samples[sender->is_spread];
	RowArrays *rows;
	IdSet      found;

	if (grants_in(&sender->grants, GRANT_SAMPLED) == 0)
		return;
	rows = rows_create(statement);
	grants_foreach (grant, &sender->grants, GRANT_SAMPLED)
		rows_add(rows, ARGS(CLAIM_ARGS(grant), arg_text(grant->before.balance),
							arg_time(grant->before.time), arg_int64(grant->before.moment)));
	found = ids_of_result(statement_run_rows(statement, rows, NULL));
	CRASH_POINT(before_recording);

	grants_foreach (grant, &sender->grants, GRANT_SAMPLED)
		grant->row_found = ids_contain(&found, grant->id);
	sender->batch.recording = rows->count;
}

/*
 * The transaction was committed: grants whose balance was written may be sent.
 * One whose row was not found goes back.
 */
void
samples_finish(Sender *sender)
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
 * A moment in a column of a row; MONO_PAST: there is none, or it is one of an
 * earlier run of the machine.
 */
static MonoTime
moment_of(uint64 row, int column)
{
	MonoTime moment = result_int64(row, column);

	return result_is_null(row, column) || moment > mono_now() ? MONO_PAST : moment;
}

/*
 * Sets when the answer to the grant was lost: not longer ago than either clock
 * says, since the one may have been set, and the other begins anew with the
 * machine.  An answer that was lost at a time that is yet to come, by a clock
 * that was set back, and of which nothing else is known, was lost now.
 */
static void
set_doubt_moment(Grant *grant, MonoTime moment, TimestampTz now)
{
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

/* Makes a grant of a row of read_unresolved. */
static Grant *
unresolved_grant(const Sender *sender, uint64 row)
{
	TimestampTz now = GetCurrentTimestamp();
	Grant      *grant = grant_of_row(sender->memory, row);

	if (!result_is_null(row, 9) && !result_is_null(row, 10))
		grant_set_sample(grant, result_text(row, 9), result_time(row, 10), moment_of(row, 13));
	grant->doubt.time = result_time(row, 11);
	grant->outcome.next_attempt_time = result_time(row, 12);
	set_doubt_moment(grant, moment_of(row, 14), now);
	/* a row that was written later than now was written before the clock was set back: at once */
	grant->doubt.due =
		result_time(row, 15) > now ? MONO_PAST : mono_at(grant->outcome.next_attempt_time, now);
	/* there is no evidence, but its user waits as long as it may still arrive */
	if (grant->before.balance == NULL)
		grant->doubt.due = Max(grant->doubt.due, grant_last_arrival(grant));
	return grant;
}

/* Gives the sender the unresolved grants of one run. */
static void
load_run(Sender *sender, const Run *run, const PendingWork *work)
{
	uint64 count =
		statement_run(&read_unresolved, ARGS(arg_int64(run->id), arg_int64(work->low),
											 arg_int64(work->high), arg_text(sender->row->name)));

	for (uint64 row = 0; row < count; row++)
		if (!grant_is_known_unresolved(&sender->grants, result_text(row, 2), result_int64(row, 6)))
			sender_add_unresolved(sender, unresolved_grant(sender, row));
	SPI_freetuptable(SPI_tuptable);
}

/*
 * Gives the sender the grants in doubt that it is to reconcile and that it does
 * not know yet.  The pending work must have been read since.
 */
void
unresolved_load(Sender *sender, List *runs)
{
	foreach_ptr (const Run, run, runs)
	{
		PendingWork *work = pending_work_at(run, sender->row->name);

		if (work == NULL || !work->has_unresolved)
			continue;
		load_run(sender, run, work);
		work->has_unresolved = false;
		/* reconciliation changes it */
		work->dirty = true;
	}
}

/*
 * Forgets those whose rows are in doubt no more, since an operator has decided
 * about them, once in a while: their users need not wait any longer.
 */
void
unresolved_check(Sender *sender)
{
	Statement *statement = &still_in_doubt[sender->is_spread];
	MonoTime   begin = mono_now();
	RowArrays *rows;
	IdSet      kept;

	/* where no user has waited since, it does not matter yet */
	if (grants_in(&sender->grants, GRANT_UNRESOLVED) == 0 || sender->unresolved.next_read > begin ||
		sender->search.rest_until < sender->unresolved.next_read)
		return;
	rows = rows_create(statement);
	grants_foreach (grant, &sender->grants, GRANT_UNRESOLVED)
		rows_add(rows, ARGS(CLAIM_ARGS(grant)));
	kept = ids_of_result(statement_run_rows(statement, rows, NULL));
	grants_foreach (grant, &sender->grants, GRANT_UNRESOLVED)
		if (!ids_contain(&kept, grant->id))
			grant_remove(&sender->grants, grant);
	sender->unresolved.next_read =
		backoff_by_cost(begin, UNRESOLVED_READ_MS, PG_INT32_MAX, READ_COST_SHARE);
}
