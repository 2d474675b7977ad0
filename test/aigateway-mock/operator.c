/*
 * operator.c
 *		The paths under /mock/, by which tests see and steer the mock.
 */
#include "operator.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "faults.h"
#include "form.h"
#include "gateway.h"
#include "listing.h"
#include "stats.h"

#define PREFIX "/mock/"

/* A request and its answer, as the handlers below get it. */
struct operation
{
	const struct text *query;
	const struct text *body;
	struct answer     *answer;
};

/*
 * Answers 400 and says what is wrong.
 */
static void __attribute__((format(printf, 2, 3)))
refuse(struct operation *operation, const char *format, ...)
{
	struct text body = {0};
	char        message[256];
	va_list     arguments;

	va_start(arguments, format);
	vsnprintf(message, sizeof(message), format, arguments);
	va_end(arguments);
	text_add_string(&body, message);
	text_add_string(&body, "\n");
	answer_text(operation->answer, 400, type_text, &body);
}

/*
 * Answers that it is done.
 */
static void
done(struct operation *operation)
{
	answer_constant(operation->answer, 200, type_text, "ok\n");
}

/*
 * A parameter of the body or, if it is not there, of the query string; false if it is in neither.
 */
static bool
parameter(const struct operation *operation, const char *name, struct text *value)
{
	return form_value(operation->body->bytes, operation->body->length, name, value) ||
		   form_value(operation->query->bytes, operation->query->length, name, value);
}

/*
 * A parameter as a string that the caller frees, NULL if it is absent.  What follows a NUL is lost.
 */
static char *
string_parameter(const struct operation *operation, const char *name)
{
	struct text value = {0};

	if (!parameter(operation, name, &value))
		return NULL;
	text_add(&value, "", 1);
	return value.bytes;
}

/*
 * A whole number within bounds, or the number given when the parameter is absent; answers 400 and
 * returns false for anything else.
 */
static bool
number_parameter(struct operation *operation, const char *name, uint64_t otherwise, uint64_t lowest,
				 uint64_t highest, uint64_t *number)
{
	struct text text = {0};
	amount      value;
	bool        valid = true;

	*number = otherwise;
	if (parameter(operation, name, &text))
	{
		valid = amount_read_integer(text.bytes, text.length, &value) && value >= lowest &&
				value <= highest;
		if (valid)
			*number = (uint64_t) value;
		else
			refuse(operation, "%s must be a number from %llu to %llu", name,
				   (unsigned long long) lowest, (unsigned long long) highest);
	}
	text_free(&text);
	return valid;
}

/*
 * The user that a request is about; answers 400 and returns false if there is none.
 */
static bool
user_parameter(struct operation *operation, struct text *user)
{
	if (parameter(operation, "user", user) && user->length > 0)
		return true;
	refuse(operation, "user is missing");
	return false;
}

/*
 * GET /mock/applied and /mock/applied.tsv: from=N
 */
static void
list_applied(struct operation *operation, enum ledger_format format)
{
	uint64_t from;

	if (number_parameter(operation, "from", 1, 1, INT64_MAX, &from))
		listing_answer(format, from, operation->answer);
}

static void
get_applied(struct operation *operation)
{
	list_applied(operation, LEDGER_JSON);
}

static void
get_applied_tsv(struct operation *operation)
{
	list_applied(operation, LEDGER_TSV);
}

/*
 * GET /mock/stats
 */
static void
get_stats(struct operation *operation)
{
	struct text body = {0};

	stats_list(&body);
	answer_text(operation->answer, 200, type_json, &body);
}

/*
 * GET /mock/balance: user=U
 */
static void
get_balance(struct operation *operation)
{
	int         scale = gateway_dialect()->scale;
	struct text user = {0};
	struct text body = {0};
	amount      quota;
	amount      used;

	if (user_parameter(operation, &user))
	{
		char number[AMOUNT_TEXT];

		ledger_read(user.bytes, user.length, &quota, &used);
		text_add_string(&body, "{\"user\":");
		text_add_json(&body, user.bytes, user.length);
		amount_write(quota, scale, number);
		text_format(&body, ",\"quota\":\"%s\"", number);
		amount_write(used, scale, number);
		text_format(&body, ",\"used\":\"%s\"}\n", number);
		answer_text(operation->answer, 200, type_json, &body);
	}
	text_free(&user);
}

/*
 * An amount of the dialect, with *given telling whether the parameter is there at all; answers 400 and
 * returns false if it is there but wrong.
 */
static bool
amount_parameter(struct operation *operation, const char *name, amount *value, bool *given)
{
	struct text text = {0};
	bool        valid = true;

	*given = parameter(operation, name, &text);
	if (*given && !gateway_dialect()->read_amount(text.bytes, text.length, value))
	{
		valid = false;
		refuse(operation, "%s is not an amount of the dialect %s", name, gateway_dialect()->name);
	}
	text_free(&text);
	return valid;
}

/*
 * POST /mock/balance: user=U, quota=N and used=N as wanted
 */
