/*
 * bulk_query.h
 *		The query that says what a bulk call sends.
 */
#ifndef QM_BULK_QUERY_H
#define QM_BULK_QUERY_H

#include "common/statement.h"

extern RowArrays *bulk_query_read(const char *query);

#endif /* QM_BULK_QUERY_H */
