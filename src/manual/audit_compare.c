/*
 * audit_compare.c
 *		Of an audit: adds up what was granted and compares it with the answers.
 */
#include "postgres.h"

#include <math.h>

#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/numeric.h"

#include "common/statement.h"
#include "manual/audit.h"

/* The distance of two numbers of float64, as a share of them. */
#define FLOAT64_STEP 2.220446049250313e-16

/* zgsm answers with six decimals. */
#define LAST_DECIMAL 1e-6

/*
 * The least and the most that a user can have been granted at the gateway $1.
 * What was completed before the audit began ($2) counts for certain, and so do
 * changes by hand; what is open, or was completed since, may count.  A refresh
 * by hand sets the total: what was settled so long before it that it cannot
 * have overtaken it ($3) is gone, what was granted after it is added.  What was
 * pruned counts as one grant that has the weight of many.  What a bulk call has
 * in doubt may count, and whom an operator has decided about is listed.
 */
#define ADD_UP(pruned)                                                                             \
	"SELECT y.user_id,"                                                                            \
	" sum(CASE WHEN y.is_certain THEN y.amount ELSE least(y.amount, 0) END),"                      \
	" sum(CASE WHEN y.is_certain THEN y.amount ELSE greatest(y.amount, 0) END),"                   \
	" sum(y.weight)::bigint, min(y.begin_time),"                                                   \
	" bool_or(y.kind <> 'grant' AND y.begin_time >= $2)"                                           \
	" FROM (SELECT x.user_id, x.kind, x.amount, x.weight, x.begin_time, x.end_time, x.set_time,"   \
	"  x.end_time < $2 AND (x.set_time IS NULL OR x.begin_time >= x.set_time) AS is_certain"       \
	"  FROM (SELECT w.user_id, w.kind, w.amount, w.weight, w.begin_time, w.end_time,"              \
	"   max(w.begin_time) FILTER (WHERE w.kind = 'refresh') OVER (PARTITION BY w.user_id)"         \
	"    AS set_time"                                                                              \
	"   FROM (SELECT e.user_id, 'grant' AS kind,"                                                  \
	"     CASE WHEN e.status IN ('completed', 'processing', 'in_doubt') THEN e.amount ELSE 0 END"  \
	"      AS amount, 1 AS weight,"                                                                \
	"     CASE WHEN e.run_id IS NULL THEN '-infinity' ELSE e.create_time END AS begin_time,"       \
	"     CASE WHEN e.status IN ('processing', 'in_doubt') THEN 'infinity' ELSE e.update_time END" \
	"      AS end_time"                                                                            \
	"    FROM quota_manager.quota_execute e WHERE e.gateway = $1" pruned                           \
	"    UNION ALL SELECT c.user_id, c.action, c.amount, 1, c.call_time, c.call_time"              \
	"    FROM quota_manager.gateway_call c"                                                        \
	"    WHERE c.gateway = $1 AND c.action <> 'query' AND c.outcome = 'applied') w) x"             \
	"  WHERE x.set_time IS NULL OR CASE WHEN x.kind = 'refresh' THEN x.begin_time >= x.set_time"   \
	"   ELSE x.end_time >= x.set_time - $3 END) y"                                                 \
	" GROUP BY y.user_id ORDER BY y.user_id COLLATE \"C\""

/* The other one is for a database with the SQL of 1.0.0, which prunes nothing and has no bulk calls. */
static Statement add_up = {
	ADD_UP(" UNION ALL SELECT p.user_id, 'grant', p.standing_amount, p.standing, p.standing_since,"
		   " p.standing_until FROM quota_manager.pruned_grant p"
		   " WHERE p.gateway = $1 AND p.standing > 0"
		   " UNION ALL SELECT b.user_id, 'delta',"
		   " CASE WHEN b.state IN ('sent', 'in_doubt') THEN b.value ELSE 0 END, 1,"
		   " coalesce(b.send_time, b.create_time), 'infinity' FROM quota_manager.bulk_call b"
		   " WHERE b.gateway = $1 AND b.state <> 'applied'"
		   " AND (b.state IN ('sent', 'in_doubt') OR b.decide_time IS NOT NULL)"),
	{TEXTOID, TIMESTAMPTZOID, INTERVALOID}};
static Statement add_up_grants = {ADD_UP(""), {TEXTOID, TIMESTAMPTZOID, INTERVALOID}};

/* What was granted to a user. */
typedef struct Granted
{
	char       *user_id;
	Datum       least;
	Datum       most;
	int64       count;
	TimestampTz begin;
	bool        is_changed;
} Granted;

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
 * How far a balance may lie below the least, or above the most, without meaning
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

/* Adds a row to the result; a figure or a difference of 0 is null. */
static void
report(Audit *audit, ReturnSetInfo *result, const Granted *granted, Datum figure, Datum difference,
	   const char *finding)
{
	Datum values[6] = {
		CStringGetTextDatum(granted->user_id), figure, granted->least, granted->most, difference,
		CStringGetTextDatum(finding)};
	bool nulls[6] = {false, figure == (Datum) 0, false, false, difference == (Datum) 0, false};

	if (!nulls[4])
		values[4] = DirectFunctionCall1(numeric_trim_scale, difference);
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	if (figure != (Datum) 0)
		audit->differing++;
}

/* Compares what the gateway said of a user with what was granted. */
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
		report(audit, result, granted, (Datum) 0, (Datum) 0,
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
			report(audit, result, granted, figure, (Datum) 0, "below zero, less than was granted");
		return;
	}
	bound = DirectFunctionCall2(numeric_add, granted->most, to_numeric(above));
	if (is_less(bound, figure))
		report(audit, result, granted, figure,
			   DirectFunctionCall2(numeric_sub, figure, granted->most), "more than was granted");
	else if (is_bounded)
	{
		bound = DirectFunctionCall2(numeric_sub, granted->least, to_numeric(below));
		if (is_less(figure, bound))
			report(audit, result, granted, figure,
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

		if (TupIsNull(slot) && !audit_next_row(audit, audit->answers, slot))
			return false;
		order = strcmp(TextDatumGetCString(slot_getattr(slot, 1, &isnull)), user_id);
		if (order >= 0)
			return order == 0;
		ExecClearTuple(slot);
	}
}

/* Adds up what was granted, and compares it with the answers. */
void
audit_compare(Audit *audit, ReturnSetInfo *result)
{
	TupleTableSlot *slot = MakeSingleTupleTableSlot(audit->answer_desc, &TTSOpsMinimalTuple);
	Interval       *overtaking = palloc0(sizeof(Interval));
	Portal          cursor;
	MemoryContext   caller;

	overtaking->time = (int64) audit->row->request_timeout_ms * 1000;
	cursor = statement_open_cursor(audit->counts_pruned ? &add_up : &add_up_grants,
								   ARGS(arg_text(audit->row->name), arg_time(audit->began),
										arg_datum(IntervalPGetDatum(overtaking))));
	caller = MemoryContextSwitchTo(audit->batch_memory);
	for (;;)
	{
		uint64 i;

		CHECK_FOR_INTERRUPTS();
		SPI_cursor_fetch(cursor, true, AUDIT_FETCH_ROWS);
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
			granted.is_changed = result_bool(i, 6);
			if (!find_answer(audit, slot, granted.user_id))
				continue;
			if (granted.is_changed)
			{
				audit->changed++;
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
