/*
 * launcher.c
 *		The launcher: keeps the workers running of each database that has the
 *		extension, or of one database where the library is not preloaded.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "utils/memutils.h"

#include "worker/launcher_state.h"
#include "worker/timing.h"
#include "worker/wake_request.h"
#include "worker/worker.h"

PGDLLEXPORT void qm_launcher_main(Datum main_arg);

bool          launcher_is_preloaded = false;
LauncherState launcher;

/*
 * Reads wake-up requests of sessions.  Returns for how many milliseconds they
 * are not to be read again: meanwhile sessions do not send a signal for each.
 */
static long
read_requests(void)
{
	Oid requested[WAKE_REQUESTS];
	int count;

	if (launcher.read_requests > mono_now())
		return mono_ms_until(launcher.read_requests, REQUESTS_READ_MS);
	count = wake_requests_take(requested);
	if (count == 0)
		return DATABASES_READ_MS;
	/* it may be one that is not known yet */
	launcher.read_databases = MONO_PAST;
	if (count < 0)
		database_list_retry_all();
	for (int i = 0; i < count; i++)
		database_request(requested[i]);
	launcher.read_requests = mono_in_ms(REQUESTS_READ_MS);
	return REQUESTS_READ_MS;
}

/* Shortens a pause to when another database is wanted. */
static long
pause_until_wanted(long pause)
{
	for (Database *database = launcher.first; database != NULL; database = database->next)
	{
		long wait = mono_ms_until(database->wanted, pause);

		if (database_is_startable(database) && wait > 0)
			pause = Min(pause, wait);
	}
	return pause;
}

/* Logs that databases share slots, once until they do not any more. */
static void
log_time_slices(int served, int slots)
{
	if (served > slots && !launcher.logged_time_slices)
		ereport(LOG,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("%d databases share %d quota_manager worker slots in time slices", served,
						slots),
				 errhint("For a slot each set quota_manager.max_workers to %d or more, and allow "
						 "for them in max_worker_processes.",
						 served * 2)));
	launcher.logged_time_slices = served > slots;
}

/*
 * Shows in pg_stat_activity how databases are served, also if that is what it
 * was: so it is seen when the launcher polled last.  `waiting`: for how many the
 * server is out of worker slots.
 */
static void
report(int waiting)
{
	char state[256];
	int  served = database_count_served();
	int  slots = launcher.table->count;

	log_time_slices(served, slots);
	if (!workers_setting)
		strlcpy(state, "waiting: quota_manager.workers is off", sizeof(state));
	else if (launcher.role_problem != NULL)
		snprintf(state, sizeof(state), "waiting: %s", launcher.role_problem);
	else if (served > slots)
		snprintf(state, sizeof(state), "%d databases share %d worker slots", served, slots);
	else if (waiting > 0)
		snprintf(state, sizeof(state), "%d served, %d waiting for room in max_worker_processes",
				 served, waiting);
	else
		snprintf(state, sizeof(state), "%d database%s served", served,
				 served == 1 ? " is" : "s are");
	pgstat_report_activity(STATE_IDLE, state);
}

/*
 * Starts workers, and ends time slices where databases wait for a slot.
 * Workers and sessions learn that databases wait before any is asked to end, so
 * that neither what a worker publishes nor what a session commits meanwhile is
 * overlooked.
 */
static long
share_slots(long pause)
{
	int waiting = slots_start_workers(&pause);

	launcher.table->contended = waiting > 0;
	if (waiting > 0)
		wake_requests_expect(true);
	pg_memory_barrier();
	if (slots_stop(waiting, &pause) == 0 && waiting == 0)
		wake_requests_expect(false);
	if (waiting > 0)
		lock_waits_cancel();
	report(launcher.short_of_slots > mono_now() ? waiting : 0);
	return pause;
}

/* One cycle.  Returns for how many milliseconds there is nothing to do. */
static long
run_cycle(void)
{
	long pause = read_requests();
	bool released;

	if (ddl_locks_poll(&released))
		pause = Min(pause, DDL_LOCK_POLL_MS);
	/* what it is called now, and whether it is still there, is to be known first */
	if (released)
		launcher.read_databases = MONO_PAST;
	if (launcher.read_databases <= mono_now())
		database_list_read();
	slots_review();
	/* its database was dropped */
	if (OidIsValid(launcher.role) && OidIsValid(launcher.only_database) &&
		hash_get_num_entries(launcher.databases) == 0)
		proc_exit(0);
	return pause_until_wanted(share_slots(pause));
}

/* Entry point. */
void
qm_launcher_main(Datum main_arg)
{
	pqsignal(SIGTERM, handle_stop_request);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	pgstat_report_appname(MyBgworkerEntry->bgw_name);

	launcher.only_database = await_starter();
	/* There is one launcher of the cluster anyway: its lock only names it. */
	if (!take_worker_lock(launcher.only_database, WORKER_LAUNCHER) &&
		OidIsValid(launcher.only_database))
		await_predecessor(launcher.only_database);

	launcher.cycle_context =
		AllocSetContextCreate(TopMemoryContext, "quota_manager cycle", ALLOCSET_DEFAULT_SIZES);
	database_list_create();
	launcher.table = slot_table_create(OidIsValid(launcher.only_database) ? 1 : max_workers / 2,
									   &launcher.table_handle);
	database_list_retry_all();
	before_shmem_exit(slots_terminate_all, 0);
	if (!OidIsValid(launcher.only_database))
		wake_requests_receive();

	while (!ShutdownRequestPending)
	{
		if (worker_wait(run_cycle()))
			database_list_retry_all();
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
	wake_requests_reserve();
}
