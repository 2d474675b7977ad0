/*
 * test_classes.c
 *		What a reply proves, for every kind of reply, without a network.
 */
#include <stdio.h>
#include <stdlib.h>

#include "check.h"
#include "gateway/classify.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

#define HIGRESS_PARAMETERS                                                                         \
	"Request denied by ai quota check. consumer can't be empty and value must be integer."
#define OWN "Request denied by ai quota check. "
#define ZGSM_OK(code) "{\"code\":\"ai-gateway." code "\",\"message\":\"ok\",\"success\":true}"
#define ZGSM_BAD(code) "{\"code\":\"ai-gateway." code "\",\"message\":\"bad\",\"success\":false}"

/* Shorter names, for a table that can be read. */
enum
{
	H = GATEWAY_HIGRESS,
	Z = GATEWAY_ZGSM,
	BALANCE = EXCHANGE_BALANCE,
	USED = EXCHANGE_USED,
	REFRESH = EXCHANGE_REFRESH,
	DELTA = EXCHANGE_DELTA,
	DONE = GATEWAY_COMPLETED,
	THROTTLED = GATEWAY_THROTTLED,
	BLOCKED = GATEWAY_BLOCKED,
	REFUSED = GATEWAY_REFUSED,
	DOUBT = GATEWAY_IN_DOUBT,
};

