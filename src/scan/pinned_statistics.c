/*
 * pinned_statistics.c
 *		What the planner sees of tables that grow by millions between two
 *		ANALYZEs.
 *
 * Everything that the planner asks about such a table is answered from the
 * constants below: how many pages and rows it and its indexes have, how wide
 * a column is, how many values it has and how they are sorted.  Columns that
 * are not listed have no statistics, for which the planner has constants of
 * its own.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/index.h"
#include "catalog/namespace.h"
#include "catalog/pg_am_d.h"
#include "catalog/pg_operator_d.h"
#include "catalog/pg_statistic.h"
#include "catalog/pg_type_d.h"
#include "fmgr.h"
#include "nodes/pathnodes.h"
#include "optimizer/plancat.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/plancache.h"
#include "utils/rel.h"
#include "utils/selfuncs.h"

#include "scan/pinned_statistics.h"

PG_FUNCTION_INFO_V1(qm_pin_statistics);

#define COLUMNS_MAX 6

/* Entries on a page of a btree, and how many of them a partial index has. */
#define ENTRIES_PER_PAGE 100
#define PARTIAL_SHARE 0.001

typedef struct PinnedColumn
{
	const char *name;
	float4      distinct;     /* as pg_statistic.stadistinct */
	float4      correlation;  /* 0: none */
	float4      mostly_false; /* of a boolean: how many rows; 0: not known */
} PinnedColumn;

typedef struct PinnedTable
{
	const char  *name;
	double       tuples;
	double       tuples_per_page;
	PinnedColumn columns[COLUMNS_MAX];
} PinnedTable;

/*
 * A thousand strategies that each granted a hundred thousand users once: then
 * the grants of some thousand users are looked up by the key, and those of more
 * users read as a whole.  Larger strategies would have a scan of 100,000 users
 * take twice as long.  So few values of the time make a strategy's grants as
 * many as its users, as they are where it is single; statements about one
 * firing go by the key anyway.
 */
static const PinnedTable pinned_tables[] = {
	{"quota_execute",
	 1e8,
	 15,
	 {{"id", -1, 1.0f, 0},
	  {"strategy_id", 1000, 0, 0},
	  {"user_id", 1e6f, 0, 0},
	  {"scheduled_time", 1, 0, 0},
	  {"revision", 1, 0, 0},
	  {"run_id", 1e4f, 1.0f, 0}}},
	{"quota_run",
	 1e7,
	 50,
	 {{"id", -1, 1.0f, 0},
	  {"strategy_id", 1000, 0, 0},
	  {"scheduled_time", -0.01f, 0, 0},
	  {"undelivered", 2, 0, 0.9999f},
	  {"reversal_id", -1, 0, 0}}},
	{"troubled_grant", 1e6, 100, {{"grant_id", -1, 1.0f, 0}}},
	{"scan_mark", 1e4, 100, {{"strategy_id", -1, 0, 0}}},
	{"user_balance", 1e6, 70, {{"user_id", -1, 0, 0}, {"gateway", 1, 0, 0}}},
	{"grant_decision",
	 1e6,
	 50,
	 {{"id", -1, 1.0f, 0}, {"grant_id", -1, 0, 0}, {"user_id", -1, 0, 0}}},
	{"quota_reversal_item",
	 1e6,
	 80,
	 {{"reversal_id", 100, 1.0f, 0}, {"grant_id", -1, 0, 0}, {"user_id", -1, 0, 0}}},
};

static bool                         pinned_statistics;
static get_relation_info_hook_type  previous_relation_info;
static get_relation_stats_hook_type previous_relation_stats;
static get_index_stats_hook_type    previous_index_stats;
static get_attavgwidth_hook_type    previous_average_width;

/*
 * The pinned figures of a relation; NULL: none, or the setting is off.  Names are
 * looked up each time: the catalogue's caches notice whether they are
 * still valid.
 */
