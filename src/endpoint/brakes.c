/*
 * brakes.c
 *		What is paused, and the promise that nothing of it is sent.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#include "common/compat.h"
#include "common/statement.h"
#include "endpoint/brakes.h"

PG_FUNCTION_INFO_V1(qm_announce_pause);

/* First key of the sending lock, "qmbr", which no function of SQL can name. */
#define SENDING_LOCK_CLASS 0x716d6272

typedef struct PausedGateway
{
	char *name;
	char *why;
} PausedGateway;

/* What this process has heard of changes of pauses. */
static struct
{
	bool   registered; /* the callback is, for the life of the process */
	Oid    table;      /* quota_pause; InvalidOid: not known, or there is none */
	uint64 version;    /* grows with every message that may be about it */
	bool   sending;    /* it holds the sending lock */
} news = {.version = 1};

/* This transaction changes pauses. */
static struct
{
	bool registered;
	bool wanted;
} announcement;

/* Of strategies their state counts: a restore may bring them without their pauses. */
static Statement read_pauses = {
	"SELECT p.scope, p.gateway, null::int4,"
	" quota_internal.pause_words(p) FROM quota_manager.quota_pause p"
	" WHERE p.end_time IS NULL AND p.cause = 'operator' AND p.scope <> 'strategy'"
	" UNION ALL (SELECT 'strategy', null, s.id, null FROM quota_manager.quota_strategy s"
	" WHERE s.state = 'paused' ORDER BY s.id)"};

/* Callback: a relation was changed, or (InvalidOid) all may have been. */
static void
relation_changed(Datum arg, Oid relation)
{
	if (!OidIsValid(relation) || !OidIsValid(news.table) || relation == news.table)
		news.version++;
}

/* Makes brakes that were not read yet, which keep what they read below memory. */
void
brakes_init(Brakes *brakes, MemoryContext memory)
{
	memset(brakes, 0, sizeof(Brakes));
	brakes->memory = AllocSetContextCreate(memory, "quota_manager brakes", ALLOCSET_SMALL_SIZES);
}

/* Has them read again before anything is sent. */
void
brakes_forget(Brakes *brakes)
{
	brakes->version = 0;
}

/*
 * True if they were changed since they were read, as far as this process has
 * heard.
 */
bool
brakes_are_outdated(const Brakes *brakes)
{
	return brakes->version != news.version;
}

/* The table of pauses; InvalidOid in a database with the SQL of 1.0.0.  Cheap. */
static Oid
pause_table(void)
{
	Oid schema = get_namespace_oid("quota_manager", true);

	return OidIsValid(schema) ? get_relname_relid("quota_pause", schema) : InvalidOid;
}

/* Takes over a row of read_pauses. */
static void
take_pause(Brakes *brakes, uint64 row)
{
	const char    *scope = result_text(row, 1);
	PausedGateway *gateway;

	if (strcmp(scope, "everything") == 0)
		brakes->everything = MemoryContextStrdup(brakes->memory, result_text(row, 4));
	else if (strcmp(scope, "strategy") == 0)
		brakes->strategies[brakes->strategy_count++] = result_int32(row, 3);
	else
	{
		MemoryContext caller = MemoryContextSwitchTo(brakes->memory);

		gateway = palloc(sizeof(PausedGateway));
		gateway->name = result_text(row, 2);
		gateway->why = result_text(row, 4);
		brakes->gateways = lappend(brakes->gateways, gateway);
		MemoryContextSwitchTo(caller);
	}
}

/* Reads what is paused, in a transaction.  After an error they are outdated. */
void
brakes_read(Brakes *brakes)
{
	uint64 version;
	uint64 rows;

	if (!news.registered)
		CacheRegisterRelcacheCallback(relation_changed, (Datum) 0);
	news.registered = true;
	brakes->version = 0;
	MemoryContextReset(brakes->memory);
	brakes->everything = NULL;
	brakes->gateways = NIL;
	brakes->strategies = NULL;
	brakes->strategy_count = 0;
	news.table = pause_table();
	/* what is heard of from here on may be newer than the snapshot */
	version = news.version;
	if (OidIsValid(news.table))
	{
		rows = statement_run(&read_pauses, NULL);
		brakes->strategies = MemoryContextAllocHuge(brakes->memory, sizeof(int32) * Max(rows, 1));
		for (uint64 row = 0; row < rows; row++)
			take_pause(brakes, row);
		SPI_freetuptable(SPI_tuptable);
	}
	brakes->version = version;
}

/* True if anything is paused. */
bool
brakes_hold_anything(const Brakes *brakes)
{
	return brakes->everything != NULL || brakes->gateways != NIL || brakes->strategy_count > 0;
}

