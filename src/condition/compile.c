/*
 * compile.c
 *		Tree of a condition -> Boolean expression over a subject.
 *
 * Conditions are two-valued except for balances: negation is pushed down to
 * the calls, where a negated attribute call becomes IS NOT TRUE and a negated
 * balance call plain NOT.  A positive call stays bare: IS TRUE around it would
 * hide it from indexes.
 */
#include "postgres.h"

#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"

#include "condition/condition.h"

typedef struct CompileContext
{
	Expr           *subject;
	Oid             subject_type;
	ConditionMode   mode;
	ConditionError *error;
} CompileContext;

/* expr IS [NOT] TRUE | FALSE. */
static Expr *
boolean_test(Expr *expr, BoolTestType type)
{
	BooleanTest *test = makeNode(BooleanTest);

	test->arg = expr;
	test->booltesttype = type;
	test->location = -1;
	return (Expr *) test;
}

/* A call, negated or not, as a Boolean expression. */
static Expr *
compile_call(CompileContext *context, const ConditionNode *call, bool negated)
{
	ConditionFunction function;
	FuncExpr         *expr;

	if (!condition_resolve(call, context->subject_type, &function, context->error))
		return NULL;
	expr =
		makeFuncExpr(function.oid, BOOLOID, lcons(copyObject(context->subject), function.arguments),
					 InvalidOid, DEFAULT_COLLATION_OID, COERCE_EXPLICIT_CALL);
	expr->funcvariadic = function.is_variadic;
	if (!function.is_balance)
		return negated ? boolean_test((Expr *) expr, IS_NOT_TRUE) : (Expr *) expr;
	if (context->mode == CONDITION_MAY_MATCH)
		return boolean_test((Expr *) expr, negated ? IS_NOT_TRUE : IS_NOT_FALSE);
	return negated ? makeBoolExpr(NOT_EXPR, list_make1(expr), -1) : (Expr *) expr;
}

/* A subtree, negated or not, as a Boolean expression. */
static Expr *
compile_node(CompileContext *context, const ConditionNode *node, bool negated)
{
	List *children = NIL;

	check_stack_depth();
	CHECK_FOR_INTERRUPTS();
	if (node->kind == CONDITION_CALL)
		return compile_call(context, node, negated);
	if (node->kind == CONDITION_NOT)
		return compile_node(context, node->first, !negated);
	for (const ConditionNode *child = node->first; child; child = child->next)
	{
		Expr *expr = compile_node(context, child, negated);

		if (expr == NULL)
			return NULL;
		children = lappend(children, expr);
	}
	return makeBoolExpr((node->kind == CONDITION_AND) != negated ? AND_EXPR : OR_EXPR, children,
						-1);
}

/*
 * The Boolean expression that answers a question about a subject.  Names and
 * types are looked up in the catalogue.  subject is copied once per call.
 * NULL and *error when the condition does not make sense.  The result is not
 * simplified yet; function privileges are checked when it is run.
 */
Expr *
condition_compile(const ConditionNode *node, Expr *subject, ConditionMode mode,
				  ConditionError *error)
{
	CompileContext context = {subject, exprType((Node *) subject), mode, error};

	return compile_node(&context, node, false);
}
