/*
 * operator_fault.h
 *		The paths under /mock/fault.
 */
#ifndef OPERATOR_FAULT_H
#define OPERATOR_FAULT_H

#include "operation.h"

/* GET /mock/fault */
extern void operator_get_faults(struct operation *operation);

/* GET /mock/fault/kinds */
extern void operator_get_fault_kinds(struct operation *operation);

/* POST /mock/fault; README.md lists the parameters. */
extern void operator_arm_fault(struct operation *operation);

/* POST /mock/fault/clear */
extern void operator_clear_faults(struct operation *operation);

#endif
