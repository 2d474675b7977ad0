/*
 * work_unit.c
 *		Transactions of workers and of procedures.
 *
 * Whatever the role, the database or the session have set, such a transaction
 * sees what is committed, may write, finds only what it names, is not cut
 * short, and is on disk when its commit returns.
 */
#include "postgres.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "pgstat.h"
#include "replication/syncrep.h"
#include "replication/walsender.h"
#include "replication/walsender_private.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/pmsignal.h"
#include "utils/guc.h"
#include "utils/snapmgr.h"
#include "utils/timeout.h"

#include "common/pinned_settings.h"
#include "common/work_unit.h"

/* Where the caller of worker_begin allocates. */
static MemoryContext callers_memory;

/* Sets a setting to the end of the current transaction. */
void
set_local(const char *name, const char *value)
{
	(void) set_config_option(name, value, PGC_USERSET, PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0,
							 false);
}

/*
 * False: the wait of the last commit for a synchronous standby was cut short by
 * a cancel, which PostgreSQL answers with a warning only.  After a failover
 * what was committed may be lost.
 */
bool
commit_is_replicated(void)
{
	XLogRecPtr confirmed;

	if (max_wal_senders == 0 || SyncRepStandbyNames == NULL || SyncRepStandbyNames[0] == '\0')
		return true;
	LWLockAcquire(SyncRepLock, LW_SHARED);
	confirmed = WalSndCtl->lsn[SYNC_REP_WAIT_FLUSH];
	LWLockRelease(SyncRepLock);
	return confirmed >= XactLastCommitEnd;
}

/*
 * Ends the process if its postmaster is gone, as every wait of PostgreSQL's
 * does: whoever goes on without keeps the server from being started again.
 */
void
leave_dead_server(void)
{
	if (!PostmasterIsAlive())
		proc_exit(1);
}

static void
worker_begin(void)
{
	callers_memory = CurrentMemoryContext;
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	settings_isolate_transaction();
	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
}

static void
worker_commit(void)
{
	SPI_finish();
	PopActiveSnapshot();
	CommitTransactionCommand();
	pgstat_report_stat(false);
	MemoryContextSwitchTo(callers_memory);
}

/*
 * The transaction in which the CALL began, or what its caller did in it, is
 * ended first: it may have a snapshot, and an isolation level that cannot be
 * changed any more.
 */
static void
procedure_begin(void)
{
	if (FirstSnapshotSet)
		SPI_commit();
	/* A time-out of the statement runs already, and would cut off the round. */
	if (get_timeout_active(STATEMENT_TIMEOUT))
		disable_timeout(STATEMENT_TIMEOUT, false);
	settings_isolate_transaction();
}

/* SPI_commit begins a transaction at once, without a snapshot or a lock. */
static void
procedure_commit(void)
{
	SPI_commit();
	settings_lift_transaction_timeout();
}

const WorkUnit worker_work_unit = {worker_begin, worker_commit};
const WorkUnit procedure_work_unit = {procedure_begin, procedure_commit};

/*
 * Connects a procedure to SPI in the way that procedure_work_unit needs; it
 * disconnects by SPI_finish.  Raises an error that names it (such as
 * "deliver()") if it was called in a transaction block or a function, or on a
 * standby.  procedure_work_unit.begin commits what it did before.
 */
void
procedure_connect(FunctionCallInfo fcinfo, const char *name)
{
	bool is_call = fcinfo->context != NULL && IsA(fcinfo->context, CallContext);

	if (!is_call || castNode(CallContext, fcinfo->context)->atomic)
		ereport(ERROR, (errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
						errmsg("%s cannot run inside a transaction block or a function", name),
						errdetail("It commits between its steps."),
						errhint("Send CALL quota_manager.%s as a statement of its own.", name)));
	if (RecoveryInProgress())
		ereport(ERROR, (errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
						errmsg("%s cannot run on a standby server", name),
						errhint("Call it on the primary server.")));
	/* Its own transactions may write whatever is set: the caller is asked here. */
	if (XactReadOnly)
		ereport(ERROR, (errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
						errmsg("%s cannot run where transactions are read-only", name),
						errhint("Set default_transaction_read_only to off.")));
	SPI_connect_ext(SPI_OPT_NONATOMIC);
}
