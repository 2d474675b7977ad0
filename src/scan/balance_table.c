/*
 * balance_table.c
 *		What is known of balances: the table user_balance.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "utils/builtins.h"

#include "common/monotonic.h"
#include "delivery/settings.h"
#include "delivery/statement.h"
#include "scan/balance_table.h"
#include "scan/scan_lock.h"

PG_FUNCTION_INFO_V1(qm_answer_may_arrive);

/*
 * In the order of the key, so that two that write the same rows wait for each
 * other instead of locking each other out.  A key has room for 2678 bytes in
 * an index; what does not fit is not asked for, and keeps no other from it.
 * NOT IN is hashed once; a join to those with something open might be a loop
 * over both.
 */
static Statement ask_balances = {
	"INSERT INTO quota_manager.user_balance AS b (user_id, gateway, read_time, token)"
	" SELECT k.user_id, $2, $3, k.token"
	" FROM unnest($1, $4) AS k(user_id, token)"
	" LEFT JOIN quota_manager.user_balance l ON l.user_id = k.user_id AND l.gateway = $2"
	" WHERE octet_length(k.user_id) + octet_length($2) <= 2678"
	" AND k.user_id NOT IN (SELECT o.user_id FROM quota_manager.open_users(ARRAY[$2]) o)"
	" AND quota_manager.answer_may_arrive(l.lost_time, l.lost_moment) IS NOT TRUE"
	" ORDER BY k.user_id"
	" ON CONFLICT (user_id, gateway) DO UPDATE SET token = coalesce(b.token, excluded.token)"
	" RETURNING b.user_id, b.token",
	4,
	{TEXTARRAYOID, TEXTOID, TIMESTAMPTZOID, INT8ARRAYOID},
	NULL};

static Statement store_balances = {
	"UPDATE quota_manager.user_balance AS b"
	" SET balance = k.balance::numeric, read_time = k.read_time, token = NULL,"
	" lost_time = NULL, lost_moment = NULL"
	" FROM unnest($1, $3, $4, $5) AS k(user_id, token, balance, read_time)"
	" WHERE b.user_id = k.user_id AND b.gateway = $2 AND b.token = k.token",
	5,
	{TEXTARRAYOID, TEXTOID, INT8ARRAYOID, TEXTARRAYOID, TIMESTAMPTZARRAYOID},
	NULL};

static Statement forget_balance = {
	"UPDATE quota_manager.user_balance AS b SET balance = NULL, token = NULL"
	" WHERE b.user_id = $1 AND b.gateway = $2 AND (b.balance IS NOT NULL OR b.token IS NOT NULL)",
	2,
	{TEXTOID, TEXTOID},
	NULL};

static Statement note_lost = {
	"INSERT INTO quota_manager.user_balance AS b"
	" (user_id, gateway, read_time, lost_time, lost_moment)"
	" SELECT DISTINCT k.user_id, $2, $3, $3, $4 FROM unnest($1) AS k(user_id)"
	" WHERE octet_length(k.user_id) + octet_length($2) <= 2678 ORDER BY k.user_id"
	" ON CONFLICT (user_id, gateway) DO UPDATE SET balance = NULL, token = NULL,"
	" lost_time = excluded.lost_time, lost_moment = excluded.lost_moment",
	4,
	{TEXTARRAYOID, TEXTOID, TIMESTAMPTZOID, INT8OID},
	NULL};

/*
 * A number that no reader has had before: also in another life of this
 * database, where a sequence might go back.
 */
static int64
new_token(void)
{
	uint64 token;

	do
	{
		if (!pg_strong_random(&token, sizeof(token)))
			ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR),
							errmsg("could not generate a random token for a balance query")));
		token &= PG_INT64_MAX;
	} while (token == BALANCE_NO_TOKEN);
	return (int64) token;
}

static int
compare_questions(const void *a, const void *b)
{
	return strcmp(((const BalanceQuestion *) a)->user_id, ((const BalanceQuestion *) b)->user_id);
}

/*
 * Gives the questions, sorted by user, the tokens that were returned.
 */
