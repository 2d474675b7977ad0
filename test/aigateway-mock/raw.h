/*
 * raw.h
 *		What is done to a socket behind libmicrohttpd's back.
 *
 * libmicrohttpd sends whole and well-formed replies only.  Anything else is written to the socket of a
 * connection that it waits for (parking.h) or is about to close, so that the two never write at once.
 */
#ifndef RAW_H
#define RAW_H

#include <stdbool.h>
#include <stddef.h>

#include "answer.h"
#include "parking.h"

/* Bytes on their way to a client, one piece after the other. */
struct raw
{
	const char *bytes;
	size_t      left;
	size_t      piece;    /* how many at once */
	unsigned    pause_ms; /* between two pieces */
};

/* Appends "HTTP/1.1 ..." and so on up to the empty line, with this Content-Length. */
extern void raw_header(const struct answer *answer, size_t length, bool close, struct text *wire);

/* Appends the reply that the answer holds; its header says whether the connection is closed. */
extern void raw_reply(const struct answer *answer, bool close, struct text *wire);

/*
 * Sends the next piece; returns milliseconds until it wants to be called again, PARKED_ENOUGH when all
 * is sent or the client has gone.  The context is a struct raw; to be called by parking_speak().
 */
extern int raw_step(int socket, void *raw);

/*
 * Takes the connection to the client away from a descriptor that libmicrohttpd is to close; returns
 * another descriptor of it, -1 if that is impossible.  Only while libmicrohttpd waits for parking.h: it
 * would miss events of the old descriptor, and see some of the new one.
 */
extern int raw_take_away(int socket);

/* Sends a reset to the client. */
extern void raw_reset(int socket);

#endif
