/*
 * balances.h
 *		Writing down what gateways answered.
 */
#ifndef QM_BALANCES_H
#define QM_BALANCES_H

#include "postgres.h"

#include "utils/timestamp.h"

/* An answer to a balance query. */
typedef struct Balance
{
	const char *user_id;
	const char *gateway;
	char        amount[64]; /* a decimal literal */
	TimestampTz read_time;
} Balance;

/* Writes answers to user_balance; no pair of user and gateway twice.  In a transaction. */
extern void balances_write(const Balance *balances, int count);

#endif /* QM_BALANCES_H */
