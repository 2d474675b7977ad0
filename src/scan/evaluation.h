/*
 * evaluation.h
 *		Which users meet the conditions of strategies: found first, written
 *		afterwards.
 *
 * A scan has four phases.  Plan chooses which strategies share one pass over
 * all users and which go by an index of theirs.  Evaluate runs those queries
 * and only spools the ids of users.  Admit leaves out users who have their grant.
 * Write writes grants.  The first two run conditions and user sources, which
 * are the code of others, with the rights of the reader and within a
 * security-restricted operation; the last two run statements of ours only, as
 * the owner.
 *
 * Evaluations are kept until they are ended, at the end of the transaction at
 * the latest.  One is dropped when the subtransaction that it was begun in is
 * aborted.
 */
#ifndef QM_EVALUATION_H
#define QM_EVALUATION_H

#include "postgres.h"

#include "access/htup.h"
#include "nodes/pg_list.h"
#include "nodes/plannodes.h"

#include "condition/condition.h"
#include "scan/allowance.h"
#include "scan/changed.h"
#include "scan/spool.h"
#include "scan/user_source.h"

/* The setting quota_manager.incremental_scans. */
extern bool incremental_scans;

/* What was found for one strategy. */
typedef struct StrategyEvaluation
{
	int32           strategy_id;
	int32           version;
	bool            is_single;
	bool            is_capped;
	char           *condition;
	ConditionNode  *tree;
	ConditionTraits traits;
	Allowance       allowance;
	const char     *whole_reason; /* why all users are evaluated; NULL: only changed ones */
	bool            can_mark;   /* the next evaluation may go by what has changed since this one */
	bool            has_mark;   /* there is one of the evaluation before, and it is valid */
	EvaluationMark  mark;       /* first of the evaluation before, then of this one */
	int64           mark_users; /* fingerprint of the users then */
	Spool          *matched;    /* NULL: it was not evaluated */
	Spool          *missing;    /* whose answer, or amount, depends on a missing balance */
	int64           left_out;   /* whose ids are too long for a grant */
	int64           left_out_missing;
	bool            only_counts; /* nothing is spooled */
	int64           counted;
	int64           counted_missing;
} StrategyEvaluation;

typedef struct Evaluation
{
	MemoryContext         memory;
	MemoryContextCallback on_reset;
	ResourceOwner         files;
	SubTransactionId      subtransaction;
	LogMoment             begin;
	List                 *strategies; /* of StrategyEvaluation */
	UserSource            source;
	struct Evaluation    *next; /* that was begun before it */
} Evaluation;

/* True if the answers for users, or their amounts, depend on balances. */
static inline bool
evaluation_asks_balances(const StrategyEvaluation *strategy)
{
	return strategy->traits.asks_balances || allowance_asks_balance(&strategy->allowance);
}

extern Evaluation         *evaluation_begin(Datum strategy_ids);
extern Evaluation         *evaluation_begin_copy(HeapTupleHeader strategy);
extern StrategyEvaluation *evaluation_find(int32 strategy_id);
extern bool                evaluation_is_kept(void);
extern void                evaluation_end(int32 strategy_id);
extern void                evaluation_drop(Evaluation *evaluation);
extern void evaluation_open_spools(Evaluation *evaluation, StrategyEvaluation *strategy,
								   int spools);
extern void evaluation_add(StrategyEvaluation *strategy, text *id, bool meets, Datum balance);
extern bool evaluation_can_share(const Evaluation *evaluation, const StrategyEvaluation *strategy);

#endif /* QM_EVALUATION_H */
