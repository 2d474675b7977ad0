/*
 * preview.c
 *		What a scan would do, of a strategy as it is given: nothing is written.
 *
 * The first three phases of a scan, on the active snapshot, and in the place of
 * the fourth one counts, or lists a page of users.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "common/compat.h"
#include "common/subtransaction.h"
#include "scan/admit.h"
#include "scan/evaluate.h"

PG_FUNCTION_INFO_V1(qm_preview_counts);
PG_FUNCTION_INFO_V1(qm_preview_page);

/* The arguments that both functions begin with. */
typedef enum PreviewArgument
{
	ARGUMENT_STRATEGY, /* a row of quota_strategy */
	ARGUMENT_FIRING,
	ARGUMENT_ANEW,
	ARGUMENT_ROOM, /* null: any number */
	ARGUMENT_ROOM_AMOUNT,
	ARGUMENTS
} PreviewArgument;

/* A preview, whose users were found. */
typedef struct Preview
{
	Evaluation         *evaluation;
	StrategyEvaluation *strategy;
	AdmissionRule       rule;
	GrantRoom           room;
} Preview;

/* What counting adds to AdmissionCounts. */
typedef struct PreviewCounts
{
	AdmissionCounts counts;
	Datum           over; /* numeric: amount of users over a ceiling */
	int             later_count;
	int64          *later; /* users of later firings, the one after this one first */
} PreviewCounts;

/* The rule by which a scan admits users of the strategy. */
static void
read_rule(Preview *preview, FunctionCallInfo fcinfo)
{
	HeapTupleHeader row = PG_GETARG_HEAPTUPLEHEADER(ARGUMENT_STRATEGY);
	AdmissionRule  *rule = &preview->rule;
	bool            isnull;
	Datum           value;

	rule->strategy_id = preview->strategy->strategy_id;
	rule->firing = PG_GETARG_TIMESTAMPTZ(ARGUMENT_FIRING);
	rule->only_reads = true;
	rule->allowance = &preview->strategy->allowance;
	value = GetAttributeByName(row, "max_exec_per_user", &isnull);
	rule->cap = isnull ? 0 : DatumGetInt32(value);
	rule->anew = PG_GETARG_BOOL(ARGUMENT_ANEW) && isnull;
	value = GetAttributeByName(row, "amount", &isnull);
	rule->amount = isnull ? DirectFunctionCall1(int4_numeric, Int32GetDatum(0)) : value;
	preview->room.grants =
		PG_ARGISNULL(ARGUMENT_ROOM) ? PG_INT64_MAX : PG_GETARG_INT64(ARGUMENT_ROOM);
	preview->room.has_amount = !PG_ARGISNULL(ARGUMENT_ROOM_AMOUNT);
	if (preview->room.has_amount)
		preview->room.amount = PG_GETARG_DATUM(ARGUMENT_ROOM_AMOUNT);
	if (!PG_ARGISNULL(ARGUMENT_ROOM) || preview->room.has_amount)
		rule->room = &preview->room;
}

/*
 * True if users need only be counted: each that is found is admitted, with the
 * same amount, and none can come twice.
 */
static bool
admits_all(const Preview *preview)
{
	return preview->rule.anew && preview->rule.room == NULL && preview->evaluation->source.is_own &&
		   !allowance_asks_balance(&preview->strategy->allowance);
}

