/*
 * check.c
 *		Counting checks, and asking a gateway one question at a time.
 */
#include "check.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static int passed = 0;
static int failed = 0;

void
check_that(bool condition, const char *text, const char *file, int line, const char *format, ...)
{
	va_list args;

	if (condition)
	{
		passed++;
		return;
	}
	failed++;
	printf("%s:%d: failed: %s: ", file, line, text);
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	putchar('\n');
}

int
check_summary(void)
{
	printf("%d passed, %d failed\n", passed, failed);
	return failed > 0 || passed == 0;
}

const char *
outcome_name(GatewayOutcome outcome)
{
	static const char *const names[] = {"completed", "not sent", "throttled",
										"blocked",   "refused",  "in doubt"};

	return names[outcome];
}

void
expect_outcome(GatewayReply reply, GatewayOutcome expected, const char *why, const char *file,
			   int line)
{
	check_that(reply.outcome == expected, outcome_name(expected), file, line,
			   "%s: got %s, HTTP %ld, \"%s\"", why, outcome_name(reply.outcome), reply.http_status,
			   reply.message);
}

GatewayConfig
test_config(GatewayDialect dialect, const char *base_url)
{
	GatewayConfig config = {
		.dialect = dialect,
		.base_url = base_url,
		.credential = CREDENTIAL,
		.user_agent = "quota_manager/test",
		.connect_timeout_ms = 2000,
		.request_timeout_ms = 5000,
		.max_connections = 4,
		.max_reply_bytes = 16384,
	};

	return config;
}

GatewaySession *
open_session(const GatewayConfig *config)
{
	char            error[200] = "";
	GatewaySession *session = gateway_open(config, error, sizeof(error));

	if (!session)
	{
		printf("cannot open a session: %s\n", error);
		exit(1);
	}
	return session;
}

GatewayReply
ask(GatewaySession *session, GatewayAction action, const char *user_id, const char *amount)
{
	GatewayRequest request = {
		.action = action,
		.user_id = user_id,
		.amount = amount,
		.idempotency_key = action == GATEWAY_QUERY ? NULL : "7443-1-42",
		.token = &request,
	};
	GatewayResult result = {0};
	int           turns;

	if (!gateway_submit(session, &request))
	{
		printf("a request was not taken\n");
		exit(1);
	}
	for (turns = 0; turns < 200; turns++)
		if (gateway_poll(session, 100, &result, 1) == 1)
			break;
	CHECK(result.token == &request, "the token of %s is not that of its request", user_id);
	return result.reply;
}
