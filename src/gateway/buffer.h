/*
 * buffer.h
 *		A growing piece of malloc'ed memory.
 *
 * A Buffer of zeros is empty and valid.  What was appended stays terminated
 * by a NUL that does not count.  An append that fails changes nothing.
 */
#ifndef QM_GATEWAY_BUFFER_H
#define QM_GATEWAY_BUFFER_H

#include <stdbool.h>
#include <stddef.h>

typedef struct Buffer
{
	char  *data;
	size_t used;
	size_t size;
} Buffer;

/* False: out of memory. */
extern bool buffer_append(Buffer *buffer, const char *data, size_t length);
extern bool buffer_append_text(Buffer *buffer, const char *text);

/*
 * Appends text percent-encoded, as both a query string and a form take it:
 * all but the unreserved characters of RFC 3986, byte by byte.
 */
extern bool buffer_append_encoded(Buffer *buffer, const char *text);

/* How many bytes buffer_append_encoded would append. */
extern size_t encoded_length(const char *text);

/* Empties a buffer; memory beyond keep bytes is given back. */
extern void buffer_reset(Buffer *buffer, size_t keep);

extern void buffer_free(Buffer *buffer);

#endif /* QM_GATEWAY_BUFFER_H */
