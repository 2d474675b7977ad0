/*
 * balance_reader.h
 *		Reads balances that conditions ask for from the gateways, beside other work.
 *
 * A strategy runs with the balances that are stored.  If some are missing, its
 * users are given to the reader, and it is made due again as soon as answers are
 * stored.  Nothing here waits: the owner of the reader steps it between other
 * work, with no transaction open.
 *
 * A gateway that does not answer is not asked for a while, with a back-off of up
 * to a minute; others are not affected.  Users wait in a file beyond work_mem.
 *
 * Errors are those of the database.  After one the reader can only be freed;
 * incomplete runs ask again for what was to be read.
 */
#ifndef QM_BALANCE_READER_H
#define QM_BALANCE_READER_H

#include "postgres.h"

#include "common/work_unit.h"

typedef struct BalanceReader BalanceReader;

extern BalanceReader *balance_reader_create(const WorkUnit *unit);
extern void           balance_reader_free(BalanceReader *reader);
extern void           balance_reader_add(BalanceReader *reader, int32 strategy_id);
extern bool           balance_reader_is_busy(const BalanceReader *reader);
extern void           balance_reader_step(BalanceReader *reader, int timeout_ms);
extern bool           balance_reader_made_due(BalanceReader *reader);
extern bool           balance_reader_in_flight(const BalanceReader *reader);
extern char          *balance_reader_activity(const BalanceReader *reader);

#endif /* QM_BALANCE_READER_H */
