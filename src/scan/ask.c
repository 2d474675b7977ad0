/*
 * ask.c
 *		Questions about users that run code of others.
 *
 * The current user asks, and is answered by the role that would evaluate for it
 * in a scan, within a security-restricted operation.  Nothing is written, and
 * the subtransaction of the answer is undone: no cursor, setting or lock stays.
 */
#include "postgres.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/params.h"
#include "tcop/dest.h"
#include "executor/tstoreReceiver.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"

#include "common/compat.h"
#include "common/pinned_settings.h"
#include "common/rights.h"
#include "common/subtransaction.h"
#include "condition/condition.h"
#include "scan/user_source.h"

PG_FUNCTION_INFO_V1(qm_ask);
PG_FUNCTION_INFO_V1(qm_ask_about_users);
PG_FUNCTION_INFO_V1(qm_only_built_in);

/* A query of ours, and what answers it. */
typedef struct Question
{
	const char    *query;
	Oid            reader;
	ParamListInfo  params;
	ReturnSetInfo *result;
} Question;

/*
 * Looks up what a condition calls.  False and *error: it does not make sense.
 */
static bool
traits_of(const char *condition, ConditionTraits *traits, ConditionError *error)
{
	ConditionNode *tree = condition_parse(condition, (int) strlen(condition), error);

	return tree != NULL && condition_traits(tree, traits, error);
}

/*
 * The first call of a function of others in conditions, an array or null; NULL:
 * there is none.  An invalid condition is an error: a function that is not there
 * now could be there when it is called.
 */
static const char *
find_others_call(FunctionCallInfo fcinfo, int argument)
{
	Datum      *conditions;
	bool       *nulls;
	int         count;
	const char *called = NULL;

	if (PG_ARGISNULL(argument))
		return NULL;
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(argument),
					  ARR_ELEMTYPE(PG_GETARG_ARRAYTYPE_P(argument)), -1, false, TYPALIGN_INT,
					  &conditions, &nulls, &count);
	for (int i = 0; i < count; i++)
	{
		ConditionError  error = {0};
		ConditionTraits traits;
		char           *condition = nulls[i] ? NULL : TextDatumGetCString(conditions[i]);

		if (condition == NULL)
			continue;
		if (!traits_of(condition, &traits, &error))
			condition_raise(&error, condition);
		if (called == NULL)
			called = traits.others_call;
	}
	return called;
}

/* Runs the query, and keeps its rows. */
static void
answer(void *argument)
{
	Question         *question = argument;
	ReturnSetInfo    *result = question->result;
	DestReceiver     *receiver = CreateDestReceiver(DestTuplestore);
	SPIExecuteOptions options = {.params = question->params,
								 .read_only = true,
								 .must_return_tuples = true,
								 .dest = receiver};
	RightsBefore      before;

	SetTuplestoreDestReceiverParams(receiver, result->setResult,
									result->econtext->ecxt_per_query_memory, true, result->setDesc,
									"the answer has other columns than were asked for");
	/* Until the end of the subtransaction. */
	XactReadOnly = true;
	SPI_connect();
	rights_become_restricted(question->reader, &before);
	settings_pin(GUC_ACTION_SAVE);
	(void) SPI_execute_extended(question->query, &options);
	rights_restore(&before);
	SPI_finish();
	receiver->rDestroy(receiver);
}

/* The argument as $1. */
static ParamListInfo
parameter(FunctionCallInfo fcinfo, int argument)
{
	ParamListInfo params = makeParamList(1);

	params->params[0].ptype = get_fn_expr_argtype(fcinfo->flinfo, argument);
	params->params[0].pflags = PARAM_FLAG_CONST;
	params->params[0].isnull = PG_ARGISNULL(argument);
	params->params[0].value = PG_ARGISNULL(argument) ? (Datum) 0 : PG_GETARG_DATUM(argument);
	return params;
}

/* The question that the arguments are. */
static Question
read_question(FunctionCallInfo fcinfo)
{
	Question question = {.query = text_to_cstring(PG_GETARG_TEXT_PP(0)),
						 .params = parameter(fcinfo, 2),
						 .result = (ReturnSetInfo *) fcinfo->resultinfo};

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	return question;
}

/*
 * ask(query, conditions, argument): the rows of a query, in which $1 is the
 * argument.
 */
Datum
qm_ask(PG_FUNCTION_ARGS)
{
	Question question = read_question(fcinfo);

	question.reader = user_source_reader(GetUserId(), find_others_call(fcinfo, 1));
	subtransaction_undo(answer, &question);
	return (Datum) 0;
}

/* ask_about_users(query, conditions, argument): the same with the users that a scan finds. */
Datum
qm_ask_about_users(PG_FUNCTION_ARGS)
{
	Question   question = read_question(fcinfo);
	UserSource source = {0};

	user_source_find(&source, GetUserId(), find_others_call(fcinfo, 1), CurrentMemoryContext);
	question.reader = source.reader;
	/* Whose rights count and what is read come from one look-up.  Scans leave out who has no id. */
	question.query = psprintf("WITH users AS NOT MATERIALIZED (SELECT u.id, u.subject FROM %s u"
							  " WHERE (u.subject).id OPERATOR(pg_catalog.<>) '') %s",
							  source.with_balances, question.query);
	subtransaction_undo(answer, &question);
	return (Datum) 0;
}

/* What a call site of only_built_in() has answered last. */
typedef struct LastAnswer
{
	char *condition;
	bool  is_built_in;
} LastAnswer;

/*
 * only_built_in(condition): the condition; null where it would run code of others,
 * or does not make sense.
 */
Datum
qm_only_built_in(PG_FUNCTION_ARGS)
{
	LastAnswer     *last = fcinfo->flinfo->fn_extra;
	char           *condition = text_to_cstring(PG_GETARG_TEXT_PP(0));
	ConditionError  error = {0};
	ConditionTraits traits;

	if (last == NULL)
		last = fcinfo->flinfo->fn_extra =
			MemoryContextAllocZero(fcinfo->flinfo->fn_mcxt, sizeof(LastAnswer));
	/* Neighbouring rows mostly ask the same. */
	if (last->condition == NULL || strcmp(last->condition, condition) != 0)
	{
		if (last->condition != NULL)
			pfree(last->condition);
		last->condition = NULL;
		last->is_built_in = traits_of(condition, &traits, &error) && traits.is_built_in;
		last->condition = MemoryContextStrdup(fcinfo->flinfo->fn_mcxt, condition);
	}
	if (!last->is_built_in)
		PG_RETURN_NULL();
	PG_RETURN_DATUM(PG_GETARG_DATUM(0));
}
