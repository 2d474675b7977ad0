/*
 * ascii.h
 *		Classes of ASCII characters, whatever the locale.
 *
 * What conditions, schedules and times may be written with must not depend on
 * the settings of a server, as isdigit() and its like do.  Includes nothing of
 * PostgreSQL.
 */
#ifndef QM_ASCII_H
#define QM_ASCII_H

#include <stdbool.h>

static inline bool
ascii_is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static inline bool
ascii_is_lower(char c)
{
	return c >= 'a' && c <= 'z';
}

static inline bool
ascii_is_letter(char c)
{
	return ascii_is_lower(c) || (c >= 'A' && c <= 'Z');
}

/* White space between the words of a condition or a schedule. */
static inline bool
ascii_is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

#endif /* QM_ASCII_H */
