/*
 * statement.c
 *		SQL statements that are prepared once per process.
 */
#include "postgres.h"

#include "utils/lsyscache.h"

#include "common/rights.h"
#include "common/statement.h"

/* How many arguments a statement has. */
static int
arg_count(const Statement *statement)
{
	int count = 0;

	while (OidIsValid(statement->argtypes[count]))
		count++;
	return count;
}

/* Sets the statement's plan. */
static void
prepare(Statement *statement)
{
	SPIPlanPtr plan;

	if (statement->plan != NULL)
		return;
	plan = SPI_prepare(statement->sql, arg_count(statement), statement->argtypes);
	if (plan == NULL)
		elog(ERROR, "could not prepare a statement: %s", SPI_result_code_string(SPI_result));
	if (SPI_keepplan(plan) != 0)
		elog(ERROR, "could not keep a statement");
	statement->plan = plan;
}

/* Writes arguments in the way that SPI takes them. */
static void
split_args(const NullableDatum *args, int count, Datum *values, char *nulls)
{
	for (int i = 0; i < count; i++)
	{
		values[i] = args[i].value;
		nulls[i] = args[i].isnull ? 'n' : ' ';
	}
}

/*
 * Runs a statement as the current user, for what others may see or have
 * written, with a snapshot of its own, and returns how many rows it gave.
 */
uint64
statement_run_as_user(Statement *statement, const NullableDatum *args)
{
	/* SPI leaves its own behind, which lives as long as a procedure runs */
	MemoryContext caller = CurrentMemoryContext;
	Datum         values[STATEMENT_MAX_ARGS];
	char          nulls[STATEMENT_MAX_ARGS];
	int           result;

	prepare(statement);
	split_args(args, arg_count(statement), values, nulls);
	result = SPI_execute_plan(statement->plan, values, nulls, false, 0);
	if (result < 0)
		elog(ERROR, "could not run a statement: %s", SPI_result_code_string(result));
	MemoryContextSwitchTo(caller);
	return SPI_processed;
}

/* The same as the owner of the extension. */
uint64
statement_run(Statement *statement, const NullableDatum *args)
{
	RightsBefore before;
	uint64       rows;

	rights_become_owner(&before);
	rows = statement_run_as_user(statement, args);
	rights_restore(&before);
	return rows;
}

/* The same for a statement whose first arguments are rows; args are the others. */
uint64
statement_run_rows(Statement *statement, RowArrays *rows, const NullableDatum *args)
{
	NullableDatum all[STATEMENT_MAX_ARGS];
	int           others = arg_count(statement) - rows->columns;

	for (int i = 0; i < rows->columns; i++)
		all[i] = rows_column(rows, i);
	if (others > 0)
		memcpy(&all[rows->columns], args, sizeof(NullableDatum) * others);
	return statement_run(statement, all);
}

/*
 * Runs a statement as the owner that returns one value.  False: it is false or
 * null, or there is no row.
 */
bool
statement_is_true(Statement *statement, const NullableDatum *args)
{
	bool is_true = statement_run(statement, args) > 0 && result_bool(0, 1);

	SPI_freetuptable(SPI_tuptable);
	return is_true;
}

/* Opens a cursor for a statement, as the current user. */
Portal
statement_open_cursor(Statement *statement, const NullableDatum *args)
{
	MemoryContext caller = CurrentMemoryContext;
	Datum         values[STATEMENT_MAX_ARGS];
	char          nulls[STATEMENT_MAX_ARGS];
	Portal        cursor;

	prepare(statement);
	split_args(args, arg_count(statement), values, nulls);
	cursor = SPI_cursor_open(NULL, statement->plan, values, nulls, false);
	MemoryContextSwitchTo(caller);
	return cursor;
}

/*
 * Makes rows for a statement, as yet none; their columns are its first arguments
 * that are arrays.
 */
RowArrays *
rows_create(const Statement *statement)
{
	RowArrays *rows = palloc0(sizeof(RowArrays));
	Oid        type;

	rows->capacity = 64;
	while ((type = get_element_type(statement->argtypes[rows->columns])) != InvalidOid)
	{
		rows->types[rows->columns] = type;
		rows->values[rows->columns] = palloc(sizeof(Datum) * rows->capacity);
		rows->nulls[rows->columns++] = palloc(sizeof(bool) * rows->capacity);
	}
	return rows;
}

/* Adds a row.  What its values point to must last until the statement is run. */
void
rows_add(RowArrays *rows, const NullableDatum *row)
{
	if (rows->count == rows->capacity)
	{
		rows->capacity *= 2;
		for (int i = 0; i < rows->columns; i++)
		{
			rows->values[i] = repalloc(rows->values[i], sizeof(Datum) * rows->capacity);
			rows->nulls[i] = repalloc(rows->nulls[i], sizeof(bool) * rows->capacity);
		}
	}
	for (int i = 0; i < rows->columns; i++)
	{
		rows->values[i][rows->count] = row[i].value;
		rows->nulls[i][rows->count] = row[i].isnull;
	}
	rows->count++;
}

/* A column of the rows as an array, counted from 0. */
NullableDatum
rows_column(const RowArrays *rows, int column)
{
	int   count = rows->count;
	int   low = 1;
	int16 length;
	bool  by_value;
	char  align;

	if (count == 0)
		return arg_datum(PointerGetDatum(construct_empty_array(rows->types[column])));
	get_typlenbyvalalign(rows->types[column], &length, &by_value, &align);
	return arg_datum(
		PointerGetDatum(construct_md_array(rows->values[column], rows->nulls[column], 1, &count,
										   &low, rows->types[column], length, by_value, align)));
}

/* A column, counted from 1, of a row of SPI_tuptable, counted from 0. */
Datum
result_datum(uint64 row, int column, bool *isnull)
{
	return SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column, isnull);
}

/* The same for columns of one type; null is 0, false or NULL. */
bool
result_is_null(uint64 row, int column)
{
	bool isnull;

	(void) result_datum(row, column, &isnull);
	return isnull;
}

int32
result_int32(uint64 row, int column)
{
	bool isnull;

	return DatumGetInt32(result_datum(row, column, &isnull));
}

int64
result_int64(uint64 row, int column)
{
	bool  isnull;
	Datum value = result_datum(row, column, &isnull);

	return isnull ? 0 : DatumGetInt64(value);
}

double
result_double(uint64 row, int column)
{
	bool  isnull;
	Datum value = result_datum(row, column, &isnull);

	return isnull ? 0 : DatumGetFloat8(value);
}

bool
result_bool(uint64 row, int column)
{
	bool isnull;

	return DatumGetBool(result_datum(row, column, &isnull));
}

TimestampTz
result_time(uint64 row, int column)
{
	bool  isnull;
	Datum value = result_datum(row, column, &isnull);

	return isnull ? 0 : DatumGetTimestampTz(value);
}

char *
result_text(uint64 row, int column)
{
	bool  isnull;
	Datum value = result_datum(row, column, &isnull);

	return isnull ? NULL : TextDatumGetCString(value);
}
