/*
 * test_hostile.c
 *		Replies that lie about where they begin and end, in both dialects.
 *
 * Each row is sent as the reply to a change and as the reply to a query, with
 * the body that the dialect would have; the body by itself is that of a
 * success.  So a row shows what its framing alone is taken to prove.
 */
#include <stdio.h>
#include <stdlib.h>

#include "check.h"
#include "fault_server.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

#define OK "HTTP/1.1 200 OK\r\n"
#define WHOLE "Content-Length: @L\r\n\r\n@B"
#define CHUNKED "Transfer-Encoding: chunked\r\n\r\n"
#define LATER "HTTP/1.1 429 Later\r\nContent-Length: 5\r\n\r\nlater"

/* What a row may be taken for: more than one where versions of libcurl differ. */
enum
{
	DONE = 1 << GATEWAY_COMPLETED,
	THROTTLED = 1 << GATEWAY_THROTTLED,
	BLOCKED = 1 << GATEWAY_BLOCKED,
	DOUBT = 1 << GATEWAY_IN_DOUBT,
};

/* @B stands for the body, @L for its length, @X for that in hexadecimal, @0 for a NUL. */
static const struct
{
	const char *bytes;
	unsigned    outcomes;
	FaultEnd    end;
} replies[] = {
	/* the length is not that of the body */
	{OK "Content-Length: 5\r\n\r\n@B", DOUBT, END_KEEP},
	{OK "Content-Length: 0\r\n\r\n@B", DOUBT, END_KEEP},
	{OK "Content-Length: 99\r\n\r\n@B", DOUBT, END_KEEP},
	{OK "Content-Length: 99\r\n\r\n@B", DOUBT, END_CLOSE},
	{OK "Content-Length: 99\r\n\r\n@B", DOUBT, END_RESET},
	{OK "Content-Length: @L\r\nContent-Length: 5\r\n\r\n@B", DOUBT, END_CLOSE},
	{OK "Content-Length: 5\r\nContent-Length: @L\r\n\r\n@B", DONE | DOUBT, END_CLOSE},
	{OK "Content-Length: 0x@X\r\n\r\n@B", DOUBT, END_CLOSE},
	{OK "Content-Length: -@L\r\n\r\n@B", DOUBT, END_CLOSE},
	{OK "Content-Length: @Lx\r\n\r\n@B", DONE | DOUBT, END_CLOSE},
	{OK "Content-Length:\r\n\r\n@B", DOUBT, END_CLOSE},
	{OK "Content-Length: 99999999999999999999999\r\n\r\n@B", DONE | DOUBT, END_CLOSE},
	{OK "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n@X\r\n@B\r\n0\r\n\r\n",
	 DONE | DOUBT, END_CLOSE},
	{OK "\r\n@B", DOUBT, END_RESET},
	{OK WHOLE, DONE | DOUBT, END_RESET},

	/* chunks */
	{OK CHUNKED "@X;a=b\r\n@B\r\n0\r\nX-Trailer: y\r\n\r\n", DONE, END_KEEP},
	{OK CHUNKED "-@X\r\n@B\r\n0\r\n\r\n", DOUBT, END_CLOSE},
	{OK CHUNKED "@Xg\r\n@B\r\n0\r\n\r\n", DONE | DOUBT, END_CLOSE},
	{OK CHUNKED "FFFFFFFFFFFFFFFFFFF\r\n@B\r\n0\r\n\r\n", DOUBT, END_CLOSE},
	{OK CHUNKED "7FFFFFFFFFFFFFFF\r\n@B\r\n0\r\n\r\n", DOUBT, END_CLOSE},
	{OK CHUNKED "@X\r\n@B0\r\n\r\n", DOUBT, END_CLOSE},
	{OK CHUNKED "5\r\n@B\r\n0\r\n\r\n", DOUBT, END_CLOSE},
	{OK CHUNKED "@X\r\n@B\r\n", DOUBT, END_CLOSE},
	{OK CHUNKED "@X\r\n@B\r\n0\r\nX-Trailer: y\r\n", DOUBT, END_CLOSE},
	{OK CHUNKED "@X\r\n@B\r\n0\r\nHTTP/1.1 403 Forbidden\r\n\r\n", DONE | DOUBT, END_CLOSE},
	{OK CHUNKED "\r\n@X\r\n@B\r\n0\r\n\r\n", DOUBT, END_CLOSE},
	{OK "Transfer-Encoding: gzip, chunked\r\n\r\n@X\r\n@B\r\n0\r\n\r\n", DOUBT, END_CLOSE},
	{OK "Transfer-Encoding: nonsense\r\n" WHOLE, DONE | DOUBT, END_CLOSE},

	/* status lines that are none */
	{"http/1.1 403 Forbidden\r\n" WHOLE, DOUBT, END_CLOSE},
	{"HTTP/1.1 100 Continue\r\n\r\nhttp/1.1 403 Forbidden\r\n" WHOLE, DOUBT, END_CLOSE},
	{"HTTP/1.1 2000 OK\r\n" WHOLE, DOUBT, END_CLOSE},
	{"HTTP/1.1 4030 Forbidden\r\n" WHOLE, DOUBT, END_CLOSE},
	{"HTTP/1.1 20 OK\r\n" WHOLE, DOUBT, END_CLOSE},
	{"HTTP/1.1 040 OK\r\n" WHOLE, DOUBT, END_CLOSE},
	{"HTTP/1.1 -403 OK\r\n" WHOLE, DOUBT, END_CLOSE},
	{"HTTP/1.1 OK\r\n" WHOLE, DOUBT, END_CLOSE},
	{"HTTP/1.1\r\n" WHOLE, DOUBT, END_CLOSE},
	{"HTTP/1.2 403 Forbidden\r\n" WHOLE, BLOCKED | DOUBT, END_CLOSE},
	{"HTTP/0.9 403 Forbidden\r\n" WHOLE, BLOCKED | DOUBT, END_CLOSE},
	{"HTTP/1.1 600 Who knows\r\n" WHOLE, DOUBT, END_KEEP},
	{"HTTP/1.1 999 Who knows\r\n" WHOLE, DOUBT, END_KEEP},
	{"\r\nHTTP/1.1 403 Forbidden\r\n" WHOLE, DOUBT, END_CLOSE},
	{" HTTP/1.1 403 Forbidden\r\n" WHOLE, DOUBT, END_CLOSE},
	{"ICY 200 OK\r\n" WHOLE, DOUBT, END_CLOSE},
	{"HTTP/1.1 403@0 Forbidden\r\n" WHOLE, DOUBT, END_CLOSE},
	{"HTTP/1.1 403 Forbidden\r\nX: a@0b\r\n" WHOLE, DOUBT, END_CLOSE},
	{OK "no field at all\r\n" WHOLE, DONE | DOUBT, END_CLOSE},
	{"HTTP/1.1 403 Forbidden\r\nHTTP/1.1 200 OK\r\n" WHOLE, BLOCKED | DOUBT, END_CLOSE},

	/* interim replies */
	{"HTTP/1.1 100 Continue\r\nRetry-After: 9\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n" OK WHOLE,
	 DONE, END_KEEP},
	{"HTTP/1.1 199 Why not\r\n\r\n" OK WHOLE, DONE, END_KEEP},
	{"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 429 Later\r\n" WHOLE, THROTTLED, END_KEEP},
	{"HTTP/1.1 102 Processing\r\n\r\n", DOUBT, END_KEEP},
	{"HTTP/1.1 100 Continue\r\n" WHOLE, DOUBT, END_CLOSE},
	{"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n" OK WHOLE,
	 DOUBT, END_CLOSE},

	/* replies without a body, with one */
	{"HTTP/1.1 204 No Content\r\n" WHOLE, DOUBT, END_KEEP},
	{"HTTP/1.1 304 Not Modified\r\n" WHOLE, BLOCKED, END_KEEP},
	{"HTTP/1.1 204 No Content\r\n\r\n" LATER, DOUBT, END_KEEP},
	{"HTTP/1.1 304 Not Modified\r\n\r\n" LATER, BLOCKED, END_KEEP},
};

