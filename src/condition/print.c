/*
 * print.c
 *		Tree of a condition -> canonical text: the functional form, strings
 *		quoted, one blank after a comma.
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "miscadmin.h"

#include "condition/condition.h"

/* Appends a string in quotes. */
static void
print_string(StringInfo out, const char *value)
{
	appendStringInfoChar(out, '"');
	for (; *value; value++)
	{
		if (*value == '"')
			appendStringInfoChar(out, '"');
		appendStringInfoChar(out, *value);
	}
	appendStringInfoChar(out, '"');
}

/* Appends a call with its arguments. */
static void
print_call(StringInfo out, const ConditionNode *call)
{
	appendStringInfo(out, "%s(", call->name);
	for (const ConditionArgument *argument = call->arguments; argument; argument = argument->next)
	{
		if (argument != call->arguments)
			appendStringInfoString(out, ", ");
		if (argument->kind == ARGUMENT_NUMBER)
			appendStringInfoString(out, argument->value);
		else
			print_string(out, argument->value);
	}
	appendStringInfoChar(out, ')');
}

/* Appends a subtree. */
static void
print_node(StringInfo out, const ConditionNode *node)
{
	check_stack_depth();
	if (node->kind == CONDITION_CALL)
	{
		print_call(out, node);
		return;
	}
	appendStringInfoString(out, node->kind == CONDITION_AND  ? "and("
								: node->kind == CONDITION_OR ? "or("
															 : "not(");
	for (const ConditionNode *child = node->first; child; child = child->next)
	{
		if (child != node->first)
			appendStringInfoString(out, ", ");
		print_node(out, child);
	}
	appendStringInfoChar(out, ')');
}

/* The canonical text of a tree; NULL and *error when it is too long. */
char *
condition_print(const ConditionNode *node, ConditionError *error)
{
	StringInfoData out;

	initStringInfo(&out);
	print_node(&out, node);
	if (out.len > CONDITION_MAX_BYTES)
	{
		condition_set_error(error, ERRCODE_INVALID_PARAMETER_VALUE, -1, "condition is too long",
							psprintf("Its canonical form has %d bytes; the limit is %d.", out.len,
									 CONDITION_MAX_BYTES),
							NULL);
		return NULL;
	}
	return out.data;
}
