/*
 * grant.h
 *		A grant between its claim and its settlement, and what is to become of it.
 */
#ifndef QM_GRANT_H
#define QM_GRANT_H

#include "postgres.h"

#include "lib/ilist.h"
#include "utils/timestamp.h"

#include "common/monotonic.h"
#include "delivery/gateway_row.h"
#include "gateway/gateway.h"

/* What settling makes of a grant. */
typedef enum Verdict
{
	VERDICT_COMPLETED, /* completed */
	VERDICT_FAILED,    /* failed: will never be applied */
	VERDICT_IN_DOUBT,  /* in_doubt: nobody can tell whether it was applied */
	VERDICT_DEFERRED,  /* pending: tried, and certainly not applied */
	VERDICT_UNSENT,    /* as it was before: not tried at all */
} Verdict;

/* What a request to a gateway is for; begins everything that is its token. */
typedef enum TokenKind
{
	TOKEN_PROBE,       /* a query: does the gateway work? */
	TOKEN_WRITE_PROBE, /* a delta of zero: does it take grants? */
	TOKEN_GRANT,       /* a grant's delta */
	TOKEN_READING,     /* a query before it */
	TOKEN_PROOF,       /* a query about a grant in doubt */
} TokenKind;

typedef struct Token
{
	TokenKind kind;
} Token;

/*
 * A grant that is claimed, or in doubt and about to be proven: one chunk of
 * memory, strings included, but for the message and the balance.  It is in one
 * list of its lane, or behind another grant of the same user.
 */
typedef struct Grant
{
	Token         token; /* first */
	dlist_node    node;
	struct Grant *behind; /* the next grant of this user; NULL: none is claimed */

	/* the key of the row, and the number of the claim that guards it */
	int32       strategy_id;
	int32       revision;
	TimestampTz scheduled_time;
	char       *user_id;
	int32       claim_number;

	int64 id;
	int32 attempts; /* that failed */
	char *amount;   /* as the dialect writes it */
	bool
		doubtful; /* an earlier attempt may have been applied: it can be completed or in doubt only */

	/* where the gateway's policy is to reconcile */
	bool        needs_balance;  /* it is not sent before one is on disk */
	char       *balance_before; /* NULL: none was read */
	TimestampTz balance_time;   /* when that was asked for, */
	MonoTime    balance_moment; /* and the moment; MONO_PAST: not known */

	/* of a grant in doubt that is to be proven */
	bool        is_proof; /* its row is in_doubt, not processing */
	TimestampTz doubt_time;
	MonoTime    doubt_moment; /* when the answer was lost */
	bool        doubt_moved;  /* the two are others than in its row, and belong there */
	MonoTime    due;          /* when it is looked at next */
	MonoTime    asked;        /* when the reading was asked for */

	/* once the outcome is known */
	Verdict     verdict;
	bool        lost;             /* this attempt may have been applied */
	bool        holds_user;       /* those behind it wait until it is settled */
	bool        charged;          /* counts against quota_manager.max_attempts */
	bool        names_parameters; /* the gateway blamed the parameters */
	int         http_status;      /* 0: none was read */
	TimestampTz next_attempt_time;
	char       *message; /* NULL: nothing to tell */
	bool        settled; /* its row was found as it was left */
} Grant;

extern Grant *grant_create(MemoryContext memory, const char *user_id, const char *amount);
extern void   grant_free(Grant *grant);

/* Copies a text into grant->message; NULL: there is nothing to tell. */
extern void grant_tell(Grant *grant, const char *message);

/* Takes a balance that was read, and when it was asked for, on both clocks. */
extern void grant_take_balance(Grant *grant, const char *balance, TimestampTz asked,
							   MonoTime moment);

/* When a request whose answer was lost cannot arrive any more. */
extern MonoTime grant_arrived(const Grant *grant);

/* The status that settling gives its row. */
extern const char *grant_status(const Grant *grant);

/* True if settling changes its next_attempt_time. */
extern bool grant_sets_time(const Grant *grant);

/*
 * Draws the conclusions from a reply at the given time, for every outcome but
 * GATEWAY_BLOCKED, whose meaning depends on what a query gives: until then the
 * grant counts as not charged.
 */
extern void grant_conclude(Grant *grant, const GatewayReply *reply, DoubtPolicy policy,
						   TimestampTz now);

/* The outcome of the attempt is not known: what happens next is the policy's. */
extern void grant_lose(Grant *grant, DoubtPolicy policy, TimestampTz now);

/*
 * Draws the conclusion from a reading about a grant in doubt.  Nothing is
 * concluded from one that was not answered: it is taken again later; or if the
 * balance before was read before the time since, or its moment.
 */
extern void grant_prove(Grant *grant, const GatewayRow *row, TimestampTz since,
						MonoTime since_moment, const GatewayReply *reply, TimestampTz now);

/* The same for a grant of which no balance was read before: an operator decides. */
extern void grant_unprovable(Grant *grant);

/* How many attempts will have failed if one more does; a number that high has no next. */
extern int32 grant_next_attempts(const Grant *grant);

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
