/*
 * fault_server.h
 *		An HTTP server of a few lines in a thread, which does to each request what
 *		it is told, down to the byte.
 */
#ifndef FAULT_SERVER_H
#define FAULT_SERVER_H

#include <stdbool.h>
#include <stddef.h>

typedef enum FaultEnd
{
	END_KEEP,  /* leave the connection open */
	END_CLOSE, /* close it */
	END_RESET, /* close it so that the client sees a reset */
	END_DRIP,  /* send the bytes one by one, a millisecond each */
} FaultEnd;

/* What is done to one request.  Strings stay the caller's while the server runs. */
typedef struct FaultStep
{
	const char *bytes;      /* sent; NULL: nothing */
	size_t      size;       /* of bytes; 0: up to their NUL */
	FaultEnd    end;        /* afterwards */
	bool        at_headers; /* do it when the headers are there, and read no body */
	bool        deaf;       /* take no connection any more, as one that was killed */
	const char *late;       /* sent some milliseconds after bytes, in a packet of its own */
} FaultStep;

typedef struct FaultServer FaultServer;

/* A reply that a higress gateway gives to a delta. */
#define DELTA_OK "HTTP/1.1 200 OK\r\nContent-Length: 22\r\n\r\ndelta quota successful"

extern FaultServer *fault_server_start(void);
extern void         fault_server_stop(FaultServer *server);

/* http://127.0.0.1:port; valid while the server runs. */
extern const char *fault_server_url(const FaultServer *server);

/*
 * The next requests get these steps, any after them the last one; counters
 * begin at zero again.  The steps are copied.
 */
extern void fault_server_script(FaultServer *server, const FaultStep *steps, int count);

/* Takes connections again after a step that made the server deaf. */
extern void fault_server_listen(FaultServer *server);

/* Requests that were read whole, and connections accepted, since the script was set. */
extern int fault_server_requests(FaultServer *server);
extern int fault_server_connections(FaultServer *server);

/* The request that was read last, headers and body; malloc'ed. */
extern char *fault_server_last(FaultServer *server);

#endif /* FAULT_SERVER_H */
