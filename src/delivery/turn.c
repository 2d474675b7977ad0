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
#include "delivery/settings.h"
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
claim_limit(const Lane *lane)
{
	int limit = delivery_claim_batch;

	if (lane->window < lane->row->max_connections)
		limit = Min(limit, lane->window);
	if (lane->row->rate_limit > 0 && lane->row->rate_limit < limit)
		limit = Max((int) lane->row->rate_limit, 1);
	return limit;
}

/*
 * True if the lane may claim more: what is claimed and not sent should keep
 * its connections busy, and no more than that be left behind by a crash.
 */
static bool
wants_claim(const Lane *lane)
{
	if (!lane_is_open(lane) || !lane_is_sender(lane) || lane->exhausted || lane->session == NULL ||
		lane->reopen || lane_may_send(lane) > mono_now())
		return false;
	return lane->ready_count < Min(lane->row->max_connections, claim_limit(lane)) &&
		   lane->unsent <= claim_limit(lane);
}

/*
 * True if balances should be written down, so that their grants can be sent.
 */
static bool
wants_record(const Lane *lane)
{
	return lane->read_count > 0 &&
		   (dlist_is_empty((dlist_head *) &lane->reading) || lane->read_count >= lane->window ||
			lane->read_count >= lane->row->max_connections);
}

/*
 * True if the lane needs a user to ask the gateway about.
 */
static bool
wants_candidate(const Lane *lane)
{
	return lane_is_sender(lane) && !lane->exhausted &&
		   lane->next_candidate == lane->candidate_count && gate_wants_probe(lane);
}

/*
 * True if what is done should be settled now.
 */
static bool
wants_settlement(const Lane *lane)
{
	if (lane->done_count == 0)
		return false;
	return lane->done_count >= delivery_claim_batch ||
		   (lane->ready_count == 0 && lane_in_flight(lane) == 0) ||
		   mono_now() >= mono_add_ms(lane->done_since, SETTLE_DELAY);
}

/*
 * True if the state of the gateway should be written.
 */
static bool
wants_state_saved(const Lane *lane)
{
	return lane->state_unsaved && lane->row != NULL && lane_is_sender(lane) &&
		   (lane->state_tried == MONO_PAST ||
			mono_now() >= mono_add_ms(lane->state_tried, REREAD_INTERVAL));
}

bool
turn_is_needed(const Courier *courier)
{
	ListCell *cell;

	foreach (cell, courier->lanes)
	{
		const Lane *lane = lfirst(cell);

		if (wants_claim(lane) || wants_record(lane) || wants_settlement(lane) ||
			wants_candidate(lane) || wants_state_saved(lane))
			return true;
	}
	return false;
}

bool
has_backlog(const Courier *courier, const Lane *lane, MonoTime *due)
{
	DoubtPolicy policy = lane_policy(lane);
	bool        found = false;
	ListCell   *cell;

	if (lane->row == NULL)
		return false;
	foreach (cell, courier->runs)
	{
		Backlog *backlog = run_backlog(lfirst(cell), lane->row->name);

		if (backlog == NULL)
			continue;
		if (backlog->due != MONO_NEVER || backlog->processing > 0)
			found = true;
		*due = Min(*due, Max(backlog->due, lane_may_send(lane)));
		if (policy == DOUBT_HOLD || backlog->doubt_due == MONO_NEVER)
			continue;
		found = true;
		if (policy == DOUBT_RESEND)
			*due = Min(*due, backlog->doubt_due);
	}
	if (policy == DOUBT_RECONCILE)
		*due = Min(*due, lane->next_proof_time);
	return found || !dlist_is_empty((dlist_head *) &lane->doubts);
}

/*
 * Becomes the sender of the lane's gateway if nobody else is.
 */
