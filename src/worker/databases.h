/*
 * databases.h
 *		The databases of the cluster, as the launcher sees them.
 */
#ifndef QM_DATABASES_H
#define QM_DATABASES_H

#include "postgres.h"

#include "nodes/pg_list.h"

typedef struct DatabaseEntry
{
	Oid  oid;
	char name[NAMEDATALEN];
	bool can_connect; /* the role may connect to it */
} DatabaseEntry;

extern List *list_databases(Oid role, MemoryContext context);

#endif /* QM_DATABASES_H */
