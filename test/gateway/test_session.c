/*
 * test_session.c
 *		Opening, many requests at once, time, signals, closing.
 */
#include <fcntl.h>
#include <pthread.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "check.h"
#include "fault_server.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static double
clock_ms(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return (double) now.tv_sec * 1e3 + (double) now.tv_nsec / 1e6;
}

/* Every configuration that cannot be used is told by name, before anything is sent. */
static void
test_refused_configs(void)
{
	GatewayConfig good = test_config(GATEWAY_HIGRESS, "http://127.0.0.1:1");
	GatewayConfig bad[26];
	size_t        count = 0;
	size_t        i;

#define BAD(member, value) (bad[count] = good, bad[count].member = (value), count++)
	BAD(base_url, NULL);
	BAD(base_url, "ftp://a");
	BAD(base_url, "http://user:pass@a");
	BAD(admin_path, "quota");
	BAD(admin_path, "");
	BAD(admin_path, "/quota?x=1");
	BAD(admin_path, "/quota\r\nX: y");
	BAD(credential, "");
	BAD(credential, "secret\nX: y");
	BAD(credential, "secret ");
	BAD(key_header, "X y");
	BAD(key_header, "content-length");
	BAD(key_header, "Metadata-Flavor");
	BAD(key_header, "Metadata");
	BAD(key_header, "Cookie");
	BAD(key_header, "x-");
	BAD(key_header, "x-a b");
	BAD(key_header, "x-a_b");
	BAD(key_header, "x-higress-LLM-model");
	BAD(key_header, "Authorization2");
	BAD(route_model, "a\rb");
	BAD(user_agent, "");
	BAD(connect_timeout_ms, 0);
	BAD(request_timeout_ms, -1);
	BAD(max_connections, 0);
	BAD(max_reply_bytes, 0);
#undef BAD

	for (i = 0; i < count; i++)
	{
		char            error[120] = "";
		GatewaySession *session = gateway_open(&bad[i], error, sizeof(error));

		CHECK(session == NULL && error[0] != '\0', "configuration %zu", i);
		CHECK(strstr(error, "secret") == NULL && strstr(error, "pass@") == NULL, "%s", error);
		gateway_close(session);
	}
	{
		char error[5] = "xxxx";

		CHECK(gateway_open(&bad[0], error, sizeof(error)) == NULL && strlen(error) == 4,
			  "a short error is \"%s\"", error);
	}
}

/* What cannot be written down is refused here, at once and for good. */
static void
test_refused_requests(FaultServer *server)
{
	static const struct
	{
		GatewayDialect dialect;
		GatewayRequest request;
	} cases[] = {
		{GATEWAY_HIGRESS, {.action = GATEWAY_DELTA, .user_id = "", .amount = "1"}},
		{GATEWAY_HIGRESS, {.action = GATEWAY_QUERY, .user_id = ""}},
		{GATEWAY_HIGRESS, {.action = GATEWAY_DELTA, .user_id = "u", .amount = "1.5"}},
		{GATEWAY_HIGRESS, {.action = GATEWAY_DELTA, .user_id = "u", .amount = NULL}},
		{GATEWAY_HIGRESS, {.action = GATEWAY_REFRESH, .user_id = "u", .amount = "1&value=9"}},
		{GATEWAY_ZGSM, {.action = GATEWAY_DELTA, .user_id = "u", .amount = "0.0000001"}},
		{GATEWAY_ZGSM, {.action = GATEWAY_DELTA, .user_id = "u", .amount = "NaN"}},
		{GATEWAY_ZGSM,
		 {.action = GATEWAY_DELTA,
		  .user_id = "u",
		  .amount = "1",
		  .idempotency_key = "a\r\nX-Evil: b"}},
		{GATEWAY_ZGSM,
		 {.action = GATEWAY_DELTA, .user_id = "u", .amount = "1", .idempotency_key = ""}},
	};
	size_t i;

	fault_server_script(server, &(FaultStep){.bytes = DELTA_OK}, 1);
	for (i = 0; i < COUNT(cases); i++)
	{
		GatewayConfig   config = test_config(cases[i].dialect, fault_server_url(server));
		GatewaySession *session = open_session(&config);
		GatewayRequest  request = cases[i].request;
		GatewayResult   result = {0};

		request.token = &request;
		CHECK(gateway_submit(session, &request), "case %zu", i);
		CHECK(gateway_in_flight(session) == 1, "case %zu", i);
		CHECK(gateway_poll(session, 0, &result, 1) == 1, "case %zu", i);
		EXPECT(result.reply, GATEWAY_REFUSED, "cannot be written down");
		CHECK(result.token == &request && result.reply.http_status == 0 &&
				  result.reply.message[0] != '\0',
			  "case %zu", i);
		gateway_close(session);
	}
	CHECK(fault_server_requests(server) == 0, "%d requests", fault_server_requests(server));
}

