/*
 * finding.h
 *		What is probably wrong with a condition that can be evaluated.
 */
#ifndef QM_CONDITION_FINDING_H
#define QM_CONDITION_FINDING_H

#include "nodes/pg_list.h"

#include "condition/satisfiable.h"

/* How bad it is; people see the words. */
#define SEVERITY_ERROR "error"     /* it cannot do what it is for */
#define SEVERITY_WARNING "warning" /* probably a mistake */
#define SEVERITY_NOTICE "notice"   /* may be meant */

typedef struct Finding
{
	const char *problem;
	const char *severity;
	char       *message;
	char       *detail;
	char       *hint;
} Finding;

extern List *condition_findings(const ConditionNode *node, const ModelTable *models,
								Budget *budget);

#endif /* QM_CONDITION_FINDING_H */
