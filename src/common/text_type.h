/*
 * text_type.h
 *		Output and binary input of types that are stored as a canonical text.
 *
 * Such a type has an input function of its own, which makes the canonical text
 * and raises errors; the rest is as for text.  Results are allocated in the
 * current memory context.
 */
#ifndef QM_TEXT_TYPE_H
#define QM_TEXT_TYPE_H

#include "fmgr.h"

extern Datum text_type_out(FunctionCallInfo fcinfo);
extern Datum text_type_send(FunctionCallInfo fcinfo);
extern char *text_type_received(FunctionCallInfo fcinfo);

#endif /* QM_TEXT_TYPE_H */
