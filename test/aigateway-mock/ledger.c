/*
 * ledger.c
 *		The truth of the mock: what everyone has, and every change that was applied, in order.
 */
#include "ledger.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "journal.h"
#include "table.h"

struct user
{
	struct named name;
	amount       quota;
	amount       used;
	char         id[];
};

struct seen_key
{
	struct named name;
	char         key[];
};

/* A change refers to its user by pointer: users live until the ledger is reset. */
struct change
{
	amount             value;
	amount             balance_after;
	const struct user *user;
	char              *idempotency_key;
	enum action        action;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static struct table   users;
static struct table   seen_keys; /* filled only while idempotency is honoured */
static struct change *changes;
static uint64_t       change_count;
static uint64_t       change_room;
static uint64_t       generation_now;
static bool           honour_keys;

/*
 * The name of an action in lists and counters.
 */
const char *
action_name(enum action action)
{
	static const char *const names[ACTION_COUNT] = {
		[ACTION_QUERY] = "query",           [ACTION_DELTA] = "delta",
		[ACTION_REFRESH] = "refresh",       [ACTION_USED_QUERY] = "used_query",
		[ACTION_USED_DELTA] = "used_delta", [ACTION_USED_REFRESH] = "used_refresh",
		[ACTION_OTHER] = "other",
	};

	return names[action];
}

/*
 * True for the actions that leave everything as it is.
 */
bool
action_only_reads(enum action action)
{
	return action == ACTION_QUERY || action == ACTION_USED_QUERY;
}

/*
 * The user of this id, made if there is none yet and that is wanted.
 */
static struct user *
find_user(const char *id, size_t length, bool make)
{
	uint64_t     hash = table_hash(id, length);
	struct user *user = (struct user *) table_find(&users, id, length, hash);

	if (user == NULL && make)
	{
		user = need_memory(sizeof(*user) + length);
		user->name = (struct named){hash, length, user->id};
		user->quota = 0;
		user->used = 0;
		memcpy(user->id, id, length);
		table_add(&users, &user->name);
	}
	return user;
}

/*
 * Notes the key as seen; false if it was already.
 */
static bool
see_key(const char *key)
{
	size_t           length = strlen(key);
	uint64_t         hash = table_hash(key, length);
	struct seen_key *seen;

	if (table_find(&seen_keys, key, length, hash) != NULL)
		return false;
	seen = need_memory(sizeof(*seen) + length);
	seen->name = (struct named){hash, length, seen->key};
	memcpy(seen->key, key, length);
	table_add(&seen_keys, &seen->name);
	return true;
}

/*
 * Whether this key was applied before and that matters.
 */
static bool
key_was_seen(const char *key)
{
	size_t length;

	if (!honour_keys || key == NULL)
		return false;
	length = strlen(key);
	return table_find(&seen_keys, key, length, table_hash(key, length)) != NULL;
}

/*
 * Appends to the list.
 */
static void
append_change(const struct change_request *request, const struct user *user, amount balance_after)
{
	struct change *change;

	if (change_count == change_room)
	{
		change_room = change_room > 0 ? change_room * 2 : 1024;
		changes = need_more_memory(changes, change_room * sizeof(*changes));
	}
	change = &changes[change_count++];
	change->value = request->value;
	change->balance_after = balance_after;
	change->user = user;
	change->action = request->action;
	change->idempotency_key = NULL;
	if (request->idempotency_key != NULL)
	{
		change->idempotency_key = need_copy(request->idempotency_key);
		if (honour_keys)
			see_key(request->idempotency_key);
	}
}

/*
 * Applies under the lock; see ledger_apply.
 */
static enum ledger_outcome
apply_locked(const struct change_request *request)
{
	bool to_used = request->action == ACTION_USED_DELTA || request->action == ACTION_USED_REFRESH;
	bool adds = request->action == ACTION_DELTA || request->action == ACTION_USED_DELTA;
	struct user *user;
	amount       before = 0;
	amount       after;

	if (key_was_seen(request->idempotency_key))
		return LEDGER_REPEATED;

	user = find_user(request->user, request->user_length, false);
	if (adds && user != NULL)
		before = to_used ? user->used : user->quota;
	if (!amount_add(before, request->value, request->lowest, request->highest, &after))
		return LEDGER_OUT_OF_RANGE;

	journal_apply(request);
	if (user == NULL)
		user = find_user(request->user, request->user_length, true);
	if (to_used)
		user->used = after;
	else
		user->quota = after;
	append_change(request, user, after);
	return LEDGER_APPLIED;
}

/*
 * Applies a change, all or nothing.
 */
enum ledger_outcome
ledger_apply(const struct change_request *request)
{
	enum ledger_outcome outcome;

	pthread_mutex_lock(&lock);
	outcome = apply_locked(request);
	pthread_mutex_unlock(&lock);
	return outcome;
}

/*
 * Reads both figures of one moment.
 */
void
ledger_read(const char *user_id, size_t user_length, amount *quota, amount *used)
{
	const struct user *user;

	pthread_mutex_lock(&lock);
	user = find_user(user_id, user_length, false);
	*quota = user != NULL ? user->quota : 0;
	*used = user != NULL ? user->used : 0;
	pthread_mutex_unlock(&lock);
}

/*
 * Sets figures without a line in the list.
 */
void
ledger_set(const char *user_id, size_t user_length, const amount *quota, const amount *used)
{
	struct user *user;

	pthread_mutex_lock(&lock);
	journal_set(user_id, user_length, quota, used);
	user = find_user(user_id, user_length, true);
	if (quota != NULL)
		user->quota = *quota;
	if (used != NULL)
		user->used = *used;
	pthread_mutex_unlock(&lock);
}

/*
 * Switches idempotency; the table of keys is made from the list, so nothing pays for it before.
 */
void
ledger_honour_idempotency(bool honour)
{
	pthread_mutex_lock(&lock);
	journal_honour_idempotency(honour);
	if (honour && !honour_keys)
	{
		for (uint64_t i = 0; i < change_count; i++)
		{
			if (changes[i].idempotency_key != NULL)
				see_key(changes[i].idempotency_key);
		}
	}
	else if (!honour)
		table_clear(&seen_keys);
	honour_keys = honour;
	pthread_mutex_unlock(&lock);
}

/*
 * Forgets everything but whether idempotency is honoured.
 */
void
ledger_reset(void)
{
	pthread_mutex_lock(&lock);
	for (uint64_t i = 0; i < change_count; i++)
		free(changes[i].idempotency_key);
	free(changes);
	changes = NULL;
	change_count = 0;
	change_room = 0;
	generation_now++;
	table_clear(&seen_keys);
	table_clear(&users);
	journal_reset();
	journal_honour_idempotency(honour_keys);
	pthread_mutex_unlock(&lock);
}

/*
 * Counts changes and users of one moment.
 */
void
ledger_count(uint64_t *applied, uint64_t *known_users)
{
	pthread_mutex_lock(&lock);
	*applied = change_count;
	*known_users = users.used;
	pthread_mutex_unlock(&lock);
}

/*
 * Takes what a listing needs to be about one moment.
 */
uint64_t
ledger_generation(uint64_t *last)
{
	uint64_t generation;

	pthread_mutex_lock(&lock);
	*last = change_count;
	generation = generation_now;
	pthread_mutex_unlock(&lock);
	return generation;
}

/*
 * One change as an object of JSON.
 */
static void
list_json(const struct change *change, uint64_t number, int scale, struct text *text)
{
	char value[AMOUNT_TEXT];
	char balance[AMOUNT_TEXT];

	amount_write(change->value, scale, value);
	amount_write(change->balance_after, scale, balance);
	text_format(text, "{\"seq\":%llu,\"user\":", (unsigned long long) number);
	text_add_json(text, change->user->id, change->user->name.length);
	text_format(text, ",\"action\":\"%s\",\"amount\":\"%s\",\"idempotency_key\":",
				action_name(change->action), value);
	if (change->idempotency_key != NULL)
		text_add_json(text, change->idempotency_key, strlen(change->idempotency_key));
	else
		text_add_string(text, "null");
	text_format(text, ",\"balance_after\":\"%s\"}", balance);
}

/*
 * One change as a line of COPY's text format.
 */
static void
list_tsv(const struct change *change, uint64_t number, int scale, struct text *text)
{
	char value[AMOUNT_TEXT];
	char balance[AMOUNT_TEXT];

	amount_write(change->value, scale, value);
	amount_write(change->balance_after, scale, balance);
	text_format(text, "%llu\t", (unsigned long long) number);
	text_add_copy(text, change->user->id, change->user->name.length);
	text_format(text, "\t%s\t%s\t", action_name(change->action), value);
	if (change->idempotency_key != NULL)
		text_add_copy(text, change->idempotency_key, strlen(change->idempotency_key));
	else
		text_add_string(text, "\\N");
	text_format(text, "\t%s\n", balance);
}

/*
 * Appends some lines of the list; the lock is held only while they are written.
 */
bool
ledger_list(enum ledger_format format, int scale, uint64_t generation, uint64_t *next,
			uint64_t last, size_t enough, struct text *text)
{
	bool same;

	pthread_mutex_lock(&lock);
	same = generation == generation_now;
	while (same && *next <= last && text->length < enough)
	{
		const struct change *change = &changes[*next - 1];

		if (format == LEDGER_TSV)
			list_tsv(change, *next, scale, text);
		else
		{
			list_json(change, *next, scale, text);
			text_add_string(text, *next < last ? ",\n" : "\n");
		}
		(*next)++;
	}
	pthread_mutex_unlock(&lock);
	return same;
}
