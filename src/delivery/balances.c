/*
 * balances.c
 *		Reads balances over HTTP and writes them down.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/wait_event.h"

#include "common/crash_point.h"
#include "delivery/balances.h"
#include "delivery/courier.h"
#include "delivery/settings.h"
#include "delivery/statement.h"

/* Answers taken at once. */
#define POLL_RESULTS 64

/* Waits for answers, in milliseconds, of one gateway and of several. */
#define POLL_ONE 100
#define POLL_SEVERAL 20

/* What is to be asked of one gateway. */
typedef struct Reader
{
	Lane            *lane;
	BalanceRequest **requests;
	int              count;
	int              next;
	int              failures; /* in a row */
	bool             doubted;  /* nobody is asked about until it is known whether it answers */
	bool             checking; /* the query that tells is in flight */
	bool             given_up;
} Reader;

/* Answers that are not written yet. */
typedef struct Answers
{
	Balance *balances;
	int      count;
} Answers;

/*
 * In the order of the key, so that two that write the same rows wait for each
 * other instead of locking each other out.  A key has room for 2678 bytes in
 * an index; what does not fit is not known, and keeps no other from being so.
 */
static Statement write_balances = {
	"INSERT INTO quota_manager.user_balance AS b (user_id, gateway, balance, read_time)"
	" SELECT k.user_id, k.gateway, k.balance::numeric, k.read_time"
	" FROM unnest($1, $2, $3, $4) AS k(user_id, gateway, balance, read_time)"
	" WHERE octet_length(k.user_id) + octet_length(k.gateway) <= 2678"
	" ORDER BY k.user_id, k.gateway"
	" ON CONFLICT (user_id, gateway) DO UPDATE"
	" SET balance = excluded.balance, read_time = excluded.read_time"
	" WHERE b.read_time <= excluded.read_time",
	4,
	{TEXTARRAYOID, TEXTARRAYOID, TEXTARRAYOID, TIMESTAMPTZARRAYOID},
	NULL};

void
balances_write(const Balance *balances, int count)
{
	Datum *users = palloc(sizeof(Datum) * count);
	Datum *gateways = palloc(sizeof(Datum) * count);
	Datum *amounts = palloc(sizeof(Datum) * count);
	Datum *times = palloc(sizeof(Datum) * count);
	Datum  values[4];
	int    i;

	for (i = 0; i < count; i++)
	{
		users[i] = CStringGetTextDatum(balances[i].user_id);
		gateways[i] = CStringGetTextDatum(balances[i].gateway);
		amounts[i] = CStringGetTextDatum(balances[i].amount);
		times[i] = TimestampTzGetDatum(balances[i].read_time);
	}
	values[0] = array_of(TEXTOID, users, NULL, count);
	values[1] = array_of(TEXTOID, gateways, NULL, count);
	values[2] = array_of(TEXTOID, amounts, NULL, count);
	values[3] = array_of(TIMESTAMPTZOID, times, NULL, count);
	statement_run(&write_balances, values, NULL);
}

/*
 * Orders requests by gateway and user.
 */
static int
compare_requests(const ListCell *a, const ListCell *b)
{
	const BalanceRequest *x = lfirst(a);
	const BalanceRequest *y = lfirst(b);
	int                   order = strcmp(x->gateway, y->gateway);

	return order != 0 ? order : strcmp(x->user_id, y->user_id);
}

/*
 * Makes a lane ready for queries.  False: it cannot be used, or it is busy
 * with deltas that an error has left in flight.
 */
static bool
prepare_lane(Lane *lane)
{
	if (!lane_is_empty(lane))
		return false;
	if (lane_in_flight(lane) > 0)
	{
		/* queries that an error has left in flight */
		lane_close(lane);
		lane->reopen = true;
	}
	return lane_open_session(lane);
}

/*
 * One reader per gateway that can be asked, each request once.
 */
static List *
make_readers(Courier *courier, List *requests)
{
	List           *sorted = list_copy(requests);
	List           *readers = NIL;
	Reader         *reader = NULL;
	BalanceRequest *last = NULL;
	ListCell       *cell;

	list_sort(sorted, compare_requests);
	foreach (cell, sorted)
	{
		BalanceRequest *request = lfirst(cell);
		bool            same_gateway = last && strcmp(last->gateway, request->gateway) == 0;

		if (same_gateway && strcmp(last->user_id, request->user_id) == 0)
			continue;
		last = request;
		if (!same_gateway)
		{
			Lane *lane = courier_lane(courier, request->gateway);

			reader = NULL;
			if (lane == NULL || !prepare_lane(lane))
				continue;
			reader = palloc0(sizeof(Reader));
			reader->lane = lane;
			reader->requests = palloc(sizeof(BalanceRequest *) * list_length(sorted));
			readers = lappend(readers, reader);
		}
		if (reader != NULL)
			reader->requests[reader->count++] = request;
	}
	return readers;
}

/*
 * Sends as many queries as there is room for.
 */
static void
send_queries(Reader *reader)
{
	if (reader->doubted && !reader->checking && !reader->given_up && lane_take_token(reader->lane))
	{
		GatewayRequest query = {GATEWAY_QUERY, NOBODY};

		query.token = reader;
		reader->checking = gateway_submit(reader->lane->session, &query);
		reader->given_up = !reader->checking && gateway_in_flight(reader->lane->session) == 0;
	}
	while (!reader->given_up && !reader->doubted && reader->next < reader->count &&
		   gateway_room(reader->lane->session) > 0 && lane_take_token(reader->lane))
	{
		GatewayRequest query = {GATEWAY_QUERY};

		query.user_id = reader->requests[reader->next]->user_id;
		query.token = reader->requests[reader->next];
		if (!gateway_submit(reader->lane->session, &query))
		{
			reader->given_up = gateway_in_flight(reader->lane->session) == 0;
			return;
		}
		reader->next++;
	}
}

