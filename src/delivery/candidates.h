/*
 * candidates.h
 *		The search for pending grants of one gateway: how far it is, and what it
 *		has found.
 *
 * claim.c searches and claims; others ask how far it is, and begin it anew.
 */
#ifndef QM_CANDIDATES_H
#define QM_CANDIDATES_H

#include "postgres.h"

#include "utils/timestamp.h"

#include "common/monotonic.h"

/* The key of a pending grant that was found and not yet claimed. */
typedef struct Candidate
{
	int32       strategy_id;
	int32       revision;
	TimestampTz scheduled_time;
	text       *user_id;
	int32       hash;     /* of user_id, */
	int32       position; /* and its place by id: where the table is distributed */
} Candidate;

typedef struct CandidateSearch
{
	MemoryContext memory; /* of the candidates */
	Candidate    *candidates;
	int           count;
	int           next;
	int64         searched_id;  /* no grant up to this one is left to be found */
	bool          exhausted;    /* it came to the end of the pending work */
	MonoTime      rest_until;   /* it found only users who have to wait */
	MonoTime      restart_time; /* it begins anew, for what has fallen due behind it */
} CandidateSearch;

extern void candidates_init(CandidateSearch *search, MemoryContext memory);
extern void candidates_restart(CandidateSearch *search);

/* How many candidates are left to be claimed. */
static inline int
candidates_left(const CandidateSearch *search)
{
	return search->count - search->next;
}

#endif /* QM_CANDIDATES_H */
