/*
 * stats.h
 *		Counters of what came and how it ended.  Any thread.
 */
#ifndef STATS_H
#define STATS_H

#include <stdbool.h>
#include <stdint.h>

#include "ledger.h"
#include "text.h"

/* A connection was accepted (true) or is over (false). */
extern void stats_connection(bool accepted);

/* A request that began at this time, in microseconds, ended with this status; 0 stands for no reply at all. */
extern void stats_request(enum action action, unsigned status, int64_t began);

/* A fault struck. */
extern void stats_fault(void);

/* Appends all counters as a JSON object. */
extern void stats_list(struct text *text);

/* Sets all counters to 0, except the number of open connections, which is true anyway. */
extern void stats_reset(void);

#endif