/* The bodies: what a change is answered with, and a query. */
static const char *const bodies[2][2] = {
	{"delta quota successful", "{\"consumer\":\"u\",\"quota\":42}"},
	{"{\"success\":true}", "{\"success\":true,\"data\":{\"quota\":42}}"},
};

/* Writes a row out; malloc'ed. */
static char *
write_reply(const char *row, const char *body, size_t *length)
{
	size_t room = strlen(row) + 8 * strlen(body) + 1;
	char  *bytes = malloc(room);
	size_t used = 0;

	for (; *row; row++)
	{
		if (*row != '@')
		{
			bytes[used++] = *row;
			continue;
		}
		row++;
		if (*row == '0')
			bytes[used++] = '\0';
		else if (*row == 'B')
			used += (size_t) snprintf(bytes + used, room - used, "%s", body);
		else
			used += (size_t) snprintf(bytes + used, room - used, *row == 'X' ? "%zX" : "%zu",
									  strlen(body));
	}
	bytes[used] = '\0';
	*length = used;
	return bytes;
}

/* Forgets the script, so that what it refers to can be freed. */
static void
drop_script(FaultServer *server)
{
	fault_server_script(server, &(FaultStep){.bytes = DELTA_OK}, 1);
}

/* Checks that an outcome is one of those, and prints the reply if not. */
static void
check_outcome(GatewayReply reply, unsigned outcomes, const char *row, const char *what)
{
	CHECK((1u << reply.outcome & outcomes) != 0, "%s: got %s, HTTP %ld, \"%s\" for %s", what,
		  outcome_name(reply.outcome), reply.http_status, reply.message, row);
}

