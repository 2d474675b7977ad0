/*
 * reconcile.h
 *		Evidence: what a balance before and after a lost answer says about a grant.
 *
 * Knows no sender.  Conclusions are noted in the grant, to be settled.
 */
#ifndef QM_RECONCILE_H
#define QM_RECONCILE_H

#include "postgres.h"

#include "delivery/grant.h"

/* Balances from before this time, by either clock, are no evidence. */
typedef struct EvidenceSince
{
	TimestampTz time;
	MonoTime    moment;
} EvidenceSince;

extern void reconcile_grant(Grant *grant, const GatewayRow *row, EvidenceSince since,
							const GatewayReply *reply, TimestampTz now);
extern void reconcile_without_sample(Grant *grant);

#endif /* QM_RECONCILE_H */
