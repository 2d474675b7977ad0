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

#include "delivery/delivery.h"

typedef enum InstallationState
{
	INSTALLATION_OURS,
	INSTALLATION_FENCED, /* a copy: nothing is done until resume() */
} InstallationState;

/*
 * Asks in a transaction of its own.  If the server was promoted since, what
 * quota_manager.after_promotion says has been done, once for all processes,
 * when it returns.  runs: strategies are about to be run, so this database is
 * from now on the one that does.
 */
extern InstallationState installation_check(const WorkUnit *unit, bool runs);

/* The same for a procedure, which raises an error if this database is a copy. */
extern void installation_require(const WorkUnit *unit);

/* The ids that an installation has had. */
typedef struct Installation Installation;

/*
 * Reads them, in memory.  The current transaction, which must be on disk
 * before anything is sent, notes that this database is the one that sends.
 */
extern Installation *installation_read(MemoryContext memory);

/*
 * The key of a grant, the same for every attempt.  Grants of an earlier life of
 * the database keep the id that it had then.
 */
extern void installation_key(const Installation *installation, int64 grant_id, char *key,
							 size_t size);

#endif /* QM_INSTALLATION_H */
