/*
 * scheduler.c
 *		The scheduler: runs the strategies of one database when they are due.
 *
 * An error while strategies run is reported and survived: balances that are
 * being read, and what is known of what is due, would be lost for the error of
 * one.  That is safe since nothing of a cycle outlives it but connections for
 * reading balances, and those are thrown away.  An error outside of that ends
 * the process, and the launcher starts another one after a while.
 */
#include "postgres.h"

#include "access/xact.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/memutils.h"

#include "common/monotonic.h"
#include "common/version.h"
#include "common/identity.h"
#include "common/last_error.h"
#include "common/backoff.h"
#include "delivery/reversal.h"
#include "scan/due.h"
#include "worker/process.h"
#include "worker/timing.h"
#include "worker/wake.h"

PGDLLEXPORT void qm_scheduler_main(Datum main_arg);

/* All that the process remembers.  What the log has said is in the slot. */
static struct
{
	WorkerSlot *slot;

	/* SIGHUP came: what runs is left after its transaction, to poll everything. */
	volatile sig_atomic_t reload_requested;

	Backoff backoff;           /* since the last cycle that failed */
	bool    failed;            /* an error was survived since preconditions were checked */
	bool    error_kept;        /* quota_worker may have an error that is over */
	bool    identity_verified; /* this database is no copy that waits for resume(), */
	bool    identity_recorded; /* and is known as the one that runs strategies */

	/*
	 * What the view strategy_due said, and when that was by each clock and by
	 * the count of transactions that have ended.  It holds until one of the
	 * three moves on, and is all that is remembered of strategies.
	 */
	DueList     due;
	bool        due_holds;
	uint64      polled_transactions; /* 0: not known */
	TimestampTz polled_wall;
	MonoTime    polled_mono;

	/* When reversals are gone on with, since grants may have been settled; MONO_NEVER: nothing has changed. */
	MonoTime reversals_due;
	MonoTime reversals_rest; /* not before that */

	/* Of one cycle. */
	MemoryContext  cycle_context;
	bool           found_due;  /* something was due; false also without a poll */
	DueStrategy   *current;    /* the one that is being run */
	const char    *broken_off; /* the error that broke it off */
	bool           progressed; /* something came of what was run */
	BalanceReader *reader;     /* beside all that; NULL: an error has left none */
} scheduler = {.error_kept = true, .reversals_due = MONO_NEVER, .reversals_rest = MONO_PAST};

/* SIGHUP handler. */
static void
handle_sighup(SIGNAL_ARGS)
{
	int save_errno = errno;

	scheduler.reload_requested = true;
	ConfigReloadPending = true;
	SetLatch(MyLatch);
	errno = save_errno;
}

/* Ends the process because a precondition failed; the launcher says so. */
static void
end_unserved(PreconditionFailure failure)
{
	scheduler.slot->failure = failure;
	scheduler.slot->end = END_PRECONDITION;
	proc_exit(0);
}

/* Finds out what is missing, in a transaction of its own. */
static PreconditionFailure
check_preconditions(void)
{
	PreconditionFailure failure;

	StartTransactionCommand();
	failure = find_precondition_failure(scheduler.slot->missing);
	CommitTransactionCommand();
	return failure;
}

/* Records an error for worker_status; SIGTERM interrupts that. */
static void
record_error(const char *kind, const char *message)
{
	begin_interruptible();
	record_last_error(&database_work_unit, kind, message);
	end_interruptible();
}

/*
 * Takes a step of the work, in which SIGTERM interrupts.  False: it raised an
 * error, which is reported and kept for worker_status; all transactions are
 * ended then.  Afterwards the current memory context is TopMemoryContext.
 */
static bool
survives(void (*step)(void))
{
	/* Changes between setjmp and longjmp. */
	volatile bool succeeded = false;

	scheduler.broken_off = NULL;
	begin_interruptible();
	PG_TRY();
	{
		step();
		succeeded = true;
	}
	PG_CATCH();
	{
		scheduler.broken_off =
			end_error(scheduler.cycle_context, &scheduler.slot->memory.scheduler_error);
	}
	PG_END_TRY();
	end_interruptible();
	MemoryContextSwitchTo(TopMemoryContext);
	if (succeeded)
		return true;
	/* it is gone, or is another one */
	if (extension_is_gone())
		end_unserved(check_preconditions() == FAILURE_VERSION ? FAILURE_VERSION
															  : FAILURE_EXTENSION);
	record_error(WORK_SCHEDULER, scheduler.broken_off);
	scheduler.failed = scheduler.error_kept = true;
	return false;
}

/*
 * Whether strategies may be run in this database, which the log says once if
 * they may not.
 */
