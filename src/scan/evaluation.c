/*
 * evaluation.c
 *		What evaluating strategies found, kept until it is written.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/memutils.h"
#include "utils/pg_lsn.h"
#include "utils/xid8.h"

#include "common/compat.h"
#include "common/rights.h"
#include "common/statement.h"
#include "common/version.h"
#include "endpoint/gateway_row.h"
#include "scan/evaluation.h"

/* An id longer than this has no room in a key: quota_internal.user_id_fits(). */
#define USER_ID_MAX_BYTES 2600

bool incremental_scans;

/* A spool has at least so many kilobytes of memory. */
#define SPOOL_MEMORY_MIN 64

#define STRATEGIES_TO_EVALUATE(allowance, gateway)                                                   \
	"SELECT s.id, s.version, s.type = 'single',"                                                     \
	" quota_internal.bound_condition(s.condition)::text, s.max_exec_per_user IS NOT NULL,"           \
	" m.users, m.seen, m.base, m.base_next, m.candidate, m.candidate_next" allowance                 \
	" FROM quota_manager.quota_strategy s LEFT JOIN LATERAL (SELECT k.* FROM"                        \
	" quota_internal.scan_mark k WHERE k.strategy_id = s.id AND k.strategy_version = s.version"      \
	" AND EXISTS (SELECT 1 FROM quota_manager.quota_run r WHERE r.id = k.run_id)" /* looked up for \
	each strategy, whatever the statistics of so small a table say */ \
	" OFFSET 0) m ON true" gateway " WHERE s.id = ANY ($1) ORDER BY s.id"

static Statement strategies_to_evaluate = {
	STRATEGIES_TO_EVALUATE(", s.amount, s.allowance, g.name, g.dialect",
						   " LEFT JOIN LATERAL (SELECT w.name, w.dialect FROM"
						   " quota_manager.quota_gateway w WHERE s.allowance <> 'add'"
						   " AND w.name = quota_manager.gateway_of(s.model) OFFSET 0) g ON true"),
	{INT4ARRAYOID}};

/* Before strategies had allowances. */
static Statement strategies_of_older_sql = {STRATEGIES_TO_EVALUATE("", ""), {INT4ARRAYOID}};

/* Of a strategy that need not be stored: its condition, and the gateway of its model. */
static Statement parts_of_copy = {
	"SELECT quota_internal.bound_condition($1::quota_manager.condition)::text, g.name, g.dialect"
	" FROM (VALUES (quota_manager.gateway_of($2))) m (gateway)"
	" LEFT JOIN quota_manager.quota_gateway g ON g.name = m.gateway",
	{TEXTOID, TEXTOID}};

/* The evaluations of this transaction, the latest first. */
static Evaluation *evaluations = NULL;

/* Forgets an evaluation whose memory is freed. */
static void
forget(void *argument)
{
	for (Evaluation **link = &evaluations; *link; link = &(*link)->next)
		if (*link == argument)
		{
			*link = (*link)->next;
			return;
		}
}

/*
 * Ends an evaluation, which is forgotten with its memory.  Its files are closed
 * without a flush, since the flush of a spool may be what failed.
 */
void
evaluation_drop(Evaluation *evaluation)
{
	ResourceOwnerRelease(evaluation->files, RESOURCE_RELEASE_BEFORE_LOCKS, false, false);
	ResourceOwnerRelease(evaluation->files, RESOURCE_RELEASE_LOCKS, false, false);
	ResourceOwnerRelease(evaluation->files, RESOURCE_RELEASE_AFTER_LOCKS, false, false);
	ResourceOwnerDelete(evaluation->files);
	MemoryContextDelete(evaluation->memory);
}

/*
 * Frees evaluations before the transaction is committed: open temporary files
 * would cause warnings.
 */
static void
end_with_transaction(XactEvent event, void *argument)
{
	if (event == XACT_EVENT_PRE_COMMIT || event == XACT_EVENT_PRE_PREPARE)
		evaluation_end(0);
}

