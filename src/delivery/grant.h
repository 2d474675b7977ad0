/*
 * grant.h
 *		A grant between its claim and its settlement, and what is to become of it.
 */
#ifndef QM_GRANT_H
#define QM_GRANT_H

#include "postgres.h"

#include "lib/ilist.h"
#include "utils/timestamp.h"

#include "gateway/gateway.h"

/* What settling makes of a grant that is `processing`. */
typedef enum Verdict
{
	VERDICT_COMPLETED, /* completed */
	VERDICT_FAILED,    /* failed: will never be applied */
	VERDICT_IN_DOUBT,  /* in_doubt: nobody can tell whether it was applied */
	VERDICT_DEFERRED,  /* pending: tried, and certainly not applied */
	VERDICT_UNSENT,    /* pending: not tried at all */
} Verdict;

/*
 * A claimed grant: one chunk of memory, strings included, but for the message.
 * It is in one list of its lane, or behind another grant of the same user.
 */
typedef struct Grant
{
	dlist_node    node;
	struct Grant *behind; /* the next grant of this user; NULL: none is claimed */

	/* the key of the row, and the number of the attempt that guards it */
	int32       strategy_id;
	int32       revision;
	TimestampTz scheduled_time;
	char       *user_id;
	int32       attempts;

	int64 id;
	int32 refusals;
	char *amount; /* as the dialect writes it */

	/* once the outcome is known */
	Verdict     verdict;
	bool        charged;          /* counts against quota_manager.max_attempts */
	bool        names_parameters; /* the gateway blamed the parameters */
	int         http_status;      /* 0: none was read */
	TimestampTz next_attempt_time;
	char       *message; /* NULL: nothing to tell */
	bool        settled; /* its row was found as it was left */
} Grant;

extern Grant *grant_create(MemoryContext memory, const char *user_id, const char *amount);
extern void   grant_free(Grant *grant);

/*
 * Draws the conclusions from a reply at the given time, for every outcome but
 * GATEWAY_BLOCKED, whose meaning depends on what a query gives: until then the
 * grant counts as not charged.
 */
extern void grant_conclude(Grant *grant, const GatewayReply *reply, TimestampTz now);

/*
 * The grant was refused, though its gateway answers our queries: it is tried
 * again later, until the attempts are used up.  retry_after as in
 * GatewayReply.
 */
extern void grant_charge(Grant *grant, double retry_after, TimestampTz now);

/*
 * Milliseconds to wait after the given number of attempts in a row that came
 * to nothing: base doubled with each after the first, at most max, less up to
 * a half by chance, so that what failed together does not come back together.
 */
extern int64 backoff_ms(int failures, int64 base, int64 max);

/* The longest Retry-After that is honoured, in milliseconds. */
#define RETRY_AFTER_MAX_MS 3600000

/* Retry-After in milliseconds, within that limit; 0 if there was none. */
extern int64 retry_after_ms(double retry_after);

#endif /* QM_GRANT_H */
