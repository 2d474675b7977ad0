/*
 * bulk_call.c
 *		CALL quota_manager.bulk_delta(): a change of many quotas by hand.
 *
 * Each row of a query is written to bulk_call before anything is sent.  Then
 * the rows are marked as sent, sent, and their outcomes written, some at a
 * time, each step in a transaction of its own.  What was marked and has no
 * outcome is in doubt and never sent again; so the same key goes on where a
 * call ended, whatever ended it.
 */
#include "postgres.h"

#include <limits.h>
#include <math.h>

#include "access/htup_details.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "common/crash_point.h"
#include "common/identity.h"
#include "common/monotonic.h"
#include "common/rights.h"
#include "common/version.h"
#include "common/work_unit.h"
#include "endpoint/await.h"
#include "endpoint/brakes.h"
#include "endpoint/rate_limit.h"
#include "manual/argument.h"
#include "manual/bulk_query.h"
#include "manual/bulk_rows.h"
#include "manual/call.h"
#include "scan/balance_table.h"
#include "scan/scan_lock.h"

PG_FUNCTION_INFO_V1(qm_bulk_delta);
PG_FUNCTION_INFO_V1(qm_lock_bulk_decisions);

/* An index has room for a key beside the id of a user. */
#define KEY_MAX_BYTES 64

/* With a rate_limit, no more is marked at once than is sent in so long. */
#define BATCH_MAX_S 10

/* Where the gateway asks to come back later: the time waited, and how often in a row. */
#define PAUSE_MIN_S 1.0
#define PAUSE_MAX_S 60.0
#define PAUSES_MAX 10

/* Name the locks of a key as no function of SQL can: theirs have 1 or 2 at the end, others of ours 3. */
#define KEY_LOCK_METHOD 4
#define DECISION_LOCK_METHOD 5

typedef struct BulkCall
{
	const char     *key;
	GatewayRow     *row;
	GatewaySession *session;
	RateLimit       limit;
	char           *role;
	RowArrays      *rows; /* of the query; NULL: there is none */
	MemoryContext   batch_memory;
	ManualCall     *calls; /* the batch, in batch_memory */
	int             count;
	bool            is_locked;
	const char     *stopped; /* why it ends before all is sent; NULL: it does not */
	int             pauses;  /* in a row */
} BulkCall;

static const WorkUnit *const unit = &procedure_work_unit;

static void
name_lock(LOCKTAG *tag, const char *key, uint16 method)
{
	uint64 hash =
		DatumGetUInt64(hash_any_extended((const unsigned char *) key, (int) strlen(key), 0));

	SET_LOCKTAG_ADVISORY(*tag, MyDatabaseId, (uint32) (hash >> 32), (uint32) hash, method);
}

/* Takes the lock of the key, which outlives transactions; an error if another session has it. */
static void
lock_key(BulkCall *bulk)
{
	LOCKTAG tag;

	name_lock(&tag, bulk->key, KEY_LOCK_METHOD);
	if (LockAcquire(&tag, ExclusiveLock, true, true) == LOCKACQUIRE_NOT_AVAIL)
		ereport(ERROR,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("bulk call \"%s\" is under way in another session", bulk->key),
				 errhint("See quota_manager.bulk_calls for how far it is; call again when it has "
						 "ended.")));
	bulk->is_locked = true;
}

/* Until the transaction ends no operator decides about the key; waits for one who does. */
static void
lock_decisions(const char *key)
{
	LOCKTAG tag;

	name_lock(&tag, key, DECISION_LOCK_METHOD);
	(void) LockAcquire(&tag, ExclusiveLock, false, false);
}

static void
release(BulkCall *bulk)
{
	LOCKTAG tag;

	if (bulk->session != NULL)
		gateway_close(bulk->session);
	bulk->session = NULL;
	name_lock(&tag, bulk->key, KEY_LOCK_METHOD);
	if (bulk->is_locked)
		(void) LockRelease(&tag, ExclusiveLock, true);
	bulk->is_locked = false;
}

