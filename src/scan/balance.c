/*
 * balance.c
 *		Balances as conditions see them: which gateway a model means, and how
 *		old a balance may be.
 *
 * Statements of ours carry the gateway as a constant: where users are spread
 * over several servers, only the one that runs the statement knows which it is.
 * In other queries quota-le looks it up at run time, so that a cached plan asks
 * the gateway that serves the model by then.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/guc.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"

#include "condition/condition.h"
#include "scan/evaluation.h"
#include "scan/scan.h"

PG_FUNCTION_INFO_V1(qm_balance_at);
PG_FUNCTION_INFO_V1(qm_balance_for);
PG_FUNCTION_INFO_V1(qm_bound_condition);
PG_FUNCTION_INFO_V1(qm_balance_horizon);
PG_FUNCTION_INFO_V1(qm_balance_clock);

static int balance_max_age;

/* Read by SQL: quota_internal.surge_limit(). */
static double surge_factor;
static int    surge_minimum;

/* The state of a strategy that is written without one; only SQL reads it. */
static int  default_strategy_state;
static bool lint_on_write;
static bool delete_proof;

static const struct config_enum_entry strategy_states[] = {
	{"draft", 0, false}, {"active", 1, false}, {NULL, 0, false}};

/* The gateway of the model last asked for at this call site, in fn_mcxt. */
typedef struct ServedModel
{
	char *model;
	char *gateway; /* NULL: none serves it */
} ServedModel;

