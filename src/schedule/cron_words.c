/*
 * cron_words.c
 *		Sets of values in words.
 */
#include "postgres.h"

#include "port/pg_bitutils.h"

#include "schedule/cron_words.h"

/* A stretch of fewer values than this is written one by one. */
#define LONG_RUN 3

/* This many values at equal distances are written as the first three and the last. */
#define LONG_PROGRESSION 5

static const char *const months[] = {"January",   "February", "March",    "April",
									 "May",       "June",     "July",     "August",
									 "September", "October",  "November", "December"};
static const char *const weekdays[] = {"Monday", "Tuesday",  "Wednesday", "Thursday",
									   "Friday", "Saturday", "Sunday"};

/* Adds one value. */
typedef void (*AddValue)(StringInfo out, int value, const void *how);

/*
 * Adds the separator before the i-th of `count` things: nothing, a comma or
 * the conjunction.
 */
void
words_add_separator(StringInfo out, int i, int count, const char *conjunction)
{
	if (i == 0)
		return;
	if (i == count - 1)
		appendStringInfo(out, " %s ", conjunction);
	else
		appendStringInfoString(out, ", ");
}

/* How many stretches of neighbouring values a set has. */
int
words_count_runs(uint64 set)
{
	return pg_popcount64(set & ~(set << 1));
}

/* Takes the first stretch out of a set; false when nothing is left. */
bool
words_next_run(uint64 *set, int *low, int *high)
{
	if (*set == 0)
		return false;
	*low = *high = pg_rightmost_one_pos64(*set);
	while ((*set >> *high & 2) != 0)
		(*high)++;
	*set &= ~((UINT64CONST(2) << *high) - 1);
	return true;
}

/* True if a set is one stretch of three values or more: "March to October". */
bool
words_is_long_run(uint64 set)
{
	return words_count_runs(set) == 1 && pg_popcount64(set) >= LONG_RUN;
}

/*
 * The distance from each value of a set to the next; 0 if it is not one and
 * the same, or if there are too few values.
 */
static int
long_progression(uint64 set)
{
	int low = pg_rightmost_one_pos64(set);
	int step =
		pg_popcount64(set) < LONG_PROGRESSION ? 0 : pg_rightmost_one_pos64(set & (set - 1)) - low;
	int previous = low;

	for (set &= set - 1; set != 0; set &= set - 1)
	{
		int value = pg_rightmost_one_pos64(set);

		if (value - previous != step)
			return 0;
		previous = value;
	}
	return step;
}

/*
 * Adds the values of a set: one by one, stretches as "a to b", equal distances
 * as "a, b, c ... z".
 */
static void
add_set(StringInfo out, uint64 set, AddValue add, const void *how)
{
	int    step = long_progression(set);
	int    pieces = 0;
	uint64 rest = set;
	int    low;
	int    high;

	if (step > 1)
	{
		low = pg_rightmost_one_pos64(set);
		for (int i = 0; i < 3; i++)
		{
			words_add_separator(out, i, LONG_PROGRESSION, "and");
			add(out, low + i * step, how);
		}
		appendStringInfoString(out, " ... ");
		add(out, pg_leftmost_one_pos64(set), how);
		return;
	}

	while (words_next_run(&rest, &low, &high))
		pieces += high - low + 1 < LONG_RUN ? high - low + 1 : 1;
	for (int i = 0; words_next_run(&set, &low, &high);)
	{
		words_add_separator(out, i++, pieces, "and");
		add(out, low, how);
		if (high - low + 1 >= LONG_RUN)
			appendStringInfoString(out, " to ");
		else if (low < high)
			words_add_separator(out, i++, pieces, "and");
		else
			continue;
		add(out, high, how);
	}
}

/* Adds a number with at least so many digits. */
static void
add_number(StringInfo out, int value, const void *how)
{
	appendStringInfo(out, "%0*d", *(const int *) how, value);
}

/* Adds "1st", "2nd", "11th". */
static void
add_ordinal(StringInfo out, int value, const void *how)
{
	static const char *const endings[] = {"th", "st", "nd", "rd"};
	bool                     teen = value / 10 == 1;

	appendStringInfo(out, "%d%s", value, endings[teen || value % 10 > 3 ? 0 : value % 10]);
}

/* Adds the names of a set's values, the first of them being that of 0. */
static void
add_names(StringInfo out, uint64 set, const char *const *names, const char *conjunction)
{
	int count = pg_popcount64(set);

	for (int i = 0; set != 0; set &= set - 1)
	{
		words_add_separator(out, i++, count, conjunction);
		appendStringInfoString(out, names[pg_rightmost_one_pos64(set)]);
	}
}

/* Adds names, those of one long stretch as "a to b". */
static void
add_name_range(StringInfo out, uint64 set, const char *const *names)
{
	if (words_is_long_run(set))
		appendStringInfo(out, "%s to %s", names[pg_rightmost_one_pos64(set)],
						 names[pg_leftmost_one_pos64(set)]);
	else
		add_names(out, set, names, "and");
}

/* The days of week with Monday first: Monday is 0, Sunday is 6. */
static uint64
from_monday(uint64 set)
{
	return set >> 1 | (set & 1) << 6;
}

/*
 * Adds "minute 5", "minutes 0 to 4 and 30" or "minutes 0, 7, 14 ... 56", with
 * at least so many digits.
 */
void
words_add_numbers(StringInfo out, const char *noun, uint64 set, int digits)
{
	appendStringInfo(out, "%s%s ", noun, pg_popcount64(set) > 1 ? "s" : "");
	add_set(out, set, add_number, &digits);
}

/* Adds "1st, 2nd and 15th". */
void
words_add_ordinals(StringInfo out, uint64 set)
{
	add_set(out, set, add_ordinal, NULL);
}

/* Adds "March to October" or "January and July"; January is 1. */
void
words_add_months(StringInfo out, uint64 set)
{
	add_name_range(out, set >> 1, months);
}

/*
 * Adds "Monday, Wednesday or Friday", in the order of a week that begins on
 * Monday; Sunday is 0.
 */
void
words_add_weekdays(StringInfo out, uint64 set, const char *conjunction)
{
	add_names(out, from_monday(set), weekdays, conjunction);
}

/* True if days of week are one stretch of three or more. */
bool
words_is_long_week(uint64 set)
{
	return words_is_long_run(from_monday(set));
}

/* Adds days of week as words_add_months adds months. */
void
words_add_week(StringInfo out, uint64 set)
{
	add_name_range(out, from_monday(set), weekdays);
}
