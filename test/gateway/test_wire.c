/*
 * test_wire.c
 *		What is sent, to the byte, and how many connections it takes.
 */
#include <stdio.h>
#include <stdlib.h>

#include "check.h"
#include "fault_server.h"

#define ZGSM_DONE "HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\n{\"success\":true}"

/* True if a request holds a header line, or another text. */
static bool
has(const char *request, const char *text)
{
	return strstr(request, text) != NULL;
}

/* Checks the whole of the last request of a server. */
static void
check_last(FaultServer *server, const char *expected)
{
	char *last = fault_server_last(server);

	CHECK(strcmp(last, expected) == 0, "sent was:\n%s", last);
	free(last);
}

static void
test_higress_requests(FaultServer *server)
{
	static const char answer[] =
		"HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\n{\"consumer\":\"u 1\",\"quota\":-42}";
	static const char refreshed[] =
		"HTTP/1.1 200 OK\r\nContent-Length: 24\r\n\r\nrefresh quota successful";
	const FaultStep steps[] = {{.bytes = DELTA_OK}, {.bytes = refreshed}, {.bytes = answer}};
	GatewayConfig   config = test_config(GATEWAY_HIGRESS, fault_server_url(server));
	GatewaySession *session;
	GatewayReply    reply;
	char            expected[600];
	const char     *host = fault_server_url(server) + strlen("http://");

	config.route_model = "model-x";
	session = open_session(&config);
	fault_server_script(server, steps, 3);

	reply = ask(session, GATEWAY_DELTA, "u 1&=", "-20.0");
	EXPECT(reply, GATEWAY_COMPLETED, "delta");
	snprintf(expected, sizeof(expected),
			 "POST /v1/chat/completions/quota/delta HTTP/1.1\r\nHost: %s\r\n"
			 "User-Agent: quota_manager/test\r\nAccept: */*\r\n"
			 "Idempotency-Key: 7443-1-42\r\nAuthorization: Bearer " CREDENTIAL "\r\n"
			 "x-higress-llm-model: model-x\r\nContent-Length: 30\r\n"
			 "Content-Type: application/x-www-form-urlencoded\r\n\r\n"
			 "consumer=u%%201%%26%%3D&value=-20",
			 host);
	check_last(server, expected);

	reply = ask(session, GATEWAY_REFRESH, "\xe5\xbc\xa0\xe4\xb8\x89", "7");
	EXPECT(reply, GATEWAY_COMPLETED, "refresh");
	snprintf(expected, sizeof(expected),
			 "POST /v1/chat/completions/quota/refresh HTTP/1.1\r\nHost: %s\r\n"
			 "User-Agent: quota_manager/test\r\nAccept: */*\r\n"
			 "Idempotency-Key: 7443-1-42\r\nAuthorization: Bearer " CREDENTIAL "\r\n"
			 "x-higress-llm-model: model-x\r\nContent-Length: 35\r\n"
			 "Content-Type: application/x-www-form-urlencoded\r\n\r\n"
			 "consumer=%%E5%%BC%%A0%%E4%%B8%%89&quota=7",
			 host);
	check_last(server, expected);

	reply = ask(session, GATEWAY_QUERY, "u 1", NULL);
	EXPECT(reply, GATEWAY_COMPLETED, "query");
	CHECK(strcmp(reply.balance, "-42") == 0 && reply.total[0] == '\0', "%s", reply.balance);
	snprintf(expected, sizeof(expected),
			 "GET /v1/chat/completions/quota?consumer=u%%201 HTTP/1.1\r\nHost: %s\r\n"
			 "User-Agent: quota_manager/test\r\nAccept: */*\r\n"
			 "Authorization: Bearer " CREDENTIAL "\r\nx-higress-llm-model: model-x\r\n\r\n",
			 host);
	check_last(server, expected);

	CHECK(fault_server_connections(server) == 1, "%d connections",
		  fault_server_connections(server));
	gateway_close(session);
}

