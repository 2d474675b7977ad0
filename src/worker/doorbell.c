/*
 * doorbell.c
 *		How sessions tell the launcher of the cluster that their database wants
 *		a turn now.
 */
#include "postgres.h"

#include <signal.h>

#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "storage/spin.h"

#include "worker/doorbell.h"

typedef struct Doorbell
{
	slock_t mutex;
	pid_t   launcher; /* 0: none runs */
	int     leaving;  /* schedulers whose turn is about to end */
	int     count;    /* more than DOORBELL_SIZE: some were not written down */
	Oid     databases[DOORBELL_SIZE];
} Doorbell;

static Doorbell *doorbell = NULL;

static shmem_request_hook_type prev_shmem_request_hook = NULL;
static shmem_startup_hook_type prev_shmem_startup_hook = NULL;

/*
 * Hook: asks for the memory.
 */
static void
request_memory(void)
{
	if (prev_shmem_request_hook)
		prev_shmem_request_hook();
	RequestAddinShmemSpace(MAXALIGN(sizeof(Doorbell)));
}

/*
 * Hook: finds it, or makes it at the start and after a crash.
 */
static void
find_memory(void)
{
	bool found;

	if (prev_shmem_startup_hook)
		prev_shmem_startup_hook();
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	doorbell = ShmemInitStruct("quota_manager doorbell", sizeof(Doorbell), &found);
	if (!found)
	{
		memset(doorbell, 0, sizeof(Doorbell));
		SpinLockInit(&doorbell->mutex);
	}
	LWLockRelease(AddinShmemInitLock);
}

/*
 * See doorbell.h.
 */
void
doorbell_reserve(void)
{
	prev_shmem_request_hook = shmem_request_hook;
	shmem_request_hook = request_memory;
	prev_shmem_startup_hook = shmem_startup_hook;
	shmem_startup_hook = find_memory;
}

/*
 * See doorbell.h.  The signal is that of latches in general.
 */
void
doorbell_ring(Oid database)
{
	pid_t launcher;
	bool  is_new = true;

	if (doorbell == NULL)
		return;
	SpinLockAcquire(&doorbell->mutex);
	launcher = doorbell->launcher;
	for (int i = 0; i < Min(doorbell->count, DOORBELL_SIZE); i++)
	{
		if (doorbell->databases[i] == database)
			is_new = false;
	}
	if (is_new && doorbell->count < DOORBELL_SIZE)
		doorbell->databases[doorbell->count] = database;
	if (is_new && doorbell->count <= DOORBELL_SIZE)
		doorbell->count++;
	SpinLockRelease(&doorbell->mutex);
	/* otherwise it has been called already and will see to it */
	if (is_new && launcher != 0)
		(void) kill(launcher, SIGUSR1);
}

/*
 * Exit callback: nobody is there any more.
 */
static void
leave(int code, Datum arg)
{
	SpinLockAcquire(&doorbell->mutex);
	doorbell->launcher = 0;
	SpinLockRelease(&doorbell->mutex);
}

/*
 * See doorbell.h.
 */
void
doorbell_answer(void)
{
	if (doorbell == NULL)
		return;
	SpinLockAcquire(&doorbell->mutex);
	doorbell->launcher = MyProcPid;
	doorbell->leaving = 0;
	SpinLockRelease(&doorbell->mutex);
	before_shmem_exit(leave, 0);
}

/*
 * See doorbell.h.
 */
int
doorbell_take(Oid *databases)
{
	int count;

	if (doorbell == NULL)
		return 0;
	SpinLockAcquire(&doorbell->mutex);
	count = doorbell->count;
	doorbell->count = 0;
	if (count <= DOORBELL_SIZE)
		memcpy(databases, doorbell->databases, sizeof(Oid) * count);
	SpinLockRelease(&doorbell->mutex);
	return count > DOORBELL_SIZE ? -1 : count;
}

/*
 * See doorbell.h.
 */
void
doorbell_count_leaving(int change)
{
	if (doorbell == NULL)
		return;
	SpinLockAcquire(&doorbell->mutex);
	doorbell->leaving = Max(doorbell->leaving + change, 0);
	SpinLockRelease(&doorbell->mutex);
}

/*
 * See doorbell.h.
 */
bool
doorbell_turn_ends(void)
{
	bool result;

	if (doorbell == NULL)
		return false;
	SpinLockAcquire(&doorbell->mutex);
	result = doorbell->leaving > 0;
	SpinLockRelease(&doorbell->mutex);
	return result;
}