/* Replies that came whole. */
static const struct
{
	int         dialect;
	int         kind;
	long        status;
	const char *body;
	int         outcome;
	const char *balance; /* of a query that is answered */
} replies[] = {
	/* higress: the words of the plugin, at the beginning, and no other */
	{H, DELTA, 200, "delta quota successful", DONE, NULL},
	{H, DELTA, 200, "delta quota successful\n", DONE, NULL},
	{H, DELTA, 201, "delta quota successful", DONE, NULL},
	{H, DELTA, 200, "refresh quota successful", DOUBT, NULL},
	{H, DELTA, 200, "", DOUBT, NULL},
	{H, DELTA, 204, "", DOUBT, NULL},
	{H, DELTA, 200, "delta quota", DOUBT, NULL},
	{H, DELTA, 200, "no delta quota successful", DOUBT, NULL},
	{H, DELTA, 200, "<html>Welcome</html>", DOUBT, NULL},
	{H, DELTA, 200, ZGSM_OK("deltaquota"), DOUBT, NULL},
	{H, REFRESH, 200, "refresh quota successful", DONE, NULL},
	{H, REFRESH, 200, "delta quota successful", DOUBT, NULL},
	{H, DELTA, 503, "redis error:timeout", DOUBT, NULL},

	/* higress: what Redis refused was not applied; what its client says proves nothing */
	{H, DELTA, 503, "redis error:READONLY You can't write against a read only replica.", BLOCKED,
	 NULL},
	{H, DELTA, 503, "redis error:OOM command not allowed when used memory > 'maxmemory'.", BLOCKED,
	 NULL},
	{H, DELTA, 503, "redis error:ERR value is not an integer or out of range", BLOCKED, NULL},
	{H, DELTA, 503, "redis error:ERR increment or decrement would overflow", BLOCKED, NULL},
	{H, DELTA, 503, "redis error: ERR decrement would overflow", BLOCKED, NULL},
	{H, REFRESH, 503, "redis error:READONLY You can't write against a read only replica.", BLOCKED,
	 NULL},
	{H, BALANCE, 503, "redis error:READONLY You can't write against a read only replica.", DOUBT,
	 NULL},
	{H, DELTA, 500, "redis error:READONLY You can't write against a read only replica.", DOUBT,
	 NULL},
	{H, DELTA, 503, "READONLY You can't write against a read only replica.", DOUBT, NULL},
	{H, DELTA, 503, "redis error:cannot connect to redis cluster", DOUBT, NULL},
	{H, DELTA, 503, "redis error:Connection refused - Redis server", DOUBT, NULL},
	{H, DELTA, 503, "redis error:ERR unknown command", DOUBT, NULL},
	{H, DELTA, 503, "redis error:LOADING Redis is loading the dataset in memory", DOUBT, NULL},

	/* higress: a 4xx of the gateway's own, in an older and a newer plugin, and of somebody else */
	{H, DELTA, 403, HIGRESS_PARAMETERS, BLOCKED, NULL},
	{H, DELTA, 400, HIGRESS_PARAMETERS, REFUSED, NULL},
	{H, DELTA, 400, "Request denied by ai quota check. consumer or group must be set", REFUSED,
	 NULL},
	{H, DELTA, 400, "Request denied by ai quota check. value must be an integer.", REFUSED, NULL},
	{H, DELTA, 400, "{\"error\":{\"message\":\"'max_tokens' must be an integer\"}}", BLOCKED, NULL},
	{H, DELTA, 422, "{\"detail\":[{\"msg\":\"field required\"}]}", BLOCKED, NULL},
	{H, DELTA, 413, "too large", BLOCKED, NULL},
	{H, BALANCE, 400, "{\"error\":{\"message\":\"you must provide a model parameter\"}}", BLOCKED,
	 NULL},
	{H, BALANCE, 431, "", REFUSED, NULL},
	{H, DELTA, 431, "", BLOCKED, NULL},

	/* higress: a balance is an integer within 64 bits, as a number */
	{H, BALANCE, 200, "{\"consumer\":\"u1\",\"quota\":42}", DONE, "42"},
	{H, BALANCE, 200, "{\"consumer\":\"u1\",\"quota\":-42}\n", DONE, "-42"},
	{H, BALANCE, 200, "{\"name\":\"u1\",\"quota\":0}", DONE, "0"},
	{H, BALANCE, 200, " { \"quota\" : 7 } ", DONE, "7"},
	{H, BALANCE, 200, "{\"quota\":-0}", DONE, "0"},
	{H, BALANCE, 200, "{\"x\":\"\xe5\xbc\xa0 \xf0\x9f\x98\x80\",\"quota\":5}", DONE, "5"},
	{H, BALANCE, 200, "{\"x\":\"\xed\xa0\x80\",\"quota\":5}", DOUBT, NULL},
	{H, BALANCE, 200, "{\"quota\":9223372036854775807}", DONE, "9223372036854775807"},
	{H, BALANCE, 200, "{\"quota\":9223372036854775808}", DOUBT, NULL},
	{H, BALANCE, 200, "{\"quota\":99999999999999999999}", DOUBT, NULL},
	{H, BALANCE, 200, "{\"quota\":-99999999999999999999}", DOUBT, NULL},
	{H, BALANCE, 200, "{\"quota\":1.5}", DOUBT, NULL},
	{H, BALANCE, 200, "{\"quota\":1e3}", DOUBT, NULL},
	{H, BALANCE, 200, "{\"quota\":1e400}", DOUBT, NULL},
	{H, BALANCE, 200, "{\"quota\":NaN}", DOUBT, NULL},
	{H, BALANCE, 200, "{\"quota\":\"12\"}", DOUBT, NULL},
	{H, BALANCE, 200, "{\"quota\":true}", DOUBT, NULL},
	{H, BALANCE, 200, "{\"quota\":null}", DOUBT, NULL},
	{H, BALANCE, 200, "{\"quota\":[1]}", DOUBT, NULL},
	{H, BALANCE, 200, "{}", DOUBT, NULL},
	{H, BALANCE, 200, "", DOUBT, NULL},
	{H, BALANCE, 200, "[]", DOUBT, NULL},
	{H, BALANCE, 200, "42", DOUBT, NULL},
	{H, BALANCE, 200, "null", DOUBT, NULL},
	{H, BALANCE, 200, "<html></html>", DOUBT, NULL},
	{H, BALANCE, 200, "{\"quota\":1", DOUBT, NULL},
	{H, BALANCE, 200, "{\"quota\":1}x", DOUBT, NULL},
	{H, BALANCE, 200, "{\"quota\":1}{\"quota\":2}", DOUBT, NULL},
	{H, BALANCE, 200, "{\"quota\":1,}", DOUBT, NULL},
	{H, BALANCE, 200, "{\"quota\":1,\"quota\":2}", DOUBT, NULL},
	{H, BALANCE, 200, "{\"quota\":1,\"qu\\u006fta\":2}", DOUBT, NULL},
	{H, BALANCE, 200, "{\"quota\":1,\"x\":{\"a\":1,\"a\":2}}", DOUBT, NULL},
	{H, BALANCE, 200, "{\"quota\":1,\"x\":\"a:\\\"b:\",\"y\":{\"a:b\":1}}", DONE, "1"},
	{H, BALANCE, 200, "{\"quota\":1,\"x\":[[[[[[[[[[1]]]]]]]]]]}", DOUBT, NULL},
	{H, BALANCE, 200, "{\"quota\":1,\"x\":\"\xff\"}", DOUBT, NULL},
	{H, BALANCE, 200, "{\"consumer\":\"u2\",\"quota\":42}", DOUBT, NULL},
	{H, BALANCE, 200, "{\"consumer\":\"u1\\u0000\",\"quota\":42}", DOUBT, NULL},
	{H, BALANCE, 503, "redis error:timeout", DOUBT, NULL},
	{H, BALANCE, 403, "Request denied by ai quota check. Unauthorized.", BLOCKED, NULL},

	/* zgsm: what counts is that success is true */
	{Z, DELTA, 200, ZGSM_OK("deltaquota"), DONE, NULL},
	{Z, DELTA, 201, ZGSM_OK("deltaquota"), DONE, NULL},
	{Z, DELTA, 200, "{\"success\":true}", DONE, NULL},
	{Z, REFRESH, 200, ZGSM_OK("refreshquota"), DONE, NULL},
	{Z, DELTA, 200, ZGSM_BAD("error"), REFUSED, NULL},
	{Z, DELTA, 200, "{\"success\":\"true\"}", DOUBT, NULL},
	{Z, DELTA, 200, "{\"success\":1}", DOUBT, NULL},
	{Z, DELTA, 200, "{}", DOUBT, NULL},
	{Z, DELTA, 200, "{\"success\":false,\"success\":true}", DOUBT, NULL},
	{Z, DELTA, 200, "delta quota successful", DOUBT, NULL},
	{Z, DELTA, 200, "<html></html>", DOUBT, NULL},
	{Z, DELTA, 200, "{\"success\":true,\"data\":{\"user_id\":\"u2\"}}", DOUBT, NULL},
	{Z, DELTA, 503, ZGSM_BAD("redis_error"), DOUBT, NULL},
	{Z, DELTA, 403, ZGSM_BAD("unauthorized"), BLOCKED, NULL},
	{Z, DELTA, 400, ZGSM_BAD("invalid_params"), REFUSED, NULL},
	{Z, DELTA, 400, "{\"error\":{\"code\":\"invalid_params\"}}", BLOCKED, NULL},
	{Z, DELTA, 422, "{\"detail\":\"must be integer\"}", BLOCKED, NULL},
	{Z, DELTA, 503,
	 "{\"code\":\"ai-gateway.error\",\"message\":\"redis error:ERR value is not a valid float\"}",
	 BLOCKED, NULL},
	{Z, DELTA, 503, "{\"message\":\"redis error:READONLY You can't write\",\"success\":false}",
	 BLOCKED, NULL},
	{Z, DELTA, 503, "{\"message\":\"redis error:cannot connect to redis cluster\"}", DOUBT, NULL},
	{Z, DELTA, 503, "redis error:READONLY You can't write", DOUBT, NULL},
	{Z, DELTA, 500, ZGSM_BAD("invalid_quota_value"), DOUBT, NULL},
	{Z, BALANCE, 200,
	 "{\"code\":\"ai-gateway.queryquota\",\"success\":true,\"data\":"
	 "{\"user_id\":\"u1\",\"quota\":12.5,\"type\":\"total_quota\"}}",
	 DONE, "12.5"},
	{Z, USED, 200,
	 "{\"success\":true,\"data\":{\"user_id\":\"u1\",\"quota\":2.25,\"type\":\"used_quota\"}}",
	 DONE, "2.25"},
	{Z, BALANCE, 200, "{\"success\":true,\"data\":{\"quota\":100}}", DONE, "100"},
	{Z, BALANCE, 200, "{\"success\":true,\"data\":{\"quota\":1.2345678}}", DONE, "1.234568"},
	{Z, BALANCE, 200, "{\"success\":true,\"data\":{\"quota\":1234567890123456789}}", DOUBT, NULL},
	{Z, BALANCE, 200, "{\"success\":true,\"data\":{\"quota\":1e2}}", DONE, "100"},
	{Z, BALANCE, 200, "{\"success\":true,\"data\":{\"quota\":1.1e-16}}", DONE, "0"},
	{Z, USED, 200, "{\"success\":true,\"data\":{\"quota\":1e-6}}", DONE, "0.000001"},
	{Z, BALANCE, 200, "{\"success\":true,\"data\":{\"quota\":1e+21}}", DOUBT, NULL},
	{Z, BALANCE, 200, "{\"success\":true,\"data\":{\"quota\":1.}}", DOUBT, NULL},
	{Z, BALANCE, 200, "{\"success\":true,\"data\":[]}", DOUBT, NULL},
	{Z, BALANCE, 200, "{\"success\":true,\"quota\":1}", DOUBT, NULL},
	{Z, BALANCE, 200, "{\"success\":true,\"data\":{\"quota\":1,\"type\":\"used_quota\"}}", DOUBT,
	 NULL},
	{Z, USED, 200, "{\"success\":true,\"data\":{\"quota\":1,\"type\":\"total_quota\"}}", DOUBT,
	 NULL},
	{Z, BALANCE, 200, "{\"success\":true,\"data\":{\"quota\":1,\"user_id\":\"u2\"}}", DOUBT, NULL},
	{Z, BALANCE, 200, "{\"data\":{\"quota\":1}}", DOUBT, NULL},
	{Z, BALANCE, 200, ZGSM_BAD("error"), REFUSED, NULL},
	{Z, BALANCE, 500, ZGSM_BAD("invalid_quota_value"), DONE, "-0.000001"},
	{Z, USED, 500, ZGSM_BAD("invalid_quota_value"), DOUBT, NULL},
	{Z, BALANCE, 503, ZGSM_BAD("invalid_quota_value"), DOUBT, NULL},
	{Z, BALANCE, 500, ZGSM_BAD("invalid_quota_format"), DOUBT, NULL},
	{H, BALANCE, 500, ZGSM_BAD("invalid_quota_value"), DOUBT, NULL},
	{Z, BALANCE, 400, ZGSM_BAD("invalid_params"), REFUSED, NULL},
};