static void
test_zgsm_requests(FaultServer *server)
{
	static const char total[] = "HTTP/1.1 200 OK\r\nContent-Length: 55\r\n\r\n"
								"{\"success\":true,\"data\":{\"user_id\":\"u1\",\"quota\":100.25}}";
	static const char used[] =
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
		"10\r\n{\"success\":true,\r\n22\r\n\"data\":{\"quota\":0.500001        }}\r\n0\r\n\r\n";
	const FaultStep steps[] = {{.bytes = ZGSM_DONE}, {.bytes = total}, {.bytes = used}};
	GatewayConfig   config = test_config(GATEWAY_ZGSM, fault_server_url(server));
	GatewaySession *session = open_session(&config);
	GatewayReply    reply;
	char           *last;

	fault_server_script(server, steps, 3);
	reply = ask(session, GATEWAY_DELTA, "u1", "0.50");
	EXPECT(reply, GATEWAY_COMPLETED, "delta");
	last = fault_server_last(server);
	CHECK(has(last, "POST /v1/chat/completions/quota/delta HTTP/1.1\r\n") &&
			  has(last, "\r\nx-admin-key: " CREDENTIAL "\r\n") &&
			  has(last, "\r\n\r\nuser_id=u1&value=0.5") && !has(last, "Authorization"),
		  "sent was:\n%s", last);
	free(last);

	reply = ask(session, GATEWAY_QUERY, "u1", NULL);
	EXPECT(reply, GATEWAY_COMPLETED, "query");
	CHECK(strcmp(reply.balance, "99.749999") == 0 && strcmp(reply.total, "100.25") == 0, "%s of %s",
		  reply.balance, reply.total);
	last = fault_server_last(server);
	CHECK(has(last, "GET /v1/chat/completions/quota/used?user_id=u1 HTTP/1.1\r\n"), "sent was:\n%s",
		  last);
	free(last);
	CHECK(fault_server_requests(server) == 3 && fault_server_connections(server) == 1,
		  "%d requests on %d connections", fault_server_requests(server),
		  fault_server_connections(server));
	gateway_close(session);
}

/* Paths and headers as they can be configured. */
static void
test_configured(FaultServer *server)
{
	static const struct
	{
		GatewayDialect dialect;
		const char    *base_path;
		const char    *admin_path;
		const char    *key_header;
		const char    *credential;
		const char    *request_line;
		const char    *header; /* NULL: no credential is sent */
	} cases[] = {
		{GATEWAY_HIGRESS, "/", NULL, NULL, "k", "POST /v1/chat/completions/quota/delta ",
		 "\r\nAuthorization: Bearer k\r\n"},
		{GATEWAY_HIGRESS, "/a/../b//", "/admin/", "x-api-key", "k k",
		 "POST /a/../b/v1/chat/completions/admin/delta ", "\r\nx-api-key: k k\r\n"},
		{GATEWAY_ZGSM, "", "/q", "authorization", "k", "POST /q/delta ",
		 "\r\nauthorization: Bearer k\r\n"},
		{GATEWAY_ZGSM, "", NULL, NULL, NULL, "POST /v1/chat/completions/quota/delta ", NULL},
	};
	size_t i;

	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		GatewayConfig   config = test_config(cases[i].dialect, NULL);
		char            url[100];
		GatewaySession *session;
		char           *last;

		snprintf(url, sizeof(url), "%s%s", fault_server_url(server), cases[i].base_path);
		config.base_url = url;
		config.admin_path = cases[i].admin_path;
		config.key_header = cases[i].key_header;
		config.credential = cases[i].credential;
		session = open_session(&config);
		fault_server_script(server, &(FaultStep){.bytes = DELTA_OK}, 1);
		ask(session, GATEWAY_DELTA, "u", "1");
		last = fault_server_last(server);
		CHECK(has(last, cases[i].request_line) &&
				  (cases[i].header ? has(last, cases[i].header)
								   : !has(last, "uthorization") && !has(last, "x-admin-key")),
			  "sent was:\n%s", last);
		free(last);
		gateway_close(session);
	}
}

