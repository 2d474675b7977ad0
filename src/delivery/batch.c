/*
 * turn.c
 *		One transaction of a round: settles what is done, claims what is sent next.
 */
#include "postgres.h"

#include "common/crash_point.h"
#include "delivery/claim.h"
#include "delivery/doubts.h"
#include "delivery/runs.h"
#include "delivery/sender_lock.h"
#include "delivery/delivery_settings.h"
#include "delivery/settle.h"
#include "delivery/turn.h"

/*
 * Answers must be read before their requests time out, so a turn does not wait
 * for long for a row or a table that somebody has locked; it is taken again.
 */
#define LOCK_TIMEOUT "500ms"

/* Milliseconds for which an answer may wait for others to be settled with. */
#define SETTLE_DELAY 100

/*
 * Milliseconds of work after which grants that have fallen due meanwhile are
 * looked for from the beginning, and how many times as long that look may take
 * at most.
 */
#define RESTART_INTERVAL 3000
#define RESTART_SHARE 50

/* Milliseconds after which it is a fault that a due grant was not touched. */
#define NEGLECTED 60000

/* A turn that is being taken. */
typedef struct Turn
{
	TurnKind kind;
	int64    in_doubt; /* grants left by others */
} Turn;

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
 * True if the sender may claim more: what is claimed and not sent should keep
 * its connections busy, and no more than that be left behind by a crash.
 */
static bool
wants_claim(const Sender *sender)
{
	if (!sender_is_open(sender) || !sender_owns_gateway(sender) || sender->search.exhausted ||
		sender->session == NULL || sender->reopen || sender_may_send(sender) > mono_now())
		return false;
	return grants_in(&sender->grants, GRANT_READY) <
			   Min(sender->row->max_connections, claim_limit(sender)) &&
		   grants_unsent(&sender->grants) <= claim_limit(sender);
}

/*
 * True if balances should be written down, so that their grants can be sent.
 */
static bool
wants_record(const Sender *sender)
{
	return grants_in(&sender->grants, GRANT_SAMPLED) > 0 &&
		   (grants_in(&sender->grants, GRANT_SAMPLING) == 0 ||
			grants_in(&sender->grants, GRANT_SAMPLED) >= sender->circuit.concurrency_limit ||
			grants_in(&sender->grants, GRANT_SAMPLED) >= sender->row->max_connections);
}

/*
 * True if the sender needs a user to ask the gateway about.
 */
static bool
wants_candidate(const Sender *sender)
{
	return sender_owns_gateway(sender) && !sender->search.exhausted &&
		   candidates_left(&sender->search) == 0 && sender_wants_check(sender);
}

/*
 * True if what is done should be settled now.
 */
static bool
wants_settlement(const Sender *sender)
{
	if (grants_in(&sender->grants, GRANT_DONE) == 0)
		return false;
	return grants_in(&sender->grants, GRANT_DONE) >= delivery_claim_batch ||
		   (grants_in(&sender->grants, GRANT_READY) == 0 && sender_in_flight(sender) == 0) ||
		   mono_now() >= mono_add_ms(sender->grants.done_since, SETTLE_DELAY);
}

/*
 * True if the state of the gateway should be written.
 */
static bool
wants_state_saved(const Sender *sender)
{
	return sender->report.unsaved && sender->row != NULL && sender_owns_gateway(sender) &&
		   (sender->report.tried == MONO_PAST ||
			mono_now() >= mono_add_ms(sender->report.tried, REREAD_INTERVAL));
}

bool
turn_is_needed(const Courier *courier)
{
	ListCell *cell;

	foreach (cell, courier->senders)
	{
		const Sender *sender = lfirst(cell);

		if (wants_claim(sender) || wants_record(sender) || wants_settlement(sender) ||
			wants_candidate(sender) || wants_state_saved(sender))
			return true;
	}
	return false;
}

bool
has_backlog(const Courier *courier, const Sender *sender, MonoTime *due)
{
	DoubtPolicy policy = sender_policy(sender);
	bool        found = false;
	ListCell   *cell;

	if (sender->row == NULL)
		return false;
	foreach (cell, courier->runs)
	{
		Backlog *backlog = run_backlog(lfirst(cell), sender->row->name);

		if (backlog == NULL)
			continue;
		if (backlog->due != MONO_NEVER || backlog->processing > 0)
			found = true;
		*due = Min(*due, Max(backlog->due, sender_may_send(sender)));
		if (policy == DOUBT_HOLD || backlog->doubt_due == MONO_NEVER)
			continue;
		found = true;
		if (policy == DOUBT_RESEND)
			*due = Min(*due, backlog->doubt_due);
	}
	if (policy == DOUBT_RECONCILE)
		*due = Min(*due, sender->unresolved.next_due);
	return found || grants_in(&sender->grants, GRANT_UNRESOLVED) > 0;
}

