/*
 * main.c
 *		Walks the circuit breaker through its transitions and through random events.
 */
#include "postgres.h"

#include "common/pg_prng.h"

#include "common/backoff.h"
#include "delivery/circuit.h"
#include "endpoint/rate_limit.h"
#include "delivery/delivery_settings.h"
#include "delivery/timing.h"

#undef printf

/* What the code under test takes from PostgreSQL and from the settings. */
int           delivery_retry_base = 1000;
pg_prng_state pg_global_prng_state;
static double chance = 0;

double
pg_prng_double(pg_prng_state *state)
{
	return chance;
}

static int      passed = 0;
static int      failed = 0;
static uint32   seed = 1;
static MonoTime now = 1000000;

#define CHECK(condition) check(condition, #condition, __LINE__)

static void
check(bool condition, const char *text, int line)
{
	if (condition)
		passed++;
	else if (failed++ < 50)
		printf("main.c:%d: failed: %s (seed %u)\n", line, text, seed);
}

static uint32
random_below(uint32 limit)
{
	static uint64 state = 88172645463325252;

	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (uint32) (state >> 32) % limit;
}

static GatewayReply
reply_of(GatewayOutcome outcome)
{
	GatewayReply reply = {outcome};

	reply.http_status = outcome == GATEWAY_NOT_SENT ? 0 : 500;
	reply.retry_after = -1;
	strcpy(reply.message, outcome == GATEWAY_COMPLETED ? "" : "why");
	return reply;
}

static CircuitActions
grant_answered(Circuit *circuit, GatewayOutcome outcome, int in_flight)
{
	GatewayReply reply = reply_of(outcome);

	return circuit_grant_answered(circuit, &reply, in_flight, now);
}

static CircuitActions
query_failed(Circuit *circuit, GatewayOutcome outcome, int in_flight)
{
	GatewayReply reply = reply_of(outcome);

	return circuit_query_failed(circuit, &reply, in_flight, now);
}

static bool
wants_check(const Circuit *circuit)
{
	return circuit_wants_check(circuit, 8, 10000, now);
}

/* Waits until a check is due, sends it, and has it answered like this. */
static CircuitActions
check_answered(Circuit *circuit, GatewayOutcome outcome, int refused)
{
	GatewayReply reply = reply_of(outcome);
	CheckKind    kind = circuit->check;

	now = Max(now, circuit->check_time);
	CHECK(wants_check(circuit));
	circuit_check_started(circuit, now);
	CHECK(circuit->phase == CIRCUIT_CHECKING && !wants_check(circuit));
	CHECK(circuit_check_ended(circuit, kind));
	return circuit_checked(circuit, &reply, refused, now);
}

static bool
is(const Circuit *circuit, CircuitPhase phase, CircuitState state)
{
	return circuit->phase == phase && circuit->state == state;
}

static int64
wait_ms(const Circuit *circuit)
{
	return circuit->check_time == MONO_PAST ? 0 : (circuit->check_time - now) / 1000;
}

/* The first fault of each kind. */
static void
test_faults(void)
{
	static const struct
	{
		GatewayOutcome outcome;
		CircuitState   state;
		int64          wait_ms;
	} table[] = {
		{GATEWAY_NOT_SENT, CIRCUIT_CLOSED, CLOSED_CHECK_BASE_MS},
		{GATEWAY_THROTTLED, CIRCUIT_CLOSED, 1000},
		{GATEWAY_BLOCKED, CIRCUIT_OPEN, 0},
		{GATEWAY_IN_DOUBT, CIRCUIT_OPEN, 0},
	};

	for (size_t i = 0; i < lengthof(table); i++)
	{
		Circuit        circuit;
		CircuitActions actions;
		bool           closes = table[i].state == CIRCUIT_CLOSED;

		circuit_init(&circuit);
		CHECK(is(&circuit, CIRCUIT_SENDING, CIRCUIT_OPEN) && !wants_check(&circuit));
		CHECK(circuit.concurrency_limit == CONCURRENCY_MAX);
		CHECK(grant_answered(&circuit, table[i].outcome, 2) == CIRCUIT_RETURN_UNSENT);
		CHECK(is(&circuit, CIRCUIT_DRAINING, CIRCUIT_OPEN) && !wants_check(&circuit));
		CHECK(grant_answered(&circuit, GATEWAY_REFUSED, 1) == CIRCUIT_NO_ACTION);
		actions = circuit_drained(&circuit, now);
		CHECK(actions == (closes ? CIRCUIT_SEARCH_ANEW | CIRCUIT_BLAME_GATEWAY | CIRCUIT_SHOW_STATE
								 : CIRCUIT_SEARCH_ANEW));
		CHECK(is(&circuit, CIRCUIT_WAITING, table[i].state));
		CHECK(wait_ms(&circuit) == table[i].wait_ms);
		CHECK(circuit.concurrency_limit == 1);
		CHECK(strcmp(circuit.reason, closes ? "why" : "") == 0);
		CHECK(circuit_drained(&circuit, now) == CIRCUIT_NO_ACTION);
	}
}

