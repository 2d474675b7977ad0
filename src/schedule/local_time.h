/*
 * local_time.h
 *		Instants and local wall-clock times; for the files of this folder only.
 *
 * Two scales of whole seconds: instants (seconds since 1970 UTC) and local times
 * (what a wall clock shows, counted as if it were UTC).  A zone maps instants to
 * local times by spans of constant offset.
 */
#ifndef QM_LOCAL_TIME_H
#define QM_LOCAL_TIME_H

#include "datatype/timestamp.h"
#include "pgtime.h"

/* Seconds from 1970 to 2000: the difference of an instant and a timestamp. */
#define EPOCH_SHIFT ((int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * SECS_PER_DAY)

/* A stretch of time, [start, end), over which a zone keeps one offset. */
typedef struct ZoneSpan
{
	int64 start;
	int64 end;
	int64 offset; /* local time minus instant */
} ZoneSpan;

extern ZoneSpan    zone_span_from(const pg_tz *tz, int64 instant);
extern int64       latest_local(const pg_tz *tz, int64 instant);
extern int64       first_instant(const pg_tz *tz, int64 local);
extern bool        date_exists(const pg_tz *tz, int64 day);
extern int64       day_of(int64 local);
extern int64       instant_of(TimestampTz time);
extern TimestampTz time_of(int64 instant);

#endif /* QM_LOCAL_TIME_H */
