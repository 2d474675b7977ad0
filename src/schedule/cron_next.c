/*
 * cron_next.c
 *		When a schedule fires next.
 *
 * With an hour field of exactly "*" a schedule fires at every instant whose
 * local time matches.  With any other it fires once per nominal local time: at the
 * first instant at which the clock shows that local time or a later one.  In a
 * gap that is its end, in a fold the first of the two; and since "the latest
 * local time shown so far" never runs backwards, neither does the search.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/timestamp.h"

#include "schedule/cron.h"
#include "schedule/local_time.h"

/*
 * How far to search.  A date and day of week together come back within 40
 * years at most (29 February around a year such as 2100); a date that does
 * not exist in a zone can double that.
 */
#define SEARCH_DAYS (INT64CONST(100) * 366)

/* The next instant whose local time matches. */
static bool
next_matching_instant(const CronSchedule *schedule, const pg_tz *tz, int64 after, int64 last_day,
					  int64 *instant)
{
	ZoneSpan span = zone_span_from(tz, after + 1);
	int64    low = span.start + span.offset;
	int64    local;

	while (cron_next_local(schedule, low, last_day, &local))
	{
		/* In a zone that changes its offset twice a year the next date may be many spans off. */
		for (;;)
		{
			int64 start = span.start + span.offset;

			if (start < low || start > local)
			{
				low = start;
				break;
			}
			*instant = local - span.offset;
			if (*instant < span.end)
				return true;
			span = zone_span_from(tz, span.end);
			CHECK_FOR_INTERRUPTS();
		}
	}
	return false;
}

/* The next instant at which a nominal local time falls due. */
static bool
next_nominal_instant(const CronSchedule *schedule, const pg_tz *tz, int64 after, int64 last_day,
					 int64 *instant)
{
	int64 low = latest_local(tz, after) + 1;
	int64 local;

	while (cron_next_local(schedule, low, last_day, &local))
	{
		*instant = first_instant(tz, local);
		if (date_exists(tz, day_of(local)))
			return true;
		low = (day_of(local) + 1) * SECS_PER_DAY;
		CHECK_FOR_INTERRUPTS();
	}
	return false;
}

/* Sets *next to the first firing after `after`, as cron_next_firing does. */
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
