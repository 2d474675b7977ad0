/*
 * grant.c
 *		What an outcome means for a grant.
 */
#include "postgres.h"

#include "common/pg_prng.h"
#include "utils/memutils.h"

#include "delivery/grant.h"
#include "delivery/settings.h"

/*
 * Milliseconds after a lost answer before the first reading: most requests
 * that were applied are applied by then.
 */
#define FIRST_READING 1000

/* Milliseconds before a reading is taken again that was not answered. */
#define READING_AGAIN 10000

Grant *
grant_create(MemoryContext memory, const char *user_id, const char *amount)
{
	size_t user_size = strlen(user_id) + 1;
	size_t amount_size = strlen(amount) + 1;
	Grant *grant = MemoryContextAlloc(memory, sizeof(Grant) + user_size + amount_size);

	memset(grant, 0, sizeof(Grant));
	grant->user_id = (char *) (grant + 1);
	memcpy(grant->user_id, user_id, user_size);
	grant->amount = grant->user_id + user_size;
	memcpy(grant->amount, amount, amount_size);
	return grant;
}

void
grant_free(Grant *grant)
{
	if (grant->message != NULL)
		pfree(grant->message);
	if (grant->balance_before != NULL)
		pfree(grant->balance_before);
	pfree(grant);
}

void
grant_tell(Grant *grant, const char *message)
{
	if (grant->message != NULL)
		pfree(grant->message);
	grant->message = NULL;
	if (message != NULL && message[0] != '\0')
		grant->message = MemoryContextStrdup(GetMemoryChunkContext(grant), message);
}

void
grant_take_balance(Grant *grant, const char *balance, TimestampTz asked, MonoTime moment)
{
	if (grant->balance_before != NULL)
		pfree(grant->balance_before);
	grant->balance_before = MemoryContextStrdup(GetMemoryChunkContext(grant), balance);
	grant->balance_time = asked;
	grant->balance_moment = moment;
}

MonoTime
grant_arrived(const Grant *grant)
{
	return mono_add_ms(grant->doubt_moment, delivery_linger);
}

const char *
grant_status(const Grant *grant)
{
	switch (grant->verdict)
	{
		case VERDICT_COMPLETED:
			return "completed";
		case VERDICT_FAILED:
			return grant->doubtful ? "in_doubt" : "failed";
		case VERDICT_IN_DOUBT:
			return "in_doubt";
		case VERDICT_DEFERRED:
		case VERDICT_UNSENT:
			return grant->doubtful ? "in_doubt" : "pending";
	}
	return NULL;
}

bool
grant_sets_time(const Grant *grant)
{
	return grant->verdict == VERDICT_DEFERRED || grant->verdict == VERDICT_IN_DOUBT ||
		   (grant->verdict == VERDICT_FAILED && grant->doubtful);
}

int64
backoff_ms(int failures, int64 base, int64 max)
{
	int64 delay = base;

	while (failures-- > 1 && delay < max)
		delay *= 2;
	if (delay > max)
		delay = max;
	return delay - (int64) ((double) delay / 2 * pg_prng_double(&pg_global_prng_state));
}

int64
retry_after_ms(double retry_after)
{
	if (!(retry_after > 0))
		return 0;
	return (int64) (Min(retry_after, RETRY_AFTER_MAX_MS / 1000.0) * 1000);
}

/*
 * What an operator decides about is not looked at again by itself.
 */
static void
leave_to_operator(Grant *grant)
{
	grant->next_attempt_time = DT_NOEND;
	grant->due = MONO_NEVER;
}

/*
 * It is looked at again after so many milliseconds.
 */
static void
wait_for_ms(Grant *grant, TimestampTz now, int64 ms)
{
	grant->next_attempt_time = TimestampTzPlusMilliseconds(now, ms);
	grant->due = mono_in_ms(ms);
}

int32
grant_next_attempts(const Grant *grant)
{
	return Min(grant->attempts, PG_INT32_MAX - 1) + 1;
}

void
grant_charge(Grant *grant, double retry_after, TimestampTz now)
{
	int32 attempts = grant_next_attempts(grant);
	int64 delay = backoff_ms(attempts, delivery_retry_base, delivery_retry_max);

	grant->charged = true;
	if (attempts >= delivery_max_attempts)
	{
		grant->verdict = VERDICT_FAILED;
		leave_to_operator(grant);
	}
	else
	{
		grant->verdict = VERDICT_DEFERRED;
		wait_for_ms(grant, now, Max(delay, retry_after_ms(retry_after)));
	}
}

