/*
 * trouble.h
 *		What went wrong last with the work of a scheduler or courier, kept in
 *		quota_worker for those who look there later.
 *
 * Written by whoever does the work, workers and procedures alike, and only
 * when something went wrong.
 */
#ifndef QM_TROUBLE_H
#define QM_TROUBLE_H

#include "postgres.h"

#include "delivery/delivery.h"

/* Kinds of work, as worker_status names them. */
#define TROUBLE_SCHEDULER "scheduler"
#define TROUBLE_COURIER "courier"

/*
 * Writes it, in the transaction that is open; SPI is connected.  Raises an
 * error if it cannot.
 */
extern void trouble_write(const char *kind, const char *message);

/*
 * Writes it in a transaction of its own.  That it cannot be written does not
 * matter; only a cancelled query and what unit->begin finds are raised.
 */
extern void trouble_note(const WorkUnit *unit, const char *kind, const char *message);

/* Forgets it, in a transaction of its own: it is over. */
extern void trouble_clear(const WorkUnit *unit, const char *kind);

#endif /* QM_TROUBLE_H */