static const PinnedTable *
find_pinned_table(Oid relation)
{
	Oid   schema = pinned_statistics ? get_rel_namespace(relation) : InvalidOid;
	char *name;
	int   i;

	if (!OidIsValid(schema) || (schema != get_namespace_oid("quota_manager", true) &&
								schema != get_namespace_oid("quota_internal", true)))
		return NULL;
	name = get_rel_name(relation);
	for (i = 0; name != NULL && i < lengthof(pinned_tables); i++)
		if (strcmp(pinned_tables[i].name, name) == 0)
			return &pinned_tables[i];
	return NULL;
}

/* The pinned figures of a column of such a table; NULL: no statistics. */
static const PinnedColumn *
find_pinned_column(const PinnedTable *table, Oid relation, AttrNumber attnum)
{
	char *name = get_attname(relation, attnum, true);
	int   i;

	for (i = 0; name != NULL && i < COLUMNS_MAX && table->columns[i].name != NULL; i++)
		if (strcmp(table->columns[i].name, name) == 0)
			return &table->columns[i];
	return NULL;
}

static void
pin_index(const PinnedTable *table, IndexOptInfo *index)
{
	index->tuples = index->indpred != NIL ? table->tuples * PARTIAL_SHARE : table->tuples;
	index->pages = (BlockNumber) (index->tuples / ENTRIES_PER_PAGE);
	if (index->relam == BTREE_AM_OID)
		index->tree_height = index->indpred != NIL ? 1 : 3;
}

/* The hook get_relation_info_hook: sizes. */
static void
pin_relation(PlannerInfo *root, Oid relation, bool inhparent, RelOptInfo *rel)
{
	const PinnedTable *table;
	ListCell          *cell;

	if (previous_relation_info)
		previous_relation_info(root, relation, inhparent, rel);
	table = find_pinned_table(relation);
	if (table == NULL)
		return;
	rel->tuples = table->tuples;
	rel->pages = (BlockNumber) (table->tuples / table->tuples_per_page);
	rel->allvisfrac = 0.9;
	rel->statlist = NIL;
	foreach (cell, rel->indexlist)
		pin_index(table, lfirst(cell));
}

/* Sets the first slot of a row of pg_statistic to a correlation. */
static void
set_correlation(float4 correlation, Oid type, Datum *values, bool *nulls)
{
	Datum numbers[1] = {Float4GetDatum(correlation)};

	values[Anum_pg_statistic_stakind1 - 1] = Int16GetDatum(STATISTIC_KIND_CORRELATION);
	values[Anum_pg_statistic_staop1 - 1] =
		ObjectIdGetDatum(type == INT8OID ? Int8LessOperator : InvalidOid);
	values[Anum_pg_statistic_stanumbers1 - 1] =
		PointerGetDatum(construct_array(numbers, 1, FLOAT4OID, sizeof(float4), true, TYPALIGN_INT));
	nulls[Anum_pg_statistic_stanumbers1 - 1] = false;
}

/* Sets it to how many rows of a boolean column are false. */
static void
set_mostly_false(float4 share, Datum *values, bool *nulls)
{
	Datum numbers[1] = {Float4GetDatum(share)};
	Datum booleans[1] = {BoolGetDatum(false)};

	values[Anum_pg_statistic_stakind1 - 1] = Int16GetDatum(STATISTIC_KIND_MCV);
	values[Anum_pg_statistic_staop1 - 1] = ObjectIdGetDatum(BooleanEqualOperator);
	values[Anum_pg_statistic_stanumbers1 - 1] =
		PointerGetDatum(construct_array(numbers, 1, FLOAT4OID, sizeof(float4), true, TYPALIGN_INT));
	values[Anum_pg_statistic_stavalues1 - 1] =
		PointerGetDatum(construct_array(booleans, 1, BOOLOID, sizeof(bool), true, TYPALIGN_CHAR));
	nulls[Anum_pg_statistic_stanumbers1 - 1] = false;
	nulls[Anum_pg_statistic_stavalues1 - 1] = false;
}

