/*
 * support.c
 *		Planner support: a constant condition becomes predicates on columns.
 *
 * The functions behind the calls are SQL functions that the planner inlines,
 * so indexes, statistics and EXPLAIN see plain comparisons.
 */
#include "postgres.h"

#include "fmgr.h"
#include "nodes/supportnodes.h"
#include "optimizer/clauses.h"
#include "optimizer/optimizer.h"
#include "utils/builtins.h"

#include "condition/condition.h"

PG_FUNCTION_INFO_V1(qm_meets_support);
PG_FUNCTION_INFO_V1(qm_may_match_support);

/*
 * True if the expression can be copied into each call without changing the result.
 * Only a row constructor can: only the fields that are read are computed, and it is
 * never null; for a null row the predicates of not(...) would hold, while the
 * strict operator returns null.
 */
static bool
is_plain_subject(Node *subject)
{
	return IsA(subject, RowExpr) && !contain_volatile_functions(subject);
}

/* Answers a SupportRequestSimplify; NULL leaves the call as it is. */
static Node *
simplify(Node *request, ConditionMode mode)
{
	SupportRequestSimplify *simplification;
	Node                   *subject;
	Node                   *argument;
	ConditionError          error = {0};
	char                   *source;
	ConditionNode          *node;
	Expr                   *expr;

	if (!IsA(request, SupportRequestSimplify))
		return NULL;
	simplification = (SupportRequestSimplify *) request;
	if (list_length(simplification->fcall->args) != 2)
		return NULL;
	subject = linitial(simplification->fcall->args);
	argument = lsecond(simplification->fcall->args);
	if (!IsA(argument, Const) || ((Const *) argument)->constisnull || !is_plain_subject(subject))
		return NULL;

	source = TextDatumGetCString(((Const *) argument)->constvalue);
	node = condition_parse(source, (int) strlen(source), &error);
	expr = node ? condition_compile(node, (Expr *) subject, mode, &error) : NULL;
	if (expr == NULL)
		condition_raise(&error, source);
	return eval_const_expressions(simplification->root, (Node *) expr);
}

/* Support function of meets(), the operator @@. */
Datum
qm_meets_support(PG_FUNCTION_ARGS)
{
	PG_RETURN_POINTER(simplify((Node *) PG_GETARG_POINTER(0), CONDITION_MEETS));
}

/* Support function of may_match(). */
Datum
qm_may_match_support(PG_FUNCTION_ARGS)
{
	PG_RETURN_POINTER(simplify((Node *) PG_GETARG_POINTER(0), CONDITION_MAY_MATCH));
}
