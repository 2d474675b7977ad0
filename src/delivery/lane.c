/*
 * lane.c
 *		The way of grants to one gateway: claimed, sent, answered.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "utils/memutils.h"

#include "common/crash_point.h"
#include "delivery/lane.h"

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

/* Answers taken at once. */
#define POLL_RESULTS 64

/* Milliseconds without an answer after which a gateway seems to hang. */
#define PATIENCE 1000

Lane *
lane_create(GatewayRow *row, MemoryContext memory)
{
	Lane *lane = MemoryContextAllocZero(memory, sizeof(Lane));

	lane->memory = AllocSetContextCreate(memory, "quota_manager lane", ALLOCSET_DEFAULT_SIZES);
	lane->gateway_id = row->id;
	lane->row = row;
	lane->reopen = true;
	dlist_init(&lane->ready);
	dlist_init(&lane->flying);
	dlist_init(&lane->blocked);
	dlist_init(&lane->done);
	dlist_init(&lane->claimed);
	lane->users = userqueue_create(lane->memory, 256, NULL);
	lane->candidate_memory =
		AllocSetContextCreate(lane->memory, "quota_manager candidates", ALLOCSET_DEFAULT_SIZES);
	lane->exhausted = true;
	lane->state_tried = DT_NOBEGIN;
	if (strcmp(row->state, gateway_state_name(GATEWAY_STATE_OPEN)) != 0)
	{
		lane->state = strcmp(row->state, gateway_state_name(GATEWAY_STATE_MISCONFIGURED)) == 0
						  ? GATEWAY_STATE_MISCONFIGURED
						  : GATEWAY_STATE_CLOSED;
		lane->gate = GATE_SHUT;
		lane->probe_time = DT_NOBEGIN;
	}
	return lane;
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
	is_mended = lane->reopen || old->update_time != row->update_time;
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
		lane->done_since = GetCurrentTimestamp();
	dlist_push_tail(&lane->done, &grant->node);
}

/*
 * A grant has left the gateway: the next one of its user may go.
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
lane_put_back(Lane *lane)
{
	dlist_iter iter;

	while (!dlist_is_empty(&lane->ready))
	{
		Grant *grant = dlist_container(Grant, node, dlist_pop_head_node(&lane->ready));

		userqueue_delete(lane->users, grant->user_id);
		put_back_chain(lane, grant);
	}
	lane->ready_count = 0;
	dlist_foreach(iter, &lane->flying)
	{
		Grant *grant = dlist_container(Grant, node, iter.cur);

		userqueue_lookup(lane->users, grant->user_id)->last = grant;
		put_back_chain(lane, grant->behind);
		grant->behind = NULL;
	}
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
lane_send(Lane *lane, const char *key_prefix)
{
	if (lane->ready_count == 0 || lane->gate != GATE_OPEN || !lane_open_session(lane))
		return;
	if (lane_in_flight(lane) == 0)
		lane->hot_until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), PATIENCE);
	while (lane->ready_count > 0 && gateway_room(lane->session) > 0)
	{
		Grant         *grant = dlist_head_element(Grant, node, &lane->ready);
		GatewayRequest request = {GATEWAY_DELTA, grant->user_id, grant->amount};
		char           key[128];

		snprintf(key, sizeof(key), "%s-" INT64_FORMAT, key_prefix, grant->id);
		request.idempotency_key = key;
		request.token = grant;
		if (!gateway_submit(lane->session, &request))
		{
			GatewayReply reply = {GATEWAY_NOT_SENT};

			if (lane_in_flight(lane) > 0)
				return;
			strlcpy(reply.message, "out of memory", sizeof(reply.message));
			gate_trouble(lane, &reply);
			return;
		}
		dlist_delete(&grant->node);
		dlist_push_tail(&lane->flying, &grant->node);
		lane->ready_count--;
		lane->unsent--;
		CRASH_POINT(grant_sent);
	}
}

/*
 * Takes in the answer to a grant.
 */
static void
take_reply(Lane *lane, Grant *grant, const GatewayReply *reply, TimestampTz now)
{
	dlist_delete(&grant->node);
	let_next_go(lane, grant);
	grant_conclude(grant, reply, now);
	if (reply->outcome == GATEWAY_COMPLETED)
		lane->troubles = 0;
	if (reply->outcome == GATEWAY_BLOCKED)
		dlist_push_tail(&lane->blocked, &grant->node);
	else
		lane_done(lane, grant);
	if (reply->outcome != GATEWAY_COMPLETED && reply->outcome != GATEWAY_REFUSED)
		gate_trouble(lane, reply);
	CRASH_POINT(answer_taken);
}

bool
lane_poll(Lane *lane, int timeout_ms)
{
	static GatewayResult results[POLL_RESULTS];
	int                  count = gateway_poll(lane->session, timeout_ms, results, POLL_RESULTS);
	TimestampTz          now;
	int                  i;

	if (count == 0)
		return false;
	now = GetCurrentTimestamp();
	lane->hot_until = TimestampTzPlusMilliseconds(now, PATIENCE);
	for (i = 0; i < count; i++)
	{
		/* a grant is its own token, a query has the lane's */
		if (results[i].token == lane)
			gate_probed(lane, &results[i].reply);
		else
			take_reply(lane, results[i].token, &results[i].reply, now);
	}
	gate_step(lane);
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

		let_next_go(lane, grant);
		grant->verdict = VERDICT_IN_DOUBT;
		grant->message = MemoryContextStrdup(lane->memory, why);
		lane_done(lane, grant);
	}
	/* they are known not to have been applied, by a reply that stands in the grant */
	while (!dlist_is_empty(&lane->blocked))
	{
		Grant *grant = dlist_container(Grant, node, dlist_pop_head_node(&lane->blocked));

		grant->next_attempt_time = now;
		lane_done(lane, grant);
	}
	if (lane_in_flight(lane) > 0)
	{
		lane_close(lane);
		lane->reopen = true;
	}
	if (lane->gate != GATE_OPEN)
	{
		lane->gate = GATE_SHUT;
		lane->probe_time = now;
	}
}

void
lane_restart_search(Lane *lane)
{
	MemoryContextReset(lane->candidate_memory);
	lane->candidates = NULL;
	lane->candidate_count = 0;
	lane->next_candidate = 0;
	lane->search_id = PG_INT64_MIN;
	lane->exhausted = false;
}
