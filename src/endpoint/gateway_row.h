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

extern List           *gateway_rows_read(MemoryContext memory);
extern GatewayRow     *gateway_row_choose(List *rows, const char *name);
extern bool            gateway_row_same(const GatewayRow *a, const GatewayRow *b);
extern GatewaySession *gateway_row_open(const GatewayRow *row, char **problem);
extern bool            gateway_dialect_read(const char *name, GatewayDialect *dialect);

#endif /* QM_GATEWAY_ROW_H */
