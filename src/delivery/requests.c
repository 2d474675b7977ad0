/*
 * requests.c
 *		The wire: requests of a sender and their answers.
 */
#include "postgres.h"

#include "common/crash_point.h"
#include "delivery/requests.h"
#include "delivery/timing.h"

/* Answers taken at once. */
#define POLL_RESULTS 64

/*
 * Milliseconds, RATE_WAIT_MAX_MS at most, until rate_limit lets something go
 * that waits for nothing else; PG_INT32_MAX: there is no such thing.
 */
int
requests_throttled_ms(const Sender *sender)
{
	MonoTime now = mono_now();
	bool     waits;
	int      wait_ms;

	if (sender->row == NULL || sender->row->rate_limit <= 0 || !sender->has_lock ||
		sender->is_paused)
		return PG_INT32_MAX;
	waits = sender_wants_check(sender) ||
			(sender->circuit.phase == CIRCUIT_SENDING &&
			 (grants_in(&sender->grants, GRANT_READY) > 0 || grants_sampled(&sender->grants) > 0 ||
			  sender->unresolved.next_due <= now));
	wait_ms = rate_limit_wait_ms(&sender->rate_limit, sender->row->rate_limit, now);
	return waits && wait_ms > 0 ? wait_ms : PG_INT32_MAX;
}

/*
 * Submits a request about a grant, which comes into that state; false: no more
 * can be, now.
 */
static bool
submit(Sender *sender, GatewayRequest *request, Grant *grant, RequestKind kind, GrantState state)
{
	GatewayReply reply = {GATEWAY_NOT_SENT, .message = "out of memory"};

	request->token = grant;
	grant->tag.kind = kind;
	if (gateway_submit(sender->session, request))
	{
		grant_move(&sender->grants, grant, state);
		return true;
	}
	if (sender_in_flight(sender) == 0)
		sender_act(sender, circuit_query_failed(&sender->circuit, &reply, 0, mono_now()));
	return false;
}

/* Sends a grant. */
static bool
send_grant(Sender *sender, Grant *grant, const Identity *installation)
{
	GatewayRequest request = {GATEWAY_DELTA, grant->key.user_id, grant->amount};
	char           key[128];

	identity_key(installation, grant->id, key, sizeof(key));
	request.idempotency_key = key;
	if (grant->earlier == MAYBE_SENT)
		CRASH_POINT(grant_resending);
	if (!submit(sender, &request, grant, REQUEST_GRANT, GRANT_IN_FLIGHT))
		return false;
	CRASH_POINT(grant_sent);
	return true;
}

/* Asks for the balance of a ready grant's user. */
static bool
ask_before(Sender *sender, Grant *grant)
{
	GatewayRequest request = {GATEWAY_QUERY, grant->key.user_id};

	grant->before.time = GetCurrentTimestamp();
	grant->before.moment = mono_now();
	return submit(sender, &request, grant, REQUEST_SAMPLE, GRANT_SAMPLING);
}

/* Asks about a grant in doubt.  False: nothing more can be asked now. */
static bool
ask_after(Sender *sender, Grant *grant, MonoTime now)
{
	GatewayRequest request = {GATEWAY_QUERY, grant->key.user_id};

	grant->doubt.asked = now;
	return gateway_free_slots(sender->session) > 0 && sender_take_token(sender) &&
		   submit(sender, &request, grant, REQUEST_EVIDENCE, GRANT_RECONCILING);
}

/*
 * Asks about the grants in doubt whose time has come.  Half of the connections
 * are left to others.
 */
static void
send_evidence_queries(Sender *sender)
{
	GrantQueue *grants = &sender->grants;
	MonoTime    now = mono_now();
	MonoTime    next = MONO_NEVER;
	int         most = Max(sender->row->max_connections / 2, 1);

	if (sender->unresolved.next_due > now || sender_policy(sender) != DOUBT_RECONCILE)
		return;
	grants_foreach (grant, grants, GRANT_UNRESOLVED)
	{
		if (grant->doubt.due > now)
			next = Min(next, grant->doubt.due);
		else if (grant->before.balance == NULL)
		{
			reconcile_without_sample(grant);
			grant_move(grants, grant, GRANT_DONE);
		}
		else if (grants_in(grants, GRANT_RECONCILING) >= most || !ask_after(sender, grant, now))
		{
			next = now;
			break;
		}
	}
	sender->unresolved.next_due = next;
}

