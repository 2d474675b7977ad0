/*
 * version.c
 *		Whether the extension in this database is the one that the library was
 *		built for.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/indexing.h"
#include "catalog/pg_extension.h"
#include "commands/dbcommands.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"

#include "common/version.h"

/*
 * See version.h.
 */
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

/*
 * See version.h.
 */
bool
extension_fits(const InstalledExtension *extension)
{
	return extension->version != NULL && strcmp(extension->version, QUOTA_MANAGER_VERSION) == 0;
}

/*
 * See version.h.
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
