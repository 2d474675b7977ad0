/*
 * grant_rows.h
 *		Rows of quota_execute that a statement names by their keys, and what it
 *		returns of them.
 *
 * A statement is given once for a plain table and once for one that is spread
 * over parts by user: see OF_USERS.  It calls the table e, and k the keys, which
 * are its first arguments.
 */
#ifndef QM_GRANT_ROWS_H
#define QM_GRANT_ROWS_H

#include "postgres.h"

#include "catalog/pg_type.h"

#include "common/statement.h"
#include "delivery/grant.h"

/* The columns of a key, and with the number of the claim that guards it. */
#define KEY_COLUMNS "strategy_id, user_id, scheduled_time, revision"
#define KEY_TYPES INT4ARRAYOID, TEXTARRAYOID, TIMESTAMPTZARRAYOID, INT4ARRAYOID
#define CLAIM_COLUMNS KEY_COLUMNS ", claim_number"
#define CLAIM_TYPES KEY_TYPES, INT4ARRAYOID

#define IS_GRANT_OF_KEY                                                                            \
	"e.strategy_id = k.strategy_id AND e.user_id = k.user_id"                                      \
	" AND e.scheduled_time = k.scheduled_time AND e.revision = k.revision"

/* The values of these columns. */
#define CLAIM_ARGS(grant)                                                                          \
	arg_int32((grant)->key.strategy_id), arg_text((grant)->key.user_id),                           \
		arg_time((grant)->key.scheduled_time), arg_int32((grant)->key.revision),                   \
		arg_int32((grant)->key.claim_number)

/*
 * The two forms of a statement: sql is a macro of what follows IS_GRANT_OF_KEY,
 * and of what comes after further conditions; the others are the types of its
 * arguments.
 */
#define PLAIN_AND_SPREAD(sql, ...)                                                                 \
	{                                                                                              \
		{sql("", ""), {__VA_ARGS__}},                                                              \
		{                                                                                          \
			sql(OF_USERS("e.user_id", 2) UNKNOWN_BEGIN, UNKNOWN_END),                              \
			{                                                                                      \
				__VA_ARGS__                                                                        \
			}                                                                                      \
		}                                                                                          \
	}

/* What a statement returns of a grant first, for grant_of_row(). */
#define GRANT_RESULT                                                                               \
	"e.strategy_id, e.user_id, e.scheduled_time, e.revision, e.claim_number, e.id, e.attempts,"    \
	" trim_scale(e.amount)::text"

/* Ids, in ascending order. */
typedef struct IdSet
{
	int    count;
	int64 *ids;
} IdSet;

extern Grant *grant_of_row(MemoryContext memory, uint64 row);
extern IdSet  ids_of_result(uint64 count);
extern bool   ids_contain(const IdSet *set, int64 id);

#endif /* QM_GRANT_ROWS_H */
