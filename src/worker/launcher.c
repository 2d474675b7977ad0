/*
 * launcher.c
 *		The launcher: keeps a scheduler running in each database that has the
 *		extension, or in one database where the library is not preloaded.
 *
 * It compares what should run with what runs, each few seconds and whenever a
 * scheduler ends, and never relies on being told.  It is connected to no
 * database and reads shared catalogues only.
 *
 * Where there are more databases than places for schedulers, or more than
 * there is room for in max_worker_processes, it lets those that run know how
 * many others wait (place.h).
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "worker/databases.h"
#include "worker/doorbell.h"
#include "worker/lock_wait.h"
#include "worker/occupied.h"
#include "worker/own_launcher.h"
#include "worker/place.h"
#include "worker/process.h"
#include "worker/roster.h"
#include "worker/worker.h"

/* How often the list of databases is read, and who the workers are to be. */
#define LIST_MS 1000

/*
 * How often it is looked whether somebody wants to drop, rename, move or copy a
 * database whose workers are in the way: such commands wait for five seconds.
 */
#define LOCK_LOOK_MS 1000

/* Calls of sessions are taken so often at most. */
#define CALLS_MS 20

/* Schedulers are started one at a time, so many in a second, after a few at once. */
#define STARTS_PER_SECOND 10

/* When there was no room for another worker it is tried again after these times. */
#define ROOM_MIN_MS 1000
#define ROOM_MAX_MS (10 * 1000)

/*
 * For so long after it was noticed that there is less room than places, none
 * is taken before it is wanted, and each scheduler gets the time to start its
 * courier before the next one is started.
 */
#define CRAMPED_MS (INT64CONST(60) * 1000)
#define SETTLE_MS 2000
#define SETTLE_LOOK_MS 100

PGDLLEXPORT void qm_launcher_main(Datum main_arg);

bool launcher_is_preloaded = false;

static MemoryContext cycle_context;

/* The only database to serve, or InvalidOid for all. */
static Oid only_database = InvalidOid;

/* Who the workers are; InvalidOid: none are to run. */
static Oid role = InvalidOid;

/* When the list of databases is to be read again. */
static MonoTime list_time = MONO_PAST;

/* The places, and which database has which. */
static Board     *board;
static dsm_handle board_handle;
static Oid       *occupants;

/* Schedulers that may be started now, and when that was counted. */
static double   starts_left;
static MonoTime starts_counted;

/* There was no room for a worker. */
static Backoff  room_backoff;
static MonoTime cramped_until = MONO_PAST;
static bool     said_no_room = false;

/* Why there is no role; NULL: there is, or workers are switched off. */
static const char *role_problem = NULL;

/*
 * Makes the places for schedulers.
 */
static void
create_places(void)
{
	/* A scheduler needs a courier beside it. */
	int count = OidIsValid(only_database) ? 1 : max_workers / 2;

	board = board_create(count, &board_handle);
	occupants = MemoryContextAllocZero(TopMemoryContext, sizeof(Oid) * count);
	starts_left = count;
	starts_counted = mono_now();
}

/*
 * A place that is free, or -1.
 */
static int
free_place(void)
{
	for (int i = 0; i < board->count; i++)
	{
		if (!OidIsValid(occupants[i]))
			return i;
	}
	return -1;
}

/*
 * Exit callback: schedulers do not outlive their launcher.
 */
static void
terminate_schedulers(int code, Datum arg)
{
	HASH_SEQ_STATUS walk;
	Database       *database;

	roster_begin(&walk);
	while ((database = roster_next(&walk)) != NULL)
	{
		if (database->scheduler != NULL)
			TerminateBackgroundWorker(database->scheduler);
	}
}

/*
 * Reads who the workers are to be and which databases there are.
 */
static void
read_catalogues(void)
{
	List *entries = NIL;

	MemoryContextReset(cycle_context);
	StartTransactionCommand();
	(void) GetTransactionSnapshot();
	role = find_worker_role(&role_problem);
	if (OidIsValid(role))
		entries = list_databases(role, cycle_context);
	CommitTransactionCommand();
	roster_update(entries, only_database);
	list_time = mono_in_ms(LIST_MS);
}

/*
 * Takes note of schedulers that have ended, ends those that should not run
 * any more, and forgets databases that are gone.
 */
