/*
 * dialect.h
 *		The names of the same things in the two dialects.
 *
 * Source of the facts: the Higress plugin ai-quota, and the fork of it used by
 * zgsm.
 */
#ifndef QM_GATEWAY_DIALECT_H
#define QM_GATEWAY_DIALECT_H

#include "gateway/gateway.h"

typedef struct DialectFacts
{
	const char *path_prefix;     /* between base URL and admin path */
	const char *admin_path;      /* unless configured */
	const char *key_header;      /* unless configured */
	const char *user_parameter;  /* of every request; also the member of an answer */
	const char *refresh_success; /* how the body of a success begins; NULL: JSON says it */
	const char *delta_success;
	const char *balance_member; /* object of an answer that holds the number; NULL: the answer */
	const char *used_path;      /* below the admin path: what was used; NULL: not available */
} DialectFacts;

extern const DialectFacts *dialect_facts(GatewayDialect dialect);

#endif /* QM_GATEWAY_DIALECT_H */
