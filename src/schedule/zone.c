/*
 * zone.c
 *		Time zones by name.
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/timestamp.h"

#include "schedule/cron.h"
#include "schedule/schedule.h"

PG_FUNCTION_INFO_V1(qm_check_time_zone);
PG_FUNCTION_INFO_V1(qm_local_time);

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
 * The zone of that name, or NULL.  The result lives as long as the process.
 * Zones that count leap seconds are refused, as everywhere in PostgreSQL.
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

/* The zone of that name; raises an error (22023) if there is none. */
pg_tz *
require_time_zone(const char *name)
{
	pg_tz *tz = find_time_zone(name);

	if (tz == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("time zone \"%s\" not recognized", name),
				 errhint("The view pg_timezone_names lists the time zones of this server.")));
	return tz;
}

/* True if the tz data has a zone of this name, in any case of letters. */
bool
time_zone_exists(const char *name)
{
	return find_time_zone(name) != NULL;
}

/* check_time_zone(text): whether there is such a zone. */
Datum
qm_check_time_zone(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(time_zone_exists(text_to_cstring(PG_GETARG_TEXT_PP(0))));
}

/*
 * local_time(timestamptz, text): what the clock shows in a zone.  AT TIME ZONE
 * would take CET and its like for abbreviations, without summer time.
 */
Datum
qm_local_time(PG_FUNCTION_ARGS)
{
	TimestampTz  instant = PG_GETARG_TIMESTAMPTZ(0);
	pg_tz       *tz = require_time_zone(text_to_cstring(PG_GETARG_TEXT_PP(1)));
	struct pg_tm tm;
	fsec_t       fsec;
	int          offset;
	Timestamp    result;

	if (TIMESTAMP_NOT_FINITE(instant))
		PG_RETURN_TIMESTAMP(instant);
	if (timestamp2tm(instant, &offset, &tm, &fsec, NULL, tz) != 0 ||
		tm2timestamp(&tm, fsec, NULL, &result) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE), errmsg("timestamp out of range")));
	PG_RETURN_TIMESTAMP(result);
}
