/*
 * text.h
 *		A growing buffer of bytes, and the two ways of quoting that replies need.
 *
 * A text owns its bytes; text_free() gives them back and leaves an empty text, so freeing twice is
 * harmless.  The bytes are not terminated.  Out of memory ends the process: a mock that goes on
 * without having counted a change would be worse than none.  No function here is safe for two
 * threads on one text.
 */
#ifndef TEXT_H
#define TEXT_H

#include <stdbool.h>
#include <stddef.h>

struct text
{
	char  *bytes;
	size_t length;
	size_t room;
};

/* malloc, realloc and strdup that do not return without memory. */
extern void *need_memory(size_t size);
extern void *need_more_memory(void *old, size_t size);
extern char *need_copy(const char *string);

extern void text_add(struct text *text, const char *bytes, size_t length);
extern void text_add_string(struct text *text, const char *string);
extern void text_format(struct text *text, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
extern void text_free(struct text *text);

/*
 * Append the bytes as a JSON string, quotes included, as Go's encoding/json does (both gateways are
 * written in Go): < > and & become \u003c \u003e \u0026, U+2028 and U+2029 are escaped, and each byte
 * that is not UTF-8 becomes \ufffd.  The result is always valid JSON in UTF-8.
 */
extern void text_add_json(struct text *text, const char *bytes, size_t length);

/* Append the bytes as one column of COPY's text format; every byte survives. */
extern void text_add_copy(struct text *text, const char *bytes, size_t length);

#endif
