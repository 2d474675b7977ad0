/*
 * strike.h
 *		What the client sees of a fault.
 */
#ifndef STRIKE_H
#define STRIKE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "answer.h"
#include "dialect.h"
#include "garble.h"

enum symptom
{
	SYMPTOM_NONE,     /* the usual reply */
	SYMPTOM_REPLY,    /* the reply that was scripted */
	SYMPTOM_REFUSAL,  /* what wrong parameters are answered with */
	SYMPTOM_PAGE,     /* 200 with a page, as from a wrong URL */
	SYMPTOM_REDIRECT, /* a redirect to another host */
	SYMPTOM_GARBLED,  /* 200 with JSON that is wrong in one way */
	SYMPTOM_HUGE,     /* 200 with the usual reply, and far too much behind it */
	SYMPTOM_EXTRA,    /* bytes behind the reply, on a connection that stays open */
	SYMPTOM_DRIP,     /* the reply byte by byte, then END_CLOSE */
	SYMPTOM_HALF,     /* half a header, then END_CLOSE */
	SYMPTOM_CUT,      /* the usual reply without the end of its body, then END_CLOSE */
	SYMPTOM_RAW,      /* the scripted bytes, then END_CLOSE */
	SYMPTOM_CLOSE,    /* END_CLOSE */
	SYMPTOM_RESET,    /* END_RESET */
	SYMPTOM_HANG,     /* END_HANG */
	SYMPTOM_LATE      /* END_LATE */
};

struct fault_kind
{
	const char  *name;
	bool         applies; /* whether the request takes effect before it is answered */
	enum symptom symptom;
	unsigned     status;       /* where none is scripted */
	const char  *content_type; /* the same */
	garbling     garble;       /* for SYMPTOM_GARBLED */
};

/* How a fault is to look, as far as its kind leaves it open. */
struct strike
{
	const struct fault_kind *kind;
	unsigned                 status; /* 0: as the kind says */
	unsigned                 delay_ms;
	uint64_t                 size; /* of SYMPTOM_HUGE, in bytes */
	bool                     has_body;
	struct text              body;
	struct text              extra; /* empty: a reply that says "later" */
	char                    *content_type;
	char                    *retry_after;
	char                    *location;
};

/* A copy with all it owns, and the end of one. */
extern struct strike strike_copy(const struct strike *strike);
extern void          strike_free(struct strike *strike);

/* The status that is scripted, or that of the kind. */
extern unsigned strike_status(const struct strike *strike);

/*
 * Turns a strike into an answer and frees the strike.  The answer holds the usual reply: the true one if
 * the kind applies, otherwise the one that the request would have got.
 */
extern void strike_answer(struct strike *strike, const struct dialect *dialect,
						  struct answer *answer);

#endif
