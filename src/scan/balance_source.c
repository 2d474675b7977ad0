/*
 * balance_source.c
 *		One gateway that balances are read from: its queue, queries and answers.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "common/backoff.h"
#include "common/crash_point.h"
#include "common/monotonic.h"
#include "common/statement.h"
#include "endpoint/rate_limit.h"
#include "scan/balance_source.h"
#include "scan/balance_table.h"

/* Users asked for in one transaction, and answers taken at once. */
#define BATCH 256
#define POLL_RESULTS 64

/* No user has this id; its balance is queried to learn whether a gateway answers at all. */
#define HEALTH_CHECK_USER "quota_manager-probe"

/* While a scan has the balances locked, the next try is after this time. */
#define BUSY_MS 50

/* Answers are stored, and the strategies that wait for them made due, at least so often. */
#define STORE_MS 1000
#define DUE_MS 5000

/* How long a gateway that does not answer is not asked: the back-off doubles. */
#define OUTAGE_MIN_MS 1000
#define OUTAGE_MAX_MS (60 * 1000)

/* Users of one strategy to be asked for at one gateway. */
struct BalanceJob
{
	int32            strategy_id;
	Tuplestorestate *users;
	TupleDesc        users_desc;
	int64            count;
	int64            taken;
	int64            stored; /* since the strategy was made due last */
	MonoTime         due_at; /* when to make it due, if something is stored */
};

/* The users who are being asked for, and their answers that are not stored yet. */
typedef struct BalanceBatch
{
	MemoryContext   memory; /* of their ids */
	BalanceQuestion questions[BATCH];
	TimestampTz     sent[BATCH];
	int             count; /* of questions */
	int             next;  /* the next to be sent */
	bool            has_tokens;
	BalanceAnswer   answers[BATCH];
	int             answer_count;
	MonoTime        store_at;
} BalanceBatch;

/* How the gateway answers. */
typedef struct BalanceHealth
{
	int         failures;     /* in a row */
	bool        suspect;      /* no users are asked for until a health check is answered */
	bool        is_checking;  /* the health check is in flight */
	bool        gave_up;      /* the gateway does not answer: its jobs are to be dropped */
	Backoff     outage;       /* while it does not answer */
	TimestampTz outage_since; /* for people */
} BalanceHealth;

struct BalanceSource
{
	MemoryContext   memory;
	const WorkUnit *unit;
	char           *name;
	GatewayRow     *row;        /* of the caller; NULL: there is none */
	GatewaySession *session;    /* NULL: not open */
	TupleDesc       users_desc; /* of the files in which users wait */
	List           *jobs;       /* the first is being served */
	BalanceBatch    batch;
	BalanceHealth   health;
	MonoTime        not_before; /* a scan has the balances locked until about then */
	RateLimit       rate_limit;
	bool            made_due; /* a strategy, since balance_source_made_due was called last */
};

/* A balance that was read for another strategy meanwhile is not read again. */
static Statement filter_missing = {
	"SELECT u.id FROM unnest($1) u(id) WHERE u.id NOT IN (SELECT k.user_id"
	" FROM quota_manager.known_balance k WHERE k.user_id = ANY ($1) AND k.balances ? $2)",
	{TEXTARRAYOID, TEXTOID}};

static Statement make_due = {"UPDATE quota_manager.quota_run SET retry_time = $2, tries = 1"
							 " WHERE strategy_id = $1 AND state = 'incomplete' AND retry_time > $2",
							 {INT4OID, TIMESTAMPTZOID}};

/* Makes a source that has nothing to do, in the current memory context. */
BalanceSource *
balance_source_create(const char *name, const WorkUnit *unit)
{
	BalanceSource *source = palloc0(sizeof(BalanceSource));

	source->memory = CurrentMemoryContext;
	source->unit = unit;
	source->name = pstrdup(name);
	source->not_before = MONO_PAST;
	backoff_none(&source->health.outage);
	rate_limit_init(&source->rate_limit);
	source->batch.memory = AllocSetContextCreate(CurrentMemoryContext, "quota_manager balances",
												 ALLOCSET_DEFAULT_SIZES);
	source->users_desc = CreateTemplateTupleDesc(1);
	/* unlike TupleDescInitEntry, it needs no transaction */
	TupleDescInitBuiltinEntry(source->users_desc, 1, "user_id", TEXTOID, -1, 0);
	return source;
}

