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

extern void prepare_courier(const WorkerOrder *order, Place *place);

extern void keep_courier_running(void);

extern void ask_courier(void);

extern void retry_courier(void);

extern bool courier_broke(void);

extern bool courier_has_delivered(void);

extern MonoTime courier_wanted(void);

extern void dismiss_courier(const volatile sig_atomic_t *stop);

#endif /* QM_COURIER_CHILD_H */
