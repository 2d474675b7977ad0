/*
 * resolve.c
 *		The function that a call names, and its arguments as typed constants.
 *
 * pg_proc is the registry: has-tag("x") is quota_condition.has_tag(subject,
 * text).  The look-up is our own because PostgreSQL's would not pass an
 * integer to a parameter of type integer when it is written as bigint, would
 * not read our times, and could not report what is wrong where.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "nodes/makefuncs.h"
#include "utils/builtins.h"
#include "utils/catcache.h"
#include "utils/lsyscache.h"
#include "utils/numeric.h"
#include "utils/regproc.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "common/iso_time.h"
#include "condition/condition.h"
#include "condition/names.h"

/* A function that could be meant, and how well the arguments fit. */
typedef struct FunctionCandidate
{
	Oid  oid;
	bool is_built_in;
	int  fixed; /* parameters after the subject, without the variadic one */
	int  defaults;
	Oid  element;              /* of the variadic parameter, or InvalidOid */
	Oid  types[FUNC_MAX_ARGS]; /* of the fixed parameters */
} FunctionCandidate;

/*
 * How well an argument fits a parameter: 0 not at all, more is better.  Only
 * the kind of the argument counts, not its value.
 */
static int
fitness(const ConditionArgument *argument, Oid type)
{
	bool integer = argument->kind == ARGUMENT_NUMBER && strpbrk(argument->value, ".e") == NULL;

	switch (type)
	{
		case TEXTOID:
			return argument->kind == ARGUMENT_TEXT ? 2 : 0;
		case TIMESTAMPTZOID:
			return argument->kind == ARGUMENT_TEXT ? 1 : 0;
		case INT8OID:
			return integer ? 3 : 0;
		case INT4OID:
		case INT2OID:
			return integer ? 2 : 0;
		case NUMERICOID:
			return argument->kind == ARGUMENT_NUMBER ? (integer ? 1 : 2) : 0;
		default:
			return 0;
	}
}

/* The type of parameter number i (from 0, after the subject). */
static Oid
parameter_type(const FunctionCandidate *candidate, int i)
{
	return i < candidate->fixed ? candidate->types[i] : candidate->element;
}

/* Can the candidate take this many arguments? */
static bool
takes_count(const FunctionCandidate *candidate, int count)
{
	if (OidIsValid(candidate->element))
		return count > candidate->fixed;
	return count <= candidate->fixed && count >= candidate->fixed - candidate->defaults;
}

/*
 * How well the call fits a candidate: the sum over its arguments; -1 if it
 * does not.  *bad is then the argument that does not fit, NULL if their number
 * is wrong.
 */
static int
call_fitness(const ConditionNode *call, const FunctionCandidate *candidate,
			 const ConditionArgument **bad, int *bad_index)
{
	int total = 0;
	int i = 0;

	*bad = NULL;
	if (!takes_count(candidate, call->count))
		return -1;
	for (const ConditionArgument *argument = call->arguments; argument;
		 argument = argument->next, i++)
	{
		int fit = fitness(argument, parameter_type(candidate, i));

		if (fit == 0)
		{
			*bad = argument;
			*bad_index = i;
			return -1;
		}
		total += fit;
	}
	return total;
}

/*
 * Describes a candidate from its pg_proc row; false if it takes no subject
 * first.
 */
static bool
describe_candidate(HeapTuple tuple, Oid subject_type, FunctionCandidate *candidate)
{
	Form_pg_proc proc = (Form_pg_proc) GETSTRUCT(tuple);

	if (proc->pronargs == 0 || proc->proargtypes.values[0] != subject_type)
		return false;
	candidate->oid = proc->oid;
	candidate->defaults = proc->pronargdefaults;
	candidate->element = proc->provariadic;
	candidate->fixed = proc->pronargs - 1 - (OidIsValid(proc->provariadic) ? 1 : 0);
	for (int i = 0; i < candidate->fixed; i++)
		candidate->types[i] = proc->proargtypes.values[i + 1];
	return true;
}

/*
 * The functions that a name can mean.  The extension's own names are reserved:
 * where it has a member of that name, only its members count.  *exists
 * is set if there is any function of that name.
 */
