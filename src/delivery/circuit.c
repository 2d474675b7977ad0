/*
 * circuit.c
 *		The circuit breaker of one gateway: are grants sent to it?
 */
#include "postgres.h"

#include "common/backoff.h"
#include "delivery/circuit.h"
#include "delivery/delivery_settings.h"
#include "delivery/timing.h"

static const char *const state_names[] = {
	[CIRCUIT_OPEN] = "open",
	[CIRCUIT_CLOSED] = "closed",
	[CIRCUIT_PROBING] = "probing",
	[CIRCUIT_MISCONFIGURED] = "misconfigured",
};

/* The name of a state in quota_gateway.state. */
const char *
circuit_state_name(CircuitState state)
{
	return state_names[state];
}

/*
 * The state that another sender has left behind under this name.  One that was
 * probing has to show anew that it works.
 */
CircuitState
circuit_state_of(const char *name)
{
	if (strcmp(name, state_names[CIRCUIT_OPEN]) == 0)
		return CIRCUIT_OPEN;
	if (strcmp(name, state_names[CIRCUIT_MISCONFIGURED]) == 0)
		return CIRCUIT_MISCONFIGURED;
	return CIRCUIT_CLOSED;
}

/* Starts open. */
void
circuit_init(Circuit *circuit)
{
	memset(circuit, 0, sizeof(Circuit));
	circuit->state = CIRCUIT_OPEN;
	circuit->phase = CIRCUIT_SENDING;
	circuit->concurrency_limit = CONCURRENCY_MAX;
	circuit->check = HEALTH_CHECK;
	circuit->check_time = MONO_PAST;
}

/* Copies a text that may be too long, or the same. */
static void
copy_text(char *to, const char *from, size_t size)
{
	size_t length = strnlen(from, size - 1);

	memmove(to, from, length);
	to[length] = '\0';
}

/* Changes what others see. */
static CircuitActions
show_state(Circuit *circuit, CircuitState state, const char *reason)
{
	circuit->state = state;
	copy_text(circuit->reason, reason, sizeof(circuit->reason));
	return CIRCUIT_SHOW_STATE;
}

/* Sends nothing until a check of this kind, which is due now, has succeeded. */
static void
wait_for_check(Circuit *circuit, CheckKind check)
{
	circuit->phase = CIRCUIT_WAITING;
	circuit->check = check;
	circuit->check_time = MONO_PAST;
}

/* Sends nothing for some milliseconds, and says so. */
static CircuitActions
close_for_ms(Circuit *circuit, CircuitState state, const char *reason, int64 delay_ms, MonoTime now)
{
	circuit->phase = CIRCUIT_WAITING;
	circuit->check_time = mono_add_ms(now, delay_ms);
	return show_state(circuit, state, reason);
}

/* The row of the gateway, which another sender has written, says this. */
void
circuit_take_state(Circuit *circuit, CircuitState state)
{
	circuit->state = state;
	circuit->concurrency_limit = 1;
	wait_for_check(circuit, HEALTH_CHECK);
}

/* How much an outcome says about the gateway as a whole. */
static const int gravity[] = {
	[GATEWAY_NOT_SENT] = 4, [GATEWAY_THROTTLED] = 3, [GATEWAY_BLOCKED] = 2,
	[GATEWAY_IN_DOUBT] = 1, [GATEWAY_COMPLETED] = 0, [GATEWAY_REFUSED] = 0,
};

/*
 * No grant is in flight: if that was waited for, when is the gateway asked, and
 * what is it called until then?
 */
CircuitActions
circuit_drained(Circuit *circuit, MonoTime now)
{
	const CircuitFault *fault = &circuit->fault;
	int64          pause = backoff_ms(circuit->faults, delivery_retry_base, FAULT_PAUSE_MAX_MS);
	CircuitActions actions = CIRCUIT_SEARCH_ANEW;

	if (circuit->phase != CIRCUIT_DRAINING)
		return CIRCUIT_NO_ACTION;
	circuit->faults++;
	circuit->concurrency_limit = 1;
	circuit->failed_checks = 0;
	wait_for_check(circuit, HEALTH_CHECK);
	if (fault->outcome == GATEWAY_NOT_SENT)
		pause = backoff_ms(circuit->faults, CLOSED_CHECK_BASE_MS, CLOSED_CHECK_MAX_MS);
	else if (fault->outcome == GATEWAY_THROTTLED)
		pause = Max(pause, fault->delay_ms);
	else if (fault->outcome == GATEWAY_IN_DOUBT && fault->lost_grant && circuit->faults > 1)
		pause = backoff_ms(2 * circuit->faults - 3, delivery_retry_base, LOST_PAUSE_MAX_MS);
	else
		return actions; /* it is asked at once */

	/* only a query that is sent at once shows what a refusal meant */
	return actions | CIRCUIT_BLAME_GATEWAY |
		   close_for_ms(circuit, CIRCUIT_CLOSED, fault->text, pause, now);
}

