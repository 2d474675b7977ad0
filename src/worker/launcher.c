/*
 * launcher.c
 *		The launcher: keeps a scheduler running in each database that has the
 *		extension, or in one database where the library is not preloaded.
 *
 * It compares what should run with what runs, each few seconds and whenever a
 * scheduler ends, and never relies on being told.  It is connected to no
 * database and reads shared catalogues only.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "storage/dsm.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "worker/databases.h"
#include "worker/own_launcher.h"
#include "worker/process.h"
#include "worker/worker.h"

/* How often databases are compared with schedulers. */
#define NAP_MS 3000

/* How long to wait before a scheduler is started again that broke, and for how long it must live. */
#define BROKE_MIN_MS 1000
#define BROKE_MAX_MS (60 * 1000)

/*
 * The same where it found nothing to do.  Whether a database has the extension
 * cannot be seen from outside of it, so each is looked into; the more there
 * are, the less often.
 */
#define IDLE_MIN_MS (10 * 1000)
#define IDLE_MAX_MS (60 * 1000)
#define IDLE_MAX_PER_DATABASE_MS 1000

PGDLLEXPORT void qm_launcher_main(Datum main_arg);

/* What is remembered of a database. */
typedef struct Database
{
	Oid                     oid; /* hash key; must be first */
	DatabaseEntry           entry;
	bool                    listed; /* still there */
	Backoff                 backoff;
	SchedulerEnd            last_end;
	bool                    complained;
	BackgroundWorkerHandle *scheduler; /* NULL: none runs */
	WorkerOrder             order;     /* what it was told */
	TimestampTz             start_time;
} Database;

bool launcher_is_preloaded = false;

static HTAB         *databases;
static MemoryContext cycle_context;

/* The only database to serve, or InvalidOid for all. */
static Oid only_database = InvalidOid;

/* Where schedulers leave why they ended, and which places are taken. */
static dsm_handle    ends_handle;
static SchedulerEnd *ends;
static Oid          *slots;
static int           slot_count;

/* There are more databases than places, and that was said. */
static bool complained_of_slots = false;

/* What the last cycle found wrong with the role; NULL: nothing. */
static char *role_problem = NULL;

/*
 * Makes the places for schedulers.
 */
static void
create_slots(void)
{
	dsm_segment *segment;

	/* A scheduler needs a courier beside it. */
	slot_count = OidIsValid(only_database) ? 1 : max_workers / 2;
	slots = MemoryContextAllocZero(TopMemoryContext, sizeof(Oid) * slot_count);
	segment = dsm_create(sizeof(SchedulerEnd) * slot_count, 0);
	dsm_pin_mapping(segment);
	ends = dsm_segment_address(segment);
	ends_handle = dsm_segment_handle(segment);
}

/*
 * A place that is free, or -1.
 */