/* One row in one dialect for one action, on a new connection or one that was used before. */
static void
check_row(FaultServer *server, size_t i, GatewayDialect dialect, GatewayAction action, bool warm)
{
	const char     *good_body = bodies[dialect][0];
	GatewayConfig   config = test_config(dialect, fault_server_url(server));
	GatewaySession *session;
	FaultStep       steps[2] = {{NULL}};
	GatewayReply    reply;
	size_t          good_size;
	char           *good = write_reply(OK WHOLE, good_body, &good_size);
	char           *bad;

	bad = write_reply(replies[i].bytes, bodies[dialect][action == GATEWAY_QUERY], &steps[1].size);
	config.request_timeout_ms = 150;
	session = open_session(&config);
	steps[0].bytes = good;
	steps[1].bytes = bad;
	steps[1].end = replies[i].end;
	fault_server_script(server, steps + 1 - warm, 1 + warm);
	if (warm)
		EXPECT(ask(session, GATEWAY_DELTA, "u", "1"), GATEWAY_COMPLETED, "before");
	reply = ask(session, action, "u", "1");
	check_outcome(reply, replies[i].outcomes, replies[i].bytes,
				  action == GATEWAY_QUERY ? "query" : "delta");
	CHECK((reply.balance[0] != '\0') ==
			  (action == GATEWAY_QUERY && reply.outcome == GATEWAY_COMPLETED),
		  "balance \"%s\" for %s", reply.balance, replies[i].bytes);
	if (action != GATEWAY_QUERY)
		CHECK(fault_server_requests(server) == 1 + warm, "sent %d times: %s",
			  fault_server_requests(server) - warm, replies[i].bytes);

	/* nothing of it is left for the next request */
	fault_server_script(server, steps, 1);
	EXPECT(ask(session, GATEWAY_DELTA, "u", "1"), GATEWAY_COMPLETED, replies[i].bytes);
	gateway_close(session);
	drop_script(server);
	free(good);
	free(bad);
}

static void
test_framing(FaultServer *server)
{
	size_t i;
	int    variant;

	for (i = 0; i < COUNT(replies); i++)
		for (variant = 0; variant < 8; variant++)
			check_row(server, i, variant & 1 ? GATEWAY_ZGSM : GATEWAY_HIGRESS,
					  variant & 2 ? GATEWAY_QUERY : GATEWAY_DELTA, (variant & 4) != 0);
}

