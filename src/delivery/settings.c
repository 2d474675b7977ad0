/*
 * settings.c
 *		Settings of delivery.
 */
#include "postgres.h"

#include <limits.h>

#include "utils/guc.h"

#include "delivery/delivery.h"
#include "endpoint/allowed_hosts.h"
#include "delivery/settings.h"

int   delivery_claim_batch = 256;
int   delivery_retry_base = 1000;
int   delivery_retry_max = 300000;
int   delivery_max_attempts = 10;
int   delivery_linger = 120000;
char *delivery_credential_directory;
char *delivery_allowed_hosts;

/*
 * What becomes of open grants when a standby was promoted; read by the SQL
 * function check_identity.
 */
static int                            after_promotion = 0;
static const struct config_enum_entry after_promotion_options[] = {
	{"hold", 0, false}, {"continue", 1, false}, {NULL, 0, false}};

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
 * An entry that nobody can read would allow nothing, or not what was meant.
 */
static bool
check_hosts(char **newval, void **extra, GucSource source)
{
	const char *entry;
	int         length;
	const char *problem = hosts_problem(*newval, &entry, &length);

	if (problem == NULL)
		return true;
	GUC_check_errdetail("Entry \"%.*s\": %s.", length, entry, problem);
	GUC_check_errhint("Write host, host:port, scheme://host or scheme://host:port, separated by "
					  "commas.");
	return false;
}

/*
 * Registers the settings.  Those that decide which secrets are read and where
 * they may go can be changed by superusers only.
 */
void
delivery_define_settings(void)
{
	DefineCustomIntVariable("quota_manager.claim_batch", "Grants claimed in one transaction.",
							"More are faster; after a crash all that were claimed are in doubt.",
							&delivery_claim_batch, 256, 1, 4096, PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("quota_manager.retry_base", "Time before a grant is tried again.",
							"Doubles with every failed attempt, up to quota_manager.retry_max.",
							&delivery_retry_base, 1000, 1, 3600000, PGC_SUSET, GUC_UNIT_MS, NULL,
							NULL, NULL);
	DefineCustomIntVariable(
		"quota_manager.retry_max", "Longest time before a grant is tried again.", NULL,
		&delivery_retry_max, 300000, 1, 86400000, PGC_SUSET, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("quota_manager.max_attempts",
							"Failed attempts after which a grant is failed.",
							"Attempts while its gateway is down or misconfigured do not count.",
							&delivery_max_attempts, 10, 1, 1000000, PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable(
		"quota_manager.linger", "Time for which a request whose answer was lost may still arrive.",
		"Before, a balance that did not change does not prove that it was not applied.",
		&delivery_linger, 120000, 0, 86400000, PGC_SUSET, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomStringVariable("quota_manager.credential_directory",
							   "Directory of the keys that gateways refer to as file:NAME.",
							   "Empty: such references cannot be used.",
							   &delivery_credential_directory, "", PGC_SUSET, GUC_SUPERUSER_ONLY,
							   check_directory, NULL, NULL);
	DefineCustomStringVariable(
		"quota_manager.allowed_hosts", "Hosts that gateways may be on, separated by commas.",
		"Each as host, host:port, scheme://host or scheme://host:port. "
		"Empty: any host.",
		&delivery_allowed_hosts, "", PGC_SUSET, GUC_SUPERUSER_ONLY, check_hosts, NULL, NULL);
	DefineCustomEnumVariable(
		"quota_manager.after_promotion",
		"What becomes of grants that are not settled when a standby was "
		"promoted.",
		"hold: they are in doubt, for an operator to decide. continue: they are "
		"delivered; for synchronous replication.",
		&after_promotion, 0, after_promotion_options, PGC_SIGHUP, 0, NULL, NULL, NULL);
}
