/*
 * clock.h
 *		The schedule clock: what time it is for schedules and validity.
 *
 * Only decisions about schedules and validity read it.  Back-off, freshness
 * and everything that talks to the world use real time.
 */
#ifndef QM_CLOCK_H
#define QM_CLOCK_H

#include "datatype/timestamp.h"

/* The text of quota_manager.schedule_clock; '' when the clock is not pinned. */
extern char *schedule_clock_setting;

extern TimestampTz schedule_now(void);
extern void        schedule_define_settings(void);

#endif /* QM_CLOCK_H */
