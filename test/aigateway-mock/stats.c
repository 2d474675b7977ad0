/*
 * stats.c
 *		Counters of what came and how it ended.
 */
#include "stats.h"

#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>

#include <json-c/json.h>

#define STATUS_LIMIT 1000

static atomic_uint_fast64_t accepted_connections;
static atomic_int_fast64_t  open_connections;
static atomic_uint_fast64_t struck_faults;
static atomic_int_fast64_t  last_request; /* when it began; 0: there was none */
static atomic_uint_fast64_t requests[ACTION_COUNT][STATUS_LIMIT];

/*
 * Adds one; the counters stand alone, so no order between them is kept.
 */
static void
count(atomic_uint_fast64_t *counter)
{
	atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

/*
 * Counts a connection.
 */
void
stats_connection(bool accepted)
{
	if (accepted)
		count(&accepted_connections);
	atomic_fetch_add_explicit(&open_connections, accepted ? 1 : -1, memory_order_relaxed);
}

/*
 * Counts a request.
 */
void
stats_request(enum action action, unsigned status, int64_t began)
{
	last_request = began;
	count(&requests[action][status < STATUS_LIMIT ? status : 0]);
}

/*
 * Counts a fault.
 */
void
stats_fault(void)
{
	count(&struck_faults);
}

/*
 * The requests of one action by status, NULL if there were none; adds to the number of all.
 */
static json_object *
list_action(enum action action, uint64_t *all)
{
	json_object *list = NULL;

	for (unsigned status = 0; status < STATUS_LIMIT; status++)
	{
		uint64_t number = requests[action][status];
		char     name[16];

		if (number == 0)
			continue;
		if (list == NULL)
			list = json_object_new_object();
		snprintf(name, sizeof(name), "%u", status);
		json_object_object_add(list, status > 0 ? name : "none",
							   json_object_new_int64((int64_t) number));
		*all += number;
	}
	return list;
}

/*
 * Appends all counters.
 */
void
stats_list(struct text *text)
{
	json_object *stats = json_object_new_object();
	json_object *by_action = json_object_new_object();
	uint64_t     applied;
	uint64_t     users;
	uint64_t     all = 0;
	uint64_t     queries = 0;

	for (enum action action = 0; action < ACTION_COUNT; action++)
	{
		uint64_t     number = 0;
		json_object *list = list_action(action, &number);

		if (list != NULL)
			json_object_object_add(by_action, action_name(action), list);
		all += number;
		if (action_only_reads(action))
			queries += number;
	}
	ledger_count(&applied, &users);
	json_object_object_add(stats, "applied", json_object_new_int64((int64_t) applied));
	json_object_object_add(stats, "users", json_object_new_int64((int64_t) users));
	json_object_object_add(stats, "requests", json_object_new_int64((int64_t) all));
	json_object_object_add(stats, "queries", json_object_new_int64((int64_t) queries));
	json_object_object_add(stats, "by_action", by_action);
	json_object_object_add(stats, "faults", json_object_new_int64((int64_t) struck_faults));
	json_object_object_add(stats, "connections",
						   json_object_new_int64((int64_t) accepted_connections));
	json_object_object_add(stats, "last_request", json_object_new_int64(last_request));
	json_object_object_add(stats, "open_connections", json_object_new_int64(open_connections));
	text_add_string(text, json_object_to_json_string_ext(stats, JSON_C_TO_STRING_PLAIN));
	text_add_string(text, "\n");
	json_object_put(stats);
}

/*
 * Starts counting anew.
 */
void
stats_reset(void)
{
	accepted_connections = 0;
	struck_faults = 0;
	last_request = 0;
	for (enum action action = 0; action < ACTION_COUNT; action++)
	{
		for (unsigned status = 0; status < STATUS_LIMIT; status++)
			requests[action][status] = 0;
	}
}