static int
free_slot(void)
{
	for (int i = 0; i < slot_count; i++)
	{
		if (!OidIsValid(slots[i]))
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
	HASH_SEQ_STATUS iterator;
	Database       *database;

	if (databases == NULL)
		return;
	hash_seq_init(&iterator, databases);
	while ((database = hash_seq_search(&iterator)) != NULL)
	{
		if (database->scheduler != NULL)
			TerminateBackgroundWorker(database->scheduler);
	}
}

/*
 * Says why a database is not served, once until something else is the matter.
 */
static void
explain_end(Database *database)
{
	const char *name = database->entry.name;

	if (database->complained)
		return;
	database->complained = true;
	switch (database->last_end)
	{
		case SCHEDULER_BROKE:
			/* It has logged the error itself. */
			database->complained = false;
			break;
		case SCHEDULER_ABSENT:
			ereport(DEBUG1, (errmsg_internal("database \"%s\" has no quota_manager", name)));
			break;
		case SCHEDULER_DISABLED:
			ereport(LOG, (errmsg("quota_manager workers of database \"%s\" are stopped", name),
						  errhint("Start them with quota_manager.start_workers().")));
			break;
		case SCHEDULER_FORBIDDEN:
			ereport(WARNING,
					(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
					 errmsg("role \"%s\" may not run quota_manager in database \"%s\"", worker_role,
							name),
					 errhint("In that database call quota_manager.grant_access('%s', 'worker').",
							 worker_role)));
			break;
	}
}

/*
 * Notes that the scheduler of a database has ended, and decides when the next
 * may start.
 */
static void
scheduler_ended(Database *database)
{
	SchedulerEnd end = ends[database->order.slot];

	if (end != database->last_end)
		database->complained = false;
	database->last_end = end;
	pfree(database->scheduler);
	database->scheduler = NULL;
	slots[database->order.slot] = InvalidOid;

	switch (end)
	{
		case SCHEDULER_BROKE:
			if (milliseconds_until(database->start_time + BROKE_MAX_MS * INT64CONST(1000), 1) == 0)
				backoff_none(&database->backoff);
			backoff_more(&database->backoff, BROKE_MIN_MS, BROKE_MAX_MS);
			break;
		case SCHEDULER_FORBIDDEN:
			/* Rights are about to be granted, one should think. */
			backoff_more(&database->backoff, BROKE_MIN_MS, IDLE_MIN_MS);
			break;
		case SCHEDULER_ABSENT:
		case SCHEDULER_DISABLED:
			backoff_more(&database->backoff, IDLE_MIN_MS,
						 IDLE_MAX_MS + IDLE_MAX_PER_DATABASE_MS * hash_get_num_entries(databases));
			break;
	}
	explain_end(database);

	/* A launcher of one database has nothing to wait for. */
	if (OidIsValid(only_database) && (end == SCHEDULER_ABSENT || end == SCHEDULER_DISABLED))
		proc_exit(0);
}

/*
 * Starts a scheduler.
 */
static void
start_scheduler(Database *database, int slot, Oid role)
{
	WorkerOrder *order = &database->order;

	memset(order, 0, sizeof(*order));
	order->database = database->oid;
	order->role = role;
	order->ends = ends_handle;
	order->slot = slot;
	strlcpy(order->database_name, database->entry.name, sizeof(order->database_name));
	ends[slot] = SCHEDULER_BROKE;

	database->scheduler = start_child(WORKER_SCHEDULER, order);
	database->start_time = GetCurrentTimestamp();
	if (database->scheduler != NULL)
	{
		slots[slot] = database->oid;
		return;
	}
	if (!database->complained)
		ereport(WARNING, (errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
						  errmsg("could not start a quota_manager scheduler for database \"%s\"",
								 database->entry.name),
						  errdetail("All slots for background workers are in use."),
						  errhint("You may need to increase max_worker_processes.")));
	database->complained = true;
	backoff_more(&database->backoff, IDLE_MIN_MS, IDLE_MAX_MS);
}

/*
 * Finds out who the workers are to be.  InvalidOid: nobody; why not is said
 * once.  Must be called in a transaction.
 */
static Oid
find_role(void)
{
	Oid         role = InvalidOid;
	const char *problem = NULL;
	const char *hint = NULL;

	if (workers_setting)
		problem = check_worker_role(&role, &hint);
	if (problem != NULL && (role_problem == NULL || strcmp(problem, role_problem) != 0))
		ereport(WARNING,
				(errcode(ERRCODE_CONFIG_FILE_ERROR),
				 errmsg("quota_manager workers do not run: %s", problem), errhint("%s", hint)));
	if (role_problem != NULL)
		pfree(role_problem);
	role_problem = problem ? MemoryContextStrdup(TopMemoryContext, problem) : NULL;
	return role;
}

/*
 * Compares what is remembered with the databases that there are now.
 */
static void
update_databases(List *entries)
{
	HASH_SEQ_STATUS iterator;
	Database       *database;
	ListCell       *cell;

	hash_seq_init(&iterator, databases);
	while ((database = hash_seq_search(&iterator)) != NULL)
		database->listed = false;

	foreach (cell, entries)
	{
		DatabaseEntry *entry = lfirst(cell);
		bool           found;

		if (OidIsValid(only_database) && entry->oid != only_database)
			continue;
		database = hash_search(databases, &entry->oid, HASH_ENTER, &found);
		if (!found)
		{
			memset(database, 0, sizeof(*database));
			database->oid = entry->oid;
		}
		database->entry = *entry;
		database->listed = true;
		if (!entry->can_connect && !database->complained)
		{
			database->complained = true;
			ereport(LOG, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
						  errmsg("role \"%s\" may not connect to database \"%s\"", worker_role,
								 entry->name),
						  errhint("Grant it the privilege CONNECT on the database.")));
		}
	}
}

/*
 * Takes note of schedulers that have ended, ends those that should not run
 * any more, and forgets databases that are gone.
 */
static void
review_schedulers(Oid role)
{
	HASH_SEQ_STATUS iterator;
	Database       *database;

	hash_seq_init(&iterator, databases);
	while ((database = hash_seq_search(&iterator)) != NULL)
	{
		if (database->scheduler != NULL && child_has_ended(database->scheduler))
			scheduler_ended(database);
		if (database->scheduler != NULL && (!database->listed || database->order.role != role))
			TerminateBackgroundWorker(database->scheduler);
		if (database->scheduler == NULL && !database->listed)
			hash_search(databases, &database->oid, HASH_REMOVE, NULL);
	}
}

