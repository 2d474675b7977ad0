/*
 * amount.h
 *		Decimal literals as the dialects can carry them, computed exactly.
 *
 * Nothing here allocates, and no floating point is involved.
 */
#ifndef QM_GATEWAY_AMOUNT_H
#define QM_GATEWAY_AMOUNT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gateway/gateway.h"

/* Room for any literal written here: sign, 19 digits, point, 6 decimals, NUL. */
#define AMOUNT_SIZE 32

/*
 * Writes an amount in the one form sent to gateways: no leading zeros, none at
 * the end of the fraction, no "-0".  False, and nothing written, if it does
 * not fit the dialect (see gateway_amount_fits).
 */
extern bool amount_write(GatewayDialect dialect, const char *amount, char out[AMOUNT_SIZE]);

/*
 * Writes a number read from a gateway in the same form.  A zgsm number may
 * have an exponent and more than six decimals, and is rounded to six, half
 * away from zero.  False if it is not digits with at most a minus and a point,
 * or does not fit the dialect: more is read of zgsm than can be written.
 */
extern bool amount_read(GatewayDialect dialect, const char *number, char out[AMOUNT_SIZE]);

/* Writes a - b; both as amount_read leaves them for zgsm. */
extern void amount_subtract(const char *a, const char *b, char out[AMOUNT_SIZE]);

/*
 * A number to compute with: whole units, and millionths that count upwards
 * from them (-0.25 is -1 and 750000).
 */
typedef struct Fixed
{
	int64_t units;
	int32_t millionths; /* 0 .. 999999 */
} Fixed;

/* Reads a literal of either dialect, rounding to six decimals.  False: it is none. */
extern bool fixed_read(const char *text, Fixed *value);

/* Adds; false beyond 64 bits. */
extern bool fixed_add(Fixed a, Fixed b, Fixed *sum);

/* Of a value above the lowest. */
extern Fixed fixed_negate(Fixed value);

/* Less than, equal to or greater than 0 as a is less than, equal to or greater than b. */
extern int fixed_compare(Fixed a, Fixed b);

#endif /* QM_GATEWAY_AMOUNT_H */
