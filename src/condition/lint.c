/*
 * lint.c
 *		What lint() asks about conditions, as SQL functions.
 *
 * A text that is no condition has no findings: it is reported elsewhere.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/tuplestore.h"
#include "utils/varlena.h"

#include "common/compat.h"
#include "condition/finding.h"
#include "condition/formulas.h"
#include "condition/full_width.h"

PG_FUNCTION_INFO_V1(qm_condition_findings);
PG_FUNCTION_INFO_V1(qm_contained_conditions);
PG_FUNCTION_INFO_V1(qm_nearest_name);
PG_FUNCTION_INFO_V1(qm_full_width_note);

/*
 * Work for one condition, or one compared with others; for all compared with all,
 * and for the large ones of these; for one question of each.
 */
#define BUDGET_OF_ONE (INT64CONST(1000) * 1000)
#define BUDGET_OF_ALL (INT64CONST(300) * 1000 * 1000)
#define BUDGET_OF_LARGE (INT64CONST(20) * 1000 * 1000)
#define BUDGET_OF_QUESTION (INT64CONST(100) * 1000)
#define BUDGET_OF_PAIR (INT64CONST(20) * 1000)

/* What parsing, and making facts of calls, takes of it. */
#define BYTES_PER_STEP 1
#define STEPS_PER_PAIR 50
#define STEPS_PER_CALL 10

/* Pairs of this many calls and arguments are compared only after all smaller ones. */
#define LARGE_SIZE 400

/* Edits beyond which two names are not alike, and bytes of names that are compared. */
#define MAX_DISTANCE 3
#define MAX_NAME_BYTES 255

/* The elements of an array of texts; null ones are left out. */
static char **
read_texts(Datum array, int *count)
{
	Datum *elements;
	bool  *nulls;
	int    length;
	char **texts;

	deconstruct_array(DatumGetArrayTypeP(array), TEXTOID, -1, false, TYPALIGN_INT, &elements,
					  &nulls, &length);
	texts = palloc(sizeof(char *) * Max(length, 1));
	*count = 0;
	for (int i = 0; i < length; i++)
		if (!nulls[i])
			texts[(*count)++] = TextDatumGetCString(elements[i]);
	return texts;
}

/* Reads arrays of models and of the gateways that serve them. */
static ModelTable
read_models(Datum models, Datum gateways)
{
	ModelTable table;
	int        count;

	table.models = read_texts(models, &table.count);
	table.gateways = read_texts(gateways, &count);
	table.count = Min(table.count, count);
	return table;
}

/* Parses a condition; NULL: it is none. */
static ConditionNode *
parse(const char *text, Budget *budget)
{
	ConditionError ignored = {0};
	int            length = (int) strlen(text);

	budget->total -= length / BYTES_PER_STEP;
	return condition_parse(text, length, &ignored);
}

/*
 * condition_findings(condition, models, gateways): what is probably wrong with
 * it.  The arrays have the gateways of the models that it asks balances of.
 */
