/*
 * health_check.h
 *		Asks a gateway whether it works, and whether it takes grants.
 */
#ifndef QM_HEALTH_CHECK_H
#define QM_HEALTH_CHECK_H

#include "postgres.h"

#include "delivery/sender.h"

extern void health_check_send(Sender *sender);
extern void health_check_answered(Sender *sender, const RequestTag *tag, const GatewayReply *reply);

#endif /* QM_HEALTH_CHECK_H */