/* The gravest of several faults counts, and the longest pause. */
static void
test_gravity(void)
{
	Circuit      circuit;
	GatewayReply reply = reply_of(GATEWAY_THROTTLED);

	circuit_init(&circuit);
	reply.retry_after = 90;
	grant_answered(&circuit, GATEWAY_IN_DOUBT, 3);
	circuit_grant_answered(&circuit, &reply, 2, now);
	grant_answered(&circuit, GATEWAY_BLOCKED, 1);
	CHECK(circuit.fault.outcome == GATEWAY_THROTTLED && circuit.fault.lost_grant);
	query_failed(&circuit, GATEWAY_BLOCKED, 0);
	CHECK(is(&circuit, CIRCUIT_WAITING, CIRCUIT_CLOSED) && wait_ms(&circuit) == 90000);

	circuit_init(&circuit);
	reply.retry_after = 86400;
	circuit_query_failed(&circuit, &reply, 0, now);
	CHECK(wait_ms(&circuit) == RETRY_AFTER_MAX_MS);
}

/* Back through a health check, and a write check where an answer was lost. */
static void
test_recovery(void)
{
	Circuit circuit;

	circuit_init(&circuit);
	query_failed(&circuit, GATEWAY_NOT_SENT, 0);
	CHECK(check_answered(&circuit, GATEWAY_NOT_SENT, 0) ==
		  (CIRCUIT_BLAME_GATEWAY | CIRCUIT_SHOW_STATE));
	CHECK(wait_ms(&circuit) == CLOSED_CHECK_BASE_MS);
	for (int i = 0; i < 10; i++)
		check_answered(&circuit, GATEWAY_IN_DOUBT, 0);
	CHECK(wait_ms(&circuit) == CLOSED_CHECK_MAX_MS);
	CHECK(check_answered(&circuit, GATEWAY_REFUSED, 0) ==
		  (CIRCUIT_BLAME_GRANTS | CIRCUIT_DROP_QUERIES | CIRCUIT_SEARCH_ANEW | CIRCUIT_SHOW_STATE));
	CHECK(is(&circuit, CIRCUIT_SENDING, CIRCUIT_PROBING) && circuit.concurrency_limit == 1);
	CHECK(grant_answered(&circuit, GATEWAY_COMPLETED, 0) == CIRCUIT_SHOW_STATE);
	CHECK(is(&circuit, CIRCUIT_SENDING, CIRCUIT_OPEN) && circuit.concurrency_limit == 2);
	CHECK(circuit.reason[0] == '\0' && circuit.faults == 0);

	/* a lost answer: the write check decides; the state never shows it */
	grant_answered(&circuit, GATEWAY_IN_DOUBT, 0);
	CHECK(circuit.check == HEALTH_CHECK);
	CHECK(check_answered(&circuit, GATEWAY_COMPLETED, 0) == CIRCUIT_BLAME_GRANTS);
	CHECK(is(&circuit, CIRCUIT_WAITING, CIRCUIT_OPEN) && circuit.check == WRITE_CHECK);
	check_answered(&circuit, GATEWAY_COMPLETED, 0);
	CHECK(is(&circuit, CIRCUIT_SENDING, CIRCUIT_OPEN) && circuit.write_lost);

	/* the next ones are given pauses that grow to ten minutes */
	grant_answered(&circuit, GATEWAY_IN_DOUBT, 0);
	CHECK(is(&circuit, CIRCUIT_WAITING, CIRCUIT_CLOSED) && wait_ms(&circuit) == 1000);
	for (int i = 0; i < 10; i++)
	{
		check_answered(&circuit, GATEWAY_COMPLETED, 0);
		check_answered(&circuit, GATEWAY_COMPLETED, 0);
		grant_answered(&circuit, GATEWAY_IN_DOUBT, 0);
	}
	CHECK(wait_ms(&circuit) == LOST_PAUSE_MAX_MS);

	/* a write check that fails begins anew with a health check */
	check_answered(&circuit, GATEWAY_COMPLETED, 0);
	check_answered(&circuit, GATEWAY_IN_DOUBT, 0);
	CHECK(is(&circuit, CIRCUIT_WAITING, CIRCUIT_CLOSED) && circuit.check == HEALTH_CHECK);
}

