/*
 * dialect.h
 *		The two languages in which gateways speak of quotas.
 *
 * What differs between them is in one struct each; what they share (routing, reading parameters,
 * applying) is in gateway.c.  The texts and codes are those of the real gateways: clients tell a wrong
 * key from a wrong parameter by them.
 */
#ifndef DIALECT_H
#define DIALECT_H

#include <stdbool.h>
#include <stddef.h>

#include "amount.h"
#include "answer.h"
#include "ledger.h"

struct dialect
{
	const char *name;

	/* requests go to <anything><path_prefix><admin path><a suffix per action> */
	const char *path_prefix;
	const char *admin_path; /* unless an option says otherwise */
	bool        has_used;   /* whether there are actions on the used quota */

	const char *key_header; /* unless an option says otherwise */
	const char *user_parameter;

	/* amounts: how they are read, how many decimals they have, and what can be stored */
	bool (*read_amount)(const char *text, size_t length, amount *result);
	int    scale;
	amount lowest;
	amount highest;
	amount lowest_delta; /* what is below can be read but not added */

	/* what Redis says where that does not fit, and of a delta below lowest_delta */
	const char *overflow;
	const char *delta_overflow;

	/*
	 * Whether the header (NULL: there was none) carries the key; fills the answer if not.  other_key
	 * (NULL: there is none) is one that somebody has who may not change quotas.
	 */
	bool (*admit)(const char *header, const char *key, const char *other_key,
				  struct answer *answer);

	/* Refuses wrong parameters; has_user: it is the number that is wrong. */
	void (*refuse)(enum action action, bool has_user, struct answer *answer);

	/* Answers a query for a figure with a fraction where only integers are known; NULL: never. */
	void (*answer_fraction)(enum action action, struct answer *answer);

	/* Answers a query with the figure that the action asks for. */
	void (*answer_query)(enum action action, const char *user, size_t user_length, amount figure,
						 struct answer *answer);

	/* Answers a change that was applied. */
	void (*answer_applied)(enum action action, struct answer *answer);

	/* Answers with an error of the store behind the gateway. */
	void (*answer_store_error)(unsigned status, const char *error, struct answer *answer);
};

extern const struct dialect dialect_higress;
extern const struct dialect dialect_higress_pools; /* the version with group pools */
extern const struct dialect dialect_zgsm;
extern const struct dialect dialect_zgsm_integers; /* the public version */

#endif
