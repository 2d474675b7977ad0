/*
 * sender.c
 *		What one process has for one gateway: its session, its grants, its circuit.
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "delivery/sender.h"
#include "delivery/sender_lock.h"
#include "delivery/delivery_settings.h"
#include "delivery/timing.h"
#include "endpoint/endpoint_settings.h"

/*
 * A balance is asked for so often before a grant, while the gateway refuses that
 * and answers other queries: it may just have come back, or never answer this one.
 */
#define SAMPLE_ATTEMPTS 4

/* Makes a sender for a gateway.  What its row says of the state is taken over. */
Sender *
sender_create(GatewayRow *row, MemoryContext memory)
{
	Sender     *sender = MemoryContextAllocZero(memory, sizeof(Sender));
	TimestampTz now = GetCurrentTimestamp();

	sender->memory = AllocSetContextCreate(memory, "quota_manager sender", ALLOCSET_DEFAULT_SIZES);
	sender->gateway_id = row->id;
	sender->row = row;
	sender->reopen = true;
	circuit_init(&sender->circuit);
	sender->checks[HEALTH_CHECK].kind = REQUEST_HEALTH_CHECK;
	sender->checks[WRITE_CHECK].kind = REQUEST_WRITE_CHECK;
	sender->report.due = MONO_NEVER;
	grant_queue_init(&sender->grants, sender->memory);
	rate_limit_init(&sender->rate_limit);
	sender->search.memory =
		AllocSetContextCreate(sender->memory, "quota_manager candidates", ALLOCSET_DEFAULT_SIZES);
	sender->search.rest_until = MONO_PAST;
	sender_restart_search(sender);
	/* at its end until it is begun anew */
	sender->search.exhausted = true;
	/* the clock may have been set since the policy was: it was not set in the future */
	sender->policy_since.moment = mono_at(Min(row->doubt_policy_since, now), now);
	sender->policy_since.time = row->doubt_policy_since;
	sender->unresolved.next_due = MONO_NEVER;
	sender->unresolved.next_read = mono_now();
	sender->due.since = MONO_NEVER;
	sender_begin_batch(sender);
	sender_take_state(sender);
	return sender;
}

/*
 * An open circuit is closed if the row, written by another sender, says that it
 * is.
 */
void
sender_take_state(Sender *sender)
{
	CircuitState state = circuit_state_of(sender->row->state);

	if (sender->circuit.state != CIRCUIT_OPEN || state == CIRCUIT_OPEN)
		return;
	circuit_take_state(&sender->circuit, state);
	sender->report.logged = state;
}

/* Ends the connections; what is in flight is lost track of. */
void
sender_close(Sender *sender)
{
	gateway_close(sender->session);
	sender->session = NULL;
	sender->reopen = true;
}

/* The same, and frees the sender. */
void
sender_free(Sender *sender)
{
	sender_close(sender);
	MemoryContextDelete(sender->memory);
	pfree(sender);
}

/*
 * The gateway's row was read again; NULL: it is gone.  True: which grants are
 * unresolved is to be read again.
 */
bool
sender_update_row(Sender *sender, GatewayRow *row)
{
	GatewayRow *old = sender->row;
	bool        is_mended;
	bool        policy_changed;

	sender->row = row;
	if (row == NULL)
	{
		grants_return_unsent(&sender->grants);
		return false;
	}
	if (old == NULL || !gateway_row_same(old, row))
		sender->reopen = true;
	policy_changed = old == NULL || old->doubt_policy != row->doubt_policy ||
					 old->doubt_policy_since != row->doubt_policy_since;
	if (policy_changed)
	{
		sender_forget_unresolved(sender);
		/* it may have been committed, and seen here, long after its time */
		sender->policy_since.time = Max(row->doubt_policy_since, GetCurrentTimestamp());
		sender->policy_since.moment = mono_now();
	}
	is_mended = sender->reopen || old == NULL || old->update_time != row->update_time;
	/* or the owner of the table wrote the state by hand */
	if (sender->circuit.state != CIRCUIT_OPEN && sender->report.due == MONO_NEVER &&
		circuit_state_of(row->state) == CIRCUIT_OPEN)
		is_mended = true;
	if (is_mended)
		circuit_row_changed(&sender->circuit);
	return policy_changed;
}

/* True if it makes sense to claim grants, once there is a session. */
bool
sender_is_open(const Sender *sender)
{
	return sender->row != NULL && !sender->is_paused && sender->circuit.phase == CIRCUIT_SENDING;
}

/*
 * True if this process is the gateway's one sender, as far as the transaction
 * that is open makes it so.
 */
bool
sender_owns_gateway(const Sender *sender)
{
	return (sender->has_lock || sender->batch.lock_taken) && !sender->batch.lock_abandoned;
}

