/*
 * tally.c
 *		Counts what a turn makes of grants.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "common/statement.h"
#include "delivery/tally.h"

/* A grant that failed or is in doubt. */
typedef struct TroubledGrant
{
	int64       id;
	const char *status;
} TroubledGrant;

/* How many grants of an amount were completed. */
typedef struct CompletedAmount
{
	const char *amount; /* the grant's */
	int64       grants;
} CompletedAmount;

static Statement begin_sum = {
	"INSERT INTO quota_manager.gateway_tally (gateway, is_sum) VALUES ($1, true)"
	" ON CONFLICT (gateway) WHERE is_sum DO NOTHING",
	{TEXTOID}};

static Statement add_to_sum = {
	"UPDATE quota_manager.gateway_tally AS t"
	" SET pending = t.pending + $2, processing = t.processing + $3,"
	" completed = t.completed + $4, failed = t.failed + $5, in_doubt = t.in_doubt + $6,"
	" deferred = t.deferred + $7,"
	" completed_amount = t.completed_amount"
	" + (SELECT coalesce(sum(a.amount::numeric * a.grants), 0)"
	" FROM unnest($8, $9) AS a(amount, grants))"
	" WHERE t.gateway = $1 AND t.is_sum",
	{TEXTOID, INT8OID, INT8OID, INT8OID, INT8OID, INT8OID, INT8OID, TEXTARRAYOID, INT8ARRAYOID}};

/* The row of the sum must be there. */
static Statement fold_others = {
	"WITH gone AS (DELETE FROM quota_manager.gateway_tally AS d"
	" WHERE d.gateway = $1 AND NOT d.is_sum RETURNING d.pending, d.processing)"
	" UPDATE quota_manager.gateway_tally AS t"
	" SET pending = t.pending + g.pending, processing = t.processing + g.processing"
	" FROM (SELECT sum(o.pending) AS pending, sum(o.processing) AS processing FROM gone o"
	" HAVING count(*) > 0) AS g"
	" WHERE t.gateway = $1 AND t.is_sum",
	{TEXTOID}};

static Statement find_others = {"SELECT 1 FROM quota_manager.gateway_tally t"
								" WHERE t.gateway = $1 AND NOT t.is_sum LIMIT 1",
								{TEXTOID}};

static Statement note_troubled = {
	"INSERT INTO quota_manager.troubled_grant AS t (grant_id, gateway, status)"
	" SELECT k.id, $3, k.status FROM unnest($1, $2) AS k(id, status)"
	" ON CONFLICT (grant_id) DO UPDATE SET gateway = excluded.gateway, status = excluded.status",
	{INT8ARRAYOID, TEXTARRAYOID, TEXTOID}};

static Statement forget_mended = {
	"DELETE FROM quota_manager.troubled_grant AS t WHERE t.grant_id = ANY ($1)", {INT8ARRAYOID}};

/*
 * Adds a grant to those that have become troubled, or are so no more.
 */
static List *
add_grant(List *list, int64 id, const char *status)
{
	TroubledGrant *troubled = palloc(sizeof(TroubledGrant));

	troubled->id = id;
	troubled->status = status;
	return lappend(list, troubled);
}

/*
 * Adds a grant to the amounts: most that follow each other have the same.
 */
static List *
add_amount(List *amounts, const char *amount)
{
	CompletedAmount *last = amounts == NIL ? NULL : llast(amounts);

	if (last == NULL || strcmp(last->amount, amount) != 0)
	{
		last = palloc0(sizeof(CompletedAmount));
		last->amount = amount;
		amounts = lappend(amounts, last);
	}
	last->grants++;
	return amounts;
}

void
tally_claimed(Tally *tally, const Grant *grant)
{
	tally->processing++;
	/* one that is sent again was in doubt */
	if (grant->earlier == MAYBE_SENT)
		tally->mended = add_grant(tally->mended, grant->id, NULL);
	else
		tally->pending--;
}

void
tally_settled(Tally *tally, const Grant *grant)
{
	const char *status = grant_status(grant);

	if (!grant->in_doubt)
		tally->processing--;
	if (strcmp(status, "pending") == 0)
		tally->pending++;
	if (grant->outcome.verdict == VERDICT_DEFERRED)
		tally->deferred++;
	if (strcmp(status, "completed") == 0)
	{
		tally->completed++;
		tally->amounts = add_amount(tally->amounts, grant->amount);
	}
	else if (strcmp(status, "failed") == 0)
		tally->failed++;
	else if (grant->outcome.sent == MAYBE_SENT)
		tally->in_doubt++;

	if (strcmp(status, "failed") == 0 || strcmp(status, "in_doubt") == 0)
		tally->troubled = add_grant(tally->troubled, grant->id, status);
	else if (grant->in_doubt)
		tally->mended = add_grant(tally->mended, grant->id, NULL);
}

