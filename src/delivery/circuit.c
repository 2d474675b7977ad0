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
 * Milliseconds between probes of a gateway that does not answer: at most so
 * few that what waits is sent within two seconds of its return.
 */
#define CLOSED_PROBE_BASE 250
#define CLOSED_PROBE_MAX 1400

/*
 * A probe that is not answered for so many milliseconds, or for the share of
 * the time-out that a connection has, is followed by another one: it may hang
 * for the whole time-out although its gateway has returned.
 */
#define PROBE_PATIENCE 1000

/* The same for one that refuses us, which a person has to mend. */
#define MISCONFIGURED_PROBE_BASE 5000
#define MISCONFIGURED_PROBE_MAX 60000

/* Ids that are longer cannot be sent in a URL everywhere. */
#define LONGEST_ASKED_ABOUT 4096

/*
 * Longest pauses of a gateway that answers queries and still does not take
 * grants; the second where each attempt leaves one in doubt, and a delta of
 * zero does not tell whether they are taken.
 */
#define TROUBLE_PAUSE_MAX 60000
#define DOUBT_PAUSE_MAX 600000

/*
 * How often a balance before is asked for that the gateway does not tell while
 * it answers other queries: it may just have come back, or never tell this one.
 */
#define READINGS 4

const char *
gateway_state_name(GatewayState state)
{
	switch (state)
	{
		case GATEWAY_STATE_OPEN:
			return "open";
		case GATEWAY_STATE_CLOSED:
			return "closed";
		case GATEWAY_STATE_PROBING:
			return "probing";
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
	lane->state = state;
	lane->state_unsaved = true;
	lane->turn.state_saved = false;
	lane->state_tried = MONO_PAST;
}

/*
 * Keeps the gate shut for some milliseconds.
 */
static void
shut(Lane *lane, GatewayState state, const char *reason, int64 delay)
{
	lane->gate = GATE_SHUT;
	lane->probe_time = mono_in_ms(delay);
	set_state(lane, state, reason);
}

/*
 * Decides about the grants that were blocked.  They are not applied; if the
 * gateway answers our queries, it is the grant that it refuses, by its
 * parameters or for the moment, and otherwise it is us.  Where it was a query
 * for the grant, it is asked again later, and in the end sent without what that
 * would have told.  Returns how many were charged.
 */
static int
judge_blocked(Lane *lane, bool answers_queries)
{
	TimestampTz now = GetCurrentTimestamp();
	int         charged = 0;

	while (!dlist_is_empty(&lane->blocked))
	{
		Grant *grant = dlist_container(Grant, node, dlist_pop_head_node(&lane->blocked));

		if (grant->token.kind == TOKEN_READING && answers_queries &&
			grant_next_attempts(grant) < Min(READINGS, delivery_max_attempts))
		{
			lane->measured--;
			lane_put_back_one(lane, grant);
			grant_charge(grant, -1, now);
			continue;
		}
		if (grant->token.kind == TOKEN_READING && answers_queries)
		{
			dlist_push_tail(&lane->read, &grant->node);
			lane->read_count++;
			continue;
		}
		if (grant->token.kind == TOKEN_READING)
		{
			lane->measured--;
			lane_put_back_one(lane, grant);
			continue;
		}
		grant->next_attempt_time = now;
		if (answers_queries && grant->names_parameters)
		{
			grant->verdict = VERDICT_FAILED;
			grant->next_attempt_time = DT_NOEND;
		}
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
gate_trouble(Lane *lane, const GatewayReply *reply, bool is_write)
{
	bool is_lost = is_write && reply->outcome == GATEWAY_IN_DOUBT;

	if (is_lost)
		lane->write_lost = true;
	if (lane->gate == GATE_OPEN)
	{
		lane->gate = GATE_DRAINING;
		lane->trouble_lost = false;
		lane->trouble = GATEWAY_COMPLETED;
		lane->trouble_delay = 0;
		lane_put_back(lane);
	}
	if (is_lost)
		lane->trouble_lost = true;
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

void
gate_success(Lane *lane, bool is_completed)
{
	if (is_completed)
	{
		lane->troubles = 0;
		lane->write_lost = false;
		lane->window = Min(lane->window + 1, WINDOW_MAX_SIZE);
	}
	if (lane->state == GATEWAY_STATE_PROBING && lane->gate == GATE_OPEN)
		set_state(lane, GATEWAY_STATE_OPEN, NULL);
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
	lane->window = 1;
	lane->probes_write = false;
	lane->probe_time = MONO_PAST;
	lane->failed_probes = 0;
	if (lane->trouble == GATEWAY_NOT_SENT)
	{
		pause = backoff_ms(lane->troubles, CLOSED_PROBE_BASE, CLOSED_PROBE_MAX);
		shut(lane, GATEWAY_STATE_CLOSED, lane->trouble_text, pause);
	}
	else if (lane->trouble == GATEWAY_THROTTLED)
		shut(lane, GATEWAY_STATE_CLOSED, lane->trouble_text, Max(pause, lane->trouble_delay));
	/* a query that was not answered may be asked again at once */
	else if (lane->trouble == GATEWAY_IN_DOUBT && lane->trouble_lost && lane->troubles > 1)
		shut(lane, GATEWAY_STATE_CLOSED, lane->trouble_text,
			 backoff_ms(2 * lane->troubles - 3, delivery_retry_base, DOUBT_PAUSE_MAX));

	/* only a query that is sent at once can tell what blocked grants mean */
	if (lane->probe_time != MONO_PAST)
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
	MonoTime now = mono_now();
	int      patience;

	if (lane->row == NULL)
		return false;
	if (lane->gate == GATE_SHUT)
		return lane->probe_time <= now;
	if (lane->gate != GATE_PROBING || lane->probes >= lane->row->max_connections)
		return false;
	patience = Max(PROBE_PATIENCE, lane->row->request_timeout_ms / lane->row->max_connections);
	return mono_add_ms(lane->probe_sent, patience) <= now;
}

/*
 * A user to ask about, allocated in the current memory context; NULL: there is
 * nobody for whom it would matter.
 *
 * There are users that gateways cannot answer for, and one of those must not
 * keep it shut; and there may be gateways that do not answer for users they
 * have never seen.  So it is by turns and by chance who it is.
 */
static char *
user_to_ask_about(Lane *lane)
{
	int          count = lane->candidate_count - lane->next_candidate;
	bool         is_suspect = count == 0 && !dlist_is_empty(&lane->blocked);
	const Grant *grant = NULL;
	char        *user;

	if (!dlist_is_empty(&lane->blocked))
		grant = dlist_head_element(Grant, node, &lane->blocked);
	else if (!dlist_is_empty(&lane->doubts))
		grant = dlist_head_element(Grant, node, &lane->doubts);
	if (count == 0 && grant == NULL)
		return NULL;

	/*
	 * About somebody else than the only one there is, whom it has just refused;
	 * about another one than it did not answer for; and now and then by chance.
	 */
	if ((lane->failed_probes + is_suspect) % 2 == 1 ||
		pg_prng_uint64_range(&pg_global_prng_state, 0, count <= 1 ? 1 : 3) == 0)
		return pstrdup(NOBODY);
	if (count > 0)
		user = text_to_cstring(
			lane->candidates[lane->next_candidate +
							 (int) pg_prng_uint64_range(&pg_global_prng_state, 0, count - 1)]
				.user_id);
	else
		user = pstrdup(grant->user_id);
	if (user[0] != '\0' && strlen(user) <= LONGEST_ASKED_ABOUT)
		return user;
	pfree(user);
	return pstrdup(NOBODY);
}

void
gate_probe(Lane *lane)
{
	GatewayRequest request = {GATEWAY_QUERY};
	char          *user;

	if (lane->reopen || (lane->session != NULL && gateway_room(lane->session) == 0))
		lane_drop_queries(lane);
	if (!lane_open_session(lane))
		return;
	user = user_to_ask_about(lane);
	if (user == NULL)
		return;
	request.user_id = user;
	request.token = &lane->probe_token;
	if (lane->probes_write)
	{
		request.action = GATEWAY_DELTA;
		request.amount = "0";
		request.token = &lane->write_probe_token;
	}
	if (lane_take_token(lane))
	{
		lane->gate = GATE_PROBING;
		lane->probes++;
		lane->probe_sent = mono_now();
		if (!gateway_submit(lane->session, &request))
			shut(lane, GATEWAY_STATE_CLOSED, "out of memory", CLOSED_PROBE_MAX);
		CRASH_POINT(probe_sent);
	}
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

/*
 * The gateway works: grants are sent, one at first.
 */
static void
open_gate(Lane *lane)
{
	/* probes that hang would keep connections busy until their time is out */
	lane_drop_queries(lane);
	lane->gate = GATE_OPEN;
	lane->probes_write = false;
	lane->failed_probes = 0;
	if (lane->state != GATEWAY_STATE_OPEN)
		set_state(lane, GATEWAY_STATE_PROBING, lane->state_reason);
	lane_restart_search(lane);
}

/*
 * A query was answered.
 */
static void
query_answered(Lane *lane)
{
	int charged = judge_blocked(lane, true);

	if (charged > 0 && lane->troubles > 1)
	{
		shut(lane, GATEWAY_STATE_CLOSED, lane->trouble_text,
			 backoff_ms(lane->troubles - 1, delivery_retry_base, TROUBLE_PAUSE_MAX));
		return;
	}
	/* grants that are at fault themselves are no trouble with the gateway */
	if (charged == 0 && lane->trouble == GATEWAY_BLOCKED)
		lane->troubles = 0;
	if (!lane->write_lost)
	{
		open_gate(lane);
		return;
	}
	/* where it cannot be sent now, for want of a token or a user, it stays due */
	lane->probes_write = true;
	lane->gate = GATE_SHUT;
	lane->probe_time = MONO_PAST;
	gate_probe(lane);
}

/*
 * A probe was not answered as one is.
 */
static void
probe_failed(Lane *lane, const GatewayReply *reply)
{
	int64 delay;

	lane->probes_write = false;
	lane->failed_probes++;
	/* it may be the user whom it refuses: about another one, at once */
	if (reply->outcome == GATEWAY_BLOCKED && lane->failed_probes == 1)
	{
		lane->gate = GATE_SHUT;
		lane->probe_time = MONO_PAST;
		return;
	}
	judge_blocked(lane, false);
	if (reply->outcome == GATEWAY_BLOCKED)
	{
		shut(
			lane, GATEWAY_STATE_MISCONFIGURED, reply->message,
			backoff_ms(lane->failed_probes - 1, MISCONFIGURED_PROBE_BASE, MISCONFIGURED_PROBE_MAX));
		return;
	}
	delay = backoff_ms(lane->failed_probes, CLOSED_PROBE_BASE, CLOSED_PROBE_MAX);
	if (reply->outcome == GATEWAY_THROTTLED)
		delay = Max(delay, retry_after_ms(reply->retry_after));
	shut(lane, GATEWAY_STATE_CLOSED, reply->message, delay);
}

void
gate_probed(Lane *lane, TokenKind kind, const GatewayReply *reply)
{
	/* after lane_drop_queries none is counted */
	lane->probes = Max(lane->probes - 1, 0);
	/* a late answer to an earlier probe tells nothing new */
	if (lane->gate != GATE_PROBING || (kind == TOKEN_WRITE_PROBE) != lane->probes_write)
		return;
	CRASH_POINT(probe_answered);
	if (!is_answer(reply))
		probe_failed(lane, reply);
	else if (kind == TOKEN_WRITE_PROBE)
	{
		/* balances that were asked for before may have been refused since the query was answered */
		(void) judge_blocked(lane, true);
		open_gate(lane);
	}
	else
		query_answered(lane);
}

void
gate_unusable(Lane *lane, const char *problem)
{
	lane_put_back(lane);
	judge_blocked(lane, false);
	if (lane->state != GATEWAY_STATE_MISCONFIGURED || lane->state_reason == NULL ||
		strcmp(lane->state_reason, problem) != 0)
		set_state(lane, GATEWAY_STATE_MISCONFIGURED, problem);
	lane->gate = GATE_SHUT;
	lane->probe_time = mono_in_ms(MISCONFIGURED_PROBE_BASE);
}

void
gate_retry(Lane *lane)
{
	lane->failed_probes = 0;
	if (lane->gate == GATE_SHUT)
		lane->probe_time = MONO_PAST;
}