/* Refusals: of the user, of us, of the grants. */
static void
test_refusals(void)
{
	Circuit circuit;

	circuit_init(&circuit);
	grant_answered(&circuit, GATEWAY_BLOCKED, 0);
	CHECK(check_answered(&circuit, GATEWAY_BLOCKED, 1) == CIRCUIT_NO_ACTION);
	CHECK(is(&circuit, CIRCUIT_WAITING, CIRCUIT_OPEN) && wait_ms(&circuit) == 0);
	CHECK(check_answered(&circuit, GATEWAY_BLOCKED, 1) ==
		  (CIRCUIT_BLAME_GATEWAY | CIRCUIT_SHOW_STATE));
	CHECK(is(&circuit, CIRCUIT_WAITING, CIRCUIT_MISCONFIGURED));
	CHECK(wait_ms(&circuit) == MISCONFIGURED_CHECK_BASE_MS);
	for (int i = 0; i < 10; i++)
		check_answered(&circuit, GATEWAY_BLOCKED, 0);
	CHECK(wait_ms(&circuit) == MISCONFIGURED_CHECK_MAX_MS);
	circuit_row_changed(&circuit);
	CHECK(wants_check(&circuit));
	check_answered(&circuit, GATEWAY_COMPLETED, 0);
	CHECK(is(&circuit, CIRCUIT_SENDING, CIRCUIT_PROBING));

	/* grants that are refused while queries are answered: pauses, from the second time on */
	grant_answered(&circuit, GATEWAY_COMPLETED, 0);
	grant_answered(&circuit, GATEWAY_BLOCKED, 0);
	check_answered(&circuit, GATEWAY_COMPLETED, 1);
	CHECK(is(&circuit, CIRCUIT_SENDING, CIRCUIT_OPEN));
	grant_answered(&circuit, GATEWAY_BLOCKED, 0);
	CHECK(check_answered(&circuit, GATEWAY_COMPLETED, 1) ==
		  (CIRCUIT_BLAME_GRANTS | CIRCUIT_SHOW_STATE));
	CHECK(is(&circuit, CIRCUIT_WAITING, CIRCUIT_CLOSED) && wait_ms(&circuit) == 1000);

	/* refused for their parameters: that says nothing about the gateway */
	check_answered(&circuit, GATEWAY_COMPLETED, 0);
	CHECK(circuit.phase == CIRCUIT_SENDING && circuit.faults == 0);
}

/* What is not an answer to the check in question, and what cannot be sent. */
static void
test_others(void)
{
	Circuit circuit;

	CHECK(circuit_state_of("open") == CIRCUIT_OPEN);
	CHECK(circuit_state_of("closed") == CIRCUIT_CLOSED);
	CHECK(circuit_state_of("probing") == CIRCUIT_CLOSED);
	CHECK(circuit_state_of("misconfigured") == CIRCUIT_MISCONFIGURED);
	CHECK(strcmp(circuit_state_name(CIRCUIT_PROBING), "probing") == 0);

	circuit_init(&circuit);
	circuit_take_state(&circuit, CIRCUIT_MISCONFIGURED);
	CHECK(is(&circuit, CIRCUIT_WAITING, CIRCUIT_MISCONFIGURED) && wants_check(&circuit));
	circuit_check_started(&circuit, now);
	CHECK(!circuit_check_ended(&circuit, WRITE_CHECK) && circuit.checks_in_flight == 0);
	CHECK(!circuit_wants_check(&circuit, 8, 16000, now + 1999 * 1000));
	CHECK(circuit_wants_check(&circuit, 8, 16000, now + 2000 * 1000));
	CHECK(circuit_wants_check(&circuit, 8, 100, now + CHECK_PATIENCE_MS * 1000));
	circuit.checks_in_flight = 8;
	CHECK(!circuit_wants_check(&circuit, 8, 100, now + CHECK_PATIENCE_MS * 1000));
	circuit_checks_dropped(&circuit);
	CHECK(circuit.checks_in_flight == 0);
	circuit_abandoned(&circuit);
	CHECK(is(&circuit, CIRCUIT_WAITING, CIRCUIT_MISCONFIGURED) && wants_check(&circuit));
	CHECK(!circuit_check_ended(&circuit, HEALTH_CHECK));

	circuit_init(&circuit);
	circuit_abandoned(&circuit);
	CHECK(is(&circuit, CIRCUIT_SENDING, CIRCUIT_OPEN));
	CHECK(circuit_unusable(&circuit, "no key", now) ==
		  (CIRCUIT_RETURN_UNSENT | CIRCUIT_BLAME_GATEWAY | CIRCUIT_SHOW_STATE));
	CHECK(is(&circuit, CIRCUIT_WAITING, CIRCUIT_MISCONFIGURED));
	CHECK(wait_ms(&circuit) == MISCONFIGURED_CHECK_BASE_MS);
	CHECK((circuit_unusable(&circuit, "no key", now) & CIRCUIT_SHOW_STATE) == 0);
}

