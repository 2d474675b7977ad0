/*
 * operator_fault.c
 *		The paths under /mock/fault.
 */
#include "operator_fault.h"

#include <stdlib.h>

#include "faults.h"

/* How long a huge reply is that does not say. */
#define HUGE_BYTES 100000000

/* How much a huge reply may have: what a test could wait for. */
#define HUGE_LIMIT UINT64_C(1000000000000)

/*
 * Lists the armed faults.
 */
void
operator_get_faults(struct operation *operation)
{
	struct text body = {0};

	faults_list(&body);
	answer_text(operation->answer, 200, type_json, &body);
}

/*
 * Lists the kinds of faults.
 */
void
operator_get_fault_kinds(struct operation *operation)
{
	struct text body = {0};

	fault_kinds_list(&body);
	answer_text(operation->answer, 200, type_json, &body);
}

/*
 * Reads the probability in millionths; answers 400 and returns false if it is none.
 */
static bool
read_probability(struct operation *operation, unsigned *probability)
{
	struct text text = {0};
	amount      value = FAULT_ALWAYS;
	bool        valid = true;

	if (operation_parameter(operation, "probability", &text))
		valid = amount_read_decimal(text.bytes, text.length, &value) && value >= 0 &&
				value <= FAULT_ALWAYS;
	text_free(&text);
	if (valid)
		*probability = (unsigned) value;
	else
		operation_refuse(operation, "probability must be a number from 0 to 1");
	return valid;
}

/*
 * Reads what says which requests are struck; answers 400 and returns false if something is wrong.
 */
static bool
read_pattern(struct operation *operation, struct fault_script *script)
{
	if (!fault_match_is_known(script->match))
	{
		operation_refuse(operation, "match must be any, query, delta, grant, refresh or write");
		return false;
	}
	return operation_number(operation, "count", 1, 0, INT64_MAX, &script->count) &&
		   operation_number(operation, "seed", 1, 0, INT64_MAX, &script->seed) &&
		   read_probability(operation, &script->probability);
}

/*
 * Reads what says what the client sees; answers 400 and returns false if something is wrong.
 */
static bool
read_strike(struct operation *operation, struct strike *strike)
{
	char    *kind = operation_string(operation, "kind");
	uint64_t status;
	uint64_t delay_ms;

	strike->kind = kind != NULL ? fault_kind(kind) : NULL;
	free(kind);
	strike->content_type = operation_string(operation, "content_type");
	strike->retry_after = operation_string(operation, "retry_after");
	strike->location = operation_string(operation, "location");
	strike->has_body = operation_parameter(operation, "body", &strike->body);
	operation_parameter(operation, "extra", &strike->extra);
	if (strike->kind == NULL)
	{
		operation_refuse(operation, "no such kind; GET /mock/fault/kinds lists them");
		return false;
	}
	if (!operation_number(operation, "status", 0, 200, 599, &status) ||
		!operation_number(operation, "delay_ms", 0, 0, 86400000, &delay_ms) ||
		!operation_number(operation, "size", HUGE_BYTES, 1, HUGE_LIMIT, &strike->size))
		return false;
	strike->status = (unsigned) status;
	strike->delay_ms = (unsigned) delay_ms;
	return true;
}

/*
 * Arms a fault.
 */
void
operator_arm_fault(struct operation *operation)
{
	struct fault_script script = {0};
	struct text         user = {0};
	struct text         reply = {0};
	char               *match = operation_string(operation, "match");

	script.match = match != NULL ? match : "any";
	script.user = operation_parameter(operation, "user", &user) ? &user : NULL;
	if (read_strike(operation, &script.strike) && read_pattern(operation, &script))
	{
		text_format(&reply, "{\"id\":%llu}\n", (unsigned long long) faults_arm(&script));
		answer_text(operation->answer, 200, type_json, &reply);
	}
	strike_free(&script.strike);
	text_free(&user);
	free(match);
}

/*
 * Disarms everything.
 */
void
operator_clear_faults(struct operation *operation)
{
	faults_clear();
	operation_done(operation);
}
