/*
 * argument.h
 *		Texts that people give to functions.
 */
#ifndef QM_ARGUMENT_H
#define QM_ARGUMENT_H

#include "postgres.h"

#include "fmgr.h"

extern char *argument_text(FunctionCallInfo fcinfo, int n, const char *name);
extern char *argument_required_text(FunctionCallInfo fcinfo, int n, const char *name);

#endif /* QM_ARGUMENT_H */
