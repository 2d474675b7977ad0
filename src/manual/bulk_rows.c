/*
 * bulk_rows.c
 *		The rows of bulk calls: the table bulk_call.
 */
#include "postgres.h"

#include "catalog/pg_type.h"

#include "manual/bulk_rows.h"

#define ORPHAN_TEXT "the session that sent it ended before the answer was written"
#define OTHER_LIFE_TEXT "another life of this database may have sent it"

static Statement read_gateway = {
	"SELECT b.gateway FROM quota_manager.bulk_call b WHERE b.key = $1 LIMIT 1", {TEXTOID}};

static Statement find_repeated = {
	"SELECT k.user_id FROM unnest($1) AS k(user_id) GROUP BY k.user_id HAVING count(*) > 1 LIMIT 1",
	{TEXTARRAYOID}};

static Statement find_other_value = {
	"SELECT k.user_id, k.value, b.value::text FROM unnest($1, $2) AS k(user_id, value)"
	" JOIN quota_manager.bulk_call b ON b.key = $3 AND b.user_id = k.user_id"
	" WHERE b.value <> k.value::numeric LIMIT 1",
	{TEXTARRAYOID, TEXTARRAYOID, TEXTOID}};

static Statement write_rows = {
	"INSERT INTO quota_manager.bulk_call (user_id, value, reason, key, gateway, role)"
	" SELECT k.user_id, k.value::numeric, k.reason, $4, $5, $6"
	" FROM unnest($1, $2, $3) WITH ORDINALITY AS k(user_id, value, reason, place) ORDER BY k.place"
	" ON CONFLICT (key, user_id) DO NOTHING",
	{TEXTARRAYOID, TEXTARRAYOID, TEXTARRAYOID, TEXTOID, TEXTOID, TEXTOID}};

static Statement end_orphans = {
	"UPDATE quota_manager.bulk_call AS b SET state = 'in_doubt', message = $2, finish_time = $3"
	" WHERE b.key = $1 AND b.state = 'sent'",
	{TEXTOID, TEXTOID, TIMESTAMPTZOID}};

static Statement distrust = {
	"UPDATE quota_manager.bulk_call AS b SET state = 'in_doubt', message = $2, finish_time = $3"
	" FROM quota_manager.quota_installation i"
	" WHERE b.key = $1 AND b.state IN ('waiting', 'not_sent') AND greatest(b.create_time, "
	"b.decide_time) < i.doubtful_until",
	{TEXTOID, TEXTOID, TIMESTAMPTZOID}};

static Statement try_again = {
	"UPDATE quota_manager.bulk_call AS b SET state = 'waiting', finish_time = NULL"
	" WHERE b.key = $1 AND b.state = 'not_sent'",
	{TEXTOID}};

/* A subquery in its place would lock further rows each time that a plan runs it again. */
static Statement take_rows = {
	"WITH n AS MATERIALIZED (SELECT w.user_id FROM quota_manager.bulk_call w"
	" WHERE w.key = $1 AND w.state = 'waiting' ORDER BY w.id LIMIT $2 FOR NO KEY UPDATE)"
	" UPDATE quota_manager.bulk_call AS b SET state = 'sent', send_time = $3, message = NULL"
	" FROM n WHERE b.key = $1 AND b.user_id = n.user_id AND b.state = 'waiting'"
	" RETURNING b.user_id, b.value::text, b.reason, b.gateway",
	{TEXTOID, INT4OID, TIMESTAMPTZOID}};

static Statement untake_rows = {
	"UPDATE quota_manager.bulk_call AS b SET state = 'waiting', send_time = NULL"
	" WHERE b.key = $1 AND b.state = 'sent'",
	{TEXTOID}};

static Statement record_outcomes = {
	"UPDATE quota_manager.bulk_call AS b SET state = k.state, message = k.message,"
	" finish_time = CASE WHEN k.state <> 'waiting' THEN $5 END"
	" FROM unnest($1, $2, $3) AS k(user_id, state, message)"
	" WHERE b.key = $4 AND b.user_id = k.user_id AND b.state = 'sent'",
	{TEXTARRAYOID, TEXTARRAYOID, TEXTARRAYOID, TEXTOID, TIMESTAMPTZOID}};

static Statement count_rows = {"SELECT count(*) FILTER (WHERE b.state = 'applied'),"
							   " count(*) FILTER (WHERE b.state = 'refused'),"
							   " count(*) FILTER (WHERE b.state = 'not_sent'),"
							   " count(*) FILTER (WHERE b.state = 'in_doubt'),"
							   " count(*) FILTER (WHERE b.state = 'waiting')"
							   " FROM quota_manager.bulk_call b WHERE b.key = $1",
							   {TEXTOID}};

/* The gateway that the rows of a key are for; NULL: there are none. */
char *
bulk_gateway(const char *key)
{
	char *gateway = NULL;

	if (statement_run(&read_gateway, ARGS(arg_text(key))) > 0)
		gateway = result_text(0, 1);
	SPI_freetuptable(SPI_tuptable);
	return gateway;
}