/* The name of its gateway. */
const char *
balance_source_name(const BalanceSource *source)
{
	return source->name;
}

/* How many queries are in flight. */
int
balance_source_in_flight(const BalanceSource *source)
{
	return source->session != NULL ? gateway_in_flight(source->session) : 0;
}

/* Ends a job. */
static void
end_job(BalanceSource *source, BalanceJob *job)
{
	source->jobs = list_delete_ptr(source->jobs, job);
	tuplestore_end(job->users);
	pfree(job);
}

/* Drops its jobs and closes the connections.  Works after an error, too. */
void
balance_source_reset(BalanceSource *source)
{
	BalanceHealth *health = &source->health;
	gateway_close(source->session);
	source->session = NULL;
	while (source->jobs != NIL)
		end_job(source, linitial(source->jobs));
	source->batch.count = source->batch.next = source->batch.answer_count = 0;
	source->batch.has_tokens = false;
	health->suspect = health->is_checking = health->gave_up = false;
	health->failures = 0;
}

/*
 * Takes the row of its gateway as it is now; NULL: it was dropped.  If it was
 * edited, its jobs are dropped, since the runs that need them ask again, and
 * its back-off ends.
 */
void
balance_source_set_row(BalanceSource *source, GatewayRow *row)
{
	if (row == NULL || source->row == NULL || !gateway_row_same(row, source->row))
	{
		balance_source_reset(source);
		backoff_none(&source->health.outage);
	}
	source->row = row;
}

/* True if it can take a job: its gateway exists and no back-off runs. */
bool
balance_source_is_available(const BalanceSource *source)
{
	return source->row != NULL && backoff_is_over(&source->health.outage);
}

/* True while it has a job. */
bool
balance_source_is_busy(const BalanceSource *source)
{
	return source->jobs != NIL;
}

/* True while it has a job of the strategy. */
bool
balance_source_serves(const BalanceSource *source, int32 strategy_id)
{
	ListCell *cell;

	foreach (cell, source->jobs)
	{
		if (((BalanceJob *) lfirst(cell))->strategy_id == strategy_id)
			return true;
	}
	return false;
}

/* A new job, whose users are still to be added. */
BalanceJob *
balance_source_begin_job(BalanceSource *source, int32 strategy_id)
{
	MemoryContext caller = MemoryContextSwitchTo(source->memory);
	BalanceJob   *job = palloc0(sizeof(BalanceJob));

	job->strategy_id = strategy_id;
	job->due_at = mono_in_ms(DUE_MS);
	job->users = tuplestore_begin_heap(false, true, work_mem);
	job->users_desc = source->users_desc;
	source->jobs = lappend(source->jobs, job);
	MemoryContextSwitchTo(caller);
	return job;
}

/* Adds a user to a job. */
void
balance_job_add(BalanceJob *job, const char *user_id)
{
	Datum values[1] = {CStringGetTextDatum(user_id)};
	bool  nulls[1] = {false};

	tuplestore_putvalues(job->users, job->users_desc, values, nulls);
	job->count++;
}

/* True once if a strategy was made due since the last call. */
bool
balance_source_made_due(BalanceSource *source)
{
	bool result = source->made_due;

	source->made_due = false;
	return result;
}

/* Makes a strategy due for which balances were stored. */
static void
make_strategy_due(BalanceSource *source, BalanceJob *job)
{
	job->due_at = mono_in_ms(DUE_MS);
	if (job->stored == 0)
		return;
	job->stored = 0;
	source->made_due = true;
	source->unit->begin();
	(void) statement_run(&make_due,
						 ARGS(arg_int32(job->strategy_id), arg_time(GetCurrentTimestamp())));
	source->unit->commit();
}

/* Takes the next users of the first job. */
static void
load_batch(BalanceSource *source)
{
	BalanceBatch   *batch = &source->batch;
	BalanceJob     *job = linitial(source->jobs);
	TupleTableSlot *slot = MakeSingleTupleTableSlot(job->users_desc, &TTSOpsMinimalTuple);

	MemoryContextReset(batch->memory);
	batch->count = batch->next = 0;
	batch->has_tokens = false;
	while (batch->count < BATCH && tuplestore_gettupleslot(job->users, true, false, slot))
	{
		MemoryContext caller = MemoryContextSwitchTo(batch->memory);
		bool          isnull;

		batch->questions[batch->count++].user_id =
			TextDatumGetCString(slot_getattr(slot, 1, &isnull));
		MemoryContextSwitchTo(caller);
	}
	ExecDropSingleTupleTableSlot(slot);
	job->taken += batch->count;
}

