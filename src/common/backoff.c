/*
 * backoff.c
 *		Waiting ever longer before something is tried again.
 */
#include "postgres.h"

#include "common/backoff.h"

/*
 * Doubles the delay, from min_ms up to max_ms, and counts it from now.
 */
void
backoff_more(Backoff *backoff, int min_ms, int max_ms)
{
	backoff->delay_ms = Min(Max(backoff->delay_ms * 2, min_ms), max_ms);
	backoff->not_before = mono_in_ms(backoff->delay_ms);
}

/*
 * The next attempt may be made at once.
 */
void
backoff_none(Backoff *backoff)
{
	backoff->delay_ms = 0;
	backoff->not_before = MONO_PAST;
}

/*
 * True if the next attempt may be made now.
 */
bool
backoff_is_over(const Backoff *backoff)
{
	return mono_now() >= backoff->not_before;
}
