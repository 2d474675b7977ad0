/*
 * gate.c
 *		Watches a gateway: shuts the gate in trouble, and opens it by a query.
 */
#include "postgres.h"

#include "common/pg_prng.h"
#include "utils/builtins.h"

#include "common/crash_point.h"
#include "delivery/lane.h"
#include "delivery/settings.h"

/*
 * Milliseconds between queries to a gateway that does not answer: at most so
 * few that what waits is sent within two seconds of its return.
 */
#define CLOSED_PROBE_BASE 250
#define CLOSED_PROBE_MAX 2000

/* The same for one that refuses us, which a person has to mend. */
#define MISCONFIGURED_PROBE_BASE 5000
#define MISCONFIGURED_PROBE_MAX 60000

/*
 * Whom to ask about where the user's id cannot be sent in a URL.  A gateway
 * answers for users that it has never seen.
 */
#define NOBODY "quota_manager-probe"
#define LONGEST_ASKED_ABOUT 4096

/*
 * Longest pause of a gateway that answers queries and still does not take
 * grants.
 */
#define TROUBLE_PAUSE_MAX 60000

const char *
gateway_state_name(GatewayState state)
{
	switch (state)
	{
		case GATEWAY_STATE_OPEN:
			return "open";
		case GATEWAY_STATE_CLOSED:
			return "closed";
		case GATEWAY_STATE_MISCONFIGURED:
			return "misconfigured";
	}
	return NULL;
}

/*
 * Changes what others see of the gate.
 */
static void
set_state(Lane *lane, GatewayState state, const char *reason)
{
	char *copy = reason ? MemoryContextStrdup(lane->memory, reason) : NULL;

	if (lane->state_reason != NULL)
		pfree(lane->state_reason);
	lane->state_reason = copy;
	if (lane->state != state)
		lane->state_unlogged = true;
	lane->state = state;
	lane->state_unsaved = true;
	lane->state_saved = false;
	lane->state_tried = DT_NOBEGIN;
}

/*
 * Keeps the gate shut for some milliseconds.
 */
static void
shut(Lane *lane, GatewayState state, const char *reason, int64 delay)
{
	lane->gate = GATE_SHUT;
	lane->probe_time = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), delay);
	set_state(lane, state, reason);
}

/*
 * Decides about the grants that were blocked.  They are not applied; if the
 * gateway answers our queries, it is the grant that it refuses, by its
 * parameters or for the moment, and otherwise it is us.  Returns how many
 * were charged.
 */
static int
judge_blocked(Lane *lane, bool answers_queries)
{
	TimestampTz now = GetCurrentTimestamp();
	int         charged = 0;

	while (!dlist_is_empty(&lane->blocked))
	{
		Grant *grant = dlist_container(Grant, node, dlist_pop_head_node(&lane->blocked));

		grant->next_attempt_time = now;
		if (answers_queries && grant->names_parameters)
			grant->verdict = VERDICT_FAILED;
		else if (answers_queries)
		{
			grant_charge(grant, -1, now);
			charged++;
		}
		lane_done(lane, grant);
	}
	return charged;
}

/* How much an outcome tells about the gateway as a whole. */
static int
gravity(GatewayOutcome outcome)
{
	switch (outcome)
	{
		case GATEWAY_NOT_SENT:
			return 4;
		case GATEWAY_THROTTLED:
			return 3;
		case GATEWAY_BLOCKED:
			return 2;
		case GATEWAY_IN_DOUBT:
			return 1;
		case GATEWAY_COMPLETED:
		case GATEWAY_REFUSED:
			break;
	}
	return 0;
}

void
gate_trouble(Lane *lane, const GatewayReply *reply)
{
	if (lane->gate == GATE_OPEN)
	{
		lane->gate = GATE_DRAINING;
		lane->trouble = GATEWAY_COMPLETED;
		lane->trouble_delay = 0;
		lane_put_back(lane);
	}
	if (gravity(reply->outcome) > gravity(lane->trouble))
	{
		if (lane->trouble_text != NULL)
			pfree(lane->trouble_text);
		lane->trouble_text = MemoryContextStrdup(lane->memory, reply->message);
		lane->trouble = reply->outcome;
	}
	if (reply->outcome == GATEWAY_THROTTLED)
		lane->trouble_delay = Max(lane->trouble_delay, retry_after_ms(reply->retry_after));
	gate_step(lane);
}

/*
 * Nothing is in flight any more: when is the gateway asked, and what is it
 * called until then?
 */
static void
decide(Lane *lane)
{
	int64 pause = backoff_ms(lane->troubles, delivery_retry_base, TROUBLE_PAUSE_MAX);

	lane->troubles++;
	lane->gate = GATE_SHUT;
	lane->probe_time = DT_NOBEGIN;
	lane->failed_probes = 0;
	if (lane->trouble == GATEWAY_NOT_SENT)
	{
		pause = backoff_ms(lane->troubles, CLOSED_PROBE_BASE, CLOSED_PROBE_MAX);
		shut(lane, GATEWAY_STATE_CLOSED, lane->trouble_text, pause);
	}
	else if (lane->trouble == GATEWAY_THROTTLED)
		shut(lane, GATEWAY_STATE_CLOSED, lane->trouble_text, Max(pause, lane->trouble_delay));
	else if (lane->trouble == GATEWAY_IN_DOUBT && lane->troubles > 1)
		shut(lane, GATEWAY_STATE_CLOSED, lane->trouble_text, pause);

	/* only a query that is sent at once can tell what blocked grants mean */
	if (lane->probe_time != DT_NOBEGIN)
		judge_blocked(lane, false);
	lane_restart_search(lane);
}

