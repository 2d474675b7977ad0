/*
 * balances.c
 *		Reads balances over HTTP.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "utils/memutils.h"
#include "utils/wait_event.h"

#include "common/crash_point.h"
#include "delivery/courier.h"
#include "delivery/settings.h"
#include "scan/balance_table.h"

/* Answers taken at once. */
#define POLL_RESULTS 64

/* Waits for answers, in milliseconds, of one gateway and of several. */
#define POLL_ONE 100
#define POLL_SEVERAL 20

/* What is to be asked of one gateway. */
typedef struct Reader
{
	Lane            *lane;
	BalanceQuestion *questions;
	int              count;
	int              next;
	int              failures; /* in a row */
	bool             doubted;  /* nobody is asked about until it is known whether it answers */
	bool             checking; /* the query that tells is in flight */
	bool             given_up;
	bool             busy;    /* a scan uses the balances */
	TimestampTz     *sent;    /* when, for each question */
	BalanceAnswer   *answers; /* that are not stored yet */
	int              answer_count;
} Reader;

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
			reader->questions = palloc(sizeof(BalanceQuestion) * list_length(sorted));
			reader->sent = palloc(sizeof(TimestampTz) * list_length(sorted));
			reader->answers = palloc(sizeof(BalanceAnswer) * list_length(sorted));
			readers = lappend(readers, reader);
		}
		if (reader != NULL)
			reader->questions[reader->count++].user_id = request->user_id;
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

		query.user_id = reader->questions[reader->next].user_id;
		query.token = &reader->questions[reader->next];
		reader->sent[reader->next] = GetCurrentTimestamp();
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
take_answer(Reader *reader, const GatewayResult *result)
{
	const BalanceQuestion *question = result->token;

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
		BalanceAnswer *answer = &reader->answers[reader->answer_count++];

		answer->user_id = question->user_id;
		answer->token = question->token;
		strlcpy(answer->amount, result->reply.balance, sizeof(answer->amount));
		answer->asked = reader->sent[question - reader->questions];
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
poll_readers(List *readers)
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
			take_answer(reader, &results[i]);
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
ask_questions(Courier *courier, void *argument)
{
	Reader          *reader = argument;
	BalanceQuestion *questions = reader->questions;
	int              count = 0;
	int              i;

	reader->busy = !balance_table_ask(reader->lane->row->name, questions, reader->count);
	if (reader->busy)
		return;
	for (i = 0; i < reader->count; i++)
		if (questions[i].token != BALANCE_NO_TOKEN)
			questions[count++] = questions[i];
	reader->count = count;
}

static void
store_answers(Courier *courier, void *argument)
{
	Reader *reader = argument;
	int     stored;

	reader->busy = !balance_table_store(reader->lane->row->name, reader->answers,
										reader->answer_count, &stored);
	CRASH_POINT(balances_writing);
}

/*
 * Runs a transaction about a gateway's balances, again until no scan is in its
 * way.  False: it is to stop before.
 */
static bool
transact(Courier *courier, void (*body)(Courier *, void *), Reader *reader,
		 volatile sig_atomic_t *stop)
{
	for (;;)
	{
		ErrorData *error = courier_transact(courier, body, reader);

		if (error != NULL)
			ReThrowError(error);
		if (!reader->busy)
			return true;
		if (stop != NULL && *stop)
			return false;
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, POLL_ONE,
						 PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		leave_dead_server();
		CHECK_FOR_INTERRUPTS();
	}
}

/*
 * Stores the answers there are.
 */
static void
flush_answers(Courier *courier, Reader *reader, volatile sig_atomic_t *stop)
{
	if (reader->answer_count == 0)
		return;
	(void) transact(courier, store_answers, reader, stop);
	CRASH_POINT(balances_written);
	reader->answer_count = 0;
}

bool
courier_read_balances(Courier *courier, List *requests, volatile sig_atomic_t *stop)
{
	MemoryContext memory = AllocSetContextCreate(CurrentMemoryContext, "quota_manager balances",
												 ALLOCSET_DEFAULT_SIZES);
	MemoryContext caller;
	ErrorData    *error;
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
	foreach (cell, readers)
	{
		Reader *reader = lfirst(cell);

		if (!transact(courier, ask_questions, reader, stop))
			reader->given_up = true;
	}
	do
	{
		leave_dead_server();
		CHECK_FOR_INTERRUPTS();
		if (stop != NULL && *stop)
			break;
		foreach (cell, readers)
		{
			Reader *reader = lfirst(cell);

			if (reader->answer_count >= delivery_claim_batch)
				flush_answers(courier, reader, stop);
			send_queries(reader);
		}
	} while (poll_readers(readers) || wait_for_rate(readers));

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
		flush_answers(courier, reader, stop);
	}
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(memory);
	return answering;
}