static bool
verify_identity(void)
{
	SliceMemory *memory = &scheduler.slot->memory;

	if (scheduler.identity_verified)
		return true;
	scheduler.identity_verified = identity_verify(&database_work_unit) == IDENTITY_OURS;
	if (!scheduler.identity_verified)
	{
		if (!memory->suspended)
			ereport(LOG, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						  errmsg("database \"%s\" is a copy: nothing is scanned or delivered until "
								 "it is resumed",
								 scheduler.slot->database_name),
						  errhint("See quota_manager.resume() in that database.")));
		report_suspended();
	}
	memory->suspended = !scheduler.identity_verified;
	return scheduler.identity_verified;
}

/*
 * True if the view may say something else by now.  A step of the wall clock,
 * by which firings are due, is seen by its difference from the other one.
 */
static bool
must_poll(void)
{
	uint64 completed = completed_transactions();
	int64  step = (GetCurrentTimestamp() - scheduler.polled_wall) -
				 (int64) (mono_now() - scheduler.polled_mono);

	return !scheduler.due_holds || completed == 0 || completed != scheduler.polled_transactions ||
		   mono_now() >= scheduler.due.next || step > CLOCK_STEP_MS * 1000 ||
		   step < -CLOCK_STEP_MS * 1000;
}

/*
 * Ends the process if its role was given rights in this database and has them
 * no more: what it does as the owner of the extension would not show that.  What is
 * missing is polled for once the cycle is over; a run may only have recorded it.
 */
static void
check_rights(void)
{
	PreconditionFailure failure = check_preconditions();

	if (failure == FAILURE_PRIVILEGE)
		end_unserved(failure);
	if (failure == FAILURE_OBJECT)
		scheduler.failed = true;
}

/* Step: finds out what is due. */
static void
poll_due(void)
{
	scheduler.found_due = false;
	if (!must_poll())
		return;
	check_rights();
	scheduler.polled_transactions = completed_transactions();
	scheduler.polled_wall = GetCurrentTimestamp();
	scheduler.polled_mono = mono_now();
	scheduler.reversals_due = scheduler.reversals_rest;
	MemoryContextSwitchTo(scheduler.cycle_context);
	due_poll(&database_work_unit, &scheduler.due);
	scheduler.due_holds = true;
	if (!scheduler.due.enabled)
		end_unserved(FAILURE_STOPPED);
	if (!verify_identity())
	{
		scheduler.due.strategies = NIL;
		scheduler.due_holds = false;
	}
	scheduler.found_due = scheduler.due.strategies != NIL;
	/* here and not in the first scan, which would keep the row locked for as long as it takes */
	if (scheduler.found_due && !scheduler.identity_recorded)
		scheduler.identity_recorded = identity_record(&database_work_unit) == IDENTITY_OURS;
	if (!scheduler.found_due && !scheduler.due.failed && scheduler.error_kept &&
		!scheduler.failed && scheduler.slot->memory.missing_object == 0)
	{
		last_error_clear(&database_work_unit, WORK_SCHEDULER);
		scheduler.error_kept = false;
	}
}

/*
 * Step: runs the strategy that is next, unless everything is to be polled
 * first: who asked for that may have asked to break off what is run, too.
 */
static void
run_current(void)
{
	WorkerSlot *slot = scheduler.slot;
	RunResult   result;

	if (scheduler.reload_requested)
		return;
	MemoryContextSwitchTo(scheduler.cycle_context);
	report_phase(psprintf("running strategy \"%s\"", scheduler.current->name));
	due_run(&database_work_unit, scheduler.reader, scheduler.current, &result);
	if (result.error != NULL)
		scheduler.error_kept = true;
	if (result.done)
		scheduler.progressed = true;
	if (result.granted > 0)
	{
		slot->delivery_wanted = true;
		slot_wake(slot, WORKER_DELIVERY);
	}
}

/* Step: records that it was broken off. */
static void
record_current_failure(void)
{
	if (due_record_failure(&database_work_unit, scheduler.current, scheduler.broken_off))
		scheduler.progressed = true;
}

/* Step: sends and takes in what balances are asked for. */
static void
step_reader(void)
{
	char *activity;

	MemoryContextSwitchTo(scheduler.cycle_context);
	balance_reader_step(scheduler.reader, 1);
	activity = balance_reader_activity(scheduler.reader);
	if (activity != NULL)
		report_phase(activity);
}

/* Throws away what an error may have left of the reader. */
static void
renew_reader(void)
{
	balance_reader_free(scheduler.reader);
	MemoryContextSwitchTo(TopMemoryContext);
	scheduler.reader = balance_reader_create(&database_work_unit);
}

/* Reads balances beside other work. */
static void
read_balances(void)
{
	if (balance_reader_is_busy(scheduler.reader) && !survives(step_reader))
		renew_reader();
}

/*
 * Runs the strategy that is next.  False: it was broken off by an error,
 * and the database does not take down even that.  What was broken off because
 * everything is to be polled has not failed.
 */
