/*
 * audit.h
 *		An audit under way; for the files audit*.c only.
 *
 * Everything lives in the memory context in which the audit was made, whose
 * reset or deletion closes its session.
 */
#ifndef QM_AUDIT_H
#define QM_AUDIT_H

#include "postgres.h"

#include "access/tupdesc.h"
#include "executor/tuptable.h"
#include "nodes/execnodes.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "common/monotonic.h"
#include "endpoint/gateway_row.h"

/* Rows taken at once from a cursor. */
#define AUDIT_FETCH_ROWS 1000

/* An audit under way. */
typedef struct Audit
{
	GatewayRow      *row;
	GatewaySession  *session;
	bool             counts_pruned; /* false: the SQL of 1.0.0, which prunes nothing */
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
	int64 changed; /* changed by hand meanwhile */
	int64 granted; /* users who were granted something for certain, */
	int64 empty;   /* and of whom the gateway says that they have 0 */
} Audit;

/* audit_queries.c */
extern void audit_read_balances(Audit *audit);
extern void audit_give_up(const Audit *audit);
extern bool audit_next_row(const Audit *audit, Tuplestorestate *store, TupleTableSlot *slot);

/* audit_compare.c */
extern void audit_compare(Audit *audit, ReturnSetInfo *result);

#endif /* QM_AUDIT_H */
