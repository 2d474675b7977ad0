/*
 * audit_balances.c
 *		audit_balances: compares what users have at a gateway with what was
 *		granted there.
 *
 * First the users are listed, then each is asked about, and last the grants are
 * added up: what was settled since the beginning of the audit may or may not
 * have been there when its user was asked about, so it only widens the range in
 * which the balance must lie.  Users and answers are kept in tuplestores, which
 * go to disk, and both are in one order, so nothing grows with their number.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#include "common/rights.h"
#include "common/statement.h"
#include "endpoint/brakes.h"
#include "manual/argument.h"
#include "manual/audit.h"

PG_FUNCTION_INFO_V1(qm_audit_balances);

static Statement read_sole_writer = {
	"SELECT g.sole_writer FROM quota_manager.quota_gateway g WHERE g.id = $1", {INT4OID}};

#define LIST_USERS(pruned)                                                                         \
	"SELECT u.user_id FROM ("                                                                      \
	" SELECT e.user_id FROM quota_manager.quota_execute e WHERE e.gateway = $1" pruned             \
	" UNION SELECT c.user_id FROM quota_manager.gateway_call c"                                    \
	" WHERE c.gateway = $1 AND c.action <> 'query' AND c.outcome = 'applied') u"                   \
	" ORDER BY u.user_id COLLATE \"C\""

/* The other one is for a database with the SQL of 1.0.0, which prunes nothing. */
static Statement list_users = {
	LIST_USERS(" UNION SELECT p.user_id FROM quota_manager.pruned_grant p WHERE p.gateway = $1"
			   " AND p.standing > 0 UNION SELECT b.user_id FROM quota_manager.bulk_call b"
			   " WHERE b.gateway = $1"
			   " AND (b.state IN ('sent', 'in_doubt') OR b.decide_time IS NOT NULL)"),
	{TEXTOID}};
static Statement list_users_with_grants = {LIST_USERS(""), {TEXTOID}};

/* Closes the session of an audit that ends, however it does. */
static void
close_session(void *argument)
{
	Audit *audit = argument;

	gateway_close(audit->session);
	audit->session = NULL;
}

/* Raises an error for a gateway where others write too: nothing could be said. */
static void
require_sole_writer(const GatewayRow *row)
{
	if (!statement_is_true(&read_sole_writer, ARGS(arg_int32(row->id))))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("balances at gateway \"%s\" cannot be audited", row->name),
				 errdetail("It is not marked as having a sole writer: others may have added what "
						   "was not granted here."),
				 errhint("Set sole_writer in quota_manager.quota_gateway if nobody but this "
						 "database changes quotas there.")));
}

/* False in a database with the SQL of 1.0.0.  Cheap. */
static bool
counts_pruned(void)
{
	Oid schema = get_namespace_oid("quota_manager", true);

	return OidIsValid(schema) && OidIsValid(get_relname_relid("pruned_grant", schema));
}

/* Adds a user to the list. */
static void
put_user(Audit *audit, const char *user_id)
{
	Datum values[1] = {CStringGetTextDatum(user_id)};
	bool  nulls[1] = {false};

	tuplestore_putvalues(audit->users, audit->user_desc, values, nulls);
	pfree(DatumGetPointer(values[0]));
}

/* Lists the users of the gateway. */
static void
collect_users(Audit *audit)
{
	Portal cursor =
		statement_open_cursor(audit->counts_pruned ? &list_users : &list_users_with_grants,
							  ARGS(arg_text(audit->row->name)));

	for (;;)
	{
		uint64 i;

		CHECK_FOR_INTERRUPTS();
		SPI_cursor_fetch(cursor, true, AUDIT_FETCH_ROWS);
		if (SPI_processed == 0)
			break;
		for (i = 0; i < SPI_processed; i++)
		{
			char *user_id = result_text(i, 1);

			put_user(audit, user_id);
			pfree(user_id);
		}
		SPI_freetuptable(SPI_tuptable);
	}
	SPI_cursor_close(cursor);
}