/* No rows yet, for bulk_rows_add and bulk_rows_write. */
RowArrays *
bulk_rows_create(void)
{
	return rows_create(&write_rows);
}

void
bulk_rows_add(RowArrays *rows, const char *user_id, const char *amount, const char *reason)
{
	rows_add(rows, ARGS(arg_text(user_id), arg_text(amount), arg_text(reason)));
}

/* Raises an error for a user who comes twice, or has another value under the key. */
static void
refuse_other_rows(const char *key, const RowArrays *rows)
{
	if (statement_run(&find_repeated, ARGS(rows_column(rows, 0))) > 0)
		ereport(ERROR, (errcode(ERRCODE_CARDINALITY_VIOLATION),
						errmsg("user \"%s\" comes more than once in the query", result_text(0, 1)),
						errhint("Add up what a user is to get: sum(value) ... GROUP BY user_id.")));
	SPI_freetuptable(SPI_tuptable);
	if (statement_run(&find_other_value,
					  ARGS(rows_column(rows, 0), rows_column(rows, 1), arg_text(key))) > 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("bulk call \"%s\" has %s for user \"%s\", not %s", key, result_text(0, 3),
						result_text(0, 1), result_text(0, 2)),
				 errdetail("A key stands for one bulk call, which goes on where it was left."),
				 errhint("Take another key for another call; or leave the query null to go on.")));
	SPI_freetuptable(SPI_tuptable);
}

/* Writes those rows that the key does not have yet, in their order. */
void
bulk_rows_write(const char *key, const char *gateway, const char *role, RowArrays *rows)
{
	refuse_other_rows(key, rows);
	statement_run_rows(&write_rows, rows, ARGS(arg_text(key), arg_text(gateway), arg_text(role)));
}

/*
 * What an earlier call with the key left: what it had sent is in doubt, and so
 * is what another life of this database may have sent; what was not sent is to
 * be sent.
 */
void
bulk_rows_settle_old(const char *key)
{
	NullableDatum now = arg_time(GetCurrentTimestamp());

	statement_run(&end_orphans, ARGS(arg_text(key), arg_text(ORPHAN_TEXT), now));
	statement_run(&distrust, ARGS(arg_text(key), arg_text(OTHER_LIFE_TEXT), now));
	statement_run(&try_again, ARGS(arg_text(key)));
}

/*
 * Marks the next rows as sent and returns how many; *calls is what to send, in
 * the current memory context.
 */
int
bulk_rows_take(const char *key, int most, ManualCall **calls)
{
	int count = (int) statement_run(
		&take_rows, ARGS(arg_text(key), arg_int32(most), arg_time(GetCurrentTimestamp())));

	*calls = palloc0(sizeof(ManualCall) * Max(count, 1));
	for (int i = 0; i < count; i++)
	{
		ManualCall *call = &(*calls)[i];

		call->action = GATEWAY_DELTA;
		call->user_id = result_text(i, 1);
		call->amount = call_amount(result_text(i, 2));
		call->reason = result_text(i, 3);
		call->gateway = result_text(i, 4);
	}
	SPI_freetuptable(SPI_tuptable);
	return count;
}

/* Takes the marks back: nothing was sent. */
void
bulk_rows_untake(const char *key)
{
	statement_run(&untake_rows, ARGS(arg_text(key)));
}

static const char *
state_of(const ManualCall *call)
{
	switch (call->reply.outcome)
	{
		case GATEWAY_COMPLETED:
			return "applied";
		case GATEWAY_NOT_SENT:
		case GATEWAY_BLOCKED:
			return "not_sent";
		case GATEWAY_THROTTLED:
			return "waiting";
		case GATEWAY_REFUSED:
			return "refused";
		case GATEWAY_IN_DOUBT:
			return "in_doubt";
	}
	return NULL;
}

/* Writes what became of rows that were sent. */
void
bulk_rows_record(const char *key, const ManualCall *calls, int count)
{
	RowArrays *rows = rows_create(&record_outcomes);

	for (int i = 0; i < count; i++)
	{
		const char *message = calls[i].reply.message;

		rows_add(rows, ARGS(arg_text(calls[i].user_id), arg_text(state_of(&calls[i])),
							arg_text(message[0] != '\0' ? message : NULL)));
	}
	statement_run_rows(&record_outcomes, rows,
					   ARGS(arg_text(key), arg_time(GetCurrentTimestamp())));
}

void
bulk_rows_count(const char *key, BulkCounts *counts)
{
	statement_run(&count_rows, ARGS(arg_text(key)));
	counts->applied = result_int64(0, 1);
	counts->refused = result_int64(0, 2);
	counts->not_sent = result_int64(0, 3);
	counts->in_doubt = result_int64(0, 4);
	counts->waiting = result_int64(0, 5);
	SPI_freetuptable(SPI_tuptable);
}
