/*
 * allowance.c
 *		How much a strategy grants a user: its amount, or what the user's balance
 *		lacks of it.
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/numeric.h"

#include "scan/allowance.h"

/* The kind by its name in quota_strategy. */
AllowanceKind
allowance_kind(const char *name)
{
	if (strcmp(name, "top_up") == 0)
		return ALLOWANCE_TOP_UP;
	if (strcmp(name, "exact") == 0)
		return ALLOWANCE_EXACT;
	if (strcmp(name, "add") == 0)
		return ALLOWANCE_ADD;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("unknown allowance \"%s\"", name),
			 errhint("Write add, top_up or exact.")));
}

/*
 * What a user with this balance is granted, a numeric in the current memory
 * context: as much of it as the dialect can carry.  Zero: nothing is missing.
 */
Datum
allowance_due(const Allowance *allowance, Datum balance)
{
	Datum lack = DirectFunctionCall2(numeric_sub, allowance->amount, balance);
	char *literal = DatumGetCString(DirectFunctionCall1(numeric_out, lack));
	char  carried[GATEWAY_AMOUNT_SIZE];
	bool  takes_away = literal[0] == '-';

	if (takes_away && allowance->kind == ALLOWANCE_TOP_UP)
		literal = "0";
	gateway_amount_truncate(allowance->dialect, literal, carried);
	return DirectFunctionCall3(numeric_in, CStringGetDatum(carried), ObjectIdGetDatum(InvalidOid),
							   Int32GetDatum(-1));
}