static void
set_balance(struct operation *operation)
{
	struct text user = {0};
	amount      quota;
	amount      used;
	bool        with_quota;
	bool        with_used;

	if (user_parameter(operation, &user) &&
		amount_parameter(operation, "quota", &quota, &with_quota) &&
		amount_parameter(operation, "used", &used, &with_used))
	{
		if (with_quota || with_used)
			ledger_set(user.bytes, user.length, with_quota ? &quota : NULL,
					   with_used ? &used : NULL);
		get_balance(operation);
	}
	text_free(&user);
}

/*
 * POST /mock/reset
 */
static void
reset(struct operation *operation)
{
	faults_clear();
	ledger_reset();
	stats_reset();
	done(operation);
}

/*
 * POST /mock/key: key=K
 */
static void
set_key(struct operation *operation)
{
	char *key = string_parameter(operation, "key");

	if (key == NULL)
		refuse(operation, "key is missing; an empty one removes the check");
	else
	{
		gateway_set_key(key[0] != '\0' ? key : NULL);
		done(operation);
	}
	free(key);
}

/*
 * POST /mock/honour-idempotency: on=0|1
 */
static void
honour_idempotency(struct operation *operation)
{
	uint64_t on;

	if (!number_parameter(operation, "on", 2, 0, 1, &on))
		return;
	if (on > 1)
	{
		refuse(operation, "on is missing: 0 or 1");
		return;
	}
	ledger_honour_idempotency(on == 1);
	done(operation);
}

/*
 * GET /mock/fault
 */
static void
get_faults(struct operation *operation)
{
	struct text body = {0};

	faults_list(&body);
	answer_text(operation->answer, 200, type_json, &body);
}

/*
 * Arms the script if kind and match are known.
 */
static void
arm_script(struct operation *operation, struct fault_script *script, const char *kind)
{
	struct text body = {0};

	script->kind = kind != NULL ? fault_kind(kind) : NULL;
	if (script->kind == NULL)
		refuse(operation, "kind must be slow, status, html, close, reset or hang, or one of the"
						  " last four or status with apply_ before it");
	else if (fault_actions(script->match) == 0)
		refuse(operation, "match must be any, query, delta, refresh or write");
	else
	{
		text_format(&body, "{\"id\":%llu}\n", (unsigned long long) faults_arm(script));
		answer_text(operation->answer, 200, type_json, &body);
	}
}

/*
 * POST /mock/fault: kind, and as wanted match, user, count, status, body, content_type, retry_after,
 * delay_ms
 */
static void
arm_fault(struct operation *operation)
{
	struct fault_script script = {0};
	uint64_t            status;
	uint64_t            delay_ms;
	struct text         user = {0};
	struct text         body = {0};
	char               *kind = string_parameter(operation, "kind");
	char               *match = string_parameter(operation, "match");
	char               *content_type = string_parameter(operation, "content_type");
	char               *retry_after = string_parameter(operation, "retry_after");

	if (number_parameter(operation, "count", 1, 1, INT64_MAX, &script.count) &&
		number_parameter(operation, "status", 503, 200, 599, &status) &&
		number_parameter(operation, "delay_ms", 0, 0, 86400000, &delay_ms))
	{
		script.match = match != NULL ? match : "any";
		script.status = (unsigned) status;
		script.delay_ms = (unsigned) delay_ms;
		script.user = parameter(operation, "user", &user) ? &user : NULL;
		script.body = parameter(operation, "body", &body) ? &body : NULL;
		script.content_type = content_type;
		script.retry_after = retry_after;
		arm_script(operation, &script, kind);
	}
	text_free(&user);
	text_free(&body);
	free(kind);
	free(match);
	free(content_type);
	free(retry_after);
}

/*
 * POST /mock/fault/clear
 */
static void
clear_faults(struct operation *operation)
{
	faults_clear();
	done(operation);
}

/*
 * Whether the path is under /mock/.
 */
bool
operator_route(const char *path)
{
	return strncmp(path, PREFIX, sizeof(PREFIX) - 1) == 0;
}

/*
 * Handles a request; see the header.
 */
void
operator_handle(const char *method, const char *path, const struct text *query,
				const struct text *body, struct answer *answer)
{
	static const struct
	{
		const char *method;
		const char *name;
		void (*handle)(struct operation *operation);
	} routes[] = {
		{"GET", "applied", get_applied},
		{"GET", "applied.tsv", get_applied_tsv},
		{"GET", "stats", get_stats},
		{"GET", "balance", get_balance},
		{"POST", "balance", set_balance},
		{"POST", "reset", reset},
		{"POST", "key", set_key},
		{"POST", "honour-idempotency", honour_idempotency},
		{"GET", "fault", get_faults},
		{"POST", "fault", arm_fault},
		{"POST", "fault/clear", clear_faults},
	};
	struct operation operation = {query, body, answer};
	const char      *name = path + sizeof(PREFIX) - 1;
	bool             known = false;

	for (size_t i = 0; i < sizeof(routes) / sizeof(routes[0]); i++)
	{
		if (strcmp(name, routes[i].name) != 0)
			continue;
		known = true;
		if (strcmp(method, routes[i].method) == 0)
		{
			routes[i].handle(&operation);
			return;
		}
	}
	if (known)
		answer_constant(answer, 405, type_text, "this path wants another method\n");
	else
		answer_constant(answer, 404, type_text, "no such operator path\n");
}