/* The gateway that the key has, or that is asked for. */
static void
choose_gateway(BulkCall *bulk, const char *name)
{
	char *known = bulk_gateway(bulk->key);

	if (known != NULL && name != NULL && strcmp(known, name) != 0)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("bulk call \"%s\" is for gateway \"%s\", not \"%s\"", bulk->key,
							   known, name),
						errhint("Take another key for another gateway.")));
	if (known == NULL && bulk->rows == NULL)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
						errmsg("there is no bulk call \"%s\" to go on with", bulk->key),
						errhint("Give a query of user_id, value and reason; see "
								"quota_manager.bulk_calls for the keys that there are.")));
	bulk->row =
		gateway_row_choose(gateway_rows_read(CurrentMemoryContext), known != NULL ? known : name);
	call_refuse_where_reconciled(bulk->row);
	brakes_notice(bulk->row->name);
}

static void
require_amounts(const BulkCall *bulk)
{
	for (int i = 0; bulk->rows != NULL && i < bulk->rows->count; i++)
		call_require_amount(bulk->row, TextDatumGetCString(bulk->rows->values[1][i]));
}

/* Writes the rows, and settles what an earlier call with the key left. */
static void
begin_bulk(BulkCall *bulk)
{
	char *problem;

	identity_require(unit);
	/* a copy must know that it is one */
	(void) identity_record(unit);
	unit->begin();
	lock_key(bulk);
	lock_decisions(bulk->key);
	bulk_rows_settle_old(bulk->key);
	if (bulk->rows != NULL)
		bulk_rows_write(bulk->key, bulk->row->name, bulk->role, bulk->rows);
	unit->commit();
	CRASH_POINT(bulk_written);
	bulk->session = gateway_row_open(bulk->row, &problem);
	if (bulk->session == NULL)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("gateway \"%s\" cannot be used: %s", bulk->row->name, problem),
						errdetail("Nothing was sent; what is to be sent is written."),
						errhint("Call it again with the same key to go on.")));
}

/* How many rows are marked as sent at once: all of them are in doubt after a crash. */
static int
batch_size(const BulkCall *bulk)
{
	int size = gateway_free_slots(bulk->session);

	if (bulk->row->rate_limit > 0)
		size = Min(size, (int) (bulk->row->rate_limit * BATCH_MAX_S));
	return Max(size, 1);
}

/* Nothing known of the users' balances counts any more, nor an answer that is under way. */
static void
forget_balances(const BulkCall *bulk)
{
	List *users = NIL;

	for (int i = 0; i < bulk->count; i++)
		users = lappend(users, unconstify(char *, bulk->calls[i].user_id));
	balance_table_note_lost(bulk->row->name, users);
}

/*
 * Takes marks back that no standby has: after a failover nobody would know of
 * what was sent.  Ends the call; that it is asked to end does not hinder this.
 */
static void
give_back(const BulkCall *bulk)
{
	HOLD_INTERRUPTS();
	unit->begin();
	set_local("synchronous_commit", "local");
	bulk_rows_untake(bulk->key);
	unit->commit();
	RESUME_INTERRUPTS();
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("bulk call \"%s\" has ended: no standby confirms what is written", bulk->key),
			 errhint("Call it again with the same key to go on.")));
}

/*
 * Marks the next rows as sent, which is on disk when this returns; false: there
 * are none.  Then no cancel is heeded until their outcomes are written.
 */
static bool
take_batch(BulkCall *bulk)
{
	CHECK_FOR_INTERRUPTS();
	MemoryContextReset(bulk->batch_memory);
	MemoryContextSwitchTo(bulk->batch_memory);
	unit->begin();
	/* until the mark is committed; the trigger keep_bulk_policy sees the mark from then on */
	call_refuse_where_reconciled(bulk->row);
	balance_lock_wait(bulk->row->name);
	bulk->count = bulk_rows_take(bulk->key, batch_size(bulk), &bulk->calls);
	forget_balances(bulk);
	HOLD_CANCEL_INTERRUPTS();
	unit->commit();
	if (bulk->count > 0 && !commit_is_replicated())
		give_back(bulk);
	if (bulk->count == 0)
		RESUME_CANCEL_INTERRUPTS();
	return bulk->count > 0;
}

