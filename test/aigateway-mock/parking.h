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

/*
 * Something to be done with the socket of a waiting connection; it must not block.  Returns milliseconds
 * until it wants to be called again, or PARKED_ENOUGH.
 */
typedef int (*parking_step)(int socket, void *context);

#define PARKED_ENOUGH (-1)

/* A waiting connection; part of its request, and untouched by the request while it waits. */
struct parked
{
	struct parked         *next;
	struct parked        **link; /* what points at this one */
	struct MHD_Connection *connection;
	int                    socket;
	uint64_t               deadline; /* milliseconds of the monotonic clock; 0: none */
	parking_step           step;     /* what to do then; NULL: resume */
	void                  *context;
	bool                   outlasts;  /* its time begins when the client leaves */
	unsigned               linger_ms; /* that time */
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

/*
 * The same, and after so many milliseconds (0: at once) calls the step, again and again as it asks for;
 * resumes the connection when it has had enough, or at once when the client leaves.
 */
extern void parking_speak(struct parked *parked, struct MHD_Connection *connection,
						  unsigned delay_ms, parking_step step, void *context);

/* Stops looking whether the client leaves; for a step that takes the socket away. */
extern void parking_unwatch(int socket);

/*
 * Suspends the connection until so many milliseconds after the client has left, then calls the step and
 * resumes it.  If the mock stops before, the step is not called.
 */
extern void parking_outlast(struct parked *parked, struct MHD_Connection *connection,
							unsigned delay_ms, parking_step step, void *context);

/* Resumes every connection as abandoned, now and from now on, and ends the thread. */
extern void parking_stop(void);

#endif
