/*
 * slot_control.c
 *		Of the launcher: gives slots to databases, keeps both workers of each
 *		running, ends time slices, and frees slots.
 *
 * The scheduler of a slot comes first and finds out whether the database can be
 * served; the delivery worker joins it.  Each is started again by itself, after
 * a back-off.  A slot is free when neither runs any more.
 */
#include "postgres.h"

#include <signal.h>

#include "miscadmin.h"
#include "storage/ipc.h"

#include "worker/launcher_state.h"
#include "worker/timing.h"

/* Exit callback: workers do not outlive their launcher. */
void
slots_terminate_all(int code, Datum arg)
{
	for (Database *database = launcher.first; database != NULL; database = database->next)
	{
		for (int kind = WORKER_SCHEDULER; kind <= WORKER_DELIVERY; kind++)
		{
			if (database->workers[kind].handle != NULL)
				TerminateBackgroundWorker(database->workers[kind].handle);
		}
	}
}

/* Takes note of a worker that has ended.  False: it runs. */
static bool
reap(LaunchedWorker *worker)
{
	pid_t pid;

	if (worker->handle == NULL || GetBackgroundWorkerPid(worker->handle, &pid) != BGWH_STOPPED)
		return false;
	pfree(worker->handle);
	worker->handle = NULL;
	/* the server has a worker slot again */
	backoff_none(&launcher.out_of_slots);
	return true;
}

/* Counts a worker that broke. */
static void
count_failure(LaunchedWorker *worker, int max_ms)
{
	if (mono_now() >= mono_add_ms(worker->start_time, RECOVERED_MS))
		backoff_none(&worker->backoff);
	backoff_more(&worker->backoff, BROKEN_MIN_MS, max_ms);
}

/*
 * Takes note of a scheduler that could not say why it ended.  It has logged an
 * error itself, but not what becomes of the database.
 */
static void
note_abnormal_end(Database *database)
{
	LaunchedWorker *scheduler = &database->workers[WORKER_SCHEDULER];
	SliceMemory    *memory = &database->slot->memory;

	/* the database may have been dropped */
	launcher.read_databases = MONO_PAST;
	memory->extension = InvalidOid;
	/* it left for a command, and comes back when that has ended */
	if (database->ddl.is_locked)
	{
		backoff_none(&scheduler->backoff);
		return;
	}
	count_failure(scheduler, BROKEN_SCHEDULER_MAX_MS);
	if (database->slot->connected || database->logged)
		return;
	database->logged = true;
	ereport(WARNING,
			(errcode(ERRCODE_CONNECTION_FAILURE),
			 errmsg("quota_manager could not connect to database \"%s\" as role \"%s\"",
					database->name, worker_role),
			 errhint("The message before this one says why. It is tried again after 1 s, 2 s, ... "
					 "1 min.")));
}

/* Takes note of a precondition that failed; the log says so once. */
static void
note_failure(Database *database)
{
	Backoff *backoff = &database->workers[WORKER_SCHEDULER].backoff;

	if (database->failure == FAILURE_EXTENSION || database->failure == FAILURE_STOPPED)
		backoff_more(backoff, UNSERVED_MIN_MS,
					 UNSERVED_MAX_MS + UNSERVED_MAX_PER_DATABASE_MS *
										   (int) hash_get_num_entries(launcher.databases));
	else
		backoff_more(backoff, UNFIT_MIN_MS, UNFIT_MAX_MS);
	memset(&database->slot->memory, 0, sizeof(SliceMemory));
	if (!database->logged)
		log_precondition_failure(database->failure, database->missing, database->name);
	database->logged = true;
	/* a launcher of one database has nothing to wait for */
	if (OidIsValid(launcher.only_database) &&
		(database->failure == FAILURE_EXTENSION || database->failure == FAILURE_STOPPED))
		proc_exit(0);
}

/* Takes note of how a scheduler ended. */
static void
note_scheduler_end(Database *database)
{
	WorkerSlot *slot = database->slot;

	if (slot->served || slot->end != database->end || slot->failure != database->failure ||
		strcmp(slot->missing, database->missing) != 0)
		database->logged = false;
	database->end = slot->end;
	database->failure = slot->failure;
	strlcpy(database->missing, slot->missing, MISSING_SIZE);
	if (slot->failure == FAILURE_EXTENSION)
		slot->announced = false;
	if (slot->end == END_ABNORMAL)
		note_abnormal_end(database);
	else if (slot->end == END_PRECONDITION)
		note_failure(database);
	else
		backoff_none(&database->workers[WORKER_SCHEDULER].backoff);
}

