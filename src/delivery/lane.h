/*
 * lane.h
 *		The way of grants to one gateway: claimed, sent, answered.
 *
 * Nothing here touches a table or needs a transaction.  The courier claims
 * grants into a lane and settles those that are done; the lane sends them,
 * never two of one user at once, and watches the gateway.
 *
 * The gate decides whether anything is sent.  It shuts with the first outcome
 * that is neither completed nor refused: what is in flight is awaited, what
 * was not sent goes back.  A balance query, which is harmless, opens it.
 *
 *              trouble                nothing in flight
 *	    OPEN -----------> DRAINING ---------------------> SHUT
 *	     ^                                               |   ^
 *	     |  the query is answered         time to probe  |   | it is not
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

#include "delivery/gateway_row.h"
#include "delivery/grant.h"
#include "delivery/installation.h"

/* The key of a pending grant that was seen and not yet claimed. */
typedef struct Candidate
{
	int32       strategy_id;
	int32       revision;
	TimestampTz scheduled_time;
	text       *user_id;
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
	GATEWAY_STATE_MISCONFIGURED,
} GatewayState;

struct userqueue_hash;

typedef struct Lane
{
	MemoryContext   memory; /* of grants and texts */
	int32           gateway_id;
	GatewayRow     *row; /* the courier's; NULL: the gateway is gone */
	GatewaySession *session;
	bool            reopen;      /* the row changed: the session is to be opened anew */
	bool            has_lock;    /* this process is the gateway's one sender */
	bool            is_new_lock; /* since a transaction that is not committed yet */

	/* grants: to be sent, in flight, waiting for what a query gives, to be settled */
	dlist_head             ready;
	dlist_head             flying;
	dlist_head             blocked;
	dlist_head             done;
	int                    ready_count;
	int                    unsent; /* the ready ones and those behind others */
	int                    done_count;
	int                    settling;   /* how many of the first ones a transaction settles that is
									* not committed yet */
	TimestampTz            done_since; /* since when something is to be settled */
	struct userqueue_hash *users;      /* with a claimed grant that is not done */
	TimestampTz            hot_until;  /* the gateway is expected to answer soon */

	/* grants claimed by the transaction that is not committed yet */
	dlist_head claimed;

	/* the search for pending grants */
	MemoryContext candidate_memory;
	Candidate    *candidates;
	int           candidate_count;
	int           next_candidate;
	int64         search_id; /* no grant below this one is left to be found */
	bool          exhausted; /* it came to the end */
	bool          touched;   /* it found something since the runs were looked at */

	GateState      gate;
	int            troubles;      /* times the gate shut since a grant was last completed */
	int            failed_probes; /* in a row */
	TimestampTz    probe_time;    /* when a shut gate is to be tried */
	GatewayOutcome trouble;       /* the gravest outcome since it began to drain, */
	int64          trouble_delay; /* the wait it asked for in milliseconds, */
	char          *trouble_text;  /* and its text */

	GatewayState state;
	char        *state_reason; /* NULL when open */
	bool         state_unsaved;
	bool         state_unlogged;
	bool         state_saved; /* by a transaction that is not committed yet */
	TimestampTz  state_tried; /* when saving it was last tried */
} Lane;

/* A lane for a gateway; what its row says of the state is taken over. */
extern Lane *lane_create(GatewayRow *row, MemoryContext memory);

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

/* True if nothing that was claimed is left in the lane, done or not. */
extern bool lane_is_empty(Lane *lane);

/* Takes a grant that was claimed, durably. */
extern void lane_accept(Lane *lane, Grant *grant);

/* Sends what can be sent now. */
extern void lane_send(Lane *lane, const Installation *installation);

/* Waits for answers for at most timeout_ms and takes them in; true if there was one. */
extern bool lane_poll(Lane *lane, int timeout_ms);

/* How many requests are in flight. */
extern int lane_in_flight(const Lane *lane);

/* What was claimed and not sent is done: it goes back. */
extern void lane_put_back(Lane *lane);

/* Gives up on everything: what is in flight is in doubt, the rest goes back. */
extern void lane_abandon(Lane *lane, const char *why);

/* The grant's outcome is known; it waits to be settled. */
extern void lane_done(Lane *lane, Grant *grant);

/* Drops the candidates and lets the search begin anew. */
extern void lane_restart_search(Lane *lane);

/*
 * gate.c: watches the gateway.
 */

/* A delta had an outcome that is neither completed nor refused. */
extern void gate_trouble(Lane *lane, const GatewayReply *reply);

/* Moves the gate on where time or the end of what was in flight does so. */
extern void gate_step(Lane *lane);

/* True if a query should be sent now. */
extern bool gate_wants_probe(const Lane *lane);

/*
 * Sends it, about a user with a pending grant or a blocked one.  Without
 * either nothing is sent.
 */
extern void gate_probe(Lane *lane);

/* The query was answered, or not. */
extern void gate_probed(Lane *lane, const GatewayReply *reply);

/* The session cannot be opened: nothing can be sent until the row is mended. */
extern void gate_unusable(Lane *lane, const char *problem);

/* The gateway may have been mended: it is tried at once. */
extern void gate_retry(Lane *lane);

extern const char *gateway_state_name(GatewayState state);

#endif /* QM_LANE_H */
