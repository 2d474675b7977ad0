/*
 * buffer.c
 *		A growing piece of malloc'ed memory.
 */
#include "gateway/buffer.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/ascii.h"

#define SMALLEST 256

/* Makes room for more bytes and a NUL after what is used. */
static bool
reserve(Buffer *buffer, size_t more)
{
	size_t needed;
	size_t size;
	char  *data;

	if (more > SIZE_MAX / 4 - buffer->used)
		return false;
	needed = buffer->used + more + 1;
	if (needed <= buffer->size)
		return true;
	size = buffer->size < SMALLEST ? SMALLEST : buffer->size;
	while (size < needed)
		size *= 2;
	data = realloc(buffer->data, size);
	if (!data)
		return false;
	buffer->data = data;
	buffer->size = size;
	return true;
}

/* Appends bytes.  False: out of memory. */
bool
buffer_append(Buffer *buffer, const char *data, size_t length)
{
	if (!reserve(buffer, length))
		return false;
	if (length > 0)
		memcpy(buffer->data + buffer->used, data, length);
	buffer->used += length;
	buffer->data[buffer->used] = '\0';
	return true;
}

/* Appends a NUL-terminated text.  False: out of memory. */
bool
buffer_append_text(Buffer *buffer, const char *text)
{
	return buffer_append(buffer, text, strlen(text));
}

/* True for the characters that mean themselves everywhere in a URL or form. */
static bool
is_unreserved(unsigned char c)
{
	return ascii_is_letter((char) c) || ascii_is_digit((char) c) || c == '-' || c == '.' ||
		   c == '_' || c == '~';
}

/* How many bytes buffer_append_encoded would append. */
size_t
encoded_length(const char *text)
{
	size_t length = 0;

	for (; *text; text++)
		length += is_unreserved((unsigned char) *text) ? 1 : 3;
	return length;
}

/*
 * Appends text percent-encoded, as both a query string and a form take it: all
 * but the unreserved characters of RFC 3986, byte by byte.
 */
bool
buffer_append_encoded(Buffer *buffer, const char *text)
{
	static const char hex[] = "0123456789ABCDEF";
	char             *out;

	if (!reserve(buffer, encoded_length(text)))
		return false;
	out = buffer->data + buffer->used;
	for (; *text; text++)
	{
		unsigned char c = (unsigned char) *text;

		if (is_unreserved(c))
			*out++ = (char) c;
		else
		{
			*out++ = '%';
			*out++ = hex[c >> 4];
			*out++ = hex[c & 15];
		}
	}
	*out = '\0';
	buffer->used = (size_t) (out - buffer->data);
	return true;
}

/* Empties a buffer; memory beyond keep bytes is given back. */
void
buffer_reset(Buffer *buffer, size_t keep)
{
	if (buffer->size > keep)
		buffer_free(buffer);
	buffer->used = 0;
	if (buffer->data)
		buffer->data[0] = '\0';
}

/* Frees the memory; the buffer is empty and valid again. */
void
buffer_free(Buffer *buffer)
{
	free(buffer->data);
	memset(buffer, 0, sizeof(*buffer));
}
