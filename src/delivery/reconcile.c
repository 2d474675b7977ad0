/*
 * reconcile.c
 *		Evidence: what a balance before and after a lost answer says about a grant.
 */
#include "postgres.h"

#include "delivery/reconcile.h"
#include "delivery/timing.h"
#include "endpoint/endpoint_settings.h"

/* Sets the grant's message. */
static void
set_conclusion(Grant *grant, const char *conclusion, const char *after)
{
	char *text = psprintf("%s: the balance was %s before and is %s", conclusion,
						  grant->before.balance, after);

	grant_set_message(grant, text);
	pfree(text);
}

/*
 * There is no evidence about a grant without a balance before: an operator
 * decides.
 */
void
reconcile_without_sample(Grant *grant)
{
	grant->outcome.verdict = VERDICT_IN_DOUBT;
	grant_leave_to_operator(grant);
	grant_set_message(grant, "the answer was lost and no balance was read before");
}

/*
 * Seconds since the balance before was asked for: at least so many as have
 * passed, however the wall clock was set meanwhile.
 */
static double
seconds_since_sample(const Grant *grant, TimestampTz now)
{
	int64 elapsed = now - grant->before.time;

	if (grant->before.moment != MONO_PAST)
		elapsed = Max(elapsed, mono_now() - grant->before.moment);
	return (double) Max(elapsed, 0) / USECS_PER_SEC;
}

/*
 * True if the balance before was asked for later than that by all that is
 * known: the wall clock may have been ahead when it was.
 */
static bool
sampled_since(const Grant *grant, EvidenceSince since)
{
	return grant->before.time > since.time &&
		   (grant->before.moment == MONO_PAST || grant->before.moment > since.moment);
}

/*
 * Draws the conclusion from the reply to a query about a grant in doubt.  One
 * that was not answered is repeated later.
 */
void
reconcile_grant(Grant *grant, const GatewayRow *row, EvidenceSince since, const GatewayReply *reply,
				TimestampTz now)
{
	GatewaySamples  samples = {row->dialect, grant->before.balance, reply->balance, grant->amount};
	GatewayEvidence evidence = GATEWAY_EVIDENCE_NONE;

	grant->outcome.http_status = (int) reply->http_status;
	grant->outcome.verdict = VERDICT_IN_DOUBT;
	if (reply->outcome != GATEWAY_COMPLETED)
	{
		char *text = psprintf("the balance cannot be read: %s", reply->message);

		grant_set_message(grant, text);
		pfree(text);
		grant_wait_ms(grant, now, EVIDENCE_RETRY_MS);
		return;
	}

	if (row->dialect == GATEWAY_ZGSM)
		samples.after = reply->total;
	samples.max_usage =
		row->max_usage_rate < 0 ? -1 : row->max_usage_rate * seconds_since_sample(grant, now);
	samples.settle_delay_over = grant->doubt.asked >= grant_last_arrival(grant);
	if (sampled_since(grant, since))
		evidence = gateway_weigh(&samples);
	if (reply->below_zero)
		samples.after = "below zero";
	if (evidence == GATEWAY_EVIDENCE_APPLIED)
	{
		grant->outcome.verdict = VERDICT_COMPLETED;
		set_conclusion(grant, "reconciled as applied", samples.after);
	}
	else if (evidence == GATEWAY_EVIDENCE_NOT_APPLIED)
	{
		grant->earlier = NOT_SENT;
		grant_fail_attempt(grant, -1, now);
		set_conclusion(grant, "reconciled as not applied", samples.after);
	}
	else if (!samples.settle_delay_over)
	{
		/* its user must not get another one before */
		grant_wait_ms(grant, now,
					  mono_ms_until(grant_last_arrival(grant), endpoint_settle_delay_ms));
		set_conclusion(grant, "not reconciled yet", samples.after);
	}
	else
	{
		grant_leave_to_operator(grant);
		set_conclusion(grant, "cannot be reconciled", samples.after);
	}
}
