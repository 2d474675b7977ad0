/*
 * settle.c
 *		From processing to what became of it.
 */
#include "postgres.h"

#include "catalog/pg_type.h"

#include "common/compat.h"
#include "common/crash_point.h"
#include "delivery/delivery_settings.h"
#include "delivery/grant_rows.h"
#include "delivery/pending_work.h"
#include "delivery/settle.h"
#include "delivery/timing.h"
#include "scan/balance_table.h"

#define ORPHAN_TEXT "the sender ended before the answer was recorded"

/*
 * A grant that was not tried keeps the text of an earlier attempt, and its time.
 * doubt_time stays as long as it is in doubt.
 */
#define SETTLE_GRANTS(of_users, end)                                                               \
	"UPDATE quota_manager.quota_execute AS e"                                                      \
	" SET status = k.status, awaits_balance = false,"                                              \
	" attempts = least(e.attempts::int8 + k.failed_attempts, 2147483647),"                         \
	" last_status = CASE WHEN k.tried THEN k.http_status ELSE e.last_status END,"                  \
	" last_error = CASE WHEN k.tried THEN k.message ELSE e.last_error END,"                        \
	" next_attempt_time = coalesce(k.next_attempt_time, e.next_attempt_time),"                     \
	" doubt_time = CASE WHEN k.status = 'in_doubt' THEN coalesce(k.doubt_time, e.doubt_time) END," \
	" doubt_moment = CASE WHEN k.doubt_time IS NULL THEN e.doubt_moment ELSE k.doubt_moment END,"  \
	" update_time = $15"                                                                           \
	" FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)"                    \
	" AS k(" CLAIM_COLUMNS ", status, failed_attempts, tried, http_status, message,"               \
	" next_attempt_time, doubt_time, was, doubt_moment)"                                           \
	" WHERE " IS_GRANT_OF_KEY of_users                                                             \
	" AND e.status = k.was AND e.claim_number = k.claim_number" end " RETURNING e.id"

static Statement settle_grants[] =
	PLAIN_AND_SPREAD(SETTLE_GRANTS, CLAIM_TYPES, TEXTARRAYOID, INT4ARRAYOID, BOOLARRAYOID,
					 INT4ARRAYOID, TEXTARRAYOID, TIMESTAMPTZARRAYOID, TIMESTAMPTZARRAYOID,
					 TEXTARRAYOID, INT8ARRAYOID, TIMESTAMPTZOID);

/*
 * The same for grants that were all completed with one status: a statement
 * costs as much for the columns of its table as for the rows it changes.
 */
#define SETTLE_COMPLETED(of_users, end)                                                            \
	"UPDATE quota_manager.quota_execute AS e"                                                      \
	" SET status = 'completed', last_status = $6, last_error = NULL, update_time = $7"             \
	" FROM unnest($1, $2, $3, $4, $5) AS k(" CLAIM_COLUMNS ")"                                     \
	" WHERE " IS_GRANT_OF_KEY of_users                                                             \
	" AND e.status = 'processing' AND e.claim_number = k.claim_number" end " RETURNING e.id"

static Statement settle_completed[] =
	PLAIN_AND_SPREAD(SETTLE_COMPLETED, CLAIM_TYPES, INT4OID, TIMESTAMPTZOID);

/*
 * Nothing is known of the balances of users who have something open: grants
 * clear it.  To be safe, it is cleared here, too: of a plain table where
 * anything is known of balances at the gateway, which is asked once, of one that
 * is spread in the parts that have these users.
 */
#define FORGET_BALANCES(condition)                                                                 \
	"UPDATE quota_manager.user_balance AS b SET balance = NULL, token = NULL"                      \
	" FROM unnest($1) AS k(user_id)"                                                               \
	" WHERE b.user_id = k.user_id AND b.gateway = $2"                                              \
	" AND (b.balance IS NOT NULL OR b.token IS NOT NULL)" condition

