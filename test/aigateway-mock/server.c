/*
 * server.c
 *		HTTP: takes requests from libmicrohttpd, hands them on, and carries out the answers.
 */
#include "server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <microhttpd.h>

#include "answer.h"
#include "gateway.h"
#include "operator.h"
#include "parking.h"
#include "raw.h"
#include "stats.h"

/*
 * The largest body that is kept, and how much more is read and thrown away: a client that is still
 * sending when we answer and close would read a reset instead of the 413.
 */
#define BODY_LIMIT ((size_t) 8 << 20)
#define DISCARD_LIMIT ((size_t) 64 << 20)

#define CONNECTION_LIMIT 16384

struct request
{
	struct text   query;
	struct text   body;
	size_t        discarded;  /* bytes of the body beyond the limit */
	bool          begun;      /* the headers have been looked at */
	bool          answered;   /* the answer below is made */
	bool          own;        /* about the mock itself: not counted */
	bool          counted;    /* what became of it is */
	uint64_t      generation; /* of the ledger when it arrived */
	int64_t       began;      /* when its first line had arrived, in microseconds since 1970 */
	struct answer answer;
	struct parked parked;
	struct raw    raw;
};

static _Atomic(struct MHD_Daemon *) daemon_running; /* also read by the thread of parking.c */

/*
 * The time of the system's clock, which others on this machine can compare with theirs.
 */
static int64_t
now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (int64_t) now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

/*
 * Called by libmicrohttpd when a request line has arrived: begins the request and keeps the query
 * string as it was sent, because libmicrohttpd's own reading of it differs from the gateways'.
 */
static void *
begin_request(void *context, const char *uri, struct MHD_Connection *connection)
{
	struct request *request = need_memory(sizeof(*request));
	const char     *query = strchr(uri, '?');

	(void) context;
	(void) connection;
	memset(request, 0, sizeof(*request));
	request->answer.action = ACTION_OTHER;
	request->began = now_us();
	if (query != NULL)
		text_add_string(&request->query, query + 1);
	return request;
}

/*
 * Called by libmicrohttpd when a connection begins and when it ends.
 */
static void
note_connection(void *context, struct MHD_Connection *connection, void **socket_context,
				enum MHD_ConnectionNotificationCode code)
{
	(void) context;
	(void) connection;
	(void) socket_context;
	stats_connection(code == MHD_CONNECTION_NOTIFY_STARTED);
}

/*
 * The reply as libmicrohttpd wants it; what the answer owned of it passes over.
 */
static struct MHD_Response *
make_response(struct answer *answer)
{
	struct MHD_Response *response;

	if (answer->stream != NULL)
	{
		response = answer->stream;
		answer->stream = NULL;
	}
	else if (answer->constant != NULL)
		response = MHD_create_response_from_buffer(
			strlen(answer->constant), (void *) answer->constant, MHD_RESPMEM_PERSISTENT);
	else
	{
		response = MHD_create_response_from_buffer(answer->body.length, answer->body.bytes,
												   MHD_RESPMEM_MUST_FREE);
		if (response != NULL)
			answer->body = (struct text){0};
	}
	if (response != NULL)
	{
		MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, answer->content_type);
		if (answer->authenticate != NULL)
			MHD_add_response_header(response, MHD_HTTP_HEADER_WWW_AUTHENTICATE,
									answer->authenticate);
		if (answer->retry_after != NULL)
			MHD_add_response_header(response, MHD_HTTP_HEADER_RETRY_AFTER, answer->retry_after);
		if (answer->location != NULL)
			MHD_add_response_header(response, MHD_HTTP_HEADER_LOCATION, answer->location);
	}
	return response;
}

/*
 * Sends the reply.
 */
static enum MHD_Result
reply(struct MHD_Connection *connection, struct answer *answer)
{
	struct MHD_Response *response = make_response(answer);
	enum MHD_Result      result;

	if (response == NULL)
		return MHD_NO;
	result = MHD_queue_response(connection, answer->status, response);
	MHD_destroy_response(response);
	return result;
}

/*
 * Whether the client gets a status that it can read.
 */
static bool
is_answered(const struct request *request)
{
	enum ending ending = request->answer.ending;

	return !request->parked.abandoned &&
		   (ending == END_REPLY || ending == END_EXTRA || ending == END_DRIP);
}

