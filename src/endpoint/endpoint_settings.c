/*
 * endpoint_settings.c
 *		Settings about how gateways are reached.
 */
#include "postgres.h"

#include "utils/guc.h"

#include "endpoint/endpoint_settings.h"

int   endpoint_settle_delay_ms = 120000;
char *endpoint_credential_directory;

/*
 * A directory is named in full: a relative one would mean a folder of the
 * data directory.
 */
static bool
check_directory(char **newval, void **extra, GucSource source)
{
	if (**newval == '\0' || is_absolute_path(*newval))
		return true;
	GUC_check_errdetail("The path must be absolute.");
	return false;
}

/*
 * Registers the settings; called once by _PG_init.  Those that decide which
 * secrets are read and where they may go can be changed by superusers only.
 */
void
endpoint_define_settings(void)
{
	DefineCustomIntVariable(
		"quota_manager.linger", "Time for which a request whose answer was lost may still arrive.",
		"Before, a balance that did not change does not prove that it was not applied.",
		&endpoint_settle_delay_ms, 120000, 0, 86400000, PGC_SUSET, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomStringVariable("quota_manager.credential_directory",
							   "Directory of the keys that gateways refer to as file:NAME.",
							   "Empty: such references cannot be used.",
							   &endpoint_credential_directory, "", PGC_SUSET, GUC_SUPERUSER_ONLY,
							   check_directory, NULL, NULL);
}
