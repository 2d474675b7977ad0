/*
 * backoff.c
 *		Waiting ever longer before something is tried again.
 */
#include "postgres.h"

#include "worker/backoff.h"

/*
 * See backoff.h.
 */
void
backoff_more(Backoff *backoff, int min_ms, int max_ms)
{
	backoff->delay_ms = Min(Max(backoff->delay_ms * 2, min_ms), max_ms);
	backoff->not_before = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), backoff->delay_ms);
}

/*
 * See backoff.h.
 */
void
backoff_none(Backoff *backoff)
{
	backoff->delay_ms = 0;
	backoff->not_before = DT_NOBEGIN;
}

/*
 * See backoff.h.  Rounds up, so that who sleeps this long wakes when the time
 * has come and not just before.
 */
long
milliseconds_until(TimestampTz when, long limit_ms)
{
	TimestampTz now = GetCurrentTimestamp();

	if (when <= now)
		return 0;
	if (when >= TimestampTzPlusMilliseconds(now, limit_ms))
		return limit_ms;
	return (long) ((when - now + 999) / 1000);
}
