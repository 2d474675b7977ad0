/*
 * backoff.h
 *		Waiting ever longer before something is tried again.
 */
#ifndef QM_BACKOFF_H
#define QM_BACKOFF_H

#include "postgres.h"

#include "utils/timestamp.h"

/* Grows from attempt to attempt, up to a limit. */
typedef struct Backoff
{
	int         delay_ms;   /* 0: the last attempt went well */
	TimestampTz not_before; /* real time before which not to try again */
} Backoff;

/* Doubles the delay, from min_ms up to max_ms, and counts it from now. */
extern void backoff_more(Backoff *backoff, int min_ms, int max_ms);

/* The next attempt may be made at once. */
extern void backoff_none(Backoff *backoff);

/* Milliseconds from now to an instant of real time: 0 if it has passed, at most limit_ms. */
extern long milliseconds_until(TimestampTz when, long limit_ms);

#endif /* QM_BACKOFF_H */
