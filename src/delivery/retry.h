/*
 * retry.h
 *		How long to wait before something is tried again.
 */
#ifndef QM_RETRY_H
#define QM_RETRY_H

#include "postgres.h"

extern int64 backoff_ms(int failures, int64 base_ms, int64 max_ms);
extern int64 retry_after_ms(double retry_after);

#endif /* QM_RETRY_H */
