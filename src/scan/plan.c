/*
 * plan.c
 *		First phase of a scan: which queries find the users of strategies.
 *
 * Sharing pays where the users would be read more than once: the cost of
 * reading them is met once, and each strategy adds the cost of its calls.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "optimizer/optimizer.h"
#include "parser/analyze.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/snapmgr.h"

#include "common/pinned_settings.h"
#include "common/rights.h"
#include "scan/plan.h"

/* A pass computes at most so many columns; a table of PostgreSQL could have no more. */
#define PROGRAM_COLUMNS_MAX 1500

/* Starting parallel workers takes longer than evaluating fewer users than this. */
#define PARALLEL_USERS_MIN 50000

/* A strategy with its own query, and what it would save to share a pass. */
typedef struct SharingChoice
{
	EvaluationQuery *own;
	Cost             saving;
} SharingChoice;

/* Plans a query with the rights of the reader; options are those of a cursor. */
static PlannedStmt *
plan_with_options(const UserSource *source, const char *text, ParamListInfo params, int options)
{
	int          settings = NewGUCNestLevel();
	RightsBefore before;
	RawStmt     *raw;
	Query       *query;
	List        *rewritten;
	PlannedStmt *plan;
	Oid          types[] = {params ? params->params[0].ptype : InvalidOid};

	settings_pin(GUC_ACTION_SAVE);
	rights_become_reader(source->reader, &before);
	raw = linitial_node(RawStmt, pg_parse_query(text));
	query = parse_analyze_fixedparams(raw, text, types, params ? 1 : 0, NULL);
	rewritten = pg_rewrite_query(query);
	plan = pg_plan_query(linitial_node(Query, rewritten), text, options, params);
	rights_restore(&before);
	AtEOXact_GUC(false, settings);
	return plan;
}

/* Plans a query, which may use parallel workers. */
static PlannedStmt *
plan_query(const UserSource *source, const char *text, ParamListInfo params)
{
	return plan_with_options(source, text, params, CURSOR_OPT_PARALLEL_OK);
}

/* The cost of reading all users, without any condition. */
static Cost
cost_of_pass(const UserSource *source, double *users)
{
	PlannedStmt *plan = plan_query(source, psprintf("SELECT s.id FROM %s s", source->users), NULL);

	*users = plan->planTree->plan_rows;
	return plan->planTree->total_cost;
}

/*
 * Plans a query that reads balances.  To the planner there are a million of them
 * (pinned_statistics.c), which parallel workers would pay for, however few users
 * there are.
 */
static PlannedStmt *
plan_with_balances(const UserSource *source, const char *text)
{
	PlannedStmt *plan = plan_query(source, text, NULL);
	double       users;

	if (!plan->parallelModeNeeded)
		return plan;
	(void) cost_of_pass(source, &users);
	return users < PARALLEL_USERS_MIN ? plan_with_options(source, text, NULL, 0) : plan;
}

/* The balance that an allowance goes by, as one more column; none if it asks for none. */
static const char *
balance_column(const Allowance *allowance)
{
	if (!allowance_asks_balance(allowance))
		return "";
	if (allowance->gateway == NULL)
		return ", NULL::pg_catalog.numeric";
	return psprintf(", quota_internal.balance_at((s.subject).balances, %s)",
					quote_literal_cstr(allowance->gateway));
}

/* The query of one strategy. */
static EvaluationQuery *
plan_own_query(const UserSource *source, StrategyEvaluation *strategy)
{
	EvaluationQuery *query = palloc0(sizeof(EvaluationQuery));
	char            *condition = quote_literal_cstr(strategy->condition);

	query->strategies = list_make1(strategy);
	if (evaluation_asks_balances(strategy))
	{
		query->answer = QUERY_VERDICT;
		query->text = psprintf("SELECT s.id, s.subject OPERATOR(quota_manager.@@) %s%s FROM %s s"
							   " WHERE quota_manager.may_match(s.subject, %s)",
							   condition, balance_column(&strategy->allowance),
							   source->with_balances, condition);
		query->plan = plan_with_balances(source, query->text);
	}
	else
	{
		query->answer = QUERY_MATCHED;
		query->text =
			psprintf("SELECT s.id FROM %s s WHERE s.subject OPERATOR(quota_manager.@@) %s",
					 source->users, condition);
		query->plan = plan_query(source, query->text, NULL);
	}
	return query;
}

static int
count_calls(const ConditionNode *node)
{
	int calls = node->kind == CONDITION_CALL;

	check_stack_depth();
	if (node->kind != CONDITION_CALL)
		for (const ConditionNode *child = node->first; child; child = child->next)
			calls += count_calls(child);
	return calls;
}

/*
 * One query for strategies that share a pass: over all users, or over those at
 * the positions of a parameter alone.
 */