static List *
find_candidates(const char *name, Oid subject_type, bool *exists)
{
	char     *function = function_of_condition_name(name);
	bool      is_bound = strcmp(name, BOUND_BALANCE_FUNCTION) == 0;
	Oid       schema = get_namespace_oid(is_bound ? INTERNAL_SCHEMA : CONDITION_SCHEMA, false);
	Oid       extension = get_extension_oid(EXTENSION_NAME, true);
	List     *members = NIL;
	List     *others = NIL;
	CatCList *procs;

	*exists = false;
	if (strlen(function) >= NAMEDATALEN)
		return NIL;
	procs = SearchSysCacheList1(PROCNAMEARGSNSP, CStringGetDatum(function));
	for (int i = 0; i < procs->n_members; i++)
	{
		HeapTuple          tuple = &procs->members[i]->tuple;
		Form_pg_proc       proc = (Form_pg_proc) GETSTRUCT(tuple);
		FunctionCandidate *candidate;

		if (proc->pronamespace != schema)
			continue;
		*exists = true;
		candidate = palloc0(sizeof(FunctionCandidate));
		if (!describe_candidate(tuple, subject_type, candidate))
			continue;
		if (OidIsValid(extension) &&
			getExtensionOfObject(ProcedureRelationId, proc->oid) == extension)
		{
			candidate->is_built_in = true;
			members = lappend(members, candidate);
		}
		else
			others = lappend(others, candidate);
	}
	ReleaseSysCacheList(procs);
	return members ? members : others;
}

/* What a parameter type is called in a message. */
static const char *
wanted(Oid type)
{
	switch (type)
	{
		case TEXTOID:
			return "a text";
		case TIMESTAMPTZOID:
			return "a time";
		case INT8OID:
		case INT4OID:
		case INT2OID:
			return "a whole number";
		case NUMERICOID:
			return "a number";
		default:
			return NULL;
	}
}

/* How many arguments a candidate takes, for a message. */
static char *
wanted_count(const FunctionCandidate *candidate)
{
	int least = OidIsValid(candidate->element) ? candidate->fixed + 1
											   : candidate->fixed - candidate->defaults;

	if (OidIsValid(candidate->element))
		return psprintf("%d or more arguments", least);
	if (candidate->defaults > 0)
		return psprintf("%d to %d arguments", least, candidate->fixed);
	return psprintf("%d argument%s", least, least == 1 ? "" : "s");
}

/* Sets the error for a call that its only candidate does not take. */
static void
explain_misfit(const ConditionNode *call, const FunctionCandidate *candidate, ConditionError *error)
{
	const ConditionArgument *bad;
	int                      index = 0;
	Oid                      type;
	char                    *hint = NULL;

	(void) call_fitness(call, candidate, &bad, &index);
	if (bad == NULL)
	{
		condition_set_error(
			error, ERRCODE_INVALID_PARAMETER_VALUE, call->offset,
			psprintf("%s takes %s, not %d", call->name, wanted_count(candidate), call->count), NULL,
			NULL);
		return;
	}
	type = parameter_type(candidate, index);
	if (wanted(type) == NULL)
	{
		condition_set_error(
			error, ERRCODE_INVALID_FUNCTION_DEFINITION, call->offset,
			psprintf("parameter %d of %s has type %s, which a condition cannot give", index + 1,
					 call->name, format_type_be(type)),
			NULL,
			"A condition gives text, bigint, integer, smallint, numeric and timestamp with time "
			"zone.");
		return;
	}
	if (bad->kind == ARGUMENT_NUMBER && (type == TEXTOID || type == TIMESTAMPTZOID))
		hint = psprintf("Put it in quotes: \"%s\".", bad->value);
	else if (bad->kind == ARGUMENT_NUMBER)
		hint = "Write it without point and exponent.";
	else if (bad->quoted)
		hint = "Write numbers without quotes.";
	condition_set_error(
		error, ERRCODE_DATATYPE_MISMATCH, bad->offset,
		psprintf("argument %d of %s must be %s", index + 1, call->name, wanted(type)), NULL, hint);
}