/* What a status alone decides, in both dialects and for all kinds. */
static const struct
{
	long first;
	long last;
	int  outcome;
} statuses[] = {
	{100, 199, DOUBT},     {300, 407, BLOCKED}, {408, 408, THROTTLED}, {409, 428, BLOCKED},
	{429, 429, THROTTLED}, {430, 499, BLOCKED}, {500, 700, DOUBT},
};

/* A reply that came whole. */
static Exchange
whole_reply(int dialect, int kind, long status, const char *body)
{
	Exchange exchange = {
		.dialect = dialect,
		.kind = kind,
		.user_id = "u1",
		.secret = CREDENTIAL,
		.headers_whole = true,
		.http_status = status,
		.retry_after = -1,
		.body = body,
		.body_length = strlen(body),
	};

	return exchange;
}

/* Whatever the outcome, the parts of a reply fit together. */
static void
check_reply(const Exchange *exchange, const GatewayReply *reply)
{
	bool done = reply->outcome == GATEWAY_COMPLETED;
	bool query = exchange->kind == EXCHANGE_BALANCE || exchange->kind == EXCHANGE_USED;

	CHECK(done == (reply->message[0] == '\0'), "%s with message \"%s\"",
		  outcome_name(reply->outcome), reply->message);
	CHECK((reply->balance[0] != '\0') == (done && query), "%s with balance \"%s\"",
		  outcome_name(reply->outcome), reply->balance);
	CHECK(strchr(reply->message, '\n') == NULL, "more than a line: %s", reply->message);
	CHECK(strstr(reply->message, "secret") == NULL, "secret in %s", reply->message);
}

