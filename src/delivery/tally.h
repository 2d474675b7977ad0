/*
 * tally.h
 *		Counts what a turn makes of grants, so that nobody has to read all of them
 *		to know how many wait, have failed or are in doubt.
 *
 * The figures are collected while a turn's transaction changes rows, and
 * written by it at its end: they are true whatever becomes of it.  Rows of
 * quota_execute come first, then these: quota_internal.recount_grants() relies
 * on it.
 */
#ifndef QM_TALLY_H
#define QM_TALLY_H

#include "postgres.h"

#include "nodes/pg_list.h"

#include "delivery/grant.h"

/* What the transaction that is open has changed; lists are in its memory. */
typedef struct Tally
{
	int64 pending;    /* by how many there are more, or less */
	int64 processing; /* the same */
	int64 completed;
	int64 failed;
	int64 in_doubt;
	int64 deferred;
	List *amounts;  /* CompletedAmounts: of the completed ones */
	List *troubled; /* TroubledGrants: have become so */
	List *mended;   /* TroubledGrants: are so no more */
} Tally;

/* A grant was claimed. */
extern void tally_claimed(Tally *tally, const Grant *grant);

/* The row of a grant was settled as its verdict says. */
extern void tally_settled(Tally *tally, const Grant *grant);

/* A grant that another sender had left is in doubt, or pending. */
extern void tally_left_over(Tally *tally, int64 id, bool is_in_doubt);

/*
 * Writes what was collected for a gateway (NULL: it is gone); nothing, if no grant
 * changes.  fold: where something is written, takes up what others have written
 * of the gateway, too.
 */
extern void tally_write(const Tally *tally, const char *gateway, bool fold);

#endif /* QM_TALLY_H */
