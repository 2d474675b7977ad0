/*
 * owner.h
 *		Acting as the owner of the extension's tables for a moment.
 *
 * Whoever may call a function that uses a key, or that is logged, need not be
 * allowed to read the key, nor to write into the log.
 */
#ifndef QM_OWNER_H
#define QM_OWNER_H

#include "postgres.h"

typedef struct CallerIdentity
{
	Oid user;
	int context;
} CallerIdentity;

/*
 * Becomes the owner of a table of the schema quota_manager, within the current
 * transaction; an error, too, ends it.  Only statements whose text is ours may
 * be run meanwhile.
 */
extern void become_owner(const char *table, CallerIdentity *caller);
extern void become_caller(const CallerIdentity *caller);

#endif /* QM_OWNER_H */