/* How many requests are in flight. */
int
sender_in_flight(const Sender *sender)
{
	return sender->session ? gateway_in_flight(sender->session) : 0;
}

/* True if a health check, or a write check, should be sent. */
bool
sender_wants_check(const Sender *sender)
{
	return sender->row != NULL && !sender->is_paused &&
		   circuit_wants_check(&sender->circuit, sender->row->max_connections,
							   sender->row->request_timeout_ms, mono_now());
}

/* How the gateway treats a grant whose answer was lost. */
DoubtPolicy
sender_policy(const Sender *sender)
{
	return sender->row != NULL ? sender->row->doubt_policy : DOUBT_HOLD;
}

/*
 * When grants may be sent: later than now only for a while after the policy
 * was made to reconcile, since what was lost before may still arrive and be
 * taken for a grant of today.
 */
MonoTime
sender_may_send(const Sender *sender)
{
	if (sender_policy(sender) != DOUBT_RECONCILE || sender->policy_since.moment == MONO_PAST)
		return MONO_PAST;
	return mono_add_ms(sender->policy_since.moment, endpoint_settle_delay_ms);
}

/* Begins a transaction: nothing is done in it yet. */
void
sender_begin_batch(Sender *sender)
{
	memset(&sender->batch, 0, sizeof(Batch));
	dlist_init(&sender->batch.claimed);
}

/*
 * Throws away what a transaction that failed has done; what it was to settle
 * stays where it is.
 */
void
sender_undo_batch(Sender *sender)
{
	while (!dlist_is_empty(&sender->batch.claimed))
		grant_free(dlist_container(Grant, node, dlist_pop_head_node(&sender->batch.claimed)));
	if (sender->batch.lock_taken)
	{
		sender_lock_release(sender->gateway_id);
		/* another sender may decide about those that were read */
		sender_forget_unresolved(sender);
	}
	sender_begin_batch(sender);
	sender_restart_search(sender);
}

/* Drops the candidates and begins the search anew. */
void
sender_restart_search(Sender *sender)
{
	CandidateSearch *search = &sender->search;

	MemoryContextReset(search->memory);
	search->candidates = NULL;
	search->count = 0;
	search->next = 0;
	search->searched_id = PG_INT64_MIN;
	search->exhausted = false;
	search->restart_time = mono_in_ms(SEARCH_AGAIN_MS);
}

/* Releases the sender lock, if this process has it. */
void
sender_release_lock(Sender *sender)
{
	if (sender->has_lock || sender->batch.lock_taken)
		sender_lock_release(sender->gateway_id);
	sender->has_lock = sender->batch.lock_taken = false;
}

/* Takes a grant in doubt to be reconciled when its time has come. */
void
sender_add_unresolved(Sender *sender, Grant *grant)
{
	grant_add_unresolved(&sender->grants, grant);
	sender->unresolved.next_due = Min(sender->unresolved.next_due, grant->doubt.due);
}

/* Forgets those that wait for their time. */
void
sender_forget_unresolved(Sender *sender)
{
	while (grants_in(&sender->grants, GRANT_UNRESOLVED) > 0)
		grant_remove(&sender->grants, grants_first(&sender->grants, GRANT_UNRESOLVED));
	sender->unresolved.next_due = MONO_NEVER;
}

/* The grant was settled, durably: frees it, or keeps it to be reconciled. */
void
sender_settled(Sender *sender, Grant *grant)
{
	bool was_unresolved =
		grant->in_doubt || (grant->outcome.sent == MAYBE_SENT && grant->holds_user);

	grant_settled(&sender->grants, grant);
	if (was_unresolved && grant->row_found && grant->outcome.verdict == VERDICT_IN_DOUBT &&
		grant->outcome.next_attempt_time != DT_NOEND && sender_policy(sender) == DOUBT_RECONCILE)
	{
		sender_add_unresolved(sender, grant);
		return;
	}
	/* it may be pending again, which is known once its run is read */
	if (was_unresolved)
		sender->dirty = true;
	grant_remove(&sender->grants, grant);
}

/*
 * Opens the session if the row asks for it and nothing is in flight.  False:
 * nothing can be sent now.
 */
bool
sender_open_session(Sender *sender)
{
	char *problem;

	if (sender->row == NULL)
		return false;
	if (!sender->reopen)
		return true;
	if (sender_in_flight(sender) > 0)
		return false;
	sender_close(sender);
	sender->session = gateway_row_open(sender->row, &problem);
	if (sender->session == NULL)
	{
		sender_act(sender, circuit_unusable(&sender->circuit, problem, mono_now()));
		pfree(problem);
		return false;
	}
	sender->reopen = false;
	return true;
}

/*
 * Takes the right to send one request within rate_limit; false: none is left
 * now.
 */