static void
end_with_subtransaction(SubXactEvent event, SubTransactionId id, SubTransactionId parent,
						void *argument)
{
	Evaluation *next;

	if (event != SUBXACT_EVENT_ABORT_SUB && event != SUBXACT_EVENT_COMMIT_SUB)
		return;
	for (Evaluation *evaluation = evaluations; evaluation; evaluation = next)
	{
		next = evaluation->next;
		if (evaluation->subtransaction != id)
			continue;
		if (event == SUBXACT_EVENT_ABORT_SUB)
			evaluation_drop(evaluation);
		else
			evaluation->subtransaction = parent;
	}
}

static void
watch_transactions(void)
{
	static bool watching = false;

	if (!watching)
	{
		RegisterXactCallback(end_with_transaction, NULL);
		RegisterSubXactCallback(end_with_subtransaction, NULL);
		watching = true;
	}
}

/*
 * Reads the condition of a strategy; if it is invalid, raises the error or leaves it
 * without a tree.
 */
static void
read_condition(StrategyEvaluation *strategy, bool raise)
{
	ConditionError error = {0};

	strategy->tree =
		condition_parse(strategy->condition, (int) strlen(strategy->condition), &error);
	if (strategy->tree && !condition_traits(strategy->tree, &strategy->traits, &error))
		strategy->tree = NULL;
	if (strategy->tree == NULL && raise)
		condition_raise(&error, strategy->condition);
}

/* Reads the mark of the evaluation before, from the seventh column on. */
static void
read_mark(StrategyEvaluation *strategy, uint64 row)
{
	Datum values[5] = {0};
	bool  nulls[5] = {false};

	for (int i = 0; i < lengthof(values); i++)
		values[i] = result_datum(row, 7 + i, &nulls[i]);
	strategy->has_mark = !nulls[0];
	if (nulls[0])
		return;
	strategy->mark.seen = DatumGetFullTransactionId(values[0]);
	if (!nulls[1])
	{
		strategy->mark.base.position = DatumGetLSN(values[1]);
		strategy->mark.base.next_transaction = DatumGetFullTransactionId(values[2]);
	}
	strategy->mark.candidate.position = DatumGetLSN(values[3]);
	strategy->mark.candidate.next_transaction = DatumGetFullTransactionId(values[4]);
}

/* Reads the gateway of an allowance from two columns. */
static void
read_gateway(Allowance *allowance, uint64 row, int column)
{
	if (result_is_null(row, column))
		return;
	allowance->gateway = result_text(row, column);
	if (!gateway_dialect_read(result_text(row, column + 1), &allowance->dialect))
		elog(ERROR, "unknown dialect of gateway \"%s\"", allowance->gateway);
}

/* Reads the allowance of a strategy, from the twelfth column on. */
static void
read_allowance(StrategyEvaluation *strategy, uint64 row)
{
	bool isnull;

	strategy->allowance.kind = allowance_kind(result_text(row, 13));
	if (!allowance_asks_balance(&strategy->allowance))
		return;
	strategy->allowance.amount = datumCopy(result_datum(row, 12, &isnull), false, -1);
	read_gateway(&strategy->allowance, row, 14);
}

/*
 * Why the next evaluation of a strategy must read all users, whatever this one
 * does; NULL: it need not.
 */
static const char *
reason_against_marks(const Evaluation *evaluation, const StrategyEvaluation *strategy)
{
	if (!strategy->is_single)
		return "a firing is for all users";
	if (!incremental_scans)
		return "quota_manager.incremental_scans is off";
	if (strategy->is_capped)
		return "a grant that is cancelled makes room below max_exec_per_user";
	if (evaluation_asks_balances(strategy))
		return "balances change by themselves";
	if (!strategy->traits.is_built_in || !strategy->traits.is_immutable)
		return "the condition calls a function that is not built in";
	if (!evaluation->source.is_plain)
		return "the user source does not show who has changed";
	return NULL;
}

