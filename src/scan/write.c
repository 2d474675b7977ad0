/*
 * write.c
 *		Fourth phase of a scan: writes grants.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "executor/nodeModifyTable.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "rewrite/rewriteHandler.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/typcache.h"

#include "common/compat.h"
#include "common/crash_point.h"
#include "common/plain_table.h"
#include "common/progress.h"
#include "scan/write.h"

/* A batch is written when it has so many rows, or so many bytes. */
#define BATCH_ROWS 1000
#define BATCH_BYTES (64 * 1024)

/* The same of a table that is not plain, where a statement may go to many servers. */
#define STATEMENT_ROWS 16384
#define STATEMENT_BYTES (1024 * 1024)

/* An INSERT of a batch. */
typedef struct GrantInsert
{
	Datum     *users;   /* STATEMENT_ROWS of them */
	Datum     *amounts; /* of these, if each has its own */
	SPIPlanPtr statement;
	Datum     *parameters;
	int        parameter_count;
} GrantInsert;

struct GrantWriter
{
	Relation      table;
	int           columns;
	int           user_column;   /* number of user_id, from 0 */
	int           amount_column; /* of amount, if each grant has its own; otherwise -1 */
	Datum        *values;        /* of the template */
	bool         *nulls;
	int64         written;
	int           count; /* rows of the batch */
	Size          bytes;
	MemoryContext batch;

	/* Of a plain table. */
	bool            direct;
	EState         *estate;
	ResultRelInfo  *result;
	BulkInsertState bulk;
	CommandId       command;
	ExprState     **defaults; /* per column, NULL: the template decides */
	TupleTableSlot *slots[BATCH_ROWS];

	GrantInsert insert; /* of any other */
};

/* True if it has a column of a domain, which may refuse even a missing value. */
static bool
has_domain(TupleDesc columns)
{
	for (int i = 0; i < columns->natts; i++)
		if (!TupleDescAttr(columns, i)->attisdropped &&
			get_typtype(TupleDescAttr(columns, i)->atttypid) == TYPTYPE_DOMAIN)
			return true;
	return false;
}

/* True if no trigger is called when a row is inserted. */
static bool
is_without_triggers(const TriggerDesc *triggers)
{
	return triggers == NULL ||
		   !(triggers->trig_insert_before_row || triggers->trig_insert_after_row ||
			 triggers->trig_insert_before_statement || triggers->trig_insert_after_statement);
}

/* True if rows can be given to the table access method without bypassing triggers or rules. */
static bool
is_plain(Relation table)
{
	/* A look into the catalog may build the table's cache entry anew: its parts are read when used. */
	return !table->rd_rel->relforcerowsecurity && !table->rd_rel->relispartition &&
		   table->rd_rules == NULL && !has_domain(RelationGetDescr(table)) &&
		   is_without_triggers(table->trigdesc) && is_plain_table(table);
}

/* Prepares writing rows into a plain table. */
static void
begin_direct(GrantWriter *writer)
{
	MemoryContext caller;

	writer->estate = CreateExecutorState();
	caller = MemoryContextSwitchTo(writer->estate->es_query_cxt);
	writer->result = makeNode(ResultRelInfo);
	InitResultRelInfo(writer->result, writer->table, 0, NULL, 0);
	ExecOpenIndices(writer->result, false);
	writer->bulk = GetBulkInsertState();
	writer->command = GetCurrentCommandId(true);
	writer->defaults = palloc0(sizeof(ExprState *) * writer->columns);
	for (int i = 0; i < writer->columns; i++)
	{
		Form_pg_attribute column = TupleDescAttr(RelationGetDescr(writer->table), i);
		Expr             *expr;

		if (!writer->nulls[i] || i == writer->user_column || column->attisdropped ||
			column->attgenerated)
			continue;
		expr = (Expr *) build_column_default(writer->table, i + 1);
		if (expr)
			writer->defaults[i] = ExecPrepareExpr(expr, writer->estate);
	}
	MemoryContextSwitchTo(caller);
}

/*
 * Prepares an INSERT of a batch: the columns of the template are parameters,
 * the user ids an array, their own amounts another, and all else is left to its
 * default.
 */
