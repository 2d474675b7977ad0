/*
 * statement.h
 *		SQL statements that are prepared once per process.
 *
 * The text of a statement relies on the search_path that work units set:
 * operators and functions are those of pg_catalog, tables are named in full.
 * It calls no code of others: it is run as the owner of the extension.
 */
#ifndef QM_STATEMENT_H
#define QM_STATEMENT_H

#include "postgres.h"

#include "executor/spi.h"

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
	int         nargs;
	Oid         argtypes[STATEMENT_MAX_ARGS];
	SPIPlanPtr  plan; /* NULL until first used; then kept */
} Statement;

/* Sets its plan, for who runs it in another way.  SPI must be connected. */
extern void statement_prepare(Statement *statement);

/*
 * Runs a statement as the owner of the extension, with a snapshot of its own,
 * and returns how many rows it gave; they are in SPI_tuptable, which the caller
 * frees.  nulls as for SPI_execute_plan.  SPI must be connected.
 */
extern uint64 statement_run(Statement *statement, Datum *values, const char *nulls);

/* The same as the current user, for what others may see or have written. */
extern uint64 statement_run_as_user(Statement *statement, Datum *values, const char *nulls);

/*
 * An array of elements of type int4, bool, text or timestamptz, allocated in
 * the current memory context.  nulls tells which are null; NULL: none.
 */
extern Datum array_of(Oid type, Datum *elements, bool *nulls, int count);

/* A column of row i of SPI_tuptable. */
extern Datum result_datum(uint64 i, int column, bool *isnull);

/* The same as text, allocated in memory; NULL for null. */
extern char *result_text(uint64 i, int column, MemoryContext memory);

#endif /* QM_STATEMENT_H */