/* One random event; so many grants are in flight. */
static CircuitActions
random_event(Circuit *circuit, int *in_flight)
{
	static const GatewayOutcome outcomes[] = {GATEWAY_COMPLETED, GATEWAY_REFUSED, GATEWAY_NOT_SENT,
											  GATEWAY_THROTTLED, GATEWAY_BLOCKED, GATEWAY_IN_DOUBT};
	GatewayReply                reply = reply_of(outcomes[random_below(lengthof(outcomes))]);
	CheckKind                   kind = random_below(2) ? HEALTH_CHECK : WRITE_CHECK;
	CircuitActions              actions;

	reply.names_parameters = random_below(4) == 0;
	reply.retry_after = random_below(4) == 0 ? random_below(10000) : -1;
	switch (random_below(8))
	{
		case 0:
		case 1:
			if (circuit->phase == CIRCUIT_SENDING && *in_flight < circuit->concurrency_limit)
				++*in_flight;
			return CIRCUIT_NO_ACTION;
		case 2:
		case 3:
			if (*in_flight == 0)
				return CIRCUIT_NO_ACTION;
			--*in_flight;
			actions = circuit_grant_answered(circuit, &reply, *in_flight, now);
			return *in_flight > 0 ? actions : actions | circuit_drained(circuit, now);
		case 4:
			if (reply.outcome == GATEWAY_COMPLETED || reply.outcome == GATEWAY_REFUSED)
				return CIRCUIT_NO_ACTION;
			return circuit_query_failed(circuit, &reply, *in_flight, now);
		case 5:
			if (wants_check(circuit))
				circuit_check_started(circuit, now);
			return CIRCUIT_NO_ACTION;
		case 6:
			if (circuit->checks_in_flight == 0 || !circuit_check_ended(circuit, kind))
				return CIRCUIT_NO_ACTION;
			return circuit_checked(circuit, &reply, random_below(2), now);
		default:
			switch (random_below(20))
			{
				case 0:
					circuit_row_changed(circuit);
					break;
				case 1:
					circuit_checks_dropped(circuit);
					circuit_abandoned(circuit);
					*in_flight = 0;
					break;
				case 2:
					return *in_flight > 0 ? CIRCUIT_NO_ACTION
										  : circuit_unusable(circuit, "no key", now);
			}
			return CIRCUIT_NO_ACTION;
	}
}

/* What holds after every event. */
static void
check_invariants(const Circuit *before, const Circuit *circuit, CircuitActions actions,
				 int in_flight)
{
	bool was_sending = before->phase == CIRCUIT_SENDING;
	bool is_sending = circuit->phase == CIRCUIT_SENDING;

	CHECK(circuit->concurrency_limit >= 1 && circuit->concurrency_limit <= CONCURRENCY_MAX);
	CHECK(!is_sending || circuit->state == CIRCUIT_OPEN || circuit->state == CIRCUIT_PROBING);
	CHECK(circuit->phase != CIRCUIT_DRAINING || in_flight > 0);
	CHECK(circuit->state == CIRCUIT_OPEN || circuit->reason[0] != '\0');
	CHECK((actions & CIRCUIT_BLAME_GRANTS) == 0 || (actions & CIRCUIT_BLAME_GATEWAY) == 0);
	CHECK(before->state == circuit->state || (actions & CIRCUIT_SHOW_STATE));
	/* nothing stays claimed at a gateway that gets nothing */
	CHECK(!was_sending || is_sending || (actions & CIRCUIT_RETURN_UNSENT));
	/* it opens by a check alone; where an answer was lost, by a write check */
	if (!was_sending && is_sending)
	{
		CHECK(before->phase == CIRCUIT_CHECKING && in_flight == 0);
		CHECK(!circuit->write_lost || before->check == WRITE_CHECK);
		CHECK((actions & CIRCUIT_SEARCH_ANEW) && (actions & CIRCUIT_BLAME_GRANTS));
	}
	/* what awaits a verdict gets one before there is a pause */
	if (circuit->phase == CIRCUIT_WAITING && circuit->check_time > now && !was_sending &&
		before->phase != CIRCUIT_WAITING)
		CHECK(actions & (CIRCUIT_BLAME_GATEWAY | CIRCUIT_BLAME_GRANTS));
	CHECK(circuit->phase != CIRCUIT_WAITING || circuit->check_time == MONO_PAST ||
		  circuit->check_time <= mono_add_ms(now, RETRY_AFTER_MAX_MS));
}