void
grant_lose(Grant *grant, DoubtPolicy policy, TimestampTz now)
{
	grant->verdict = VERDICT_IN_DOUBT;
	grant->lost = true;
	grant->doubt_time = now;
	grant->doubt_moment = mono_now();
	leave_to_operator(grant);
	switch (policy)
	{
		case DOUBT_HOLD:
			break;
		case DOUBT_RESEND:
			grant->charged = true;
			if (grant_next_attempts(grant) < delivery_max_attempts)
				wait_for_ms(grant, now,
							backoff_ms(grant_next_attempts(grant), delivery_retry_base,
									   delivery_retry_max));
			break;
		case DOUBT_RECONCILE:
			/* its user waits also where nothing can be proven: it may still arrive */
			wait_for_ms(grant, now,
						grant->balance_before != NULL ? Min(FIRST_READING, delivery_linger)
													  : delivery_linger);
			break;
	}
}

void
grant_conclude(Grant *grant, const GatewayReply *reply, DoubtPolicy policy, TimestampTz now)
{
	grant->http_status = (int) reply->http_status;
	grant->names_parameters = reply->names_parameters;
	grant_tell(grant, reply->message);

	switch (reply->outcome)
	{
		case GATEWAY_COMPLETED:
			grant->verdict = VERDICT_COMPLETED;
			break;
		case GATEWAY_REFUSED:
			grant->verdict = VERDICT_FAILED;
			leave_to_operator(grant);
			break;
		case GATEWAY_THROTTLED:
			grant_charge(grant, reply->retry_after, now);
			break;
		case GATEWAY_NOT_SENT:
		case GATEWAY_BLOCKED:
			grant->verdict = VERDICT_DEFERRED;
			wait_for_ms(grant, now, 0);
			break;
		case GATEWAY_IN_DOUBT:
			grant_lose(grant, policy, now);
			break;
	}
}

/*
 * Says what was read before and after, and what follows.
 */
static void
tell_proof(Grant *grant, const char *conclusion, const char *after)
{
	char *text = psprintf("%s: the balance was %s before and is %s", conclusion,
						  grant->balance_before, after);

	grant_tell(grant, text);
	pfree(text);
}

void
grant_unprovable(Grant *grant)
{
	grant->verdict = VERDICT_IN_DOUBT;
	leave_to_operator(grant);
	grant_tell(grant, "the answer was lost and no balance was read before");
}

/*
 * Microseconds since the balance before was asked for: at least so many as have
 * passed, whoever has set the wall clock.
 */
static int64
since_balance(const Grant *grant, TimestampTz now)
{
	int64 elapsed = now - grant->balance_time;

	if (grant->balance_moment != MONO_PAST)
		elapsed = Max(elapsed, mono_now() - grant->balance_moment);
	return Max(elapsed, 0);
}

/*
 * True if the balance before was asked for after a time, by all that is known:
 * the wall clock may have been ahead when it was.
 */
static bool
read_since(const Grant *grant, TimestampTz since, MonoTime since_moment)
{
	return grant->balance_time > since &&
		   (grant->balance_moment == MONO_PAST || grant->balance_moment > since_moment);
}

void
grant_prove(Grant *grant, const GatewayRow *row, TimestampTz since, MonoTime since_moment,
			const GatewayReply *reply, TimestampTz now)
{
	GatewaySamples readings = {row->dialect, grant->balance_before, reply->balance, grant->amount};
	GatewayProof   proof;

	grant->http_status = (int) reply->http_status;
	grant->verdict = VERDICT_IN_DOUBT;
	if (reply->outcome != GATEWAY_COMPLETED)
	{
		char *text = psprintf("the balance cannot be read: %s", reply->message);

		grant_tell(grant, text);
		pfree(text);
		wait_for_ms(grant, now, READING_AGAIN);
		return;
	}

	if (row->dialect == GATEWAY_ZGSM)
		readings.after = reply->total;
	readings.max_usage = row->max_usage_rate < 0
							 ? -1
							 : row->max_usage_rate * ((double) since_balance(grant, now) / 1e6);
	readings.settle_delay_over = grant->asked >= grant_arrived(grant);
	proof = read_since(grant, since, since_moment) ? gateway_prove(&readings) : GATEWAY_PROOF_NONE;
	if (reply->below_zero)
		readings.after = "below zero";
	if (proof == GATEWAY_PROOF_APPLIED)
	{
		grant->verdict = VERDICT_COMPLETED;
		tell_proof(grant, "reconciled as applied", readings.after);
	}
	else if (proof == GATEWAY_PROOF_NOT_APPLIED)
	{
		grant->doubtful = false;
		grant_charge(grant, -1, now);
		tell_proof(grant, "reconciled as not applied", readings.after);
	}
	else if (!readings.settle_delay_over)
	{
		/* its user must not get another one before */
		wait_for_ms(grant, now, mono_ms_until(grant_arrived(grant), delivery_linger));
		tell_proof(grant, "not reconciled yet", readings.after);
	}
	else
	{
		leave_to_operator(grant);
		tell_proof(grant, "cannot be reconciled", readings.after);
	}
}
