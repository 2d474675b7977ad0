/*
 * facts.h
 *		What calls ask -> facts, and the regions of their values.
 */
#ifndef QM_CONDITION_FACTS_H
#define QM_CONDITION_FACTS_H

#include "condition/question.h"

extern FactTable *facts_make(Question *questions, int count);

#endif /* QM_CONDITION_FACTS_H */
