/*
 * cron_type.c
 *		The type cron and the functions on it, for SQL and for C.
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "common/compat.h"
#include "common/text_type.h"
#include "schedule/cron.h"
#include "schedule/schedule.h"

/* A schedule in its zone: all that is needed to compute its firings. */
typedef struct Firings
{
	CronSchedule schedule;
	pg_tz       *tz;
	TimestampTz  after;
	TimestampTz  until;
} Firings;

PG_FUNCTION_INFO_V1(qm_cron_in);
PG_FUNCTION_INFO_V1(qm_cron_out);
PG_FUNCTION_INFO_V1(qm_cron_recv);
PG_FUNCTION_INFO_V1(qm_cron_send);
PG_FUNCTION_INFO_V1(qm_next_firing);
PG_FUNCTION_INFO_V1(qm_firings);
PG_FUNCTION_INFO_V1(qm_schedule_now);

/*
 * Reads a schedule; returns its canonical text.  What is wrong is raised, or
 * saved in the context if that is one for soft errors: then NULL is returned.
 */
static char *
parse_or_report(const char *text, CronSchedule *schedule, Node *escontext)
{
	CronError error;
	char     *canonical = cron_parse(text, schedule, &error);

	if (canonical == NULL)
		errsave(escontext, (errcode(error.sqlstate), errmsg("%s", error.message),
							errdetail("%s", error.detail), errhint("%s", error.hint)));
	return canonical;
}

/* Reads a schedule from text; raises an error if it is invalid. */
void
cron_read(const char *expr, CronSchedule *schedule)
{
	parse_or_report(expr, schedule, NULL);
}

/* Raises an error (22023) if either end of an interval is infinite. */
void
require_finite_interval(TimestampTz after, TimestampTz until)
{
	if (TIMESTAMP_NOT_FINITE(after) || TIMESTAMP_NOT_FINITE(until))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("firings need a finite interval"),
				 errhint("Give two finite times; next_firing() takes an open end.")));
}

/*
 * Reads a schedule as cron_read does, and finds the zone that it is read in:
 * that of its CRON_TZ= prefix, else `zone`.
 */
void
cron_open(const char *expr, const char *zone, CronSchedule *schedule, pg_tz **tz)
{
	parse_or_report(expr, schedule, NULL);
	*tz = require_time_zone(schedule->zone[0] != '\0' ? schedule->zone : zone);
}

/*
 * Sets *next to the first firing after the instant `after`; false when there
 * is none within a hundred years or within the range of timestamps.  -infinity
 * counts as the beginning of that range.  Firings are whole seconds; `zone`
 * holds unless the schedule has a CRON_TZ= prefix.
 */
bool
cron_next_firing(const char *expr, TimestampTz after, const char *zone, TimestampTz *next)
{
	CronSchedule schedule;
	pg_tz       *tz;

	cron_open(expr, zone, &schedule, &tz);
	return cron_next(&schedule, tz, after, next);
}

/*
 * The zone that the schedule is read in: that of its CRON_TZ= prefix, else
 * `zone`.  A palloc'd copy; whether the zone exists is not checked.
 */
char *
cron_effective_zone(const char *expr, const char *zone)
{
	CronSchedule schedule;

	parse_or_report(expr, &schedule, NULL);
	return pstrdup(schedule.zone[0] != '\0' ? schedule.zone : zone);
}

/*
 * cron_in(cstring): checks syntax, ranges and impossible dates, and nothing
 * that depends on where it runs.
 */
Datum
qm_cron_in(PG_FUNCTION_ARGS)
{
	CronSchedule schedule;
	char        *canonical = parse_or_report(PG_GETARG_CSTRING(0), &schedule, fcinfo->context);

	if (canonical == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(canonical));
}

/* cron_out(cron): the canonical text. */
Datum
qm_cron_out(PG_FUNCTION_ARGS)
{
	return text_type_out(fcinfo);
}

/* cron_recv(internal): the text in the client's encoding, read as by cron_in. */
Datum
qm_cron_recv(PG_FUNCTION_ARGS)
{
	CronSchedule schedule;

	PG_RETURN_TEXT_P(cstring_to_text(parse_or_report(text_type_received(fcinfo), &schedule, NULL)));
}

/* cron_send(cron): the canonical text in the client's encoding. */
Datum
qm_cron_send(PG_FUNCTION_ARGS)
{
	return text_type_send(fcinfo);
}

/*
 * next_firing(cron, timestamptz, text): the first firing after the time; null
 * if there is none.
 */
Datum
qm_next_firing(PG_FUNCTION_ARGS)
{
	TimestampTz next;

	if (!cron_next_firing(text_to_cstring(PG_GETARG_TEXT_PP(0)), PG_GETARG_TIMESTAMPTZ(1),
						  text_to_cstring(PG_GETARG_TEXT_PP(2)), &next))
		PG_RETURN_NULL();
	PG_RETURN_TIMESTAMPTZ(next);
}

/*
 * firings(cron, timestamptz, timestamptz, text): the firings after the one
 * time and up to the other, one per call.
 */
Datum
qm_firings(PG_FUNCTION_ARGS)
{
	FuncCallContext *context;
	Firings         *firings;

	if (SRF_IS_FIRSTCALL())
	{
		MemoryContext caller_context;

		context = SRF_FIRSTCALL_INIT();
		caller_context = MemoryContextSwitchTo(context->multi_call_memory_ctx);
		firings = palloc(sizeof(Firings));
		cron_open(text_to_cstring(PG_GETARG_TEXT_PP(0)), text_to_cstring(PG_GETARG_TEXT_PP(3)),
				  &firings->schedule, &firings->tz);
		firings->after = PG_GETARG_TIMESTAMPTZ(1);
		firings->until = PG_GETARG_TIMESTAMPTZ(2);
		require_finite_interval(firings->after, firings->until);
		context->user_fctx = firings;
		MemoryContextSwitchTo(caller_context);
	}

	context = SRF_PERCALL_SETUP();
	firings = context->user_fctx;
	CHECK_FOR_INTERRUPTS();

	if (!cron_next(&firings->schedule, firings->tz, firings->after, &firings->after) ||
		firings->after > firings->until)
		SRF_RETURN_DONE(context);
	SRF_RETURN_NEXT(context, TimestampTzGetDatum(firings->after));
}

/* schedule_now(): the schedule clock. */
Datum
qm_schedule_now(PG_FUNCTION_ARGS)
{
	PG_RETURN_TIMESTAMPTZ(schedule_now());
}
