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

#define READS (1u << ACTION_QUERY | 1u << ACTION_USED_QUERY)
#define DELTAS (1u << ACTION_DELTA | 1u << ACTION_USED_DELTA)
#define REFRESHES (1u << ACTION_REFRESH | 1u << ACTION_USED_REFRESH)

struct match
{
	const char *word;
	unsigned    actions;
	bool        not_zero; /* deltas of 0 are not meant */
};

struct fault
{
	struct fault       *next;
	uint64_t            number;
	uint64_t            left; /* 0: without end */
	const struct match *match;
	bool                any_user;
	struct text         user;
	unsigned            probability;
	uint64_t            random; /* the state of its generator */
	struct strike       pattern;
};

/* A kind that does not apply the change, and the same one that does. */
#define BOTH(name, ...)                                                                            \
	{name, false, __VA_ARGS__},                                                                    \
	{                                                                                              \
		"apply_" name, true, __VA_ARGS__                                                           \
	}

static const struct fault_kind kinds[] = {
	{"slow", true, SYMPTOM_NONE, 0, NULL, NULL},
	{"apply_wrong_type", true, SYMPTOM_NONE, 0, "image/png", NULL},
	{"refuse", false, SYMPTOM_REFUSAL, 0, NULL, NULL},
	{"failure", false, SYMPTOM_REPLY, 200, NULL, NULL},
	{"redirect", false, SYMPTOM_REDIRECT, 307, NULL, NULL},
	BOTH("status", SYMPTOM_REPLY, 503, NULL, NULL),
	BOTH("html", SYMPTOM_PAGE, 200, NULL, NULL),
	BOTH("unparsable", SYMPTOM_GARBLED, 200, NULL, garble_unparsable),
	BOTH("truncated", SYMPTOM_GARBLED, 200, NULL, garble_truncated),
	BOTH("nested", SYMPTOM_GARBLED, 200, NULL, garble_nested),
	BOTH("not_utf8", SYMPTOM_GARBLED, 200, NULL, garble_not_utf8),
	BOTH("duplicate_key", SYMPTOM_GARBLED, 200, NULL, garble_duplicate),
	BOTH("quoted_number", SYMPTOM_GARBLED, 200, NULL, garble_quoted),
	BOTH("exponent", SYMPTOM_GARBLED, 200, NULL, garble_exponent),
	BOTH("long_number", SYMPTOM_GARBLED, 200, NULL, garble_digits),
	BOTH("huge", SYMPTOM_HUGE, 0, NULL, NULL),
	BOTH("extra", SYMPTOM_EXTRA, 503, NULL, NULL),
	BOTH("drip", SYMPTOM_DRIP, 503, NULL, NULL),
	BOTH("half_header", SYMPTOM_HALF, 0, NULL, NULL),
	BOTH("cut_off", SYMPTOM_CUT, 0, NULL, NULL),
	BOTH("raw", SYMPTOM_RAW, 0, NULL, NULL),
	BOTH("close", SYMPTOM_CLOSE, 0, NULL, NULL),
	BOTH("reset", SYMPTOM_RESET, 0, NULL, NULL),
	BOTH("hang", SYMPTOM_HANG, 0, NULL, NULL),
	{"apply_late", false, SYMPTOM_LATE, 0, NULL, NULL},
};

static const struct match matches[] = {
	{"any", READS | DELTAS | REFRESHES | 1u << ACTION_OTHER, false},
	{"query", READS, false},
	{"delta", DELTAS, false},
	{"grant", DELTAS, true},
	{"refresh", REFRESHES, false},
	{"write", DELTAS | REFRESHES, false},
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
 * Appends the names of all kinds.
 */
void
fault_kinds_list(struct text *text)
{
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		text_format(text, "%s\"%s\"", i > 0 ? "," : "[", kinds[i].name);
	text_add_string(text, "]\n");
}

/*
 * The entry of a word in the table of matches, NULL if it is not there.
 */
static const struct match *
find_match(const char *word)
{
	for (size_t i = 0; i < sizeof(matches) / sizeof(matches[0]); i++)
	{
		if (strcmp(matches[i].word, word) == 0)
			return &matches[i];
	}
	return NULL;
}

/*
 * Whether the word is in the table of matches.
 */
bool
fault_match_is_known(const char *match)
{
	return find_match(match) != NULL;
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
	strike_free(&fault->pattern);
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
	fault->match = find_match(script->match);
	fault->left = script->count;
	fault->any_user = script->user == NULL;
	if (script->user != NULL)
		text_add(&fault->user, script->user->bytes, script->user->length);
	fault->probability = script->probability;
	fault->random = script->seed;
	fault->pattern = strike_copy(&script->strike);

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
matches_request(const struct fault *fault, enum action action, const char *user, size_t user_length,
				amount value)
{
	return (fault->match->actions & 1u << action) != 0 && !(fault->match->not_zero && value == 0) &&
		   (fault->any_user || (fault->user.length == user_length &&
								memcmp(fault->user.bytes, user, user_length) == 0));
}

/*
 * The next number of a fault's generator (splitmix64).
 */
static uint64_t
next_random(struct fault *fault)
{
	uint64_t x = fault->random += UINT64_C(0x9e3779b97f4a7c15);

	x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
	return x ^ (x >> 31);
}

/*
 * Lets the first fault that matches, and chooses to, strike.
 */
bool
faults_take(enum action action, const char *user, size_t user_length, amount value,
			struct strike *strike)
{
	bool struck = false;

	if (atomic_load_explicit(&armed, memory_order_relaxed) == 0)
		return false;

	pthread_mutex_lock(&lock);
	for (struct fault **link = &first; *link != NULL && !struck; link = &(*link)->next)
	{
		struct fault *fault = *link;

		if (!matches_request(fault, action, user, user_length, value) ||
			(fault->probability < FAULT_ALWAYS &&
			 next_random(fault) % FAULT_ALWAYS >= fault->probability))
			continue;
		*strike = strike_copy(&fault->pattern);
		struck = true;
		if (fault->left > 0 && --fault->left == 0)
		{
			disarm(link);
			break;
		}
	}
	pthread_mutex_unlock(&lock);
	if (struck)
		stats_fault();
	return struck;
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
		char probability[AMOUNT_TEXT];

		amount_write(fault->probability, AMOUNT_DECIMALS, probability);
		text_format(text,
					"%s{\"id\":%llu,\"match\":\"%s\",\"kind\":\"%s\",\"left\":%llu,"
					"\"probability\":%s,\"status\":%u,\"delay_ms\":%u,\"user\":",
					fault == first ? "" : ",", (unsigned long long) fault->number,
					fault->match->word, fault->pattern.kind->name, (unsigned long long) fault->left,
					probability, strike_status(&fault->pattern), fault->pattern.delay_ms);
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
