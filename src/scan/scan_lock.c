/*
 * scan_lock.c
 *		Locks of strategies, of the balances of a gateway, and of ceilings.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "storage/sinvaladt.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "common/compat.h"
#include "scan/scan_lock.h"

PG_FUNCTION_INFO_V1(qm_lock_strategies);
PG_FUNCTION_INFO_V1(qm_try_lock_strategy);
PG_FUNCTION_INFO_V1(qm_strategy_is_locked);
PG_FUNCTION_INFO_V1(qm_lock_balances);
PG_FUNCTION_INFO_V1(qm_lock_scan);
PG_FUNCTION_INFO_V1(qm_lock_ceiling);

/* First keys of the locks, "qmst", "qmsc", "qmbl" and "qmcl"; 3 at the end: SQL has 1 or 2. */
#define STRATEGY_LOCK_CLASS 0x716d7374
#define ALL_STRATEGIES_LOCK_CLASS 0x716d7363
#define BALANCE_LOCK_CLASS 0x716d626c
#define CEILING_LOCK_CLASS 0x716d636c
#define LOCK_METHOD 3

/*
 * A transaction that has locked so many strategies locks all of them instead of
 * the next: the server's table of locks has room for some thousands, where it has
 * the default size.
 */
#define STRATEGY_LOCKS_MAX 250

/* How long a transaction that has ended may take to give back a lock, in milliseconds. */
#define RELEASE_MS 100

/*
 * Modes of the lock of all strategies.  Locking single strategies, to run or to
 * edit them, takes it in a mode that lets others do the same.  Editing many
 * conflicts with runs, but not with other edits, which row locks serialize;
 * running many conflicts with all.
 */
#define EDITS_SOME RowShareLock
#define RUNS_SOME RowExclusiveLock
#define EDITS_MANY ShareLock
#define RUNS_MANY ExclusiveLock

typedef struct ScanLock
{
	LOCKTAG  tag;
	LOCKMODE mode;
} ScanLock;

/*
 * The transaction that last took one of these locks.  It may have lost it to
 * the rollback of a savepoint since: then it only tries where it could wait.
 */
static LocalTransactionId holder = InvalidLocalTransactionId;

/* The transaction that last locked a strategy, and how many at most. */
static LocalTransactionId counted = InvalidLocalTransactionId;
static int                strategies_counted;

static void
name_strategy(ScanLock *lock, int32 id)
{
	SET_LOCKTAG_ADVISORY(lock->tag, MyDatabaseId, STRATEGY_LOCK_CLASS, (uint32) id, LOCK_METHOD);
	lock->mode = ExclusiveLock;
}

static void
name_all_strategies(ScanLock *lock, LOCKMODE mode)
{
	SET_LOCKTAG_ADVISORY(lock->tag, MyDatabaseId, ALL_STRATEGIES_LOCK_CLASS, 0, LOCK_METHOD);
	lock->mode = mode;
}

/* By a hash of the name: two gateways that share it only wait for each other. */
static void
name_balances(ScanLock *lock, const char *gateway, LOCKMODE mode)
{
	uint32 key = hash_bytes((const unsigned char *) gateway, (int) strlen(gateway));

	SET_LOCKTAG_ADVISORY(lock->tag, MyDatabaseId, BALANCE_LOCK_CLASS, key, LOCK_METHOD);
	lock->mode = mode;
}

/*
 * True if a running transaction holds a conflicting lock.  One that has just ended
 * releases its locks one by one, and has no number any more.
 */
static bool
is_kept(const ScanLock *lock)
{
	VirtualTransactionId *holders = GetLockConflicts(&lock->tag, lock->mode, NULL);
	bool                  kept = VirtualTransactionIdIsValid(*holders);

	pfree(holders);
	return kept;
}

/*
 * Takes a lock if it is free.  Waits while a transaction that has ended still
 * holds it: that one waits for nothing, and a process that it has woken must find
 * all of its locks free.
 */
static bool
try_lock(const ScanLock *lock)
{
	int patience = RELEASE_MS;

	while (LockAcquire(&lock->tag, lock->mode, false, true) == LOCKACQUIRE_NOT_AVAIL)
	{
		if (patience-- == 0 || is_kept(lock))
			return false;
		CHECK_FOR_INTERRUPTS();
		pg_usleep(1000);
	}
	return true;
}

static bool
holds_locks(void)
{
	return holder != InvalidLocalTransactionId && holder == my_local_transaction();
}

