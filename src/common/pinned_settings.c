/*
 * pinned_settings.c
 *		Settings of PostgreSQL that change what a query returns.
 */
#include "postgres.h"

#include "access/xact.h"

#include "common/compat.h"
#include "common/pinned_settings.h"

/* All can be set by any role.  Functions that evaluate conditions have the same in SET clauses. */
static const struct
{
	const char *name;
	const char *value;
} pinned[] = {
	/* rows that a GIN index leaves out */
	{"gin_fuzzy_search_limit", "0"},
	/* what a text of SQL means: bodies of functions are read when they are first called */
	{"standard_conforming_strings", "on"},
	{"backslash_quote", "safe_encoding"},
	{"transform_null_equals", "off"},
	{"array_nulls", "on"},
	{"quote_all_identifiers", "off"},
	/* texts and values, both ways */
	{"timezone", "UTC"},
	{"timezone_abbreviations", "Default"},
	{"datestyle", "ISO, MDY"},
	{"intervalstyle", "postgres"},
	{"extra_float_digits", "1"},
	{"bytea_output", "hex"},
	{"xmlbinary", "base64"},
	{"xmloption", "content"},
	{"lc_monetary", "C"},
	{"lc_numeric", "C"},
	{"lc_time", "C"},
	{"default_text_search_config", "pg_catalog.simple"},
};

/*
 * Sets them until the end of the transaction (GUC_ACTION_LOCAL), or of the
 * nest level of settings that the caller has begun (GUC_ACTION_SAVE).  A
 * setting that already has its value is not set again: setting
 * timezone_abbreviations reads a file.
 */
void
settings_pin(GucAction action)
{
	for (int i = 0; i < lengthof(pinned); i++)
	{
		const char *value = GetConfigOption(pinned[i].name, true, false);

		if (value == NULL || pg_strcasecmp(value, pinned[i].value) != 0)
			(void) set_config_option(pinned[i].name, pinned[i].value, PGC_USERSET, PGC_S_SESSION,
									 action, true, 0, false);
	}
}

/*
 * What a transaction is isolated by, and a session; NULL: it is not.  Any role
 * can set them.
 */
static const struct
{
	const char *transaction;
	const char *session;
	const char *value;
} isolating[] = {
	{"search_path", "search_path", "pg_catalog, pg_temp"},
	{"row_security", "row_security", "off"},
	{"transaction_isolation", "default_transaction_isolation", "read committed"},
	{"transaction_read_only", "default_transaction_read_only", "off"},
	{NULL, "default_transaction_deferrable", "off"},
	{"statement_timeout", "statement_timeout", "0"},
	{"lock_timeout", "lock_timeout", "0"},
	{"idle_in_transaction_session_timeout", "idle_in_transaction_session_timeout", "0"},
	{"quota_manager.pinned_statistics", NULL, "on"},
};

/* Sets a setting to the end of the current transaction. */
static void
set_for_transaction(const char *name, const char *value)
{
	(void) set_config_option(name, value, PGC_USERSET, PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0,
							 false);
}

/* Ends the time limit of the current transaction. */
void
settings_lift_transaction_timeout(void)
{
	if (HAVE_TRANSACTION_TIMEOUT)
		set_for_transaction("transaction_timeout", "0");
}

void
settings_isolate_transaction(void)
{
	for (int i = 0; i < lengthof(isolating); i++)
		if (isolating[i].transaction != NULL)
			set_for_transaction(isolating[i].transaction, isolating[i].value);
	settings_lift_transaction_timeout();
	settings_pin(GUC_ACTION_LOCAL);
	if (synchronous_commit < SYNCHRONOUS_COMMIT_REMOTE_FLUSH)
		set_for_transaction("synchronous_commit", "on");
}

void
settings_isolate_session(void)
{
	for (int i = 0; i < lengthof(isolating); i++)
		if (isolating[i].session != NULL)
			SetConfigOption(isolating[i].session, isolating[i].value, PGC_SUSET, PGC_S_OVERRIDE);
	if (HAVE_TRANSACTION_TIMEOUT)
		SetConfigOption("transaction_timeout", "0", PGC_SUSET, PGC_S_OVERRIDE);
}
