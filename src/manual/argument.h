/*
 * argument.h
 *		Texts that people give to functions.
 */
#ifndef QM_ARGUMENT_H
#define QM_ARGUMENT_H

#include "postgres.h"

#include "fmgr.h"

/*
 * A text argument; NULL if it is null.  An error, which calls it by that name
 * and does not repeat it, if it is longer than a key has room for: it may go
 * into the log, into rows, and to a gateway.
 */
extern char *argument_text(FunctionCallInfo fcinfo, int n, const char *name);

/* The same; an error if it is null or empty. */
extern char *argument_required_text(FunctionCallInfo fcinfo, int n, const char *name);

#endif /* QM_ARGUMENT_H */