/* More requests than fit: each gives one result, over as many connections as allowed. */
static void
test_many(FaultServer *server, int connections)
{
	const int       total = 2000;
	GatewayConfig   config = test_config(GATEWAY_HIGRESS, fault_server_url(server));
	GatewaySession *session;
	int            *seen = calloc((size_t) total, sizeof(*seen));
	int             submitted = 0;
	int             done = 0;
	int             completed = 0;
	bool            counted = true;
	int             i;

	config.max_connections = connections;
	session = open_session(&config);
	fault_server_script(server, &(FaultStep){.bytes = DELTA_OK}, 1);
	while (done < total)
	{
		GatewayResult results[7];
		int           count;

		while (submitted < total && gateway_free_slots(session) > 0)
		{
			char           user[20];
			GatewayRequest request = {.action = GATEWAY_DELTA,
									  .user_id = user,
									  .amount = "1",
									  .idempotency_key = submitted % 2 ? user : NULL,
									  .token = &seen[submitted]};

			snprintf(user, sizeof(user), "user%d", submitted);
			if (!gateway_submit(session, &request))
				break;
			submitted++;
		}
		counted &= gateway_free_slots(session) + gateway_in_flight(session) == connections;
		if (gateway_free_slots(session) == 0)
		{
			GatewayRequest more = {.action = GATEWAY_DELTA, .user_id = "u", .amount = "1"};

			counted &= !gateway_submit(session, &more);
		}
		/* fewer results than there may be: the rest waits for the next call */
		count = gateway_poll(session, 5000, results, COUNT(results));
		if (count == 0)
			break;
		for (i = 0; i < count; i++)
		{
			++*(int *) results[i].token;
			completed += results[i].reply.outcome == GATEWAY_COMPLETED;
		}
		done += count;
	}
	for (i = 0; i < total && seen[i] == 1; i++)
		;
	CHECK(i == total, "request %d gave %d results", i, i < total ? seen[i] : 1);
	CHECK(counted, "room and requests in flight do not add up");
	CHECK(completed == total, "%d of %d completed", completed, total);
	CHECK(fault_server_requests(server) == total, "%d requests", fault_server_requests(server));
	CHECK(fault_server_connections(server) <= connections, "%d connections",
		  fault_server_connections(server));
	CHECK(gateway_in_flight(session) == 0, "%d in flight", gateway_in_flight(session));
	gateway_close(session);
	free(seen);
}

/* A poll lasts as long as asked and works only when there is work. */
static void
test_time(FaultServer *server)
{
	GatewayConfig   config = test_config(GATEWAY_HIGRESS, fault_server_url(server));
	GatewaySession *session;
	GatewayRequest  request = {.action = GATEWAY_DELTA, .user_id = "u", .amount = "1"};
	GatewayResult   result = {0};
	double          began;
	double          cpu;
	double          lasted;

	config.request_timeout_ms = 500;
	session = open_session(&config);
	fault_server_script(server, &(FaultStep){.bytes = NULL}, 1);

	began = clock_ms(CLOCK_MONOTONIC);
	CHECK(gateway_poll(session, 50, &result, 1) == 0, "a result of nothing");
	lasted = clock_ms(CLOCK_MONOTONIC) - began;
	CHECK(lasted >= 49 && lasted < 250, "nothing to do took %g ms of 50", lasted);

	gateway_submit(session, &request);
	began = clock_ms(CLOCK_MONOTONIC);
	cpu = clock_ms(CLOCK_PROCESS_CPUTIME_ID);
	CHECK(gateway_poll(session, 200, &result, 1) == 0, "a result of a hang");
	lasted = clock_ms(CLOCK_MONOTONIC) - began;
	CHECK(lasted >= 199 && lasted < 400, "a hang took %g ms of 200", lasted);
	CHECK(gateway_poll(session, 5000, &result, 1) == 1, "no result after the time-out");
	lasted = clock_ms(CLOCK_MONOTONIC) - began;
	EXPECT(result.reply, GATEWAY_IN_DOUBT, "time-out");
	CHECK(lasted >= 490 && lasted < 900, "the time-out came after %g ms of 500", lasted);
	cpu = clock_ms(CLOCK_PROCESS_CPUTIME_ID) - cpu;
	CHECK(cpu < 50, "waiting took %g ms of CPU", cpu);
	gateway_close(session);
}

