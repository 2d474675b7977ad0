/*
 * formulas.c
 *		Trees of conditions -> formulas.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "nodes/pg_list.h"

#include "condition/facts.h"
#include "condition/formulas.h"
#include "condition/question.h"

/* A subtree, negated or not; its calls are added to *calls. */
static Formula *
build(const ConditionNode *node, bool negated, List **calls)
{
	Formula  *formula;
	Formula **tail;

	check_stack_depth();
	CHECK_FOR_INTERRUPTS();
	if (node->kind == CONDITION_NOT)
		return build(node->first, !negated, calls);
	formula = palloc0(sizeof(Formula));
	formula->node = node;
	formula->negated = negated;
	if (node->kind == CONDITION_CALL)
	{
		formula->kind = FORMULA_CALL;
		*calls = lappend(*calls, formula);
		return formula;
	}
	formula->kind = (node->kind == CONDITION_AND) != negated ? FORMULA_ALL : FORMULA_ANY;
	tail = &formula->first;
	for (const ConditionNode *child = node->first; child; child = child->next)
	{
		*tail = build(child, negated, calls);
		tail = &(*tail)->next;
		formula->count++;
	}
	return formula;
}

/*
 * Builds the formulas of some conditions over the same facts.  NULL: the sets of
 * regions would take too much memory.
 */
FactTable *
formulas_build(const ConditionNode *const *nodes, int count, const ModelTable *models,
			   Formula **formulas)
{
	List     *calls = NIL;
	Question *questions;
	int       length = 0;

	for (int i = 0; i < count; i++)
		formulas[i] = build(nodes[i], false, &calls);
	questions = palloc(sizeof(Question) * list_length(calls));
	foreach_ptr (Formula, call, calls)
		question_read(&questions[length++], call, models);
	return facts_make(questions, length);
}
