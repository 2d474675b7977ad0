/*
 * cron_match.c
 *		Which local times a schedule matches.
 *
 * This file knows nothing of time zones.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "port/pg_bitutils.h"
#include "utils/datetime.h"
#include "utils/timestamp.h"

#include "schedule/cron.h"
#include "schedule/local_time.h"

/* How many days a week has. */
#define WEEK_DAYS 7

/* The smallest value of a field from `low` on; -1 if there is none. */
static int
next_value(uint64 values, int low)
{
	values &= ~UINT64CONST(0) << low;
	return values == 0 ? -1 : pg_rightmost_one_pos64(values);
}

/* The greatest value of a field up to `high`; -1 if there is none. */
static int
last_value(uint64 values, int high)
{
	if (high < 0)
		return -1;
	values &= (UINT64CONST(2) << high) - 1;
	return values == 0 ? -1 : pg_leftmost_one_pos64(values);
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

/* Whether a date matches the day fields: either, if both are restricted. */
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
 * Sets *local to the first matching local time from `low` on and before the
 * day `last_day` (days since 1970); false if there is none.
 */
bool
cron_next_local(const CronSchedule *schedule, int64 low, int64 last_day, int64 *local)
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
				*local = day * SECS_PER_DAY + second;
				return true;
			}
		}
		day++;
		second = 0;
	}
	return false;
}

/*
 * The last second of a day, before the second `high`, that matches the fields
 * second, minute and hour; -1 if there is none.
 */
static int
last_second_of_day(const CronSchedule *schedule, int high)
{
	const uint64 *values = schedule->values;

	for (int hour = last_value(values[CRON_HOUR], (high - 1) / SECS_PER_HOUR); hour >= 0;
		 hour = last_value(values[CRON_HOUR], hour - 1))
	{
		int in_hour = Min(high - hour * SECS_PER_HOUR, SECS_PER_HOUR);

		for (int minute = last_value(values[CRON_MINUTE], (in_hour - 1) / SECS_PER_MINUTE);
			 minute >= 0; minute = last_value(values[CRON_MINUTE], minute - 1))
		{
			int in_minute = Min(in_hour - minute * SECS_PER_MINUTE, SECS_PER_MINUTE);
			int second = last_value(values[CRON_SECOND], in_minute - 1);

			if (second >= 0)
				return hour * SECS_PER_HOUR + minute * SECS_PER_MINUTE + second;
		}
	}
	return -1;
}

/*
 * Sets *local to the last matching local time of [low, high); false if there
 * is none.
 */
bool
cron_last_local(const CronSchedule *schedule, int64 low, int64 high, int64 *local)
{
	int64 day = day_of(high - 1);
	int   end = (int) (high - day * SECS_PER_DAY);

	for (; day >= day_of(low); day--)
	{
		int julian_day = (int) day + UNIX_EPOCH_JDATE;
		int year;
		int month;
		int day_of_month;

		j2date(julian_day, &year, &month, &day_of_month);
		if ((schedule->values[CRON_MONTH] >> month & 1) != 0 &&
			day_matches(schedule, julian_day, day_of_month))
		{
			int second = last_second_of_day(schedule, end);

			if (second >= 0)
			{
				*local = day * SECS_PER_DAY + second;
				return *local >= low;
			}
		}
		end = SECS_PER_DAY;
	}
	return false;
}

/* How many values of a field there are below `high`. */
static int64
values_below(uint64 values, int high)
{
	return pg_popcount64(values & ((UINT64CONST(1) << high) - 1));
}

/*
 * How many seconds of a day, before the second `high`, match the fields second,
 * minute and hour.
 */
static int64
seconds_below(const CronSchedule *schedule, int high)
{
	const uint64 *values = schedule->values;
	int           hour = high / SECS_PER_HOUR;
	int           minute = high % SECS_PER_HOUR / SECS_PER_MINUTE;
	int           second = high % SECS_PER_MINUTE;
	int64         per_minute = pg_popcount64(values[CRON_SECOND]);
	int64         per_hour = per_minute * pg_popcount64(values[CRON_MINUTE]);
	int64         count = per_hour * values_below(values[CRON_HOUR], hour);

	if ((values[CRON_HOUR] >> hour & 1) != 0)
	{
		count += per_minute * values_below(values[CRON_MINUTE], minute);
		if ((values[CRON_MINUTE] >> minute & 1) != 0)
			count += values_below(values[CRON_SECOND], second);
	}
	return count;
}

/*
 * The days of a month, as bits, that match the day fields; `weekday` is the
 * day of week of the first.
 */
static uint64
matching_days(const CronSchedule *schedule, int days, int weekday)
{
	uint64 weekdays = schedule->values[CRON_WEEKDAY];
	uint64 month = (UINT64CONST(2) << days) - 2;
	uint64 by_weekday;

	/* Six weeks on end, from the Sunday before the first of the month. */
	weekdays |= weekdays << WEEK_DAYS;
	weekdays |= weekdays << 2 * WEEK_DAYS | weekdays << 4 * WEEK_DAYS;
	by_weekday = weekdays >> weekday << 1;
	if (schedule->any_day || schedule->any_weekday)
		return schedule->values[CRON_DAY] & by_weekday & month;
	return (schedule->values[CRON_DAY] | by_weekday) & month;
}

/* How many of the days [low, high) match the day fields and the month. */
static int64
count_days(const CronSchedule *schedule, int64 low, int64 high)
{
	int64 count = 0;
	int   year;
	int   month;
	int   day_of_month;

	if (low >= high)
		return 0;
	j2date((int) low + UNIX_EPOCH_JDATE, &year, &month, &day_of_month);
	while (low < high)
	{
		int64 first = low - (day_of_month - 1);
		int   days = day_tab[isleap(year)][month - 1];

		if ((schedule->values[CRON_MONTH] >> month & 1) != 0)
		{
			uint64 matching = matching_days(schedule, days, j2day((int) first + UNIX_EPOCH_JDATE));

			matching &= ~UINT64CONST(0) << day_of_month;
			if (high < first + days)
				matching &= (UINT64CONST(2) << (high - first)) - 1;
			count += pg_popcount64(matching);
		}
		low = first + days;
		day_of_month = 1;
		if (++month > MONTHS_PER_YEAR)
		{
			month = 1;
			year++;
			CHECK_FOR_INTERRUPTS();
		}
	}
	return count;
}

/* How many local times of [low, high) match. */
int64
cron_count_local(const CronSchedule *schedule, int64 low, int64 high)
{
	int64 first_day = day_of(low);
	int64 last_day = day_of(high);
	int64 count;

	if (low >= high)
		return 0;
	/* Those of whole days, less what is before low, and what is of the day of high. */
	count = count_days(schedule, first_day, last_day) * seconds_below(schedule, SECS_PER_DAY);
	if (count_days(schedule, first_day, first_day + 1) > 0)
		count -= seconds_below(schedule, (int) (low - first_day * SECS_PER_DAY));
	if (count_days(schedule, last_day, last_day + 1) > 0)
		count += seconds_below(schedule, (int) (high - last_day * SECS_PER_DAY));
	return count;
}
