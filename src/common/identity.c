/*
 * identity.c
 *		Whether this database is the one that granted and delivered before, and
 *		under which ids it does.
 *
 * The rules are functions in SQL, which scans call as well; they run as the
 * owner of the table, since nobody else may say whose installation it is.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/lock.h"

#include "common/identity.h"
#include "common/statement.h"

PG_FUNCTION_INFO_V1(qm_present_identity);
PG_FUNCTION_INFO_V1(qm_try_identity_lock);

/* First half of the advisory lock of whoever notes the identity: "qmid". */
#define IDENTITY_LOCK_CLASS 0x716d6964

/* An id, and the first number of a grant that has another. */
typedef struct IdentityId
{
	char *id;
	int64 before_grant;
} IdentityId;

/* In the order of before_grant; the last one, which holds now, fits every grant. */
struct Identity
{
	int        count;
	IdentityId ids[FLEXIBLE_ARRAY_MEMBER];
};

static Statement check_identity = {"SELECT quota_internal.check_identity($1)", {BOOLOID}};

static Statement require_identity = {"SELECT quota_internal.require_identity($1)", {BOOLOID}};

static Statement read_ids = {
	"SELECT f.former ->> 'id', (f.former ->> 'before_grant')::int8"
	" FROM quota_manager.quota_installation i, jsonb_array_elements(i.former_ids) f(former)"
	" WHERE i.system_identifier IS NOT NULL"
	" UNION ALL"
	" SELECT i.id::text, 9223372036854775807 FROM quota_manager.quota_installation i"
	" WHERE i.system_identifier IS NOT NULL"
	" ORDER BY 2"};

/*
 * present_identity(): which database of which server this is.  A standby has
 * no timeline of its own yet.
 */
Datum
qm_present_identity(PG_FUNCTION_ARGS)
{
	TupleDesc descriptor;
	Datum     values[3];
	bool      nulls[3] = {false, false, false};

	if (get_call_result_type(fcinfo, NULL, &descriptor) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "present_identity() does not return a row");
	values[0] = Int64GetDatum((int64) GetSystemIdentifier());
	values[1] = ObjectIdGetDatum(MyDatabaseId);
	nulls[2] = RecoveryInProgress();
	values[2] = Int32GetDatum(nulls[2] ? 0 : (int32) GetWALInsertionTimeLine());
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(descriptor), values, nulls)));
}

/*
 * try_identity_lock(): takes the lock until the end of the transaction.  No
 * function of SQL can name it (theirs have 1 or 2 at the end): whoever held it
 * would keep the identity from being noted.
 */
Datum
qm_try_identity_lock(PG_FUNCTION_ARGS)
{
	LOCKTAG tag;

	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, IDENTITY_LOCK_CLASS, 0, 3);
	PG_RETURN_BOOL(LockAcquire(&tag, ExclusiveLock, false, true) != LOCKACQUIRE_NOT_AVAIL);
}

/*
 * Asks in a transaction of its own.  If the server was promoted since, what
 * quota_manager.after_promotion says has been done, once for all processes,
 * when it returns.
 */
static IdentityState
check(const WorkUnit *unit, bool runs)
{
	bool ours;

	unit->begin();
	ours = statement_is_true(&check_identity, ARGS(arg_bool(runs)));
	unit->commit();
	return ours ? IDENTITY_OURS : IDENTITY_SUSPENDED;
}

/* Verifies that this database is the one that grants and delivers. */
IdentityState
identity_verify(const WorkUnit *unit)
{
	return check(unit, false);
}

/*
 * The same before strategies are run: from now on this database is the one that
 * does, which is recorded.
 */
IdentityState
identity_record(const WorkUnit *unit)
{
	return check(unit, true);
}

/* Raises an error if this database is a copy, in the current transaction. */
static void
require_ours(bool runs)
{
	statement_run(&require_identity, ARGS(arg_bool(runs)));
	SPI_freetuptable(SPI_tuptable);
}

/* Verifies it for a procedure: an error if this database is a copy. */
void
identity_require(const WorkUnit *unit)
{
	unit->begin();
	require_ours(false);
	unit->commit();
}

/*
 * Reads the ids that the installation has had, in memory.  The current
 * transaction, which must be on disk before anything is sent, records that this
 * database is the one that sends.
 */
Identity *
identity_read(MemoryContext memory)
{
	Identity *installation;
	uint64    count;
	uint64    i;

	require_ours(true);
	count = statement_run(&read_ids, NULL);
	if (count == 0)
		ereport(ERROR, (errcode(ERRCODE_LOCK_NOT_AVAILABLE),
						errmsg("a scan is noting that this is the database that grants")));
	installation = MemoryContextAlloc(memory, offsetof(Identity, ids) + sizeof(IdentityId) * count);
	installation->count = (int) count;
	for (i = 0; i < count; i++)
	{
		installation->ids[i].id = MemoryContextStrdup(memory, result_text(i, 1));
		installation->ids[i].before_grant = result_int64(i, 2);
	}
	SPI_freetuptable(SPI_tuptable);
	return installation;
}

/*
 * The key of a grant, the same for every attempt.  Grants of an earlier life of
 * the database keep the id that it had then.
 */
void
identity_key(const Identity *installation, int64 grant_id, char *key, size_t size)
{
	int i = 0;

	while (i < installation->count - 1 && grant_id >= installation->ids[i].before_grant)
		i++;
	snprintf(key, size, "%s-" INT64_FORMAT, installation->ids[i].id, grant_id);
}
