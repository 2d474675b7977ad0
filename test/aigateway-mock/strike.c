/*
 * strike.c
 *		What the client sees of a fault.
 */
#include "strike.h"

#include <stdlib.h>

#include "huge.h"
#include "raw.h"

/* Sent behind a reply: taken for the next one, it would have a change made that was made already. */
#define LATER_REPLY                                                                                \
	"HTTP/1.1 429 Too Many Requests\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nlater"

/* Where a redirect leads that does not say; nobody is there. */
#define ELSEWHERE "http://127.0.0.2:9/"

/*
 * A copy of the text.
 */
static struct text
copy_text(const struct text *text)
{
	struct text copy = {0};

	text_add(&copy, text->bytes, text->length);
	return copy;
}

/*
 * A copy of a string that may be missing.
 */
static char *
copy_string(const char *string)
{
	return string != NULL ? need_copy(string) : NULL;
}

/*
 * Copies a strike with all it owns.
 */
struct strike
strike_copy(const struct strike *strike)
{
	struct strike copy = *strike;

	copy.body = copy_text(&strike->body);
	copy.extra = copy_text(&strike->extra);
	copy.content_type = copy_string(strike->content_type);
	copy.retry_after = copy_string(strike->retry_after);
	copy.location = copy_string(strike->location);
	return copy;
}

/*
 * Frees what a strike owns.
 */
void
strike_free(struct strike *strike)
{
	text_free(&strike->body);
	text_free(&strike->extra);
	free(strike->content_type);
	free(strike->retry_after);
	free(strike->location);
	*strike = (struct strike){0};
}

/*
 * Empties an answer of its reply.
 */
static void
drop_reply(struct answer *answer)
{
	enum action action = answer->action;

	answer_free(answer);
	answer->action = action;
}

/*
 * The status that is scripted, or that of the kind.
 */
unsigned
strike_status(const struct strike *strike)
{
	return strike->status != 0 ? strike->status : strike->kind->status;
}

/*
 * Replies as the script says; what it leaves open is an error of the store.
 */
static void
answer_scripted(struct strike *strike, const struct dialect *dialect, struct answer *answer)
{
	drop_reply(answer);
	dialect->answer_store_error(strike_status(strike), "scripted fault", answer);
	if (strike->has_body)
		answer_text(answer, strike_status(strike), answer->content_type, &strike->body);
}

/*
 * The reply of a kind that may apply: the usual one if it does and nothing else is scripted.
 */
static void
answer_usual_or_scripted(struct strike *strike, const struct dialect *dialect,
						 struct answer *answer)
{
	if (!strike->kind->applies || strike->has_body || strike->status != 0)
		answer_scripted(strike, dialect, answer);
}

/*
 * Replies with a page, as a gateway's console or a login would.
 */
static void
answer_page(struct strike *strike, struct answer *answer)
{
	static const char page[] = "<!DOCTYPE html>\n<html><head><title>Welcome</title></head>"
							   "<body><h1>Welcome</h1></body></html>\n";

	drop_reply(answer);
	if (strike->has_body)
		answer_text(answer, strike_status(strike), type_html, &strike->body);
	else
		answer_constant(answer, strike_status(strike), type_html, page);
}

/*
 * Replies with a redirect.
 */
static void
answer_redirect(struct strike *strike, struct answer *answer)
{
	drop_reply(answer);
	answer_constant(answer, strike_status(strike), type_text, "moved\n");
	answer->location = strike->location != NULL ? strike->location : need_copy(ELSEWHERE);
	strike->location = NULL;
}

/*
 * Replies with JSON that is wrong in the way of the kind.
 */
static void
answer_garbled(struct strike *strike, struct answer *answer)
{
	struct text wrong = {0};
	const char *body;
	size_t      length;

	answer_body(answer, &body, &length);
	strike->kind->garble(body, length, &wrong);
	drop_reply(answer);
	answer_text(answer, strike_status(strike), type_json, &wrong);
}

/*
 * Whether the symptom is bytes that libmicrohttpd would not send.
 */
