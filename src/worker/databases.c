/*
 * databases.c
 *		The databases of the cluster, as the launcher sees them.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_database.h"
#include "utils/acl.h"
#include "utils/rel.h"

#include "common/compat.h"
#include "worker/databases.h"

/* In datconnlimit: a DROP DATABASE was interrupted. */
#define CONNECTION_LIMIT_INVALID (-2)

/*
 * Whether a role may connect to a database.
 */
static bool
may_connect(Oid database, Oid role)
{
	return object_aclcheck(DatabaseRelationId, database, role, ACL_CONNECT) == ACLCHECK_OK;
}

/*
 * Lists the databases that accept connections and are no templates.  Reads
 * shared catalogues only: the caller is connected to no database, and in a
 * transaction.  List of DatabaseEntry in the memory context given.
 */
List *
list_databases(Oid role, MemoryContext context)
{
	List         *result = NIL;
	Relation      relation = table_open(DatabaseRelationId, AccessShareLock);
	TableScanDesc scan = table_beginscan_catalog(relation, 0, NULL);
	HeapTuple     tuple;

	while (HeapTupleIsValid(tuple = heap_getnext(scan, ForwardScanDirection)))
	{
		Form_pg_database form = (Form_pg_database) GETSTRUCT(tuple);
		DatabaseEntry   *entry;
		MemoryContext    caller_context;

		if (!form->datallowconn || form->datistemplate ||
			form->datconnlimit == CONNECTION_LIMIT_INVALID)
			continue;
		caller_context = MemoryContextSwitchTo(context);
		entry = palloc0(sizeof(DatabaseEntry));
		entry->oid = form->oid;
		strlcpy(entry->name, NameStr(form->datname), sizeof(entry->name));
		result = lappend(result, entry);
		MemoryContextSwitchTo(caller_context);

		entry->can_connect = may_connect(form->oid, role);
	}
	table_endscan(scan);
	table_close(relation, AccessShareLock);
	return result;
}
