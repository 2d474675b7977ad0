/*
 * compat.h
 *		Features that PostgreSQL 15 to 18 have under different names.
 *
 * This is the only file that asks for the version.  Where a name is newer than
 * PostgreSQL 15, the code uses the new one and it is defined here for the old
 * releases.  Macros, so that a file includes the headers of what it uses only.
 */
#ifndef QM_COMPAT_H
#define QM_COMPAT_H

#include "postgres.h"

#if PG_VERSION_NUM < 150000
#error "quota_manager needs PostgreSQL 15 or newer"
#endif

/* Before 16, postgres.h has its contents. */
#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif

#if PG_VERSION_NUM < 180000
#define pg_noreturn pg_attribute_noreturn()
#endif

/* Rights: class is the name of a constant, as NamespaceRelationId. */
#if PG_VERSION_NUM < 160000
#define object_aclcheck(class, object, role, mode) aclcheck_##class(object, role, mode)
#define aclcheck_DatabaseRelationId pg_database_aclcheck
#define aclcheck_NamespaceRelationId pg_namespace_aclcheck
#define aclcheck_ProcedureRelationId pg_proc_aclcheck
#define object_ownercheck(class, object, role) ownercheck_##class(object, role)
#define ownercheck_DatabaseRelationId pg_database_ownercheck
#endif

/* Before 16, a role that may create roles can make itself a member of any but superusers. */
#define CREATEROLE_GRANTS_ANY (PG_VERSION_NUM < 160000)

/* Settings. */
#define HAVE_TRANSACTION_TIMEOUT (PG_VERSION_NUM >= 170000)

#if PG_VERSION_NUM >= 160000
#define list_guc_variables(count) get_guc_variables(count)
#else
#define list_guc_variables(count) (*(count) = GetNumConfigOptions(), get_guc_variables())
#define guc_malloc(elevel, size) malloc(size)
#define guc_free(pointer) free(pointer)
#endif

/* Errors of input functions, which 15 cannot collect. */
#if PG_VERSION_NUM < 160000
#define errsave(context, ...) ereport(ERROR, __VA_ARGS__)
#endif

/* Processes and transactions. */
#if PG_VERSION_NUM >= 180000
#define proc_may_be_worker(proc) (!(proc)->isRegularBackend)
#else
#define proc_may_be_worker(proc) ((proc)->isBackgroundWorker)
#endif

#if PG_VERSION_NUM >= 170000
#define my_local_transaction() (MyProc->vxid.lxid)
#define process_of_virtual_transaction(transaction) ProcNumberGetProc((transaction).procNumber)
#define lock_held_by_me(tag, mode) LockHeldByMe(tag, mode, false)
#else
#define my_local_transaction() (MyProc->lxid)
#define process_of_virtual_transaction(transaction) BackendIdGetProc((transaction).backendId)
#define lock_held_by_me(tag, mode) LockHeldByMe(tag, mode)
#define TransamVariables ShmemVariableCache
#define WaitEventExtensionNew(name) PG_WAIT_EXTENSION
#endif

#if PG_VERSION_NUM < 160000
#define pgstat_get_local_beentry_by_index(index) pgstat_fetch_stat_local_beentry(index)
#endif

/* A loop over pointers in a list, which declares its variable. */
#if PG_VERSION_NUM < 170000
#define foreach_ptr(type, var, list)                                                               \
	for (type *var = NULL, *var##__outer = (type *) 1; var##__outer; var##__outer = NULL)          \
		for (ForEachState var##__state = {(list), 0};                                              \
			 var##__state.l != NIL && var##__state.i < var##__state.l->length &&                   \
			 (var = lfirst(&var##__state.l->elements[var##__state.i]), true);                      \
			 var##__state.i++)
#endif

/* The next value of a sort, a copy; and the entries of a new row in all indexes, which may raise an error. */
#if PG_VERSION_NUM >= 160000
#define tuplesort_next_datum(sort, value, isnull)                                                  \
	tuplesort_getdatum(sort, true, true, value, isnull, NULL)
#define insert_index_entries(result, slot, estate)                                                 \
	ExecInsertIndexTuples(result, slot, estate, false, false, NULL, NIL, false)
#else
#define tuplesort_next_datum(sort, value, isnull)                                                  \
	tuplesort_getdatum(sort, true, value, isnull, NULL)
#define insert_index_entries(result, slot, estate)                                                 \
	ExecInsertIndexTuples(result, slot, estate, false, false, NULL, NIL)
#endif

/* The executor and EXPLAIN, whose declarations have moved. */
#if PG_VERSION_NUM >= 180000
#define run_executor_once(query) ExecutorRun(query, ForwardScanDirection, 0)
#define HEADER_OF_EXPLAIN_STATE "commands/explain_state.h"
#define HEADER_OF_EXPLAIN_FORMAT "commands/explain_format.h"
#else
#define run_executor_once(query) ExecutorRun(query, ForwardScanDirection, 0, true)
#define HEADER_OF_EXPLAIN_STATE "commands/explain.h"
#define HEADER_OF_EXPLAIN_FORMAT "commands/explain.h"
#endif

#if PG_VERSION_NUM >= 170000
#define explain_plan(plan, state, text, duration)                                                  \
	ExplainOnePlan(plan, NULL, state, text, NULL, NULL, duration, NULL, NULL)
#else
#define explain_plan(plan, state, text, duration)                                                  \
	ExplainOnePlan(plan, NULL, state, text, NULL, NULL, duration, NULL)
#endif

/* Columns that are computed when they are read: they can change without a write of their rows. */
#if PG_VERSION_NUM >= 180000
#define has_virtual_columns(descriptor)                                                            \
	((descriptor)->constr != NULL && (descriptor)->constr->has_generated_virtual)
#else
#define has_virtual_columns(descriptor) false
#endif

#endif /* QM_COMPAT_H */