Datum
qm_condition_findings(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	Budget         budget = {BUDGET_OF_ONE, BUDGET_OF_QUESTION};
	ModelTable     models = read_models(PG_GETARG_DATUM(1), PG_GETARG_DATUM(2));
	ConditionNode *node = parse(text_to_cstring(PG_GETARG_TEXT_PP(0)), &budget);

	InitMaterializedSRF(fcinfo, 0);
	if (node == NULL)
		return (Datum) 0;
	foreach_ptr (Finding, finding, condition_findings(node, &models, &budget))
	{
		const char *fields[] = {finding->problem, finding->severity, finding->message,
								finding->detail, finding->hint};
		Datum       values[lengthof(fields)];
		bool        nulls[lengthof(fields)];

		for (int i = 0; i < lengthof(fields); i++)
		{
			nulls[i] = fields[i] == NULL;
			values[i] = nulls[i] ? (Datum) 0 : CStringGetTextDatum(fields[i]);
		}
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/* A condition that is compared with others. */
typedef struct Candidate
{
	ConditionNode *node;     /* NULL: it is none, or there was no time to read it */
	int            size;     /* calls and arguments */
	bool           is_asked; /* pairs with it are wanted */
	bool           is_tried; /* it is known whether it can hold */
	bool           can_hold;
} Candidate;

/* How many calls and arguments a subtree has. */
static int
size_of(const ConditionNode *node)
{
	int size = node->kind == CONDITION_CALL ? 1 + node->count : 0;

	check_stack_depth();
	for (const ConditionNode *child = node->first; child; child = child->next)
		size += size_of(child);
	return size;
}

/* True if it is known that each user that meets one condition meets the other. */
static bool
is_contained(const Candidate *inner, const Candidate *outer, const ModelTable *models,
			 MemoryContext scratch, Budget *budget)
{
	MemoryContext        caller = MemoryContextSwitchTo(scratch);
	const ConditionNode *nodes[] = {inner->node, outer->node};
	Formula             *formulas[lengthof(nodes)];
	FactTable           *facts = formulas_build(nodes, lengthof(nodes), models, formulas);
	Requirement          requirements[] = {{formulas[0], false}, {formulas[1], true}};
	bool                 result;

	budget->total -= STEPS_PER_PAIR + STEPS_PER_CALL * (inner->size + outer->size);
	result = facts != NULL &&
			 satisfiable(facts, requirements, lengthof(requirements), budget) == ANSWER_NO;
	MemoryContextSwitchTo(caller);
	MemoryContextReset(scratch);
	return result;
}

/* True if it is known that some user meets a condition. */
static bool
can_hold(Candidate *candidate, const ModelTable *models, MemoryContext scratch, Budget *budget)
{
	MemoryContext caller;
	Formula      *formula;
	FactTable    *facts;
	Requirement   requirement = {NULL, false};

	if (candidate->is_tried)
		return candidate->can_hold;
	caller = MemoryContextSwitchTo(scratch);
	facts = formulas_build((const ConditionNode *const *) &candidate->node, 1, models, &formula);
	requirement.formula = formula;
	candidate->can_hold =
		facts != NULL && satisfiable(facts, &requirement, 1, budget) == ANSWER_YES;
	candidate->is_tried = true;
	MemoryContextSwitchTo(caller);
	MemoryContextReset(scratch);
	return candidate->can_hold;
}

/* Notes which conditions are asked about. */
static void
read_positions(Datum array, Candidate *candidates, int count)
{
	Datum *elements;
	bool  *nulls;
	int    length;

	deconstruct_array(DatumGetArrayTypeP(array), INT4OID, sizeof(int32), true, TYPALIGN_INT,
					  &elements, &nulls, &length);
	for (int i = 0; i < length; i++)
		if (!nulls[i] && DatumGetInt32(elements[i]) >= 1 && DatumGetInt32(elements[i]) <= count)
			candidates[DatumGetInt32(elements[i]) - 1].is_asked = true;
}

/* Parses conditions, those that are asked about first. */
static void
parse_candidates(char **texts, Candidate *candidates, int count, Budget *budget)
{
	for (int asked = 1; asked >= 0; asked--)
		for (int i = 0; i < count && budget->total > 0; i++)
		{
			if (candidates[i].is_asked != asked)
				continue;
			candidates[i].node = parse(texts[i], budget);
			if (candidates[i].node != NULL)
				candidates[i].size = size_of(candidates[i].node);
		}
}

/*
 * Finds pairs of which every user that meets the first condition meets the
 * second, and some user does: among those that are large, or among the others.
 */
static void
find_pairs(Candidate *candidates, int count, bool is_large, const ModelTable *models,
		   ReturnSetInfo *result, Budget *budget)
{
	MemoryContext scratch =
		AllocSetContextCreate(CurrentMemoryContext, "pair of conditions", ALLOCSET_DEFAULT_SIZES);

	for (int i = 0; i < count; i++)
		for (int j = 0; j < count && budget->total > 0; j++)
		{
			Candidate *inner = &candidates[i];
			Candidate *outer = &candidates[j];
			Datum      values[2] = {Int32GetDatum(i + 1), Int32GetDatum(j + 1)};
			bool       nulls[2] = {false, false};

			if (i == j || inner->node == NULL || outer->node == NULL ||
				!(inner->is_asked || outer->is_asked) ||
				(inner->size + outer->size > LARGE_SIZE) != is_large)
				continue;
			CHECK_FOR_INTERRUPTS();
			if (is_contained(inner, outer, models, scratch, budget) &&
				can_hold(inner, models, scratch, budget))
				tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
		}
	MemoryContextDelete(scratch);
}

/*
 * contained_conditions(conditions, models, gateways, of_positions): pairs of
 * positions of which every user that meets the first condition meets the second;
 * only those with one of some positions, unless these are null.  One that nobody
 * meets is in no pair.
 */
Datum
qm_contained_conditions(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	Budget         budget = {BUDGET_OF_ALL, BUDGET_OF_PAIR};
	ModelTable     models;
	int            count;
	char         **texts;
	Candidate     *candidates;

	InitMaterializedSRF(fcinfo, 0);
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1) || PG_ARGISNULL(2))
		return (Datum) 0;
	texts = read_texts(PG_GETARG_DATUM(0), &count);
	models = read_models(PG_GETARG_DATUM(1), PG_GETARG_DATUM(2));
	candidates = palloc0(sizeof(Candidate) * Max(count, 1));
	if (PG_ARGISNULL(3))
		for (int i = 0; i < count; i++)
			candidates[i].is_asked = true;
	else
	{
		read_positions(PG_GETARG_DATUM(3), candidates, count);
		budget.total = BUDGET_OF_ONE;
	}
	parse_candidates(texts, candidates, count, &budget);
	find_pairs(candidates, count, false, &models, result, &budget);
	budget.total = Min(budget.total, BUDGET_OF_LARGE);
	find_pairs(candidates, count, true, &models, result, &budget);
	return (Datum) 0;
}

/*
 * nearest_name(name, names): the one that was probably meant, the first in their
 * order of several; null: none is near.
 */
Datum
qm_nearest_name(PG_FUNCTION_ARGS)
{
	char  *name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	int    length = (int) strlen(name);
	int    best = Min(MAX_DISTANCE, length / 2) + 1;
	char  *nearest = NULL;
	int    count;
	char **names = read_texts(PG_GETARG_DATUM(1), &count);

	for (int i = 0; i < count && length <= MAX_NAME_BYTES; i++)
	{
		int candidate = (int) strlen(names[i]);
		int distance;

		CHECK_FOR_INTERRUPTS();
		if (candidate > MAX_NAME_BYTES)
			continue;
		/* Nothing is nearer than the same in other letters. */
		distance = pg_strcasecmp(name, names[i]) == 0
					   ? 0
					   : varstr_levenshtein_less_equal(name, length, names[i], candidate, 1, 1, 1,
													   best, true);
		if (distance < best)
		{
			best = distance;
			nearest = names[i];
		}
	}
	if (nearest == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(nearest));
}

/*
 * full_width_note(text): the full-width sign in it, in words; null: there is
 * none.
 */
Datum
qm_full_width_note(PG_FUNCTION_ARGS)
{
	const FullWidthSign *sign = full_width_in(text_to_cstring(PG_GETARG_TEXT_PP(0)));

	if (sign == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(
		cstring_to_text(psprintf("%s \"%s\" (%s)", sign->name, sign->bytes, sign->code)));
}
