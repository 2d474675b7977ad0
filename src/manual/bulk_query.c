/*
 * bulk_query.c
 *		The query that says what a bulk call sends.
 */
#include "postgres.h"

#include "executor/spi.h"

#include "manual/bulk_query.h"
#include "manual/bulk_rows.h"

/* Rows taken at once from the query. */
#define FETCH_ROWS 1000

/* As require_short() has it: what may go into a key, the log, and to a gateway. */
#define MAX_BYTES 2600

/* A column of a row of SPI_tuptable as text; an error if it is missing or too long. */
static char *
required_value(uint64 row, int column, const char *name, int number)
{
	char  *value = SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column);
	size_t length = value != NULL ? strlen(value) : 0;

	if (length == 0)
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						errmsg("row %d of the query has no %s", number, name),
						errdetail("Each row is user_id, value and reason.")));
	if (length > MAX_BYTES)
		ereport(ERROR, (errcode(ERRCODE_STRING_DATA_RIGHT_TRUNCATION),
						errmsg("the %s in row %d of the query has %zu bytes", name, number, length),
						errdetail("At most %d are possible.", MAX_BYTES)));
	return value;
}

/* Opens the query as the current user. */
static Portal
open_query(const char *query)
{
	SPIPlanPtr plan = SPI_prepare(query, 0, NULL);
	Portal     portal;

	if (plan == NULL || !SPI_is_cursor_plan(plan))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("the query of bulk_delta() is no query"),
						errhint("Write one SELECT of user_id, value and reason.")));
	portal = SPI_cursor_open(NULL, plan, NULL, NULL, false);
	if (portal->tupDesc->natts != 3)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("the query of bulk_delta() has %d columns", portal->tupDesc->natts),
						errhint("Write a SELECT of user_id, value and reason.")));
	return portal;
}

/*
 * Runs the query with the rights and settings of the session and returns its
 * rows, in the current memory context.
 */
RowArrays *
bulk_query_read(const char *query)
{
	RowArrays *rows = bulk_rows_create();
	Portal     portal = open_query(query);

	do
	{
		SPI_cursor_fetch(portal, true, FETCH_ROWS);
		for (uint64 row = 0; row < SPI_processed; row++)
		{
			int   number = rows->count + 1;
			char *user_id = required_value(row, 1, "user_id", number);
			char *amount = required_value(row, 2, "value", number);
			char *reason = required_value(row, 3, "reason", number);

			bulk_rows_add(rows, user_id, call_amount(amount), reason);
			pfree(user_id);
			pfree(amount);
			pfree(reason);
		}
		SPI_freetuptable(SPI_tuptable);
	} while (SPI_processed > 0);
	SPI_cursor_close(portal);
	return rows;
}
