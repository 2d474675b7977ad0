/*
 * tick.c
 *		Runs strategies that are due: reads the balances that their
 *		conditions need, then scans.
 */
#include "postgres.h"

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
#include "delivery/trouble.h"
#include "worker/tick.h"

/* How many balances are asked for at a time, and rows fetched at a time. */
#define BALANCE_BATCH 10000
#define FETCH_BATCH 1000

/*
 * Column of the current SPI row, which is never null there, as a number.
 */
static int64
number_column(uint64 row, int column)
{
	bool  isnull;
	Datum value = SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column, &isnull);

	if (isnull)
		return 0;
	return SPI_gettypeid(SPI_tuptable->tupdesc, column) == INT4OID ? DatumGetInt32(value)
																   : DatumGetInt64(value);
}

/*
 * See tick.h.  Strategies whose conditions ask for no balance come first: a
 * gateway that hangs is not to hold them up.
 */
List *
due_strategies(const WorkUnit *unit, bool singles)
{
	static const char *const query =
		"SELECT s.id, s.version, s.type, s.name"
		" FROM quota_manager.quota_strategy s"
		" WHERE s.id IN (SELECT d.strategy_id FROM quota_manager.due_strategies($1) d)"
		" ORDER BY position('quota-le' IN s.condition::text) > 0, s.id";
	MemoryContext caller_context = CurrentMemoryContext;
	Oid           types[] = {BOOLOID};
	Datum         values[] = {BoolGetDatum(singles)};
	List         *result = NIL;
	int           rc;

	unit->begin();
	rc = SPI_execute_with_args(query, 1, types, values, NULL, false, 0);
	if (rc != SPI_OK_SELECT)
		elog(ERROR, "could not list due strategies: %s", SPI_result_code_string(rc));
	for (uint64 row = 0; row < SPI_processed; row++)
	{
		MemoryContext spi_context = MemoryContextSwitchTo(caller_context);
		DueStrategy  *strategy = palloc(sizeof(DueStrategy));

		strategy->id = number_column(row, 1);
		strategy->version = number_column(row, 2);
		strategy->single =
			strcmp(SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, 3), "single") == 0;
		strategy->name = SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, 4);
		result = lappend(result, strategy);
		MemoryContextSwitchTo(spi_context);
	}
	SPI_freetuptable(SPI_tuptable);
	unit->commit();
	MemoryContextSwitchTo(caller_context);
	return result;
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
 * Scans one strategy in one transaction.
 */
static void
scan_strategy(const WorkUnit *unit, const DueStrategy *strategy, TickResult *result)
{
	static const char *const query =
		"SELECT s.granted, s.unknown_balance, s.matched, s.already_granted, s.capped, s.error"
		" FROM quota_manager.scan($1) s";
	MemoryContext caller_context = CurrentMemoryContext;
	Oid           types[] = {TEXTOID};
	Datum         values[1];
	int64         matched = 0;
	int64         already_granted = 0;
	int64         capped = 0;
	int           rc;

	CRASH_POINT(scan_starting);
	unit->begin();
	values[0] = CStringGetTextDatum(strategy->name);
	rc = SPI_execute_with_args(query, 1, types, values, NULL, false, 0);
	if (rc != SPI_OK_SELECT)
		elog(ERROR, "could not scan: %s", SPI_result_code_string(rc));
	for (uint64 row = 0; row < SPI_processed; row++)
	{
		MemoryContext spi_context;
		char         *error;

		result->granted += number_column(row, 1);
		result->unknown_balance += number_column(row, 2);
		matched += number_column(row, 3);
		already_granted += number_column(row, 4);
		capped += number_column(row, 5);

		spi_context = MemoryContextSwitchTo(caller_context);
		error = SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, 6);
		if (error != NULL)
			result->error = error;
		MemoryContextSwitchTo(spi_context);
	}
	SPI_freetuptable(SPI_tuptable);
	CRASH_POINT(scan_committing);
	unit->commit();
	CRASH_POINT(scan_committed);
	MemoryContextSwitchTo(caller_context);

	ereport(result->granted > 0 ? LOG : DEBUG1,
			(errmsg("strategy \"%s\": granted " INT64_FORMAT ", matched " INT64_FORMAT
					", already granted " INT64_FORMAT ", capped " INT64_FORMAT
					", balance unknown " INT64_FORMAT,
					strategy->name, result->granted, matched, already_granted, capped,
					result->unknown_balance)));
}

/*
 * See tick.h.
 */
bool
tick_strategy(const WorkUnit *unit, Courier *courier, const DueStrategy *strategy,
			  volatile sig_atomic_t *stop, TickResult *result)
{
	memset(result, 0, sizeof(*result));
	read_balances(unit, courier, strategy, stop);
	if (stop && *stop)
		return false;
	scan_strategy(unit, strategy, result);
	if (result->error != NULL)
		trouble_note(unit, TROUBLE_SCHEDULER,
					 psprintf("strategy \"%s\" failed: %s", strategy->name, result->error));
	return true;
}
