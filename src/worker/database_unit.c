/*
 * database_unit.c
 *		Transactions of a worker that serves a database, guarded against the
 *		extension being dropped.
 */
#include "postgres.h"

#include "catalog/pg_extension.h"
#include "storage/lmgr.h"

#include "common/version.h"
#include "worker/process.h"

static Oid  extension = InvalidOid;
static bool gone = false;

/* The notice says that ALTER EXTENSION UPDATE is waited for. */
static bool update_waits = false;

/*
 * Lets worker_status tell whether an update of the extension is waiting.
 */
static void
note_version(const InstalledExtension *found)
{
	bool waits = !extension_is_current(found);

	if (waits == update_waits)
		return;
	update_waits = waits;
	report_notice(waits
					  ? psprintf("version %s waits for ALTER EXTENSION quota_manager UPDATE to %s",
								 found->version, QUOTA_MANAGER_VERSION)
					  : NULL);
}

/*
 * Begins a transaction, and keeps the extension from being dropped until its
 * end.  DROP EXTENSION locks the extension before any table of it: so either
 * it waits here for us, while we can get every lock that we want, or we wait
 * for it and hold nothing.
 */
static void
begin_guarded(void)
{
	InstalledExtension found;

	worker_work_unit.begin();
	if (!OidIsValid(extension))
		extension = installed_extension().oid;
	if (OidIsValid(extension))
		LockDatabaseObject(ExtensionRelationId, extension, 0, AccessShareLock);
	found = installed_extension();
	if (OidIsValid(found.oid) && found.oid == extension && extension_fits(&found))
	{
		note_version(&found);
		return;
	}
	gone = true;
	ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
					errmsg("extension \"quota_manager\" was dropped from this database, or updated "
						   "to a version that the library does not serve")));
}

/*
 * Ends a transaction that begin_guarded began.
 */
static void
commit_guarded(void)
{
	worker_work_unit.commit();
}

/*
 * True if the error that is being handled came from database_work_unit: the
 * extension is gone, or is another one.
 */
bool
extension_is_gone(void)
{
	return gone;
}

const WorkUnit database_work_unit = {begin_guarded, commit_guarded};