/*
 * Takes in an answer.  A gateway that does not answer is given up soon; a user
 * for whom it cannot answer is passed over.  After many failures in a row, or
 * when it asks for a pause, it is asked about nobody: if that is answered, the
 * users are the reason.
 */
static void
take_answer(Reader *reader, const GatewayResult *result, Answers *answers)
{
	const BalanceRequest *request = result->token;

	if (result->token == reader)
	{
		reader->doubted = reader->checking = false;
		reader->failures = 0;
		if (result->reply.outcome != GATEWAY_COMPLETED)
			reader->given_up = true;
		return;
	}
	if (result->reply.outcome == GATEWAY_COMPLETED)
	{
		Balance *balance = &answers->balances[answers->count++];

		balance->user_id = request->user_id;
		balance->gateway = request->gateway;
		strlcpy(balance->amount, result->reply.balance, sizeof(balance->amount));
		balance->read_time = GetCurrentTimestamp();
		reader->failures = 0;
		CRASH_POINT(balance_read);
		return;
	}
	reader->failures++;
	if (result->reply.outcome == GATEWAY_NOT_SENT)
		reader->given_up = true;
	else if (result->reply.outcome == GATEWAY_THROTTLED ||
			 reader->failures > reader->lane->row->max_connections)
		reader->doubted = true;
}

/*
 * Waits for answers of all gateways.  False: nothing is in flight.
 */
static bool
poll_readers(List *readers, Answers *answers)
{
	static GatewayResult results[POLL_RESULTS];
	int                  active = 0;
	ListCell            *cell;

	foreach (cell, readers)
		active += lane_in_flight(((Reader *) lfirst(cell))->lane) > 0;
	if (active == 0)
		return false;

	pgstat_report_wait_start(PG_WAIT_EXTENSION);
	foreach (cell, readers)
	{
		Reader *reader = lfirst(cell);
		int     timeout_ms = active == 1 ? POLL_ONE : Max(POLL_SEVERAL / active, 1);
		int     count;
		int     i;

		if (lane_in_flight(reader->lane) == 0)
			continue;
		count = gateway_poll(reader->lane->session, timeout_ms, results, POLL_RESULTS);
		for (i = 0; i < count; i++)
			take_answer(reader, &results[i], answers);
	}
	pgstat_report_wait_end();
	return true;
}

/*
 * Waits for what a rate_limit lets go.  False: no gateway is left to be asked.
 */
static bool
wait_for_rate(List *readers)
{
	bool      waits = false;
	ListCell *cell;

	foreach (cell, readers)
	{
		const Reader *reader = lfirst(cell);

		waits = waits || (!reader->given_up && reader->next < reader->count &&
						  reader->lane->row->rate_limit > 0);
	}
	if (!waits)
		return false;
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, POLL_SEVERAL,
					 PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	return true;
}

/* Bodies of transactions. */

static void
read_gateways(Courier *courier, void *argument)
{
	courier_read_gateways(courier);
}

static void
write_answers(Courier *courier, void *argument)
{
	const Answers *answers = argument;

	balances_write(answers->balances, answers->count);
	CRASH_POINT(balances_writing);
}

/*
 * Writes the answers there are, in a transaction.
 */
static void
flush_answers(Courier *courier, Answers *answers)
{
	ErrorData *error;

	if (answers->count == 0)
		return;
	error = courier_transact(courier, write_answers, answers);
	if (error != NULL)
		ReThrowError(error);
	CRASH_POINT(balances_written);
	answers->count = 0;
}

bool
courier_read_balances(Courier *courier, List *requests, volatile sig_atomic_t *stop)
{
	MemoryContext memory = AllocSetContextCreate(CurrentMemoryContext, "quota_manager balances",
												 ALLOCSET_DEFAULT_SIZES);
	MemoryContext caller;
	ErrorData    *error;
	Answers       answers = {0};
	List         *readers;
	ListCell     *cell;
	bool          answering = false;

	if (requests == NIL)
		return true;
	error = courier_transact(courier, read_gateways, NULL);
	if (error != NULL)
		ReThrowError(error);

	caller = MemoryContextSwitchTo(memory);
	readers = make_readers(courier, requests);
	answers.balances =
		palloc(sizeof(Balance) * (delivery_claim_batch + POLL_RESULTS * list_length(readers)));
	do
	{
		leave_dead_server();
		CHECK_FOR_INTERRUPTS();
		if (stop != NULL && *stop)
			break;
		if (answers.count >= delivery_claim_batch)
			flush_answers(courier, &answers);
		foreach (cell, readers)
			send_queries(lfirst(cell));
	} while (poll_readers(readers, &answers) || wait_for_rate(readers));

	foreach (cell, readers)
	{
		Reader *reader = lfirst(cell);
		Lane   *lane = reader->lane;

		if (!reader->given_up)
			answering = true;
		if (lane_in_flight(lane) > 0)
		{
			lane_close(lane);
			lane->reopen = true;
		}
	}
	flush_answers(courier, &answers);
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(memory);
	return answering;
}