/*
 * Takes the lock of a gateway's balances exclusively if it is free, or held by
 * this transaction.
 */
bool
balance_lock_try(const char *gateway)
{
	ScanLock lock;

	name_balances(&lock, gateway, ExclusiveLock);
	if (!try_lock(&lock))
		return false;
	holder = my_local_transaction();
	return true;
}

/*
 * Takes the lock of a gateway's balances exclusively and waits for it: for
 * changes of quotas by hand.
 */
void
balance_lock_wait(const char *gateway)
{
	ScanLock lock;

	name_balances(&lock, gateway, ExclusiveLock);
	(void) LockAcquire(&lock.tag, lock.mode, false, false);
	holder = my_local_transaction();
}

/*
 * Takes the locks from the one at `held` on, whose predecessors are held.
 * Returns how many are held then; the next one is not free.
 */
static int
try_locks(const ScanLock *locks, int held, int count)
{
	while (held < count && try_lock(&locks[held]))
		held++;
	return held;
}

/*
 * Takes all of the locks.  If one is not free, those taken are released
 * before it is waited for.  False: the transaction holds others, so that
 * it must not wait.
 */
static bool
take_locks(ScanLock *locks, int count)
{
	bool may_wait = !holds_locks();
	int  held = try_locks(locks, 0, count);

	while (held < count)
	{
		ScanLock missing = locks[held];
		int      i;

		for (i = 0; i < held; i++)
			LockRelease(&locks[i].tag, locks[i].mode, false);
		if (!may_wait)
			return false;
		locks[held] = locks[0];
		locks[0] = missing;
		(void) LockAcquire(&missing.tag, missing.mode, false, false);
		held = try_locks(locks, 1, count);
	}
	holder = my_local_transaction();
	return true;
}

/* How many strategies this transaction has locked, at most. */
static int
strategies_locked(void)
{
	if (counted != my_local_transaction())
	{
		counted = my_local_transaction();
		strategies_counted = 0;
	}
	return strategies_counted;
}

/*
 * Names what is locked to run or edit strategies, into an array with room for
 * one lock more than strategies.  Returns how many locks that is.
 */
static int
name_strategies(ScanLock *locks, const int32 *ids, int count, LOCKMODE some, LOCKMODE many)
{
	if (strategies_locked() + count > STRATEGY_LOCKS_MAX)
	{
		name_all_strategies(&locks[0], many);
		return 1;
	}
	name_all_strategies(&locks[0], some);
	for (int i = 0; i < count; i++)
		name_strategy(&locks[i + 1], ids[i]);
	return count + 1;
}

static bool
is_held(const ScanLock *lock)
{
	return lock_held_by_me(&lock->tag, lock->mode);
}

/* Waits for each of the locks. */
static void
await_locks(const ScanLock *locks, int count)
{
	for (int i = 0; i < count; i++)
		(void) LockAcquire(&locks[i].tag, locks[i].mode, false, false);
	holder = my_local_transaction();
}

/*
 * Keeps scans out while a strategy is edited, unless one is running: then
 * false.
 */
bool
strategy_lock_edit_try(int32 id)
{
	ScanLock locks[2];
	int      count = name_strategies(locks, &id, 1, EDITS_SOME, EDITS_MANY);
	bool     held = is_held(&locks[count - 1]);

	if (try_locks(locks, 0, count) < count)
		return false;
	strategies_counted += held ? 0 : 1;
	holder = my_local_transaction();
	return true;
}

/* Adds the processes that hold a conflicting lock to those found. */
static int
find_holders(const ScanLock *lock, int *pids, int found, int max)
{
	VirtualTransactionId *other = GetLockConflicts(&lock->tag, lock->mode, NULL);

	for (; VirtualTransactionIdIsValid(*other) && found < max; other++)
	{
		const PGPROC *process = process_of_virtual_transaction(*other);
		int           pid = process ? process->pid : 0;

		if (pid != 0)
			pids[found++] = pid;
	}
	return found;
}

/*
 * Processes that strategy_lock_edit would wait for; returns how many were
 * found, at most max.
 */
int
strategy_lock_holders(int32 id, int *pids, int max)
{
	ScanLock locks[2];
	int      count = name_strategies(locks, &id, 1, EDITS_SOME, EDITS_MANY);
	int      found = 0;

	for (int i = 0; i < count && found == 0; i++)
		found = find_holders(&locks[i], pids, found, max);
	return found;
}

