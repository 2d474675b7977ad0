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
#include <sys/resource.h>
#include <sys/socket.h>

#include <microhttpd.h>

#include "answer.h"
#include "gateway.h"
#include "operator.h"
#include "parking.h"
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
	size_t        discarded; /* bytes of the body beyond the limit */
	bool          begun;     /* the headers have been looked at */
	bool          answered;  /* the answer below is made */
	bool          own;       /* about the mock itself: not counted */
	struct answer answer;
	struct parked parked;
};

static struct MHD_Daemon *daemon_running;

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
	if (query != NULL)
		text_add_string(&request->query, query + 1);
	return request;
}

/*
 * Called by libmicrohttpd when a request is over, however it ended.
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
	text_free(&request->query);
	text_free(&request->body);
	answer_free(&request->answer);
	free(request);
	*request_context = NULL;
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
		if (answer->retry_after != NULL)
			MHD_add_response_header(response, MHD_HTTP_HEADER_RETRY_AFTER, answer->retry_after);
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
 * Sends a reset to the client: disconnecting a socket does that at once, and nothing
 * that libmicrohttpd does with it afterwards sends anything more.
 */
static void
reset_connection(struct MHD_Connection *connection)
{
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
	struct sockaddr nobody = {.sa_family = AF_UNSPEC};

	if (connect(info->connect_fd, &nobody, sizeof(nobody)) != 0)
		perror("aigateway-mock: reset");
}

/*
 * Carries out an answer whose time has come.  MHD_NO makes libmicrohttpd close the connection without
 * a byte; the request has been read whole, so the client gets an end of file.
 */
static enum MHD_Result
carry_out(struct MHD_Connection *connection, struct request *request)
{
	struct answer *answer = &request->answer;
	bool           silent = request->parked.abandoned || answer->ending != END_REPLY;

	if (!request->own)
		stats_request(answer->action, silent ? 0 : answer->status);
	if (!silent)
		return reply(connection, answer);
	if (answer->ending == END_RESET)
		reset_connection(connection);
	return MHD_NO;
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
		if (request->answer.delay_ms > 0 || request->answer.ending == END_HANG)
		{
			parking_enter(&request->parked, connection,
						  request->answer.ending == END_HANG ? 0 : request->answer.delay_ms);
			return MHD_YES;
		}
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
