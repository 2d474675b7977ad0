/*
 * cron_describe.c
 *		A schedule in plain English.
 *
 * The words give the values, not how they were written: a list and a step that
 * give the same values read alike.  Schedules that fire differently read
 * differently, those with an hour field of exactly "*" included: "every 15
 * minutes" goes on through a change of the clock, "every 15 minutes from 00:00
 * to 23:45" are times of the day.
 */
#include "postgres.h"

#include "fmgr.h"
#include "lib/stringinfo.h"
#include "port/pg_bitutils.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "schedule/cron.h"
#include "schedule/cron_words.h"

PG_FUNCTION_INFO_V1(qm_describe);

/* Up to this many times are listed one by one, even at equal distances. */
#define FEW 4

/* More stretches of hours than these are listed hour by hour. */
#define MAX_STRETCHES 3

#define ALL_SECONDS ((UINT64CONST(1) << 60) - 1)
#define ALL_MINUTES ALL_SECONDS
#define ALL_DAYS (((UINT64CONST(1) << 31) - 1) << 1)
#define ALL_MONTHS (((UINT64CONST(1) << 12) - 1) << 1)
#define ALL_WEEKDAYS ((UINT64CONST(1) << 7) - 1)

/* How the words for the time of day go on. */
typedef enum TimeWords
{
	TIMES,   /* "at 08:00": "every day" goes before */
	BOUNDED, /* "... from 09:00 to 17:00": "every day" goes behind */
	OPEN,    /* "every minute": needs no "every day" */
} TimeWords;

/* Seconds at equal distances, from the first to the last. */
typedef struct Progression
{
	int  first;
	int  last;
	int  step; /* 0 if there is but one */
	int  count;
	bool is_one;
} Progression;

/* The seconds, counted from midnight, at which the fields fire in some hours. */
static Progression
progression_of(const CronSchedule *schedule, uint64 hours)
{
	Progression p = {.is_one = true};

	for (int hour = 0; hour < HOURS_PER_DAY; hour++)
	{
		if ((hours >> hour & 1) == 0)
			continue;
		for (int minute = 0; minute < MINS_PER_HOUR; minute++)
		{
			if ((schedule->values[CRON_MINUTE] >> minute & 1) == 0)
				continue;
			for (int second = 0; second < SECS_PER_MINUTE; second++)
			{
				int time = hour * SECS_PER_HOUR + minute * SECS_PER_MINUTE + second;

				if ((schedule->values[CRON_SECOND] >> second & 1) == 0)
					continue;
				if (p.count == 0)
					p.first = time;
				else if (p.count == 1)
					p.step = time - p.first;
				else if (time - p.last != p.step)
					p.is_one = false;
				p.last = time;
				p.count++;
			}
		}
	}
	return p;
}

/* Whether a schedule goes on at equal distances from each hour to the next. */
static bool
is_uniform(Progression hour)
{
	return hour.is_one && (hour.count == 1 || hour.step * hour.count == SECS_PER_HOUR);
}

/* Adds a time of day, with its second if the schedule has other seconds than 0. */
static void
add_time(StringInfo out, const CronSchedule *schedule, int time)
{
	appendStringInfo(out, "%02d:%02d", time / SECS_PER_HOUR,
					 time % SECS_PER_HOUR / SECS_PER_MINUTE);
	if (schedule->values[CRON_SECOND] != 1)
		appendStringInfo(out, ":%02d", time % SECS_PER_MINUTE);
}

/* Adds "every 15 minutes". */
static void
add_every(StringInfo out, int seconds)
{
	const char *unit = "second";
	int         number = seconds;

	if (seconds % SECS_PER_HOUR == 0)
	{
		unit = "hour";
		number = seconds / SECS_PER_HOUR;
	}
	else if (seconds % SECS_PER_MINUTE == 0)
	{
		unit = "minute";
		number = seconds / SECS_PER_MINUTE;
	}
	if (number == 1)
		appendStringInfo(out, "every %s", unit);
	else
		appendStringInfo(out, "every %d %ss", number, unit);
}

/* Adds "from 09:00 to 17:45". */
static void
add_from_to(StringInfo out, const CronSchedule *schedule, int first, int last)
{
	appendStringInfoString(out, "from ");
	add_time(out, schedule, first);
	appendStringInfoString(out, " to ");
	add_time(out, schedule, last);
}

/* Adds "at 08:00, 12:00 and 18:00". */
static void
add_times(StringInfo out, const CronSchedule *schedule, int count)
{
	int written = 0;

	appendStringInfoString(out, "at ");
	for (int time = 0; time < SECS_PER_DAY; time++)
	{
		if ((schedule->values[CRON_HOUR] >> time / SECS_PER_HOUR & 1) == 0 ||
			(schedule->values[CRON_MINUTE] >> time % SECS_PER_HOUR / SECS_PER_MINUTE & 1) == 0 ||
			(schedule->values[CRON_SECOND] >> time % SECS_PER_MINUTE & 1) == 0)
			continue;
		words_add_separator(out, written++, count, "and");
		add_time(out, schedule, time);
	}
}

