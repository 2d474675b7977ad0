/*
 * plan.h
 *		First phase of a scan: which queries find the users of strategies.
 *
 * A strategy has a query of its own, which may go by an index, or it shares a
 * pass over all users with others.  The planner's costs decide.
 *
 * Planning folds constants and so may run code of others: it has the rights of
 * the reader, within a security-restricted operation.
 */
#ifndef QM_PLAN_H
#define QM_PLAN_H

#include "postgres.h"

#include "nodes/params.h"

#include "scan/evaluation.h"
#include "scan/program.h"

/* What a row of a query means. */
typedef enum QueryAnswer
{
	QUERY_MATCHED,  /* id: the user meets the condition */
	QUERY_VERDICT,  /* id, whether the user meets it or only may, and a balance if the allowance
					 * asks for one */
	QUERY_PROGRAMS, /* id, and the columns of the programs */
} QueryAnswer;

typedef struct EvaluationQuery
{
	QueryAnswer   answer;
	char         *text;
	PlannedStmt  *plan;
	ParamListInfo params;     /* or NULL */
	List         *strategies; /* of StrategyEvaluation */
	List         *programs;   /* of ProgramStep, one per strategy; for QUERY_PROGRAMS */
	int           columns;    /* of the programs */
} EvaluationQuery;

extern List            *plan_evaluation(const Evaluation *evaluation, List *strategies);
extern EvaluationQuery *plan_by_position(const Evaluation *evaluation, List *strategies,
										 ParamListInfo positions);

#endif /* QM_PLAN_H */
