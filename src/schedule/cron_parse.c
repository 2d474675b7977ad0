/*
 * cron_parse.c
 *		Text of a schedule <-> its fields.
 *
 * Nothing here raises an error or depends on anything but the text: the type's
 * input function must give the same answer wherever a dump is restored.
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "utils/datetime.h"

#include "common/ascii.h"
#include "schedule/cron.h"

#define ZONE_PREFIX "CRON_TZ="
#define ZONE_PREFIX_LENGTH (sizeof(ZONE_PREFIX) - 1)

/* A prefix, six fields, and one more to point at when there are too many. */
#define MAX_WORDS (CRON_FIELDS + 2)

/* The longest step, more than the seconds of a day, so that adding it to a value cannot overflow. */
#define MAX_STEP 99999

/* How much of a text is repeated in a message, in bytes. */
#define MAX_QUOTED 128

#define HINT_FIELDS                                                                                \
	"Write minute, hour, day of month, month and day of week, as in \"0 8 * * *\"; seconds, if "   \
	"wanted, go first."
#define HINT_INTERVALS                                                                             \
	"Write the times instead, as in \"*/15 * * * *\" for every quarter of an hour or \"0 */6 * * " \
	"*\" for every six hours."
#define HINT_DESCRIPTORS                                                                           \
	"There are @hourly, @daily, @midnight, @weekly, @monthly, @yearly and @annually."

static const char *const month_names[] = {"JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL",
										  "AUG", "SEP", "OCT", "NOV", "DEC", NULL};
static const char *const weekday_names[] = {"SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT", NULL};

/* What a field may hold. */
typedef struct FieldRule
{
	const char        *name;
	int                low;
	int                last;    /* where "*" and "a/n" end */
	int                high;    /* the highest number accepted */
	const char *const *names;   /* of the values from low on, or NULL */
	const char        *allowed; /* the hint */
} FieldRule;

static const FieldRule field_rules[CRON_FIELDS] = {
	[CRON_SECOND] = {"second", 0, 59, 59, NULL, "A second is 0 to 59."},
	[CRON_MINUTE] = {"minute", 0, 59, 59, NULL, "A minute is 0 to 59."},
	[CRON_HOUR] = {"hour", 0, 23, 23, NULL, "An hour is 0 to 23."},
	[CRON_DAY] = {"day of month", 1, 31, 31, NULL, "A day of month is 1 to 31."},
	[CRON_MONTH] = {"month", 1, 12, 12, month_names, "A month is 1 to 12 or JAN to DEC."},
	[CRON_WEEKDAY] = {"day of week", 0, 6, 7, weekday_names,
					  "A day of week is 0 to 7 (0 and 7 are Sunday) or SUN to SAT."},
};

static const struct
{
	const char *name;
	const char *fields;
} descriptors[] = {
	{"@hourly", "0 * * * *"},   {"@daily", "0 0 * * *"},   {"@midnight", "0 0 * * *"},
	{"@weekly", "0 0 * * 0"},   {"@monthly", "0 0 1 * *"}, {"@yearly", "0 0 1 1 *"},
	{"@annually", "0 0 1 1 *"},
};

/* A stretch of the text, [start, end). */
typedef struct Slice
{
	const char *start;
	const char *end;
} Slice;

typedef struct CronParser
{
	const char   *text;
	CronSchedule *schedule;
	StringInfo    canonical;
	CronError    *error;
} CronParser;

/* A copy of a slice fit for a message, in quotes, cut if it is long. */
static char *
quote(Slice slice)
{
	int length = (int) (slice.end - slice.start);

	if (length <= MAX_QUOTED)
		return psprintf("\"%.*s\"", length, slice.start);
	length = pg_mbcliplen(slice.start, length, MAX_QUOTED);
	return psprintf("\"%.*s...\"", length, slice.start);
}

/* Sets what is wrong and at which character of the text; returns false. */
static bool
fail(CronParser *parser, int sqlstate, const char *at, char *message, const char *hint)
{
	CronError *error = parser->error;
	Slice      whole = {parser->text, parser->text + strlen(parser->text)};

	error->sqlstate = sqlstate;
	error->message = message;
	if (at == whole.end)
		error->detail = psprintf("At the end of %s.", quote(whole));
	else
		error->detail =
			psprintf("At character %d of %s.",
					 pg_mbstrlen_with_len(whole.start, (int) (at - whole.start)) + 1, quote(whole));
	error->hint = pstrdup(hint);
	return false;
}

/* Whether the slice is this word, in any case of letters. */
static bool
slice_is(Slice slice, const char *word)
{
	size_t length = strlen(word);

	return slice.end - slice.start == length && pg_strncasecmp(slice.start, word, length) == 0;
}

/*
 * Splits a text at its blanks.  Returns the number of words, of which the
 * first MAX_WORDS are stored.
 */
