/*
 * retain.c
 *		CALL quota_manager.retain(): deletes old grants and runs, batch by batch.
 *
 * What may be deleted is decided in sql/parts/retain.sql.  Each batch is a
 * transaction that leaves everything consistent, and what is left is what the
 * next call begins with: nothing is remembered between two calls.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/memutils.h"

#include "common/statement.h"
#include "common/version.h"
#include "common/work_unit.h"

PG_FUNCTION_INFO_V1(qm_retain);

/* As the user: what is not visible does not exist. */
static Statement check_arguments = {"SELECT quota_internal.check_retain($1, $2, $3)",
									{INTERVALOID, TEXTOID, INT4OID}};

static Statement prune = {"SELECT p.strategy_id, p.firing, p.after_grant, p.grants, p.runs, p.kept"
						  " FROM quota_internal.prune_step($1, $2, $3, $4, $5, $6) p",
						  {INTERVALOID, TEXTOID, INT4OID, INT4OID, TIMESTAMPTZOID, INT8OID}};

static Statement find_oldest = {"SELECT quota_internal.oldest_grant($1)", {TEXTOID}};

/* Where the next batch begins. */
typedef struct Position
{
	NullableDatum strategy_id; /* null: at the beginning and at the end */
	NullableDatum firing;
	NullableDatum grant;
} Position;

/* What was deleted, and what was not. */
typedef struct Pruned
{
	int64 grants;
	int64 runs;
	int64 kept;
} Pruned;

/* A value of the row that a statement gave, of a type that is passed by value. */
static NullableDatum
take_value(int column)
{
	NullableDatum value;

	value.value = result_datum(0, column, &value.isnull);
	return value;
}

/* Deletes a batch, in a transaction of its own, and moves on.  False: there is nothing more. */
static bool
prune_batch(NullableDatum keep, NullableDatum name, NullableDatum batch, Position *position,
			Pruned *pruned)
{
	procedure_work_unit.begin();
	statement_run(
		&prune, ARGS(keep, name, batch, position->strategy_id, position->firing, position->grant));
	position->strategy_id = take_value(1);
	position->firing = take_value(2);
	position->grant = take_value(3);
	pruned->grants += result_int64(0, 4);
	pruned->runs += result_int64(0, 5);
	pruned->kept += result_int64(0, 6);
	SPI_freetuptable(SPI_tuptable);
	procedure_work_unit.commit();
	return !position->strategy_id.isnull;
}

/*
 * retain(keep interval, strategy_name text, batch integer, INOUT grants, INOUT
 * runs, INOUT kept, INOUT oldest_left)
 */
Datum
qm_retain(PG_FUNCTION_ARGS)
{
	NullableDatum keep = fcinfo->args[0];
	NullableDatum name = fcinfo->args[1];
	NullableDatum batch = fcinfo->args[2];
	Position      position = {arg_null(), arg_null(), arg_null()};
	Pruned        pruned = {0};
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext memory = AllocSetContextCreate(caller, "retain", ALLOCSET_SMALL_SIZES);
	NullableDatum oldest;
	TupleDesc     descriptor;

	procedure_connect(fcinfo, "retain()");
	require_fitting_extension();
	MemoryContextSwitchTo(memory);
	statement_run_as_user(&check_arguments, ARGS(keep, name, batch));
	SPI_freetuptable(SPI_tuptable);
	while (prune_batch(keep, name, batch, &position, &pruned))
	{
		MemoryContextReset(memory);
		CHECK_FOR_INTERRUPTS();
		leave_dead_server();
	}
	procedure_work_unit.begin();
	statement_run(&find_oldest, ARGS(name));
	oldest = take_value(1);
	SPI_freetuptable(SPI_tuptable);
	procedure_work_unit.commit();
	SPI_finish();

	MemoryContextSwitchTo(caller);
	MemoryContextDelete(memory);
	if (get_call_result_type(fcinfo, NULL, &descriptor) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "retain() does not return a row");
	{
		Datum values[4] = {Int64GetDatum(pruned.grants), Int64GetDatum(pruned.runs),
						   Int64GetDatum(pruned.kept), oldest.value};
		bool  nulls[4] = {false, false, false, oldest.isnull};

		PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(descriptor, values, nulls)));
	}
}
