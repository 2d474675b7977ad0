/*
 * lane.h
 *		The way of grants to one gateway: claimed, sent, answered.
 *
 * Nothing here touches a table or needs a transaction.  The courier claims
 * grants into a lane and settles those that are done; the lane sends them,
 * never two of one user at once, and watches the gateway.
 *
 * Where the policy is to reconcile, a grant takes a longer way: its balance is
 * read, the courier writes that down, and only then it is sent.  Its user gets
 * nothing more until it is settled, and if its answer was lost, not until that
 * was reconciled or nothing can arrive any more.
 *
 *	    ready ----------------------------------> flying ----> done
 *	      |                                         ^    \-> blocked -> done
 *	      +--> reading ----> read ----> armed ------+
 *	            query      to be written
 *	doubts ---> proving ------------------------------------> done
 *	            query
 *
 * The gate decides whether anything is sent.  It shuts with the first outcome
 * that is neither completed nor refused: what is in flight is awaited, what
 * was not sent goes back.  A balance query, which is harmless, opens it; where
 * the answer to a grant was lost, also a delta of zero, which is harmless too.
 * Then one grant is sent, then two, then four.
 *
 *              trouble                nothing in flight
 *	    OPEN -----------> DRAINING ---------------------> SHUT
 *	     ^                                               |   ^
 *	     |  all is answered               time to probe  |   | it is not
 *	     +---------------------- PROBING <---------------+   |
 *	                                |________________________|
 *
 * Memory: a lane lives in the context given, its grants in a child of it.
 */
#ifndef QM_LANE_H
#define QM_LANE_H

#include "postgres.h"

#include "lib/ilist.h"
#include "utils/timestamp.h"

#include "common/monotonic.h"
#include "delivery/gateway_row.h"
#include "delivery/grant.h"
#include "delivery/installation.h"
#include "delivery/tally.h"

/* Somebody to ask a gateway about whom it has never seen: it answers for those as well. */
#define NOBODY "quota_manager-probe"

/* The key of a pending grant that was seen and not yet claimed. */
typedef struct Candidate
{
	int32       strategy_id;
	int32       revision;
	TimestampTz scheduled_time;
	text       *user_id;
	int32       hash; /* of user_id; and its place by id: where the table is spread */
	int32       place;
} Candidate;

typedef enum GateState
{
	GATE_OPEN,
	GATE_DRAINING,
	GATE_SHUT,
	GATE_PROBING,
} GateState;

/* What others see of the gate: quota_gateway.state. */
typedef enum GatewayState
{
	GATEWAY_STATE_OPEN,
	GATEWAY_STATE_CLOSED,
	GATEWAY_STATE_PROBING,
	GATEWAY_STATE_MISCONFIGURED,
} GatewayState;

/*
 * What the transaction that is open has done for a lane, and what is to follow
 * in memory once it is committed.  Empty between transactions; what one that
 * failed has left in it is thrown away.
 */
typedef struct LaneTurn
{
	dlist_head claimed;        /* grants that it claimed */
	int        settling;       /* how many of the first ones of `done` it settles */
	int        recording;      /* how many of the first ones of `read` it writes down */
	bool       state_saved;    /* it writes the gateway's state */
	bool       lock_taken;     /* the sender's lock was taken in it */
	bool       lock_abandoned; /* the sender's lock is not needed any more */
	Tally      tally;          /* what it makes of grants, to be written at its end */
} LaneTurn;

struct userqueue_hash;
struct doubtuser_hash;

