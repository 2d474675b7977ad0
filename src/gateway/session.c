/*
 * session.c
 *		Many transfers at once: libcurl's multi interface over poll(2).
 *
 * libcurl reports which sockets it waits for and when its next timer is due;
 * this file waits, and passes ready sockets to libcurl.  (With
 * curl_multi_perform libcurl checks every transfer at every call instead, twice
 * the work where replies come one at a time.  An epoll set would save a
 * little there and cost a little where they come many at a time; poll(2) is
 * everywhere.)
 *
 * libcurl writes the header and the form of a request one after the other, a
 * packet each.  A kept connection is therefore corked until both are written:
 * half the packets, and the gateway wakes once.  If it stays corked, the system
 * sends the data after 200 ms.
 */
#include "gateway/gateway.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include <curl/curl.h>

#include "gateway/request.h"
#include "gateway/sockets.h"
#include "gateway/transfer.h"

struct GatewaySession
{
	GatewayConfig limits; /* no text of it is valid */
	Endpoint      endpoint;
	CURLM        *multi;

	Transfer  *transfers; /* limits.max_connections of them */
	Transfer  *idle;
	Transfer  *ended; /* with their replies, oldest first */
	Transfer **ended_tail;
	int        in_flight; /* transfers that are not idle */
	bool       is_tls;

	SocketSet sockets;
	bool      submitted; /* since libcurl was last called */
	bool      timer_set;
	int64_t   timer_ms; /* on the clock of transfer_now_ms */
};

/*
 * Initialises libcurl once per process, when it is first needed: the postmaster,
 * which loads the library and only forks, must not do it.
 */
static bool
init_libcurl(void)
{
	static bool done = false;

	if (!done)
		done = curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK;
	return done;
}

/*
 * Holds back what is written to a socket, or sends it.  Not over TLS, whose
 * own messages would be held back as well.
 */
static void
set_cork(const GatewaySession *session, curl_socket_t socket, int on)
{
#ifdef TCP_CORK
	if (!session->is_tls)
		(void) setsockopt(socket, IPPROTO_TCP, TCP_CORK, &on, sizeof(on));
#endif
}

/* Sends what is held back of requests that are written. */
static void
push_requests(GatewaySession *session)
{
	int i;

	for (i = 0; i < session->limits.max_connections; i++)
	{
		Transfer *transfer = &session->transfers[i];

		if (transfer->connection.push_due && transfer->connection.socket != CURL_SOCKET_BAD &&
			transfer_is_written(transfer))
		{
			set_cork(session, transfer->connection.socket, 0);
			transfer->connection.push_due = false;
		}
	}
}

/*
 * Callback of libcurl: what it waits for on a socket.  The entry of the set, counted
 * from one, is the pointer libcurl keeps for the socket.
 */
static int
watch_socket(CURL *easy, curl_socket_t socket, int what, void *data, void *socket_data)
{
	GatewaySession *session = data;
	int             entry = (int) (intptr_t) socket_data - 1;
	Transfer       *transfer = NULL;

	curl_easy_getinfo(easy, CURLINFO_PRIVATE, (char **) &transfer);
	if (transfer != NULL)
		transfer->connection.socket = what == CURL_POLL_REMOVE ? CURL_SOCKET_BAD : socket;
	if (what == CURL_POLL_REMOVE)
	{
		if (entry >= 0)
			sockets_remove(&session->sockets, entry);
		return 0;
	}
	if (entry < 0)
	{
		sockets_unkeep(&session->sockets, socket);
		entry = sockets_add(&session->sockets, socket);
		if (entry < 0)
			return -1;
		curl_multi_assign(session->multi, socket, (void *) (intptr_t) (entry + 1));
	}
	sockets_set_events(
		&session->sockets, entry,
		(short) (((what & CURL_POLL_IN) ? POLLIN : 0) | ((what & CURL_POLL_OUT) ? POLLOUT : 0)));
	return 0;
}

