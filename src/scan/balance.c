/*
 * balance.c
 *		Balances as conditions see them: which gateway a model means, and how
 *		old a balance may be.
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

#include "scan/scan.h"

PG_FUNCTION_INFO_V1(qm_balance_at);
PG_FUNCTION_INFO_V1(qm_balance_horizon);
PG_FUNCTION_INFO_V1(qm_balance_clock);

static int balance_max_age;

/* The gateway of the model last asked for at this call site, in fn_mcxt. */
typedef struct GatewayOfModel
{
	char *model;
	char *gateway; /* NULL: none serves it */
} GatewayOfModel;

/*
 * Registers quota_manager.balance_max_age.
 */
void
scan_define_settings(void)
{
	DefineCustomIntVariable("quota_manager.balance_max_age",
							"Age up to which a balance that was read is used.",
							"Older ones count as unknown and are read again.", &balance_max_age,
							300, 1, INT_MAX / 1000, PGC_USERSET, GUC_UNIT_S, NULL, NULL, NULL);
}

/*
 * Asks the catalogue which gateway serves a model; the answer is allocated in
 * memory.
 */
static char *
look_up_gateway(const char *model, MemoryContext memory)
{
	Oid   types[] = {TEXTOID};
	Datum values[] = {CStringGetTextDatum(model)};
	char *result = NULL;

	SPI_connect();
	if (SPI_execute_with_args("SELECT quota_manager.gateway_of($1)", 1, types, values, NULL, true,
							  1) != SPI_OK_SELECT)
		elog(ERROR, "could not look up the gateway of a model");
	if (SPI_processed == 1)
	{
		char *value = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);

		if (value)
			result = MemoryContextStrdup(memory, value);
	}
	SPI_finish();
	return result;
}

/*
 * balance_at(balances, model): the balance at the gateway that serves the
 * model.  A query asks about one model with many users, so the gateway is
 * looked up once.
 */
Datum
qm_balance_at(PG_FUNCTION_ARGS)
{
	GatewayOfModel *cached = fcinfo->flinfo->fn_extra;
	char           *model;
	Jsonb          *balances;
	JsonbValue      buffer;
	JsonbValue     *value;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		PG_RETURN_NULL();
	model = text_to_cstring(PG_GETARG_TEXT_PP(1));
	if (cached == NULL || strcmp(cached->model, model) != 0)
	{
		MemoryContext memory = fcinfo->flinfo->fn_mcxt;
		char         *gateway = look_up_gateway(model, memory);

		if (cached == NULL)
			cached = MemoryContextAllocZero(memory, sizeof(GatewayOfModel));
		else
		{
			pfree(cached->model);
			if (cached->gateway)
				pfree(cached->gateway);
		}
		cached->model = MemoryContextStrdup(memory, model);
		cached->gateway = gateway;
		fcinfo->flinfo->fn_extra = cached;
	}
	balances = PG_GETARG_JSONB_P(0);
	if (cached->gateway == NULL || !JB_ROOT_IS_OBJECT(balances))
		PG_RETURN_NULL();
	value = getKeyJsonValueFromContainer(&balances->root, cached->gateway, strlen(cached->gateway),
										 &buffer);
	if (value == NULL || value->type != jbvNumeric)
		PG_RETURN_NULL();
	PG_RETURN_NUMERIC(DatumGetNumeric(datumCopy(NumericGetDatum(value->val.numeric), false, -1)));
}

/*
 * balance_horizon(): balances read at or before it are too old.
 */
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
