/*
 * full_width.c
 *		Signs of East Asian keyboards that are taken for those of a condition.
 */
#include "postgres.h"

#include "condition/full_width.h"

static const FullWidthSign signs[] = {
	{"\xe2\x80\x9c", "full-width quotation mark", "U+201C", "\"", false},
	{"\xe2\x80\x9d", "full-width quotation mark", "U+201D", "\"", false},
	{"\xef\xbc\x82", "full-width quotation mark", "U+FF02", "\"", false},
	{"\xe2\x80\x98", "full-width quotation mark", "U+2018", "\"", false},
	{"\xe2\x80\x99", "full-width quotation mark", "U+2019", "\"", true},
	{"\xef\xbc\x87", "full-width quotation mark", "U+FF07", "\"", false},
	{"\xef\xbc\x8c", "full-width comma", "U+FF0C", ",", false},
	{"\xe3\x80\x81", "full-width comma", "U+3001", ",", false},
	{"\xef\xbc\x88", "full-width bracket", "U+FF08", "(", true},
	{"\xef\xbc\x89", "full-width bracket", "U+FF09", ")", true},
	{"\xe3\x80\x80", "full-width blank", "U+3000", " ", false},
};

/* The sign that a text of some length begins with; NULL: none. */
const FullWidthSign *
full_width_at(const char *text, size_t length)
{
	for (int i = 0; i < lengthof(signs); i++)
	{
		size_t size = strlen(signs[i].bytes);

		if (length >= size && memcmp(text, signs[i].bytes, size) == 0)
			return &signs[i];
	}
	return NULL;
}

/* A sign in a text, one that names seldom have if there is such; NULL: none. */
const FullWidthSign *
full_width_in(const char *text)
{
	const FullWidthSign *usual = NULL;

	for (size_t left = strlen(text); left > 0; text++, left--)
	{
		/* All begin with such a byte, and no other character's rest does. */
		const FullWidthSign *sign =
			(unsigned char) *text >= 0xe2 ? full_width_at(text, left) : NULL;

		if (sign != NULL && !sign->is_usual)
			return sign;
		if (usual == NULL)
			usual = sign;
	}
	return usual;
}
