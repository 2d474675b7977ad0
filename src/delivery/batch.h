/*
 * batch.h
 *		One transaction of the delivery loop: settles what is done, claims what is
 *		sent next.
 */
#ifndef QM_BATCH_H
#define QM_BATCH_H

#include "postgres.h"

#include "delivery/senders.h"

/* What a batch does besides settling. */
typedef enum BatchKind
{
	BATCH_CLAIM,
	BATCH_POLL,   /* polls for new work and takes sender locks, then claims */
	BATCH_SETTLE, /* nothing */
} BatchKind;

extern bool       batch_is_needed(const Delivery *delivery);
extern ErrorData *batch_run(Delivery *delivery, BatchKind kind, DeliveryCount *count);
extern bool       batch_has_work(const Delivery *delivery, const Sender *sender, MonoTime *due);

#endif /* QM_BATCH_H */
