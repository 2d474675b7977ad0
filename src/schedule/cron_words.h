/*
 * cron_words.h
 *		Sets of values in words, for cron_describe.c.
 *
 * No two sets read the same.  Text is appended to `out`.
 */
#ifndef QM_CRON_WORDS_H
#define QM_CRON_WORDS_H

#include "lib/stringinfo.h"

extern void words_add_separator(StringInfo out, int i, int count, const char *conjunction);
extern int  words_count_runs(uint64 set);
extern bool words_next_run(uint64 *set, int *low, int *high);
extern bool words_is_long_run(uint64 set);
extern void words_add_numbers(StringInfo out, const char *noun, uint64 set, int digits);
extern void words_add_ordinals(StringInfo out, uint64 set);
extern void words_add_months(StringInfo out, uint64 set);
extern void words_add_weekdays(StringInfo out, uint64 set, const char *conjunction);
extern bool words_is_long_week(uint64 set);
extern void words_add_week(StringInfo out, uint64 set);

#endif /* QM_CRON_WORDS_H */
