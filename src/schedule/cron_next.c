/*
 * cron_next.c
 *		When a schedule fires next.
 *
 * Two scales of whole seconds are used: instants (seconds since 1970 UTC) and
 * readings (what a clock on the wall shows, as if it were UTC).  A zone maps
 * instants to readings by spans of constant offset.
 *
 * With an hour field of exactly "*" a schedule fires at every instant whose
 * reading matches.  With any other it fires once per nominal reading: at the
 * first instant at which the clock shows that reading or a later one.  In a
 * gap that is its end, in a fold the first of the two; and since "the latest
 * reading shown so far" never runs backwards, neither does the search.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "port/pg_bitutils.h"
#include "utils/datetime.h"
#include "utils/timestamp.h"

#include "schedule/cron.h"

/*
 * How far a reading can be from its instant, with room to spare: offsets stay
 * below 16 hours.
 */
#define MAX_OFFSET (2 * SECS_PER_DAY)

/*
 * How far to search.  A date and day of week together come back within 40
 * years at most (29 February around a year such as 2100); a date that does
 * not exist in a zone can double that.
 */
#define SEARCH_DAYS (100 * 366)

/* Seconds from 1970 to 2000. */
#define EPOCH_SHIFT ((int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * SECS_PER_DAY)

/* A stretch of time, [start, end), over which a zone keeps one offset. */
typedef struct ZoneSpan
{
	int64 start;
	int64 end;
	int64 offset; /* reading minus instant */
} ZoneSpan;

/*
 * The change of the zone's clock after an instant, as pg_next_dst_boundary
 * tells it: 1 when there is one, 0 when there is none.  Sets *offset to the
 * offset at the instant.
 */
static int
change_after(const pg_tz *tz, int64 instant, int64 *change, int64 *offset)
{
	pg_time_t start = instant;
	pg_time_t boundary = 0;
	long      before = 0;
	long      after;
	int       before_is_dst;
	int       after_is_dst;
	int       result;

	result =
		pg_next_dst_boundary(&start, &before, &before_is_dst, &boundary, &after, &after_is_dst, tz);
	*change = boundary;
	*offset = before;
	return result;
}

/*
 * The span that begins at the given instant.
 */
static ZoneSpan
span_from(const pg_tz *tz, int64 instant)
{
	int64 change;
	int64 offset;
	int   result = change_after(tz, instant, &change, &offset);

	/*
	 * At the last change of its table pg_next_dst_boundary finds none after
	 * it, even if the table is to be repeated; a second later it does.
	 */
	if (result == 0)
		result = change_after(tz, instant + 1, &change, &offset);

	switch (result)
	{
		case 0:
			return (ZoneSpan){instant, PG_INT64_MAX, offset};
		case 1:
			return (ZoneSpan){instant, change, offset};
		default:
			elog(ERROR, "could not find the offset of a time zone");
			pg_unreachable();
	}
}

/*
 * Division that rounds towards minus infinity.
 */
static int64
floor_div(int64 dividend, int64 divisor)
{
	int64 quotient = dividend / divisor;

	return dividend % divisor < 0 ? quotient - 1 : quotient;
}

static int64
day_of(int64 reading)
{
	return floor_div(reading, SECS_PER_DAY);
}

/*
 * The latest reading that the clock has shown up to an instant; in a fold that
 * is later than what it shows now.
 */
static int64
latest_reading(const pg_tz *tz, int64 instant)
{
	int64 latest = PG_INT64_MIN;
	int64 start = instant - MAX_OFFSET;

	while (start <= instant)
	{
		ZoneSpan span = span_from(tz, start);

		latest = Max(latest, Min(span.end - 1, instant) + span.offset);
		start = span.end;
	}
	return latest;
}

/*
 * The first instant at which the clock shows the reading or a later one.
 */
static int64
first_instant(const pg_tz *tz, int64 reading)
{
	int64 start = reading - MAX_OFFSET;

	for (;;)
	{
		ZoneSpan span = span_from(tz, start);
		int64    instant = Max(span.start, reading - span.offset);

		if (instant < span.end)
			return instant;
		start = span.end;
	}
}

/*
 * Whether the zone has the date: Samoa never had 30 December 2011.
 */