/* libcurl closes a connection. */
static int
close_socket(void *data, curl_socket_t socket)
{
	GatewaySession *session = data;

	sockets_unkeep(&session->sockets, socket);
	return close(socket);
}

/* Callback of libcurl: when it wants to be called without a ready socket. */
static int
set_timer(CURLM *multi, long timeout_ms, void *data)
{
	GatewaySession *session = data;

	session->timer_set = timeout_ms >= 0;
	session->timer_ms = timeout_ms > 0 ? transfer_now_ms() + timeout_ms : 0;
	return 0;
}

/* Sets up the multi handle. */
static bool
init_multi(GatewaySession *session)
{
	CURLM *multi = curl_multi_init();
	long   connections = session->limits.max_connections;

	session->multi = multi;
	return multi != NULL &&
		   curl_multi_setopt(multi, CURLMOPT_SOCKETFUNCTION, watch_socket) == CURLM_OK &&
		   curl_multi_setopt(multi, CURLMOPT_SOCKETDATA, session) == CURLM_OK &&
		   curl_multi_setopt(multi, CURLMOPT_TIMERFUNCTION, set_timer) == CURLM_OK &&
		   curl_multi_setopt(multi, CURLMOPT_TIMERDATA, session) == CURLM_OK &&
		   curl_multi_setopt(multi, CURLMOPT_PIPELINING, (long) CURLPIPE_NOTHING) == CURLM_OK &&
		   curl_multi_setopt(multi, CURLMOPT_MAXCONNECTS, connections) == CURLM_OK &&
		   curl_multi_setopt(multi, CURLMOPT_MAX_HOST_CONNECTIONS, connections) == CURLM_OK;
}

/* Sets up the transfers, all idle. */
static bool
init_transfers(GatewaySession *session)
{
	int count = session->limits.max_connections;
	int i;

	session->ended_tail = &session->ended;
	session->transfers = calloc((size_t) count, sizeof(*session->transfers));
	if (!session->transfers)
		return false;
	for (i = count - 1; i >= 0; i--)
	{
		Transfer *transfer = &session->transfers[i];

		if (!transfer_init(transfer, &session->endpoint, &session->limits) ||
			curl_easy_setopt(transfer->easy, CURLOPT_CLOSESOCKETFUNCTION, close_socket) !=
				CURLE_OK ||
			curl_easy_setopt(transfer->easy, CURLOPT_CLOSESOCKETDATA, session) != CURLE_OK)
			return false;
		transfer->next = session->idle;
		session->idle = transfer;
	}
	return true;
}

/*
 * Opens a session; no packet is sent.  Returns NULL and fills error (bounded,
 * terminated) if the configuration cannot be used.
 */
GatewaySession *
gateway_open(const GatewayConfig *config, char *error, size_t error_size)
{
	GatewaySession *session = calloc(1, sizeof(*session));

	if (!session || !init_libcurl())
	{
		snprintf(error, error_size, "%s",
				 session ? "libcurl cannot be initialised" : "out of memory");
		free(session);
		return NULL;
	}
	session->limits = *config;
	if (!endpoint_init(&session->endpoint, config, error, error_size))
	{
		gateway_close(session);
		return NULL;
	}
	session->is_tls = strncasecmp(config->base_url, "https:", 6) == 0;
	if (!init_multi(session) || !init_transfers(session))
	{
		snprintf(error, error_size, "libcurl cannot be set up, or out of memory");
		gateway_close(session);
		return NULL;
	}
	return session;
}

/*
 * Ends every connection, drops what was in flight and frees all.  NULL is
 * allowed.
 */
