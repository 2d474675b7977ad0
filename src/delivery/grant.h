/*
 * grant.h
 *		A grant between its claim and its settlement, and what is to become of it.
 */
#ifndef QM_GRANT_H
#define QM_GRANT_H

#include "postgres.h"

#include "lib/ilist.h"

#include "common/monotonic.h"
#include "endpoint/gateway_row.h"
#include "gateway/gateway.h"

/* Where a grant is: see grant_queue.h. */
typedef enum GrantState
{
	GRANT_APART,            /* in no list: just made, or taken out to be freed */
	GRANT_BEHIND,           /* waits for an earlier grant of its user */
	GRANT_READY,            /* is sent next, or its balance is asked for next */
	GRANT_SAMPLING,         /* its balance is being asked for */
	GRANT_SAMPLED,          /* its balance is to be written */
	GRANT_READY_TO_SEND,    /* its balance is on disk */
	GRANT_SAMPLE_REFUSED,   /* the balance was refused: a health check decides what that means */
	GRANT_IN_FLIGHT,        /* it is being sent */
	GRANT_AWAITING_VERDICT, /* it was refused: a health check decides what that means */
	GRANT_DONE,             /* its outcome is to be settled */
	GRANT_UNRESOLVED,       /* in doubt; reconciled when its time has come */
	GRANT_RECONCILING,      /* its balance after the lost answer is being asked for */
	GRANT_STATE_COUNT
} GrantState;

/* May a request have been sent, and applied? */
typedef enum Sent
{
	NOT_SENT,
	MAYBE_SENT,
	SENT,
} Sent;

/* What settling makes of a grant. */
typedef enum Verdict
{
	VERDICT_COMPLETED, /* completed */
	VERDICT_FAILED,    /* failed: will never be applied */
	VERDICT_IN_DOUBT,  /* in_doubt: it is not known whether it was applied */
	VERDICT_DEFERRED,  /* pending: tried, and certainly not applied */
	VERDICT_UNSENT,    /* as it was before: not tried at all */
} Verdict;

/* What a request to a gateway is for; begins everything that is the token of one. */
typedef enum RequestKind
{
	REQUEST_HEALTH_CHECK,
	REQUEST_WRITE_CHECK,
	REQUEST_GRANT,    /* a grant's delta */
	REQUEST_SAMPLE,   /* a query before it */
	REQUEST_EVIDENCE, /* a query about a grant in doubt */
} RequestKind;

typedef struct RequestTag
{
	RequestKind kind;
} RequestTag;

/* The key of a row, and the number of the claim that guards it. */
typedef struct GrantKey
{
	int32       strategy_id;
	int32       revision;
	TimestampTz scheduled_time;
	char       *user_id;
	int32       claim_number;
} GrantKey;

/* The balance before a grant was sent, where the gateway's policy is to reconcile. */
typedef struct BalanceSample
{
	bool        needed;  /* the grant is not sent before one is on disk */
	char       *balance; /* NULL: none was read */
	TimestampTz time;    /* when it was asked for, */
	MonoTime    moment;  /* and the moment; MONO_PAST: not known */
} BalanceSample;

/* Of a grant in doubt that is to be reconciled. */
typedef struct GrantDoubt
{
	TimestampTz time; /* when the answer was lost, */
	MonoTime    moment;
	bool        moved; /* the two are others than in its row, and belong there */
	MonoTime    due;   /* when its balance is asked for next */
	MonoTime    asked; /* when it was last asked for */
} GrantDoubt;

/* What is known once an attempt has ended, and is written when it is settled. */
typedef struct GrantOutcome
{
	Verdict     verdict;
	Sent        sent;             /* MAYBE_SENT: the answer to this attempt was lost */
	bool        failed_attempt;   /* counts against quota_manager.max_attempts */
	bool        names_parameters; /* the gateway blamed the parameters */
	int         http_status;      /* 0: none was read */
	TimestampTz next_attempt_time;
	char       *message; /* NULL: none */
} GrantOutcome;

/*
 * A grant that is claimed, or in doubt and about to be reconciled: one chunk of
 * memory, strings included, but for the message and the balance.
 */
typedef struct Grant
{
	RequestTag    tag; /* first */
	GrantState    state;
	dlist_node    node;
	struct Grant *behind; /* the next grant of this user; NULL: none is claimed */

	GrantKey key;
	int64    id;
	int32    attempts; /* that failed */
	char    *amount;   /* as the dialect writes it */
	Sent     earlier;  /* MAYBE_SENT: an earlier attempt may have been applied */
	bool     in_doubt; /* its row is in_doubt, not processing */

	BalanceSample before;
	GrantDoubt    doubt;
	GrantOutcome  outcome;
	bool          holds_user; /* those behind it wait until it is settled */
	bool          is_held;    /* its strategy was paused: it is not sent */
	bool          row_found;  /* by the transaction that is open, as it was left */
} Grant;

extern Grant *grant_create(MemoryContext memory, const char *user_id, const char *amount);
extern void   grant_free(Grant *grant);
extern void   grant_set_message(Grant *grant, const char *message);
extern void grant_set_sample(Grant *grant, const char *balance, TimestampTz time, MonoTime moment);
extern MonoTime    grant_last_arrival(const Grant *grant);
extern const char *grant_status(const Grant *grant);
extern bool        grant_sets_time(const Grant *grant);
extern int32       grant_next_attempts(const Grant *grant);

/* What an outcome means for a grant. */
extern void grant_conclude(Grant *grant, const GatewayReply *reply, DoubtPolicy policy,
						   TimestampTz now);
extern void grant_lose(Grant *grant, DoubtPolicy policy, TimestampTz now);
extern void grant_fail_attempt(Grant *grant, double retry_after, TimestampTz now);
extern void grant_wait_ms(Grant *grant, TimestampTz now, int64 ms);
extern void grant_leave_to_operator(Grant *grant);

#endif /* QM_GRANT_H */
