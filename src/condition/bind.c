/*
 * bind.c
 *		Replaces models by gateways in the balance calls of a condition.
 */
#include "postgres.h"

#include "miscadmin.h"

#include "condition/condition.h"
#include "condition/names.h"

/*
 * Replaces quota-le(model, amount) by balance-le(gateway, amount) in a whole
 * tree, so that it means the same wherever it is compiled, on any server.  A
 * model that no gateway serves is left as it is.
 */
void
condition_bind(ConditionNode *node, GatewayOfModel gateway_of)
{
	char *gateway;

	check_stack_depth();
	if (node->kind != CONDITION_CALL)
	{
		for (ConditionNode *child = node->first; child; child = child->next)
			condition_bind(child, gateway_of);
		return;
	}
	if (strcmp(node->name, BALANCE_FUNCTION) != 0 || node->arguments == NULL)
		return;
	gateway = gateway_of(node->arguments->value);
	if (gateway == NULL)
		return;
	node->name = pstrdup(BOUND_BALANCE_FUNCTION);
	node->arguments->kind = ARGUMENT_TEXT;
	node->arguments->value = gateway;
}
