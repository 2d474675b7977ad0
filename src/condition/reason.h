/*
 * reason.h
 *		Why no user meets some formulas, in words.
 */
#ifndef QM_CONDITION_REASON_H
#define QM_CONDITION_REASON_H

#include "condition/satisfiable.h"

/* Formulas that no user meets together, and of which none can be left out. */
typedef struct Conflict
{
	Requirement *requirements;
	int          count;
} Conflict;

extern bool  conflict_find(const FactTable *table, const Requirement *requirements, int count,
						   Budget *budget, Conflict *conflict);
extern char *conflict_describe(const FactTable *table, const Conflict *conflict, Budget *budget);
extern char *conflict_hint(const Conflict *conflict);
extern char *formula_text(const Formula *formula);

#endif /* QM_CONDITION_REASON_H */
