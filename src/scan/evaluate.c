/*
 * evaluate.c
 *		Second phase of a scan: runs the planned queries and spools what they
 *		find.
 */
#include "postgres.h"

#include "executor/executor.h"
#include "tcop/dest.h"
#include "tcop/pquery.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "common/compat.h"
#include "common/pinned_settings.h"
#include "common/progress.h"
#include "common/rights.h"
#include "scan/evaluate.h"

/* A receiver that sorts rows into the spools of strategies. */
/* Progress is reported after this many users. */
#define PROGRESS_ROWS 1024

typedef struct SpoolReceiver
{
	DestReceiver           pub;
	const EvaluationQuery *query;
	StrategyEvaluation   **strategies;
	ProgramStep          **programs;
	int                    count;
	MemoryContext          memory; /* of what is detoasted of one row */
	int64                  rows;
} SpoolReceiver;

static void
startup_receiver(DestReceiver *self, int operation, TupleDesc descriptor)
{
}

static void
shutdown_receiver(DestReceiver *self)
{
}

static void
destroy_receiver(DestReceiver *self)
{
}

/* Adds the user to each strategy whose program holds. */
static void
run_programs(SpoolReceiver *receiver, text *id, const Datum *values, const bool *nulls)
{
	for (int i = 0; i < receiver->count; i++)
		if (program_run(receiver->programs[i], values, nulls))
			evaluation_add(receiver->strategies[i], id, true, (Datum) 0);
}

/* Adds the user of a row that says whether the condition is met, or may be. */
static void
add_by_verdict(StrategyEvaluation *strategy, text *id, const TupleTableSlot *slot)
{
	bool  meets = !slot->tts_isnull[1] && DatumGetBool(slot->tts_values[1]);
	Datum balance = (Datum) 0;

	if (allowance_asks_balance(&strategy->allowance))
	{
		meets &= !slot->tts_isnull[2];
		balance = slot->tts_values[2];
	}
	evaluation_add(strategy, id, meets, balance);
}

/* Takes one row of the query. */
static bool
receive_row(TupleTableSlot *slot, DestReceiver *self)
{
	SpoolReceiver *receiver = (SpoolReceiver *) self;
	MemoryContext  caller;
	text          *id;

	if (++receiver->rows % PROGRESS_ROWS == 0)
		progress_set(PROGRESS_SCAN, SCAN_USERS_DONE, receiver->rows);
	slot_getallattrs(slot);
	/* A user without an id cannot be granted anything. */
	if (slot->tts_isnull[0])
		return true;
	caller = MemoryContextSwitchTo(receiver->memory);
	id = DatumGetTextPP(slot->tts_values[0]);
	MemoryContextSwitchTo(caller);
	switch (receiver->query->answer)
	{
		case QUERY_MATCHED:
			evaluation_add(receiver->strategies[0], id, true, (Datum) 0);
			break;
		case QUERY_VERDICT:
			add_by_verdict(receiver->strategies[0], id, slot);
			break;
		case QUERY_PROGRAMS:
			run_programs(receiver, id, slot->tts_values + 1, slot->tts_isnull + 1);
			break;
	}
	if ((Pointer) id != DatumGetPointer(slot->tts_values[0]))
		MemoryContextReset(receiver->memory);
	return true;
}

/* The elements of a list of pointers as an array. */
static void *
list_to_array(const List *list)
{
	void    **array = palloc(sizeof(void *) * Max(list_length(list), 1));
	ListCell *cell;

	foreach (cell, list)
		array[foreach_current_index(cell)] = lfirst(cell);
	return array;
}

/* How many users the planner expects to be evaluated. */
static int64
expected_rows(const PlannedStmt *plan)
{
	return (int64) Min(plan->planTree->plan_rows, (double) PG_INT32_MAX);
}

/*
 * Runs a query in the active snapshot, with the rights of the reader; the
 * spools of its strategies are open.
 */
void
evaluate_query(const UserSource *source, const EvaluationQuery *query)
{
	RightsBefore  before;
	int           settings = NewGUCNestLevel();
	QueryDesc    *description;
	SpoolReceiver receiver = {
		.pub = {receive_row, startup_receiver, shutdown_receiver, destroy_receiver, DestNone},
		.query = query,
		.strategies = list_to_array(query->strategies),
		.programs = list_to_array(query->programs),
		.count = list_length(query->strategies),
		.memory = AllocSetContextCreate(CurrentMemoryContext, "row of an evaluation",
										ALLOCSET_SMALL_SIZES)};

	settings_pin(GUC_ACTION_SAVE);
	rights_become_reader(source->reader, &before);
	description = CreateQueryDesc(query->plan, query->text, GetActiveSnapshot(), InvalidSnapshot,
								  &receiver.pub, query->params, NULL, 0);
	progress_set(PROGRESS_SCAN, SCAN_PHASE, SCAN_EVALUATING);
	progress_set(PROGRESS_SCAN, SCAN_USERS_TOTAL, expected_rows(query->plan));
	progress_set(PROGRESS_SCAN, SCAN_USERS_DONE, 0);
	ExecutorStart(description, 0);
	run_executor_once(description);
	ExecutorFinish(description);
	ExecutorEnd(description);
	FreeQueryDesc(description);
	rights_restore(&before);
	/* Settings that code of others has changed must not affect later statements. */
	AtEOXact_GUC(false, settings);
	MemoryContextDelete(receiver.memory);
}