static void
take_lock(Courier *courier, Lane *lane, Turn *turn)
{
	int64 leftovers;

	if (!sender_lock_try(lane->gateway_id))
		return;
	lane->turn.lock_taken = true;
	lane_take_state(lane);

	/* what was seen before may have been changed by the last sender, who may have known more runs */
	courier->runs = runs_load(courier->runs, courier->runs_memory);
	runs_forget(courier->runs, lane->row->name, false);
	runs_examine(courier->runs, courier->runs_memory);
	CRASH_POINT(lock_taken);
	leftovers = settle_leftovers(lane, courier->runs);
	if (leftovers > 0)
		ereport(LOG, (errcode(ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN),
					  errmsg("gateway \"%s\": " INT64_FORMAT
							 " grants are in doubt because their sender ended",
							 lane->row->name, leftovers)));
	if (leftovers > 0)
		CRASH_POINT(leftovers_settled);
	turn->in_doubt += leftovers;
	runs_examine(courier->runs, courier->runs_memory);
}

/*
 * Lets the search of a lane that is never at its end begin anew: grants that
 * were put off have fallen due behind it, and others must not be sent for ever
 * before them.  What was seen of the runs may be old, too.
 */
static void
restart_if_due(Courier *courier, Lane *lane)
{
	MonoTime begin = mono_now();
	MonoTime end;

	if (lane->exhausted || !lane_is_sender(lane) || lane->row == NULL)
		return;
	if (lane->restart_time == MONO_NEVER)
		lane->restart_time = mono_add_ms(begin, RESTART_INTERVAL);
	if (lane->restart_time > begin)
		return;
	runs_forget(courier->runs, lane->row->name, true);
	runs_examine(courier->runs, courier->runs_memory);
	lane_restart_search(lane);
	end = mono_now();
	lane->restart_time =
		mono_add_ms(end, Max(RESTART_INTERVAL, (end - begin) / 1000 * RESTART_SHARE));
}

/*
 * Sees to it that grants which are due at an open gateway are claimed: where
 * none was for a minute, something is wrong here.  The log says so, once, and
 * everything that is remembered of the gateway's work is thrown away.
 */
static void
watch_due(Lane *lane, MonoTime due)
{
	MonoTime now = mono_now();
	bool     is_waiting = lane->row != NULL && lane->has_lock && lane_is_open(lane) &&
					  Max(due, lane->rest_until) <= now && lane_may_send(lane) <= now &&
					  lane->unsent == 0 && dlist_is_empty(&lane->flying);

	if (!is_waiting)
	{
		lane->due_since = MONO_NEVER;
		lane->due_logged = false;
		return;
	}
	if (lane->due_since == MONO_NEVER)
		lane->due_since = now;
	if (mono_add_ms(lane->due_since, NEGLECTED) > now)
		return;
	if (!lane->due_logged)
		ereport(WARNING,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("grants for gateway \"%s\" are due for a minute and were not sent",
						lane->row->name),
				 errhint("Nothing is lost. Please report this; quota_manager.stop_workers() and "
						 "start_workers() begin anew.")));
	lane->due_logged = true;
	lane->due_since = MONO_NEVER;
	lane->reopen = true;
	lane_restart_search(lane);
}

/*
 * Looks for work: new runs, grants that fell due, gateways without a sender.
 */
static void
look(Courier *courier, Turn *turn)
{
	ListCell *cell;

	foreach (cell, courier->lanes)
	{
		Lane *lane = lfirst(cell);

		/* what is still in flight is looked at when it is settled */
		if (lane->touched && lane->row != NULL && lane_is_empty(lane))
		{
			runs_forget(courier->runs, lane->row->name, true);
			lane->touched = false;
		}
		if (lane->reexamine && lane->row != NULL)
			runs_forget(courier->runs, lane->row->name, false);
		lane->reexamine = false;
	}
	courier->runs = runs_load(courier->runs, courier->runs_memory);
	runs_examine(courier->runs, courier->runs_memory);

	foreach (cell, courier->lanes)
	{
		Lane    *lane = lfirst(cell);
		MonoTime due = MONO_NEVER;
		bool     has_work = has_backlog(courier, lane, &due);

		if (has_work && !lane->has_lock)
			take_lock(courier, lane, turn);
		restart_if_due(courier, lane);
		if (lane_is_sender(lane) && lane_policy(lane) == DOUBT_RECONCILE)
		{
			doubts_check(lane);
			doubts_load(lane, courier->runs);
		}
		due = MONO_NEVER;
		has_work = has_backlog(courier, lane, &due);
		if (!has_work && !lane->state_unsaved && lane_is_empty(lane) && lane_in_flight(lane) == 0)
			lane->turn.lock_abandoned = true;
		if (lane_is_sender(lane) && lane->exhausted && Max(due, lane->rest_until) <= mono_now())
			lane_restart_search(lane);
		watch_due(lane, due);
	}
}

