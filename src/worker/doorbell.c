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
 * Reserves the shared memory; called while the library is preloaded.
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
 * Asks for a turn of a database.  May be called while a transaction commits.
 * The signal is that of latches in general.
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
 * In the launcher: this process is to be called, until it ends.
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
 * In the launcher: the databases that rang since the last time, at most
 * DOORBELL_SIZE.  Returns how many; -1: too many to tell, it may be any.
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
 * Whether there is a scheduler, of any database, that may not look again: a
 * session whose transaction has committed rings then although one runs.  A
 * scheduler counts itself before it looks for the last time, so that either it
 * sees what was committed or the session sees it; its launcher takes it off
 * once the process is gone.
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
 * Whether there is a scheduler, of any database, that may not look again: a
 * session whose transaction has committed rings then although one runs.  A
 * scheduler counts itself before it looks for the last time, so that either it
 * sees what was committed or the session sees it; its launcher takes it off
 * once the process is gone.
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
