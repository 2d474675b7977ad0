/*
 * manual_call.c
 *		Requests to a gateway by hand: gateway_query, gateway_refresh and
 *		gateway_delta.
 *
 * Unlike deliveries, these run in the caller's transaction.
 */
#include "postgres.h"

#include <limits.h>
#include <math.h>

#include "access/table.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/numeric.h"

#include "common/rights.h"
#include "endpoint/await.h"
#include "endpoint/brakes.h"
#include "endpoint/gateway_row.h"
#include "manual/argument.h"
#include "manual/call.h"
#include "scan/balance_table.h"

PG_FUNCTION_INFO_V1(qm_gateway_query);
PG_FUNCTION_INFO_V1(qm_gateway_refresh);
PG_FUNCTION_INFO_V1(qm_gateway_delta);

/* What is known of the user's balance while a call is under way. */
typedef struct CallBalance
{
	TimestampTz   asked;
	BalanceChange change;
	int64         token; /* of the balance that is read; see balance_table.h */
} CallBalance;

/* Is what is reported an error?  Context is asked for of notices, too. */
static bool
is_error(void)
{
	int category = ERRCODE_TO_CATEGORY(geterrcode());

	return category != ERRCODE_TO_CATEGORY(ERRCODE_SUCCESSFUL_COMPLETION) &&
		   category != ERRCODE_TO_CATEGORY(ERRCODE_WARNING);
}

/*
 * Of an error that is not about the outcome, such as a time-out: says what became
 * of the change all the same.
 */
static void
tell_outcome(void *arg)
{
	const ManualCall *call = arg;

	if (!is_error())
		return;
	if (call->reply.outcome == GATEWAY_COMPLETED)
	{
		errdetail("Gateway \"%s\" has applied the request, and keeps it so.", call->gateway);
		errhint("Do not repeat it.");
	}
	else if (call->reply.outcome == GATEWAY_IN_DOUBT)
	{
		errdetail("Gateway \"%s\" may have applied the request.", call->gateway);
		errhint("Compare the user's balance before you try again.");
	}
}

/* Submits the request and waits for its answer. */
static void
await_reply(GatewaySession *session, ManualCall *call)
{
	GatewayRequest request = {call->action, call->user_id, call->amount};
	GatewayResult  result;

	if (!gateway_submit(session, &request))
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	call->reply.outcome = GATEWAY_IN_DOUBT;
	while (await_answers(session, LONG_MAX, &result, 1) == 0)
		continue;
	call->reply = result.reply;
}

/*
 * Sends the request, waits for its answer, and closes the session whatever
 * happens.
 */
static void
exchange(GatewaySession *session, ManualCall *call)
{
	PG_TRY();
	{
		await_reply(session, call);
	}
	PG_CATCH();
	{
		gateway_close(session);
		PG_RE_THROW();
	}
	PG_END_TRY();
	gateway_close(session);
}

/*
 * Before the request is sent.  What is known of the user's balance is so no
 * more if it is to be changed.  If it is read, the answer is stored where it
 * will count and no scan is under way.
 */
static void
prepare_balance(const ManualCall *call, CallBalance *balance)
{
	BalanceQuestion question = {call->user_id, BALANCE_NO_TOKEN};

	balance->asked = GetCurrentTimestamp();
	if (XactReadOnly || RecoveryInProgress())
		return;
	if (call->action != GATEWAY_QUERY)
	{
		balance->change.gateway = call->gateway;
		balance->change.user_id = call->user_id;
		balance_table_begin_change(&balance->change);
	}
	else if (balance_table_ask(call->gateway, &question, 1))
		balance->token = question.token;
}

/* Stores the balance that was read, if it counts, or forgets what was known. */
static void
record_balance(const ManualCall *call, const CallBalance *balance)
{
	BalanceAnswer answer = {call->user_id, balance->token};
	int           stored;

	if (call->action != GATEWAY_QUERY)
		balance_table_end_change(&balance->change);
	if (balance->token == BALANCE_NO_TOKEN)
		return;
	strlcpy(answer.amount, call->reply.balance, sizeof(answer.amount));
	answer.asked = balance->asked;
	(void) balance_table_store(call->gateway, &answer, 1, &stored);
}

/* Writes the call, and a balance that was read, where that can be done. */
static void
record_call(const ManualCall *call, const CallBalance *balance, const char *role)
{
	if (XactReadOnly || RecoveryInProgress())
		return;
	call_write(call, role);
	record_balance(call, balance);
}

