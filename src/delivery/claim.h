/*
 * claim.h
 *		From pending to processing.
 */
#ifndef QM_CLAIM_H
#define QM_CLAIM_H

#include "postgres.h"

#include "nodes/pg_list.h"

#include "delivery/sender.h"

/*
 * Makes sure the sender has candidates: pending grants of its gateway that are
 * due, oldest first.  False: the search came to the end of the runs.
 */
extern bool claim_search(Sender *sender, List *runs);

/*
 * Claims up to limit candidates.  Those that are still pending become
 * `processing` and are put into sender->claimed; they must not be sent before
 * the transaction has been committed.  Returns how many.
 */
extern int claim_batch(Sender *sender, int limit);

#endif /* QM_CLAIM_H */
