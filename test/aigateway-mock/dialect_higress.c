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
 * The key comes as "Authorization: Bearer <key>".  No key is 401 and a wrong one 403, as the plugin
 * key-auth in front has it.
 */
static bool
admit(const char *header, const char *key, struct answer *answer)
{
	static const char scheme[] = "Bearer ";

	if (header == NULL)
	{
		answer_constant(answer, 401, type_text, NO_KEY "No Key Authentication information found.");
		return false;
	}
	if (strncasecmp(header, scheme, sizeof(scheme) - 1) != 0 ||
		strcmp(header + sizeof(scheme) - 1, key) != 0)
	{
		answer_constant(answer, 403, type_text, NO_KEY "Unauthorized consumer.");
		return false;
	}
	return true;
}

/*
 * Wrong parameters are 403 here, as a wrong key is: only the text tells them apart.
 */
static void
refuse(enum action action, struct answer *answer)
{
	const char *text = DENIED "consumer can't be empty.";

	if (action == ACTION_REFRESH)
		text = DENIED "consumer can't be empty and quota must be integer.";
	else if (action == ACTION_DELTA)
		text = DENIED "consumer can't be empty and value must be integer.";
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

const struct dialect dialect_higress = {
	.name = "higress",
	.path_prefix = "/v1/chat/completions",
	.admin_path = "/quota",
	.has_used = false,
	.key_header = "Authorization",
	.user_parameter = "consumer",
	.read_amount = amount_read_integer,
	.scale = 0,
	.lowest = INT64_MIN,
	.highest = INT64_MAX,
	/* a negative delta is negated and sent as DECRBY, which the lowest integer does not survive */
	.lowest_delta = -(amount) INT64_MAX,
	.admit = admit,
	.refuse = refuse,
	.answer_query = answer_query,
	.answer_applied = answer_applied,
	.answer_store_error = answer_store_error,
};
