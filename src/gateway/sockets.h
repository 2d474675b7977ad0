/*
 * sockets.h
 *		The sockets of a session: those libcurl waits for, and those of
 *		connections that are kept for the next request.
 *
 * A SocketSet of zeros is empty and valid.  The sockets belong to libcurl.
 */
#ifndef QM_GATEWAY_SOCKETS_H
#define QM_GATEWAY_SOCKETS_H

#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct SocketList
{
	struct pollfd *entries;
	int            count;
	int            size;
} SocketList;

typedef struct SocketSet
{
	SocketList waiting; /* entries keep their place: poll(2) skips those without a socket */
	SocketList idle;    /* entries move */
} SocketSet;

/* Frees what the set holds; the sockets are left alone. */
extern void sockets_free(SocketSet *set);

/* Begins to wait for a socket.  Returns its entry; -1: out of memory. */
extern int sockets_add(SocketSet *set, int socket);

/* What is waited for: POLLIN, POLLOUT, both or none. */
extern void sockets_set_events(SocketSet *set, int entry, short events);

/* Ends waiting for the socket of an entry. */
extern void sockets_remove(SocketSet *set, int entry);

/*
 * Waits for at most timeout_ms, with this signal mask.  Returns how many are
 * ready; -1: a signal came.  sockets_ready then goes through them: it returns
 * false after the last one, and begins with *entry = 0.  The set may change
 * between its calls: what is added anew is not ready.
 */
extern int  sockets_wait(SocketSet *set, int64_t timeout_ms, const sigset_t *signals);
extern bool sockets_ready(SocketSet *set, int *entry, int *socket, short *events);

/*
 * A connection has answered a request and is kept.  libcurl may have given it
 * to another request by now: then it waits for it.
 */
extern void sockets_keep(SocketSet *set, int socket);

/* A connection is used again, or was closed.  Harmless for any socket. */
extern void sockets_unkeep(SocketSet *set, int socket);

/*
 * Shuts down the kept connections on which something has arrived: nobody asked
 * for it, so it is the end of the connection, or bytes that would pass for the
 * answer to the next request.  True if there was one.  Those libcurl waits for
 * are in use and left alone.
 */
extern bool sockets_shut_disturbed(SocketSet *set);

#endif /* QM_GATEWAY_SOCKETS_H */
