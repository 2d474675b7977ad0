/*
 * statement.h
 *		SQL statements that are prepared once per process.
 *
 * The text of a statement relies on the search_path that work units set:
 * operators and functions are those of pg_catalog, tables are named in full.
 * It calls no code of others: it is run as the owner of the extension.
 *
 * SPI must be connected.  What a statement returns is in SPI_tuptable, which is
 * read by the functions result_... and ended by SPI_freetuptable.  Results and
 * arguments are allocated in the current memory context, which is the same
 * afterwards.  Errors are raised.
 */
#ifndef QM_STATEMENT_H
#define QM_STATEMENT_H

#include "postgres.h"

#include "executor/spi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#define STATEMENT_MAX_ARGS 16

/*
 * Of a statement about grants or balances that are given by their keys, where
 * $n are their users.  A table that is spread over parts by user is then only
 * looked at in the parts that have these users; for a plain table, which has
 * the keys, it would be one condition more.
 */
#define OF_USERS(column, n) " AND " column " = ANY ($" #n ")"

/*
 * Around further conditions of such a statement, which begin with AND.  What
 * statistics of a part tell of states that rows have for moments is wrong
 * mostly, and "no row" makes a planner compare each row with each key; of this
 * nothing is known.
 */
#define UNKNOWN_BEGIN " AND CASE WHEN true"
#define UNKNOWN_END " THEN true END"

typedef struct Statement
{
	const char *sql;
	Oid         argtypes[STATEMENT_MAX_ARGS + 1]; /* of $1, $2, ...; ends with InvalidOid */
	SPIPlanPtr  plan;                             /* NULL until first used; then kept */
} Statement;

/* Rows that are given to a statement as its first arguments, an array per column. */
typedef struct RowArrays
{
	int    count;
	int    capacity; /* in rows */
	int    columns;
	Oid    types[STATEMENT_MAX_ARGS]; /* of the elements */
	Datum *values[STATEMENT_MAX_ARGS];
	bool  *nulls[STATEMENT_MAX_ARGS];
} RowArrays;

/* The arguments of a statement, or the columns of a row, in their order. */
#define ARGS(...) ((const NullableDatum[]){__VA_ARGS__})

static inline NullableDatum
arg_datum(Datum value)
{
	return (NullableDatum){value, false};
}

static inline NullableDatum
arg_null(void)
{
	return (NullableDatum){(Datum) 0, true};
}

static inline NullableDatum
arg_int32(int32 value)
{
	return arg_datum(Int32GetDatum(value));
}

static inline NullableDatum
arg_int64(int64 value)
{
	return arg_datum(Int64GetDatum(value));
}

static inline NullableDatum
arg_bool(bool value)
{
	return arg_datum(BoolGetDatum(value));
}

static inline NullableDatum
arg_time(TimestampTz value)
{
	return arg_datum(TimestampTzGetDatum(value));
}

/* NULL is null. */
static inline NullableDatum
arg_text(const char *value)
{
	return value != NULL ? arg_datum(CStringGetTextDatum(value)) : arg_null();
}

extern uint64 statement_run(Statement *statement, const NullableDatum *args);
extern uint64 statement_run_as_user(Statement *statement, const NullableDatum *args);
extern uint64 statement_run_rows(Statement *statement, RowArrays *rows, const NullableDatum *args);
extern bool   statement_is_true(Statement *statement, const NullableDatum *args);
extern Portal statement_open_cursor(Statement *statement, const NullableDatum *args);

extern RowArrays    *rows_create(const Statement *statement);
extern void          rows_add(RowArrays *rows, const NullableDatum *row);
extern NullableDatum rows_column(const RowArrays *rows, int column);

extern Datum       result_datum(uint64 row, int column, bool *isnull);
extern bool        result_is_null(uint64 row, int column);
extern int32       result_int32(uint64 row, int column);
extern int64       result_int64(uint64 row, int column);
extern double      result_double(uint64 row, int column);
extern bool        result_bool(uint64 row, int column);
extern TimestampTz result_time(uint64 row, int column);
extern char       *result_text(uint64 row, int column);

#endif /* QM_STATEMENT_H */
