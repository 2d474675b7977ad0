/*
 * delivery_loop.c
 *		Claim, send, settle, until nothing is due.
 *
 * The loop alternates between HTTP, with no transaction open, and batches: a
 * batch is one transaction that settles what is done and claims what is to be
 * sent next, for all gateways.  It is run when a sender is about to run dry,
 * and else so often that answers are settled soon.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/latch.h"
#include "utils/guc.h"
#include "utils/wait_event.h"

#include "common/compat.h"
#include "common/crash_point.h"
#include "common/progress.h"
#include "delivery/batch.h"
#include "delivery/pending_work.h"
#include "delivery/requests.h"
#include "delivery/timing.h"

/* One call of delivery_loop(). */
typedef struct Loop
{
	Delivery                    *delivery;
	const volatile sig_atomic_t *stop; /* NULL: it is not asked to stop */
	int                          grace_ms;
	DeliveryCount               *count;
	bool                         polls;     /* the next batch polls for new work */
	bool                         contended; /* the last one met a lock of another session */
	bool                         worked;    /* something was sent since the last poll */
	MonoTime                     next_poll;
	MonoTime                     earliest_poll;
} Loop;

/*
 * Waits for answers, at most limit_ms.  False: nothing is in flight.
 *
 * Gateways that answer are not slowed down by those that seem to hang: these
 * are only polled in passing while there are others to wait for.
 */
static bool
wait_for_answers(Delivery *delivery, int limit_ms)
{
	MonoTime now = mono_now();
	int      active = 0;
	int      responsive = 0;

	foreach_ptr (const Sender, sender, delivery->senders)
	{
		if (sender_in_flight(sender) == 0)
			continue;
		active++;
		if (sender->responsive_until > now)
			responsive++;
	}
	if (active == 0)
		return false;

	pgstat_report_wait_start(PG_WAIT_EXTENSION);
	foreach_ptr (Sender, sender, delivery->senders)
	{
		int timeout_ms;

		if (sender_in_flight(sender) == 0)
			continue;
		if (active == 1)
			timeout_ms = ANSWER_WAIT_MS;
		else if (responsive > 0 && sender->responsive_until <= now)
			timeout_ms = 0;
		else
			timeout_ms = Max(ANSWER_WAIT_SEVERAL_MS / (responsive > 0 ? responsive : active), 1);
		requests_poll(sender, Min(timeout_ms, limit_ms));
	}
	pgstat_report_wait_end();
	return true;
}

/*
 * Ends the loop early: what was not sent goes back, what is in flight is
 * awaited for at most grace_ms, counted from when *stop (may be NULL) asks for
 * no more patience, and is then in doubt.  An error on the way leaves outcomes in the
 * senders, for another loop to settle.
 */
static void
wind_down(Loop *loop, const volatile sig_atomic_t *stop, int grace_ms)
{
	Delivery *delivery = loop->delivery;
	int       left_ms = grace_ms;
	MonoTime  end = mono_in_ms(grace_ms);

	delivery->is_leaving = true;
	progress_set(PROGRESS_DELIVERY, DELIVERY_PHASE, DELIVERY_WINDING_DOWN);
	foreach_ptr (Sender, sender, delivery->senders)
		grants_return_unsent(&sender->grants);
	CRASH_POINT(winding_down);
	if (batch_run(delivery, BATCH_SETTLE, loop->count) != NULL)
		left_ms = 0;
	while (left_ms > 0 && wait_for_answers(delivery, left_ms))
	{
		CHECK_FOR_INTERRUPTS();
		if (stop != NULL && *stop == STOP_WHEN_ANSWERED)
			end = mono_in_ms(grace_ms);
		left_ms = (int) mono_ms_until(end, grace_ms);
	}
	foreach_ptr (Sender, sender, delivery->senders)
		sender_abandon(sender, "the sender was stopped before the answer came");
	CRASH_POINT(wound_down);
	(void) batch_run(delivery, BATCH_SETTLE, loop->count);
	delivery->is_leaving = false;
}

/* The same where the caller cannot wait. */
static void
wind_down_quickly(Loop *loop)
{
	wind_down(loop, NULL, Min(loop->grace_ms, LEAVE_GRACE_MS));
}

