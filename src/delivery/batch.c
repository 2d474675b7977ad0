/*
 * batch.c
 *		One transaction of the delivery loop: settles what is done, claims what is
 *		sent next.
 *
 * What it does for a sender is noted in Sender.batch, and becomes what the
 * sender goes on from once the transaction is committed.
 */
#include "postgres.h"

#include "common/backoff.h"
#include "common/compat.h"
#include "common/crash_point.h"
#include "delivery/batch.h"
#include "delivery/claim.h"
#include "delivery/hold.h"
#include "delivery/unresolved.h"
#include "delivery/pending_work.h"
#include "delivery/sender_lock.h"
#include "delivery/delivery_settings.h"
#include "delivery/settle.h"
#include "delivery/timing.h"

/* A batch under way. */
typedef struct BatchRun
{
	Delivery *delivery;
	BatchKind kind;
} BatchRun;

/*
 * How many grants are claimed at once: no more than are sent soon, since all
 * are in doubt if this process dies.
 */
static int
claim_limit(const Sender *sender)
{
	int limit = delivery_claim_batch;

	if (sender->circuit.concurrency_limit < sender->row->max_connections)
		limit = Min(limit, sender->circuit.concurrency_limit);
	if (sender->row->rate_limit > 0 && sender->row->rate_limit < limit)
		limit = Max((int) sender->row->rate_limit, 1);
	return limit;
}

/*
 * True if more may be claimed: what is claimed and not sent should keep the
 * connections busy, and no more than that be left behind by a crash.
 */
static bool
wants_claim(const Sender *sender)
{
	if (!sender_is_open(sender) || !sender_owns_gateway(sender) || sender->search.exhausted ||
		sender->reopen || sender_may_send(sender) > mono_now())
		return false;
	return grants_in(&sender->grants, GRANT_READY) <
			   Min(sender->row->max_connections, claim_limit(sender)) &&
		   grants_unsent(&sender->grants) <= claim_limit(sender);
}

/* True if balances should be written, so that their grants can be sent. */
static bool
wants_record(const Sender *sender)
{
	int sampled = grants_in(&sender->grants, GRANT_SAMPLED);

	return sampled > 0 && (grants_in(&sender->grants, GRANT_SAMPLING) == 0 ||
						   sampled >= sender->circuit.concurrency_limit ||
						   sampled >= sender->row->max_connections);
}

/* True if a user is wanted to ask the gateway about. */
static bool
wants_candidate(const Sender *sender)
{
	return sender_owns_gateway(sender) && !sender->search.exhausted &&
		   candidates_left(&sender->search) == 0 && sender_wants_check(sender);
}

/* True if what is done should be settled now. */
static bool
wants_settlement(const Sender *sender)
{
	int done = grants_in(&sender->grants, GRANT_DONE);

	return done > 0 &&
		   (done >= delivery_claim_batch ||
			(grants_in(&sender->grants, GRANT_READY) == 0 && sender_in_flight(sender) == 0) ||
			mono_now() >= mono_add_ms(sender->grants.done_since, SETTLE_WAIT_MS));
}

/* True if a sender would profit from a batch now, or something was paused. */
bool
batch_is_needed(const Delivery *delivery)
{
	if (brakes_are_outdated(&delivery->brakes))
		return true;
	foreach_ptr (const Sender, sender, delivery->senders)
		if (wants_claim(sender) || wants_record(sender) || wants_settlement(sender) ||
			wants_candidate(sender) ||
			(sender->report.due <= mono_now() && sender->row != NULL &&
			 sender_owns_gateway(sender)))
			return true;
	return false;
}

/*
 * True if there is work for a gateway, as far as is known.  *due becomes the
 * time at which the first grant may be sent, if that is earlier.  What a pause
 * holds is no work, but for claims that a sender may have left behind.
 */
bool
batch_has_work(const Delivery *delivery, const Sender *sender, MonoTime *due)
{
	DoubtPolicy policy = sender_policy(sender);
	bool        found = !sender->is_paused && grants_in(&sender->grants, GRANT_UNRESOLVED) > 0;

	if (sender->row == NULL)
		return false;
	foreach_ptr (const Run, run, delivery->runs)
	{
		const PendingWork *work = pending_work_at(run, sender->row->name);

		if (work == NULL)
			continue;
		found |= work->processing > 0;
		if (sender->is_paused)
			continue;
		if (work->due != MONO_NEVER && !run->is_held)
		{
			found = true;
			*due = Min(*due, Max(work->due, sender_may_send(sender)));
		}
		if (policy == DOUBT_HOLD || work->doubt_due == MONO_NEVER ||
			(policy == DOUBT_RESEND && run->is_held))
			continue;
		found = true;
		if (policy == DOUBT_RESEND)
			*due = Min(*due, work->doubt_due);
	}
	if (policy == DOUBT_RECONCILE && !sender->is_paused)
		*due = Min(*due, sender->unresolved.next_due);
	return found;
}

/*
 * Makes this process the gateway's sender unless another one is, and settles
 * what the last one has left.
 */