void
gateway_close(GatewaySession *session)
{
	int i;

	if (!session)
		return;
	for (i = 0; session->transfers && i < session->limits.max_connections; i++)
	{
		/* harmless for a handle that is not part of the multi handle */
		if (session->multi && session->transfers[i].easy)
			curl_multi_remove_handle(session->multi, session->transfers[i].easy);
		transfer_free(&session->transfers[i]);
	}
	if (session->multi)
		curl_multi_cleanup(session->multi);
	endpoint_free(&session->endpoint);
	free(session->transfers);
	sockets_free(&session->sockets);
	free(session);
}

/* How many more requests gateway_submit would take now. */
int
gateway_free_slots(const GatewaySession *session)
{
	return session->limits.max_connections - session->in_flight;
}

/* How many requests have no result yet that gateway_poll has returned. */
int
gateway_in_flight(const GatewaySession *session)
{
	return session->in_flight;
}

/*
 * False if nothing of the change with this token, which is in flight, was
 * sent: closing the session now leaves it unapplied.
 */
bool
gateway_has_sent(const GatewaySession *session, const void *token)
{
	int i;

	for (i = 0; i < session->limits.max_connections; i++)
		if (session->transfers[i].token == token)
			return session->transfers[i].request.form_given > 0;
	return true;
}

/* Puts a transfer whose reply is filled at the end of the list of those. */
static void
add_ended(GatewaySession *session, Transfer *transfer)
{
	transfer->next = NULL;
	*session->ended_tail = transfer;
	session->ended_tail = &transfer->next;
}

/*
 * Starts one request.  False: nothing was started or sent (no room, out of
 * memory), and the request may be submitted again.  A request that cannot be
 * written down (GATEWAY_REFUSED) is taken, and its result is ready at once.
 */
bool
gateway_submit(GatewaySession *session, const GatewayRequest *request)
{
	Transfer   *transfer = session->idle;
	const char *fault;

	if (!transfer)
		return false;
	fault = request_fault(&session->endpoint, request);
	if (!fault && (!transfer_prepare(transfer, request) ||
				   curl_multi_add_handle(session->multi, transfer->easy) != CURLM_OK))
		return false;

	session->idle = transfer->next;
	session->in_flight++;
	session->submitted = true;
	if (fault)
	{
		transfer->token = request->token;
		transfer_fail(transfer, GATEWAY_REFUSED, fault);
		add_ended(session, transfer);
	}
	return true;
}

/* Takes the transfers that libcurl has finished. */
static void
collect_ended(GatewaySession *session)
{
	CURLMsg *message;
	int      left;

	while ((message = curl_multi_info_read(session->multi, &left)) != NULL)
	{
		CURL         *easy = message->easy_handle;
		CURLcode      result = message->data.result;
		Transfer     *transfer = NULL;
		curl_socket_t socket = CURL_SOCKET_BAD;

		if (message->msg != CURLMSG_DONE)
			continue;
		curl_easy_getinfo(easy, CURLINFO_PRIVATE, (char **) &transfer);
		if (curl_easy_getinfo(easy, CURLINFO_ACTIVESOCKET, &socket) == CURLE_OK &&
			socket != CURL_SOCKET_BAD)
		{
			sockets_keep(&session->sockets, socket);
			set_cork(session, socket, 1);
		}
		curl_multi_remove_handle(session->multi, easy);
		if (transfer_ended(transfer, result))
			add_ended(session, transfer);
		else if (curl_multi_add_handle(session->multi, easy) == CURLM_OK)
			session->submitted = true;
		else
		{
			transfer_fail(transfer, GATEWAY_NOT_SENT, "out of memory");
			add_ended(session, transfer);
		}
	}
}

/*
 * Makes sure that no request is sent on a kept connection on which something
 * arrived unasked.  libcurl does not check that itself before 8.0, and since
 * 8.22 only once a second; until then it does notice a socket that is shut.
 */
static void
drop_disturbed(GatewaySession *session)
{
	if (!sockets_shut_disturbed(&session->sockets))
		return;
#if LIBCURL_VERSION_NUM >= 0x081000
	curl_multi_setopt(session->multi, CURLMOPT_NETWORK_CHANGED, (long) CURLMNWC_CLEAR_CONNS);
#endif
}

