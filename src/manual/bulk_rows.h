/*
 * bulk_rows.h
 *		The rows of bulk calls: the table bulk_call.
 *
 * All functions run in a transaction of a WorkUnit, or of a caller with its
 * search_path, by the session that holds the lock of the key.
 */
#ifndef QM_BULK_ROWS_H
#define QM_BULK_ROWS_H

#include "postgres.h"

#include "common/statement.h"
#include "manual/call.h"

/* How many rows of a key are in each state. */
typedef struct BulkCounts
{
	int64 applied;
	int64 refused;
	int64 not_sent;
	int64 in_doubt;
	int64 waiting;
} BulkCounts;

extern char      *bulk_gateway(const char *key);
extern RowArrays *bulk_rows_create(void);
extern void       bulk_rows_add(RowArrays *rows, const char *user_id, const char *amount,
								const char *reason);
extern void       bulk_rows_write(const char *key, const char *gateway, const char *role,
								  RowArrays *rows);
extern void       bulk_rows_settle_old(const char *key);
extern int        bulk_rows_take(const char *key, int most, ManualCall **calls);
extern void       bulk_rows_untake(const char *key);
extern void       bulk_rows_record(const char *key, const ManualCall *calls, int count);
extern void       bulk_rows_count(const char *key, BulkCounts *counts);

#endif /* QM_BULK_ROWS_H */
