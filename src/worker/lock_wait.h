/*
 * lock_wait.h
 *		Of the launcher: schedulers that wait for a lock of somebody while other
 *		databases wait for their place.
 */
#ifndef QM_LOCK_WAIT_H
#define QM_LOCK_WAIT_H

/*
 * Cancels what a scheduler waits for since LOCK_PATIENCE_MS, so that its turn
 * can end; it is tried again in the next one.
 */
#define LOCK_PATIENCE_MS (10 * 1000)
extern void cancel_lock_waits(void);

#endif /* QM_LOCK_WAIT_H */
