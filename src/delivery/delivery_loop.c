/*
 * round.c
 *		A round of a courier: claim, send, settle, until nothing is due.
 *
 * The loop alternates between HTTP, with no transaction open, and turns: a
 * turn is one transaction that settles what is done and claims what is to be
 * sent next, for all gateways.  It is taken when a sender is about to run dry,
 * and else so often that answers do not lie about for long.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/latch.h"
#include "utils/guc.h"
#include "utils/wait_event.h"

#include "common/crash_point.h"
#include "common/progress.h"
#include "delivery/courier.h"
#include "delivery/health_check.h"
#include "delivery/requests.h"
#include "delivery/runs.h"
#include "delivery/turn.h"

/* Milliseconds after which a gateway that another process serves is looked at again. */
#define TAKEN_INTERVAL 5000

/* Milliseconds between rounds at least: what one did not achieve, the next will not at once. */
#define SHORTEST_PAUSE 100

/* Milliseconds between looks at least, however often one is asked for while others are served. */
#define LOOK_INTERVAL 50

/* Longest wait for answers, in milliseconds, of one gateway and of several. */
#define POLL_ONE 100
#define POLL_SEVERAL 20

/* Longest wait for answers when the caller cannot wait, in milliseconds. */
#define LEAVE_GRACE 1000

/*
 * Waits for answers, at most limit_ms.  False: nothing is in flight.
 *
 * Gateways that answer are not slowed down by those that seem to hang: these
 * are only looked at while there are others to wait for.
 */
static bool
poll_senders(Courier *courier, int limit_ms)
{
	MonoTime  now = mono_now();
	int       active = 0;
	int       hot = 0;
	ListCell *cell;

	foreach (cell, courier->senders)
	{
		Sender *sender = lfirst(cell);

		if (sender_in_flight(sender) == 0)
			continue;
		active++;
		if (sender->responsive_until > now)
			hot++;
	}
	if (active == 0)
		return false;

	pgstat_report_wait_start(PG_WAIT_EXTENSION);
	foreach (cell, courier->senders)
	{
		Sender *sender = lfirst(cell);
		int     timeout_ms;

		if (sender_in_flight(sender) == 0)
			continue;
		if (active == 1)
			timeout_ms = POLL_ONE;
		else if (hot == 0)
			timeout_ms = Max(POLL_SEVERAL / active, 1);
		else
			timeout_ms = sender->responsive_until > now ? Max(POLL_SEVERAL / hot, 1) : 0;
		requests_poll(sender, Min(timeout_ms, limit_ms));
	}
	pgstat_report_wait_end();
	return true;
}

/*
 * Ends the round early: what was not sent goes back, what is in flight is
 * awaited for at most grace_ms, counted from when *stop (may be NULL) asks for
 * no more patience, and is then in doubt.  An error on the way
 * leaves outcomes in the senders, for another round to settle.
 */
static void
wind_down(Courier *courier, const volatile sig_atomic_t *stop, int grace_ms, DeliveryCount *count)
{
	int       grace = grace_ms;
	MonoTime  end = mono_in_ms(grace_ms);
	ListCell *cell;

	courier->is_leaving = true;
	progress_set(PROGRESS_DELIVERY, DELIVERY_PHASE, DELIVERY_WINDING_DOWN);
	foreach (cell, courier->senders)
		grants_return_unsent(&((Sender *) lfirst(cell))->grants);
	CRASH_POINT(winding_down);
	if (turn_take(courier, TURN_SETTLE, count) != NULL)
		grace_ms = 0;
	while (grace_ms > 0 && poll_senders(courier, grace_ms))
	{
		CHECK_FOR_INTERRUPTS();
		if (stop != NULL && *stop == STOP_WHEN_ANSWERED)
			end = mono_in_ms(grace);
		grace_ms = (int) mono_ms_until(end, grace);
	}
	foreach (cell, courier->senders)
		sender_abandon(lfirst(cell), "the sender was stopped before the answer came");
	CRASH_POINT(wound_down);
	(void) turn_take(courier, TURN_SETTLE, count);
	courier->is_leaving = false;
}

/*
 * A query was cancelled, or the session is to end: winds down first, and then
 * lets that happen.
 */
static void
wind_down_and_leave(Courier *courier, int grace_ms, DeliveryCount *count)
{
	bool is_cancelled = QueryCancelPending;
	bool is_dying = ProcDiePending;

	/* otherwise the first check would end everything as it is; another cancel or signal may */
	QueryCancelPending = ProcDiePending = false;
	wind_down(courier, NULL, Min(grace_ms, LEAVE_GRACE), count);
	if (is_cancelled)
		QueryCancelPending = InterruptPending = true;
	if (is_dying)
		ProcDiePending = InterruptPending = true;
	CHECK_FOR_INTERRUPTS();
}

/*
 * When is this sender to be looked at again?
 */
