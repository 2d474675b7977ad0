/*
 * amount.c
 *		Exact amounts: integers and decimals without binary fractions.
 */
#include "amount.h"

#include <ctype.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* An exponent is clamped here: far beyond any limit, far from overflowing a long. */
#define EXPONENT_CLAMP 100000000L

/*
 * True for the digits 0 to 9, whatever the locale.
 */
static bool
is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/*
 * Reads an integer of 64 bits; see the header.
 */
bool
amount_read_integer(const char *text, size_t length, amount *result)
{
	bool   negative = length > 0 && text[0] == '-';
	size_t at = length > 0 && (text[0] == '-' || text[0] == '+') ? 1 : 0;
	amount value = 0;

	if (at == length)
		return false;
	for (; at < length; at++)
	{
		if (!is_digit(text[at]))
			return false;
		value = value * 10 + (text[at] - '0');
		if (value > (amount) INT64_MAX + 1)
			return false;
	}
	if (negative)
		value = -value;
	if (value > INT64_MAX)
		return false;
	*result = value;
	return true;
}

/*
 * Reads "e", an optional sign and digits up to the end of the text.
 */
static bool
read_exponent(const char *text, size_t length, long *exponent)
{
	size_t at = 1;
	bool   negative = false;
	long   value = 0;

	if (text[0] != 'e' && text[0] != 'E')
		return false;
	if (at < length && (text[at] == '-' || text[at] == '+'))
		negative = text[at++] == '-';
	if (at == length)
		return false;
	for (; at < length; at++)
	{
		if (!is_digit(text[at]))
			return false;
		if (value < EXPONENT_CLAMP)
			value = value * 10 + (text[at] - '0');
	}
	*exponent = negative ? -value : value;
	return true;
}

/*
 * The value of the digits (a point among them is skipped), where the first digit counts
 * 10^power; rounded half to even at so many decimals.  False beyond AMOUNT_LIMIT.
 */
static bool
digits_to_amount(const char *digits, size_t length, long power, int decimals, amount *result)
{
	amount value = 0;
	int    dropped = 0;
	bool   sticky = false;

	for (size_t i = 0; i < length; i++)
	{
		int digit;

		if (digits[i] == '.')
			continue;
		digit = digits[i] - '0';
		if (power >= -decimals)
		{
			value = value * 10 + digit;
			if (value > AMOUNT_LIMIT)
				return false;
		}
		else if (power == -decimals - 1)
			dropped = digit;
		else if (digit != 0)
			sticky = true;
		power--;
	}

	/* power now belongs to the digit after the last: what is missing down to the scale are zeros */
	for (; power >= -decimals && value != 0; power--)
	{
		value *= 10;
		if (value > AMOUNT_LIMIT)
			return false;
	}
	if (dropped > 5 || (dropped == 5 && (sticky || value % 2 != 0)))
		value++;
	*result = value;
	return value <= AMOUNT_LIMIT;
}

/*
 * Reads a decimal number; see the header.
 */
bool
amount_read_decimal(const char *text, size_t length, amount *result)
{
	bool   negative = length > 0 && text[0] == '-';
	size_t start = length > 0 && (text[0] == '-' || text[0] == '+') ? 1 : 0;
	size_t end = start;
	size_t digits = 0;
	size_t whole = 0;
	bool   point = false;
	long   exponent = 0;
	amount value;

	for (; end < length && (is_digit(text[end]) || (text[end] == '.' && !point)); end++)
	{
		if (text[end] == '.')
			point = true;
		else
		{
			digits++;
			whole += point ? 0 : 1;
		}
	}
	if (digits == 0)
		return false;
	if (end < length && !read_exponent(text + end, length - end, &exponent))
		return false;
	if (!digits_to_amount(text + start, end - start, (long) whole - 1 + exponent, AMOUNT_DECIMALS,
						  &value))
		return false;
	*result = negative ? -value : value;
	return true;
}

/*
 * The words that Go reads as no number, in any case.
 */
static bool
read_word(const char *text, amount *result)
{
	const char *word = text + (*text == '-' || *text == '+');

	if (strcasecmp(text, "nan") == 0)
		*result = AMOUNT_NAN;
	else if (strcasecmp(word, "inf") == 0 || strcasecmp(word, "infinity") == 0)
		*result = *text == '-' ? -AMOUNT_INFINITE : AMOUNT_INFINITE;
	else
		return false;
	return true;
}

/*
 * Copies a number without the underscores between its digits; false where one is not between two, or
 * there is no room.
 */
static bool
drop_underscores(const char *text, size_t length, char *into, size_t size)
{
	size_t used = 0;

	for (size_t at = 0; at < length; at++)
	{
		bool between =
			at > 0 && at + 1 < length &&
			(isalnum((unsigned char) text[at - 1]) && isxdigit((unsigned char) text[at + 1]));

		if (text[at] == '_' && !between)
			return false;
		if (text[at] == '\0' || used + 1 >= size)
			return false;
		if (text[at] != '_')
			into[used++] = text[at];
	}
	into[used] = '\0';
	return true;
}

/*
 * Whether a text without underscores has the form of a number: a decimal one, or a hexadecimal one,
 * whose exponent is not optional in Go.
 */
