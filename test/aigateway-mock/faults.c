/*
 * faults.c
 *		Scripted misbehaviour: faults are armed by a test and strike the requests that match.
 */
#include "faults.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "stats.h"

#define ALL_ACTIONS ((1u << ACTION_COUNT) - 1)

struct fault
{
	struct fault *next;
	uint64_t      number;
	uint64_t      left;
	unsigned      actions;
	const char   *match;
	bool          any_user;
	struct text   user;
	struct strike pattern;
};

static const struct fault_kind kinds[] = {
	{"slow", true, SYMPTOM_NONE},          {"status", false, SYMPTOM_REPLY},
	{"apply_status", true, SYMPTOM_REPLY}, {"html", false, SYMPTOM_HTML},
	{"close", false, SYMPTOM_CLOSE},       {"apply_close", true, SYMPTOM_CLOSE},
	{"reset", false, SYMPTOM_RESET},       {"apply_reset", true, SYMPTOM_RESET},
	{"hang", false, SYMPTOM_HANG},         {"apply_hang", true, SYMPTOM_HANG},
};

static const struct
{
	const char *word;
	unsigned    actions;
} matches[] = {
	{"any", ALL_ACTIONS},
	{"query", 1u << ACTION_QUERY | 1u << ACTION_USED_QUERY},
	{"delta", 1u << ACTION_DELTA | 1u << ACTION_USED_DELTA},
	{"refresh", 1u << ACTION_REFRESH | 1u << ACTION_USED_REFRESH},
	{"write", 1u << ACTION_DELTA | 1u << ACTION_USED_DELTA | 1u << ACTION_REFRESH |
				  1u << ACTION_USED_REFRESH},
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct fault   *first;
static uint64_t        last_number;
static atomic_uint     armed; /* so that a request without faults takes no lock */

/*
 * The kind of this name.
 */
const struct fault_kind *
fault_kind(const char *name)
{
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
	{
		if (strcmp(kinds[i].name, name) == 0)
			return &kinds[i];
	}
	return NULL;
}

/*
 * The entry of a word in the table of matches, NULL if it is not there.
 */
static const char *
known_match(const char *word, unsigned *actions)
{
	for (size_t i = 0; i < sizeof(matches) / sizeof(matches[0]); i++)
	{
		if (strcmp(matches[i].word, word) == 0)
		{
			*actions = matches[i].actions;
			return matches[i].word;
		}
	}
	*actions = 0;
	return NULL;
}

/*
 * The actions that a word means.
 */
unsigned
fault_actions(const char *match)
{
	unsigned actions;

	known_match(match, &actions);
	return actions;
}

/*
 * A copy of the text.
 */
static struct text
copy_text(const struct text *text)
{
	struct text copy = {0};

	if (text != NULL)
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
static struct strike
copy_strike(const struct strike *strike)
{
	struct strike copy = *strike;

	copy.body = copy_text(&strike->body);
	copy.content_type = copy_string(strike->content_type);
	copy.retry_after = copy_string(strike->retry_after);
	return copy;
}

/*
 * Frees what a strike owns.
 */
static void
free_strike(struct strike *strike)
{
	text_free(&strike->body);
	free(strike->content_type);
	free(strike->retry_after);
	strike->content_type = NULL;
	strike->retry_after = NULL;
}

/*
 * Takes a fault off the list; the lock is held.
 */
static void
disarm(struct fault **link)
{
	struct fault *fault = *link;

	*link = fault->next;
	text_free(&fault->user);
	free_strike(&fault->pattern);
	free(fault);
	atomic_fetch_sub(&armed, 1);
}

/*
 * Arms a fault behind the others.
 */
uint64_t
faults_arm(const struct fault_script *script)
{
	struct fault  *fault = need_memory(sizeof(*fault));
	struct fault **link;
	uint64_t       number;

	memset(fault, 0, sizeof(*fault));
	fault->match = known_match(script->match, &fault->actions);
	fault->left = script->count;
	fault->any_user = script->user == NULL;
	fault->user = copy_text(script->user);
	fault->pattern.kind = script->kind;
	fault->pattern.status = script->status;
	fault->pattern.delay_ms = script->delay_ms;
	fault->pattern.has_body = script->body != NULL;
	fault->pattern.body = copy_text(script->body);
	fault->pattern.content_type = copy_string(script->content_type);
	fault->pattern.retry_after = copy_string(script->retry_after);

	pthread_mutex_lock(&lock);
	for (link = &first; *link != NULL; link = &(*link)->next)
		;
	*link = fault;
	number = fault->number = ++last_number;
	atomic_fetch_add(&armed, 1);
	pthread_mutex_unlock(&lock);
	return number;
}

/*
 * Whether the fault is meant for this request.
 */
static bool
matches_request(const struct fault *fault, enum action action, const char *user, size_t user_length)
{
	return (fault->actions & 1u << action) != 0 &&
		   (fault->any_user || (fault->user.length == user_length &&
								memcmp(fault->user.bytes, user, user_length) == 0));
}

/*
 * Lets the first fault that matches strike.
 */
bool
faults_take(enum action action, const char *user, size_t user_length, struct strike *strike)
{
	bool struck = false;

	if (atomic_load_explicit(&armed, memory_order_relaxed) == 0)
		return false;

	pthread_mutex_lock(&lock);
	for (struct fault **link = &first; *link != NULL; link = &(*link)->next)
	{
		if (!matches_request(*link, action, user, user_length))
			continue;
		*strike = copy_strike(&(*link)->pattern);
		if (--(*link)->left == 0)
			disarm(link);
		struck = true;
		break;
	}
	pthread_mutex_unlock(&lock);
	if (struck)
		stats_fault();
	return struck;
}

/*
 * Replies as the script says; what it leaves open is an error of the store.
 */
static void
answer_scripted(struct strike *strike, const struct dialect *dialect, struct answer *answer)
{
	dialect->answer_store_error(strike->status, "scripted fault", answer);
	if (strike->has_body)
		answer_text(answer, strike->status, answer->content_type, &strike->body);
}

/*
 * Replies with a page, as a gateway's console or a login would.
 */
static void
answer_page(struct strike *strike, struct answer *answer)
{
	static const char page[] = "<!DOCTYPE html>\n<html><head><title>Welcome</title></head>"
							   "<body><h1>Welcome</h1></body></html>\n";

	if (strike->has_body)
		answer_text(answer, 200, type_html, &strike->body);
	else
		answer_constant(answer, 200, type_html, page);
}

/*
 * Turns a strike into an answer; see the header.
 */
void
faults_answer(struct strike *strike, const struct dialect *dialect, struct answer *answer)
{
	enum action action = answer->action;

	if (strike->kind->symptom != SYMPTOM_NONE)
	{
		answer_free(answer);
		answer->action = action;
	}
	switch (strike->kind->symptom)
	{
		case SYMPTOM_NONE:
			break;
		case SYMPTOM_REPLY:
			answer_scripted(strike, dialect, answer);
			break;
		case SYMPTOM_HTML:
			answer_page(strike, answer);
			break;
		case SYMPTOM_CLOSE:
			answer->ending = END_CLOSE;
			break;
		case SYMPTOM_RESET:
			answer->ending = END_RESET;
			break;
		case SYMPTOM_HANG:
			answer->ending = END_HANG;
			break;
	}
	answer->delay_ms = strike->delay_ms;
	if (strike->content_type != NULL)
	{
		answer->content_type = answer->own_content_type = strike->content_type;
		strike->content_type = NULL;
	}
	answer->retry_after = strike->retry_after;
	strike->retry_after = NULL;
	free_strike(strike);
}

/*
 * Appends the armed faults as JSON.
 */
void
faults_list(struct text *text)
{
	text_add_string(text, "[");
	pthread_mutex_lock(&lock);
	for (const struct fault *fault = first; fault != NULL; fault = fault->next)
	{
		text_format(text,
					"%s{\"id\":%llu,\"match\":\"%s\",\"kind\":\"%s\",\"left\":%llu,"
					"\"status\":%u,\"delay_ms\":%u,\"user\":",
					fault == first ? "" : ",", (unsigned long long) fault->number, fault->match,
					fault->pattern.kind->name, (unsigned long long) fault->left,
					fault->pattern.status, fault->pattern.delay_ms);
		if (fault->any_user)
			text_add_string(text, "null}");
		else
		{
			text_add_json(text, fault->user.bytes, fault->user.length);
			text_add_string(text, "}");
		}
	}
	pthread_mutex_unlock(&lock);
	text_add_string(text, "]\n");
}

/*
 * Disarms everything.
 */
void
faults_clear(void)
{
	pthread_mutex_lock(&lock);
	while (first != NULL)
		disarm(&first);
	pthread_mutex_unlock(&lock);
}