/* Sends nothing more until what is in flight has been awaited. */
static CircuitActions
start_draining(Circuit *circuit)
{
	if (circuit->phase != CIRCUIT_SENDING)
		return CIRCUIT_NO_ACTION;
	memset(&circuit->fault, 0, sizeof(CircuitFault));
	circuit->fault.outcome = GATEWAY_COMPLETED;
	circuit->phase = CIRCUIT_DRAINING;
	return CIRCUIT_RETURN_UNSENT;
}

/*
 * A query for a grant had an outcome that is neither completed nor refused, or
 * could not be sent; so many grants are in flight.
 */
CircuitActions
circuit_query_failed(Circuit *circuit, const GatewayReply *reply, int in_flight, MonoTime now)
{
	CircuitFault  *fault = &circuit->fault;
	CircuitActions actions = start_draining(circuit);

	if (gravity[reply->outcome] > gravity[fault->outcome])
	{
		fault->outcome = reply->outcome;
		copy_text(fault->text, reply->message, sizeof(fault->text));
	}
	if (reply->outcome == GATEWAY_THROTTLED)
		fault->delay_ms = Max(fault->delay_ms, retry_after_ms(reply->retry_after));
	if (in_flight == 0)
		actions |= circuit_drained(circuit, now);
	return actions;
}

/* A grant was answered, or its answer was lost; so many others are in flight. */
CircuitActions
circuit_grant_answered(Circuit *circuit, const GatewayReply *reply, int in_flight, MonoTime now)
{
	CircuitActions actions;

	if (reply->outcome != GATEWAY_COMPLETED && reply->outcome != GATEWAY_REFUSED)
	{
		actions = start_draining(circuit);
		if (reply->outcome == GATEWAY_IN_DOUBT)
			circuit->write_lost = circuit->fault.lost_grant = true;
		return actions | circuit_query_failed(circuit, reply, in_flight, now);
	}
	if (reply->outcome == GATEWAY_COMPLETED)
	{
		circuit->faults = 0;
		circuit->write_lost = false;
		circuit->concurrency_limit = Min(circuit->concurrency_limit + 1, CONCURRENCY_MAX);
	}
	if (circuit->state == CIRCUIT_PROBING && circuit->phase == CIRCUIT_SENDING)
		return show_state(circuit, CIRCUIT_OPEN, "");
	return CIRCUIT_NO_ACTION;
}

/*
 * True if a check should be sent to a gateway with such a row: where the last
 * one hangs, another one after a share of its time-out that the connections
 * allow for.
 */
bool
circuit_wants_check(const Circuit *circuit, int max_connections, int timeout_ms, MonoTime now)
{
	if (circuit->phase == CIRCUIT_WAITING)
		return circuit->check_time <= now;
	if (circuit->phase != CIRCUIT_CHECKING || circuit->checks_in_flight >= max_connections)
		return false;
	return mono_add_ms(circuit->check_sent, Max(CHECK_PATIENCE_MS, timeout_ms / max_connections)) <=
		   now;
}

/* A check, of the kind that is due, is about to be sent. */
void
circuit_check_started(Circuit *circuit, MonoTime now)
{
	circuit->phase = CIRCUIT_CHECKING;
	circuit->checks_in_flight++;
	circuit->check_sent = now;
}

/*
 * A check of this kind has ended.  False: its outcome does not matter, since it
 * belongs to an earlier one.
 */
bool
circuit_check_ended(Circuit *circuit, CheckKind check)
{
	/* those that were dropped are not counted any more */
	circuit->checks_in_flight = Max(circuit->checks_in_flight - 1, 0);
	return circuit->phase == CIRCUIT_CHECKING && circuit->check == check;
}

/*
 * True if a reply to a query shows that the gateway works and knows us, even
 * where it refuses to answer for that user.
 */
static bool
is_answer(const GatewayReply *reply)
{
	return reply->outcome == GATEWAY_COMPLETED ||
		   (reply->outcome == GATEWAY_REFUSED && reply->http_status != 0) ||
		   (reply->outcome == GATEWAY_BLOCKED && reply->names_parameters);
}

