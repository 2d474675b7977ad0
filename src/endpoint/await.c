/*
 * await.c
 *		Waiting for the answers of one session in the transaction of a caller.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "utils/wait_event.h"

#include "common/work_unit.h"
#include "endpoint/await.h"

/* Longest wait between checks for interrupts. */
#define SLICE_MS 100

/*
 * Waits for answers, at most so long, and returns how many there are; it may
 * return earlier without any.  Where nothing is in flight it only waits.
 * Processes interrupts.
 */
int
await_answers(GatewaySession *session, long timeout_ms, GatewayResult *results, int most)
{
	int count = 0;

	leave_dead_server();
	CHECK_FOR_INTERRUPTS();
	timeout_ms = Min(timeout_ms, SLICE_MS);
	pgstat_report_wait_start(PG_WAIT_EXTENSION);
	if (gateway_in_flight(session) > 0)
		count = gateway_poll(session, (int) timeout_ms, results, most);
	else
	{
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, timeout_ms,
						 PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
	}
	pgstat_report_wait_end();
	return count;
}
