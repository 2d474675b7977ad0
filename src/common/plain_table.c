/*
 * plain_table.c
 *		Whether our code may access the storage of a table directly.
 */
#include "postgres.h"

#include "catalog/pg_am_d.h"
#include "catalog/pg_class.h"
#include "nodes/plannodes.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "common/plain_table.h"

/* True if a DELETE from the table is planned as one that deletes from its heap. */
static bool
is_planned_as_heap(Relation table)
{
	char        *name = quote_qualified_identifier(get_namespace_name(RelationGetNamespace(table)),
												   RelationGetRelationName(table));
	char        *sql = psprintf("DELETE FROM %s WHERE false", name);
	RawStmt     *statement = linitial_node(RawStmt, pg_parse_query(sql));
	List        *queries = pg_analyze_and_rewrite_fixedparams(statement, sql, NULL, 0, NULL);
	PlannedStmt *plan;

	if (list_length(queries) != 1)
		return false;
	plan = pg_plan_query(linitial_node(Query, queries), sql, 0, NULL);
	return IsA(plan->planTree, ModifyTable) && list_length(plan->resultRelations) == 1;
}

/*
 * True if the rows that statements see of a table are those in its own heap,
 * on this server.  False for a partitioned or foreign table, one with another
 * access method, one with rules that rewrite a DELETE, and one whose
 * statements another extension's planner sends elsewhere: the heap of a
 * distributed table exists and is empty, so rows written into it would be
 * lost.  Triggers are not checked.
 *
 * The table is locked as for writing.  Asks the planner: needs a snapshot, and
 * costs about as much as a small statement.
 */
bool
is_plain_table(Relation table)
{
	Assert(ActiveSnapshotSet());
	return table->rd_rel->relkind == RELKIND_RELATION &&
		   table->rd_rel->relam == HEAP_TABLE_AM_OID && is_planned_as_heap(table);
}