/*
 * Counts what became of a request, once.
 */
static void
count(struct request *request, unsigned status)
{
	if (request->answered && !request->counted && !request->own)
		stats_request(request->answer.action, status, request->began);
	request->counted = true;
}

/*
 * Called by libmicrohttpd when a request is over, however it ended: that may be all it says of a waiting
 * one whose client has gone.
 */
static void
end_request(void *context, struct MHD_Connection *connection, void **request_context,
			enum MHD_RequestTerminationCode reason)
{
	struct request *request = *request_context;

	(void) context;
	(void) connection;
	(void) reason;
	if (request == NULL)
		return;
	count(request, 0);
	text_free(&request->query);
	text_free(&request->body);
	answer_free(&request->answer);
	free(request);
	*request_context = NULL;
}

/*
 * Carries out an answer whose time has come.  MHD_NO makes libmicrohttpd close the connection without
 * a byte; the request has been read whole, so the client gets an end of file.
 */
static enum MHD_Result
carry_out(struct MHD_Connection *connection, struct request *request)
{
	struct answer *answer = &request->answer;

	count(request, is_answered(request) ? answer->status : 0);
	if (answer->ending == END_REPLY && !request->parked.abandoned)
		return reply(connection, answer);
	if (answer->ending == END_RESET)
		raw_reset(
			MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd);
	return MHD_NO;
}

/*
 * Applies the change of a request whose client has gone, unless everything was forgotten meanwhile.
 */
static int
apply_late(int socket, void *context)
{
	struct request *request = context;

	uint64_t last;

	(void) socket;
	if (request->generation == ledger_generation(&last))
		gateway_apply(request->parked.connection, request->answer.action, &request->query,
					  &request->body);
	return PARKED_ENOUGH;
}

/*
 * Sends what is to be sent, and makes the connection a new one: libmicrohttpd would not serve another
 * request on one whose reply it has not sent itself.
 */
static int
send_and_go_on(int socket, void *raw)
{
	struct sockaddr_in client;
	socklen_t          size = sizeof(client);
	int                pause = raw_step(socket, raw);

	if (pause == PARKED_ENOUGH && getpeername(socket, (struct sockaddr *) &client, &size) == 0)
	{
		int taken;

		parking_unwatch(socket);
		taken = raw_take_away(socket);
		if (taken >= 0)
			MHD_add_connection(daemon_running, taken, (struct sockaddr *) &client, size);
	}
	return pause;
}

/*
 * Lets a request wait if its answer wants that; false if it is to be carried out at once.
 */
static bool
wait_first(struct MHD_Connection *connection, struct request *request)
{
	struct answer *answer = &request->answer;
	bool           drips = answer->ending == END_DRIP;
	uint64_t       last;

	switch (answer->ending)
	{
		case END_HANG:
			parking_enter(&request->parked, connection, 0);
			return true;
		case END_LATE:
			request->generation = ledger_generation(&last);
			parking_outlast(&request->parked, connection, answer->delay_ms, apply_late, request);
			return true;
		case END_BYTES:
		case END_EXTRA:
		case END_DRIP:
			request->raw = (struct raw){.bytes = answer->wire.bytes,
										.left = answer->wire.length,
										.piece = drips ? 1 : answer->wire.length,
										.pause_ms = drips ? answer->delay_ms : 0};
			if (answer->ending == END_EXTRA)
				parking_speak(&request->parked, connection, answer->delay_ms, send_and_go_on,
							  &request->raw);
			else
				parking_speak(&request->parked, connection, drips ? 0 : answer->delay_ms, raw_step,
							  &request->raw);
			return true;
		case END_REPLY:
		case END_CLOSE:
		case END_RESET:
			break;
	}
	if (answer->delay_ms == 0)
		return false;
	parking_enter(&request->parked, connection, answer->delay_ms);
	return true;
}

/*
 * Finds out what is to become of a request that has arrived whole.
 */
static void
find_answer(struct MHD_Connection *connection, const char *method, const char *path,
			struct request *request)
{
	struct answer *answer = &request->answer;
	enum action    action;

