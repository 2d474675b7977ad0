/*
 * test_faults.c
 *		Gateways, and what stands before them, at their worst.
 *
 * The rule behind all of these: a delta that may have been applied is never
 * sent twice and never called anything but in doubt.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "check.h"
#include "fault_server.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

#define HEAD_200 "HTTP/1.1 200 OK\r\n"
#define FORBIDDEN "HTTP/1.1 403 Forbidden\r\n"

/* What one reply, or none, means for a delta and for a query of higress. */
static const struct
{
	const char    *name;
	FaultStep      step;
	GatewayOutcome delta;
	GatewayOutcome query;
	long           status;
} singles[] = {
	{"no reply, close", {.end = END_CLOSE}, GATEWAY_IN_DOUBT, GATEWAY_IN_DOUBT, 0},
	{"no reply, reset", {.end = END_RESET}, GATEWAY_IN_DOUBT, GATEWAY_IN_DOUBT, 0},
	{"hang", {.bytes = NULL}, GATEWAY_IN_DOUBT, GATEWAY_IN_DOUBT, 0},
	{"half a status line",
	 {.bytes = "HTTP/1.1 20", .end = END_CLOSE},
	 GATEWAY_IN_DOUBT,
	 GATEWAY_IN_DOUBT,
	 0},
	{"half a header",
	 {.bytes = HEAD_200 "Content-Le", .end = END_CLOSE},
	 GATEWAY_IN_DOUBT,
	 GATEWAY_IN_DOUBT,
	 0},
	{"half a header, hang",
	 {.bytes = FORBIDDEN "Content-Le"},
	 GATEWAY_IN_DOUBT,
	 GATEWAY_IN_DOUBT,
	 0},
	{"half a header of a 403",
	 {.bytes = FORBIDDEN "Content-Le", .end = END_RESET},
	 GATEWAY_IN_DOUBT,
	 GATEWAY_IN_DOUBT,
	 0},
	{"body cut off",
	 {.bytes = HEAD_200 "Content-Length: 30\r\n\r\ndelta quota successful", .end = END_CLOSE},
	 GATEWAY_IN_DOUBT,
	 GATEWAY_IN_DOUBT,
	 200},
	{"body cut off by a reset",
	 {.bytes = HEAD_200 "Content-Length: 30\r\n\r\ndelta quota successful", .end = END_RESET},
	 GATEWAY_IN_DOUBT,
	 GATEWAY_IN_DOUBT,
	 200},
	{"body never comes",
	 {.bytes = HEAD_200 "Content-Length: 30\r\n\r\n"},
	 GATEWAY_IN_DOUBT,
	 GATEWAY_IN_DOUBT,
	 200},
	{"403, body never comes",
	 {.bytes = FORBIDDEN "Content-Length: 30\r\n\r\n"},
	 GATEWAY_BLOCKED,
	 GATEWAY_BLOCKED,
	 403},
	{"403, body cut off",
	 {.bytes = FORBIDDEN "Content-Length: 30\r\n\r\nx", .end = END_CLOSE},
	 GATEWAY_BLOCKED,
	 GATEWAY_BLOCKED,
	 403},
	{"drip",
	 {.bytes = HEAD_200 "Content-Length: 9999\r\n\r\n0123456789012345678901234567890123"
						"456789012345678901234567890123456789012345678901234567890123"
						"456789012345678901234567890123456789012345678901234567890123"
						"456789012345678901234567890123456789012345678901234567890123"
						"456789012345678901234567890123456789012345678901234567890123"
						"456789012345678901234567890123456789012345678901234567890123"
						"456789012345678901234567890123456789012345678901234567890123",
	  .end = END_DRIP},
	 GATEWAY_IN_DOUBT,
	 GATEWAY_IN_DOUBT,
	 200},
	{"not HTTP",
	 {.bytes = "delta quota successful\r\n", .end = END_CLOSE},
	 GATEWAY_IN_DOUBT,
	 GATEWAY_IN_DOUBT,
	 0},
	{"SSH", {.bytes = "SSH-2.0-OpenSSH_9.2\r\n"}, GATEWAY_IN_DOUBT, GATEWAY_IN_DOUBT, 0},
	{"HTTP of the future",
	 {.bytes = "HTTP/9.9 200 OK\r\nContent-Length: 0\r\n\r\n"},
	 GATEWAY_IN_DOUBT,
	 GATEWAY_IN_DOUBT,
	 0},
	{"a status of four digits",
	 {.bytes = "HTTP/1.1 2000 OK\r\nContent-Length: 22\r\n\r\ndelta quota successful"},
	 GATEWAY_IN_DOUBT,
	 GATEWAY_IN_DOUBT,
	 0},
	{"a status of two digits",
	 {.bytes = "HTTP/1.1 20 OK\r\nContent-Length: 22\r\n\r\ndelta quota successful"},
	 GATEWAY_IN_DOUBT,
	 GATEWAY_IN_DOUBT,
	 0},
	{"no blank after the status",
	 {.bytes = "HTTP/1.1 200OK\r\nContent-Length: 22\r\n\r\ndelta quota successful"},
	 GATEWAY_IN_DOUBT,
	 GATEWAY_IN_DOUBT,
	 0},
	{"two blanks before the status",
	 {.bytes = "HTTP/1.1  200 OK\r\nContent-Length: 22\r\n\r\ndelta quota successful"},
	 GATEWAY_IN_DOUBT,
	 GATEWAY_IN_DOUBT,
	 0},
	{"a tab before the status",
	 {.bytes = "HTTP/1.1\t200 OK\r\nContent-Length: 22\r\n\r\ndelta quota successful"},
	 GATEWAY_IN_DOUBT,
	 GATEWAY_IN_DOUBT,
	 0},
	{"a version without a minor number",
	 {.bytes = "HTTP/1 200 OK\r\nContent-Length: 22\r\n\r\ndelta quota successful"},
	 GATEWAY_IN_DOUBT,
	 GATEWAY_IN_DOUBT,
	 0},
	{"a longer version",
	 {.bytes = "HTTP/1.10 200 OK\r\nContent-Length: 22\r\n\r\ndelta quota successful"},
	 GATEWAY_IN_DOUBT,
	 GATEWAY_IN_DOUBT,
	 0},
	{"a 403 of four digits",
	 {.bytes = "HTTP/1.1 4030 No\r\nContent-Length: 22\r\n\r\ndelta quota successful"},
	 GATEWAY_IN_DOUBT,
	 GATEWAY_IN_DOUBT,
	 0},
	{"a status line without a reason",
	 {.bytes = "HTTP/1.1 200\r\nContent-Length: 22\r\n\r\ndelta quota successful"},
	 GATEWAY_COMPLETED,
	 GATEWAY_IN_DOUBT,
	 200},
	{"a status line that ends in a line feed",
	 {.bytes = "HTTP/1.1 200\nContent-Length: 22\n\ndelta quota successful"},
	 GATEWAY_COMPLETED,
	 GATEWAY_IN_DOUBT,
	 200},
	{"a length that is none",
	 {.bytes = HEAD_200 "Content-Length: -5\r\n\r\ndelta quota successful", .end = END_CLOSE},
	 GATEWAY_IN_DOUBT,
	 GATEWAY_IN_DOUBT,
	 0},
	{"chunks that are none",
	 {.bytes = HEAD_200 "Transfer-Encoding: chunked\r\n\r\nzz\r\ndelta quota successful\r\n"},
	 GATEWAY_IN_DOUBT,
	 GATEWAY_IN_DOUBT,
	 200},
	{"chunks cut off",
	 {.bytes = HEAD_200 "Transfer-Encoding: chunked\r\n\r\n16\r\ndelta quota successful\r\n",
	  .end = END_CLOSE},
	 GATEWAY_IN_DOUBT,
	 GATEWAY_IN_DOUBT,
	 200},
	{"compressed though not asked for",
	 {.bytes = HEAD_200 "Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x8b\x08\xff"},
	 GATEWAY_IN_DOUBT,
	 GATEWAY_IN_DOUBT,
	 200},
	{"301",
	 {.bytes = "HTTP/1.1 301 Moved\r\nLocation: /else\r\nContent-Length: 0\r\n\r\n"},
	 GATEWAY_BLOCKED,
	 GATEWAY_BLOCKED,
	 301},
	{"302",
	 {.bytes = "HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\n"
			   "Content-Length: 0\r\n\r\n"},
	 GATEWAY_BLOCKED,
	 GATEWAY_BLOCKED,
	 302},
	{"307",
	 {.bytes = "HTTP/1.1 307 Again\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n"},
	 GATEWAY_BLOCKED,
	 GATEWAY_BLOCKED,
	 307},
	{"401 that asks to negotiate",
	 {.bytes = "HTTP/1.1 401 No\r\nWWW-Authenticate: Basic, NTLM, Negotiate\r\n"
			   "Content-Length: 0\r\n\r\n"},
	 GATEWAY_BLOCKED,
	 GATEWAY_BLOCKED,
	 401},
	{"417",
	 {.bytes = "HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n"},
	 GATEWAY_BLOCKED,
	 GATEWAY_BLOCKED,
	 417},
	{"421",
	 {.bytes = "HTTP/1.1 421 Misdirected\r\nContent-Length: 0\r\n\r\n"},
	 GATEWAY_BLOCKED,
	 GATEWAY_BLOCKED,
	 421},
	{"101",
	 {.bytes = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n", .end = END_CLOSE},
	 GATEWAY_IN_DOUBT,
	 GATEWAY_IN_DOUBT,
	 101},
	{"502",
	 {.bytes = "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 3\r\n\r\nbad"},
	 GATEWAY_IN_DOUBT,
	 GATEWAY_IN_DOUBT,
	 502},
	{"close without a length",
	 {.bytes = HEAD_200 "\r\ndelta quota successful", .end = END_CLOSE},
	 GATEWAY_COMPLETED,
	 GATEWAY_IN_DOUBT,
	 200},
	{"interim replies first",
	 {.bytes = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" DELTA_OK},
	 GATEWAY_COMPLETED,
	 GATEWAY_IN_DOUBT,
	 200},
	{"interim reply only",
	 {.bytes = "HTTP/1.1 100 Continue\r\n\r\n", .end = END_CLOSE},
	 GATEWAY_IN_DOUBT,
	 GATEWAY_IN_DOUBT,
	 100},
	{"interim reply, half a 403",
	 {.bytes = "HTTP/1.1 100 Continue\r\n\r\n" FORBIDDEN "Conten", .end = END_CLOSE},
	 GATEWAY_IN_DOUBT,
	 GATEWAY_IN_DOUBT,
	 0},
	{"HTTP/1.0",
	 {.bytes = "HTTP/1.0 200 OK\r\n\r\ndelta quota successful", .end = END_CLOSE},
	 GATEWAY_COMPLETED,
	 GATEWAY_IN_DOUBT,
	 200},
};

/* The first and the second request on a connection meet the fault; it is sent once. */
static void
test_singles(FaultServer *server)
{
	GatewayConfig config = test_config(GATEWAY_HIGRESS, fault_server_url(server));
	size_t        i;
	int           warm;

	config.request_timeout_ms = 150;
	for (i = 0; i < COUNT(singles); i++)
		for (warm = 0; warm <= 1; warm++)
		{
			GatewaySession *session = open_session(&config);
			FaultStep       steps[2] = {{.bytes = DELTA_OK}, singles[i].step};
			GatewayReply    reply;

			/* a connection that was used before is where libcurl likes to send again */
			fault_server_script(server, steps + 1 - warm, 1 + warm);
			if (warm)
				EXPECT(ask(session, GATEWAY_DELTA, "first", "1"), GATEWAY_COMPLETED, "first");
			reply = ask(session, GATEWAY_DELTA, "u1", "1");
			EXPECT(reply, singles[i].delta, singles[i].name);
			CHECK(reply.http_status == singles[i].status, "%s: HTTP %ld", singles[i].name,
				  reply.http_status);
			CHECK(fault_server_requests(server) == 1 + warm, "%s: sent %d times", singles[i].name,
				  fault_server_requests(server) - warm);
			gateway_close(session);

			session = open_session(&config);
			fault_server_script(server, steps + 1 - warm, 1 + warm);
			if (warm)
				ask(session, GATEWAY_DELTA, "first", "1");
			EXPECT(ask(session, GATEWAY_QUERY, "u1", NULL), singles[i].query, singles[i].name);

			/* the session is as good as before */
			fault_server_script(server, &(FaultStep){.bytes = DELTA_OK}, 1);
			EXPECT(ask(session, GATEWAY_DELTA, "u1", "1"), GATEWAY_COMPLETED, singles[i].name);
			gateway_close(session);
		}
}

/*
 * The text about a lost answer says that it was lost, never what libcurl tried
 * afterwards: "Failed to connect" would be taken for a proof that nothing was
 * sent.
 */
static void
test_lost_texts(FaultServer *server)
{
	static const struct
	{
		FaultStep   step;
		const char *text;
	} cases[] = {
		{{.end = END_CLOSE}, "the connection closed without a reply"},
		{{.end = END_RESET}, "the connection closed without a reply"},
		{{.end = END_CLOSE, .deaf = true}, "the connection closed without a reply"},
		{{.end = END_RESET, .deaf = true}, "the connection closed without a reply"},
		{{.bytes = "HTTP/1.1 200 OK\r\nContent-Le", .end = END_RESET},
		 "the connection closed before the reply was whole"},
		{{.bytes = "HTTP/1.1 200 OK\r\nContent-Le", .end = END_CLOSE},
		 "the connection closed before the reply was whole"},
		{{.bytes = NULL}, "timed out without a whole reply"},
	};
	GatewayConfig config = test_config(GATEWAY_HIGRESS, fault_server_url(server));
	size_t        i;
	int           warm;

	config.request_timeout_ms = 300;
	for (i = 0; i < COUNT(cases); i++)
		for (warm = 0; warm <= 1; warm++)
		{
			GatewaySession *session = open_session(&config);
			FaultStep       steps[2] = {{.bytes = DELTA_OK}, cases[i].step};
			GatewayReply    reply;

			fault_server_script(server, steps + 1 - warm, 1 + warm);
			if (warm)
				EXPECT(ask(session, GATEWAY_DELTA, "first", "1"), GATEWAY_COMPLETED, "first");
			reply = ask(session, GATEWAY_DELTA, "u1", "1");
			EXPECT(reply, GATEWAY_IN_DOUBT, cases[i].text);
			CHECK(strcmp(reply.message, cases[i].text) == 0, "case %zu, %s: \"%s\"", i,
				  warm ? "warm" : "cold", reply.message);
			gateway_close(session);
			fault_server_listen(server);
		}
}

/* A query may be sent again by libcurl where a delta must not. */
static void
test_query_again(FaultServer *server)
{
	static const char answer[] = HEAD_200 "Content-Length: 11\r\n\r\n{\"quota\":5}";
	const FaultStep   steps[] = {{.bytes = answer}, {.end = END_CLOSE}, {.bytes = answer}};
	GatewayConfig     config = test_config(GATEWAY_HIGRESS, fault_server_url(server));
	GatewaySession   *session = open_session(&config);

	fault_server_script(server, steps, 3);
	EXPECT(ask(session, GATEWAY_QUERY, "u1", NULL), GATEWAY_COMPLETED, "first");
	EXPECT(ask(session, GATEWAY_QUERY, "u1", NULL), GATEWAY_COMPLETED, "again");
	CHECK(fault_server_requests(server) == 3, "%d requests", fault_server_requests(server));
	gateway_close(session);
}

/* Nothing can be sent: refused, unknown name, no TLS, no answer to the connection. */
static void
test_not_sent(FaultServer *server)
{
	GatewayAction      actions[] = {GATEWAY_DELTA, GATEWAY_REFRESH, GATEWAY_QUERY};
	struct sockaddr_in address = {.sin_family = AF_INET};
	socklen_t          size = sizeof(address);
	int                full = socket(AF_INET, SOCK_STREAM, 0);
	int                waiting[8];
	char               urls[5][60];
	size_t             i;
	size_t             j;

	/* a listener whose queue is full lets connections time out */
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (bind(full, (struct sockaddr *) &address, size) != 0 || listen(full, 0) != 0 ||
		getsockname(full, (struct sockaddr *) &address, &size) != 0)
		CHECK(false, "no listener");
	for (i = 0; i < COUNT(waiting); i++)
	{
		waiting[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
		if (connect(waiting[i], (struct sockaddr *) &address, size) == 0)
			CHECK(true, "connected");
	}

	snprintf(urls[0], sizeof(urls[0]), "http://127.0.0.1:1");
	snprintf(urls[1], sizeof(urls[1]), "http://gateway.invalid");
	snprintf(urls[2], sizeof(urls[2]), "https%s", fault_server_url(server) + 4);
	snprintf(urls[3], sizeof(urls[3]), "http://127.0.0.1:%d", ntohs(address.sin_port));
	snprintf(urls[4], sizeof(urls[4]), "http://[::1]:1");
	for (i = 0; i < COUNT(urls); i++)
		for (j = 0; j < COUNT(actions); j++)
		{
			GatewayConfig   config = test_config(GATEWAY_HIGRESS, urls[i]);
			GatewaySession *session;
			GatewayReply    reply;

			config.connect_timeout_ms = 200;
			/* whichever of the two time-outs strikes first */
			config.request_timeout_ms = j == 0 ? 100 : 1000;
			session = open_session(&config);
			reply = ask(session, actions[j], "u1", "1");
			EXPECT(reply, GATEWAY_NOT_SENT, urls[i]);
			CHECK(reply.http_status == 0 && reply.message[0] != '\0', "%s", urls[i]);
			gateway_close(session);
		}
	for (i = 0; i < COUNT(waiting); i++)
		close(waiting[i]);
	close(full);
}

/* A reply is read up to the limit and no further, in headers as in the body. */
static void
test_large_replies(FaultServer *server)
{
	static const struct
	{
		const char    *head;
		const char    *fill; /* repeated */
		GatewayOutcome outcome;
	} cases[] = {
		{HEAD_200 "Content-Length: 4000000\r\n\r\ndelta quota successful", "0123456789",
		 GATEWAY_IN_DOUBT},
		{HEAD_200 "\r\ndelta quota successful", "0123456789", GATEWAY_IN_DOUBT},
		{HEAD_200 "Transfer-Encoding: chunked\r\n\r\n", "a\r\n0123456789\r\n", GATEWAY_IN_DOUBT},
		{HEAD_200, "X-Filler: 0123456789\r\n", GATEWAY_IN_DOUBT},
		{HEAD_200 "X-Long: ", "0123456789", GATEWAY_IN_DOUBT},
		{"", "HTTP/1.1 100 Continue\r\n\r\n", GATEWAY_IN_DOUBT},
		{"", "0123456789", GATEWAY_IN_DOUBT},
		{FORBIDDEN "\r\n", "0123456789", GATEWAY_BLOCKED},
		{FORBIDDEN, "X-Filler: 0123456789\r\n", GATEWAY_IN_DOUBT},
	};
	GatewayConfig   config = test_config(GATEWAY_HIGRESS, fault_server_url(server));
	GatewaySession *session;
	const size_t    size = 4000000;
	char           *bytes = malloc(size);
	size_t          i;

	config.request_timeout_ms = 2000;
	session = open_session(&config);
	for (i = 0; i < COUNT(cases); i++)
	{
		size_t used = strlen(cases[i].head);
		size_t fill = strlen(cases[i].fill);

		memcpy(bytes, cases[i].head, used);
		for (; used + fill <= size; used += fill)
			memcpy(bytes + used, cases[i].fill, fill);
		fault_server_script(server, &(FaultStep){.bytes = bytes, .size = used, .end = END_CLOSE},
							1);
		EXPECT(ask(session, GATEWAY_DELTA, "u1", "1"), cases[i].outcome, cases[i].head);
		CHECK(fault_server_requests(server) == 1, "sent %d times", fault_server_requests(server));
	}
	free(bytes);
	gateway_close(session);
}

/* Bytes after a reply never become the answer to the next request. */
static void
test_extra_bytes(FaultServer *server)
{
	static const char forged[] = FORBIDDEN "Content-Length: 0\r\n\r\n";
	GatewayConfig     config = test_config(GATEWAY_HIGRESS, fault_server_url(server));
	GatewaySession   *session = open_session(&config);
	GatewayResult     result;
	int               i;

	for (i = 0; i < 10; i++)
	{
		fault_server_script(server, &(FaultStep){.bytes = DELTA_OK FORBIDDEN "\r\n"}, 1);
		EXPECT(ask(session, GATEWAY_DELTA, "u1", "1"), GATEWAY_COMPLETED, "extra bytes at once");
		fault_server_script(server, &(FaultStep){.bytes = DELTA_OK}, 1);
		EXPECT(ask(session, GATEWAY_DELTA, "u1", "1"), GATEWAY_COMPLETED, "after extra bytes");
	}
	CHECK(fault_server_connections(server) == 1, "%d connections",
		  fault_server_connections(server));
	for (i = 0; i < 3; i++)
	{
		fault_server_script(server, &(FaultStep){.bytes = DELTA_OK, .late = forged}, 1);
		EXPECT(ask(session, GATEWAY_DELTA, "u1", "1"), GATEWAY_COMPLETED, "extra bytes later");
		gateway_poll(session, 50, &result, 1);
		fault_server_script(server, &(FaultStep){.bytes = DELTA_OK}, 1);
		EXPECT(ask(session, GATEWAY_DELTA, "u1", "1"), GATEWAY_COMPLETED, "after later bytes");
	}
	gateway_close(session);
}

/* A connection that the gateway closed while it was idle is not used again. */
static void
test_closed_while_idle(FaultServer *server)
{
	GatewayConfig   config = test_config(GATEWAY_HIGRESS, fault_server_url(server));
	GatewaySession *session = open_session(&config);
	GatewayResult   result;
	int             i;

	for (i = 0; i < 5; i++)
	{
		fault_server_script(
			server, &(FaultStep){.bytes = DELTA_OK, .end = i & 1 ? END_RESET : END_CLOSE}, 1);
		EXPECT(ask(session, GATEWAY_DELTA, "u1", "1"), GATEWAY_COMPLETED, "then closed");
		gateway_poll(session, 20, &result, 1);
	}
	gateway_close(session);
}

/* A success that comes before the request was sent whole proves nothing. */
static void
test_early_reply(FaultServer *server)
{
	static const char *const replies[] = {
		DELTA_OK,
		HEAD_200 "Transfer-Encoding: chunked\r\n\r\n16\r\ndelta quota successful\r\n0\r\n\r\n"};
	/* more than the buffers of two sockets hold, or it could be sent whole before the reply is seen */
	const size_t    length = 64 * 1024 * 1024;
	GatewayConfig   config = test_config(GATEWAY_HIGRESS, fault_server_url(server));
	GatewaySession *session;
	char           *user = malloc(length + 1);
	size_t          i;

	config.request_timeout_ms = 1000;
	session = open_session(&config);
	memset(user, 'u', length);
	user[length] = '\0';
	for (i = 0; i < COUNT(replies); i++)
	{
		fault_server_script(server, &(FaultStep){.bytes = replies[i], .at_headers = true}, 1);
		EXPECT(ask(session, GATEWAY_DELTA, user, "1"), GATEWAY_IN_DOUBT, "early reply");
	}
	free(user);
	gateway_close(session);
}

static void
test_retry_after(FaultServer *server)
{
	static const struct
	{
		const char *value;
		double      least;
		double      most;
	} cases[] = {
		{"7", 7, 7},
		{" 120 ", 120, 120},
		{"0", 0, 0},
		{"86401", 86400, 86400},
		{"99999999999999999999999999", 86400, 86400},
		{"Fri, 31 Dec 1999 23:59:59 GMT", 0, 0},
		{"Fri, 31 Dec 2199 23:59:59 GMT", 86400, 86400},
		{"soon", -1, -1},
		{"", -1, -1},
		{"-5", -1, 0},
	};
	GatewayConfig   config = test_config(GATEWAY_HIGRESS, fault_server_url(server));
	GatewaySession *session = open_session(&config);
	GatewayReply    reply;
	char            bytes[200];
	char            date[60];
	time_t          soon = time(NULL) + 60;
	size_t          i;

	for (i = 0; i < COUNT(cases); i++)
	{
		snprintf(bytes, sizeof(bytes),
				 "HTTP/1.1 429 Slow down\r\nretry-after:%s\r\nContent-Length: 0\r\n\r\n",
				 cases[i].value);
		fault_server_script(server, &(FaultStep){.bytes = bytes}, 1);
		reply = ask(session, GATEWAY_DELTA, "u1", "1");
		EXPECT(reply, GATEWAY_THROTTLED, cases[i].value);
		CHECK(reply.retry_after >= cases[i].least && reply.retry_after <= cases[i].most,
			  "\"%s\" gave %g", cases[i].value, reply.retry_after);
	}

	strftime(date, sizeof(date), "%a, %d %b %Y %H:%M:%S GMT", gmtime(&soon));
	snprintf(bytes, sizeof(bytes),
			 "HTTP/1.1 503 Later\r\nRetry-After: %s\r\nContent-Length: 0\r\n\r\n", date);
	fault_server_script(server, &(FaultStep){.bytes = bytes}, 1);
	reply = ask(session, GATEWAY_QUERY, "u1", NULL);
	CHECK(reply.retry_after > 55 && reply.retry_after <= 60, "%s gave %g", date, reply.retry_after);

	/* it does not stick to the handle */
	fault_server_script(server,
						&(FaultStep){.bytes = "HTTP/1.1 408 Slow\r\nContent-Length: 0\r\n\r\n"}, 1);
	reply = ask(session, GATEWAY_DELTA, "u1", "1");
	EXPECT(reply, GATEWAY_THROTTLED, "408");
	CHECK(reply.retry_after < 0, "%g", reply.retry_after);
	gateway_close(session);
}

/* The second half of a zgsm answer can fail on its own. */
static void
test_half_answers(FaultServer *server)
{
	static const char total[] =
		HEAD_200 "Content-Length: 39\r\n\r\n{\"success\":true,\"data\":{\"quota\":100.5}}";
	static const struct
	{
		FaultStep      second;
		GatewayOutcome outcome;
	} cases[] = {
		{{.bytes = NULL}, GATEWAY_IN_DOUBT},
		{{.bytes = "HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"}, GATEWAY_IN_DOUBT},
		{{.bytes = "HTTP/1.1 429 No\r\nContent-Length: 0\r\n\r\n"}, GATEWAY_THROTTLED},
		{{.bytes = FORBIDDEN "Content-Length: 0\r\n\r\n"}, GATEWAY_BLOCKED},
		{{.bytes = total}, GATEWAY_COMPLETED},
	};
	GatewayConfig config = test_config(GATEWAY_ZGSM, fault_server_url(server));
	size_t        i;

	config.request_timeout_ms = 300;
	for (i = 0; i < COUNT(cases); i++)
	{
		GatewaySession *session = open_session(&config);
		FaultStep       steps[2] = {{.bytes = total}, cases[i].second};
		GatewayReply    reply;

		fault_server_script(server, steps, 2);
		reply = ask(session, GATEWAY_QUERY, "u1", NULL);
		EXPECT(reply, cases[i].outcome, "second half");
		if (reply.outcome == GATEWAY_COMPLETED)
			CHECK(strcmp(reply.balance, "0") == 0 && strcmp(reply.total, "100.5") == 0, "%s of %s",
				  reply.balance, reply.total);
		else
			CHECK(reply.balance[0] == '\0' && reply.total[0] == '\0', "%s of %s", reply.balance,
				  reply.total);
		gateway_close(session);
	}
}

void
test_faults(void)
{
	FaultServer *server = fault_server_start();

	test_singles(server);
	test_lost_texts(server);
	test_query_again(server);
	test_not_sent(server);
	test_large_replies(server);
	test_extra_bytes(server);
	test_closed_while_idle(server);
	test_early_reply(server);
	test_retry_after(server);
	test_half_answers(server);
	fault_server_stop(server);
}
