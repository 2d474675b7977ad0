/*
 * explain.c
 *		How the planner would find users: for advice about indexes.
 *
 * Planning runs code of the user source, so it has the rights of the owner of the
 * source, not of the caller.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_class.h"
#include "commands/explain.h"
#include "fmgr.h"
#include "parser/analyze.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "common/compat.h"
#include "common/rights.h"

#include HEADER_OF_EXPLAIN_STATE
#include HEADER_OF_EXPLAIN_FORMAT

PG_FUNCTION_INFO_V1(qm_explain_as_owner);

static Oid
owner_of(Oid relation)
{
	HeapTuple tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relation));
	Oid       owner;

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_TABLE),
						errmsg("relation with OID %u does not exist", relation)));
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	return owner;
}

/*
 * explain_as_owner(relation, query): the plan of a query of ours over the
 * relation as JSON, as the owner of the relation gets it.
 */
Datum
qm_explain_as_owner(PG_FUNCTION_ARGS)
{
	char         *statement = text_to_cstring(PG_GETARG_TEXT_PP(1));
	ExplainState *state = NewExplainState();
	int           settings = NewGUCNestLevel();
	RightsBefore  before;
	Query        *query;
	PlannedStmt  *plan;
	instr_time    duration = {0};

	state->format = EXPLAIN_FORMAT_JSON;
	state->verbose = true;
	state->costs = false;
	query = parse_analyze_fixedparams(linitial_node(RawStmt, pg_parse_query(statement)), statement,
									  NULL, 0, NULL);
	query = linitial_node(Query, pg_rewrite_query(query));
	PushActiveSnapshot(GetTransactionSnapshot());
	rights_become_reader(owner_of(PG_GETARG_OID(0)), &before);
	plan = pg_plan_query(query, statement, 0, NULL);
	ExplainBeginOutput(state);
	explain_plan(plan, state, statement, &duration);
	ExplainEndOutput(state);
	rights_restore(&before);
	PopActiveSnapshot();
	AtEOXact_GUC(false, settings);
	PG_RETURN_TEXT_P(cstring_to_text_with_len(state->str->data, state->str->len));
}
