/*
 * check.c
 *		Conditions checked whole: syntax, names and types.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "condition/condition.h"
#include "condition/names.h"

PG_FUNCTION_INFO_V1(qm_check_condition);
PG_FUNCTION_INFO_V1(qm_require_condition);
PG_FUNCTION_INFO_V1(qm_condition_models);

/* The first call in a subtree that names a gateway itself; NULL: there is none. */
static const ConditionNode *
find_bound(const ConditionNode *node)
{
	check_stack_depth();
	if (node->kind == CONDITION_CALL)
		return strcmp(node->name, BOUND_BALANCE_FUNCTION) == 0 ? node : NULL;
	for (const ConditionNode *child = node->first; child; child = child->next)
	{
		const ConditionNode *bound = find_bound(child);

		if (bound != NULL)
			return bound;
	}
	return NULL;
}

/*
 * Compiles against a null subject, only to see whether it can be done.  Conditions
 * of people name models, whose balances are read, and not gateways.
 */
static bool
makes_sense(const ConditionNode *node, ConditionError *error)
{
	Expr                *subject = (Expr *) makeNullConst(condition_subject_type(), -1, InvalidOid);
	const ConditionNode *bound = find_bound(node);

	if (bound != NULL)
	{
		condition_set_error(error, ERRCODE_INVALID_PARAMETER_VALUE, bound->offset,
							"unknown condition function \"" BOUND_BALANCE_FUNCTION "\"", NULL,
							"Write " BALANCE_FUNCTION "(model, amount).");
		return false;
	}
	return condition_compile(node, subject, CONDITION_MEETS, error) != NULL;
}

/* check_condition(text): the verdict as a row. */
Datum
qm_check_condition(PG_FUNCTION_ARGS)
{
	TupleDesc      descriptor;
	Datum          values[7] = {0};
	bool           nulls[7] = {false, true, true, true, true, true, true};
	ConditionError error = {0};
	char          *canonical = NULL;

	if (get_call_result_type(fcinfo, NULL, &descriptor) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	if (PG_ARGISNULL(0))
		condition_set_error(&error, ERRCODE_INVALID_TEXT_REPRESENTATION, -1, "empty condition",
							NULL, "Write true() to match everyone.");
	else
	{
		char          *source = text_to_cstring(PG_GETARG_TEXT_PP(0));
		ConditionNode *node = condition_parse(source, (int) strlen(source), &error);

		if (node && makes_sense(node, &error))
			canonical = condition_print(node, &error);
		if (canonical == NULL && error.offset >= 0)
		{
			values[6] = Int32GetDatum(condition_error_position(&error, source));
			nulls[6] = false;
		}
	}
	values[0] = BoolGetDatum(canonical != NULL);
	if (canonical != NULL)
	{
		values[1] = CStringGetTextDatum(canonical);
		nulls[1] = false;
	}
	else
	{
		const char *fields[] = {unpack_sql_state(error.sqlerrcode), error.message, error.detail,
								error.hint};

		for (int i = 0; i < lengthof(fields); i++)
		{
			nulls[2 + i] = (fields[i] == NULL);
			if (fields[i] != NULL)
				values[2 + i] = CStringGetTextDatum(fields[i]);
		}
	}
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(descriptor), values, nulls)));
}

/* require_condition(condition): raises the error that check_condition returns. */
Datum
qm_require_condition(PG_FUNCTION_ARGS)
{
	char          *source = text_to_cstring(PG_GETARG_TEXT_PP(0));
	ConditionError error = {0};
	ConditionNode *node = condition_parse(source, (int) strlen(source), &error);

	if (node == NULL || !makes_sense(node, &error))
		condition_raise(&error, source);
	PG_RETURN_VOID();
}

/* Adds the models that a subtree asks balances of. */
static List *
collect_models(List *models, const ConditionNode *node)
{
	check_stack_depth();
	if (node->kind == CONDITION_CALL && strcmp(node->name, BALANCE_FUNCTION) == 0 &&
		node->arguments)
	{
		ListCell *cell;

		foreach (cell, models)
			if (strcmp(lfirst(cell), node->arguments->value) == 0)
				return models;
		return lappend(models, node->arguments->value);
	}
	for (const ConditionNode *child = node->first; child; child = child->next)
		models = collect_models(models, child);
	return models;
}

/* condition_models(condition): the models whose balance it asks for. */
Datum
qm_condition_models(PG_FUNCTION_ARGS)
{
	char          *source = text_to_cstring(PG_GETARG_TEXT_PP(0));
	ConditionError error = {0};
	ConditionNode *node = condition_parse(source, (int) strlen(source), &error);
	List          *models;
	Datum         *elements;
	int            count = 0;
	ListCell      *cell;

	if (node == NULL)
		condition_raise(&error, source);
	models = collect_models(NIL, node);
	elements = palloc(sizeof(Datum) * Max(list_length(models), 1));
	foreach (cell, models)
		elements[count++] = CStringGetTextDatum(lfirst(cell));
	PG_RETURN_ARRAYTYPE_P(construct_array(elements, count, TEXTOID, -1, false, TYPALIGN_INT));
}
