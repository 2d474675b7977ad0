/*
 * hold.h
 *		What a process does about pauses: whose grants it holds back.
 *
 * In a batch's transaction, before anything is claimed.
 */
#ifndef QM_HOLD_H
#define QM_HOLD_H

#include "delivery/senders.h"

extern void hold_update(Delivery *delivery);
extern void hold_runs(Delivery *delivery);

#endif /* QM_HOLD_H */
