/*
 * raw.c
 *		What is done to a socket behind libmicrohttpd's back.
 */
#include "raw.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include <microhttpd.h>

/* How soon a full socket is tried again. */
#define FULL_PAUSE_MS 1

/*
 * Appends a header; see the header.
 */
void
raw_header(const struct answer *answer, size_t length, bool close, struct text *wire)
{
	text_format(wire, "HTTP/1.1 %u %s\r\nContent-Type: %s\r\n", answer->status,
				MHD_get_reason_phrase_for(answer->status), answer->content_type);
	if (answer->retry_after != NULL)
		text_format(wire, "Retry-After: %s\r\n", answer->retry_after);
	if (answer->location != NULL)
		text_format(wire, "Location: %s\r\n", answer->location);
	text_format(wire, "Content-Length: %zu\r\n%s\r\n", length,
				close ? "Connection: close\r\n" : "");
}

/*
 * Appends a whole reply.
 */
void
raw_reply(const struct answer *answer, bool close, struct text *wire)
{
	const char *body;
	size_t      length;

	answer_body(answer, &body, &length);
	raw_header(answer, length, close, wire);
	text_add(wire, body, length);
}

/*
 * Sends the next piece; see the header.  Each piece leaves at once, or the pauses would not be those
 * that were asked for.
 */
int
raw_step(int socket, void *context)
{
	struct raw *raw = context;
	size_t      size = raw->left < raw->piece ? raw->left : raw->piece;
	ssize_t     sent;
	int         one = 1;

	if (size == 0)
		return PARKED_ENOUGH;
	setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	sent = send(socket, raw->bytes, size, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (sent < 0)
		return errno == EAGAIN || errno == EINTR ? FULL_PAUSE_MS : PARKED_ENOUGH;
	raw->bytes += sent;
	raw->left -= (size_t) sent;
	if (raw->left == 0)
		return PARKED_ENOUGH;
	return raw->pause_ms > 0 ? (int) raw->pause_ms : FULL_PAUSE_MS;
}

/*
 * The old descriptor becomes that of a connection to nobody.
 */
int
raw_take_away(int socket)
{
	int nobody[2];
	int taken;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, nobody) != 0)
		return -1;
	taken = fcntl(socket, F_DUPFD_CLOEXEC, 0);
	if (taken >= 0 && dup2(nobody[0], socket) < 0)
	{
		close(taken);
		taken = -1;
	}
	close(nobody[0]);
	close(nobody[1]);
	return taken;
}

/*
 * Disconnecting a socket sends a reset at once, and nothing that libmicrohttpd does with it afterwards
 * sends anything more.
 */
void
raw_reset(int socket)
{
	struct sockaddr nobody = {.sa_family = AF_UNSPEC};

	if (connect(socket, &nobody, sizeof(nobody)) != 0)
		perror("aigateway-mock: reset");
}