static Statement forget_balances[] = {
	{FORGET_BALANCES(
		 " AND (SELECT EXISTS (SELECT 1 FROM quota_manager.user_balance a WHERE a.gateway = $2"
		 " AND (a.balance IS NOT NULL OR a.token IS NOT NULL)))"),
	 {TEXTARRAYOID, TEXTOID}},
	{FORGET_BALANCES(OF_USERS("b.user_id", 1)), {TEXTARRAYOID, TEXTOID}},
};

/*
 * Grants that were claimed to be sent after a balance had been written, and have
 * none, were not sent.
 */
static Statement settle_orphans = {
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
	" RETURNING e.status, e.id, e.user_id",
	{INT8OID, INT8OID, INT8OID, TEXTOID, TEXTOID, TIMESTAMPTZOID, INT4OID, INT4OID, TIMESTAMPTZOID,
	 INT8OID}};

static Statement save_state = {
	"UPDATE quota_manager.quota_gateway AS g"
	" SET state = $2, state_reason = $3, next_probe_time = $4"
	" WHERE g.id = (SELECT l.id FROM quota_manager.quota_gateway l WHERE l.id = $1"
	" FOR NO KEY UPDATE SKIP LOCKED)",
	{INT4OID, TEXTOID, TEXTOID, TIMESTAMPTZOID}};

/* Adds what is settled of a grant to the rows of settle_grants. */
static void
add_row(RowArrays *rows, const Grant *grant)
{
	const GrantOutcome *outcome = &grant->outcome;
	bool                sets_doubt = outcome->sent == MAYBE_SENT || grant->doubt.moved;

	rows_add(rows, ARGS(CLAIM_ARGS(grant), arg_text(grant_status(grant)),
						arg_int32(outcome->failed_attempt ? 1 : 0),
						arg_bool(outcome->verdict != VERDICT_UNSENT),
						outcome->http_status != 0 ? arg_int32(outcome->http_status) : arg_null(),
						arg_text(outcome->message),
						grant_sets_time(grant) ? arg_time(outcome->next_attempt_time) : arg_null(),
						sets_doubt ? arg_time(grant->doubt.time) : arg_null(),
						arg_text(grant->in_doubt ? "in_doubt" : "processing"),
						arg_int64(grant->doubt.moment)));
}

/* True if everything to be settled was completed with the same status. */
static bool
all_completed(Sender *sender)
{
	const Grant *first = grants_first(&sender->grants, GRANT_DONE);

	grants_foreach (grant, &sender->grants, GRANT_DONE)
	{
		if (grant->outcome.verdict != VERDICT_COMPLETED || grant->outcome.message != NULL ||
			grant->earlier == MAYBE_SENT || grant->in_doubt ||
			grant->outcome.http_status != first->outcome.http_status)
			return false;
	}
	return true;
}

/*
 * Writes the verdicts of what is done.  Returns how many rows were found; their
 * ids are in SPI_tuptable.
 */
static uint64
write_verdicts(Sender *sender)
{
	bool       completed = all_completed(sender);
	Statement *statement = &(completed ? settle_completed : settle_grants)[sender->is_spread];
	int        http_status = grants_first(&sender->grants, GRANT_DONE)->outcome.http_status;
	RowArrays *rows = rows_create(statement);
	List      *lost = NIL;

	grants_foreach (grant, &sender->grants, GRANT_DONE)
	{
		if (completed)
			rows_add(rows, ARGS(CLAIM_ARGS(grant)));
		else
			add_row(rows, grant);
		if (grant->outcome.sent == MAYBE_SENT)
			lost = lappend(lost, grant->key.user_id);
	}
	if (sender->row != NULL)
	{
		statement_run(&forget_balances[sender->is_spread],
					  ARGS(rows_column(rows, 1), arg_text(sender->row->name)));
		/* balances are not asked for until what was sent cannot arrive any more */
		balance_table_note_lost(sender->row->name, lost);
	}
	return statement_run_rows(statement, rows,
							  completed
								  ? ARGS(arg_int32(http_status), arg_time(GetCurrentTimestamp()))
								  : ARGS(arg_time(GetCurrentTimestamp())));
}

