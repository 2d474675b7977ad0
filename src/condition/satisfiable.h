/*
 * satisfiable.h
 *		Is there a user of whom formulas hold?
 *
 * The search tries values of facts and takes them back, which can be long for a
 * formula that is made to be.  So it has a budget, beyond which the answer is
 * not known.
 */
#ifndef QM_CONDITION_SATISFIABLE_H
#define QM_CONDITION_SATISFIABLE_H

#include "condition/formula.h"

/* A formula that is to hold, or not to hold. */
typedef struct Requirement
{
	const Formula *formula;
	bool           negated;
} Requirement;

typedef enum Answer
{
	ANSWER_NO,
	ANSWER_YES,
	ANSWER_UNKNOWN,
} Answer;

/*
 * How much work is left: steps of about ten nanoseconds, for one question and
 * for all.
 */
typedef struct Budget
{
	int64 total;
	int64 each;
} Budget;

extern Answer satisfiable(const FactTable *facts, const Requirement *requirements, int count,
						  Budget *budget);

#endif /* QM_CONDITION_SATISFIABLE_H */