static void
test_replies(void)
{
	size_t i;

	for (i = 0; i < COUNT(replies); i++)
	{
		Exchange exchange =
			whole_reply(replies[i].dialect, replies[i].kind, replies[i].status, replies[i].body);
		GatewayReply reply;

		classify(&exchange, &reply);
		EXPECT(reply, (GatewayOutcome) replies[i].outcome, replies[i].body);
		check_reply(&exchange, &reply);
		if (replies[i].balance)
			CHECK(strcmp(reply.balance, replies[i].balance) == 0, "%s gave %s", replies[i].body,
				  reply.balance);

		/* the same reply proves less if it was cut or came too early */
		if (replies[i].outcome == DONE && replies[i].status < 300)
		{
			exchange.fault = "transfer closed with 3 bytes remaining to read";
			classify(&exchange, &reply);
			EXPECT(reply, GATEWAY_IN_DOUBT, "cut off");
			exchange.fault = NULL;
			exchange.partly_sent = true;
			classify(&exchange, &reply);
			EXPECT(reply, GATEWAY_IN_DOUBT, "too early");
		}
	}
}

static void
test_statuses(void)
{
	static const char *const bodies[] = {"", "text", "delta quota successful",
										 ZGSM_OK("deltaquota"), "{\"quota\":1}"};
	size_t                   i;
	size_t                   j;
	long                     status;
	int                      kind;

	for (i = 0; i < COUNT(statuses); i++)
		for (status = statuses[i].first; status <= statuses[i].last; status++)
			for (j = 0; j < COUNT(bodies); j++)
				for (kind = EXCHANGE_BALANCE; kind <= EXCHANGE_DELTA; kind++)
				{
					Exchange     exchange = whole_reply((int) (j & 1), kind, status, bodies[j]);
					GatewayReply reply;
					bool         long_query = (status == 414 || status == 431) &&
									  (kind == EXCHANGE_BALANCE || kind == EXCHANGE_USED);
					GatewayOutcome expected =
						long_query ? GATEWAY_REFUSED : (GatewayOutcome) statuses[i].outcome;

					/* a cut body does not change what the status says */
					exchange.fault = status & 1 ? "cut off" : NULL;
					classify(&exchange, &reply);
					if (reply.outcome != expected || reply.http_status != status)
						EXPECT(reply, expected, bodies[j]);
				}
	CHECK(true, "statuses");
}