	if (request->discarded > 0)
		answer_constant(answer, 413, type_text, "request body too large\n");
	else if (gateway_route(path, &action))
		gateway_handle(connection, action, &request->query, &request->body, answer);
	else if (operator_route(path))
	{
		request->own = true;
		operator_handle(method, path, &request->query, &request->body, answer);
	}
	else if (strcmp(path, "/health") == 0)
	{
		request->own = true;
		answer_constant(answer, 200, type_text, "ok");
	}
	else
		answer_constant(answer, 404, type_text, "not found\n");
}

/*
 * Looks at the headers.  A body too large even to be thrown away is refused before it is sent.
 */
static enum MHD_Result
begin(struct MHD_Connection *connection, struct request *request)
{
	const char *length =
		MHD_lookup_connection_value(connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_CONTENT_LENGTH);

	request->begun = true;
	if (length == NULL || strtoull(length, NULL, 10) <= DISCARD_LIMIT)
		return MHD_YES;
	answer_constant(&request->answer, 413, type_text, "request body too large\n");
	request->answered = true;
	return carry_out(connection, request);
}

/*
 * Takes a piece of the body.
 */
static enum MHD_Result
take_body(struct request *request, const char *bytes, size_t length)
{
	if (request->discarded == 0 && length <= BODY_LIMIT - request->body.length)
		text_add(&request->body, bytes, length);
	else
		request->discarded += length;
	return request->discarded <= DISCARD_LIMIT ? MHD_YES : MHD_NO;
}

/*
 * Called by libmicrohttpd for each request: when its headers have come, for each piece of its body,
 * when it is complete, and again when it was parked.
 */
static enum MHD_Result
serve(void *context, struct MHD_Connection *connection, const char *path, const char *method,
	  const char *version, const char *upload, size_t *upload_length, void **request_context)
{
	struct request *request = *request_context;
	enum MHD_Result result;

	(void) context;
	(void) version;
	if (!request->begun)
		return begin(connection, request);
	if (*upload_length > 0)
	{
		result = take_body(request, upload, *upload_length);
		*upload_length = 0;
		return result;
	}
	if (!request->answered)
	{
		find_answer(connection, method, path, request);
		request->answered = true;
		if (wait_first(connection, request))
			return MHD_YES;
	}
	return carry_out(connection, request);
}

/*
 * Allows as many open connections as the system lets us have.
 */
static void
raise_descriptor_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0)
	{
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
}

/*
 * Starts libmicrohttpd; see the header.
 */
bool
server_start(const struct options *options)
{
	struct sockaddr_in address = {.sin_family = AF_INET};
	unsigned           flags =
		MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_SUPPRESS_DATE_NO_CLOCK;

	raise_descriptor_limit();
	if (!parking_start())
	{
		perror("aigateway-mock: cannot start");
		return false;
	}
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	address.sin_port = htons((uint16_t) options->port);
	errno = 0;
	daemon_running = MHD_start_daemon(
		flags, 0, NULL, NULL, serve, NULL, MHD_OPTION_SOCK_ADDR, &address,
		MHD_OPTION_URI_LOG_CALLBACK, begin_request, NULL, MHD_OPTION_NOTIFY_COMPLETED, end_request,
		NULL, MHD_OPTION_NOTIFY_CONNECTION, note_connection, NULL,
		MHD_OPTION_CONNECTION_MEMORY_LIMIT, options->header_limit, MHD_OPTION_CONNECTION_LIMIT,
		(unsigned) CONNECTION_LIMIT, MHD_OPTION_LISTEN_BACKLOG_SIZE, 1024u,
		options->threads > 1 ? MHD_OPTION_THREAD_POOL_SIZE : MHD_OPTION_END, options->threads,
		MHD_OPTION_END);
	if (daemon_running == NULL)
	{
		fprintf(stderr, "aigateway-mock: cannot listen on 127.0.0.1:%u: %s\n", options->port,
				errno != 0 ? strerror(errno) : "libmicrohttpd refused");
		parking_stop();
		return false;
	}
	return true;
}

/*
 * The port it listens on.
 */
unsigned
server_port(void)
{
	return MHD_get_daemon_info(daemon_running, MHD_DAEMON_INFO_BIND_PORT)->port;
}

/*
 * Stops libmicrohttpd, which must not find a suspended connection.
 */
void
server_stop(void)
{
	parking_stop();
	MHD_stop_daemon(daemon_running);
}