/* Reads the strategies, in the order of their ids. */
static void
read_strategies(Evaluation *evaluation, Datum strategy_ids)
{
	uint64 count;

	bool is_current = sql_is_current();

	SPI_connect();
	count = statement_run_as_user(is_current ? &strategies_to_evaluate : &strategies_of_older_sql,
								  ARGS(arg_datum(strategy_ids)));
	for (uint64 row = 0; row < count; row++)
	{
		MemoryContext       caller = MemoryContextSwitchTo(evaluation->memory);
		StrategyEvaluation *strategy = palloc0(sizeof(StrategyEvaluation));

		strategy->strategy_id = result_int32(row, 1);
		strategy->version = result_int32(row, 2);
		strategy->is_single = result_bool(row, 3);
		strategy->condition = result_text(row, 4);
		strategy->is_capped = result_bool(row, 5);
		strategy->mark_users = result_int64(row, 6);
		read_condition(strategy, count == 1);
		read_mark(strategy, row);
		if (is_current)
			read_allowance(strategy, row);
		evaluation->strategies = lappend(evaluation->strategies, strategy);
		MemoryContextSwitchTo(caller);
	}
	SPI_finish();
}

/* Decides which strategies can go by what has changed. */
static void
judge_marks(Evaluation *evaluation)
{
	ListCell *cell;

	foreach (cell, evaluation->strategies)
	{
		StrategyEvaluation *strategy = lfirst(cell);

		strategy->whole_reason = reason_against_marks(evaluation, strategy);
		strategy->can_mark = strategy->whole_reason == NULL;
		if (strategy->can_mark && !strategy->has_mark)
			strategy->whole_reason = "nothing is known of a scan of this version before";
		else if (strategy->can_mark && strategy->mark_users != evaluation->source.fingerprint)
			strategy->whole_reason = "the table of users is not the one of the scan before";
		else if (strategy->can_mark && strategy->mark.base.position == InvalidXLogRecPtr)
			strategy->whole_reason = "a transaction was running when the scan before began";
		else if (strategy->can_mark && strategy->mark.base.position > evaluation->begin.position)
			strategy->whole_reason = "the log is not the one of the scan before";
	}
}

/* An evaluation without strategies, of this transaction. */
static Evaluation *
create(void)
{
	MemoryContext memory;
	Evaluation   *evaluation;

	watch_transactions();
	memory = AllocSetContextCreate(TopTransactionContext, "evaluation", ALLOCSET_DEFAULT_SIZES);
	evaluation = MemoryContextAllocZero(memory, sizeof(Evaluation));
	evaluation->memory = memory;
	evaluation->files = ResourceOwnerCreate(TopTransactionResourceOwner, "evaluation");
	evaluation->subtransaction = GetCurrentSubTransactionId();
	evaluation->on_reset.func = forget;
	evaluation->on_reset.arg = evaluation;
	MemoryContextRegisterResetCallback(memory, &evaluation->on_reset);
	evaluation->next = evaluations;
	evaluations = evaluation;
	evaluation->begin = log_moment_of_transaction();
	return evaluation;
}

/* Finds where the users of its strategies are read. */
static void
find_source(Evaluation *evaluation)
{
	const char *called = NULL;
	ListCell   *cell;

	foreach (cell, evaluation->strategies)
	{
		const StrategyEvaluation *strategy = lfirst(cell);

		if (called == NULL && strategy->tree != NULL)
			called = strategy->traits.others_call;
	}
	user_source_find(&evaluation->source, rights_caller(), called, evaluation->memory);
}

/*
 * Begins an evaluation of strategies, whose locks the transaction holds.  If
 * there is one strategy, an invalid condition is an error; if there are
 * several, its tree stays NULL.
 */
Evaluation *
evaluation_begin(Datum strategy_ids)
{
	Evaluation *evaluation = create();

	read_strategies(evaluation, strategy_ids);
	find_source(evaluation);
	judge_marks(evaluation);
	return evaluation;
}

/* The text of a field of a row; NULL: it has none. */
static char *
field_text(HeapTupleHeader row, const char *name)
{
	bool  isnull;
	Datum value = GetAttributeByName(row, name, &isnull);

	return isnull ? NULL : TextDatumGetCString(value);
}

/* Reads a row of quota_strategy, of which a condition is enough. */
static void
read_copy(StrategyEvaluation *strategy, HeapTupleHeader row)
{
	char *allowance = field_text(row, "allowance");
	Datum value;
	bool  isnull;

	value = GetAttributeByName(row, "id", &isnull);
	strategy->strategy_id = isnull ? 0 : DatumGetInt32(value);
	strategy->whole_reason = "it is a preview";
	if (allowance != NULL)
		strategy->allowance.kind = allowance_kind(allowance);
	value = GetAttributeByName(row, "amount", &isnull);
	if (!isnull)
		strategy->allowance.amount = datumCopy(value, false, -1);
	(void) statement_run_as_user(&parts_of_copy, ARGS(arg_text(field_text(row, "condition")),
													  arg_text(field_text(row, "model"))));
	strategy->condition = result_text(0, 1);
	if (allowance_asks_balance(&strategy->allowance))
		read_gateway(&strategy->allowance, 0, 2);
	read_condition(strategy, true);
}