static bool
is_number(const char *text)
{
	static const char decimal[] = "0123456789";
	static const char hexadecimal[] = "0123456789abcdefABCDEF";
	const char       *at = text + (*text == '-' || *text == '+');
	bool              is_hex = at[0] == '0' && (at[1] == 'x' || at[1] == 'X');
	const char       *digits = is_hex ? hexadecimal : decimal;
	size_t            count;

	at += is_hex ? 2 : 0;
	count = strspn(at, digits);
	at += count;
	if (*at == '.')
	{
		at++;
		count += strspn(at, digits);
		at += strspn(at, digits);
	}
	if (count == 0)
		return false;
	if (*at == '\0')
		return !is_hex;
	if (strchr(is_hex ? "pP" : "eE", *at) == NULL)
		return false;
	at++;
	at += *at == '-' || *at == '+';
	return *at != '\0' && at[strspn(at, decimal)] == '\0';
}

/*
 * Writes the shortest decimal number that stands for a float64, as d.ddde+xx; returns its digits.
 */
static int
write_shortest(double value, char *into, size_t size)
{
	int digits = 1;

	for (; digits < 17; digits++)
	{
		snprintf(into, size, "%.*e", digits - 1, value);
		if (strtod(into, NULL) == value)
			return digits;
	}
	snprintf(into, size, "%.*e", digits - 1, value);
	return digits;
}

/*
 * Reads a float64; see the header.
 */
bool
amount_read_float(const char *text, size_t length, amount *result)
{
	char   number[400];
	char   shortest[40];
	char  *mantissa = shortest;
	char  *exponent;
	double value;
	bool   valid;

	if (!drop_underscores(text, length, number, sizeof(number)))
		return false;
	if (read_word(number, result))
		return true;
	if (!is_number(number))
		return false;
	value = strtod(number, NULL);
	if (isinf(value))
		return false;
	write_shortest(fabs(value), shortest, sizeof(shortest));
	exponent = strchr(shortest, 'e');
	valid = digits_to_amount(mantissa, (size_t) (exponent - mantissa),
							 strtol(exponent + 1, NULL, 10), FLOAT_DECIMALS, result);
	if (valid && value < 0)
		*result = -*result;
	return valid;
}

/*
 * Whether it is a number; see the header.
 */
bool
amount_is_finite(amount value)
{
	return value >= -AMOUNT_LIMIT && value <= AMOUNT_LIMIT;
}

/*
 * Writes as Go's encoding/json; see the header.
 */
void
amount_write_float(amount value, char into[AMOUNT_TEXT])
{
	char   exact[AMOUNT_TEXT];
	char   shortest[40];
	double number;
	int    digits;
	int    exponent;

	amount_write(value, FLOAT_DECIMALS, exact);
	number = strtod(exact, NULL);
	digits = write_shortest(number, shortest, sizeof(shortest));
	exponent = (int) strtol(strchr(shortest, 'e') + 1, NULL, 10);
	if (number != 0 && (exponent < -6 || exponent >= 21))
		snprintf(into, AMOUNT_TEXT, "%.*se%+d", (int) (strchr(shortest, 'e') - shortest), shortest,
				 exponent);
	else if (digits - 1 > exponent)
		snprintf(into, AMOUNT_TEXT, "%.*f", digits - 1 - exponent, number);
	else
	{
		/* Go fills up with zeros where C writes all digits of the nearest binary number */
		int  sign = shortest[0] == '-';
		char first[3] = {shortest[0], sign ? shortest[1] : '\0', '\0'};

		snprintf(into, AMOUNT_TEXT, "%s%.*s%0*d", first, digits - 1,
				 digits > 1 ? shortest + sign + 2 : "", exponent - digits + 1, 0);
		into[strlen(first) + (size_t) exponent] = '\0';
	}
}

/*
 * Adds within bounds; see the header.
 */
bool
amount_add(amount a, amount b, amount lowest, amount highest, amount *result)
{
	amount sum = a + b;

	if (!amount_is_finite(a) || sum < lowest || sum > highest)
		return false;
	*result = sum;
	return true;
}

/*
 * Writes a plain decimal number; see the header.
 */
size_t
amount_write(amount value, int scale, char into[AMOUNT_TEXT])
{
	char   digits[AMOUNT_TEXT];
	char  *at = digits + sizeof(digits);
	bool   negative = value < 0;
	bool   fraction;
	int    place = 0;
	size_t length;

	if (!amount_is_finite(value))
		return (size_t) snprintf(into, AMOUNT_TEXT, "%s",
								 value == AMOUNT_NAN ? "nan"
								 : negative          ? "-inf"
													 : "inf");
	if (negative)
		value = -value;

	/* zeros at the end of the fraction are left out, and with all of them the point */
	while (place < scale && value % 10 == 0)
	{
		value /= 10;
		place++;
	}
	fraction = place < scale;
	*--at = '\0';
	for (; place <= scale || value != 0; place++)
	{
		if (fraction && place == scale)
			*--at = '.';
		*--at = (char) ('0' + (int) (value % 10));
		value /= 10;
	}
	if (negative)
		*--at = '-';
	length = (size_t) (digits + sizeof(digits) - at);
	memcpy(into, at, length);
	return length - 1;
}
