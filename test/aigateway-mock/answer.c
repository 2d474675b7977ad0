/*
 * answer.c
 *		What becomes of a request: a reply, or one of the ways of not getting one.
 */
#include "answer.h"

#include <stdlib.h>
#include <string.h>

#include <microhttpd.h>

const char type_text[] = "text/plain";
const char type_json[] = "application/json";
const char type_html[] = "text/html; charset=utf-8";
const char type_tsv[] = "text/tab-separated-values; charset=utf-8";

/*
 * Answers with a constant.
 */
void
answer_constant(struct answer *answer, unsigned status, const char *content_type, const char *body)
{
	answer->ending = END_REPLY;
	answer->status = status;
	answer->content_type = content_type;
	answer->constant = body;
}

/*
 * Answers with a text and takes it over.
 */
void
answer_text(struct answer *answer, unsigned status, const char *content_type, struct text *body)
{
	answer->ending = END_REPLY;
	answer->status = status;
	answer->content_type = content_type;
	answer->constant = NULL;
	text_free(&answer->body);
	answer->body = *body;
	*body = (struct text){0};
}

/*
 * The body, wherever it is.
 */
void
answer_body(const struct answer *answer, const char **bytes, size_t *length)
{
	*bytes = answer->constant != NULL ? answer->constant : answer->body.bytes;
	*length = answer->constant != NULL ? strlen(answer->constant) : answer->body.length;
}

/*
 * Frees what the answer owns.
 */
void
answer_free(struct answer *answer)
{
	text_free(&answer->body);
	if (answer->stream != NULL)
		MHD_destroy_response(answer->stream);
	free(answer->retry_after);
	free(answer->location);
	free(answer->own_content_type);
	text_free(&answer->wire);
	memset(answer, 0, sizeof(*answer));
}
