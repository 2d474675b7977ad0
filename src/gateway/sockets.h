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

extern void sockets_free(SocketSet *set);
extern int  sockets_add(SocketSet *set, int socket);
extern void sockets_set_events(SocketSet *set, int entry, short events);
extern void sockets_remove(SocketSet *set, int entry);
extern int  sockets_wait(SocketSet *set, int64_t timeout_ms, const sigset_t *signals);
extern bool sockets_ready(SocketSet *set, int *entry, int *socket, short *events);
extern void sockets_keep(SocketSet *set, int socket);
extern void sockets_unkeep(SocketSet *set, int socket);
extern bool sockets_shut_disturbed(SocketSet *set);

#endif /* QM_GATEWAY_SOCKETS_H */
