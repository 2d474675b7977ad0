/*
 * backoff.h
 *		Waiting ever longer before something is tried again.
 */
#ifndef QM_BACKOFF_H
#define QM_BACKOFF_H

#include "postgres.h"

#include "common/monotonic.h"

/* Grows from attempt to attempt, up to a limit. */
typedef struct Backoff
{
	int      delay_ms;   /* 0: the last attempt went well */
	MonoTime not_before; /* not to be tried again before that */
} Backoff;

extern void backoff_more(Backoff *backoff, int min_ms, int max_ms);

extern void backoff_none(Backoff *backoff);

extern bool backoff_is_over(const Backoff *backoff);

#endif /* QM_BACKOFF_H */
