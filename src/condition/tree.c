/*
 * tree.c
 *		A condition taken apart, for functions that explain or judge it.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "common/iso_time.h"
#include "condition/condition.h"

PG_FUNCTION_INFO_V1(qm_condition_tree);
PG_FUNCTION_INFO_V1(qm_condition_time);

/* The rows that a tree becomes. */
typedef struct TreeRows
{
	ReturnSetInfo *result;
	int32          last_number; /* of a node, in the order of their beginnings */
	MemoryContext  row_memory;
} TreeRows;

/* The columns of a row. */
enum
{
	TREE_NODE,
	TREE_PARENT,
	TREE_DEPTH,
	TREE_KIND,
	TREE_FUNCTION,
	TREE_ARGUMENTS,
	TREE_TEXT,
	TREE_CALLS,
	TREE_COLUMNS
};

/* How many calls a subtree has. */
static int32
count_calls(const ConditionNode *node)
{
	int32 calls = 0;

	check_stack_depth();
	if (node->kind == CONDITION_CALL)
		return 1;
	for (const ConditionNode *child = node->first; child; child = child->next)
		calls += count_calls(child);
	return calls;
}

/* The arguments of a call as an array of texts. */
static Datum
arguments_of(const ConditionNode *call)
{
	Datum *elements = palloc(sizeof(Datum) * Max(call->count, 1));
	int    count = 0;

	for (const ConditionArgument *argument = call->arguments; argument; argument = argument->next)
		elements[count++] = CStringGetTextDatum(argument->value);
	return PointerGetDatum(construct_array(elements, count, TEXTOID, -1, false, TYPALIGN_INT));
}

/* Writes the row of a node, which has its number already. */
static void
put_node(TreeRows *rows, const ConditionNode *node, int32 parent, int32 depth)
{
	static const char *const kinds[] = {"and", "or", "not", "call"};
	Datum                    values[TREE_COLUMNS] = {0};
	bool                     nulls[TREE_COLUMNS] = {false};
	ConditionError           error = {0};
	MemoryContext            caller = MemoryContextSwitchTo(rows->row_memory);
	char                    *text = condition_print(node, &error);

	/* A part is no longer than the whole, which is within its limit. */
	if (text == NULL)
		condition_raise(&error, "");
	values[TREE_NODE] = Int32GetDatum(rows->last_number);
	values[TREE_PARENT] = Int32GetDatum(parent);
	nulls[TREE_PARENT] = parent == 0;
	values[TREE_DEPTH] = Int32GetDatum(depth);
	values[TREE_KIND] = CStringGetTextDatum(kinds[node->kind]);
	nulls[TREE_FUNCTION] = nulls[TREE_ARGUMENTS] = node->kind != CONDITION_CALL;
	if (node->kind == CONDITION_CALL)
	{
		values[TREE_FUNCTION] = CStringGetTextDatum(node->name);
		values[TREE_ARGUMENTS] = arguments_of(node);
	}
	values[TREE_TEXT] = CStringGetTextDatum(text);
	values[TREE_CALLS] = Int32GetDatum(count_calls(node));
	tuplestore_putvalues(rows->result->setResult, rows->result->setDesc, values, nulls);
	MemoryContextSwitchTo(caller);
	MemoryContextReset(rows->row_memory);
}

/* Writes the rows of a subtree: a node before its parts, and these in order. */
static void
put_tree(TreeRows *rows, const ConditionNode *node, int32 parent, int32 depth)
{
	int32 number = ++rows->last_number;

	check_stack_depth();
	CHECK_FOR_INTERRUPTS();
	put_node(rows, node, parent, depth);
	for (const ConditionNode *child = node->first; child; child = child->next)
		put_tree(rows, child, number, depth + 1);
}

/* condition_tree(condition): its nodes.  Names and types are not looked up. */
Datum
qm_condition_tree(PG_FUNCTION_ARGS)
{
	char          *source = text_to_cstring(PG_GETARG_TEXT_PP(0));
	ConditionError error = {0};
	ConditionNode *node = condition_parse(source, (int) strlen(source), &error);
	TreeRows       rows = {(ReturnSetInfo *) fcinfo->resultinfo};

	if (node == NULL)
		condition_raise(&error, source);
	InitMaterializedSRF(fcinfo, 0);
	rows.row_memory =
		AllocSetContextCreate(CurrentMemoryContext, "row of a tree", ALLOCSET_DEFAULT_SIZES);
	put_tree(&rows, node, 0, 0);
	MemoryContextDelete(rows.row_memory);
	return (Datum) 0;
}

/* condition_time(text): a time as conditions read it; null: it is none. */
Datum
qm_condition_time(PG_FUNCTION_ARGS)
{
	TimestampTz value;

	if (iso_time_read(text_to_cstring(PG_GETARG_TEXT_PP(0)), 0, &value) != 0)
		PG_RETURN_NULL();
	PG_RETURN_TIMESTAMPTZ(value);
}
