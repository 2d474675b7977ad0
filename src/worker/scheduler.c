/*
 * scheduler.c
 *		The scheduler worker: runs the strategies of one database when they
 *		are due, and keeps the courier of the database running.
 *
 * An error while strategies run is reported and survived: deliveries, which
 * would end with this process, go on.  That is safe since nothing of a tick
 * outlives it but connections for reading balances, and those are thrown
 * away.  An error outside of that ends the process, and the launcher starts
 * another one after a while.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "storage/dsm.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "utils/acl.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#include "delivery/installation.h"
#include "delivery/trouble.h"
#include "worker/agenda.h"
#include "worker/process.h"
#include "worker/tick.h"

/* After errors, work is tried again, and a courier started again, after these times. */
#define RETRY_MIN_MS 1000
#define RETRY_MAX_MS (60 * 1000)

PGDLLEXPORT void qm_scheduler_main(Datum main_arg);

static WorkerOrder   order;
static SchedulerEnd *end_reason = NULL;

/* SIGHUP came: reading balances is broken off, to look at everything anew. */
static volatile sig_atomic_t reload_requested = false;

static BackgroundWorkerHandle *courier_worker = NULL;
static TimestampTz             courier_start_time;
static Backoff                 courier_backoff;

/*
 * This database is no copy that waits for resume(), and is noted as the one
 * that runs strategies.  fenced: it is one, and that was said.
 */
static bool admitted = false;
static bool noted = false;
static bool fenced = false;

static Agenda *agenda;

/*
 * Of one tick: what is due (NIL also if nothing was looked for), the strategy
 * whose turn it is, and the courier that reads balances.
 */
static MemoryContext tick_context;
static bool          taken;
static List         *due;
static DueStrategy  *current;
static MemoryContext reader_context;
static Courier      *reader;

/*
 * SIGHUP handler.
 */
static void
handle_sighup(SIGNAL_ARGS)
{
	int save_errno = errno;

	reload_requested = true;
	ConfigReloadPending = true;
	SetLatch(MyLatch);
	errno = save_errno;
}

/*
 * Ends the process on purpose, and lets the launcher know why.
 */
static void
end_scheduler(SchedulerEnd reason)
{
	*end_reason = reason;
	proc_exit(0);
}

/*
 * Exit callback: a courier does not outlive its scheduler.
 */
static void
terminate_courier(int code, Datum arg)
{
	if (courier_worker != NULL)
		TerminateBackgroundWorker(courier_worker);
}

/*
 * Keeps an error, which was reported, for those who look later.
 */
static void
note_trouble(const char *kind, const char *message)
{
	begin_interruptible();
	PG_TRY();
	{
		trouble_note(&database_work_unit, kind, message);
	}
	PG_CATCH();
	{
		HOLD_INTERRUPTS();
		AbortOutOfAnyTransaction();
		MemoryContextSwitchTo(TopMemoryContext);
		FlushErrorState();
		RESUME_INTERRUPTS();
	}
	PG_END_TRY();
	end_interruptible();
	MemoryContextSwitchTo(TopMemoryContext);
}

/*
 * Sees to it that a courier runs.
 */
static void
keep_courier_running(void)
{
	if (courier_worker != NULL)
	{
		if (!child_has_ended(courier_worker))
			return;
		pfree(courier_worker);
		courier_worker = NULL;
		if (milliseconds_until(courier_start_time + RETRY_MAX_MS * INT64CONST(1000), 1) == 0)
			backoff_none(&courier_backoff);
		backoff_more(&courier_backoff, RETRY_MIN_MS, RETRY_MAX_MS);
	}
	if (courier_backoff.not_before > GetCurrentTimestamp())
		return;

	courier_start_time = GetCurrentTimestamp();
	courier_worker = start_child(WORKER_COURIER, &order);
	if (courier_worker == NULL)
	{
		/* Said once in a row, then tried at long intervals. */
		if (courier_backoff.delay_ms < RETRY_MAX_MS)
			ereport(WARNING, (errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
							  errmsg("could not start a quota_manager courier"),
							  errdetail("All slots for background workers are in use."),
							  errhint("You may need to increase max_worker_processes.")));
		note_trouble(TROUBLE_COURIER,
					 "could not start: all slots for background workers are in use");
		backoff_more(&courier_backoff, RETRY_MAX_MS, RETRY_MAX_MS);
	}
}

/*
 * Reports the error that is being handled and cleans up behind it.
 */
static void
recover(void)
{
	HOLD_INTERRUPTS();
	EmitErrorReport();
	LWLockReleaseAll();
	pgstat_report_wait_end();
	AbortOutOfAnyTransaction();
	MemoryContextSwitchTo(TopMemoryContext);
	FlushErrorState();
	RESUME_INTERRUPTS();
}

/*
 * Takes a step of the work.  Returns false if it raised an error, which is
 * then reported.
 */
static bool
survives(void (*step)(void))
{
	/* Change between setjmp and longjmp. */
	volatile bool succeeded = false;
	char *volatile message = NULL;

	begin_interruptible();
	PG_TRY();
	{
		step();
		succeeded = true;
	}
	PG_CATCH();
	{
		if (extension_is_gone())
			end_scheduler(SCHEDULER_ABSENT);
		MemoryContextSwitchTo(TopMemoryContext);
		message = error_message();
		recover();
	}
	PG_END_TRY();
	end_interruptible();
	MemoryContextSwitchTo(TopMemoryContext);
	if (message != NULL)
	{
		note_trouble(TROUBLE_SCHEDULER, message);
		pfree(message);
	}
	return succeeded;
}