static volatile sig_atomic_t alarms = 0;
static pthread_t             alarm_thread;

static void
take_alarm(int signal)
{
	alarm_thread = pthread_self();
	alarms++;
}

/* Signals end a wait and nothing else, and only the caller's thread handles them. */
static void
test_signals(FaultServer *server)
{
	static const char slow[] = DELTA_OK;
	GatewayConfig     config = test_config(GATEWAY_HIGRESS, fault_server_url(server));
	GatewaySession   *session = open_session(&config);
	GatewayRequest    request = {.action = GATEWAY_DELTA, .user_id = "u", .amount = "1"};
	GatewayResult     result = {0};
	struct sigaction  action = {.sa_handler = take_alarm, .sa_flags = SA_RESTART};
	struct sigaction  before;
	struct itimerval  timer = {{0, 2000}, {0, 2000}};
	struct itimerval  off = {{0, 0}, {0, 0}};
	sigset_t          blocked;
	sigset_t          now;
	double            began;
	int               turns;

	sigaction(SIGALRM, &action, &before);

	/* every 2 ms, while a reply drips in */
	fault_server_script(server, &(FaultStep){.bytes = slow, .end = END_DRIP}, 1);
	gateway_submit(session, &request);
	setitimer(ITIMER_REAL, &timer, NULL);
	for (turns = 0; turns < 10000; turns++)
		if (gateway_poll(session, 1000, &result, 1) == 1)
			break;
	setitimer(ITIMER_REAL, &off, NULL);
	EXPECT(result.reply, GATEWAY_COMPLETED, "under signals");
	CHECK(alarms > 5 && turns > 1, "%d alarms, %d turns", (int) alarms, turns);
	CHECK(pthread_equal(alarm_thread, pthread_self()), "another thread took the signal");

	/* one ends a long wait, and one that was there before it does so at once */
	fault_server_script(server, &(FaultStep){.bytes = NULL}, 1);
	gateway_submit(session, &request);
	timer = (struct itimerval){{0, 0}, {0, 30000}};
	setitimer(ITIMER_REAL, &timer, NULL);
	began = clock_ms(CLOCK_MONOTONIC);
	CHECK(gateway_poll(session, 3000, &result, 1) == 0, "a result of a hang");
	CHECK(clock_ms(CLOCK_MONOTONIC) - began < 1000, "the signal did not end the wait");

	/* the mask is as it was */
	sigemptyset(&blocked);
	sigaddset(&blocked, SIGUSR1);
	sigprocmask(SIG_BLOCK, &blocked, NULL);
	gateway_poll(session, 0, &result, 1);
	sigprocmask(SIG_SETMASK, NULL, &now);
	CHECK(sigismember(&now, SIGUSR1) && !sigismember(&now, SIGALRM), "the mask has changed");
	sigprocmask(SIG_UNBLOCK, &blocked, NULL);

	sigaction(SIGALRM, &before, NULL);
	gateway_close(session);
}