/* True if requests_send() might send something. */
bool
requests_wait(const Sender *sender)
{
	const GrantQueue *grants = &sender->grants;

	if (!sender->has_lock)
		return false;
	if (sender_wants_check(sender))
		return true;
	if (!sender_is_open(sender))
		return false;
	return grants_sampled(grants) > 0 || grants_in(grants, GRANT_UNRESOLVED) > 0 ||
		   (grants_in(grants, GRANT_READY) > 0 &&
			grants_in(grants, GRANT_IN_FLIGHT) < sender->circuit.concurrency_limit);
}

/*
 * Sends what can be sent now to a gateway that is not paused, between
 * sending_begin() and sending_end().
 */
void
requests_send(Sender *sender, const Identity *installation)
{
	GrantQueue *grants = &sender->grants;
	int         limit = sender->circuit.concurrency_limit;

	if (!sender->has_lock)
		return;
	if (sender_wants_check(sender))
		health_check_send(sender);
	if (!sender_is_open(sender))
		return;
	if (grants_in(grants, GRANT_READY) == 0 && grants_sampled(grants) == 0 &&
		grants_in(grants, GRANT_UNRESOLVED) == 0)
		return;
	if (!sender_open_session(sender))
		return;
	if (sender_in_flight(sender) == 0)
		sender->responsive_until = mono_in_ms(RESPONSIVE_MS);
	/* first, since they are few, and under a rate_limit nothing would be left to them */
	send_evidence_queries(sender);
	while (grants_in(grants, GRANT_READY_TO_SEND) > 0 &&
		   grants_in(grants, GRANT_IN_FLIGHT) < limit && gateway_free_slots(sender->session) > 0 &&
		   sender_take_token(sender))
	{
		if (!send_grant(sender, grants_first(grants, GRANT_READY_TO_SEND), installation))
			return;
	}
	while (grants_in(grants, GRANT_READY) > 0 && gateway_free_slots(sender->session) > 0)
	{
		Grant *grant = grants_first(grants, GRANT_READY);

		/* balances are read for so many at once as will be sent */
		if (grant->before.needed ? grants_sampled(grants) >= limit
								 : grants_in(grants, GRANT_IN_FLIGHT) >= limit)
			break;
		if (!sender_take_token(sender))
			break;
		if (!(grant->before.needed ? ask_before(sender, grant)
								   : send_grant(sender, grant, installation)))
			return;
	}
}

/* Takes in the answer to a grant. */
static void
take_grant_reply(Sender *sender, Grant *grant, const GatewayReply *reply, TimestampTz now)
{
	GrantQueue *grants = &sender->grants;
	DoubtPolicy policy = sender_policy(sender);

	grant_answered(grants, grant, policy);
	grant_conclude(grant, reply, policy, now);
	grant_move(grants, grant,
			   reply->outcome == GATEWAY_BLOCKED ? GRANT_AWAITING_VERDICT : GRANT_DONE);
	sender_act(sender, circuit_grant_answered(&sender->circuit, reply,
											  grants_in(grants, GRANT_IN_FLIGHT), mono_now()));
	CRASH_POINT(answer_taken);
}

/*
 * Takes in a balance that was asked for before a grant is sent.  A user for
 * whom the gateway cannot answer gets the grant all the same, after some tries:
 * should its answer be lost, an operator decides.
 */
