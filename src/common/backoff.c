/*
 * backoff.c
 *		Waiting ever longer before something is tried again.
 */
#include "postgres.h"

#include "common/pg_prng.h"

#include "common/backoff.h"

/* Doubles the delay, from min_ms up to max_ms, and counts it from now. */
void
backoff_more(Backoff *backoff, int min_ms, int max_ms)
{
	backoff->delay_ms = Min(Max(backoff->delay_ms * 2, min_ms), max_ms);
	backoff->not_before = mono_in_ms(backoff->delay_ms);
}

/* The next attempt may be made at once. */
void
backoff_none(Backoff *backoff)
{
	backoff->delay_ms = 0;
	backoff->not_before = MONO_PAST;
}

/* True if the next attempt may be made now. */
bool
backoff_is_over(const Backoff *backoff)
{
	return mono_now() >= backoff->not_before;
}

/*
 * Milliseconds to wait after so many failures in a row: the base, doubled with
 * each failure after the first, up to the maximum, less up to a half by chance,
 * so that what failed together does not come back together.
 */
int64
backoff_ms(int failures, int64 base_ms, int64 max_ms)
{
	int64 delay = base_ms;

	while (failures-- > 1 && delay < max_ms)
		delay *= 2;
	if (delay > max_ms)
		delay = max_ms;
	return delay - (int64) ((double) delay / 2 * pg_prng_double(&pg_global_prng_state));
}

/*
 * When to repeat what began at a moment and has just ended: so late that it
 * takes at most one part in `share` of the time, but within these limits.
 */
MonoTime
backoff_by_cost(MonoTime begin, int64 min_ms, int64 max_ms, int share)
{
	MonoTime end = mono_now();

	return mono_add_ms(end, Min(Max(min_ms, (end - begin) / 1000 * share), max_ms));
}
