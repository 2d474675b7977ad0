/*
 * rate_limit.c
 *		A token bucket: requests per second.
 */
#include "postgres.h"

#include "endpoint/rate_limit.h"

/* Starts with a full bucket. */
void
rate_limit_init(RateLimit *limit)
{
	limit->tokens = 0;
	limit->time = MONO_PAST;
}

/* How many requests may be sent now. */
static double
tokens_at(const RateLimit *limit, double rate, MonoTime now)
{
	double most = Max(rate * RATE_SAVED_SECONDS, 1.0);

	if (limit->time == MONO_PAST)
		return most;
	return Min(limit->tokens + rate * (double) (now - limit->time) / USECS_PER_SEC, most);
}

/* Takes the right to send one request; false: none is left now. */
bool
rate_limit_take(RateLimit *limit, double rate, MonoTime now)
{
	double tokens;

	if (rate <= 0)
		return true;
	tokens = tokens_at(limit, rate, now);
	if (tokens < 1)
		return false;
	limit->tokens = tokens - 1;
	limit->time = now;
	return true;
}

/*
 * Milliseconds until one request may be sent, RATE_WAIT_MAX_MS at most; 0: one
 * may be sent now.
 */
int
rate_limit_wait_ms(const RateLimit *limit, double rate, MonoTime now)
{
	double tokens;

	if (rate <= 0)
		return 0;
	tokens = tokens_at(limit, rate, now);
	if (tokens >= 1)
		return 0;
	return (int) Max(Min((1 - tokens) * 1000 / rate, RATE_WAIT_MAX_MS), 1);
}
