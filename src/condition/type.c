/*
 * type.c
 *		The type condition: input and output.
 *
 * The input checks syntax and limits only.  Reading the catalogue here could
 * lose a whole table on restore; names and types are checked when a strategy
 * is written and when the condition is compiled.
 */
#include "postgres.h"

#include "fmgr.h"
#include "libpq/pqformat.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "common/compat.h"
#include "condition/condition.h"

PG_FUNCTION_INFO_V1(qm_condition_in);
PG_FUNCTION_INFO_V1(qm_condition_out);
PG_FUNCTION_INFO_V1(qm_condition_recv);
PG_FUNCTION_INFO_V1(qm_condition_send);

/*
 * The canonical text of a condition, in a scratch context of its own: the
 * tree of a long text is many times its size.
 */
static text *
canonical(const char *source)
{
	ConditionError error = {0};
	MemoryContext  scratch =
		AllocSetContextCreate(CurrentMemoryContext, "condition input", ALLOCSET_DEFAULT_SIZES);
	MemoryContext  caller = MemoryContextSwitchTo(scratch);
	ConditionNode *node = condition_parse(source, (int) strlen(source), &error);
	char          *out = node ? condition_print(node, &error) : NULL;
	text          *result;

	if (out == NULL)
		condition_raise(&error, source);
	MemoryContextSwitchTo(caller);
	result = cstring_to_text(out);
	MemoryContextDelete(scratch);
	return result;
}

/*
 * Text input.
 */
Datum
qm_condition_in(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(canonical(PG_GETARG_CSTRING(0)));
}

/*
 * Text output: the canonical text as it is stored.
 */
Datum
qm_condition_out(PG_FUNCTION_ARGS)
{
	PG_RETURN_CSTRING(TextDatumGetCString(PG_GETARG_DATUM(0)));
}

/*
 * Binary input: the same text as the text input takes.
 */
Datum
qm_condition_recv(PG_FUNCTION_ARGS)
{
	StringInfo buffer = (StringInfo) PG_GETARG_POINTER(0);
	int        length;
	char      *source = pq_getmsgtext(buffer, buffer->len - buffer->cursor, &length);

	PG_RETURN_TEXT_P(canonical(source));
}

/*
 * Binary output: the canonical text.
 */
Datum
qm_condition_send(PG_FUNCTION_ARGS)
{
	text          *value = PG_GETARG_TEXT_PP(0);
	StringInfoData buffer;

	pq_begintypsend(&buffer);
	pq_sendtext(&buffer, VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value));
	PG_RETURN_BYTEA_P(pq_endtypsend(&buffer));
}