typedef struct Lane
{
	MemoryContext   memory; /* of grants and texts */
	int32           gateway_id;
	GatewayRow     *row; /* the courier's; NULL: the gateway is gone */
	GatewaySession *session;
	bool            reopen;   /* the row changed: the session is to be opened anew */
	bool            has_lock; /* this process is the gateway's one sender */
	LaneTurn        turn;

	/* grants: see above */
	dlist_head             ready;
	dlist_head             reading;
	dlist_head             read;
	dlist_head             armed;
	dlist_head             flying;
	dlist_head             blocked; /* waiting for what a query gives */
	dlist_head             done;    /* to be settled */
	int                    ready_count;
	int                    read_count;
	int                    measured; /* those in reading, read and armed */
	int                    flying_count;
	int                    unsent; /* the ready and measured ones and those behind others */
	int                    done_count;
	MonoTime               done_since; /* since when something is to be settled */
	struct userqueue_hash *users;      /* with a claimed grant that is not done */
	MonoTime               hot_until;  /* the gateway is expected to answer soon */

	/* grants in doubt that are to be proven */
	dlist_head             doubts; /* waiting for their time */
	dlist_head             proving;
	int                    proving_count;
	MonoTime               next_proof_time; /* not before it one of them is due */
	struct doubtuser_hash *doubtful;        /* users who get nothing until theirs are settled */
	MonoTime               doubts_check;    /* not before it they are compared with their rows */
	bool                   reexamine;       /* the policy changed: which are there is not known */
	TimestampTz            policy_seen;     /* when such a change was seen, by the wall clock */
	MonoTime               policy_moment;   /* since when the policy is what it is */

	/* what the row's rate_limit allows */
	double   tokens;
	MonoTime tokens_time;

	/* the search for pending grants */
	MemoryContext candidate_memory;
	Candidate    *candidates;
	int           candidate_count;
	int           next_candidate;
	bool          is_spread;   /* grants are kept in parts by user: see statement.h */
	int64         searched_id; /* no grant up to this one is left to be found */
	bool          exhausted;   /* it came to the end */
	bool          touched;     /* something was found or reconciled since the runs were looked at */
	MonoTime      rest_until;  /* it found only users who have to wait */
	MonoTime      restart_time; /* when it begins anew, for what has fallen due behind it */
	MonoTime      due_since;    /* something is due since then, and nothing was claimed */
	bool          due_logged;   /* and the log says so */

	GateState      gate;
	int            window;       /* grants in flight at most; doubles with every round of answers */
	bool           write_lost;   /* the answer to a grant was, and none was completed since */
	bool           probes_write; /* the probe in question is a delta of zero */
	int            probes;       /* in flight, late ones included */
	MonoTime       probe_sent;   /* the last one */
	Token          probe_token;
	Token          write_probe_token;
	int            troubles;      /* times the gate shut since a grant was last completed */
	int            failed_probes; /* in a row */
	MonoTime       probe_time;    /* when a shut gate is to be tried */
	GatewayOutcome trouble;       /* the gravest outcome since it began to drain, */
	int64          trouble_delay; /* the wait it asked for in milliseconds, */
	char          *trouble_text;  /* and its text; */
	bool           trouble_lost;  /* the answer to a grant was lost since then */

	GatewayState state;
	char        *state_reason; /* NULL when open */
	GatewayState logged_state;
	bool         state_unsaved;
	MonoTime     state_tried; /* when saving it was last tried */
} Lane;

/* A lane for a gateway; what its row says of the state is taken over. */
extern Lane *lane_create(GatewayRow *row, MemoryContext memory);

/* An open gate is shut if the row, written by another sender, says that it is. */
extern void lane_take_state(Lane *lane);

/* Ends its connections; what is in flight is lost track of. */
extern void lane_close(Lane *lane);

/* The same, and frees the lane. */
extern void lane_free(Lane *lane);

/* The gateway's row was read again; NULL: it is gone. */
extern void lane_update_row(Lane *lane, GatewayRow *row);

/*
 * Opens the session if the row asks for it and nothing is in flight.  False:
 * nothing can be sent now.
 */
extern bool lane_open_session(Lane *lane);

/* True if it makes sense to claim grants for the lane, once it has a session. */
extern bool lane_is_open(const Lane *lane);

/*
 * True if this process is the gateway's one sender, as far as the transaction
 * that is open makes it so.
 */
extern bool lane_is_sender(const Lane *lane);

/* Begins a transaction: nothing is done in it yet. */
extern void lane_begin_turn(Lane *lane);

/*
 * Throws away what a transaction has done for the lane that failed; what it was
 * to settle stays where it is.
 */
extern void lane_undo_turn(Lane *lane);

/* Releases the sender's lock, if this process has it. */
extern void lane_release_lock(Lane *lane);

/* True if nothing that was claimed is left in the lane, done or not. */
extern bool lane_is_empty(Lane *lane);

/* How its gateway treats a grant whose answer was lost. */
extern DoubtPolicy lane_policy(const Lane *lane);

/*
 * Since when the policy and the place of the gateway are what they are: a
 * change may have been committed, and seen here, long after its time.
 */
extern TimestampTz lane_policy_since(const Lane *lane);

/*
 * When grants may be sent: later than now only for a while after the policy
 * was made to reconcile, since what was lost before may still arrive and be
 * taken for a grant of today.
 */
