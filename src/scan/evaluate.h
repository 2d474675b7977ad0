/*
 * evaluate.h
 *		Second phase of a scan: runs the planned queries and spools what they
 *		find.
 *
 * While a query runs nothing is written but spools, so it may be parallel.
 */
#ifndef QM_EVALUATE_H
#define QM_EVALUATE_H

#include "scan/plan.h"

extern void evaluate_query(const UserSource *source, const EvaluationQuery *query);

#endif /* QM_EVALUATE_H */
