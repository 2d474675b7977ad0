/*
 * delivery.h
 *		The outbox: claims pending grants, sends them, settles the outcomes.
 *
 * No network inside a transaction: everything here runs in short transactions
 * of the caller's kind (WorkUnit) with HTTP between them, when neither a
 * snapshot nor a lock on rows is held.
 *
 * Memory: results live in the caller's current memory context; connections
 * and grants in flight in a Courier, until courier_free.
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

#include "nodes/pg_list.h"
#include "utils/timestamp.h"

#include "common/monotonic.h"
#include "common/work_unit.h"

/* What one round did. */
typedef struct DeliveryCount
{
	int64 completed;
	int64 failed;
	int64 in_doubt;
	int64 deferred; /* attempts that were not applied: pending again */
} DeliveryCount;

/* Sessions with gateways, kept open from round to round. */
typedef struct Courier Courier;

/*
 * Makes a courier in the current memory context; the context's reset or
 * deletion closes its connections and releases its sender locks.
 */
extern Courier *courier_create(const WorkUnit *unit);
extern void     courier_free(Courier *courier);

/*
 * What *stop can ask for: 0 nothing; STOP_NOW to be done soon;
 * STOP_WHEN_ANSWERED to wait for what is in flight as long as the gateways'
 * time-outs allow.
 */
#define STOP_NOW 1
#define STOP_WHEN_ANSWERED 2

/*
 * Delivers what is due at every gateway whose sender lock this process can
 * get, until nothing is due or *stop (may be NULL) is not 0: then nothing
 * more is claimed, what is in flight is awaited for at most grace_ms after
 * STOP_NOW, and the rest is settled as in doubt.  Adds to *count.  Returns the moment at which
 * to call again (back-off, probe, a gateway that another process serves; while
 * anything is open, RUNS_BELIEVED milliseconds ahead at most), or MONO_NEVER if
 * nothing is open.  After an error the courier can only be freed.
 */
extern MonoTime courier_round(Courier *courier, volatile sig_atomic_t *stop, int grace_ms,
							  DeliveryCount *count);

/*
 * Of a round that has ended: tells the client in a notice, per gateway, why
 * grants that are due were not sent.
 */
extern void courier_explain(const Courier *courier);

/*
 * Looks, in one short transaction of the unit given, whether there are
 * undelivered runs or the gateways have changed.  If not, and the last round
 * found nothing pending, another one would find nothing to do.
 */
extern bool courier_finds_work(Courier *courier, const WorkUnit *unit);

/* Registers the settings of delivery; called once by _PG_init. */
extern void delivery_define_settings(void);

#endif /* QM_DELIVERY_H */
