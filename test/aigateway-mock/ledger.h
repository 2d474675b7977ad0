/*
 * ledger.h
 *		The truth of the mock: what everyone has, and every change that was applied, in order.
 *
 * Every function here may be called by any thread; each is one atomic step.  Amounts are in the units
 * of the dialect in use (amount.h); users are any bytes without NUL.  A user nobody wrote to has 0 of
 * everything.
 */
#ifndef LEDGER_H
#define LEDGER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "amount.h"
#include "text.h"

/* What a request to the gateway asks for. */
enum action
{
	ACTION_QUERY,
	ACTION_DELTA,
	ACTION_REFRESH,
	ACTION_USED_QUERY,
	ACTION_USED_DELTA,
	ACTION_USED_REFRESH,
	ACTION_OTHER, /* no request of the quota interface */
	ACTION_COUNT
};

/* The name of an action in lists and counters. */
extern const char *action_name(enum action action);

/* True for the actions that leave everything as it is. */
extern bool action_only_reads(enum action action);

enum ledger_outcome
{
	LEDGER_APPLIED,
	LEDGER_REPEATED,    /* idempotency is honoured and this key was applied before */
	LEDGER_OUT_OF_RANGE /* the result would not fit; nothing was changed */
};

/* A change somebody asks for; the ledger copies what it keeps. */
struct change_request
{
	enum action action; /* one that writes */
	const char *user;
	size_t      user_length;
	amount      value;  /* what to add (delta) or to set (refresh) */
	amount      lowest; /* the result must lie within lowest and highest */
	amount      highest;
	const char *idempotency_key; /* or NULL */
};

/* Applies a change and appends it to the list. */
extern enum ledger_outcome ledger_apply(const struct change_request *request);

/* What a user has; both 0 for an unknown one. */
extern void ledger_read(const char *user, size_t user_length, amount *quota, amount *used);

/* Sets what a user has without a line in the list; either may be NULL to leave it alone. */
extern void ledger_set(const char *user, size_t user_length, const amount *quota,
					   const amount *used);

/*
 * Whether a repeated idempotency key is answered without applying it again (at first: no).  When it is
 * switched on, the keys of all changes so far count as seen.
 */
extern void ledger_honour_idempotency(bool honour);

/* Forgets every user, change and key. */
extern void ledger_reset(void);

/* How many changes were applied and how many users are known. */
extern void ledger_count(uint64_t *applied, uint64_t *users);

/* The list as it was asked for: JSON objects between brackets, or COPY's text format with a header. */
enum ledger_format
{
	LEDGER_JSON,
	LEDGER_TSV
};

/*
 * Appends the list's lines from *next on (the first change is 1) to the text until it holds at least
 * "enough" bytes or line "last" is done, and moves *next on.  False if the list was reset since
 * "generation" was taken.  ledger_generation() gives generation and last line of now.
 */
extern bool ledger_list(enum ledger_format format, int scale, uint64_t generation, uint64_t *next,
						uint64_t last, size_t enough, struct text *text);
extern uint64_t ledger_generation(uint64_t *last);

#endif
