/*
 * delivery_settings.c
 *		Settings of delivery.
 */
#include "postgres.h"

#include <limits.h>

#include "utils/guc.h"

#include "delivery/delivery.h"
#include "delivery/delivery_settings.h"

int delivery_claim_batch = 256;
int delivery_retry_base = 1000;
int delivery_retry_max = 300000;
int delivery_max_attempts = 10;

/*
 * What becomes of open grants when a standby was promoted; read by the SQL
 * function check_identity.
 */
static int                            after_promotion = 0;
static const struct config_enum_entry after_promotion_options[] = {
	{"hold", 0, false}, {"continue", 1, false}, {NULL, 0, false}};

/* Registers the settings of delivery; called once by _PG_init. */
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
	DefineCustomEnumVariable(
		"quota_manager.after_promotion",
		"What becomes of grants that are not settled when a standby was "
		"promoted.",
		"hold: they are in doubt, for an operator to decide. continue: they are "
		"delivered; for synchronous replication.",
		&after_promotion, 0, after_promotion_options, PGC_SIGHUP, 0, NULL, NULL, NULL);
}
