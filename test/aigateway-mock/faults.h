/*
 * faults.h
 *		Scripted misbehaviour: faults are armed by a test and strike the requests that match.
 *
 * A fault is a kind (whether the change is applied, and what the client sees), a pattern (which
 * actions, which user) and a number of strikes left.  The fault armed first strikes first.  A new kind
 * is a line in the table of faults.c, and a new way of showing it a value of enum symptom.  Any thread
 * may call these functions.
 */
#ifndef FAULTS_H
#define FAULTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "answer.h"
#include "dialect.h"

/* What the client sees. */
enum symptom
{
	SYMPTOM_NONE,  /* the usual reply */
	SYMPTOM_REPLY, /* the reply that was scripted */
	SYMPTOM_HTML,  /* 200 with a page, as from a wrong URL */
	SYMPTOM_CLOSE, /* END_CLOSE */
	SYMPTOM_RESET, /* END_RESET */
	SYMPTOM_HANG   /* END_HANG */
};

struct fault_kind
{
	const char  *name;
	bool         applies; /* whether the request takes effect first */
	enum symptom symptom;
};

/* The kind of this name, NULL if there is none. */
extern const struct fault_kind *fault_kind(const char *name);

/* The actions that a word means (bit 1 << action), 0 if it means none. */
extern unsigned fault_actions(const char *match);

/* What a test asks for; faults_arm() copies it. */
struct fault_script
{
	const struct fault_kind *kind;
	const char              *match; /* a word fault_actions() knows */
	uint64_t                 count; /* how many requests it strikes */
	unsigned                 status;
	unsigned                 delay_ms;
	const struct text       *user; /* or NULL: any user */
	const struct text       *body; /* or NULL: what the dialect or kind has */
	const char              *content_type;
	const char              *retry_after;
};

/* A fault that has struck one request: copies of what is needed to answer, freed by the answer. */
struct strike
{
	const struct fault_kind *kind;
	unsigned                 status;
	unsigned                 delay_ms;
	bool                     has_body;
	struct text              body;
	char                    *content_type;
	char                    *retry_after;
};

/* Arms a fault and returns its number, which begins at 1. */
extern uint64_t faults_arm(const struct fault_script *script);

/* Whether a fault strikes this request; uses up one of its strikes. */
extern bool faults_take(enum action action, const char *user, size_t user_length,
						struct strike *strike);

/* Turns a strike into an answer and frees the strike; the answer may hold the usual reply already. */
extern void faults_answer(struct strike *strike, const struct dialect *dialect,
						  struct answer *answer);

/* Appends the armed faults as a JSON array. */
extern void faults_list(struct text *text);

/* Disarms everything. */
extern void faults_clear(void);

#endif
