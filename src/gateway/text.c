/*
 * text.c
 *		Text of unknown origin made fit to be shown and stored.
 */
#include "gateway/text.h"

#include <string.h>

#include "common/ascii.h"

#define REDACTED "***"

/* The shortest end of a text that is taken for the beginning of a secret. */
#define MIN_SECRET_HEAD 4

/* Shorter secrets are not searched in base64, nor shorter ends of it for their beginning. */
#define MIN_ENCODED_SECRET 6
#define MIN_ENCODED_HEAD 6

/*
 * Reads the UTF-8 character at text, of which length bytes (at least 1) are
 * there.  Returns its length and code point, or 0 if there is none: overlong
 * forms, surrogates and what lies beyond U+10FFFF are not characters.
 */
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

/* How a secret may be spelled: as it is, or escaped once or twice on its way. */
typedef enum Layer
{
	LAYER_NONE,
	LAYER_JSON,    /* \/ and \u002f; scripts also write \x2f */
	LAYER_PERCENT, /* %2F, and + for a blank */
	LAYER_MARKUP,  /* &#47; &#x2f; &amp; */
} Layer;

static const Layer spellings[][2] = {
	{LAYER_NONE, LAYER_NONE},      {LAYER_NONE, LAYER_JSON},    {LAYER_NONE, LAYER_PERCENT},
	{LAYER_NONE, LAYER_MARKUP},    {LAYER_JSON, LAYER_JSON},    {LAYER_JSON, LAYER_PERCENT},
	{LAYER_JSON, LAYER_MARKUP},    {LAYER_PERCENT, LAYER_JSON}, {LAYER_PERCENT, LAYER_PERCENT},
	{LAYER_PERCENT, LAYER_MARKUP}, {LAYER_MARKUP, LAYER_JSON},  {LAYER_MARKUP, LAYER_PERCENT},
	{LAYER_MARKUP, LAYER_MARKUP},
};
#define SPELLINGS (sizeof(spellings) / sizeof(spellings[0]))

/* A place in a text that is read through layers of escapes, the outermost first. */
typedef struct Reader
{
	const char  *text;
	size_t       length;
	size_t       at;
	const Layer *layers;
	bool        *ended; /* set when there was less text than was asked for */
} Reader;

static bool read_through(Reader *reader, int depth, char *c);

/* Reads a number with that many digits at least and at most. */
static bool
read_number(Reader *reader, int depth, int base, int least, int most, unsigned *number)
{
	int count;

	*number = 0;
	for (count = 0; count < most; count++)
	{
		Reader   ahead = *reader;
		char     c;
		unsigned digit;

		if (!read_through(&ahead, depth, &c))
			break;
		if (ascii_is_digit(c))
			digit = (unsigned) (c - '0');
		else if (base == 16 && (c | 0x20) >= 'a' && (c | 0x20) <= 'f')
			digit = (unsigned) ((c | 0x20) - 'a') + 10;
		else
			break;
		*number = *number * (unsigned) base + digit;
		*reader = ahead;
	}
	return count >= least;
}

/* Reads what follows the backslash of a JSON escape. */
static bool
read_json_escape(Reader *reader, int depth, unsigned *code)
{
	char c;

	if (!read_through(reader, depth, &c))
		return false;
	if (c == 'u')
		return read_number(reader, depth, 16, 4, 4, code);
	if (c == 'x')
		return read_number(reader, depth, 16, 2, 2, code);
	*code = (unsigned char) c;
	return c == '"' || c == '\'' || c == '\\' || c == '/';
}

/* Reads what follows the & of a character reference; the semicolon may be missing. */
static bool
read_reference(Reader *reader, int depth, unsigned *code)
{
	static const struct
	{
		const char *name;
		char        c;
	} names[] = {{"amp", '&'},   {"lt", '<'},  {"gt", '>'},   {"quot", '"'},
				 {"apos", '\''}, {"sol", '/'}, {"plus", '+'}, {"equals", '='}};
	Reader start = *reader;
	Reader ahead;
	char   c;
	size_t i;
	size_t j;

	if (read_through(reader, depth, &c) && c == '#')
	{
		ahead = *reader;
		if (read_through(&ahead, depth, &c) && (c == 'x' || c == 'X'))
			*reader = ahead;
		else
			c = '#';
		return read_number(reader, depth, c == '#' ? 10 : 16, 1, 6, code);
	}
	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++)
	{
		*reader = start;
		for (j = 0; names[i].name[j] != '\0'; j++)
			if (!read_through(reader, depth, &c) || c != names[i].name[j])
				break;
		*code = (unsigned char) names[i].c;
		if (names[i].name[j] == '\0')
			return true;
	}
	return false;
}

