/*
 * brakes.h
 *		What is paused, and the promise that nothing of it is sent.
 *
 * From the moment the COMMIT of a pause returns, nothing of what it pauses is
 * handed to a gateway.  Two things see to that, in every session and whether the
 * library is preloaded or not:
 *
 * - Who sends holds the sending lock, shared, for the moment in which it hands
 *   requests to libcurl; it never waits for it.  A transaction that pauses takes
 *   it exclusively just before it commits, and has it until the pause can be seen
 *   by others.
 * - Such a transaction invalidates the relation cache's entry of quota_pause.
 *   With the sending lock a sender takes in such messages: if what it has read
 *   of pauses is outdated, it sends nothing before it has read them again.
 *
 * A pause that is prepared (PREPARE TRANSACTION) has no such lock: a pass of
 * requests may be under way when its COMMIT PREPARED returns.
 */
#ifndef QM_BRAKES_H
#define QM_BRAKES_H

#include "postgres.h"

#include "nodes/pg_list.h"

/* What was paused by operators when it was read. */
typedef struct Brakes
{
	MemoryContext memory;
	uint64        version;    /* 0: not read */
	const char   *everything; /* since when, by whom and why; NULL: not everything is paused */
	List         *gateways;   /* of PausedGateway */
	int32        *strategies; /* in order */
	int           strategy_count;
} Brakes;

extern void        brakes_init(Brakes *brakes, MemoryContext memory);
extern void        brakes_read(Brakes *brakes);
extern void        brakes_forget(Brakes *brakes);
extern bool        brakes_are_outdated(const Brakes *brakes);
extern bool        brakes_hold_anything(const Brakes *brakes);
extern const char *brakes_on_gateway(const Brakes *brakes, const char *gateway);
extern bool        brakes_on_strategy(const Brakes *brakes, int32 strategy_id);
extern void        brakes_notice(const char *gateway);
extern void        brakes_notice_everything(void);

/* Between these two requests may be handed to gateways that are not paused. */
extern bool sending_begin(const Brakes *brakes);
extern void sending_end(void);

#endif /* QM_BRAKES_H */
