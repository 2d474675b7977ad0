/*
 * wake_request.c
 *		How sessions ask the launcher of the cluster to serve their database soon.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "storage/shmem.h"
#include "storage/spin.h"

#include "worker/wake_request.h"

typedef struct WakeRequests
{
	slock_t mutex;
	PGPROC *launcher; /* NULL: none runs */
	bool    expected;
	int     count; /* more than WAKE_REQUESTS: some were not written down */
	Oid     databases[WAKE_REQUESTS];
} WakeRequests;

static struct
{
	WakeRequests           *shared; /* NULL: not preloaded */
	shmem_request_hook_type prev_request_hook;
	shmem_startup_hook_type prev_startup_hook;
} requests;

/* Hook: asks for the memory. */
static void
request_memory(void)
{
	if (requests.prev_request_hook)
		requests.prev_request_hook();
	RequestAddinShmemSpace(MAXALIGN(sizeof(WakeRequests)));
}

/* Hook: finds it, or makes it at the start and after a crash. */
static void
find_memory(void)
{
	bool found;

	if (requests.prev_startup_hook)
		requests.prev_startup_hook();
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	requests.shared =
		ShmemInitStruct("quota_manager wake-up requests", sizeof(WakeRequests), &found);
	if (!found)
	{
		memset(requests.shared, 0, sizeof(WakeRequests));
		SpinLockInit(&requests.shared->mutex);
	}
	LWLockRelease(AddinShmemInitLock);
}

/* Reserves the shared memory; called while the library is preloaded. */
void
wake_requests_reserve(void)
{
	requests.prev_request_hook = shmem_request_hook;
	shmem_request_hook = request_memory;
	requests.prev_startup_hook = shmem_startup_hook;
	shmem_startup_hook = find_memory;
}

/*
 * Asks the launcher to serve a database soon.  If that was asked already, the
 * launcher was woken then.
 */
void
wake_request(Oid database)
{
	WakeRequests *shared = requests.shared;
	PGPROC       *launcher;
	bool          is_new = true;

	if (shared == NULL)
		return;
	SpinLockAcquire(&shared->mutex);
	launcher = shared->launcher;
	for (int i = 0; i < Min(shared->count, WAKE_REQUESTS); i++)
		is_new = is_new && shared->databases[i] != database;
	if (is_new && shared->count < WAKE_REQUESTS)
		shared->databases[shared->count] = database;
	if (is_new && shared->count <= WAKE_REQUESTS)
		shared->count++;
	SpinLockRelease(&shared->mutex);
	if (is_new && launcher != NULL)
		SetLatch(&launcher->procLatch);
}

/* Exit callback: there is no launcher any more. */
static void
end_receiving(int code, Datum arg)
{
	SpinLockAcquire(&requests.shared->mutex);
	requests.shared->launcher = NULL;
	SpinLockRelease(&requests.shared->mutex);
}

/* Lets requests wake this process, the launcher, until it ends. */
void
wake_requests_receive(void)
{
	if (requests.shared == NULL)
		return;
	SpinLockAcquire(&requests.shared->mutex);
	requests.shared->launcher = MyProc;
	requests.shared->expected = false;
	SpinLockRelease(&requests.shared->mutex);
	before_shmem_exit(end_receiving, 0);
}

/*
 * Of the launcher: the databases that were asked for since the last time, at
 * most WAKE_REQUESTS.  Returns how many; -1: too many, it may be any.
 */
int
wake_requests_take(Oid *databases)
{
	int count;

	if (requests.shared == NULL)
		return 0;
	SpinLockAcquire(&requests.shared->mutex);
	count = requests.shared->count;
	requests.shared->count = 0;
	if (count <= WAKE_REQUESTS)
		memcpy(databases, requests.shared->databases, sizeof(Oid) * count);
	SpinLockRelease(&requests.shared->mutex);
	return count > WAKE_REQUESTS ? -1 : count;
}

/*
 * Of the launcher: whether any worker may be asked to end its time slice.  A
 * session whose transaction has committed then requests although workers run:
 * either the last poll of a worker sees what was committed, or the session sees
 * this, which was set before the worker was asked.
 */
void
wake_requests_expect(bool expected)
{
	if (requests.shared == NULL || requests.shared->expected == expected)
		return;
	SpinLockAcquire(&requests.shared->mutex);
	requests.shared->expected = expected;
	SpinLockRelease(&requests.shared->mutex);
}

/* Whether a session is to request although workers run. */
bool
wake_requests_expected(void)
{
	bool result;

	if (requests.shared == NULL)
		return false;
	SpinLockAcquire(&requests.shared->mutex);
	result = requests.shared->expected;
	SpinLockRelease(&requests.shared->mutex);
	return result;
}