/*
 * If a query was cancelled, or the session is to end, winds down first and then
 * lets that happen.
 */
static void
leave_if_interrupted(Loop *loop)
{
	bool is_cancelled = QueryCancelPending;
	bool is_dying = ProcDiePending;

	if (is_cancelled || is_dying)
	{
		/* or the first check would end everything as it is; another cancel or signal may */
		QueryCancelPending = ProcDiePending = false;
		wind_down_quickly(loop);
		if (is_cancelled)
			QueryCancelPending = InterruptPending = true;
		if (is_dying)
			ProcDiePending = InterruptPending = true;
	}
	CHECK_FOR_INTERRUPTS();
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
 * Sleeps for so many milliseconds, or until the process's latch is set, and
 * leaves it so.
 */
static void
nap(int ms)
{
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, ms,
					 PG_WAIT_EXTENSION);
}

/*
 * Waits for the moment at which a rate_limit lets something go.  False: nothing
 * waits for that alone.
 */
static bool
wait_for_rate(const Delivery *delivery)
{
	int timeout_ms = PG_INT32_MAX;

	foreach_ptr (const Sender, sender, delivery->senders)
		timeout_ms = Min(timeout_ms, requests_throttled_ms(sender));
	if (timeout_ms == PG_INT32_MAX)
		return false;
	nap(Min(timeout_ms, ANSWER_WAIT_MS));
	return true;
}

