/*
 * question.c
 *		What a call asks about a user.
 *
 * The names of built-in functions are reserved, so a name says what is meant.
 * A call whose arguments are not those of a built-in function cannot be
 * compiled either; like a function of others, nothing is known of it.
 */
#include "postgres.h"

#include "catalog/pg_collation.h"
#include "fmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/numeric.h"

#include "common/iso_time.h"
#include "condition/names.h"
#include "condition/question.h"

extern Datum qm_star_list(PG_FUNCTION_ARGS);

/* True if a call has so many arguments, all of one kind. */
static bool
takes(const ConditionNode *call, int count, ArgumentKind kind)
{
	if (call->count != count)
		return false;
	for (const ConditionArgument *argument = call->arguments; argument; argument = argument->next)
	{
		if (argument->kind != kind)
			return false;
	}
	return true;
}

/* Reads the level of is-vip. */
static bool
read_level(const ConditionNode *call, Question *question)
{
	char *end;

	if (!takes(call, 1, ARGUMENT_NUMBER))
		return false;
	errno = 0;
	question->bound = strtoi64(call->arguments->value, &end, 10);
	question->kind = FACT_VIP;
	return errno == 0 && *end == '\0';
}

/* Reads the time of register-before and access-after. */
static bool
read_time(const ConditionNode *call, FactKind kind, Question *question)
{
	TimestampTz time;

	if (!takes(call, 1, ARGUMENT_TEXT) || iso_time_read(call->arguments->value, 0, &time) != 0)
		return false;
	question->bound = time;
	question->kind = kind;
	return true;
}

/* Reads the project of github-star, which a list has as star_list() returns it. */
static bool
read_project(const ConditionNode *call, Question *question)
{
	const char *project;
	ArrayType  *list;
	text       *only;

	if (!takes(call, 1, ARGUMENT_TEXT))
		return false;
	project = call->arguments->value;
	question->kind = FACT_STAR;
	question->key = project;
	list = DatumGetArrayTypeP(
		DirectFunctionCall1(qm_star_list, PointerGetDatum(cstring_to_text(project))));
	if (ARR_NDIM(list) == 0 || ARR_DIMS(list)[0] != 1)
		return true;
	only = (text *) ARR_DATA_PTR(list);
	question->is_possible = VARSIZE_ANY_EXHDR(only) == strlen(project);
	return true;
}

/* The gateway that serves a model.  One that none serves has a balance of its own. */
static const char *
gateway_of(const ModelTable *models, const char *model)
{
	for (int i = 0; i < models->count; i++)
	{
		if (strcmp(models->models[i], model) == 0)
			return models->gateways[i];
	}
	return psprintf("model %s", model);
}

/* Reads the model and the amount of quota-le. */
static bool
read_balance(const ConditionNode *call, const ModelTable *models, Question *question)
{
	const ConditionArgument *model = call->arguments;

	if (call->count != 2 || model->kind != ARGUMENT_TEXT || model->next->kind != ARGUMENT_NUMBER)
		return false;
	question->kind = FACT_BALANCE;
	question->key = gateway_of(models, model->value);
	question->amount = DirectFunctionCall3(numeric_in, CStringGetDatum(model->next->value),
										   ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1));
	return true;
}

/* Reads a built-in call; false: it is none. */
static bool
read_built_in(const ConditionNode *call, const ModelTable *models, Question *question)
{
	const char *name = call->name;

	if (strcmp(name, "true") == 0 || strcmp(name, "false") == 0)
	{
		question->kind = FACT_CONSTANT;
		question->truth = name[0] == 't';
		return call->count == 0;
	}
	if (strcmp(name, "is-vip") == 0)
		return read_level(call, question);
	if (strcmp(name, "register-before") == 0)
		return read_time(call, FACT_REGISTER_TIME, question);
	if (strcmp(name, "access-after") == 0)
		return read_time(call, FACT_ACCESS_TIME, question);
	if (strcmp(name, "github-star") == 0)
		return read_project(call, question);
	if (strcmp(name, BALANCE_FUNCTION) == 0)
		return read_balance(call, models, question);
	if (strcmp(name, "match-user") == 0 || strcmp(name, "belong-to") == 0)
	{
		question->kind = name[0] == 'm' ? FACT_USER : FACT_ORG;
		return call->count > 0 && takes(call, call->count, ARGUMENT_TEXT);
	}
	return false;
}

/* Reads what a call asks. */
void
question_read(Question *question, Formula *call, const ModelTable *models)
{
	ConditionError ignored = {0};

	memset(question, 0, sizeof(Question));
	question->call = call;
	question->key = "";
	if (read_built_in(call->node, models, question))
		return;
	question->kind = FACT_OTHER;
	question->key = condition_print(call->node, &ignored);
	if (question->key == NULL)
		question->key = psprintf("%p", (const void *) call);
}