/* Since when, by whom and why nothing is sent to a gateway; NULL: it is. */
const char *
brakes_on_gateway(const Brakes *brakes, const char *gateway)
{
	if (brakes->everything != NULL)
		return brakes->everything;
	foreach_ptr (const PausedGateway, paused, brakes->gateways)
		if (strcmp(paused->name, gateway) == 0)
			return paused->why;
	return NULL;
}

static int
compare_ids(const void *a, const void *b)
{
	const int32 x = *(const int32 *) a;
	const int32 y = *(const int32 *) b;

	return x < y ? -1 : x > y;
}

/* True if the pending grants of a strategy are not sent. */
bool
brakes_on_strategy(const Brakes *brakes, int32 strategy_id)
{
	return brakes->strategy_count > 0 &&
		   bsearch(&strategy_id, brakes->strategies, brakes->strategy_count, sizeof(int32),
				   compare_ids) != NULL;
}

/*
 * Of calls by hand, which are made all the same: says that the gateway is
 * paused, once per statement.
 */
void
brakes_notice(const char *gateway)
{
	static TimestampTz noticed;
	Brakes             brakes;
	const char        *why;

	if (noticed == GetCurrentStatementStartTimestamp())
		return;
	brakes_init(&brakes, CurrentMemoryContext);
	brakes_read(&brakes);
	why = brakes_on_gateway(&brakes, gateway);
	if (why == NULL)
		return;
	noticed = GetCurrentStatementStartTimestamp();
	ereport(NOTICE,
			(brakes.everything != NULL ? errmsg("everything is paused %s", why)
									   : errmsg("gateway \"%s\" is paused %s", gateway, why),
			 errdetail("Calls by hand are made all the same.")));
}

/* Of tick(): says so where everything is paused, so that nothing is run.  In a work unit. */
void
brakes_notice_everything(void)
{
	Brakes brakes;

	brakes_init(&brakes, CurrentMemoryContext);
	brakes_read(&brakes);
	if (brakes.everything != NULL)
		ereport(NOTICE, (errmsg("everything is paused %s", brakes.everything),
						 errdetail("Nothing is run until quota_manager.unpause_all().")));
}

static void
name_lock(LOCKTAG *tag)
{
	SET_LOCKTAG_ADVISORY(*tag, MyDatabaseId, SENDING_LOCK_CLASS, 0, 3);
}

/*
 * Takes in what other sessions have announced.  Where no transaction is open an
 * empty one does that, which PostgreSQL has for the purpose: what the messages
 * make caches do may need one.
 */
static void
hear_news(void)
{
	MemoryContext caller = CurrentMemoryContext;

	if (IsTransactionState())
	{
		AcceptInvalidationMessages();
		return;
	}
	StartTransactionCommand();
	CommitTransactionCommand();
	MemoryContextSwitchTo(caller);
}

/*
 * True: until sending_end() no pause is committed, and what these brakes say is
 * so.  False: they are outdated, or a pause is being committed right now.  After
 * an error, too, sending_end() must be called.
 */
bool
sending_begin(const Brakes *brakes)
{
	LOCKTAG tag;

	if (brakes_are_outdated(brakes))
		return false;
	name_lock(&tag);
	if (LockAcquire(&tag, ShareLock, true, true) == LOCKACQUIRE_NOT_AVAIL)
		return false;
	news.sending = true;
	hear_news();
	if (!brakes_are_outdated(brakes))
		return true;
	sending_end();
	return false;
}

/* Nothing more is handed over.  Cheap if nothing was begun. */
void
sending_end(void)
{
	LOCKTAG tag;

	if (!news.sending)
		return;
	news.sending = false;
	name_lock(&tag);
	LockRelease(&tag, ShareLock, true);
}

/*
 * Transaction callback.  The lock is released when the commit can be seen, and
 * after the message is sent.
 */
static void
at_transaction_end(XactEvent event, void *arg)
{
	LOCKTAG tag;

	if (event == XACT_EVENT_PRE_COMMIT && announcement.wanted)
	{
		name_lock(&tag);
		(void) LockAcquire(&tag, ExclusiveLock, false, false);
	}
	else if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT || event == XACT_EVENT_PREPARE)
		announcement.wanted = false;
}

/*
 * announce_pause(): trigger of what changes pauses.  Whoever sends reads them
 * again before it sends anything more.
 */
Datum
qm_announce_pause(PG_FUNCTION_ARGS)
{
	Oid table;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR, (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
						errmsg("announce_pause() is a trigger")));
	if (!announcement.registered)
		RegisterXactCallback(at_transaction_end, NULL);
	announcement.registered = announcement.wanted = true;
	table = pause_table();
	if (OidIsValid(table))
		CacheInvalidateRelcacheByRelid(table);
	return PointerGetDatum(NULL);
}
