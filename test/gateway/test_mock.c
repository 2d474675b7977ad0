/*
 * test_mock.c
 *		Both dialects against aigateway-mock, which keeps an exact record of what
 *		it applied.
 */
#include <stdio.h>
#include <stdlib.h>

#include <curl/curl.h>

#include "check.h"

/* Collects a reply of the mock's operator interface, as far as it fits. */
typedef struct Answer
{
	char   text[65536];
	size_t used;
} Answer;

static size_t
collect(char *piece, size_t size, size_t count, void *data)
{
	Answer *answer = data;
	size_t  length = size * count;

	if (length > sizeof(answer->text) - 1 - answer->used)
		length = sizeof(answer->text) - 1 - answer->used;
	memcpy(answer->text + answer->used, piece, length);
	answer->used += length;
	answer->text[answer->used] = '\0';
	return size * count;
}

/* Calls a path under /mock/; with a form it is a POST. */
static Answer *
operate(const char *base_url, const char *path, const char *form)
{
	static Answer answer;
	CURL         *easy = curl_easy_init();
	char          url[200];

	answer.used = 0;
	answer.text[0] = '\0';
	snprintf(url, sizeof(url), "%s/mock/%s", base_url, path);
	curl_easy_setopt(easy, CURLOPT_URL, url);
	curl_easy_setopt(easy, CURLOPT_NOPROXY, "*");
	curl_easy_setopt(easy, CURLOPT_FAILONERROR, 1L);
	curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, collect);
	curl_easy_setopt(easy, CURLOPT_WRITEDATA, &answer);
	if (form)
		curl_easy_setopt(easy, CURLOPT_POSTFIELDS, form);
	CHECK(curl_easy_perform(easy) == CURLE_OK, "%s %s", path, form ? form : "");
	curl_easy_cleanup(easy);
	return &answer;
}

/* How many changes the mock has applied. */
static int
applied(const char *base_url)
{
	const char *c = operate(base_url, "applied", NULL)->text;
	int         count = 0;

	while ((c = strstr(c, "\"seq\":")) != NULL)
	{
		count++;
		c++;
	}
	return count;
}

/* Queries until the balance is told, and compares. */
static void
check_balance(GatewaySession *session, const char *user, const char *balance, const char *total)
{
	GatewayReply reply = ask(session, GATEWAY_QUERY, user, NULL);

	EXPECT(reply, GATEWAY_COMPLETED, "query");
	CHECK(strcmp(reply.balance, balance) == 0 && strcmp(reply.total, total) == 0,
		  "%s has %s of \"%s\"", user, reply.balance, reply.total);
}

/* Changes that are applied, and users of all kinds. */
static void
test_changes(GatewayDialect dialect, const char *base_url)
{
	static const char *const users[] = {
		"alice",       "a b+c%20&d=e;f#g?h",    "\xe5\xbc\xa0\xe4\xb8\x89 \xf0\x9f\x98\x80",
		"\"quota\":9", "tab\there\nand\\there",
	};
	GatewayConfig   config = test_config(dialect, base_url);
	GatewaySession *session = open_session(&config);
	bool            zgsm = dialect == GATEWAY_ZGSM;
	size_t          i;

	for (i = 0; i < sizeof(users) / sizeof(users[0]); i++)
	{
		operate(base_url, "reset", "");
		check_balance(session, users[i], "0", zgsm ? "0" : "");
		EXPECT(ask(session, GATEWAY_DELTA, users[i], "100"), GATEWAY_COMPLETED, users[i]);
		EXPECT(ask(session, GATEWAY_DELTA, users[i], "-30.0"), GATEWAY_COMPLETED, users[i]);
		check_balance(session, users[i], "70", zgsm ? "70" : "");
		EXPECT(ask(session, GATEWAY_REFRESH, users[i], "9"), GATEWAY_COMPLETED, users[i]);
		check_balance(session, users[i], "9", zgsm ? "9" : "");
		CHECK(applied(base_url) == 3, "%d applied", applied(base_url));
	}
	if (zgsm)
	{
		EXPECT(ask(session, GATEWAY_DELTA, "bob", "0.100001"), GATEWAY_COMPLETED, "decimals");
		EXPECT(ask(session, GATEWAY_DELTA, "bob", "0.2"), GATEWAY_COMPLETED, "decimals");
		operate(base_url, "balance", "user=bob&used=0.000002");
		check_balance(session, "bob", "0.299999", "0.300001");
	}
	else
	{
		EXPECT(ask(session, GATEWAY_REFRESH, "bob", "-9223372036854775807"), GATEWAY_COMPLETED,
			   "large");
		check_balance(session, "bob", "-9223372036854775807", "");
	}
	gateway_close(session);
}

/* Keys, routes and paths that are wrong. */
static void
test_misconfigured(GatewayDialect dialect, const char *base_url)
{
	GatewayConfig   config = test_config(dialect, base_url);
	GatewaySession *session;
	GatewayReply    reply;

	operate(base_url, "reset", "");
	config.credential = "wrong";
	session = open_session(&config);
	reply = ask(session, GATEWAY_DELTA, "u", "1");
	EXPECT(reply, GATEWAY_BLOCKED, "wrong key");
	CHECK(!reply.names_parameters, "%s", reply.message);
	EXPECT(ask(session, GATEWAY_QUERY, "u", NULL), GATEWAY_BLOCKED, "wrong key");
	gateway_close(session);

	config.credential = NULL;
	session = open_session(&config);
	EXPECT(ask(session, GATEWAY_DELTA, "u", "1"), GATEWAY_BLOCKED, "no key");
	gateway_close(session);

	config = test_config(dialect, base_url);
	config.admin_path = "/nowhere";
	session = open_session(&config);
	EXPECT(ask(session, GATEWAY_DELTA, "u", "1"), GATEWAY_BLOCKED, "wrong path");
	gateway_close(session);

	/* a gateway of the other dialect behind the URL */
	config = test_config(dialect == GATEWAY_ZGSM ? GATEWAY_HIGRESS : GATEWAY_ZGSM, base_url);
	session = open_session(&config);
	reply = ask(session, GATEWAY_DELTA, "u", "1");
	EXPECT(reply, GATEWAY_BLOCKED, "wrong dialect");
	gateway_close(session);
	CHECK(applied(base_url) == 0, "%d applied", applied(base_url));
}

