/*
 * engine.c
 *		The phases of a scan as functions of SQL, which keeps the records of
 *		runs and the boundary of errors.
 *
 * They are called by the owner, in functions of the extension.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/pg_lsn.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/typcache.h"
#include "utils/xid8.h"

#include "common/crash_point.h"
#include "common/progress.h"
#include "common/rights.h"
#include "common/version.h"
#include "scan/admit.h"
#include "scan/evaluate.h"
#include "scan/write.h"

PG_FUNCTION_INFO_V1(qm_begin_scan);
PG_FUNCTION_INFO_V1(qm_evaluate);
PG_FUNCTION_INFO_V1(qm_evaluation_mark);
PG_FUNCTION_INFO_V1(qm_end_evaluation);
PG_FUNCTION_INFO_V1(qm_grant_evaluated);
PG_FUNCTION_INFO_V1(qm_evaluated_count);
PG_FUNCTION_INFO_V1(qm_evaluated_users);
PG_FUNCTION_INFO_V1(qm_visible_strategies);

/* Progress is reported after this many users. */
#define PROGRESS_ROWS 1024

/* If more rows have changed than this, reading all in order costs little more. */
#define CHANGED_MAX 100000

/*
 * Opens the spools of the strategies that are to be evaluated; returns these.
 * Of several it is those that can share: what a scan grants for others changes
 * nothing for them.
 */
static List *
open_spools(Evaluation *evaluation)
{
	bool      alone = list_length(evaluation->strategies) == 1;
	List     *chosen = NIL;
	ListCell *cell;

	foreach (cell, evaluation->strategies)
		if (alone || evaluation_can_share(evaluation, lfirst(cell)))
			chosen = lappend(chosen, lfirst(cell));
	foreach (cell, chosen)
		evaluation_open_spools(evaluation, lfirst(cell), list_length(chosen));
	return chosen;
}

/*
 * The mark that reaches back furthest: it finds the users who have changed since
 * any of the marks.
 */
static EvaluationMark
furthest_mark(const List *strategies)
{
	EvaluationMark furthest = ((StrategyEvaluation *) linitial(strategies))->mark;
	ListCell      *cell;

	foreach (cell, strategies)
	{
		const EvaluationMark *mark = &((StrategyEvaluation *) lfirst(cell))->mark;

		if (FullTransactionIdPrecedes(mark->seen, furthest.seen))
			furthest.seen = mark->seen;
		if (mark->base.position < furthest.base.position)
			furthest.base.position = mark->base.position;
	}
	return furthest;
}

/*
 * Evaluates strategies for the users who have changed; NULL, or why all users
 * must be evaluated.
 */
static const char *
evaluate_changed(const Evaluation *evaluation, List *strategies)
{
	EvaluationMark   mark = furthest_mark(strategies);
	ParamListInfo    positions;
	EvaluationQuery *query;
	int              count;

	positions = changed_positions(evaluation->source.relation, &mark, CHANGED_MAX, &count);
	if (positions == NULL)
		return "so many users have changed";
	query = plan_by_position(evaluation, strategies, positions);
	if (query == NULL)
		return "the table of users is not kept here";
	if (count > 0)
		evaluate_query(&evaluation->source, query);
	return NULL;
}

/* Evaluates the strategies that can go by what has changed; returns the others. */
static List *
evaluate_incrementally(const Evaluation *evaluation, List *strategies)
{
	List       *incremental = NIL;
	List       *whole = NIL;
	const char *reason = NULL;
	ListCell   *cell;

	foreach (cell, strategies)
	{
		StrategyEvaluation *strategy = lfirst(cell);

		if (strategy->whole_reason == NULL)
			incremental = lappend(incremental, strategy);
		else
			whole = lappend(whole, strategy);
	}
	if (incremental != NIL)
		reason = evaluate_changed(evaluation, incremental);
	if (reason == NULL)
		return whole;
	foreach (cell, incremental)
		((StrategyEvaluation *) lfirst(cell))->whole_reason = reason;
	return list_concat(whole, incremental);
}

/* Records how far the evaluation has seen. */
static void
mark_all(const Evaluation *evaluation, const List *strategies)
{
	ListCell *cell;

	foreach (cell, strategies)
	{
		StrategyEvaluation *strategy = lfirst(cell);

		/* Every scan reports the users who are left out, so they must be found again. */
		if (strategy->left_out > 0)
			strategy->can_mark = false;
		strategy->mark_users = evaluation->source.fingerprint;
		strategy->mark = evaluation_mark(evaluation->begin, GetActiveSnapshot(),
										 strategy->has_mark ? &strategy->mark : NULL);
	}
}

/* Are grants being written from a spool? */
static bool granting = false;

