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

extern bool   buffer_append(Buffer *buffer, const char *data, size_t length);
extern bool   buffer_append_text(Buffer *buffer, const char *text);
extern bool   buffer_append_encoded(Buffer *buffer, const char *text);
extern size_t encoded_length(const char *text);
extern void   buffer_reset(Buffer *buffer, size_t keep);
extern void   buffer_free(Buffer *buffer);

#endif /* QM_GATEWAY_BUFFER_H */