static MonoTime
sender_due(const Courier *courier, const Sender *sender, MonoTime now)
{
	MonoTime due = MONO_NEVER;
	bool     has_work = has_backlog(courier, sender, &due);

	if (sender->report.unsaved && sender->has_lock)
		return mono_add_ms(now, REREAD_INTERVAL);
	if (!has_work)
		return MONO_NEVER;
	if (!sender->has_lock)
		return mono_add_ms(now, TAKEN_INTERVAL);
	if (sender->circuit.phase != CIRCUIT_SENDING)
		due = Max(due, sender->circuit.check_time);
	due = Max(due, sender->search.rest_until);
	/* someone may mend the row */
	if (sender->circuit.state == CIRCUIT_MISCONFIGURED)
		due = Min(due, mono_add_ms(now, REREAD_INTERVAL));
	/* what was seen may be wrong by then */
	due = Min(due, mono_add_ms(now, RUNS_BELIEVED));
	return Max(due, mono_add_ms(now, SHORTEST_PAUSE));
}

/*
 * Sleeps for so many milliseconds, or until something happens to the process:
 * then was_woken() tells so.
 */
static void
nap(int ms)
{
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, ms,
					 PG_WAIT_EXTENSION);
}

/*
 * True once if something has happened to the process since the last time:
 * there may be new grants.
 */
static bool
was_woken(void)
{
	if (!MyLatch->is_set)
		return false;
	ResetLatch(MyLatch);
	return true;
}

/*
 * Waits for what a rate_limit lets go, and nothing else does not.  False:
 * there is no such thing.
 */
static bool
wait_for_rate(const Courier *courier)
{
	int       timeout_ms = -1;
	ListCell *cell;

	foreach (cell, courier->senders)
	{
		int ms = requests_throttled_ms(lfirst(cell));

		if (ms >= 0)
			timeout_ms = timeout_ms < 0 ? ms : Min(timeout_ms, ms);
	}
	if (timeout_ms < 0)
		return false;
	nap(Min(timeout_ms, POLL_ONE));
	return true;
}

/*
 * True if something is claimed and about to be sent.
 */
static bool
has_unsent(const Courier *courier)
{
	ListCell *cell;

	foreach (cell, courier->senders)
		if (grants_unsent(&((const Sender *) lfirst(cell))->grants) > 0)
			return true;
	return false;
}

/*
 * True for an error that is no fault of anybody's: a turn that meets it is
 * taken again.
 */
static bool
is_contention(const ErrorData *error)
{
	return error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE ||
		   error->sqlerrcode == ERRCODE_T_R_DEADLOCK_DETECTED ||
		   error->sqlerrcode == ERRCODE_T_R_SERIALIZATION_FAILURE;
}

/*
 * Settings are reloaded between transactions, also while a gateway hangs.  A
 * procedure's session does that when the statement has ended.
 */
static void
reload_settings(void)
{
	if (ConfigReloadPending && MyBgworkerEntry != NULL)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
	}
}

/*
 * Tells others how far this process is.
 */
static void
tell_progress(const Courier *courier, const DeliveryCount *count)
{
	int64     served = 0;
	int64     open = 0;
	int64     unsent = 0;
	int64     in_flight = 0;
	ListCell *cell;

	foreach (cell, courier->senders)
	{
		Sender *sender = lfirst(cell);

		if (!sender->has_lock)
			continue;
		served++;
		open += sender->circuit.state == CIRCUIT_OPEN;
		unsent += grants_unsent(&sender->grants);
		in_flight += sender_in_flight(sender);
	}
	progress_set(PROGRESS_DELIVERY, DELIVERY_GATEWAYS_TOTAL, list_length(courier->senders));
	progress_set(PROGRESS_DELIVERY, DELIVERY_GATEWAYS_SERVED, served);
	progress_set(PROGRESS_DELIVERY, DELIVERY_GATEWAYS_OPEN, open);
	progress_set(PROGRESS_DELIVERY, DELIVERY_UNSENT, unsent);
	progress_set(PROGRESS_DELIVERY, DELIVERY_IN_FLIGHT, in_flight);
	progress_set(PROGRESS_DELIVERY, DELIVERY_COMPLETED, count->completed);
	progress_set(PROGRESS_DELIVERY, DELIVERY_FAILED, count->failed);
	progress_set(PROGRESS_DELIVERY, DELIVERY_IN_DOUBT, count->in_doubt);
	progress_set(PROGRESS_DELIVERY, DELIVERY_DEFERRED, count->deferred);
}

/*
 * The loop of courier_round().
 */