/* Takes note of a delivery worker that has ended. */
static void
note_delivery_end(Database *database)
{
	WorkerSlot *slot = database->slot;

	slot->delivery_running = false;
	if (!slot->stopping)
	{
		count_failure(&database->workers[WORKER_DELIVERY], BROKEN_DELIVERY_MAX_MS);
		slot->delivery_broke = true;
		/* what it has published does not hold any more */
		slot_reset_delivery(slot);
	}
	slot_wake(slot, WORKER_SCHEDULER);
}

/* When deliveries of a database go on; MONO_PAST: now. */
static MonoTime
delivery_due(Database *database)
{
	const LaunchedWorker *worker = &database->workers[WORKER_DELIVERY];

	if (worker->handle == NULL && !backoff_is_over(&worker->backoff))
		return worker->backoff.not_before;
	return database->slot->delivery_wanted ? MONO_PAST
										   : slot_next_due(database->slot, WORKER_DELIVERY);
}

/* The same of its scheduler. */
static MonoTime
scheduler_due(Database *database)
{
	const LaunchedWorker *worker = &database->workers[WORKER_SCHEDULER];

	return !backoff_is_over(&worker->backoff) ? worker->backoff.not_before
											  : slot_next_due(database->slot, WORKER_SCHEDULER);
}

/*
 * Frees the slot of a database whose workers have ended, and decides when it is
 * to have one again.
 */
static void
free_slot(Database *database)
{
	MonoTime now = mono_now();

	database->announced = database->slot->announced;
	database->memory = database->slot->memory;
	database->wanted = database->workers[WORKER_SCHEDULER].backoff.not_before;
	if (database->end == END_OF_SLICE)
	{
		int revisit_ms = Min(Max(REVISIT_PER_DATABASE_MS * database_count_served(), REVISIT_MIN_MS),
							 REVISIT_MAX_MS);

		database->wanted = Min(scheduler_due(database), delivery_due(database));
		database->wanted = Min(database->wanted, mono_add_ms(now, revisit_ms));
	}
	else
		backoff_none(&database->workers[WORKER_DELIVERY].backoff);
	database->wanted = Max(database->wanted, now);
	database->slot->database = InvalidOid;
	database->slot = NULL;
	if (database->requested)
		database_request(database->oid);
	database->requested = false;
}

/* Whether workers must leave a database at once. */
static bool
must_leave(const Database *database)
{
	return !database->listed || !database->can_connect || database->ddl.is_confirmed ||
		   database->slot->role != launcher.role;
}

/*
 * Takes note of workers that have ended, ends those that should not run any
 * more, frees slots, and forgets databases that are gone.
 */
void
slots_review(void)
{
	for (Database *database = launcher.first; database != NULL; database = database->next)
	{
		LaunchedWorker *scheduler = &database->workers[WORKER_SCHEDULER];
		LaunchedWorker *delivery = &database->workers[WORKER_DELIVERY];

		if (database->slot != NULL)
		{
			if (reap(delivery))
				note_delivery_end(database);
			if (reap(scheduler))
				note_scheduler_end(database);
			if (database->slot->delivery_retry)
			{
				database->slot->delivery_retry = false;
				backoff_none(&delivery->backoff);
			}
			if (scheduler->handle != NULL && must_leave(database))
				TerminateBackgroundWorker(scheduler->handle);
			if (delivery->handle != NULL &&
				(must_leave(database) ||
				 (scheduler->handle == NULL && database->end == END_PRECONDITION)))
				TerminateBackgroundWorker(delivery->handle);
			if (scheduler->handle == NULL && delivery->handle == NULL)
				free_slot(database);
		}
	}
	database_list_forget_dropped();
}

/*
 * Takes note that the server is out of worker slots.  It is said when that
 * lasts: where databases share slots, this one may just have been too early.
 */
static void
note_out_of_slots(Database *database, WorkerKind kind)
{
	launcher.short_of_slots = mono_in_ms(SHORT_OF_SLOTS_MS);
	backoff_more(&launcher.out_of_slots, OUT_OF_SLOTS_MIN_MS, OUT_OF_SLOTS_MAX_MS);
	if (launcher.out_of_slots.delay_ms < OUT_OF_SLOTS_MAX_MS || launcher.logged_no_slot)
		return;
	launcher.logged_no_slot = true;
	ereport(WARNING,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("could not start a %s for database \"%s\"", worker_type(kind), database->name),
			 kind == WORKER_SCHEDULER
				 ? errdetail("All slots for background workers are in use.")
				 : errdetail("All slots for background workers are in use. Strategies are run, "
							 "grants wait."),
			 errhint("You may need to increase max_worker_processes.")));
	if (kind == WORKER_SCHEDULER)
		return;
	/* the launcher is connected to no database; the scheduler records it there */
	database->slot->out_of_slots = true;
	slot_wake(database->slot, WORKER_SCHEDULER);
}

