/*
 * operation.c
 *		A request for a path under /mock/, and how its handlers read and answer it.
 */
#include "operation.h"

#include <stdarg.h>
#include <stdio.h>

#include "form.h"

/*
 * Answers 400 and says what is wrong.
 */
void
operation_refuse(struct operation *operation, const char *format, ...)
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
void
operation_done(struct operation *operation)
{
	answer_constant(operation->answer, 200, type_text, "ok\n");
}

/*
 * Reads a parameter.
 */
bool
operation_parameter(const struct operation *operation, const char *name, struct text *value)
{
	return form_value(operation->body->bytes, operation->body->length, name, value) ||
		   form_value(operation->query->bytes, operation->query->length, name, value);
}

/*
 * Reads a parameter as a string.
 */
char *
operation_string(const struct operation *operation, const char *name)
{
	struct text value = {0};

	if (!operation_parameter(operation, name, &value))
		return NULL;
	text_add(&value, "", 1);
	return value.bytes;
}

/*
 * Reads a whole number; see the header.
 */
bool
operation_number(struct operation *operation, const char *name, uint64_t otherwise, uint64_t lowest,
				 uint64_t highest, uint64_t *number)
{
	struct text text = {0};
	amount      value;
	bool        valid = true;

	*number = otherwise;
	if (operation_parameter(operation, name, &text))
	{
		valid = amount_read_integer(text.bytes, text.length, &value) && value >= lowest &&
				value <= highest;
		if (valid)
			*number = (uint64_t) value;
		else
			operation_refuse(operation, "%s must be a number from %llu to %llu", name,
							 (unsigned long long) lowest, (unsigned long long) highest);
	}
	text_free(&text);
	return valid;
}

/*
 * Reads the user; see the header.
 */
bool
operation_user(struct operation *operation, struct text *user)
{
	if (operation_parameter(operation, "user", user) && user->length > 0)
		return true;
	operation_refuse(operation, "user is missing");
	return false;
}
