/*
 * cron_range.c
 *		The first and the last firing of an interval, and how many there are.
 *
 * The rules of cron_next.c, applied to stretches of time in place of single
 * firings: within a stretch of constant offset, firings are counted as local
 * times, whole months at a time.
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "schedule/cron.h"
#include "schedule/local_time.h"

PG_FUNCTION_INFO_V1(qm_firing_range);

/* The firings found so far; first and last are instants. */
typedef struct FiringRange
{
	int64 count;
	int64 first;
	int64 last;
} FiringRange;

/*
 * True if a nominal local time of [low, high), which the clock skips, falls
 * due.
 */
static bool
gap_fires(const CronSchedule *schedule, const pg_tz *tz, int64 low, int64 high)
{
	int64 local;

	while (cron_next_local(schedule, low, day_of(high) + 1, &local) && local < high)
	{
		if (date_exists(tz, day_of(local)))
			return true;
		low = (day_of(local) + 1) * SECS_PER_DAY;
	}
	return false;
}

/* Adds one firing, at an instant after all of the others. */
static void
add_firing(FiringRange *range, int64 instant)
{
	if (range->count++ == 0)
		range->first = instant;
	range->last = instant;
}

/*
 * The first and the last firing after one instant and up to another, and their
 * number.
 */
static FiringRange
find_range(const CronSchedule *schedule, const pg_tz *tz, int64 after, int64 until)
{
	FiringRange range = {0};
	/* The local times of [last_low, last_high) hold the last firing, if it is not range.last yet. */
	int64 last_low = 0;
	int64 last_high = 0;
	int64 last_offset = 0;
	int64 next_new = 0; /* after the latest local time shown so far */
	int64 start = after + 1;

	if (!schedule->every_hour && start <= until)
		next_new = latest_local(tz, after) + 1;
	while (start <= until)
	{
		ZoneSpan span = zone_span_from(tz, start);
		int64    low = start + span.offset;
		int64    high = Min(span.end, until + 1) + span.offset;
		int64    count;

		if (!schedule->every_hour)
		{
			/* One firing at the end of a gap, if the local time there does not fire anyway. */
			if (next_new < low && gap_fires(schedule, tz, next_new, low) &&
				cron_count_local(schedule, low, low + 1) == 0)
			{
				add_firing(&range, start);
				last_low = last_high;
			}
			/* In the second pass of a fold only what is later than the first showed. */
			low = Max(low, next_new);
			next_new = Max(high, next_new);
		}

		count = cron_count_local(schedule, low, high);
		if (count > 0)
		{
			if (range.count == 0)
			{
				int64 local;

				cron_next_local(schedule, low, day_of(high) + 1, &local);
				range.first = local - span.offset;
			}
			range.count += count;
			last_low = low;
			last_high = high;
			last_offset = span.offset;
		}
		start = span.end;
		CHECK_FOR_INTERRUPTS();
	}

	if (last_low < last_high)
	{
		cron_last_local(schedule, last_low, last_high, &range.last);
		range.last -= last_offset;
	}
	return range;
}

/* How many firings there are after the instant `after` and up to `until`. */
int64
cron_count_firings(const CronSchedule *schedule, const pg_tz *tz, int64 after, int64 until)
{
	return find_range(schedule, tz, after, until).count;
}

/*
 * firing_range(cron, timestamptz, timestamptz, text): the first and the last
 * of what firings() returns, and how many.
 */
Datum
qm_firing_range(PG_FUNCTION_ARGS)
{
	TimestampTz  after = PG_GETARG_TIMESTAMPTZ(1);
	TimestampTz  until = PG_GETARG_TIMESTAMPTZ(2);
	CronSchedule schedule;
	pg_tz       *tz;
	FiringRange  range;
	TupleDesc    descriptor;
	Datum        values[3];
	bool         nulls[3] = {false};

	cron_open(text_to_cstring(PG_GETARG_TEXT_PP(0)), text_to_cstring(PG_GETARG_TEXT_PP(3)),
			  &schedule, &tz);
	require_finite_interval(after, until);
	if (get_call_result_type(fcinfo, NULL, &descriptor) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");

	range = find_range(&schedule, tz, instant_of(after), instant_of(until));
	values[0] = TimestampTzGetDatum(time_of(range.first));
	values[1] = TimestampTzGetDatum(time_of(range.last));
	values[2] = Int64GetDatum(range.count);
	nulls[0] = nulls[1] = range.count == 0;
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(descriptor), values, nulls)));
}
