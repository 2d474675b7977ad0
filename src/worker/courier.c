/*
 * courier.c
 *		The courier worker: delivers the grants of one database.
 *
 * An error ends the process, and its scheduler starts another one after a
 * while: sender locks, connections and grants in flight are only surely let
 * go of by the end of the process that has them.
 */
#include "postgres.h"

#include <signal.h>

#include "access/xact.h"
#include "access/xlog.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "tcop/tcopprot.h"
#include "utils/memutils.h"
#include "utils/timeout.h"

#include "delivery/installation.h"
#include "delivery/last_error.h"
#include "worker/place.h"
#include "worker/process.h"
#include "worker/wake.h"

/* How long answers are awaited after SIGTERM, and how long a statement may take then. */
#define STOP_GRACE_MS 500
#define STATEMENT_GRACE_MS 300

/* A round that wrote something is followed by a look after this time. */
#define SECOND_LOOK_MS 100

PGDLLEXPORT void qm_courier_main(Datum main_arg);

static volatile sig_atomic_t stop = 0;
static volatile sig_atomic_t late = 0;
static TimeoutId             statement_grace;

/* Of its scheduler. */
static Board *board;
static Place *place;

/* This database is no copy that waits for resume(). */
static bool admitted = false;

/* Settings were reloaded: a round is to be made whatever there is to be seen. */
static bool round_wanted = false;

/* A look is being taken: nothing is in flight, and SIGTERM ends the process at once. */
static volatile sig_atomic_t looking = false;

/* When the next round is due by itself, and completed_transactions() before the last look. */
static MonoTime next_due = MONO_PAST;
static uint64   looked_at = 0;

/*
 * SIGTERM: the outcomes of what is in flight are to be written, so nothing of
 * a round is interrupted here; delivery_loop looks at the flag.
 */
static void
handle_sigterm(SIGNAL_ARGS)
{
	int save_errno = errno;

	stop = STOP_NOW;
	if (looking)
		die(postgres_signal_arg);
	SetLatch(MyLatch);
	errno = save_errno;
}

/*
 * The scheduler makes room for another database: there is no hurry.
 */
static void
handle_dismissal(SIGNAL_ARGS)
{
	int save_errno = errno;

	if (stop == 0)
		stop = STOP_WHEN_ANSWERED;
	SetLatch(MyLatch);
	errno = save_errno;
}

/*
 * Runs every STATEMENT_GRACE_MS during a transaction.  One that does not end
 * in time after SIGTERM, because it waits for a lock or a standby, is aborted
 * after all; its grants are then in doubt, as after a crash.
 */
static void
abort_late_statement(void)
{
	if (stop != STOP_NOW || ++late < 2)
		return;
	InterruptPending = true;
	ProcDiePending = true;
	SetLatch(MyLatch);
}

/*
 * Begins a transaction of the courier.
 */
static void
begin_delivery(void)
{
	late = 0;
	enable_timeout_every(statement_grace,
						 TimestampTzPlusMilliseconds(GetCurrentTimestamp(), STATEMENT_GRACE_MS),
						 STATEMENT_GRACE_MS);
	database_work_unit.begin();
}

/*
 * Ends a transaction of the courier.
 */
static void
commit_delivery(void)
{
	database_work_unit.commit();
	disable_timeout(statement_grace, false);
}

static const WorkUnit delivery_unit = {begin_delivery, commit_delivery};

/*
 * Keeps an error, which ends the process, for those who look later.
 */
