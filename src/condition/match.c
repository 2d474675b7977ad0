/*
 * match.c
 *		Conditions that are not constant: the same expression as the planner
 *		gets, built once per distinct condition and run by PostgreSQL's
 *		expression executor.
 */
#include "postgres.h"

#include "executor/executor.h"
#include "fmgr.h"
#include "nodes/makefuncs.h"
#include "nodes/params.h"
#include "optimizer/optimizer.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "common/hashfn.h"
#include "common/compat.h"
#include "condition/condition.h"

PG_FUNCTION_INFO_V1(qm_meets);
PG_FUNCTION_INFO_V1(qm_may_match);

/* Memory for compiled conditions per call site; beyond, all are dropped. */
#define MATCH_CACHE_BYTES ((Size) 16 * 1024 * 1024)

/* A compiled condition; its memory is its own context. */
typedef struct CompiledCondition
{
	text      *source; /* hash key */
	ExprState *state;
} CompiledCondition;

/* What a call site keeps between calls, in fn_mcxt. */
typedef struct MatchState
{
	Oid                subject_type;
	MemoryContext      memory; /* of all that follows; reset when the cache is full */
	HTAB              *compiled;
	ExprContext       *econtext;
	ParamListInfo      params;
	CompiledCondition *last;
} MatchState;

static uint32
text_hash(const void *key, Size keysize)
{
	text *value = *(text *const *) key;

	return hash_bytes((const unsigned char *) VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value));
}

static int
text_compare(const void *a, const void *b, Size keysize)
{
	text *left = *(text *const *) a;
	text *right = *(text *const *) b;

	if (VARSIZE_ANY_EXHDR(left) != VARSIZE_ANY_EXHDR(right))
		return 1;
	return memcmp(VARDATA_ANY(left), VARDATA_ANY(right), VARSIZE_ANY_EXHDR(left));
}

/* Makes an empty cache in state->memory. */
static void
make_cache(MatchState *state)
{
	MemoryContext caller = MemoryContextSwitchTo(state->memory);
	HASHCTL       control = {0};

	control.keysize = sizeof(text *);
	control.entrysize = sizeof(CompiledCondition);
	control.hash = text_hash;
	control.match = text_compare;
	control.hcxt = state->memory;
	state->compiled = hash_create("compiled conditions", 16, &control,
								  HASH_ELEM | HASH_FUNCTION | HASH_COMPARE | HASH_CONTEXT);
	state->econtext = CreateStandaloneExprContext();
	state->params = makeParamList(1);
	state->params->params[0].ptype = state->subject_type;
	state->params->params[0].isnull = false;
	state->econtext->ecxt_param_list_info = state->params;
	state->last = NULL;
	MemoryContextSwitchTo(caller);
}

/* Compiles a condition into state->memory. */
static ExprState *
compile(MatchState *state, text *source, ConditionMode mode)
{
	MemoryContext scratch =
		AllocSetContextCreate(CurrentMemoryContext, "condition compile", ALLOCSET_DEFAULT_SIZES);
	MemoryContext  caller = MemoryContextSwitchTo(scratch);
	ConditionError error = {0};
	char          *string = text_to_cstring(source);
	Param         *subject = makeNode(Param);
	ConditionNode *node;
	Expr          *expr;
	ExprState     *result;

	subject->paramkind = PARAM_EXTERN;
	subject->paramid = 1;
	subject->paramtype = state->subject_type;
	subject->paramtypmod = -1;
	subject->paramcollid = InvalidOid;
	subject->location = -1;

	node = condition_parse(string, (int) strlen(string), &error);
	expr = node ? condition_compile(node, (Expr *) subject, mode, &error) : NULL;
	if (expr == NULL)
		condition_raise(&error, string);
	expr = expression_planner(expr);
	MemoryContextSwitchTo(state->memory);
	result = ExecInitExprWithParams(copyObject(expr), state->params);
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(scratch);
	return result;
}

/* The compiled form of a condition, from the cache or new. */
static CompiledCondition *
find_compiled(MatchState *state, text *source, ConditionMode mode)
{
	CompiledCondition *entry = state->last;
	ExprState         *compiled;
	MemoryContext      caller;
	text              *key;

	/* Neighbouring rows mostly ask the same. */
	if (entry && text_compare(&source, &entry->source, 0) == 0)
		return entry;
	entry = hash_search(state->compiled, &source, HASH_FIND, NULL);
	if (entry)
		return state->last = entry;

	if (MemoryContextMemAllocated(state->memory, true) > MATCH_CACHE_BYTES)
	{
		FreeExprContext(state->econtext, true);
		MemoryContextReset(state->memory);
		make_cache(state);
	}
	compiled = compile(state, source, mode);
	caller = MemoryContextSwitchTo(state->memory);
	key = cstring_to_text_with_len(VARDATA_ANY(source), VARSIZE_ANY_EXHDR(source));
	MemoryContextSwitchTo(caller);
	entry = hash_search(state->compiled, &key, HASH_ENTER, NULL);
	entry->source = key;
	entry->state = compiled;
	return state->last = entry;
}

/* Asks a question about a subject and a condition that are known only now. */
static Datum
match(FunctionCallInfo fcinfo, ConditionMode mode)
{
	MatchState        *state = fcinfo->flinfo->fn_extra;
	CompiledCondition *compiled;
	Datum              result;
	bool               isnull;

	if (state == NULL)
	{
		MemoryContext caller = MemoryContextSwitchTo(fcinfo->flinfo->fn_mcxt);

		state = palloc0(sizeof(MatchState));
		state->subject_type = condition_subject_type();
		state->memory = AllocSetContextCreate(CurrentMemoryContext, "compiled conditions",
											  ALLOCSET_DEFAULT_SIZES);
		MemoryContextSwitchTo(caller);
		make_cache(state);
		fcinfo->flinfo->fn_extra = state;
	}
	compiled = find_compiled(state, PG_GETARG_TEXT_PP(1), mode);
	state->params->params[0].value = PG_GETARG_DATUM(0);
	result = ExecEvalExprSwitchContext(compiled->state, state->econtext, &isnull);
	ResetExprContext(state->econtext);
	if (isnull)
		PG_RETURN_NULL();
	return result;
}

/* Does the subject meet the condition? */
Datum
qm_meets(PG_FUNCTION_ARGS)
{
	return match(fcinfo, CONDITION_MEETS);
}

/* Would it, if every missing balance were favourable? */
Datum
qm_may_match(PG_FUNCTION_ARGS)
{
	return match(fcinfo, CONDITION_MAY_MATCH);
}