/* Says how many users were compared, and what that cannot show. */
static void
summarize(const Audit *audit)
{
	bool is_zgsm = audit->row->dialect == GATEWAY_ZGSM;

	ereport(NOTICE,
			(errmsg("gateway \"%s\": %lld users were answered for, %lld differ", audit->row->name,
					(long long) audit->answered, (long long) audit->differing),
			 audit->unanswered + audit->changed > 0
				 ? errdetail("%lld users were not answered for, and %lld were changed by hand "
							 "meanwhile.",
							 (long long) audit->unanswered, (long long) audit->changed)
				 : 0,
			 !is_zgsm && audit->row->max_usage_rate < 0
				 ? errhint("Less than was granted may have been used: only more can be told. Set "
						   "max_usage_rate if you know the most that one user can use.")
				 : 0));
	if (audit->granted > 0 && audit->empty == audit->granted)
		ereport(WARNING,
				(errmsg("gateway \"%s\" says 0 of all %lld users to whom something was granted",
						audit->row->name, (long long) audit->granted),
				 errhint("It may have lost its data, or keep it elsewhere after an upgrade.")));
}

/*
 * Makes an audit in the current memory context, whose reset or deletion closes
 * its session.
 */
static Audit *
audit_create(GatewayRow *row)
{
	Audit                 *audit = palloc0(sizeof(Audit));
	MemoryContextCallback *callback = palloc0(sizeof(MemoryContextCallback));
	char                  *problem;

	audit->row = row;
	audit->counts_pruned = counts_pruned();
	audit->began = GetCurrentTimestamp();
	audit->next_send = audit->paused_until = MONO_PAST;
	callback->func = close_session;
	callback->arg = audit;
	MemoryContextRegisterResetCallback(CurrentMemoryContext, callback);
	audit->session = gateway_row_open(row, &problem);
	if (audit->session == NULL)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("gateway \"%s\" cannot be used: %s", row->name, problem)));
	audit->user_desc = CreateTemplateTupleDesc(1);
	TupleDescInitEntry(audit->user_desc, 1, "user_id", TEXTOID, -1, 0);
	audit->answer_desc = CreateTemplateTupleDesc(4);
	TupleDescInitEntry(audit->answer_desc, 1, "user_id", TEXTOID, -1, 0);
	TupleDescInitEntry(audit->answer_desc, 2, "figure", TEXTOID, -1, 0);
	TupleDescInitEntry(audit->answer_desc, 3, "is_below_zero", BOOLOID, -1, 0);
	TupleDescInitEntry(audit->answer_desc, 4, "problem", TEXTOID, -1, 0);
	audit->users = tuplestore_begin_heap(false, false, work_mem);
	audit->answers = tuplestore_begin_heap(false, false, work_mem);
	audit->memory = CurrentMemoryContext;
	audit->batch_memory =
		AllocSetContextCreate(CurrentMemoryContext, "quota_manager audit", ALLOCSET_DEFAULT_SIZES);
	return audit;
}

/* audit_balances(gateway) */
Datum
qm_audit_balances(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	char          *name = argument_text(fcinfo, 0, "the gateway's name");
	GatewayRow    *row;
	Audit         *audit;

	InitMaterializedSRF(fcinfo, 0);
	rights_require_caller();
	SPI_connect();
	row = gateway_row_choose(gateway_rows_read(CurrentMemoryContext), name);
	require_sole_writer(row);
	brakes_notice(row->name);
	audit = audit_create(row);

	collect_users(audit);
	audit_read_balances(audit);
	if (audit->answered == 0 && audit->failures > 0)
		audit_give_up(audit);
	audit_compare(audit, result);
	summarize(audit);

	close_session(audit);
	tuplestore_end(audit->users);
	tuplestore_end(audit->answers);
	SPI_finish();
	return (Datum) 0;
}