/* Without a whole header only one thing counts: whether anything was sent. */
static void
test_no_reply(void)
{
	int i;

	for (i = 0; i < 8; i++)
	{
		Exchange     exchange = whole_reply(i & 1, EXCHANGE_DELTA, i & 2 ? 403 : 0, "");
		GatewayReply reply;

		exchange.headers_whole = false;
		exchange.nothing_sent = i & 4;
		exchange.fault = "Connection reset by peer";
		classify(&exchange, &reply);
		EXPECT(reply, i & 4 ? GATEWAY_NOT_SENT : GATEWAY_IN_DOUBT, "no reply");
		CHECK(reply.http_status == 0 && reply.retry_after < 0, "HTTP %ld", reply.http_status);
		CHECK(strcmp(reply.message, exchange.fault) == 0, "\"%s\"", reply.message);
	}
}

static void
test_messages(void)
{
	static const struct
	{
		int         dialect;
		long        status;
		const char *body;
		const char *message;
		bool        names_parameters;
	} cases[] = {
		{H, 403, HIGRESS_PARAMETERS, "HTTP 403: " HIGRESS_PARAMETERS, true},
		{H, 403, "Request denied by ai quota check. Unauthorized consumer.",
		 "HTTP 403: Request denied by ai quota check. Unauthorized consumer.", false},
		{H, 403, "", "HTTP 403", false},
		{H, 403, " \r\n", "HTTP 403", false},
		{H, 503, "redis error:\n timeout", "HTTP 503: redis error: timeout", false},
		{H, 401, OWN "bad key " CREDENTIAL "!", "HTTP 401: " OWN "bad key ***!", false},
		{H, 401, "{\"code\":\"ai-gateway.x\",\"message\":\"m\"}", "HTTP 401: ai-gateway.x: m",
		 false},
		{H, 401, "{\"message\":\"" OWN "no\"}", "HTTP 401: " OWN "no", false},
		{Z, 400, ZGSM_BAD("invalid_params"), "HTTP 400: ai-gateway.invalid_params: bad", true},
		{Z, 403, ZGSM_BAD("unauthorized"), "HTTP 403: ai-gateway.unauthorized: bad", false},
		{Z, 200, ZGSM_BAD("error"), "HTTP 200: ai-gateway.error: bad", false},
		{Z, 403, "{\"code\":\"ai-gateway.x\",\"message\":\"sk-very-\\u0073ecret-0123456789\"}",
		 "HTTP 403: ai-gateway.x: ***", false},

		/* whoever else it is: the text is not repeated, though it may blame the parameters */
		{H, 404, "must be integer", "HTTP 404 (text/plain)", false},
		{H, 200, "<html>\n<b>", "HTTP 200: not the reply of an AiGateway (text/plain)", false},
		{H, 403, "consumer or group must be set", "HTTP 403 (text/plain)", true},
		{H, 403, "value must be an integer", "HTTP 403 (text/plain)", true},
		{H, 400, "must be integer", "HTTP 400 (text/plain)", false},
		{H, 200, "{\"access_token\":\"ya29\"}",
		 "HTTP 200: not the reply of an AiGateway (text/plain)", false},
		{H, 403, " " OWN "no", "HTTP 403 (text/plain)", false},
		{Z, 403, "{\"message\":\"\"}", "HTTP 403 (text/plain)", false},
		{Z, 403, "{\"message\":\"sk-very-\\u0073ecret-0123456789\"}", "HTTP 403 (text/plain)",
		 false},
		{Z, 200, "{\"success\":false,\"message\":\"token ya29\"}", "HTTP 200 (text/plain)", false},
		{Z, 200, "{\"code\":\"token ya29\"}",
		 "HTTP 200: the reply does not say whether it succeeded (text/plain)", false},
		{Z, 500, "{\"code\":\"InvalidToken\",\"message\":\"ya29\"}", "HTTP 500 (text/plain)",
		 false},
	};
	char   body[9000];
	size_t i;

	for (i = 0; i < COUNT(cases); i++)
	{
		Exchange exchange =
			whole_reply(cases[i].dialect, EXCHANGE_DELTA, cases[i].status, cases[i].body);
		GatewayReply reply;

		exchange.content_type = exchange.body_length > 3 ? "text/plain" : NULL;
		classify(&exchange, &reply);
		CHECK(strcmp(reply.message, cases[i].message) == 0, "got \"%s\"", reply.message);
		CHECK(reply.names_parameters == cases[i].names_parameters, "%s", cases[i].body);
	}

	/* a credential at any place of a long text, and one that is cut off at its end */
	for (i = 0; i < sizeof(body) - 64; i += 7)
	{
		Exchange     exchange;
		GatewayReply reply;

		memset(body, i & 1 ? 'x' : ' ', sizeof(body));
		memcpy(body + i, CREDENTIAL, strlen(CREDENTIAL));
		body[i + strlen(CREDENTIAL) - (i % 3 == 0 ? 6 : 0)] = '\0';
		if (i & 4)
			memcpy(body, OWN, strlen(OWN) < i ? strlen(OWN) : i);
		exchange = whole_reply(H, EXCHANGE_DELTA, i & 2 ? 200 : 403, body);
		classify(&exchange, &reply);
		if (strstr(reply.message, "sk-very") != NULL)
			CHECK(false, "at %zu: %s", i, reply.message);
	}
}