static bool
run_one(void)
{
	if (survives(run_current))
		return true;
	renew_reader();
	return scheduler.reload_requested || survives(record_current_failure);
}

/* Step: goes on with reversals, for which grants may have been settled. */
static void
continue_reversals(void)
{
	MonoTime begin = mono_now();
	bool     succeeded;

	scheduler.reversals_due = MONO_NEVER;
	/* if it raises an error */
	scheduler.reversals_rest = mono_in_ms(REVERSALS_MAX_MS);
	MemoryContextSwitchTo(scheduler.cycle_context);
	succeeded = reversals_continue(&database_work_unit);
	scheduler.reversals_rest =
		backoff_by_cost(begin, REVERSALS_MIN_MS, REVERSALS_MAX_MS, REVERSALS_COST_SHARE);
	if (!succeeded)
		scheduler.reversals_due = scheduler.reversals_rest;
}

/*
 * One cycle: runs what is due.  Returns false if that could not be found out,
 * what was run could not be recorded, or nothing came of all that was due: it
 * would be due again at once.
 */
static bool
run_cycle(void)
{
	bool      success;
	bool      ran = false;
	ListCell *cell;

	scheduler.progressed = false;
	success = survives(poll_due);
	/* what failed is polled again, whether or not anything is committed until then */
	if (!success)
		scheduler.due_holds = false;
	else if (scheduler.identity_verified && scheduler.reversals_due <= mono_now())
		(void) survives(continue_reversals);
	foreach (cell, success && scheduler.found_due ? scheduler.due.strategies : NIL)
	{
		scheduler.due_holds = false;
		/* each time slice gets something done */
		if (scheduler.reload_requested || ShutdownRequestPending ||
			(ran && scheduler.slot->stopping))
			break;
		scheduler.current = lfirst(cell);
		ran = true;
		success = run_one() && success;
		read_balances();
	}
	if (ran && !scheduler.progressed && !scheduler.reload_requested)
		success = false;
	scheduler.due.strategies = NIL;
	pgstat_report_stat(scheduler.found_due);
	if (!balance_reader_is_busy(scheduler.reader))
		report_phase(NULL);
	MemoryContextReset(scheduler.cycle_context);
	return success;
}

/* Step: lets everything that failed be tried again now. */
static void
end_back_offs(void)
{
	scheduler.due_holds = false;
	due_retry_all(&database_work_unit);
}

/*
 * Step: ends the process if a precondition failed.  For an object that is
 * missing it waits once it has served the database, and says so once.
 */
static void
check_database(void)
{
	WorkerSlot         *slot = scheduler.slot;
	PreconditionFailure failure = check_preconditions();
	char                state[MISSING_SIZE + 32];
	uint32              hash = 0;

	if (failure != FAILURE_NONE && (failure != FAILURE_OBJECT || !slot->served))
		end_unserved(failure);
	if (failure == FAILURE_OBJECT)
	{
		hash = string_hash(slot->missing, MISSING_SIZE) | 1;
		if (hash != slot->memory.missing_object)
			log_precondition_failure(failure, slot->missing, slot->database_name);
		snprintf(state, sizeof(state), "waiting: %s is missing", slot->missing);
		pgstat_report_activity(STATE_IDLE, state);
	}
	else if (slot->memory.missing_object != 0)
	{
		/* what failed may be tried at once */
		backoff_none(&scheduler.backoff);
		slot->delivery_retry = true;
		slot_wake_launcher();
		(void) survives(end_back_offs);
	}
	slot->memory.missing_object = hash;
}

/* Step: ends the process where workers are stopped, before deliveries start. */
static void
check_enabled(void)
{
	bool enabled;

	database_work_unit.begin();
	enabled = workers_are_enabled();
	database_work_unit.commit();
	if (!enabled)
		end_unserved(FAILURE_STOPPED);
}

/*
 * Begins with what the last time slice has left, unless that was of another
 * extension, and lets the launcher start deliveries.  The log says once who
 * works where, and what is to be done there.
 */
static void
begin_service(void)
{
	WorkerSlot        *slot = scheduler.slot;
	InstalledExtension extension;

	StartTransactionCommand();
	extension = installed_extension();
	if (slot->memory.extension != extension.oid)
	{
		slot->memory.suspended = false;
		slot->memory.scheduler_error = slot->memory.missing_object = 0;
	}
	slot->memory.extension = extension.oid;
	slot->served = true;
	slot_wake_launcher();
	if (!slot->announced)
	{
		ereport(LOG, (errmsg("quota_manager serves database \"%s\" as role \"%s\"",
							 slot->database_name, GetUserNameFromId(slot->role, true))));
		if (extension.version != NULL && !extension_is_current(&extension))
			ereport(LOG,
					(errmsg("extension quota_manager in database \"%s\" is at version %s and is "
							"served by the library of version %s",
							slot->database_name, extension.version, QUOTA_MANAGER_VERSION),
					 errhint("%s", UPDATE_HINT)));
	}
	slot->announced = true;
	CommitTransactionCommand();
	MemoryContextSwitchTo(TopMemoryContext);
}

