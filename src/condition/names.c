/*
 * names.c
 *		Names that a condition's words stand for in the catalogue.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "utils/syscache.h"
#include "catalog/pg_type.h"

#include "condition/condition.h"
#include "condition/names.h"

/* A copy with one character in place of another. */
static char *
replaced(const char *text, char from, char to)
{
	char *copy = pstrdup(text);

	for (char *p = copy; *p; p++)
		if (*p == from)
			*p = to;
	return copy;
}

/* has-tag -> has_tag.  Allocates. */
char *
function_of_condition_name(const char *name)
{
	return replaced(name, '-', '_');
}

/* has_tag -> has-tag.  Allocates. */
char *
condition_name_of_function(const char *function)
{
	return replaced(function, '_', '-');
}

/* The row type quota_manager.subject. */
Oid
condition_subject_type(void)
{
	Oid schema = get_namespace_oid(CORE_SCHEMA, false);
	Oid type = GetSysCacheOid2(TYPENAMENSP, Anum_pg_type_oid, CStringGetDatum(SUBJECT_TYPE),
							   ObjectIdGetDatum(schema));

	if (!OidIsValid(type))
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
						errmsg("type \"%s.%s\" does not exist", CORE_SCHEMA, SUBJECT_TYPE)));
	return type;
}