bool
sender_take_token(Sender *sender)
{
	if (sender->row == NULL || sender->row->rate_limit <= 0)
		return true;
	return rate_limit_take(&sender->rate_limit, sender->row->rate_limit, mono_now());
}

/* The gateway refuses everything: what awaits a verdict is not at fault. */
static void
blame_gateway(Sender *sender)
{
	GrantQueue *grants = &sender->grants;
	TimestampTz now = GetCurrentTimestamp();

	while (grants_in(grants, GRANT_SAMPLE_REFUSED) > 0)
		grant_return(grants, grants_first(grants, GRANT_SAMPLE_REFUSED));
	while (grants_in(grants, GRANT_AWAITING_VERDICT) > 0)
	{
		Grant *grant = grants_first(grants, GRANT_AWAITING_VERDICT);

		grant->outcome.next_attempt_time = now;
		grant_move(grants, grant, GRANT_DONE);
	}
}

/*
 * The gateway answers our queries, so what awaits a verdict was refused for its
 * parameters or for the moment.  A balance is asked for again later, and in the
 * end the grant is sent without.
 */
static void
blame_grants(Sender *sender)
{
	GrantQueue *grants = &sender->grants;
	TimestampTz now = GetCurrentTimestamp();

	while (grants_in(grants, GRANT_SAMPLE_REFUSED) > 0)
	{
		Grant *grant = grants_first(grants, GRANT_SAMPLE_REFUSED);

		if (grant_next_attempts(grant) >= Min(SAMPLE_ATTEMPTS, delivery_max_attempts))
		{
			grant_move(grants, grant, GRANT_SAMPLED);
			continue;
		}
		grant_return(grants, grant);
		grant_fail_attempt(grant, -1, now);
	}
	while (grants_in(grants, GRANT_AWAITING_VERDICT) > 0)
	{
		Grant *grant = grants_first(grants, GRANT_AWAITING_VERDICT);

		if (grant->outcome.names_parameters)
		{
			grant->outcome.verdict = VERDICT_FAILED;
			grant->outcome.next_attempt_time = DT_NOEND;
		}
		else
			grant_fail_attempt(grant, -1, now);
		grant_move(grants, grant, GRANT_DONE);
	}
}

/* Does what the circuit asks for. */
void
sender_act(Sender *sender, CircuitActions actions)
{
	if (actions & CIRCUIT_RETURN_UNSENT)
		grants_return_unsent(&sender->grants);
	if (actions & CIRCUIT_BLAME_GRANTS)
		blame_grants(sender);
	if (actions & CIRCUIT_BLAME_GATEWAY)
		blame_gateway(sender);
	if (actions & CIRCUIT_DROP_QUERIES)
		sender_drop_queries(sender);
	if (actions & CIRCUIT_SEARCH_ANEW)
		sender_restart_search(sender);
	if (actions & CIRCUIT_SHOW_STATE)
	{
		sender->report.due = MONO_PAST;
		sender->batch.state_saved = false;
	}
}

/*
 * Ends queries that are in flight, with their connections; what they were for
 * waits again.
 */
void
sender_drop_queries(Sender *sender)
{
	GrantQueue *grants = &sender->grants;

	while (grants_in(grants, GRANT_SAMPLING) > 0)
		grant_return(grants, grants_first(grants, GRANT_SAMPLING));
	while (grants_in(grants, GRANT_RECONCILING) > 0)
		sender_add_unresolved(sender, grants_first(grants, GRANT_RECONCILING));
	circuit_checks_dropped(&sender->circuit);
	if (sender_in_flight(sender) > 0)
		sender_close(sender);
}

/*
 * The gateway is paused: what is not in flight goes back.  What awaits a verdict,
 * which only another request could bring, was not applied.
 */
void
sender_hold_all(Sender *sender)
{
	grants_return_unsent(&sender->grants);
	blame_gateway(sender);
}

/*
 * Gives up on everything: what is in flight and was sent is in doubt, the rest
 * goes back.
 */
void
sender_abandon(Sender *sender, const char *why)
{
	GrantQueue *grants = &sender->grants;
	DoubtPolicy policy = sender_policy(sender);
	TimestampTz now = GetCurrentTimestamp();

	grants_return_unsent(grants);
	while (grants_in(grants, GRANT_IN_FLIGHT) > 0)
	{
		Grant *grant = grants_first(grants, GRANT_IN_FLIGHT);

		grant_answered(grants, grant, policy);
		if (sender->session != NULL && !gateway_has_sent(sender->session, grant))
			grant->outcome.verdict = VERDICT_UNSENT;
		else
		{
			grant_lose(grant, policy, now);
			grant_set_message(grant, why);
		}
		grant_move(grants, grant, GRANT_DONE);
	}
	/* they are known not to have been applied, by a reply that stands in the grant */
	blame_gateway(sender);
	sender_drop_queries(sender);
	circuit_abandoned(&sender->circuit);
}