/*
 * Adds "from 09:00 to 11:45 and from 14:00 to 16:45" for stretches of hours,
 * the times being those of `hour` in the first and the last hour of each.
 */
static void
add_stretches(StringInfo out, const CronSchedule *schedule, Progression hour)
{
	uint64 hours = schedule->values[CRON_HOUR];
	int    count = words_count_runs(hours);
	int    low;
	int    high;

	for (int i = 0; words_next_run(&hours, &low, &high); i++)
	{
		int first = low * SECS_PER_HOUR + hour.first;
		int last = high * SECS_PER_HOUR + hour.last;

		words_add_separator(out, i, count, "and");
		if (first < last)
			add_from_to(out, schedule, first, last);
		else
		{
			appendStringInfoString(out, "at ");
			add_time(out, schedule, first);
		}
	}
}

/*
 * Adds the hours in which the times written before happen: "every hour", "every
 * hour from 09:00 to 17:59", "the hours 00, 02, 04 ... 22".
 */
static TimeWords
add_hours(StringInfo out, const CronSchedule *schedule)
{
	uint64 hours = schedule->values[CRON_HOUR];
	int    count = words_count_runs(hours);
	int    low;
	int    high;

	if (schedule->every_hour)
	{
		appendStringInfoString(out, "every hour");
		return OPEN;
	}
	if (count > MAX_STRETCHES)
	{
		words_add_numbers(out, "the hour", hours, 2);
		return BOUNDED;
	}
	appendStringInfoString(out, "every hour ");
	for (int i = 0; words_next_run(&hours, &low, &high); i++)
	{
		words_add_separator(out, i, count, "and");
		appendStringInfo(out, "from %02d:00 to %02d:59", low, high);
	}
	return BOUNDED;
}

/*
 * Adds the seconds, minutes and hours one field after another, where they have
 * no simpler form: "at minutes 0, 7, 14 ... 56 of every hour".
 */
static TimeWords
add_fields(StringInfo out, const CronSchedule *schedule)
{
	uint64 seconds = schedule->values[CRON_SECOND];
	uint64 minutes = schedule->values[CRON_MINUTE];
	bool   with_seconds = seconds != 1;

	if (seconds == ALL_SECONDS)
		appendStringInfoString(out, "every second");
	else if (with_seconds)
	{
		appendStringInfoString(out, "at ");
		words_add_numbers(out, "second", seconds, 1);
	}
	if (minutes == ALL_MINUTES)
	{
		appendStringInfoString(out, with_seconds ? " of every minute" : "every minute");
		if (schedule->every_hour)
			return OPEN;
	}
	else
	{
		appendStringInfoString(out, with_seconds ? " of " : "at ");
		words_add_numbers(out, "minute", minutes, 1);
	}
	appendStringInfoString(out, " of ");
	return add_hours(out, schedule);
}

/* Adds the time of day of a schedule that fires by the hour, whatever hour. */
static TimeWords
add_hourly(StringInfo out, const CronSchedule *schedule)
{
	Progression hour = progression_of(schedule, 1);

	if (hour.count == 1)
	{
		appendStringInfoString(out, "every hour");
		if (hour.first != 0)
			appendStringInfo(out, " at minute %d", hour.first / SECS_PER_MINUTE);
		if (hour.first % SECS_PER_MINUTE != 0)
			appendStringInfo(out, " and second %d", hour.first % SECS_PER_MINUTE);
	}
	else if (is_uniform(hour) && hour.first == 0)
		add_every(out, hour.step);
	else
		return add_fields(out, schedule);
	return OPEN;
}

/* Adds the time of day. */
static TimeWords
add_time_of_day(StringInfo out, const CronSchedule *schedule)
{
	uint64      hours = schedule->values[CRON_HOUR];
	Progression day;
	Progression hour;
	int         stretches;

	if (schedule->every_hour)
		return add_hourly(out, schedule);

	day = progression_of(schedule, hours);
	hour = progression_of(schedule, 1);
	stretches = words_count_runs(hours);
	if (day.count <= FEW)
	{
		add_times(out, schedule, day.count);
		return TIMES;
	}
	if (day.is_one)
	{
		add_every(out, day.step);
		appendStringInfoChar(out, ' ');
		add_from_to(out, schedule, day.first, day.last);
		return BOUNDED;
	}
	/* Whole hours, such as 22-23,0-6, but not 0,5,9,17,20 */
	if (is_uniform(hour) && stretches <= MAX_STRETCHES &&
		(hour.count > 1 || day.count >= 2 * stretches))
	{
		add_every(out, hour.count == 1 ? SECS_PER_HOUR : hour.step);
		appendStringInfoChar(out, ' ');
		add_stretches(out, schedule, hour);
		return BOUNDED;
	}
	if (hour.count == 1)
	{
		add_times(out, schedule, day.count);
		return TIMES;
	}
	if (is_uniform(hour) && hour.first == 0)
	{
		add_every(out, hour.step);
		appendStringInfoString(out, " in ");
		return add_hours(out, schedule);
	}
	return add_fields(out, schedule);
}