/*
 * A trigger of a site's on grants cannot scan: the evaluation that is being
 * written would be ended with that of its scan.
 */
static void
require_no_granting(void)
{
	if (granting)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_IN_USE),
						errmsg("strategies are not evaluated while a scan writes grants"),
						errdetail("A trigger on quota_execute, or what it calls, evaluates one.")));
}

/*
 * begin_scan(): the scan has seen what was written up to now, if nothing else
 * was running.
 */
Datum
qm_begin_scan(PG_FUNCTION_ARGS)
{
	/* First, for code of others: this is its error, whatever else is running. */
	rights_require_caller();
	require_no_granting();
	require_fitting_extension();
	/* The end of this scan would end the evaluation that the outer one still has to write. */
	if (evaluation_is_kept())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE), errmsg("a scan is running in this transaction"),
				 errdetail("A trigger on what it writes, or what that calls, scans.")));
	log_moment_of_transaction();
	progress_begin(PROGRESS_SCAN);
	progress_set(PROGRESS_SCAN, SCAN_RUNS_TOTAL, 1);
	PG_RETURN_VOID();
}

/*
 * evaluate(strategies): finds the users of one strategy, or of those of several
 * that can be evaluated beforehand, and returns how many were found.
 */
Datum
qm_evaluate(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	Evaluation    *evaluation;
	MemoryContext  plans;
	MemoryContext  caller;
	List          *strategies;
	ListCell      *cell;

	require_no_granting();
	progress_set(PROGRESS_SCAN, SCAN_PHASE, SCAN_PLANNING);
	evaluation = evaluation_begin(PG_GETARG_DATUM(0));
	plans = AllocSetContextCreate(CurrentMemoryContext, "plans of a scan", ALLOCSET_DEFAULT_SIZES);
	caller = MemoryContextSwitchTo(plans);
	strategies = open_spools(evaluation);
	progress_set(PROGRESS_SCAN, SCAN_STRATEGY,
				 list_length(evaluation->strategies) == 1
					 ? ((StrategyEvaluation *) linitial(evaluation->strategies))->strategy_id
					 : 0);
	/* One snapshot for all, taken after the moment of the marks. */
	CommandCounterIncrement();
	PushActiveSnapshot(GetTransactionSnapshot());
	foreach (cell,
			 plan_evaluation(evaluation, evaluate_incrementally(evaluation, list_copy(strategies))))
		evaluate_query(&evaluation->source, lfirst(cell));
	mark_all(evaluation, strategies);
	PopActiveSnapshot();
	MemoryContextSwitchTo(caller);

	InitMaterializedSRF(fcinfo, 0);
	foreach (cell, strategies)
	{
		const StrategyEvaluation *strategy = lfirst(cell);
		Datum values[] = {Int32GetDatum(strategy->strategy_id), Int32GetDatum(strategy->version),
						  Int64GetDatum(spool_count(strategy->matched)),
						  Int64GetDatum(strategy->missing ? spool_count(strategy->missing) : 0),
						  Int64GetDatum(strategy->left_out + strategy->left_out_missing)};
		bool  nulls[] = {false, false, false, false, false};

		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	MemoryContextDelete(plans);
	return (Datum) 0;
}

/*
 * evaluation_mark(strategy): how far the evaluation of a strategy has seen, and
 * why it evaluated all users; nulls where the next one cannot use a mark.
 */
Datum
qm_evaluation_mark(PG_FUNCTION_ARGS)
{
	StrategyEvaluation *strategy = evaluation_find(PG_GETARG_INT32(0));
	const LogMoment    *base = &strategy->mark.base;
	const LogMoment    *candidate = &strategy->mark.candidate;
	bool                has_base = base->position != InvalidXLogRecPtr;
	Datum               values[7];
	bool                nulls[] = {strategy->whole_reason == NULL,
								   !strategy->can_mark,
								   !strategy->can_mark,
								   !strategy->can_mark || !has_base,
								   !strategy->can_mark || !has_base,
								   !strategy->can_mark,
								   !strategy->can_mark};
	TupleDesc           descriptor;

	if (get_call_result_type(fcinfo, NULL, &descriptor) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	values[0] = nulls[0] ? (Datum) 0 : CStringGetTextDatum(strategy->whole_reason);
	values[1] = Int64GetDatum(strategy->mark_users);
	values[2] = FullTransactionIdGetDatum(strategy->mark.seen);
	values[3] = LSNGetDatum(base->position);
	values[4] = FullTransactionIdGetDatum(base->next_transaction);
	values[5] = LSNGetDatum(candidate->position);
	values[6] = FullTransactionIdGetDatum(candidate->next_transaction);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(descriptor), values, nulls)));
}

