/*
 * await.h
 *		Waiting for the answers of one session in the transaction of a caller.
 */
#ifndef QM_AWAIT_H
#define QM_AWAIT_H

#include "gateway/gateway.h"

extern int await_answers(GatewaySession *session, long timeout_ms, GatewayResult *results,
						 int most);

#endif /* QM_AWAIT_H */
