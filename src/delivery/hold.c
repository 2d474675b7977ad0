/*
 * hold.c
 *		What a process does about pauses: whose grants it holds back.
 *
 * A paused strategy holds what its runs have granted.  Reversals are decided
 * about one by one, and are sent.
 */
#include "postgres.h"

#include "common/compat.h"
#include "delivery/hold.h"
#include "delivery/pending_work.h"

/* Marks the runs of paused strategies.  Called whenever runs were read. */
void
hold_runs(Delivery *delivery)
{
	foreach_ptr (Run, run, delivery->runs)
		run->is_held = brakes_on_strategy(&delivery->brakes, run->strategy_id);
}

/* Of grants_return_matching(). */
static bool
is_held(const Grant *grant, const void *brakes)
{
	return grant->key.revision == 0 && brakes_on_strategy(brakes, grant->key.strategy_id);
}

/* Pauses were read: what a sender has found may be paused, or be so no more. */
static void
hold_grants(Delivery *delivery, Sender *sender)
{
	if (delivery->brakes.strategy_count > 0)
		grants_return_matching(&sender->grants, is_held, &delivery->brakes);
	sender_restart_search(sender);
}

/* A gateway was paused, or is so no more. */
static void
pause_sender(Delivery *delivery, Sender *sender, bool is_paused)
{
	sender->is_paused = is_paused;
	if (is_paused)
		sender_hold_all(sender);
	/* they are loaded again */
	sender_forget_unresolved(sender);
	pending_work_forget(delivery->runs, sender->row->name);
	sender_restart_search(sender);
}

/*
 * Reads pauses if they have changed, and lets go of what must not be sent: it is
 * settled in this transaction.
 */
void
hold_update(Delivery *delivery)
{
	if (brakes_are_outdated(&delivery->brakes))
	{
		brakes_read(&delivery->brakes);
		hold_runs(delivery);
		foreach_ptr (Sender, sender, delivery->senders)
			hold_grants(delivery, sender);
	}
	foreach_ptr (Sender, sender, delivery->senders)
	{
		bool is_paused =
			sender->row != NULL && brakes_on_gateway(&delivery->brakes, sender->row->name) != NULL;

		if (is_paused != sender->is_paused && sender->row != NULL)
			pause_sender(delivery, sender, is_paused);
	}
}
