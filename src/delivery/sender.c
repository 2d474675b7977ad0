/*
 * lane.c
 *		The way of grants to one gateway: claimed, sent, answered.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "utils/memutils.h"

#include "delivery/lane.h"
#include "delivery/sender_lock.h"
#include "delivery/settings.h"

/* The claimed grants of a user; the first is ready, in flight or blocked. */
typedef struct UserQueue
{
	const char *user; /* of the first grant */
	Grant      *last;
	uint32      hash;
	char        status;
} UserQueue;

#define SH_PREFIX userqueue
#define SH_ELEMENT_TYPE UserQueue
#define SH_KEY_TYPE const char *
#define SH_KEY user
#define SH_HASH_KEY(table, key) hash_bytes((const unsigned char *) (key), strlen(key))
#define SH_EQUAL(table, a, b) (strcmp((a), (b)) == 0)
#define SH_STORE_HASH
#define SH_GET_HASH(table, element) (element)->hash
#define SH_SCOPE static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

/*
 * The moment of a time at which a policy was changed: at most so long ago as
 * the wall clock says, and not ahead, whoever has set that since.
 */
static MonoTime
policy_moment(TimestampTz since)
{
	TimestampTz now = GetCurrentTimestamp();

	return mono_at(Min(since, now), now);
}

Lane *
lane_create(GatewayRow *row, MemoryContext memory)
{
	Lane *lane = MemoryContextAllocZero(memory, sizeof(Lane));

	lane->memory = AllocSetContextCreate(memory, "quota_manager lane", ALLOCSET_DEFAULT_SIZES);
	lane->gateway_id = row->id;
	lane->row = row;
	lane->reopen = true;
	dlist_init(&lane->ready);
	dlist_init(&lane->reading);
	dlist_init(&lane->read);
	dlist_init(&lane->armed);
	dlist_init(&lane->flying);
	dlist_init(&lane->blocked);
	dlist_init(&lane->done);
	dlist_init(&lane->doubts);
	dlist_init(&lane->proving);
	lane_begin_turn(lane);
	lane->probe_token.kind = TOKEN_PROBE;
	lane->write_probe_token.kind = TOKEN_WRITE_PROBE;
	lane->next_proof_time = MONO_NEVER;
	lane->policy_seen = DT_NOBEGIN;
	lane->policy_moment = policy_moment(row->doubt_policy_since);
	lane->doubts_check = mono_now();
	lane->rest_until = MONO_PAST;
	lane->restart_time = MONO_NEVER;
	lane->due_since = MONO_NEVER;
	lane->tokens_time = MONO_PAST;
	lane->window = WINDOW_MAX_SIZE;
	lane->users = userqueue_create(lane->memory, 256, NULL);
	lane->candidate_memory =
		AllocSetContextCreate(lane->memory, "quota_manager candidates", ALLOCSET_DEFAULT_SIZES);
	lane->exhausted = true;
	lane->state_tried = MONO_PAST;
	lane_take_state(lane);
	return lane;
}

void
lane_take_state(Lane *lane)
{
	const char *state = lane->row->state;

	if (lane->state != GATEWAY_STATE_OPEN ||
		strcmp(state, gateway_state_name(GATEWAY_STATE_OPEN)) == 0)
		return;
	lane->state = strcmp(state, gateway_state_name(GATEWAY_STATE_MISCONFIGURED)) == 0
					  ? GATEWAY_STATE_MISCONFIGURED
					  : GATEWAY_STATE_CLOSED;
	lane->logged_state = lane->state;
	lane->gate = GATE_SHUT;
	lane->window = 1;
	lane->probe_time = MONO_PAST;
}

void
lane_close(Lane *lane)
{
	gateway_close(lane->session);
	lane->session = NULL;
}

void
lane_free(Lane *lane)
{
	lane_close(lane);
	MemoryContextDelete(lane->memory);
	pfree(lane);
}

void
lane_update_row(Lane *lane, GatewayRow *row)
{
	GatewayRow *old = lane->row;
	bool        is_mended;

	lane->row = row;
	if (row == NULL)
	{
		lane_put_back(lane);
		return;
	}
	if (old == NULL || !gateway_row_same(old, row))
		lane->reopen = true;
	if (old == NULL || old->doubt_policy != row->doubt_policy ||
		old->doubt_policy_since != row->doubt_policy_since)
	{
		lane_forget_doubts(lane);
		lane->reexamine = true;
		lane->policy_seen = GetCurrentTimestamp();
		lane->policy_moment = mono_now();
	}
	is_mended = lane->reopen || old == NULL || old->update_time != row->update_time;
	/* or somebody wrote the state by hand */
	if (lane->state != GATEWAY_STATE_OPEN && !lane->state_unsaved &&
		strcmp(row->state, gateway_state_name(GATEWAY_STATE_OPEN)) == 0)
		is_mended = true;
	if (is_mended)
		gate_retry(lane);
}

