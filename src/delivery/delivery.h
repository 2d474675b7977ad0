/*
 * delivery.h
 *		The outbox: claims pending grants, sends them, settles the outcomes.
 *
 * No network inside a transaction: everything here runs in short transactions
 * of the caller's kind (WorkUnit) with HTTP between them, when neither a
 * snapshot nor a lock on rows is held.
 *
 * Memory: results live in the caller's current memory context; connections
 * and grants in flight in a Delivery, until delivery_free.
 *
 * Errors: raises PostgreSQL errors for what is wrong in the database.  What is
 * wrong with a gateway or a grant is written to its row and never raised.
 * Interrupts are processed at least every 200 ms; when the query is cancelled
 * or the session is to end, or the database raises an error, what is in flight
 * is awaited for at most a second and settled before that takes effect.  In a
 * background worker, settings are reloaded after a SIGHUP, too.
 */
#ifndef QM_DELIVERY_H
#define QM_DELIVERY_H

#include "postgres.h"

#include <signal.h>

#include "common/monotonic.h"
#include "common/work_unit.h"

/* What became of grants. */
typedef struct DeliveryCount
{
	int64 completed;
	int64 failed;
	int64 in_doubt;
	int64 deferred; /* attempts that were not applied: pending again */
} DeliveryCount;

/*
 * What the flag `stop` of delivery_loop() asks for: to be done soon, or to wait
 * for what is in flight as long as the gateways' time-outs allow.
 */
#define STOP_NOW 1
#define STOP_WHEN_ANSWERED 2

/* What one process delivers with: sessions with gateways, kept open from loop to loop. */
typedef struct Delivery Delivery;

extern Delivery *delivery_create(const WorkUnit *unit);
extern void      delivery_free(Delivery *delivery);
extern MonoTime  delivery_loop(Delivery *delivery, volatile sig_atomic_t *stop, int grace_ms,
							   DeliveryCount *count);
extern void      delivery_explain(const Delivery *delivery);
extern bool      delivery_finds_work(Delivery *delivery, const WorkUnit *unit);

/* Registers the settings of delivery; called once by _PG_init. */
extern void delivery_define_settings(void);

#endif /* QM_DELIVERY_H */
