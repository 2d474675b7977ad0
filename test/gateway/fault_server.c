/*
 * fault_server.c
 *		An HTTP server of a few lines in a thread, which does to each request what
 *		it is told, down to the byte.
 */
#define _GNU_SOURCE
#include "fault_server.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_STEPS 16
#define MAX_CONNECTIONS 128
#define LATE_MS 20
#define DEAF_MS 5

typedef struct Connection
{
	int         fd; /* -1: unused */
	char       *data;
	size_t      used;
	size_t      size;
	const char *drip; /* what is still to be sent byte by byte, or late */
	size_t      drip_left;
	int         drip_wait; /* milliseconds before the next byte */
	bool        drip_at_once;
} Connection;

struct FaultServer
{
	pthread_t       thread;
	pthread_mutex_t lock;
	int             listener;
	uint16_t        port;
	bool            deaf;    /* takes no connections; looks now and then whether it is to again */
	int             stop[2]; /* a pipe */
	char            url[40];
	Connection      connections[MAX_CONNECTIONS];

	FaultStep steps[MAX_STEPS];
	int       step_count;
	int       step;
	int       requests;
	int       accepted;
	char     *last;
};

/* Sends all of it, or gives up: the client may be gone. */
static void
send_all(int fd, const char *bytes, size_t size)
{
	while (size > 0)
	{
		ssize_t sent = send(fd, bytes, size, MSG_NOSIGNAL);

		if (sent <= 0)
			return;
		bytes += sent;
		size -= (size_t) sent;
	}
}

