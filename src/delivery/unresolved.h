/*
 * unresolved.h
 *		What reconciliation needs of tables: balances before, and grants in doubt.
 *
 * Each function works in the transaction that is open, with SPI connected, but
 * samples_finish, which follows its commit.
 */
#ifndef QM_UNRESOLVED_H
#define QM_UNRESOLVED_H

#include "postgres.h"

#include "nodes/pg_list.h"

#include "delivery/sender.h"

extern void samples_write(Sender *sender);
extern void samples_finish(Sender *sender);
extern void unresolved_load(Sender *sender, List *runs);
extern void unresolved_check(Sender *sender);

#endif /* QM_UNRESOLVED_H */