/* Every fault the mock knows: what the delta is called, and whether it was applied. */
static void
test_scripted_faults(GatewayDialect dialect, const char *base_url)
{
	static const struct
	{
		const char    *fault;
		GatewayOutcome outcome;
		int            applied;
	} cases[] = {
		{"kind=slow&delay_ms=30", GATEWAY_COMPLETED, 1},
		{"kind=slow&delay_ms=600", GATEWAY_IN_DOUBT, 1},
		{"kind=status&status=503", GATEWAY_IN_DOUBT, 0},
		{"kind=apply_status&status=503", GATEWAY_IN_DOUBT, 1},
		{"kind=status&status=429&retry_after=3", GATEWAY_THROTTLED, 0},
		{"kind=status&status=408", GATEWAY_THROTTLED, 0},
		{"kind=status&status=403", GATEWAY_BLOCKED, 0},
		{"kind=status&status=302", GATEWAY_BLOCKED, 0},
		{"kind=status&status=422", GATEWAY_REFUSED, 0},
		{"kind=html", GATEWAY_IN_DOUBT, 0},
		{"kind=close", GATEWAY_IN_DOUBT, 0},
		{"kind=apply_close", GATEWAY_IN_DOUBT, 1},
		{"kind=reset", GATEWAY_IN_DOUBT, 0},
		{"kind=apply_reset", GATEWAY_IN_DOUBT, 1},
		{"kind=hang", GATEWAY_IN_DOUBT, 0},
		{"kind=apply_hang", GATEWAY_IN_DOUBT, 1},
	};
	GatewayConfig   config = test_config(dialect, base_url);
	GatewaySession *session;
	size_t          i;

	config.request_timeout_ms = 300;
	session = open_session(&config);
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		char         fault[100];
		GatewayReply reply;

		operate(base_url, "reset", "");
		EXPECT(ask(session, GATEWAY_DELTA, "u", "5"), GATEWAY_COMPLETED, "before");
		snprintf(fault, sizeof(fault), "%s&match=delta", cases[i].fault);
		operate(base_url, "fault", fault);
		reply = ask(session, GATEWAY_DELTA, "u", "7");
		EXPECT(reply, cases[i].outcome, cases[i].fault);
		if (strstr(cases[i].fault, "retry_after"))
			CHECK(reply.retry_after == 3, "%g", reply.retry_after);
		CHECK(applied(base_url) == 1 + cases[i].applied, "%s: applied %d times", cases[i].fault,
			  applied(base_url) - 1);
	}
	gateway_close(session);
}

/* Many at once while every kind of fault strikes: what is said is what was done. */
static void
test_under_load(GatewayDialect dialect, const char *base_url)
{
	static const char *const faults[] = {
		"kind=apply_close&match=delta&count=10",  "kind=close&match=delta&count=10",
		"kind=apply_reset&match=delta&count=10",  "kind=status&status=429&match=delta&count=10",
		"kind=apply_status&match=delta&count=10",
	};
	const int       total = 2000;
	GatewayConfig   config = test_config(dialect, base_url);
	GatewaySession *session;
	GatewayResult   results[32];
	int             counts[6] = {0};
	int             submitted = 0;
	int             done = 0;
	int             i;
	bool            armed = false;
	char            balance[32];

	operate(base_url, "reset", "");
	config.max_connections = 32;
	session = open_session(&config);
	while (done < total)
	{
		int count;

		if (done >= 500 && !armed)
			for (i = 0; i < 5; i++)
				operate(base_url, "fault", faults[i]);
		armed = done >= 500;
		while (submitted < total && gateway_room(session) > 0)
		{
			GatewayRequest request = {.action = GATEWAY_DELTA, .user_id = "load", .amount = "1"};

			gateway_submit(session, &request);
			submitted++;
		}
		count = gateway_poll(session, 1000, results, 32);
		for (i = 0; i < count; i++)
			counts[results[i].reply.outcome]++;
		done += count;
	}
	CHECK(counts[GATEWAY_IN_DOUBT] == 40 && counts[GATEWAY_THROTTLED] == 10 &&
			  counts[GATEWAY_COMPLETED] == total - 50,
		  "%d completed, %d in doubt, %d throttled", counts[GATEWAY_COMPLETED],
		  counts[GATEWAY_IN_DOUBT], counts[GATEWAY_THROTTLED]);
	snprintf(balance, sizeof(balance), "%d", total - 20);
	check_balance(session, "load", balance, dialect == GATEWAY_ZGSM ? balance : "");
	gateway_close(session);
}

void
test_mock(GatewayDialect dialect, const char *base_url)
{
	test_changes(dialect, base_url);
	test_misconfigured(dialect, base_url);
	test_scripted_faults(dialect, base_url);
	test_under_load(dialect, base_url);
	operate(base_url, "reset", "");
}
