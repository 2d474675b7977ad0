/*
 * grant.c
 *		A grant between its claim and its settlement, and what is to become of it.
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "common/backoff.h"
#include "delivery/grant.h"
#include "delivery/delivery_settings.h"
#include "delivery/timing.h"
#include "endpoint/endpoint_settings.h"

/* Makes a grant, zeroed but for copies of these strings. */
Grant *
grant_create(MemoryContext memory, const char *user_id, const char *amount)
{
	size_t user_size = strlen(user_id) + 1;
	size_t amount_size = strlen(amount) + 1;
	Grant *grant = MemoryContextAlloc(memory, sizeof(Grant) + user_size + amount_size);

	memset(grant, 0, sizeof(Grant));
	grant->key.user_id = (char *) (grant + 1);
	memcpy(grant->key.user_id, user_id, user_size);
	grant->amount = grant->key.user_id + user_size;
	memcpy(grant->amount, amount, amount_size);
	return grant;
}

/* Frees a grant that is in no list. */
void
grant_free(Grant *grant)
{
	if (grant->outcome.message != NULL)
		pfree(grant->outcome.message);
	if (grant->before.balance != NULL)
		pfree(grant->before.balance);
	pfree(grant);
}

/* Copies a message for operators; NULL or empty: there is none. */
void
grant_set_message(Grant *grant, const char *message)
{
	if (grant->outcome.message != NULL)
		pfree(grant->outcome.message);
	grant->outcome.message = NULL;
	if (message != NULL && message[0] != '\0')
		grant->outcome.message = MemoryContextStrdup(GetMemoryChunkContext(grant), message);
}

/* Takes a balance that was read, and when it was asked for, on both clocks. */
void
grant_set_sample(Grant *grant, const char *balance, TimestampTz time, MonoTime moment)
{
	if (grant->before.balance != NULL)
		pfree(grant->before.balance);
	grant->before.balance = MemoryContextStrdup(GetMemoryChunkContext(grant), balance);
	grant->before.time = time;
	grant->before.moment = moment;
}

/* When a request whose answer was lost cannot arrive any more. */
MonoTime
grant_last_arrival(const Grant *grant)
{
	return mono_add_ms(grant->doubt.moment, endpoint_settle_delay_ms);
}

/* The status that settling gives the row. */
const char *
grant_status(const Grant *grant)
{
	if (grant->outcome.verdict == VERDICT_COMPLETED)
		return "completed";
	if (grant->outcome.verdict == VERDICT_IN_DOUBT || grant->earlier == MAYBE_SENT)
		return "in_doubt";
	return grant->outcome.verdict == VERDICT_FAILED ? "failed" : "pending";
}

/* True if settling changes next_attempt_time of the row. */
bool
grant_sets_time(const Grant *grant)
{
	Verdict verdict = grant->outcome.verdict;

	return verdict == VERDICT_DEFERRED || verdict == VERDICT_IN_DOUBT ||
		   (verdict == VERDICT_FAILED && grant->earlier == MAYBE_SENT);
}

/* Nothing happens to it again by itself. */
void
grant_leave_to_operator(Grant *grant)
{
	grant->outcome.next_attempt_time = DT_NOEND;
	grant->doubt.due = MONO_NEVER;
}

/* It is tried, or reconciled, again after so many milliseconds. */
void
grant_wait_ms(Grant *grant, TimestampTz now, int64 ms)
{
	grant->outcome.next_attempt_time = TimestampTzPlusMilliseconds(now, ms);
	grant->doubt.due = mono_in_ms(ms);
}

/*
 * How many attempts will have failed if one more does; a number that high has
 * no next.
 */
int32
grant_next_attempts(const Grant *grant)
{
	return Min(grant->attempts, PG_INT32_MAX - 1) + 1;
}

/*
 * The attempt failed although its gateway works: another one is made later,
 * until the attempts are used up.  retry_after as in GatewayReply.
 */
void
grant_fail_attempt(Grant *grant, double retry_after, TimestampTz now)
{
	int32 attempts = grant_next_attempts(grant);
	int64 delay = backoff_ms(attempts, delivery_retry_base, delivery_retry_max);

	grant->outcome.failed_attempt = true;
	if (attempts >= delivery_max_attempts)
	{
		grant->outcome.verdict = VERDICT_FAILED;
		grant_leave_to_operator(grant);
	}
	else
	{
		grant->outcome.verdict = VERDICT_DEFERRED;
		grant_wait_ms(grant, now, Max(delay, retry_after_ms(retry_after)));
	}
}

/* The answer to the attempt was lost: what happens next is the policy's. */
void
grant_lose(Grant *grant, DoubtPolicy policy, TimestampTz now)
{
	int32 attempts = grant_next_attempts(grant);

	grant->outcome.verdict = VERDICT_IN_DOUBT;
	grant->outcome.sent = MAYBE_SENT;
	grant->doubt.time = now;
	grant->doubt.moment = mono_now();
	grant_leave_to_operator(grant);
	switch (policy)
	{
		case DOUBT_HOLD:
			break;
		case DOUBT_RESEND:
			grant->outcome.failed_attempt = true;
			if (attempts < delivery_max_attempts)
				grant_wait_ms(grant, now,
							  backoff_ms(attempts, delivery_retry_base, delivery_retry_max));
			break;
		case DOUBT_RECONCILE:
			/* without a balance before its user waits all the same: it may still arrive */
			grant_wait_ms(grant, now,
						  grant->before.balance != NULL
							  ? Min(FIRST_EVIDENCE_MS, endpoint_settle_delay_ms)
							  : endpoint_settle_delay_ms);
			break;
	}
}

/*
 * Draws the conclusions from a reply.  What GATEWAY_BLOCKED means depends on a
 * health check: until then no attempt counts as failed.
 */
void
grant_conclude(Grant *grant, const GatewayReply *reply, DoubtPolicy policy, TimestampTz now)
{
	grant->outcome.http_status = (int) reply->http_status;
	grant->outcome.names_parameters = reply->names_parameters;
	grant_set_message(grant, reply->message);

	switch (reply->outcome)
	{
		case GATEWAY_COMPLETED:
			grant->outcome.verdict = VERDICT_COMPLETED;
			grant->outcome.sent = SENT;
			break;
		case GATEWAY_REFUSED:
			grant->outcome.verdict = VERDICT_FAILED;
			grant_leave_to_operator(grant);
			break;
		case GATEWAY_THROTTLED:
			grant_fail_attempt(grant, reply->retry_after, now);
			break;
		case GATEWAY_NOT_SENT:
		case GATEWAY_BLOCKED:
			grant->outcome.verdict = VERDICT_DEFERRED;
			grant_wait_ms(grant, now, 0);
			break;
		case GATEWAY_IN_DOUBT:
			grant_lose(grant, policy, now);
			break;
	}
}
