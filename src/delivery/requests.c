/*
 * flight.c
 *		Requests of a lane and their answers.
 */
#include "postgres.h"

#include "common/crash_point.h"
#include "delivery/lane.h"

/* Answers taken at once. */
#define POLL_RESULTS 64

/* Milliseconds without an answer after which a gateway seems to hang. */
#define PATIENCE 1000

/* For so many seconds requests may be saved up that rate_limit would have allowed. */
#define SAVED_SECONDS 0.1

/*
 * How many requests may be sent now under a rate.
 */
static double
tokens_at(const Lane *lane, MonoTime now)
{
	double rate = lane->row->rate_limit;
	double most = Max(rate * SAVED_SECONDS, 1.0);
	double tokens = most;

	if (lane->tokens_time != MONO_PAST)
		tokens = lane->tokens + rate * (double) (now - lane->tokens_time) / USECS_PER_SEC;
	return Min(tokens, most);
}

bool
lane_take_token(Lane *lane)
{
	MonoTime now;
	double   tokens;

	if (lane->row == NULL || lane->row->rate_limit <= 0)
		return true;
	now = mono_now();
	tokens = tokens_at(lane, now);
	if (tokens < 1)
		return false;
	lane->tokens = tokens - 1;
	lane->tokens_time = now;
	return true;
}

int
lane_throttled_ms(const Lane *lane)
{
	MonoTime now;
	double   tokens;
	bool     waits;

	if (lane->row == NULL || lane->row->rate_limit <= 0 || !lane->has_lock)
		return -1;
	now = mono_now();
	waits = gate_wants_probe(lane) ||
			(lane->gate == GATE_OPEN &&
			 (lane->ready_count > 0 || lane->measured > 0 || lane->next_proof_time <= now));
	tokens = tokens_at(lane, now);
	if (!waits || tokens >= 1)
		return -1;
	return (int) Max(Min((1 - tokens) * 1000 / lane->row->rate_limit, PATIENCE), 1);
}

/*
 * Submits a request; false: no more can be, now.
 */
static bool
submit(Lane *lane, GatewayRequest *request)
{
	GatewayReply reply = {GATEWAY_NOT_SENT};

	if (gateway_submit(lane->session, request))
		return true;
	if (lane_in_flight(lane) == 0)
	{
		strlcpy(reply.message, "out of memory", sizeof(reply.message));
		gate_trouble(lane, &reply, false);
	}
	return false;
}

/*
 * Sends a grant, which is in a list.
 */
static bool
send_grant(Lane *lane, Grant *grant, const Installation *installation)
{
	GatewayRequest request = {GATEWAY_DELTA, grant->user_id, grant->amount};
	char           key[128];

	installation_key(installation, grant->id, key, sizeof(key));
	request.idempotency_key = key;
	request.token = grant;
	grant->token.kind = TOKEN_GRANT;
	if (grant->doubtful)
		CRASH_POINT(grant_resending);
	if (!submit(lane, &request))
		return false;
	dlist_delete(&grant->node);
	dlist_push_tail(&lane->flying, &grant->node);
	lane->flying_count++;
	lane->unsent--;
	CRASH_POINT(grant_sent);
	return true;
}

/*
 * Asks for the balance of a ready grant's user.
 */
static bool
ask_before(Lane *lane, Grant *grant)
{
	GatewayRequest request = {GATEWAY_QUERY, grant->user_id};

	request.token = grant;
	grant->token.kind = TOKEN_READING;
	grant->balance_time = GetCurrentTimestamp();
	grant->balance_moment = mono_now();
	if (!submit(lane, &request))
		return false;
	dlist_delete(&grant->node);
	dlist_push_tail(&lane->reading, &grant->node);
	lane->measured++;
	return true;
}

