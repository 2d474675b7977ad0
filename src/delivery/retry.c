/*
 * retry.c
 *		How long a gateway asks us to wait.
 */
#include "postgres.h"

#include "delivery/retry.h"
#include "delivery/timing.h"

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