/*
 * Settles and claims for one lane.
 */
static void
serve_lane(Courier *courier, Lane *lane, const Turn *turn)
{
	bool may_claim = lane->row != NULL && lane_is_sender(lane) && turn->kind != TURN_SETTLE;

	settle_done(lane);
	if (may_claim && lane_is_open(lane))
		lane_open_session(lane);
	if (may_claim && wants_claim(lane))
	{
		/* it is read in a transaction of its own, before the next turn */
		courier->wants_installation = courier->installation == NULL;
		if (courier->installation != NULL && claim_search(lane, courier->runs) &&
			claim_batch(lane, claim_limit(lane)) > 0)
		{
			lane->touched = true;
			lane->due_since = MONO_NEVER;
		}
	}
	else if (may_claim && wants_candidate(lane))
		claim_search(lane, courier->runs);
	if (may_claim)
		doubts_record(lane);
	if (lane->state_unsaved && lane->row != NULL && lane_is_sender(lane))
	{
		lane->state_tried = mono_now();
		lane->turn.state_saved = settle_state(lane);
	}
	tally_write(lane, may_claim && turn->kind == TURN_LOOK);
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
	foreach (cell, courier->lanes)
		serve_lane(courier, lfirst(cell), turn);
}

/*
 * Tells others, once, that the state of a gateway has changed.
 */
static void
announce_state(Courier *courier, Lane *lane)
{
	char *trouble;

	/* a gateway that is tried again and again is still the one that was told of */
	if (lane->state == lane->logged_state || lane->state == GATEWAY_STATE_PROBING)
		return;
	lane->logged_state = lane->state;
	if (lane->state == GATEWAY_STATE_OPEN)
	{
		ereport(LOG, (errcode(ERRCODE_SUCCESSFUL_COMPLETION),
					  errmsg("gateway \"%s\" is open", lane->row->name)));
		return;
	}
	trouble = psprintf("gateway \"%s\" is %s: %s", lane->row->name, gateway_state_name(lane->state),
					   lane->state_reason);
	ereport(LOG, (errcode(ERRCODE_CONNECTION_EXCEPTION), errmsg("%s", trouble)));
	courier_trouble(courier, trouble);
	pfree(trouble);
}

/*
 * What a turn did is durable: the lane goes on from there.
 */
static void
finish_lane(Courier *courier, Lane *lane, DeliveryCount *count)
{
	settle_finish(lane, count);
	doubts_finish(lane);
	while (!dlist_is_empty(&lane->turn.claimed))
	{
		CRASH_POINT(claim_committed);
		lane_accept(lane, dlist_container(Grant, node, dlist_pop_head_node(&lane->turn.claimed)));
	}
	if (lane->turn.lock_abandoned)
		lane_release_lock(lane);
	else if (lane->turn.lock_taken)
		lane->has_lock = true;
	if (lane->turn.state_saved)
	{
		lane->state_unsaved = false;
		announce_state(courier, lane);
	}
	lane_begin_turn(lane);
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

	foreach (cell, courier->lanes)
	{
		if (success)
			finish_lane(courier, lfirst(cell), count);
		else
			lane_undo_turn(lfirst(cell));
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
