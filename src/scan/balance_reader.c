/*
 * balance_reader.c
 *		Reads balances that conditions ask for from the gateways, beside other work.
 */
#include "postgres.h"

#include "access/tupdesc.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "executor/tuptable.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "common/crash_point.h"
#include "common/monotonic.h"
#include "delivery/gateway_row.h"
#include "delivery/statement.h"
#include "scan/balance_reader.h"
#include "scan/balance_table.h"

/* Users asked for in one transaction, and answers taken at once. */
#define BATCH 256
#define POLL_RESULTS 64

/* Users fetched at a time. */
#define FETCH_ROWS 1000

/* Nobody is called so; asked about to learn whether a gateway answers at all. */
#define NOBODY "quota_manager-probe"

/* A scan that has the balances locked is asked again after this time. */
#define BUSY_MS 50

/* Answers are stored, and what waits for them made due, at least so often. */
#define STORE_MS 1000
#define DUE_MS 5000

/* A gateway that does not answer is left alone for so long. */
#define OUTAGE_MIN_MS 1000
#define OUTAGE_MAX_MS (60 * 1000)

/* Users of one strategy to be asked for at one gateway. */
typedef struct Job
{
	int32            strategy_id;
	Tuplestorestate *users;
	int64            count;
	int64            taken;
	int64            stored; /* since the strategy was made due last */
	MonoTime         due_at; /* when to make it due, if something is stored */
} Job;

/* A gateway, and what is to be read there. */
typedef struct Source
{
	char           *name;
	GatewayRow     *row;     /* of `rows` */
	GatewaySession *session; /* NULL: not open */
	List           *jobs;    /* the first is being served */
	MemoryContext   batch_memory;
	BalanceQuestion questions[BATCH];
	TimestampTz     sent[BATCH];
	BalanceAnswer   answers[BATCH];
	int             count; /* of questions */
	int             next;
	int             answer_count;
	bool            asked; /* the questions have their tokens */
	MonoTime        not_before;
	MonoTime        store_at;
	int             failures; /* in a row */
	bool            doubted;  /* nobody is asked about until it is known whether it answers */
	bool            checking; /* the query that tells is in flight */
	bool            given_up;
	double          tokens; /* what rate_limit allows */
	MonoTime        tokens_time;
	int             outage_ms; /* 0: it answered last */
	MonoTime        outage_until;
	TimestampTz     outage_since; /* for people */
} Source;

struct BalanceReader
{
	MemoryContext   memory;
	const WorkUnit *unit;
	MemoryContext   rows_memory;
	List           *rows; /* of GatewayRow */
	List           *sources;
	bool            made_due;   /* a strategy, since it was asked last */
	TupleDesc       users_desc; /* of the files in which users wait */
};

/* What another strategy has had read meanwhile is not read again. */
static Statement filter_unknown = {
	"SELECT u.id FROM unnest($1) u(id) WHERE u.id NOT IN (SELECT k.user_id"
	" FROM quota_manager.known_balance k WHERE k.user_id = ANY ($1) AND k.balances ? $2)",
	2,
	{TEXTARRAYOID, TEXTOID},
	NULL};

static Statement make_due = {"UPDATE quota_manager.quota_run SET retry_time = $2, tries = 1"
							 " WHERE strategy_id = $1 AND state = 'incomplete' AND retry_time > $2",
							 2,
							 {INT4OID, TIMESTAMPTZOID},
							 NULL};

/*
 * How many queries are on their way.
 */
static int
in_flight(const Source *source)
{
	return source->session != NULL ? gateway_in_flight(source->session) : 0;
}

/*
 * Makes a reader in the current memory context.
 */
BalanceReader *
balance_reader_create(const WorkUnit *unit)
{
	MemoryContext memory =
		AllocSetContextCreate(CurrentMemoryContext, "quota_manager reader", ALLOCSET_DEFAULT_SIZES);
	BalanceReader *reader = MemoryContextAllocZero(memory, sizeof(BalanceReader));
	MemoryContext  caller;

	reader->memory = memory;
	reader->unit = unit;
	caller = MemoryContextSwitchTo(memory);
	reader->users_desc = CreateTemplateTupleDesc(1);
	/* unlike its sister, it needs no transaction */
	TupleDescInitBuiltinEntry(reader->users_desc, 1, "user_id", TEXTOID, -1, 0);
	MemoryContextSwitchTo(caller);
	return reader;
}

/*
 * Ends a job.
 */
