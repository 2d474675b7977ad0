/*
 * schedule.h
 *		When a cron schedule fires, and the clock that decides it.
 *
 * This concern knows nothing of conditions, tables or workers, and reads no
 * catalogue.  The rules (syntax, clock changes) are in
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

extern bool  cron_next_firing(const char *expr, TimestampTz after, const char *zone,
							  TimestampTz *next);
extern char *cron_effective_zone(const char *expr, const char *zone);
extern bool  time_zone_exists(const char *name);

#endif /* QM_SCHEDULE_H */
