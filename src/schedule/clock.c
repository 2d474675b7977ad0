/*
 * clock.c
 *		The schedule clock, which a superuser can pin.
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/guc.h"
#include "utils/timestamp.h"

#include "schedule/clock.h"

#if PG_VERSION_NUM < 160000
#define guc_malloc(elevel, size) malloc(size)
#endif

char *schedule_clock_setting = NULL;

static bool        clock_pinned = false;
static TimestampTz clock_pinned_at = 0;

/*
 * Reads `count` decimal digits; leaves *at behind them and returns true only
 * if they are there and their number lies within the limits.
 */
static bool
read_number(const char **at, int count, int low, int high, int *value)
{
	*value = 0;
	for (int i = 0; i < count; i++, (*at)++)
	{
		if (**at < '0' || **at > '9')
			return false;
		*value = *value * 10 + (**at - '0');
	}
	return *value >= low && *value <= high;
}

/*
 * Reads one given character.
 */
static bool
read_char(const char **at, char wanted)
{
	if (**at != wanted)
		return false;
	(*at)++;
	return true;
}

/*
 * Reads the fraction of a second that may follow: a point and one to six digits.
 */
static bool
read_fraction(const char **at, int *microseconds)
{
	int unit = USECS_PER_SEC;

	*microseconds = 0;
	if (!read_char(at, '.'))
		return true;
	if (**at < '0' || **at > '9')
		return false;
	for (; **at >= '0' && **at <= '9'; (*at)++)
	{
		unit /= 10;
		if (unit == 0)
			return false;
		*microseconds += (**at - '0') * unit;
	}
	return true;
}

/*
 * Reads an explicit offset from UTC: Z, +hh or +hh:mm, in seconds east.
 */
static bool
read_offset(const char **at, int *seconds)
{
	int sign;
	int hours;
	int minutes = 0;

	*seconds = 0;
	if (read_char(at, 'Z'))
		return true;
	if (read_char(at, '+'))
		sign = 1;
	else if (read_char(at, '-'))
		sign = -1;
	else
		return false;
	if (!read_number(at, 2, 0, MAX_TZDISP_HOUR, &hours))
		return false;
	if (read_char(at, ':') && !read_number(at, 2, 0, MINS_PER_HOUR - 1, &minutes))
		return false;
	*seconds = sign * (hours * SECS_PER_HOUR + minutes * SECS_PER_MINUTE);
	return true;
}

/*
 * Reads YYYY-MM-DD HH:MM:SS[.ffffff] and an explicit offset.  The server's
 * own reader would do, but what it makes of a text depends on TimeZone and
 * DateStyle, and a pinned clock must mean the same in every session.
 */
static bool
read_clock(const char *text, TimestampTz *result)
{
	const char *at = text;
	int         year;
	int         month;
	int         day;
	int         hour;
	int         minute;
	int         second;
	int         microseconds;
	int         offset;
	int64       days;
	int64       seconds;

	if (!read_number(&at, 4, 1, 9999, &year) || !read_char(&at, '-') ||
		!read_number(&at, 2, 1, MONTHS_PER_YEAR, &month) || !read_char(&at, '-') ||
		!read_number(&at, 2, 1, day_tab[isleap(year)][month - 1], &day) || !read_char(&at, ' ') ||
		!read_number(&at, 2, 0, HOURS_PER_DAY - 1, &hour) || !read_char(&at, ':') ||
		!read_number(&at, 2, 0, MINS_PER_HOUR - 1, &minute) || !read_char(&at, ':') ||
		!read_number(&at, 2, 0, SECS_PER_MINUTE - 1, &second) ||
		!read_fraction(&at, &microseconds) || !read_offset(&at, &offset) || *at != '\0')
		return false;

	days = date2j(year, month, day) - POSTGRES_EPOCH_JDATE;
	seconds =
		days * SECS_PER_DAY + hour * SECS_PER_HOUR + minute * SECS_PER_MINUTE + second - offset;
	*result = seconds * USECS_PER_SEC + microseconds;
	return true;
}

/*
 * GUC check hook: leaves the time read in *extra, nothing for an empty text.
 */
static bool
check_schedule_clock(char **newval, void **extra, GucSource source)
{
	TimestampTz *pinned;
	TimestampTz  at;

	if (**newval == '\0')
		return true;
	if (!read_clock(*newval, &at))
	{
		GUC_check_errdetail(
			"The time must be YYYY-MM-DD HH:MM:SS with an explicit offset from UTC.");
		GUC_check_errhint(
			"Write it as in \"2025-01-31 08:00:00+01\", or leave it empty for the real time.");
		return false;
	}

	pinned = guc_malloc(LOG, sizeof(TimestampTz));
	if (pinned == NULL)
		return false;
	*pinned = at;
	*extra = pinned;
	return true;
}

/*
 * GUC assign hook.
 */
static void
assign_schedule_clock(const char *newval, void *extra)
{
	clock_pinned = extra != NULL;
	if (clock_pinned)
		clock_pinned_at = *(TimestampTz *) extra;
}

/*
 * See clock.h.
 */
TimestampTz
schedule_now(void)
{
	return clock_pinned ? clock_pinned_at : GetCurrentTimestamp();
}

/*
 * See clock.h.
 */
void
schedule_define_settings(void)
{
	DefineCustomStringVariable(
		"quota_manager.schedule_clock", "Pins the clock that decides schedules and validity.",
		"Empty: the real time. Otherwise YYYY-MM-DD HH:MM:SS with an explicit offset from UTC.",
		&schedule_clock_setting, "", PGC_SUSET, 0, check_schedule_clock, assign_schedule_clock,
		NULL);
}
