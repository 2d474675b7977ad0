/*
 * rate_limit.h
 *		A token bucket: requests per second.
 *
 * Pure: times are parameters.  A rate of 0 or less is no limit.
 */
#ifndef QM_RATE_LIMIT_H
#define QM_RATE_LIMIT_H

#include "postgres.h"

#include "common/monotonic.h"

/* rate_limit lets through later what it did not need for so long. */
#define RATE_SAVED_SECONDS 0.1

/* Longest sleep for the sake of a rate_limit. */
#define RATE_WAIT_MAX_MS 1000

typedef struct RateLimit
{
	double   tokens; /* requests that could be sent at `time` */
	MonoTime time;   /* MONO_PAST: none was sent yet */
} RateLimit;

extern void rate_limit_init(RateLimit *limit);
extern bool rate_limit_take(RateLimit *limit, double rate, MonoTime now);
extern int  rate_limit_wait_ms(const RateLimit *limit, double rate, MonoTime now);

#endif /* QM_RATE_LIMIT_H */
