/*
 * amount.c
 *		Decimal literals as the dialects can carry them, computed exactly.
 *
 * A zgsm number has up to 18 digits before the point and six after it, more
 * than 64 bits hold, so it is computed as a pair.
 */
#include "gateway/amount.h"

#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define DECIMALS 6
#define MILLION 1000000
#define MAX_DIGITS 18
#define EXACT_IN_DOUBLE (INT64_C(1) << 53)

/* Digits before and zeros after the point beyond which a number is too large, or is zero. */
#define MAX_SHIFT 24
#define MAX_POSITIVE "9223372036854775807"
#define MAX_NEGATIVE "9223372036854775808"

/* The parts of a literal, pointing into it; zeros that mean nothing are left out. */
typedef struct Literal
{
	bool        negative;
	const char *digits;
	size_t      digit_count;
	const char *decimals;
	size_t      decimal_count;
} Literal;

static size_t
least(size_t a, size_t b)
{
	return a < b ? a : b;
}

/* Takes a literal apart; false unless it is [-]digits[.digits]. */
static bool
take_apart(const char *text, Literal *literal)
{
	static const char digits[] = "0123456789";

	literal->negative = *text == '-';
	if (literal->negative)
		text++;

	literal->digits = text;
	literal->digit_count = strspn(text, digits);
	if (literal->digit_count == 0)
		return false;
	text += literal->digit_count;

	literal->decimals = text;
	literal->decimal_count = 0;
	if (*text == '.')
	{
		text++;
		literal->decimals = text;
		literal->decimal_count = strspn(text, digits);
		if (literal->decimal_count == 0)
			return false;
		text += literal->decimal_count;
	}
	if (*text != '\0')
		return false;

	while (literal->digit_count > 0 && *literal->digits == '0')
	{
		literal->digits++;
		literal->digit_count--;
	}
	while (literal->decimal_count > 0 && literal->decimals[literal->decimal_count - 1] == '0')
		literal->decimal_count--;
	return true;
}

/* True if a literal is an integer within 64 bits. */
static bool
is_int64(const Literal *literal)
{
	const char *most = literal->negative ? MAX_NEGATIVE : MAX_POSITIVE;
	size_t      most_count = strlen(most);

	if (literal->decimal_count > 0 || literal->digit_count > most_count)
		return false;
	return literal->digit_count < most_count || memcmp(literal->digits, most, most_count) <= 0;
}

/* True if a number that was read fits the dialect as it stands. */
static bool
fits(GatewayDialect dialect, const Literal *literal)
{
	switch (dialect)
	{
		case GATEWAY_HIGRESS:
			return is_int64(literal);
		case GATEWAY_ZGSM:
			return literal->digit_count <= MAX_DIGITS && literal->decimal_count <= DECIMALS;
	}
	return false;
}

/* Writes a literal that fits its dialect. */
static void
write_literal(const Literal *literal, char out[AMOUNT_SIZE])
{
	bool zero = literal->digit_count == 0 && literal->decimal_count == 0;

	snprintf(out, AMOUNT_SIZE, "%s%.*s%s%s%.*s", literal->negative && !zero ? "-" : "",
			 (int) literal->digit_count, literal->digits, literal->digit_count == 0 ? "0" : "",
			 literal->decimal_count > 0 ? "." : "", (int) literal->decimal_count,
			 literal->decimals);
}

/* Reads a literal of at most 19 digits that fits 64 bits, rounding to six decimals. */
static Fixed
fixed_from_literal(const Literal *literal)
{
	Fixed    value = {0, 0};
	uint64_t units = 0;
	size_t   i;

	for (i = 0; i < literal->digit_count; i++)
		units = units * 10 + (uint64_t) (literal->digits[i] - '0');
	/* the lowest number is its own negation */
	value.units = (int64_t) units;
	for (i = 0; i < DECIMALS; i++)
		value.millionths =
			value.millionths * 10 + (i < literal->decimal_count ? literal->decimals[i] - '0' : 0);
	if (literal->decimal_count > DECIMALS && literal->decimals[DECIMALS] >= '5')
		value.millionths++;
	if (value.millionths == MILLION)
	{
		value.units = (int64_t) ++units;
		value.millionths = 0;
	}
	if (literal->negative)
	{
		value.units = (int64_t) -units;
		if (value.millionths > 0)
		{
			value.units--;
			value.millionths = MILLION - value.millionths;
		}
	}
	return value;
}

