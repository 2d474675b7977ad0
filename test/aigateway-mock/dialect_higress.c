/*
 * dialect_higress.c
 *		The quota interface of the Higress plugin ai-quota: one integer per consumer, replies as text.
 */
#include "dialect.h"

#include <stdint.h>
#include <string.h>
#include <strings.h>

#define DENIED "Request denied by ai quota check. "
#define NO_KEY "Request denied by Key Auth check. "

/*
 * Refuses a key, as the plugin key-auth in front does.
 */
static bool
refuse_key(unsigned status, const char *text, struct answer *answer)
{
	answer_constant(answer, status, type_text, text);
	answer->authenticate = "Key realm=MSE Gateway";
	return false;
}

/*
 * The key comes as "Authorization: Bearer <key>".  No key is 401 and a wrong one 403; a key of somebody
 * who is not the admin passes key-auth and is refused by the plugin itself.
 */
static bool
admit(const char *header, const char *key, const char *other_key, struct answer *answer)
{
	static const char scheme[] = "Bearer ";
	const char       *given;

	if (header == NULL || header[0] == '\0')
		return refuse_key(401, NO_KEY "No Key Authentication information found.", answer);
	given = strncasecmp(header, scheme, sizeof(scheme) - 1) == 0 ? header + sizeof(scheme) - 1 : "";
	if (strcmp(given, key) == 0)
		return true;
	if (other_key == NULL || strcmp(given, other_key) != 0)
		return refuse_key(403, NO_KEY "Unauthorized consumer.", answer);
	answer_constant(answer, 403, type_text, DENIED "Unauthorized admin consumer.");
	return false;
}

/*
 * Wrong parameters are 403 here, as a wrong key is: only the text tells them apart.
 */
static void
refuse(enum action action, bool has_user, struct answer *answer)
{
	const char *text = DENIED "consumer can't be empty.";

	(void) has_user;
	if (action == ACTION_REFRESH)
		text = DENIED "consumer can't be empty and quota must be integer.";
	else if (action == ACTION_DELTA)
		text = DENIED "consumer can't be empty and value must be integer.";
	answer_constant(answer, 403, type_text, text);
}

/*
 * The version with group pools has other words for it.
 */
static void
refuse_pools(enum action action, bool has_user, struct answer *answer)
{
	const char *text = DENIED "consumer or group must be set.";

	if (has_user)
		text = action == ACTION_REFRESH ? DENIED "quota must be an integer."
										: DENIED "value must be an integer.";
	answer_constant(answer, 403, type_text, text);
}

/*
 * {"consumer":"C","quota":N}
 */
static void
answer_query(enum action action, const char *user, size_t user_length, amount figure,
			 struct answer *answer)
{
	struct text body = {0};
	char        number[AMOUNT_TEXT];
	size_t      length = amount_write(figure, dialect_higress.scale, number);

	(void) action;
	text_add_string(&body, "{\"consumer\":");
	text_add_json(&body, user, user_length);
	text_add_string(&body, ",\"quota\":");
	text_add(&body, number, length);
	text_add_string(&body, "}");
	answer_text(answer, 200, type_json, &body);
}

/*
 * The new value is not in the reply.
 */
static void
answer_applied(enum action action, struct answer *answer)
{
	answer_constant(answer, 200, type_text,
					action == ACTION_REFRESH ? "refresh quota successful"
											 : "delta quota successful");
}

/*
 * The plugin passes on what Redis said.
 */
static void
answer_store_error(unsigned status, const char *error, struct answer *answer)
{
	struct text body = {0};

	text_add_string(&body, "redis error:");
	text_add_string(&body, error);
	answer_text(answer, status, type_text, &body);
}

/*
 * All but how wrong parameters are refused.  A negative delta is negated and sent as DECRBY, which the
 * lowest integer does not survive.
 */
#define COMMON                                                                                     \
	.name = "higress", .path_prefix = "/v1/chat/completions", .admin_path = "/quota",              \
	.has_used = false, .key_header = "Authorization", .user_parameter = "consumer",                \
	.read_amount = amount_read_integer, .scale = 0, .lowest = INT64_MIN, .highest = INT64_MAX,     \
	.lowest_delta = -(amount) INT64_MAX, .overflow = "ERR increment or decrement would overflow",  \
	.delta_overflow = "ERR decrement would overflow", .admit = admit,                              \
	.answer_query = answer_query, .answer_applied = answer_applied,                                \
	.answer_store_error = answer_store_error,

const struct dialect dialect_higress = {COMMON.refuse = refuse};
const struct dialect dialect_higress_pools = {COMMON.refuse = refuse_pools};
