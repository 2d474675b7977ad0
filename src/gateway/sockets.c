/*
 * sockets.c
 *		The sockets of a session: those libcurl waits for, and those of
 *		connections that are kept for the next request.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* ppoll */
#endif

#include "gateway/sockets.h"

#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>

#define NO_SOCKET (-1)
#define FIRST_SIZE 16

/* What is thrown away of that which arrived unasked, in pieces. */
#define DRAIN_PIECE 4096
#define DRAIN_PIECES 64

/* Appends an entry that waits for events.  Returns its place; -1: out of memory. */
static int
append(SocketList *list, int socket, short events)
{
	if (list->count == list->size)
	{
		int            size = list->size > 0 ? list->size * 2 : FIRST_SIZE;
		struct pollfd *grown = realloc(list->entries, (size_t) size * sizeof(*grown));

		if (!grown)
			return -1;
		list->entries = grown;
		list->size = size;
	}
	list->entries[list->count] = (struct pollfd){socket, events, 0};
	return list->count++;
}

/* Frees what the set holds; the sockets are left alone. */
void
sockets_free(SocketSet *set)
{
	free(set->waiting.entries);
	free(set->idle.entries);
	*set = (SocketSet){{0}, {0}};
}

/* Begins to wait for a socket.  Returns its entry; -1: out of memory. */
int
sockets_add(SocketSet *set, int socket)
{
	int i;

	for (i = 0; i < set->waiting.count; i++)
		if (set->waiting.entries[i].fd == NO_SOCKET)
		{
			set->waiting.entries[i] = (struct pollfd){socket, 0, 0};
			return i;
		}
	return append(&set->waiting, socket, 0);
}

/* Sets what an entry waits for: POLLIN, POLLOUT, both or none. */
void
sockets_set_events(SocketSet *set, int entry, short events)
{
	set->waiting.entries[entry].events = events;
}

/* Ends waiting for the socket of an entry. */
void
sockets_remove(SocketSet *set, int entry)
{
	set->waiting.entries[entry] = (struct pollfd){NO_SOCKET, 0, 0};
}

/*
 * Waits for at most timeout_ms, with this signal mask.  Returns how many are
 * ready; -1: a signal came.
 */
int
sockets_wait(SocketSet *set, int64_t timeout_ms, const sigset_t *signals)
{
	struct timespec timeout = {0, 0};

	if (timeout_ms > 0)
	{
		timeout.tv_sec = (time_t) (timeout_ms / 1000);
		timeout.tv_nsec = (long) (timeout_ms % 1000) * 1000000;
	}
	return ppoll(set->waiting.entries, (nfds_t) set->waiting.count, &timeout, signals);
}

/*
 * Goes through the entries that sockets_wait found ready, from *entry = 0 on;
 * false after the last one.  The set may change between calls: an entry added
 * meanwhile is not ready.
 */
bool
sockets_ready(SocketSet *set, int *entry, int *socket, short *events)
{
	for (; *entry < set->waiting.count; (*entry)++)
	{
		struct pollfd *candidate = &set->waiting.entries[*entry];

		if (candidate->revents == 0)
			continue;
		*socket = candidate->fd;
		*events = candidate->revents;
		candidate->revents = 0;
		return true;
	}
	return false;
}

/*
 * Notes that a connection has answered a request and is kept.  If libcurl has
 * given it to another request already, that one waits for it.
 */
void
sockets_keep(SocketSet *set, int socket)
{
	sockets_unkeep(set, socket);
	if (append(&set->idle, socket, POLLIN) < 0)
		shutdown(socket, SHUT_RDWR);
}

/*
 * Notes that a connection is used again, or was closed.  Harmless for any
 * socket.
 */
void
sockets_unkeep(SocketSet *set, int socket)
{
	SocketList *idle = &set->idle;
	int         i;

	for (i = 0; i < idle->count; i++)
		if (idle->entries[i].fd == socket)
		{
			idle->entries[i] = idle->entries[--idle->count];
			return;
		}
}

/* True if libcurl waits for a socket. */
static bool
is_waited_for(const SocketSet *set, int socket)
{
	int i;

	for (i = 0; i < set->waiting.count; i++)
		if (set->waiting.entries[i].fd == socket)
			return true;
	return false;
}

/*
 * Shuts a socket and throws away what has arrived: libcurl checks only whether
 * there is something to read, and takes a shut socket with unread bytes for a
 * live one.  (It then connects anew when it cannot send, but only five times
 * for one handle.)
 */
static void
shut_and_drain(int socket)
{
	char piece[DRAIN_PIECE];
	int  i;

	shutdown(socket, SHUT_RDWR);
	for (i = 0; i < DRAIN_PIECES; i++)
		if (recv(socket, piece, sizeof(piece), MSG_DONTWAIT) <= 0)
			return;
}

/*
 * Shuts down the kept connections on which something has arrived: without a
 * request that is the end of the connection, or bytes that would pass for the
 * answer to the next request.  True if there was one.  Connections that
 * libcurl waits for are in use and left alone.
 */
bool
sockets_shut_disturbed(SocketSet *set)
{
	SocketList *idle = &set->idle;
	bool        found = false;
	int         i;

	if (idle->count == 0 || poll(idle->entries, (nfds_t) idle->count, 0) <= 0)
		return false;
	for (i = idle->count - 1; i >= 0; i--)
	{
		int   socket = idle->entries[i].fd;
		short events = idle->entries[i].revents;

		if (events == 0)
			continue;
		idle->entries[i] = idle->entries[--idle->count];
		if ((events & POLLNVAL) || is_waited_for(set, socket))
			continue;
		shut_and_drain(socket);
		found = true;
	}
	return found;
}
