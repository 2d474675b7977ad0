/*
 * faults.h
 *		Scripted misbehaviour: faults are armed by a test and strike the requests that match.
 *
 * A fault is a kind (whether the change is applied, and what the client sees), a pattern (which
 * actions, which user), a number of strikes left and the probability of a strike.  The fault armed first
 * strikes first.  A new kind is a line in the table of faults.c, and a new way of showing it a value of
 * enum symptom.  Any thread may call these functions.
 */
#ifndef FAULTS_H
#define FAULTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "strike.h"

/* The kind of this name, NULL if there is none. */
extern const struct fault_kind *fault_kind(const char *name);

/* Appends the names of all kinds as a JSON array. */
extern void fault_kinds_list(struct text *text);

/* True for a word that says which requests are meant. */
extern bool fault_match_is_known(const char *match);

/* A probability is in millionths; this one is always. */
#define FAULT_ALWAYS 1000000

/* What a test asks for; faults_arm() copies it. */
struct fault_script
{
	const char        *match;       /* a word fault_match_is_known() knows */
	const struct text *user;        /* or NULL: any user */
	uint64_t           count;       /* how many requests it strikes; 0: all, until it is disarmed */
	unsigned           probability; /* that it strikes one of those that match */
	uint64_t           seed;        /* of the choice which */
	struct strike      strike;      /* stays the caller's */
};

/* Arms a fault and returns its number, which begins at 1. */
extern uint64_t faults_arm(const struct fault_script *script);

/*
 * Whether a fault strikes this request (the value is that of a change); uses up one of its strikes.  Each
 * fault makes its choice among the requests that match it and that no fault before it has struck; the
 * same seed and the same sequence of those give the same choice.
 */
extern bool faults_take(enum action action, const char *user, size_t user_length, amount value,
						struct strike *strike);

/* Appends the armed faults as a JSON array. */
extern void faults_list(struct text *text);

/* Disarms everything. */
extern void faults_clear(void);

#endif
