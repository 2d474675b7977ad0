/*
 * sender_lock.c
 *		One sender per gateway.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/lock.h"

#include "delivery/sender_lock.h"

/*
 * Names the lock as no function of SQL can (theirs have 1 or 2 at the end), so
 * that no session can take it by hand and keep grants from being delivered.
 */
static void
name_lock(LOCKTAG *tag, int32 gateway_id)
{
	SET_LOCKTAG_ADVISORY(*tag, MyDatabaseId, SENDER_LOCK_CLASS, (uint32) gateway_id, 3);
}

/* Takes the lock if it is free.  In a transaction; the lock outlives it. */
bool
sender_lock_try(int32 gateway_id)
{
	LOCKTAG tag;

	name_lock(&tag, gateway_id);
	return LockAcquire(&tag, ExclusiveLock, true, true) != LOCKACQUIRE_NOT_AVAIL;
}

/* Releases the lock, in a transaction or not. */
void
sender_lock_release(int32 gateway_id)
{
	LOCKTAG tag;

	name_lock(&tag, gateway_id);
	LockRelease(&tag, ExclusiveLock, true);
}
