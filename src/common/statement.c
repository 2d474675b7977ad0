/*
 * statement.c
 *		SQL statements that are prepared once per process.
 */
#include "postgres.h"

#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "common/rights.h"
#include "common/statement.h"

void
statement_prepare(Statement *statement)
{
	SPIPlanPtr plan;

	if (statement->plan != NULL)
		return;
	plan = SPI_prepare(statement->sql, statement->nargs, statement->argtypes);
	if (plan == NULL)
		elog(ERROR, "could not prepare a statement: %s", SPI_result_code_string(SPI_result));
	if (SPI_keepplan(plan) != 0)
		elog(ERROR, "could not keep a statement");
	statement->plan = plan;
}

/*
 * SPI leaves its own memory context behind, which lives as long as a procedure
 * runs.
 */
uint64
statement_run_as_user(Statement *statement, Datum *values, const char *nulls)
{
	MemoryContext caller = CurrentMemoryContext;
	int           result;

	statement_prepare(statement);
	result = SPI_execute_plan(statement->plan, values, nulls, false, 0);
	if (result < 0)
		elog(ERROR, "could not run a statement: %s", SPI_result_code_string(result));
	MemoryContextSwitchTo(caller);
	return SPI_processed;
}

uint64
statement_run(Statement *statement, Datum *values, const char *nulls)
{
	RightsBefore before;
	uint64       rows;

	rights_become_owner(&before);
	rows = statement_run_as_user(statement, values, nulls);
	rights_restore(&before);
	return rows;
}

Datum
array_of(Oid type, Datum *elements, bool *nulls, int count)
{
	int   dims[1] = {count};
	int   lower_bounds[1] = {1};
	int16 length;
	bool  by_value;
	char  align;

	get_typlenbyvalalign(type, &length, &by_value, &align);
	return PointerGetDatum(
		construct_md_array(elements, nulls, 1, dims, lower_bounds, type, length, by_value, align));
}

Datum
result_datum(uint64 i, int column, bool *isnull)
{
	return SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, column, isnull);
}

char *
result_text(uint64 i, int column, MemoryContext memory)
{
	bool          isnull;
	Datum         value = result_datum(i, column, &isnull);
	MemoryContext caller;
	char         *copy;

	if (isnull)
		return NULL;
	caller = MemoryContextSwitchTo(memory);
	copy = TextDatumGetCString(value);
	MemoryContextSwitchTo(caller);
	return copy;
}
