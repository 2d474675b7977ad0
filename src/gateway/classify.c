/*
 * classify.c
 *		What an exchange with a gateway proves.
 */
#include "gateway/classify.h"

#include <stdio.h>
#include <string.h>

#include "gateway/amount.h"
#include "gateway/dialect.h"
#include "gateway/reply_json.h"
#include "gateway/text.h"

/*
 * How gateways say that a parameter is missing or malformed; the last two are
 * those of the plugin with group pools.
 */
static const char *const parameter_texts[] = {"must be integer", "can't be empty", "invalid_params",
											  "must be an integer", "must be set"};

/* Texts that only an AiGateway sends with it, in any version. */
#define HIGRESS_PARAMETERS "Request denied by ai quota check."
#define ZGSM_PARAMETERS "ai-gateway.invalid_params"
#define ZGSM_BELOW_ZERO "ai-gateway.invalid_quota_value"

/* How the texts of a gateway begin, and the codes of its JSON; replies of others are not repeated. */
static const char *const own_beginnings[] = {
	"Request denied by ",
	"redis error:",
	"delta quota successful",
	"refresh quota successful",
};
#define OWN_CODE "ai-gateway."

/*
 * Stands for a total of which only is known that it is below zero: the
 * largest such number that can be written.  A condition quota-le with an amount
 * below zero is not met by it, though it may be by the true one.
 */
#define BELOW_ZERO "-0.000001"

/* How Redis begins when it refuses a command without running it, after the gateway's words. */
#define REDIS_ERROR "redis error:"
static const char *const redis_refusals[] = {
	"READONLY ",
	"OOM ",
	"ERR value is not an integer or out of range",
	"ERR value is not a valid float",
	"ERR increment or decrement would overflow",
	"ERR decrement would overflow",
	"ERR increment would produce NaN or Infinity",
};

/* True for the kinds that change nothing. */
bool
exchange_is_query(ExchangeKind kind)
{
	return kind == EXCHANGE_BALANCE || kind == EXCHANGE_USED;
}

/* Sets the outcome, and the message to "prefix: text" or what there is of it. */
static void
conclude(const Exchange *exchange, GatewayReply *reply, GatewayOutcome outcome, const char *prefix,
		 const char *text, size_t length)
{
	size_t used;

	reply->outcome = outcome;
	text_line(reply->message, sizeof(reply->message), prefix, strlen(prefix), exchange->secret);
	used = strlen(reply->message);
	if (length > 0 && used + 3 < sizeof(reply->message))
	{
		memcpy(reply->message + used, ": ", 3);
		text_line(reply->message + used + 2, sizeof(reply->message) - used - 2, text, length,
				  exchange->secret);
		if (reply->message[used + 2] == '\0')
			reply->message[used] = '\0';
	}
}

/* As conclude, with "HTTP 200" and the like for a prefix. */
static void
conclude_status(const Exchange *exchange, GatewayReply *reply, GatewayOutcome outcome,
				const char *text, size_t length)
{
	char prefix[32];

	snprintf(prefix, sizeof(prefix), "HTTP %ld", exchange->http_status);
	conclude(exchange, reply, outcome, prefix, text, length);
}

/* As conclude_status, for a reply that is not repeated: "HTTP 404 (text/html)". */
static void
conclude_untold(const Exchange *exchange, GatewayReply *reply, GatewayOutcome outcome,
				const char *why)
{
	const char *type = exchange->content_type ? exchange->content_type : "";
	char        prefix[200];

	snprintf(prefix, sizeof(prefix), "HTTP %ld%s%s%s%s%s", exchange->http_status, why ? ": " : "",
			 why ? why : "", type[0] ? " (" : "", type, type[0] ? ")" : "");
	conclude(exchange, reply, outcome, prefix, NULL, 0);
}

/* True if a text begins as those of a gateway do. */
static bool
begins_as_own(const char *text, size_t length)
{
	size_t i;

	for (i = 0; i < sizeof(own_beginnings) / sizeof(own_beginnings[0]); i++)
		if (text_begins(text, length, own_beginnings[i]))
			return true;
	return false;
}

/* True if a reply is in a gateway's own words: it may be repeated. */
static bool
is_own(const Exchange *exchange, const ReplyFields *fields)
{
	return begins_as_own(exchange->body, exchange->body_length) ||
		   begins_as_own(fields->message, strlen(fields->message)) ||
		   text_begins(fields->code, strlen(fields->code), OWN_CODE);
}

