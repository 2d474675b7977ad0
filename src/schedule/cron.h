/*
 * cron.h
 *		A schedule taken apart; for the files of this folder only.
 */
#ifndef QM_CRON_H
#define QM_CRON_H

#include "datatype/timestamp.h"
#include "pgtime.h"

typedef enum CronField
{
	CRON_SECOND,
	CRON_MINUTE,
	CRON_HOUR,
	CRON_DAY,
	CRON_MONTH,
	CRON_WEEKDAY,
} CronField;

#define CRON_FIELDS (CRON_WEEKDAY + 1)

/* Longest text of a schedule in bytes. */
#define CRON_MAX_LENGTH 1024

typedef struct CronSchedule
{
	uint64 values[CRON_FIELDS];     /* bit n is set when the value n matches; Sunday is 0 */
	bool   every_hour;              /* the hour field is exactly "*" */
	bool   any_day;                 /* the field begins with "*" or is "?" */
	bool   any_weekday;             /* the same */
	char   zone[TZ_STRLEN_MAX + 1]; /* of the CRON_TZ= prefix; empty: none */
} CronSchedule;

/* What is wrong with a text; zeroed when nothing is; strings are palloc'd. */
typedef struct CronError
{
	int   sqlstate;
	char *message;
	char *detail;
	char *hint;
} CronError;

/*
 * Reads a schedule.  Returns its canonical text (palloc'd, never longer than
 * the text given) and fills *schedule, or returns NULL and fills *error.
 * Depends on nothing but the text: no catalogue, no setting, no tz data.
 */
extern char *cron_parse(const char *text, CronSchedule *schedule, CronError *error);

/*
 * The zone of that name, or NULL.  The result lives as long as the process.
 */
extern pg_tz *find_time_zone(const char *name);

/* The same; raises an error (22023) if there is none. */
extern pg_tz *require_time_zone(const char *name);

/* A schedule read from text.  What is wrong is raised; see schedule.h. */
extern void cron_read(const char *expr, CronSchedule *schedule);

/*
 * The same, and the zone it is to be read in: that of its CRON_TZ= prefix, else
 * `zone`.
 */
extern void cron_open(const char *expr, const char *zone, CronSchedule *schedule, pg_tz **tz);

/* Raises an error (22023) if either end of an interval is infinite. */
extern void require_finite_interval(TimestampTz after, TimestampTz until);

/*
 * The readings (reading.h) that the fields name.  Sets *reading to the first
 * from `low` on and before the day `last_day` (days since 1970); returns false
 * if there is none.
 */
extern bool cron_next_reading(const CronSchedule *schedule, int64 low, int64 last_day,
							  int64 *reading);

/* The same for the last of [low, high), and how many of these there are. */
extern bool  cron_last_reading(const CronSchedule *schedule, int64 low, int64 high, int64 *reading);
extern int64 cron_count_readings(const CronSchedule *schedule, int64 low, int64 high);

/* How many firings there are after the instant (reading.h) `after` and up to `until`. */
extern int64 cron_count_firings(const CronSchedule *schedule, const pg_tz *tz, int64 after,
								int64 until);

/*
 * Sets *next to the first firing after `after`; see cron_next_firing.
 */
extern bool cron_next(const CronSchedule *schedule, const pg_tz *tz, TimestampTz after,
					  TimestampTz *next);

#endif /* QM_CRON_H */
