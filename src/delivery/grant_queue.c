/*
 * grant_queue.c
 *		The grants of one gateway, each in one state.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "utils/memutils.h"

#include "delivery/grant_queue.h"

/* A user with claimed grants that hold others back, or with grants in doubt. */
typedef struct QueuedUser
{
	char  *user;       /* a copy */
	Grant *last;       /* of the claimed ones, the first of which is under way; NULL: none */
	int    unresolved; /* how many may have been applied or not */
	uint32 hash;
	char   status;
} QueuedUser;

#define SH_PREFIX queueduser
#define SH_ELEMENT_TYPE QueuedUser
#define SH_KEY_TYPE char *
#define SH_KEY user
#define SH_HASH_KEY(table, key) hash_bytes((const unsigned char *) (key), strlen(key))
#define SH_EQUAL(table, a, b) (strcmp((a), (b)) == 0)
#define SH_STORE_HASH
#define SH_GET_HASH(table, element) (element)->hash
#define SH_SCOPE static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

/* Makes an empty queue. */
void
grant_queue_init(GrantQueue *queue, MemoryContext memory)
{
	int state;

	queue->memory = memory;
	for (state = 0; state < GRANT_STATE_COUNT; state++)
	{
		dlist_init(&queue->lists[state].grants);
		queue->lists[state].count = 0;
	}
	queue->users = queueduser_create(memory, 256, NULL);
}

/* The oldest grant of a state; NULL: there is none. */
Grant *
grants_first(GrantQueue *queue, GrantState state)
{
	dlist_head *list = &queue->lists[state].grants;

	return dlist_is_empty(list) ? NULL : dlist_head_element(Grant, node, list);
}

/* The grant that came into the same state after this one; NULL: there is none. */
Grant *
grants_next(GrantQueue *queue, Grant *grant)
{
	dlist_head *list = grant != NULL ? &queue->lists[grant->state].grants : NULL;

	if (grant == NULL || !dlist_has_next(list, &grant->node))
		return NULL;
	return dlist_container(Grant, node, dlist_next_node(list, &grant->node));
}

/* How many have their balance read before they are sent, and are not yet sent. */
int
grants_sampled(const GrantQueue *queue)
{
	return grants_in(queue, GRANT_SAMPLING) + grants_in(queue, GRANT_SAMPLED) +
		   grants_in(queue, GRANT_SAMPLE_REFUSED) + grants_in(queue, GRANT_READY_TO_SEND);
}

/* How many are claimed and not yet sent. */
int
grants_unsent(const GrantQueue *queue)
{
	return grants_in(queue, GRANT_BEHIND) + grants_in(queue, GRANT_READY) + grants_sampled(queue);
}

/* True if there are any that were claimed, or are to be settled. */
bool
grants_claimed(const GrantQueue *queue)
{
	return grants_unsent(queue) > 0 || grants_in(queue, GRANT_IN_FLIGHT) > 0 ||
		   grants_in(queue, GRANT_AWAITING_VERDICT) > 0 || grants_in(queue, GRANT_DONE) > 0;
}

/*
 * True if a grant in this state lets its user have no other one, claimed or
 * not, until it is known what became of it.
 */
static bool
bars_user(const Grant *grant, GrantState state)
{
	if (state == GRANT_APART)
		return false;
	return grant->in_doubt ||
		   (state == GRANT_DONE && grant->outcome.sent == MAYBE_SENT && grant->holds_user);
}

/* The entry of a user, who gets one. */
static QueuedUser *
add_user(GrantQueue *queue, char *user_id)
{
	QueuedUser *user = queueduser_lookup(queue->users, user_id);
	bool        found;

	if (user != NULL)
		return user;
	user = queueduser_insert(queue->users, MemoryContextStrdup(queue->memory, user_id), &found);
	user->last = NULL;
	user->unresolved = 0;
	return user;
}

/* The entry of a user, who has one. */
static QueuedUser *
user_of(GrantQueue *queue, const Grant *grant)
{
	return queueduser_lookup(queue->users, grant->key.user_id);
}

/* Drops the entry of a user of whom nothing is left. */
static void
drop_if_idle(GrantQueue *queue, QueuedUser *user)
{
	char *copy = user->user;

	if (user->last != NULL || user->unresolved > 0)
		return;
	queueduser_delete(queue->users, copy);
	pfree(copy);
}

/*
 * True if the user gets nothing until it is known what became of an earlier
 * grant.
 */
bool
user_is_unresolved(const GrantQueue *queue, char *user_id)
{
	const QueuedUser *user = queueduser_lookup(queue->users, user_id);

	return user != NULL && user->unresolved > 0;
}

/* Moves a grant to the end of the list of a state; GRANT_APART: to none. */
void
grant_move(GrantQueue *queue, Grant *grant, GrantState state)
{
	bool        barred = bars_user(grant, grant->state);
	bool        bars = bars_user(grant, state);
	QueuedUser *user;

	if (bars && !barred)
		add_user(queue, grant->key.user_id)->unresolved++;
	if (grant->state != GRANT_APART)
	{
		dlist_delete(&grant->node);
		queue->lists[grant->state].count--;
	}
	if (state == GRANT_DONE && grants_in(queue, GRANT_DONE) == 0)
		queue->done_since = mono_now();
	if (state != GRANT_APART)
	{
		dlist_push_tail(&queue->lists[state].grants, &grant->node);
		queue->lists[state].count++;
	}
	grant->state = state;
	if (barred && !bars)
	{
		user = user_of(queue, grant);
		user->unresolved--;
		drop_if_idle(queue, user);
	}
}

/*
 * Takes a grant that was claimed, durably: ready, or behind another one of its
 * user.
 */
