/*
 * retry.c
 *		How long to wait before something is tried again.
 */
#include "postgres.h"

#include "common/pg_prng.h"

#include "delivery/retry.h"
#include "delivery/timing.h"

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
 * Retry-After (seconds; 0 or less: none) in milliseconds, within the limit.
 */
int64
retry_after_ms(double retry_after)
{
	if (!(retry_after > 0))
		return 0;
	return (int64) (Min(retry_after, RETRY_AFTER_MAX_MS / 1000.0) * 1000);
}
