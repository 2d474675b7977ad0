/*
 * due.c
 *		Finds out which strategies are due, and runs them.
 */
#include "postgres.h"

#include <math.h>

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/memutils.h"

#include "common/crash_point.h"
#include "common/statement.h"
#include "common/last_error.h"
#include "scan/due.h"

/* What is due is read again no later than this, whatever is due next. */
#define DUE_MAX_MS (INT64CONST(60) * 60 * 1000)

/* Firings of one strategy are run for so long before others are. */
#define STRATEGY_MAX_MS 1000

/* Writing what is not worth waiting for gives up after this time. */
#define SHORT_LOCK_TIMEOUT "100ms"

/*
 * The first row tells when to poll again, the others what is due.  A poll that
 * comes a moment too early is repeated.  A view finds its tables also
 * when they are renamed; what runs strategies does not, so they are named.
 */
static Statement ask_view = {
	"WITH d AS MATERIALIZED (SELECT * FROM quota_manager.strategy_due)"
	" SELECT null::int4, null::text, null::bool,"
	" least(extract(epoch FROM min(d.due_time) - clock_timestamp()) * 1000, $1)::float8,"
	" coalesce(bool_or(d.tries > 0), false),"
	" coalesce((SELECT i.workers_enabled FROM quota_manager.quota_installation i), true)"
	" FROM d WHERE d.state <> 'due' AND (d.state <> 'recording' OR d.due_time > clock_timestamp())"
	" AND NOT EXISTS (SELECT 1 FROM quota_manager.quota_strategy WHERE false)"
	" AND NOT EXISTS (SELECT 1 FROM quota_manager.quota_run WHERE false)"
	" AND NOT EXISTS (SELECT 1 FROM quota_manager.quota_execute WHERE false)"
	" UNION ALL SELECT r.* FROM (SELECT d.strategy_id, d.name, bool_or(d.state = 'due'),"
	" null::float8, null::bool, null::bool"
	" FROM d WHERE d.state = 'due' OR d.state = 'recording' AND d.due_time <= clock_timestamp()"
	" GROUP BY 1, 2 ORDER BY min(d.due_time), 1) r",
	{FLOAT8OID}};

static Statement run_strategy = {
	"SELECT r.state, r.granted, r.unknown_balance, r.matched, r.already_granted, r.capped,"
	" r.reason, r.is_news, r.later_firings FROM quota_internal.run_due($1, $2, $3) r",
	{INT4OID, TIMESTAMPTZARRAYOID, BOOLOID}};

static Statement write_failure = {"SELECT quota_internal.record_failure($1, $2)",
								  {INT4OID, TEXTOID}};

static Statement end_back_offs = {"SELECT quota_internal.end_back_offs()"};

/* Takes in the row that tells when to poll again. */
static void
take_prospect(DueList *list)
{
	list->next =
		mono_in_ms(result_is_null(0, 4) ? DUE_MAX_MS : (int64) ceil(Max(result_double(0, 4), 0)));
	list->failed = result_bool(0, 5);
	list->enabled = result_bool(0, 6);
}

/*
 * Asks the view, in one short transaction.  The list is allocated in the
 * current memory context.
 */
void
due_poll(const WorkUnit *unit, DueList *list)
{
	MemoryContext caller_context = CurrentMemoryContext;
	List         *due = NIL;
	uint64        rows;

	unit->begin();
	rows = statement_run(&ask_view, ARGS(arg_datum(Float8GetDatum(DUE_MAX_MS))));
	take_prospect(list);
	for (uint64 row = 1; row < rows; row++)
	{
		MemoryContext spi_context = MemoryContextSwitchTo(caller_context);
		DueStrategy  *strategy = palloc(sizeof(DueStrategy));

		strategy->id = result_int32(row, 1);
		strategy->name = result_text(row, 2);
		strategy->runs = result_bool(row, 3);
		due = lappend(due, strategy);
		MemoryContextSwitchTo(spi_context);
	}
	SPI_freetuptable(SPI_tuptable);
	unit->commit();
	MemoryContextSwitchTo(caller_context);
	list->strategies = due;
}

/*
 * Logs what came of a run, for people if it is not what came of the one
 * before.
 */
static void
log_run(const DueStrategy *strategy, uint64 row)
{
	bool        is_news = result_bool(row, 8);
	const char *state = result_text(row, 1);

	if (strcmp(state, "failed") == 0)
		ereport(is_news ? WARNING : DEBUG1,
				(errcode(ERRCODE_WARNING),
				 errmsg("strategy \"%s\" failed: %s", strategy->name, result_text(row, 7))));
	else if (strcmp(state, "incomplete") == 0)
		ereport(is_news ? LOG : DEBUG1, (errmsg("strategy \"%s\" waits for " INT64_FORMAT
												" balances that could not be read",
												strategy->name, result_int64(row, 3))));
	ereport(is_news && result_int64(row, 2) > 0 ? LOG : DEBUG1,
			(errmsg("strategy \"%s\": granted " INT64_FORMAT ", matched " INT64_FORMAT
					", already granted " INT64_FORMAT ", capped " INT64_FORMAT
					", balance unknown " INT64_FORMAT,
					strategy->name, result_int64(row, 2), result_int64(row, 4),
					result_int64(row, 5), result_int64(row, 6), result_int64(row, 3))));
}

