/*
 * balance_table.h
 *		Balance samples: the table user_balance.
 *
 * A balance sample counts only if it was requested after the last event of the
 * user at the gateway, and nothing is open there.  So it is read in two steps.  balance_table_ask writes a token for the user and is committed
 * before the query is sent.  Whatever happens to the user at the gateway from
 * then on (a grant, a settlement, a change by hand, a lost answer) takes the
 * token away, and an answer is stored only in exchange for the token.
 *
 * All functions here run in a transaction of a WorkUnit that holds no row
 * locks, for one gateway; they never wait for a scan: false means that one is
 * under way, nothing was done, and the caller is to try again soon.
 */
#ifndef QM_BALANCE_TABLE_H
#define QM_BALANCE_TABLE_H

#include "postgres.h"

#include "nodes/pg_list.h"

#include "utils/timestamp.h"

/* No token: the balance must not be asked for now. */
#define BALANCE_NO_TOKEN 0

typedef struct BalanceQuestion
{
	const char *user_id;
	int64       token; /* set by balance_table_ask */
} BalanceQuestion;

typedef struct BalanceAnswer
{
	const char *user_id;
	int64       token;
	char        amount[64]; /* a decimal literal */
	TimestampTz asked;      /* when the query was sent */
} BalanceAnswer;

extern bool balance_table_ask(const char *gateway, BalanceQuestion *questions, int count);
extern bool balance_table_store(const char *gateway, const BalanceAnswer *answers, int count,
								int *stored);

/* A change of a user's quota by hand, in the transaction of its caller. */
typedef struct BalanceChange
{
	const char *gateway;
	const char *user_id;
	bool        is_known; /* the rest is about a row of the table */
	TimestampTz lost_time;
	int64       lost_moment;
} BalanceChange;

extern void balance_table_begin_change(BalanceChange *change);
extern void balance_table_end_change(const BalanceChange *change);
extern void balance_table_note_lost(const char *gateway, List *user_ids);

#endif /* QM_BALANCE_TABLE_H */
