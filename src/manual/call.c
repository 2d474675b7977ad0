/*
 * call.c
 *		A request to a gateway by hand, and what is written of it.
 *
 * What such a request does to the gateway stays done when a transaction is
 * rolled back.  So each of them is written to the server's log as well as to a
 * row of gateway_call.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/numeric.h"

#include "common/statement.h"
#include "manual/call.h"

/* Of an amount that cannot be sent so many digits are shown. */
#define SHOWN_DIGITS 60

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

/* The outcome of a call in the words of gateway_call and of the log. */
const char *
call_outcome_name(const ManualCall *call)
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

/* Writes to the server's log, which a rollback cannot reach. */
void
call_log(const ManualCall *call, const char *role, const char *outcome)
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

/* Writes a row of gateway_call. */
void
call_write(const ManualCall *call, const char *role)
{
	const char *message = call->reply.message[0] != '\0' ? call->reply.message : NULL;

	statement_run(&write_call,
				  ARGS(arg_text(role), arg_text(action_name(call->action)), arg_text(call->gateway),
					   arg_text(call->user_id), arg_text(call->amount), arg_text(call->reason),
					   arg_text(call_outcome_name(call)), arg_text(message)));
}

/* A number that was read as text, as it is sent. */
char *
call_amount(const char *amount)
{
	Datum value = DirectFunctionCall3(numeric_in, CStringGetDatum(amount),
									  ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1));

	return DatumGetCString(
		DirectFunctionCall1(numeric_out, DirectFunctionCall1(numeric_trim_scale, value)));
}

/* Raises an error for an amount that the gateway's dialect cannot carry. */
void
call_require_amount(const GatewayRow *row, const char *amount)
{
	if (!gateway_amount_fits(row->dialect, amount))
		ereport(ERROR,
				(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
				 errmsg("amount %.*s%s cannot be sent to gateway \"%s\"", SHOWN_DIGITS, amount,
						strlen(amount) > SHOWN_DIGITS ? "..." : "", row->name),
				 row->dialect == GATEWAY_HIGRESS
					 ? errdetail("The dialect higress takes whole numbers within 64 bits.")
					 : errdetail("The dialect zgsm takes numbers with at most 6 decimals up to "
								 "9007199254.740992, and integers up to 9007199254740992.")));
}

/*
 * Raises an error for a gateway where what a user has before and after a grant
 * proves whether it was applied.  It stays another one until the caller's
 * transaction ends.
 */
void
call_refuse_where_reconciled(const GatewayRow *row)
{
	if (statement_is_true(&lock_reconciles, ARGS(arg_int32(row->id))))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("quotas at gateway \"%s\" cannot be changed by hand", row->name),
				 errdetail("Its doubt policy is reconcile: the change would be taken for a grant."),
				 errhint("Set its doubt_policy to hold first.")));
}
