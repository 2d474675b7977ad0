/*
 * rights.h
 *		Whose rights the code of the extension acts with.
 *
 * Three roles meet in one session.  The owner of the extension alone may write
 * what proves who got what.  The caller is the role that the session acts as:
 * that of SET ROLE, else the session user; a SECURITY DEFINER function does not
 * change it.  The current user is whoever PostgreSQL checks rights of now.
 *
 * A change of rights lasts until rights_restore(), within one transaction.  The
 * abort of the transaction or subtransaction that it was made in takes it back
 * by itself, so nothing has to be caught.  Changes nest, and are taken back in
 * reverse order, before the transaction is committed.
 */
#ifndef QM_RIGHTS_H
#define QM_RIGHTS_H

#include "postgres.h"

typedef struct RightsBefore
{
	Oid user;
	int context;
	int settings_level; /* 0: settings go on as they are changed */
} RightsBefore;

/*
 * Becomes the owner of the extension's schema quota_internal.  Only statements
 * whose text is ours, and that call no code of others, may be run meanwhile.
 */
extern void rights_become_owner(RightsBefore *before);

/*
 * Becomes the caller under SECURITY_RESTRICTED_OPERATION: for what others have
 * written, and for reading what the caller may see.  What it sets, search_path
 * say, is undone when the rights are taken back: what comes then may run as the
 * owner.  Such code cannot come back here: an error within a security-restricted
 * operation, whoever began it.
 */
extern void rights_become_caller(RightsBefore *before);

/* The same as a role that reads in place of the caller. */
extern void rights_become_reader(Oid role, RightsBefore *before);

extern void rights_restore(const RightsBefore *before);

/* The caller, whoever is the current user. */
extern Oid rights_caller(void);

/*
 * An error within a security-restricted operation, for what only the caller
 * himself may ask for: a condition, a view or an index that others have written
 * does not decide, and calls no gateway.
 */
extern void rights_require_caller(void);

#endif /* QM_RIGHTS_H */
