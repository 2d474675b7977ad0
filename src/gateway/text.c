/*
 * text.c
 *		Text of unknown origin made fit to be shown and stored.
 */
#include "gateway/text.h"

#include <string.h>

#define REDACTED "***"

/* The shortest end of a text that is taken for the beginning of a secret. */
#define MIN_SECRET_HEAD 4

size_t
text_character(const char *start, size_t length, uint32_t *code)
{
	static const uint32_t lowest[] = {0, 0, 0x80, 0x800, 0x10000};
	const unsigned char  *text = (const unsigned char *) start;
	size_t                size;
	size_t                i;

	if (text[0] < 0x80)
	{
		*code = text[0];
		return 1;
	}
	if (text[0] >= 0xc2 && text[0] <= 0xdf)
		size = 2;
	else if (text[0] >= 0xe0 && text[0] <= 0xef)
		size = 3;
	else if (text[0] >= 0xf0 && text[0] <= 0xf4)
		size = 4;
	else
		return 0;
	if (size > length)
		return 0;
	*code = text[0] & (0x7fu >> size);
	for (i = 1; i < size; i++)
	{
		if ((text[i] & 0xc0) != 0x80)
			return 0;
		*code = (*code << 6) | (text[i] & 0x3fu);
	}
	if (*code < lowest[size] || *code > 0x10ffff || (*code >= 0xd800 && *code <= 0xdfff))
		return 0;
	return size;
}

/*
 * True for white space and for everything that would let a text leave its
 * line or show itself in another order: controls, line and paragraph
 * separators, bidirectional marks.
 */
static bool
is_blank(uint32_t code)
{
	return code <= 0x20 || (code >= 0x7f && code <= 0xa0) || (code >= 0x2028 && code <= 0x202e) ||
		   (code >= 0x2066 && code <= 0x2069) || code == 0x200e || code == 0x200f || code == 0xfeff;
}

/*
 * How many bytes at text belong to the secret: all of it, or a head of it with
 * which the text ends.
 */
static size_t
secret_at(const char *text, size_t length, const char *secret, size_t secret_length)
{
	size_t compared = length < secret_length ? length : secret_length;

	if (secret_length == 0 || text[0] != secret[0])
		return 0;
	if (compared < secret_length && compared < MIN_SECRET_HEAD)
		return 0;
	return memcmp(text, secret, compared) == 0 ? compared : 0;
}

void
text_line(char *out, size_t size, const char *text, size_t length, const char *secret)
{
	size_t secret_length = secret ? strlen(secret) : 0;
	size_t used = 0;
	size_t i = 0;
	bool   blank_due = false;

	while (i < length)
	{
		size_t      taken = secret_at(text + i, length - i, secret, secret_length);
		const char *piece = text + i;
		size_t      piece_length = 1;

		if (taken > 0)
		{
			piece = REDACTED;
			piece_length = strlen(REDACTED);
		}
		else
		{
			uint32_t code = 0;

			taken = text_character(text + i, length - i, &code);
			if (taken == 0)
			{
				piece = "?";
				taken = 1;
			}
			else if (is_blank(code))
			{
				blank_due = used > 0;
				i += taken;
				continue;
			}
			else
				piece_length = taken;
		}

		if (used + (blank_due ? 1 : 0) + piece_length >= size)
			break;
		if (blank_due)
			out[used++] = ' ';
		blank_due = false;
		memcpy(out + used, piece, piece_length);
		used += piece_length;
		i += taken;
	}
	out[used] = '\0';
}

bool
text_contains(const char *text, size_t length, const char *part)
{
	size_t part_length = strlen(part);

	while (length >= part_length)
	{
		const char *found = memchr(text, part[0], length - part_length + 1);

		if (!found)
			return false;
		if (memcmp(found, part, part_length) == 0)
			return true;
		length -= (size_t) (found - text) + 1;
		text = found + 1;
	}
	return false;
}

bool
text_begins(const char *text, size_t length, const char *prefix)
{
	size_t prefix_length = strlen(prefix);

	return length >= prefix_length && memcmp(text, prefix, prefix_length) == 0;
}

bool
text_is_visible(const char *text, bool blanks)
{
	for (; *text; text++)
	{
		if (*text == ' ' && blanks)
			continue;
		if (*text <= 0x20 || *text >= 0x7f)
			return false;
	}
	return true;
}
