/*
 * admit.c
 *		Third phase of a scan: which of the users found are granted, and how much.
 *
 * Grants are looked up by the key for some hundred users at a time.  Where
 * most users of a single strategy have their grant, one walk along the key is
 * cheaper than that: it meets the grants in the order of the ids.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "mb/pg_wchar.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "common/compat.h"
#include "scan/admit.h"

/* How many users are looked up at a time, and how many grants are read at a time in a walk. */
#define LOOKUP_USERS 1000
#define WALK_GRANTS 1000

/* A look-up costs about as much as a walk along so many grants. */
#define WALK_PER_LOOKUP 6

/* One user's grants. */
typedef struct Granted
{
	text *user_id;
	bool  has_this;
	int64 count; /* that the cap counts */
} Granted;

struct Admission
{
	Spool          *spool;
	AdmissionRule   rule;
	MemoryContext   batch; /* of the ids that are being looked up, and of what was found */
	MemoryContext   found;
	text          **ids;
	Datum          *balances; /* of the ids, if the spool has them */
	int             id_count;
	int             next_id;
	Granted        *granted;
	int             granted_count;
	int             next_granted;
	Portal          walk; /* NULL: users are looked up */
	text           *previous;
	Size            previous_size;
	bool            is_over; /* a ceiling is reached */
	int64           room; /* how many more may be admitted, of an amount that is always the same */
	MemoryContext   user; /* of what is computed for one user */
	MemoryContext   sums;
	AdmissionCounts counts;
};

/* The name of a verdict in SQL. */
const char *
verdict_name(Verdict verdict)
{
	static const char *const names[VERDICTS] = {[VERDICT_ADMITTED] = "admitted",
												[VERDICT_GRANTED] = "granted",
												[VERDICT_CAPPED] = "capped",
												[VERDICT_SUFFICIENT] = "sufficient",
												[VERDICT_OVER_CEILING] = "over_ceiling",
												[VERDICT_UNKNOWN] = "unknown"};

	return names[verdict];
}

static int
compare_ids(const text *a, const text *b)
{
	int left = VARSIZE_ANY_EXHDR(a);
	int right = VARSIZE_ANY_EXHDR(b);
	int order = memcmp(VARDATA_ANY(a), VARDATA_ANY(b), Min(left, right));

	return order != 0 ? order : left - right;
}

/* How many grants a walk would meet at most, by the records of runs. */
static int64
count_recorded_grants(const AdmissionRule *rule)
{
	static SPIPlanPtr plan = NULL;
	Oid               types[] = {INT4OID};
	Datum             values[] = {Int32GetDatum(rule->strategy_id)};
	bool              isnull;

	if (plan == NULL)
	{
		plan =
			SPI_prepare("SELECT coalesce(sum(r.granted), 0)::bigint FROM quota_manager.quota_run r"
						" WHERE r.strategy_id = $1 AND r.scheduled_time IS NULL",
						1, types);
		if (plan == NULL || SPI_keepplan(plan) != 0)
			elog(ERROR, "could not prepare to count grants");
	}
	if (SPI_execute_plan(plan, values, NULL, rule->only_reads, 1) != SPI_OK_SELECT ||
		SPI_processed != 1)
		elog(ERROR, "could not count grants");
	return DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
}

/*
 * The order of compare_ids(), which is that of the key unless the column has been
 * given another collation, as of the tables that it is distributed with.
 */
#define BY_BYTES " ORDER BY e.user_id COLLATE \"C\""

/*
 * Opens a walk along the grants of a single strategy, in the order of user
 * ids.
 */
static Portal
open_walk(const AdmissionRule *rule)
{
	static SPIPlanPtr plan = NULL;
	Oid               types[] = {INT4OID, TIMESTAMPTZOID};
	Datum values[] = {Int32GetDatum(rule->strategy_id), TimestampTzGetDatum(rule->firing)};

	if (plan == NULL)
	{
		plan = SPI_prepare(
			"SELECT e.user_id, true, 0::bigint FROM quota_manager.quota_execute e"
			" WHERE e.strategy_id = $1 AND e.scheduled_time = $2 AND e.revision = 0" BY_BYTES,
			2, types);
		if (plan == NULL || SPI_keepplan(plan) != 0)
			elog(ERROR, "could not prepare to walk along grants");
	}
	return SPI_cursor_open(NULL, plan, values, NULL, rule->only_reads);
}

