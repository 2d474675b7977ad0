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

/*
 * Sets *next to the first firing after `after`; see cron_next_firing.
 */
extern bool cron_next(const CronSchedule *schedule, const pg_tz *tz, TimestampTz after,
					  TimestampTz *next);

#endif /* QM_CRON_H */
