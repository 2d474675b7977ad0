/*
 * tick.c
 *		Runs strategies that are due: reads the balances that their
 *		conditions need, then scans.
 */
#include "postgres.h"

#include <math.h>

#include "access/heaptoast.h"
#include "access/htup_details.h"
#include "access/tupdesc.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/tuplestore.h"

#include "common/crash_point.h"
#include "delivery/statement.h"
#include "delivery/trouble.h"
#include "worker/tick.h"

/* How many balances are asked for at a time, and rows fetched at a time. */
#define BALANCE_BATCH 10000
#define FETCH_BATCH 1000

/* Nothing needs to be looked for later than this. */
#define LOOK_MAX_MS (60 * 60 * 1000)

/*
 * The first row tells when to look again, the others what is due.  A look
 * that comes a moment too early comes again.  A view finds its tables also
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
	" UNION ALL SELECT r.* FROM (SELECT d.strategy_id, d.name, bool_or(d.state = 'due'),"
	" null::float8, null::bool, null::bool"
	" FROM d WHERE d.state = 'due' OR d.state = 'recording' AND d.due_time <= clock_timestamp()"
	" GROUP BY 1, 2 ORDER BY min(d.due_time), 1) r",
	1,
	{FLOAT8OID},
	NULL};

static Statement run_strategy = {
	"SELECT r.state, r.granted, r.unknown_balance, r.matched, r.already_granted, r.capped,"
	" r.reason, r.is_news FROM quota_manager.run_due($1) r",
	1,
	{INT4OID},
	NULL};

static Statement write_failure = {
	"SELECT quota_manager.record_failure($1, $2)", 2, {INT4OID, TEXTOID}, NULL};

static Statement end_back_offs = {"SELECT quota_manager.end_back_offs()", 0, {0}, NULL};

/*
 * Column of a row of SPI_tuptable, which is never null there, as a number.
 */
static int64
number_column(uint64 row, int column)
{
	bool  isnull;
	Datum value = result_datum(row, column, &isnull);

	return isnull ? 0 : DatumGetInt64(value);
}

/*
 * Takes in the row that tells when to look again.
 */
static void
take_prospect(DueLook *look)
{
	bool  isnull;
	Datum value = result_datum(0, 4, &isnull);

	look->next = mono_in_ms(isnull ? LOOK_MAX_MS : (int64) ceil(Max(DatumGetFloat8(value), 0)));
	value = result_datum(0, 5, &isnull);
	look->trouble = DatumGetBool(value);
	value = result_datum(0, 6, &isnull);
	look->enabled = DatumGetBool(value);
}

/*
 * See tick.h.
 */
void
look_for_due(const WorkUnit *unit, DueLook *look)
{
	MemoryContext caller_context = CurrentMemoryContext;
	Datum         values[] = {Float8GetDatum(LOOK_MAX_MS)};
	List         *due = NIL;
	uint64        rows;

	unit->begin();
	rows = statement_run(&ask_view, values, NULL);
	take_prospect(look);
	for (uint64 row = 1; row < rows; row++)
	{
		MemoryContext spi_context = MemoryContextSwitchTo(caller_context);
		DueStrategy  *strategy = palloc(sizeof(DueStrategy));
		bool          isnull;

		strategy->id = DatumGetInt32(result_datum(row, 1, &isnull));
		strategy->name = result_text(row, 2, caller_context);
		strategy->runs = DatumGetBool(result_datum(row, 3, &isnull));
		due = lappend(due, strategy);
		MemoryContextSwitchTo(spi_context);
	}
	SPI_freetuptable(SPI_tuptable);
	unit->commit();
	MemoryContextSwitchTo(caller_context);
	look->due = due;
}

/* Pairs of user and gateway that outlive the transaction they were found in. */
typedef struct BalanceSpool
{
	Tuplestorestate *store; /* NULL: there are none */
	TupleDesc        tupdesc;
} BalanceSpool;

/*
 * Fills the spool from the function undecided(), in the transaction that is
 * open.
 */