/*
 * Writes the verdicts of the grants in GRANT_DONE, each guarded by the number of
 * the claim, and notes in every grant whether its row was found.  The grants
 * stay in the list until the transaction has been committed: then settle_finish.
 */
void
settle_done(Sender *sender)
{
	IdSet found;

	if (grants_in(&sender->grants, GRANT_DONE) == 0)
		return;
	CRASH_POINT(settle_starting);
	found = ids_of_result(write_verdicts(sender));
	CRASH_POINT(settle_made);
	grants_foreach (grant, &sender->grants, GRANT_DONE)
	{
		grant->row_found = ids_contain(&found, grant->id);
		if (grant->row_found)
			tally_settled(&sender->batch.tally, grant);
	}
	sender->batch.settling = grants_in(&sender->grants, GRANT_DONE);
}

/*
 * The transaction was committed: frees the grants that were settled, and warns
 * about those whose row was not found.
 */
void
settle_finish(Sender *sender)
{
	if (sender->batch.settling > 0)
		CRASH_POINT(settle_committed);
	for (; sender->batch.settling > 0; sender->batch.settling--)
	{
		Grant *grant = grants_first(&sender->grants, GRANT_DONE);

		if (!grant->row_found && !grant->in_doubt)
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

/* Settles the orphaned claims of a run. */
static void
settle_orphans_of_run(Sender *sender, const Run *run, const PendingWork *work)
{
	TimestampTz now = GetCurrentTimestamp();
	DoubtPolicy policy = sender_policy(sender);
	List       *lost = NIL;
	uint64      count;

	count =
		statement_run(&settle_orphans,
					  ARGS(arg_int64(run->id), arg_int64(work->low), arg_int64(work->high),
						   arg_text(sender->row->name), arg_text(ORPHAN_TEXT),
						   arg_time(policy == DOUBT_HOLD ? DT_NOEND : now),
						   arg_int32(policy == DOUBT_RESEND ? 1 : 0),
						   arg_int32(delivery_max_attempts), arg_time(now), arg_int64(mono_now())));
	for (uint64 row = 0; row < count; row++)
	{
		if (strcmp(result_text(row, 1), "in_doubt") != 0)
		{
			tally_orphan_unsent(&sender->batch.tally);
			continue;
		}
		tally_orphan_in_doubt(&sender->batch.tally, result_int64(row, 2));
		lost = lappend(lost, result_text(row, 3));
	}
	SPI_freetuptable(SPI_tuptable);
	balance_table_note_lost(sender->row->name, lost);
}

/*
 * Settles orphaned claims, when this process has just taken the sender lock:
 * grants of another sender that are `processing` were never answered, or the
 * answer was never recorded.  They become in doubt.  The pending work must have
 * been read since.
 */
void
settle_orphaned(Sender *sender, List *runs)
{
	foreach_ptr (Run, run, runs)
	{
		PendingWork *work = pending_work_at(run, sender->row->name);

		if (work == NULL || work->processing == 0)
			continue;
		settle_orphans_of_run(sender, run, work);
		run->is_read = false;
	}
}

/*
 * Writes the state of the sender's circuit to the gateway's row.  False: the row
 * is locked right now.
 */
bool
settle_state(Sender *sender)
{
	const Circuit *circuit = &sender->circuit;
	bool           is_closed = circuit->state != CIRCUIT_OPEN && circuit->state != CIRCUIT_PROBING;
	int64          wait_ms = mono_ms_until(circuit->check_time, CHECK_SHOWN_MAX_MS);
	/* for people, who read the clock on the wall */
	TimestampTz check_time = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), wait_ms);

	if (statement_run(&save_state,
					  ARGS(arg_int32(sender->row->id), arg_text(circuit_state_name(circuit->state)),
						   arg_text(circuit->reason[0] != '\0' ? circuit->reason : NULL),
						   is_closed ? arg_time(check_time) : arg_null())) == 0)
		return false;
	CRASH_POINT(state_saved);
	return true;
}
