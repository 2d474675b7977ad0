/*
 * requests.h
 *		The wire: requests of a sender and their answers.
 *
 * No transaction is open.  What is learnt stays in the sender's queue until a
 * batch settles it.
 */
#ifndef QM_REQUESTS_H
#define QM_REQUESTS_H

#include "postgres.h"

#include "common/identity.h"
#include "delivery/sender.h"

extern bool requests_wait(const Sender *sender);
extern void requests_send(Sender *sender, const Identity *installation);
extern bool requests_poll(Sender *sender, int timeout_ms);
extern int  requests_throttled_ms(const Sender *sender);

#endif /* QM_REQUESTS_H */
