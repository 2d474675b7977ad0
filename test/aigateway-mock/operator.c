/*
 * operator.c
 *		The paths under /mock/, by which tests see and steer the mock.
 */
#include "operator.h"

#include <stdlib.h>
#include <string.h>

#include "faults.h"
#include "gateway.h"
#include "listing.h"
#include "operator_fault.h"
#include "stats.h"

#define PREFIX "/mock/"

/*
 * GET /mock/applied and /mock/applied.tsv: from=N
 */
static void
list_applied(struct operation *operation, enum ledger_format format)
{
	uint64_t from;

	if (operation_number(operation, "from", 1, 1, INT64_MAX, &from))
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

	if (operation_user(operation, &user))
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

	*given = operation_parameter(operation, name, &text);
	if (*given && !gateway_dialect()->read_amount(text.bytes, text.length, value))
	{
		valid = false;
		operation_refuse(operation, "%s is not an amount of the dialect %s", name,
						 gateway_dialect()->name);
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

	if (operation_user(operation, &user) &&
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
	operation_done(operation);
}

/*
 * POST /mock/key: key=K
 */
static void
set_key(struct operation *operation)
{
	char *key = operation_string(operation, "key");

	if (key == NULL)
		operation_refuse(operation, "key is missing; an empty one removes the check");
	else
	{
		gateway_set_key(key[0] != '\0' ? key : NULL);
		operation_done(operation);
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

	if (!operation_number(operation, "on", 2, 0, 1, &on))
		return;
	if (on > 1)
	{
		operation_refuse(operation, "on is missing: 0 or 1");
		return;
	}
	ledger_honour_idempotency(on == 1);
	operation_done(operation);
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
		{"GET", "fault", operator_get_faults},
		{"GET", "fault/kinds", operator_get_fault_kinds},
		{"POST", "fault", operator_arm_fault},
		{"POST", "fault/clear", operator_clear_faults},
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
