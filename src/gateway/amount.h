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

#define AMOUNT_SIZE GATEWAY_AMOUNT_SIZE

extern bool amount_write(GatewayDialect dialect, const char *amount, char out[AMOUNT_SIZE]);
extern bool amount_read(GatewayDialect dialect, const char *number, char out[AMOUNT_SIZE]);
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

extern bool  fixed_read(const char *text, Fixed *value);
extern bool  fixed_add(Fixed a, Fixed b, Fixed *sum);
extern Fixed fixed_negate(Fixed value);
extern int   fixed_compare(Fixed a, Fixed b);

#endif /* QM_GATEWAY_AMOUNT_H */
