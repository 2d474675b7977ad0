/*
 * audit.c
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

#include <math.h>

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/execnodes.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"
#include "utils/wait_event.h"

#include "common/monotonic.h"
#include "common/rights.h"
#include "manual/argument.h"
#include "common/work_unit.h"
#include "endpoint/gateway_row.h"
#include "common/statement.h"

PG_FUNCTION_INFO_V1(qm_audit_balances);

/* Users that are asked about before their answers are put away in order. */
#define BATCH 512

/* Rows taken at once from a cursor, and answers from a session. */
#define FETCH_ROWS 1000
#define POLL_RESULTS 64

/* Longest wait between checks for interrupts, in milliseconds. */
#define POLL_SLICE 100

/* How often a user is asked about, and the pause in between, in milliseconds. */
#define TRIES 3
#define PAUSE 1000

/* The longest pause that a gateway can ask for, in milliseconds. */
#define MAX_PAUSE 60000

/* After so many failures without an answer in between the gateway is given up. */
#define MAX_FAILURES 100

/* The distance of two numbers of float64, as a share of them. */
#define FLOAT64_STEP 2.220446049250313e-16

/* zgsm tells six decimals. */
#define LAST_DECIMAL 1e-6

static Statement read_sole_writer = {
	"SELECT g.sole_writer FROM quota_manager.quota_gateway g WHERE g.id = $1", {INT4OID}};

static Statement list_users = {
	"SELECT u.user_id FROM ("
	" SELECT e.user_id FROM quota_manager.quota_execute e WHERE e.gateway = $1"
	" UNION SELECT c.user_id FROM quota_manager.gateway_call c"
	" WHERE c.gateway = $1 AND c.action <> 'query' AND c.outcome = 'applied') u"
	" ORDER BY u.user_id COLLATE \"C\"",
	{TEXTOID}};

/*
 * The least and the most that a user can have been granted at the gateway $1.
 * What was completed before the audit began ($2) counts for certain, and so do
 * changes by hand; what is open, or was completed since, may count.  A refresh
 * by hand sets the total: what was settled so long before it that it cannot
 * have overtaken it ($3) is gone, what was granted after it is added.
 */
static Statement add_up = {
	"SELECT y.user_id,"
	" sum(CASE WHEN y.is_certain THEN y.amount ELSE least(y.amount, 0) END),"
	" sum(CASE WHEN y.is_certain THEN y.amount ELSE greatest(y.amount, 0) END),"
	" count(*), min(y.begin_time), bool_or(y.kind <> 'grant' AND y.begin_time >= $2)"
	" FROM (SELECT x.user_id, x.kind, x.amount, x.begin_time, x.end_time, x.set_time,"
	"  x.end_time < $2 AND (x.set_time IS NULL OR x.begin_time >= x.set_time) AS is_certain"
	"  FROM (SELECT w.user_id, w.kind, w.amount, w.begin_time, w.end_time,"
	"   max(w.begin_time) FILTER (WHERE w.kind = 'refresh') OVER (PARTITION BY w.user_id)"
	"    AS set_time"
	"   FROM (SELECT e.user_id, 'grant' AS kind,"
	"     CASE WHEN e.status IN ('completed', 'processing', 'in_doubt') THEN e.amount ELSE 0 END"
	"      AS amount,"
	"     CASE WHEN e.run_id IS NULL THEN '-infinity' ELSE e.create_time END AS begin_time,"
	"     CASE WHEN e.status IN ('processing', 'in_doubt') THEN 'infinity' ELSE e.update_time END"
	"      AS end_time"
	"    FROM quota_manager.quota_execute e WHERE e.gateway = $1"
	"    UNION ALL SELECT c.user_id, c.action, c.amount, c.call_time, c.call_time"
	"    FROM quota_manager.gateway_call c"
	"    WHERE c.gateway = $1 AND c.action <> 'query' AND c.outcome = 'applied') w) x"
	"  WHERE x.set_time IS NULL OR CASE WHEN x.kind = 'refresh' THEN x.begin_time >= x.set_time"
	"   ELSE x.end_time >= x.set_time - $3 END) y"
	" GROUP BY y.user_id ORDER BY y.user_id COLLATE \"C\"",
	{TEXTOID, TIMESTAMPTZOID, INTERVALOID}};