extern MonoTime lane_may_send(const Lane *lane);

/* Takes a grant that was claimed, durably. */
extern void lane_accept(Lane *lane, Grant *grant);

/* How many requests are in flight. */
extern int lane_in_flight(const Lane *lane);

/* What was claimed and not sent is done: it goes back. */
extern void lane_put_back(Lane *lane);

/* Gives up on everything: what is in flight and was sent is in doubt, the rest goes back. */
extern void lane_abandon(Lane *lane, const char *why);

/* The same for one claimed grant, which is in no list, and those behind it. */
extern void lane_put_back_one(Lane *lane, Grant *grant);

/* The grant's outcome is known; it waits to be settled. */
extern void lane_done(Lane *lane, Grant *grant);

/*
 * A grant that was in flight, and is in no list now, is so no more: the next
 * one of its user may go, at once or when this one is settled.
 */
extern void lane_answered(Lane *lane, Grant *grant);

/* The grant was settled, durably, and is in no list any more: frees it, or keeps it to be proven. */
extern void lane_settled(Lane *lane, Grant *grant);

/* Ends queries that are in flight, with their connections; what they were for waits again. */
extern void lane_drop_queries(Lane *lane);

/* Drops the candidates and lets the search begin anew. */
extern void lane_restart_search(Lane *lane);

/*
 * flight.c: requests and their answers.
 */

/* Sends what can be sent now. */
extern void lane_send(Lane *lane, const Installation *installation);

/* Waits for answers for at most timeout_ms and takes them in; true if there was one. */
extern bool lane_poll(Lane *lane, int timeout_ms);

/*
 * Takes the right to send one request within the row's rate_limit; false:
 * none is left now.
 */
extern bool lane_take_token(Lane *lane);

/*
 * Milliseconds, a second at most, until rate_limit lets something go that
 * waits for nothing else; -1: nothing does.
 */
extern int lane_throttled_ms(const Lane *lane);

/*
 * proving.c: grants in doubt that are to be proven.
 */

/* A user has one, or one less; those with one get nothing more. */
extern void lane_doubt_begins(Lane *lane, const char *user_id);
extern void lane_doubt_ends(Lane *lane, const char *user_id);
extern bool lane_user_in_doubt(const Lane *lane, const char *user_id);

/*
 * Takes a grant in doubt, in no list, whose user was counted by
 * lane_doubt_begins; it is looked at when its next_attempt_time has come.
 */
extern void lane_add_doubt(Lane *lane, Grant *grant);

/* True if the grant of this id is in the lane to be proven, or to be settled as such. */
extern bool lane_has_doubt(Lane *lane, int64 id);

/* Forgets those that wait: the policy is another one. */
extern void lane_forget_doubts(Lane *lane);

/* Forgets those that wait whose id is none of these, which are in ascending order. */
extern void lane_keep_doubts(Lane *lane, const int64 *ids, int count);

/* Asks about those whose time has come. */
extern void lane_prove(Lane *lane);

/* Such a query was answered, or not. */
extern void lane_take_proof(Lane *lane, Grant *grant, const GatewayReply *reply, TimestampTz now);

/*
 * gate.c: watches the gateway.
 */

/* No grants are in flight beyond this number. */
#define WINDOW_MAX_SIZE 64

/* A grant, or a query for one, had an outcome that is neither completed nor refused. */
extern void gate_trouble(Lane *lane, const GatewayReply *reply, bool is_write);

/* A grant was answered as it should: completed, or refused for what it is. */
extern void gate_success(Lane *lane, bool is_completed);

/* Moves the gate on where time or the end of what was in flight does so. */
extern void gate_step(Lane *lane);

/* True if a query should be sent now. */
extern bool gate_wants_probe(const Lane *lane);

/*
 * Sends it, about a user with a pending grant, a blocked one or one in doubt.
 * Without any nothing is sent.
 */
extern void gate_probe(Lane *lane);

/* A probe was answered, or not. */
extern void gate_probed(Lane *lane, TokenKind kind, const GatewayReply *reply);

/* The session cannot be opened: nothing can be sent until the row is mended. */
extern void gate_unusable(Lane *lane, const char *problem);

/* The gateway may have been mended: it is tried at once. */
extern void gate_retry(Lane *lane);

extern const char *gateway_state_name(GatewayState state);

#endif /* QM_LANE_H */
