/*
 * check.h
 *		Counting checks, and asking a gateway one question at a time.
 */
#ifndef CHECK_H
#define CHECK_H

#include <stdbool.h>
#include <string.h>

#include "gateway/gateway.h"

/* Counts a check, and reports it with what is printed after it if it fails. */
#define CHECK(condition, ...) check_that((condition), #condition, __FILE__, __LINE__, __VA_ARGS__)

extern void check_that(bool condition, const char *text, const char *file, int line,
					   const char *format, ...) __attribute__((format(printf, 5, 6)));

/* Prints "N passed, N failed"; the exit status. */
extern int check_summary(void);

/* The name of an outcome. */
extern const char *outcome_name(GatewayOutcome outcome);

/* A configuration for tests: short time-outs, the credential CREDENTIAL. */
#define CREDENTIAL "sk-very-secret-0123456789"
extern GatewayConfig test_config(GatewayDialect dialect, const char *base_url);

/* Opens a session that must open. */
extern GatewaySession *open_session(const GatewayConfig *config);

/* Sends one request, with an idempotency key if it is not a query, and waits for its reply. */
extern GatewayReply ask(GatewaySession *session, GatewayAction action, const char *user_id,
						const char *amount);

/* Checks an outcome, and prints the reply if it is another. */
#define EXPECT(reply, expected, why) expect_outcome((reply), (expected), (why), __FILE__, __LINE__)

extern void expect_outcome(GatewayReply reply, GatewayOutcome expected, const char *why,
						   const char *file, int line);

/* The groups of checks. */
extern void test_values(void);
extern void test_address(void);
extern void test_classes(void);
extern void test_wire(void);
extern void test_faults(void);
extern void test_hostile(void);
extern void test_session(void);
extern void test_tls(const char *base_url, bool trusted);
extern void test_kinds(GatewayDialect dialect, const char *base_url);
extern void test_mock(GatewayDialect dialect, const char *base_url);

#endif /* CHECK_H */