static int
split_words(const char *text, Slice *words)
{
	int count = 0;

	for (;;)
	{
		const char *start;

		while (ascii_is_blank(*text))
			text++;
		if (*text == '\0')
			return count;
		start = text;
		while (*text != '\0' && !ascii_is_blank(*text))
			text++;
		if (count < MAX_WORDS)
			words[count] = (Slice){start, text};
		count++;
	}
}

/* Reads a slice of digits only; a number too large to matter becomes INT_MAX. */
static bool
read_number(Slice slice, int *value)
{
	int64 number = 0;

	if (slice.start == slice.end)
		return false;
	for (const char *at = slice.start; at < slice.end; at++)
	{
		if (!ascii_is_digit(*at))
			return false;
		number = Min(number * 10 + (*at - '0'), PG_INT32_MAX);
	}
	*value = (int) number;
	return true;
}

/* Reads a number or name and appends it to the canonical text. */
static bool
parse_value(CronParser *parser, CronField field, Slice slice, int *value)
{
	const FieldRule *rule = &field_rules[field];

	if (slice.start == slice.end)
		return fail(parser, ERRCODE_INVALID_TEXT_REPRESENTATION, slice.start,
					psprintf("missing value in the %s field", rule->name), rule->allowed);

	if (read_number(slice, value))
	{
		if (*value < rule->low || *value > rule->high)
			return fail(parser, ERRCODE_INVALID_PARAMETER_VALUE, slice.start,
						psprintf("%s %s is out of range", rule->name, quote(slice)), rule->allowed);
		appendStringInfo(parser->canonical, "%d", *value);
		return true;
	}

	for (int i = 0; rule->names != NULL && rule->names[i] != NULL; i++)
	{
		if (slice_is(slice, rule->names[i]))
		{
			*value = rule->low + i;
			appendStringInfoString(parser->canonical, rule->names[i]);
			return true;
		}
	}
	if (memchr(slice.start, '?', slice.end - slice.start) != NULL)
		return fail(parser, ERRCODE_INVALID_TEXT_REPRESENTATION, slice.start,
					psprintf("invalid %s %s", rule->name, quote(slice)),
					"\"?\" stands alone, for the day of month or the day of week; elsewhere write "
					"\"*\".");
	return fail(parser, ERRCODE_INVALID_TEXT_REPRESENTATION, slice.start,
				psprintf("invalid %s %s", rule->name, quote(slice)), rule->allowed);
}

/* A value as a hint writes it: by name if what stands at `like` is a name. */
static const char *
value_like(const FieldRule *rule, int value, const char *like)
{
	return ascii_is_letter(*like) ? rule->names[value - rule->low] : psprintf("%d", value);
}

/*
 * Reads the two ends of a range.  A range ascends; a Sunday that ends one is
 * 7, also when it is written as a name.
 */
static bool
parse_range(CronParser *parser, CronField field, Slice slice, const char *dash, int *low, int *high)
{
	const FieldRule *rule = &field_rules[field];
	const char      *hint;

	if (!parse_value(parser, field, (Slice){slice.start, dash}, low))
		return false;
	appendStringInfoChar(parser->canonical, '-');
	if (!parse_value(parser, field, (Slice){dash + 1, slice.end}, high))
		return false;

	if (field == CRON_WEEKDAY && ascii_is_letter(dash[1]) && *high == 0 && *low > 0)
		*high = 7;
	if (*low <= *high)
		return true;

	if (field == CRON_WEEKDAY && *high == 0)
		hint = "A Sunday that ends a range is 7.";
	else if (field == CRON_WEEKDAY && *low == 7)
		hint = "A Sunday that begins a range is 0.";
	else
		hint = psprintf(
			"A range ascends; write two of them, as in \"%.*s-%s,%s-%.*s\".",
			(int) (dash - slice.start), slice.start, value_like(rule, rule->last, slice.start),
			value_like(rule, rule->low, dash + 1), (int) (slice.end - dash - 1), dash + 1);
	return fail(parser, ERRCODE_INVALID_PARAMETER_VALUE, slice.start,
				psprintf("range %s in the %s field runs backwards", quote(slice), rule->name),
				hint);
}

/*
 * Reads the number behind a slash.  One beyond the field's values leaves the
 * first of them alone, as in "16-23/24", which many crontabs have.
 */
static bool
parse_step(CronParser *parser, CronField field, Slice slice, int *step)
{
	const FieldRule *rule = &field_rules[field];
	const char      *hint = psprintf("A step is a number from 1 to %d.", MAX_STEP);

	if (!read_number(slice, step))
		return fail(parser, ERRCODE_INVALID_TEXT_REPRESENTATION, slice.start,
					psprintf("invalid step %s in the %s field", quote(slice), rule->name), hint);
	if (*step < 1 || *step > MAX_STEP)
		return fail(parser, ERRCODE_INVALID_PARAMETER_VALUE, slice.start,
					psprintf("step %s in the %s field is out of range", quote(slice), rule->name),
					hint);
	appendStringInfo(parser->canonical, "/%d", *step);
	return true;
}

