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
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "common/text_type.h"
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

/* Text input. */
Datum
qm_condition_in(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(canonical(PG_GETARG_CSTRING(0)));
}

/* Text output: the canonical text as it is stored. */
Datum
qm_condition_out(PG_FUNCTION_ARGS)
{
	return text_type_out(fcinfo);
}

/* Binary input: the same text as the text input takes. */
Datum
qm_condition_recv(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(canonical(text_type_received(fcinfo)));
}

/* Binary output: the canonical text. */
Datum
qm_condition_send(PG_FUNCTION_ARGS)
{
	return text_type_send(fcinfo);
}
