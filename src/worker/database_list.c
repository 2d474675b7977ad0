/*
 * database_list.c
 *		Of the launcher: the databases that it knows, and which one is next.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "utils/acl.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "common/compat.h"
#include "worker/launcher_state.h"
#include "worker/timing.h"

/* In datconnlimit: a DROP DATABASE was interrupted. */
#define CONNECTION_LIMIT_INVALID (-2)

/* Makes an empty list, for the life of this process. */
void
database_list_create(void)
{
	HASHCTL control = {0};

	control.keysize = sizeof(Oid);
	control.entrysize = sizeof(Database);
	control.hcxt = TopMemoryContext;
	launcher.databases =
		hash_create("quota_manager databases", 32, &control, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

/* Forgets the databases that are gone and have no slot. */
void
database_list_forget_dropped(void)
{
	Database **link = &launcher.first;

	while (*link != NULL)
	{
		Database *database = *link;

		if (database->slot != NULL || database->listed)
		{
			link = &database->next;
			continue;
		}
		*link = database->next;
		hash_search(launcher.databases, &database->oid, HASH_REMOVE, NULL);
	}
}

/*
 * Takes in what the catalogue has of one database.  That the role may not
 * connect is logged, once until it may.
 */
static void
list_database(Form_pg_database form)
{
	bool      found;
	Database *database = hash_search(launcher.databases, &form->oid, HASH_ENTER, &found);
	bool      could_connect = !found || database->can_connect;

	if (!found)
	{
		memset(database, 0, sizeof(*database));
		database->oid = form->oid;
		database->next = launcher.first;
		launcher.first = database;
		database->wanted = mono_now();
	}
	strlcpy(database->name, NameStr(form->datname), sizeof(database->name));
	database->listed = true;
	database->can_connect =
		object_aclcheck(DatabaseRelationId, form->oid, launcher.role, ACL_CONNECT) == ACLCHECK_OK;
	if (database->can_connect && !could_connect)
	{
		database->logged = false;
		database->wanted = mono_now();
	}
	if (database->can_connect || database->logged)
		return;
	database->logged = true;
	ereport(LOG,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("role \"%s\" may not connect to database \"%s\"", worker_role, database->name),
			 errhint("Grant it the privilege CONNECT on the database.")));
}

/*
 * Reads who the workers are, and which databases accept connections and are no
 * templates.  Those that are gone are not listed any more.
 */
void
database_list_read(void)
{
	Relation      relation;
	TableScanDesc scan;
	HeapTuple     tuple;

	for (Database *database = launcher.first; database != NULL; database = database->next)
		database->listed = false;
	launcher.read_databases = mono_in_ms(DATABASES_READ_MS);

	MemoryContextReset(launcher.cycle_context);
	StartTransactionCommand();
	(void) GetTransactionSnapshot();
	launcher.role = find_worker_role(&launcher.role_problem);
	relation = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(relation, 0, NULL);
	while (OidIsValid(launcher.role) &&
		   HeapTupleIsValid(tuple = heap_getnext(scan, ForwardScanDirection)))
	{
		Form_pg_database form = (Form_pg_database) GETSTRUCT(tuple);

		if (form->datallowconn && !form->datistemplate &&
			form->datconnlimit != CONNECTION_LIMIT_INVALID &&
			(!OidIsValid(launcher.only_database) || form->oid == launcher.only_database))
			list_database(form);
	}
	table_endscan(scan);
	table_close(relation, AccessShareLock);
	CommitTransactionCommand();
}

/* Ends all waiting: whatever kept a database from being served may be mended. */
void
database_list_retry_all(void)
{
	MonoTime now = mono_now();

	for (Database *database = launcher.first; database != NULL; database = database->next)
	{
		for (int kind = 0; kind < WORKER_KINDS; kind++)
			backoff_none(&database->workers[kind].backoff);
		database->wanted = Min(database->wanted, now);
		if (database->slot == NULL)
			memset(&database->memory, 0, sizeof(database->memory));
	}
	backoff_none(&launcher.out_of_slots);
	launcher.read_databases = MONO_PAST;
}

/*
 * A session wants a database to be served soon.  Workers that run were woken by
 * the session itself, but may be about to end without having seen what it did.
 */
void
database_request(Oid oid)
{
	Database *database = hash_search(launcher.databases, &oid, HASH_FIND, NULL);
	Backoff  *backoff;

	if (database == NULL)
		return;
	backoff = &database->workers[WORKER_SCHEDULER].backoff;
	if (database->slot != NULL)
	{
		database->requested = true;
		return;
	}
	/* where workers break, they are not started for every request */
	if (database->end != END_ABNORMAL)
		backoff_none(backoff);
	database->wanted = Min(database->wanted, Max(Max(mono_now(), backoff->not_before),
												 mono_add_ms(database->slice_start, REQUEST_MS)));
}

/* True if it could get a slot. */
bool
database_is_startable(const Database *database)
{
	return database->slot == NULL && database->listed && database->can_connect &&
		   !database->ddl.is_locked;
}

/*
 * How many databases are wanted that have no slot.  *next is the one that has
 * been wanted longest; NULL: none.
 */
int
database_count_overdue(Database **next)
{
	MonoTime now = mono_now();
	int      count = 0;

	*next = NULL;
	for (Database *database = launcher.first; database != NULL; database = database->next)
	{
		if (!database_is_startable(database) || database->wanted > now)
			continue;
		count++;
		if (*next == NULL || database->wanted < (*next)->wanted)
			*next = database;
	}
	return count;
}

/* How many are served, all the time or in time slices. */
int
database_count_served(void)
{
	int count = 0;

	for (Database *database = launcher.first; database != NULL; database = database->next)
		count +=
			(database->slot != NULL ? database->slot->announced : database->announced) &&
			(database->slot != NULL || database->end == END_OF_SLICE || database->ddl.is_locked);
	return count;
}