/* Refuses a function that the planner or a scan could not use safely. */
static bool
check_function(const ConditionNode *call, Oid oid, ConditionError *error)
{
	HeapTuple    tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(oid));
	Form_pg_proc proc;
	const char  *fault = NULL;
	const char  *cure = NULL;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for function %u", oid);
	proc = (Form_pg_proc) GETSTRUCT(tuple);
	if (proc->prokind != PROKIND_FUNCTION)
		fault = "is not a plain function";
	else if (proc->proretset)
		fault = "returns a set";
	else if (proc->prorettype != BOOLOID)
		fault = "does not return boolean";
	else if (proc->provolatile == PROVOLATILE_VOLATILE)
	{
		fault = "is volatile";
		cure = "STABLE";
	}
	else if (proc->proparallel != PROPARALLEL_SAFE)
	{
		fault = "is not parallel safe";
		cure = "PARALLEL SAFE";
	}
	else if (proc->prosecdef)
	{
		fault = "is a security definer function";
		cure = "SECURITY INVOKER";
	}
	ReleaseSysCache(tuple);
	if (fault == NULL)
		return true;
	condition_set_error(error, ERRCODE_INVALID_FUNCTION_DEFINITION, call->offset,
						psprintf("condition function \"%s\" %s", call->name, fault),
						"A condition function returns boolean, is immutable or stable, parallel "
						"safe and not a security definer.",
						cure ? psprintf("If it does no such thing: ALTER FUNCTION %s %s;",
										format_procedure_qualified(oid), cure)
							 : psprintf("It is %s.", format_procedure_qualified(oid)));
	return false;
}

/* An argument as an integer constant of the given type. */
static Const *
integer_constant(const ConditionNode *call, const ConditionArgument *argument, Oid type,
				 ConditionError *error)
{
	int64 low = type == INT8OID ? PG_INT64_MIN : type == INT4OID ? PG_INT32_MIN : PG_INT16_MIN;
	int64 high = type == INT8OID ? PG_INT64_MAX : type == INT4OID ? PG_INT32_MAX : PG_INT16_MAX;
	int   bits = type == INT8OID ? 64 : type == INT4OID ? 32 : 16;
	int64 value;

	errno = 0;
	value = strtoi64(argument->value, NULL, 10);
	if (errno == ERANGE || value < low || value > high)
	{
		condition_set_error(error, ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE, argument->offset,
							psprintf("number out of range for %s", call->name),
							psprintf("It takes an integer of %d bits.", bits), NULL);
		return NULL;
	}
	if (type == INT8OID)
		return makeConst(INT8OID, -1, InvalidOid, 8, Int64GetDatum(value), false, FLOAT8PASSBYVAL);
	if (type == INT4OID)
		return makeConst(INT4OID, -1, InvalidOid, 4, Int32GetDatum((int32) value), false, true);
	return makeConst(INT2OID, -1, InvalidOid, 2, Int16GetDatum((int16) value), false, true);
}

/* An argument as a time constant. */
static Const *
time_constant(const ConditionArgument *argument, ConditionError *error)
{
	TimestampTz value;
	int         sqlerrcode = iso_time_read(argument->value, 0, &value);

	if (sqlerrcode == 0)
		return makeConst(TIMESTAMPTZOID, -1, InvalidOid, 8, TimestampTzGetDatum(value), false,
						 FLOAT8PASSBYVAL);
	if (sqlerrcode == ERRCODE_DATETIME_VALUE_OUT_OF_RANGE)
		condition_set_error(error, sqlerrcode, argument->offset,
							psprintf("there is no time \"%s\"", argument->value), NULL,
							"A day, hour, minute, second or zone is out of range.");
	else
		condition_set_error(
			error, sqlerrcode, argument->offset, psprintf("invalid time \"%s\"", argument->value),
			NULL, "Write \"2024-06-01 00:00:00\" (UTC) or \"2024-06-01T08:00:00+08:00\".");
	return NULL;
}

/*
 * An argument as a constant of a parameter's type; NULL and *error if its
 * value does not fit.
 */
static Const *
argument_constant(const ConditionNode *call, const ConditionArgument *argument, Oid type,
				  ConditionError *error)
{
	switch (type)
	{
		case TEXTOID:
			return makeConst(TEXTOID, -1, DEFAULT_COLLATION_OID, -1,
							 CStringGetTextDatum(argument->value), false, false);
		case TIMESTAMPTZOID:
			return time_constant(argument, error);
		case NUMERICOID:
			return makeConst(NUMERICOID, -1, InvalidOid, -1,
							 DirectFunctionCall3(numeric_in, CStringGetDatum(argument->value),
												 ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1)),
							 false, false);
		default:
			return integer_constant(call, argument, type, error);
	}
}

