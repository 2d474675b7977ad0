/*
 * quota_manager.c
 *		Entry point of the module.
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "utils/guc.h"

#include "common/crash_point.h"
#include "common/placeholder.h"
#include "common/progress.h"
#include "delivery/delivery.h"
#include "endpoint/allowed_hosts.h"
#include "endpoint/endpoint_settings.h"
#include "scan/pinned_statistics.h"
#include "scan/scan.h"
#include "schedule/schedule.h"
#include "worker/worker.h"

#ifdef PG_MODULE_MAGIC_EXT
PG_MODULE_MAGIC_EXT(.name = "quota_manager", .version = QUOTA_MANAGER_VERSION);
#else
PG_MODULE_MAGIC;
#endif

void _PG_init(void);

/* Registers the settings and hooks, and the launcher if the module is preloaded. */
void
_PG_init(void)
{
	placeholders_note();
	schedule_define_settings();
	scan_define_settings();
	pinned_statistics_install();
	endpoint_define_settings();
	allowed_hosts_define_setting();
	delivery_define_settings();
	worker_define_settings();
#ifdef CRASH_POINTS
	crash_point_define_settings();
#endif
	placeholders_require_adopted();
	MarkGUCPrefixReserved("quota_manager");

	worker_install_hook();
	if (process_shared_preload_libraries_in_progress && !IsBinaryUpgrade)
	{
		worker_register_launcher();
		progress_reserve();
	}
}
