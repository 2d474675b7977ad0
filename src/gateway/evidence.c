/*
 * evidence.c
 *		What two balance samples prove about the attempt between them.
 *
 * The rules, for a gateway whose totals only this database changes: a total moves
 * by the amount or not at all; chats can lower the remaining quota at any time, up
 * to a limit, and only the amount can raise it.
 */
#include <stdint.h>

#include "gateway/amount.h"
#include "gateway/gateway.h"

/* Usage beyond this proves nothing, and would not fit. */
#define MAX_USAGE 1e15

#define MILLION 1000000

/*
 * How far a total may be from its true value: zgsm sends six decimals, and
 * computes in float64, whose numbers lie up to 2^-52 of themselves apart.
 * Rounded up to millionths.
 */
static Fixed
tolerance_of(Fixed total)
{
	uint64_t units = total.units < 0 ? -(uint64_t) total.units : (uint64_t) total.units;
	uint64_t millionths = (((units >> 20) + 1) * MILLION >> 32) + 1;
	Fixed    tolerance = {(int64_t) (millionths / MILLION), (int32_t) (millionths % MILLION)};

	return tolerance;
}

/* True if a total is another one but for the tolerance. */
static bool
same_total(Fixed a, Fixed b, Fixed tolerance)
{
	Fixed low;
	Fixed high;

	return fixed_add(b, fixed_negate(tolerance), &low) && fixed_add(b, tolerance, &high) &&
		   fixed_compare(a, low) >= 0 && fixed_compare(a, high) <= 0;
}

/*
 * From the totals before and after, and the amount.  An amount that is lost in
 * the tolerance proves nothing.
 */
static GatewayEvidence
prove_by_total(Fixed before, Fixed after, Fixed amount, bool settle_delay_over)
{
	Fixed raised;
	Fixed tolerance = tolerance_of(before);
	bool  moved;
	bool  stayed;

	if (!fixed_add(before, amount, &raised))
		return GATEWAY_EVIDENCE_NONE;
	if (fixed_compare(tolerance_of(raised), tolerance) > 0)
		tolerance = tolerance_of(raised);
	stayed = same_total(after, before, tolerance);
	moved = same_total(after, raised, tolerance);
	if (moved == stayed)
		return GATEWAY_EVIDENCE_NONE;
	if (moved)
		return GATEWAY_EVIDENCE_APPLIED;
	return settle_delay_over ? GATEWAY_EVIDENCE_NOT_APPLIED : GATEWAY_EVIDENCE_LATER;
}

/*
 * True if a balance can have become another one by usage alone, of which there
 * was at most so much; used NULL: any.
 */
static bool
explained_by_usage(Fixed from, Fixed to, const Fixed *used)
{
	Fixed least;

	if (fixed_compare(to, from) > 0)
		return false;
	return used == NULL || !fixed_add(from, fixed_negate(*used), &least) ||
		   fixed_compare(to, least) >= 0;
}

/*
 * From what remained before and after; used: the most that chats used
 * meanwhile, NULL: anything.  The attempt was applied or not, and usage has
 * lowered the rest: where only one of the two explains the later balance, that
 * is proven, and a balance that was raised was raised by the attempt.  One that
 * neither explains proves nothing: another writer was at work, or the gateway's number
 * has wrapped around (builds with integers of 32 bits).
 */
static GatewayEvidence
prove_by_remainder(Fixed before, Fixed after, Fixed amount, const Fixed *used,
				   bool settle_delay_over)
{
	Fixed raised;
	bool  applied;
	bool  not_applied;

	if (!fixed_add(before, amount, &raised))
		return GATEWAY_EVIDENCE_NONE;
	applied = explained_by_usage(raised, after, fixed_compare(after, before) > 0 ? NULL : used);
	not_applied = explained_by_usage(before, after, used);
	if (applied && !not_applied)
		return GATEWAY_EVIDENCE_APPLIED;
	if (!settle_delay_over)
		return GATEWAY_EVIDENCE_LATER;
	return not_applied && !applied ? GATEWAY_EVIDENCE_NOT_APPLIED : GATEWAY_EVIDENCE_NONE;
}

/*
 * Applies the rules of docs/gateway.md; a literal that cannot be read proves
 * nothing.
 */
GatewayEvidence
gateway_weigh(const GatewaySamples *samples)
{
	Fixed before;
	Fixed after;
	Fixed amount;
	Fixed used = {0, 0};
	bool  bounded = samples->max_usage >= 0 && samples->max_usage <= MAX_USAGE;

	if (!fixed_read(samples->before, &before) || !fixed_read(samples->after, &after) ||
		!fixed_read(samples->amount, &amount))
		return GATEWAY_EVIDENCE_NONE;
	if (samples->dialect == GATEWAY_ZGSM)
		return prove_by_total(before, after, amount, samples->settle_delay_over);
	if (bounded)
	{
		used.units = (int64_t) samples->max_usage;
		if ((double) used.units < samples->max_usage)
			used.units++;
	}
	return prove_by_remainder(before, after, amount, bounded ? &used : NULL,
							  samples->settle_delay_over);
}