/*
 * Starts a worker of a database that has a slot.  False: the server is out of
 * worker slots.
 */
static bool
start(Database *database, WorkerKind kind)
{
	LaunchedWorker *worker = &database->workers[kind];
	WorkerArguments arguments = {launcher.table_handle,
								 (int) (database->slot - launcher.table->slots)};

	if (kind == WORKER_SCHEDULER)
		slot_reset_scheduler(database->slot);
	else
		slot_reset_delivery(database->slot);
	worker->handle = start_worker(kind, &arguments, database->name);
	if (worker->handle == NULL)
	{
		note_out_of_slots(database, kind);
		return false;
	}
	worker->start_time = mono_now();
	if (kind == WORKER_DELIVERY)
		database->slot->delivery_running = true;
	backoff_none(&launcher.out_of_slots);
	if (launcher.short_of_slots <= worker->start_time)
		launcher.logged_no_slot = false;
	return true;
}

/*
 * Whether a worker of a database with a slot is to be started, now or after its
 * back-off.
 */
static bool
is_missing(const Database *database, WorkerKind kind)
{
	const WorkerSlot *slot = database->slot;

	if (slot == NULL || database->workers[kind].handle != NULL || slot->stopping ||
		must_leave(database) || database->ddl.is_locked)
		return false;
	if (kind == WORKER_SCHEDULER)
		return database->end == END_ABNORMAL;
	return slot->served && database->workers[WORKER_SCHEDULER].handle != NULL;
}

/*
 * Starts workers that are missing in slots.  False: the server is out of worker
 * slots.
 */
static bool
complete_slots(long *pause)
{
	bool success = true;

	for (Database *database = launcher.first; database != NULL; database = database->next)
	{
		for (int kind = WORKER_SCHEDULER; kind <= WORKER_DELIVERY; kind++)
		{
			long wait = mono_ms_until(database->workers[kind].backoff.not_before, *pause);

			if (!is_missing(database, kind))
				continue;
			if (wait > 0)
				*pause = Min(*pause, wait);
			else
				success = success && start(database, kind);
		}
	}
	return success;
}

/*
 * How many databases have a slot and no delivery worker, for lack of a worker
 * slot, beside others that have one.
 */
static int
count_lacking(void)
{
	int lacking = 0;
	int others = 0;

	if (launcher.out_of_slots.delay_ms == 0)
		return 0;
	for (Database *database = launcher.first; database != NULL; database = database->next)
	{
		if (is_missing(database, WORKER_DELIVERY) &&
			backoff_is_over(&database->workers[WORKER_DELIVERY].backoff))
			lacking++;
		else if (database->slot != NULL)
			others++;
	}
	return others > 0 || lacking > 1 ? lacking : 0;
}

/* A slot that is free; NULL: there is none. */
static WorkerSlot *
find_free_slot(void)
{
	for (int i = 0; i < launcher.table->count; i++)
	{
		if (!OidIsValid(launcher.table->slots[i].database))
			return &launcher.table->slots[i];
	}
	return NULL;
}

/*
 * Gives a slot to a database and starts its scheduler.  False: the server is
 * out of worker slots.
 */
static bool
open_slot(Database *database, WorkerSlot *slot)
{
	database->slot = slot;
	slot->role = launcher.role;
	strlcpy(slot->database_name, database->name, sizeof(slot->database_name));
	slot->stopping = slot->delivery_running = slot->out_of_slots = false;
	slot->delivery_broke = slot->delivery_retry = slot->delivery_wanted = false;
	slot->announced = database->announced;
	slot->memory = database->memory;
	slot_reset_delivery(slot);
	slot->database = database->oid;
	if (!start(database, WORKER_SCHEDULER))
	{
		slot->database = InvalidOid;
		database->slot = NULL;
		return false;
	}
	database->slice_start = database->workers[WORKER_SCHEDULER].start_time;
	database->stop_time = database->slice_end = MONO_NEVER;
	launcher.next_start = mono_in_ms(START_INTERVAL_MS);
	return true;
}

/*
 * Starts what is missing: workers of databases that have a slot first, then
 * those of databases that are wanted.  *pause is shortened to when to try
 * again.  Returns how many databases wait for a slot, or for their delivery
 * worker, until others make room.
 */