/*
 * Drops users from the batch whose balance was stored meanwhile, for another
 * strategy; it counts as stored for this job.  In a transaction.
 */
static void
drop_read(BalanceSource *source)
{
	BalanceBatch *batch = &source->batch;
	RowArrays    *users = rows_create(&filter_missing);
	MemoryContext caller;
	int           left;

	for (int i = 0; i < batch->count; i++)
		rows_add(users, ARGS(arg_text(batch->questions[i].user_id)));
	left = (int) statement_run_rows(&filter_missing, users, ARGS(arg_text(source->name)));
	caller = MemoryContextSwitchTo(batch->memory);
	for (int i = 0; i < left; i++)
		batch->questions[i].user_id = result_text(i, 1);
	MemoryContextSwitchTo(caller);
	SPI_freetuptable(SPI_tuptable);
	((BalanceJob *) linitial(source->jobs))->stored += batch->count - left;
	batch->count = left;
}

/* Gets tokens for the users of the batch, unless a scan has the balances locked. */
static void
ask_batch(BalanceSource *source)
{
	BalanceBatch *batch = &source->batch;
	int           count = 0;

	source->unit->begin();
	drop_read(source);
	batch->has_tokens =
		batch->count == 0 || balance_table_ask(source->name, batch->questions, batch->count);
	source->unit->commit();
	if (!batch->has_tokens)
	{
		source->not_before = mono_in_ms(BUSY_MS);
		return;
	}
	for (int i = 0; i < batch->count; i++)
	{
		if (batch->questions[i].token != BALANCE_NO_TOKEN)
			batch->questions[count++] = batch->questions[i];
	}
	batch->count = count;
}

/* Stores the answers that have arrived, unless a scan has the balances locked. */
static void
store_answers(BalanceSource *source)
{
	BalanceBatch *batch = &source->batch;
	int           stored = 0;
	bool          done;

	source->unit->begin();
	done = balance_table_store(source->name, batch->answers, batch->answer_count, &stored);
	CRASH_POINT(balances_writing);
	source->unit->commit();
	CRASH_POINT(balances_written);
	if (!done)
	{
		source->not_before = mono_in_ms(BUSY_MS);
		return;
	}
	batch->answer_count = 0;
	batch->store_at = mono_in_ms(STORE_MS);
	((BalanceJob *) linitial(source->jobs))->stored += stored;
}

/* Sends one query.  False: no more can be sent now. */
static bool
send_query(BalanceSource *source, const char *user_id, void *token)
{
	GatewayRequest query = {GATEWAY_QUERY};

	if (gateway_free_slots(source->session) == 0 ||
		!rate_limit_take(&source->rate_limit, source->row->rate_limit, mono_now()))
		return false;
	query.user_id = user_id;
	query.token = token;
	if (gateway_submit(source->session, &query))
		return true;
	if (balance_source_in_flight(source) == 0)
		source->health.gave_up = true;
	return false;
}

/* Sends as many queries as there is room for. */
static void
send_queries(BalanceSource *source)
{
	BalanceBatch *batch = &source->batch;
	if (source->session == NULL)
	{
		char *problem;

		source->session = gateway_row_open(source->row, &problem);
		if (source->session == NULL)
		{
			source->health.gave_up = true;
			return;
		}
	}
	if (source->health.suspect && !source->health.is_checking && !source->health.gave_up)
		source->health.is_checking = send_query(source, HEALTH_CHECK_USER, source);
	while (!source->health.suspect && !source->health.gave_up && batch->next < batch->count)
	{
		int i = batch->next;

		batch->sent[i] = GetCurrentTimestamp();
		if (!send_query(source, batch->questions[i].user_id, &batch->questions[i]))
			break;
		batch->next++;
	}
}

/*
 * Takes an answer.  If the gateway cannot be reached, its jobs are dropped; a user
 * whose query fails is skipped.  After many failures in a row, or when the gateway
 * asks for a pause, a health check decides: if it is answered, the failures are
 * those of the users, and the batch goes on.
 */