/* Registers the settings of scans and strategies; called once by _PG_init. */
void
scan_define_settings(void)
{
	DefineCustomIntVariable("quota_manager.balance_max_age",
							"Age up to which a balance that was read is used.",
							"Older ones count as missing and are read again.", &balance_max_age,
							300, 1, INT_MAX / 1000, PGC_SUSET, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomRealVariable(
		"quota_manager.surge_factor",
		"A run that would grant so many times more than usual grants nothing.",
		"Usual is the most that any of the last ten runs of the strategy granted. "
		"0: it never stops.",
		&surge_factor, 10, 0, 1e6, PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("quota_manager.surge_minimum",
							"Runs of up to so many grants are never too large.",
							"See quota_manager.surge_factor.", &surge_minimum, 1000, 0, INT_MAX,
							PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomBoolVariable("quota_manager.incremental_scans",
							 "Scans evaluate only users who have changed, where that is enough.",
							 "Single strategies whose condition depends on the user alone.",
							 &incremental_scans, true, PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomEnumVariable("quota_manager.default_strategy_state",
							 "State of a new strategy that says neither state nor enabled.",
							 "draft: it grants nothing until it is made active. active: it grants.",
							 &default_strategy_state, 0, strategy_states, PGC_USERSET, 0, NULL,
							 NULL, NULL);
	DefineCustomBoolVariable("quota_manager.lint_on_write",
							 "Warns of what is probably wrong with a strategy when it is written.",
							 "Off: lint() says it all the same.", &lint_on_write, true, PGC_USERSET,
							 0, NULL, NULL, NULL);
	DefineCustomBoolVariable(
		"quota_manager.delete_proof",
		"Lets DELETE, TRUNCATE and UPDATE take what proves that users were paid.",
		"Users may be paid again by the next scan that reads them.", &delete_proof, false,
		PGC_USERSET, 0, NULL, NULL, NULL);
}

/*
 * The first column of the one row that a query about a model returns, in the
 * current memory context; NULL: null.
 */
static char *
ask_about_model(const char *query, const char *model)
{
	MemoryContext caller = CurrentMemoryContext;
	Oid           types[] = {TEXTOID};
	Datum         values[] = {CStringGetTextDatum(model)};
	char         *result = NULL;

	SPI_connect();
	if (SPI_execute_with_args(query, 1, types, values, NULL, true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not look up the gateway of a model");
	if (SPI_processed == 1)
	{
		char *value = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);

		if (value)
			result = MemoryContextStrdup(caller, value);
	}
	SPI_finish();
	return result;
}

/* Which gateway serves a model; NULL: none. */
static char *
gateway_of_model(const char *model)
{
	return ask_about_model("SELECT quota_manager.gateway_of($1)", model);
}

/*
 * Raises an error where there is no gateway at all, though there are balances:
 * this server holds only a part of the users, and no table of gateways.
 */
static void
require_gateways(const char *model)
{
	if (ask_about_model("SELECT g.name FROM quota_manager.quota_gateway g WHERE $1 IS NOT NULL"
						" LIMIT 1",
						model) == NULL)
		ereport(
			ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("it is not known on this server which gateway serves model \"%s\"", model),
			 errhint("In a query of your own over users who are spread over several servers, write "
					 "balance-le(gateway, amount) in place of quota-le(model, amount).")));
}

/* The number that balances hold for a gateway; null: none. */
static NullableDatum
balance_of(Jsonb *balances, const char *gateway, int length)
{
	NullableDatum result = {0, true};
	JsonbValue    buffer;
	JsonbValue   *value;

	if (!JB_ROOT_IS_OBJECT(balances))
		return result;
	value = getKeyJsonValueFromContainer(&balances->root, gateway, length, &buffer);
	if (value == NULL || value->type != jbvNumeric)
		return result;
	result.value = datumCopy(NumericGetDatum(value->val.numeric), false, -1);
	result.isnull = false;
	return result;
}

/* balance_at(balances, gateway): the balance at the gateway. */
Datum
qm_balance_at(PG_FUNCTION_ARGS)
{
	Jsonb        *balances = PG_GETARG_JSONB_P(0);
	text         *gateway = PG_GETARG_TEXT_PP(1);
	NullableDatum balance = balance_of(balances, VARDATA_ANY(gateway), VARSIZE_ANY_EXHDR(gateway));

	if (balance.isnull)
		PG_RETURN_NULL();
	PG_RETURN_DATUM(balance.value);
}

/*
 * balance_for(balances, model): the balance at the gateway that serves the
 * model.  A query asks about one model with many users, so the gateway is
 * looked up once.
 */
Datum
qm_balance_for(PG_FUNCTION_ARGS)
{
	ServedModel  *cached = fcinfo->flinfo->fn_extra;
	char         *model;
	NullableDatum balance;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		PG_RETURN_NULL();
	model = text_to_cstring(PG_GETARG_TEXT_PP(1));
	if (cached == NULL || strcmp(cached->model, model) != 0)
	{
		MemoryContext memory = fcinfo->flinfo->fn_mcxt;
		char         *gateway = gateway_of_model(model);

		if (gateway == NULL)
			require_gateways(model);
		if (cached == NULL)
			cached = MemoryContextAllocZero(memory, sizeof(ServedModel));
		else
		{
			pfree(cached->model);
			if (cached->gateway)
				pfree(cached->gateway);
		}
		cached->model = MemoryContextStrdup(memory, model);
		cached->gateway = gateway ? MemoryContextStrdup(memory, gateway) : NULL;
		fcinfo->flinfo->fn_extra = cached;
	}
	if (cached->gateway == NULL)
		PG_RETURN_NULL();
	balance = balance_of(PG_GETARG_JSONB_P(0), cached->gateway, (int) strlen(cached->gateway));
	if (balance.isnull)
		PG_RETURN_NULL();
	PG_RETURN_DATUM(balance.value);
}

/*
 * bound_condition(condition): the condition with gateways in the place of
 * models.  One that would become too long for a condition stays as it is.
 */
Datum
qm_bound_condition(PG_FUNCTION_ARGS)
{
	char          *source = text_to_cstring(PG_GETARG_TEXT_PP(0));
	ConditionError error = {0};
	ConditionNode *node = condition_parse(source, (int) strlen(source), &error);
	char          *bound;

	if (node == NULL)
		condition_raise(&error, source);
	condition_bind(node, gateway_of_model);
	bound = condition_print(node, &error);
	PG_RETURN_TEXT_P(cstring_to_text(bound ? bound : source));
}

/* balance_horizon(): balances read at or before it are too old. */
Datum
qm_balance_horizon(PG_FUNCTION_ARGS)
{
	PG_RETURN_TIMESTAMPTZ(GetCurrentTransactionStartTimestamp() - balance_max_age * USECS_PER_SEC);
}

/*
 * balance_clock(): balances asked for after it are from a clock that was set
 * back since.  Not the transaction's time: it may have waited for them.
 */
Datum
qm_balance_clock(PG_FUNCTION_ARGS)
{
	PG_RETURN_TIMESTAMPTZ(GetCurrentTimestamp());
}
