/*
 * balance_table.c
 *		Balance samples: the table user_balance.
 */
#include "postgres.h"

#include "access/generic_xlog.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "nodes/makefuncs.h"
#include "storage/bufmgr.h"
#include "storage/bufpage.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "common/monotonic.h"
#include "common/plain_table.h"
#include "endpoint/endpoint_settings.h"
#include "common/statement.h"
#include "scan/balance_table.h"
#include "scan/scan_lock.h"

PG_FUNCTION_INFO_V1(qm_answer_may_arrive);

/*
 * In the order of the key, so that transactions that write the same rows wait for
 * each other without a deadlock.  A key has room for 2678 bytes in
 * an index; what does not fit is not asked for, and keeps no other from it.
 * NOT IN is hashed once; a join to those with something open might be a loop
 * over both.
 */
static Statement ask_balances = {
	"INSERT INTO quota_manager.user_balance AS b (user_id, gateway, read_time, token)"
	" SELECT k.user_id, $3, $4, k.token"
	" FROM unnest($1, $2) AS k(user_id, token)"
	" LEFT JOIN quota_manager.user_balance l ON l.user_id = k.user_id AND l.gateway = $3"
	" WHERE octet_length(k.user_id) + octet_length($3) <= 2678"
	" AND k.user_id NOT IN (SELECT o.user_id FROM quota_internal.open_users(ARRAY[$3]) o)"
	" AND quota_internal.answer_may_arrive(l.lost_time, l.lost_moment) IS NOT TRUE"
	" ORDER BY k.user_id"
	" ON CONFLICT (user_id, gateway) DO UPDATE SET token = coalesce(nullif(b.token, 0), "
	"excluded.token)"
	" RETURNING b.user_id, b.token",
	{TEXTARRAYOID, INT8ARRAYOID, TEXTOID, TIMESTAMPTZOID}};

static Statement store_balances = {
	"UPDATE quota_manager.user_balance AS b"
	" SET balance = k.balance::numeric, read_time = k.read_time, token = NULL,"
	" last_balance = CASE WHEN k.balance::numeric > 0 THEN k.balance::numeric"
	" WHEN k.balance::numeric = 0 THEN b.last_balance END"
	" FROM unnest($1, $2, $3, $4) AS k(user_id, token, balance, read_time)"
	" WHERE b.user_id = k.user_id AND b.gateway = $5 AND b.token = k.token",
	{TEXTARRAYOID, INT8ARRAYOID, TEXTARRAYOID, TIMESTAMPTZARRAYOID, TEXTOID}};

static Statement lock_balance = {
	"SELECT b.ctid, b.lost_time, b.lost_moment FROM quota_manager.user_balance b"
	" WHERE b.user_id = $1 AND b.gateway = $2 FOR NO KEY UPDATE",
	{TEXTOID, TEXTOID}};

static Statement forget_balance = {
	"UPDATE quota_manager.user_balance AS b"
	" SET balance = NULL, token = NULL, lost_time = $3, lost_moment = $4"
	" WHERE b.user_id = $1 AND b.gateway = $2",
	{TEXTOID, TEXTOID, TIMESTAMPTZOID, INT8OID}};

static Statement note_lost = {
	"INSERT INTO quota_manager.user_balance AS b"
	" (user_id, gateway, read_time, lost_time, lost_moment)"
	" SELECT DISTINCT k.user_id, $2, $3, $3, $4 FROM unnest($1) AS k(user_id)"
	" WHERE octet_length(k.user_id) + octet_length($2) <= 2678 ORDER BY k.user_id"
	" ON CONFLICT (user_id, gateway) DO UPDATE SET balance = NULL, token = NULL,"
	" lost_time = excluded.lost_time, lost_moment = excluded.lost_moment",
	{TEXTARRAYOID, TEXTOID, TIMESTAMPTZOID, INT8OID}};