/* end_evaluation(strategy): frees what was found for it; null: for all. */
Datum
qm_end_evaluation(PG_FUNCTION_ARGS)
{
	evaluation_end(PG_ARGISNULL(0) ? 0 : PG_GETARG_INT32(0));
	/* it was all of a scan */
	if (PG_ARGISNULL(0))
		progress_end(PROGRESS_SCAN);
	PG_RETURN_VOID();
}

/*
 * Admits the users of a spool, and writes grants of those admitted if there
 * is a writer.
 */
static AdmissionCounts
admit_all(Spool *spool, const AdmissionRule *rule, GrantWriter *writer)
{
	Admission   *admission = admission_begin(spool, rule);
	int64        done = 0;
	AdmittedUser user;

	progress_set(PROGRESS_SCAN, SCAN_USERS_TOTAL, spool_count(spool));
	progress_set(PROGRESS_SCAN, SCAN_USERS_DONE, 0);
	while (admission_next(admission, &user))
	{
		if (++done % PROGRESS_ROWS == 0)
			progress_set(PROGRESS_SCAN, SCAN_USERS_DONE, done);
		if (writer && user.verdict == VERDICT_ADMITTED)
			grant_writer_add(writer, user.id, user.amount);
	}
	return admission_end(admission);
}

/* A field of the template, which must have a value. */
static Datum
template_field(HeapTupleHeader pattern, const char *name)
{
	bool  isnull;
	Datum value = GetAttributeByName(pattern, name, &isnull);

	if (isnull)
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						errmsg("the template of grants has no %s", name)));
	return value;
}

/*
 * The rule of a strategy by the template of its grants.  What a balance lacks is
 * granted at the gateway that the balance is of.
 */
static AdmissionRule
admission_rule(HeapTupleHeader pattern, const StrategyEvaluation *strategy)
{
	AdmissionRule rule = {.strategy_id = strategy->strategy_id,
						  .firing = DatumGetTimestampTz(template_field(pattern, "scheduled_time")),
						  .amount = template_field(pattern, "amount"),
						  .allowance = &strategy->allowance};

	if (allowance_asks_balance(rule.allowance) && rule.allowance->gateway &&
		strcmp(TextDatumGetCString(template_field(pattern, "gateway")), rule.allowance->gateway) !=
			0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("another gateway serves the model since balances were read at \"%s\"",
						rule.allowance->gateway)));
	return rule;
}

/*
 * The room below ceilings: arguments from this one on are the most grants and
 * the highest amount, of which nulls set no limit; NULL: neither does.
 */
static const GrantRoom *
room_argument(FunctionCallInfo fcinfo, int first)
{
	GrantRoom *room;

	if (PG_NARGS() <= first || (PG_ARGISNULL(first) && PG_ARGISNULL(first + 1)))
		return NULL;
	room = palloc0(sizeof(GrantRoom));
	room->grants = PG_ARGISNULL(first) ? PG_INT64_MAX : PG_GETARG_INT64(first);
	room->has_amount = !PG_ARGISNULL(first + 1);
	if (room->has_amount)
		room->amount = PG_GETARG_DATUM(first + 1);
	return room;
}

/* What became of the users that were found. */
typedef struct Granting
{
	AdmissionCounts found;
	AdmissionCounts missing;
	int64           granted;
} Granting;

/* Admits all users of a strategy, and writes grants where there is a template. */
static Granting
grant_found(StrategyEvaluation *strategy, AdmissionRule rule, HeapTupleHeader pattern)
{
	MemoryContext caller = CurrentMemoryContext;
	Granting      result;
	GrantWriter  *writer = NULL;

	SPI_connect();
	if (pattern != NULL && spool_count(strategy->matched) > 0)
		writer = grant_writer_begin(pattern, allowance_asks_balance(rule.allowance));
	result.found = admit_all(strategy->matched, &rule, writer);
	result.granted = writer ? grant_writer_end(writer) : result.found.of[VERDICT_ADMITTED];
	rule.unknown = true;
	memset(&result.missing, 0, sizeof(AdmissionCounts));
	if (strategy->missing && spool_count(strategy->missing) > 0)
		result.missing = admit_all(strategy->missing, &rule, NULL);
	MemoryContextSwitchTo(caller);
	result.found.amount = datumCopy(result.found.amount, false, -1);
	result.found.magnitude = datumCopy(result.found.magnitude, false, -1);
	SPI_finish();
	return result;
}

/*
 * grant_evaluated(template, cap, anew, grants, amount, writes): writes grants
 * for the users that were found of the strategy of the template, as far as
 * there is room below ceilings, and counts.  1.0.0 has the first three only.
 */