static void
end_job(Source *source, Job *job)
{
	source->jobs = list_delete_ptr(source->jobs, job);
	tuplestore_end(job->users);
	pfree(job);
}

/*
 * Forgets what is to be read at a gateway, and what is on its way.
 */
static void
drop_jobs(Source *source)
{
	gateway_close(source->session);
	source->session = NULL;
	while (source->jobs != NIL)
		end_job(source, linitial(source->jobs));
	source->count = source->next = source->answer_count = 0;
	source->asked = source->doubted = source->checking = source->given_up = false;
	source->failures = 0;
}

/*
 * Closes its connections and files.  Works after an error, too.
 */
void
balance_reader_free(BalanceReader *reader)
{
	ListCell *cell;

	foreach (cell, reader->sources)
		drop_jobs(lfirst(cell));
	MemoryContextDelete(reader->memory);
}

/*
 * True while something is to be read.
 */
bool
balance_reader_is_busy(const BalanceReader *reader)
{
	ListCell *cell;

	foreach (cell, reader->sources)
	{
		if (((Source *) lfirst(cell))->jobs != NIL)
			return true;
	}
	return false;
}

/*
 * True if a strategy is being served.
 */
static bool
is_served(const BalanceReader *reader, int32 strategy_id)
{
	ListCell *cell;
	ListCell *job;

	foreach (cell, reader->sources)
	{
		foreach (job, ((Source *) lfirst(cell))->jobs)
		{
			if (((Job *) lfirst(job))->strategy_id == strategy_id)
				return true;
		}
	}
	return false;
}

/*
 * The row of a gateway among rows; NULL: it is not there.
 */
static GatewayRow *
row_of(List *rows, const char *name)
{
	ListCell *cell;

	foreach (cell, rows)
	{
		if (strcmp(((GatewayRow *) lfirst(cell))->name, name) == 0)
			return lfirst(cell);
	}
	return NULL;
}

/*
 * Reads the gateways anew, in a transaction.  What is being read at one that
 * was edited or dropped is let go of: the runs that need it ask again.
 */
static void
refresh_gateways(BalanceReader *reader)
{
	MemoryContext memory =
		AllocSetContextCreate(CurrentMemoryContext, "quota_manager gateways", ALLOCSET_SMALL_SIZES);
	List     *rows = gateway_rows_read(memory);
	ListCell *cell;

	MemoryContextSetParent(memory, reader->memory);
	foreach (cell, reader->sources)
	{
		Source     *source = lfirst(cell);
		GatewayRow *row = row_of(rows, source->name);

		if (row == NULL || source->row == NULL || !gateway_row_same(row, source->row))
		{
			drop_jobs(source);
			source->outage_ms = 0;
			source->outage_until = MONO_PAST;
		}
		source->row = row;
	}
	if (reader->rows_memory != NULL)
		MemoryContextDelete(reader->rows_memory);
	reader->rows_memory = memory;
	reader->rows = rows;
}

/*
 * The gateway of a name, ready to take a job; NULL: it cannot be asked now.
 */
static Source *
find_source(BalanceReader *reader, const char *name)
{
	Source   *source = NULL;
	ListCell *cell;

	foreach (cell, reader->sources)
	{
		if (strcmp(((Source *) lfirst(cell))->name, name) == 0)
			source = lfirst(cell);
	}
	if (source == NULL)
	{
		MemoryContext caller = MemoryContextSwitchTo(reader->memory);

		source = palloc0(sizeof(Source));
		source->name = pstrdup(name);
		source->tokens_time = source->not_before = source->outage_until = MONO_PAST;
		source->batch_memory =
			AllocSetContextCreate(reader->memory, "quota_manager balances", ALLOCSET_DEFAULT_SIZES);
		reader->sources = lappend(reader->sources, source);
		MemoryContextSwitchTo(caller);
	}
	if (source->row == NULL)
		source->row = row_of(reader->rows, name);
	return source->row != NULL && source->outage_until <= mono_now() ? source : NULL;
}

/*
 * A new job at a gateway.
 */
static Job *
begin_job(BalanceReader *reader, Source *source, int32 strategy_id)
{
	MemoryContext caller = MemoryContextSwitchTo(reader->memory);
	Job          *job = palloc0(sizeof(Job));

	job->strategy_id = strategy_id;
	job->due_at = mono_in_ms(DUE_MS);
	job->users = tuplestore_begin_heap(false, true, work_mem);
	source->jobs = lappend(source->jobs, job);
	MemoryContextSwitchTo(caller);
	return job;
}