/* The same as strategy_lock_edit_try, but waits for a running scan to end. */
void
strategy_lock_edit(int32 id)
{
	ScanLock locks[2];

	await_locks(locks, name_strategies(locks, &id, 1, EDITS_SOME, EDITS_MANY));
	strategies_counted++;
}

/*
 * lock_strategies(strategy_ids): waits for the locks.  While it waits it holds
 * none of them, unless the transaction had others before.
 */
Datum
qm_lock_strategies(PG_FUNCTION_ARGS)
{
	ArrayType *array = PG_GETARG_ARRAYTYPE_P(0);
	Datum     *elements;
	int        count;
	int32     *ids;
	ScanLock  *locks;
	int        lock_count;

	deconstruct_array(array, INT4OID, sizeof(int32), true, TYPALIGN_INT, &elements, NULL, &count);
	ids = palloc(sizeof(int32) * (count + 1));
	for (int i = 0; i < count; i++)
		ids[i] = DatumGetInt32(elements[i]);
	locks = palloc(sizeof(ScanLock) * (count + 1));
	lock_count = name_strategies(locks, ids, count, RUNS_SOME, RUNS_MANY);
	if (!take_locks(locks, lock_count))
		await_locks(locks, lock_count);
	strategies_counted += lock_count - 1;
	PG_RETURN_VOID();
}

/* try_lock_strategy(strategy_id) */
Datum
qm_try_lock_strategy(PG_FUNCTION_ARGS)
{
	int32    id = PG_GETARG_INT32(0);
	ScanLock locks[2] = {{{0}}};
	int      count = name_strategies(locks, &id, 1, RUNS_SOME, RUNS_MANY);

	if (try_locks(locks, 0, count) < count)
		PG_RETURN_BOOL(false);
	strategies_counted++;
	holder = my_local_transaction();
	PG_RETURN_BOOL(true);
}

/* strategy_is_locked(strategy_id) */
Datum
qm_strategy_is_locked(PG_FUNCTION_ARGS)
{
	int32    id = PG_GETARG_INT32(0);
	ScanLock locks[2] = {{{0}}};
	int      count = name_strategies(locks, &id, 1, RUNS_SOME, RUNS_MANY);
	int      taken = try_locks(locks, 0, count);

	for (int i = 0; i < taken; i++)
		LockRelease(&locks[i].tag, locks[i].mode, false);
	PG_RETURN_BOOL(taken < count);
}

/* lock_balances(gateway): waits for the lock of the gateway's balances. */
Datum
qm_lock_balances(PG_FUNCTION_ARGS)
{
	balance_lock_wait(text_to_cstring(PG_GETARG_TEXT_PP(0)));
	PG_RETURN_VOID();
}

/* lock_scan(strategy_id, exclusive_gateways, shared_gateway) */
Datum
qm_lock_scan(PG_FUNCTION_ARGS)
{
	int32     id = PG_GETARG_INT32(0);
	Datum    *gateways;
	int       gateway_count;
	ScanLock *locks;
	int       count;
	bool      held;

	deconstruct_array(PG_GETARG_ARRAYTYPE_P(1), TEXTOID, -1, false, TYPALIGN_INT, &gateways, NULL,
					  &gateway_count);
	locks = palloc(sizeof(ScanLock) * (gateway_count + 3));
	count = name_strategies(locks, &id, 1, RUNS_SOME, RUNS_MANY);
	held = is_held(&locks[count - 1]);
	for (int i = 0; i < gateway_count; i++)
		name_balances(&locks[count++], TextDatumGetCString(gateways[i]), ExclusiveLock);
	name_balances(&locks[count++], text_to_cstring(PG_GETARG_TEXT_PP(2)), ShareLock);
	if (!take_locks(locks, count))
		PG_RETURN_BOOL(false);
	strategies_counted += held ? 0 : 1;
	PG_RETURN_BOOL(true);
}

/*
 * lock_ceiling(ceiling_id): waits for the lock of a ceiling, whatever period is
 * counted under it.
 */
Datum
qm_lock_ceiling(PG_FUNCTION_ARGS)
{
	LOCKTAG tag;

	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, CEILING_LOCK_CLASS, (uint32) PG_GETARG_INT32(0),
						 LOCK_METHOD);
	(void) LockAcquire(&tag, ExclusiveLock, false, false);
	holder = my_local_transaction();
	PG_RETURN_VOID();
}
