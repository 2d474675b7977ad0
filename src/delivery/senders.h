/*
 * courier.h
 *		What a courier consists of; for the files of this folder only.
 */
#ifndef QM_COURIER_H
#define QM_COURIER_H

#include "postgres.h"

#include "nodes/pg_list.h"
#include "utils/timestamp.h"

#include "delivery/delivery.h"
#include "delivery/installation.h"
#include "delivery/sender.h"

struct Courier
{
	MemoryContext         memory;
	MemoryContext         turn_memory; /* reset after every transaction */
	MemoryContextCallback on_reset;
	const WorkUnit       *unit;

	/* what was read of tables; it can be thrown away at any time and is read again */
	MemoryContext gateways_memory;
	List         *gateways; /* of GatewayRow, as last read */
	MonoTime      gateways_read;
	MemoryContext runs_memory;
	List         *runs; /* of Run, undelivered when last looked at */

	List *senders;    /* of Sender, one for each gateway and those that are gone but busy */
	bool  is_leaving; /* transactions do not wait for a standby */

	/* set once the transaction that read it is committed, and then for good; NULL: not read yet */
	Installation *installation;
	bool          wants_installation; /* nothing can be claimed without */

	char *trouble; /* what went wrong last with a gateway, to be written down; NULL: nothing */
};

/*
 * Reads the gateways again and tells their senders.  In a transaction; an error
 * leaves everything as it was.
 */
extern void courier_read_gateways(Courier *courier);

/* Throws away what was read of tables, after an error. */
extern void courier_forget(Courier *courier);

/* Notes what went wrong, to be written down when no claim waits to be sent. */
extern void courier_trouble(Courier *courier, const char *message);

/* Writes it down, in a transaction of its own; that it cannot be does not matter. */
extern void courier_write_trouble(Courier *courier);

/*
 * Runs body in a transaction of the courier's kind, with a memory context that
 * is reset afterwards.  An error in body is caught: what body did to tables is
 * undone, the transaction is ended, and the error is returned, allocated in
 * the courier's memory.  NULL: all is committed.
 */
extern ErrorData *courier_transact(Courier *courier, void (*body)(Courier *courier, void *argument),
								   void    *argument);

#endif /* QM_COURIER_H */
