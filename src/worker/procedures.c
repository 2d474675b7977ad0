/*
 * procedures.c
 *		The SQL interface: tick(), start_workers(), stop_workers(), wake_workers().
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "tcop/utility.h"

#include "common/monotonic.h"
#include "common/rights.h"
#include "common/version.h"
#include "common/identity.h"
#include "common/statement.h"
#include "common/last_error.h"
#include "delivery/reversal.h"
#include "endpoint/brakes.h"
#include "scan/due.h"
#include "worker/process.h"
#include "worker/timing.h"
#include "worker/wake.h"

PG_FUNCTION_INFO_V1(qm_tick);
PG_FUNCTION_INFO_V1(qm_start_workers);
PG_FUNCTION_INFO_V1(qm_stop_workers);
PG_FUNCTION_INFO_V1(qm_wake_workers);

static Statement write_enabled = {
	"INSERT INTO quota_manager.quota_installation (workers_enabled) VALUES ($1)"
	" ON CONFLICT (singleton) DO UPDATE SET workers_enabled = excluded.workers_enabled",
	{BOOLOID}};

/*
 * Runs what is due now.  Adds to *granted, and to the list of those that were
 * run; *more: firings are left.  False: some strategy has failed.
 */
static bool
run_due_once(BalanceReader *reader, List **run, int64 *granted, bool *more)
{
	DueList   due;
	ListCell *cell;

	*more = false;
	due_poll(&procedure_work_unit, &due);
	/* here and not in the first scan, which would keep the row locked for as long as it takes */
	if (due.strategies != NIL)
		(void) identity_record(&procedure_work_unit);
	foreach (cell, due.strategies)
	{
		const DueStrategy *strategy = lfirst(cell);
		RunResult          result;

		CHECK_FOR_INTERRUPTS();
		due_run(&procedure_work_unit, reader, strategy, &result);
		*run = list_append_unique_int(*run, strategy->id);
		*granted += result.granted;
		*more = *more || result.more;
		due.failed = due.failed || result.error != NULL;
		if (balance_reader_is_busy(reader))
			balance_reader_step(reader, 1);
	}
	return !due.failed;
}

/* Runs what is due, and while balances are read what becomes due meanwhile. */
static void
run_due_strategies(int64 *strategies, int64 *granted)
{
	BalanceReader *reader = balance_reader_create(&procedure_work_unit);
	MonoTime       end = mono_in_ms(TICK_MAX_MS);
	List          *run = NIL;
	bool           healthy;

	*granted = 0;
	PG_TRY();
	{
		MonoTime poll_at;
		bool     more;

		identity_require(&procedure_work_unit);
		(void) reversals_continue(&procedure_work_unit);
		/* balances that were read while other strategies were run count, too */
		do
		{
			(void) balance_reader_made_due(reader);
			healthy = run_due_once(reader, &run, granted, &more);
			poll_at = mono_in_ms(TICK_DUE_POLL_MS);
			while (!more && balance_reader_is_busy(reader) && mono_now() < poll_at)
			{
				CHECK_FOR_INTERRUPTS();
				leave_dead_server();
				balance_reader_step(reader, TICK_ANSWER_POLL_MS);
				if (!balance_reader_in_flight(reader))
					pg_usleep(1000);
			}
		} while ((more || balance_reader_is_busy(reader) || balance_reader_made_due(reader)) &&
				 mono_now() < end);
		if (healthy)
			last_error_clear(&procedure_work_unit, WORK_SCHEDULER);
	}
	PG_FINALLY();
	{
		balance_reader_free(reader);
	}
	PG_END_TRY();
	*strategies = list_length(run);
}

/*
 * CALL tick(INOUT strategies bigint, INOUT granted bigint): one cycle of the
 * scheduler, for those who run without background workers.
 */
Datum
qm_tick(PG_FUNCTION_ARGS)
{
	int64     strategies;
	int64     granted;
	TupleDesc tupdesc;
	Datum     values[2];
	bool      nulls[2] = {false, false};

	procedure_connect(fcinfo, "tick()");
	require_fitting_extension();
	run_due_strategies(&strategies, &granted);
	procedure_work_unit.begin();
	brakes_notice_everything();
	procedure_work_unit.commit();
	SPI_finish();

	if (get_call_result_type(fcinfo, NULL, &tupdesc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "tick() has no result row");
	values[0] = Int64GetDatum(strategies);
	values[1] = Int64GetDatum(granted);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(tupdesc), values, nulls)));
}

/*
 * Raises an error where nothing may be changed: who may only read here may
 * neither start nor end processes, nor wake them.
 */
static void
require_writable(const char *name)
{
	if (RecoveryInProgress())
		ereport(ERROR, (errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
						errmsg("workers cannot be started, stopped or woken on a standby server"),
						errhint("Call it on the primary server.")));
	PreventCommandIfReadOnly(name);
}

/* Records whether workers are to run in this database. */
static void
enable_workers(bool enabled)
{
	rights_require_caller();
	SPI_connect();
	(void) statement_run(&write_enabled, ARGS(arg_bool(enabled)));
	SPI_finish();
}

/* start_workers() */
Datum
qm_start_workers(PG_FUNCTION_ARGS)
{
	Oid         role;
	const char *hint;
	const char *problem;

	require_writable("start_workers()");
	problem = check_worker_role(&role, &hint);
	if (!workers_setting)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("workers are switched off by quota_manager.workers"),
						errhint("Switch them on in the configuration file and reload it.")));
	if (problem != NULL)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("workers cannot run: %s", problem), errhint("%s", hint)));
	require_fitting_extension();
	enable_workers(true);
	if (launcher_is_preloaded)
		retry_when_committed(WORKER_LAUNCHER);
	else
		start_own_launcher();
	PG_RETURN_VOID();
}

/* stop_workers() */
Datum
qm_stop_workers(PG_FUNCTION_ARGS)
{
	require_writable("stop_workers()");
	enable_workers(false);
	break_off_when_committed();
	PG_RETURN_VOID();
}

/* wake_workers(): the launcher serves this database soon, if it can. */
Datum
qm_wake_workers(PG_FUNCTION_ARGS)
{
	require_writable("wake_workers()");
	retry_when_committed(WORKER_LAUNCHER);
	PG_RETURN_VOID();
}
