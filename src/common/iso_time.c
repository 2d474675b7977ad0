/*
 * iso_time.c
 *		Times as text, read strictly.
 */
#include "postgres.h"

#include "utils/datetime.h"
#include "utils/timestamp.h"

#include "common/ascii.h"
#include "common/iso_time.h"

/* Reads exactly count digits and moves on; false if they are not there. */
static bool
read_digits(const char **p, int count, int *value)
{
	*value = 0;
	for (int i = 0; i < count; i++, (*p)++)
	{
		if (!ascii_is_digit(**p))
			return false;
		*value = *value * 10 + (**p - '0');
	}
	return true;
}

/* Reads one given character and moves on; false if it is not there. */
static bool
read_char(const char **p, char wanted)
{
	if (**p != wanted)
		return false;
	(*p)++;
	return true;
}

/* Reads a fraction of a second, of up to six digits, in microseconds. */
static bool
read_fraction(const char **p, int *microseconds)
{
	int digits = 0;

	*microseconds = 0;
	for (; ascii_is_digit(**p); (*p)++)
	{
		if (++digits > 6)
			return false;
		*microseconds = *microseconds * 10 + (**p - '0');
	}
	if (digits == 0)
		return false;
	for (; digits < 6; digits++)
		*microseconds *= 10;
	return true;
}

/* Reads Z or +hh:mm, in minutes east of Greenwich.  Returns an SQLSTATE or 0. */
static int
read_zone(const char **p, int flags, int *minutes)
{
	int sign = (**p == '-') ? -1 : 1;
	int hour;
	int minute = 0;

	*minutes = 0;
	if (read_char(p, 'Z'))
		return 0;
	if (!read_char(p, '+') && !read_char(p, '-'))
		return ERRCODE_INVALID_DATETIME_FORMAT;
	if (!read_digits(p, 2, &hour))
		return ERRCODE_INVALID_DATETIME_FORMAT;
	if (read_char(p, ':'))
	{
		if (!read_digits(p, 2, &minute))
			return ERRCODE_INVALID_DATETIME_FORMAT;
	}
	else if (!(flags & ISO_TIME_SHORT_OFFSET))
		return ERRCODE_INVALID_DATETIME_FORMAT;
	if (hour > 23 || minute > 59)
		return ERRCODE_DATETIME_VALUE_OUT_OF_RANGE;
	*minutes = sign * (hour * 60 + minute);
	return 0;
}

/*
 * Reads YYYY-MM-DD HH:MM:SS, or RFC 3339: T or blank, up to six digits of a
 * second, and Z or an offset.  A time with a T or a fraction needs a zone.
 * Seconds end at 59.  Returns 0, or the SQLSTATE of what is wrong; raises
 * nothing and allocates nothing.
 */
int
iso_time_read(const char *text, int flags, TimestampTz *result)
{
	const char *p = text;
	int         year;
	int         month;
	int         day;
	int         hour;
	int         minute;
	int         second;
	int         microseconds = 0;
	int         zone = 0;
	bool        with_t;
	int64       seconds;

	if (!read_digits(&p, 4, &year) || !read_char(&p, '-') || !read_digits(&p, 2, &month) ||
		!read_char(&p, '-') || !read_digits(&p, 2, &day))
		return ERRCODE_INVALID_DATETIME_FORMAT;
	with_t = (*p == 'T');
	if (!read_char(&p, ' ') && !read_char(&p, 'T'))
		return ERRCODE_INVALID_DATETIME_FORMAT;
	if (!read_digits(&p, 2, &hour) || !read_char(&p, ':') || !read_digits(&p, 2, &minute) ||
		!read_char(&p, ':') || !read_digits(&p, 2, &second))
		return ERRCODE_INVALID_DATETIME_FORMAT;
	if (with_t || (flags & ISO_TIME_NEEDS_ZONE) || *p != '\0')
	{
		int sqlerrcode;

		if (*p == '.')
		{
			p++;
			if (!read_fraction(&p, &microseconds))
				return ERRCODE_INVALID_DATETIME_FORMAT;
		}
		sqlerrcode = read_zone(&p, flags, &zone);
		if (sqlerrcode != 0)
			return sqlerrcode;
	}
	if (*p != '\0')
		return ERRCODE_INVALID_DATETIME_FORMAT;
	if (year < 1 || month < 1 || month > 12 || day < 1 || day > day_tab[isleap(year)][month - 1] ||
		hour > 23 || minute > 59 || second > 59)
		return ERRCODE_DATETIME_VALUE_OUT_OF_RANGE;

	seconds = (int64) (date2j(year, month, day) - POSTGRES_EPOCH_JDATE) * SECS_PER_DAY +
			  (int64) hour * SECS_PER_HOUR + (int64) minute * SECS_PER_MINUTE + second -
			  (int64) zone * SECS_PER_MINUTE;
	*result = seconds * USECS_PER_SEC + microseconds;
	return 0;
}
