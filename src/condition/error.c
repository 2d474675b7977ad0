/*
 * error.c
 *		What is wrong with a condition, as a value and as an error.
 */
#include "postgres.h"

#include "mb/pg_wchar.h"

#include "condition/condition.h"

/* How much of a condition an error repeats, in characters before and after the place. */
#define EXCERPT_BEFORE 20
#define EXCERPT_AFTER 40

/* Sets *error. */
void
condition_set_error(ConditionError *error, int sqlerrcode, int offset, char *message, char *detail,
					char *hint)
{
	error->sqlerrcode = sqlerrcode;
	error->offset = offset;
	error->message = message;
	error->detail = detail;
	error->hint = hint;
}

/* Position of *error in characters from 1; 0: none. */
int
condition_error_position(const ConditionError *error, const char *text)
{
	if (error->offset < 0)
		return 0;
	return pg_mbstrlen_with_len(text, error->offset) + 1;
}

/* The text around a place, short enough for an error message. */
static char *
excerpt(const char *text, int offset)
{
	int length = (int) strlen(text);
	int before =
		pg_mbcharcliplen(text, offset, Max(pg_mbstrlen_with_len(text, offset) - EXCERPT_BEFORE, 0));
	int after = pg_mbcharcliplen(text + offset, length - offset, EXCERPT_AFTER);

	return psprintf("%s%s%s", before > 0 ? "..." : "",
					pnstrdup(text + before, offset - before + after),
					offset + after < length ? "..." : "");
}

/* Raises *error, which concerns text, with its position. */
void
condition_raise(const ConditionError *error, const char *text)
{
	char *where = NULL;

	if (error->offset >= 0)
		where = psprintf("At character %d of the condition: %s",
						 condition_error_position(error, text), excerpt(text, error->offset));
	ereport(ERROR, (errcode(error->sqlerrcode), errmsg("%s", error->message),
					where && error->detail ? errdetail("%s %s", error->detail, where)
					: where                ? errdetail("%s", where)
					: error->detail        ? errdetail("%s", error->detail)
										   : 0,
					error->hint ? errhint("%s", error->hint) : 0));
	pg_unreachable();
}