/* Closing ends requests in every state, and leaves no socket behind. */
static void
test_close(FaultServer *server)
{
	int fd_before = open("/dev/null", O_RDONLY);
	int fd_after = -1;
	int turns;

	close(fd_before);
	for (turns = 0; turns < 6; turns++)
	{
		GatewayConfig   config = test_config(GATEWAY_HIGRESS, fault_server_url(server));
		GatewaySession *session;
		int             i;

		config.max_connections = 16;
		session = open_session(&config);
		fault_server_script(server,
							&(FaultStep){.bytes = turns % 2 ? DELTA_OK : NULL, .late = NULL}, 1);
		for (i = 0; i < 16; i++)
		{
			GatewayRequest request = {.action = i % 2 ? GATEWAY_DELTA : GATEWAY_QUERY,
									  .user_id = i == 5 ? "" : "u",
									  .amount = "1"};

			gateway_submit(session, &request);
		}
		/* not begun; begun; some ended and handed over, some not */
		if (turns >= 2)
		{
			GatewayResult results[2];

			gateway_poll(session, turns >= 4 ? 50 : 0, results, 2);
		}
		gateway_close(session);
	}
	gateway_close(NULL);
	/* the server is a thread of this process and closes its ends in its own time */
	for (turns = 0; turns < 500; turns++)
	{
		fd_after = open("/dev/null", O_RDONLY);
		close(fd_after);
		if (fd_after == fd_before)
			break;
		poll(NULL, 0, 10);
	}
	CHECK(fd_after == fd_before, "descriptor %d became %d", fd_before, fd_after);
}

/* Whether a change in flight may be applied is known, until its result is handed over. */
static void
test_sent(FaultServer *server)
{
	char            url[64];
	GatewayConfig   config = test_config(GATEWAY_HIGRESS, fault_server_url(server));
	GatewayRequest  request = {.action = GATEWAY_DELTA, .user_id = "u", .amount = "1"};
	GatewayRequest  refused = {.action = GATEWAY_DELTA, .user_id = "", .amount = "1"};
	GatewaySession *session;
	GatewayResult   result;
	int             turns;

	config.request_timeout_ms = 60000;
	session = open_session(&config);
	fault_server_script(server, &(FaultStep){0}, 1);
	request.token = &request;
	refused.token = &refused;
	gateway_submit(session, &request);
	gateway_submit(session, &refused);
	CHECK(!gateway_has_sent(session, &request), "before it is sent");
	for (turns = 0; turns < 500 && fault_server_requests(server) == 0; turns++)
		gateway_poll(session, 10, &result, 0);
	CHECK(gateway_has_sent(session, &request), "when it was sent");
	CHECK(!gateway_has_sent(session, &refused), "one that cannot be written down");
	gateway_close(session);

	/* to a server that does not speak TLS, with which the handshake never ends */
	snprintf(url, sizeof(url), "https%s", fault_server_url(server) + strlen("http"));
	config = test_config(GATEWAY_HIGRESS, url);
	config.connect_timeout_ms = config.request_timeout_ms = 60000;
	session = open_session(&config);
	fault_server_script(server, &(FaultStep){0}, 1);
	gateway_submit(session, &request);
	for (turns = 0; turns < 500 && fault_server_connections(server) == 0; turns++)
		gateway_poll(session, 10, &result, 0);
	gateway_poll(session, 10, &result, 0);
	CHECK(!gateway_has_sent(session, &request), "in the middle of a TLS handshake");
	gateway_close(session);
}

/* A process that only forks others does not start libcurl in them: each starts its own. */
static void
test_fork(FaultServer *server)
{
	pid_t child;
	int   status = 1;

	fault_server_script(server, &(FaultStep){.bytes = DELTA_OK}, 1);
	fflush(stdout);
	child = fork();
	if (child == 0)
	{
		GatewayConfig   config = test_config(GATEWAY_HIGRESS, fault_server_url(server));
		GatewaySession *session = open_session(&config);
		GatewayReply    reply = ask(session, GATEWAY_DELTA, "u", "1");

		gateway_close(session);
		_exit(reply.outcome == GATEWAY_COMPLETED ? 0 : 1);
	}
	waitpid(child, &status, 0);
	CHECK(status == 0, "the child ended with %d", status);
}

void
test_session(void)
{
	FaultServer *server = fault_server_start();

	test_refused_configs();
	test_refused_requests(server);
	test_many(server, 1);
	test_many(server, 16);
	test_many(server, 64);
	test_time(server);
	test_signals(server);
	test_close(server);
	test_sent(server);
	test_fork(server);
	fault_server_stop(server);
}
