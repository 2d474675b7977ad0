/*
 * firing_note.c
 *		What a change of the clock does to a firing, in words.
 *
 * A firing can stand for times that the clock leaves out, be one of two at
 * which the clock shows the same, or come after times for which nothing fires.
 */
#include "postgres.h"

#include "fmgr.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/timestamp.h"

#include "schedule/cron.h"
#include "schedule/local_time.h"
#include "schedule/schedule.h"

PG_FUNCTION_INFO_V1(qm_firing_note);
PG_FUNCTION_INFO_V1(qm_schedule_zone);

/* How far before a firing to search for times that the clock skipped. */
#define SEARCH_BACK_SECONDS (INT64CONST(400) * SECS_PER_DAY)

/* A fold is over, or was, after as long as this. */
#define LONGEST_FOLD_SECONDS (INT64CONST(2) * SECS_PER_DAY)

/* A firing that is examined, and the words for it so far. */
typedef struct Note
{
	const CronSchedule *schedule;
	const pg_tz        *tz;
	int64               firing; /* an instant */
	int64               local;  /* what the clock shows then */
	StringInfo          out;
} Note;

/* A change of the clock from one local time to another, which may be earlier. */
typedef struct Change
{
	int64 from;
	int64 to;
} Change;

/* Local times that a schedule matches. */
typedef struct Named
{
	int64 count;
	int64 first;
	int64 last;
} Named;

/* Adds the time of day of a local time. */
static void
add_time(StringInfo out, int64 local)
{
	int second = (int) (local - day_of(local) * SECS_PER_DAY);

	appendStringInfo(out, "%02d:%02d", second / SECS_PER_HOUR,
					 second % SECS_PER_HOUR / SECS_PER_MINUTE);
	if (second % SECS_PER_MINUTE != 0)
		appendStringInfo(out, ":%02d", second % SECS_PER_MINUTE);
}

/* Adds a date. */
static void
add_date(StringInfo out, int64 day)
{
	int year;
	int month;
	int day_of_month;

	j2date((int) day + UNIX_EPOCH_JDATE, &year, &month, &day_of_month);
	appendStringInfo(out, "%04d-%02d-%02d%s", year > 0 ? year : 1 - year, month, day_of_month,
					 year > 0 ? "" : " BC");
}

/* Begins what is to be said next. */
static void
begin_note(const Note *note)
{
	if (note->out->len > 0)
		appendStringInfoString(note->out, "; ");
}

/*
 * Adds "the clock is put forward from 02:00 to 03:00", with the dates if these
 * are two.
 */
static void
add_change(const Note *note, Change change)
{
	bool dates = day_of(change.from) != day_of(change.to);

	appendStringInfo(note->out, "the clock is put %s from ",
					 change.from < change.to ? "forward" : "back");
	add_time(note->out, change.from);
	if (dates)
	{
		appendStringInfoString(note->out, " on ");
		add_date(note->out, day_of(change.from));
	}
	appendStringInfoString(note->out, " to ");
	add_time(note->out, change.to);
	if (dates)
	{
		appendStringInfoString(note->out, " on ");
		add_date(note->out, day_of(change.to));
	}
}

/* The matching local times of a gap, [low, high), on dates that the zone has. */
static Named
named_in_gap(const Note *note, int64 low, int64 high)
{
	Named named = {0};

	while (low < high)
	{
		int64 day = day_of(low);
		int64 end = Min(high, (day + 1) * SECS_PER_DAY);
		int64 count = cron_count_local(note->schedule, low, end);

		if (count > 0 && date_exists(note->tz, day))
		{
			if (named.count == 0)
				cron_next_local(note->schedule, low, day + 1, &named.first);
			cron_last_local(note->schedule, low, end, &named.last);
			named.count += count;
		}
		low = end;
	}
	return named;
}

/* Adds "02:30 does not exist on 2025-03-30" for local times that the clock skips. */
static void
add_missing_times(const Note *note, Named named)
{
	StringInfo out = note->out;

	begin_note(note);
	if (named.count > 2)
		appendStringInfo(out, "the " INT64_FORMAT " times from ", named.count);
	add_time(out, named.first);
	if (named.count > 1)
	{
		if (day_of(named.first) != day_of(named.last))
		{
			appendStringInfoString(out, " on ");
			add_date(out, day_of(named.first));
		}
		appendStringInfoString(out, named.count > 2 ? " to " : " and ");
		add_time(out, named.last);
	}
	appendStringInfoString(out, named.count > 1 ? " do not exist on " : " does not exist on ");
	add_date(out, day_of(named.last));
}

/*
 * Adds the dates inside a gap, [low, high), that the zone does not have
 * although the schedule names them.
 */