static void
fetch_undecided(const DueStrategy *strategy, BalanceSpool *spool, MemoryContext spool_context)
{
	Oid    types[] = {INT4OID};
	Datum  values[] = {Int32GetDatum(strategy->id)};
	Portal portal;

	portal = SPI_cursor_open_with_args(
		NULL, "SELECT u.user_id, u.gateway FROM quota_manager.undecided($1) u", 1, types, values,
		NULL, false, CURSOR_OPT_NO_SCROLL);
	for (;;)
	{
		CHECK_FOR_INTERRUPTS();
		SPI_cursor_fetch(portal, true, FETCH_BATCH);
		if (SPI_processed == 0)
			break;
		if (spool->store == NULL)
		{
			MemoryContext spi_context = MemoryContextSwitchTo(spool_context);

			spool->tupdesc = CreateTupleDescCopy(SPI_tuptable->tupdesc);
			spool->store = tuplestore_begin_heap(false, true, work_mem);
			MemoryContextSwitchTo(spi_context);
		}
		for (uint64 row = 0; row < SPI_processed; row++)
		{
			HeapTuple tuple = SPI_tuptable->vals[row];

			/* an id may be so long that the row only refers to it */
			if (HeapTupleHasExternal(tuple))
				tuple = toast_flatten_tuple(tuple, SPI_tuptable->tupdesc);
			tuplestore_puttuple(spool->store, tuple);
			if (tuple != SPI_tuptable->vals[row])
				heap_freetuple(tuple);
		}
		SPI_freetuptable(SPI_tuptable);
	}
	SPI_cursor_close(portal);
}

/*
 * Finds out, in one transaction, which balances a strategy needs.  They are
 * spooled within work_mem, since there may be one per user.  An error is left
 * for the scan to meet again: there it is recorded with the strategy and does
 * not stop the others.
 */
