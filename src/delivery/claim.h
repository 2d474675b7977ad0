/*
 * claim.h
 *		From pending to processing.
 *
 * In the transaction of a batch, with SPI connected.
 */
#ifndef QM_CLAIM_H
#define QM_CLAIM_H

#include "postgres.h"

#include "delivery/sender.h"

extern bool claim_search(Sender *sender, List *runs);
extern int  claim_batch(Sender *sender, int limit);

#endif /* QM_CLAIM_H */
