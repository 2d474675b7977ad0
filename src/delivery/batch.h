/*
 * turn.h
 *		One transaction of a round: settles what is done, claims what is sent next.
 */
#ifndef QM_TURN_H
#define QM_TURN_H

#include "postgres.h"

#include "delivery/courier.h"

/*
 * Milliseconds between readings of the gateways' rows, which may have been
 * mended, and between looks for new work while other work goes on.
 */
#define REREAD_INTERVAL 1000

/* What a turn does besides settling and, unless that is all it does, claiming. */
typedef enum TurnKind
{
	TURN_CLAIM,
	TURN_LOOK,   /* also looks for new work and takes sender locks */
	TURN_SETTLE, /* claims nothing */
} TurnKind;

/* True if a sender would profit from a turn now. */
extern bool turn_is_needed(const Courier *courier);

/*
 * Takes a turn and adds what it settled to *count.  An error in it is returned
 * (NULL: none): what it did is undone, in tables and in memory, what was read
 * is forgotten, and what is to be settled stays where it is.
 */
extern ErrorData *turn_take(Courier *courier, TurnKind kind, DeliveryCount *count);

/*
 * Is there work for the sender's gateway, as far as was seen?  *due becomes the
 * time at which the first pending grant may be sent, if that is earlier.
 */
extern bool has_backlog(const Courier *courier, const Sender *sender, MonoTime *due);

#endif /* QM_TURN_H */