void
lane_send(Lane *lane, const Installation *installation)
{
	if (lane->gate != GATE_OPEN || lane->row == NULL || !lane->has_lock)
		return;
	if (lane->ready_count == 0 && lane->measured == 0 && dlist_is_empty(&lane->doubts))
		return;
	if (!lane_open_session(lane))
		return;
	if (lane_in_flight(lane) == 0)
		lane->hot_until = mono_in_ms(PATIENCE);
	/* first, since they are few, and under a rate_limit nothing would be left to them */
	lane_prove(lane);
	while (!dlist_is_empty(&lane->armed) && lane->flying_count < lane->window &&
		   gateway_room(lane->session) > 0 && lane_take_token(lane))
	{
		if (!send_grant(lane, dlist_head_element(Grant, node, &lane->armed), installation))
			return;
		lane->measured--;
	}
	while (lane->ready_count > 0 && gateway_room(lane->session) > 0)
	{
		Grant *grant = dlist_head_element(Grant, node, &lane->ready);

		/* balances are read for so many at once as will be sent */
		if (grant->needs_balance ? lane->measured >= lane->window
								 : lane->flying_count >= lane->window)
			break;
		if (!lane_take_token(lane))
			break;
		if (!(grant->needs_balance ? ask_before(lane, grant)
								   : send_grant(lane, grant, installation)))
			return;
		lane->ready_count--;
	}
}

/*
 * Takes in the answer to a grant.
 */
static void
take_reply(Lane *lane, Grant *grant, const GatewayReply *reply, TimestampTz now)
{
	dlist_delete(&grant->node);
	lane_answered(lane, grant);
	grant_conclude(grant, reply, lane_policy(lane), now);
	if (reply->outcome == GATEWAY_BLOCKED)
		dlist_push_tail(&lane->blocked, &grant->node);
	else
		lane_done(lane, grant);
	if (reply->outcome == GATEWAY_COMPLETED || reply->outcome == GATEWAY_REFUSED)
		gate_success(lane, reply->outcome == GATEWAY_COMPLETED);
	else
		gate_trouble(lane, reply, true);
	CRASH_POINT(answer_taken);
}

/*
 * Takes in a balance that was asked for before a grant is sent.  A user for
 * whom the gateway cannot answer gets the grant all the same, after some tries:
 * should its answer be lost, an operator decides.
 */
static void
take_reading(Lane *lane, Grant *grant, const GatewayReply *reply)
{
	bool is_trouble = reply->outcome != GATEWAY_COMPLETED && reply->outcome != GATEWAY_REFUSED;

	dlist_delete(&grant->node);
	/* of a total below zero no more is known, so nothing can be proven by it */
	if (reply->outcome == GATEWAY_COMPLETED && !reply->below_zero)
		grant_take_balance(grant,
						   lane->row != NULL && lane->row->dialect == GATEWAY_ZGSM ? reply->total
																				   : reply->balance,
						   grant->balance_time, grant->balance_moment);
	if (lane->gate == GATE_OPEN && !is_trouble && lane->row != NULL)
	{
		dlist_push_tail(&lane->read, &grant->node);
		lane->read_count++;
		CRASH_POINT(before_read);
	}
	else if (is_trouble &&
			 (reply->outcome == GATEWAY_BLOCKED || reply->outcome == GATEWAY_IN_DOUBT))
	{
		grant->http_status = (int) reply->http_status;
		grant_tell(grant, reply->message);
		dlist_push_tail(&lane->blocked, &grant->node);
	}
	else
	{
		lane->measured--;
		lane_put_back_one(lane, grant);
		/* a user for whom the gateway always asks for a pause must not be the next again, for ever */
		if (reply->outcome == GATEWAY_THROTTLED)
			grant_conclude(grant, reply, lane_policy(lane), GetCurrentTimestamp());
	}
	if (is_trouble)
		gate_trouble(lane, reply, false);
}

bool
lane_poll(Lane *lane, int timeout_ms)
{
	static GatewayResult results[POLL_RESULTS];
	int                  count = gateway_poll(lane->session, timeout_ms, results, POLL_RESULTS);
	TimestampTz          now;
	int                  i;

	if (count == 0)
		return false;
	now = GetCurrentTimestamp();
	lane->hot_until = mono_in_ms(PATIENCE);
	for (i = 0; i < count; i++)
	{
		Token *token = results[i].token;

		if (token->kind == TOKEN_GRANT)
			take_reply(lane, (Grant *) token, &results[i].reply, now);
		else if (token->kind == TOKEN_READING)
			take_reading(lane, (Grant *) token, &results[i].reply);
		else if (token->kind == TOKEN_PROOF)
			lane_take_proof(lane, (Grant *) token, &results[i].reply, now);
	}
	/* last, since they may end the connections and what is in flight on them */
	for (i = 0; i < count; i++)
	{
		Token *token = results[i].token;

		if (token == &lane->probe_token || token == &lane->write_probe_token)
			gate_probed(lane, token->kind, &results[i].reply);
	}
	gate_step(lane);
	return true;
}
