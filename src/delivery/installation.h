/*
 * installation.h
 *		Whether this database is the one that granted and delivered before, and
 *		under which ids it does.
 *
 * Nothing may be scanned or sent before that was asked.  A process need not
 * ask again once it was told that it may go on: which database of which server
 * it works in, and on which timeline, cannot change while it lives.
 */
#ifndef QM_INSTALLATION_H
#define QM_INSTALLATION_H

#include "postgres.h"

#include "common/work_unit.h"

typedef enum InstallationState
{
	INSTALLATION_OURS,
	INSTALLATION_SUSPENDED, /* a copy: nothing is done until resume() */
} InstallationState;

/* The ids that an installation has had. */
typedef struct Installation Installation;

extern InstallationState installation_verify(const WorkUnit *unit);
extern InstallationState installation_record(const WorkUnit *unit);
extern void              installation_require(const WorkUnit *unit);
extern Installation     *installation_read(MemoryContext memory);
extern void installation_key(const Installation *installation, int64 grant_id, char *key,
							 size_t size);

#endif /* QM_INSTALLATION_H */