/*
 * Takes in what came of a firing, the one row that there is.  Returns those
 * that are due after it, allocated in memory; 0: none.
 */
static Datum
take_run(const DueStrategy *strategy, MemoryContext memory, RunResult *result)
{
	char         *state = result_text(0, 1);
	bool          isnull;
	Datum         later = result_datum(0, 9, &isnull);
	MemoryContext caller_context;

	if (state != NULL)
	{
		result->done = true;
		result->granted += result_int64(0, 2);
		result->unknown_balance += result_int64(0, 3);
		if (strcmp(state, "failed") == 0)
		{
			caller_context = MemoryContextSwitchTo(memory);
			result->error = result_text(0, 7);
			MemoryContextSwitchTo(caller_context);
		}
		log_run(strategy, 0);
	}
	if (isnull || ArrayGetNItems(ARR_NDIM(DatumGetArrayTypeP(later)),
								 ARR_DIMS(DatumGetArrayTypeP(later))) == 0)
		return (Datum) 0;
	caller_context = MemoryContextSwitchTo(memory);
	later = datumCopy(later, false, -1);
	MemoryContextSwitchTo(caller_context);
	return later;
}

/*
 * Runs one firing of a strategy in one transaction: the first of those given,
 * 0: of what is due.  Returns those that are due after it; 0: none.  A worker,
 * who has others to run, does not wait for somebody who edits the strategy.
 */
static Datum
run_firing(const WorkUnit *unit, const DueStrategy *strategy, Datum firings, RunResult *result)
{
	MemoryContext caller_context = CurrentMemoryContext;
	Datum         later = (Datum) 0;

	CRASH_POINT(scan_starting);
	unit->begin();
	if (statement_run(&run_strategy, ARGS(arg_int32(strategy->id), {firings, firings == (Datum) 0},
										  arg_bool(unit == &procedure_work_unit))) > 0)
		later = take_run(strategy, caller_context, result);
	SPI_freetuptable(SPI_tuptable);
	CRASH_POINT(scan_committing);
	unit->commit();
	CRASH_POINT(scan_committed);
	MemoryContextSwitchTo(caller_context);
	return later;
}

/* Runs the firings of a strategy that are due, for a while. */
static void
scan_strategy(const WorkUnit *unit, const DueStrategy *strategy, RunResult *result)
{
	MonoTime end = mono_in_ms(STRATEGY_MAX_MS);
	Datum    firings = (Datum) 0;

	do
	{
		Datum later;

		CHECK_FOR_INTERRUPTS();
		later = run_firing(unit, strategy, firings, result);
		if (firings != (Datum) 0)
			pfree(DatumGetPointer(firings));
		firings = later;
	} while (firings != (Datum) 0 && mono_now() < end);
	result->more = firings != (Datum) 0;
	if (!strategy->runs)
		result->done = result->error == NULL;
}

/*
 * Runs one strategy with the balances that are known; the reader gets what is
 * missing. Each firing has a transaction of its own.  After a second the
 * others are left for the next time. What is wrong with the strategy is in
 * result->error, and in the log if it is news; errors raised are of the
 * database as a whole.  Results are in the current memory context, which is
 * left with some garbage.
 */
void
due_run(const WorkUnit *unit, BalanceReader *reader, const DueStrategy *strategy, RunResult *result)
{
	memset(result, 0, sizeof(*result));
	scan_strategy(unit, strategy, result);
	if (result->error != NULL)
		last_error_record(unit, WORK_SCHEDULER,
						  psprintf("strategy \"%s\" failed: %s", strategy->name, result->error));
	if (result->unknown_balance > 0)
		balance_reader_add(reader, strategy->id);
}

/*
 * Records that running one was broken off by an error, so that it waits before
 * it is tried again.  False: it is being edited or run by others, and nothing
 * was recorded.
 */
bool
due_record_failure(const WorkUnit *unit, const DueStrategy *strategy, const char *reason)
{
	MemoryContext caller_context = CurrentMemoryContext;
	bool          recorded;

	unit->begin();
	set_local("lock_timeout", SHORT_LOCK_TIMEOUT);
	recorded = statement_is_true(&write_failure, ARGS(arg_int32(strategy->id), arg_text(reason)));
	unit->commit();
	MemoryContextSwitchTo(caller_context);
	return recorded;
}

/* Lets everything that failed be tried again now. */
void
due_retry_all(const WorkUnit *unit)
{
	MemoryContext caller_context = CurrentMemoryContext;

	unit->begin();
	set_local("lock_timeout", SHORT_LOCK_TIMEOUT);
	(void) statement_run(&end_back_offs, NULL);
	unit->commit();
	MemoryContextSwitchTo(caller_context);
}