/* Replies of the table above, mutated: no crash, and the parts fit together. */
static void
test_random_replies(void)
{
	unsigned seed = 7;
	int      i;

	for (i = 0; i < 100000; i++)
	{
		size_t       pick = (size_t) rand_r(&seed) % COUNT(replies);
		char         body[300];
		size_t       length = strlen(replies[pick].body);
		Exchange     exchange;
		GatewayReply reply;
		bool         fits;
		int          changes;

		memcpy(body, replies[pick].body, length + 1);
		for (changes = rand_r(&seed) % 4; changes > 0 && length > 0; changes--)
		{
			size_t at = (size_t) rand_r(&seed) % length;

			if (rand_r(&seed) % 2)
				body[at] = "{}[]\"',:0159.eE-\\u \n\xff\x80"[rand_r(&seed) % 22];
			else
				length = at;
		}
		exchange = whole_reply(replies[pick].dialect, replies[pick].kind, replies[pick].status, "");
		exchange.body = body;
		exchange.body_length = length;
		classify(&exchange, &reply);
		fits = (reply.outcome == GATEWAY_COMPLETED) == (reply.message[0] == '\0') &&
			   reply.outcome != GATEWAY_NOT_SENT;
		if (!fits)
			check_reply(&exchange, &reply);
	}
	CHECK(true, "random replies");
}

void
test_classes(void)
{
	test_replies();
	test_statuses();
	test_no_reply();
	test_messages();
	test_random_replies();
}
