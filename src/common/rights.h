/*
 * rights.h
 *		Whose rights the code of the extension acts with.
 *
 * Three roles meet in one session.  The owner of the extension alone may write
 * the record of grants.  The caller is the role that the session acts as:
 * that of SET ROLE, else the session user; a SECURITY DEFINER function does not
 * change it.  The current user is the role whose rights PostgreSQL checks now.
 *
 * A change of rights lasts until rights_restore(), within one transaction.  The
 * abort of the transaction or subtransaction that it was made in undoes it, so
 * no error has to be caught.  Changes nest, and are undone in reverse order, before
 * the transaction is committed.
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

extern void rights_become_owner(RightsBefore *before);
extern void rights_become_caller(RightsBefore *before);
extern void rights_become_reader(Oid role, RightsBefore *before);
extern void rights_become_restricted(Oid role, RightsBefore *before);
extern void rights_restore(const RightsBefore *before);
extern Oid  rights_caller(void);
extern void rights_require_caller(void);

#endif /* QM_RIGHTS_H */
