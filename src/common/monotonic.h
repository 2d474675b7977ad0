/*
 * monotonic.h
 *		A clock for durations and deadlines within one run of the machine.
 *
 * The wall clock can be set back or ahead, by an hour or by years.  Deadlines in
 * the memory of a process use this clock, which runs evenly.  All processes of one machine read the same one, so
 * moments can be passed on in shared memory; they mean nothing after a reboot
 * and never belong in a table.
 */
#ifndef QM_MONOTONIC_H
#define QM_MONOTONIC_H

#include "postgres.h"

#include "portability/instr_time.h"
#include "utils/timestamp.h"

/* A moment, in microseconds since some moment that does not change while the machine runs. */
typedef int64 MonoTime;

/* Before and after every moment. */
#define MONO_PAST PG_INT64_MIN
#define MONO_NEVER PG_INT64_MAX

/* The present moment. */
static inline MonoTime
mono_now(void)
{
	instr_time now;

	INSTR_TIME_SET_CURRENT(now);
	return (MonoTime) INSTR_TIME_GET_MICROSEC(now);
}

/* The moment so many milliseconds after another one, which is neither MONO_PAST nor MONO_NEVER. */
static inline MonoTime
mono_add_ms(MonoTime moment, int64 ms)
{
	return moment + ms * 1000;
}

/* The moment so many milliseconds from now. */
static inline MonoTime
mono_in_ms(int64 ms)
{
	return mono_add_ms(mono_now(), ms);
}

/*
 * Milliseconds until a moment, at least 0 and at most limit_ms; rounded up, so
 * that a sleep of this length ends at the moment and not just before.
 */
static inline long
mono_ms_until(MonoTime moment, long limit_ms)
{
	MonoTime now = mono_now();

	if (moment <= now)
		return 0;
	if (moment >= mono_add_ms(now, limit_ms))
		return limit_ms;
	return (long) ((moment - now + 999) / 1000);
}

/*
 * The moment at which the wall clock will show a time if it is not set, given
 * that it shows `now` now.  Infinite times are MONO_PAST and MONO_NEVER.
 */
static inline MonoTime
mono_at(TimestampTz time, TimestampTz now)
{
	if (TIMESTAMP_IS_NOBEGIN(time))
		return MONO_PAST;
	if (TIMESTAMP_IS_NOEND(time))
		return MONO_NEVER;
	return mono_now() + (time - now);
}

#endif /* QM_MONOTONIC_H */
