/*
 * parking.h
 *		Connections that wait: for a moment to come, or for their client to leave.
 *
 * libmicrohttpd does not look at a suspended connection, not even when its client has gone; one thread
 * of ours watches them all, so any number of hanging requests costs nothing and blocks nobody.
 */
#ifndef PARKING_H
#define PARKING_H

#include <stdbool.h>
#include <stdint.h>

struct MHD_Connection;

/* A waiting connection; part of its request, and untouched by the request while it waits. */
struct parked
{
	struct parked         *next;
	struct parked        **link; /* what points at this one */
	struct MHD_Connection *connection;
	int                    socket;
	uint64_t               deadline;  /* milliseconds of the monotonic clock; 0: none */
	bool                   abandoned; /* afterwards: the client has gone, or the mock stops */
};

/* Starts the watching thread; false if the system refuses. */
extern bool parking_start(void);

/*
 * Suspends the connection and resumes it after so many milliseconds (0: never), or at once when the
 * client closes its side.  Only to be called where MHD_suspend_connection() may be, and the request
 * must not be touched afterwards until libmicrohttpd calls again for it.
 */
extern void parking_enter(struct parked *parked, struct MHD_Connection *connection,
						  unsigned delay_ms);

/* Resumes every connection as abandoned, now and from now on, and ends the thread. */
extern void parking_stop(void);

#endif
