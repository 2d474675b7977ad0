/*
 * garble.h
 *		Replies in JSON that are wrong in one way each.
 *
 * What is made wrong is the usual reply.  What decides in it is the quota or, where there is none, whether
 * it succeeded; a reply that is no JSON is first put into an object that says that it did.
 */
#ifndef GARBLE_H
#define GARBLE_H

#include <stddef.h>

#include "text.h"

/* Appends the reply with its fault. */
typedef void (*garbling)(const char *reply, size_t length, struct text *wrong);

extern void garble_unparsable(const char *reply, size_t length, struct text *wrong);
extern void garble_truncated(const char *reply, size_t length, struct text *wrong);
extern void garble_nested(const char *reply, size_t length, struct text *wrong);
extern void garble_not_utf8(const char *reply, size_t length, struct text *wrong);
extern void garble_duplicate(const char *reply, size_t length, struct text *wrong);
extern void garble_quoted(const char *reply, size_t length, struct text *wrong);
extern void garble_exponent(const char *reply, size_t length, struct text *wrong);
extern void garble_digits(const char *reply, size_t length, struct text *wrong);

#endif
