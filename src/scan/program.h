/*
 * program.h
 *		Conditions of many strategies over columns that they share.
 *
 * A shared pass computes each distinct call once per user, as a column of its
 * query; a program combines columns into the answer for one strategy.  Only
 * two-valued calls are combined: a strategy that asks for balances has a query of
 * its own.  A condition none of whose calls is shared
 * is one column, so that it stops at the first call that decides.
 */
#ifndef QM_PROGRAM_H
#define QM_PROGRAM_H

#include "postgres.h"

#include "nodes/pg_list.h"

#include "condition/condition.h"

typedef struct ProgramStep
{
	ConditionKind       kind;
	int                 column; /* of a CALL, from 0 */
	struct ProgramStep *first;  /* what it combines */
	struct ProgramStep *next;   /* what the step above combines it with */
} ProgramStep;

/* Columns that a pass computes, and which of them are shared. */
typedef struct ProgramColumns ProgramColumns;

extern ProgramColumns *program_columns_begin(void);
extern void         program_columns_count(ProgramColumns *columns, const ConditionNode *condition);
extern ProgramStep *program_compile(ProgramColumns *columns, const ConditionNode *condition);
extern List        *program_columns_texts(const ProgramColumns *columns);
extern bool         program_run(const ProgramStep *step, const Datum *values, const bool *nulls);

#endif /* QM_PROGRAM_H */