/* What somebody else answers is not repeated: its status and media type are told. */
static void
test_strangers(FaultServer *server)
{
	static const struct
	{
		const char *reply;
		const char *message;
	} cases[] = {
		{"Content-Type: text/html; charset=utf-8\r\n", "HTTP 404 (text/html)"},
		{"content-type:application/json\r\n", "HTTP 404 (application/json)"},
		{"Content-Type: \t a/b\t;x\r\n", "HTTP 404 (a/b)"},
		{"Content-Type: text/html<script>\r\n", "HTTP 404"},
		{"Content-Type:\r\n", "HTTP 404"},
		{"Content-Type: x/" CREDENTIAL "\r\n", "HTTP 404 (x/***)"},
		{"X-Content-Type: text/html\r\n", "HTTP 404"},
	};
	GatewayConfig   config = test_config(GATEWAY_ZGSM, fault_server_url(server));
	GatewaySession *session = open_session(&config);
	size_t          i;

	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		char         bytes[300];
		GatewayReply reply;

		snprintf(bytes, sizeof(bytes),
				 "HTTP/1.1 404 Not Found\r\n%sContent-Length: 12\r\n\r\ntop secret x",
				 cases[i].reply);
		fault_server_script(server, &(FaultStep){.bytes = bytes}, 1);
		reply = ask(session, GATEWAY_DELTA, "u", "1");
		CHECK(strcmp(reply.message, cases[i].message) == 0, "%s: %s", cases[i].reply,
			  reply.message);
	}
	gateway_close(session);
}

/* A user id of a megabyte of every byte there is arrives as it was. */
static void
test_long_user(FaultServer *server)
{
	const size_t    length = 1024 * 1024;
	GatewayConfig   config = test_config(GATEWAY_HIGRESS, fault_server_url(server));
	GatewaySession *session = open_session(&config);
	char           *user = malloc(length + 1);
	char           *last;
	const char     *c;
	GatewayReply    reply;
	size_t          i;

	for (i = 0; i < length; i++)
		user[i] = (char) (i % 255 + 1);
	user[length] = '\0';

	fault_server_script(server, &(FaultStep){.bytes = DELTA_OK}, 1);
	reply = ask(session, GATEWAY_DELTA, user, "1");
	EXPECT(reply, GATEWAY_COMPLETED, "a megabyte");
	last = fault_server_last(server);
	c = strstr(last, "\r\n\r\nconsumer=");
	c = c ? c + strlen("\r\n\r\nconsumer=") : "";
	for (i = 0; i < length && *c; i++)
	{
		unsigned value = (unsigned char) *c;

		if (*c == '%')
		{
			char hex[3] = {c[1], c[2], '\0'};

			value = (unsigned) strtoul(hex, NULL, 16);
			c += 2;
		}
		c++;
		if (value != (unsigned char) user[i])
			break;
	}
	CHECK(i == length && strcmp(c, "&value=1") == 0, "differs at %zu", i);
	CHECK(!has(last, "\r\nExpect:") && !has(last, "\r\nTransfer-Encoding:"), "asks first");
	free(last);

	/* as a query it would be a request line that libcurl refuses to build */
	reply = ask(session, GATEWAY_QUERY, user, NULL);
	EXPECT(reply, GATEWAY_REFUSED, "a query for a megabyte");
	memset(user, 'x', length);
	user[900 * 1024] = '\0';
	fault_server_script(
		server, &(FaultStep){.bytes = "HTTP/1.1 414 Too Long\r\nContent-Length: 0\r\n\r\n"}, 1);
	reply = ask(session, GATEWAY_QUERY, user, NULL);
	EXPECT(reply, GATEWAY_REFUSED, "the longest query");
	CHECK(reply.http_status == 414, "HTTP %ld", reply.http_status);

	fault_server_script(server, &(FaultStep){.bytes = DELTA_OK}, 1);
	reply = ask(session, GATEWAY_DELTA, "u", "1");
	EXPECT(reply, GATEWAY_COMPLETED, "a short one after that");
	free(user);
	gateway_close(session);
}

/* Neither proxy variables nor a .netrc of the environment change anything. */
static void
test_environment(FaultServer *server)
{
	static const char *const names[] = {"http_proxy", "all_proxy", "ALL_PROXY"};
	GatewayConfig            config = test_config(GATEWAY_HIGRESS, fault_server_url(server));
	GatewaySession          *session;
	GatewayReply             reply;
	size_t                   i;

	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		setenv(names[i], "http://127.0.0.1:1", 1);
	session = open_session(&config);
	fault_server_script(server, &(FaultStep){.bytes = DELTA_OK}, 1);
	reply = ask(session, GATEWAY_DELTA, "u", "1");
	EXPECT(reply, GATEWAY_COMPLETED, "with proxy variables");
	gateway_close(session);
	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		unsetenv(names[i]);
}

void
test_wire(void)
{
	FaultServer *server = fault_server_start();

	test_higress_requests(server);
	test_zgsm_requests(server);
	test_configured(server);
	test_strangers(server);
	test_long_user(server);
	test_environment(server);
	fault_server_stop(server);
}