void
gate_step(Lane *lane)
{
	if (lane->gate == GATE_DRAINING && dlist_is_empty(&lane->flying))
		decide(lane);
}

bool
gate_wants_probe(const Lane *lane)
{
	return lane->row != NULL && lane->gate == GATE_SHUT &&
		   lane->probe_time <= GetCurrentTimestamp();
}

/*
 * A user to ask about, allocated in the current memory context; NULL: nobody.
 *
 * By chance: there are users that gateways cannot answer for, and one of those
 * must not keep it shut.
 */
static char *
user_to_ask_about(Lane *lane)
{
	int count = lane->candidate_count - lane->next_candidate;

	if (count > 0)
	{
		int i =
			lane->next_candidate + (int) pg_prng_uint64_range(&pg_global_prng_state, 0, count - 1);

		return text_to_cstring(lane->candidates[i].user_id);
	}
	if (!dlist_is_empty(&lane->blocked))
		return pstrdup(dlist_head_element(Grant, node, &lane->blocked)->user_id);
	return NULL;
}

void
gate_probe(Lane *lane)
{
	GatewayRequest request = {GATEWAY_QUERY};
	char          *user;

	if (!lane_open_session(lane))
		return;
	user = user_to_ask_about(lane);
	if (user == NULL)
		return;
	if (user[0] == '\0' || strlen(user) > LONGEST_ASKED_ABOUT)
	{
		pfree(user);
		user = pstrdup(NOBODY);
	}
	request.user_id = user;
	request.token = lane;
	if (gateway_submit(lane->session, &request))
	{
		lane->gate = GATE_PROBING;
		CRASH_POINT(probe_sent);
	}
	else
		shut(lane, GATEWAY_STATE_CLOSED, "out of memory", CLOSED_PROBE_MAX);
	pfree(user);
}

/*
 * True if a reply to a query shows that the gateway works and knows us, even
 * where it refuses to answer for that user.
 */
static bool
is_answer(const GatewayReply *reply)
{
	return reply->outcome == GATEWAY_COMPLETED ||
		   (reply->outcome == GATEWAY_REFUSED && reply->http_status != 0) ||
		   (reply->outcome == GATEWAY_BLOCKED && reply->names_parameters);
}

void
gate_probed(Lane *lane, const GatewayReply *reply)
{
	int charged = judge_blocked(lane, is_answer(reply));

	CRASH_POINT(probe_answered);
	if (is_answer(reply))
	{
		lane->failed_probes = 0;
		if (charged > 0 && lane->troubles > 1)
		{
			shut(lane, GATEWAY_STATE_CLOSED, lane->trouble_text,
				 backoff_ms(lane->troubles - 1, delivery_retry_base, TROUBLE_PAUSE_MAX));
			return;
		}
		/* grants that are at fault themselves are no trouble with the gateway */
		if (charged == 0 && lane->trouble == GATEWAY_BLOCKED)
			lane->troubles = 0;
		lane->gate = GATE_OPEN;
		if (lane->state != GATEWAY_STATE_OPEN)
			set_state(lane, GATEWAY_STATE_OPEN, NULL);
		lane_restart_search(lane);
	}
	else if (reply->outcome == GATEWAY_BLOCKED)
	{
		lane->failed_probes++;
		shut(lane, GATEWAY_STATE_MISCONFIGURED, reply->message,
			 backoff_ms(lane->failed_probes, MISCONFIGURED_PROBE_BASE, MISCONFIGURED_PROBE_MAX));
	}
	else
	{
		int64 delay;

		lane->failed_probes++;
		delay = backoff_ms(lane->failed_probes, CLOSED_PROBE_BASE, CLOSED_PROBE_MAX);
		if (reply->outcome == GATEWAY_THROTTLED)
			delay = Max(delay, retry_after_ms(reply->retry_after));
		shut(lane, GATEWAY_STATE_CLOSED, reply->message, delay);
	}
}

void
gate_unusable(Lane *lane, const char *problem)
{
	lane_put_back(lane);
	if (lane->state != GATEWAY_STATE_MISCONFIGURED || lane->state_reason == NULL ||
		strcmp(lane->state_reason, problem) != 0)
		set_state(lane, GATEWAY_STATE_MISCONFIGURED, problem);
	lane->gate = GATE_SHUT;
	lane->probe_time = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), MISCONFIGURED_PROBE_BASE);
}

void
gate_retry(Lane *lane)
{
	lane->failed_probes = 0;
	if (lane->gate == GATE_SHUT)
		lane->probe_time = DT_NOBEGIN;
}