/* Writes a value without zeros at the end of its fraction. */
static void
write_fixed(Fixed value, char out[AMOUNT_SIZE])
{
	bool negative = value.units < 0;
	int  length;

	if (negative)
	{
		if (value.millionths > 0)
		{
			value.units++;
			value.millionths = MILLION - value.millionths;
		}
		value.units = -value.units;
	}
	length = snprintf(out, AMOUNT_SIZE, "%s%" PRId64 ".%06" PRId32, negative ? "-" : "",
					  value.units, value.millionths);
	while (out[length - 1] == '0')
		length--;
	if (out[length - 1] == '.')
		length--;
	out[length] = '\0';
}

/*
 * True if zgsm, which computes in float64, can carry a literal that fits it
 * without changing it: whole units up to 2^53, or else so many millionths.
 */
static bool
is_exact_in_double(const Literal *literal)
{
	Literal magnitude = *literal;
	Fixed   value;

	magnitude.negative = false;
	value = fixed_from_literal(&magnitude);
	if (value.millionths == 0)
		return value.units <= EXACT_IN_DOUBLE;
	return value.units <= EXACT_IN_DOUBLE / MILLION &&
		   value.units * MILLION + value.millionths <= EXACT_IN_DOUBLE;
}

/*
 * Writes a number with an exponent without it.  False: it is none, or has more
 * digits than any number that can be read.
 */
static bool
write_out_exponent(const char *number, char *out, size_t size)
{
	static const char digits[] = "0123456789";
	static const char zeros[MAX_SHIFT + 1] = "000000000000000000000000";
	const char       *sign = *number == '-' ? "-" : "";
	const char       *whole = number + strlen(sign);
	size_t            whole_count = strspn(whole, digits);
	bool              has_point = whole[whole_count] == '.';
	const char       *fraction = whole + whole_count + has_point;
	size_t            fraction_count = has_point ? strspn(fraction, digits) : 0;
	const char       *exponent = fraction + fraction_count;
	size_t            count = whole_count + fraction_count;
	char              all[64];
	bool              is_negative;
	long              shift = 0;
	long              whole_digits; /* digits before the point */

	if (whole_count == 0 || (has_point && fraction_count == 0) || count >= sizeof(all) ||
		(*exponent != 'e' && *exponent != 'E'))
		return false;
	is_negative = exponent[1] == '-';
	exponent++;
	if (*exponent == '-' || *exponent == '+')
		exponent++;
	if (exponent[strspn(exponent, digits)] != '\0' || *exponent == '\0')
		return false;
	for (; *exponent != '\0'; exponent++)
		if (shift < 1000)
			shift = shift * 10 + (*exponent - '0');

	memcpy(all, whole, whole_count);
	memcpy(all + whole_count, fraction, fraction_count);
	all[count] = '\0';
	whole_digits = (long) whole_count + (is_negative ? -shift : shift);
	if (all[strspn(all, "0")] == '\0' || whole_digits < -MAX_SHIFT)
		snprintf(out, size, "0");
	else if (whole_digits <= 0)
		snprintf(out, size, "%s0.%.*s%s", sign, (int) -whole_digits, zeros, all);
	else if (whole_digits < (long) count)
		snprintf(out, size, "%s%.*s.%s", sign, (int) whole_digits, all, all + whole_digits);
	else if (whole_digits <= (long) count + MAX_SHIFT)
		snprintf(out, size, "%s%s%.*s", sign, all, (int) (whole_digits - (long) count), zeros);
	else
		return false;
	return true;
}

/*
 * Writes an amount in the one form sent to gateways: no leading zeros, none at
 * the end of the fraction, no "-0".  False, and nothing written, if it does
 * not fit the dialect (see gateway_amount_fits).
 */
bool
amount_write(GatewayDialect dialect, const char *amount, char out[AMOUNT_SIZE])
{
	Literal literal;

	if (!take_apart(amount, &literal) || !fits(dialect, &literal))
		return false;
	if (dialect == GATEWAY_ZGSM && !is_exact_in_double(&literal))
		return false;
	write_literal(&literal, out);
	return true;
}

/*
 * Reads a number from a gateway into the same form.  A zgsm number may have an
 * exponent and more than six decimals, and is rounded to six, half away from
 * zero.  False if it is not digits with at most a minus and a point, or does
 * not fit the dialect: zgsm numbers may be larger here than in amount_write.
 */
