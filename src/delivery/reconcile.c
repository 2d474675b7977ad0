/*
 * proving.c
 *		Grants in doubt of a lane whose policy is to reconcile.
 */
#include "postgres.h"

#include "common/hashfn.h"

#include "common/crash_point.h"
#include "delivery/lane.h"

/* A user with grants in doubt. */
typedef struct DoubtUser
{
	char  *user;
	int    grants;
	uint32 hash;
	char   status;
} DoubtUser;

#define SH_PREFIX doubtuser
#define SH_ELEMENT_TYPE DoubtUser
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

void
lane_doubt_begins(Lane *lane, const char *user_id)
{
	char      *copy = MemoryContextStrdup(lane->memory, user_id);
	DoubtUser *user;
	bool       found;

	if (lane->doubtful == NULL)
		lane->doubtful = doubtuser_create(lane->memory, 16, NULL);
	user = doubtuser_insert(lane->doubtful, copy, &found);
	if (found)
		pfree(copy);
	else
		user->grants = 0;
	user->grants++;
}

void
lane_doubt_ends(Lane *lane, const char *user_id)
{
	DoubtUser *user = NULL;
	char      *name;

	if (lane->doubtful != NULL)
		user = doubtuser_lookup(lane->doubtful, (char *) user_id);
	if (user == NULL || --user->grants > 0)
		return;
	name = user->user;
	doubtuser_delete(lane->doubtful, name);
	pfree(name);
}

bool
lane_user_in_doubt(const Lane *lane, const char *user_id)
{
	return lane->doubtful != NULL && doubtuser_lookup(lane->doubtful, (char *) user_id) != NULL;
}

void
lane_add_doubt(Lane *lane, Grant *grant)
{
	grant_tell(grant, NULL);
	grant->is_proof = grant->doubtful = true;
	grant->lost = grant->holds_user = grant->charged = grant->settled = false;
	grant->names_parameters = false;
	dlist_push_tail(&lane->doubts, &grant->node);
	lane->next_proof_time = Min(lane->next_proof_time, grant->due);
}

/*
 * True if a list has the grant of this id as one in doubt.
 */
static bool
list_has_doubt(dlist_head *list, int64 id)
{
	dlist_iter iter;

	dlist_foreach(iter, list)
	{
		const Grant *grant = dlist_container(Grant, node, iter.cur);

		if (grant->id == id && (grant->is_proof || grant->lost))
			return true;
	}
	return false;
}

bool
lane_has_doubt(Lane *lane, int64 id)
{
	return list_has_doubt(&lane->doubts, id) || list_has_doubt(&lane->proving, id) ||
		   list_has_doubt(&lane->done, id);
}

/*
 * A grant in doubt, in no list, is not the lane's concern any more.
 */
static void
forget(Lane *lane, Grant *grant)
{
	lane_doubt_ends(lane, grant->user_id);
	grant_free(grant);
}

void
lane_forget_doubts(Lane *lane)
{
	while (!dlist_is_empty(&lane->doubts))
		forget(lane, dlist_container(Grant, node, dlist_pop_head_node(&lane->doubts)));
	lane->next_proof_time = MONO_NEVER;
}

static int
compare_ids(const void *a, const void *b)
{
	int64 x = *(const int64 *) a;
	int64 y = *(const int64 *) b;

	return x < y ? -1 : x > y;
}

void
lane_keep_doubts(Lane *lane, const int64 *ids, int count)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &lane->doubts)
	{
		Grant *grant = dlist_container(Grant, node, iter.cur);

		if (count > 0 && bsearch(&grant->id, ids, count, sizeof(int64), compare_ids) != NULL)
			continue;
		dlist_delete(&grant->node);
		forget(lane, grant);
	}
}

/*
 * Asks about a grant in doubt, which is in no list.  False: nothing more can
 * be asked now.
 */
static bool
ask_after(Lane *lane, Grant *grant, MonoTime now)
{
	GatewayRequest request = {GATEWAY_QUERY, grant->user_id};

	request.token = grant;
	grant->token.kind = TOKEN_PROOF;
	grant->asked = now;
	if (gateway_room(lane->session) == 0 || !lane_take_token(lane) ||
		!gateway_submit(lane->session, &request))
		return false;
	dlist_push_tail(&lane->proving, &grant->node);
	lane->proving_count++;
	return true;
}

void
lane_prove(Lane *lane)
{
	MonoTime           now = mono_now();
	MonoTime           next = MONO_NEVER;
	dlist_mutable_iter iter;

	if (lane->next_proof_time > now || lane_policy(lane) != DOUBT_RECONCILE)
		return;
	dlist_foreach_modify(iter, &lane->doubts)
	{
		Grant *grant = dlist_container(Grant, node, iter.cur);

		if (grant->due > now)
		{
			next = Min(next, grant->due);
			continue;
		}
		/* half of the connections are left to grants */
		if (grant->balance_before != NULL &&
			lane->proving_count >= Max(lane->row->max_connections / 2, 1))
		{
			next = now;
			break;
		}
		dlist_delete(&grant->node);
		if (grant->balance_before == NULL)
		{
			grant_unprovable(grant);
			lane_done(lane, grant);
		}
		else if (!ask_after(lane, grant, now))
		{
			dlist_push_head(&lane->doubts, &grant->node);
			next = now;
			break;
		}
	}
	lane->next_proof_time = next;
}

void
lane_take_proof(Lane *lane, Grant *grant, const GatewayReply *reply, TimestampTz now)
{
	dlist_delete(&grant->node);
	lane->proving_count--;
	if (lane_policy(lane) != DOUBT_RECONCILE)
	{
		forget(lane, grant);
		return;
	}
	grant_prove(grant, lane->row, lane_policy_since(lane), lane->policy_moment, reply, now);
	lane_done(lane, grant);
	CRASH_POINT(proof_read);
	if (reply->outcome == GATEWAY_NOT_SENT || reply->outcome == GATEWAY_THROTTLED)
		gate_trouble(lane, reply, false);
}
