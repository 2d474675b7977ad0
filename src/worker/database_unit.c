/*
 * database_unit.c
 *		Transactions of a worker that serves a database, guarded against the
 *		extension being dropped.
 *
 * They raise an error with ERRCODE_UNDEFINED_OBJECT where it is gone, or was
 * updated to a version that the library does not serve.  A DROP EXTENSION waits
 * for one short transaction at most, and never deadlocks with one.
 */
#include "postgres.h"

#include "catalog/pg_extension.h"
#include "storage/lmgr.h"

#include "common/version.h"
#include "worker/process.h"

static struct
{
	Oid  extension;    /* that this process serves; InvalidOid: not known yet */
	bool gone;         /* it is not in this database any more, or is another one */
	bool update_waits; /* the notice says that ALTER EXTENSION UPDATE is waited for */
} served;

/* Lets worker_status tell whether an update of the extension is waiting. */
static void
note_version(const InstalledExtension *found)
{
	bool waits = !extension_is_current(found);

	if (waits == served.update_waits)
		return;
	served.update_waits = waits;
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
	if (!OidIsValid(served.extension))
		served.extension = installed_extension().oid;
	if (OidIsValid(served.extension))
		LockDatabaseObject(ExtensionRelationId, served.extension, 0, AccessShareLock);
	found = installed_extension();
	if (OidIsValid(found.oid) && found.oid == served.extension && extension_fits(&found))
	{
		note_version(&found);
		return;
	}
	served.gone = true;
	ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
					errmsg("extension \"quota_manager\" was dropped from this database, or updated "
						   "to a version that the library does not serve")));
}

/* Ends a transaction that begin_guarded began. */
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
	return served.gone;
}

const WorkUnit database_work_unit = {begin_guarded, commit_guarded};