/*
 * Puts the users of SPI_tuptable, in the order of gateways, into jobs.  *job
 * and *gateway are those of the rows before.
 */
static void
spool_users(BalanceReader *reader, int32 strategy_id, Job **job, char **gateway)
{
	for (uint64 row = 0; row < SPI_processed; row++)
	{
		HeapTuple tuple = SPI_tuptable->vals[row];
		char     *name = SPI_getvalue(tuple, SPI_tuptable->tupdesc, 2);
		Datum     values[1];
		bool      nulls[1] = {false};

		if (*gateway == NULL || strcmp(*gateway, name) != 0)
		{
			Source *source = find_source(reader, name);

			*job = source != NULL ? begin_job(reader, source, strategy_id) : NULL;
			*gateway = MemoryContextStrdup(reader->memory, name);
		}
		if (*job == NULL)
			continue;
		/* an id may be so long that the row only refers to it */
		values[0] = CStringGetTextDatum(SPI_getvalue(tuple, SPI_tuptable->tupdesc, 1));
		tuplestore_putvalues((*job)->users, reader->users_desc, values, nulls);
		(*job)->count++;
	}
}

/*
 * Takes on the users whose balances a strategy lacks, unless it is being
 * served already.
 */
void
balance_reader_add(BalanceReader *reader, int32 strategy_id)
{
	MemoryContext caller = CurrentMemoryContext;
	Oid           types[] = {INT4OID};
	Datum         values[] = {Int32GetDatum(strategy_id)};
	Job          *job = NULL;
	char         *gateway = NULL;
	Portal        portal;

	if (is_served(reader, strategy_id))
		return;
	reader->unit->begin();
	refresh_gateways(reader);
	portal =
		SPI_cursor_open_with_args(NULL,
								  "SELECT u.user_id, u.gateway FROM quota_manager.undecided($1)"
								  " u ORDER BY u.gateway, u.user_id",
								  1, types, values, NULL, false, CURSOR_OPT_NO_SCROLL);
	for (;;)
	{
		CHECK_FOR_INTERRUPTS();
		SPI_cursor_fetch(portal, true, FETCH_ROWS);
		if (SPI_processed == 0)
			break;
		spool_users(reader, strategy_id, &job, &gateway);
		SPI_freetuptable(SPI_tuptable);
	}
	SPI_cursor_close(portal);
	reader->unit->commit();
	MemoryContextSwitchTo(caller);
}

/*
 * Makes a strategy due for which balances were stored.
 */
static void
make_strategy_due(BalanceReader *reader, Job *job)
{
	Datum values[] = {Int32GetDatum(job->strategy_id), TimestampTzGetDatum(GetCurrentTimestamp())};

	job->due_at = mono_in_ms(DUE_MS);
	if (job->stored == 0)
		return;
	job->stored = 0;
	reader->made_due = true;
	reader->unit->begin();
	(void) statement_run(&make_due, values, NULL);
	reader->unit->commit();
}

/*
 * Takes the next users of the first job.
 */
static void
load_batch(Source *source, BalanceReader *reader)
{
	Job            *job = linitial(source->jobs);
	TupleTableSlot *slot = MakeSingleTupleTableSlot(reader->users_desc, &TTSOpsMinimalTuple);

	MemoryContextReset(source->batch_memory);
	source->count = source->next = 0;
	source->asked = false;
	while (source->count < BATCH && tuplestore_gettupleslot(job->users, true, false, slot))
	{
		MemoryContext caller = MemoryContextSwitchTo(source->batch_memory);
		bool          isnull;

		source->questions[source->count++].user_id =
			TextDatumGetCString(slot_getattr(slot, 1, &isnull));
		MemoryContextSwitchTo(caller);
	}
	ExecDropSingleTupleTableSlot(slot);
	job->taken += source->count;
}

/*
 * Drops those from the batch whose balance has become known meanwhile: for the
 * strategy that is as good as if it had been read for it.  In a transaction.
 */
