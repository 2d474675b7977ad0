/*
 * form.h
 *		Reading application/x-www-form-urlencoded text: bodies and query strings.
 *
 * The rules are those of Go's url.ParseQuery, whose error both gateways ignore: parameters are
 * separated by '&', '+' is a blank, a parameter with a broken percent escape or with a bare ';' is
 * skipped as if it were not there, and of a repeated parameter the first value counts.
 */
#ifndef FORM_H
#define FORM_H

#include <stdbool.h>
#include <stddef.h>

#include "text.h"

/*
 * Appends the decoded value of the parameter to an empty text; false if the parameter is absent.
 * The value may hold any bytes, NUL included.
 */
extern bool form_value(const char *form, size_t length, const char *name, struct text *value);

#endif
