/*
 * courier_child.h
 *		Of a scheduler: the courier of its database, which it keeps running.
 */
#ifndef QM_COURIER_CHILD_H
#define QM_COURIER_CHILD_H

#include "postgres.h"

#include <signal.h>

#include "common/monotonic.h"
#include "worker/place.h"
#include "worker/process.h"

/* To be called first.  A courier does not outlive this process from now on. */
extern void prepare_courier(const WorkerOrder *order, Place *place);

/* Sees to it that a courier runs, or will after a while. */
extern void keep_courier_running(void);

/* There is something to deliver. */
extern void ask_courier(void);

/* What kept it from working may have been mended: it is started again at once. */
extern void retry_courier(void);

/* True once after a courier ended by itself. */
extern bool courier_broke(void);

/*
 * True if it has delivered what it could, up to what it was last asked for, and
 * is in no hurry.
 */
extern bool courier_has_delivered(void);

/* When it wants to look again, or to be started again; MONO_NEVER: nothing is pending. */
extern MonoTime courier_wanted(void);

/*
 * Ends the courier: it claims nothing more and waits for answers that are on
 * their way, for half a minute at most, unless *stop becomes true.
 */
extern void dismiss_courier(const volatile sig_atomic_t *stop);

#endif /* QM_COURIER_CHILD_H */
