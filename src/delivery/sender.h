/*
 * sender.h
 *		What one process has for one gateway: its session, its grants, its circuit.
 *
 * Nothing here touches a table or needs a transaction.  A batch claims grants
 * into the sender's queue and settles those that are done; requests.c sends
 * them and takes in the answers.  "The gateway's sender" is the process whose
 * sender has the lock of sender_lock.h.
 *
 * Memory: a sender lives in the context given, its grants in a child of it.
 */
#ifndef QM_SENDER_H
#define QM_SENDER_H

#include "postgres.h"

#include "lib/ilist.h"

#include "common/monotonic.h"
#include "delivery/circuit.h"
#include "endpoint/gateway_row.h"
#include "delivery/grant_queue.h"
#include "endpoint/rate_limit.h"
#include "delivery/reconcile.h"
#include "delivery/tally.h"

/* The key of a pending grant that was found and not yet claimed. */
typedef struct Candidate
{
	int32       strategy_id;
	int32       revision;
	TimestampTz scheduled_time;
	text       *user_id;
	int32       hash;     /* of user_id, */
	int32       position; /* and its place by id: where the table is distributed */
} Candidate;

/* The search for pending grants: how far it is, and what it has found. */
typedef struct CandidateSearch
{
	MemoryContext memory; /* of the candidates */
	Candidate    *candidates;
	int           count;
	int           next;
	int64         searched_id;  /* no grant up to this one is left to be found */
	bool          exhausted;    /* it came to the end of the pending work */
	MonoTime      rest_until;   /* it found only users who have to wait */
	MonoTime      restart_time; /* it begins anew, for what has fallen due behind it */
} CandidateSearch;

/* How many candidates are left to be claimed. */
static inline int
candidates_left(const CandidateSearch *search)
{
	return search->count - search->next;
}

/*
 * What the transaction that is open has done for a gateway, and what is to
 * follow in memory once it is committed.  Empty between transactions; what one
 * that failed has left in it is thrown away.
 */
typedef struct Batch
{
	dlist_head claimed;        /* grants that it claimed */
	int        settling;       /* how many of the first ones of GRANT_DONE it settles */
	int        recording;      /* how many of the first ones of GRANT_SAMPLED it writes */
	bool       state_saved;    /* it writes the gateway's state */
	bool       lock_taken;     /* the sender lock was taken in it */
	bool       lock_abandoned; /* the sender lock is not needed any more */
	Tally      tally;          /* what it makes of grants, written at its end */
} Batch;

/* How the state of the circuit gets to the gateway's row and to the log. */
typedef struct StateReport
{
	MonoTime     due; /* when it is written next; MONO_NEVER: it is */
	CircuitState logged;
} StateReport;

/* Due grants that are not claimed: a fault of ours. */
typedef struct DueWatch
{
	MonoTime since;  /* MONO_NEVER: there are none */
	bool     logged; /* and the log says so */
} DueWatch;

/* When the unresolved grants need attention. */
typedef struct UnresolvedWatch
{
	MonoTime next_due;  /* not before it one of them is due */
	MonoTime next_read; /* not before it they are compared with their rows */
} UnresolvedWatch;

typedef struct Sender
{
	MemoryContext   memory; /* of grants and texts */
	int32           gateway_id;
	GatewayRow     *row; /* as last read; NULL: the gateway is gone */
	GatewaySession *session;
	bool            reopen;           /* there is no session, or it is not what the row says */
	bool            has_lock;         /* this process is the gateway's one sender */
	bool            is_spread;        /* grants are kept in parts by user: see statement.h */
	bool            dirty;            /* pending work was changed since it was last read */
	bool            is_paused;        /* nothing is sent to the gateway: see brakes.h */
	MonoTime        responsive_until; /* the gateway is expected to answer soon */

	Circuit         circuit;
	RequestTag      checks[2]; /* of requests, by CheckKind */
	StateReport     report;
	GrantQueue      grants;
	RateLimit       rate_limit;
	CandidateSearch search;
	EvidenceSince   policy_since; /* the doubt policy and the address are what they are */
	UnresolvedWatch unresolved;
	DueWatch        due;
	Batch           batch;
} Sender;

/* Lives. */
extern Sender *sender_create(GatewayRow *row, MemoryContext memory);
extern void    sender_close(Sender *sender);
extern void    sender_free(Sender *sender);
extern bool    sender_update_row(Sender *sender, GatewayRow *row);
extern void    sender_take_state(Sender *sender);
extern bool    sender_open_session(Sender *sender);
extern void    sender_release_lock(Sender *sender);

/* Questions. */
extern bool        sender_is_open(const Sender *sender);
extern bool        sender_owns_gateway(const Sender *sender);
extern int         sender_in_flight(const Sender *sender);
extern bool        sender_wants_check(const Sender *sender);
extern DoubtPolicy sender_policy(const Sender *sender);
extern MonoTime    sender_may_send(const Sender *sender);

/* Transactions. */
extern void sender_begin_batch(Sender *sender);
extern void sender_undo_batch(Sender *sender);
extern void sender_settled(Sender *sender, Grant *grant);
extern void sender_add_unresolved(Sender *sender, Grant *grant);
extern void sender_forget_unresolved(Sender *sender);

extern void sender_restart_search(Sender *sender);

/* Requests. */
extern bool sender_take_token(Sender *sender);
extern void sender_act(Sender *sender, CircuitActions actions);
extern void sender_drop_queries(Sender *sender);
extern void sender_abandon(Sender *sender, const char *why);
extern void sender_hold_all(Sender *sender);

/* health_check.c: asks a gateway whether it works, and whether it takes grants. */
extern void health_check_send(Sender *sender);
extern void health_check_answered(Sender *sender, const RequestTag *tag, const GatewayReply *reply);

#endif /* QM_SENDER_H */
