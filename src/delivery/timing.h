/*
 * timing.h
 *		How long things last in delivery.
 *
 * What operators can choose is a setting.
 */
#ifndef QM_DELIVERY_TIMING_H
#define QM_DELIVERY_TIMING_H

/* circuit.c: what waits for a gateway that did not answer is sent within two seconds of its return. */
#define CLOSED_CHECK_BASE_MS 250
#define CLOSED_CHECK_MAX_MS 1400

/* A gateway that refuses us has to be mended by a person. */
#define MISCONFIGURED_CHECK_BASE_MS 5000
#define MISCONFIGURED_CHECK_MAX_MS 60000

/* A check is followed by another one: it may hang although its gateway has returned. */
#define CHECK_PATIENCE_MS 1000

/*
 * Longest pauses of a gateway that answers queries and does not take grants;
 * the second where each attempt leaves one in doubt, and a write check does
 * not show whether they are taken.
 */
#define FAULT_PAUSE_MAX_MS 60000
#define LOST_PAUSE_MAX_MS 600000

/* delivery_loop.c: between polls, and between polls at least, however often the process is woken. */
#define POLL_INTERVAL_MS 1000
#define POLL_INTERVAL_MIN_MS 50

/* Between loops at least: what one did not achieve, the next will not at once. */
#define LOOP_PAUSE_MIN_MS 100

/* A gateway that another process serves is tried again after this. */
#define SERVED_ELSEWHERE_MS 5000

/* Longest wait for answers: of one gateway, of several, and when the caller cannot wait. */
#define ANSWER_WAIT_MS 100
#define ANSWER_WAIT_SEVERAL_MS 20
#define LEAVE_GRACE_MS 1000

/* While a pause is being committed nothing is sent, and that is tried again after this. */
#define PAUSE_WAIT_MS 5

/* batch.c: answers must be read before their requests time out, so locks are not waited for long. */
#define BATCH_LOCK_TIMEOUT "500ms"

/* An answer may wait so long for others to be settled with. */
#define SETTLE_WAIT_MS 100

/* The search begins anew after so much work, and after so many times what that takes. */
#define SEARCH_AGAIN_MS 3000
#define SEARCH_AGAIN_SHARE 50

/* It is a fault if a due grant was not claimed for so long. */
#define NEGLECTED_MS 60000

/* settle.c: the next health check is shown as no later than this. */
#define CHECK_SHOWN_MAX_MS (INT64CONST(24) * 3600 * 1000)

/* requests.c: without an answer for so long a gateway seems to hang. */
#define RESPONSIVE_MS 1000

/* grant.c: most requests that were applied are so this long after their answer was lost. */
#define FIRST_EVIDENCE_MS 1000

/* reconcile.c: a balance that could not be read is asked for again after this. */
#define EVIDENCE_RETRY_MS 10000

/* The longest Retry-After that is honoured. */
#define RETRY_AFTER_MAX_MS 3600000

/* Retry-After (seconds; 0 or less: none) in milliseconds, within the limit. */
static inline int64
retry_after_ms(double retry_after)
{
	return retry_after > 0 ? (int64) (Min(retry_after, RETRY_AFTER_MAX_MS / 1000.0) * 1000) : 0;
}

/* pending_work.c: the pending work of a run is read again after so long in any case. */
#define PENDING_READ_MIN_MS 5000
#define PENDING_READ_MAX_MS 60000

/* unresolved.c: grants in doubt are compared with their rows so often. */
#define UNRESOLVED_READ_MS 1000

/* What is read again and again takes no more than one part in so many of the time. */
#define READ_COST_SHARE 50

/* claim.c: users who have to wait are searched for again after this. */
#define WAITING_USERS_REST_MS 1000

#endif /* QM_DELIVERY_TIMING_H */
