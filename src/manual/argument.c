/*
 * argument.c
 *		Texts that people give to functions.
 */
#include "postgres.h"

#include "utils/builtins.h"

#include "common/compat.h"
#include "manual/argument.h"

/* As user_id_fits() and require_short() have it. */
#define MAX_BYTES 2600

/*
 * A text argument; NULL if it is null.  An error, which calls it by that name
 * and does not repeat it, if it is longer than a key has room for: it may go
 * into the log, into rows, and to a gateway.
 */
char *
argument_text(FunctionCallInfo fcinfo, int n, const char *name)
{
	text *value;
	int   length;

	if (PG_ARGISNULL(n))
		return NULL;
	value = PG_GETARG_TEXT_PP(n);
	length = VARSIZE_ANY_EXHDR(value);
	if (length > MAX_BYTES)
		ereport(ERROR, (errcode(ERRCODE_STRING_DATA_RIGHT_TRUNCATION),
						errmsg("%s has %d bytes", name, length),
						errdetail("At most %d are possible.", MAX_BYTES)));
	return text_to_cstring(value);
}

/* The same; an error if it is null or empty. */
char *
argument_required_text(FunctionCallInfo fcinfo, int n, const char *name)
{
	char *value = argument_text(fcinfo, n, name);

	if (value == NULL || value[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("%s must be given", name)));
	return value;
}