/* What became of a user who is asked about. */
typedef enum AskedState
{
	ASKED_NOT, /* yet, or not at the moment */
	ASKED_NOW,
	ASKED_DONE,
} AskedState;

/* A user who is asked about. */
typedef struct AuditUser
{
	char      *user_id;
	AskedState state;
	int        tries;
	MonoTime   due;
	char       figure[64];    /* zgsm: the total, higress: what remains; "": not told */
	bool       is_below_zero; /* which is all that is known */
	char      *problem;       /* why it is not told */
} AuditUser;

/* An audit under way. */
typedef struct Audit
{
	GatewayRow      *row;
	GatewaySession  *session;
	TimestampTz      began;
	MonoTime         next_send; /* as rate_limit allows */
	MonoTime         paused_until;
	int              failures; /* in a row */
	GatewayReply     last_failure;
	TupleDesc        user_desc;
	TupleDesc        answer_desc;
	Tuplestorestate *users;   /* user_id */
	Tuplestorestate *answers; /* user_id, figure, is_below_zero, problem */
	MemoryContext    memory;  /* of the audit, and of what is done with at the end of a batch */
	MemoryContext    batch_memory;

	int64 answered;
	int64 unanswered;
	int64 differing;
	int64 touched; /* changed by hand meanwhile */
	int64 granted; /* users who were granted something for certain, */
	int64 empty;   /* and of whom the gateway says that they have 0 */
} Audit;

/* What was granted to a user. */
typedef struct Granted
{
	char       *user_id;
	Datum       least;
	Datum       most;
	int64       count;
	TimestampTz begin;
	bool        is_touched;
} Granted;

/*
 * Closes the session of an audit that ends, however it does.
 */
static void
close_session(void *argument)
{
	Audit *audit = argument;

	gateway_close(audit->session);
	audit->session = NULL;
}

/*
 * Raises an error for a gateway where others write too: nothing could be said.
 */
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

/*
 * Adds a user to the list.
 */
static void
put_user(Audit *audit, const char *user_id)
{
	Datum values[1] = {CStringGetTextDatum(user_id)};
	bool  nulls[1] = {false};

	tuplestore_putvalues(audit->users, audit->user_desc, values, nulls);
	pfree(DatumGetPointer(values[0]));
}

/*
 * Lists the users of the gateway.
 */