/* Concludes with what a reply says if it is in a gateway's own words, otherwise without. */
static void
conclude_reply(const Exchange *exchange, const ReplyFields *fields, GatewayReply *reply,
			   GatewayOutcome outcome)
{
	if (!is_own(exchange, fields))
		conclude_untold(exchange, reply, outcome, NULL);
	else if (fields->line[0] != '\0')
		conclude_status(exchange, reply, outcome, fields->line, strlen(fields->line));
	else
		conclude_status(exchange, reply, outcome, exchange->body, exchange->body_length);
}

/* Concludes that a reply proves nothing.  Its fields may be empty. */
static void
conclude_unreadable(const Exchange *exchange, const ReplyFields *fields, GatewayReply *reply,
					const char *why)
{
	char        text[256];
	char        shown[160];
	const char *said = fields->line[0] != '\0' ? fields->line : exchange->body;
	size_t      length = said == exchange->body ? exchange->body_length : strlen(said);

	if (!is_own(exchange, fields))
	{
		conclude_untold(exchange, reply, GATEWAY_IN_DOUBT, why);
		return;
	}
	text_line(shown, sizeof(shown), said, length, exchange->secret);
	snprintf(text, sizeof(text), "%s: %s", why, shown);
	conclude_status(exchange, reply, GATEWAY_IN_DOUBT, text, strlen(text));
}

/* Reads the answer to a query from a 2xx reply. */
static void
classify_answer(const Exchange *exchange, const ReplyFields *fields, GatewayReply *reply)
{
	const char *type = exchange->kind == EXCHANGE_USED ? "used_quota" : "total_quota";
	char        number[AMOUNT_SIZE];

	if (exchange->dialect == GATEWAY_ZGSM && fields->type[0] != '\0' &&
		strcmp(fields->type, type) != 0)
		conclude_unreadable(exchange, fields, reply, "the answer is about another quota");
	else if (!amount_read(exchange->dialect, fields->quota, number))
		conclude_unreadable(exchange, fields, reply, "the answer holds no readable quota");
	else
	{
		reply->outcome = GATEWAY_COMPLETED;
		memcpy(reply->balance, number, strlen(number) + 1);
	}
}

/*
 * Classifies a 2xx reply that was read to its end.  Only words that the
 * gateway itself uses prove anything: any web server answers 200 to a wrong
 * URL.
 */
static void
classify_success(const Exchange *exchange, GatewayReply *reply)
{
	const DialectFacts *facts = dialect_facts(exchange->dialect);
	const char         *phrase =
        exchange->kind == EXCHANGE_DELTA ? facts->delta_success : facts->refresh_success;
	ReplyShape  shape = {facts->balance_member, facts->user_parameter, exchange->user_id,
						 exchange->secret};
	ReplyFields fields = {0};

	if (!exchange_is_query(exchange->kind) && phrase != NULL)
	{
		if (text_begins(exchange->body, exchange->body_length, phrase))
			reply->outcome = GATEWAY_COMPLETED;
		else
			conclude_unreadable(exchange, &fields, reply, "not the reply of an AiGateway");
		return;
	}

	if (!reply_json_read(exchange->body, exchange->body_length, &shape, &fields))
		conclude_unreadable(exchange, &fields, reply, "not the reply of an AiGateway");
	else if (exchange->dialect == GATEWAY_ZGSM && fields.failed)
		conclude_reply(exchange, &fields, reply, GATEWAY_REFUSED);
	else if (exchange->dialect == GATEWAY_ZGSM && !fields.succeeded)
		conclude_unreadable(exchange, &fields, reply,
							"the reply does not say whether it succeeded");
	else if (fields.other_user)
		conclude_unreadable(exchange, &fields, reply, "the answer is about another user");
	else if (exchange_is_query(exchange->kind))
		classify_answer(exchange, &fields, reply);
	else
		reply->outcome = GATEWAY_COMPLETED;
}

/*
 * True if a reply says that Redis refused the command.  Other errors of Redis,
 * such as "cannot connect to redis cluster", come from the client in between
 * and do not show whether it ran.
 */
static bool
refused_by_redis(const Exchange *exchange, const ReplyFields *fields)
{
	bool        is_text = exchange->dialect == GATEWAY_HIGRESS;
	const char *text = is_text ? exchange->body : fields->message;
	size_t      length = is_text ? exchange->body_length : strlen(fields->message);
	size_t      skipped = strlen(REDIS_ERROR);
	size_t      i;

	if (exchange->http_status != 503 || !text_begins(text, length, REDIS_ERROR))
		return false;
	while (skipped < length && text[skipped] == ' ')
		skipped++;
	for (i = 0; i < sizeof(redis_refusals) / sizeof(redis_refusals[0]); i++)
		if (text_begins(text + skipped, length - skipped, redis_refusals[i]))
			return true;
	return false;
}

