/*
 * progress.c
 *		Progress of the scans and deliveries of this server, for other sessions.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/procarray.h"
#include "storage/shmem.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "common/progress.h"

PG_FUNCTION_INFO_V1(qm_read_progress);
PG_FUNCTION_INFO_V1(qm_note_scan_progress);

/* Commands that can be reported at the same time. */
#define ENTRIES 256

ProgressEntry *progress_entries[PROGRESS_COMMANDS] = {NULL};

static ProgressEntry *entries = NULL;

/* In which subtransaction the scan began. */
static SubTransactionId scan_subtransaction = InvalidSubTransactionId;

static shmem_request_hook_type prev_shmem_request_hook = NULL;
static shmem_startup_hook_type prev_shmem_startup_hook = NULL;

/* Hook: asks for the memory. */
static void
request_memory(void)
{
	if (prev_shmem_request_hook)
		prev_shmem_request_hook();
	RequestAddinShmemSpace(MAXALIGN(sizeof(ProgressEntry) * ENTRIES));
}

/* Hook: finds it, or makes it at the start and after a crash. */
static void
find_memory(void)
{
	bool found;

	if (prev_shmem_startup_hook)
		prev_shmem_startup_hook();
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	entries = ShmemInitStruct("quota_manager progress", sizeof(ProgressEntry) * ENTRIES, &found);
	for (int i = 0; !found && i < ENTRIES; i++)
	{
		pg_atomic_init_u32(&entries[i].pid, 0);
		pg_atomic_init_u32(&entries[i].published, 0);
		for (int figure = 0; figure < PROGRESS_FIGURES; figure++)
			pg_atomic_init_u64(&entries[i].figures[figure], 0);
	}
	LWLockRelease(AddinShmemInitLock);
}

/* Reserves the shared memory; called while the library is preloaded. */
void
progress_reserve(void)
{
	prev_shmem_request_hook = shmem_request_hook;
	shmem_request_hook = request_memory;
	prev_shmem_startup_hook = shmem_startup_hook;
	shmem_startup_hook = find_memory;
}

/* Ends the report of a command; does nothing if there is none. */
void
progress_end(ProgressCommand command)
{
	ProgressEntry *entry = progress_entries[command];

	if (entry == NULL)
		return;
	progress_entries[command] = NULL;
	pg_atomic_write_u32(&entry->published, 0);
	pg_write_barrier();
	pg_atomic_write_u32(&entry->pid, 0);
}

/* The process ends. */
static void
end_all(int code, Datum argument)
{
	for (int command = 0; command < PROGRESS_COMMANDS; command++)
		progress_end(command);
}

/* A scan ends with its transaction, committed or not. */
static void
at_transaction(XactEvent event, void *argument)
{
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT || event == XACT_EVENT_PREPARE)
		progress_end(PROGRESS_SCAN);
}

/* A scan also ends with the subtransaction that it began in, if that is aborted. */
static void
at_subtransaction(SubXactEvent event, SubTransactionId mine, SubTransactionId parent,
				  void *argument)
{
	if (event == SUBXACT_EVENT_ABORT_SUB && mine == scan_subtransaction)
		progress_end(PROGRESS_SCAN);
	else if (event == SUBXACT_EVENT_COMMIT_SUB && mine == scan_subtransaction)
		scan_subtransaction = parent;
}

/* Registers the callbacks that end a command, once in a process. */
static void
watch_ends(void)
{
	static bool is_watching = false;

	if (is_watching)
		return;
	is_watching = true;
	on_shmem_exit(end_all, (Datum) 0);
	RegisterXactCallback(at_transaction, NULL);
	RegisterSubXactCallback(at_subtransaction, NULL);
}

/* Takes an entry that is free, or left by a process that is gone; NULL: none. */
static ProgressEntry *
take_entry(void)
{
	for (int i = 0; i < ENTRIES; i++)
	{
		ProgressEntry *entry = &entries[(MyProcPid + i) % ENTRIES];
		uint32         pid = pg_atomic_read_u32(&entry->pid);

		if (pid != 0 && BackendPidGetProc((int) pid) != NULL)
			continue;
		if (pg_atomic_compare_exchange_u32(&entry->pid, &pid, (uint32) MyProcPid))
			return entry;
	}
	return NULL;
}

