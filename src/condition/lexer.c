/*
 * lexer.c
 *		Tokens of a condition.
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "utils/numeric.h"

#include "common/ascii.h"
#include "condition/full_width.h"
#include "condition/lexer.h"

/* Digits before and after the point that numeric can hold; see its documentation. */
#define NUMBER_MAX_INTEGER_DIGITS 131072
#define NUMBER_MAX_FRACTION_DIGITS 16383
/* An exponent beyond this is out of range whatever the digits are. */
#define NUMBER_MAX_EXPONENT 200000

/* Characters of a text without quotes. */
static bool
is_word_char(char c)
{
	return ascii_is_letter(c) || ascii_is_digit(c) || (c != '\0' && strchr("_./:@-", c) != NULL);
}

/* The character at offset for a message, whole if it has several bytes. */
static char *
character_at(const Lexer *lexer, int offset)
{
	int length = pg_encoding_mblen(PG_UTF8, lexer->text + offset);

	return pnstrdup(lexer->text + offset, Min(length, lexer->length - offset));
}

/* An error token; the text of the error has been set. */
static ConditionToken
error_token(Lexer *lexer, int sqlerrcode, int offset, char *message, char *hint)
{
	ConditionToken token = {TOKEN_ERROR, offset, NULL};

	condition_set_error(lexer->error, sqlerrcode, offset, message, NULL, hint);
	return token;
}

/* Reads a quoted string; "" inside is one quote, a backslash means nothing. */
static ConditionToken
read_string(Lexer *lexer)
{
	ConditionToken       token = {TOKEN_STRING, lexer->offset, NULL};
	StringInfoData       value;
	const FullWidthSign *sign;

	initStringInfo(&value);
	lexer->offset++;
	while (lexer->offset < lexer->length)
	{
		char c = lexer->text[lexer->offset++];

		if (c == '"')
		{
			if (lexer->offset >= lexer->length || lexer->text[lexer->offset] != '"')
			{
				token.value = value.data;
				return token;
			}
			lexer->offset++;
		}
		appendStringInfoChar(&value, c);
	}
	sign = full_width_in(value.data);
	return error_token(
		lexer, ERRCODE_INVALID_TEXT_REPRESENTATION, token.offset, "unterminated string",
		sign != NULL && sign->meant[0] == '"'
			? psprintf("It has a %s %s (%s): close it with \".", sign->name, sign->bytes,
					   sign->code)
			: "Close it with a double quote; a double quote inside is written twice.");
}

/*
 * Names a full-width sign that stands where one of the language is meant; *token
 * is the error.  False: there is none.
 */
static bool
read_full_width(Lexer *lexer, ConditionToken *token)
{
	const FullWidthSign *sign =
		full_width_at(lexer->text + lexer->offset, lexer->length - lexer->offset);

	if (sign == NULL)
		return false;
	*token =
		error_token(lexer, ERRCODE_INVALID_TEXT_REPRESENTATION, lexer->offset,
					psprintf("unexpected %s \"%s\" (%s)", sign->name, sign->bytes, sign->code),
					sign->meant[0] == ' '
						? "Write an ordinary blank instead."
						: psprintf("Write %s instead, as on an English keyboard.", sign->meant));
	return true;
}

/* The length of the number at text, as the grammar has it; 0 if there is none. */
static int
number_length(const char *text, int length)
{
	int i = 0;

	if (i < length && (text[i] == '+' || text[i] == '-'))
		i++;
	if (i >= length || !ascii_is_digit(text[i]))
		return 0;
	while (i < length && ascii_is_digit(text[i]))
		i++;
	if (i + 1 < length && text[i] == '.' && ascii_is_digit(text[i + 1]))
	{
		i++;
		while (i < length && ascii_is_digit(text[i]))
			i++;
	}
	if (i < length && text[i] == 'e')
	{
		int e = i + 1;

		if (e < length && (text[e] == '+' || text[e] == '-'))
			e++;
		if (e < length && ascii_is_digit(text[e]))
		{
			while (e < length && ascii_is_digit(text[e]))
				e++;
			i = e;
		}
	}
	return i;
}

/*
 * Reads a number of known length into its canonical form: no plus, no leading
 * zeros.  Whether there is a point or an exponent is kept, because only a
 * number without either is an integer.
 */