/*
 * A number that no reader has used before, not even before a restore, which
 * would set a sequence back.
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

/* Gives the questions, sorted by user, the tokens that were returned. */
static void
take_tokens(BalanceQuestion *questions, int count, uint64 returned)
{
	uint64 row;

	for (row = 0; row < returned; row++)
	{
		BalanceQuestion  key = {result_text(row, 1)};
		BalanceQuestion *question =
			bsearch(&key, questions, count, sizeof(BalanceQuestion), compare_questions);

		if (question != NULL)
			question->token = result_int64(row, 2);
	}
	SPI_freetuptable(SPI_tuptable);
}

/*
 * Gives each of these users, each listed once, a token for a balance query.
 * Users who have something open at the gateway or an answer lost less than
 * quota_manager.linger ago, and those whose id does not fit into the table,
 * get BALANCE_NO_TOKEN.  A token may be shared with another reader that asked
 * before.
 */
bool
balance_table_ask(const char *gateway, BalanceQuestion *questions, int count)
{
	RowArrays *rows = rows_create(&ask_balances);
	int        i;

	if (count == 0)
		return true;
	if (!balance_lock_try(gateway))
		return false;
	qsort(questions, count, sizeof(BalanceQuestion), compare_questions);
	for (i = 0; i < count; i++)
	{
		questions[i].token = BALANCE_NO_TOKEN;
		rows_add(rows, ARGS(arg_text(questions[i].user_id), arg_int64(new_token())));
	}
	take_tokens(questions, count,
				statement_run_rows(&ask_balances, rows,
								   ARGS(arg_text(gateway), arg_time(GetCurrentTimestamp()))));
	return true;
}

/*
 * Stores answers, one per user; an answer whose token was taken away is
 * dropped, and its balance is asked for again.  A balance that falls from
 * above 0 to 0 is stored in a way that guard_balances() recognises.  *stored
 * is the number stored.
 */
bool
balance_table_store(const char *gateway, const BalanceAnswer *answers, int count, int *stored)
{
	RowArrays *rows = rows_create(&store_balances);
	int        i;

	*stored = 0;
	if (count == 0)
		return true;
	if (!balance_lock_try(gateway))
		return false;
	for (i = 0; i < count; i++)
		rows_add(rows, ARGS(arg_text(answers[i].user_id), arg_int64(answers[i].token),
							arg_text(answers[i].amount), arg_time(answers[i].asked)));
	*stored = (int) statement_run_rows(&store_balances, rows, ARGS(arg_text(gateway)));
	return true;
}

/*
 * Writes the columns of a row over those that are there, and the log to disk.
 * The transaction has locked the row, and its length stays.
 */
static void
overwrite_row(Relation table, ItemPointer row, HeapTuple tuple)
{
	Buffer            buffer = ReadBuffer(table, ItemPointerGetBlockNumber(row));
	GenericXLogState *change;
	Page              page;
	ItemId            item;
	HeapTupleHeader   header;
	Size              length = tuple->t_len - tuple->t_data->t_hoff;

	LockBuffer(buffer, BUFFER_LOCK_EXCLUSIVE);
	change = GenericXLogStart(table);
	page = GenericXLogRegisterBuffer(change, buffer, 0);
	item = PageGetItemId(page, ItemPointerGetOffsetNumber(row));
	header = (HeapTupleHeader) PageGetItem(page, item);
	if (!ItemIdIsNormal(item) || header->t_hoff != tuple->t_data->t_hoff ||
		ItemIdGetLength(item) != tuple->t_len)
		elog(ERROR, "a row of user_balance has another length");
	memcpy((char *) header + header->t_hoff, (char *) tuple->t_data + header->t_hoff, length);
	XLogFlush(GenericXLogFinish(change));
	UnlockReleaseBuffer(buffer);
}

/*
 * Clears the balance sample and the token of a row of user_balance and records
 * that an answer was lost just now, in a way that neither a rollback nor a crash
 * undoes.  This transaction has locked the row, so no other one changes it.
 */