bool
lane_is_open(const Lane *lane)
{
	return lane->row != NULL && lane->gate == GATE_OPEN;
}

bool
lane_is_empty(Lane *lane)
{
	return lane->unsent == 0 && lane->done_count == 0 && dlist_is_empty(&lane->flying) &&
		   dlist_is_empty(&lane->blocked);
}

DoubtPolicy
lane_policy(const Lane *lane)
{
	return lane->row != NULL ? lane->row->doubt_policy : DOUBT_HOLD;
}

TimestampTz
lane_policy_since(const Lane *lane)
{
	return Max(lane->row->doubt_policy_since, lane->policy_seen);
}

MonoTime
lane_may_send(const Lane *lane)
{
	if (lane_policy(lane) != DOUBT_RECONCILE || lane->policy_moment == MONO_PAST)
		return MONO_PAST;
	return mono_add_ms(lane->policy_moment, delivery_linger);
}

bool
lane_is_sender(const Lane *lane)
{
	return (lane->has_lock || lane->turn.lock_taken) && !lane->turn.lock_abandoned;
}

void
lane_begin_turn(Lane *lane)
{
	memset(&lane->turn, 0, sizeof(LaneTurn));
	dlist_init(&lane->turn.claimed);
}

void
lane_undo_turn(Lane *lane)
{
	while (!dlist_is_empty(&lane->turn.claimed))
		grant_free(dlist_container(Grant, node, dlist_pop_head_node(&lane->turn.claimed)));
	if (lane->turn.lock_taken)
	{
		sender_lock_release(lane->gateway_id);
		/* another sender may decide about those that were read */
		lane_forget_doubts(lane);
	}
	lane_begin_turn(lane);
	lane_restart_search(lane);
}

void
lane_release_lock(Lane *lane)
{
	if (lane->has_lock || lane->turn.lock_taken)
		sender_lock_release(lane->gateway_id);
	lane->has_lock = lane->turn.lock_taken = false;
}

int
lane_in_flight(const Lane *lane)
{
	return lane->session ? gateway_in_flight(lane->session) : 0;
}

void
lane_accept(Lane *lane, Grant *grant)
{
	bool       found;
	UserQueue *queue = userqueue_insert(lane->users, grant->user_id, &found);

	if (found)
		queue->last->behind = grant;
	else
	{
		dlist_push_tail(&lane->ready, &grant->node);
		lane->ready_count++;
	}
	queue->last = grant;
	lane->unsent++;
}

void
lane_done(Lane *lane, Grant *grant)
{
	if (lane->done_count++ == 0)
		lane->done_since = mono_now();
	dlist_push_tail(&lane->done, &grant->node);
	if (grant->lost && grant->holds_user)
		lane_doubt_begins(lane, grant->user_id);
}

/*
 * The next grant of this user may go.
 */
static void
let_next_go(Lane *lane, Grant *grant)
{
	Grant *next = grant->behind;

	if (next == NULL)
	{
		userqueue_delete(lane->users, grant->user_id);
		return;
	}
	userqueue_lookup(lane->users, grant->user_id)->user = next->user_id;
	grant->behind = NULL;
	dlist_push_tail(&lane->ready, &next->node);
	lane->ready_count++;
}

void
lane_answered(Lane *lane, Grant *grant)
{
	lane->flying_count--;
	if (lane_policy(lane) == DOUBT_RECONCILE)
		grant->holds_user = true;
	else
		let_next_go(lane, grant);
}

/*
 * A chain of grants of one user goes back.
 */
static void
put_back_chain(Lane *lane, Grant *grant)
{
	while (grant != NULL)
	{
		Grant *next = grant->behind;

		grant->behind = NULL;
		grant->verdict = VERDICT_UNSENT;
		lane->unsent--;
		lane_done(lane, grant);
		grant = next;
	}
}

void
lane_put_back_one(Lane *lane, Grant *grant)
{
	userqueue_delete(lane->users, grant->user_id);
	put_back_chain(lane, grant);
}

/*
 * The grants behind those of a list, which still have to do with the gateway
 * or with the settlement, go back.
 */
