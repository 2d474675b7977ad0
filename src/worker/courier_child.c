/*
 * courier_child.c
 *		Of a scheduler: the courier of its database, which it keeps running.
 */
#include "postgres.h"

#include "postmaster/bgworker.h"
#include "storage/ipc.h"

#include "delivery/last_error.h"
#include "worker/courier_child.h"
#include "worker/survive.h"

/* One that broke is started again after these times. */
#define RETRY_MIN_MS 1000
#define RETRY_MAX_MS (30 * 1000)

/* One that could not be started for lack of room, after these. */
#define ROOM_MIN_MS 250
#define ROOM_MAX_MS (5 * 1000)

/* It has lived for long enough for the next failure to be a new one. */
#define PROVEN_MS (INT64CONST(60) * 1000)

/* How long answers are awaited when it is dismissed, and how often it is told to end. */
#define DISMISSAL_MS (INT64CONST(30) * 1000)
#define DISMISSAL_SIGNAL_MS 200

static const WorkerOrder      *order;
static Place                  *place;
static BackgroundWorkerHandle *courier = NULL;
static MonoTime                start_time;
static Backoff                 backoff;
static bool                    broke = false;
static bool                    said_no_room = false;

/*
 * Exit callback.
 */
static void
terminate_courier(int code, Datum arg)
{
	if (courier != NULL)
		TerminateBackgroundWorker(courier);
}

/*
 * To be called first.  A courier does not outlive this process from now on.
 */
void
prepare_courier(const WorkerOrder *scheduler_order, Place *scheduler_place)
{
	order = scheduler_order;
	place = scheduler_place;
	before_shmem_exit(terminate_courier, 0);
}

/*
 * Takes note of a courier that has ended.
 */
static void
review_courier(void)
{
	if (courier == NULL || !child_has_ended(courier))
		return;
	pfree(courier);
	courier = NULL;
	broke = true;
	if (mono_now() >= mono_add_ms(start_time, PROVEN_MS))
		backoff_none(&backoff);
	backoff_more(&backoff, RETRY_MIN_MS, RETRY_MAX_MS);
}

/*
 * Sees to it that a courier runs, or will after a while.
 */
void
keep_courier_running(void)
{
	review_courier();
	if (courier != NULL || !backoff_is_over(&backoff))
		return;

	start_time = mono_now();
	courier = start_child(WORKER_COURIER, order);
	if (courier != NULL)
	{
		if (place->courier_state == COURIER_LACKS_ROOM)
			backoff_none(&backoff);
		place->courier_state = COURIER_STARTED;
		said_no_room = false;
		return;
	}
	if (place->courier_state != COURIER_LACKS_ROOM)
		backoff_none(&backoff);
	place->courier_state = COURIER_LACKS_ROOM;
	backoff_more(&backoff, ROOM_MIN_MS, ROOM_MAX_MS);
	/* Where databases take turns this one may just have been too early. */
	if (backoff.delay_ms < ROOM_MAX_MS || said_no_room)
		return;
	said_no_room = true;
	ereport(WARNING,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("could not start a quota_manager courier for database \"%s\"",
					order->database_name),
			 errdetail("All slots for background workers are in use. Strategies are run, grants "
					   "wait."),
			 errhint("You may need to increase max_worker_processes.")));
	note_trouble(WORK_DELIVERY, "could not start: all slots for background workers are in use");
}

/*
 * There is something to deliver.
 */
void
ask_courier(void)
{
	place_ask(place);
	if (courier != NULL)
		wake_child(courier);
}

/*
 * What kept it from working may have been mended: it is started again at once.
 */
void
retry_courier(void)
{
	backoff_none(&backoff);
}

/*
 * True once after a courier ended by itself.
 */
bool
courier_broke(void)
{
	bool result = broke;

	broke = false;
	return result;
}

/*
 * True if it has delivered what it could, up to what it was last asked for,
 * and is in no hurry.  One that waits to be started again after an error could
 * not do more.
 */
bool
courier_has_delivered(void)
{
	if (courier == NULL)
		return place->courier_state == COURIER_STARTED && backoff.delay_ms > 0;
	return place_is_answered(place) && place_courier_next(place) > mono_now();
}

/*
 * When it wants to look again, or to be started again; MONO_NEVER: nothing is
 * pending.
 */
MonoTime
courier_wanted(void)
{
	if (courier == NULL && place->courier_state == COURIER_STARTED && backoff.delay_ms > 0)
		return backoff.not_before;
	return place_is_answered(place) ? place_courier_next(place) : mono_now();
}

/*
 * Ends the courier: it claims nothing more and waits for answers that are on
 * their way, for half a minute at most, unless *stop becomes true.  It may not
 * have come so far yet as to listen to the signal, so that is sent again.
 */
void
dismiss_courier(const volatile sig_atomic_t *stop)
{
	MonoTime until = mono_in_ms(DISMISSAL_MS);

	review_courier();
	while (courier != NULL && !*stop && mono_now() < until)
	{
		pid_t pid;

		if (GetBackgroundWorkerPid(courier, &pid) == BGWH_STARTED)
			(void) kill(pid, DISMISSAL_SIGNAL);
		worker_wait(DISMISSAL_SIGNAL_MS);
		if (child_has_ended(courier))
		{
			pfree(courier);
			courier = NULL;
		}
	}
}
