/*
 * grant.c
 *		What an outcome means for a grant.
 */
#include "postgres.h"

#include "common/pg_prng.h"
#include "utils/memutils.h"

#include "delivery/grant.h"
#include "delivery/settings.h"

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
	pfree(grant);
}

int64
backoff_ms(int failures, int64 base, int64 max)
{
	int64 delay = base;

	while (failures-- > 1 && delay < max)
		delay *= 2;
	if (delay > max)
		delay = max;
	return delay - (int64) (delay / 2 * pg_prng_double(&pg_global_prng_state));
}

int64
retry_after_ms(double retry_after)
{
	if (!(retry_after > 0))
		return 0;
	return (int64) (Min(retry_after, RETRY_AFTER_MAX_MS / 1000.0) * 1000);
}

void
grant_charge(Grant *grant, double retry_after, TimestampTz now)
{
	int   refusals = grant->refusals + 1;
	int64 delay = backoff_ms(refusals, delivery_retry_base, delivery_retry_max);

	grant->charged = true;
	if (refusals >= delivery_max_attempts)
		grant->verdict = VERDICT_FAILED;
	else
	{
		grant->verdict = VERDICT_DEFERRED;
		grant->next_attempt_time =
			TimestampTzPlusMilliseconds(now, Max(delay, retry_after_ms(retry_after)));
	}
}

void
grant_conclude(Grant *grant, const GatewayReply *reply, TimestampTz now)
{
	grant->http_status = (int) reply->http_status;
	grant->names_parameters = reply->names_parameters;
	if (reply->message[0] != '\0')
		grant->message = MemoryContextStrdup(GetMemoryChunkContext(grant), reply->message);

	switch (reply->outcome)
	{
		case GATEWAY_COMPLETED:
			grant->verdict = VERDICT_COMPLETED;
			break;
		case GATEWAY_REFUSED:
			grant->verdict = VERDICT_FAILED;
			break;
		case GATEWAY_THROTTLED:
			grant_charge(grant, reply->retry_after, now);
			break;
		case GATEWAY_NOT_SENT:
		case GATEWAY_BLOCKED:
			grant->verdict = VERDICT_DEFERRED;
			grant->next_attempt_time = now;
			break;
		case GATEWAY_IN_DOUBT:
			grant->verdict = VERDICT_IN_DOUBT;
			break;
	}
}
