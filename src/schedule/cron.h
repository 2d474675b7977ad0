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

extern char  *cron_parse(const char *text, CronSchedule *schedule, CronError *error);
extern pg_tz *find_time_zone(const char *name);
extern pg_tz *require_time_zone(const char *name);
extern void   cron_read(const char *expr, CronSchedule *schedule);
extern void   cron_open(const char *expr, const char *zone, CronSchedule *schedule, pg_tz **tz);
extern void   require_finite_interval(TimestampTz after, TimestampTz until);
extern bool  cron_next_local(const CronSchedule *schedule, int64 low, int64 last_day, int64 *local);
extern bool  cron_last_local(const CronSchedule *schedule, int64 low, int64 high, int64 *local);
extern int64 cron_count_local(const CronSchedule *schedule, int64 low, int64 high);
extern int64 cron_count_firings(const CronSchedule *schedule, const pg_tz *tz, int64 after,
								int64 until);
extern bool  cron_next(const CronSchedule *schedule, const pg_tz *tz, TimestampTz after,
					   TimestampTz *next);

#endif /* QM_CRON_H */
