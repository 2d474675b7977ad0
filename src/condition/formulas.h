/*
 * formulas.h
 *		Trees of conditions -> formulas.
 */
#ifndef QM_CONDITION_FORMULAS_H
#define QM_CONDITION_FORMULAS_H

#include "condition/formula.h"

extern FactTable *formulas_build(const ConditionNode *const *nodes, int count,
								 const ModelTable *models, Formula **formulas);

#endif /* QM_CONDITION_FORMULAS_H */