static void
begin_statement(GrantWriter *writer)
{
	StringInfoData columns;
	StringInfoData values;
	StringInfoData text;
	Oid           *types = palloc(sizeof(Oid) * writer->columns);
	bool           own_amounts = writer->amount_column >= 0;
	int            count = 0;

	initStringInfo(&columns);
	initStringInfo(&values);
	initStringInfo(&text);
	writer->insert.parameters = palloc(sizeof(Datum) * writer->columns);
	writer->insert.users = palloc(sizeof(Datum) * STATEMENT_ROWS);
	writer->insert.amounts = own_amounts ? palloc(sizeof(Datum) * STATEMENT_ROWS) : NULL;
	for (int i = 0; i < writer->columns; i++)
	{
		Form_pg_attribute column = TupleDescAttr(RelationGetDescr(writer->table), i);

		if (writer->nulls[i] || i == writer->user_column || i == writer->amount_column ||
			column->attisdropped)
			continue;
		types[count] = column->atttypid;
		writer->insert.parameters[count] = writer->values[i];
		appendStringInfo(&columns, "%s, ", quote_identifier(NameStr(column->attname)));
		appendStringInfo(&values, "$%d, ", ++count);
	}
	types[count++] = TEXTARRAYOID;
	if (own_amounts)
	{
		types[count++] = get_array_type(NUMERICOID);
		appendStringInfo(&text,
						 "INSERT INTO quota_manager.quota_execute (%suser_id, amount)"
						 " SELECT %su.user_id, u.amount"
						 " FROM ROWS FROM (pg_catalog.unnest($%d), pg_catalog.unnest($%d))"
						 " u (user_id, amount)",
						 columns.data, values.data, count - 1, count);
	}
	else
		appendStringInfo(&text,
						 "INSERT INTO quota_manager.quota_execute (%suser_id)"
						 " SELECT %su.user_id FROM pg_catalog.unnest($%d) u (user_id)",
						 columns.data, values.data, count);
	writer->insert.parameter_count = count;
	writer->insert.statement = SPI_prepare(text.data, count, types);
	if (writer->insert.statement == NULL)
		elog(ERROR, "could not prepare to write grants");
}

/* Opens the table of grants for writing grants like the template, or with amounts of their own. */
GrantWriter *
grant_writer_begin(HeapTupleHeader pattern, bool own_amounts)
{
	GrantWriter  *writer = palloc0(sizeof(GrantWriter));
	HeapTupleData tuple = {.t_len = HeapTupleHeaderGetDatumLength(pattern), .t_data = pattern};
	TupleDesc     descriptor;

	writer->table =
		table_openrv(makeRangeVar("quota_manager", "quota_execute", -1), RowExclusiveLock);
	descriptor = RelationGetDescr(writer->table);
	writer->columns = descriptor->natts;
	writer->user_column = get_attnum(RelationGetRelid(writer->table), "user_id") - 1;
	writer->amount_column =
		own_amounts ? get_attnum(RelationGetRelid(writer->table), "amount") - 1 : -1;
	writer->values = palloc0(sizeof(Datum) * writer->columns);
	writer->nulls = palloc(sizeof(bool) * writer->columns);
	if (HeapTupleHeaderGetTypeId(pattern) != descriptor->tdtypeid || writer->user_column < 0)
		elog(ERROR, "the template is not a row of quota_execute");
	heap_deform_tuple(&tuple, descriptor, writer->values, writer->nulls);
	writer->batch =
		AllocSetContextCreate(CurrentMemoryContext, "grants to write", ALLOCSET_DEFAULT_SIZES);
	writer->direct = is_plain(writer->table);
	if (writer->direct)
		begin_direct(writer);
	else
		begin_statement(writer);
	return writer;
}

/* Writes the batch with the table access method, and its index entries. */
static void
flush_direct(GrantWriter *writer)
{
	EState       *estate = writer->estate;
	MemoryContext caller = MemoryContextSwitchTo(GetPerTupleMemoryContext(estate));

	table_multi_insert(writer->table, writer->slots, writer->count, writer->command, 0,
					   writer->bulk);
	MemoryContextSwitchTo(caller);
	for (int i = 0; i < writer->count; i++)
	{
		if (writer->result->ri_NumIndices > 0)
			list_free(insert_index_entries(writer->result, writer->slots[i], estate));
		ExecClearTuple(writer->slots[i]);
	}
	writer->written += writer->count;
	ResetPerTupleExprContext(estate);
}

