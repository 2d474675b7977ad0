/*
 * dialect.c
 *		The names of the same things in the two dialects.
 */
#include "gateway/dialect.h"

#include <stddef.h>

static const DialectFacts higress = {
	.path_prefix = "/v1/chat/completions",
	.admin_path = "/quota",
	.key_header = "Authorization",
	.user_parameter = "consumer",
	.refresh_success = "refresh quota successful",
	.delta_success = "delta quota successful",
	.balance_member = NULL,
	.used_path = NULL,
};

static const DialectFacts zgsm = {
	.path_prefix = "",
	.admin_path = "/v1/chat/completions/quota",
	.key_header = "x-admin-key",
	.user_parameter = "user_id",
	.refresh_success = NULL,
	.delta_success = NULL,
	.balance_member = "data",
	.used_path = "/used",
};

/* The facts of one dialect; constant. */
const DialectFacts *
dialect_facts(GatewayDialect dialect)
{
	return dialect == GATEWAY_ZGSM ? &zgsm : &higress;
}