void
tally_left_over(Tally *tally, int64 id, bool is_in_doubt)
{
	tally->processing--;
	if (!is_in_doubt)
	{
		tally->pending++;
		return;
	}
	tally->in_doubt++;
	tally->troubled = add_grant(tally->troubled, id, "in_doubt");
}

/*
 * The ids of such grants, and their states.
 */
static void
grants_as_arrays(List *grants, Datum *ids, Datum *states)
{
	int       count = list_length(grants);
	Datum    *id = palloc(sizeof(Datum) * count);
	Datum    *status = palloc(sizeof(Datum) * count);
	int       i = 0;
	ListCell *cell;

	foreach (cell, grants)
	{
		const TroubledGrant *grant = lfirst(cell);

		id[i] = Int64GetDatum(grant->id);
		if (states != NULL)
			status[i] = CStringGetTextDatum(grant->status);
		i++;
	}
	*ids = array_of(INT8OID, id, NULL, count);
	if (states != NULL)
		*states = array_of(TEXTOID, status, NULL, count);
}

/*
 * Writes which grants have become troubled and which are so no more.
 */
static void
write_troubled(const Tally *tally, Datum gateway)
{
	Datum values[3];

	if (tally->mended != NIL)
	{
		grants_as_arrays(tally->mended, &values[0], NULL);
		statement_run_values(&forget_mended, values, NULL);
	}
	if (tally->troubled != NIL)
	{
		grants_as_arrays(tally->troubled, &values[0], &values[1]);
		values[2] = gateway;
		statement_run_values(&note_troubled, values, NULL);
	}
}

/*
 * Adds the figures to the row of the sum; false: there is none.
 */
static bool
write_sum(const Tally *tally, Datum gateway)
{
	int       count = list_length(tally->amounts);
	Datum    *amounts = palloc(sizeof(Datum) * Max(count, 1));
	Datum    *grants = palloc(sizeof(Datum) * Max(count, 1));
	Datum     values[9];
	int       i = 0;
	ListCell *cell;

	foreach (cell, tally->amounts)
	{
		const CompletedAmount *amount = lfirst(cell);

		amounts[i] = CStringGetTextDatum(amount->amount);
		grants[i++] = Int64GetDatum(amount->grants);
	}
	values[0] = gateway;
	values[1] = Int64GetDatum(tally->pending);
	values[2] = Int64GetDatum(tally->processing);
	values[3] = Int64GetDatum(tally->completed);
	values[4] = Int64GetDatum(tally->failed);
	values[5] = Int64GetDatum(tally->in_doubt);
	values[6] = Int64GetDatum(tally->deferred);
	values[7] = array_of(TEXTOID, amounts, NULL, count);
	values[8] = array_of(INT8OID, grants, NULL, count);
	return statement_run_values(&add_to_sum, values, NULL) > 0;
}

/*
 * Takes up what scans and operators have written of the gateway.
 */
static void
fold_others_of(Datum gateway)
{
	bool found = statement_run_values(&find_others, &gateway, NULL) > 0;

	SPI_freetuptable(SPI_tuptable);
	if (!found)
		return;
	statement_run_values(&begin_sum, &gateway, NULL);
	statement_run_values(&fold_others, &gateway, NULL);
}

/*
 * False in a database with the SQL of 1.0.0, which does not count.  Cheap.
 */
static bool
is_counted(void)
{
	Oid schema = get_namespace_oid("quota_manager", true);

	return OidIsValid(schema) && OidIsValid(get_relname_relid("gateway_tally", schema));
}

/*
 * True if the row of the sum changes.
 */
static bool
has_figures(const Tally *tally)
{
	return tally->pending != 0 || tally->processing != 0 || tally->completed != 0 ||
		   tally->failed != 0 || tally->in_doubt != 0 || tally->deferred != 0;
}

void
tally_write(const Tally *tally, const char *gateway, bool fold)
{
	Datum name;

	/* a gateway that is gone has nothing open: keep_gateway_in_use() */
	if (gateway == NULL)
		return;
	/* a turn that changes no grant writes nothing: it would wait for a standby */
	if (!has_figures(tally) && tally->troubled == NIL && tally->mended == NIL)
		return;
	/* an update counts what was settled before it, and waits for who settles */
	if (!is_counted())
		return;
	name = CStringGetTextDatum(gateway);
	write_troubled(tally, name);
	if (has_figures(tally) && !write_sum(tally, name))
	{
		statement_run_values(&begin_sum, &name, NULL);
		write_sum(tally, name);
	}
	if (fold)
		fold_others_of(name);
}