Datum
qm_grant_evaluated(PG_FUNCTION_ARGS)
{
	HeapTupleHeader     pattern = PG_GETARG_HEAPTUPLEHEADER(0);
	StrategyEvaluation *strategy =
		evaluation_find(DatumGetInt32(template_field(pattern, "strategy_id")));
	AdmissionRule rule = admission_rule(pattern, strategy);
	bool          writes = PG_NARGS() <= 5 || PG_GETARG_BOOL(5);
	Granting      result;
	TupleDesc     descriptor;

	if (get_call_result_type(fcinfo, NULL, &descriptor) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	rule.cap = PG_ARGISNULL(1) ? 0 : PG_GETARG_INT32(1);
	rule.anew = PG_GETARG_BOOL(2) && PG_ARGISNULL(1);
	rule.room = room_argument(fcinfo, 3);
	granting = true;
	progress_set(PROGRESS_SCAN, SCAN_PHASE, SCAN_WRITING);
	progress_set(PROGRESS_SCAN, SCAN_STRATEGY, rule.strategy_id);
	PG_TRY();
	{
		result = grant_found(strategy, rule, writes ? pattern : NULL);
	}
	PG_FINALLY();
	{
		granting = false;
	}
	PG_END_TRY();
	progress_set(PROGRESS_SCAN, SCAN_PHASE, SCAN_RECORDING);
	if (writes)
		CRASH_POINT(scan_granted);
	{
		Datum values[] = {Int64GetDatum(spool_count(strategy->matched) + strategy->left_out),
						  Int64GetDatum(result.granted),
						  Int64GetDatum(result.found.of[VERDICT_GRANTED]),
						  Int64GetDatum(result.found.of[VERDICT_CAPPED]),
						  Int64GetDatum(result.missing.of[VERDICT_UNKNOWN]),
						  Int64GetDatum(strategy->left_out + strategy->left_out_missing),
						  Int64GetDatum(result.found.of[VERDICT_OVER_CEILING]),
						  Int64GetDatum(result.found.of[VERDICT_SUFFICIENT]),
						  result.found.amount,
						  result.found.magnitude};
		bool  nulls[lengthof(values)] = {false};

		PG_RETURN_DATUM(
			HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(descriptor), values, nulls)));
	}
}

/* evaluated_count(strategy): how many users were found who meet its condition. */
Datum
qm_evaluated_count(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64(spool_count(evaluation_find(PG_GETARG_INT32(0))->matched));
}

/* Adds the users of a spool to the result, each with its verdict. */
static void
put_users(ReturnSetInfo *result, Spool *spool, const AdmissionRule *rule)
{
	Admission   *admission = admission_begin(spool, rule);
	AdmittedUser user;

	while (admission_next(admission, &user))
	{
		Datum values[] = {PointerGetDatum(user.id),
						  CStringGetTextDatum(verdict_name(user.verdict))};
		bool  nulls[] = {false, false};

		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
		pfree(DatumGetPointer(values[1]));
	}
	(void) admission_end(admission);
}

/*
 * evaluated_users(strategy, firing, cap): what grant_evaluated() would do of
 * each user below all ceilings, including users who would match if a balance were known;
 * writes nothing.
 */
Datum
qm_evaluated_users(PG_FUNCTION_ARGS)
{
	ReturnSetInfo      *result = (ReturnSetInfo *) fcinfo->resultinfo;
	StrategyEvaluation *strategy = evaluation_find(PG_GETARG_INT32(0));
	AdmissionRule       rule = {.strategy_id = PG_GETARG_INT32(0),
								.firing = PG_GETARG_TIMESTAMPTZ(1),
								.cap = PG_ARGISNULL(2) ? 0 : PG_GETARG_INT32(2),
								.amount = DirectFunctionCall1(int4_numeric, Int32GetDatum(0)),
								.allowance = &strategy->allowance};

	InitMaterializedSRF(fcinfo, 0);
	SPI_connect();
	put_users(result, strategy->matched, &rule);
	rule.unknown = true;
	if (strategy->missing)
		put_users(result, strategy->missing, &rule);
	SPI_finish();
	return (Datum) 0;
}

/*
 * visible_strategies(): ids of the strategies that the caller may see, by the
 * rights and policies of the site.
 */
Datum
qm_visible_strategies(PG_FUNCTION_ARGS)
{
	MemoryContext caller = CurrentMemoryContext;
	RightsBefore  before;
	Datum         result;
	bool          isnull;

	SPI_connect();
	rights_become_caller(&before);
	if (SPI_execute("SELECT coalesce(pg_catalog.array_agg(s.id), '{}')"
					" FROM quota_manager.quota_strategy s",
					false, 1) != SPI_OK_SELECT ||
		SPI_processed != 1)
		elog(ERROR, "could not read strategies");
	rights_restore(&before);
	result = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	MemoryContextSwitchTo(caller);
	result = PointerGetDatum(DatumGetArrayTypePCopy(result));
	SPI_finish();
	return result;
}
