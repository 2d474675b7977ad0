/*
 * zone.c
 *		Time zones by name.
 */
#include "postgres.h"

#include "schedule/cron.h"
#include "schedule/schedule.h"

/*
 * Whether a zone that pg_tzset made comes from the tz data.  What is no file
 * there pg_tzset reads as a POSIX rule, so that "Foo/Bar+99" is an offset of
 * four days; a typo must not be taken for that.  A rule has a number in it and
 * is named in capitals, a file by its own name: only the few below look alike.
 */
static bool
is_named_zone(const char *name)
{
	static const char *const in_capitals[] = {"CST6CDT", "EST5EDT", "MST7MDT", "PST8PDT",
											  "GMT0",    "GMT+0",   "GMT-0"};

	if (strpbrk(name, "0123456789") == NULL || strpbrk(name, "abcdefghijklmnopqrstuvwxyz") != NULL)
		return true;
	for (int i = 0; i < lengthof(in_capitals); i++)
	{
		if (strcmp(name, in_capitals[i]) == 0)
			return true;
	}
	return false;
}

/*
 * See cron.h.  Zones that count leap seconds are no zones here, as nowhere in
 * PostgreSQL.
 */
pg_tz *
find_time_zone(const char *name)
{
	pg_tz      *tz = pg_tzset(name);
	const char *found;

	if (tz == NULL || !pg_tz_acceptable(tz))
		return NULL;
	found = pg_get_timezone_name(tz);
	return pg_strcasecmp(found, name) == 0 && is_named_zone(found) ? tz : NULL;
}

/*
 * See schedule.h.
 */
bool
time_zone_exists(const char *name)
{
	return find_time_zone(name) != NULL;
}