static Datum
zero(void)
{
	return DirectFunctionCall1(int4_numeric, Int32GetDatum(0));
}

/* True if each user has an amount of his own. */
static bool
has_own_amounts(const Admission *admission)
{
	return admission->rule.allowance && allowance_asks_balance(admission->rule.allowance);
}

/* How many grants of one amount there is room for. */
static int64
count_room(const GrantRoom *room, Datum amount)
{
	Datum fitting;
	Datum most;

	if (room == NULL)
		return PG_INT64_MAX;
	if (!room->has_amount)
		return room->grants;
	most = DirectFunctionCall1(int8_numeric, Int64GetDatum(room->grants));
	fitting = DirectFunctionCall2(numeric_div_trunc, room->amount,
								  DirectFunctionCall1(numeric_abs, amount));
	if (DatumGetBool(DirectFunctionCall2(numeric_ge, fitting, most)))
		return room->grants;
	return DatumGetInt64(DirectFunctionCall1(numeric_int8, fitting));
}

/* Begins with the first id of the spool; within SPI. */
Admission *
admission_begin(Spool *spool, const AdmissionRule *rule)
{
	Admission *admission = palloc0(sizeof(Admission));

	spool_rewind(spool);
	admission->spool = spool;
	admission->rule = *rule;
	admission->batch =
		AllocSetContextCreate(CurrentMemoryContext, "users to admit", ALLOCSET_DEFAULT_SIZES);
	admission->found =
		AllocSetContextCreate(CurrentMemoryContext, "grants of users", ALLOCSET_DEFAULT_SIZES);
	admission->user =
		AllocSetContextCreate(CurrentMemoryContext, "user to admit", ALLOCSET_SMALL_SIZES);
	admission->sums =
		AllocSetContextCreate(CurrentMemoryContext, "sums of grants", ALLOCSET_SMALL_SIZES);
	admission->ids = palloc(sizeof(text *) * LOOKUP_USERS);
	admission->balances = palloc0(sizeof(Datum) * LOOKUP_USERS);
	if (has_own_amounts(admission))
	{
		MemoryContext caller = MemoryContextSwitchTo(admission->sums);

		admission->counts.amount = zero();
		admission->counts.magnitude = zero();
		MemoryContextSwitchTo(caller);
	}
	else if (!rule->unknown)
		admission->room = count_room(rule->room, rule->amount);
	if (!rule->anew && rule->cap == 0 && TIMESTAMP_IS_NOBEGIN(rule->firing) &&
		spool_count(spool) > LOOKUP_USERS &&
		count_recorded_grants(rule) < spool_count(spool) * WALK_PER_LOOKUP)
		admission->walk = open_walk(rule);
	return admission;
}

/* Takes over rows of grants from SPI. */
static void
take_granted(Admission *admission)
{
	MemoryContext caller;
	uint64        i;

	MemoryContextReset(admission->found);
	caller = MemoryContextSwitchTo(admission->found);
	admission->granted = palloc(sizeof(Granted) * Max(SPI_processed, 1));
	for (i = 0; i < SPI_processed; i++)
	{
		HeapTuple row = SPI_tuptable->vals[i];
		TupleDesc columns = SPI_tuptable->tupdesc;
		Granted  *granted = &admission->granted[i];
		bool      isnull;

		granted->user_id = DatumGetTextPCopy(SPI_getbinval(row, columns, 1, &isnull));
		granted->has_this = DatumGetBool(SPI_getbinval(row, columns, 2, &isnull));
		granted->count = DatumGetInt64(SPI_getbinval(row, columns, 3, &isnull));
	}
	admission->granted_count = (int) SPI_processed;
	admission->next_granted = 0;
	MemoryContextSwitchTo(caller);
	SPI_freetuptable(SPI_tuptable);
}

