/*
 * cron_words.h
 *		Sets of values in words, for cron_describe.c.
 *
 * A set is told so that no other set reads the same.  Whatever is added goes
 * to the end of `out`.
 */
#ifndef QM_CRON_WORDS_H
#define QM_CRON_WORDS_H

#include "lib/stringinfo.h"

/* What goes before the i-th of `count` things: nothing, a comma or the conjunction. */
extern void words_add_separator(StringInfo out, int i, int count, const char *conjunction);

/* How many stretches of neighbouring values a set has. */
extern int words_count_runs(uint64 set);

/* Takes the first stretch out of a set; returns false when nothing is left. */
extern bool words_next_run(uint64 *set, int *low, int *high);

/* Whether a set is one stretch of three values or more: "March to October". */
extern bool words_is_long_run(uint64 set);

/* "minute 5", "minutes 0 to 4 and 30", "minutes 0, 7, 14 ... 56", with at least so many digits. */
extern void words_add_numbers(StringInfo out, const char *noun, uint64 set, int digits);

/* "1st, 2nd and 15th". */
extern void words_add_ordinals(StringInfo out, uint64 set);

/* "March to October", "January and July"; January is 1. */
extern void words_add_months(StringInfo out, uint64 set);

/* "Monday, Wednesday or Friday", in the order of a week that begins on Monday; Sunday is 0. */
extern void words_add_weekdays(StringInfo out, uint64 set, const char *conjunction);

/* Whether days of week are one stretch of three or more, and the same as words_add_months. */
extern bool words_is_long_week(uint64 set);
extern void words_add_week(StringInfo out, uint64 set);

#endif /* QM_CRON_WORDS_H */
