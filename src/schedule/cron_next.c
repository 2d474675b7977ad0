/*
 * cron_next.c
 *		When a schedule fires next.
 *
 * With an hour field of exactly "*" a schedule fires at every instant whose
 * reading matches.  With any other it fires once per nominal reading: at the
 * first instant at which the clock shows that reading or a later one.  In a
 * gap that is its end, in a fold the first of the two; and since "the latest
 * reading shown so far" never runs backwards, neither does the search.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/timestamp.h"

#include "schedule/cron.h"
#include "schedule/reading.h"

/*
 * How far to search.  A date and day of week together come back within 40
 * years at most (29 February around a year such as 2100); a date that does
 * not exist in a zone can double that.
 */
#define SEARCH_DAYS (INT64CONST(100) * 366)

/*
 * The next instant whose reading matches.
 */
static bool
next_matching_instant(const CronSchedule *schedule, const pg_tz *tz, int64 after, int64 last_day,
					  int64 *instant)
{
	ZoneSpan span = zone_span_from(tz, after + 1);
	int64    low = span.start + span.offset;
	int64    reading;

	while (cron_next_reading(schedule, low, last_day, &reading))
	{
		/* In a zone that changes its offset twice a year the next date may be many spans off. */
		for (;;)
		{
			int64 start = span.start + span.offset;

			if (start < low || start > reading)
			{
				low = start;
				break;
			}
			*instant = reading - span.offset;
			if (*instant < span.end)
				return true;
			span = zone_span_from(tz, span.end);
			CHECK_FOR_INTERRUPTS();
		}
	}
	return false;
}

/*
 * The next instant at which a nominal reading falls due.
 */
static bool
next_nominal_instant(const CronSchedule *schedule, const pg_tz *tz, int64 after, int64 last_day,
					 int64 *instant)
{
	int64 low = latest_reading(tz, after) + 1;
	int64 reading;

	while (cron_next_reading(schedule, low, last_day, &reading))
	{
		*instant = first_instant(tz, reading);
		if (date_exists(tz, day_of(reading)))
			return true;
		low = (day_of(reading) + 1) * SECS_PER_DAY;
		CHECK_FOR_INTERRUPTS();
	}
	return false;
}

/*
 * Sets *next to the first firing after `after`, as cron_next_firing does.
 */
bool
cron_next(const CronSchedule *schedule, const pg_tz *tz, TimestampTz after, TimestampTz *next)
{
	int64 after_instant;
	int64 last_day;
	int64 instant;
	bool  found;

	if (TIMESTAMP_IS_NOEND(after))
		return false;
	if (TIMESTAMP_IS_NOBEGIN(after))
		after = MIN_TIMESTAMP - 1;

	after_instant = instant_of(after);
	last_day = day_of(after_instant) + SEARCH_DAYS;
	if (schedule->every_hour)
		found = next_matching_instant(schedule, tz, after_instant, last_day, &instant);
	else
		found = next_nominal_instant(schedule, tz, after_instant, last_day, &instant);

	if (!found || instant - EPOCH_SHIFT >= END_TIMESTAMP / USECS_PER_SEC)
		return false;
	*next = time_of(instant);
	return true;
}
