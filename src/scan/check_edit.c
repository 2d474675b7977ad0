/*
 * check_edit.c
 *		Checks an edit of a strategy that is not made.
 *
 * The triggers of the extension that check an edit are called as PostgreSQL would
 * call them, in their order, with the rights of the caller.  So there is one
 * definition of what a strategy must be, and nothing is written or locked.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/pg_trigger.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "nodes/makefuncs.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/reltrigger.h"

#include "common/compat.h"
#include "common/rights.h"

PG_FUNCTION_INFO_V1(qm_check_edit);

/* Triggers that check and do nothing else have such names. */
#define CHECK_PREFIX "check_"

/* Is it one of the extension's that checks a row before it is updated? */
static bool
checks_update(const Trigger *trigger)
{
	return TRIGGER_TYPE_MATCHES(trigger->tgtype, TRIGGER_TYPE_ROW, TRIGGER_TYPE_BEFORE,
								TRIGGER_TYPE_UPDATE) &&
		   strncmp(trigger->tgname, CHECK_PREFIX, strlen(CHECK_PREFIX)) == 0 &&
		   get_func_namespace(trigger->tgfoid) == get_namespace_oid("quota_internal", false);
}

/* Calls a trigger for the edit of a row; returns the row that it makes of it. */
static HeapTuple
call_trigger(Relation table, Trigger *trigger, HeapTuple row, HeapTuple edited)
{
	LOCAL_FCINFO(call, 0);
	FmgrInfo    function;
	TriggerData data = {.type = T_TriggerData,
						.tg_event = TRIGGER_EVENT_UPDATE | TRIGGER_EVENT_ROW | TRIGGER_EVENT_BEFORE,
						.tg_relation = table,
						.tg_trigtuple = row,
						.tg_newtuple = edited,
						.tg_trigger = trigger};
	Datum       result;

	fmgr_info(trigger->tgfoid, &function);
	InitFunctionCallInfoData(*call, &function, 0, InvalidOid, (Node *) &data, NULL);
	result = FunctionCallInvoke(call);
	if (call->isnull || DatumGetPointer(result) == NULL)
		ereport(ERROR, (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
						errmsg("trigger \"%s\" leaves the edit out", trigger->tgname)));
	return (HeapTuple) DatumGetPointer(result);
}

/* A row that is a value as a row of the table. */
static HeapTuple
row_of(Relation table, HeapTupleHeader value)
{
	HeapTuple row = palloc0(sizeof(HeapTupleData));

	if (HeapTupleHeaderGetTypeId(value) != RelationGetDescr(table)->tdtypeid)
		elog(ERROR, "not a row of quota_strategy");
	row->t_len = HeapTupleHeaderGetDatumLength(value);
	row->t_data = value;
	row->t_tableOid = RelationGetRelid(table);
	ItemPointerSetInvalid(&row->t_self);
	return row;
}

/*
 * check_edit(strategy, edited): the edited row as it would be stored, or the
 * error of the edit.
 */
Datum
qm_check_edit(PG_FUNCTION_ARGS)
{
	Relation table =
		table_openrv(makeRangeVar("quota_manager", "quota_strategy", -1), AccessShareLock);
	HeapTuple row = row_of(table, PG_GETARG_HEAPTUPLEHEADER(0));
	HeapTuple edited = row_of(table, PG_GETARG_HEAPTUPLEHEADER(1));
	/* That of the cache goes with its entry, which any lock taken by a trigger may end. */
	TriggerDesc *triggers = CopyTriggerDesc(table->trigdesc);
	RightsBefore before;
	Datum        result;

	rights_become_caller(&before);
	for (int i = 0; triggers != NULL && i < triggers->numtriggers; i++)
		if (checks_update(&triggers->triggers[i]))
			edited = call_trigger(table, &triggers->triggers[i], row, edited);
	rights_restore(&before);
	result = heap_copy_tuple_as_datum(edited, RelationGetDescr(table));
	table_close(table, AccessShareLock);
	PG_RETURN_DATUM(result);
}