static void
note_missing_dates(const Note *note, int64 low, int64 high)
{
	for (int64 day = day_of(low); day * SECS_PER_DAY < high; day++)
	{
		if (date_exists(note->tz, day) ||
			cron_count_local(note->schedule, day * SECS_PER_DAY, (day + 1) * SECS_PER_DAY) == 0)
			continue;
		begin_note(note);
		add_date(note->out, day);
		appendStringInfoString(note->out,
							   " does not exist in this time zone, and nothing fires for it");
	}
}

/*
 * Adds the named times of a gap that ends at the firing: those that this firing
 * stands for, or for which nothing has fired.
 */
static void
note_gap(const Note *note, Change gap, bool ends_here)
{
	Named named = named_in_gap(note, gap.from, gap.to);

	if (named.count == 0 || (!ends_here && !note->schedule->every_hour))
		return;
	add_missing_times(note, named);
	if (note->schedule->every_hour)
		appendStringInfoString(note->out, ", and nothing fires for that");
	else if (cron_count_local(note->schedule, note->local, note->local + 1) > 0)
	{
		appendStringInfoString(note->out, named.count > 1 ? ", and are one firing with "
														  : ", and is one firing with ");
		add_time(note->out, note->local);
	}
	else if (named.count > 1)
		appendStringInfoString(note->out, ", and are one firing");
	appendStringInfoString(note->out, ": ");
	add_change(note, gap);
}

/* Adds the gaps at and before the firing. */
static void
note_gaps(const Note *note)
{
	int64 start = note->firing - SEARCH_BACK_SECONDS;
	int64 shown = latest_local(note->tz, start - 1);

	while (start <= note->firing)
	{
		ZoneSpan span = zone_span_from(note->tz, start);
		Change   gap = {shown + 1, start + span.offset};

		/* The first firing after a gap reports what it skipped. */
		if (gap.from < gap.to &&
			(start == note->firing ||
			 cron_count_firings(note->schedule, note->tz, start - 1, note->firing - 1) == 0))
		{
			note_missing_dates(note, gap.from, gap.to);
			note_gap(note, gap, start == note->firing);
		}
		shown = Max(shown, span.end - 1 + span.offset);
		start = span.end;
	}
}

/* Adds that the clock shows the time of the firing twice, if it does. */
static void
note_fold(const Note *note)
{
	int64    start = note->firing - LONGEST_FOLD_SECONDS;
	ZoneSpan before = zone_span_from(note->tz, start);

	while (before.end <= note->firing + LONGEST_FOLD_SECONDS)
	{
		ZoneSpan after = zone_span_from(note->tz, before.end);
		Change   fold = {before.end + before.offset, after.start + after.offset};
		bool     second = after.start <= note->firing;

		if (fold.to <= note->local && note->local < fold.from && before.start <= note->firing &&
			note->firing < after.end)
		{
			begin_note(note);
			add_time(note->out, note->local);
			appendStringInfoString(note->out, " comes twice on ");
			add_date(note->out, day_of(note->local));
			appendStringInfo(note->out, ": this is the %s", second ? "second" : "first");
			if (!note->schedule->every_hour)
				appendStringInfoString(note->out, ", and the only firing");
			appendStringInfoString(note->out, "; ");
			add_change(note, fold);
			return;
		}
		before = after;
	}
}

/*
 * firing_note(cron, timestamptz, text): what a change of the clock does to a
 * firing of the schedule; null if nothing, or if it is none.
 */
Datum
qm_firing_note(PG_FUNCTION_ARGS)
{
	TimestampTz    firing = PG_GETARG_TIMESTAMPTZ(1);
	CronSchedule   schedule;
	pg_tz         *tz;
	StringInfoData out;
	Note           note = {.schedule = &schedule, .out = &out};

	cron_open(text_to_cstring(PG_GETARG_TEXT_PP(0)), text_to_cstring(PG_GETARG_TEXT_PP(2)),
			  &schedule, &tz);
	if (TIMESTAMP_NOT_FINITE(firing) || firing % USECS_PER_SEC != 0)
		PG_RETURN_NULL();
	note.tz = tz;
	note.firing = instant_of(firing);
	note.local = note.firing + zone_span_from(tz, note.firing).offset;
	if (cron_count_firings(&schedule, tz, note.firing - 1, note.firing) == 0)
		PG_RETURN_NULL();

	initStringInfo(&out);
	note_gaps(&note);
	note_fold(&note);
	if (out.len == 0)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text_with_len(out.data, out.len));
}

/* schedule_zone(cron, text): the zone that the schedule is read in. */
Datum
qm_schedule_zone(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(cstring_to_text(cron_effective_zone(text_to_cstring(PG_GETARG_TEXT_PP(0)),
														 text_to_cstring(PG_GETARG_TEXT_PP(1)))));
}