/* Looks up the grants of the users of the batch. */
static void
find_grants(Admission *admission)
{
	static SPIPlanPtr        plans[2] = {NULL, NULL};
	static const char *const statements[] = {
		"SELECT e.user_id, true, 0::bigint FROM quota_manager.quota_execute e"
		" WHERE e.strategy_id = $1 AND e.user_id = ANY ($2) AND e.scheduled_time = $3"
		" AND e.revision = 0" BY_BYTES,
		"SELECT e.user_id, bool_or(e.scheduled_time = $3), count(*) FILTER (WHERE e.status <> "
		"'cancelled')"
		" FROM quota_manager.quota_execute e"
		" WHERE e.strategy_id = $1 AND e.user_id = ANY ($2) AND e.revision = 0"
		" GROUP BY e.user_id" BY_BYTES};
	Oid           types[] = {INT4OID, TEXTARRAYOID, TIMESTAMPTZOID};
	int           capped = admission->rule.cap > 0;
	MemoryContext caller = MemoryContextSwitchTo(admission->batch);
	Datum         values[] = {Int32GetDatum(admission->rule.strategy_id),
							  PointerGetDatum(construct_array((Datum *) admission->ids, admission->id_count,
															  TEXTOID, -1, false, TYPALIGN_INT)),
							  TimestampTzGetDatum(admission->rule.firing)};

	MemoryContextSwitchTo(caller);
	if (plans[capped] == NULL)
	{
		plans[capped] = SPI_prepare(statements[capped], 3, types);
		if (plans[capped] == NULL || SPI_keepplan(plans[capped]) != 0)
			elog(ERROR, "could not prepare to look up grants");
	}
	if (SPI_execute_plan(plans[capped], values, NULL, admission->rule.only_reads, 0) !=
		SPI_OK_SELECT)
		elog(ERROR, "could not look up grants");
	take_granted(admission);
}

/* Raises an error about a user whom the user source has twice. */
static void
complain_of_twice(const text *id)
{
	ereport(ERROR, (errcode(ERRCODE_CARDINALITY_VIOLATION),
					errmsg("the user source has the user \"%s\" more than once",
						   pnstrdup(VARDATA_ANY(id),
									pg_mbcliplen(VARDATA_ANY(id), VARSIZE_ANY_EXHDR(id), 100))),
					errdetail("The ids of users must be unique.")));
}

/* An id that is the same as the one before is an error. */
static void
require_above_previous(Admission *admission, const text *id)
{
	Size size = VARSIZE_ANY(id);

	if (admission->previous && compare_ids(admission->previous, id) == 0)
		complain_of_twice(id);
	if (admission->previous == NULL || size > admission->previous_size)
	{
		if (admission->previous)
			pfree(admission->previous);
		admission->previous = MemoryContextAlloc(GetMemoryChunkContext(admission), size * 2);
		admission->previous_size = size * 2;
	}
	memcpy(admission->previous, id, size);
}

/* Reads the next ids, and their grants where these are looked up. */
static void
next_batch(Admission *admission)
{
	bool          has_balances = has_own_amounts(admission) && !admission->rule.unknown;
	MemoryContext caller;
	Datum         balance;
	text         *id;

	MemoryContextReset(admission->batch);
	admission->id_count = admission->next_id = 0;
	while (admission->id_count < LOOKUP_USERS &&
		   (id = spool_next(admission->spool, &balance)) != NULL)
	{
		require_above_previous(admission, id);
		caller = MemoryContextSwitchTo(admission->batch);
		if (has_balances)
			admission->balances[admission->id_count] = datumCopy(balance, false, -1);
		admission->ids[admission->id_count++] = DatumGetTextPCopy(PointerGetDatum(id));
		MemoryContextSwitchTo(caller);
	}
	if (admission->id_count > 0 && admission->walk == NULL)
		find_grants(admission);
}

/* The grants of a user; NULL: there are none. */
static const Granted *
find_granted(Admission *admission, const text *id)
{
	for (;;)
	{
		int order;

		if (admission->next_granted == admission->granted_count)
		{
			if (admission->walk == NULL)
				return NULL;
			SPI_cursor_fetch(admission->walk, true, WALK_GRANTS);
			take_granted(admission);
			if (admission->granted_count == 0)
				return NULL;
		}
		order = compare_ids(admission->granted[admission->next_granted].user_id, id);
		if (order > 0)
			return NULL;
		if (order == 0)
			return &admission->granted[admission->next_granted];
		admission->next_granted++;
	}
}

/* Reads the next id, and its balance in a spool that has these; NULL: there are no more. */
static text *
read_id(Admission *admission, Datum *balance)
{
	text *id;

	if (admission->rule.anew)
	{
		id = spool_next(admission->spool, balance);
		if (id)
			require_above_previous(admission, id);
		return id;
	}
	if (admission->next_id == admission->id_count)
		next_batch(admission);
	if (admission->id_count == 0)
		return NULL;
	*balance = admission->balances[admission->next_id];
	return admission->ids[admission->next_id++];
}

