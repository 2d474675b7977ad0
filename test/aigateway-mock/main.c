/*
 * main.c
 *		Starts the mock, waits until it is to stop, stops it.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "faults.h"
#include "gateway.h"
#include "journal.h"
#include "ledger.h"
#include "options.h"
#include "server.h"

/*
 * Blocks the signals that end the process, for every thread to come, so that only
 * wait_for_the_end() takes them.  A shell starts background jobs with SIGINT ignored; an ignored
 * signal would never arrive there.
 */
static void
block_signals(sigset_t *ending)
{
	signal(SIGPIPE, SIG_IGN);
	signal(SIGTERM, SIG_DFL);
	signal(SIGINT, SIG_DFL);
	sigemptyset(ending);
	sigaddset(ending, SIGTERM);
	sigaddset(ending, SIGINT);
	pthread_sigmask(SIG_BLOCK, ending, NULL);
}

/*
 * Returns on SIGTERM, on SIGINT, and after so many seconds.
 */
static void
wait_for_the_end(const sigset_t *ending, unsigned lifetime)
{
	struct timespec now;
	struct timespec left = {.tv_sec = lifetime};
	time_t          end;

	clock_gettime(CLOCK_MONOTONIC, &now);
	end = now.tv_sec + (time_t) lifetime;
	while (left.tv_sec >= 0 && sigtimedwait(ending, NULL, &left) < 0 && errno == EINTR)
	{
		clock_gettime(CLOCK_MONOTONIC, &now);
		left = (struct timespec){.tv_sec = end - now.tv_sec};
	}
}

int
main(int argc, char **argv)
{
	struct options options;
	sigset_t       ending;

	read_options(argc, argv, &options);
	block_signals(&ending);
	gateway_configure(&options);
	if (options.journal != NULL && !journal_open(options.journal))
		return EXIT_FAILURE;
	if (!server_start(&options))
		return EXIT_FAILURE;

	printf("listening on 127.0.0.1:%u\n", server_port());
	fflush(stdout);
	wait_for_the_end(&ending, options.lifetime);

	server_stop();
	journal_close();
	faults_clear();
	ledger_reset();
	gateway_set_key(NULL);
	return EXIT_SUCCESS;
}
