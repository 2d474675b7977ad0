/*
 * traits.c
 *		Properties of the functions that a condition calls.
 */
#include "postgres.h"

#include "catalog/pg_proc.h"
#include "miscadmin.h"
#include "utils/lsyscache.h"

#include "condition/condition.h"

static bool
add_traits(const ConditionNode *node, Oid subject_type, ConditionTraits *traits,
		   ConditionError *error)
{
	ConditionFunction function;

	check_stack_depth();
	if (node->kind == CONDITION_CALL)
	{
		if (!condition_resolve(node, subject_type, &function, error))
			return false;
		traits->is_built_in &= function.is_built_in;
		if (!function.is_built_in && traits->others_call == NULL)
			traits->others_call = node->name;
		traits->asks_balances |= function.is_balance;
		traits->is_immutable &= func_volatile(function.oid) == PROVOLATILE_IMMUTABLE;
		return true;
	}
	for (const ConditionNode *child = node->first; child; child = child->next)
		if (!add_traits(child, subject_type, traits, error))
			return false;
	return true;
}

/*
 * Looks up the properties of the functions that a condition calls; false and
 * *error when the condition does not make sense.
 */
bool
condition_traits(const ConditionNode *node, ConditionTraits *traits, ConditionError *error)
{
	traits->is_built_in = true;
	traits->asks_balances = false;
	traits->is_immutable = true;
	traits->others_call = NULL;
	return add_traits(node, condition_subject_type(), traits, error);
}
