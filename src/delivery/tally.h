/*
 * tally.h
 *		Counts what a batch makes of grants, so that it is known without reading
 *		all of them how many wait, have failed or are in doubt.
 *
 * The figures are collected while a transaction changes rows, and written by it
 * at its end: they are true whatever becomes of it.  Rows of quota_execute come
 * first, then these: quota_internal.recount_grants() relies on it.
 */
#ifndef QM_TALLY_H
#define QM_TALLY_H

#include "postgres.h"

#include "common/statement.h"
#include "delivery/delivery.h"
#include "delivery/grant.h"

/* What the transaction that is open has changed; rows are in its memory, NULL: none. */
typedef struct Tally
{
	int64         pending;    /* by how many there are more, or less */
	int64         processing; /* the same */
	DeliveryCount outcomes;
	int64         refused_in_doubt; /* when sent again, and in doubt as before */
	RowArrays    *amounts;          /* of the completed ones */
	RowArrays    *troubled;         /* grants that have failed or are in doubt, with their status */
	RowArrays    *settled;          /* grants that were so and are not any more */
} Tally;

extern void tally_claimed(Tally *tally, const Grant *grant);
extern void tally_settled(Tally *tally, const Grant *grant);
extern void tally_orphan_unsent(Tally *tally);
extern void tally_orphan_in_doubt(Tally *tally, int64 id);
extern void tally_count(const Tally *tally, DeliveryCount *count);
extern bool tally_write(const Tally *tally, const char *gateway);
extern void tally_fold(const char *gateway);

#endif /* QM_TALLY_H */