static void
take_lock(Delivery *delivery, Sender *sender)
{
	int64 orphaned;

	if (!sender_lock_try(sender->gateway_id))
		return;
	sender->batch.lock_taken = true;
	sender_take_state(sender);

	/* the last sender may have changed what was read before, and may have known more runs */
	delivery->runs = pending_work_load(delivery->runs, delivery->runs_memory);
	pending_work_forget(delivery->runs, sender->row->name);
	pending_work_read(delivery->runs, delivery->runs_memory);
	hold_runs(delivery);
	CRASH_POINT(lock_taken);
	settle_orphaned(sender, delivery->runs);
	orphaned = sender->batch.tally.outcomes.in_doubt;
	if (orphaned > 0)
	{
		ereport(LOG, (errcode(ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN),
					  errmsg("gateway \"%s\": " INT64_FORMAT
							 " grants are in doubt because their sender ended",
							 sender->row->name, orphaned)));
		CRASH_POINT(orphans_settled);
	}
	pending_work_read(delivery->runs, delivery->runs_memory);
}

/*
 * Begins the search of a sender that is never at its end anew: grants that were
 * put off have fallen due behind it, and must not wait for all that is new.
 */
static void
restart_if_due(Delivery *delivery, Sender *sender)
{
	MonoTime begin = mono_now();

	if (sender->search.exhausted || !sender_owns_gateway(sender) || sender->row == NULL ||
		sender->search.restart_time > begin)
		return;
	pending_work_forget_dirty(delivery->runs, sender->row->name);
	pending_work_read(delivery->runs, delivery->runs_memory);
	sender_restart_search(sender);
	sender->search.restart_time =
		backoff_by_cost(begin, SEARCH_AGAIN_MS, PG_INT32_MAX, SEARCH_AGAIN_SHARE);
}

/*
 * Checks that grants which are due at an open gateway are claimed: where none
 * was for a minute, something is wrong here.  The log says so, once, and
 * everything that is remembered of the gateway's work is thrown away.
 */
static void
watch_due(Sender *sender, MonoTime due)
{
	MonoTime now = mono_now();
	bool     is_waiting = sender->has_lock && sender_is_open(sender) &&
					  Max(due, sender->search.rest_until) <= now &&
					  sender_may_send(sender) <= now && grants_unsent(&sender->grants) == 0 &&
					  grants_in(&sender->grants, GRANT_IN_FLIGHT) == 0;

	if (!is_waiting)
	{
		sender->due.since = MONO_NEVER;
		sender->due.logged = false;
		return;
	}
	sender->due.since = Min(sender->due.since, now);
	if (mono_add_ms(sender->due.since, NEGLECTED_MS) > now)
		return;
	if (!sender->due.logged)
		ereport(WARNING,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("grants for gateway \"%s\" are due for a minute and were not sent",
						sender->row->name),
				 errhint("Nothing is lost. Please report this; quota_manager.stop_workers() and "
						 "start_workers() begin anew.")));
	sender->due.logged = true;
	sender->due.since = MONO_NEVER;
	sender->reopen = true;
	sender_restart_search(sender);
}

/*
 * What was changed of the work of a gateway is read again, once nothing that was
 * claimed is left to be settled.
 */
static void
forget_changed(Delivery *delivery, Sender *sender)
{
	if (sender->row == NULL || !sender->dirty || grants_claimed(&sender->grants))
		return;
	pending_work_forget_dirty(delivery->runs, sender->row->name);
	sender->dirty = false;
}

/*
 * Polls for the work of one sender: grants that fell due, a gateway without a
 * sender, grants in doubt.
 */
static void
poll_for_sender(Delivery *delivery, Sender *sender)
{
	MonoTime due = MONO_NEVER;

	if (batch_has_work(delivery, sender, &due) && !sender->has_lock)
		take_lock(delivery, sender);
	restart_if_due(delivery, sender);
	if (sender_owns_gateway(sender) && !sender->is_paused &&
		sender_policy(sender) == DOUBT_RECONCILE)
	{
		unresolved_check(sender);
		unresolved_load(sender, delivery->runs);
	}
	due = MONO_NEVER;
	if (!batch_has_work(delivery, sender, &due) && sender->report.due == MONO_NEVER &&
		!grants_claimed(&sender->grants) && sender_in_flight(sender) == 0)
		sender->batch.lock_abandoned = true;
	if (sender_owns_gateway(sender) && sender->search.exhausted &&
		Max(due, sender->search.rest_until) <= mono_now())
		sender_restart_search(sender);
	watch_due(sender, due);
}