bool
amount_read(GatewayDialect dialect, const char *number, char out[AMOUNT_SIZE])
{
	char    plain[128];
	Literal literal;

	if (dialect == GATEWAY_ZGSM && write_out_exponent(number, plain, sizeof(plain)))
		number = plain;
	if (!take_apart(number, &literal))
		return false;
	if (dialect != GATEWAY_ZGSM || literal.decimal_count <= DECIMALS)
	{
		if (!fits(dialect, &literal))
			return false;
		write_literal(&literal, out);
		return true;
	}
	if (literal.digit_count > MAX_DIGITS)
		return false;
	write_fixed(fixed_from_literal(&literal), out);
	return true;
}

/* Writes a - b; both as amount_read leaves them for zgsm. */
void
amount_subtract(const char *a, const char *b, char out[AMOUNT_SIZE])
{
	Literal minuend;
	Literal subtrahend;
	Fixed   value;
	Fixed   taken;

	if (!take_apart(a, &minuend) || !take_apart(b, &subtrahend))
	{
		out[0] = '\0';
		return;
	}
	value = fixed_from_literal(&minuend);
	taken = fixed_from_literal(&subtrahend);

	value.units -= taken.units;
	value.millionths -= taken.millionths;
	if (value.millionths < 0)
	{
		value.units--;
		value.millionths += MILLION;
	}
	write_fixed(value, out);
}

/*
 * Reads a literal of either dialect, rounding to six decimals.  False: it is
 * not a literal.
 */
bool
fixed_read(const char *text, Fixed *value)
{
	Literal literal;

	if (!take_apart(text, &literal))
		return false;
	if (literal.digit_count > MAX_DIGITS && !is_int64(&literal))
		return false;
	*value = fixed_from_literal(&literal);
	return true;
}

/* Adds; false beyond 64 bits. */
bool
fixed_add(Fixed a, Fixed b, Fixed *sum)
{
	int32_t millionths = a.millionths + b.millionths;
	int64_t units;

	if (__builtin_add_overflow(a.units, b.units, &units) ||
		(millionths >= MILLION && __builtin_add_overflow(units, 1, &units)))
		return false;
	sum->units = units;
	sum->millionths = millionths >= MILLION ? millionths - MILLION : millionths;
	return true;
}

/* Changes the sign of a value above the lowest. */
Fixed
fixed_negate(Fixed value)
{
	Fixed negated;

	negated.units = value.millionths > 0 ? -value.units - 1 : -value.units;
	negated.millionths = value.millionths > 0 ? MILLION - value.millionths : 0;
	return negated;
}

/*
 * Less than, equal to or greater than 0 as a is less than, equal to or greater
 * than b.
 */
int
fixed_compare(Fixed a, Fixed b)
{
	if (a.units != b.units)
		return a.units < b.units ? -1 : 1;
	return (a.millionths > b.millionths) - (a.millionths < b.millionths);
}

/*
 * True if an amount can be delivered in this dialect: integers within 64 bits
 * for higress; for zgsm, which computes in float64, integers up to 2^53 and up
 * to 2^53 millionths with at most six decimals.  The literal is what
 * numeric_out prints; zeros at the end of its fraction do not count.
 */
bool
gateway_amount_fits(GatewayDialect dialect, const char *amount)
{
	char written[AMOUNT_SIZE];

	return amount_write(dialect, amount, written);
}

/*
 * Writes the amount next to a literal, towards zero, that can be delivered in
 * this dialect; "0" if the literal is not one.
 */
void
gateway_amount_truncate(GatewayDialect dialect, const char *amount, char out[GATEWAY_AMOUNT_SIZE])
{
	bool    is_zgsm = dialect == GATEWAY_ZGSM;
	Literal literal;

	if (!take_apart(amount, &literal))
	{
		snprintf(out, GATEWAY_AMOUNT_SIZE, "0");
		return;
	}
	literal.decimal_count = is_zgsm ? least(literal.decimal_count, DECIMALS) : 0;
	while (literal.decimal_count > 0 && literal.decimals[literal.decimal_count - 1] == '0')
		literal.decimal_count--;
	if (fits(dialect, &literal) && (!is_zgsm || is_exact_in_double(&literal)))
	{
		write_literal(&literal, out);
		return;
	}
	literal.decimal_count = 0;
	if (fits(dialect, &literal) && (!is_zgsm || is_exact_in_double(&literal)))
		write_literal(&literal, out);
	else if (is_zgsm)
		snprintf(out, GATEWAY_AMOUNT_SIZE, "%s%" PRId64, literal.negative ? "-" : "",
				 EXACT_IN_DOUBLE);
	else
		snprintf(out, GATEWAY_AMOUNT_SIZE, "%s",
				 literal.negative ? "-" MAX_NEGATIVE : MAX_POSITIVE);
}
