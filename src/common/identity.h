/*
 * identity.h
 *		Whether this database is the one that granted and delivered before, and
 *		under which ids it does.
 *
 * Nothing may be scanned or sent before that was asked.  A process need not
 * ask again once it was told that it may go on: which database of which server
 * it works in, and on which timeline, cannot change while it lives.
 */
#ifndef QM_IDENTITY_H
#define QM_IDENTITY_H

#include "postgres.h"

#include "common/work_unit.h"

typedef enum IdentityState
{
	IDENTITY_OURS,
	IDENTITY_SUSPENDED, /* a copy: nothing is done until resume() */
} IdentityState;

/* The ids that an installation has had. */
typedef struct Identity Identity;

extern IdentityState identity_verify(const WorkUnit *unit);
extern IdentityState identity_record(const WorkUnit *unit);
extern void          identity_require(const WorkUnit *unit);
extern Identity     *identity_read(MemoryContext memory);
extern void identity_key(const Identity *installation, int64 grant_id, char *key, size_t size);

#endif /* QM_IDENTITY_H */