/* Random events; and whatever has happened, a gateway that works is open soon. */
static void
test_random(void)
{
	for (seed = 1; seed <= 2000; seed++)
	{
		Circuit circuit;
		int     in_flight = 0;
		int     steps;

		circuit_init(&circuit);
		for (int i = 0; i < 200; i++)
		{
			Circuit        before = circuit;
			CircuitActions actions;

			chance = random_below(100) / 100.0;
			now += random_below(3000) * 1000;
			actions = random_event(&circuit, &in_flight);
			check_invariants(&before, &circuit, actions, in_flight);
		}
		while (in_flight > 0)
			grant_answered(&circuit, GATEWAY_COMPLETED, --in_flight);
		circuit_drained(&circuit, now);
		if (circuit.phase == CIRCUIT_CHECKING)
		{
			circuit_checks_dropped(&circuit);
			circuit_abandoned(&circuit);
		}
		for (steps = 0; steps < 3 && circuit.phase != CIRCUIT_SENDING; steps++)
			check_answered(&circuit, GATEWAY_COMPLETED, 0);
		CHECK(circuit.phase == CIRCUIT_SENDING);
		grant_answered(&circuit, GATEWAY_COMPLETED, 0);
		CHECK(is(&circuit, CIRCUIT_SENDING, CIRCUIT_OPEN) && !circuit.write_lost);
	}
	chance = 0;
}

/* So many a second, a tenth of a second's worth at once. */
static void
test_rate_limit(void)
{
	RateLimit limit;
	int       sent = 0;

	rate_limit_init(&limit);
	CHECK(rate_limit_take(&limit, 0, now) && rate_limit_wait_ms(&limit, 0, now) == 0);
	while (rate_limit_take(&limit, 100, now))
		sent++;
	CHECK(sent == 10);
	CHECK(rate_limit_wait_ms(&limit, 100, now) == 10);
	for (int ms = 1; ms <= 10000; ms++)
		if (rate_limit_take(&limit, 100, now + ms * 1000))
			sent++;
	CHECK(sent >= 1009 && sent <= 1010);
	rate_limit_init(&limit);
	CHECK(rate_limit_take(&limit, 0.1, now) && !rate_limit_take(&limit, 0.1, now));
	CHECK(rate_limit_wait_ms(&limit, 0.1, now) == RATE_WAIT_MAX_MS);
	CHECK(rate_limit_take(&limit, 0.1, now + 10000000));
}

/* Pauses double, within their bounds. */
static void
test_retry(void)
{
	CHECK(backoff_ms(0, 250, 1400) == 250 && backoff_ms(1, 250, 1400) == 250);
	CHECK(backoff_ms(2, 250, 1400) == 500 && backoff_ms(1000000, 250, 1400) == 1400);
	chance = 0.999;
	CHECK(backoff_ms(2, 250, 1400) >= 250 && backoff_ms(2, 250, 1400) < 260);
	chance = 0;
	CHECK(retry_after_ms(-1) == 0 && retry_after_ms(1.5) == 1500);
	CHECK(retry_after_ms(86400) == RETRY_AFTER_MAX_MS);
}

int
main(void)
{
	test_faults();
	test_gravity();
	test_recovery();
	test_refusals();
	test_others();
	test_random();
	test_rate_limit();
	test_retry();
	printf("%d passed, %d failed\n", passed, failed);
	return failed > 0;
}
