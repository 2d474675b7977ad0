/*
 * settings.c
 *		Settings of the workers.
 */
#include "postgres.h"

#include <limits.h>

#include "miscadmin.h"
#include "utils/guc.h"

#include "worker/worker.h"

int   scan_interval = 3600;
int   poll_interval = 1000;
int   max_workers = 8;
bool  workers_setting = true;
char *worker_role = NULL;

/*
 * Registers the settings of the workers; called once by _PG_init.  What sizes
 * shared memory or the launcher can be set at server start only, and must not
 * even be defined when the library is loaded later.
 */
void
worker_define_settings(void)
{
	DefineCustomIntVariable("quota_manager.scan_interval",
							"Time between two polls of the scheduler for all single strategies.",
							"New and edited ones are evaluated as soon as they are noticed.",
							&scan_interval, 3600, 1, INT_MAX / 1000, PGC_SIGHUP, GUC_UNIT_S, NULL,
							NULL, NULL);
	DefineCustomIntVariable(
		"quota_manager.poll_interval", "Longest time a worker sleeps before it polls for work.",
		NULL, &poll_interval, 1000, 10, 60 * 1000, PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomBoolVariable("quota_manager.workers", "Lets background workers run.",
							 "Off: those that run end, in all databases.", &workers_setting, true,
							 PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomStringVariable("quota_manager.worker_role",
							   "Role that background workers run as; empty: they do not run.",
							   "It can log in, is not a superuser, and has been given rights by "
							   "grant_access(role, 'worker') in each database.",
							   &worker_role, "", PGC_SIGHUP, 0, NULL, NULL, NULL);
	if (process_shared_preload_libraries_in_progress)
		DefineCustomIntVariable(
			"quota_manager.max_workers",
			"Most background workers at once, the launcher not counted.",
			"A database needs two, a scheduler and a courier. They also count within "
			"max_worker_processes.",
			&max_workers, 8, 2, 1024, PGC_POSTMASTER, 0, NULL, NULL, NULL);
}
