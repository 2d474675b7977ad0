/*
 * schedule.h
 *		When a cron schedule fires, and the clock that decides it.
 *
 * This concern knows nothing of conditions, tables or workers, and reads no
 * catalogue.  The rules (syntax, clock changes) are told in
 * docs/schedules.md; time zones are those of the server's tz data.
 *
 * Schedules are passed as text: the canonical text that the type cron
 * stores, or anything that type accepts.
 *
 * Errors are raised: 22P02 for syntax, 22023 for a value out of range, a
 * date that never comes or an unknown time zone.
 */
#ifndef QM_SCHEDULE_H
#define QM_SCHEDULE_H

#include "schedule/clock.h"

/*
 * Sets *next to the first firing after the instant `after` and returns true;
 * returns false when there is none within a hundred years or within the range
 * of timestamps.  -infinity is taken as the beginning of that range.  Firings
 * are whole seconds; `zone` holds unless the schedule has a CRON_TZ= prefix.
 */
extern bool cron_next_firing(const char *expr, TimestampTz after, const char *zone,
							 TimestampTz *next);

/*
 * The zone in which the schedule is read: that of its CRON_TZ= prefix, else
 * `zone`.  A palloc'd copy; whether the zone exists is not looked at.
 */
extern char *cron_effective_zone(const char *expr, const char *zone);

/* Whether the tz data has a zone of this name, in any case of letters. */
extern bool time_zone_exists(const char *name);

#endif /* QM_SCHEDULE_H */
