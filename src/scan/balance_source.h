/*
 * balance_source.h
 *		One gateway that balances are read from: its queue, queries and answers.
 *
 * A job is the users of one strategy whose balance is missing at this gateway.
 * Jobs are served in order, a batch of users at a time: the users get tokens
 * (balance_table.h), are asked for, and their answers are stored.  A gateway
 * that does not answer loses its jobs, and takes none until its back-off is
 * over.
 *
 * Everything is allocated in the memory context of balance_source_create.
 * Errors are those of the database; after one a source can only be reset.
 */
#ifndef QM_BALANCE_SOURCE_H
#define QM_BALANCE_SOURCE_H

#include "postgres.h"

#include "access/tupdesc.h"
#include "lib/stringinfo.h"

#include "common/work_unit.h"
#include "endpoint/brakes.h"
#include "endpoint/gateway_row.h"

typedef struct BalanceSource BalanceSource;
typedef struct BalanceJob    BalanceJob;

extern BalanceSource *balance_source_create(const char *name, const WorkUnit *unit);
extern void           balance_source_reset(BalanceSource *source);
extern const char    *balance_source_name(const BalanceSource *source);
extern void           balance_source_set_row(BalanceSource *source, GatewayRow *row);
extern bool           balance_source_is_available(const BalanceSource *source);
extern bool           balance_source_is_busy(const BalanceSource *source);
extern bool           balance_source_serves(const BalanceSource *source, int32 strategy_id);
extern BalanceJob    *balance_source_begin_job(BalanceSource *source, int32 strategy_id);
extern void           balance_job_add(BalanceJob *job, const char *user_id);
extern void           balance_source_step(BalanceSource *source, const Brakes *brakes);
extern int            balance_source_in_flight(const BalanceSource *source);
extern void           balance_source_poll(BalanceSource *source, int timeout_ms);
extern bool           balance_source_made_due(BalanceSource *source);
extern void           balance_source_describe(const BalanceSource *source, StringInfo text);

#endif /* QM_BALANCE_SOURCE_H */