/*
 * Begins an evaluation of all users for a strategy that need not be stored: a
 * row of quota_strategy, of which a condition is enough.  An invalid condition is
 * an error.
 */
Evaluation *
evaluation_begin_copy(HeapTupleHeader row)
{
	Evaluation   *evaluation = create();
	MemoryContext caller;

	SPI_connect();
	caller = MemoryContextSwitchTo(evaluation->memory);
	evaluation->strategies = list_make1(palloc0(sizeof(StrategyEvaluation)));
	read_copy(linitial(evaluation->strategies), row);
	MemoryContextSwitchTo(caller);
	SPI_finish();
	find_source(evaluation);
	return evaluation;
}

/* The latest evaluation of a strategy; an error if it was not evaluated. */
StrategyEvaluation *
evaluation_find(int32 strategy_id)
{
	ListCell *cell;

	for (Evaluation *evaluation = evaluations; evaluation; evaluation = evaluation->next)
		foreach (cell, evaluation->strategies)
		{
			StrategyEvaluation *strategy = lfirst(cell);

			if (strategy->strategy_id == strategy_id && strategy->matched != NULL)
				return strategy;
		}
	ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					errmsg("strategy %d was not evaluated in this transaction", strategy_id)));
}

/* True if this transaction keeps an evaluation. */
bool
evaluation_is_kept(void)
{
	return evaluations != NULL;
}

/* Ends the evaluations that a strategy is alone in; 0: all. */
void
evaluation_end(int32 strategy_id)
{
	Evaluation *next;

	for (Evaluation *evaluation = evaluations; evaluation; evaluation = next)
	{
		next = evaluation->next;
		if (strategy_id == 0 ||
			(list_length(evaluation->strategies) == 1 &&
			 ((StrategyEvaluation *) linitial(evaluation->strategies))->strategy_id == strategy_id))
			evaluation_drop(evaluation);
	}
}

/*
 * Makes the spools of a strategy; spools is how many share the memory of a
 * scan.
 */
void
evaluation_open_spools(Evaluation *evaluation, StrategyEvaluation *strategy, int spools)
{
	MemoryContext caller = MemoryContextSwitchTo(evaluation->memory);
	int           memory = Max(work_mem / Max(spools, 1), SPOOL_MEMORY_MIN);

	strategy->left_out = strategy->left_out_missing = 0;
	strategy->matched =
		spool_begin(memory, evaluation->files, allowance_asks_balance(&strategy->allowance));
	if (evaluation_asks_balances(strategy))
		strategy->missing = spool_begin(memory, evaluation->files, false);
	MemoryContextSwitchTo(caller);
}

/*
 * Spools a user that a query returned, who meets the condition, or would if a
 * missing balance were favourable.  balance: of one who meets it, where the
 * allowance asks for it.
 */
void
evaluation_add(StrategyEvaluation *strategy, text *id, bool meets, Datum balance)
{
	int length = VARSIZE_ANY_EXHDR(id);

	if (length == 0)
		return;
	if (length > USER_ID_MAX_BYTES)
	{
		if (meets)
			strategy->left_out++;
		else
			strategy->left_out_missing++;
		return;
	}
	if (strategy->only_counts)
	{
		if (meets)
			strategy->counted++;
		else
			strategy->counted_missing++;
		return;
	}
	spool_add(meets ? strategy->matched : strategy->missing, VARDATA_ANY(id), length, balance);
}

/*
 * True if this strategy can share a pass with others: its answer depends on
 * nothing that a scan changes, and no code of others runs.
 */
bool
evaluation_can_share(const Evaluation *evaluation, const StrategyEvaluation *strategy)
{
	return evaluation->source.is_plain && strategy->tree != NULL && strategy->traits.is_built_in &&
		   strategy->traits.is_immutable && !evaluation_asks_balances(strategy);
}
