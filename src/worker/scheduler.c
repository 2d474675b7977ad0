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
#include "common/hashfn.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/memutils.h"

#include "common/monotonic.h"
#include "common/version.h"
#include "delivery/installation.h"
#include "delivery/last_error.h"
#include "worker/courier_child.h"
#include "worker/doorbell.h"
#include "worker/obstacle.h"
#include "worker/place.h"
#include "worker/process.h"
#include "worker/survive.h"
#include "worker/tick.h"
#include "worker/wake.h"

/* After errors, work is tried again after these times. */
#define RETRY_MIN_MS 1000
#define RETRY_MAX_MS (10 * 1000)

/*
 * Where other databases wait, a turn lasts at least so long, which bounds how
 * often processes are started, and at most so long unless a single scan does:
 * ten seconds are long enough for a courier to come to full speed and to wind
 * down, and short enough for the others to wait through a few of them.
 */
#define TURN_MIN_MS 1000
#define TURN_MAX_MS (10 * 1000)

/* How often answers are looked for while balances are read. */
#define READING_NAP_MS 10

/* By so much the wall clock is out of step with the other one when somebody has set it. */
#define CLOCK_STEP_MS INT64CONST(100)

/* How far ahead a scheduler says when it wants to be back. */
#define WANTED_MAX_MS (INT64CONST(60) * 60 * 1000)

PGDLLEXPORT void qm_scheduler_main(Datum main_arg);

static WorkerOrder order;
static Board      *board;
static Place      *place = NULL;
static MonoTime    turn_start;

/* SIGHUP came: reading balances is broken off, to look at everything anew. */
static volatile sig_atomic_t reload_requested = false;

/* Since the last tick that failed. */
static Backoff backoff;

/* An error was survived since the database was last looked over. */
static bool failed = false;

/* Hash of the error that was logged last, and of what was found missing; 0: nothing is the matter. */
static uint32 complaint = 0;
static uint32 damage = 0;

/*
 * This database is no copy that waits for resume(), and is noted as the one
 * that runs strategies.  fenced: it is one, and that was said.
 */
static bool admitted = false;
static bool noted = false;
static bool fenced = false;

/*
 * What the view strategy_due said when it was last asked, and when that was by
 * each clock and by the count of transactions that have ended.  It is all that
 * is remembered of strategies, and holds until one of the three moves on.
 */
static DueLook     look;
static bool        look_holds = false;
static uint64      looked_at; /* completed_transactions() before; 0: that cannot be told */
static TimestampTz looked_wall;
static MonoTime    looked_mono;

/* The table of troubles may say something that is over. */
static bool trouble_noted = true;

/*
 * Of one tick: whether something was due (false also if nothing was looked
 * for), the strategy whose turn it is, what broke it off, and the courier that
 * reads balances.
 */
static MemoryContext tick_context;
static bool          taken;
static DueStrategy  *current;
static const char   *broken_off;
static bool          got_something_done;

/* Reads balances beside everything else; NULL: an error has left none. */
static BalanceReader *reader = NULL;

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
	place->end = reason;
	proc_exit(0);
}

/*
 * True if the turn has lasted so long.
 */
static bool
turn_has_lasted(int ms)
{
	return mono_now() >= mono_add_ms(turn_start, ms);
}

/*
 * Ends the process because the extension is gone, or is another one.
 */
static void
end_without_extension(void)
{
	SchedulerEnd obstacle;

	StartTransactionCommand();
	obstacle = find_obstacle(place->obstacle);
	CommitTransactionCommand();
	end_scheduler(obstacle == SCHEDULER_INCOMPATIBLE ? obstacle : SCHEDULER_ABSENT);
}

/*
 * Takes a step of the work.  Returns false if it raised an error, which is
 * then reported.
 */