static void
spoil_row(Relation table, ItemPointer row)
{
	TupleDesc       columns = RelationGetDescr(table);
	TupleTableSlot *slot = table_slot_create(table, NULL);
	Datum          *values = palloc0(sizeof(Datum) * columns->natts);
	bool           *nulls = palloc0(sizeof(bool) * columns->natts);
	bool           *replaced = palloc0(sizeof(bool) * columns->natts);
	HeapTuple       tuple;
	bool            must_free;
	int             i;

	if (!table_tuple_fetch_row_version(table, row, SnapshotAny, slot))
		elog(ERROR, "a locked row of user_balance is missing");
	slot_getallattrs(slot);
	for (i = 0; i < columns->natts; i++)
	{
		const char *name = NameStr(TupleDescAttr(columns, i)->attname);

		/* nulls stay null, so that the row keeps its length */
		replaced[i] = !slot->tts_isnull[i];
		if (strcmp(name, "read_time") == 0)
			values[i] = TimestampTzGetDatum(DT_NOBEGIN);
		else if (strcmp(name, "token") == 0)
			values[i] = Int64GetDatum(BALANCE_NO_TOKEN);
		else if (strcmp(name, "lost_time") == 0)
			values[i] = TimestampTzGetDatum(GetCurrentTimestamp());
		else if (strcmp(name, "lost_moment") == 0)
			values[i] = Int64GetDatum(mono_now());
		else
			replaced[i] = false;
	}
	tuple = ExecFetchSlotHeapTuple(slot, true, &must_free);
	tuple = heap_modify_tuple(tuple, columns, values, nulls, replaced);
	overwrite_row(table, row, tuple);
	ExecDropSingleTupleTableSlot(slot);
}

/*
 * Call it before the request is sent: waits for the lock of the gateway's
 * balances and drops the user's, even if the transaction is rolled back; then
 * the answer counts as lost.  Where the table is not a plain one of this
 * server, a rollback restores the balance.
 */
void
balance_table_begin_change(BalanceChange *change)
{
	Relation table;
	bool     isnull;

	balance_lock_wait(change->gateway);
	change->is_known = statement_run(&lock_balance, ARGS(arg_text(change->user_id),
														 arg_text(change->gateway))) > 0;
	if (!change->is_known)
		return;
	change->lost_time = result_time(0, 2);
	change->lost_moment = result_int64(0, 3);
	table = table_openrv(makeRangeVar("quota_manager", "user_balance", -1), RowExclusiveLock);
	if (is_plain_table(table))
		spoil_row(table, (ItemPointer) DatumGetPointer(result_datum(0, 1, &isnull)));
	table_close(table, NoLock);
	SPI_freetuptable(SPI_tuptable);
}

/* Call it after the change was applied: no answer was lost. */
void
balance_table_end_change(const BalanceChange *change)
{
	if (!change->is_known)
		return;
	statement_run(&forget_balance,
				  ARGS(arg_text(change->user_id), arg_text(change->gateway),
					   arg_time(change->lost_time), arg_int64(change->lost_moment)));
}

/*
 * Records that answers to requests for users were lost now; an array of text,
 * which may repeat users.
 */
void
balance_table_note_lost(const char *gateway, List *user_ids)
{
	RowArrays *users = rows_create(&note_lost);
	ListCell  *cell;

	if (user_ids == NIL)
		return;
	foreach (cell, user_ids)
		rows_add(users, ARGS(arg_text(lfirst(cell))));
	statement_run_rows(
		&note_lost, users,
		ARGS(arg_text(gateway), arg_time(GetCurrentTimestamp()), arg_int64(mono_now())));
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
		now >= lost_time && now < TimestampTzPlusMilliseconds(lost_time, endpoint_settle_delay_ms);
	bool by_moment =
		moment >= lost_moment && moment < mono_add_ms(lost_moment, endpoint_settle_delay_ms);

	PG_RETURN_BOOL(by_wall_clock || by_moment);
}