/* Adds two numerics in place of the first one. */
static void
add_to(Datum *sum, Datum value)
{
	Datum before = *sum;

	*sum = DirectFunctionCall2(numeric_add, before, value);
	pfree(DatumGetPointer(before));
}

/* True if one more grant of this amount is over a ceiling. */
static bool
is_over(const Admission *admission, Datum magnitude)
{
	const GrantRoom *room = admission->rule.room;

	if (room == NULL)
		return false;
	if (admission->counts.of[VERDICT_ADMITTED] >= room->grants)
		return true;
	return room->has_amount &&
		   DatumGetBool(DirectFunctionCall2(
			   numeric_gt, DirectFunctionCall2(numeric_add, admission->counts.magnitude, magnitude),
			   room->amount));
}

/* Decides about a user without the grant by what the balance lacks. */
static void
weigh_balance(Admission *admission, Datum balance, AdmittedUser *user)
{
	MemoryContext caller;
	Datum         magnitude;
	bool          nothing;

	MemoryContextReset(admission->user);
	caller = MemoryContextSwitchTo(admission->user);
	user->amount = allowance_due(admission->rule.allowance, balance);
	nothing = DatumGetBool(DirectFunctionCall2(numeric_eq, user->amount, zero()));
	magnitude = DirectFunctionCall1(numeric_abs, user->amount);
	user->verdict = VERDICT_SUFFICIENT;
	if (!nothing)
	{
		admission->is_over = admission->is_over || is_over(admission, magnitude);
		user->verdict = admission->is_over ? VERDICT_OVER_CEILING : VERDICT_ADMITTED;
	}
	MemoryContextSwitchTo(admission->sums);
	if (user->verdict == VERDICT_ADMITTED)
	{
		add_to(&admission->counts.amount, user->amount);
		add_to(&admission->counts.magnitude, magnitude);
	}
	MemoryContextSwitchTo(caller);
}

/* The verdict on a user by grants alone; admitted: nothing is against it. */
static Verdict
judge_by_grants(Admission *admission, AdmittedUser *user)
{
	const Granted *granted = admission->rule.anew ? NULL : find_granted(admission, user->id);

	user->had = granted ? granted->count : 0;
	if (granted && granted->has_this)
		return VERDICT_GRANTED;
	if (granted && admission->rule.cap > 0 && granted->count >= admission->rule.cap)
		return VERDICT_CAPPED;
	return admission->rule.unknown ? VERDICT_UNKNOWN : VERDICT_ADMITTED;
}

/*
 * The next user, valid until the next call; false: there are no more.  An id
 * that comes twice is an error.
 */
bool
admission_next(Admission *admission, AdmittedUser *user)
{
	Datum balance = (Datum) 0;

	user->id = read_id(admission, &balance);
	if (user->id == NULL)
		return false;
	user->verdict = judge_by_grants(admission, user);
	user->amount = admission->rule.amount;
	if (user->verdict == VERDICT_ADMITTED)
	{
		if (has_own_amounts(admission))
			weigh_balance(admission, balance, user);
		else if (admission->counts.of[VERDICT_ADMITTED] >= admission->room)
			user->verdict = VERDICT_OVER_CEILING;
	}
	admission->counts.of[user->verdict]++;
	return true;
}

/*
 * Closes the cursor and frees what the admission holds; returns what was read
 * up to now, in the current memory context.
 */
AdmissionCounts
admission_end(Admission *admission)
{
	AdmissionCounts counts = admission->counts;

	if (has_own_amounts(admission))
	{
		counts.amount = datumCopy(counts.amount, false, -1);
		counts.magnitude = datumCopy(counts.magnitude, false, -1);
	}
	else if (counts.of[VERDICT_ADMITTED] == 0)
		counts.amount = counts.magnitude = zero();
	else
	{
		counts.amount = DirectFunctionCall2(
			numeric_mul,
			DirectFunctionCall1(int8_numeric, Int64GetDatum(counts.of[VERDICT_ADMITTED])),
			admission->rule.amount);
		counts.magnitude = DirectFunctionCall1(numeric_abs, counts.amount);
	}
	if (admission->walk)
		SPI_cursor_close(admission->walk);
	MemoryContextDelete(admission->batch);
	MemoryContextDelete(admission->found);
	MemoryContextDelete(admission->user);
	MemoryContextDelete(admission->sums);
	pfree(admission);
	return counts;
}
