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
 * that nobody else can take it and keep grants from being delivered.
 */
static void
name_lock(LOCKTAG *tag, int32 gateway_id)
{
	SET_LOCKTAG_ADVISORY(*tag, MyDatabaseId, SENDER_LOCK_CLASS, (uint32) gateway_id, 3);
}

bool
sender_lock_try(int32 gateway_id)
{
	LOCKTAG tag;

	name_lock(&tag, gateway_id);
	return LockAcquire(&tag, ExclusiveLock, true, true) != LOCKACQUIRE_NOT_AVAIL;
}

void
sender_lock_release(int32 gateway_id)
{
	LOCKTAG tag;

	name_lock(&tag, gateway_id);
	LockRelease(&tag, ExclusiveLock, true);
}