/* The typed arguments of a call to a candidate that fits. */
static bool
make_arguments(const ConditionNode *call, const FunctionCandidate *candidate,
			   ConditionFunction *function, ConditionError *error)
{
	List *variadic = NIL;
	int   i = 0;

	function->arguments = NIL;
	for (const ConditionArgument *argument = call->arguments; argument;
		 argument = argument->next, i++)
	{
		Const *constant = argument_constant(call, argument, parameter_type(candidate, i), error);

		if (constant == NULL)
			return false;
		if (i < candidate->fixed)
			function->arguments = lappend(function->arguments, constant);
		else
			variadic = lappend(variadic, constant);
	}
	function->is_variadic = OidIsValid(candidate->element);
	if (function->is_variadic)
	{
		ArrayExpr *array = makeNode(ArrayExpr);

		array->array_typeid = get_array_type(candidate->element);
		array->array_collid = get_typcollation(candidate->element);
		array->element_typeid = candidate->element;
		array->elements = variadic;
		array->location = -1;
		function->arguments = lappend(function->arguments, array);
	}
	return true;
}

/*
 * There is no function of the name of a call; exists: but one that takes
 * something else than a user.
 */
static void
explain_unknown(const ConditionNode *call, bool exists, ConditionError *error)
{
	char *near = exists ? NULL : condition_suggest(call->name);

	condition_set_error(
		error, ERRCODE_INVALID_PARAMETER_VALUE, call->offset,
		psprintf("unknown condition function \"%s\"", call->name),
		exists ? psprintf("Function %s.%s exists, but its first parameter is not %s.%s.",
						  CONDITION_SCHEMA, function_of_condition_name(call->name), CORE_SCHEMA,
						  SUBJECT_TYPE)
			   : NULL,
		near ? psprintf("Did you mean %s?", near) : NULL);
}

/*
 * The candidate that takes the arguments of a call best; NULL and *error: none
 * does, or several do as well.
 */
static const FunctionCandidate *
best_candidate(const ConditionNode *call, List *candidates, ConditionError *error)
{
	const FunctionCandidate *best = NULL;
	int                      best_fit = -1;
	bool                     tie = false;
	ListCell                *cell;

	foreach (cell, candidates)
	{
		const FunctionCandidate *candidate = lfirst(cell);
		const ConditionArgument *bad;
		int                      bad_index;
		int                      fit = call_fitness(call, candidate, &bad, &bad_index);

		if (fit < 0)
			continue;
		if (fit == best_fit)
			tie = true;
		else if (fit > best_fit)
		{
			best = candidate;
			best_fit = fit;
			tie = false;
		}
	}
	if (best != NULL && !tie)
		return best;
	if (tie)
		condition_set_error(
			error, ERRCODE_AMBIGUOUS_FUNCTION, call->offset,
			psprintf("several functions %s take these arguments", call->name), NULL,
			psprintf("See \\df %s.%s.", CONDITION_SCHEMA, function_of_condition_name(call->name)));
	else if (list_length(candidates) == 1)
		explain_misfit(call, linitial(candidates), error);
	else
		condition_set_error(error, ERRCODE_DATATYPE_MISMATCH, call->offset,
							psprintf("no function %s takes these arguments", call->name), NULL,
							NULL);
	return NULL;
}

/*
 * Finds the function of a CALL in schema quota_condition; false and *error if
 * there is none that fits.
 */
bool
condition_resolve(const ConditionNode *call, Oid subject_type, ConditionFunction *function,
				  ConditionError *error)
{
	bool                     exists;
	List                    *candidates = find_candidates(call->name, subject_type, &exists);
	const FunctionCandidate *best;

	if (candidates == NIL)
	{
		explain_unknown(call, exists, error);
		return false;
	}
	best = best_candidate(call, candidates, error);
	if (best == NULL || !check_function(call, best->oid, error))
		return false;
	function->oid = best->oid;
	function->is_built_in = best->is_built_in;
	function->is_balance = strcmp(call->name, BALANCE_FUNCTION) == 0 ||
						   strcmp(call->name, BOUND_BALANCE_FUNCTION) == 0;
	return make_arguments(call, best, function, error);
}