static ConditionToken
read_number(Lexer *lexer, int length)
{
	ConditionToken token = {TOKEN_NUMBER, lexer->offset, NULL};
	const char    *p = lexer->text + lexer->offset;
	const char    *end = p + length;
	bool           negative = (*p == '-');
	bool           nonzero = false;
	int            integer_digits = 0;
	int            fraction_digits = 0;
	int            exponent = 0;
	StringInfoData value;

	initStringInfo(&value);
	lexer->offset += length;
	if (*p == '+' || *p == '-')
		p++;
	while (p + 1 < end && *p == '0' && ascii_is_digit(p[1]))
		p++;
	for (; p < end && ascii_is_digit(*p); p++)
	{
		nonzero |= (*p != '0');
		integer_digits++;
		appendStringInfoChar(&value, *p);
	}
	if (p < end && *p == '.')
	{
		appendStringInfoChar(&value, *p++);
		for (; p < end && ascii_is_digit(*p); p++)
		{
			nonzero |= (*p != '0');
			fraction_digits++;
			appendStringInfoChar(&value, *p);
		}
	}
	if (p < end)
	{
		bool negative_exponent;

		p++;
		negative_exponent = (*p == '-');
		if (*p == '+' || *p == '-')
			p++;
		for (; p < end; p++)
			exponent = Min(exponent * 10 + (*p - '0'), NUMBER_MAX_EXPONENT);
		if (negative_exponent)
			exponent = -exponent;
		appendStringInfo(&value, "e%d", exponent);
	}
	if (integer_digits + exponent > NUMBER_MAX_INTEGER_DIGITS ||
		fraction_digits - exponent > NUMBER_MAX_FRACTION_DIGITS)
		return error_token(lexer, ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE, token.offset,
						   "number out of range", NULL);
	token.value = (negative && nonzero) ? psprintf("-%s", value.data) : value.data;
	return token;
}

/* What to write in place of a character that no token begins with. */
static char *
character_hint(char c)
{
	switch (c)
	{
		case '\'':
			return "Strings are written in double quotes.";
		case '&':
		case '|':
		case '!':
			return "Conditions are joined with and, or, not; a text with it is put in double "
				   "quotes.";
		case '<':
		case '>':
		case '=':
			return "Conditions are calls, as is-vip(2); a text with it is put in double quotes.";
		default:
			return "Put texts with other characters than letters, digits and _./:@- in double "
				   "quotes.";
	}
}

/* Reads the next token. */
ConditionToken
lexer_next(Lexer *lexer)
{
	ConditionToken token = {TOKEN_END, 0, NULL};
	const char    *start;
	int            rest;
	int            length;
	char           c;

	while (lexer->offset < lexer->length && ascii_is_blank(lexer->text[lexer->offset]))
		lexer->offset++;
	token.offset = lexer->offset;
	rest = lexer->length - lexer->offset;
	if (rest == 0)
		return token;
	start = lexer->text + lexer->offset;
	c = *start;
	if (c == '(' || c == ')' || c == ',')
	{
		token.kind = (c == '(') ? TOKEN_OPEN : (c == ')') ? TOKEN_CLOSE : TOKEN_COMMA;
		lexer->offset++;
		return token;
	}
	if (c == '"')
		return read_string(lexer);

	length = number_length(start, rest);
	if (length > 0 && (length == rest || !is_word_char(start[length])))
		return read_number(lexer, length);

	for (length = 0; length < rest && is_word_char(start[length]);)
		length++;
	if (length > 0)
	{
		token.kind = TOKEN_WORD;
		token.value = pnstrdup(start, length);
		lexer->offset += length;
		return token;
	}
	if (read_full_width(lexer, &token))
		return token;
	return error_token(lexer, ERRCODE_INVALID_TEXT_REPRESENTATION, token.offset,
					   psprintf("unexpected character \"%s\"", character_at(lexer, token.offset)),
					   character_hint(c));
}

/* True if the next token opens a bracket; reads nothing. */
bool
lexer_at_open(const Lexer *lexer)
{
	int offset = lexer->offset;

	while (offset < lexer->length && ascii_is_blank(lexer->text[offset]))
		offset++;
	return offset < lexer->length && lexer->text[offset] == '(';
}

/* True if the next character is a full-width sign, with which the next token is an error. */
bool
lexer_at_full_width(const Lexer *lexer)
{
	return full_width_at(lexer->text + lexer->offset, lexer->length - lexer->offset) != NULL;
}
