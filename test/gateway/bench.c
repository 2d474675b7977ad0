/*
 * bench.c
 *		How many deltas a second one session moves.
 *
 * Usage: gateway-bench DIALECT URL CONNECTIONS REQUESTS
 * The credential is that of check.h.  Prints one line; the figures per CPU
 * second are those of this process alone.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

#include "check.h"

static double
seconds(struct timeval time)
{
	return (double) time.tv_sec + (double) time.tv_usec / 1e6;
}

int
main(int argc, char **argv)
{
	GatewayConfig   config;
	GatewaySession *session;
	GatewayResult   results[256];
	struct timespec began;
	struct timespec ended;
	struct rusage   usage;
	double          lasted;
	double          cpu;
	int             total;
	int             submitted = 0;
	int             done = 0;
	int             completed = 0;

	if (argc != 5)
	{
		fprintf(stderr, "usage: %s DIALECT URL CONNECTIONS REQUESTS\n", argv[0]);
		return 2;
	}
	config = test_config(strcmp(argv[1], "zgsm") == 0 ? GATEWAY_ZGSM : GATEWAY_HIGRESS, argv[2]);
	config.max_connections = atoi(argv[3]);
	total = atoi(argv[4]);
	session = open_session(&config);

	clock_gettime(CLOCK_MONOTONIC, &began);
	while (done < total)
	{
		int count;
		int i;

		while (submitted < total && gateway_free_slots(session) > 0)
		{
			char           user[32];
			char           key[64];
			GatewayRequest request = {
				.action = GATEWAY_DELTA, .user_id = user, .amount = "20", .idempotency_key = key};

			snprintf(user, sizeof(user), "user%08d", submitted);
			snprintf(key, sizeof(key), "7443001122334455-16384-%d", submitted);
			if (!gateway_submit(session, &request))
				return 1;
			submitted++;
		}
		count = gateway_poll(session, 1000, results, 256);
		for (i = 0; i < count; i++)
			completed += results[i].reply.outcome == GATEWAY_COMPLETED;
		done += count;
	}
	clock_gettime(CLOCK_MONOTONIC, &ended);
	getrusage(RUSAGE_SELF, &usage);
	gateway_close(session);

	lasted =
		(double) (ended.tv_sec - began.tv_sec) + (double) (ended.tv_nsec - began.tv_nsec) / 1e9;
	cpu = seconds(usage.ru_utime) + seconds(usage.ru_stime);
	printf("%d connections: %d of %d completed, %.0f a second, %.0f per CPU second\n",
		   config.max_connections, completed, total, total / lasted, total / cpu);
	return completed == total ? 0 : 1;
}