static bool
date_exists(const pg_tz *tz, int64 day)
{
	int64 instant = first_instant(tz, day * SECS_PER_DAY);

	return day_of(instant + span_from(tz, instant).offset) == day;
}

/*
 * The smallest value of a field from `low` on; -1 if there is none.
 */
static int
next_value(uint64 values, int low)
{
	values &= ~UINT64CONST(0) << low;
	return values == 0 ? -1 : pg_rightmost_one_pos64(values);
}

/*
 * The first second of a day, from the second `low` on, that matches the fields
 * second, minute and hour; -1 if there is none.
 */
static int
next_second_of_day(const CronSchedule *schedule, int low)
{
	const uint64 *values = schedule->values;

	for (int hour = next_value(values[CRON_HOUR], low / SECS_PER_HOUR); hour >= 0;
		 hour = next_value(values[CRON_HOUR], hour + 1))
	{
		int in_hour = Max(low - hour * SECS_PER_HOUR, 0);

		for (int minute = next_value(values[CRON_MINUTE], in_hour / SECS_PER_MINUTE); minute >= 0;
			 minute = next_value(values[CRON_MINUTE], minute + 1))
		{
			int in_minute = Max(in_hour - minute * SECS_PER_MINUTE, 0);
			int second = next_value(values[CRON_SECOND], in_minute);

			if (second >= 0)
				return hour * SECS_PER_HOUR + minute * SECS_PER_MINUTE + second;
		}
	}
	return -1;
}

/*
 * Whether a date matches the day fields: either, if both are restricted.
 */
static bool
day_matches(const CronSchedule *schedule, int julian_day, int day)
{
	bool by_date = (schedule->values[CRON_DAY] >> day & 1) != 0;
	bool by_weekday = (schedule->values[CRON_WEEKDAY] >> j2day(julian_day) & 1) != 0;

	if (schedule->any_day || schedule->any_weekday)
		return by_date && by_weekday;
	return by_date || by_weekday;
}

/*
 * Sets *reading to the first reading that matches, from `low` on and before
 * the day `last_day` (days since 1970).  Steps by months and days.
 */
static bool
next_reading(const CronSchedule *schedule, int64 low, int64 last_day, int64 *reading)
{
	int64 day = day_of(low);
	int   second = (int) (low - day * SECS_PER_DAY);

	while (day < last_day)
	{
		int julian_day = (int) day + UNIX_EPOCH_JDATE;
		int year;
		int month;
		int day_of_month;

		j2date(julian_day, &year, &month, &day_of_month);
		if ((schedule->values[CRON_MONTH] >> month & 1) == 0)
		{
			if (month == MONTHS_PER_YEAR)
				day = date2j(year + 1, 1, 1) - UNIX_EPOCH_JDATE;
			else
				day = date2j(year, month + 1, 1) - UNIX_EPOCH_JDATE;
			second = 0;
			continue;
		}
		if (day_matches(schedule, julian_day, day_of_month))
		{
			second = next_second_of_day(schedule, second);
			if (second >= 0)
			{
				*reading = day * SECS_PER_DAY + second;
				return true;
			}
		}
		day++;
		second = 0;
	}
	return false;
}

/*
 * The next instant whose reading matches.
 */
static bool
next_matching_instant(const CronSchedule *schedule, const pg_tz *tz, int64 after, int64 last_day,
					  int64 *instant)
{
	ZoneSpan span = span_from(tz, after + 1);
	int64    reading;

	while (next_reading(schedule, span.start + span.offset, last_day, &reading))
	{
		*instant = reading - span.offset;
		if (*instant < span.end)
			return true;
		span = span_from(tz, span.end);
		CHECK_FOR_INTERRUPTS();
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

	while (next_reading(schedule, low, last_day, &reading))
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
 * See cron.h.
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

	after_instant = floor_div(after, USECS_PER_SEC) + EPOCH_SHIFT;
	last_day = day_of(after_instant) + SEARCH_DAYS;
	if (schedule->every_hour)
		found = next_matching_instant(schedule, tz, after_instant, last_day, &instant);
	else
		found = next_nominal_instant(schedule, tz, after_instant, last_day, &instant);

	if (!found || instant - EPOCH_SHIFT >= END_TIMESTAMP / USECS_PER_SEC)
		return false;
	*next = (instant - EPOCH_SHIFT) * USECS_PER_SEC;
	return true;
}