/* Writes a header for a body of that length; returns its own. */
static size_t
write_head(char *bytes, size_t length)
{
	return (size_t) snprintf(bytes, 100, OK "Content-Length: %zu\r\n\r\n", length);
}

/*
 * A reply that ends where a buffer of libcurl does, with another one behind it:
 * libcurl has not seen that, it is for us to notice.  More often than libcurl
 * would try another connection by itself.
 */
static void
test_left_in_socket(FaultServer *server, GatewayDialect dialect, GatewayAction action)
{
	static const char used[] =
		OK "Content-Length: 37\r\n\r\n{\"success\":true,\"data\":{\"quota\":  2}}";
	const char     *body = bodies[dialect][action == GATEWAY_QUERY];
	GatewayConfig   config = test_config(dialect, fault_server_url(server));
	GatewaySession *session;
	size_t          good_size;
	char           *good = write_reply(OK WHOLE, bodies[dialect][0], &good_size);
	const size_t    sizes[] = {0, 16383, 16384, 16385, 16390, 32768, 32800};
	char            bytes[40000];
	size_t          i;

	config.max_reply_bytes = 65536;
	config.max_connections = 1;
	session = open_session(&config);
	for (i = 0; i < COUNT(sizes); i++)
	{
		FaultStep    steps[2] = {{.bytes = bytes}, {.bytes = good}};
		size_t       length = strlen(body);
		size_t       head = write_head(bytes, length);
		GatewayReply reply;
		int          turns;

		/* blanks behind the body */
		for (; head + length < sizes[i]; head = write_head(bytes, length))
			length++;
		memset(bytes + head, ' ', length);
		memcpy(bytes + head, body, strlen(body));
		memcpy(bytes + head + length, LATER, sizeof(LATER));
		if (action == GATEWAY_QUERY && dialect == GATEWAY_ZGSM)
			steps[1].bytes = used;
		for (turns = 0; turns < 12; turns++)
		{
			fault_server_script(server, steps, 2);
			reply = ask(session, action, "u", "1");
			EXPECT(reply, GATEWAY_COMPLETED, "a reply with another one behind it");
			if (steps[1].bytes == used)
				CHECK(strcmp(reply.balance, "40") == 0, "%s of %s", reply.balance, reply.total);
			fault_server_script(server, &(FaultStep){.bytes = good}, 1);
			EXPECT(ask(session, GATEWAY_DELTA, "u", "1"), GATEWAY_COMPLETED, "the next one");
			CHECK(fault_server_requests(server) == 1, "%d requests", fault_server_requests(server));
		}
	}
	gateway_close(session);
	drop_script(server);
	free(good);
}

/* Proxies say 408 to a connection that idles, and close it: as often as they like. */
static void
test_idle_408(FaultServer *server)
{
	static const char timeout[] = "HTTP/1.1 408 Request Time-out\r\nConnection: close\r\n\r\n";
	GatewayConfig     config = test_config(GATEWAY_HIGRESS, fault_server_url(server));
	GatewaySession   *session;
	GatewayResult     result;
	int               turns;

	config.max_connections = 1;
	session = open_session(&config);
	for (turns = 0; turns < 12; turns++)
	{
		fault_server_script(server, &(FaultStep){.bytes = DELTA_OK, .late = timeout}, 1);
		EXPECT(ask(session, GATEWAY_DELTA, "u", "1"), GATEWAY_COMPLETED, "then 408");
		gateway_poll(session, 40, &result, 1);
	}
	gateway_close(session);
}

void
test_hostile(void)
{
	FaultServer *server = fault_server_start();

	test_framing(server);
	test_left_in_socket(server, GATEWAY_HIGRESS, GATEWAY_DELTA);
	test_left_in_socket(server, GATEWAY_ZGSM, GATEWAY_DELTA);
	test_left_in_socket(server, GATEWAY_HIGRESS, GATEWAY_QUERY);
	test_left_in_socket(server, GATEWAY_ZGSM, GATEWAY_QUERY);
	test_idle_408(server);
	fault_server_stop(server);
}