static void
put_back_behind(Lane *lane, dlist_head *list)
{
	dlist_iter iter;

	dlist_foreach(iter, list)
	{
		Grant *grant = dlist_container(Grant, node, iter.cur);

		if (grant->behind == NULL)
			continue;
		userqueue_lookup(lane->users, grant->user_id)->last = grant;
		put_back_chain(lane, grant->behind);
		grant->behind = NULL;
	}
}

/*
 * All of a list go back; returns how many.
 */
static int
put_back_list(Lane *lane, dlist_head *list)
{
	int count = 0;

	while (!dlist_is_empty(list))
	{
		lane_put_back_one(lane, dlist_container(Grant, node, dlist_pop_head_node(list)));
		count++;
	}
	return count;
}

void
lane_put_back(Lane *lane)
{
	put_back_list(lane, &lane->ready);
	lane->ready_count = 0;
	lane->measured -= put_back_list(lane, &lane->armed);
	lane->measured -= put_back_list(lane, &lane->read);
	lane->read_count = 0;
	put_back_behind(lane, &lane->reading);
	put_back_behind(lane, &lane->flying);
	put_back_behind(lane, &lane->blocked);
	put_back_behind(lane, &lane->done);
}

void
lane_drop_queries(Lane *lane)
{
	lane->measured -= put_back_list(lane, &lane->reading);
	while (!dlist_is_empty(&lane->proving))
	{
		Grant *grant = dlist_container(Grant, node, dlist_pop_head_node(&lane->proving));

		lane->proving_count--;
		lane_add_doubt(lane, grant);
	}
	lane->probes = 0;
	if (lane_in_flight(lane) > 0)
	{
		lane_close(lane);
		lane->reopen = true;
	}
}

void
lane_settled(Lane *lane, Grant *grant)
{
	bool is_reconciled = grant->is_proof || (grant->lost && grant->holds_user);

	if (grant->holds_user && grant->lost)
	{
		put_back_chain(lane, grant->behind);
		grant->behind = NULL;
	}
	if (grant->holds_user)
		let_next_go(lane, grant);
	if (!is_reconciled)
	{
		grant_free(grant);
		return;
	}
	if (grant->settled && grant->verdict == VERDICT_IN_DOUBT &&
		grant->next_attempt_time != DT_NOEND && lane_policy(lane) == DOUBT_RECONCILE)
	{
		lane_add_doubt(lane, grant);
		return;
	}
	/* it may be pending again, which its run does not tell until it is looked at */
	lane->touched = true;
	lane_doubt_ends(lane, grant->user_id);
	grant_free(grant);
}

bool
lane_open_session(Lane *lane)
{
	char *problem;

	if (lane->row == NULL)
		return false;
	if (!lane->reopen)
		return lane->session != NULL;
	if (lane_in_flight(lane) > 0)
		return false;
	lane_close(lane);
	lane->session = gateway_row_open(lane->row, &problem);
	if (lane->session == NULL)
	{
		gate_unusable(lane, problem);
		pfree(problem);
		return false;
	}
	lane->reopen = false;
	return true;
}

void
lane_abandon(Lane *lane, const char *why)
{
	TimestampTz now = GetCurrentTimestamp();

	lane_put_back(lane);
	while (!dlist_is_empty(&lane->flying))
	{
		Grant *grant = dlist_container(Grant, node, dlist_pop_head_node(&lane->flying));

		lane_answered(lane, grant);
		if (lane->session != NULL && !gateway_has_sent(lane->session, grant))
			grant->verdict = VERDICT_UNSENT;
		else
		{
			grant_lose(grant, lane_policy(lane), now);
			grant_tell(grant, why);
		}
		lane_done(lane, grant);
	}
	/* they are known not to have been applied, by a reply that stands in the grant */
	while (!dlist_is_empty(&lane->blocked))
	{
		Grant *grant = dlist_container(Grant, node, dlist_pop_head_node(&lane->blocked));

		if (grant->token.kind == TOKEN_READING)
		{
			lane->measured--;
			lane_put_back_one(lane, grant);
			continue;
		}
		grant->next_attempt_time = now;
		lane_done(lane, grant);
	}
	lane_drop_queries(lane);
	if (lane->gate != GATE_OPEN)
	{
		lane->gate = GATE_SHUT;
		lane->probe_time = MONO_PAST;
	}
}

void
lane_restart_search(Lane *lane)
{
	MemoryContextReset(lane->candidate_memory);
	lane->candidates = NULL;
	lane->candidate_count = 0;
	lane->next_candidate = 0;
	lane->searched_id = PG_INT64_MIN;
	lane->exhausted = false;
	lane->restart_time = MONO_NEVER;
}
