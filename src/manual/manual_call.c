/*
 * manual_call.c
 *		Requests to a gateway by hand: gateway_query, gateway_refresh and
 *		gateway_delta.
 *
 * Unlike deliveries, these run in the caller's transaction: what they do to
 * the gateway stays done when it is rolled back.  So each of them is written to
 * the server's log as well as to a row of gateway_call.
 */
#include "postgres.h"

#include <limits.h>
#include <math.h>

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/numeric.h"

#include "common/rights.h"
#include "manual/argument.h"
#include "endpoint/await.h"
#include "endpoint/brakes.h"
#include "endpoint/gateway_row.h"
#include "common/statement.h"
#include "scan/balance_table.h"

PG_FUNCTION_INFO_V1(qm_gateway_query);
PG_FUNCTION_INFO_V1(qm_gateway_refresh);
PG_FUNCTION_INFO_V1(qm_gateway_delta);

/* Of an amount that cannot be sent so many digits are shown. */
#define SHOWN_DIGITS 60

/* A request by hand and its answer. */
typedef struct ManualCall
{
	GatewayAction action;
	const char   *user_id;
	const char   *amount; /* NULL for a query */
	const char   *reason; /* NULL: none was asked for */
	const char   *gateway;
	TimestampTz   asked;
	BalanceChange change;
	int64         token; /* of the balance that is read; see balance_table.h */
	GatewayReply  reply;
} ManualCall;

static Statement write_call = {
	"INSERT INTO quota_manager.gateway_call (role, action, gateway, user_id, amount, reason,"
	" outcome, message)"
	" VALUES ($1, $2, $3, $4, $5::numeric, $6, $7, $8)",
	{TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID}};

/* The lock keeps the policy until the caller's transaction ends. */
static Statement lock_reconciles = {
	"SELECT g.doubt_policy = 'reconcile' FROM quota_manager.quota_gateway g WHERE g.id = $1"
	" FOR SHARE",
	{INT4OID}};

static const char *
action_name(GatewayAction action)
{
	switch (action)
	{
		case GATEWAY_QUERY:
			return "query";
		case GATEWAY_REFRESH:
			return "refresh";
		case GATEWAY_DELTA:
			return "delta";
	}
	return NULL;
}

static const char *
outcome_name(const ManualCall *call)
{
	switch (call->reply.outcome)
	{
		case GATEWAY_COMPLETED:
			return call->action == GATEWAY_QUERY ? "answered" : "applied";
		case GATEWAY_NOT_SENT:
			return "not sent";
		case GATEWAY_THROTTLED:
			return "throttled";
		case GATEWAY_BLOCKED:
			return "blocked";
		case GATEWAY_REFUSED:
			return "refused";
		case GATEWAY_IN_DOUBT:
			return call->action == GATEWAY_QUERY ? "unanswered" : "in doubt";
	}
	return NULL;
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
		GatewayRequest request = {call->action, call->user_id, call->amount};
		GatewayResult  result;

		if (!gateway_submit(session, &request))
			ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
		while (await_answers(session, LONG_MAX, &result, 1) == 0)
			continue;
		call->reply = result.reply;
	}
	PG_CATCH();
	{
		gateway_close(session);
		PG_RE_THROW();
	}
	PG_END_TRY();
	gateway_close(session);
}

/* Writes to the server's log, which a rollback cannot reach. */
static void
log_call(const ManualCall *call, const char *role, const char *outcome)
{
	ereport(
		LOG_SERVER_ONLY,
		(errmsg("gateway \"%s\": %s of user \"%s\" by role \"%s\" (session of \"%s\"): %s",
				call->gateway, action_name(call->action), call->user_id, role,
				GetUserNameFromId(GetSessionUserId(), false), outcome),
		 call->amount ? errdetail_log("Amount %s, reason: %s", call->amount,
									  call->reason ? call->reason : "none given")
					  : 0,
		 call->reply.message[0] ? errcontext("answer of the gateway: %s", call->reply.message) : 0,
		 errhidestmt(true)));
}

/*
 * Before the request is sent.  What is known of the user's balance is so no
 * more if it is to be changed.  If it is read, the answer is stored where it
 * will count and no scan is under way.
 */
static void
prepare_balance(ManualCall *call)
{
	BalanceQuestion question = {call->user_id, BALANCE_NO_TOKEN};

	call->asked = GetCurrentTimestamp();
	if (XactReadOnly || RecoveryInProgress())
		return;
	if (call->action != GATEWAY_QUERY)
	{
		call->change.gateway = call->gateway;
		call->change.user_id = call->user_id;
		balance_table_begin_change(&call->change);
	}
	else if (balance_table_ask(call->gateway, &question, 1))
		call->token = question.token;
}

/* Stores the balance that was read, if it counts, or forgets what was known. */
static void
record_balance(const ManualCall *call)
{
	BalanceAnswer answer = {call->user_id, call->token};
	int           stored;

	if (call->action != GATEWAY_QUERY)
		balance_table_end_change(&call->change);
	if (call->token == BALANCE_NO_TOKEN)
		return;
	strlcpy(answer.amount, call->reply.balance, sizeof(answer.amount));
	answer.asked = call->asked;
	(void) balance_table_store(call->gateway, &answer, 1, &stored);
}

/* Writes the call, and a balance that was read, where that can be done. */
static void
record_call(const ManualCall *call, const char *role)
{
	const char *message = call->reply.message[0] != '\0' ? call->reply.message : NULL;

	if (XactReadOnly || RecoveryInProgress())
		return;
	statement_run(&write_call,
				  ARGS(arg_text(role), arg_text(action_name(call->action)), arg_text(call->gateway),
					   arg_text(call->user_id), arg_text(call->amount), arg_text(call->reason),
					   arg_text(outcome_name(call)), arg_text(message)));
	record_balance(call);
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
 * Raises an error for a gateway where what a user has before and after a grant
 * proves whether it was applied.  It stays another one until the caller's
 * transaction ends.
 */
static void
refuse_where_reconciled(const GatewayRow *row)
{
	if (statement_is_true(&lock_reconciles, ARGS(arg_int32(row->id))))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("quotas at gateway \"%s\" cannot be changed by hand", row->name),
				 errdetail("Its doubt policy is reconcile: the change would be taken for a grant."),
				 errhint("Set its doubt_policy to hold first.")));
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
	int             last = PG_NARGS() - 1;
	char           *name = argument_text(fcinfo, last, "the gateway's name");
	char           *role = GetUserNameFromId(GetOuterUserId(), false);
	GatewayRow     *row;
	GatewaySession *session;
	char           *problem;

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
	if (call->amount != NULL && !gateway_amount_fits(row->dialect, call->amount))
		ereport(ERROR, (errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
						errmsg("amount %.*s%s cannot be sent to gateway \"%s\"", SHOWN_DIGITS,
							   call->amount, strlen(call->amount) > SHOWN_DIGITS ? "..." : "",
							   row->name)));
	if (call->action != GATEWAY_QUERY)
		refuse_where_reconciled(row);
	brakes_notice(row->name);
	prepare_balance(call);
	session = gateway_row_open(row, &problem);
	if (session == NULL)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("gateway \"%s\" cannot be used: %s", row->name, problem)));

	if (call->action != GATEWAY_QUERY)
		log_call(call, role, "sent");
	exchange(session, call);
	log_call(call, role, outcome_name(call));
	report_outcome(call);

	record_call(call, role);
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
