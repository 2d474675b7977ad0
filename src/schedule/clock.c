/*
 * clock.c
 *		The schedule clock, which a superuser can pin.
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/timestamp.h"

#include "common/compat.h"
#include "common/iso_time.h"
#include "schedule/clock.h"

char *schedule_clock_setting = NULL;

static bool        clock_pinned = false;
static TimestampTz clock_pinned_at = 0;

/* GUC check hook: leaves the time read in *extra, nothing for an empty text. */
static bool
check_schedule_clock(char **newval, void **extra, GucSource source)
{
	TimestampTz *pinned;
	TimestampTz  at;

	if (**newval == '\0')
		return true;
	if (iso_time_read(*newval, ISO_TIME_NEEDS_ZONE | ISO_TIME_SHORT_OFFSET, &at) != 0)
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

/* GUC assign hook. */
static void
assign_schedule_clock(const char *newval, void *extra)
{
	clock_pinned = extra != NULL;
	if (clock_pinned)
		clock_pinned_at = *(TimestampTz *) extra;
}

/*
 * The time at which the superuser setting quota_manager.schedule_clock pins
 * this session's clock, else GetCurrentTimestamp().  Never fails.
 */
TimestampTz
schedule_now(void)
{
	return clock_pinned ? clock_pinned_at : GetCurrentTimestamp();
}

/* Registers quota_manager.schedule_clock; called once by _PG_init. */
void
schedule_define_settings(void)
{
	DefineCustomStringVariable(
		"quota_manager.schedule_clock", "Pins the clock that decides schedules and validity.",
		"Empty: the real time. Otherwise YYYY-MM-DD HH:MM:SS with an explicit offset from UTC.",
		&schedule_clock_setting, "", PGC_SUSET, 0, check_schedule_clock, assign_schedule_clock,
		NULL);
}
