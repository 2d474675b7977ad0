/*
 * settle.h
 *		From processing to what became of it.
 */
#ifndef QM_SETTLE_H
#define QM_SETTLE_H

#include "postgres.h"

#include "nodes/pg_list.h"

#include "delivery/delivery.h"
#include "delivery/sender.h"

/*
 * Writes the verdicts of sender->done, each guarded by the number of the
 * claim, and notes in every grant whether its row was found.  The grants stay
 * in the list until the transaction has been committed: then settle_finish.
 */
extern void settle_done(Sender *sender);

/*
 * The transaction was committed: counts what was settled, frees the grants,
 * and warns about those whose row was not found.
 */
extern void settle_finish(Sender *sender, DeliveryCount *count);

/*
 * This process has just become the sender of the sender's gateway.  Grants of
 * another one that are `processing` were never answered, or the answer was
 * never recorded: they become in doubt.  The runs must have been examined
 * since.  Returns how many.
 */
extern int64 settle_leftovers(Sender *sender, List *runs);

/*
 * Writes the state of the sender's gateway to its row.  False: someone is at the
 * row right now.
 */
extern bool settle_state(Sender *sender);

#endif /* QM_SETTLE_H */