static void
collect_users(Audit *audit)
{
	Portal cursor = statement_open_cursor(&list_users, ARGS(arg_text(audit->row->name)));

	for (;;)
	{
		uint64 i;

		CHECK_FOR_INTERRUPTS();
		SPI_cursor_fetch(cursor, true, FETCH_ROWS);
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

/*
 * Raises an error with what the gateway said last: it does not answer.
 */
static void
give_up(const Audit *audit)
{
	ereport(ERROR,
			(errcode(ERRCODE_CONNECTION_FAILURE),
			 errmsg("gateway \"%s\" does not answer: %s", audit->row->name,
					audit->last_failure.message),
			 errdetail("%lld users were answered for before.", (long long) audit->answered)));
}

/*
 * Takes in an answer.  A user who is not answered for is asked about again after
 * a pause; a gateway that asks for one is left alone for as long as it says.
 */
static void
take_answer(Audit *audit, AuditUser *user, const GatewayReply *reply)
{
	bool is_zgsm = audit->row->dialect == GATEWAY_ZGSM;
	bool is_final = reply->outcome == GATEWAY_REFUSED ||
					(reply->outcome == GATEWAY_BLOCKED && reply->names_parameters);

	user->state = ASKED_DONE;
	if (reply->outcome == GATEWAY_COMPLETED)
	{
		user->is_below_zero = reply->below_zero;
		strlcpy(user->figure, is_zgsm && !reply->below_zero ? reply->total : reply->balance,
				sizeof(user->figure));
		audit->failures = 0;
		audit->answered++;
		return;
	}
	if (!is_final)
	{
		audit->last_failure = *reply;
		if (++audit->failures >= MAX_FAILURES)
			give_up(audit);
		if (reply->outcome == GATEWAY_THROTTLED)
			audit->paused_until =
				mono_in_ms((int64) Min(Max(reply->retry_after * 1000, PAUSE), MAX_PAUSE));
		else
			user->tries++;
		if (user->tries < TRIES)
		{
			user->state = ASKED_NOT;
			user->due = mono_in_ms(PAUSE);
			return;
		}
	}
	user->problem = MemoryContextStrdup(audit->batch_memory, reply->message);
	audit->unanswered++;
}

/*
 * Sends as many queries as may be sent now.  Returns when to come again.
 */
static MonoTime
send_queries(Audit *audit, AuditUser *users, int count)
{
	MonoTime now = mono_now();
	MonoTime next = MONO_NEVER;
	int      i;

	if (audit->paused_until > now)
		return audit->paused_until;
	for (i = 0; i < count && gateway_free_slots(audit->session) > 0; i++)
	{
		GatewayRequest query = {GATEWAY_QUERY, users[i].user_id};

		if (users[i].state != ASKED_NOT)
			continue;
		if (users[i].due > now)
		{
			next = Min(next, users[i].due);
			continue;
		}
		if (audit->row->rate_limit > 0 && audit->next_send > now)
			return audit->next_send;
		query.token = &users[i];
		if (!gateway_submit(audit->session, &query))
		{
			if (gateway_in_flight(audit->session) == 0)
				ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
			break;
		}
		users[i].state = ASKED_NOW;
		if (audit->row->rate_limit > 0)
			audit->next_send =
				Max(audit->next_send, now) + (MonoTime) (1e6 / audit->row->rate_limit);
	}
	return next;
}

/*
 * Asks about users until each of them has an answer or none is to be had.
 */
static void
ask_about(Audit *audit, AuditUser *users, int count)
{
	static GatewayResult results[POLL_RESULTS];
	int                  left = count;

	while (left > 0)
	{
		MonoTime next;
		long     wait_ms;
		int      got = 0;
		int      i;

		leave_dead_server();
		CHECK_FOR_INTERRUPTS();
		next = send_queries(audit, users, count);
		wait_ms = next == MONO_NEVER ? POLL_SLICE : mono_ms_until(next, POLL_SLICE);
		pgstat_report_wait_start(PG_WAIT_EXTENSION);
		if (gateway_in_flight(audit->session) > 0)
			got = gateway_poll(audit->session, (int) wait_ms, results, POLL_RESULTS);
		else
		{
			(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, wait_ms,
							 PG_WAIT_EXTENSION);
			ResetLatch(MyLatch);
		}
		pgstat_report_wait_end();
		for (i = 0; i < got; i++)
		{
			AuditUser *user = results[i].token;

			take_answer(audit, user, &results[i].reply);
			left -= user->state == ASKED_DONE;
		}
	}
}

/*
 * Puts the answers of a batch away, in its order.
 */
static void
put_answers(Audit *audit, const AuditUser *users, int count)
{
	int i;

	for (i = 0; i < count; i++)
	{
		const AuditUser *user = &users[i];
		Datum            values[4];
		bool             nulls[4] = {false, user->figure[0] == '\0', false, user->problem == NULL};

		values[0] = CStringGetTextDatum(user->user_id);
		values[1] = nulls[1] ? (Datum) 0 : CStringGetTextDatum(user->figure);
		values[2] = BoolGetDatum(user->is_below_zero);
		values[3] = nulls[3] ? (Datum) 0 : CStringGetTextDatum(user->problem);
		tuplestore_putvalues(audit->answers, audit->answer_desc, values, nulls);
	}
}

/*
 * Takes the next row of a tuplestore; false: there is none.  One that comes from
 * disk is allocated in the current memory context and belongs to the slot.
 */
static bool
next_row(const Audit *audit, Tuplestorestate *store, TupleTableSlot *slot)
{
	MemoryContext caller = MemoryContextSwitchTo(audit->memory);
	bool          found = tuplestore_gettupleslot(store, true, false, slot);

	MemoryContextSwitchTo(caller);
	return found;
}

/*
 * Asks about all users that were listed.
 */
static void
read_balances(Audit *audit)
{
	TupleTableSlot *slot = MakeSingleTupleTableSlot(audit->user_desc, &TTSOpsMinimalTuple);
	bool            more = true;

	while (more)
	{
		MemoryContext caller = MemoryContextSwitchTo(audit->batch_memory);
		AuditUser    *users = palloc0(sizeof(AuditUser) * BATCH);
		int           count = 0;

		while (count < BATCH && (more = next_row(audit, audit->users, slot)))
		{
			bool isnull;

			users[count].due = MONO_PAST;
			users[count++].user_id = TextDatumGetCString(slot_getattr(slot, 1, &isnull));
		}
		ask_about(audit, users, count);
		put_answers(audit, users, count);
		MemoryContextSwitchTo(caller);
		MemoryContextReset(audit->batch_memory);
	}
	ExecDropSingleTupleTableSlot(slot);
}

static double
to_double(Datum number)
{
	return DatumGetFloat8(DirectFunctionCall1(numeric_float8, number));
}

static Datum
to_numeric(double number)
{
	return DirectFunctionCall1(float8_numeric, Float8GetDatum(number));
}

static bool
is_less(Datum a, Datum b)
{
	return DatumGetBool(DirectFunctionCall2(numeric_lt, a, b));
}

/*
 * How far a balance may lie below the least, or above the most, without telling
 * anything.  zgsm adds in float64, each time with an error of half a step.  At
 * higress chats have used what is missing: any amount, unless max_usage_rate
 * bounds it.  False: any.
 */
static bool
allowances(const Audit *audit, const Granted *granted, double figure, double *below, double *above)
{
	double largest =
		Max(fabs(figure), Max(fabs(to_double(granted->least)), fabs(to_double(granted->most))));

	*below = *above = 0;
	if (audit->row->dialect == GATEWAY_ZGSM)
	{
		*below = *above = LAST_DECIMAL + (double) granted->count * largest * FLOAT64_STEP;
		return true;
	}
	if (audit->row->max_usage_rate < 0 || granted->begin == DT_NOBEGIN)
		return false;
	*below = ceil(audit->row->max_usage_rate *
				  (Max(GetCurrentTimestamp() - granted->begin, 0) / 1e6 + 1));
	return true;
}

/*
 * Adds a row to the result; a difference of 0 is null.
 */
static void
report(Audit *audit, ReturnSetInfo *result, const Granted *granted, Datum figure, bool has_figure,
	   Datum difference, const char *finding)
{
	Datum values[6] = {
		CStringGetTextDatum(granted->user_id), figure, granted->least, granted->most, difference,
		CStringGetTextDatum(finding)};
	bool nulls[6] = {false, !has_figure, false, false, difference == (Datum) 0, false};

	if (!nulls[4])
		values[4] = DirectFunctionCall1(numeric_trim_scale, difference);
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	if (has_figure)
		audit->differing++;
}

/*
 * Compares what the gateway said of a user with what was granted.
 */
static void
compare(Audit *audit, ReturnSetInfo *result, const Granted *granted, const char *text,
		bool is_below_zero, const char *problem)
{
	bool   is_zgsm = audit->row->dialect == GATEWAY_ZGSM;
	Datum  figure;
	Datum  bound;
	double below;
	double above;
	bool   is_bounded;

	if (text == NULL)
	{
		report(audit, result, granted, (Datum) 0, false, (Datum) 0,
			   psprintf("cannot be read: %s", problem));
		return;
	}
	figure = DirectFunctionCall3(numeric_in, CStringGetDatum(text), ObjectIdGetDatum(InvalidOid),
								 Int32GetDatum(-1));
	is_bounded = allowances(audit, granted, to_double(figure), &below, &above);
	if (to_double(granted->least) > 0)
	{
		audit->granted++;
		audit->empty += to_double(figure) == 0;
	}
	/* of a total below zero no more is known */
	if (is_below_zero)
	{
		if (to_double(granted->least) >= 0)
			report(audit, result, granted, figure, true, (Datum) 0,
				   "below zero, less than was granted");
		return;
	}
	bound = DirectFunctionCall2(numeric_add, granted->most, to_numeric(above));
	if (is_less(bound, figure))
		report(audit, result, granted, figure, true,
			   DirectFunctionCall2(numeric_sub, figure, granted->most), "more than was granted");
	else if (is_bounded)
	{
		bound = DirectFunctionCall2(numeric_sub, granted->least, to_numeric(below));
		if (is_less(figure, bound))
			report(audit, result, granted, figure, true,
				   DirectFunctionCall2(numeric_sub, figure, granted->least),
				   is_zgsm ? "less than was granted"
						   : "less than was granted and can have been used since");
	}
}

/*
 * Moves the answers on to a user; false: he was not asked about.  Both are in
 * one order.
 */
static bool
find_answer(Audit *audit, TupleTableSlot *slot, const char *user_id)
{
	bool isnull;

	for (;;)
	{
		int order;

		if (TupIsNull(slot) && !next_row(audit, audit->answers, slot))
			return false;
		order = strcmp(TextDatumGetCString(slot_getattr(slot, 1, &isnull)), user_id);
		if (order >= 0)
			return order == 0;
		ExecClearTuple(slot);
	}
}

/*
 * Adds up what was granted, and compares it with the answers.
 */
static void
compare_all(Audit *audit, ReturnSetInfo *result)
{
	TupleTableSlot *slot = MakeSingleTupleTableSlot(audit->answer_desc, &TTSOpsMinimalTuple);
	Interval       *overtaking = palloc0(sizeof(Interval));
	Portal          cursor;
	MemoryContext   caller;

	overtaking->time = (int64) audit->row->request_timeout_ms * 1000;
	cursor = statement_open_cursor(&add_up, ARGS(arg_text(audit->row->name), arg_time(audit->began),
												 arg_datum(IntervalPGetDatum(overtaking))));
	caller = MemoryContextSwitchTo(audit->batch_memory);
	for (;;)
	{
		uint64 i;

		CHECK_FOR_INTERRUPTS();
		SPI_cursor_fetch(cursor, true, FETCH_ROWS);
		MemoryContextSwitchTo(audit->batch_memory);
		if (SPI_processed == 0)
			break;
		for (i = 0; i < SPI_processed; i++)
		{
			Granted granted;
			bool    isnull;
			Datum   figure;
			Datum   problem;
			bool    is_unread;
			bool    has_no_problem;

			granted.user_id = result_text(i, 1);
			granted.least = result_datum(i, 2, &isnull);
			granted.most = result_datum(i, 3, &isnull);
			granted.count = result_int64(i, 4);
			granted.begin = result_time(i, 5);
			granted.is_touched = result_bool(i, 6);
			if (!find_answer(audit, slot, granted.user_id))
				continue;
			if (granted.is_touched)
			{
				audit->touched++;
				continue;
			}
			figure = slot_getattr(slot, 2, &is_unread);
			problem = slot_getattr(slot, 4, &has_no_problem);
			compare(audit, result, &granted, is_unread ? NULL : TextDatumGetCString(figure),
					DatumGetBool(slot_getattr(slot, 3, &isnull)),
					has_no_problem ? "no reason given" : TextDatumGetCString(problem));
		}
		SPI_freetuptable(SPI_tuptable);
		MemoryContextReset(audit->batch_memory);
	}
	MemoryContextSwitchTo(caller);
	SPI_cursor_close(cursor);
	ExecDropSingleTupleTableSlot(slot);
}

/*
 * Says how many users were compared, and what that cannot show.
 */
static void
summarize(const Audit *audit)
{
	bool is_zgsm = audit->row->dialect == GATEWAY_ZGSM;

	ereport(NOTICE,
			(errmsg("gateway \"%s\": %lld users were answered for, %lld differ", audit->row->name,
					(long long) audit->answered, (long long) audit->differing),
			 audit->unanswered + audit->touched > 0
				 ? errdetail("%lld users were not answered for, and %lld were changed by hand "
							 "meanwhile.",
							 (long long) audit->unanswered, (long long) audit->touched)
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

/*
 * audit_balances(gateway)
 */
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
	audit = audit_create(row);

	collect_users(audit);
	read_balances(audit);
	if (audit->answered == 0 && audit->failures > 0)
		give_up(audit);
	compare_all(audit, result);
	summarize(audit);

	close_session(audit);
	tuplestore_end(audit->users);
	tuplestore_end(audit->answers);
	SPI_finish();
	return (Datum) 0;
}
