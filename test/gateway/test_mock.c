/*
 * test_mock.c
 *		Both dialects against aigateway-mock, which keeps an exact record of what
 *		it applied.
 */
#include <stdio.h>
#include <stdlib.h>

#include "check.h"
#include "mock_control.h"

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
		mock_do(base_url, "reset", "");
		check_balance(session, users[i], "0", zgsm ? "0" : "");
		EXPECT(ask(session, GATEWAY_DELTA, users[i], "100"), GATEWAY_COMPLETED, users[i]);
		EXPECT(ask(session, GATEWAY_DELTA, users[i], "-30.0"), GATEWAY_COMPLETED, users[i]);
		check_balance(session, users[i], "70", zgsm ? "70" : "");
		EXPECT(ask(session, GATEWAY_REFRESH, users[i], "9"), GATEWAY_COMPLETED, users[i]);
		check_balance(session, users[i], "9", zgsm ? "9" : "");
		/* which shows whether the gateway takes writes, and changes nothing */
		EXPECT(ask(session, GATEWAY_DELTA, users[i], "0"), GATEWAY_COMPLETED, users[i]);
		check_balance(session, users[i], "9", zgsm ? "9" : "");
		CHECK(mock_applied(base_url) == 4, "%d applied", mock_applied(base_url));
	}
	if (zgsm)
	{
		EXPECT(ask(session, GATEWAY_DELTA, "bob", "0.100001"), GATEWAY_COMPLETED, "decimals");
		EXPECT(ask(session, GATEWAY_DELTA, "bob", "0.2"), GATEWAY_COMPLETED, "decimals");
		mock_do(base_url, "balance", "user=bob&used=0.000002");
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

	mock_do(base_url, "reset", "");
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
	CHECK(mock_applied(base_url) == 0, "%d applied", mock_applied(base_url));
}

/* Many at once while every kind of fault strikes: what is said is what was done. */
static void
test_under_load(GatewayDialect dialect, const char *base_url)
{
	static const char *const faults[] = {
		"kind=apply_close&match=delta&count=10",  "kind=close&match=delta&count=10",
		"kind=apply_reset&match=delta&count=10",  "kind=status&status=429&match=delta&count=10",
		"kind=apply_status&match=delta&count=10", "kind=apply_extra&match=delta&count=200",
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

	mock_do(base_url, "reset", "");
	config.max_connections = 32;
	session = open_session(&config);
	while (done < total)
	{
		int count;

		if (done >= 500 && !armed)
			for (i = 0; i < (int) (sizeof(faults) / sizeof(faults[0])); i++)
				mock_do(base_url, "fault", faults[i]);
		armed = done >= 500;
		while (submitted < total && gateway_free_slots(session) > 0)
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

/* How often the mock applied a change of each of so many users. */
static void
count_applied(const char *base_url, int *counts, int users)
{
	const char *c = mock_do(base_url, "applied", NULL);

	memset(counts, 0, (size_t) users * sizeof(*counts));
	for (c = strstr(c, "\"user\":\"u"); c; c = strstr(c + 1, "\"user\":\"u"))
	{
		int user = atoi(c + strlen("\"user\":\"u"));

		if (user < users)
			counts[user]++;
	}
}

/*
 * Each fault strikes a share of the requests, many at once, each for a user of
 * its own: what was called completed was applied once, what was called anything
 * but in doubt was not, and nothing was applied twice.
 */
static void
test_any_fault(GatewayDialect dialect, const char *base_url)
{
	static const char *const kinds[] = {
		"close",
		"apply_close",
		"reset",
		"apply_reset",
		"html",
		"apply_html",
		"half_header",
		"apply_half_header",
		"cut_off",
		"apply_cut_off",
		"apply_extra",
		"extra",
		"truncated",
		"apply_truncated",
		"not_utf8",
		"apply_not_utf8",
		"duplicate_key",
		"apply_status",
		"status",
		"status&status=429",
		"refuse",
		"failure",
		"redirect",
		"status&status=404",
		"apply_drip",
		"extra&status=429",
		"apply_unparsable",
		"nested",
		"hang",
		"apply_hang",
		"apply_late",
		"apply_huge&size=200000",
	};
	enum
	{
		TOTAL = 3000
	};
	static int      applied[TOTAL];
	static int      outcomes[TOTAL];
	GatewayConfig   config = test_config(dialect, base_url);
	GatewaySession *session;
	GatewayResult   results[32];
	int             counts[6] = {0};
	int             submitted = 0;
	int             done = 0;
	int             wrong = 0;
	int             i;

	mock_do(base_url, "reset", "");
	for (i = 0; i < (int) (sizeof(kinds) / sizeof(kinds[0])); i++)
	{
		char fault[120];

		snprintf(fault, sizeof(fault), "kind=%s&match=delta&count=0&seed=%d&probability=%s",
				 kinds[i], i,
				 strstr(kinds[i], "hang") || strstr(kinds[i], "late") ? "0.004" : "0.02");
		mock_do(base_url, "fault", fault);
	}
	config.max_connections = 32;
	config.request_timeout_ms = 400;
	session = open_session(&config);
	while (done < TOTAL)
	{
		int count;

		while (submitted < TOTAL && gateway_free_slots(session) > 0)
		{
			char           user[20];
			GatewayRequest request = {.action = GATEWAY_DELTA,
									  .user_id = user,
									  .amount = "1",
									  .token = &outcomes[submitted]};

			snprintf(user, sizeof(user), "u%d", submitted++);
			gateway_submit(session, &request);
		}
		count = gateway_poll(session, 1000, results, 32);
		for (i = 0; i < count; i++)
		{
			*(int *) results[i].token = results[i].reply.outcome;
			counts[results[i].reply.outcome]++;
		}
		done += count;
	}
	gateway_close(session);

	count_applied(base_url, applied, TOTAL);
	for (i = 0; i < TOTAL; i++)
	{
		int least = outcomes[i] == GATEWAY_COMPLETED;
		int most = least || outcomes[i] == GATEWAY_IN_DOUBT;

		if (applied[i] >= least && applied[i] <= most)
			continue;
		wrong++;
		printf("u%d was called %s and applied %d times\n", i,
			   outcome_name((GatewayOutcome) outcomes[i]), applied[i]);
	}
	CHECK(wrong == 0, "%d of %d", wrong, TOTAL);
	CHECK(counts[GATEWAY_COMPLETED] > 500 && counts[GATEWAY_IN_DOUBT] > 500 &&
			  counts[GATEWAY_THROTTLED] > 10 && counts[GATEWAY_BLOCKED] > 10,
		  "%d completed, %d in doubt, %d throttled, %d blocked", counts[GATEWAY_COMPLETED],
		  counts[GATEWAY_IN_DOUBT], counts[GATEWAY_THROTTLED], counts[GATEWAY_BLOCKED]);
}

void
test_mock(GatewayDialect dialect, const char *base_url)
{
	test_changes(dialect, base_url);
	test_misconfigured(dialect, base_url);
	test_kinds(dialect, base_url);
	test_under_load(dialect, base_url);
	test_any_fault(dialect, base_url);
	mock_do(base_url, "reset", "");
}
