/*
 * amount.h
 *		Exact amounts: integers and decimals without binary fractions.
 *
 * An amount counts units of 10^-scale; the dialect says which scale it has (0 or FLOAT_DECIMALS).
 * Whatever these readers accept is at most AMOUNT_LIMIT in size, and so is whatever amount_add()
 * returns, which leaves __int128 room to spare: no operation here can overflow.
 */
#ifndef AMOUNT_H
#define AMOUNT_H

#include <stdbool.h>
#include <stddef.h>

typedef __int128 amount;

/* How many decimals numbers have that amount_read_decimal() reads. */
#define AMOUNT_DECIMALS 6

/* What the dialect zgsm keeps after the point, about as much as Redis does. */
#define FLOAT_DECIMALS 16

/* 10^21 units of FLOAT_DECIMALS decimals; no integer of 64 bits is larger than that. */
#define AMOUNT_LIMIT ((amount) 10000000000000000000u * 1000000000000000000)

/* What is stored of infinity, which can be negative, and of not-a-number. */
#define AMOUNT_INFINITE (AMOUNT_LIMIT + 1)
#define AMOUNT_NAN (AMOUNT_LIMIT + 2)

/* Room for any amount as text, sign, point and terminator included. */
#define AMOUNT_TEXT 48

/*
 * As Go's strconv.Atoi: an optional sign and decimal digits, within 64 bits.  False for anything else,
 * a fraction or surrounding blanks included.
 */
extern bool amount_read_integer(const char *text, size_t length, amount *result);

/*
 * As Go's strconv.ParseFloat reads a decimal number (sign, digits, point, exponent), rounded half to
 * even to AMOUNT_DECIMALS decimals, but without hexadecimal, infinite and not-a-number.  False for
 * anything else and beyond AMOUNT_LIMIT.
 */
extern bool amount_read_decimal(const char *text, size_t length, amount *result);

/*
 * As Go's strconv.ParseFloat with 64 bits, hexadecimal, infinite, not-a-number and underscores
 * included: the result is the shortest decimal number that stands for the same float64, as Go writes it
 * to Redis.  False for anything else and beyond AMOUNT_LIMIT.
 */
extern bool amount_read_float(const char *text, size_t length, amount *result);

/* Whether it is a number. */
extern bool amount_is_finite(amount value);

/* Writes the amount, of FLOAT_DECIMALS, as Go's encoding/json writes the float64 nearest to it. */
extern void amount_write_float(amount value, char into[AMOUNT_TEXT]);

/* a + b, or false when that lies outside [lowest, highest], or a is no number. */
extern bool amount_add(amount a, amount b, amount lowest, amount highest, amount *result);

/* Writes the amount as a plain decimal number without needless zeros, or "nan" and the like; returns its
 * length. */
extern size_t amount_write(amount value, int scale, char into[AMOUNT_TEXT]);

#endif
