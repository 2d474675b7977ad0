/*
 * version.h
 *		Whether the library can serve the extension that is in this database.
 *
 * After a new library was installed, each database has the old SQL until ALTER
 * EXTENSION UPDATE.  The library serves both: its statements use nothing that only
 * the newest SQL has, unless they check before.
 *
 * QUOTA_MANAGER_VERSION comes from quota_manager.control by way of the
 * Makefile.  Everything here must be called in a transaction.
 */
#ifndef QM_VERSION_H
#define QM_VERSION_H

#include "postgres.h"

/*
 * What is known of the extension.  The version is palloc'd; NULL: the
 * extension is not in this database, and oid is InvalidOid.
 */
typedef struct InstalledExtension
{
	Oid   oid;
	char *version;
} InstalledExtension;

extern InstalledExtension installed_extension(void);
extern bool               extension_fits(const InstalledExtension *extension);
extern bool               extension_is_current(const InstalledExtension *extension);
extern bool               sql_is_current(void);

/* What to do where a version is not served, and where an update is waiting. */
#define VERSION_HINT                                                                               \
	"Call ALTER EXTENSION quota_manager UPDATE in that database. Where it is newer than the "      \
	"library, let the server load the new library: restart it."
#define UPDATE_HINT "Call ALTER EXTENSION quota_manager UPDATE in that database."

extern void require_fitting_extension(void);

#endif /* QM_VERSION_H */