/* True if a text blames the parameters. */
static bool
blames_parameters(const char *text, size_t length)
{
	size_t i;

	for (i = 0; i < sizeof(parameter_texts) / sizeof(parameter_texts[0]); i++)
		if (text_contains(text, length, parameter_texts[i]))
			return true;
	return false;
}

/*
 * True if a reply about wrong parameters is one of the gateway's own: many
 * servers have a 400 or a 422, and a wrong route leads to them.
 */
static bool
has_own_words(const Exchange *exchange, const ReplyFields *fields)
{
	if (exchange->dialect == GATEWAY_ZGSM)
		return strcmp(fields->code, ZGSM_PARAMETERS) == 0;
	return text_begins(exchange->body, exchange->body_length, HIGRESS_PARAMETERS) &&
		   blames_parameters(exchange->body, exchange->body_length);
}

/*
 * What a status of 400 to 499 proves, beside that nothing was applied.  (higress
 * uses 403 for wrong parameters, which a wrong key is answered with too; there,
 * and where the author of the reply is unknown, a query decides.)  A query whose
 * user id is too long for a URL is refused by the first server that reads it.
 */
static GatewayOutcome
classify_client_error(const Exchange *exchange, bool own_words)
{
	switch (exchange->http_status)
	{
		case 408:
		case 429:
			return GATEWAY_THROTTLED;
		case 401:
		case 403:
		case 404:
		case 405:
			return GATEWAY_BLOCKED;
		case 414:
		case 431:
			return exchange_is_query(exchange->kind) ? GATEWAY_REFUSED : GATEWAY_BLOCKED;
		default:
			return own_words ? GATEWAY_REFUSED : GATEWAY_BLOCKED;
	}
}

/* Classifies a reply by its status, which is not 2xx, and by words of the gateway's own. */
static void
classify_status(const Exchange *exchange, GatewayReply *reply)
{
	ReplyShape     shape = {NULL, "", NULL, exchange->secret};
	ReplyFields    fields;
	const char    *text = exchange->body;
	size_t         length = exchange->body_length;
	GatewayOutcome outcome = GATEWAY_IN_DOUBT;

	reply_json_read(text, length, &shape, &fields);
	if (exchange->dialect == GATEWAY_ZGSM && exchange->kind == EXCHANGE_BALANCE &&
		exchange->http_status == 500 && strcmp(fields.code, ZGSM_BELOW_ZERO) == 0)
	{
		reply->outcome = GATEWAY_COMPLETED;
		reply->below_zero = true;
		memcpy(reply->balance, BELOW_ZERO, sizeof(BELOW_ZERO));
		return;
	}

	if (exchange->http_status == 403)
		reply->names_parameters = blames_parameters(text, length);
	else if (exchange->http_status >= 400 && exchange->http_status <= 499)
		reply->names_parameters = has_own_words(exchange, &fields);
	if (exchange->http_status >= 300 && exchange->http_status <= 399)
		outcome = GATEWAY_BLOCKED;
	else if (exchange->http_status >= 400 && exchange->http_status <= 499)
		outcome = classify_client_error(exchange, reply->names_parameters);
	else if (!exchange_is_query(exchange->kind) && refused_by_redis(exchange, &fields))
		outcome = GATEWAY_BLOCKED;

	if (exchange->fault && (length == 0 || !is_own(exchange, &fields)))
		conclude_status(exchange, reply, outcome, exchange->fault, strlen(exchange->fault));
	else
		conclude_reply(exchange, &fields, reply, outcome);
}

/*
 * Fills the reply.  Its message quotes what a gateway says in its own words;
 * of any other reply it has the status and media type alone: at a URL that
 * leads elsewhere the text may not be meant for us.  A query that was answered
 * leaves the number in balance, for EXCHANGE_USED too; total stays "".
 */
void
classify(const Exchange *exchange, GatewayReply *reply)
{
	bool is_success = exchange->http_status >= 200 && exchange->http_status <= 299;

	memset(reply, 0, sizeof(*reply));
	reply->retry_after = exchange->retry_after;
	reply->http_status = exchange->http_status;

	if (!exchange->headers_whole)
	{
		const char *fault = exchange->fault ? exchange->fault : "no HTTP reply";

		reply->http_status = 0;
		reply->retry_after = -1;
		conclude(exchange, reply, exchange->nothing_sent ? GATEWAY_NOT_SENT : GATEWAY_IN_DOUBT,
				 fault, NULL, 0);
	}
	else if (!is_success)
		classify_status(exchange, reply);
	else if (exchange->fault)
		conclude_status(exchange, reply, GATEWAY_IN_DOUBT, exchange->fault,
						strlen(exchange->fault));
	else if (exchange->partly_sent)
		conclude_untold(exchange, reply, GATEWAY_IN_DOUBT,
						"the reply came before the request was sent");
	else
		classify_success(exchange, reply);
}