/*
 * The database whose scheduler should have been started longest ago; NULL if
 * there is none.
 */
static Database *
most_overdue(void)
{
	TimestampTz     now = GetCurrentTimestamp();
	HASH_SEQ_STATUS iterator;
	Database       *database;
	Database       *best = NULL;

	hash_seq_init(&iterator, databases);
	while ((database = hash_seq_search(&iterator)) != NULL)
	{
		if (database->scheduler == NULL && database->listed && database->entry.can_connect &&
			database->backoff.not_before <= now &&
			(best == NULL || database->backoff.not_before < best->backoff.not_before))
			best = database;
	}
	return best;
}

/*
 * Starts the schedulers that are missing, as far as there are places for them.
 */
static void
start_missing_schedulers(Oid role)
{
	Database *database;

	while ((database = most_overdue()) != NULL)
	{
		int slot = free_slot();

		if (slot < 0)
		{
			if (!complained_of_slots)
				ereport(WARNING,
						(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
						 errmsg("no quota_manager worker is left to look into database \"%s\"",
								database->entry.name),
						 errdetail("quota_manager.max_workers is %d, and each database needs two.",
								   max_workers),
						 errhint("You may need to increase quota_manager.max_workers.")));
			complained_of_slots = true;
			return;
		}
		start_scheduler(database, slot, role);
	}
	complained_of_slots = false;
}

/*
 * One cycle.
 */
static void
reconcile(void)
{
	List *entries = NIL;
	Oid   role;

	MemoryContextReset(cycle_context);
	StartTransactionCommand();
	(void) GetTransactionSnapshot();
	role = find_role();
	if (OidIsValid(role))
		entries = list_databases(role, cycle_context);
	CommitTransactionCommand();
	MemoryContextSwitchTo(cycle_context);

	update_databases(entries);
	review_schedulers(role);
	if (OidIsValid(role))
	{
		/* Its database was dropped. */
		if (OidIsValid(only_database) && hash_get_num_entries(databases) == 0)
			proc_exit(0);
		start_missing_schedulers(role);
	}
}

/*
 * Milliseconds until a scheduler may be started that has to wait.
 */
static long
next_start(void)
{
	HASH_SEQ_STATUS iterator;
	Database       *database;
	long            pause = NAP_MS;

	hash_seq_init(&iterator, databases);
	while ((database = hash_seq_search(&iterator)) != NULL)
	{
		long wait = milliseconds_until(database->backoff.not_before, NAP_MS);

		if (database->scheduler == NULL && wait > 0)
			pause = Min(pause, wait);
	}
	return pause;
}

/*
 * Settings were reloaded: whatever the matter was, it may have been mended.
 */
static void
forget_backoffs(void)
{
	HASH_SEQ_STATUS iterator;
	Database       *database;

	hash_seq_init(&iterator, databases);
	while ((database = hash_seq_search(&iterator)) != NULL)
		backoff_none(&database->backoff);
}

/*
 * Entry point.
 */
void
qm_launcher_main(Datum main_arg)
{
	HASHCTL control = {0};

	pqsignal(SIGTERM, handle_stop_request);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	pgstat_report_appname(MyBgworkerEntry->bgw_name);

	only_database = await_starter();
	/* There is one launcher of the cluster anyway: its lock only tells others who it is. */
	if (!take_worker_lock(only_database, WORKER_LAUNCHER) && OidIsValid(only_database))
		await_place(only_database);

	control.keysize = sizeof(Oid);
	control.entrysize = sizeof(Database);
	control.hcxt = TopMemoryContext;
	databases =
		hash_create("quota_manager databases", 32, &control, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	cycle_context =
		AllocSetContextCreate(TopMemoryContext, "quota_manager cycle", ALLOCSET_DEFAULT_SIZES);
	create_slots();
	before_shmem_exit(terminate_schedulers, 0);

	while (!ShutdownRequestPending)
	{
		report_phase("looking at databases");
		reconcile();
		report_phase(NULL);
		if (worker_wait(next_start()))
			forget_backoffs();
	}

	/* Ending with 0 would mean: do not start me again. */
	proc_exit(1);
}

/*
 * See worker.h.
 */
void
worker_register_launcher(void)
{
	BackgroundWorker worker;

	describe_worker(&worker, WORKER_LAUNCHER, NULL);
	worker.bgw_restart_time = LAUNCHER_RESTART_SECONDS;
	RegisterBackgroundWorker(&worker);
	launcher_is_preloaded = true;
}
