/*
 * reversal.h
 *		Goes on with reversals that wait for grants to be settled.
 */
#ifndef QM_REVERSAL_H
#define QM_REVERSAL_H

#include "postgres.h"

#include "common/work_unit.h"

extern bool reversals_continue(const WorkUnit *unit);

#endif /* QM_REVERSAL_H */