/*
 * Calls libcurl if its timer is due.  That is also how it begins with what was
 * submitted, and picks a connection for it.
 */
static void
run_timer(GatewaySession *session)
{
	int running;

	if (!session->timer_set || (session->timer_ms > 0 && session->timer_ms > transfer_now_ms()))
		return;
	if (session->submitted)
		drop_disturbed(session);
	session->submitted = false;
	session->timer_set = false;
	curl_multi_socket_action(session->multi, CURL_SOCKET_TIMEOUT, 0, &running);
	push_requests(session);
}

/*
 * Waits for sockets, at most until the deadline or libcurl's timer, and calls
 * libcurl for those that are ready.  The caller's signals are let through
 * while waiting only.  False: a signal came.
 */
static bool
wait_for_sockets(GatewaySession *session, int64_t deadline_ms, const sigset_t *signals)
{
	int64_t       until_ms = deadline_ms;
	int           entry = 0;
	int           running;
	curl_socket_t socket;
	short         events;

	if (session->timer_set && session->timer_ms < until_ms)
		until_ms = session->timer_ms;
	if (session->ended)
		until_ms = 0;
	if (sockets_wait(&session->sockets, until_ms - transfer_now_ms(), signals) < 0)
		return false;

	while (sockets_ready(&session->sockets, &entry, &socket, &events))
		curl_multi_socket_action(session->multi, socket,
								 ((events & (POLLIN | POLLHUP)) ? CURL_CSELECT_IN : 0) |
									 ((events & POLLOUT) ? CURL_CSELECT_OUT : 0) |
									 ((events & (POLLERR | POLLNVAL)) ? CURL_CSELECT_ERR : 0),
								 &running);
	push_requests(session);
	return true;
}

/* Blocks all signals but those that a fault of the process itself raises. */
static void
block_signals(sigset_t *before)
{
	static const int faults[] = {SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGSYS, SIGTRAP};
	sigset_t         all;
	size_t           i;

	sigfillset(&all);
	for (i = 0; i < sizeof(faults) / sizeof(faults[0]); i++)
		sigdelset(&all, faults[i]);
	pthread_sigmask(SIG_SETMASK, &all, before);
}

/*
 * Moves the transfers on for at most timeout_ms and stores up to max_results
 * finished ones.  Returns their number as soon as there is one; 0 after the
 * time-out, or earlier if a signal handler ran, so that the caller can check
 * for interrupts.  Every submitted request gives one result, unless the
 * session is closed first.
 *
 * Signals are blocked while libcurl works and let through while it waits: none
 * is lost between the caller's last check and the wait, and none is handled by
 * a thread of libcurl (it resolves names in one).  The caller must ignore
 * SIGPIPE, as PostgreSQL's processes do.
 */
int
gateway_poll(GatewaySession *session, int timeout_ms, GatewayResult *results, int max_results)
{
	int64_t  deadline_ms = transfer_now_ms() + (timeout_ms > 0 ? timeout_ms : 0);
	sigset_t signals;
	int      count = 0;
	bool     undisturbed;

	block_signals(&signals);
	do
	{
		run_timer(session);
		collect_ended(session);
		undisturbed = wait_for_sockets(session, deadline_ms, &signals);
		collect_ended(session);
	} while (!session->ended && undisturbed && transfer_now_ms() < deadline_ms);
	pthread_sigmask(SIG_SETMASK, &signals, NULL);

	while (session->ended && count < max_results)
	{
		Transfer *transfer = session->ended;

		results[count].token = transfer->token;
		results[count].reply = transfer->reply;
		count++;
		session->ended = transfer->next;
		if (!session->ended)
			session->ended_tail = &session->ended;
		transfer->token = NULL;
		transfer->next = session->idle;
		session->idle = transfer;
		session->in_flight--;
	}
	return count;
}
