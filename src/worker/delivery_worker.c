/*
 * delivery_worker.c
 *		The delivery worker, for people the "courier": delivers the grants of one
 *		database.
 *
 * An error ends the process, and the launcher starts another one after a while:
 * only the end of the process surely releases sender locks, connections and
 * grants in flight.
 */
#include "postgres.h"

#include <signal.h>

#include "access/xact.h"
#include "access/xlog.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "tcop/tcopprot.h"
#include "utils/memutils.h"
#include "utils/timeout.h"

#include "delivery/delivery.h"
#include "common/identity.h"
#include "common/last_error.h"
#include "worker/process.h"
#include "worker/timing.h"
#include "worker/wake.h"

PGDLLEXPORT void qm_courier_main(Datum main_arg);

static struct
{
	WorkerSlot           *slot;
	volatile sig_atomic_t stop;    /* STOP_NOW or STOP_WHEN_ANSWERED; 0: go on */
	volatile sig_atomic_t late;    /* how often statement_grace passed in a transaction */
	volatile sig_atomic_t polling; /* nothing is in flight, and SIGTERM ends the process at once */
	TimeoutId             statement_grace;
	bool                  identity_verified; /* this database is no copy that waits for resume() */
	bool                  reloaded;          /* settings were: deliver whatever a poll says */
	MonoTime              next_due;
	uint64                polled_transactions; /* completed_transactions() before the last poll */
} worker = {.next_due = MONO_PAST};

/*
 * SIGTERM handler.  The outcomes of what is in flight are to be written, so no
 * delivery is interrupted; delivery_loop reads the flag.
 */
static void
handle_sigterm(SIGNAL_ARGS)
{
	int save_errno = errno;

	worker.stop = STOP_NOW;
	if (worker.polling)
		die(postgres_signal_arg);
	SetLatch(MyLatch);
	errno = save_errno;
}

/* Handler of GRACEFUL_STOP_SIGNAL: the time slice is over, and there is no hurry. */
static void
handle_graceful_stop(SIGNAL_ARGS)
{
	int save_errno = errno;

	if (worker.stop == 0)
		worker.stop = STOP_WHEN_ANSWERED;
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
	if (worker.stop != STOP_NOW || ++worker.late < 2)
		return;
	InterruptPending = true;
	ProcDiePending = true;
	SetLatch(MyLatch);
}

/* Begins a transaction of deliveries. */
static void
begin_delivery(void)
{
	worker.late = 0;
	enable_timeout_every(worker.statement_grace,
						 TimestampTzPlusMilliseconds(GetCurrentTimestamp(), STATEMENT_GRACE_MS),
						 STATEMENT_GRACE_MS);
	database_work_unit.begin();
}

/* Ends a transaction of deliveries. */
static void
commit_delivery(void)
{
	database_work_unit.commit();
	disable_timeout(worker.statement_grace, false);
}

static const WorkUnit delivery_unit = {begin_delivery, commit_delivery};

/*
 * Ends the process because of the error that is being handled.  The log has
 * it once until another one or none occurs: the next process will meet it, too.
 */
static void
give_up(void)
{
	uint32 *logged = &worker.slot->memory.delivery_error;
	uint32  last = *logged;
	char   *message = end_error(TopMemoryContext, logged);

	record_last_error(&delivery_unit, WORK_DELIVERY, message);
	proc_exit(*logged == last ? 0 : 1);
}

/*
 * Polls whether there may be something to do.  No timer is set for that: it
 * would wake the process a moment later, to poll again.
 */
static bool
finds_work(Delivery *delivery)
{
	bool found;

	worker.polling = true;
	if (worker.stop == STOP_NOW)
		proc_exit(0);
	found = delivery_finds_work(delivery, &database_work_unit);
	worker.polling = false;
	return found;
}

/*
 * Whether there may be something to deliver.  There is not where nothing was
 * committed since the last poll, and no time has come.
 */
