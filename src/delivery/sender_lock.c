/*
 * sender_lock.c
 *		One sender per gateway.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/lock.h"

#include "delivery/sender_lock.h"

/*
 * Names the lock as pg_advisory_lock(int4, int4) does.
 */
static void
name_lock(LOCKTAG *tag, int32 gateway_id)
{
	SET_LOCKTAG_ADVISORY(*tag, MyDatabaseId, SENDER_LOCK_CLASS, (uint32) gateway_id, 2);
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