static MonoTime
go_round(Courier *courier, volatile sig_atomic_t *stop, int grace_ms, DeliveryCount *count)
{
	bool      is_look = true;    /* the next turn looks for work */
	bool      contended = false; /* the last turn met somebody's lock */
	bool      worked = false;    /* something was sent since the last look */
	bool      took_turn;
	MonoTime  next_look = MONO_PAST;
	MonoTime  earliest_look = MONO_PAST;
	MonoTime  now;
	MonoTime  due = MONO_NEVER;
	ListCell *cell;

	/* the first round of a courier, and every one after a pause, sees the gateways as they are */
	courier->gateways_read = MONO_PAST;

	for (;;)
	{
		leave_dead_server();
		reload_settings();
		if (QueryCancelPending || ProcDiePending)
			wind_down_and_leave(courier, grace_ms, count);
		CHECK_FOR_INTERRUPTS();
		if (stop != NULL && *stop)
		{
			wind_down(courier, stop, grace_ms, count);
			return mono_now();
		}

		/* a gateway that hangs must not keep new grants from others */
		now = mono_now();
		if (was_woken())
			next_look = Min(next_look, earliest_look);
		if (now >= next_look)
			is_look = true;
		if (is_look)
		{
			next_look = mono_add_ms(now, REREAD_INTERVAL);
			earliest_look = mono_add_ms(now, LOOK_INTERVAL);
		}
		took_turn = is_look || turn_is_needed(courier);
		if (took_turn)
		{
			ErrorData *error;

			progress_set(PROGRESS_DELIVERY, DELIVERY_PHASE,
						 is_look ? DELIVERY_LOOKING : DELIVERY_SENDING);
			error = turn_take(courier, is_look ? TURN_LOOK : TURN_CLAIM, count);

			if (error != NULL && is_contention(error))
			{
				if (!contended)
					ereport(LOG,
							(errcode(error->sqlerrcode),
							 errmsg("deliveries wait for another session: %s", error->message)));
				contended = true;
				progress_set(PROGRESS_DELIVERY, DELIVERY_PHASE, DELIVERY_WAITING_FOR_LOCK);
				/* what was known of the work was thrown away with it */
				is_look = true;
				FreeErrorData(error);
				/* not every lock is waited for */
				if (!poll_senders(courier, POLL_ONE))
					nap(POLL_ONE);
				continue;
			}
			if (error != NULL)
			{
				wind_down(courier, NULL, Min(grace_ms, LEAVE_GRACE), count);
				ReThrowError(error);
			}
			is_look = contended = false;
			/* whatever came while a transaction was committed: nothing more is sent then */
			if (QueryCancelPending || ProcDiePending || (stop != NULL && *stop))
				continue;
			if (has_unsent(courier) && !commit_is_replicated())
			{
				wind_down(courier, NULL, Min(grace_ms, LEAVE_GRACE), count);
				ereport(ERROR,
						(errcode(ERRCODE_QUERY_CANCELED),
						 errmsg("grants were not sent because no synchronous standby is known to "
								"have their claim"),
						 errdetail("The wait for it was cancelled.")));
			}
			/* not before: its commit is none that a claim waits for */
			courier_write_trouble(courier);
		}
		foreach (cell, courier->senders)
		{
			Sender *sender = lfirst(cell);

			if (sender->has_lock && sender_wants_check(sender))
				health_check_send(sender);
			requests_send(sender, courier->installation);
		}
		if (took_turn)
		{
			progress_set(PROGRESS_DELIVERY, DELIVERY_PHASE, DELIVERY_SENDING);
			tell_progress(courier, count);
		}
		if (poll_senders(courier, POLL_ONE))
			worked = true;
		else if (turn_is_needed(courier))
			continue;
		else if (wait_for_rate(courier))
			worked = true;
		else if (worked)
		{
			is_look = true;
			worked = false;
		}
		else
			break;
	}

	now = mono_now();
	foreach (cell, courier->senders)
		due = Min(due, sender_due(courier, lfirst(cell), now));
	return due;
}

MonoTime
courier_round(Courier *courier, volatile sig_atomic_t *stop, int grace_ms, DeliveryCount *count)
{
	volatile MonoTime due = MONO_NEVER;

	progress_begin(PROGRESS_DELIVERY);
	PG_TRY();
	{
		due = go_round(courier, stop, grace_ms, count);
	}
	PG_FINALLY();
	{
		progress_end(PROGRESS_DELIVERY);
	}
	PG_END_TRY();
	return due;
}

void
courier_explain(const Courier *courier)
{
	ListCell *cell;

	foreach (cell, courier->senders)
	{
		const Sender *sender = lfirst(cell);
		MonoTime      due = MONO_NEVER;

		if (!has_backlog(courier, sender, &due) || due > mono_now())
			continue;
		if (!sender->has_lock)
			ereport(NOTICE,
					(errmsg("gateway \"%s\" is served by another session", sender->row->name),
					 errdetail("A background worker or another deliver() sends its grants.")));
		else if (sender->circuit.state != CIRCUIT_OPEN)
			ereport(NOTICE,
					(errmsg("gateway \"%s\" is %s: %s", sender->row->name,
							circuit_state_name(sender->circuit.state), sender->circuit.reason),
					 errdetail("Its grants stay pending until it works.")));
	}
}