/*
 * Adds the months that days of month belong to: " of the month", " of January
 * and July".
 */
static void
add_months_of(StringInfo out, uint64 months)
{
	if (months == ALL_MONTHS)
		appendStringInfoString(out, " of the month");
	else if (words_is_long_run(months))
	{
		appendStringInfoString(out, " of every month from ");
		words_add_months(out, months);
	}
	else
	{
		appendStringInfoString(out, " of ");
		words_add_months(out, months);
	}
}

/*
 * Adds the months, if not all: " in January and July", " from March to
 * October".
 */
static void
add_months(StringInfo out, uint64 months)
{
	if (months == ALL_MONTHS)
		return;
	appendStringInfoString(out, words_is_long_run(months) ? " from " : " in ");
	words_add_months(out, months);
}

/* Whether the day fields leave out no day. */
static bool
is_every_day(const CronSchedule *schedule)
{
	bool all_days = schedule->values[CRON_DAY] == ALL_DAYS;
	bool all_weekdays = schedule->values[CRON_WEEKDAY] == ALL_WEEKDAYS;

	if (schedule->any_day || schedule->any_weekday)
		return all_days && all_weekdays;
	return all_days || all_weekdays;
}

/* Adds the days of week: ", Monday to Friday", " on Saturday and Sunday". */
static void
add_weekdays(StringInfo out, uint64 weekdays)
{
	appendStringInfoString(out, words_is_long_week(weekdays) ? ", " : " on ");
	words_add_week(out, weekdays);
}

/* Adds the days of month, and those of week if there are such besides. */
static void
add_days(StringInfo out, const CronSchedule *schedule)
{
	uint64 days = schedule->values[CRON_DAY];
	uint64 months = schedule->values[CRON_MONTH];
	uint64 weekdays = schedule->values[CRON_WEEKDAY];

	if (!schedule->any_day && !schedule->any_weekday)
	{
		appendStringInfoString(out, " on the ");
		words_add_ordinals(out, days);
		appendStringInfoString(out, " of the month or on a ");
		words_add_weekdays(out, weekdays, "or");
		if (months != ALL_MONTHS)
			appendStringInfoChar(out, ',');
		add_months(out, months);
		return;
	}
	if (pg_popcount64(days) == 1 && pg_popcount64(months) == 1)
	{
		appendStringInfo(out, " on %d ", pg_rightmost_one_pos64(days));
		words_add_months(out, months);
	}
	else
	{
		appendStringInfoString(out, " on the ");
		words_add_ordinals(out, days);
		add_months_of(out, months);
	}
	if (weekdays != ALL_WEEKDAYS)
	{
		appendStringInfoString(out, ", if that is a ");
		words_add_weekdays(out, weekdays, "or");
	}
}

/* describe(cron): what the schedule means. */
Datum
qm_describe(PG_FUNCTION_ARGS)
{
	CronSchedule   schedule;
	StringInfoData time_of_day;
	StringInfoData out;
	TimeWords      time;

	cron_read(text_to_cstring(PG_GETARG_TEXT_PP(0)), &schedule);
	initStringInfo(&time_of_day);
	initStringInfo(&out);
	time = add_time_of_day(&time_of_day, &schedule);

	if (is_every_day(&schedule))
	{
		appendStringInfo(&out, "%s%s%s", time == TIMES ? "every day " : "", time_of_day.data,
						 time == BOUNDED ? ", every day" : "");
		add_months(&out, schedule.values[CRON_MONTH]);
	}
	else
	{
		appendStringInfoString(&out, time_of_day.data);
		if ((schedule.any_day || schedule.any_weekday) && schedule.values[CRON_DAY] == ALL_DAYS)
		{
			add_weekdays(&out, schedule.values[CRON_WEEKDAY]);
			add_months(&out, schedule.values[CRON_MONTH]);
		}
		else
			add_days(&out, &schedule);
	}
	if (schedule.zone[0] != '\0')
		appendStringInfo(&out, ", in %s time", schedule.zone);
	PG_RETURN_TEXT_P(cstring_to_text_with_len(out.data, out.len));
}
