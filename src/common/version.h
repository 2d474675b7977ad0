/*
 * version.h
 *		Whether the extension in this database is the one that the library was
 *		built for.
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

/* Looks it up by name. */
extern InstalledExtension installed_extension(void);

/* True if its version is the library's. */
extern bool extension_fits(const InstalledExtension *extension);

/* What to do where it is not. */
#define VERSION_HINT                                                                               \
	"Call ALTER EXTENSION quota_manager UPDATE in that database. Where it is newer than the "      \
	"library, let the server load the new library: restart it."

/* Raises an error where it is not. */
extern void require_fitting_extension(void);

#endif /* QM_VERSION_H */
