/*
 * amount.c
 *		Exact amounts: integers and decimals without binary fractions.
 */
#include "amount.h"

#include <stdint.h>
#include <string.h>

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
 * 10^power; rounded half to even at AMOUNT_DECIMALS.  False beyond AMOUNT_LIMIT.
 */
static bool
digits_to_amount(const char *digits, size_t length, long power, amount *result)
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
		if (power >= -AMOUNT_DECIMALS)
		{
			value = value * 10 + digit;
			if (value > AMOUNT_LIMIT)
				return false;
		}
		else if (power == -AMOUNT_DECIMALS - 1)
			dropped = digit;
		else if (digit != 0)
			sticky = true;
		power--;
	}

	/* power now belongs to the digit after the last: what is missing down to the scale are zeros */
	for (; power >= -AMOUNT_DECIMALS && value != 0; power--)
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
	if (!digits_to_amount(text + start, end - start, (long) whole - 1 + exponent, &value))
		return false;
	*result = negative ? -value : value;
	return true;
}

/*
 * Adds within bounds; see the header.
 */
bool
amount_add(amount a, amount b, amount lowest, amount highest, amount *result)
{
	amount sum = a + b;

	if (sum < lowest || sum > highest)
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
