/*
 * retry.h
 *		How long a gateway asks us to wait.
 */
#ifndef QM_RETRY_H
#define QM_RETRY_H

#include "postgres.h"

extern int64 retry_after_ms(double retry_after);

#endif /* QM_RETRY_H */