/* Runs the INSERT for the batch. */
static void
flush_statement(GrantWriter *writer)
{
	MemoryContext caller = MemoryContextSwitchTo(writer->batch);
	Datum        *last = writer->insert.parameters + writer->insert.parameter_count - 1;

	if (writer->insert.amounts)
		*last-- = PointerGetDatum(construct_array(writer->insert.amounts, writer->count, NUMERICOID,
												  -1, false, TYPALIGN_INT));
	*last = PointerGetDatum(
		construct_array(writer->insert.users, writer->count, TEXTOID, -1, false, TYPALIGN_INT));
	MemoryContextSwitchTo(caller);
	if (SPI_execute_plan(writer->insert.statement, writer->insert.parameters, NULL, false, 0) !=
		SPI_OK_INSERT)
		elog(ERROR, "could not write grants");
	/* A trigger may have left some out. */
	writer->written += (int64) SPI_processed;
	MemoryContextReset(writer->batch);
}

static void
flush(GrantWriter *writer)
{
	int64 before = writer->written;

	if (writer->count == 0)
		return;
	CHECK_FOR_INTERRUPTS();
	if (writer->direct)
		flush_direct(writer);
	else
		flush_statement(writer);
	progress_add(PROGRESS_SCAN, SCAN_GRANTS_WRITTEN, writer->written - before);
	writer->count = 0;
	writer->bytes = 0;
}

/* Fills the next slot of the batch. */
static void
add_direct(GrantWriter *writer, const text *user_id, Datum amount)
{
	EState         *estate = writer->estate;
	ExprContext    *context = GetPerTupleExprContext(estate);
	TupleTableSlot *slot = writer->slots[writer->count];
	MemoryContext   caller;

	if (slot == NULL)
	{
		caller = MemoryContextSwitchTo(estate->es_query_cxt);
		slot = writer->slots[writer->count] = table_slot_create(writer->table, NULL);
		MemoryContextSwitchTo(caller);
	}
	memcpy(slot->tts_values, writer->values, sizeof(Datum) * writer->columns);
	memcpy(slot->tts_isnull, writer->nulls, sizeof(bool) * writer->columns);
	caller = MemoryContextSwitchTo(GetPerTupleMemoryContext(estate));
	for (int i = 0; i < writer->columns; i++)
		if (writer->defaults[i])
			slot->tts_values[i] = ExecEvalExpr(writer->defaults[i], context, &slot->tts_isnull[i]);
	MemoryContextSwitchTo(caller);
	slot->tts_values[writer->user_column] = PointerGetDatum(user_id);
	slot->tts_isnull[writer->user_column] = false;
	if (writer->amount_column >= 0)
		slot->tts_values[writer->amount_column] = amount;
	ExecStoreVirtualTuple(slot);
	slot->tts_tableOid = RelationGetRelid(writer->table);
	if (RelationGetDescr(writer->table)->constr)
	{
		if (RelationGetDescr(writer->table)->constr->has_generated_stored)
			ExecComputeStoredGenerated(writer->result, estate, slot, CMD_INSERT);
		ExecConstraints(writer->result, slot, estate);
	}
	ExecMaterializeSlot(slot);
}

/*
 * Writes the grant of a user, now or with a later batch.  amount counts if the
 * writer was begun for amounts of their own.
 */
void
grant_writer_add(GrantWriter *writer, const text *user_id, Datum amount)
{
	CRASH_POINT(scan_admitting);
	if (writer->direct)
		add_direct(writer, user_id, amount);
	else
	{
		MemoryContext caller = MemoryContextSwitchTo(writer->batch);

		writer->insert.users[writer->count] =
			PointerGetDatum(DatumGetTextPCopy(PointerGetDatum(user_id)));
		if (writer->insert.amounts)
			writer->insert.amounts[writer->count] = datumCopy(amount, false, -1);
		MemoryContextSwitchTo(caller);
	}
	writer->count++;
	writer->bytes += VARSIZE_ANY(user_id) + MAXALIGN(SizeofHeapTupleHeader);
	if (writer->count == (writer->direct ? BATCH_ROWS : STATEMENT_ROWS) ||
		writer->bytes > (writer->direct ? BATCH_BYTES : STATEMENT_BYTES))
		flush(writer);
}

/* Writes the last batch; returns how many grants were written. */
int64
grant_writer_end(GrantWriter *writer)
{
	int64 written;

	flush(writer);
	written = writer->written;
	if (writer->direct)
	{
		FreeBulkInsertState(writer->bulk);
		for (int i = 0; i < BATCH_ROWS && writer->slots[i]; i++)
			ExecDropSingleTupleTableSlot(writer->slots[i]);
		ExecCloseIndices(writer->result);
		FreeExecutorState(writer->estate);
		/* What comes next sees them. */
		CommandCounterIncrement();
	}
	table_close(writer->table, NoLock);
	MemoryContextDelete(writer->batch);
	pfree(writer);
	return written;
}