static EvaluationQuery *
plan_shared_query(const UserSource *source, List *strategies, ParamListInfo positions)
{
	EvaluationQuery *query = palloc0(sizeof(EvaluationQuery));
	ProgramColumns  *columns = program_columns_begin();
	StringInfoData   text;
	ListCell        *cell;

	query->answer = QUERY_PROGRAMS;
	query->strategies = strategies;
	foreach (cell, strategies)
		program_columns_count(columns, ((StrategyEvaluation *) lfirst(cell))->tree);
	foreach (cell, strategies)
		query->programs = lappend(
			query->programs, program_compile(columns, ((StrategyEvaluation *) lfirst(cell))->tree));
	query->columns = list_length(program_columns_texts(columns));

	initStringInfo(&text);
	appendStringInfoString(&text, "SELECT s.id");
	foreach (cell, program_columns_texts(columns))
		appendStringInfo(&text, ", s.subject OPERATOR(quota_manager.@@) %s",
						 quote_literal_cstr(lfirst(cell)));
	appendStringInfo(&text, " FROM %s s", source->users);
	if (positions)
		appendStringInfoString(&text, " WHERE s.position = ANY ($1)");
	query->text = text.data;
	query->params = positions;
	query->plan = plan_query(source, query->text, positions);
	return query;
}

/* Adds queries for the strategies of choices that share a pass. */
static List *
add_shared_queries(const UserSource *source, List *queries, List *strategies)
{
	List     *pass = NIL;
	int       calls = 0;
	ListCell *cell;

	foreach (cell, strategies)
	{
		StrategyEvaluation *strategy = lfirst(cell);
		int                 more = count_calls(strategy->tree);

		if (pass != NIL && calls + more > PROGRAM_COLUMNS_MAX)
		{
			queries = lappend(queries, plan_shared_query(source, pass, NULL));
			pass = NIL;
			calls = 0;
		}
		pass = lappend(pass, strategy);
		calls += more;
	}
	return lappend(queries, plan_shared_query(source, pass, NULL));
}

/*
 * Queries for strategies that can share a pass: those that save something by
 * it do, if together they save more than the pass costs.
 */
static List *
plan_sharing(const UserSource *source, List *queries, List *strategies)
{
	double    users;
	Cost      pass = cost_of_pass(source, &users);
	Cost      saving = 0;
	List     *sharing = NIL;
	List     *own = NIL;
	ListCell *cell;

	foreach (cell, strategies)
	{
		StrategyEvaluation *strategy = lfirst(cell);
		EvaluationQuery    *query = plan_own_query(source, strategy);
		Cost                saved = query->plan->planTree->total_cost -
					 users * cpu_operator_cost * count_calls(strategy->tree);

		own = lappend(own, query);
		if (saved > 0)
		{
			sharing = lappend(sharing, strategy);
			saving += saved;
		}
	}
	if (list_length(sharing) < 2 || saving <= pass)
		return list_concat(queries, own);
	foreach (cell, own)
		if (!list_member_ptr(sharing, linitial(((EvaluationQuery *) lfirst(cell))->strategies)))
			queries = lappend(queries, lfirst(cell));
	ereport(DEBUG1,
			(errmsg_internal("%d strategies share a pass over the users, %d go by themselves",
							 list_length(sharing), list_length(own) - list_length(sharing))));
	return add_shared_queries(source, queries, sharing);
}

/*
 * One query that evaluates strategies, all of which can share a pass, for the
 * users at positions alone; NULL: the planner would not read the table by
 * position, since its rows are elsewhere.
 */
EvaluationQuery *
plan_by_position(const Evaluation *evaluation, List *strategies, ParamListInfo positions)
{
	EvaluationQuery *query = plan_shared_query(&evaluation->source, strategies, positions);

	/* a table of a few pages is read whole; one that is kept elsewhere is read by neither */
	if (IsA(query->plan->planTree, TidScan) || IsA(query->plan->planTree, SeqScan))
		return query;
	return NULL;
}

/*
 * The queries that evaluate some strategies of an evaluation, all of whose
 * conditions have a tree.  In the current memory context.
 */
List *
plan_evaluation(const Evaluation *evaluation, List *strategies)
{
	List     *queries = NIL;
	List     *shareable = NIL;
	ListCell *cell;

	foreach (cell, strategies)
	{
		StrategyEvaluation *strategy = lfirst(cell);

		if (evaluation_can_share(evaluation, strategy))
			shareable = lappend(shareable, strategy);
		else
			queries = lappend(queries, plan_own_query(&evaluation->source, strategy));
	}
	if (list_length(shareable) == 1)
		queries = lappend(queries, plan_own_query(&evaluation->source, linitial(shareable)));
	else if (shareable != NIL)
		queries = plan_sharing(&evaluation->source, queries, shareable);
	return queries;
}
