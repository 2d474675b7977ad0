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

struct Lane;
struct Grant;

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
extern void tally_claimed(struct Lane *lane, const struct Grant *grant);

/* The row of a grant was settled as its verdict says. */
extern void tally_settled(struct Lane *lane, const struct Grant *grant);

/* A grant that another sender had left is in doubt, or pending. */
extern void tally_left_over(struct Lane *lane, int64 id, bool is_in_doubt);

/*
 * Writes what was collected for the lane; nothing, if it changes no grant.
 * fold: where something is written, takes up what others have written of its
 * gateway, too.
 */
extern void tally_write(struct Lane *lane, bool fold);

#endif /* QM_TALLY_H */
