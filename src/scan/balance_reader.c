/*
 * balance_reader.c
 *		Reads balances that conditions ask for from the gateways, beside other work.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "utils/memutils.h"

#include "common/statement.h"
#include "endpoint/brakes.h"
#include "endpoint/gateway_row.h"
#include "scan/balance_reader.h"
#include "scan/balance_source.h"

/* Users fetched at a time. */
#define FETCH_ROWS 1000

static Statement users_without_balance = {
	"SELECT u.user_id, u.gateway FROM quota_manager.undecided($1) u ORDER BY u.gateway, u.user_id",
	{INT4OID}};

struct BalanceReader
{
	MemoryContext   memory;
	const WorkUnit *unit;
	MemoryContext   rows_memory;
	List           *rows;    /* of GatewayRow */
	List           *sources; /* of BalanceSource */
	Brakes          brakes;
};

/* Makes a reader in the current memory context. */
BalanceReader *
balance_reader_create(const WorkUnit *unit)
{
	MemoryContext memory =
		AllocSetContextCreate(CurrentMemoryContext, "quota_manager reader", ALLOCSET_DEFAULT_SIZES);
	BalanceReader *reader = MemoryContextAllocZero(memory, sizeof(BalanceReader));

	reader->memory = memory;
	reader->unit = unit;
	brakes_init(&reader->brakes, memory);
	return reader;
}

/* Closes its connections and files.  Works after an error, too. */
void
balance_reader_free(BalanceReader *reader)
{
	ListCell *cell;

	sending_end();
	foreach (cell, reader->sources)
		balance_source_reset(lfirst(cell));
	MemoryContextDelete(reader->memory);
}

/* True while something is to be read. */
bool
balance_reader_is_busy(const BalanceReader *reader)
{
	ListCell *cell;

	foreach (cell, reader->sources)
	{
		if (balance_source_is_busy(lfirst(cell)))
			return true;
	}
	return false;
}

/* True if a strategy is being served. */
static bool
is_served(const BalanceReader *reader, int32 strategy_id)
{
	ListCell *cell;

	foreach (cell, reader->sources)
	{
		if (balance_source_serves(lfirst(cell), strategy_id))
			return true;
	}
	return false;
}

/* The row of a gateway among rows; NULL: it is not there. */
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
 * Reads again what is paused, in a transaction.  Runs that need balances of a
 * gateway that is, ask again.
 */
static void
refresh_brakes(BalanceReader *reader)
{
	ListCell *cell;

	brakes_read(&reader->brakes);
	foreach (cell, reader->sources)
	{
		BalanceSource *source = lfirst(cell);

		if (brakes_on_gateway(&reader->brakes, balance_source_name(source)) != NULL)
			balance_source_reset(source);
	}
}

/* Reads the gateways again, in a transaction. */
static void
refresh_gateways(BalanceReader *reader)
{
	MemoryContext memory =
		AllocSetContextCreate(CurrentMemoryContext, "quota_manager gateways", ALLOCSET_SMALL_SIZES);
	List     *rows = gateway_rows_read(memory);
	ListCell *cell;

	MemoryContextSetParent(memory, reader->memory);
	foreach (cell, reader->sources)
		balance_source_set_row(lfirst(cell), row_of(rows, balance_source_name(lfirst(cell))));
	if (reader->rows_memory != NULL)
		MemoryContextDelete(reader->rows_memory);
	reader->rows_memory = memory;
	reader->rows = rows;
}

/* The gateway of a name, ready to take a job; NULL: it cannot be asked now. */
static BalanceSource *
find_source(BalanceReader *reader, const char *name)
{
	BalanceSource *source = NULL;
	ListCell      *cell;

	foreach (cell, reader->sources)
	{
		if (strcmp(balance_source_name(lfirst(cell)), name) == 0)
			source = lfirst(cell);
	}
	if (source == NULL)
	{
		MemoryContext caller = MemoryContextSwitchTo(reader->memory);

		source = balance_source_create(name, reader->unit);
		balance_source_set_row(source, row_of(reader->rows, name));
		reader->sources = lappend(reader->sources, source);
		MemoryContextSwitchTo(caller);
	}
	if (brakes_on_gateway(&reader->brakes, name) != NULL)
		return NULL;
	return balance_source_is_available(source) ? source : NULL;
}

/*
 * Puts the users of SPI_tuptable, in the order of gateways, into jobs.  *job
 * and *gateway are those of the rows before.
 */
static void
spool_users(BalanceReader *reader, int32 strategy_id, BalanceJob **job, char **gateway)
{
	for (uint64 row = 0; row < SPI_processed; row++)
	{
		HeapTuple tuple = SPI_tuptable->vals[row];
		char     *name = SPI_getvalue(tuple, SPI_tuptable->tupdesc, 2);

		if (*gateway == NULL || strcmp(*gateway, name) != 0)
		{
			BalanceSource *source = find_source(reader, name);

			*job = source != NULL ? balance_source_begin_job(source, strategy_id) : NULL;
			*gateway = MemoryContextStrdup(reader->memory, name);
		}
		/* as a copy: a long id may be stored out of line */
		if (*job != NULL)
			balance_job_add(*job, SPI_getvalue(tuple, SPI_tuptable->tupdesc, 1));
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
	BalanceJob   *job = NULL;
	char         *gateway = NULL;
	Portal        portal;

	if (is_served(reader, strategy_id))
		return;
	reader->unit->begin();
	refresh_gateways(reader);
	refresh_brakes(reader);
	portal = statement_open_cursor(&users_without_balance, ARGS(arg_int32(strategy_id)));
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
 * Sends queries, takes answers and stores them, in short transactions.  Waits
 * for answers for at most timeout_ms.
 */
void
balance_reader_step(BalanceReader *reader, int timeout_ms)
{
	MemoryContext caller = CurrentMemoryContext;
	int           active = 0;
	ListCell     *cell;

	if (balance_reader_is_busy(reader) && brakes_are_outdated(&reader->brakes))
	{
		reader->unit->begin();
		refresh_brakes(reader);
		reader->unit->commit();
	}
	foreach (cell, reader->sources)
	{
		balance_source_step(lfirst(cell), &reader->brakes);
		active += balance_source_in_flight(lfirst(cell)) > 0;
	}
	foreach (cell, reader->sources)
		balance_source_poll(lfirst(cell), Max(timeout_ms / Max(active, 1), 1));
	MemoryContextSwitchTo(caller);
}

/* True once if a strategy was made due since the last call. */
bool
balance_reader_made_due(BalanceReader *reader)
{
	bool      result = false;
	ListCell *cell;

	foreach (cell, reader->sources)
		result |= balance_source_made_due(lfirst(cell));
	return result;
}

/* True while answers are awaited, for which balance_reader_step waits. */
bool
balance_reader_in_flight(const BalanceReader *reader)
{
	ListCell *cell;

	foreach (cell, reader->sources)
	{
		if (balance_source_in_flight(lfirst(cell)) > 0)
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
		balance_source_describe(lfirst(cell), &text);
	return text.len > 0 ? text.data : NULL;
}