/*
 * Makes this process the gateway's sender unless another one is.
 */
static void
take_lock(Courier *courier, Sender *sender, Turn *turn)
{
	int64 leftovers;

	if (!sender_lock_try(sender->gateway_id))
		return;
	sender->batch.lock_taken = true;
	sender_take_state(sender);

	/* what was seen before may have been changed by the last sender, who may have known more runs */
	courier->runs = runs_load(courier->runs, courier->runs_memory);
	runs_forget(courier->runs, sender->row->name, false);
	runs_examine(courier->runs, courier->runs_memory);
	CRASH_POINT(lock_taken);
	leftovers = settle_leftovers(sender, courier->runs);
	if (leftovers > 0)
		ereport(LOG, (errcode(ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN),
					  errmsg("gateway \"%s\": " INT64_FORMAT
							 " grants are in doubt because their sender ended",
							 sender->row->name, leftovers)));
	if (leftovers > 0)
		CRASH_POINT(leftovers_settled);
	turn->in_doubt += leftovers;
	runs_examine(courier->runs, courier->runs_memory);
}

/*
 * Lets the search of a sender that is never at its end begin anew: grants that
 * were put off have fallen due behind it, and others must not be sent for ever
 * before them.  What was seen of the runs may be old, too.
 */
static void
restart_if_due(Courier *courier, Sender *sender)
{
	MonoTime begin = mono_now();
	MonoTime end;

	if (sender->search.exhausted || !sender_owns_gateway(sender) || sender->row == NULL)
		return;
	if (sender->search.restart_time == MONO_NEVER)
		sender->search.restart_time = mono_add_ms(begin, RESTART_INTERVAL);
	if (sender->search.restart_time > begin)
		return;
	runs_forget(courier->runs, sender->row->name, true);
	runs_examine(courier->runs, courier->runs_memory);
	candidates_restart(&sender->search);
	end = mono_now();
	sender->search.restart_time =
		mono_add_ms(end, Max(RESTART_INTERVAL, (end - begin) / 1000 * RESTART_SHARE));
}

/*
 * Sees to it that grants which are due at an open gateway are claimed: where
 * none was for a minute, something is wrong here.  The log says so, once, and
 * everything that is remembered of the gateway's work is thrown away.
 */
static void
watch_due(Sender *sender, MonoTime due)
{
	MonoTime now = mono_now();
	bool     is_waiting = sender->row != NULL && sender->has_lock && sender_is_open(sender) &&
					  Max(due, sender->search.rest_until) <= now &&
					  sender_may_send(sender) <= now && grants_unsent(&sender->grants) == 0 &&
					  grants_in(&sender->grants, GRANT_IN_FLIGHT) == 0;

	if (!is_waiting)
	{
		sender->due.since = MONO_NEVER;
		sender->due.logged = false;
		return;
	}
	if (sender->due.since == MONO_NEVER)
		sender->due.since = now;
	if (mono_add_ms(sender->due.since, NEGLECTED) > now)
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
	candidates_restart(&sender->search);
}

/*
 * Looks for work: new runs, grants that fell due, gateways without a sender.
 */
static void
look(Courier *courier, Turn *turn)
{
	ListCell *cell;

	foreach (cell, courier->senders)
	{
		Sender *sender = lfirst(cell);

		/* what is still in flight is looked at when it is settled */
		if (sender->dirty && sender->row != NULL && !grants_claimed(&sender->grants))
		{
			runs_forget(courier->runs, sender->row->name, true);
			sender->dirty = false;
		}
		if (sender->policy.changed && sender->row != NULL)
			runs_forget(courier->runs, sender->row->name, false);
		sender->policy.changed = false;
	}
	courier->runs = runs_load(courier->runs, courier->runs_memory);
	runs_examine(courier->runs, courier->runs_memory);

	foreach (cell, courier->senders)
	{
		Sender  *sender = lfirst(cell);
		MonoTime due = MONO_NEVER;
		bool     has_work = has_backlog(courier, sender, &due);

		if (has_work && !sender->has_lock)
			take_lock(courier, sender, turn);
		restart_if_due(courier, sender);
		if (sender_owns_gateway(sender) && sender_policy(sender) == DOUBT_RECONCILE)
		{
			doubts_check(sender);
			doubts_load(sender, courier->runs);
		}
		due = MONO_NEVER;
		has_work = has_backlog(courier, sender, &due);
		if (!has_work && !sender->report.unsaved && !grants_claimed(&sender->grants) &&
			sender_in_flight(sender) == 0)
			sender->batch.lock_abandoned = true;
		if (sender_owns_gateway(sender) && sender->search.exhausted &&
			Max(due, sender->search.rest_until) <= mono_now())
			candidates_restart(&sender->search);
		watch_due(sender, due);
	}
}

/*
 * Settles and claims for one sender.
 */