static void
drop_known(Source *source)
{
	Datum *users = palloc(sizeof(Datum) * source->count);
	Datum  values[2];
	uint64 rows;

	for (int i = 0; i < source->count; i++)
		users[i] = CStringGetTextDatum(source->questions[i].user_id);
	values[0] = array_of(TEXTOID, users, NULL, source->count);
	values[1] = CStringGetTextDatum(source->name);
	rows = statement_run(&filter_unknown, values, NULL);
	for (uint64 row = 0; row < rows; row++)
		source->questions[row].user_id = result_text(row, 1, source->batch_memory);
	SPI_freetuptable(SPI_tuptable);
	((Job *) linitial(source->jobs))->stored += source->count - (int) rows;
	source->count = (int) rows;
}

/*
 * Gets tokens for the users of the batch, unless a scan is in the way.
 */
static void
ask_batch(Source *source, BalanceReader *reader)
{
	int count = 0;

	reader->unit->begin();
	drop_known(source);
	source->asked =
		source->count == 0 || balance_table_ask(source->name, source->questions, source->count);
	reader->unit->commit();
	if (!source->asked)
	{
		source->not_before = mono_in_ms(BUSY_MS);
		return;
	}
	for (int i = 0; i < source->count; i++)
	{
		if (source->questions[i].token != BALANCE_NO_TOKEN)
			source->questions[count++] = source->questions[i];
	}
	source->count = count;
}

/*
 * Stores the answers there are, unless a scan is in the way.
 */
static void
store_answers(Source *source, BalanceReader *reader)
{
	int  stored = 0;
	bool done;

	reader->unit->begin();
	done = balance_table_store(source->name, source->answers, source->answer_count, &stored);
	CRASH_POINT(balances_writing);
	reader->unit->commit();
	CRASH_POINT(balances_written);
	if (!done)
	{
		source->not_before = mono_in_ms(BUSY_MS);
		return;
	}
	source->answer_count = 0;
	source->store_at = mono_in_ms(STORE_MS);
	((Job *) linitial(source->jobs))->stored += stored;
}

/*
 * Takes the right to send one request within the row's rate_limit.
 */
static bool
take_token(Source *source)
{
	double   rate = source->row->rate_limit;
	MonoTime now = mono_now();

	if (rate <= 0)
		return true;
	if (source->tokens_time != MONO_PAST)
		source->tokens += rate * (double) (now - source->tokens_time) / 1000000.0;
	source->tokens = source->tokens_time == MONO_PAST ? 1 : Min(source->tokens, Max(1, rate / 10));
	source->tokens_time = now;
	if (source->tokens < 1)
		return false;
	source->tokens -= 1;
	return true;
}

/*
 * Sends one query.  False: no more can be sent now.
 */
static bool
send_query(Source *source, const char *user_id, void *token)
{
	GatewayRequest query = {GATEWAY_QUERY};

	if (gateway_room(source->session) == 0 || !take_token(source))
		return false;
	query.user_id = user_id;
	query.token = token;
	if (gateway_submit(source->session, &query))
		return true;
	if (in_flight(source) == 0)
		source->given_up = true;
	return false;
}

/*
 * Sends as many queries as there is room for.
 */
static void
send_queries(Source *source)
{
	if (source->session == NULL)
	{
		char *problem;

		source->session = gateway_row_open(source->row, &problem);
		if (source->session == NULL)
		{
			source->given_up = true;
			return;
		}
	}
	if (source->doubted && !source->checking && !source->given_up)
		source->checking = send_query(source, NOBODY, source);
	while (!source->doubted && !source->given_up && source->next < source->count)
	{
		int i = source->next;

		source->sent[i] = GetCurrentTimestamp();
		if (!send_query(source, source->questions[i].user_id, &source->questions[i]))
			break;
		source->next++;
	}
}

/*
 * Takes in an answer.  A gateway that does not answer is given up soon; a user
 * for whom it cannot answer is passed over.  After many failures in a row, or
 * when it asks for a pause, it is asked about nobody: if that is answered, the
 * users are the reason.
 */
static void
take_answer(Source *source, const GatewayResult *result)
{
	const BalanceQuestion *question = result->token;

	if (result->token == source)
	{
		source->doubted = source->checking = false;
		source->failures = 0;
		source->given_up = result->reply.outcome != GATEWAY_COMPLETED;
		return;
	}
	if (result->reply.outcome == GATEWAY_COMPLETED)
	{
		BalanceAnswer *answer = &source->answers[source->answer_count++];

		answer->user_id = question->user_id;
		answer->token = question->token;
		strlcpy(answer->amount, result->reply.balance, sizeof(answer->amount));
		answer->asked = source->sent[question - source->questions];
		source->failures = 0;
		source->outage_ms = 0;
		CRASH_POINT(balance_read);
		return;
	}
	source->failures++;
	if (result->reply.outcome == GATEWAY_NOT_SENT)
		source->given_up = true;
	else if (result->reply.outcome == GATEWAY_THROTTLED ||
			 source->failures > source->row->max_connections)
		source->doubted = true;
}

