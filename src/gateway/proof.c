/*
 * proof.c
 *		What two readings of a balance prove about the attempt between them.
 *
 * The rules, for a gateway whose totals nobody else changes: a total moves by
 * the amount or not at all; what remains can be lowered by chats at any time,
 * by at most so much, and be raised by the amount only.
 */
#include <stdint.h>

#include "gateway/amount.h"
#include "gateway/gateway.h"

/* zgsm computes in floating point and tells six decimals. */
static const Fixed tolerance = {0, 1};

/* Usage beyond this proves nothing, and would not fit. */
#define MAX_USAGE 1e15

/* True if two totals are equal but for the tolerance. */
static bool
same_total(Fixed a, Fixed b)
{
	Fixed low;
	Fixed high;

	return fixed_add(b, fixed_negate(tolerance), &low) && fixed_add(b, tolerance, &high) &&
		   fixed_compare(a, low) >= 0 && fixed_compare(a, high) <= 0;
}

/* From the totals before and after, and the amount. */
static GatewayProof
prove_by_total(Fixed before, Fixed after, Fixed amount, bool lingered)
{
	Fixed raised;
	bool  moved;
	bool  stayed = same_total(after, before);

	if (!fixed_add(before, amount, &raised))
		return GATEWAY_PROOF_NONE;
	moved = same_total(after, raised);
	if (moved == stayed)
		return GATEWAY_PROOF_NONE;
	if (moved)
		return GATEWAY_PROOF_APPLIED;
	return lingered ? GATEWAY_PROOF_NOT_APPLIED : GATEWAY_PROOF_LATER;
}

/* From what remained before and after; used: the most that chats used meanwhile, NULL: anything. */
static GatewayProof
prove_by_remainder(Fixed before, Fixed after, Fixed amount, const Fixed *used, bool lingered)
{
	GatewayProof unproven = lingered ? GATEWAY_PROOF_NONE : GATEWAY_PROOF_LATER;
	Fixed        if_applied; /* the most that remains if it was applied, but for usage */
	Fixed        least;

	if (!fixed_add(before, amount, &if_applied))
		return GATEWAY_PROOF_NONE;
	if (fixed_compare(if_applied, before) > 0)
	{
		if (fixed_compare(after, before) > 0)
			return GATEWAY_PROOF_APPLIED;
		if (lingered && used && fixed_add(if_applied, fixed_negate(*used), &least) &&
			fixed_compare(after, least) < 0)
			return GATEWAY_PROOF_NOT_APPLIED;
		return unproven;
	}
	if (used && fixed_add(before, fixed_negate(*used), &least) && fixed_compare(after, least) < 0)
		return GATEWAY_PROOF_APPLIED;
	if (lingered && fixed_compare(after, if_applied) > 0)
		return GATEWAY_PROOF_NOT_APPLIED;
	return unproven;
}

GatewayProof
gateway_prove(const GatewayReadings *readings)
{
	Fixed before;
	Fixed after;
	Fixed amount;
	Fixed used = {0, 0};
	bool  bounded = readings->max_usage >= 0 && readings->max_usage <= MAX_USAGE;

	if (!fixed_read(readings->before, &before) || !fixed_read(readings->after, &after) ||
		!fixed_read(readings->amount, &amount))
		return GATEWAY_PROOF_NONE;
	if (readings->dialect == GATEWAY_ZGSM)
		return prove_by_total(before, after, amount, readings->lingered);
	if (bounded)
	{
		used.units = (int64_t) readings->max_usage;
		if ((double) used.units < readings->max_usage)
			used.units++;
	}
	return prove_by_remainder(before, after, amount, bounded ? &used : NULL, readings->lingered);
}