static void
take_tokens(BalanceQuestion *questions, int count, uint64 returned)
{
	uint64 row;

	for (row = 0; row < returned; row++)
	{
		BalanceQuestion  key = {result_text(row, 1, CurrentMemoryContext)};
		BalanceQuestion *question =
			bsearch(&key, questions, count, sizeof(BalanceQuestion), compare_questions);
		bool isnull;

		if (question != NULL)
			question->token = DatumGetInt64(result_datum(row, 2, &isnull));
	}
	SPI_freetuptable(SPI_tuptable);
}

bool
balance_table_ask(const char *gateway, BalanceQuestion *questions, int count)
{
	Datum *users = palloc(sizeof(Datum) * Max(count, 1));
	Datum *tokens = palloc(sizeof(Datum) * Max(count, 1));
	Datum  values[4];
	int    i;

	if (count == 0)
		return true;
	if (!balance_lock_try(gateway))
		return false;
	qsort(questions, count, sizeof(BalanceQuestion), compare_questions);
	for (i = 0; i < count; i++)
	{
		questions[i].token = BALANCE_NO_TOKEN;
		users[i] = CStringGetTextDatum(questions[i].user_id);
		tokens[i] = Int64GetDatum(new_token());
	}
	values[0] = array_of(TEXTOID, users, NULL, count);
	values[1] = CStringGetTextDatum(gateway);
	values[2] = TimestampTzGetDatum(GetCurrentTimestamp());
	values[3] = array_of(INT8OID, tokens, NULL, count);
	take_tokens(questions, count, statement_run(&ask_balances, values, NULL));
	return true;
}

bool
balance_table_store(const char *gateway, const BalanceAnswer *answers, int count, int *stored)
{
	Datum *users = palloc(sizeof(Datum) * Max(count, 1));
	Datum *tokens = palloc(sizeof(Datum) * Max(count, 1));
	Datum *amounts = palloc(sizeof(Datum) * Max(count, 1));
	Datum *times = palloc(sizeof(Datum) * Max(count, 1));
	Datum  values[5];
	int    i;

	*stored = 0;
	if (count == 0)
		return true;
	if (!balance_lock_try(gateway))
		return false;
	for (i = 0; i < count; i++)
	{
		users[i] = CStringGetTextDatum(answers[i].user_id);
		tokens[i] = Int64GetDatum(answers[i].token);
		amounts[i] = CStringGetTextDatum(answers[i].amount);
		times[i] = TimestampTzGetDatum(answers[i].asked);
	}
	values[0] = array_of(TEXTOID, users, NULL, count);
	values[1] = CStringGetTextDatum(gateway);
	values[2] = array_of(INT8OID, tokens, NULL, count);
	values[3] = array_of(TEXTOID, amounts, NULL, count);
	values[4] = array_of(TIMESTAMPTZOID, times, NULL, count);
	*stored = (int) statement_run(&store_balances, values, NULL);
	return true;
}

void
balance_table_forget(const char *gateway, const char *user_id)
{
	Datum values[2] = {CStringGetTextDatum(user_id), CStringGetTextDatum(gateway)};

	balance_lock_wait(gateway);
	statement_run(&forget_balance, values, NULL);
}

void
balance_table_note_lost(const char *gateway, Datum user_ids)
{
	Datum values[4];

	values[0] = user_ids;
	values[1] = CStringGetTextDatum(gateway);
	values[2] = TimestampTzGetDatum(GetCurrentTimestamp());
	values[3] = Int64GetDatum(mono_now());
	statement_run(&note_lost, values, NULL);
}

/*
 * answer_may_arrive(lost_time, lost_moment): may a request whose answer was
 * lost then still arrive?  Both clocks must say that it cannot; the monotonic
 * one is not asked if the machine was started since, nor the other if it was
 * set back.
 */
Datum
qm_answer_may_arrive(PG_FUNCTION_ARGS)
{
	TimestampTz lost_time = PG_GETARG_TIMESTAMPTZ(0);
	MonoTime    lost_moment = PG_GETARG_INT64(1);
	TimestampTz now = GetCurrentTimestamp();
	MonoTime    moment = mono_now();
	bool        by_wall_clock =
		now >= lost_time && now < TimestampTzPlusMilliseconds(lost_time, delivery_linger);
	bool by_moment = moment >= lost_moment && moment < mono_add_ms(lost_moment, delivery_linger);

	PG_RETURN_BOOL(by_wall_clock || by_moment);
}
