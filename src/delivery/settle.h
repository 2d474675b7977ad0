/*
 * settle.h
 *		From processing to what became of it.
 *
 * In the transaction of a batch, with SPI connected, but for settle_finish,
 * which follows its commit.
 */
#ifndef QM_SETTLE_H
#define QM_SETTLE_H

#include "postgres.h"

#include "nodes/pg_list.h"

#include "delivery/sender.h"

extern void settle_done(Sender *sender);
extern void settle_finish(Sender *sender);
extern void settle_orphaned(Sender *sender, List *runs);
extern bool settle_state(Sender *sender);

#endif /* QM_SETTLE_H */
