/*
 * circuit.h
 *		The circuit breaker of one gateway: are grants sent to it?
 *
 * A gateway is *open* when grants are sent and *closed* when not, as
 * quota_gateway.state has always said it.  In the electrician's words of other
 * circuit breakers it is the reverse.
 *
 * Pure: an event goes in, with its time; what the sender is to do about it
 * comes out.  No table, no session, no memory context.
 *
 * It closes with the first outcome that is neither completed nor refused: what
 * is in flight is awaited, what was not sent goes back.  A balance query, which
 * is harmless, opens it; where the answer to a grant was lost, a write check
 * must succeed too: a delta of zero, which is as harmless.  Then one grant is
 * sent, then two, then four.
 *
 *               fault                 nothing in flight
 *	    SENDING ------> DRAINING ---------------------> WAITING <---+
 *	       ^                                               |        | failed
 *	       |      all checks succeeded          time to check       |
 *	       +------------------------- CHECKING <-----------+--------+
 */
#ifndef QM_CIRCUIT_H
#define QM_CIRCUIT_H

#include "postgres.h"

#include "common/monotonic.h"
#include "gateway/gateway.h"

/* No grants are in flight beyond this number. */
#define CONCURRENCY_MAX 64

/* What others see: quota_gateway.state. */
typedef enum CircuitState
{
	CIRCUIT_OPEN,
	CIRCUIT_CLOSED,
	CIRCUIT_PROBING, /* it answers again: grants are sent carefully */
	CIRCUIT_MISCONFIGURED,
} CircuitState;

/* What is done.  A fault that a check clears at once never shows in the state. */
typedef enum CircuitPhase
{
	CIRCUIT_SENDING,
	CIRCUIT_DRAINING, /* grants in flight are awaited */
	CIRCUIT_WAITING,  /* for check_time, or until a check can be sent */
	CIRCUIT_CHECKING, /* such a check is in flight */
} CircuitPhase;

typedef enum CheckKind
{
	HEALTH_CHECK, /* a query: does the gateway work? */
	WRITE_CHECK,  /* a delta of zero: does it take grants? */
} CheckKind;

/* What an event makes the sender do, in this order. */
typedef enum CircuitActions
{
	CIRCUIT_NO_ACTION = 0,
	CIRCUIT_RETURN_UNSENT = 1, /* what is claimed and not sent goes back */
	CIRCUIT_BLAME_GRANTS = 2,  /* what awaits a verdict was refused for what it is */
	CIRCUIT_BLAME_GATEWAY = 4, /* it was refused as everything is */
	CIRCUIT_DROP_QUERIES = 8,  /* queries in flight would keep connections busy */
	CIRCUIT_SEARCH_ANEW = 16,
	CIRCUIT_SHOW_STATE = 32, /* state or reason changed */
} CircuitActions;

/* The gravest outcome since draining began. */
typedef struct CircuitFault
{
	GatewayOutcome outcome;
	bool           lost_grant; /* the answer to a grant was lost */
	int64          delay_ms;   /* the pause that was asked for */
	char           text[512];
} CircuitFault;

typedef struct Circuit
{
	CircuitState state;
	char         reason[512]; /* of the state; "": none */
	CircuitPhase phase;
	int          concurrency_limit; /* grants in flight at most; one more with each completed one */
	CircuitFault fault;
	int          faults;           /* times it drained since a grant was last completed */
	bool         write_lost;       /* the answer to a grant was, and none was completed since */
	CheckKind    check;            /* the check that is due, or in flight */
	MonoTime     check_time;       /* when it is due */
	MonoTime     check_sent;       /* when the last one was sent */
	int          checks_in_flight; /* late ones included */
	int          failed_checks;    /* in a row */
} Circuit;

extern void circuit_init(Circuit *circuit);

/* Events. */
extern void           circuit_take_state(Circuit *circuit, CircuitState state);
extern CircuitActions circuit_grant_answered(Circuit *circuit, const GatewayReply *reply,
											 int in_flight, MonoTime now);
extern CircuitActions circuit_query_failed(Circuit *circuit, const GatewayReply *reply,
										   int in_flight, MonoTime now);
extern CircuitActions circuit_drained(Circuit *circuit, MonoTime now);
extern void           circuit_check_started(Circuit *circuit, MonoTime now);
extern bool           circuit_check_ended(Circuit *circuit, CheckKind check);
extern CircuitActions circuit_checked(Circuit *circuit, const GatewayReply *reply, int refused,
									  MonoTime now);
extern void           circuit_checks_dropped(Circuit *circuit);
extern CircuitActions circuit_unusable(Circuit *circuit, const char *problem, MonoTime now);
extern void           circuit_row_changed(Circuit *circuit);
extern void           circuit_abandoned(Circuit *circuit);

/* Questions. */
extern bool circuit_wants_check(const Circuit *circuit, int max_connections, int timeout_ms,
								MonoTime now);

extern const char  *circuit_state_name(CircuitState state);
extern CircuitState circuit_state_of(const char *name);

#endif /* QM_CIRCUIT_H */
