/*
 * scan_lock.c
 *		Locks of strategies and of what is known of balances at a gateway.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "scan/scan_lock.h"

PG_FUNCTION_INFO_V1(qm_lock_strategy);
PG_FUNCTION_INFO_V1(qm_lock_balances);
PG_FUNCTION_INFO_V1(qm_lock_scan);

/* First keys of the locks, "qmst" and "qmbl"; 3 at the end: SQL has 1 or 2. */
#define STRATEGY_LOCK_CLASS 0x716d7374
#define BALANCE_LOCK_CLASS 0x716d626c
#define LOCK_METHOD 3

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

static void
name_strategy(ScanLock *lock, int32 id)
{
	SET_LOCKTAG_ADVISORY(lock->tag, MyDatabaseId, STRATEGY_LOCK_CLASS, (uint32) id, LOCK_METHOD);
	lock->mode = ExclusiveLock;
}

/*
 * By a hash of the name: two gateways that share it only wait for each other.
 */
static void
name_balances(ScanLock *lock, const char *gateway, LOCKMODE mode)
{
	uint32 key = hash_bytes((const unsigned char *) gateway, (int) strlen(gateway));

	SET_LOCKTAG_ADVISORY(lock->tag, MyDatabaseId, BALANCE_LOCK_CLASS, key, LOCK_METHOD);
	lock->mode = mode;
}

static bool
try_lock(const ScanLock *lock)
{
	return LockAcquire(&lock->tag, lock->mode, false, true) != LOCKACQUIRE_NOT_AVAIL;
}

static bool
holds_locks(void)
{
	return holder != InvalidLocalTransactionId && holder == MyProc->lxid;
}

bool
balance_lock_try(const char *gateway)
{
	ScanLock lock;

	name_balances(&lock, gateway, ExclusiveLock);
	if (!try_lock(&lock))
		return false;
	holder = MyProc->lxid;
	return true;
}

void
balance_lock_wait(const char *gateway)
{
	ScanLock lock;

	name_balances(&lock, gateway, ExclusiveLock);
	(void) LockAcquire(&lock.tag, lock.mode, false, false);
	holder = MyProc->lxid;
}

/*
 * Takes the locks from the one at `held` on, whose predecessors are held.
 * Returns how many are held then; what follows could not be had.
 */
static int
try_locks(const ScanLock *locks, int held, int count)
{
	while (held < count && try_lock(&locks[held]))
		held++;
	return held;
}

/*
 * Takes all of the locks.  Where one cannot be had, those taken are given
 * back before it is waited for.  False: the transaction holds others, so that
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
	holder = MyProc->lxid;
	return true;
}

/*
 * lock_strategy(strategy_id): waits for the lock.
 */
Datum
qm_lock_strategy(PG_FUNCTION_ARGS)
{
	ScanLock lock;

	name_strategy(&lock, PG_GETARG_INT32(0));
	(void) LockAcquire(&lock.tag, lock.mode, false, false);
	holder = MyProc->lxid;
	PG_RETURN_VOID();
}

/*
 * lock_balances(gateway): waits for the lock of the gateway's balances.
 */
Datum
qm_lock_balances(PG_FUNCTION_ARGS)
{
	balance_lock_wait(text_to_cstring(PG_GETARG_TEXT_PP(0)));
	PG_RETURN_VOID();
}

/*
 * lock_scan(strategy_id, exclusive_gateways, shared_gateway)
 */
Datum
qm_lock_scan(PG_FUNCTION_ARGS)
{
	Datum    *gateways;
	int       count;
	ScanLock *locks;
	int       i;

	deconstruct_array(PG_GETARG_ARRAYTYPE_P(1), TEXTOID, -1, false, TYPALIGN_INT, &gateways, NULL,
					  &count);
	locks = palloc(sizeof(ScanLock) * (count + 2));
	name_strategy(&locks[0], PG_GETARG_INT32(0));
	for (i = 0; i < count; i++)
		name_balances(&locks[i + 1], TextDatumGetCString(gateways[i]), ExclusiveLock);
	name_balances(&locks[count + 1], text_to_cstring(PG_GETARG_TEXT_PP(2)), ShareLock);
	PG_RETURN_BOOL(take_locks(locks, count + 2));
}