static void
take_answer(BalanceSource *source, const GatewayResult *result)
{
	BalanceHealth         *health = &source->health;
	const BalanceQuestion *question = result->token;

	if (result->token == source)
	{
		health->suspect = health->is_checking = false;
		health->failures = 0;
		health->gave_up = result->reply.outcome != GATEWAY_COMPLETED;
		return;
	}
	if (result->reply.outcome == GATEWAY_COMPLETED)
	{
		BalanceAnswer *answer = &source->batch.answers[source->batch.answer_count++];

		answer->user_id = question->user_id;
		answer->token = question->token;
		strlcpy(answer->amount, result->reply.balance, sizeof(answer->amount));
		answer->asked = source->batch.sent[question - source->batch.questions];
		health->failures = 0;
		backoff_none(&health->outage);
		CRASH_POINT(balance_read);
		return;
	}
	health->failures++;
	if (result->reply.outcome == GATEWAY_NOT_SENT)
		health->gave_up = true;
	else if (result->reply.outcome == GATEWAY_THROTTLED ||
			 health->failures > source->row->max_connections)
		health->suspect = true;
}

/* Drops the jobs of a gateway that does not answer, and begins its back-off. */
static void
give_up(BalanceSource *source)
{
	BalanceHealth *health = &source->health;
	while (source->jobs != NIL)
	{
		BalanceJob *job = linitial(source->jobs);

		make_strategy_due(source, job);
		end_job(source, job);
	}
	balance_source_reset(source);
	if (health->outage.delay_ms == 0)
		health->outage_since = GetCurrentTimestamp();
	backoff_more(&health->outage, OUTAGE_MIN_MS, OUTAGE_MAX_MS);
}

/*
 * Sends queries, as far as brakes let it, and stores answers, as far as is
 * possible without waiting.
 */
void
balance_source_step(BalanceSource *source, const Brakes *brakes)
{
	BalanceBatch *batch = &source->batch;
	bool          idle = balance_source_in_flight(source) == 0;
	BalanceJob   *job;

	if (source->jobs == NIL || source->not_before > mono_now())
		return;
	job = linitial(source->jobs);
	if (batch->answer_count > 0 &&
		(source->health.gave_up || batch->answer_count >= BATCH / 2 ||
		 batch->store_at <= mono_now() || (idle && batch->next == batch->count)))
		store_answers(source);
	if (batch->answer_count > 0 && batch->next == batch->count && idle)
		return;
	if (source->health.gave_up)
	{
		give_up(source);
		return;
	}
	if (job->due_at <= mono_now())
		make_strategy_due(source, job);
	if (batch->next == batch->count && idle && !source->health.is_checking)
	{
		load_batch(source);
		if (batch->count == 0)
		{
			make_strategy_due(source, job);
			end_job(source, job);
			return;
		}
	}
	if (!batch->has_tokens)
		ask_batch(source);
	if (!batch->has_tokens || !sending_begin(brakes))
		return;
	send_queries(source);
	sending_end();
}

/*
 * Takes answers that have arrived, after waiting for them for at most
 * timeout_ms.
 */
void
balance_source_poll(BalanceSource *source, int timeout_ms)
{
	BalanceBatch        *batch = &source->batch;
	static GatewayResult results[POLL_RESULTS];
	int                  count;

	if (balance_source_in_flight(source) == 0 || batch->answer_count == BATCH)
		return;
	count = gateway_poll(source->session, timeout_ms, results,
						 Min(POLL_RESULTS, BATCH - batch->answer_count));
	for (int i = 0; i < count; i++)
		take_answer(source, &results[i]);
}

/* Appends what it is doing, for pg_stat_activity; nothing if it is idle. */
void
balance_source_describe(const BalanceSource *source, StringInfo text)
{
	const char *separator = text->len > 0 ? "; " : "";

	if (source->health.outage.delay_ms > 0)
		appendStringInfo(text, "%sgateway %s has not answered since %s", separator, source->name,
						 timestamptz_to_str(source->health.outage_since));
	else if (source->jobs != NIL)
	{
		const BalanceJob *job = linitial(source->jobs);

		appendStringInfo(text,
						 "%sreading balances: " INT64_FORMAT " of " INT64_FORMAT " at gateway %s",
						 separator, job->taken - (source->batch.count - source->batch.next),
						 job->count, source->name);
	}
}
