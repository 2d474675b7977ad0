/*
 * gateway.h
 *		HTTP to an AiGateway: what can be asked of it, and what an answer proves.
 *
 * This concern knows nothing of tables, transactions or workers.  A session
 * is a set of kept-alive HTTP/1.1 connections to one gateway, used by one
 * process from one thread; a child forked later must not touch it.
 *
 * Memory: everything a session needs lives in malloc'ed memory of libcurl,
 * json-c and its own, never in a PostgreSQL memory context, so that an error
 * anywhere leaves it in a state in which gateway_close works.  Strings given
 * in are copied.  The caller makes sure that gateway_close is called, also
 * after an error (a memory context reset callback serves).
 *
 * Errors: nothing here raises a PostgreSQL error or checks for interrupts;
 * outcomes are values.  gateway_poll returns after at most the time asked
 * for, so the caller keeps its own clock and its own interrupts.
 *
 * This header includes nothing of PostgreSQL, libcurl or json-c: it can be
 * used beside any of them.
 */
#ifndef QM_GATEWAY_H
#define QM_GATEWAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum GatewayDialect
{
	GATEWAY_HIGRESS,
	GATEWAY_ZGSM,
} GatewayDialect;

/* Address and dialect of a gateway, and how to connect. */
typedef struct GatewayConfig
{
	GatewayDialect dialect;
	const char    *base_url;   /* http:// or https://, no credentials in it */
	const char    *admin_path; /* NULL: the dialect's own */
	const char    *credential; /* NULL: none is sent */
	const char *key_header;  /* NULL: the dialect's own; Authorization, where the credential follows
								 * "Bearer ", or a name that begins with x-, where it stands alone */
	const char *route_model; /* value of x-higress-llm-model; NULL: not sent */
	const char *user_agent;
	int         connect_timeout_ms;
	int         request_timeout_ms; /* from start to last byte, connect included */
	int         max_connections;    /* requests in flight at once */
	size_t      max_reply_bytes;    /* of headers and body together */

	/*
	 * Whether a link-local, unspecified, reserved or metadata address, as
	 * people write it, may be connected to all the same.  Called while libcurl
	 * works, so it may only compare.  NULL: no such address is allowed.
	 */
	bool (*address_allowed)(const char *address);
} GatewayConfig;

typedef enum GatewayAction
{
	GATEWAY_QUERY,   /* harmless: may be repeated */
	GATEWAY_REFRESH, /* sets the quota */
	GATEWAY_DELTA,   /* adds to it: never repeated by this layer */
} GatewayAction;

/*
 * What an answer proves; the classes are explained in docs/gateway.md.
 *
 * A query changes nothing, so nothing can be in doubt about one: there
 * GATEWAY_IN_DOUBT means that no answer was had (time-out, 5xx, or a reply
 * that cannot be read), and the query may be repeated.
 */
typedef enum GatewayOutcome
{
	GATEWAY_COMPLETED, /* applied; for a query: answered */
	GATEWAY_NOT_SENT,  /* no byte of a query, or of the body with the parameters of any other
						* request, left this machine: refused connection, DNS, TLS */
	GATEWAY_THROTTLED, /* 429, 408: not applied, come back later */
	GATEWAY_BLOCKED,   /* 3xx, 4xx that the gateway may not have written, and what Redis refuses:
						* not applied, maybe our fault or only for now */
	GATEWAY_REFUSED,   /* not applied, and this request never will be; http_status 0 if it could
						* not even be written down, such as an amount that does not fit */
	GATEWAY_IN_DOUBT,  /* may or may not have been applied */
} GatewayOutcome;

typedef struct GatewayReply
{
	GatewayOutcome outcome;
	long           http_status; /* 0: no reply header was read to its end */
	double         retry_after; /* seconds asked for by Retry-After, either form, at most a day;
							  * < 0: none */
	bool
		names_parameters; /* a 403, or another 4xx that is the gateway's own, blames the parameters */
	bool below_zero;      /* zgsm: the total is below zero, no more is known of it: balance
									  * is a number just below zero, total is "" */
	char balance[64];     /* a query's answer, what remains, as a decimal literal; "" otherwise */
	char total[64];       /* zgsm: what was granted in all, of which balance remains; else "" */
	char message[512];    /* for an operator: valid UTF-8, one line, no credential; "" if completed;
						* what the reply says only if it is in a gateway's own words */
} GatewayReply;

/*
 * What is sent.  Strings are UTF-8 and copied.
 *
 * A query in the zgsm dialect is two GETs, one after the other and both within
 * the one request time-out: the total, then what was used of it.
 */
typedef struct GatewayRequest
{
	GatewayAction action;
	const char   *user_id;
	const char   *amount;          /* decimal literal for refresh and delta */
	const char   *idempotency_key; /* visible ASCII, at most 200 bytes; NULL: header not sent */
	void         *token;           /* returned with the reply */
} GatewayRequest;

typedef struct GatewayResult
{
	void        *token;
	GatewayReply reply;
} GatewayResult;

typedef struct GatewaySession GatewaySession;

extern GatewaySession *gateway_open(const GatewayConfig *config, char *error, size_t error_size);
extern void            gateway_close(GatewaySession *session);
extern int             gateway_free_slots(const GatewaySession *session);
extern int             gateway_in_flight(const GatewaySession *session);
extern bool            gateway_has_sent(const GatewaySession *session, const void *token);
extern bool            gateway_submit(GatewaySession *session, const GatewayRequest *request);
extern int             gateway_poll(GatewaySession *session, int timeout_ms, GatewayResult *results,
									int max_results);

/* Room for any literal written here: sign, 19 digits, point, 6 decimals, NUL. */
#define GATEWAY_AMOUNT_SIZE 32

extern bool gateway_amount_fits(GatewayDialect dialect, const char *amount);
extern void gateway_amount_truncate(GatewayDialect dialect, const char *amount,
									char out[GATEWAY_AMOUNT_SIZE]);

/* What two balance samples prove about the attempt between them. */
typedef enum GatewayEvidence
{
	GATEWAY_EVIDENCE_APPLIED,
	GATEWAY_EVIDENCE_NOT_APPLIED,
	GATEWAY_EVIDENCE_LATER, /* nothing yet: the request may still wait behind its lost answer */
	GATEWAY_EVIDENCE_NONE,  /* nothing, and no later sample will */
} GatewayEvidence;

/*
 * The balance samples before and after an attempt to add amount, at a gateway
 * where only this database changes totals, and to which nothing else was sent for
 * the user between the two samples.
 */
typedef struct GatewaySamples
{
	GatewayDialect dialect;
	const char    *before; /* decimal literals: zgsm: the total, higress: what remains */
	const char    *after;
	const char    *amount;
	double max_usage; /* units that chats can have used between the two; < 0: any; higress */
	bool   settle_delay_over; /* the settle delay was over: the request could not arrive any more */
} GatewaySamples;

extern GatewayEvidence gateway_weigh(const GatewaySamples *samples);
extern bool gateway_url_valid(const char *url, const char **why, char *host, size_t host_size);
extern int  gateway_url_port(const char *url, bool *is_tls);
extern const char *gateway_host_fault(const char *host);

#endif /* QM_GATEWAY_H */