static bool
is_written_by_hand(enum symptom symptom)
{
	return symptom == SYMPTOM_EXTRA || symptom == SYMPTOM_DRIP || symptom == SYMPTOM_HALF ||
		   symptom == SYMPTOM_CUT || symptom == SYMPTOM_RAW;
}

/*
 * Sends bytes that libmicrohttpd would not.
 */
static void
answer_bytes(struct strike *strike, struct answer *answer)
{
	struct text wire = {0};
	const char *body;
	size_t      length;
	size_t      header;

	switch (strike->kind->symptom)
	{
		case SYMPTOM_EXTRA:
			raw_reply(answer, false, &wire);
			if (strike->extra.length > 0)
				text_add(&wire, strike->extra.bytes, strike->extra.length);
			else
				text_add_string(&wire, LATER_REPLY);
			answer->ending = END_EXTRA;
			answer->wire = wire;
			return;
		case SYMPTOM_DRIP:
			raw_reply(answer, true, &wire);
			answer->ending = END_DRIP;
			answer->wire = wire;
			return;
		case SYMPTOM_HALF:
			/* up to the colon of the second field */
			raw_header(answer, 0, true, &wire);
			wire.length -= sizeof(": 0\r\nConnection: close\r\n\r\n") - 1;
			break;
		case SYMPTOM_CUT:
			answer_body(answer, &body, &length);
			raw_reply(answer, true, &wire);
			header = wire.length - length;
			wire.length = header + length / 2;
			break;
		default:
			wire = strike->body;
			strike->body = (struct text){0};
			break;
	}
	drop_reply(answer);
	answer->ending = END_BYTES;
	answer->wire = wire;
}

/*
 * Gives the answer what the script says about its header.
 */
static void
dress(struct strike *strike, struct answer *answer)
{
	if (strike->content_type == NULL && strike->kind->content_type != NULL)
		strike->content_type = need_copy(strike->kind->content_type);
	if (strike->content_type != NULL)
	{
		free(answer->own_content_type);
		answer->content_type = answer->own_content_type = strike->content_type;
		strike->content_type = NULL;
	}
	if (strike->retry_after != NULL)
	{
		answer->retry_after = strike->retry_after;
		strike->retry_after = NULL;
	}
}

/*
 * Turns a strike into an answer; see the header.
 */
void
strike_answer(struct strike *strike, const struct dialect *dialect, struct answer *answer)
{
	enum ending ending = END_REPLY;

	switch (strike->kind->symptom)
	{
		case SYMPTOM_REPLY:
			answer_scripted(strike, dialect, answer);
			break;
		case SYMPTOM_REFUSAL:
			dialect->refuse(answer->action, true, answer);
			break;
		case SYMPTOM_PAGE:
			answer_page(strike, answer);
			break;
		case SYMPTOM_REDIRECT:
			answer_redirect(strike, answer);
			break;
		case SYMPTOM_GARBLED:
			answer_garbled(strike, answer);
			break;
		case SYMPTOM_HUGE:
			huge_answer(strike->size, answer);
			break;
		case SYMPTOM_EXTRA:
		case SYMPTOM_DRIP:
			answer_usual_or_scripted(strike, dialect, answer);
			break;
		case SYMPTOM_CLOSE:
			ending = END_CLOSE;
			break;
		case SYMPTOM_RESET:
			ending = END_RESET;
			break;
		case SYMPTOM_HANG:
			ending = END_HANG;
			break;
		case SYMPTOM_LATE:
			ending = END_LATE;
			break;
		case SYMPTOM_NONE:
		case SYMPTOM_HALF:
		case SYMPTOM_CUT:
		case SYMPTOM_RAW:
			break;
	}
	dress(strike, answer);
	if (is_written_by_hand(strike->kind->symptom))
		answer_bytes(strike, answer);
	else if (ending != END_REPLY)
	{
		drop_reply(answer);
		answer->ending = ending;
	}
	answer->delay_ms = strike->delay_ms;
	strike_free(strike);
}
