/*
 * call.h
 *		A request to a gateway by hand, and what is written of it.
 */
#ifndef QM_CALL_H
#define QM_CALL_H

#include "postgres.h"

#include "endpoint/gateway_row.h"
#include "gateway/gateway.h"

/* A request by hand and its answer. */
typedef struct ManualCall
{
	GatewayAction action;
	const char   *user_id;
	const char   *amount; /* NULL for a query */
	const char   *reason; /* NULL: none was asked for */
	const char   *gateway;
	GatewayReply  reply;
} ManualCall;

extern const char *call_outcome_name(const ManualCall *call);
extern void        call_log(const ManualCall *call, const char *role, const char *outcome);
extern void        call_write(const ManualCall *call, const char *role);
extern char       *call_amount(const char *amount);
extern void        call_require_amount(const GatewayRow *row, const char *amount);
extern void        call_refuse_where_reconciled(const GatewayRow *row);

#endif /* QM_CALL_H */
