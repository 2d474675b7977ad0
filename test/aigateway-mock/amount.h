/*
 * amount.h
 *		Exact amounts: integers and decimals without binary fractions.
 *
 * An amount counts units of 10^-scale; the dialect says which scale it has (0 or AMOUNT_DECIMALS).
 * Whatever these readers accept is at most AMOUNT_LIMIT in size, and so is whatever amount_add()
 * returns, which leaves __int128 room to spare: no operation here can overflow.
 */
#ifndef AMOUNT_H
#define AMOUNT_H

#include <stdbool.h>
#include <stddef.h>

typedef __int128 amount;

/* What the decimal dialect keeps after the point. */
#define AMOUNT_DECIMALS 6

/* 10^18 units of AMOUNT_DECIMALS decimals; no integer of 64 bits is larger than that. */
#define AMOUNT_LIMIT ((amount) 1000000000000000000 * 1000000)

/* Room for any amount as text, sign, point and terminator included. */
#define AMOUNT_TEXT 48

/*
 * As Go's strconv.Atoi: an optional sign and decimal digits, within 64 bits.  False for anything else,
 * a fraction or surrounding blanks included.
 */
extern bool amount_read_integer(const char *text, size_t length, amount *result);

/*
 * As Go's strconv.ParseFloat reads a decimal number (sign, digits, point, exponent), rounded half to
 * even to AMOUNT_DECIMALS decimals.  Stricter than the original in that hexadecimal, infinite and
 * not-a-number are refused.  False for anything else and beyond AMOUNT_LIMIT.
 */
extern bool amount_read_decimal(const char *text, size_t length, amount *result);

/* a + b, or false when that lies outside [lowest, highest]. */
extern bool amount_add(amount a, amount b, amount lowest, amount highest, amount *result);

/* Writes the amount as a plain decimal number without needless zeros; returns its length. */
extern size_t amount_write(amount value, int scale, char into[AMOUNT_TEXT]);

#endif
