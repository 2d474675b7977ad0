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

extern int64    backoff_ms(int failures, int64 base_ms, int64 max_ms);
extern MonoTime backoff_by_cost(MonoTime begin, int64 min_ms, int64 max_ms, int share);

#endif /* QM_BACKOFF_H */