static void
submit(BulkCall *bulk, ManualCall *call)
{
	GatewayRequest request = {call->action, call->user_id, call->amount};

	request.token = call;
	call_log(call, bulk->role, "sent");
	if (!gateway_submit(bulk->session, &request))
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	CRASH_POINT(bulk_sent);
}

/* Sends the batch, as many requests at once as the gateway takes, and waits for all answers. */
static void
send_batch(BulkCall *bulk)
{
	double rate = bulk->row->rate_limit;
	int    submitted = 0;
	int    answered = 0;

	while (answered < bulk->count)
	{
		GatewayResult results[16];
		long          timeout = LONG_MAX;
		int           count;

		while (submitted < bulk->count && gateway_free_slots(bulk->session) > 0 &&
			   rate_limit_take(&bulk->limit, rate, mono_now()))
			submit(bulk, &bulk->calls[submitted++]);
		if (submitted < bulk->count)
			timeout = rate_limit_wait_ms(&bulk->limit, rate, mono_now());
		count = await_answers(bulk->session, timeout, results, lengthof(results));
		for (int i = 0; i < count; i++)
		{
			ManualCall *call = results[i].token;

			call->reply = results[i].reply;
			call_log(call, bulk->role, call_outcome_name(call));
			CRASH_POINT(bulk_answered);
		}
		answered += count;
	}
}

/* Writes the outcomes of the batch, and a row of gateway_call for what was applied. */
static void
record_batch(BulkCall *bulk)
{
	unit->begin();
	bulk_rows_record(bulk->key, bulk->calls, bulk->count);
	for (int i = 0; i < bulk->count; i++)
		if (bulk->calls[i].reply.outcome == GATEWAY_COMPLETED)
			call_write(&bulk->calls[i], bulk->role);
	forget_balances(bulk);
	unit->commit();
	RESUME_CANCEL_INTERRUPTS();
	CRASH_POINT(bulk_recorded);
}

/* Waits; a cancel ends the wait. */
static void
pause_for(BulkCall *bulk, double seconds)
{
	MonoTime end = mono_in_ms((int64) (seconds * 1000));

	while (mono_now() < end)
		(void) await_answers(bulk->session, mono_ms_until(end, 1000), NULL, 0);
}

/*
 * Whether to go on after a batch.  Where the gateway has settled none of it,
 * the rest would fare alike; where it asks to come back later, it is waited for.
 */
static void
judge_batch(BulkCall *bulk, MemoryContext memory)
{
	const ManualCall *problem = &bulk->calls[bulk->count - 1];
	double            pause_s = 0;

	for (int i = 0; i < bulk->count; i++)
	{
		const GatewayReply *reply = &bulk->calls[i].reply;

		if (reply->outcome == GATEWAY_COMPLETED || reply->outcome == GATEWAY_REFUSED)
		{
			bulk->pauses = 0;
			return;
		}
		if (reply->outcome == GATEWAY_THROTTLED)
			pause_s = Max(pause_s, Max(reply->retry_after, PAUSE_MIN_S));
	}
	if (pause_s > 0 && bulk->pauses++ < PAUSES_MAX)
		pause_for(bulk, Min(pause_s, PAUSE_MAX_S));
	else
		bulk->stopped = MemoryContextStrdup(
			memory, psprintf("%s: %s", call_outcome_name(problem), problem->reply.message));
}