/* Publishes how far this process is. */
static void
report_progress(const Loop *loop)
{
	const DeliveryCount *count = loop->count;
	int64                served = 0;
	int64                open = 0;
	int64                unsent = 0;
	int64                in_flight = 0;

	foreach_ptr (const Sender, sender, loop->delivery->senders)
	{
		if (!sender->has_lock)
			continue;
		served++;
		open += sender->circuit.state == CIRCUIT_OPEN;
		unsent += grants_unsent(&sender->grants);
		in_flight += sender_in_flight(sender);
	}
	progress_set(PROGRESS_DELIVERY, DELIVERY_PHASE, DELIVERY_SENDING);
	progress_set(PROGRESS_DELIVERY, DELIVERY_GATEWAYS_TOTAL, list_length(loop->delivery->senders));
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
 * Decides whether the next batch polls for new work: a gateway that hangs must
 * not keep new grants from others.
 */
static void
schedule_poll(Loop *loop)
{
	MonoTime now = mono_now();

	/* whatever has woken the process, there may be new grants */
	if (MyLatch->is_set)
	{
		ResetLatch(MyLatch);
		loop->next_poll = Min(loop->next_poll, loop->earliest_poll);
	}
	if (now >= loop->next_poll)
		loop->polls = true;
	if (loop->polls)
	{
		loop->next_poll = mono_add_ms(now, POLL_INTERVAL_MS);
		loop->earliest_poll = mono_add_ms(now, POLL_INTERVAL_MIN_MS);
	}
}

/*
 * A batch met a lock of another session: it is repeated after a moment, in
 * which answers are taken in.  What was known of the work was thrown away.
 */
static void
wait_for_lock(Loop *loop, ErrorData *error)
{
	if (!loop->contended)
		ereport(LOG, (errcode(error->sqlerrcode),
					  errmsg("deliveries wait for another session: %s", error->message)));
	loop->contended = loop->polls = true;
	progress_set(PROGRESS_DELIVERY, DELIVERY_PHASE, DELIVERY_WAITING_FOR_LOCK);
	FreeErrorData(error);
	/* not every lock is waited for */
	if (!wait_for_answers(loop->delivery, ANSWER_WAIT_MS))
		nap(ANSWER_WAIT_MS);
}

/*
 * Raises an error if grants that are to be sent may be lost in a failover,
 * since the wait of their claim for a standby was cancelled.
 */
static void
require_replicated_claims(Loop *loop)
{
	bool has_unsent = false;

	foreach_ptr (const Sender, sender, loop->delivery->senders)
		has_unsent |= grants_unsent(&sender->grants) > 0;
	if (!has_unsent || commit_is_replicated())
		return;
	wind_down_quickly(loop);
	ereport(ERROR, (errcode(ERRCODE_QUERY_CANCELED),
					errmsg("grants were not sent because no synchronous standby is known to have "
						   "their claim"),
					errdetail("The wait for it was cancelled.")));
}

/* A pause is being committed: it is over in a moment, unless a standby is waited for. */
static void
wait_for_pause(const Loop *loop)
{
	if (brakes_are_outdated(&loop->delivery->brakes))
		return;
	if (!wait_for_answers(loop->delivery, PAUSE_WAIT_MS))
		nap(PAUSE_WAIT_MS);
}

/*
 * Sends what can be sent.  False: nothing was, since something was paused or is
 * about to be.
 */
static bool
send_requests(Loop *loop)
{
	Delivery *delivery = loop->delivery;
	bool      wanted = false;

	foreach_ptr (Sender, sender, delivery->senders)
	{
		if (sender->is_paused)
			sender_hold_all(sender);
		else
			wanted |= requests_wait(sender);
	}
	if (!wanted)
		return true;
	if (!sending_begin(&delivery->brakes))
	{
		wait_for_pause(loop);
		return false;
	}
	foreach_ptr (Sender, sender, delivery->senders)
		if (!sender->is_paused)
			requests_send(sender, delivery->installation);
	sending_end();
	return true;
}

/* Runs a batch.  False: nothing is sent before the next one. */
static bool
run_batch(Loop *loop)
{
	Delivery  *delivery = loop->delivery;
	ErrorData *error;

	progress_set(PROGRESS_DELIVERY, DELIVERY_PHASE,
				 loop->polls ? DELIVERY_POLLING : DELIVERY_SENDING);
	error = batch_run(delivery, loop->polls ? BATCH_POLL : BATCH_CLAIM, loop->count);
	if (error != NULL && (error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE ||
						  error->sqlerrcode == ERRCODE_T_R_DEADLOCK_DETECTED ||
						  error->sqlerrcode == ERRCODE_T_R_SERIALIZATION_FAILURE))
	{
		wait_for_lock(loop, error);
		return false;
	}
	if (error != NULL)
	{
		wind_down_quickly(loop);
		ReThrowError(error);
	}
	loop->polls = loop->contended = false;
	/* whatever came while the transaction was committed: nothing more is sent then */
	if (QueryCancelPending || ProcDiePending || (loop->stop != NULL && *loop->stop))
		return false;
	require_replicated_claims(loop);
	/* not before: its commit is none that a claim waits for */
	senders_write_error(delivery);
	return true;
}

/* Waits until there is something to do.  False: nothing is due. */
static bool
wait_for_work(Loop *loop)
{
	if (wait_for_answers(loop->delivery, ANSWER_WAIT_MS))
		loop->worked = true;
	else if (batch_is_needed(loop->delivery))
		return true;
	else if (wait_for_rate(loop->delivery))
		loop->worked = true;
	else if (!loop->worked)
		return false;
	else
	{
		loop->polls = true;
		loop->worked = false;
	}
	return true;
}

/* When the work of a sender is to be polled again. */
static MonoTime
next_poll_of(const Delivery *delivery, const Sender *sender, MonoTime now)
{
	MonoTime due = MONO_NEVER;
	bool     has_work = batch_has_work(delivery, sender, &due);

	if (sender->report.due != MONO_NEVER && sender->has_lock)
		return mono_add_ms(now, POLL_INTERVAL_MS);
	if (!has_work)
		return MONO_NEVER;
	if (!sender->has_lock)
		return mono_add_ms(now, SERVED_ELSEWHERE_MS);
	if (sender->circuit.phase != CIRCUIT_SENDING)
		due = Max(due, sender->circuit.check_time);
	due = Max(due, sender->search.rest_until);
	/* the row may be mended */
	if (sender->circuit.state == CIRCUIT_MISCONFIGURED)
		due = Min(due, mono_add_ms(now, POLL_INTERVAL_MS));
	/* what was read may be wrong by then */
	due = Min(due, mono_add_ms(now, PENDING_READ_MIN_MS));
	return Max(due, mono_add_ms(now, LOOP_PAUSE_MIN_MS));
}

/*
 * Passes through the loop until nothing is due or it is to stop; returns when to
 * begin again.
 */
static MonoTime
loop_until_idle(Loop *loop)
{
	Delivery *delivery = loop->delivery;
	MonoTime  due = MONO_NEVER;

	for (;;)
	{
		bool runs_batch;

		leave_dead_server();
		reload_settings();
		leave_if_interrupted(loop);
		if (loop->stop != NULL && *loop->stop)
		{
			wind_down(loop, loop->stop, loop->grace_ms);
			return mono_now();
		}
		schedule_poll(loop);
		runs_batch = loop->polls || batch_is_needed(delivery);
		if (runs_batch && !run_batch(loop))
			continue;
		if (!send_requests(loop))
			continue;
		if (runs_batch)
			report_progress(loop);
		if (!wait_for_work(loop))
			break;
	}

	foreach_ptr (const Sender, sender, delivery->senders)
		due = Min(due, next_poll_of(delivery, sender, mono_now()));
	return due;
}

/*
 * Delivers what is due at every gateway whose sender lock this process can
 * get, until nothing is due or *stop (may be NULL) is not 0: then nothing
 * more is claimed, what is in flight is awaited for at most grace_ms after
 * STOP_NOW, and the rest is settled as in doubt.  Adds to *count.  Returns when
 * to call again (back-off, health check, a gateway that another process serves;
 * while anything is open, PENDING_READ_MIN_MS milliseconds ahead at most), or
 * MONO_NEVER if nothing is open.  After an error the delivery can only be freed.
 */
MonoTime
delivery_loop(Delivery *delivery, volatile sig_atomic_t *stop, int grace_ms, DeliveryCount *count)
{
	Loop              loop = {delivery, stop, grace_ms, count, .polls = true};
	volatile MonoTime due = MONO_NEVER;

	loop.next_poll = loop.earliest_poll = MONO_PAST;
	/* the first one of a process, and every one after a pause, sees the gateways as they are */
	delivery->gateways_read = MONO_PAST;
	/* who is woken by the end of a pause may not have heard of it yet */
	if (brakes_hold_anything(&delivery->brakes))
		brakes_forget(&delivery->brakes);
	progress_begin(PROGRESS_DELIVERY);
	PG_TRY();
	{
		due = loop_until_idle(&loop);
	}
	PG_FINALLY();
	{
		sending_end();
		progress_end(PROGRESS_DELIVERY);
	}
	PG_END_TRY();
	return due;
}

/* Says in notices what is paused. */
static void
explain_pauses(const Delivery *delivery)
{
	const Brakes *brakes = &delivery->brakes;
	List         *strategies = NIL;

	if (brakes->everything != NULL)
	{
		ereport(NOTICE, (errmsg("everything is paused %s", brakes->everything),
						 errdetail("Nothing is sent until quota_manager.unpause_all().")));
		return;
	}
	foreach_ptr (const Sender, sender, delivery->senders)
		if (sender->is_paused && sender->row != NULL)
			ereport(NOTICE, (errmsg("gateway \"%s\" is paused %s", sender->row->name,
									brakes_on_gateway(brakes, sender->row->name)),
							 errdetail("Its grants stay pending until "
									   "quota_manager.unpause_gateway().")));
	foreach_ptr (const Run, run, delivery->runs)
		if (run->is_held && run->work_count > 0)
			strategies = list_append_unique_int(strategies, run->strategy_id);
	if (strategies != NIL)
		ereport(NOTICE, (errmsg_plural("pending grants of %d strategy are held, which is paused",
									   "pending grants of %d strategies are held, which are paused",
									   list_length(strategies), list_length(strategies)),
						 errhint("See quota_manager.pauses.")));
}

/*
 * After a loop has ended: says in notices what is paused, and per gateway why
 * grants that are due were not sent.
 */
void
delivery_explain(const Delivery *delivery)
{
	explain_pauses(delivery);
	foreach_ptr (const Sender, sender, delivery->senders)
	{
		MonoTime due = MONO_NEVER;

		if (!batch_has_work(delivery, sender, &due) || due > mono_now())
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