/* Raises the error that an outcome deserves. */
static void
report_outcome(const ManualCall *call)
{
	const char *text = call->reply.message;
	bool        blames_parameters = call->reply.names_parameters;

	switch (call->reply.outcome)
	{
		case GATEWAY_COMPLETED:
			return;
		case GATEWAY_NOT_SENT:
			ereport(ERROR, (errcode(ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION),
							errmsg("gateway \"%s\" cannot be reached: %s", call->gateway, text),
							errdetail("Nothing was sent.")));
			break;
		case GATEWAY_THROTTLED:
			ereport(ERROR,
					(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
					 errmsg("gateway \"%s\" asks to come back later: %s", call->gateway, text),
					 call->reply.retry_after > 0
						 ? errdetail("Nothing was applied. It asks to wait %d s.",
									 (int) ceil(Min(call->reply.retry_after, SECS_PER_DAY)))
						 : errdetail("Nothing was applied.")));
			break;
		case GATEWAY_BLOCKED:
			if (call->reply.http_status >= 500)
				ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
								errmsg("the store behind gateway \"%s\" refuses the request: %s",
									   call->gateway, text),
								errdetail("Nothing was applied.")));
			ereport(ERROR,
					(errcode(blames_parameters
								 ? ERRCODE_INVALID_PARAMETER_VALUE
								 : ERRCODE_SQLSERVER_REJECTED_ESTABLISHMENT_OF_SQLCONNECTION),
					 errmsg("gateway \"%s\" refuses access: %s", call->gateway, text),
					 errdetail("Nothing was applied."),
					 blames_parameters ? 0 : errhint("Check its URL, path and key.")));
			break;
		case GATEWAY_REFUSED:
			ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
							errmsg("gateway \"%s\" refuses the request: %s", call->gateway, text),
							errdetail("Nothing was applied.")));
			break;
		case GATEWAY_IN_DOUBT:
			if (call->action == GATEWAY_QUERY)
				ereport(ERROR, (errcode(ERRCODE_CONNECTION_FAILURE),
								errmsg("gateway \"%s\" did not answer: %s", call->gateway, text)));
			ereport(ERROR, (errcode(ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN),
							errmsg("nobody can tell whether gateway \"%s\" applied the request: %s",
								   call->gateway, text),
							errhint("Compare the user's balance before you try again.")));
			break;
	}
}

/*
 * Raises an error for a change where nothing may be changed: it would leave no
 * row, and who may only read here may not write elsewhere.
 */
static void
refuse_read_only(const ManualCall *call)
{
	const char *name = call->action == GATEWAY_DELTA ? "gateway_delta()" : "gateway_refresh()";

	if (call->action == GATEWAY_QUERY)
		return;
	PreventCommandDuringRecovery(name);
	PreventCommandIfReadOnly(name);
}

/*
 * Makes the request that the arguments ask for, from the user's id on; the
 * last argument is the gateway's name.
 */
static void
run_call(FunctionCallInfo fcinfo, ManualCall *call)
{
	int                  last = PG_NARGS() - 1;
	char                *name = argument_text(fcinfo, last, "the gateway's name");
	char                *role = GetUserNameFromId(GetOuterUserId(), false);
	GatewayRow          *row;
	GatewaySession      *session;
	CallBalance          balance = {0};
	char                *problem;
	ErrorContextCallback outcome = {error_context_stack, tell_outcome, call};

	refuse_read_only(call);
	call->user_id = argument_required_text(fcinfo, 0, "the user's id");
	if (call->action != GATEWAY_QUERY)
	{
		if (PG_ARGISNULL(1))
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("the amount must be given")));
		call->amount = DatumGetCString(DirectFunctionCall1(
			numeric_out, DirectFunctionCall1(numeric_trim_scale, PG_GETARG_DATUM(1))));
	}
	if (call->action == GATEWAY_DELTA)
		call->reason = argument_required_text(fcinfo, 2, "the reason");

	rights_require_caller();
	SPI_connect();
	row = gateway_row_choose(gateway_rows_read(CurrentMemoryContext), name);
	call->gateway = row->name;
	if (call->amount != NULL)
		call_require_amount(row, call->amount);
	if (call->action != GATEWAY_QUERY)
		call_refuse_where_reconciled(row);
	brakes_notice(row->name);
	/* Not after the request: who hears of a time-out then would send it again. */
	if (call->action != GATEWAY_QUERY)
		table_close(
			table_openrv(makeRangeVar("quota_manager", "gateway_call", -1), RowExclusiveLock),
			NoLock);
	prepare_balance(call, &balance);
	session = gateway_row_open(row, &problem);
	if (session == NULL)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("gateway \"%s\" cannot be used: %s", row->name, problem)));

	if (call->action != GATEWAY_QUERY)
		call_log(call, role, "sent");
	/* Whatever is reported, also to the server log, can be interrupted. */
	call->reply.outcome = GATEWAY_NOT_SENT;
	if (call->action != GATEWAY_QUERY)
		error_context_stack = &outcome;
	exchange(session, call);
	call_log(call, role, call_outcome_name(call));
	error_context_stack = outcome.previous;
	report_outcome(call);

	if (call->action != GATEWAY_QUERY)
		error_context_stack = &outcome;
	record_call(call, &balance, role);
	error_context_stack = outcome.previous;
}

/* gateway_query(user_id, gateway): what remains of the user's quota. */
Datum
qm_gateway_query(PG_FUNCTION_ARGS)
{
	ManualCall call = {GATEWAY_QUERY};
	Datum      balance;

	run_call(fcinfo, &call);
	SPI_finish();
	balance = DirectFunctionCall3(numeric_in, CStringGetDatum(call.reply.balance),
								  ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1));
	PG_RETURN_DATUM(balance);
}

/* gateway_refresh(user_id, quota, gateway): sets the user's quota. */
Datum
qm_gateway_refresh(PG_FUNCTION_ARGS)
{
	ManualCall call = {GATEWAY_REFRESH};

	run_call(fcinfo, &call);
	SPI_finish();
	PG_RETURN_TEXT_P(cstring_to_text("applied"));
}

/* gateway_delta(user_id, value, reason, gateway): adds to the user's quota. */
Datum
qm_gateway_delta(PG_FUNCTION_ARGS)
{
	ManualCall call = {GATEWAY_DELTA};

	run_call(fcinfo, &call);
	SPI_finish();
	PG_RETURN_TEXT_P(cstring_to_text("applied"));
}
