/*
 * tally.c
 *		Counts what a batch makes of grants.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "utils/lsyscache.h"

#include "common/statement.h"
#include "delivery/tally.h"

static Statement begin_sum = {
	"INSERT INTO quota_manager.gateway_tally (gateway, is_sum) VALUES ($1, true)"
	" ON CONFLICT (gateway) WHERE is_sum DO NOTHING",
	{TEXTOID}};

static Statement add_to_sum = {
	"UPDATE quota_manager.gateway_tally AS t"
	" SET pending = t.pending + $3, processing = t.processing + $4,"
	" completed = t.completed + $5, failed = t.failed + $6, in_doubt = t.in_doubt + $7,"
	" deferred = t.deferred + $8, completed_amount = t.completed_amount"
	" + (SELECT coalesce(sum(a.amount::numeric), 0) FROM unnest($1) AS a(amount))"
	" WHERE t.gateway = $2 AND t.is_sum",
	{TEXTARRAYOID, TEXTOID, INT8OID, INT8OID, INT8OID, INT8OID, INT8OID, INT8OID}};

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

static Statement add_troubled = {
	"INSERT INTO quota_manager.troubled_grant AS t (grant_id, gateway, status)"
	" SELECT k.id, $3, k.status FROM unnest($1, $2) AS k(id, status)"
	" ON CONFLICT (grant_id) DO UPDATE SET gateway = excluded.gateway, status = excluded.status",
	{INT8ARRAYOID, TEXTARRAYOID, TEXTOID}};

static Statement delete_settled = {
	"DELETE FROM quota_manager.troubled_grant AS t WHERE t.grant_id = ANY ($1)", {INT8ARRAYOID}};

/* Adds a row for a statement to those that there are. */
static void
add_row(RowArrays **rows, const Statement *statement, const NullableDatum *row)
{
	if (*rows == NULL)
		*rows = rows_create(statement);
	rows_add(*rows, row);
}

static void
add_grant(RowArrays **rows, const Statement *statement, int64 id, const char *status)
{
	add_row(rows, statement, ARGS(arg_int64(id), arg_text(status)));
}

/* A grant was claimed. */
void
tally_claimed(Tally *tally, const Grant *grant)
{
	tally->processing++;
	/* one that is sent again was in doubt */
	if (grant->earlier == MAYBE_SENT)
		add_grant(&tally->settled, &delete_settled, grant->id, NULL);
	else
		tally->pending--;
}

/* The row of a grant was settled as its verdict says. */
void
tally_settled(Tally *tally, const Grant *grant)
{
	const char *status = grant_status(grant);
	bool        completed = strcmp(status, "completed") == 0;
	bool        failed = strcmp(status, "failed") == 0;

	if (!grant->in_doubt)
		tally->processing--;
	tally->pending += strcmp(status, "pending") == 0;
	tally->outcomes.deferred += grant->outcome.verdict == VERDICT_DEFERRED;
	tally->outcomes.completed += completed;
	tally->outcomes.failed += failed;
	tally->outcomes.in_doubt += !completed && !failed && grant->outcome.sent == MAYBE_SENT;
	tally->refused_in_doubt += !failed && grant->outcome.verdict == VERDICT_FAILED;
	if (completed)
		add_row(&tally->amounts, &add_to_sum, ARGS(arg_text(grant->amount)));
	if (failed || strcmp(status, "in_doubt") == 0)
		add_grant(&tally->troubled, &add_troubled, grant->id, status);
	else if (grant->in_doubt)
		add_grant(&tally->settled, &delete_settled, grant->id, NULL);
}

/* A grant that another sender had claimed is pending again. */
void
tally_orphan_unsent(Tally *tally)
{
	tally->processing--;
	tally->pending++;
}

/* A grant that another sender had claimed is in doubt. */
void
tally_orphan_in_doubt(Tally *tally, int64 id)
{
	tally->processing--;
	tally->outcomes.in_doubt++;
	add_grant(&tally->troubled, &add_troubled, id, "in_doubt");
}

/* Adds the outcomes to the count of the delivery. */
void
tally_count(const Tally *tally, DeliveryCount *count)
{
	count->completed += tally->outcomes.completed;
	count->failed += tally->outcomes.failed;
	count->in_doubt += tally->outcomes.in_doubt + tally->refused_in_doubt;
	count->deferred += tally->outcomes.deferred;
}

/* Adds the figures to the row of the sum; false: there is none. */
static bool
write_sum(const Tally *tally, const char *gateway)
{
	const DeliveryCount *count = &tally->outcomes;
	RowArrays *amounts = tally->amounts != NULL ? tally->amounts : rows_create(&add_to_sum);

	return statement_run_rows(&add_to_sum, amounts,
							  ARGS(arg_text(gateway), arg_int64(tally->pending),
								   arg_int64(tally->processing), arg_int64(count->completed),
								   arg_int64(count->failed), arg_int64(count->in_doubt),
								   arg_int64(count->deferred))) > 0;
}

/* False in a database with the SQL of 1.0.0, which does not count.  Cheap. */
static bool
is_counted(void)
{
	Oid schema = get_namespace_oid("quota_manager", true);

	return OidIsValid(schema) && OidIsValid(get_relname_relid("gateway_tally", schema));
}

/* True if the row of the sum changes. */
static bool
has_figures(const Tally *tally)
{
	const DeliveryCount *count = &tally->outcomes;

	return tally->pending != 0 || tally->processing != 0 || count->completed != 0 ||
		   count->failed != 0 || count->in_doubt != 0 || count->deferred != 0;
}

/*
 * Writes what was collected for a gateway; NULL: it is gone, and has nothing
 * open: keep_gateway_in_use().  False: nothing was written.
 */
bool
tally_write(const Tally *tally, const char *gateway)
{
	if (gateway == NULL)
		return false;
	/* a batch that changes no grant writes nothing: its commit would wait for a standby */
	if (!has_figures(tally) && tally->troubled == NULL && tally->settled == NULL)
		return false;
	/* an update counts what was settled before it, and waits for senders that settle */
	if (!is_counted())
		return false;
	if (tally->settled != NULL)
		statement_run_rows(&delete_settled, tally->settled, NULL);
	if (tally->troubled != NULL)
		statement_run_rows(&add_troubled, tally->troubled, ARGS(arg_text(gateway)));
	if (has_figures(tally) && !write_sum(tally, gateway))
	{
		statement_run(&begin_sum, ARGS(arg_text(gateway)));
		write_sum(tally, gateway);
	}
	return true;
}

/* Adds to the sum what scans and operators have written of the gateway. */
void
tally_fold(const char *gateway)
{
	bool found = statement_run(&find_others, ARGS(arg_text(gateway))) > 0;

	SPI_freetuptable(SPI_tuptable);
	if (!found)
		return;
	statement_run(&begin_sum, ARGS(arg_text(gateway)));
	statement_run(&fold_others, ARGS(arg_text(gateway)));
}