/* A row as ANALYZE would write it for the column. */
static HeapTuple
make_statistics(const PinnedColumn *column, Oid relation, AttrNumber attnum)
{
	Oid       type = get_atttype(relation, attnum);
	Datum     values[Natts_pg_statistic] = {0};
	bool      nulls[Natts_pg_statistic] = {false};
	Relation  catalog;
	HeapTuple tuple;
	int       i;

	for (i = 0; i < STATISTIC_NUM_SLOTS; i++)
	{
		nulls[Anum_pg_statistic_stanumbers1 - 1 + i] = true;
		nulls[Anum_pg_statistic_stavalues1 - 1 + i] = true;
	}
	values[Anum_pg_statistic_starelid - 1] = ObjectIdGetDatum(relation);
	values[Anum_pg_statistic_staattnum - 1] = Int16GetDatum(attnum);
	values[Anum_pg_statistic_stawidth - 1] = Int32GetDatum(get_typavgwidth(type, -1));
	values[Anum_pg_statistic_stadistinct - 1] = Float4GetDatum(column->distinct);
	if (column->correlation != 0)
		set_correlation(column->correlation, type, values, nulls);
	if (column->mostly_false != 0)
		set_mostly_false(column->mostly_false, values, nulls);
	catalog = table_open(StatisticRelationId, AccessShareLock);
	tuple = heap_form_tuple(RelationGetDescr(catalog), values, nulls);
	table_close(catalog, AccessShareLock);
	return tuple;
}

/* The hook get_relation_stats_hook: statistics of a column. */
static bool
pin_column(PlannerInfo *root, RangeTblEntry *rte, AttrNumber attnum, VariableStatData *vardata)
{
	const PinnedTable  *table = find_pinned_table(rte->relid);
	const PinnedColumn *column;

	if (table == NULL)
		return previous_relation_stats && previous_relation_stats(root, rte, attnum, vardata);
	column = find_pinned_column(table, rte->relid, attnum);
	vardata->statsTuple = column ? make_statistics(column, rte->relid, attnum) : NULL;
	vardata->freefunc = heap_freetuple;
	vardata->acl_ok = true;
	return true;
}

/*
 * The hook get_index_stats_hook: an indexed expression is
 * treated like a column that is not listed.
 */
static bool
pin_expression(PlannerInfo *root, Oid index, AttrNumber attnum, VariableStatData *vardata)
{
	if (!pinned_statistics || find_pinned_table(IndexGetRelation(index, true)) == NULL)
		return previous_index_stats && previous_index_stats(root, index, attnum, vardata);
	vardata->statsTuple = NULL;
	return true;
}

/* The hook get_attavgwidth_hook: widths are those of the type. */
static int32
pin_width(Oid relation, AttrNumber attnum)
{
	if (find_pinned_table(relation) != NULL)
		return get_typavgwidth(get_atttype(relation, attnum), -1);
	return previous_average_width ? previous_average_width(relation, attnum) : 0;
}

/*
 * Registers the setting and the hooks.  Plans that this process made before
 * are made again: they may have been made for the setting without the hooks.
 */
void
pinned_statistics_install(void)
{
	DefineCustomBoolVariable(
		"quota_manager.pinned_statistics",
		"Plans statements as for large tables of grants, runs and balances.",
		"Set by functions of the extension, for themselves.", &pinned_statistics, false,
		PGC_USERSET, GUC_NO_SHOW_ALL | GUC_NOT_IN_SAMPLE | GUC_DISALLOW_IN_FILE, NULL, NULL, NULL);
	previous_relation_info = get_relation_info_hook;
	get_relation_info_hook = pin_relation;
	previous_relation_stats = get_relation_stats_hook;
	get_relation_stats_hook = pin_column;
	previous_index_stats = get_index_stats_hook;
	get_index_stats_hook = pin_expression;
	previous_average_width = get_attavgwidth_hook;
	get_attavgwidth_hook = pin_width;
	ResetPlanCache();
}

/* pin_statistics(): does nothing, but the call loads the library. */
Datum
qm_pin_statistics(PG_FUNCTION_ARGS)
{
	PG_RETURN_VOID();
}