static bool
may_have_work(Delivery *delivery)
{
	uint64 completed = completed_transactions();
	bool   result;

	if (worker.reloaded || worker.next_due <= mono_now())
		result = true;
	else if (completed != 0 && completed == worker.polled_transactions)
		return false;
	else
		result = worker.next_due != MONO_NEVER || finds_work(delivery);
	worker.reloaded = false;
	worker.polled_transactions = completed;
	return result;
}

/*
 * Delivers what is due and returns when to poll again, in milliseconds.  Once
 * this process is to end, it only finds out whether there is something.
 */
static long
deliver_once(Delivery *delivery, MemoryContext pass_context)
{
	DeliveryCount count = {0};
	XLogRecPtr    last_commit = XactLastCommitEnd;

	worker.slot->delivery_wanted = false;
	pg_memory_barrier();
	MemoryContextReset(pass_context);
	MemoryContextSwitchTo(pass_context);
	PG_TRY();
	{
		if (!worker.identity_verified)
			worker.identity_verified = identity_verify(&delivery_unit) == IDENTITY_OURS;
		if (worker.identity_verified && may_have_work(delivery))
		{
			if (worker.stop == 0)
				report_phase("delivering");
			worker.next_due = worker.stop == 0
								  ? delivery_loop(delivery, &worker.stop, STOP_GRACE_MS, &count)
								  : MONO_PAST;
		}
	}
	PG_CATCH();
	{
		if (!extension_is_gone())
			give_up();
		/* nothing to deliver, and the scheduler ends, too */
		proc_exit(0);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(TopMemoryContext);
	if (!worker.identity_verified)
	{
		report_suspended();
		slot_publish_next(worker.slot, WORKER_DELIVERY, MONO_NEVER);
		return SUSPENDED_POLL_MS;
	}

	if (count.completed || count.failed || count.in_doubt || count.deferred)
		ereport(DEBUG1,
				(errmsg_internal("delivered " INT64_FORMAT ", failed " INT64_FORMAT
								 ", in doubt " INT64_FORMAT ", deferred " INT64_FORMAT,
								 count.completed, count.failed, count.in_doubt, count.deferred)));
	report_phase(NULL);
	worker.slot->memory.delivery_error = 0;
	slot_publish_next(worker.slot, WORKER_DELIVERY, worker.next_due);
	if (XactLastCommitEnd == last_commit)
	{
		pgstat_report_stat(false);
		return mono_ms_until(worker.next_due, poll_interval);
	}
	pgstat_report_stat(true);
	/* who waits for a standby to confirm a commit does not notice that it is woken */
	return mono_ms_until(worker.next_due, Min(poll_interval, SECOND_POLL_MS));
}

/* Entry point. */
void
qm_courier_main(Datum main_arg)
{
	MemoryContext pass_context;
	Delivery     *delivery;

	worker.slot = connect_worker(WORKER_DELIVERY, handle_sigterm);
	pqsignal(GRACEFUL_STOP_SIGNAL, handle_graceful_stop);
	worker.statement_grace = RegisterTimeout(USER_TIMEOUT, abort_late_statement);
	await_worker_lock(WORKER_DELIVERY, &worker.stop);

	pass_context =
		AllocSetContextCreate(TopMemoryContext, "quota_manager pass", ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(TopMemoryContext);
	delivery = delivery_create(&delivery_unit);
	ereport(DEBUG1, (errmsg_internal("quota_manager courier started")));
	while (worker.stop == 0)
	{
		long pause = deliver_once(delivery, pass_context);

		if (worker.stop == 0 && worker_wait(pause))
			worker.reloaded = true;
	}
	/* after the request to end: what is committed later is for the next time slice */
	if (worker.stop == STOP_WHEN_ANSWERED)
		(void) deliver_once(delivery, pass_context);

	delivery_free(delivery);
	proc_exit(0);
}