static bool
survives(void (*step)(void))
{
	if (survive_step(step, tick_context, &complaint, &broken_off))
		return true;
	if (extension_is_gone())
		end_without_extension();
	failed = trouble_noted = true;
	return false;
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
 * True if the view may say something else by now.  A step of the wall clock,
 * by which firings are due, is seen by its difference from the other one.
 */
static bool
must_look(void)
{
	uint64 completed = completed_transactions();
	int64  step = (GetCurrentTimestamp() - looked_wall) - (int64) (mono_now() - looked_mono);

	return !look_holds || completed == 0 || completed != looked_at || mono_now() >= look.next ||
		   step > CLOCK_STEP_MS * 1000 || step < -CLOCK_STEP_MS * 1000;
}

/*
 * Milliseconds until there may be something to do, at most limit_ms.
 */
static long
look_pause(long limit_ms)
{
	return look_holds ? Max(mono_ms_until(look.next, limit_ms), 1) : 1;
}

/*
 * Ends the process if its role was given rights in this database and has them
 * no more: what it does as the owner of the extension would not tell.  What is
 * missing is looked at once the tick is over; a run may only have recorded it.
 */
static void
look_for_obstacles(void)
{
	SchedulerEnd obstacle;

	StartTransactionCommand();
	obstacle = find_obstacle(place->obstacle);
	CommitTransactionCommand();
	if (obstacle == SCHEDULER_FORBIDDEN)
		end_scheduler(obstacle);
	if (obstacle == SCHEDULER_DAMAGED)
		failed = true;
}

/*
 * Step: finds out what is due.
 */
static void
take_due_strategies(void)
{
	if (!must_look())
		return;
	look_for_obstacles();
	looked_at = completed_transactions();
	looked_wall = GetCurrentTimestamp();
	looked_mono = mono_now();
	MemoryContextSwitchTo(tick_context);
	look_for_due(&database_work_unit, &look);
	look_holds = true;
	if (!look.enabled)
		end_scheduler(SCHEDULER_DISABLED);
	if (!is_admitted())
	{
		look.due = NIL;
		look_holds = false;
	}
	taken = look.due != NIL;
	/* here and not in the first scan, which would keep the row locked for as long as it takes */
	if (taken && !noted)
		noted = installation_check(&database_work_unit, true) == INSTALLATION_OURS;
	if (!taken && !look.trouble && trouble_noted && !failed && damage == 0)
	{
		last_error_clear(&database_work_unit, WORK_SCHEDULER);
		trouble_noted = false;
	}
}

/*
 * Step: runs the strategy whose turn it is, unless it is to look at everything
 * first: who asked for that may have asked to break off what is run, too.
 */
static void
run_current_strategy(void)
{
	TickResult result;

	if (reload_requested)
		return;
	MemoryContextSwitchTo(tick_context);
	report_phase(psprintf("running strategy \"%s\"", current->name));
	tick_strategy(&database_work_unit, reader, current, &result);
	if (result.error != NULL)
		trouble_noted = true;
	if (result.done)
		got_something_done = true;
	if (result.granted > 0)
		ask_courier();
}

/*
 * Step: records that it was broken off.
 */
static void
record_current_failure(void)
{
	if (record_failure(&database_work_unit, current, broken_off))
		got_something_done = true;
}

/*
 * Step: moves the readings on.
 */
static void
step_reader(void)
{
	char *activity;

	MemoryContextSwitchTo(tick_context);
	balance_reader_step(reader, 1);
	activity = balance_reader_activity(reader);
	if (activity != NULL)
		report_phase(activity);
}

/*
 * Throws away what an error may have left of the reader.
 */
static void
renew_reader(void)
{
	balance_reader_free(reader);
	MemoryContextSwitchTo(TopMemoryContext);
	reader = balance_reader_create(&database_work_unit);
}

/*
 * Moves the readings on, beside other work.
 */
static void
read_balances(void)
{
	if (balance_reader_is_busy(reader) && !survives(step_reader))
		renew_reader();
}

/*
 * Runs the strategy whose turn it is.  False: it was broken off by an error,
 * and the database does not take down even that.  What was broken off because
 * everything is to be looked at has not failed.
 */
static bool
run_one(void)
{
	if (survives(run_current_strategy))
		return true;
	renew_reader();
	return reload_requested || survives(record_current_failure);
}

/*
 * One tick: runs what is due.  Returns false if that could not be found out,
 * what was run could not be recorded, or nothing came of all that was due: it
 * would be due again at once.
 */
static bool
tick(void)
{
	bool      success;
	bool      ran = false;
	ListCell *cell;

	taken = got_something_done = false;
	success = survives(take_due_strategies);
	if (success)
		keep_courier_running();
	foreach (cell, taken ? look.due : NIL)
	{
		look_holds = false;
		if (reload_requested || ShutdownRequestPending)
			break;
		/* each turn gets something done */
		if (ran && board_is_contended(board) && turn_has_lasted(TURN_MAX_MS))
			break;
		current = lfirst(cell);
		ran = true;
		success = run_one() && success;
		read_balances();
		keep_courier_running();
	}
	if (ran && !got_something_done && !reload_requested)
		success = false;
	look.due = NIL;
	pgstat_report_stat(taken);
	if (!balance_reader_is_busy(reader))
		report_phase(NULL);
	MemoryContextReset(tick_context);
	return success;
}

/*
 * Step: lets everything that failed be tried again now.
 */
static void
end_back_offs(void)
{
	look_holds = false;
	retry_all(&database_work_unit);
}

/*
 * Step: ends the process if there is nothing that it may do in this database.
 * What is missing there for a while is waited for once the process does its
 * work, and said once.
 */
static void
check_database(void)
{
	char         state[OBSTACLE_SIZE + 32];
	SchedulerEnd obstacle;
	uint32       hash = 0;

	StartTransactionCommand();
	obstacle = find_obstacle(place->obstacle);
	CommitTransactionCommand();
	if (obstacle != SCHEDULER_YIELDED && (obstacle != SCHEDULER_DAMAGED || !place->served))
		end_scheduler(obstacle);

	if (obstacle == SCHEDULER_DAMAGED)
		hash = string_hash(place->obstacle, OBSTACLE_SIZE) | 1;
	if (hash != 0 && hash != damage)
		explain_obstacle(obstacle, place->obstacle, order.database_name);
	snprintf(state, sizeof(state), "waiting: %s is missing", place->obstacle);
	if (hash != 0)
		report_idle(state);
	else if (damage != 0)
	{
		/* it is mended: what failed may be tried at once */
		backoff_none(&backoff);
		retry_courier();
		(void) survives(end_back_offs);
	}
	damage = hash;
}

/*
 * Lets the log tell who works where, and what is to be done there.
 */
static void
announce(void)
{
	InstalledExtension extension;

	place->served = true;
	if (place->announced)
		return;
	place->announced = true;
	StartTransactionCommand();
	ereport(LOG, (errmsg("quota_manager serves database \"%s\" as role \"%s\"", order.database_name,
						 GetUserNameFromId(order.role, true))));
	extension = installed_extension();
	if (extension.version != NULL && !extension_is_current(&extension))
		ereport(LOG, (errmsg("extension quota_manager in database \"%s\" is at version %s and is "
							 "served by the library of version %s",
							 order.database_name, extension.version, QUOTA_MANAGER_VERSION),
					  errhint("%s", UPDATE_HINT)));
	CommitTransactionCommand();
}

/*
 * Begins with what the last turn of this database has left.
 */
static void
resume_turn(void)
{
	TurnMemory *memory = &place->memory;
	Oid         extension;

	StartTransactionCommand();
	extension = installed_extension().oid;
	CommitTransactionCommand();
	MemoryContextSwitchTo(TopMemoryContext);
	if (memory->extension == extension)
	{
		fenced = memory->fenced;
		complaint = memory->complaint;
		damage = memory->damage;
	}
	memory->extension = extension;
}

/*
 * When this database wants to have its next turn.
 */
static MonoTime
next_turn(void)
{
	MonoTime wanted;

	if (fenced)
		return mono_in_ms(WANTED_MAX_MS);
	wanted = mono_in_ms(look_pause(WANTED_MAX_MS));
	wanted = Max(wanted, backoff.not_before);
	return Min(wanted, courier_wanted());
}

/*
 * True if a turn has achieved what it can: what is due was run, as far as
 * that is possible, and what is pending delivered, as far as that is.
 */
static bool
turn_is_complete(bool ticked)
{
	if (!turn_has_lasted(TURN_MIN_MS))
		return false;
	if (turn_has_lasted(TURN_MAX_MS))
		return true;
	if (!ticked || (backoff.delay_ms == 0 && !fenced &&
					(taken || must_look() || balance_reader_is_busy(reader))))
		return false;
	return courier_has_delivered();
}

/*
 * Lets sessions know whether this process may have looked for the last time.
 * True if they do since before the last look, and the courier's.
 */
static bool
is_about_to_leave(bool leaves)
{
	bool before = place->about_to_leave;

	if (leaves == before)
		return before;
	place->about_to_leave = leaves;
	doorbell_count_leaving(leaves ? 1 : -1);
	if (leaves)
		ask_courier();
	return false;
}

/*
 * Steps aside for another database.
 */
static void
yield_place(void)
{
	TurnMemory *memory = &place->memory;

	place->leaving = true;
	report_phase("making room for another database");
	dismiss_courier(&ShutdownRequestPending);
	if (ShutdownRequestPending)
		proc_exit(0);
	memory->fenced = fenced;
	memory->complaint = complaint;
	memory->damage = damage;
	place->wanted = next_turn();
	end_scheduler(SCHEDULER_YIELDED);
}

/*
 * How long to sleep until there is something to do: at most pause_ms, and
 * until the turn may end if others wait for that.
 */
static long
shorten_pause(long pause_ms)
{
	int length = turn_has_lasted(TURN_MIN_MS) ? TURN_MAX_MS : TURN_MIN_MS;

	if (!board_is_contended(board) || turn_has_lasted(TURN_MAX_MS))
		return pause_ms;
	return mono_ms_until(mono_add_ms(turn_start, length), pause_ms);
}

/*
 * Entry point.
 */
void
qm_scheduler_main(Datum main_arg)
{
	bool ticked = false;

	order = received_order();
	connect_child(&order, handle_stop_request);
	pqsignal(SIGHUP, handle_sighup);
	pqsignal(SIGINT, handle_cancel_request);
	place = board_attach(order.board, order.place, &board);
	place->connected = true;
	check_database();
	await_worker_lock(WORKER_SCHEDULER, &ShutdownRequestPending);
	MemoryContextSwitchTo(TopMemoryContext);
	tick_context =
		AllocSetContextCreate(TopMemoryContext, "quota_manager tick", ALLOCSET_DEFAULT_SIZES);
	reader = balance_reader_create(&database_work_unit);
	prepare_courier(&order, place);
	resume_turn();
	announce();
	turn_start = mono_now();

	while (!ShutdownRequestPending)
	{
		long pause = mono_ms_until(backoff.not_before, poll_interval);

		if (pause == 0)
		{
			if (tick())
			{
				backoff_none(&backoff);
				if (taken && !failed)
					complaint = 0;
			}
			else
				backoff_more(&backoff, RETRY_MIN_MS, RETRY_MAX_MS);
			ticked = true;
			if (failed || damage != 0 || courier_broke())
			{
				failed = false;
				(void) survives(check_database);
			}
			pause = fenced ? FENCED_NAP_MS : look_pause(poll_interval);
		}
		keep_courier_running();
		if (balance_reader_is_busy(reader))
		{
			read_balances();
			MemoryContextReset(tick_context);
			if (!balance_reader_is_busy(reader))
				report_phase(NULL);
			pause = Min(pause, READING_NAP_MS);
		}
		if (board_is_contended(board) && turn_is_complete(ticked))
		{
			if (!is_about_to_leave(true))
				continue;
			if (board_make_room(board))
				yield_place();
		}
		else if (!board_is_contended(board))
			(void) is_about_to_leave(false);
		worker_wait(shorten_pause(pause));
		if (reload_requested)
		{
			reload_requested = false;
			/* it may have come after worker_wait has looked */
			(void) worker_reload();
			backoff_none(&backoff);
			retry_courier();
			(void) survives(end_back_offs);
		}
	}
	proc_exit(0);
}
