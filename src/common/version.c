/*
 * version.c
 *		Whether the library can serve the extension that is in this database.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/indexing.h"
#include "catalog/pg_extension.h"
#include "commands/dbcommands.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"

#include "common/version.h"

PG_FUNCTION_INFO_V1(qm_library_version);

/* The versions of the SQL that the library serves; its own is the last. */
static const char *const served_versions[] = {"1.0.0", QUOTA_MANAGER_VERSION};

/* Looks the extension up by name. */
InstalledExtension
installed_extension(void)
{
	InstalledExtension result = {InvalidOid, NULL};
	Relation           catalog = table_open(ExtensionRelationId, AccessShareLock);
	ScanKeyData        key;
	SysScanDesc        scan;
	HeapTuple          tuple;

	ScanKeyInit(&key, Anum_pg_extension_extname, BTEqualStrategyNumber, F_NAMEEQ,
				CStringGetDatum("quota_manager"));
	scan = systable_beginscan(catalog, ExtensionNameIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		bool  isnull;
		Datum version =
			heap_getattr(tuple, Anum_pg_extension_extversion, RelationGetDescr(catalog), &isnull);

		result.oid = ((Form_pg_extension) GETSTRUCT(tuple))->oid;
		result.version = isnull ? pstrdup("") : TextDatumGetCString(version);
	}
	systable_endscan(scan);
	table_close(catalog, AccessShareLock);
	return result;
}

/* True if its version is one that the library serves. */
bool
extension_fits(const InstalledExtension *extension)
{
	if (extension->version == NULL)
		return false;
	for (int i = 0; i < lengthof(served_versions); i++)
	{
		if (strcmp(extension->version, served_versions[i]) == 0)
			return true;
	}
	return false;
}

/* True if its version is the library's own: no update is waiting. */
bool
extension_is_current(const InstalledExtension *extension)
{
	return extension->version != NULL && strcmp(extension->version, QUOTA_MANAGER_VERSION) == 0;
}

/*
 * True if this database has the SQL of the library's own version, so that a
 * statement may use what came with it.  Reads the catalogue.
 */
bool
sql_is_current(void)
{
	InstalledExtension extension = installed_extension();

	return extension_is_current(&extension);
}

/*
 * Raises an error if the extension is in this database at a version that the
 * library does not serve.
 */
void
require_fitting_extension(void)
{
	InstalledExtension extension = installed_extension();

	if (extension.version != NULL && !extension_fits(&extension))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("extension quota_manager in database \"%s\" is at version %s, the library "
						"is %s",
						get_database_name(MyDatabaseId), extension.version, QUOTA_MANAGER_VERSION),
				 errhint("%s", VERSION_HINT)));
}

/* library_version(): the version of the library that this session runs. */
Datum
qm_library_version(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(cstring_to_text(QUOTA_MANAGER_VERSION));
}