/* Reads a character through the layers from the outermost to that depth; false at the end. */
static bool
read_through(Reader *reader, int depth, char *c)
{
	Reader   ahead;
	unsigned code;
	bool     escaped;

	if (depth < 0)
	{
		if (reader->at == reader->length)
		{
			*reader->ended = true;
			return false;
		}
		*c = reader->text[reader->at++];
		return true;
	}
	if (!read_through(reader, depth - 1, c))
		return false;
	ahead = *reader;
	switch (reader->layers[depth])
	{
		case LAYER_JSON:
			escaped = *c == '\\' && read_json_escape(&ahead, depth - 1, &code);
			break;
		case LAYER_PERCENT:
			escaped = *c == '%' && read_number(&ahead, depth - 1, 16, 2, 2, &code);
			break;
		case LAYER_MARKUP:
			escaped = *c == '&' && read_reference(&ahead, depth - 1, &code);
			if (escaped)
			{
				Reader end = ahead;
				char   semicolon;

				if (read_through(&end, depth - 1, &semicolon) && semicolon == ';')
					ahead = end;
			}
			break;
		default:
			escaped = false;
			break;
	}
	if (escaped && code < 0x80)
	{
		*reader = ahead;
		*c = (char) code;
	}
	return true;
}

/* True if what was read as c stands for the wanted character. */
static bool
means(const Layer *layers, char c, char wanted)
{
	return c == wanted || (c == '+' && wanted == ' ' &&
						   (layers[0] == LAYER_PERCENT || layers[1] == LAYER_PERCENT));
}

/* As secret_at, for one spelling. */
static size_t
spelled_at(const char *text, size_t length, const char *secret, const Layer *layers)
{
	bool   ended = false;
	Reader reader = {text, length, 0, layers, &ended};
	size_t i;

	for (i = 0; secret[i] != '\0'; i++)
	{
		char c;

		ended = false;
		if (read_through(&reader, 1, &c) && means(layers, c, secret[i]))
			continue;
		/* It may end within an escape. */
		return ended && i >= MIN_SECRET_HEAD ? length : 0;
	}
	return reader.at;
}

/* The digit of base64 that stands for the sixth part number i of a secret after some bytes. */
static char
base64_digit(const char *secret, size_t length, size_t before, size_t i)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	unsigned          bits = 0;
	size_t            bit;

	for (bit = i * 6; bit < i * 6 + 6; bit++)
	{
		size_t at = bit / 8 - before;

		bits = bits << 1 | ((at < length ? (unsigned char) secret[at] : 0u) >> (7 - bit % 8) & 1u);
	}
	return digits[bits];
}

/*
 * As secret_at, for base64 of a text in which the secret follows some bytes.
 * The digits at its ends that depend on what stands beside it do not count.
 */
static size_t
encoded_at(const char *text, size_t length, const char *secret, size_t before)
{
	size_t secret_length = strlen(secret);
	size_t first = (before * 8 + 5) / 6;
	size_t count = (before + secret_length) * 8 / 6 - first;
	size_t i;

	for (i = 0; i < count && i < length; i++)
	{
		char digit = base64_digit(secret, secret_length, before, first + i);
		char c = text[i];

		if (c == '-' || c == '_')
			c = c == '-' ? '+' : '/';
		if (c != digit)
			return 0;
	}
	return i == count || i >= MIN_ENCODED_HEAD ? i : 0;
}

/*
 * How many bytes at text belong to the secret: all of it, or a head of it with
 * which the text ends, however it is spelled.
 */
static size_t
secret_at(const char *text, size_t length, const char *secret)
{
	size_t most = 0;
	size_t i;

	if (text[0] == secret[0] || strchr("\\%&", text[0]) != NULL)
		for (i = 0; i < SPELLINGS; i++)
		{
			size_t taken = spelled_at(text, length, secret, spellings[i]);

			if (taken > most)
				most = taken;
		}
	for (i = 0; i < 3 && most == 0 && strlen(secret) >= MIN_ENCODED_SECRET; i++)
		most = encoded_at(text, length, secret, i);
	return most;
}

/*
 * Copies text to out as one line: valid UTF-8, white space and control
 * characters folded to single blanks, none at either end, cut between
 * characters so that it ends with a NUL within size (at least 1).  Bytes that
 * are not UTF-8 become '?'.  Every occurrence of secret (NULL or "": none)
 * becomes "***": also if it is cut off at the end of text, written with up to
 * two nested levels of JSON, URL or markup escapes, or in base64.
 */
void
text_line(char *out, size_t size, const char *text, size_t length, const char *secret)
{
	bool   is_secret = secret != NULL && secret[0] != '\0';
	size_t used = 0;
	size_t i = 0;
	bool   blank_due = false;

	while (i < length)
	{
		size_t      taken = is_secret ? secret_at(text + i, length - i, secret) : 0;
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

/* True if text of that length contains part, byte for byte. */
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

/* True if text of that length begins with prefix, byte for byte. */
bool
text_begins(const char *text, size_t length, const char *prefix)
{
	size_t prefix_length = strlen(prefix);

	return length >= prefix_length && memcmp(text, prefix, prefix_length) == 0;
}

/* True if every byte of text is a visible ASCII character. */
bool
text_is_visible(const char *text)
{
	for (; *text; text++)
		if (*text <= ' ' || *text >= 0x7f)
			return false;
	return true;
}

/* True if every byte of text is a visible ASCII character or a blank. */
bool
text_is_printable(const char *text)
{
	for (; *text; text++)
		if (*text < ' ' || *text >= 0x7f)
			return false;
	return true;
}