static void
run_bulk(BulkCall *bulk, BulkCounts *counts)
{
	MemoryContext memory = CurrentMemoryContext;

	bulk->batch_memory =
		AllocSetContextCreate(memory, "quota_manager bulk call", ALLOCSET_DEFAULT_SIZES);
	begin_bulk(bulk);
	while (bulk->stopped == NULL && take_batch(bulk))
	{
		CRASH_POINT(bulk_marked);
		send_batch(bulk);
		record_batch(bulk);
		judge_batch(bulk, memory);
	}
	MemoryContextSwitchTo(memory);
	unit->begin();
	bulk_rows_count(bulk->key, counts);
	unit->commit();
	if (bulk->stopped != NULL && counts->waiting + counts->not_sent > 0)
		ereport(WARNING,
				(errmsg("bulk call \"%s\" has stopped: gateway \"%s\" settled nothing of what was "
						"sent last",
						bulk->key, bulk->row->name),
				 errdetail("%s", bulk->stopped),
				 errhint("Call it again with the same key to go on; nothing is repeated.")));
}

/* The key as it was given. */
static const char *
required_key(FunctionCallInfo fcinfo)
{
	const char *key = argument_required_text(fcinfo, 1, "the key");

	if (strlen(key) > KEY_MAX_BYTES)
		ereport(ERROR, (errcode(ERRCODE_STRING_DATA_RIGHT_TRUNCATION),
						errmsg("the key has %zu bytes", strlen(key)),
						errdetail("At most %d are possible.", KEY_MAX_BYTES)));
	return key;
}

/*
 * bulk_delta(query, key, gateway, INOUT applied, refused, not_sent, in_doubt,
 * waiting): adds to the quotas of the users of a query, each once under the key.
 */
Datum
qm_bulk_delta(PG_FUNCTION_ARGS)
{
	MemoryContext caller = CurrentMemoryContext;
	BulkCall      bulk = {0};
	BulkCounts    counts = {0};
	const char   *gateway;
	TupleDesc     descriptor;
	Datum         values[5];
	bool          nulls[5] = {false, false, false, false, false};

	procedure_connect(fcinfo, "bulk_delta()");
	rights_require_caller();
	bulk.key = required_key(fcinfo);
	bulk.role = GetUserNameFromId(GetOuterUserId(), false);
	gateway = argument_text(fcinfo, 2, "the gateway's name");
	rate_limit_init(&bulk.limit);
	/* as any statement of the session; what follows is ours */
	if (!PG_ARGISNULL(0))
		bulk.rows = bulk_query_read(text_to_cstring(PG_GETARG_TEXT_PP(0)));
	set_local("search_path", "pg_catalog, pg_temp");
	require_fitting_extension();
	choose_gateway(&bulk, gateway);
	require_amounts(&bulk);
	PG_TRY();
	{
		run_bulk(&bulk, &counts);
	}
	PG_FINALLY();
	{
		release(&bulk);
	}
	PG_END_TRY();
	SPI_finish();

	MemoryContextSwitchTo(caller);
	if (get_call_result_type(fcinfo, NULL, &descriptor) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "bulk_delta() does not return a row");
	values[0] = Int64GetDatum(counts.applied);
	values[1] = Int64GetDatum(counts.refused);
	values[2] = Int64GetDatum(counts.not_sent);
	values[3] = Int64GetDatum(counts.in_doubt);
	values[4] = Int64GetDatum(counts.waiting);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(descriptor, values, nulls)));
}

/*
 * lock_bulk_decisions(key): waits for other decisions about the key, and for the
 * beginning of a call.  True: no session works on it, and one that begins waits
 * until this transaction ends.
 */
Datum
qm_lock_bulk_decisions(PG_FUNCTION_ARGS)
{
	char   *key = text_to_cstring(PG_GETARG_TEXT_PP(0));
	LOCKTAG tag;

	lock_decisions(key);
	name_lock(&tag, key, KEY_LOCK_METHOD);
	if (LockAcquire(&tag, ExclusiveLock, false, true) == LOCKACQUIRE_NOT_AVAIL)
		PG_RETURN_BOOL(false);
	(void) LockRelease(&tag, ExclusiveLock, false);
	PG_RETURN_BOOL(true);
}