static void
end_connection(Connection *connection, bool reset)
{
	struct linger linger = {1, 0};

	if (reset)
		setsockopt(connection->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
	close(connection->fd);
	free(connection->data);
	memset(connection, 0, sizeof(*connection));
	connection->fd = -1;
}

/* Does the next step to a request. */
static void
do_step(FaultServer *server, Connection *connection)
{
	FaultStep step = server->steps[server->step];
	size_t    size = step.bytes && step.size == 0 ? strlen(step.bytes) : step.size;

	if (server->step < server->step_count - 1)
		server->step++;
	connection->used = 0;
	if (step.deaf)
	{
		close(server->listener);
		server->deaf = true;
	}
	if (step.end == END_DRIP)
	{
		connection->drip = step.bytes;
		connection->drip_left = size;
		connection->drip_wait = 1;
		connection->drip_at_once = false;
		return;
	}
	if (step.bytes)
		send_all(connection->fd, step.bytes, size);
	if (step.late)
	{
		connection->drip = step.late;
		connection->drip_left = strlen(step.late);
		connection->drip_wait = LATE_MS;
		connection->drip_at_once = true;
	}
	if (step.end == END_CLOSE || step.end == END_RESET)
		end_connection(connection, step.end == END_RESET);
}

/* Looks whether a request has arrived. */
static void
look_at_request(FaultServer *server, Connection *connection)
{
	char  *headers_end = strstr(connection->data, "\r\n\r\n");
	char  *length_header;
	size_t length = 0;

	if (!headers_end)
		return;
	length_header = strcasestr(connection->data, "\r\nContent-Length:");
	if (length_header && length_header < headers_end)
		length = strtoul(length_header + 17, NULL, 10);
	if (server->steps[server->step].at_headers)
	{
		do_step(server, connection);
		return;
	}
	if (connection->used < (size_t) (headers_end + 4 - connection->data) + length)
		return;
	server->requests++;
	free(server->last);
	server->last = strdup(connection->data);
	do_step(server, connection);
}

/* Reads what there is from a connection. */
static void
read_connection(FaultServer *server, Connection *connection)
{
	ssize_t got;

	if (connection->size - connection->used < 65536)
	{
		connection->size = connection->size * 2 + 131072;
		connection->data = realloc(connection->data, connection->size);
	}
	got = read(connection->fd, connection->data + connection->used,
			   connection->size - connection->used - 1);
	if (got <= 0)
	{
		end_connection(connection, false);
		return;
	}
	connection->used += (size_t) got;
	connection->data[connection->used] = '\0';
	look_at_request(server, connection);
}

static void
accept_connection(FaultServer *server)
{
	int fd = accept(server->listener, NULL, NULL);
	int one = 1;
	int i;

	for (i = 0; i < MAX_CONNECTIONS; i++)
	{
		if (server->connections[i].fd >= 0)
			continue;
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		server->connections[i].fd = fd;
		server->accepted++;
		return;
	}
	close(fd);
}

/* Sends the next byte of those that are sent byte by byte, or what comes late. */
static void
drip(Connection *connection)
{
	size_t size;

	if (connection->drip_left == 0 || --connection->drip_wait > 0)
		return;
	size = connection->drip_at_once ? connection->drip_left : 1;
	send_all(connection->fd, connection->drip, size);
	connection->drip += size;
	connection->drip_left -= size;
	connection->drip_wait = 1;
}

/* The thread: turns of at most a millisecond while something drips. */
static void *
serve(void *data)
{
	FaultServer *server = data;

	for (;;)
	{
		struct pollfd fds[MAX_CONNECTIONS + 2];
		bool          dripping = false;
		bool          deaf;
		int           i;

		pthread_mutex_lock(&server->lock);
		for (i = 0; i < MAX_CONNECTIONS; i++)
		{
			fds[i] = (struct pollfd){server->connections[i].fd, POLLIN, 0};
			dripping |= server->connections[i].drip_left > 0;
		}
		deaf = server->deaf;
		pthread_mutex_unlock(&server->lock);
		fds[i] = (struct pollfd){deaf ? -1 : server->listener, POLLIN, 0};
		fds[i + 1] = (struct pollfd){server->stop[0], POLLIN, 0};
		poll(fds, MAX_CONNECTIONS + 2, dripping ? 1 : deaf ? DEAF_MS : -1);
		if (fds[i + 1].revents)
			return NULL;

		pthread_mutex_lock(&server->lock);
		for (i = 0; i < MAX_CONNECTIONS; i++)
		{
			Connection *connection = &server->connections[i];

			if (fds[i].fd < 0)
				continue;
			drip(connection);
			if (fds[i].revents)
				read_connection(server, connection);
		}
		if (fds[MAX_CONNECTIONS].revents && !server->deaf)
			accept_connection(server);
		pthread_mutex_unlock(&server->lock);
	}
}

/* Listens on the port, or on one that is free; false: it cannot. */
static bool
start_listening(FaultServer *server)
{
	struct sockaddr_in address = {.sin_family = AF_INET};
	socklen_t          size = sizeof(address);
	int                one = 1;

	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	address.sin_port = htons(server->port);
	server->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	setsockopt(server->listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(server->listener, (struct sockaddr *) &address, size) != 0 ||
		listen(server->listener, MAX_CONNECTIONS) != 0 ||
		getsockname(server->listener, (struct sockaddr *) &address, &size) != 0)
		return false;
	server->port = ntohs(address.sin_port);
	server->deaf = false;
	return true;
}

FaultServer *
fault_server_start(void)
{
	FaultServer *server = calloc(1, sizeof(*server));
	sigset_t     all;
	sigset_t     before;
	int          i;

	for (i = 0; i < MAX_CONNECTIONS; i++)
		server->connections[i].fd = -1;
	pthread_mutex_init(&server->lock, NULL);
	if (!start_listening(server) || pipe(server->stop) != 0)
	{
		perror("fault server");
		exit(1);
	}
	snprintf(server->url, sizeof(server->url), "http://127.0.0.1:%d", server->port);
	fault_server_script(server, &(FaultStep){.bytes = DELTA_OK}, 1);

	/* signals are for the thread under test */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	pthread_create(&server->thread, NULL, serve, server);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return server;
}

void
fault_server_stop(FaultServer *server)
{
	int i;

	if (write(server->stop[1], "x", 1) == 1)
		pthread_join(server->thread, NULL);
	for (i = 0; i < MAX_CONNECTIONS; i++)
		if (server->connections[i].fd >= 0)
			end_connection(&server->connections[i], false);
	if (!server->deaf)
		close(server->listener);
	close(server->stop[0]);
	close(server->stop[1]);
	free(server->last);
	free(server);
}

void
fault_server_listen(FaultServer *server)
{
	pthread_mutex_lock(&server->lock);
	if (server->deaf && !start_listening(server))
	{
		perror("fault server");
		exit(1);
	}
	pthread_mutex_unlock(&server->lock);
}

const char *
fault_server_url(const FaultServer *server)
{
	return server->url;
}

void
fault_server_script(FaultServer *server, const FaultStep *steps, int count)
{
	pthread_mutex_lock(&server->lock);
	memcpy(server->steps, steps, (size_t) count * sizeof(*steps));
	server->step_count = count;
	server->step = 0;
	server->requests = 0;
	server->accepted = 0;
	pthread_mutex_unlock(&server->lock);
}

int
fault_server_requests(FaultServer *server)
{
	int count;

	pthread_mutex_lock(&server->lock);
	count = server->requests;
	pthread_mutex_unlock(&server->lock);
	return count;
}

int
fault_server_connections(FaultServer *server)
{
	int count;

	pthread_mutex_lock(&server->lock);
	count = server->accepted;
	pthread_mutex_unlock(&server->lock);
	return count;
}

char *
fault_server_last(FaultServer *server)
{
	char *copy;

	pthread_mutex_lock(&server->lock);
	copy = strdup(server->last ? server->last : "");
	pthread_mutex_unlock(&server->lock);
	return copy;
}
