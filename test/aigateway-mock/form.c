/*
 * form.c
 *		Reading application/x-www-form-urlencoded text: bodies and query strings.
 */
#include "form.h"

#include <string.h>

/*
 * The value of a hexadecimal digit, -1 for any other character.
 */
static int
hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

/*
 * Decodes into room for at least length bytes; false, and the room is undefined, if an escape is
 * broken.
 */
static bool
decode(const char *from, size_t length, char *into, size_t *decoded)
{
	size_t written = 0;

	for (size_t at = 0; at < length; at++)
	{
		char c = from[at];

		if (c == '+')
			c = ' ';
		else if (c == '%')
		{
			int high = at + 2 < length ? hex_digit(from[at + 1]) : -1;
			int low = at + 2 < length ? hex_digit(from[at + 2]) : -1;

			if (high < 0 || low < 0)
				return false;
			c = (char) (high * 16 + low);
			at += 2;
		}
		into[written++] = c;
	}
	*decoded = written;
	return true;
}

/*
 * Whether these encoded bytes are the name; a name that is too long to be any of ours is not looked
 * at.
 */
static bool
is_name(const char *encoded, size_t length, const char *name)
{
	char   decoded[128];
	size_t decoded_length;

	if (length > sizeof(decoded) || !decode(encoded, length, decoded, &decoded_length))
		return false;
	return decoded_length == strlen(name) && memcmp(decoded, name, decoded_length) == 0;
}

/*
 * Finds and decodes a parameter; see the header.
 */
bool
form_value(const char *form, size_t length, const char *name, struct text *value)
{
	const char *at = form;
	const char *end = form + length;

	while (length > 0 && at < end)
	{
		const char *stop = memchr(at, '&', (size_t) (end - at));
		const char *equals;
		const char *name_end;
		const char *value_start;
		size_t      value_length;

		if (stop == NULL)
			stop = end;
		equals = memchr(at, '=', (size_t) (stop - at));
		name_end = equals != NULL ? equals : stop;
		value_start = equals != NULL ? equals + 1 : stop;
		value_length = (size_t) (stop - value_start);

		if (is_name(at, (size_t) (name_end - at), name) &&
			memchr(at, ';', (size_t) (stop - at)) == NULL)
		{
			char  *bytes = need_memory(value_length);
			size_t decoded;

			if (decode(value_start, value_length, bytes, &decoded))
			{
				text_free(value);
				value->bytes = bytes;
				value->length = decoded;
				value->room = value_length > 0 ? value_length : 1;
				return true;
			}
			text_free(&(struct text){bytes, 0, 0});
		}
		at = stop + 1;
	}
	return false;
}
