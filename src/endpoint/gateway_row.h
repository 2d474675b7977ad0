/*
 * gateway_row.h
 *		A row of quota_gateway as a session needs it, key included.
 */
#ifndef QM_GATEWAY_ROW_H
#define QM_GATEWAY_ROW_H

#include "postgres.h"

#include "nodes/pg_list.h"
#include "utils/timestamp.h"

#include "gateway/gateway.h"

/* What becomes of a grant whose answer was lost. */
typedef enum DoubtPolicy
{
	DOUBT_HOLD,      /* an operator decides */
	DOUBT_RESEND,    /* it is sent again with the same key */
	DOUBT_RECONCILE, /* readings before and after prove it */
} DoubtPolicy;

typedef struct GatewayRow
{
	int32          id;
	char          *name;
	GatewayDialect dialect;
	char          *base_url;
	char          *admin_path;  /* NULL: the dialect's own */
	char          *key_header;  /* NULL: the dialect's own */
	char          *route_model; /* NULL: none */
	int            connect_timeout_ms;
	int            request_timeout_ms;
	int            max_connections;
	double         rate_limit; /* requests per second; 0: unlimited */
	DoubtPolicy    doubt_policy;
	double         max_usage_rate;     /* units per second; < 0: unlimited */
	TimestampTz    doubt_policy_since; /* readings before prove nothing */
	char          *state;
	TimestampTz    update_time; /* of what an operator wrote, not of the state */
	bool           is_default;
	char          *secret;  /* NULL: none */
	const char    *problem; /* why it cannot be used, a constant text; NULL: it can */
} GatewayRow;

/*
 * Reads all gateways in the order of their ids, with their keys, into memory:
 * a list of GatewayRow.  The keys are overwritten when the memory is freed.  SPI
 * must be connected.
 */
extern List *gateway_rows_read(MemoryContext memory);

/*
 * The gateway of that name, or, without a name, the default one, among such a
 * list, and among those that the current user can see.  Raises an error if
 * there is none.
 */
extern GatewayRow *gateway_row_choose(List *rows, const char *name);

/* True if a session opened for one serves the other just as well. */
extern bool gateway_row_same(const GatewayRow *a, const GatewayRow *b);

/*
 * Opens a session.  NULL: it cannot be used, and *problem, allocated in the
 * current memory context, says why.
 */
extern GatewaySession *gateway_row_open(const GatewayRow *row, char **problem);

/* Reads the name of a dialect; false if there is none of that name. */
extern bool gateway_dialect_read(const char *name, GatewayDialect *dialect);

#endif /* QM_GATEWAY_ROW_H */
