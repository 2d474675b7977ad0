/*
 * as_caller.c
 *		Statements that functions of the owner run with the rights of their
 *		caller.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "common/rights.h"

PG_FUNCTION_INFO_V1(qm_require_caller);
PG_FUNCTION_INFO_V1(qm_read_as_caller);
PG_FUNCTION_INFO_V1(qm_run_as_caller);

/* require_caller() */
Datum
qm_require_caller(PG_FUNCTION_ARGS)
{
	rights_require_caller();
	PG_RETURN_VOID();
}

/* The first column of all rows of SPI_tuptable, which has type text. */
static Datum
result_array(MemoryContext memory)
{
	MemoryContext    caller = MemoryContextSwitchTo(memory);
	ArrayBuildState *state = initArrayResult(TEXTOID, memory, false);

	for (uint64 row = 0; row < SPI_processed; row++)
	{
		bool  isnull;
		Datum value = SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, 1, &isnull);

		state = accumArrayResult(state, value, isnull, TEXTOID, memory);
	}
	MemoryContextSwitchTo(caller);
	return makeArrayResult(state, memory);
}

/* read_as_caller(query, argument) */
Datum
qm_read_as_caller(PG_FUNCTION_ARGS)
{
	MemoryContext memory = CurrentMemoryContext;
	Oid           types[] = {TEXTARRAYOID};
	Datum         values[1] = {0};
	char          nulls[1] = {' '};
	char         *query;
	RightsBefore  before;
	Datum         result;
	int           code;

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	query = text_to_cstring(PG_GETARG_TEXT_PP(0));
	if (PG_ARGISNULL(1))
		nulls[0] = 'n';
	else
		values[0] = PG_GETARG_DATUM(1);
	SPI_connect();
	rights_become_caller(&before);
	code = SPI_execute_with_args(query, 1, types, values, nulls, false, 0);
	rights_restore(&before);
	if (code != SPI_OK_SELECT || SPI_gettypeid(SPI_tuptable->tupdesc, 1) != TEXTOID)
		elog(ERROR, "not a query for texts: %s", query);
	result = result_array(memory);
	SPI_finish();
	PG_RETURN_DATUM(result);
}

/* run_as_caller(statement) */
Datum
qm_run_as_caller(PG_FUNCTION_ARGS)
{
	char        *statement = text_to_cstring(PG_GETARG_TEXT_PP(0));
	RightsBefore before;
	int          code;

	SPI_connect();
	rights_become_caller(&before);
	code = SPI_execute(statement, false, 0);
	rights_restore(&before);
	if (code < 0)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("the statement cannot be run here: %s", SPI_result_code_string(code))));
	SPI_finish();
	PG_RETURN_VOID();
}
