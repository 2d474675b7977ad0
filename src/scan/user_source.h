/*
 * user_source.h
 *		The relation that scans read users from, and whose rights they read with.
 *
 * Texts live in the memory context given.
 */
#ifndef QM_USER_SOURCE_H
#define QM_USER_SOURCE_H

#include "postgres.h"

/* Where users are read, and by whom. */
typedef struct UserSource
{
	Oid   reader;        /* role whose rights the queries have */
	char *users;         /* subquery with the columns id, subject and, if is_plain, position */
	char *with_balances; /* the same where the subject has its balances */
	Oid   relation;
	int64 fingerprint; /* of the relation's columns and file */
	bool  is_own;      /* user_info */
	bool  is_plain;    /* an ordinary table, which runs no code of others */
} UserSource;

extern Oid  user_source_reader(Oid caller, const char *called);
extern void user_source_find(UserSource *source, Oid caller, const char *called,
							 MemoryContext memory);

#endif /* QM_USER_SOURCE_H */
