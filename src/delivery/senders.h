/*
 * senders.h
 *		The senders of a process, and what it has read of tables.
 *
 * For the files of this folder; others see delivery.h.
 */
#ifndef QM_SENDERS_H
#define QM_SENDERS_H

#include "postgres.h"

#include "nodes/pg_list.h"

#include "delivery/delivery.h"
#include "common/identity.h"
#include "endpoint/brakes.h"
#include "delivery/sender.h"

struct Delivery
{
	MemoryContext         memory;
	MemoryContext         batch_memory; /* reset after every transaction */
	MemoryContextCallback on_reset;
	const WorkUnit       *unit;
	List *senders;    /* of Sender, one per gateway, and busy ones of deleted gateways */
	bool  is_leaving; /* transactions do not wait for a standby */
	char *last_error; /* of a gateway, not written yet; NULL: none */

	/* what was read of tables; it can be thrown away at any time and is read again */
	MemoryContext gateways_memory; /* of the rows of the senders */
	MonoTime      gateways_read;
	MemoryContext runs_memory;
	List         *runs; /* of Run, undelivered when last read */
	Brakes        brakes;

	/* set once it is read, for good; NULL: not read yet */
	Identity *installation;
	bool      wants_installation; /* nothing can be claimed without */
};

extern void       senders_read_gateways(Delivery *delivery);
extern void       senders_forget_tables(Delivery *delivery);
extern void       senders_note_error(Delivery *delivery, const char *message);
extern void       senders_write_error(Delivery *delivery);
extern ErrorData *senders_transact(Delivery *delivery, void (*body)(void *argument),
								   void     *argument);

#endif /* QM_SENDERS_H */
