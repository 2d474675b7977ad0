/*
 * doubts.h
 *		What reconciling needs of the tables: balances before, and grants in doubt.
 */
#ifndef QM_DOUBTS_H
#define QM_DOUBTS_H

#include "postgres.h"

#include "nodes/pg_list.h"

#include "delivery/sender.h"

/*
 * Writes down the balances of the grants in sender->read, each guarded by the
 * number of the claim, and notes in every grant whether its row was found.
 * They stay there until the transaction has been committed: then doubts_finish.
 */
extern void doubts_record(Sender *sender);

/*
 * The transaction was committed: what was written down may be sent.  A grant
 * whose row was not found goes to those that are done.
 */
extern void doubts_finish(Sender *sender);

/*
 * Gives the sender the grants in doubt that it is to prove and that it does not
 * know yet.  The runs must have been examined since.
 */
extern void doubts_load(Sender *sender, List *runs);

/*
 * Forgets those whose rows are in doubt no more, since an operator has decided
 * about them, once in a while: their users have no longer to wait.
 */
extern void doubts_check(Sender *sender);

#endif /* QM_DOUBTS_H */
