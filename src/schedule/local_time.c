/*
 * local_time.c
 *		Which local time the clocks of a zone show, and when.
 */
#include "postgres.h"

#include "utils/datetime.h"
#include "utils/timestamp.h"

#include "schedule/local_time.h"

/*
 * How far a local time can be from its instant, with room to spare: offsets stay
 * below 16 hours.
 */
#define MAX_OFFSET_SECONDS (INT64CONST(2) * SECS_PER_DAY)

/*
 * The change of the zone's clock after an instant, as pg_next_dst_boundary
 * returns it: 1 when there is one, 0 when there is none.  Sets *offset to the
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

/* The span that begins at the given instant. */
ZoneSpan
zone_span_from(const pg_tz *tz, int64 instant)
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

/* Division that rounds towards minus infinity. */
static int64
floor_div(int64 dividend, int64 divisor)
{
	int64 quotient = dividend / divisor;

	return dividend % divisor < 0 ? quotient - 1 : quotient;
}

/* The date of a local time, in days since 1970. */
int64
day_of(int64 local)
{
	return floor_div(local, SECS_PER_DAY);
}

/*
 * The latest local time shown up to an instant; in a fold that is later than
 * the local time at the instant.
 */
int64
latest_local(const pg_tz *tz, int64 instant)
{
	int64 latest = PG_INT64_MIN;
	int64 start = instant - MAX_OFFSET_SECONDS;

	while (start <= instant)
	{
		ZoneSpan span = zone_span_from(tz, start);

		latest = Max(latest, Min(span.end - 1, instant) + span.offset);
		start = span.end;
	}
	return latest;
}

/* The first instant at which the clock shows this local time or a later one. */
int64
first_instant(const pg_tz *tz, int64 local)
{
	int64 start = local - MAX_OFFSET_SECONDS;

	for (;;)
	{
		ZoneSpan span = zone_span_from(tz, start);
		int64    instant = Max(span.start, local - span.offset);

		if (instant < span.end)
			return instant;
		start = span.end;
	}
}

/*
 * True if the zone has the date (days since 1970): Samoa never had 30 December
 * 2011.
 */
bool
date_exists(const pg_tz *tz, int64 day)
{
	int64 instant = first_instant(tz, day * SECS_PER_DAY);

	return day_of(instant + zone_span_from(tz, instant).offset) == day;
}

/* The last instant that is not after a finite time. */
int64
instant_of(TimestampTz time)
{
	return floor_div(time, USECS_PER_SEC) + EPOCH_SHIFT;
}

/* The time of an instant. */
TimestampTz
time_of(int64 instant)
{
	return (instant - EPOCH_SHIFT) * USECS_PER_SEC;
}