static void
spool_undecided(const WorkUnit *unit, const DueStrategy *strategy, BalanceSpool *spool)
{
	MemoryContext caller_context = CurrentMemoryContext;
	MemoryContext transaction_context;
	ResourceOwner transaction_owner;

	unit->begin();
	transaction_context = CurrentMemoryContext;
	transaction_owner = CurrentResourceOwner;
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(transaction_context);
	PG_TRY();
	{
		fetch_undecided(strategy, spool, caller_context);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		ErrorData *error;

		MemoryContextSwitchTo(transaction_context);
		error = CopyErrorData();
		if (error->sqlerrcode == ERRCODE_QUERY_CANCELED)
			PG_RE_THROW();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		if (spool->store != NULL)
			tuplestore_end(spool->store);
		spool->store = NULL;
		ereport(DEBUG1,
				(errmsg_internal("strategy \"%s\": could not find out which balances to read: %s",
								 strategy->name, error->message)));
		FreeErrorData(error);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(transaction_context);
	CurrentResourceOwner = transaction_owner;
	unit->commit();
	MemoryContextSwitchTo(caller_context);
}

/*
 * Asks for the spooled balances, a batch at a time, with no transaction open.
 * Where no gateway answers for a batch, none would for the others.
 */
static void
read_spooled_balances(Courier *courier, const BalanceSpool *spool, volatile sig_atomic_t *stop)
{
	MemoryContext caller_context = CurrentMemoryContext;
	MemoryContext batch_context =
		AllocSetContextCreate(caller_context, "quota_manager balances", ALLOCSET_DEFAULT_SIZES);
	TupleTableSlot *slot = MakeSingleTupleTableSlot(spool->tupdesc, &TTSOpsMinimalTuple);
	bool            more = true;

	while (more && !(stop && *stop))
	{
		List *requests = NIL;

		MemoryContextSwitchTo(batch_context);
		while (list_length(requests) < BALANCE_BATCH &&
			   (more = tuplestore_gettupleslot(spool->store, true, false, slot)))
		{
			BalanceRequest *request;
			bool            isnull;

			slot_getallattrs(slot);
			if (slot->tts_isnull[0] || slot->tts_isnull[1])
				continue;
			request = palloc(sizeof(BalanceRequest));
			request->user_id = TextDatumGetCString(slot_getattr(slot, 1, &isnull));
			request->gateway = TextDatumGetCString(slot_getattr(slot, 2, &isnull));
			requests = lappend(requests, request);
		}
		if (requests != NIL && !courier_read_balances(courier, requests, stop))
			more = false;
		MemoryContextSwitchTo(caller_context);
		MemoryContextReset(batch_context);
	}
	ExecDropSingleTupleTableSlot(slot);
	MemoryContextDelete(batch_context);
}

/*
 * Reads the balances that the strategy's condition needs and that are not
 * known.
 */
static void
read_balances(const WorkUnit *unit, Courier *courier, const DueStrategy *strategy,
			  volatile sig_atomic_t *stop)
{
	/* A spool that was not ended would leave its temporary file open. */
	BalanceSpool *spool = palloc0(sizeof(BalanceSpool));

	PG_TRY();
	{
		spool_undecided(unit, strategy, spool);
		if (spool->store != NULL)
			read_spooled_balances(courier, spool, stop);
	}
	PG_FINALLY();
	{
		if (spool->store != NULL)
			tuplestore_end(spool->store);
	}
	PG_END_TRY();
}

/*
 * Logs what came of a run, for people if it is not what came of the one
 * before.
 */
static void
log_run(const DueStrategy *strategy, uint64 row)
{
	bool        isnull;
	bool        is_news = DatumGetBool(result_datum(row, 8, &isnull));
	const char *state = result_text(row, 1, CurrentMemoryContext);

	if (strcmp(state, "failed") == 0)
		ereport(is_news ? WARNING : DEBUG1,
				(errcode(ERRCODE_WARNING), errmsg("strategy \"%s\" failed: %s", strategy->name,
												  result_text(row, 7, CurrentMemoryContext))));
	else if (strcmp(state, "incomplete") == 0)
		ereport(is_news ? LOG : DEBUG1, (errmsg("strategy \"%s\" waits for " INT64_FORMAT
												" balances that could not be read",
												strategy->name, number_column(row, 3))));
	ereport(is_news && number_column(row, 2) > 0 ? LOG : DEBUG1,
			(errmsg("strategy \"%s\": granted " INT64_FORMAT ", matched " INT64_FORMAT
					", already granted " INT64_FORMAT ", capped " INT64_FORMAT
					", balance unknown " INT64_FORMAT,
					strategy->name, number_column(row, 2), number_column(row, 4),
					number_column(row, 5), number_column(row, 6), number_column(row, 3))));
}

/*
 * Runs one strategy in one transaction.
 */
static void
scan_strategy(const WorkUnit *unit, const DueStrategy *strategy, TickResult *result)
{
	MemoryContext caller_context = CurrentMemoryContext;
	Datum         values[] = {Int32GetDatum(strategy->id)};
	uint64        rows;

	CRASH_POINT(scan_starting);
	unit->begin();
	rows = statement_run(&run_strategy, values, NULL);
	for (uint64 row = 0; row < rows; row++)
	{
		char *state = result_text(row, 1, CurrentMemoryContext);

		result->granted += number_column(row, 2);
		result->unknown_balance += number_column(row, 3);
		if (strcmp(state, "failed") == 0)
			result->error = result_text(row, 7, caller_context);
		log_run(strategy, row);
	}
	result->done = strategy->runs ? rows > 0 : result->error == NULL;
	SPI_freetuptable(SPI_tuptable);
	CRASH_POINT(scan_committing);
	unit->commit();
	CRASH_POINT(scan_committed);
	MemoryContextSwitchTo(caller_context);
}

/*
 * See tick.h.
 */
bool
tick_strategy(const WorkUnit *unit, Courier *courier, const DueStrategy *strategy,
			  volatile sig_atomic_t *stop, TickResult *result)
{
	memset(result, 0, sizeof(*result));
	if (strategy->runs)
		read_balances(unit, courier, strategy, stop);
	if (stop && *stop)
		return false;
	scan_strategy(unit, strategy, result);
	if (result->error != NULL)
		trouble_note(unit, TROUBLE_SCHEDULER,
					 psprintf("strategy \"%s\" failed: %s", strategy->name, result->error));
	return true;
}

/*
 * See tick.h.
 */
void
record_failure(const WorkUnit *unit, const DueStrategy *strategy, const char *reason)
{
	MemoryContext caller_context = CurrentMemoryContext;
	Datum         values[2];

	unit->begin();
	set_local("lock_timeout", "100ms");
	values[0] = Int32GetDatum(strategy->id);
	values[1] = CStringGetTextDatum(reason);
	(void) statement_run(&write_failure, values, NULL);
	unit->commit();
	MemoryContextSwitchTo(caller_context);
}

/*
 * See tick.h.
 */
void
retry_all(const WorkUnit *unit)
{
	MemoryContext caller_context = CurrentMemoryContext;

	unit->begin();
	set_local("lock_timeout", "100ms");
	(void) statement_run(&end_back_offs, NULL, NULL);
	unit->commit();
	MemoryContextSwitchTo(caller_context);
}