/* Settles and claims for one sender. */
static void
serve_sender(Delivery *delivery, Sender *sender, const BatchRun *run)
{
	bool may_claim =
		sender->row != NULL && sender_owns_gateway(sender) && run->kind != BATCH_SETTLE;

	settle_done(sender);
	if (may_claim && sender_is_open(sender))
		sender_open_session(sender);
	if (may_claim && wants_claim(sender))
	{
		/* it is read in a transaction of its own, before the next batch */
		delivery->wants_installation = delivery->installation == NULL;
		if (delivery->installation != NULL && claim_search(sender, delivery->runs) &&
			claim_batch(sender, claim_limit(sender)) > 0)
		{
			sender->dirty = true;
			sender->due.since = MONO_NEVER;
		}
	}
	else if (may_claim && wants_candidate(sender))
		claim_search(sender, delivery->runs);
	if (may_claim)
		samples_write(sender);
	if (sender->report.due != MONO_NEVER && sender->row != NULL && sender_owns_gateway(sender))
	{
		sender->report.due = mono_in_ms(POLL_INTERVAL_MS);
		sender->batch.state_saved = settle_state(sender);
	}
	if (tally_write(&sender->batch.tally, sender->row == NULL ? NULL : sender->row->name) &&
		may_claim && run->kind == BATCH_POLL)
		tally_fold(sender->row->name);
}

/* The body of a batch's transaction. */
static void
run_batch(void *argument)
{
	BatchRun *run = argument;
	Delivery *delivery = run->delivery;

	set_local("lock_timeout", BATCH_LOCK_TIMEOUT);
	if (delivery->gateways_read == MONO_PAST ||
		mono_now() >= mono_add_ms(delivery->gateways_read, POLL_INTERVAL_MS))
		senders_read_gateways(delivery);
	hold_update(delivery);
	if (run->kind == BATCH_POLL)
	{
		foreach_ptr (Sender, sender, delivery->senders)
			forget_changed(delivery, sender);
		delivery->runs = pending_work_load(delivery->runs, delivery->runs_memory);
		hold_runs(delivery);
		pending_work_read(delivery->runs, delivery->runs_memory);
		foreach_ptr (Sender, sender, delivery->senders)
			poll_for_sender(delivery, sender);
	}
	foreach_ptr (Sender, sender, delivery->senders)
		serve_sender(delivery, sender, run);
}

/*
 * Logs, once, that the state of a gateway has changed.  One that is tried again
 * and again is still what was logged.
 */
static void
announce_state(Delivery *delivery, Sender *sender)
{
	const Circuit *circuit = &sender->circuit;
	char          *text;

	if (circuit->state == sender->report.logged || circuit->state == CIRCUIT_PROBING)
		return;
	sender->report.logged = circuit->state;
	if (circuit->state == CIRCUIT_OPEN)
	{
		ereport(LOG, (errcode(ERRCODE_SUCCESSFUL_COMPLETION),
					  errmsg("gateway \"%s\" is open", sender->row->name)));
		return;
	}
	text = psprintf("gateway \"%s\" is %s: %s", sender->row->name,
					circuit_state_name(circuit->state), circuit->reason);
	ereport(LOG, (errcode(ERRCODE_CONNECTION_EXCEPTION), errmsg("%s", text)));
	senders_note_error(delivery, text);
	pfree(text);
}

/* What the batch did is durable: the sender goes on from there. */
static void
finish_sender(Delivery *delivery, Sender *sender, DeliveryCount *count)
{
	tally_count(&sender->batch.tally, count);
	settle_finish(sender);
	samples_finish(sender);
	while (!dlist_is_empty(&sender->batch.claimed))
	{
		CRASH_POINT(claim_committed);
		grant_add(&sender->grants,
				  dlist_container(Grant, node, dlist_pop_head_node(&sender->batch.claimed)));
	}
	if (sender->batch.lock_abandoned)
	{
		sender_release_lock(sender);
		/* another sender may decide about those that a pause has left here */
		sender_forget_unresolved(sender);
	}
	else if (sender->batch.lock_taken)
		sender->has_lock = true;
	if (sender->batch.state_saved)
	{
		sender->report.due = MONO_NEVER;
		announce_state(delivery, sender);
	}
	sender_begin_batch(sender);
}

/* The body of the transaction that reads under which ids grants are sent. */
static void
read_installation(void *argument)
{
	Delivery *delivery = argument;

	delivery->installation = identity_read(delivery->memory);
}

/*
 * Runs a batch and adds what it settled to *count.  An error in it is returned
 * (NULL: none): what it did is undone, in tables and in memory, what was read
 * is forgotten, and what is to be settled stays where it is.
 */
ErrorData *
batch_run(Delivery *delivery, BatchKind kind, DeliveryCount *count)
{
	BatchRun   run = {delivery, kind};
	ErrorData *error;

	if (delivery->wants_installation && kind != BATCH_SETTLE)
	{
		error = senders_transact(delivery, read_installation, delivery);
		if (error != NULL)
			return error;
		delivery->wants_installation = false;
	}
	error = senders_transact(delivery, run_batch, &run);
	if (error != NULL)
	{
		foreach_ptr (Sender, sender, delivery->senders)
			sender_undo_batch(sender);
		senders_forget_tables(delivery);
		return error;
	}
	foreach_ptr (Sender, sender, delivery->senders)
		finish_sender(delivery, sender, count);
	return NULL;
}