static void
serve_sender(Courier *courier, Sender *sender, const Turn *turn)
{
	bool may_claim =
		sender->row != NULL && sender_owns_gateway(sender) && turn->kind != TURN_SETTLE;

	settle_done(sender);
	if (may_claim && sender_is_open(sender))
		sender_open_session(sender);
	if (may_claim && wants_claim(sender))
	{
		/* it is read in a transaction of its own, before the next turn */
		courier->wants_installation = courier->installation == NULL;
		if (courier->installation != NULL && claim_search(sender, courier->runs) &&
			claim_batch(sender, claim_limit(sender)) > 0)
		{
			sender->dirty = true;
			sender->due.since = MONO_NEVER;
		}
	}
	else if (may_claim && wants_candidate(sender))
		claim_search(sender, courier->runs);
	if (may_claim)
		doubts_record(sender);
	if (sender->report.unsaved && sender->row != NULL && sender_owns_gateway(sender))
	{
		sender->report.tried = mono_now();
		sender->batch.state_saved = settle_state(sender);
	}
	tally_write(&sender->batch.tally, sender->row == NULL ? NULL : sender->row->name,
				may_claim && turn->kind == TURN_LOOK);
}

/*
 * The body of a turn's transaction.
 */
static void
take_turn(Courier *courier, void *argument)
{
	Turn     *turn = argument;
	ListCell *cell;

	set_local("lock_timeout", LOCK_TIMEOUT);
	if (courier->gateways_read == MONO_PAST ||
		mono_now() >= mono_add_ms(courier->gateways_read, REREAD_INTERVAL))
		courier_read_gateways(courier);
	if (turn->kind == TURN_LOOK)
		look(courier, turn);
	foreach (cell, courier->senders)
		serve_sender(courier, lfirst(cell), turn);
}

/*
 * Tells others, once, that the state of a gateway has changed.
 */
static void
announce_state(Courier *courier, Sender *sender)
{
	char *trouble;

	/* a gateway that is tried again and again is still the one that was told of */
	if (sender->circuit.state == sender->report.logged || sender->circuit.state == CIRCUIT_PROBING)
		return;
	sender->report.logged = sender->circuit.state;
	if (sender->circuit.state == CIRCUIT_OPEN)
	{
		ereport(LOG, (errcode(ERRCODE_SUCCESSFUL_COMPLETION),
					  errmsg("gateway \"%s\" is open", sender->row->name)));
		return;
	}
	trouble = psprintf("gateway \"%s\" is %s: %s", sender->row->name,
					   circuit_state_name(sender->circuit.state), sender->circuit.reason);
	ereport(LOG, (errcode(ERRCODE_CONNECTION_EXCEPTION), errmsg("%s", trouble)));
	courier_trouble(courier, trouble);
	pfree(trouble);
}

/*
 * What a turn did is durable: the sender goes on from there.
 */
static void
finish_sender(Courier *courier, Sender *sender, DeliveryCount *count)
{
	settle_finish(sender, count);
	doubts_finish(sender);
	while (!dlist_is_empty(&sender->batch.claimed))
	{
		CRASH_POINT(claim_committed);
		grant_add(&sender->grants,
				  dlist_container(Grant, node, dlist_pop_head_node(&sender->batch.claimed)));
	}
	if (sender->batch.lock_abandoned)
		sender_release_lock(sender);
	else if (sender->batch.lock_taken)
		sender->has_lock = true;
	if (sender->batch.state_saved)
	{
		sender->report.unsaved = false;
		announce_state(courier, sender);
	}
	sender_begin_batch(sender);
}

/*
 * The body of the transaction that reads under which ids grants are sent.
 */
static void
read_installation(Courier *courier, void *argument)
{
	*(Installation **) argument = installation_read(courier->memory);
}

/*
 * Takes what a transaction did over into memory, or, after an error, throws
 * away all that was read or done in it: the next one begins with what is
 * committed.
 */
static void
conclude_turn(Courier *courier, bool success, DeliveryCount *count)
{
	ListCell *cell;

	foreach (cell, courier->senders)
	{
		if (success)
			finish_sender(courier, lfirst(cell), count);
		else
			sender_undo_batch(lfirst(cell));
	}
	if (!success)
		courier_forget(courier);
}

ErrorData *
turn_take(Courier *courier, TurnKind kind, DeliveryCount *count)
{
	Turn       turn = {kind, 0};
	ErrorData *error;

	if (courier->wants_installation && kind != TURN_SETTLE)
	{
		Installation *installation = NULL;

		error = courier_transact(courier, read_installation, &installation);
		if (error != NULL)
			return error;
		courier->installation = installation;
		courier->wants_installation = false;
	}
	error = courier_transact(courier, take_turn, &turn);
	conclude_turn(courier, error == NULL, count);
	if (error == NULL)
		count->in_doubt += turn.in_doubt;
	return error;
}