/*
 * Begins a command; one that the process was reporting before has ended.  A
 * scan ends with its transaction or subtransaction at the latest.
 */
void
progress_begin(ProgressCommand command)
{
	ProgressEntry *entry;

	progress_end(command);
	if (entries == NULL)
		return;
	watch_ends();
	entry = take_entry();
	if (entry == NULL)
		return;
	pg_atomic_write_u32(&entry->published, 0);
	pg_write_barrier();
	entry->command = command;
	entry->database = MyDatabaseId;
	entry->role = GetSessionUserId();
	entry->started = GetCurrentTimestamp();
	for (int i = 0; i < PROGRESS_FIGURES; i++)
		pg_atomic_write_u64(&entry->figures[i], 0);
	pg_write_barrier();
	pg_atomic_write_u32(&entry->published, 1);
	progress_entries[command] = entry;
	if (command == PROGRESS_SCAN)
		scan_subtransaction = GetCurrentSubTransactionId();
}

/*
 * True if the current user may see what sessions of the role do, as
 * pg_stat_activity has it.
 */
static bool
may_see(Oid role)
{
	return has_privs_of_role(GetUserId(), ROLE_PG_READ_ALL_STATS) ||
		   has_privs_of_role(GetUserId(), role);
}

/* Copies an entry; false: it has no such command, or changed meanwhile. */
static bool
copy_entry(ProgressEntry *entry, ProgressCommand command, ProgressEntry *copy, int64 *figures)
{
	uint32 pid = pg_atomic_read_u32(&entry->pid);

	if (pid == 0 || pg_atomic_read_u32(&entry->published) == 0)
		return false;
	pg_read_barrier();
	copy->command = entry->command;
	copy->database = entry->database;
	copy->role = entry->role;
	copy->started = entry->started;
	for (int i = 0; i < PROGRESS_FIGURES; i++)
		figures[i] = (int64) pg_atomic_read_u64(&entry->figures[i]);
	pg_read_barrier();
	return copy->command == command && pg_atomic_read_u32(&entry->published) != 0 &&
		   pg_atomic_read_u32(&entry->pid) == pid && entry->started == copy->started &&
		   BackendPidGetProc((int) pid) != NULL;
}

/*
 * read_progress(command): pid, database, start and figures of each that runs
 * on the server; the last two are null if the caller may not see
 * them.
 */
Datum
qm_read_progress(PG_FUNCTION_ARGS)
{
	ReturnSetInfo  *result = (ReturnSetInfo *) fcinfo->resultinfo;
	char           *name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	ProgressCommand command = strcmp(name, "scan") == 0 ? PROGRESS_SCAN : PROGRESS_DELIVERY;

	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; entries != NULL && i < ENTRIES; i++)
	{
		int           pid = (int) pg_atomic_read_u32(&entries[i].pid);
		int64         figures[PROGRESS_FIGURES];
		Datum         elements[PROGRESS_FIGURES];
		Datum         values[4];
		bool          nulls[4] = {false, false, false, false};
		ProgressEntry entry;

		if (!copy_entry(&entries[i], command, &entry, figures))
			continue;
		for (int figure = 0; figure < PROGRESS_FIGURES; figure++)
			elements[figure] = Int64GetDatum(figures[figure]);
		values[0] = Int32GetDatum(pid);
		values[1] = ObjectIdGetDatum(entry.database);
		values[2] = TimestampTzGetDatum(entry.started);
		values[3] = PointerGetDatum(construct_array(
			elements, PROGRESS_FIGURES, INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
		nulls[2] = nulls[3] = !may_see(entry.role);
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/*
 * note_scan_progress(total, done): how many runs the scan has, and how many
 * more are done.
 */
Datum
qm_note_scan_progress(PG_FUNCTION_ARGS)
{
	if (!PG_ARGISNULL(0))
		progress_set(PROGRESS_SCAN, SCAN_RUNS_TOTAL, PG_GETARG_INT64(0));
	if (!PG_ARGISNULL(1))
		progress_add(PROGRESS_SCAN, SCAN_RUNS_DONE, PG_GETARG_INT64(1));
	progress_set(PROGRESS_SCAN, SCAN_PHASE, SCAN_INITIALIZING);
	PG_RETURN_VOID();
}
