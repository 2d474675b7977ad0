/*
 * sender_lock.h
 *		One sender per gateway.
 *
 * Only the session that holds the lock claims and settles grants of the
 * gateway, and may conclude that a grant another one left `processing` will
 * never be answered.  It is an advisory lock of the session, so it ends with
 * its process, whatever ends that.
 */
#ifndef QM_SENDER_LOCK_H
#define QM_SENDER_LOCK_H

#include "postgres.h"

/* First key of the lock, "qmgw"; the second is the gateway's id. */
#define SENDER_LOCK_CLASS 0x716d6777

extern bool sender_lock_try(int32 gateway_id);
extern void sender_lock_release(int32 gateway_id);

#endif /* QM_SENDER_LOCK_H */
