/*
 * dialect_zgsm.c
 *		The quota interface of the zgsm fork: total and used as decimals, every reply a JSON envelope.
 */
#include "dialect.h"

#include <string.h>

#define DENIED "Request denied by ai quota check. "

/*
 * Answers with {"code","message","success","data"?}; data, if any, is JSON already.
 */
static void
answer_envelope(struct answer *answer, unsigned status, const char *code, const char *message,
				bool success, const struct text *data)
{
	struct text body = {0};

	text_format(&body, "{\"code\":\"%s\",\"message\":", code);
	text_add_json(&body, message, strlen(message));
	text_add_string(&body, success ? ",\"success\":true" : ",\"success\":false");
	if (data != NULL)
	{
		text_add_string(&body, ",\"data\":");
		text_add(&body, data->bytes, data->length);
	}
	text_add_string(&body, "}");
	answer_text(answer, status, type_json, &body);
}

/*
 * The header is the key, and nothing else.
 */
static bool
admit(const char *header, const char *key, const char *other_key, struct answer *answer)
{
	(void) other_key;
	if (header != NULL && strcmp(header, key) == 0)
		return true;
	answer_envelope(answer, 403, "ai-gateway.unauthorized", DENIED "Unauthorized admin operation.",
					false, NULL);
	return false;
}

/*
 * Wrong parameters are 400.
 */
static void
refuse_with(enum action action, const char *quota_text, const char *value_text,
			struct answer *answer)
{
	const char *message = DENIED "user_id can't be empty.";

	if (action == ACTION_REFRESH || action == ACTION_USED_REFRESH)
		message = quota_text;
	else if (action == ACTION_DELTA || action == ACTION_USED_DELTA)
		message = value_text;
	answer_envelope(answer, 400, "ai-gateway.invalid_params", message, false, NULL);
}

static void
refuse(enum action action, bool has_user, struct answer *answer)
{
	(void) has_user;
	refuse_with(action, DENIED "user_id can't be empty and quota must be a valid number.",
				DENIED "user_id can't be empty and value must be a valid number.", answer);
}

static void
refuse_integers(enum action action, bool has_user, struct answer *answer)
{
	(void) has_user;
	refuse_with(action, DENIED "user_id can't be empty and quota must be integer.",
				DENIED "user_id can't be empty and value must be integer.", answer);
}

/*
 * What the decimal version has written cannot be read by the public one.
 */
static void
answer_fraction(enum action action, struct answer *answer)
{
	answer_envelope(answer, 500, "ai-gateway.invalid_quota_format",
					action == ACTION_USED_QUERY ? "Invalid used_quota format"
												: "Invalid total_quota format",
					false, NULL);
}

/*
 * A figure below zero can be stored but not read: 500.  The keys of data come in the order in which
 * Go writes a map.
 */
static void
answer_query(enum action action, const char *user, size_t user_length, amount figure,
			 struct answer *answer)
{
	const char *type = action == ACTION_USED_QUERY ? "used_quota" : "total_quota";
	struct text data = {0};
	char        number[AMOUNT_TEXT];

	if (figure < 0)
	{
		answer_envelope(answer, 500, "ai-gateway.invalid_quota_value",
						action == ACTION_USED_QUERY ? "Invalid used_quota value"
													: "Invalid total_quota value",
						false, NULL);
		return;
	}
	amount_write_float(figure, number);
	text_format(&data, "{\"quota\":%s,\"type\":\"%s\",\"user_id\":", number, type);
	text_add_json(&data, user, user_length);
	text_add_string(&data, "}");
	answer_envelope(answer, 200, "ai-gateway.queryquota", "query quota successful", true, &data);
	text_free(&data);
}

/*
 * These are constants so that a load test does not pay for making them.
 */
static void
answer_applied(enum action action, struct answer *answer)
{
	static const char *const bodies[ACTION_COUNT] = {
		[ACTION_DELTA] = "{\"code\":\"ai-gateway.deltaquota\","
						 "\"message\":\"delta quota successful\",\"success\":true}",
		[ACTION_REFRESH] = "{\"code\":\"ai-gateway.refreshquota\","
						   "\"message\":\"refresh quota successful\",\"success\":true}",
		[ACTION_USED_DELTA] = "{\"code\":\"ai-gateway.deltausedquota\","
							  "\"message\":\"delta used quota successful\",\"success\":true}",
		[ACTION_USED_REFRESH] = "{\"code\":\"ai-gateway.refreshusedquota\","
								"\"message\":\"refresh used quota successful\",\"success\":true}",
	};

	answer_constant(answer, 200, type_json, bodies[action]);
}

/*
 * The gateway passes on what Redis said.
 */
static void
answer_store_error(unsigned status, const char *error, struct answer *answer)
{
	struct text message = {0};

	text_add_string(&message, "redis error:");
	text_add(&message, error, strlen(error) + 1);
	answer_envelope(answer, status, "ai-gateway.error", message.bytes, false, NULL);
	text_free(&message);
}

/* All but what is done about fractions. */
#define COMMON                                                                                     \
	.name = "zgsm", .path_prefix = "", .admin_path = "/v1/chat/completions/quota",                 \
	.has_used = true, .key_header = "x-admin-key", .user_parameter = "user_id",                    \
	.read_amount = amount_read_float, .scale = FLOAT_DECIMALS, .lowest = -AMOUNT_LIMIT,            \
	.highest = AMOUNT_LIMIT, .lowest_delta = -AMOUNT_LIMIT,                                        \
	.overflow = "ERR increment would produce NaN or Infinity",                                     \
	.delta_overflow = "ERR increment would produce NaN or Infinity", .admit = admit,               \
	.answer_query = answer_query, .answer_applied = answer_applied,                                \
	.answer_store_error = answer_store_error,

const struct dialect dialect_zgsm = {COMMON.refuse = refuse};
const struct dialect dialect_zgsm_integers = {COMMON.refuse = refuse_integers,
											  .answer_fraction = answer_fraction};