static void
note_last_words(const char *message)
{
	HOLD_INTERRUPTS();
	AbortOutOfAnyTransaction();
	RESUME_INTERRUPTS();
	PG_TRY();
	{
		last_error_record(&delivery_unit, WORK_DELIVERY, message);
	}
	PG_CATCH();
	{
		AbortOutOfAnyTransaction();
		MemoryContextSwitchTo(TopMemoryContext);
		FlushErrorState();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(TopMemoryContext);
}

/*
 * Ends the process because of the error that is being handled.  The log tells
 * it once until another one or none occurs: the next process will meet it, too.
 */
static void
give_up(void)
{
	uint32 last = place->courier_complaint;
	char  *message;

	HOLD_INTERRUPTS();
	error_context_stack = NULL;
	MemoryContextSwitchTo(TopMemoryContext);
	place->courier_complaint = hash_error();
	message = error_message();
	if (place->courier_complaint != last)
		EmitErrorReport();
	FlushErrorState();
	LWLockReleaseAll();
	RESUME_INTERRUPTS();
	note_last_words(message);
	proc_exit(place->courier_complaint == last ? 0 : 1);
}

/*
 * Looks whether there may be something to do.  No timer is set for that: it
 * would wake the process a moment later, to look again.
 */
static bool
finds_work(Delivery *delivery)
{
	bool found;

	looking = true;
	if (stop)
		proc_exit(0);
	found = delivery_finds_work(delivery, &database_work_unit);
	looking = false;
	return found;
}

/*
 * Whether a round may find something to do.  Where nothing was committed since
 * the last one, and no time has come, it would not.
 */
static bool
may_have_work(Delivery *delivery)
{
	uint64 completed = completed_transactions();
	bool   result;

	if (round_wanted || next_due <= mono_now())
		result = true;
	else if (completed != 0 && completed == looked_at)
		return false;
	else
		result = next_due != MONO_NEVER || finds_work(delivery);
	round_wanted = false;
	looked_at = completed;
	return result;
}

/*
 * Delivers what is due and returns when to look again, in milliseconds.
 */
static long
deliver_once(Delivery *delivery, MemoryContext round_context)
{
	DeliveryCount count = {0};
	XLogRecPtr    last_commit = XactLastCommitEnd;
	uint32        asked = place_asked(place);

	MemoryContextReset(round_context);
	MemoryContextSwitchTo(round_context);
	PG_TRY();
	{
		if (!admitted)
			admitted = installation_check(&delivery_unit, false) == INSTALLATION_OURS;
		if (admitted && may_have_work(delivery))
		{
			report_phase("delivering");
			next_due = delivery_loop(delivery, &stop, STOP_GRACE_MS, &count);
		}
	}
	PG_CATCH();
	{
		if (!extension_is_gone())
			give_up();
		/* Nothing to deliver and nobody to tell: the scheduler will end too. */
		proc_exit(0);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(TopMemoryContext);
	if (!admitted)
	{
		report_fence();
		place_answer(place, asked, MONO_NEVER);
		return FENCED_NAP_MS;
	}

	if (count.completed || count.failed || count.in_doubt || count.deferred)
		ereport(DEBUG1,
				(errmsg_internal("delivered " INT64_FORMAT ", failed " INT64_FORMAT
								 ", in doubt " INT64_FORMAT ", deferred " INT64_FORMAT,
								 count.completed, count.failed, count.in_doubt, count.deferred)));
	report_phase(NULL);
	place->courier_complaint = 0;
	place_answer(place, asked, next_due);
	/* it may wait for that, to make room for another database */
	if (board_is_contended(board))
		(void) kill(MyBgworkerEntry->bgw_notify_pid, SIGUSR1);
	if (XactLastCommitEnd == last_commit)
	{
		pgstat_report_stat(false);
		return mono_ms_until(next_due, poll_interval);
	}
	pgstat_report_stat(true);
	/* who waits for a standby to confirm a commit does not notice that it is woken */
	return mono_ms_until(next_due, Min(poll_interval, SECOND_LOOK_MS));
}

/*
 * Entry point.
 */
void
qm_courier_main(Datum main_arg)
{
	WorkerOrder   order = received_order();
	MemoryContext round_context;
	Delivery     *delivery;

	connect_child(&order, handle_sigterm);
	pqsignal(DISMISSAL_SIGNAL, handle_dismissal);
	place = board_attach(order.board, order.place, &board);
	statement_grace = RegisterTimeout(USER_TIMEOUT, abort_late_statement);
	await_worker_lock(WORKER_COURIER, &stop);

	round_context =
		AllocSetContextCreate(TopMemoryContext, "quota_manager round", ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(TopMemoryContext);
	delivery = delivery_create(&delivery_unit);
	ereport(DEBUG1, (errmsg_internal("quota_manager courier started")));
	while (!stop)
	{
		long pause = deliver_once(delivery, round_context);

		if (!stop && worker_wait(pause))
			round_wanted = true;
	}

	delivery_free(delivery);
	proc_exit(0);
}