/* Reads one element of a list: *, a, a-b, each perhaps with a step. */
static bool
parse_element(CronParser *parser, CronField field, Slice slice)
{
	const FieldRule *rule = &field_rules[field];
	const char      *slash = memchr(slice.start, '/', slice.end - slice.start);
	Slice            base = {slice.start, slash != NULL ? slash : slice.end};
	const char      *dash = memchr(base.start, '-', base.end - base.start);
	int              low;
	int              high;
	int              step = 1;

	if (slice_is(base, "*"))
	{
		low = rule->low;
		high = rule->last;
		appendStringInfoChar(parser->canonical, '*');
	}
	else if (dash != NULL)
	{
		if (!parse_range(parser, field, base, dash, &low, &high))
			return false;
	}
	else
	{
		if (!parse_value(parser, field, base, &low))
			return false;
		/* "7/2" begins the week, as "0/2" does. */
		if (slash != NULL && low > rule->last)
			low = rule->low;
		high = slash != NULL ? rule->last : low;
	}

	if (slash != NULL && !parse_step(parser, field, (Slice){slash + 1, slice.end}, &step))
		return false;

	for (int value = low; value <= high; value += step)
	{
		int bit = field == CRON_WEEKDAY ? value % 7 : value;

		/* No field goes beyond 59: NOLINTNEXTLINE(clang-analyzer-core.UndefinedBinaryOperatorResult) */
		parser->schedule->values[field] |= UINT64CONST(1) << bit;
	}
	return true;
}

/* Reads one field. */
static bool
parse_field(CronParser *parser, CronField field, Slice slice)
{
	CronSchedule    *schedule = parser->schedule;
	const FieldRule *rule = &field_rules[field];
	bool             any = *slice.start == '*' || slice_is(slice, "?");
	const char      *element = slice.start;

	if (field == CRON_HOUR)
		schedule->every_hour = slice_is(slice, "*");
	else if (field == CRON_DAY)
		schedule->any_day = any;
	else if (field == CRON_WEEKDAY)
		schedule->any_weekday = any;

	if ((field == CRON_DAY || field == CRON_WEEKDAY) && slice_is(slice, "?"))
	{
		for (int value = rule->low; value <= rule->last; value++)
			schedule->values[field] |= UINT64CONST(1) << value;
		appendStringInfoChar(parser->canonical, '?');
		return true;
	}

	for (;;)
	{
		const char *comma = memchr(element, ',', slice.end - element);

		if (!parse_element(parser, field, (Slice){element, comma != NULL ? comma : slice.end}))
			return false;
		if (comma == NULL)
			return true;
		appendStringInfoChar(parser->canonical, ',');
		element = comma + 1;
	}
}

/*
 * Whether any of the months has any of the days of month.  Where it does not,
 * a day of week cannot be what was meant either.
 */
static bool
date_is_possible(const CronSchedule *schedule)
{
	for (int month = 1; month <= MONTHS_PER_YEAR; month++)
	{
		uint64 days = (UINT64CONST(2) << day_tab[1][month - 1]) - 1;

		if ((schedule->values[CRON_MONTH] & (UINT64CONST(1) << month)) != 0 &&
			(schedule->values[CRON_DAY] & days) != 0)
			return true;
	}
	return false;
}

/* Reads the five or six fields. */
static bool
parse_fields(CronParser *parser, const Slice *words, int count)
{
	int offset = CRON_FIELDS - count;

	if (count != CRON_FIELDS && count != CRON_FIELDS - 1)
		return fail(parser, ERRCODE_INVALID_TEXT_REPRESENTATION,
					count > CRON_FIELDS ? words[CRON_FIELDS].start
										: parser->text + strlen(parser->text),
					psprintf("a schedule has 5 or 6 fields, not %d", count), HINT_FIELDS);

	if (offset == 1)
		parser->schedule->values[CRON_SECOND] = 1;
	for (int i = 0; i < count; i++)
	{
		if (i > 0)
			appendStringInfoChar(parser->canonical, ' ');
		if (!parse_field(parser, (CronField) (i + offset), words[i]))
			return false;
	}

	if (!date_is_possible(parser->schedule))
		return fail(parser, ERRCODE_INVALID_PARAMETER_VALUE, words[CRON_DAY - offset].start,
					psprintf("day of month %s never occurs in month %s",
							 quote(words[CRON_DAY - offset]), quote(words[CRON_MONTH - offset])),
					"February has 29 days at most; April, June, September and November have 30.");
	return true;
}