int
slots_start_workers(long *pause)
{
	WorkerSlot *slot;
	Database   *database;

	if (!backoff_is_over(&launcher.out_of_slots))
		*pause = Min(*pause, Max(mono_ms_until(launcher.out_of_slots.not_before, *pause), 1));
	else if (complete_slots(pause))
	{
		while ((slot = find_free_slot()) != NULL && database_count_overdue(&database) > 0)
		{
			if (launcher.next_start > mono_now())
			{
				*pause = Min(*pause, Max(mono_ms_until(launcher.next_start, *pause), 1));
				return 0;
			}
			if (!open_slot(database, slot))
				break;
		}
	}
	if (launcher.out_of_slots.delay_ms > 0)
		*pause = Min(*pause, launcher.out_of_slots.delay_ms);
	return database_count_overdue(&database) + count_lacking();
}

/*
 * How far the time slice of a database has come: 0 it may not end, 1 it has
 * lasted for long, 2 what was due was run and what was pending delivered, as far
 * as the gateways allow.  *pause is shortened to when it may end.
 */
static int
slice_progress(Database *database, long *pause)
{
	MonoTime now = mono_now();
	MonoTime earliest = mono_add_ms(database->slice_start, SLICE_MIN_MS);
	MonoTime latest = mono_add_ms(database->slice_start, SLICE_MAX_MS);

	if (now >= earliest && scheduler_due(database) > now && delivery_due(database) > now)
		return 2;
	if (now >= latest)
		return 1;
	*pause = Min(*pause, Max(mono_ms_until(now < earliest ? earliest : latest, *pause), 1));
	return 0;
}

/*
 * Ends deliveries without haste once the scheduler runs nothing any more: the
 * worker claims nothing more and waits for the answers that are on their way,
 * for a while.  It may not listen to the signal yet, so that is repeated.
 */
static void
stop_delivery(Database *database, long *pause)
{
	LaunchedWorker *delivery = &database->workers[WORKER_DELIVERY];
	pid_t           pid;

	if (delivery->handle == NULL ||
		(database->workers[WORKER_SCHEDULER].handle != NULL && !database->slot->leaving))
		return;
	if (database->slice_end == MONO_NEVER)
		database->slice_end = mono_in_ms(SLICE_END_MS);
	if (mono_now() >= database->slice_end)
		TerminateBackgroundWorker(delivery->handle);
	else if (GetBackgroundWorkerPid(delivery->handle, &pid) == BGWH_STARTED)
		(void) kill(pid, GRACEFUL_STOP_SIGNAL);
	*pause = Min(*pause, SLICE_END_REPEAT_MS);
}

/*
 * Whether a slot is about to be free.  A scheduler that does not answer soon is
 * in a scan that may last: then another slot is to be free first.
 */
static bool
is_about_to_be_free(const Database *database)
{
	return database->slot->leaving || database->workers[WORKER_SCHEDULER].handle == NULL ||
		   mono_now() < mono_add_ms(database->stop_time, SLICE_ANSWER_MS);
}

/*
 * The database whose time slice is to end next: one that has nothing to do, if
 * there is any, and then the one that has lasted longest.  NULL: none may end.
 */
static Database *
find_slice_to_end(long *pause)
{
	Database *best = NULL;
	int       best_progress = 1;

	for (Database *database = launcher.first; database != NULL; database = database->next)
	{
		int progress;

		if (database->slot == NULL || database->slot->stopping)
			continue;
		progress = slice_progress(database, pause);
		if (progress > best_progress ||
			(progress == best_progress &&
			 (best == NULL || database->slice_start < best->slice_start)))
		{
			best = database;
			best_progress = progress;
		}
	}
	return best;
}

/*
 * Ends time slices for so many databases that wait.  Returns how many have been
 * asked to end.
 */
int
slots_stop(int waiting, long *pause)
{
	int stopping = 0;

	for (Database *database = launcher.first; database != NULL; database = database->next)
	{
		if (database->slot == NULL || !database->slot->stopping)
			continue;
		stopping++;
		stop_delivery(database, pause);
		if (is_about_to_be_free(database))
			waiting--;
		else
			*pause = Min(*pause, SLICE_ANSWER_MS);
	}
	for (; waiting > 0; waiting--)
	{
		Database *database = find_slice_to_end(pause);

		if (database == NULL)
			break;
		stopping++;
		database->stop_time = mono_now();
		/* what was committed before is seen by the last polls */
		database->requested = false;
		database->slot->stopping = true;
		slot_wake(database->slot, WORKER_SCHEDULER);
		stop_delivery(database, pause);
	}
	return stopping;
}