static void
review_schedulers(void)
{
	HASH_SEQ_STATUS walk;
	Database       *database;

	roster_begin(&walk);
	while ((database = roster_next(&walk)) != NULL)
	{
		Place *place = &board->places[database->order.place];

		if (database->scheduler != NULL && child_has_ended(database->scheduler))
		{
			pfree(database->scheduler);
			database->scheduler = NULL;
			occupants[database->order.place] = InvalidOid;
			backoff_none(&room_backoff);
			if (place->about_to_leave)
				doorbell_count_leaving(-1);
			roster_turn_ended(database, place);
			/* it may have been dropped */
			if (database->last_end == SCHEDULER_BROKE)
				list_time = MONO_PAST;
			/* A launcher of one database has nothing to wait for. */
			if (OidIsValid(only_database) && (database->last_end == SCHEDULER_ABSENT ||
											  database->last_end == SCHEDULER_DISABLED))
				proc_exit(0);
		}
		else if (database->scheduler != NULL && place->announced)
			database->announced = true;
		if (database->scheduler != NULL && (!database->listed || !database->entry.can_connect ||
											database->claimed || database->order.role != role))
			TerminateBackgroundWorker(database->scheduler);
		if (database->scheduler == NULL && !database->listed)
			roster_remove(database);
	}
}

/*
 * Starts a scheduler.  False: there is no room for another worker.
 */
static bool
start_scheduler(Database *database, int number)
{
	WorkerOrder *order = &database->order;
	Place       *place = &board->places[number];

	memset(order, 0, sizeof(*order));
	order->database = database->oid;
	order->role = role;
	order->board = board_handle;
	order->place = number;
	strlcpy(order->database_name, database->entry.name, sizeof(order->database_name));
	place_prepare(place);
	place->announced = database->announced;
	if (database->memory != NULL)
		place->memory = *database->memory;

	database->scheduler = start_child(WORKER_SCHEDULER, order);
	if (database->scheduler != NULL)
	{
		database->start_time = mono_now();
		occupants[number] = database->oid;
		starts_left -= 1;
		if (cramped_until <= database->start_time)
			said_no_room = false;
		backoff_none(&room_backoff);
		return true;
	}
	if (!said_no_room)
		ereport(WARNING, (errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
						  errmsg("could not start a quota_manager scheduler for database \"%s\"",
								 database->entry.name),
						  errdetail("All slots for background workers are in use."),
						  errhint("You may need to increase max_worker_processes.")));
	said_no_room = true;
	cramped_until = mono_in_ms(CRAMPED_MS);
	backoff_more(&room_backoff, ROOM_MIN_MS, ROOM_MAX_MS);
	return false;
}

/*
 * Counts places by what their schedulers have come to: those that give theirs
 * up, those that found no room for a courier, and those that may yet start one.
 */
static void
count_places(int *running, int *leaving, int *lacking, int *settling)
{
	HASH_SEQ_STATUS walk;
	Database       *database;

	*running = *leaving = *lacking = *settling = 0;
	roster_begin(&walk);
	while ((database = roster_next(&walk)) != NULL)
	{
		const Place *place = &board->places[database->order.place];

		if (database->scheduler == NULL)
			continue;
		*running += 1;
		if (place->leaving)
			*leaving += 1;
		else if (place->courier_state == COURIER_LACKS_ROOM)
			*lacking += 1;
		else if (place->courier_state == COURIER_NOT_STARTED &&
				 mono_now() < mono_add_ms(database->start_time, SETTLE_MS))
			*settling += 1;
	}
}

/*
 * True if a scheduler may be started now as far as their number in a second is
 * concerned.
 */
static bool
may_start(void)
{
	MonoTime now = mono_now();

	starts_left = Min(starts_left + (now - starts_counted) / 1e6 * STARTS_PER_SECOND, board->count);
	starts_counted = now;
	return starts_left >= 1;
}

/*
 * Starts the schedulers that are missing, as far as there are places and room
 * for them.  Returns for how many there is none; *pause is set where it is to
 * be tried again soon.
 */