/* Reads a word that begins with "@". */
static bool
parse_descriptor(CronParser *parser, Slice word)
{
	for (int i = 0; i < lengthof(descriptors); i++)
	{
		if (slice_is(word, descriptors[i].name))
		{
			StringInfoData scratch;
			CronParser     fields = *parser;
			Slice          words[MAX_WORDS];

			appendStringInfoString(parser->canonical, descriptors[i].name);
			initStringInfo(&scratch);
			fields.text = descriptors[i].fields;
			fields.canonical = &scratch;
			return parse_fields(&fields, words, split_words(fields.text, words));
		}
	}
	if (slice_is(word, "@every") || slice_is(word, "@reboot"))
		return fail(parser, ERRCODE_INVALID_TEXT_REPRESENTATION, word.start,
					psprintf("%s is not supported in a schedule", quote(word)), HINT_INTERVALS);
	return fail(parser, ERRCODE_INVALID_TEXT_REPRESENTATION, word.start,
				psprintf("unknown schedule %s", quote(word)), HINT_DESCRIPTORS);
}

/*
 * Reads the prefix that names a time zone.  Only its form is checked: which
 * zones there are depends on the server's tz data.
 */
static bool
parse_zone(CronParser *parser, Slice word)
{
	Slice  zone = {word.start + ZONE_PREFIX_LENGTH, word.end};
	size_t length = zone.end - zone.start;
	bool   valid = length > 0 && length <= TZ_STRLEN_MAX && ascii_is_letter(*zone.start);

	for (const char *at = zone.start; valid && at < zone.end; at++)
		valid = ascii_is_letter(*at) || ascii_is_digit(*at) || strchr("_+-/", *at) != NULL;
	if (!valid)
		return fail(parser, ERRCODE_INVALID_TEXT_REPRESENTATION, zone.start,
					psprintf("invalid time zone name %s in a schedule", quote(zone)),
					"Write the name of a time zone, as in \"CRON_TZ=Europe/Berlin 0 8 * * *\".");

	memcpy(parser->schedule->zone, zone.start, length);
	parser->schedule->zone[length] = '\0';
	appendStringInfo(parser->canonical, "%s%s ", ZONE_PREFIX, parser->schedule->zone);
	return true;
}

/* Reads the whole text. */
static bool
parse_schedule(CronParser *parser)
{
	const char *text_end = parser->text + strlen(parser->text);
	Slice       words[MAX_WORDS];
	int         count;
	int         first = 0;

	if (text_end - parser->text > CRON_MAX_LENGTH)
		return fail(parser, ERRCODE_INVALID_PARAMETER_VALUE, parser->text + CRON_MAX_LENGTH,
					pstrdup("schedule is too long"),
					psprintf("A schedule has at most %d bytes.", CRON_MAX_LENGTH));

	count = split_words(parser->text, words);
	if (count > 0 && memchr(words[0].start, '=', words[0].end - words[0].start) != NULL)
	{
		if (strncmp(words[0].start, ZONE_PREFIX, ZONE_PREFIX_LENGTH) != 0)
			return fail(parser, ERRCODE_INVALID_TEXT_REPRESENTATION, words[0].start,
						psprintf("unknown prefix %s of a schedule", quote(words[0])),
						"Write a time zone as in \"CRON_TZ=Europe/Berlin 0 8 * * *\".");
		if (!parse_zone(parser, words[0]))
			return false;
		first = 1;
	}

	if (count == first)
		return fail(parser, ERRCODE_INVALID_TEXT_REPRESENTATION, text_end,
					pstrdup("empty schedule"), HINT_FIELDS);
	if (*words[first].start != '@')
		return parse_fields(parser, words + first, count - first);
	if (!parse_descriptor(parser, words[first]))
		return false;
	if (count > first + 1)
		return fail(
			parser, ERRCODE_INVALID_TEXT_REPRESENTATION, words[first + 1].start,
			psprintf("unexpected %s after %s", quote(words[first + 1]), quote(words[first])),
			"A word with @ is a whole schedule; nothing follows it.");
	return true;
}

/*
 * Reads a schedule.  Returns its canonical text (palloc'd, never longer than
 * the text given) and fills *schedule, or returns NULL and fills *error.
 * Depends on nothing but the text: no catalogue, no setting, no tz data.
 */
char *
cron_parse(const char *text, CronSchedule *schedule, CronError *error)
{
	StringInfoData canonical;
	CronParser     parser;

	memset(schedule, 0, sizeof(CronSchedule));
	memset(error, 0, sizeof(CronError));
	initStringInfo(&canonical);
	parser.text = text;
	parser.schedule = schedule;
	parser.canonical = &canonical;
	parser.error = error;
	return parse_schedule(&parser) ? canonical.data : NULL;
}
