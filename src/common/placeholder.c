/*
 * placeholder.c
 *		Settings that were given a value before the library was loaded.
 */
#include "postgres.h"

#include "fmgr.h"
#include "nodes/pg_list.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/guc_tables.h"
#include "utils/memutils.h"

#include "common/compat.h"
#include "common/placeholder.h"

#define PREFIX "quota_manager."

PG_FUNCTION_INFO_V1(qm_setting);

/* A value that holds for the session until another one is set. */
typedef struct Placeholder
{
	char     *name;
	GucSource source;
} Placeholder;

static List *placeholders = NIL;

/* The first one that was refused, for good: a setting cannot be defined again. */
static const Placeholder *refused = NULL;

/* All variables there are, and how many; some places may be empty. */
static struct config_generic **
list_variables(int *count)
{
	return list_guc_variables(count);
}

/* An error for the first one that was refused, if there is one. */
static void
report_refused(void)
{
	if (refused == NULL)
		return;
	ereport(
		ERROR,
		(errcode(ERRCODE_CANT_CHANGE_RUNTIME_PARAM),
		 errmsg("quota_manager cannot be loaded: the value of \"%s\" was refused", refused->name),
		 errdetail("It was given before the library was loaded (source: %s); without it the "
				   "default would hold, whatever the configuration file says.",
				   GucSource_Names[refused->source]),
		 errhint("Leave it to the configuration file: the options of the connection, ALTER "
				 "ROLE and ALTER DATABASE must not name it, or a superuser must have set it "
				 "there to a value that it can have.")));
}

/*
 * Records the values that were given.  Call it before the settings are
 * defined.
 */
void
placeholders_note(void)
{
	MemoryContext           caller = MemoryContextSwitchTo(TopMemoryContext);
	struct config_generic **variables;
	int                     count;

	report_refused();
	variables = list_variables(&count);
	for (int i = 0; i < count; i++)
	{
		struct config_generic *variable = variables[i];
		Placeholder           *placeholder;

		if ((variable->flags & GUC_CUSTOM_PLACEHOLDER) == 0 ||
			variable->reset_source == PGC_S_DEFAULT ||
			pg_strncasecmp(variable->name, PREFIX, strlen(PREFIX)) != 0)
			continue;
		placeholder = palloc(sizeof(Placeholder));
		placeholder->name = pstrdup(variable->name);
		placeholder->source = variable->reset_source;
		placeholders = lappend(placeholders, placeholder);
	}
	MemoryContextSwitchTo(caller);
}

/* The recorded placeholder of that name; NULL: there was none. */
static const Placeholder *
find_placeholder(const char *name)
{
	ListCell *cell;

	foreach (cell, placeholders)
	{
		const Placeholder *placeholder = lfirst(cell);

		if (pg_strcasecmp(placeholder->name, name) == 0)
			return placeholder;
	}
	return NULL;
}

/*
 * Raises an error if a recorded value was refused: this process cannot use the
 * library then, now or later.  Call it after the settings were defined.  A
 * setting that took over its value has the same source as the placeholder.
 */
void
placeholders_require_adopted(void)
{
	struct config_generic **variables;
	int                     count;

	variables = list_variables(&count);
	for (int i = 0; i < count && refused == NULL; i++)
	{
		struct config_generic *variable = variables[i];
		const Placeholder     *placeholder;

		if ((variable->flags & GUC_CUSTOM_PLACEHOLDER) != 0 ||
			pg_strncasecmp(variable->name, PREFIX, strlen(PREFIX)) != 0)
			continue;
		placeholder = find_placeholder(variable->name);
		if (placeholder != NULL && variable->reset_source != placeholder->source)
			refused = placeholder;
	}
	report_refused();
}

/*
 * setting(name): as current_setting('quota_manager.' || name), which returns
 * unchecked values while the library is not loaded.
 */
Datum
qm_setting(PG_FUNCTION_ARGS)
{
	char *name = psprintf(PREFIX "%s", text_to_cstring(PG_GETARG_TEXT_PP(0)));

	PG_RETURN_TEXT_P(cstring_to_text(GetConfigOptionByName(name, NULL, false)));
}