/* When this process has something to do next; MONO_PAST: now. */
static MonoTime
next_due(void)
{
	if (scheduler.backoff.delay_ms > 0)
		return scheduler.backoff.not_before;
	if (scheduler.slot->memory.suspended)
		return mono_in_ms(SUSPENDED_REVISIT_MS);
	if (scheduler.found_due || !scheduler.due_holds || balance_reader_is_busy(scheduler.reader))
		return MONO_PAST;
	return Min(scheduler.due.next, scheduler.reversals_due);
}

/*
 * The time slice is over: runs nothing any more, and ends once the delivery
 * worker has.  The last poll is after the request to end: what is committed
 * later is for the next time slice, which the session asks for.
 */
static void
give_way(void)
{
	report_phase("making room for another database");
	if (!scheduler.slot->leaving)
	{
		scheduler.slot->leaving = true;
		slot_wake_launcher();
	}
	if (scheduler.slot->delivery_running)
	{
		(void) worker_wait(poll_interval);
		return;
	}
	if (scheduler.backoff.delay_ms == 0 && !survives(poll_due))
		backoff_more(&scheduler.backoff, CYCLE_RETRY_MIN_MS, CYCLE_RETRY_MAX_MS);
	slot_publish_next(scheduler.slot, WORKER_SCHEDULER, next_due());
	scheduler.slot->end = END_OF_SLICE;
	proc_exit(0);
}

/* Runs a cycle, and checks preconditions where something failed. */
static void
work(void)
{
	WorkerSlot *slot = scheduler.slot;

	if (!run_cycle())
		backoff_more(&scheduler.backoff, CYCLE_RETRY_MIN_MS, CYCLE_RETRY_MAX_MS);
	else
	{
		backoff_none(&scheduler.backoff);
		if (scheduler.found_due && !scheduler.failed)
			slot->memory.scheduler_error = 0;
	}
	if (scheduler.failed || slot->memory.missing_object != 0 || slot->delivery_broke)
	{
		scheduler.failed = slot->delivery_broke = false;
		(void) survives(check_database);
	}
}

/* Ends all waiting because settings were reloaded, or somebody asked for it. */
static void
retry_all(void)
{
	scheduler.reload_requested = false;
	/* it may have come after worker_wait has checked */
	(void) worker_reload();
	backoff_none(&scheduler.backoff);
	(void) survives(end_back_offs);
}

/*
 * One pass of the main loop.  Returns for how many milliseconds there is nothing
 * to do.
 */
static long
run_once(void)
{
	WorkerSlot *slot = scheduler.slot;
	long        pause = mono_ms_until(scheduler.backoff.not_before, poll_interval);

	if (pause == 0)
	{
		work();
		if (slot->memory.suspended)
			pause = SUSPENDED_POLL_MS;
		else
			pause = scheduler.due_holds
						? Max(mono_ms_until(Min(scheduler.due.next, scheduler.reversals_due),
											poll_interval),
							  1)
						: 1;
	}
	if (slot->out_of_slots)
	{
		slot->out_of_slots = false;
		record_error(WORK_DELIVERY, "could not start: all slots for background workers are in use");
	}
	if (balance_reader_is_busy(scheduler.reader))
	{
		read_balances();
		MemoryContextReset(scheduler.cycle_context);
		if (!balance_reader_is_busy(scheduler.reader))
			report_phase(NULL);
		pause = Min(pause, BALANCES_POLL_MS);
	}
	slot_publish_next(slot, WORKER_SCHEDULER, next_due());
	return pause;
}

/* Entry point. */
void
qm_scheduler_main(Datum main_arg)
{
	scheduler.slot = connect_worker(WORKER_SCHEDULER, handle_stop_request);
	pqsignal(SIGHUP, handle_sighup);
	pqsignal(SIGINT, handle_cancel_request);
	scheduler.slot->connected = true;
	check_database();
	await_worker_lock(WORKER_SCHEDULER, &ShutdownRequestPending);
	MemoryContextSwitchTo(TopMemoryContext);
	scheduler.cycle_context =
		AllocSetContextCreate(TopMemoryContext, "quota_manager cycle", ALLOCSET_DEFAULT_SIZES);
	scheduler.reader = balance_reader_create(&database_work_unit);
	(void) survives(check_enabled);
	begin_service();

	while (!ShutdownRequestPending)
	{
		if (scheduler.slot->stopping)
			give_way();
		else
			(void) worker_wait(run_once());
		if (scheduler.reload_requested)
			retry_all();
	}
	proc_exit(0);
}