/* The gateway works: grants are sent, one at first. */
static CircuitActions
resume_sending(Circuit *circuit)
{
	CircuitActions actions = CIRCUIT_DROP_QUERIES | CIRCUIT_SEARCH_ANEW;

	circuit->phase = CIRCUIT_SENDING;
	circuit->check = HEALTH_CHECK;
	circuit->failed_checks = 0;
	if (circuit->state != CIRCUIT_OPEN)
		actions |= show_state(circuit, CIRCUIT_PROBING, circuit->reason);
	return actions;
}

/* A check failed. */
static CircuitActions
check_failed(Circuit *circuit, const GatewayReply *reply, MonoTime now)
{
	int64 delay;

	wait_for_check(circuit, HEALTH_CHECK);
	circuit->failed_checks++;
	if (reply->outcome == GATEWAY_BLOCKED)
	{
		/* it may be the user whom it refuses: about another one, at once */
		if (circuit->failed_checks == 1)
			return CIRCUIT_NO_ACTION;
		delay = backoff_ms(circuit->failed_checks - 1, MISCONFIGURED_CHECK_BASE_MS,
						   MISCONFIGURED_CHECK_MAX_MS);
		return CIRCUIT_BLAME_GATEWAY |
			   close_for_ms(circuit, CIRCUIT_MISCONFIGURED, reply->message, delay, now);
	}
	delay = backoff_ms(circuit->failed_checks, CLOSED_CHECK_BASE_MS, CLOSED_CHECK_MAX_MS);
	if (reply->outcome == GATEWAY_THROTTLED)
		delay = Max(delay, retry_after_ms(reply->retry_after));
	return CIRCUIT_BLAME_GATEWAY |
		   close_for_ms(circuit, CIRCUIT_CLOSED, reply->message, delay, now);
}

/*
 * The outcome of the check in flight.  So many of the grants that await a
 * verdict were refused without a word about their parameters.
 */
CircuitActions
circuit_checked(Circuit *circuit, const GatewayReply *reply, int refused, MonoTime now)
{
	CircuitActions actions = CIRCUIT_BLAME_GRANTS;

	if (!is_answer(reply))
		return check_failed(circuit, reply, now);
	/* balances that were asked for before may have been refused since the query was answered */
	if (circuit->check == WRITE_CHECK)
		return actions | resume_sending(circuit);
	if (refused > 0 && circuit->faults > 1)
		return actions |
			   close_for_ms(
				   circuit, CIRCUIT_CLOSED, circuit->fault.text,
				   backoff_ms(circuit->faults - 1, delivery_retry_base, FAULT_PAUSE_MAX_MS), now);
	/* grants that are at fault themselves say nothing about the gateway */
	if (refused == 0 && circuit->fault.outcome == GATEWAY_BLOCKED)
		circuit->faults = 0;
	if (!circuit->write_lost)
		return actions | resume_sending(circuit);
	wait_for_check(circuit, WRITE_CHECK);
	return actions;
}

/* Checks in flight were ended with their connections. */
void
circuit_checks_dropped(Circuit *circuit)
{
	circuit->checks_in_flight = 0;
}

/* No session can be opened: nothing can be sent until the row is mended. */
CircuitActions
circuit_unusable(Circuit *circuit, const char *problem, MonoTime now)
{
	CircuitActions actions = CIRCUIT_RETURN_UNSENT | CIRCUIT_BLAME_GATEWAY;

	circuit->phase = CIRCUIT_WAITING;
	circuit->check_time = mono_add_ms(now, MISCONFIGURED_CHECK_BASE_MS);
	if (circuit->state != CIRCUIT_MISCONFIGURED || strcmp(circuit->reason, problem) != 0)
		actions |= show_state(circuit, CIRCUIT_MISCONFIGURED, problem);
	return actions;
}

/* The gateway may have been mended: it is asked at once. */
void
circuit_row_changed(Circuit *circuit)
{
	circuit->failed_checks = 0;
	if (circuit->phase == CIRCUIT_WAITING)
		circuit->check_time = MONO_PAST;
}

/* What was in flight was given up. */
void
circuit_abandoned(Circuit *circuit)
{
	if (circuit->phase != CIRCUIT_SENDING)
	{
		circuit->phase = CIRCUIT_WAITING;
		circuit->check_time = MONO_PAST;
	}
}