/* Plans and evaluates. */
static void
evaluate(void *argument)
{
	Preview      *preview = argument;
	MemoryContext plans =
		AllocSetContextCreate(CurrentMemoryContext, "plans of a preview", ALLOCSET_DEFAULT_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(plans);
	ListCell     *cell;

	/* Until the end of the subtransaction. */
	XactReadOnly = true;
	foreach (cell, plan_evaluation(preview->evaluation, preview->evaluation->strategies))
		evaluate_query(&preview->evaluation->source, lfirst(cell));
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(plans);
}

/* Finds the users of a strategy; code of others can neither write nor leave anything open. */
static void
find_users(Preview *preview)
{
	evaluation_open_spools(preview->evaluation, preview->strategy, 1);
	subtransaction_undo(evaluate, preview);
}

/* Begins a preview. */
static void
begin(Preview *preview, FunctionCallInfo fcinfo)
{
	preview->evaluation = evaluation_begin_copy(PG_GETARG_HEAPTUPLEHEADER(ARGUMENT_STRATEGY));
	preview->strategy = linitial(preview->evaluation->strategies);
	read_rule(preview, fcinfo);
}

/* The firings after this one at which a user would be granted again. */
static void
count_later(PreviewCounts *result, const AdmissionRule *rule, const AdmittedUser *user)
{
	int64 left = rule->cap - user->had - (user->verdict == VERDICT_ADMITTED);

	for (int i = 0; i < result->later_count && (rule->cap == 0 || i < left); i++)
		result->later[i]++;
}

/* Sums up what users over a ceiling would have got. */
static void
count_over(PreviewCounts *result, const AdmittedUser *user)
{
	Datum before = result->over;

	result->over = DirectFunctionCall2(numeric_add, before, user->amount);
	pfree(DatumGetPointer(before));
}

/* Admits the users of a spool, and counts. */
static void
count_users(Spool *spool, const AdmissionRule *rule, PreviewCounts *result)
{
	Admission   *admission = admission_begin(spool, rule);
	AdmittedUser user;

	while (admission_next(admission, &user))
	{
		if (user.verdict == VERDICT_OVER_CEILING)
			count_over(result, &user);
		if (result->later_count > 0)
			count_later(result, rule, &user);
	}
	result->counts = admission_end(admission);
}

/* Counts the users that were found and counted, all of whom are admitted. */
static void
count_all(const Preview *preview, PreviewCounts *result)
{
	int64 found = preview->strategy->counted;

	result->counts.of[VERDICT_ADMITTED] = found;
	result->counts.of[VERDICT_UNKNOWN] = preview->strategy->counted_missing;
	result->counts.amount = DirectFunctionCall2(
		numeric_mul, DirectFunctionCall1(int8_numeric, Int64GetDatum(found)), preview->rule.amount);
	result->counts.magnitude = DirectFunctionCall1(numeric_abs, result->counts.amount);
	for (int i = 0; i < result->later_count; i++)
		result->later[i] = found;
}

/* Counts all users by their verdicts. */
static void
count_by_verdict(Preview *preview, PreviewCounts *result)
{
	PreviewCounts missing = {{{0}}};

	count_users(preview->strategy->matched, &preview->rule, result);
	if (preview->strategy->missing == NULL)
		return;
	preview->rule.unknown = true;
	count_users(preview->strategy->missing, &preview->rule, &missing);
	result->counts.of[VERDICT_UNKNOWN] = missing.counts.of[VERDICT_UNKNOWN];
}

static Datum
array_of_counts(const int64 *counts, int count)
{
	Datum *values = palloc(sizeof(Datum) * Max(count, 1));

	for (int i = 0; i < count; i++)
		values[i] = Int64GetDatum(counts[i]);
	return PointerGetDatum(
		construct_array(values, count, INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

static void
init_counts(PreviewCounts *result, int later_count)
{
	result->over = DirectFunctionCall1(int4_numeric, Int32GetDatum(0));
	result->later_count = later_count;
	result->later = palloc0(sizeof(int64) * Max(later_count, 1));
}

/*
 * preview_counts(strategy, firing, anew, room, room_amount, later): what
 * grant_evaluated() would count for the strategy, and for as many later firings
 * how many users would be granted again.
 */
Datum
qm_preview_counts(PG_FUNCTION_ARGS)
{
	Preview             preview = {0};
	PreviewCounts       result = {{{0}}};
	StrategyEvaluation *strategy;
	const int64        *of = result.counts.of;
	TupleDesc           descriptor;

	if (get_call_result_type(fcinfo, NULL, &descriptor) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	begin(&preview, fcinfo);
	strategy = preview.strategy;
	strategy->only_counts = admits_all(&preview);
	find_users(&preview);
	SPI_connect();
	init_counts(&result, PG_GETARG_INT32(ARGUMENTS));
	if (strategy->only_counts)
		count_all(&preview, &result);
	else
		count_by_verdict(&preview, &result);
	{
		Datum values[] = {
			Int64GetDatum(strategy->counted + spool_count(strategy->matched) + strategy->left_out),
			Int64GetDatum(of[VERDICT_ADMITTED]),
			Int64GetDatum(of[VERDICT_GRANTED]),
			Int64GetDatum(of[VERDICT_CAPPED]),
			Int64GetDatum(of[VERDICT_UNKNOWN]),
			Int64GetDatum(strategy->left_out + strategy->left_out_missing),
			Int64GetDatum(of[VERDICT_OVER_CEILING]),
			Int64GetDatum(of[VERDICT_SUFFICIENT]),
			result.counts.amount,
			result.counts.magnitude,
			result.over,
			array_of_counts(result.later, result.later_count)};
		bool            nulls[lengthof(values)] = {false};
		HeapTupleHeader row =
			SPI_returntuple(heap_form_tuple(BlessTupleDesc(descriptor), values, nulls), descriptor);

		SPI_finish();
		evaluation_drop(preview.evaluation);
		PG_RETURN_HEAPTUPLEHEADER(row);
	}
}

/* Is the id above another one, byte by byte? */
static bool
is_above(const text *id, const text *other)
{
	int length = VARSIZE_ANY_EXHDR(id);
	int other_length = VARSIZE_ANY_EXHDR(other);
	int order = memcmp(VARDATA_ANY(id), VARDATA_ANY(other), Min(length, other_length));

	return order > 0 || (order == 0 && length > other_length);
}

/* Which users are listed. */
typedef struct UserPage
{
	Verdict     verdict;
	const text *after; /* NULL: from the first one */
	int         limit;
} UserPage;

/* Adds users of a spool to the result. */
static void
put_page(ReturnSetInfo *result, Spool *spool, const AdmissionRule *rule, const UserPage *page)
{
	bool has_amounts = page->verdict == VERDICT_ADMITTED || page->verdict == VERDICT_OVER_CEILING;
	Admission   *admission;
	AdmittedUser user;
	int          left = page->limit;

	SPI_connect();
	admission = admission_begin(spool, rule);
	while (left > 0 && admission_next(admission, &user))
	{
		Datum values[] = {PointerGetDatum(user.id), user.amount};
		bool  nulls[] = {false, !has_amounts};

		if (user.verdict != page->verdict ||
			(page->after != NULL && !is_above(user.id, page->after)))
			continue;
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
		left--;
	}
	(void) admission_end(admission);
	SPI_finish();
}

/* The verdict of a name. */
static Verdict
verdict_of_name(const char *name)
{
	for (int i = 0; i < VERDICTS; i++)
		if (strcmp(name, verdict_name(i)) == 0)
			return i;
	ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					errmsg("unknown verdict \"%s\" of a preview", name)));
}

/*
 * preview_page(strategy, firing, anew, room, room_amount, verdict, after, n): ids
 * of the first n users with a verdict, in the order of their bytes, after an id,
 * and what each would get.
 */
Datum
qm_preview_page(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	UserPage page = {.verdict = verdict_of_name(text_to_cstring(PG_GETARG_TEXT_PP(ARGUMENTS))),
					 .after = PG_ARGISNULL(ARGUMENTS + 1) ? NULL : PG_GETARG_TEXT_PP(ARGUMENTS + 1),
					 .limit = PG_GETARG_INT32(ARGUMENTS + 2)};
	Preview  preview = {0};
	Spool   *spool;

	InitMaterializedSRF(fcinfo, 0);
	begin(&preview, fcinfo);
	find_users(&preview);
	preview.rule.unknown = page.verdict == VERDICT_UNKNOWN;
	spool = preview.rule.unknown ? preview.strategy->missing : preview.strategy->matched;
	if (spool)
		put_page(result, spool, &preview.rule, &page);
	evaluation_drop(preview.evaluation);
	return (Datum) 0;
}