void
grant_add(GrantQueue *queue, Grant *grant)
{
	QueuedUser *user = add_user(queue, grant->key.user_id);
	GrantState  state = user->last != NULL ? GRANT_BEHIND : GRANT_READY;

	if (user->last != NULL)
		user->last->behind = grant;
	user->last = grant;
	grant_move(queue, grant, state);
}

/* Takes a grant whose row is in doubt, to be reconciled. */
void
grant_add_unresolved(GrantQueue *queue, Grant *grant)
{
	grant_set_message(grant, NULL);
	grant->in_doubt = true;
	grant->earlier = MAYBE_SENT;
	grant->outcome.sent = NOT_SENT;
	grant->outcome.failed_attempt = grant->outcome.names_parameters = false;
	grant->holds_user = grant->row_found = false;
	grant_move(queue, grant, GRANT_UNRESOLVED);
}

/* Takes a grant out and frees it. */
void
grant_remove(GrantQueue *queue, Grant *grant)
{
	grant_move(queue, grant, GRANT_APART);
	grant_free(grant);
}

/* The next grant of this user may go. */
static void
release_next(GrantQueue *queue, Grant *grant)
{
	Grant      *next = grant->behind;
	QueuedUser *user = user_of(queue, grant);

	if (next != NULL)
	{
		grant->behind = NULL;
		grant_move(queue, next, GRANT_READY);
		return;
	}
	user->last = NULL;
	drop_if_idle(queue, user);
}

/* A grant and those behind it go back to their rows, unsent. */
static void
return_chain(GrantQueue *queue, Grant *grant)
{
	while (grant != NULL)
	{
		Grant *next = grant->behind;

		grant->behind = NULL;
		grant->outcome.verdict = VERDICT_UNSENT;
		grant_move(queue, grant, GRANT_DONE);
		grant = next;
	}
}

/* Those behind a grant go back. */
static void
return_behind(GrantQueue *queue, Grant *grant)
{
	if (grant->behind == NULL)
		return;
	user_of(queue, grant)->last = grant;
	return_chain(queue, grant->behind);
	grant->behind = NULL;
}

/*
 * A grant that was not sent, the first of its user, goes back with those behind
 * it.
 */
void
grant_return(GrantQueue *queue, Grant *grant)
{
	QueuedUser *user = user_of(queue, grant);

	return_chain(queue, grant);
	user->last = NULL;
	drop_if_idle(queue, user);
}

/* Everything that was not sent goes back. */
void
grants_return_unsent(GrantQueue *queue)
{
	static const GrantState unsent[] = {GRANT_READY, GRANT_READY_TO_SEND, GRANT_SAMPLED};
	static const GrantState others[] = {GRANT_SAMPLING, GRANT_SAMPLE_REFUSED, GRANT_IN_FLIGHT,
										GRANT_AWAITING_VERDICT, GRANT_DONE};
	size_t                  i;

	for (i = 0; i < lengthof(unsent); i++)
		while (grants_in(queue, unsent[i]) > 0)
			grant_return(queue, grants_first(queue, unsent[i]));
	for (i = 0; i < lengthof(others); i++)
		grants_foreach (grant, queue, others[i])
			return_behind(queue, grant);
}

/* True if a grant or one of those behind it matches. */
static bool
chain_matches(const Grant *grant, GrantMatch matches, const void *argument)
{
	for (; grant != NULL; grant = grant->behind)
		if (matches(grant, argument))
			return true;
	return false;
}

/*
 * What was not sent and matches goes back, and with it all that its user waits
 * for.  One whose balance is being asked for follows when that is answered.
 */
void
grants_return_matching(GrantQueue *queue, GrantMatch matches, const void *argument)
{
	static const GrantState unsent[] = {GRANT_READY, GRANT_READY_TO_SEND, GRANT_SAMPLED,
										GRANT_SAMPLE_REFUSED};
	static const GrantState others[] = {GRANT_SAMPLING, GRANT_IN_FLIGHT, GRANT_AWAITING_VERDICT,
										GRANT_DONE};
	size_t                  i;

	for (i = 0; i < lengthof(unsent); i++)
		grants_foreach (grant, queue, unsent[i])
			if (chain_matches(grant, matches, argument))
				grant_return(queue, grant);
	for (i = 0; i < lengthof(others); i++)
		grants_foreach (grant, queue, others[i])
			if (chain_matches(grant->behind, matches, argument))
				return_behind(queue, grant);
	grants_foreach (grant, queue, GRANT_SAMPLING)
		grant->is_held |= matches(grant, argument);
}

/*
 * A grant in flight was answered, or its answer was lost.  The next one of its
 * user may go: under reconcile, once this one is settled.
 */
void
grant_answered(GrantQueue *queue, Grant *grant, DoubtPolicy policy)
{
	if (policy == DOUBT_RECONCILE)
		grant->holds_user = true;
	else
		release_next(queue, grant);
}

/*
 * A grant was settled, durably: its user may have the next one, unless it is
 * not known whether this one was applied.
 */
void
grant_settled(GrantQueue *queue, Grant *grant)
{
	if (!grant->holds_user)
		return;
	if (grant->outcome.sent == MAYBE_SENT)
		return_behind(queue, grant);
	release_next(queue, grant);
}

/*
 * True if this grant of a user is here to be reconciled, or to be settled as
 * such.  Cheap for a user without such grants.
 */
bool
grant_is_known_unresolved(GrantQueue *queue, char *user_id, int64 id)
{
	static const GrantState states[] = {GRANT_UNRESOLVED, GRANT_RECONCILING, GRANT_DONE};
	size_t                  i;

	if (!user_is_unresolved(queue, user_id))
		return false;
	for (i = 0; i < lengthof(states); i++)
		grants_foreach (grant, queue, states[i])
			if (grant->id == id && bars_user(grant, states[i]))
				return true;
	return false;
}
