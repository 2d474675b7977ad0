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
#include "delivery/lane.h"

struct Courier
{
	MemoryContext         memory;
	MemoryContext         turn_memory; /* reset after every transaction */
	MemoryContextCallback on_reset;
	const WorkUnit       *unit;

	List       *gateways; /* of GatewayRow, as last read */
	TimestampTz gateways_read;
	List       *lanes;      /* of Lane, one for each gateway and those that are gone but busy */
	List       *runs;       /* of Run, undelivered when last looked at */
	bool        is_leaving; /* transactions do not wait for a standby */

	Installation *installation; /* NULL: not read yet */
};

/*
 * Reads the gateways again and tells their lanes.  In a transaction.
 */
extern void courier_read_gateways(Courier *courier);

/* The lane of a gateway; NULL: there is none of that name. */
extern Lane *courier_lane(const Courier *courier, const char *gateway);

/*
 * Runs body in a transaction of the courier's kind, with a memory context that
 * is reset afterwards.  An error in body is caught: what body did to tables is
 * undone, the transaction is ended, and the error is returned, allocated in
 * the courier's memory.  NULL: all is committed.
 */
extern ErrorData *courier_transact(Courier *courier, void (*body)(Courier *courier, void *argument),
								   void    *argument);

#endif /* QM_COURIER_H */
