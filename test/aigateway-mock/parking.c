/*
 * parking.c
 *		Connections that wait: for a moment to come, or for their client to leave.
 */
#include "parking.h"

#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include <microhttpd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_t       watcher;
static struct parked  *first;
static bool            stopping;
static int             events = -1; /* epoll: parked sockets, and the bell as a null pointer */
static int             bell = -1;

/*
 * Milliseconds of the monotonic clock.
 */
static uint64_t
now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t) now.tv_sec * 1000 + (uint64_t) now.tv_nsec / 1000000;
}

/*
 * Hands a connection back to libmicrohttpd; the lock is held.  The socket leaves the epoll set first:
 * once resumed it may be closed and its number used again.
 */
static void
release(struct parked *parked, bool abandoned)
{
	*parked->link = parked->next;
	if (parked->next != NULL)
		parked->next->link = parked->link;
	epoll_ctl(events, EPOLL_CTL_DEL, parked->socket, NULL);
	parked->abandoned = abandoned;
	MHD_resume_connection(parked->connection);
}

/*
 * The client of a connection has gone: resumes it, or begins to count its time.
 */
static void
leave(struct parked *parked)
{
	if (!parked->outlasts)
	{
		release(parked, true);
		return;
	}
	epoll_ctl(events, EPOLL_CTL_DEL, parked->socket, NULL);
	parked->abandoned = true;
	parked->deadline = now_ms() + parked->linger_ms;
}

/*
 * Does what is to be done with a connection whose time has come.
 */
static void
take_step(struct parked *parked, uint64_t now)
{
	int pause = PARKED_ENOUGH;

	if (parked->step != NULL)
		pause = parked->step(parked->socket, parked->context);
	if (pause == PARKED_ENOUGH)
		release(parked, parked->outlasts);
	else
		parked->deadline = now + (uint64_t) pause;
}

/*
 * Takes care of those whose time has come; returns how long epoll may sleep until the next one.
 */
static int
serve_due(void)
{
	uint64_t now = now_ms();
	uint64_t nearest = UINT64_MAX;

	for (struct parked *parked = first, *next; parked != NULL; parked = next)
	{
		next = parked->next;
		if (parked->deadline != 0 && parked->deadline <= now)
			take_step(parked, now);
	}
	for (const struct parked *parked = first; parked != NULL; parked = parked->next)
	{
		if (parked->deadline != 0 && parked->deadline < nearest)
			nearest = parked->deadline;
	}
	if (nearest == UINT64_MAX)
		return -1;
	if (nearest <= now)
		return 0;
	return nearest - now < INT_MAX ? (int) (nearest - now) : INT_MAX;
}

/*
 * The thread: sleeps until a client leaves, a moment comes, or the bell rings.
 */
static void *
watch(void *argument)
{
	int timeout = -1;

	(void) argument;
	for (;;)
	{
		struct epoll_event ready[64];
		int                count = epoll_wait(events, ready, 64, timeout);

		pthread_mutex_lock(&lock);
		for (int i = 0; i < count; i++)
		{
			uint64_t rings;

			if (ready[i].data.ptr != NULL)
				leave(ready[i].data.ptr);
			else if (read(bell, &rings, sizeof(rings)) < 0)
				perror("aigateway-mock: eventfd");
		}
		timeout = serve_due();
		if (stopping)
		{
			while (first != NULL)
				release(first, true);
			pthread_mutex_unlock(&lock);
			return NULL;
		}
		pthread_mutex_unlock(&lock);
	}
}

/*
 * Wakes the thread, so that it sees what has changed.
 */
static void
ring(void)
{
	uint64_t one = 1;

	if (write(bell, &one, sizeof(one)) < 0)
		perror("aigateway-mock: eventfd");
}

/*
 * Starts the thread.
 */
bool
parking_start(void)
{
	struct epoll_event wanted = {.events = EPOLLIN};

	events = epoll_create1(EPOLL_CLOEXEC);
	bell = eventfd(0, EFD_CLOEXEC);
	return events >= 0 && bell >= 0 && epoll_ctl(events, EPOLL_CTL_ADD, bell, &wanted) == 0 &&
		   pthread_create(&watcher, NULL, watch, NULL) == 0;
}

/*
 * Parks a connection that is filled in but for its place.  It must not be touched from here once it is in
 * the list and the lock is given back.
 */
static void
park(struct parked *parked, struct MHD_Connection *connection)
{
	struct epoll_event wanted = {.events = EPOLLRDHUP, .data.ptr = parked};

	parked->connection = connection;
	parked->socket =
		MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
	MHD_suspend_connection(connection);

	pthread_mutex_lock(&lock);
	parked->next = first;
	parked->link = &first;
	if (first != NULL)
		first->link = &parked->next;
	first = parked;
	if (stopping || epoll_ctl(events, EPOLL_CTL_ADD, parked->socket, &wanted) != 0)
		release(parked, true);
	else if (parked->deadline != 0)
		ring();
	pthread_mutex_unlock(&lock);
}

/*
 * Parks a connection; see the header.
 */
void
parking_enter(struct parked *parked, struct MHD_Connection *connection, unsigned delay_ms)
{
	*parked = (struct parked){.deadline = delay_ms > 0 ? now_ms() + delay_ms : 0};
	park(parked, connection);
}

/*
 * Parks a connection that something is done with meanwhile; see the header.
 */
void
parking_speak(struct parked *parked, struct MHD_Connection *connection, unsigned delay_ms,
			  parking_step step, void *context)
{
	*parked = (struct parked){.deadline = now_ms() + delay_ms, .step = step, .context = context};
	park(parked, connection);
}

/*
 * Forgets a socket; see the header.
 */
void
parking_unwatch(int socket)
{
	epoll_ctl(events, EPOLL_CTL_DEL, socket, NULL);
}

/*
 * Parks a connection that something is done with afterwards; see the header.
 */
void
parking_outlast(struct parked *parked, struct MHD_Connection *connection, unsigned delay_ms,
				parking_step step, void *context)
{
	*parked =
		(struct parked){.step = step, .context = context, .outlasts = true, .linger_ms = delay_ms};
	park(parked, connection);
}

/*
 * Stops the thread; see the header.
 */
void
parking_stop(void)
{
	pthread_mutex_lock(&lock);
	stopping = true;
	pthread_mutex_unlock(&lock);
	ring();
	pthread_join(watcher, NULL);
}
