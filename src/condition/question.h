/*
 * question.h
 *		What a call asks about a user.
 */
#ifndef QM_CONDITION_QUESTION_H
#define QM_CONDITION_QUESTION_H

#include "condition/formula.h"

/* What a call asks; the fields of its kind are set. */
typedef struct Question
{
	Formula    *call;
	FactKind    kind;
	const char *key;
	bool        is_possible; /* of a star: some list has the project */
	bool        truth;       /* of a constant */
	int64       bound;       /* of a level or a time */
	Datum       amount;      /* of a balance */
} Question;

extern void question_read(Question *question, Formula *call, const ModelTable *models);

#endif /* QM_CONDITION_QUESTION_H */