/*
 * Leaves a gateway that does not answer alone for a while.
 */
static void
give_up(Source *source, BalanceReader *reader)
{
	while (source->jobs != NIL)
	{
		Job *job = linitial(source->jobs);

		make_strategy_due(reader, job);
		end_job(source, job);
	}
	drop_jobs(source);
	if (source->outage_ms == 0)
		source->outage_since = GetCurrentTimestamp();
	source->outage_ms = Min(Max(source->outage_ms * 2, OUTAGE_MIN_MS), OUTAGE_MAX_MS);
	source->outage_until = mono_in_ms(source->outage_ms);
}

/*
 * Does what can be done at a gateway without waiting.
 */
static void
step_source(Source *source, BalanceReader *reader)
{
	bool idle = in_flight(source) == 0;
	Job *job = linitial(source->jobs);

	if (source->answer_count > 0 &&
		(source->given_up || source->answer_count >= BATCH / 2 || source->store_at <= mono_now() ||
		 (idle && source->next == source->count)))
		store_answers(source, reader);
	if (source->answer_count > 0 && source->next == source->count && idle)
		return;
	if (source->given_up)
	{
		give_up(source, reader);
		return;
	}
	if (job->due_at <= mono_now())
		make_strategy_due(reader, job);
	if (source->next == source->count && idle && !source->checking)
	{
		load_batch(source, reader);
		if (source->count == 0)
		{
			make_strategy_due(reader, job);
			end_job(source, job);
			return;
		}
	}
	if (!source->asked)
		ask_batch(source, reader);
	if (source->asked)
		send_queries(source);
}

/*
 * Sends queries, takes answers and stores them, in short transactions.  Waits
 * for answers for at most timeout_ms.
 */
void
balance_reader_step(BalanceReader *reader, int timeout_ms)
{
	static GatewayResult results[POLL_RESULTS];
	MemoryContext        caller = CurrentMemoryContext;
	int                  active = 0;
	ListCell            *cell;

	foreach (cell, reader->sources)
	{
		Source *source = lfirst(cell);

		if (source->jobs != NIL && source->not_before <= mono_now())
			step_source(source, reader);
		active += in_flight(source) > 0;
	}
	foreach (cell, reader->sources)
	{
		Source *source = lfirst(cell);
		int     count;

		if (in_flight(source) == 0 || source->answer_count > BATCH - 1)
			continue;
		count = gateway_poll(source->session, Max(timeout_ms / Max(active, 1), 1), results,
							 Min(POLL_RESULTS, BATCH - source->answer_count));
		for (int i = 0; i < count; i++)
			take_answer(source, &results[i]);
	}
	MemoryContextSwitchTo(caller);
}

/*
 * True once if a strategy was made due since the last call.
 */
bool
balance_reader_made_due(BalanceReader *reader)
{
	bool result = reader->made_due;

	reader->made_due = false;
	return result;
}

/*
 * True while answers are awaited, for which balance_reader_step waits.
 */
bool
balance_reader_in_flight(const BalanceReader *reader)
{
	ListCell *cell;

	foreach (cell, reader->sources)
	{
		if (in_flight(lfirst(cell)) > 0)
			return true;
	}
	return false;
}

/*
 * What it is doing, for pg_stat_activity, in the current memory context; NULL:
 * nothing.
 */
char *
balance_reader_activity(const BalanceReader *reader)
{
	StringInfoData text;
	ListCell      *cell;

	initStringInfo(&text);
	foreach (cell, reader->sources)
	{
		const Source *source = lfirst(cell);
		const char   *separator = text.len > 0 ? "; " : "";

		if (source->outage_ms > 0)
			appendStringInfo(&text, "%sgateway %s has not answered since %s", separator,
							 source->name, timestamptz_to_str(source->outage_since));
		else if (source->jobs != NIL)
		{
			const Job *job = linitial(source->jobs);

			appendStringInfo(
				&text, "%sreading balances: " INT64_FORMAT " of " INT64_FORMAT " at gateway %s",
				separator, job->taken - (source->count - source->next), job->count, source->name);
		}
	}
	return text.len > 0 ? text.data : NULL;
}
