/*
 * answer.h
 *		What becomes of a request: a reply, or one of the ways of not getting one.
 *
 * An answer is filled by a dialect, by the operator path or by a fault and carried out once, by
 * server.c.  It owns its body and strings; a zeroed answer followed by answer_free() is allowed.
 */
#ifndef ANSWER_H
#define ANSWER_H

#include <stddef.h>

#include "ledger.h"
#include "text.h"

struct MHD_Response;

enum ending
{
	END_REPLY, /* send status and body */
	END_CLOSE, /* send nothing and close: the client reads an end of file */
	END_RESET, /* send nothing and reset: the client reads ECONNRESET */
	END_HANG,  /* send nothing and keep the connection until the client leaves it */
	END_LATE,  /* as END_HANG, and when the client has left and delay_ms are over, apply */
	END_BYTES, /* send wire as it is, at once, and close */
	END_EXTRA, /* send wire, which is more than a reply, at once, and serve the next request */
	END_DRIP   /* send wire byte by byte, delay_ms between them, and close */
};

struct answer
{
	enum action          action; /* for the counters */
	enum ending          ending;
	unsigned             delay_ms;     /* wait so long before ending */
	unsigned             status;       /* 0: the client cannot read one, whatever is sent */
	const char          *content_type; /* a constant, or one of the strings owned below */
	const char          *constant;     /* a body that lives for ever; otherwise the next one */
	struct text          body;
	struct MHD_Response *stream;       /* a body that is made while it is sent, instead of either */
	const char          *authenticate; /* a constant, or NULL */
	char                *retry_after;
	char                *location;
	char                *own_content_type;
	struct text          wire; /* what END_BYTES, END_EXTRA and END_DRIP send */
};

extern const char type_text[]; /* text/plain */
extern const char type_json[]; /* application/json */
extern const char type_html[]; /* text/html */
extern const char type_tsv[];  /* text/tab-separated-values */

/* Answers with a constant that outlives every request. */
extern void answer_constant(struct answer *answer, unsigned status, const char *content_type,
							const char *body);

/* Answers with this text, which the answer takes over; the caller's is empty afterwards. */
extern void answer_text(struct answer *answer, unsigned status, const char *content_type,
						struct text *body);

/* The body as far as it is a constant or a text; it stays the answer's. */
extern void answer_body(const struct answer *answer, const char **bytes, size_t *length);

/* Frees what the answer owns; it is empty afterwards. */
extern void answer_free(struct answer *answer);

#endif