/*
 * Finds out whether strategies may be run in this database, and says so once
 * if they may not.
 */
static bool
is_admitted(void)
{
	if (admitted)
		return true;
	admitted = installation_check(&database_work_unit, false) == INSTALLATION_OURS;
	if (!admitted)
	{
		if (!fenced)
			ereport(LOG, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						  errmsg("database \"%s\" is a copy: nothing is scanned or delivered until "
								 "it is resumed",
								 order.database_name),
						  errhint("See quota_manager.resume() in that database.")));
		report_fence();
	}
	fenced = !admitted;
	return admitted;
}

/*
 * Step: finds out whether something is due, and what.
 */
static void
take_due_strategies(void)
{
	if (!agenda_look(agenda, &database_work_unit))
		end_scheduler(SCHEDULER_DISABLED);
	if (!is_admitted() || !agenda_has_work(agenda))
		return;
	report_phase("looking for due strategies");
	MemoryContextSwitchTo(tick_context);
	due = agenda_take(agenda, &database_work_unit);
	taken = true;
	/* here and not in the first scan, which would keep the row locked for as long as it takes */
	if (due != NIL && !noted)
		noted = installation_check(&database_work_unit, true) == INSTALLATION_OURS;
}

/*
 * Step: runs the strategy whose turn it is.
 */
static void
run_current_strategy(void)
{
	TickResult result;

	report_phase("running due strategies");
	if (reader == NULL)
	{
		reader_context =
			AllocSetContextCreate(tick_context, "quota_manager reader", ALLOCSET_DEFAULT_SIZES);
		MemoryContextSwitchTo(reader_context);
		reader = courier_create(&database_work_unit);
	}
	MemoryContextSwitchTo(tick_context);
	if (!tick_strategy(&database_work_unit, reader, current, &reload_requested, &result))
		return;
	agenda_note(agenda, current, &result);
}

/*
 * One tick: runs what is due.  Returns false if that could not be found out.
 */
static bool
tick(void)
{
	bool      success;
	ListCell *cell;

	taken = false;
	due = NIL;
	reader = NULL;
	success = survives(take_due_strategies);
	foreach (cell, due)
	{
		if (reload_requested || ShutdownRequestPending)
			break;
		current = lfirst(cell);
		if (!survives(run_current_strategy))
		{
			agenda_note(agenda, current, NULL);
			if (reader != NULL)
				MemoryContextDelete(reader_context);
			reader = NULL;
		}
		keep_courier_running();
	}
	if (taken)
		agenda_done(agenda);
	pgstat_report_stat(taken);
	report_phase(NULL);
	MemoryContextReset(tick_context);
	return success;
}

/*
 * Ends the process if there is nothing that it may do in this database.
 */
static void
check_database(void)
{
	Oid namespace;
	Oid  grants;
	bool allowed;

	StartTransactionCommand();
	if (!OidIsValid(installed_extension()))
		end_scheduler(SCHEDULER_ABSENT);
	namespace = get_namespace_oid("quota_manager", true);
	grants = get_relname_relid("quota_execute", namespace);
	allowed =
		OidIsValid(grants) && pg_class_aclcheck(grants, GetUserId(), ACL_INSERT) == ACLCHECK_OK;
	CommitTransactionCommand();
	if (!allowed)
		end_scheduler(SCHEDULER_FORBIDDEN);
}

/*
 * Lets the log tell who works where.
 */
static void
announce(void)
{
	StartTransactionCommand();
	ereport(LOG, (errmsg("quota_manager serves database \"%s\" as role \"%s\"", order.database_name,
						 GetUserNameFromId(order.role, true))));
	CommitTransactionCommand();
}

/*
 * Entry point.
 */
void
qm_scheduler_main(Datum main_arg)
{
	Backoff      backoff = {0};
	dsm_segment *segment;

	order = received_order();
	connect_child(&order, handle_stop_request);
	pqsignal(SIGHUP, handle_sighup);
	before_shmem_exit(terminate_courier, 0);

	segment = dsm_attach(order.ends);
	/* Its launcher is gone: another one will start another scheduler. */
	if (segment == NULL)
		proc_exit(0);
	dsm_pin_mapping(segment);
	end_reason = (SchedulerEnd *) dsm_segment_address(segment) + order.slot;

	check_database();
	await_worker_lock(WORKER_SCHEDULER, &ShutdownRequestPending);
	MemoryContextSwitchTo(TopMemoryContext);
	agenda = agenda_create();
	tick_context =
		AllocSetContextCreate(TopMemoryContext, "quota_manager tick", ALLOCSET_DEFAULT_SIZES);
	announce();

	while (!ShutdownRequestPending)
	{
		long pause = milliseconds_until(backoff.not_before, poll_interval);

		if (pause == 0)
		{
			if (tick())
				backoff_none(&backoff);
			else
				backoff_more(&backoff, RETRY_MIN_MS, RETRY_MAX_MS);
			pause = fenced ? FENCED_NAP_MS : agenda_pause(agenda, poll_interval);
		}
		keep_courier_running();
		worker_wait(pause);
		if (reload_requested)
		{
			reload_requested = false;
			backoff_none(&backoff);
			backoff_none(&courier_backoff);
			agenda_forget(agenda);
		}
	}
	proc_exit(0);
}
