/*
 * grant_queue.h
 *		The grants of one gateway, each in one state.
 *
 * A grant changes its state by grant_move() alone, which keeps a list and its
 * count per state; every other figure is a sum of counts.  Never are two
 * grants of one user under way: the others wait behind the first, in the order
 * in which they were claimed.
 *
 * Where the policy is to reconcile, a grant takes a longer way: its balance is
 * asked for and written down before it is sent.  Its user gets nothing more
 * until it is settled, and if its answer was lost, not until that was
 * reconciled or nothing can arrive any more.
 *
 *	                                              AWAITING_VERDICT
 *	                                                ^         |
 *	BEHIND --> READY ----------------------> IN_FLIGHT ----> DONE
 *	             |                                ^            ^
 *	          SAMPLING --> SAMPLED --> READY_TO_SEND           |
 *	             |            ^                                |
 *	          SAMPLE_REFUSED -+      UNRESOLVED --> RECONCILING
 *
 * What was not sent can go back to its row at any time: it is DONE, unsent.
 *
 * Memory: lists and tables in the context given; a grant is in the queue's
 * until it is taken out.
 */
#ifndef QM_GRANT_QUEUE_H
#define QM_GRANT_QUEUE_H

#include "postgres.h"

#include "lib/ilist.h"

#include "common/monotonic.h"
#include "delivery/grant.h"

struct queueduser_hash;

typedef struct GrantList
{
	dlist_head grants;
	int        count;
} GrantList;

typedef struct GrantQueue
{
	MemoryContext           memory;
	GrantList               lists[GRANT_STATE_COUNT];
	struct queueduser_hash *users;      /* with grants that hold others back */
	MonoTime                done_since; /* since when something is to be settled */
} GrantQueue;

/* Chooses grants. */
typedef bool (*GrantMatch)(const Grant *grant, const void *argument);

extern void grant_queue_init(GrantQueue *queue, MemoryContext memory);

/* How many are in a state. */
static inline int
grants_in(const GrantQueue *queue, GrantState state)
{
	return queue->lists[state].count;
}

/* The oldest grant of a state, and the one after another; NULL: there is none. */
extern Grant *grants_first(GrantQueue *queue, GrantState state);
extern Grant *grants_next(GrantQueue *queue, Grant *grant);

extern int  grants_unsent(const GrantQueue *queue);
extern int  grants_sampled(const GrantQueue *queue);
extern bool grants_claimed(const GrantQueue *queue);

/* A loop over the grants of a state, oldest first, each of which may be moved or freed in it. */
#define grants_foreach(grant, queue, state)                                                        \
	for (Grant *grant = grants_first(queue, state), *grant##_next = grants_next(queue, grant);     \
		 grant != NULL; grant = grant##_next, grant##_next = grants_next(queue, grant))

extern void grant_move(GrantQueue *queue, Grant *grant, GrantState state);
extern void grant_add(GrantQueue *queue, Grant *grant);
extern void grant_add_unresolved(GrantQueue *queue, Grant *grant);
extern void grant_remove(GrantQueue *queue, Grant *grant);
extern void grant_answered(GrantQueue *queue, Grant *grant, DoubtPolicy policy);
extern void grant_return(GrantQueue *queue, Grant *grant);
extern void grant_settled(GrantQueue *queue, Grant *grant);
extern void grants_return_unsent(GrantQueue *queue);
extern void grants_return_matching(GrantQueue *queue, GrantMatch matches, const void *argument);

extern bool user_is_unresolved(const GrantQueue *queue, char *user_id);
extern bool grant_is_known_unresolved(GrantQueue *queue, char *user_id, int64 id);

#endif /* QM_GRANT_QUEUE_H */
