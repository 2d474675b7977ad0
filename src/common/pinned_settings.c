/*
 * pinned_settings.c
 *		Settings of PostgreSQL that change what a query returns.
 */
#include "postgres.h"

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