static int
start_missing_schedulers(long *pause)
{
	Database *database;
	bool      cramped = cramped_until > mono_now();
	int       running;
	int       leaving;
	int       lacking;
	int       settling;

	for (;;)
	{
		count_places(&running, &leaving, &lacking, &settling);
		if (lacking > 0 || room_backoff.delay_ms > 0)
		{
			cramped_until = mono_in_ms(CRAMPED_MS);
			cramped = true;
		}
		if (cramped && settling > 0)
			*pause = Min(*pause, SETTLE_LOOK_MS);
		/* who runs comes first: without a courier its grants wait */
		if (lacking > 0 || (cramped && settling > 0) || !backoff_is_over(&room_backoff) ||
			free_place() < 0)
			break;
		if (!may_start())
		{
			*pause = Min(*pause, 1000 / STARTS_PER_SECOND);
			return 0;
		}
		database = roster_next_turn(!cramped);
		if (database == NULL)
			break;
		if (!start_scheduler(database, free_place()))
			break;
	}
	/* one that has no courier waits, too, if another one has */
	return Max(roster_overdue() + (lacking > 0 && running > 1 ? 1 : 0) - leaving, 0);
}

/*
 * Lets those that run know how many others wait.
 */
static void
publish_waiting(int waiting)
{
	uint32          before = pg_atomic_exchange_u32(&board->waiting, waiting);
	HASH_SEQ_STATUS walk;
	Database       *database;

	if (waiting <= (int) before)
		return;
	roster_begin(&walk);
	while ((database = roster_next(&walk)) != NULL)
	{
		if (database->scheduler != NULL)
			wake_child(database->scheduler);
	}
}

/*
 * Takes note of the databases that sessions ask for.  Returns for how many
 * milliseconds it is not to be called again: meanwhile sessions do not send a
 * signal for each call.
 */
static long
take_calls(void)
{
	static MonoTime next = MONO_PAST;
	Oid             called[DOORBELL_SIZE];
	int             count;

	if (next > mono_now())
		return mono_ms_until(next, CALLS_MS);
	count = doorbell_take(called);
	if (count == 0)
		return LOCK_LOOK_MS;
	/* it may be one that is not known yet */
	list_time = MONO_PAST;
	if (count < 0)
		roster_forget();
	for (int i = 0; i < count; i++)
		roster_ring(called[i]);
	next = mono_in_ms(CALLS_MS);
	return CALLS_MS;
}

/*
 * One cycle.  Returns for how many milliseconds there is nothing to do.
 */
static long
reconcile(void)
{
	int  waiting = 0;
	long pause = take_calls();
	bool freed;

	if (look_for_occupants(&freed))
		pause = Min(pause, OCCUPIED_LOOK_MS);
	/* what it is called now, and whether it is still there, is to be seen first */
	if (freed)
		list_time = MONO_PAST;
	if (list_time <= mono_now())
		read_catalogues();
	review_schedulers();
	if (OidIsValid(role))
	{
		/* Its database was dropped. */
		if (OidIsValid(only_database) && roster_size() == 0)
			proc_exit(0);
		waiting = start_missing_schedulers(&pause);
	}
	publish_waiting(waiting);
	if (waiting > 0)
		cancel_lock_waits();
	roster_report(board->count, cramped_until > mono_now() ? waiting : 0, role_problem);
	return roster_pause(pause);
}

/*
 * Entry point.
 */
void
qm_launcher_main(Datum main_arg)
{
	pqsignal(SIGTERM, handle_stop_request);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	pgstat_report_appname(MyBgworkerEntry->bgw_name);

	only_database = await_starter();
	/* There is one launcher of the cluster anyway: its lock only tells others who it is. */
	if (!take_worker_lock(only_database, WORKER_LAUNCHER) && OidIsValid(only_database))
		await_place(only_database);

	roster_create();
	cycle_context =
		AllocSetContextCreate(TopMemoryContext, "quota_manager cycle", ALLOCSET_DEFAULT_SIZES);
	create_places();
	before_shmem_exit(terminate_schedulers, 0);
	if (!OidIsValid(only_database))
		doorbell_answer();

	while (!ShutdownRequestPending)
	{
		long pause = reconcile();

		if (worker_wait(pause))
		{
			roster_forget();
			backoff_none(&room_backoff);
			list_time = MONO_PAST;
		}
	}

	/* Ending with 0 would mean: do not start me again. */
	proc_exit(1);
}

/*
 * Registers the launcher; called by _PG_init while preloading, outside binary
 * upgrade.
 */
void
worker_register_launcher(void)
{
	BackgroundWorker worker;

	describe_worker(&worker, WORKER_LAUNCHER, NULL);
	worker.bgw_restart_time = LAUNCHER_RESTART_SECONDS;
	RegisterBackgroundWorker(&worker);
	launcher_is_preloaded = true;
	doorbell_reserve();
}
