/*
 * amount_fits.c
 *		Amounts as the gateways' dialects can carry them.
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/numeric.h"

#include "endpoint/gateway_row.h"
#include "gateway/gateway.h"

PG_FUNCTION_INFO_V1(qm_amount_fits);

/* amount_fits(dialect, amount) */
Datum
qm_amount_fits(PG_FUNCTION_ARGS)
{
	char          *name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	char          *amount = DatumGetCString(DirectFunctionCall1(numeric_out, PG_GETARG_DATUM(1)));
	GatewayDialect dialect;

	if (!gateway_dialect_read(name, &dialect))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("unknown dialect \"%s\"", name),
				 errhint("The dialects are higress and zgsm.")));
	PG_RETURN_BOOL(gateway_amount_fits(dialect, amount));
}
