/*
 * text.c
 *		A growing buffer of bytes, and the two ways of quoting that replies need.
 */
#include "text.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/*
 * Allocates or ends the process.
 */
void *
need_memory(size_t size)
{
	return need_more_memory(NULL, size);
}

/*
 * Resizes or ends the process; never returns NULL, not even for size 0.
 */
void *
need_more_memory(void *old, size_t size)
{
	void *result = realloc(old, size > 0 ? size : 1);

	if (result == NULL)
	{
		fprintf(stderr, "aigateway-mock: out of memory\n");
		abort();
	}
	return result;
}

/*
 * A copy of the string that the caller owns.
 */
char *
need_copy(const char *string)
{
	size_t size = strlen(string) + 1;

	return memcpy(need_memory(size), string, size);
}

/*
 * Makes room for so many bytes more; doubling keeps appending linear.
 */
static void
text_reserve(struct text *text, size_t more)
{
	size_t room = text->room;

	if (room - text->length >= more)
		return;
	if (room < 128)
		room = 128;
	while (room - text->length < more)
		room *= 2;
	text->bytes = need_more_memory(text->bytes, room);
	text->room = room;
}

/*
 * Appends the bytes.
 */
void
text_add(struct text *text, const char *bytes, size_t length)
{
	if (length == 0)
		return;
	text_reserve(text, length);
	memcpy(text->bytes + text->length, bytes, length);
	text->length += length;
}

/*
 * Appends a terminated string without its terminator.
 */
void
text_add_string(struct text *text, const char *string)
{
	text_add(text, string, strlen(string));
}

/*
 * Appends what printf would have printed.
 */
void
text_format(struct text *text, const char *format, ...)
{
	va_list arguments;
	int     length;

	va_start(arguments, format);
	length = vsnprintf(NULL, 0, format, arguments);
	va_end(arguments);
	if (length <= 0)
		return;

	/* vsnprintf writes a terminator, which is not counted into the text */
	text_reserve(text, (size_t) length + 1);
	va_start(arguments, format);
	vsnprintf(text->bytes + text->length, (size_t) length + 1, format, arguments);
	va_end(arguments);
	text->length += (size_t) length;
}

/*
 * Gives the bytes back and leaves an empty text.
 */
void
text_free(struct text *text)
{
	free(text->bytes);
	text->bytes = NULL;
	text->length = 0;
	text->room = 0;
}

/*
 * The length of the UTF-8 character that starts here, 0 if none does.  Overlong forms, surrogates and
 * what lies above U+10FFFF are not characters.
 */
static size_t
utf8_length(const unsigned char *at, size_t left)
{
	unsigned char first = at[0];
	unsigned char low = 0x80;
	unsigned char high = 0xBF;
	size_t        length;

	if (first < 0x80)
		return 1;
	if (first < 0xC2 || first > 0xF4)
		return 0;
	length = first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
	if (left < length)
		return 0;
	if (first == 0xE0)
		low = 0xA0;
	else if (first == 0xED)
		high = 0x9F;
	else if (first == 0xF0)
		low = 0x90;
	else if (first == 0xF4)
		high = 0x8F;
	if (at[1] < low || at[1] > high)
		return 0;
	for (size_t i = 2; i < length; i++)
	{
		if ((at[i] & 0xC0) != 0x80)
			return 0;
	}
	return length;
}

/*
 * Writes the JSON escape of the character of this length (0: not a character) that starts here;
 * returns its length, 0 if the character stands for itself.
 */
static size_t
json_escape(const unsigned char *at, size_t character, char *into, size_t room)
{
	int written = 0;

	if (character == 0)
		written = snprintf(into, room, "\\ufffd");
	else if (character == 3 && at[0] == 0xE2 && at[1] == 0x80 && (at[2] | 1) == 0xA9)
		written = snprintf(into, room, "\\u202%c", at[2] == 0xA8 ? '8' : '9');
	else if (character > 1)
		written = 0;
	else if (at[0] == '"' || at[0] == '\\')
		written = snprintf(into, room, "\\%c", at[0]);
	else if (at[0] == '\n')
		written = snprintf(into, room, "\\n");
	else if (at[0] == '\r')
		written = snprintf(into, room, "\\r");
	else if (at[0] == '\t')
		written = snprintf(into, room, "\\t");
	else if (at[0] < 0x20 || at[0] == '<' || at[0] == '>' || at[0] == '&')
		written = snprintf(into, room, "\\u%04x", (unsigned) at[0]);
	return (size_t) written;
}

/*
 * Appends a JSON string; see the header for the rules.
 */
void
text_add_json(struct text *text, const char *bytes, size_t length)
{
	const unsigned char *input = (const unsigned char *) bytes;
	size_t               plain = 0;
	size_t               at = 0;

	text_add(text, "\"", 1);
	while (at < length)
	{
		size_t character = utf8_length(input + at, length - at);
		char   escape[8];
		size_t escaped = json_escape(input + at, character, escape, sizeof(escape));
		size_t step = character > 0 ? character : 1;

		if (escaped > 0)
		{
			text_add(text, bytes + plain, at - plain);
			text_add(text, escape, escaped);
			plain = at + step;
		}
		at += step;
	}
	if (plain < length)
		text_add(text, bytes + plain, length - plain);
	text_add(text, "\"", 1);
}

/*
 * Appends a column of COPY's text format.
 */
void
text_add_copy(struct text *text, const char *bytes, size_t length)
{
	static const char special[] = "\b\f\n\r\t\v\\";
	static const char letter[] = "bfnrtv\\";
	size_t            plain = 0;

	for (size_t at = 0; at < length; at++)
	{
		const char *found = memchr(special, bytes[at], sizeof(special) - 1);

		if (found != NULL)
		{
			text_add(text, bytes + plain, at - plain);
			text_add(text, "\\", 1);
			text_add(text, letter + (found - special), 1);
			plain = at + 1;
		}
	}
	if (plain < length)
		text_add(text, bytes + plain, length - plain);
}
