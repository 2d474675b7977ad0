/*
 * timing.h
 *		How long things last in delivery.
 *
 * What operators can choose is a setting (settings.h).
 */
#ifndef QM_DELIVERY_TIMING_H
#define QM_DELIVERY_TIMING_H

/*
 * circuit.c: health checks.
 */

/* A gateway that does not answer: what waits is sent within two seconds of its return. */
#define CLOSED_CHECK_BASE_MS 250
#define CLOSED_CHECK_MAX_MS 1400

/* A gateway that refuses us has to be mended by a person. */
#define MISCONFIGURED_CHECK_BASE_MS 5000
#define MISCONFIGURED_CHECK_MAX_MS 60000

/*
 * A check that is not answered is followed by another one, since it may hang
 * for the whole time-out although its gateway has returned.
 */
#define CHECK_PATIENCE_MS 1000

/*
 * Longest pauses of a gateway that answers queries and does not take grants;
 * the second where each attempt leaves one in doubt, and a write check does
 * not tell whether they are taken.
 */
#define FAULT_PAUSE_MAX_MS 60000
#define LOST_PAUSE_MAX_MS 600000

/*
 * requests.c: answers.
 */

/* Without an answer for so long a gateway seems to hang. */
#define RESPONSIVE_MS 1000

/*
 * grant.c, reconcile.c: grants whose answer was lost.
 */

/* Most requests that were applied are applied so long after their answer was lost. */
#define FIRST_EVIDENCE_MS 1000

/* A balance that could not be read is asked for again after this. */
#define EVIDENCE_RETRY_MS 10000

/* The longest Retry-After that is honoured. */
#define RETRY_AFTER_MAX_MS 3600000

#endif /* QM_DELIVERY_TIMING_H */