static void
take_sample(Sender *sender, Grant *grant, const GatewayReply *reply)
{
	GrantQueue *grants = &sender->grants;
	bool        failed = reply->outcome != GATEWAY_COMPLETED && reply->outcome != GATEWAY_REFUSED;

	/* of a total below zero no more is known, so it is no evidence */
	if (reply->outcome == GATEWAY_COMPLETED && !reply->below_zero)
		grant_set_sample(grant,
						 sender->row != NULL && sender->row->dialect == GATEWAY_ZGSM
							 ? reply->total
							 : reply->balance,
						 grant->before.time, grant->before.moment);
	if (grant->is_held)
		grant_return(grants, grant);
	else if (!failed && sender_is_open(sender))
	{
		grant_move(grants, grant, GRANT_SAMPLED);
		CRASH_POINT(before_read);
	}
	else if (reply->outcome == GATEWAY_BLOCKED || reply->outcome == GATEWAY_IN_DOUBT)
	{
		grant->outcome.http_status = (int) reply->http_status;
		grant_set_message(grant, reply->message);
		grant_move(grants, grant, GRANT_SAMPLE_REFUSED);
	}
	else
	{
		grant_return(grants, grant);
		/* or a user for whom the gateway always asks for a pause would be the next again */
		if (reply->outcome == GATEWAY_THROTTLED)
			grant_conclude(grant, reply, sender_policy(sender), GetCurrentTimestamp());
	}
	if (failed)
		sender_act(sender, circuit_query_failed(&sender->circuit, reply,
												grants_in(grants, GRANT_IN_FLIGHT), mono_now()));
}

/* Takes in the answer to a query about a grant in doubt. */
static void
take_evidence(Sender *sender, Grant *grant, const GatewayReply *reply, TimestampTz now)
{
	GrantQueue *grants = &sender->grants;

	if (sender_policy(sender) != DOUBT_RECONCILE)
	{
		grant_remove(grants, grant);
		return;
	}
	reconcile_grant(grant, sender->row, sender->policy_since, reply, now);
	grant_move(grants, grant, GRANT_DONE);
	CRASH_POINT(evidence_read);
	if (reply->outcome == GATEWAY_NOT_SENT || reply->outcome == GATEWAY_THROTTLED)
		sender_act(sender, circuit_query_failed(&sender->circuit, reply,
												grants_in(grants, GRANT_IN_FLIGHT), mono_now()));
}

/* Takes in one answer. */
static void
take_result(Sender *sender, const GatewayResult *result, TimestampTz now)
{
	RequestTag *tag = result->token;

	switch (tag->kind)
	{
		case REQUEST_GRANT:
			take_grant_reply(sender, (Grant *) tag, &result->reply, now);
			break;
		case REQUEST_SAMPLE:
			take_sample(sender, (Grant *) tag, &result->reply);
			break;
		case REQUEST_EVIDENCE:
			take_evidence(sender, (Grant *) tag, &result->reply, now);
			break;
		case REQUEST_HEALTH_CHECK:
		case REQUEST_WRITE_CHECK:
			health_check_answered(sender, tag, &result->reply);
			break;
	}
}

/* True for a result that may end the connections, and what is in flight on them. */
static bool
is_check(const Sender *sender, const GatewayResult *result)
{
	/* not by its kind: the grant of an answer that was taken in may be freed */
	return result->token == &sender->checks[HEALTH_CHECK] ||
		   result->token == &sender->checks[WRITE_CHECK];
}

/*
 * Waits for answers for at most timeout_ms and takes them in; true if there was
 * one.
 */
bool
requests_poll(Sender *sender, int timeout_ms)
{
	static GatewayResult results[POLL_RESULTS];
	int                  count = gateway_poll(sender->session, timeout_ms, results, POLL_RESULTS);
	TimestampTz          now;
	int                  i;

	if (count == 0)
		return false;
	now = GetCurrentTimestamp();
	sender->responsive_until = mono_in_ms(RESPONSIVE_MS);
	for (i = 0; i < count; i++)
		if (!is_check(sender, &results[i]))
			take_result(sender, &results[i], now);
	for (i = 0; i < count; i++)
		if (is_check(sender, &results[i]))
			take_result(sender, &results[i], now);
	if (grants_in(&sender->grants, GRANT_IN_FLIGHT) == 0)
		sender_act(sender, circuit_drained(&sender->circuit, mono_now()));
	return true;
}
